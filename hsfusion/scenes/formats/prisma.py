"""PRISMA level 2 products (``.he5``).

Layout and scaling: ASI, PRISMA Products Specification Document, issue 2.3 (2020). The corner coordinates are centres of
pixels: so say the notes of prismaread (https://github.com/IREA-CNR-MI/prismaread, NEWS), and EnMAP-Box reads them so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from hsfusion.scenes.formats.cube_file import BandTable, CubeFile
from hsfusion.scenes.formats.hdf5_file import (
    UNIT_SPECIFIED,
    H5Pixels,
    attribute_number,
    attribute_numbers,
    attribute_text,
    bad,
    member,
    members,
    opened,
    pixels_of,
)
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window

_AXES = ("rows", "layers", "cols")
_SWATHS = "HDFEOS/SWATHS"
_METRES = 30.0  # side of a pixel of level 2D
_INVALID = 1  # code of the error matrix: "invalid pixel from L1 product"


def is_prisma(file: h5py.File) -> bool:
    """Whether a file is a product of PRISMA, by the names of its swaths."""
    return bool(_swaths(file))


def _swaths(file: h5py.File) -> list[str]:
    swaths = member(file, _SWATHS)
    return [name for name in members(swaths) if name.startswith("PRS_L")] if isinstance(swaths, h5py.Group) else []


def open_prisma(path: Path) -> CubeFile:
    """Opens the hyperspectral cube of a level 2B, 2C or 2D product: both detectors, wavelengths ascending.

    Physical value = min + DN (max - min) / 65535, with minimum and maximum of each detector. Bands that the product
    flags as absent (flag 0 or wavelength 0) are left out. No data: pixels of which every number is 0, and single
    numbers that the error matrix calls invalid (1); values that it calls negative or saturated stay.

    Raises:
        InputError: if it is of level 1, or something is missing or contradictory.
    """
    with opened(path) as file:
        level = _level(file)
        detectors = [_detector(file, path, level, name) for name in ("Vnir", "Swir")]
        grids = [detector.cube.grid for detector in detectors]
        if grids[0] != grids[1]:
            raise bad(file, "rows and columns of VNIR and SWIR", grids, "the same")
        wavelength = np.concatenate([detector.wavelength for detector in detectors])
        kept = np.flatnonzero(np.concatenate([detector.kept for detector in detectors]))
        if not len(kept):
            raise bad(file, "List_Cw_Vnir_Flags, List_Cw_Swir_Flags", "all 0", "at least one band")
        order = kept[np.argsort(wavelength[kept], kind="stable")]
        geobox = _place(file, grids[0]) if level == "L2D" else GeoBox(grids[0])
        acquired = attribute_text(file, "Product_StartTime")
    parts = tuple((detector.cube, detector.errors) for detector in detectors)
    pixels = PrismaPixels(parts, tuple(order.tolist()))
    return CubeFile(
        path=path,
        format=f"PRISMA {level} HDF5 {pixels.dtype.name}",
        pixels=pixels,
        layers=len(order),
        geobox=geobox,
        table=BandTable(
            wavelength[order],
            np.concatenate([detector.fwhm for detector in detectors])[order],
            unit="Nanometers",
            source=f"List_Cw_Vnir, List_Cw_Swir ({UNIT_SPECIFIED})",
        ),
        gain=np.concatenate([np.full(len(detector.kept), detector.gain) for detector in detectors])[order],
        offset=np.concatenate([np.full(len(detector.kept), detector.offset) for detector in detectors])[order],
        facts=_facts(level, acquired, detectors),
    )


def _facts(level: str, acquired: str | None, detectors: list[_Detector]) -> dict[str, str]:
    left_out = [int((~detector.kept).sum()) for detector in detectors]
    return {
        "sensor": "PRISMA",
        "product": level,
        "quantity": "radiance" if level == "L2B" else "reflectance",
        "acquired": acquired or "not named",
        "left out": f"{left_out[0]} VNIR and {left_out[1]} SWIR bands with flag 0 or wavelength 0",
        "place": "corner coordinates are centres of pixels" if level == "L2D" else "sensor geometry, not on a map",
        "no data": "pixels that are 0 in all bands"
        + (", and invalid ones of the error matrix" if all(detector.errors for detector in detectors) else ""),
    }


@dataclass(frozen=True)
class PrismaPixels:
    """The stored numbers of both detectors.

    Attributes:
        parts: cube and, where there is one, error matrix of each detector.
        order: index of each layer in the layers of all cubes, one after the other.
    """

    parts: tuple[tuple[H5Pixels, H5Pixels | None], ...]
    order: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored numbers."""
        return self.parts[0][0].dtype

    def read(self, window: Window) -> NDArray:
        """Reads a window: (layers, height, width), masked where there are no data.

        Raises:
            InputError: if the file is damaged.
        """
        stored = np.concatenate([cube.read(window) for cube, _ in self.parts])[list(self.order)]
        flags = [
            np.zeros((cube.layers, window.height, window.width), bool)
            if errors is None
            else errors.read(window) == _INVALID
            for cube, errors in self.parts
        ]
        mask = np.concatenate(flags)[list(self.order)]
        mask |= (stored == 0).all(axis=0)
        return np.ma.MaskedArray(stored, mask)


