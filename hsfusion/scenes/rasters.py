"""Reading pixels from files: NumPy arrays and GeoTIFF, told apart by content and never by name."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from hsfusion.errors import InputError
from hsfusion.scenes.envi import EnviRaster, envi_header
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import ArrayRaster, Raster, Window, finite_or_nan

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY = b"\x93NUMPY"


def file_format(path: str | Path) -> str:
    """Says what a file is by its first bytes, or by those of the header beside it: ``npy``, ``tiff`` or ``envi``.

    Raises:
        InputError: if it cannot be read or is something else.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(6)
    except OSError as error:
        raise InputError(
            path,
            field="file",
            value=error.strerror,
            expected="a readable raster",
            fix="check the path (relative paths start at the folder of the command)",
        ) from error
    if start == _NPY:
        return "npy"
    if start[:4] in _TIFF:
        return "tiff"
    if envi_header(Path(path)) is not None:
        return "envi"
    raise InputError(
        path,
        field="content",
        value=f"{start!r}...",
        expected="a NumPy .npy, a GeoTIFF, or an ENVI file",
        fix="convert the file",
    )


def load_npy(path: str | Path) -> NDArray:
    """Opens a ``.npy`` file as a read-only memory map.

    Raises:
        InputError: if it is damaged or holds something else than numbers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(
            path, field="array", value="unreadable", expected="a whole .npy file", fix=f"write it anew ({error})"
        ) from error
    if array.dtype.kind not in "iufb":
        raise InputError(path, field="dtype", value=array.dtype, expected="real numbers", fix="convert the array")
    return array


def open_tiff(path: str | Path) -> rasterio.DatasetReader:
    """Opens a GeoTIFF, and nothing else, by its driver.

    Raises:
        InputError: if GDAL cannot.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # many cubes have no place, and that is fine
            return rasterio.open(path, driver="GTiff")
    except RasterioError as error:
        raise InputError(
            path, field="content", value="unreadable", expected="a whole GeoTIFF", fix=f"write it anew ({error})"
        ) from error


class TiffRaster:
    """The layers of a GeoTIFF, read window by window.

    Args:
        path: the file.

    Raises:
        InputError: if it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open_tiff(path) as source:
            self.layers = source.count
            self.geobox = tiff_geobox(source)

    def read(self, window: Window) -> NDArray[np.float32]:
        """Reads a window: (layers, height, width) float32, NaN where there are no data."""
        with open_tiff(self.path) as source:
            block = RasterioWindow(window.col, window.row, window.width, window.height)  # pyright: ignore[reportCallIssue]
            try:
                values = source.read(window=block, masked=True, out_dtype=np.float32).filled(np.nan)
            except RasterioError as error:
                raise InputError(
                    self.path,
                    field="pixels",
                    value="unreadable",
                    expected="a whole file",
                    fix=f"copy it anew ({error})",
                ) from error
        return finite_or_nan(values)


def open_raster(path: str | Path) -> Raster:
    """Opens the layers of a GeoTIFF, of an ENVI file, or of a ``.npy`` array (H, W) or (H, W, layers).

    Raises:
        InputError: if the file is neither.
    """
    kind = file_format(path)
    if kind == "tiff":
        return TiffRaster(path)
    if kind == "envi":
        return EnviRaster(path)
    array = load_npy(path)
    if array.ndim not in (2, 3):
        raise InputError(
            path, field="shape", value=array.shape, expected="axes (H, W) or (H, W, layers)", fix="reorder it"
        )
    return ArrayRaster(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def read_single_band(path: str | Path) -> tuple[NDArray, GeoBox]:
    """Reads a raster of one band.

    Returns:
        (H, W) values with nodata as 0, and their grid.

    Raises:
        InputError: if the file has another number of bands or axes, or cannot be read.
    """
    if file_format(path) == "npy":
        array = np.asarray(load_npy(path))
        shape = array.shape
        geobox = GeoBox((shape[0], shape[1])) if array.ndim == 2 else None
    else:
        with open_tiff(path) as source:
            shape = (source.count, source.height, source.width)
            array = _first_band(path, source)
            geobox = tiff_geobox(source) if source.count == 1 else None
    if geobox is None:
        raise InputError(path, field="shape", value=shape, expected="one band (H, W)", fix="keep one layer of labels")
    return array, geobox


def _first_band(path: str | Path, source: rasterio.DatasetReader) -> NDArray:
    try:
        return source.read(1, masked=True).filled(0)
    except RasterioError as error:
        raise InputError(
            path, field="pixels", value="unreadable", expected="a whole file", fix=f"copy it anew ({error})"
        ) from error


def tiff_geobox(source: rasterio.DatasetReader) -> GeoBox:
    """Grid of an open GeoTIFF."""
    return GeoBox((source.height, source.width), source.transform, source.crs.to_wkt() if source.crs else None)
