"""Writing maps: GeoTIFFs that are whole or not there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from hsfusion.errors import EnvironmentFailure
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.legend import Legend
from hsfusion.scenes.scene import Window


def write_class_map(
    path: Path, codes: NDArray[np.integer], *, legend: Legend, geobox: GeoBox, tags: Mapping[str, str] | None = None
) -> None:
    """Writes class codes as a GeoTIFF with colour table, class names and nodata 0.

    The names stand in the tags ``class_<code>``, and as GDAL category names in ``<path>.aux.xml``, where QGIS and
    GDAL look for them.

    Args:
        path: where to.
        codes: (H, W) codes of the legend, 0 where there is no class.
        legend: the classes.
        geobox: the grid.
        tags: more tags.

    Raises:
        EnvironmentFailure: if the file cannot be written.
    """
    look = class_look(legend, tags or {})
    write_raster(
        path, codes.astype(look.dtype), geobox=geobox, nodata=look.nodata, tags=look.tags, colormap=look.colormap
    )
    sidecar = Path(f"{path}.aux.xml")
    try:
        sidecar.write_text(category_names(legend), encoding="utf-8")
    except OSError as error:
        raise _failure(sidecar, error) from error


def class_look(legend: Legend, tags: Mapping[str, str]) -> Look:
    """How class codes are stored: with colour table and class names, 0 where there is no class."""
    colormap = {code: _rgba(color) for code, color in zip(legend.codes, legend.colors, strict=True)}
    names = {f"class_{code}": name for code, name in zip(legend.codes, legend.names, strict=True)}
    dtype = np.dtype(np.uint8 if legend.codes[-1] <= 255 else np.uint16)
    return Look(dtype, 1, 0, 1.0, {**names, **tags}, {0: (0, 0, 0, 0), **colormap}, ())


def category_names(legend: Legend) -> str:
    """The content of an ``.aux.xml`` file with the class names, where QGIS and GDAL look for them."""
    names = dict(zip(legend.codes, legend.names, strict=True))
    categories = "".join(f"<Category>{escape(names.get(i, ''))}</Category>" for i in range(legend.codes[-1] + 1))
    band = f'<PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames></PAMRasterBand>'
    return f"<PAMDataset>{band}</PAMDataset>\n"


def write_raster(
    path: Path,
    values: NDArray,
    *,
    geobox: GeoBox,
    nodata: float | None = None,
    tags: Mapping[str, str] | None = None,
    colormap: Mapping[int, tuple[int, int, int, int]] | None = None,
    layer_names: Sequence[str] = (),
) -> None:
    """Writes a tiled GeoTIFF with DEFLATE, reads it back, and only then gives it its name.

    Args:
        path: where to.
        values: (H, W) or (layers, H, W), uint8, uint16 or float32.
        geobox: the grid.
        nodata: value that means «no data».
        tags: tags of the file.
        colormap: RGBA of each value.
        layer_names: description of each layer, or nothing.

    Raises:
        EnvironmentFailure: if the file cannot be written, or reads back differently.
    """
    layers = values if values.ndim == 3 else values[None]
    look = Look(layers.dtype, len(layers), nodata, 1.0, tags or {}, colormap or {}, tuple(layer_names))
    part = part_of(path)
    try:
        write_blocks(part, lambda: iter([(Window(0, 0, *geobox.shape), layers)]), geobox=geobox, look=look)
        part.replace(path)
    except OSError as error:
        raise _failure(path, error) from error
    finally:
        part.unlink(missing_ok=True)


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
    """

    dtype: np.dtype
    count: int
    nodata: float | None
    scale: float
    tags: Mapping[str, str]
    colormap: Mapping[int, tuple[int, int, int, int]]
    layer_names: tuple[str, ...]


Blocks = Callable[[], Iterator[tuple[Window, NDArray]]]


