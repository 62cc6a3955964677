"""Writing maps: GeoTIFFs that are whole or not there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from hsfusion.errors import InputError
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.legend import Legend
from hsfusion.scenes.scene import Window
from hsfusion.scenes.sidecars import sidecar_of, write_sidecar
from hsfusion.scenes.verified import Blocks, Look, block_of, verify, write_failure


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
    _write_whole(path, codes.astype(look.dtype)[None], geobox=geobox, look=look)


def class_look(legend: Legend, tags: Mapping[str, str]) -> Look:
    """How class codes are stored: with colour table and class names, 0 where there is no class."""
    colormap = {code: _rgba(color) for code, color in zip(legend.codes, legend.colors, strict=True)}
    names = {f"class_{code}": name for code, name in zip(legend.codes, legend.names, strict=True)}
    dtype = np.dtype(np.uint8 if legend.codes[-1] <= 255 else np.uint16)
    by_code = dict(zip(legend.codes, legend.names, strict=True))
    categories = tuple(by_code.get(i, "") for i in range(legend.codes[-1] + 1))
    return Look(dtype, 1, 0, 1.0, {**names, **tags}, {0: (0, 0, 0, 0), **colormap}, (), categories)


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
    _write_whole(path, layers, geobox=geobox, look=look)


def _write_whole(path: Path, layers: NDArray, *, geobox: GeoBox, look: Look) -> None:
    part = part_of(path)
    try:
        with no_georeference_is_fine():
            write_blocks(part, lambda: iter([(Window(0, 0, *geobox.shape), layers)]), geobox=geobox, look=look)
        publish(path)
    except OSError as error:
        raise write_failure(path, error) from error
    finally:
        discard(path)


def part_of(path: Path) -> Path:
    """The name that a file has until it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def publish(path: Path) -> None:
    """Gives a file that is whole, and what lies beside it, their names; what was beside an older one goes.

    Raises:
        OSError: if the system refuses.
    """
    sidecar, name = sidecar_of(part_of(path)), sidecar_of(path)
    if sidecar.exists():
        sidecar.replace(name)
    else:
        name.unlink(missing_ok=True)  # GDAL would take the CRS from it
    part_of(path).replace(path)


def discard(path: Path) -> None:
    """Deletes what there is of a file that did not get its name."""
    for part in (part_of(path), sidecar_of(part_of(path))):
        part.unlink(missing_ok=True)


def write_blocks(path: Path, blocks: Blocks, *, geobox: GeoBox, look: Look, overviews: str | None = None) -> None:
    """Writes a tiled GeoTIFF with DEFLATE block by block, in one thread, and reads it back.

    The same blocks give the same bytes. What a GeoTIFF cannot hold goes to ``<path>.aux.xml``. Call it within
    :func:`no_georeference_is_fine`, as all functions here that take blocks.

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
        with rasterio.open(path.absolute(), "w", **profile) as file:
            for window, values in blocks():
                file.write(values, window=block_of(window))
            for i, name in enumerate(look.layer_names, start=1):
                file.set_band_description(i, name)
            file.update_tags(**look.tags)
            if look.scale != 1:
                file.scales = [look.scale] * look.count
            if look.colormap:
                file.write_colormap(1, look.colormap)
        factors = [] if overviews is None else _add_overviews(path, geobox.shape, Resampling[overviews])
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise write_failure(path, error) from error
    _complete(path, blocks, geobox=geobox, look=look, overviews=factors)


def copy_as_cog(path: Path, cog: Path, blocks: Blocks, *, geobox: GeoBox, look: Look, overviews: str) -> None:
    """Copies a GeoTIFF into a cloud-optimised one, and reads that back.

    Args:
        path: the GeoTIFF.
        cog: where to.
        blocks: what it holds, see :func:`write_blocks`.
        geobox: the grid.
        look: how it is stored.
        overviews: how smaller copies come about, ``mode`` or ``average``.

    Raises:
        EnvironmentFailure: if the file cannot be written, or reads back differently.
    """
    options = {"compress": "deflate", "resampling": overviews, "bigtiff": "if_safer"}
    try:
        rasterio.shutil.copy(path, cog, driver="COG", **options)
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise write_failure(cog, error) from error
    _complete(cog, blocks, geobox=geobox, look=look, overviews=None)


def read_class_map(path: Path) -> NDArray[np.int64]:
    """Codes (H, W) of a map that :func:`write_class_map` wrote.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        with no_georeference_is_fine(), rasterio.open(path, driver="GTiff") as file:
            return file.read(1).astype(np.int64)
    except RasterioError as error:
        raise InputError(
            path, field="content", value=f"unreadable ({error})", expected="a class map", fix="train again"
        ) from error


def read_reduced(path: Path, *, most: int) -> NDArray:
    """Reads a raster of one layer with at most so many rows and columns: every n-th pixel."""
    with no_georeference_is_fine(), rasterio.open(path.absolute(), driver="GTiff") as file:
        step = -(-max(file.shape) // most)
        shape = -(-file.height // step), -(-file.width // step)
        return file.read(1, out_shape=shape, resampling=Resampling.nearest)


def _complete(path: Path, blocks: Blocks, *, geobox: GeoBox, look: Look, overviews: Sequence[int] | None) -> None:
    """Writes what goes beside a GeoTIFF, and verifies both."""
    try:
        write_sidecar(path, crs=geobox.crs, categories=look.categories)
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise write_failure(path, error) from error
    verify(path, blocks, geobox=geobox, look=look, overviews=overviews)


def _add_overviews(path: Path, shape: tuple[int, int], resampling: Resampling) -> list[int]:
    factors = [2**i for i in range(1, 16) if max(shape) >> (i - 1) > 256]
    if factors:
        with rasterio.open(path.absolute(), "r+", driver="GTiff") as file:
            file.build_overviews(factors, resampling)
    return factors


@contextmanager
def no_georeference_is_fine() -> Iterator[None]:
    """Keeps rasterio quiet about rasters without a place. Warnings are those of all threads: enter it in one only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _rgba(color: str) -> tuple[int, int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue, 255
