"""Products of HDF5 and netCDF-4: EMIT, PRISMA, NEON.

EMIT level 2A reflectance and level 1B radiance (``.nc``): NASA LP DAAC, EMIT L2A User Guide
(DOI 10.5067/EMIT/EMITL2ARFL.001) and L1B User Guide (DOI 10.5067/EMIT/EMITL1BRAD.001).
PRISMA level 2 (``.he5``): ASI, PRISMA Products Specification Document, issue 2.3 (2020). The corner coordinates are
centres of pixels: so say the notes of prismaread (https://github.com/IREA-CNR-MI/prismaread, NEWS), and EnMAP-Box reads
them so.
Reflectance of the NEON airborne observation platform (``.h5``): NEON, Imaging Spectrometer Reflectance, DP1.30006.001,
DP3.30006.001 and .002 (data.neonscience.org).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.arrays import (
    H5Pixels,
    attribute_number,
    attribute_numbers,
    attribute_text,
    band_list,
    format_error,
    one_number,
    pixels_of,
    product_bands,
    resolve,
    text_of,
)
from hsfusion.scenes.formats.cube_file import BandTable, CubeFile, crs_as_wkt
from hsfusion.scenes.formats.envi import map_transform
from hsfusion.scenes.geobox import IDENTITY, GeoBox, Window
from hsfusion.scenes.scene import take_layers

_EMIT_CUBES = {"reflectance": "L2A", "radiance": "L1B"}
_EMIT_PARAMETERS = "sensor_band_parameters"
_EMIT_GRIDS = ("map", "sensor")
_PRISMA_AXES = ("rows", "layers", "cols")
_PRISMA_SWATHS = "HDFEOS/SWATHS"
_PRISMA_METRES = 30.0  # side of a pixel of level 2D
_PRISMA_SOURCE = "List_Cw_Vnir, List_Cw_Swir (unit by the product's specification)"
_PRISMA_INVALID = 1  # code of the error matrix: "invalid pixel from L1 product"
_NEON_CUBE = "Reflectance/Reflectance_Data"
_NEON_METADATA = "Reflectance/Metadata"


def is_emit(file: h5py.File) -> bool:
    """Whether a file is a product of EMIT with a cube, by the instrument it names."""
    return attribute_text(file, "instrument") == "EMIT" and any(resolve(file, name) is not None for name in _EMIT_CUBES)


def open_emit(path: Path, *, grid: str | None = None) -> CubeFile:
    """Opens the cube of a product.

    Its grid is ``map``, that of the product's lookup table, with no data outside the swath, or ``sensor``, the
    swath as seen, without a place. None: ``map`` where the file has the table, else ``sensor``.
    """
    if grid not in (None, *_EMIT_GRIDS):
        raise InputError(path, "scene.grid", printable(grid), " or ".join(_EMIT_GRIDS), "correct scene.grid")
    with h5py.File(path, "r") as file:
        name = next(name for name in _EMIT_CUBES if resolve(file, name) is not None)
        dataset = resolve(file, name)
        nodata = None if dataset is None else attribute_number(dataset, "_FillValue")
        swath = pixels_of(file, name, ("rows", "cols", "layers"), fill=nodata)
        grid = grid or ("map" if resolve(file, "location/glt_x") is not None else "sensor")
        pixels, geobox = _emit_map(file, swath) if grid == "map" else (swath, GeoBox(swath.grid))
        table = product_bands(file, f"{_EMIT_PARAMETERS}/wavelengths", f"{_EMIT_PARAMETERS}/fwhm")
        good = band_list(file, f"{_EMIT_PARAMETERS}/good_wavelengths")
        facts = {
            "sensor": "EMIT",
            "product": attribute_text(file, "title") or _EMIT_CUBES[name],
            "quantity": name,
            "acquired": attribute_text(file, "time_coverage_start") or "not given",
            "grid": grid,
        }
    return CubeFile(
        path=path,
        format=f"EMIT {_EMIT_CUBES[name]} netCDF {swath.dtype.name}",
        pixels=pixels,
        layers=swath.layers,
        geobox=geobox,
        table=replace(table, good=None if good is None else good == 1),
        nodata=nodata,
        facts=facts,
    )


@dataclass(frozen=True)
class EmitMapPixels:
    """The swath put on the map by tables of the column (``glt_x``) and row (``glt_y``) of the swath of each map pixel.

    Both count from 1; 0, or the tables' own fill value ``none``, is outside the swath.
    """

    swath: H5Pixels
    glt_x: H5Pixels
    glt_y: H5Pixels
    none: float | None

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored numbers, which are floating."""
        return self.swath.dtype

    def read(self, window: Window, layers: NDArray[np.int64] | None = None) -> NDArray:
        """Reads a window of the map, see :meth:`Pixels.read`: NaN outside the swath."""
        cols, rows = (table.read(window)[0].astype(np.int64) for table in (self.glt_x, self.glt_y))
        for index in (cols, rows):
            index[index == self.none] = 0
        height, width = self.swath.grid
        wrong = (rows < 0) | (cols < 0) | (rows > height) | (cols > width) | ((rows == 0) != (cols == 0))
        if wrong.any():
            value, expected = f"{rows[wrong][0]}, {cols[wrong][0]}", f"0, 0 or a pixel from 1, 1 to {height}, {width}"
            fix = "download or copy the file again, or add scene.grid=sensor"
            raise InputError(self.swath.path, "location/glt_y, location/glt_x", value, expected, fix)
        values = np.full((self.swath.layers if layers is None else len(layers), *rows.shape), np.nan, self.dtype)
        inside = rows > 0
        if inside.any():
            row, col = rows[inside] - 1, cols[inside] - 1
            part = Window.around(row, col)
            values[:, inside] = self.swath.read(part, layers)[:, row - part.row, col - part.col]
        return values