@dataclass(frozen=True, eq=False)
class _Detector:
    cube: H5Pixels
    errors: H5Pixels | None
    wavelength: NDArray[np.float64]
    fwhm: NDArray[np.float64]
    kept: NDArray[np.bool_]
    gain: float
    offset: float


def _level(file: h5py.File) -> str:
    levels = sorted({match[1] for name in _swaths(file) if (match := re.match(r"PRS_(L\w+?)_", name))})
    if len(levels) != 1 or levels[0] not in ("L2B", "L2C", "L2D"):
        raise bad(
            file,
            "product level",
            ", ".join(levels) or "not named",
            "L2B, L2C or L2D (radiance of level 1 is scaled in another way)",
            "order the level 2D product of the same scene",
        )
    return levels[0]


def _detector(file: h5py.File, path: Path, level: str, name: str) -> _Detector:
    fields = f"{_SWATHS}/PRS_{level}_HCO/Data Fields/{name.upper()}"
    cube = pixels_of(file, path, f"{fields}_Cube", axes=_AXES)
    if cube.dtype != np.uint16:
        raise bad(file, f"number type of {name.upper()}_Cube", cube.dtype, "uint16")
    matrix = f"{fields}_PIXEL_L2_ERR_MATRIX"
    errors = None if member(file, matrix) is None else pixels_of(file, path, matrix, axes=_AXES)
    if errors is not None and errors.shape != cube.shape:
        raise bad(file, f"shape of {matrix}", errors.shape, f"{cube.shape} as the cube")
    wavelength, fwhm, flags = (
        _needed(file, f"List_{kind}", cube.layers) for kind in (f"Cw_{name}", f"Fwhm_{name}", f"Cw_{name}_Flags")
    )
    low, high = (_needed(file, f"L2Scale{name}{end}", 1)[0] for end in ("Min", "Max"))
    if not high > low:
        raise bad(file, f"L2Scale{name}Max", high, f"more than L2Scale{name}Min, {low}")
    kept = (flags != 0) & (wavelength != 0)
    return _Detector(cube, errors, wavelength, fwhm, kept, (high - low) / 65535, low)


def _needed(file: h5py.File, name: str, length: int) -> NDArray[np.float64]:
    numbers = attribute_numbers(file, name, length=length)
    if numbers is None:
        raise bad(file, name, "missing", f"{length} numbers")
    return numbers


def _place(file: h5py.File, grid: tuple[int, int]) -> GeoBox:
    """Place from the centres of the first and the last pixel, which have to be a pixel less apart than the grid is."""
    east, north, last_east, last_north = (
        _needed(file, f"Product_{corner}", 1)[0]
        for corner in ("ULcorner_easting", "ULcorner_northing", "LRcorner_easting", "LRcorner_northing")
    )
    spans, steps = np.array([last_east - east, north - last_north]), np.array([grid[1], grid[0]]) - 1
    if abs(spans - steps * _METRES).max() > _METRES / 10:
        raise bad(
            file,
            "Product_LRcorner minus Product_ULcorner (east, north)",
            spans.tolist(),
            f"{(steps * _METRES).tolist()}, from the first pixel to the last",
        )
    code = attribute_number(file, "Epsg_Code")
    if code is None or not code.is_integer():
        raise bad(file, "Epsg_Code", "missing" if code is None else code, "the number of a UTM zone")
    try:
        with rasterio.Env():  # or GDAL would print
            crs = CRS.from_epsg(int(code)).to_wkt()
    except CRSError as error:
        raise bad(file, "Epsg_Code", code, "the number of a UTM zone") from error
    half = _METRES / 2
    return GeoBox(grid, Affine(_METRES, 0, east - half, 0, -_METRES, north + half), crs)
