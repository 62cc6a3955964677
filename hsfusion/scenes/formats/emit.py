"""EMIT level 2A reflectance and level 1B radiance (``.nc``).

Layout: NASA LP DAAC, EMIT L2A User Guide (DOI 10.5067/EMIT/EMITL2ARFL.001) and L1B User Guide
(DOI 10.5067/EMIT/EMITL1BRAD.001).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import BandTable, CubeFile, crs_as_wkt
from hsfusion.scenes.formats.hdf5 import (
    H5Pixels,
    attribute_number,
    attribute_numbers,
    attribute_text,
    band_list,
    pixels_of,
    product_bands,
    resolve,
)
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window

_CUBES = {"reflectance": "L2A", "radiance": "L1B"}
_PARAMETERS = "sensor_band_parameters"
_GRIDS = ("map", "sensor")


def is_emit(file: h5py.File) -> bool:
    """Whether a file is a product of EMIT with a cube, by the instrument it names."""
    return attribute_text(file, "instrument") == "EMIT" and any(resolve(file, name) is not None for name in _CUBES)


def open_emit(path: Path, *, grid: str | None = None) -> CubeFile:
    """Opens the cube of a product.

    Its grid is ``map``, that of the product's lookup table, with no data outside the swath, or ``sensor``, the
    swath as seen, without a place. None: ``map`` where the file has the table, else ``sensor``.
    """
    if grid not in (None, *_GRIDS):
        raise InputError(path, "scene.grid", printable(grid), " or ".join(_GRIDS), "correct scene.grid")
    with h5py.File(path, "r") as file:
        name = next(name for name in _CUBES if resolve(file, name) is not None)
        dataset = resolve(file, name)
        nodata = None if dataset is None else attribute_number(dataset, "_FillValue")
        swath = pixels_of(file, name, ("rows", "cols", "layers"), fill=nodata)
        grid = grid or ("map" if resolve(file, "location/glt_x") is not None else "sensor")
        pixels, geobox = _on_map(file, swath) if grid == "map" else (swath, GeoBox(swath.grid))
        table = _band_table(file)
        facts = {
            "sensor": "EMIT",
            "product": attribute_text(file, "title") or _CUBES[name],
            "quantity": name,
            "acquired": attribute_text(file, "time_coverage_start") or "not named",
            "grid": grid,
        }
    return CubeFile(
        path=path,
        format=f"EMIT {_CUBES[name]} netCDF {swath.dtype.name}",
        pixels=pixels,
        layers=swath.layers,
        geobox=geobox,
        table=table,
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

    def read(self, window: Window) -> NDArray:
        """Reads a window of the map: (layers, height, width), NaN outside the swath."""
        cols, rows = (table.read(window)[0].astype(np.int64) for table in (self.glt_x, self.glt_y))
        for index in (cols, rows):
            index[index == self.none] = 0
        height, width = self.swath.grid
        wrong = (rows < 0) | (cols < 0) | (rows > height) | (cols > width) | ((rows == 0) != (cols == 0))
        if wrong.any():
            found, expected = f"{rows[wrong][0]}, {cols[wrong][0]}", f"0, 0 or a pixel from 1, 1 to {height}, {width}"
            fix = "get the file anew, or add scene.grid=sensor"
            raise InputError(self.swath.path, "location/glt_y, location/glt_x", found, expected, fix)
        values = np.full((self.swath.layers, *rows.shape), np.nan, self.dtype)
        inside = rows > 0
        if inside.any():
            row, col = rows[inside] - 1, cols[inside] - 1
            top, left = int(row.min()), int(col.min())
            block = self.swath.read(Window(top, left, int(row.max()) - top + 1, int(col.max()) - left + 1))
            values[:, inside] = block[:, row - top, col - left]
        return values


def _on_map(file: h5py.File, swath: H5Pixels) -> tuple[EmitMapPixels, GeoBox]:
    x, y = (pixels_of(file, f"location/glt_{axis}", ("rows", "cols")) for axis in "xy")
    transform = Affine.from_gdal(*attribute_numbers(file, "geotransform", length=6).tolist())
    crs = crs_as_wkt(file.filename, "spatial_ref", attribute_text(file, "spatial_ref") or "")
    none = attribute_number(file["location/glt_x"], "_FillValue")  # pyright: ignore[reportArgumentType]
    return EmitMapPixels(swath, x, y, none), GeoBox(x.grid, transform, crs)


def _band_table(file: h5py.File) -> BandTable:
    table = product_bands(file, f"{_PARAMETERS}/wavelengths", f"{_PARAMETERS}/fwhm")
    good = band_list(file, f"{_PARAMETERS}/good_wavelengths")
    return replace(table, good=None if good is None else good == 1)