def part_of(path: Path) -> Path:
    """The name that a file has until it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def write_blocks(path: Path, blocks: Blocks, *, geobox: GeoBox, look: Look, overviews: str | None = None) -> None:
    """Writes a tiled GeoTIFF with DEFLATE block by block, in one thread, and reads it back.

    The same blocks give the same bytes.

    Args:
        path: where to.
        blocks: gives windows and their values (layers, h, w), always the same; it is called twice.
        geobox: the grid.
        look: how to store it.
        overviews: how smaller copies of the raster come about, ``mode`` or ``average``; None for no copies.

    Raises:
        EnvironmentFailure: if the file cannot be written, or reads back differently.
    """
    profile = {
        "driver": "GTiff",
        **{"count": look.count, "height": geobox.shape[0], "width": geobox.shape[1]},
        **{"dtype": look.dtype, "nodata": look.nodata, "bigtiff": "if_safer"},
        **{"crs": geobox.crs, "transform": geobox.transform, "compress": "deflate", "tiled": True},
    }
    try:
        with _no_georeference_is_fine(), rasterio.open(path.absolute(), "w", **profile) as file:
            for window, values in blocks():
                file.write(values, window=_block(window))
            for i, name in enumerate(look.layer_names, start=1):
                file.set_band_description(i, name)
            file.update_tags(**look.tags)
            if look.scale != 1:
                file.scales = [look.scale] * look.count
            if look.colormap:
                file.write_colormap(1, look.colormap)
        factors = [] if overviews is None else _add_overviews(path, geobox.shape, Resampling[overviews])
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise _failure(path, error) from error
    verify(path, blocks, overviews=factors)


def copy_as_cog(path: Path, cog: Path, blocks: Blocks, *, overviews: str) -> None:
    """Copies a GeoTIFF into a cloud-optimised one, and reads that back.

    Args:
        path: the GeoTIFF.
        cog: where to.
        blocks: what it holds, see :func:`write_blocks`.
        overviews: how smaller copies come about, ``mode`` or ``average``.

    Raises:
        EnvironmentFailure: if the file cannot be written, or reads back differently.
    """
    options = {"compress": "deflate", "resampling": overviews, "bigtiff": "if_safer"}
    try:
        with _no_georeference_is_fine():
            rasterio.shutil.copy(path, cog, driver="COG", **options)
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise _failure(cog, error) from error
    verify(cog, blocks)


def verify(path: Path, blocks: Blocks, *, overviews: Sequence[int] | None = None) -> None:
    """Makes sure that a GeoTIFF holds what it has to, and lies on the disk.

    A full disk can tear the smaller copies alone, and raises nothing: they are read, too.

    Args:
        path: the file.
        blocks: what it holds, see :func:`write_blocks`.
        overviews: by what factors smaller copies are smaller; None for whichever there are.

    Raises:
        EnvironmentFailure: if it does not.
    """
    try:
        with open(path, "rb+") as raw:
            os.fsync(raw.fileno())
        with _no_georeference_is_fine(), rasterio.open(path.absolute(), driver="GTiff") as file:
            for window, values in blocks():
                if not np.array_equal(file.read(window=_block(window)), values, equal_nan=values.dtype.kind == "f"):
                    raise OSError("it reads back differently")
            levels = file.overviews(1)
        if overviews is not None and levels != list(overviews):
            raise OSError("smaller copies are missing")
        for level in range(len(levels)):
            options = {"driver": "GTiff", "overview_level": level}
            with _no_georeference_is_fine(), rasterio.open(path.absolute(), **options) as file:
                for _, block in file.block_windows(1):
                    file.read(window=block)
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise _failure(path, error) from error


def read_reduced(path: Path, *, most: int) -> NDArray:
    """Reads a raster of one layer with at most so many rows and columns: every n-th pixel."""
    with _no_georeference_is_fine(), rasterio.open(path.absolute(), driver="GTiff") as file:
        step = -(-max(file.shape) // most)
        shape = -(-file.height // step), -(-file.width // step)
        return file.read(1, out_shape=shape, resampling=Resampling.nearest)


def _add_overviews(path: Path, shape: tuple[int, int], resampling: Resampling) -> list[int]:
    factors = [2**i for i in range(1, 16) if max(shape) >> (i - 1) > 256]
    if factors:
        with _no_georeference_is_fine(), rasterio.open(path.absolute(), "r+", driver="GTiff") as file:
            file.build_overviews(factors, resampling)
    return factors


def _block(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col, window.row, window.width, window.height)  # pyright: ignore[reportCallIssue]


def _failure(path: Path, error: Exception) -> EnvironmentFailure:
    return EnvironmentFailure(f"{path}: cannot be written ({error}). Fix: free space or choose another folder.")


@contextmanager
def _no_georeference_is_fine() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _rgba(color: str) -> tuple[int, int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue, 255