def _emit_map(file: h5py.File, swath: H5Pixels) -> tuple[EmitMapPixels, GeoBox]:
    x, y = (pixels_of(file, f"location/glt_{axis}", ("rows", "cols")) for axis in "xy")
    transform = Affine.from_gdal(*attribute_numbers(file, "geotransform", length=6).tolist())
    crs = crs_as_wkt(file.filename, "spatial_ref", attribute_text(file, "spatial_ref") or "")
    none = attribute_number(file["location/glt_x"], "_FillValue")  # pyright: ignore[reportArgumentType]
    return EmitMapPixels(swath, x, y, none), GeoBox(x.grid, transform, crs)


def prisma_swaths(file: h5py.File) -> list[str]:
    """The swaths of a product of PRISMA, by their names; none in other files."""
    swaths = resolve(file, _PRISMA_SWATHS)
    return [name for name in map(str, swaths) if name.startswith("PRS_L")] if isinstance(swaths, h5py.Group) else []


def open_prisma(path: Path) -> CubeFile:
    """Opens the hyperspectral cube of a level 2B, 2C or 2D product: both detectors, wavelengths ascending.

    Physical value = min + DN (max - min) / 65535, with minimum and maximum of each detector. Bands that the product
    flags as absent (flag 0 or wavelength 0) are left out. No data: pixels of which every number is 0, and single
    numbers that the error matrix calls invalid (1); values that it calls negative or saturated stay.
    """
    with h5py.File(path, "r") as file:
        level = _prisma_level(file)
        detectors = {name: _prisma_detector(file, level, name) for name in ("Vnir", "Swir")}
        grid, other = (cube.grid for cube, _, _ in detectors.values())
        wavelength, fwhm, gain, offset, kept = np.concatenate([of for *_, of in detectors.values()], axis=1)
        kept = np.flatnonzero(kept)
        if grid != other or not len(kept):
            value = f"{grid} and {other} pixels, {len(kept)} bands that are not flagged as absent"
            raise format_error(file, "cubes of VNIR and SWIR", value, "one grid, and at least one band")
        order = kept[np.argsort(wavelength[kept], kind="stable")]
        geobox = _prisma_place(file, grid) if level == "L2D" else GeoBox(grid)
        acquired = attribute_text(file, "Product_StartTime")
    parts = tuple((cube, errors) for cube, errors, _ in detectors.values())
    left_out = (f"{int((of[-1] == 0).sum())} {name.upper()}" for name, (*_, of) in detectors.items())
    pixels = PrismaPixels(parts, tuple(order.tolist()))
    invalid = ", and invalid ones of the error matrix" if all(errors for _, errors in parts) else ""
    facts = {
        "sensor": "PRISMA",
        "product": level,
        "quantity": "radiance" if level == "L2B" else "reflectance",
        "acquired": acquired or "not given",
        "left out": " and ".join(left_out) + " bands with flag 0 or wavelength 0",
        "place": "corner coordinates are centres of pixels" if level == "L2D" else "sensor geometry, not on a map",
        "no data": f"pixels that are 0 in all bands{invalid}",
    }
    return CubeFile(
        path=path,
        format=f"PRISMA {level} HDF5 {pixels.dtype.name}",
        pixels=pixels,
        layers=len(order),
        geobox=geobox,
        table=BandTable(wavelength[order], fwhm[order], unit="Nanometers", source=_PRISMA_SOURCE),
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

    def read(self, window: Window, layers: NDArray[np.int64] | None = None) -> NDArray:
        """See :meth:`Pixels.read`."""
        stored = np.concatenate([cube.read(window) for cube, _ in self.parts])[list(self.order)]
        flags = [
            np.zeros((cube.layers, window.height, window.width), bool)
            if errors is None
            else errors.read(window) == _PRISMA_INVALID
            for cube, errors in self.parts
        ]
        mask = np.concatenate(flags)[list(self.order)]
        mask |= (mask | (stored == 0)).all(axis=0)
        return take_layers(np.ma.MaskedArray(stored, mask), layers)


def _prisma_level(file: h5py.File) -> str:
    levels = sorted({match[1] for name in prisma_swaths(file) if (match := re.match(r"PRS_(L\w+?)_", name))})
    if levels not in (["L2B"], ["L2C"], ["L2D"]):
        value = ", ".join(levels) or "not given"
        expected = "L2B, L2C or L2D (radiance of level 1 is scaled in another way)"
        raise format_error(file, "product level", value, expected, "order the level 2D product of the same scene")
    return levels[0]


def _prisma_detector(file: h5py.File, level: str, name: str) -> tuple[H5Pixels, H5Pixels | None, NDArray[np.float64]]:
    """Cube, error matrix, and (5, bands) wavelength, FWHM, gain, offset and whether the band is kept."""
    fields = f"{_PRISMA_SWATHS}/PRS_{level}_HCO/Data Fields/{name.upper()}"
    cube, matrix = pixels_of(file, f"{fields}_Cube", _PRISMA_AXES), f"{fields}_PIXEL_L2_ERR_MATRIX"
    errors = None if resolve(file, matrix) is None else pixels_of(file, matrix, _PRISMA_AXES)
    wavelength, fwhm, flags = (
        attribute_numbers(file, f"List_{kind}", length=cube.layers)
        for kind in (f"Cw_{name}", f"Fwhm_{name}", f"Cw_{name}_Flags")
    )
    low, high = (one_number(file, f"L2Scale{name}{end}") for end in ("Min", "Max"))
    if cube.dtype != np.uint16 or (errors is not None and errors.shape != cube.shape) or not high > low:
        value = f"{cube.shape} of {cube.dtype}, scaled from {low} to {high}"
        expected = "uint16, an error matrix of the same shape, and L2ScaleMin below L2ScaleMax"
        raise format_error(file, f"{name.upper()}_Cube (L2Scale{name})", value, expected)
    kept = (flags != 0) & (wavelength != 0)
    gain, offset = np.full(cube.layers, (high - low) / 65535), np.full(cube.layers, low)
    return cube, errors, np.stack([wavelength, fwhm, gain, offset, kept])


def _prisma_place(file: h5py.File, grid: tuple[int, int]) -> GeoBox:
    """Place from the centres of the first and the last pixel, which have to be a pixel less apart than the grid is."""
    east, north = one_number(file, "Product_ULcorner_easting"), one_number(file, "Product_ULcorner_northing")
    last_east = one_number(file, "Product_LRcorner_easting")
    last_north = one_number(file, "Product_LRcorner_northing")
    spans, steps = np.array([last_east - east, north - last_north]), np.array([grid[1], grid[0]]) - 1
    if abs(spans - steps * _PRISMA_METRES).max() > _PRISMA_METRES / 10:
        expected = f"{(steps * _PRISMA_METRES).tolist()}, from the first pixel to the last"
        raise format_error(file, "Product_LRcorner minus Product_ULcorner (east, north)", spans.tolist(), expected)
    half, crs = _PRISMA_METRES / 2, crs_as_wkt(file.filename, "Epsg_Code", int(one_number(file, "Epsg_Code")))
    return GeoBox(grid, Affine(_PRISMA_METRES, 0, east - half, 0, -_PRISMA_METRES, north + half), crs)


def neon_sites(file: h5py.File) -> list[str]:
    """The sites of a reflectance product of NEON, by its layout; none in other files."""
    return [name for name in map(str, file) if isinstance(resolve(file, f"{name}/{_NEON_CUBE}"), h5py.Dataset)]


def open_neon(path: Path) -> CubeFile:
    """Opens a reflectance product: reflectance = stored number / ``Scale_Factor``.

    Bands inside ``Band_Window_1_Nanometers`` and ``Band_Window_2_Nanometers``, ends included, are not good.
    """
    with h5py.File(path, "r") as file:
        (site,) = neon_sites(file)
        dataset = resolve(file, f"{site}/{_NEON_CUBE}")
        assert dataset is not None, "the site was found by it"
        scale, nodata = (one_number(dataset, name) for name in ("Scale_Factor", "Data_Ignore_Value"))
        pixels = pixels_of(file, f"{site}/{_NEON_CUBE}", ("rows", "cols", "layers"), fill=nodata)
        table = _neon_bands(file, site)
        geobox = _neon_place(file, site, pixels.grid)
    return CubeFile(
        path=path,
        format=f"NEON AOP HDF5 {pixels.dtype.name}",
        pixels=pixels,
        layers=pixels.layers,
        geobox=geobox,
        table=table,
        nodata=nodata,
        gain=np.full(pixels.layers, 1 / scale),
        facts={"sensor": "NEON AOP", "product": "reflectance", "site": printable(site)},
    )


def _neon_bands(file: h5py.File, site: str) -> BandTable:
    folder = f"{site}/{_NEON_METADATA}/Spectral_Data"
    table = product_bands(file, f"{folder}/Wavelength", f"{folder}/FWHM")
    nm, group = table.wavelength_nm, resolve(file, f"{site}/Reflectance")
    if nm is None or group is None:
        return table
    good = np.ones(len(nm), bool)
    for name in ("Band_Window_1_Nanometers", "Band_Window_2_Nanometers"):
        if name in group.attrs:
            first, last = attribute_numbers(group, name, length=2)
            good &= (nm < first) | (nm > last)
    return replace(table, good=good)


def _neon_place(file: h5py.File, site: str, grid: tuple[int, int]) -> GeoBox:
    folder = f"{site}/{_NEON_METADATA}/Coordinate_System"
    info, code = _neon_text(file, f"{folder}/Map_Info"), _neon_text(file, f"{folder}/EPSG Code")
    crs = None if code is None else crs_as_wkt(file.filename, "EPSG Code", int(code))
    if info is None:
        return GeoBox(grid, IDENTITY, crs)
    return GeoBox(grid, map_transform(file.filename, info.strip("{}").split(",")), crs)


def _neon_text(file: h5py.File, name: str) -> str | None:
    dataset = resolve(file, name)
    value = dataset[()] if isinstance(dataset, h5py.Dataset) else None
    return str(value) if isinstance(value, np.integer) else text_of(value)
