"""EMIT level 2A reflectance and level 1B radiance (``.nc``).

Layout: NASA LP DAAC, EMIT L2A User Guide (DOI 10.5067/EMIT/EMITL2ARFL.001) and L1B User Guide
(DOI 10.5067/EMIT/EMITL1BRAD.001).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import BandTable, CubeFile
from hsfusion.scenes.formats.hdf5_file import (
    UNIT_SPECIFIED,
    H5Pixels,
    attribute_number,
    attribute_numbers,
    attribute_text,
    bad,
    member,
    opened,
    pixels_of,
    small_array,
)
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window

_CUBES = {"reflectance": "L2A", "radiance": "L1B"}
_PARAMETERS = "sensor_band_parameters"
_GRIDS = ("map", "sensor")
_MOST_AT_ONCE = 2**27  # bytes of the swath held while a window of the map is put together


def is_emit(file: h5py.File) -> bool:
    """Whether a file is a product of EMIT with a cube, by the instrument it names."""
    return attribute_text(file, "instrument") == "EMIT" and any(member(file, name) is not None for name in _CUBES)


def open_emit(path: Path, *, grid: str | None = None) -> CubeFile:
    """Opens the cube of a product.

    Args:
        path: the file.
        grid: ``map`` for the geographic grid of the product's lookup table, with no data outside the swath;
            ``sensor`` for the swath as seen, without a place. None: ``map`` where the file has the table, else
            ``sensor``.

    Raises:
        InputError: if the file is damaged or contradicts itself, or the grid is none of these or not in the file.
    """
    if grid not in (None, *_GRIDS):
        raise InputError(path, "scene.grid", printable(grid), " or ".join(_GRIDS), "correct scene.grid")
    with opened(path) as file:
        name = next(name for name in _CUBES if member(file, name) is not None)
        dataset = member(file, name)
        nodata = None if dataset is None else attribute_number(dataset, "_FillValue")
        swath = pixels_of(file, path, name, axes=("rows", "cols", "layers"), fill=nodata)
        if swath.dtype.kind != "f":
            raise bad(file, f"number type of {name}", swath.dtype, "float32")
        grid = grid or ("map" if member(file, "location/glt_x") is not None else "sensor")
        pixels = _on_map(file, path, swath) if grid == "map" else swath
        geobox = _place(file, pixels.glt_x.grid) if isinstance(pixels, EmitMapPixels) else GeoBox(swath.grid)
        table = _band_table(file, swath.layers)
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
    """The swath put on the map: each pixel of the map names its row and column of the swath, from 1, or none (0).

    Attributes:
        swath: numbers as seen by the sensor.
        glt_x: column of the swath for each pixel of the map.
        glt_y: row of the swath.
        none: further number that names no pixel, the fill value of the tables.
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
        """Reads a window of the map: (layers, height, width), NaN outside the swath.

        Raises:
            InputError: if the file is damaged, or its table names pixels that the swath does not have.
        """
        cols, rows = (table.read(window)[0].astype(np.int64) for table in (self.glt_x, self.glt_y))
        for index in (cols, rows):
            index[index == self.none] = 0
        self._check(rows, cols)
        values = np.full((self.swath.layers, *rows.shape), np.nan, self.dtype)
        inside = np.flatnonzero(rows)
        inside = inside[np.argsort(rows.flat[inside], kind="stable")]
        flat = values.reshape(len(values), -1)
        for part in self._stripes(rows.flat[inside], cols.flat[inside]):
            row, col = rows.flat[inside[part]] - 1, cols.flat[inside[part]] - 1
            top, left = int(row.min()), int(col.min())
            block = self.swath.read(Window(top, left, int(row.max()) - top + 1, int(col.max()) - left + 1))
            flat[:, inside[part]] = block[:, row - top, col - left]
        return values

    def _stripes(self, rows: NDArray, cols: NDArray) -> list[slice]:
        """Parts of pixels, sorted by row, of which the swath need not be held all at once."""
        if not len(rows):
            return []
        width = int(cols.max() - cols.min()) + 1
        height = max(1, _MOST_AT_ONCE // (width * self.swath.layers * self.dtype.itemsize))
        starts = np.searchsorted(rows, np.arange(rows[0], rows[-1] + 1, height))
        edges = [*starts.tolist(), len(rows)]
        return [slice(a, b) for a, b in pairwise(edges) if b > a]

    def _check(self, rows: NDArray, cols: NDArray) -> None:
        height, width = self.swath.grid
        wrong = (rows < 0) | (cols < 0) | (rows > height) | (cols > width) | ((rows == 0) != (cols == 0))
        if wrong.any():
            raise InputError(
                self.swath.path,
                "location/glt_y, location/glt_x",
                f"{rows[wrong][0]}, {cols[wrong][0]}",
                f"0, 0 or a pixel from 1, 1 to {height}, {width}",
                "get the file anew, or add scene.grid=sensor",
            )


def _on_map(file: h5py.File, path: Path, swath: H5Pixels) -> EmitMapPixels:
    if member(file, "location/glt_x") is None:
        raise bad(file, "location/glt_x", "missing", "the lookup table of the map", "add scene.grid=sensor")
    tables = [pixels_of(file, path, f"location/glt_{axis}", axes=("rows", "cols")) for axis in "xy"]
    for table in tables:
        if table.dtype.kind not in "iu":
            raise bad(file, f"number type of {table.name}", table.dtype, "integers")
    if tables[0].shape != tables[1].shape:
        raise bad(file, "shapes of glt_x and glt_y", (tables[0].shape, tables[1].shape), "the same")
    dataset = member(file, "location/glt_x")
    assert dataset is not None, "described above"
    return EmitMapPixels(swath, tables[0], tables[1], attribute_number(dataset, "_FillValue"))


def _place(file: h5py.File, grid: tuple[int, int]) -> GeoBox:
    numbers = attribute_numbers(file, "geotransform", length=6)
    if numbers is None:
        raise bad(file, "geotransform", "missing", "6 numbers", "get the file anew, or add scene.grid=sensor")
    transform = Affine.from_gdal(*numbers.tolist())
    if transform.determinant == 0:
        raise bad(file, "geotransform", numbers.tolist(), "pixels that have a size")
    reference = attribute_text(file, "spatial_ref")
    try:
        with rasterio.Env():  # or GDAL would print
            return GeoBox(grid, transform, CRS.from_wkt(reference or "").to_wkt())
    except CRSError as error:
        raise bad(file, "spatial_ref", (reference or "missing")[:60], "a coordinate system as WKT") from error


def _band_table(file: h5py.File, layers: int) -> BandTable:
    wavelength, fwhm, good = (
        small_array(file, f"{_PARAMETERS}/{name}") for name in ("wavelengths", "fwhm", "good_wavelengths")
    )
    for name, values in (("wavelengths", wavelength), ("fwhm", fwhm), ("good_wavelengths", good)):
        if values is not None and values.shape != (layers,):
            raise bad(file, f"shape of {_PARAMETERS}/{name}", values.shape, f"{(layers,)}, one for each band")
    if good is not None and not np.isin(good, (0, 1)).all():
        raise bad(file, f"{_PARAMETERS}/good_wavelengths", good[~np.isin(good, (0, 1))][0], "0 or 1")
    source, unit = f"{_PARAMETERS}/wavelengths", None
    dataset = member(file, source)
    if dataset is not None:
        unit = attribute_text(dataset, "units")
        if not unit:
            source, unit = f"{source} ({UNIT_SPECIFIED})", "Nanometers"
    return BandTable(wavelength, fwhm, None if good is None else good == 1, unit=unit, source=source)
