"""Other ways to read the stored numbers of an ENVI file, for the benchmark."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow
from spectral.io import envi

from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.scene import Window

_CODES = {"int16": 2, "uint16": 12, "float32": 4}
_AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}

Read = Callable[[Window], NDArray]


def write_envi(path: Path, cube: NDArray, *, interleave: str) -> None:
    """Writes a cube (C, H, W) of int16, uint16 or float32 and its header."""
    cube.transpose(_AXES[interleave]).tofile(path)
    bands, lines, samples = cube.shape
    path.with_suffix(".hdr").write_text(
        f"ENVI\nsamples = {samples}\nlines = {lines}\nbands = {bands}\nheader offset = 0\n"
        f"data type = {_CODES[cube.dtype.name]}\ninterleave = {interleave}\nbyte order = 0\n"
    )


def write_geotiff(path: Path, cube: NDArray) -> None:
    """Writes a cube (C, H, W) as a tiled GeoTIFF, pixel by pixel, uncompressed."""
    bands, lines, samples = cube.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        profile = {"driver": "GTiff", "count": bands, "height": lines, "width": samples, "dtype": cube.dtype}
        with rasterio.open(path, "w", tiled=True, interleave="pixel", **profile) as file:
            file.write(cube)


@contextmanager
def ways_to_read(path: Path) -> Iterator[dict[str, Read]]:
    """Copies of a window, as stored: those of hsfusion, rasterio and ``spectral``, the latter with their files open.

    ``hsfusion float32`` is what a scene's ``read`` gives: (C, height, width) float32, NaN where there are no data.
    """
    file = open_cube_file(path)
    cube: Any = envi.open(str(path.with_suffix(".hdr")), str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        source = rasterio.open(path, driver="ENVI")
    with source:

        def by_rasterio(window: Window) -> NDArray:
            row, col, height, width = window
            return source.read(window=RasterioWindow(col, row, width, height))  # pyright: ignore[reportCallIssue]

        def by_spectral(window: Window) -> NDArray:
            row, col, height, width = window
            return np.array(cube.read_subregion((row, row + height), (col, col + width)))  # a view of a memory map

        yield {
            "hsfusion": lambda window: np.array(file.pixels.read(window), order="K"),
            "hsfusion float32": file.read,
            "rasterio": by_rasterio,
            "spectral": by_spectral,
        }
