"""Reading maps back: a disk that is full, and a CRS that a file cannot hold, may raise nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.scenes.geobox import GeoBox, crs_name
from hsfusion.scenes.scene import Window
from hsfusion.scenes.sidecars import read_category_names, sidecar_of


@dataclass(frozen=True)
class Look:
    """How a raster is stored.

    Attributes:
        dtype: number type.
        count: number of layers.
        nodata: value that means «no data», or None.
        scale: what a stored number is multiplied by to get its value.
        tags: tags of the file.
        colormap: RGBA of each value; may be empty.
        layer_names: description of each layer; may be empty.
        categories: name of each value from 0 on; may be empty.
    """

    dtype: np.dtype
    count: int
    nodata: float | None
    scale: float
    tags: Mapping[str, str]
    colormap: Mapping[int, tuple[int, int, int, int]]
    layer_names: tuple[str, ...]
    categories: tuple[str, ...] = ()


Blocks = Callable[[], Iterator[tuple[Window, NDArray]]]


def verify(path: Path, blocks: Blocks, *, geobox: GeoBox, look: Look, overviews: Sequence[int] | None = None) -> None:
    """Makes sure that a GeoTIFF holds what it has to, and lies on the disk.

    A full disk can tear the smaller copies alone, and raises nothing: they are read, too.

    Args:
        path: the file.
        blocks: what it holds, see :func:`write_blocks`.
        geobox: the grid.
        look: how it is stored.
        overviews: by what factors smaller copies are smaller; None for whichever there are.

    Raises:
        InputError: if the CRS does not read back.
        EnvironmentFailure: if anything else does not.
    """
    try:
        for name in filter(Path.exists, (path, sidecar_of(path))):
            with open(name, "rb+") as raw:
                os.fsync(raw.fileno())
        with rasterio.open(path.absolute(), driver="GTiff") as file:
            for window, values in blocks():
                if not np.array_equal(file.read(window=block_of(window)), values, equal_nan=values.dtype.kind == "f"):
                    raise OSError("it reads back differently")
            levels = file.overviews(1)
            _check_look(file, geobox, look)
        if tuple(read_category_names(path)) != look.categories:
            raise OSError("class names read back differently")
        if overviews is not None and levels != list(overviews):
            raise OSError("smaller copies are missing")
        for level in range(len(levels)):
            options = {"driver": "GTiff", "overview_level": level}
            with rasterio.open(path.absolute(), **options) as file:
                for _, block in file.block_windows(1):
                    file.read(window=block)
    except (RasterioError, CPLE_BaseError, OSError, ValueError) as error:
        raise write_failure(path, error) from error


def _check_look(file: rasterio.DatasetReader, geobox: GeoBox, look: Look) -> None:
    """Makes sure that place, names, colours and the like read back as they were given."""
    if file.crs != (None if geobox.crs is None else CRS.from_wkt(geobox.crs)):
        raise InputError(
            file.name,
            field="CRS",
            value="none" if geobox.crs is None else crs_name(geobox.crs),
            expected="one that a GeoTIFF can hold",
            fix="reproject the scene",
        )
    transform = np.array(geobox.transform)
    nodata = look.nodata
    table = file.colormap(1) if look.colormap else {}
    tags = file.tags()
    same = {
        "transform": np.allclose(np.array(file.transform), transform, rtol=1e-12, atol=0),
        "nodata": file.nodata == nodata or (nodata is not None and np.isnan([file.nodata or 0, nodata]).all()),
        "colours": all(table.get(value) == color for value, color in look.colormap.items()),
        "tags": all(tags.get(name) == text for name, text in look.tags.items()),
        "names of layers": not look.layer_names or file.descriptions == look.layer_names,
        "scale": set(file.scales) == {look.scale},
    }
    if lost := [name for name, equal in same.items() if not equal]:
        raise OSError(f"{lost[0]} read back differently")


def block_of(window: Window) -> RasterioWindow:
    """A window as rasterio has it."""
    return RasterioWindow(window.col, window.row, window.width, window.height)  # pyright: ignore[reportCallIssue]


def write_failure(path: Path, error: Exception) -> EnvironmentFailure:
    """The error of a file that cannot be written, or not be read back."""
    return EnvironmentFailure(f"{path}: cannot be written ({error}). Fix: free space or choose another folder.")
