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
from affine import Affine
from numpy.typing import NDArray

from hsfusion.scenes.formats.cube_file import BandTable, CubeFile, crs_as_wkt
from hsfusion.scenes.formats.hdf5 import H5Pixels, attribute_numbers, attribute_text, format_error, pixels_of, resolve
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window

_AXES = ("rows", "layers", "cols")
_SWATHS = "HDFEOS/SWATHS"
_METRES = 30.0  # side of a pixel of level 2D
_SOURCE = "List_Cw_Vnir, List_Cw_Swir (unit by the product's specification)"
_INVALID = 1  # code of the error matrix: "invalid pixel from L1 product"


def is_prisma(file: h5py.File) -> bool:
    """Whether a file is a product of PRISMA, by the names of its swaths."""
    return bool(_swaths(file))


def _swaths(file: h5py.File) -> list[str]:
    swaths = resolve(file, _SWATHS)
    return [name for name in map(str, swaths) if name.startswith("PRS_L")] if isinstance(swaths, h5py.Group) else []


def open_prisma(path: Path) -> CubeFile:
    """Opens the hyperspectral cube of a level 2B, 2C or 2D product: both detectors, wavelengths ascending.

    Physical value = min + DN (max - min) / 65535, with minimum and maximum of each detector. Bands that the product
    flags as absent (flag 0 or wavelength 0) are left out. No data: pixels of which every number is 0, and single
    numbers that the error matrix calls invalid (1); values that it calls negative or saturated stay.
    """
    with h5py.File(path, "r") as file:
        level = _level(file)
        detectors = [_detector(file, level, name) for name in ("Vnir", "Swir")]
        grid, other = (detector.cube.grid for detector in detectors)
        wavelength, fwhm, gain, offset, kept = np.concatenate([detector.numbers for detector in detectors], axis=1)
        kept = np.flatnonzero(kept)
        if grid != other or not len(kept):
            found = f"{grid} and {other} pixels, {len(kept)} bands that are not flagged as absent"
            raise format_error(file, "cubes of VNIR and SWIR", found, "one grid, and at least one band")
        order = kept[np.argsort(wavelength[kept], kind="stable")]
        geobox = _place(file, grid) if level == "L2D" else GeoBox(grid)
        acquired = attribute_text(file, "Product_StartTime")
    parts = tuple((detector.cube, detector.errors) for detector in detectors)
    pixels = PrismaPixels(parts, tuple(order.tolist()))
    invalid = ", and invalid ones of the error matrix" if all(errors for _, errors in parts) else ""
    facts = {
        "sensor": "PRISMA",
        "product": level,
        "quantity": "radiance" if level == "L2B" else "reflectance",
        "acquired": acquired or "not named",
        "left out": " and ".join(detector.left_out for detector in detectors) + " bands with flag 0 or wavelength 0",
        "place": "corner coordinates are centres of pixels" if level == "L2D" else "sensor geometry, not on a map",
        "no data": f"pixels that are 0 in all bands{invalid}",
    }
    return CubeFile(
        path=path,
        format=f"PRISMA {level} HDF5 {pixels.dtype.name}",
        pixels=pixels,
        layers=len(order),
        geobox=geobox,
        table=BandTable(wavelength[order], fwhm[order], unit="Nanometers", source=_SOURCE),
        gain=gain[order],
        offset=offset[order],
        facts=facts,
    )


@dataclass(frozen=True)
class PrismaPixels:
    """Cube and, where there is one, error matrix of each detector; ``order``: of each layer, its index in all cubes."""

    parts: tuple[tuple[H5Pixels, H5Pixels | None], ...]
    order: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored numbers."""
        return self.parts[0][0].dtype

    def read(self, window: Window) -> NDArray:
        """Reads a window: (layers, height, width), masked where there are no data."""
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
    numbers: NDArray[np.float64]  # (5, bands): wavelength, FWHM, gain, offset, whether it is kept
    left_out: str


def _level(file: h5py.File) -> str:
    levels = sorted({match[1] for name in _swaths(file) if (match := re.match(r"PRS_(L\w+?)_", name))})
    if levels not in (["L2B"], ["L2C"], ["L2D"]):
        found = ", ".join(levels) or "not named"
        expected = "L2B, L2C or L2D (radiance of level 1 is scaled in another way)"
        raise format_error(file, "product level", found, expected, "order the level 2D product of the same scene")
    return levels[0]


def _detector(file: h5py.File, level: str, name: str) -> _Detector:
    fields = f"{_SWATHS}/PRS_{level}_HCO/Data Fields/{name.upper()}"
    cube, matrix = pixels_of(file, f"{fields}_Cube", _AXES), f"{fields}_PIXEL_L2_ERR_MATRIX"
    errors = None if resolve(file, matrix) is None else pixels_of(file, matrix, _AXES)
    wavelength, fwhm, flags = (
        attribute_numbers(file, f"List_{kind}", length=cube.layers)
        for kind in (f"Cw_{name}", f"Fwhm_{name}", f"Cw_{name}_Flags")
    )
    low, high = (_number(file, f"L2Scale{name}{end}") for end in ("Min", "Max"))
    if cube.dtype != np.uint16 or (errors is not None and errors.shape != cube.shape) or not high > low:
        found = f"{cube.shape} of {cube.dtype}, scaled from {low} to {high}"
        expected = "uint16, an error matrix of the same shape, and L2ScaleMin below L2ScaleMax"
        raise format_error(file, f"{name.upper()}_Cube (L2Scale{name})", found, expected)
    kept = (flags != 0) & (wavelength != 0)
    gain, offset = np.full(cube.layers, (high - low) / 65535), np.full(cube.layers, low)
    numbers = np.stack([wavelength, fwhm, gain, offset, kept])
    return _Detector(cube, errors, numbers, f"{int((~kept).sum())} {name.upper()}")


def _number(file: h5py.File, name: str) -> float:
    return float(attribute_numbers(file, name, length=1)[0])


def _place(file: h5py.File, grid: tuple[int, int]) -> GeoBox:
    """Place from the centres of the first and the last pixel, which have to be a pixel less apart than the grid is."""
    east, north = _number(file, "Product_ULcorner_easting"), _number(file, "Product_ULcorner_northing")
    last_east, last_north = _number(file, "Product_LRcorner_easting"), _number(file, "Product_LRcorner_northing")
    spans, steps = np.array([last_east - east, north - last_north]), np.array([grid[1], grid[0]]) - 1
    if abs(spans - steps * _METRES).max() > _METRES / 10:
        expected = f"{(steps * _METRES).tolist()}, from the first pixel to the last"
        raise format_error(file, "Product_LRcorner minus Product_ULcorner (east, north)", spans.tolist(), expected)
    half, crs = _METRES / 2, crs_as_wkt(file.filename, "Epsg_Code", int(_number(file, "Epsg_Code")))
    return GeoBox(grid, Affine(_METRES, 0, east - half, 0, -_METRES, north + half), crs)
