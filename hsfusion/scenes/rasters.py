"""Rasters: maps are written whole or not at all, read back, and measured: the areas of their classes on the ground."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform

from hsfusion.errors import InputError, printable
from hsfusion.publishing import is_sealed, publish, seal
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.geobox import IDENTITY, GeoBox, Window, crs_name
from hsfusion.scenes.legend import PAM, Legend, read_pam, write_pam

# axis in metres and inverse flattening (0 for a sphere); in WKT 1 (SPHEROID) the unit is always metre
_ELLIPSOID = re.compile(
    r'SPHEROID\["[^"]*",([\d.eE+]+),([\d.eE+]+)|ELLIPSOID\["[^"]*",([\d.eE+]+),([\d.eE+]+),LENGTHUNIT\["metre",1[,\]]'
)

_STEP = 8  # rows between those of which the area is computed; that of the others lies on the line between them


@dataclass(frozen=True)
class RasterProfile:
    """How a raster is stored; colour map, names of layers and categories may be empty."""

    dtype: np.dtype
    count: int
    nodata: float | None
    scale: float  # what a stored number is multiplied by to get its value
    tags: Mapping[str, str]
    colormap: Mapping[int, tuple[int, int, int, int]]  # RGBA of each value
    layer_names: tuple[str, ...]
    categories: tuple[str, ...] = ()  # name of each value from 0 on

    def __post_init__(self) -> None:
        """Makes each tag one line and leaves out empty ones, as GDAL would give back less of others."""
        lines = {name: printable(" ".join(text.split()), longest=None) for name, text in self.tags.items()}
        object.__setattr__(self, "tags", {name: line for name, line in lines.items() if line})


#: gives windows and their values (layers, h, w)
Blocks = Callable[[], Iterator[tuple[Window, NDArray]]]


def write_class_map(
    path: Path, codes: NDArray[np.integer], *, legend: Legend, geobox: GeoBox, tags: Mapping[str, str] | None = None
) -> None:
    """Writes class codes (H, W) as a GeoTIFF with colour table, class names and nodata 0, see :func:`write_raster`.

    The names stand in the tags ``class_<code>``, and in ``<path>.aux.xml``, where QGIS and GDAL look for them.
    """
    profile = class_profile(legend, tags or {})
    _write_whole(path, codes.astype(profile.dtype)[None], geobox=geobox, profile=profile)


def class_profile(legend: Legend, tags: Mapping[str, str]) -> RasterProfile:
    """How class codes are stored: with colour table and class names, 0 where there is no class."""
    rgb = (bytes.fromhex(color.removeprefix("#")) for color in legend.colors)
    colormap = {code: (red, green, blue, 255) for code, (red, green, blue) in zip(legend.codes, rgb, strict=True)}
    dtype = np.dtype(np.uint8 if legend.codes[-1] <= 255 else np.uint16)
    by_code = dict(zip(legend.codes, legend.names, strict=True))
    names = {f"class_{code}": name for code, name in by_code.items()}
    categories = tuple(by_code.get(i, "") for i in range(legend.codes[-1] + 1))
    return RasterProfile(dtype, 1, 0, 1.0, {**names, **tags}, {0: (0, 0, 0, 0), **colormap}, (), categories)


def write_raster(
    path: Path,
    values: NDArray,
    *,
    geobox: GeoBox,
    nodata: float | None = None,
    tags: Mapping[str, str] | None = None,
    layer_names: Sequence[str] = (),
) -> None:
    """Writes values (H, W) or (layers, H, W), uint8, uint16 or float32, as a tiled GeoTIFF with DEFLATE.

    It gets its name after it was read back.
    """
    layers = values if values.ndim == 3 else values[None]
    profile = RasterProfile(layers.dtype, len(layers), nodata, 1.0, tags or {}, {}, tuple(layer_names))
    _write_whole(path, layers, geobox=geobox, profile=profile)


def _write_whole(path: Path, layers: NDArray, *, geobox: GeoBox, profile: RasterProfile) -> None:
    blocks = [(geobox.window, layers)]
    with quiet_gdal(), publish_raster(path) as part:
        write_blocks(part, lambda: iter(blocks), geobox=geobox, profile=profile)


#: publishes a raster, and what lies beside it: GDAL would take the CRS from that of an older one
publish_raster = partial(publish, sidecar=PAM)


def write_blocks(
    path: Path, blocks: Blocks, *, geobox: GeoBox, profile: RasterProfile, overviews: str | None = None
) -> None:
    """Writes a tiled GeoTIFF with DEFLATE block by block, in one thread, and reads it back.

    Equal blocks give byte-identical files; they run twice. What a GeoTIFF cannot hold goes to ``<path>.aux.xml``.
    ``overviews`` says how smaller copies come about, ``mode`` or ``average``; None for no copies. Call it, as all
    functions here that take blocks, within :func:`quiet_gdal`.
    """
    height, width = geobox.shape
    options = {"driver": "GTiff", "bigtiff": "if_safer", "compress": "deflate", "tiled": True}
    options |= {"count": profile.count, "height": height, "width": width, "dtype": profile.dtype}
    options |= {"nodata": profile.nodata, "crs": geobox.crs, "transform": geobox.transform}
    with _writing():
        with rasterio.open(path.absolute(), "w", **options) as file:
            for window, values in blocks():
                file.write(values, window=window.slices)
            for i, name in enumerate(profile.layer_names, start=1):
                file.set_band_description(i, name)
            file.update_tags(**profile.tags)
            if profile.scale != 1:
                file.scales = [profile.scale] * profile.count
            if profile.colormap:
                file.write_colormap(1, profile.colormap)
        factors = [2**i for i in range(1, 16) if max(geobox.shape) >> (i - 1) > 256 and overviews is not None]
        if factors:
            with rasterio.open(path.absolute(), "r+", driver="GTiff") as file:
                file.build_overviews(factors, Resampling[overviews or "mode"])
        write_pam(path, crs=geobox.crs, categories=profile.categories)
        seal(path)
    verify_written(path, blocks, geobox=geobox, profile=profile, overviews=factors)


def copy_as_cog(
    path: Path, cog: Path, blocks: Blocks, *, geobox: GeoBox, profile: RasterProfile, overviews: str
) -> None:
    """Copies a GeoTIFF that :func:`write_blocks` wrote into a cloud-optimised one, and reads that back."""
    options = {"compress": "deflate", "resampling": overviews, "bigtiff": "if_safer"}
    with _writing():
        rasterio.shutil.copy(path, cog, driver="COG", **options)
        write_pam(cog, crs=geobox.crs, categories=profile.categories)
        seal(cog)
    verify_written(cog, blocks, geobox=geobox, profile=profile)


def read_class_map(path: Path) -> NDArray[np.int64]:
    """Codes (H, W) of a map that :func:`write_class_map` wrote."""
    file = open_cube_file(path)
    return np.nan_to_num(file.read(file.geobox.window)[0]).astype(np.int64)


def read_reduced(path: Path, *, most: int) -> NDArray:
    """Reads a raster of one layer with at most a number of rows and columns: every n-th pixel."""
    with quiet_gdal(), rasterio.open(path.absolute(), driver="GTiff") as file:
        step = -(-max(file.shape) // most)
        shape = -(-file.height // step), -(-file.width // step)
        return file.read(1, out_shape=shape, resampling=Resampling.nearest)


@contextmanager
def quiet_gdal() -> Iterator[None]:
    """Keeps rasterio quiet about rasters without a place, and libtiff about the disk: it prints beside the exception.

    Warnings and the file descriptor of stderr are those of all threads: enter it in one only.
    """
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with suppress(OSError):  # closed: nobody would see it
            stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
            stack.callback(lambda: (os.dup2(stderr, 2), os.close(stderr), os.close(null)))
            os.dup2(null, 2)
        yield


def verify_written(
    path: Path, blocks: Blocks, *, geobox: GeoBox, profile: RasterProfile, overviews: Sequence[int] | None = None
) -> None:
    """Makes sure that a GeoTIFF holds what it has to; see :func:`write_blocks`.

    A full disk can tear the smaller copies alone, and raises nothing: they are read, too, with the factors
    ``overviews`` (None for any).
    """
    with _writing():
        with rasterio.open(path.absolute(), driver="GTiff") as file:
            if file.crs != (None if geobox.crs is None else CRS.from_wkt(geobox.crs)):
                name = "none" if geobox.crs is None else crs_name(geobox.crs)
                raise InputError(file.name, "CRS", name, "one that a GeoTIFF can hold", "reproject the scene")
            levels = file.overviews(1)
            same = _comparisons(file, blocks, geobox, profile)
        same["digest"] = bool(is_sealed(path))
        same["class names"] = read_pam(path) == profile.categories
        same["smaller copies"] = overviews is None or levels == list(overviews)
        if lost := [name for name, equal in same.items() if not equal]:
            raise OSError(f"{lost[0]} read back differently")
        for level in range(len(levels)):
            options = {"driver": "GTiff", "overview_level": level}
            with rasterio.open(path.absolute(), **options) as file:
                for _, block in file.block_windows(1):
                    file.read(window=block)


def _comparisons(
    file: rasterio.DatasetReader, blocks: Blocks, geobox: GeoBox, profile: RasterProfile
) -> dict[str, bool]:
    """Whether pixels, place, and what says what they mean, read back as they were given."""
    nodata, tags = profile.nodata, file.tags()
    return {
        "pixels": all(
            np.array_equal(file.read(window=window.slices), values, equal_nan=values.dtype.kind == "f")
            for window, values in blocks()
        ),
        "transform": np.allclose(np.array(file.transform), np.array(geobox.transform), rtol=1e-12, atol=0),
        "nodata": file.nodata == nodata or (nodata is not None and bool(np.isnan([file.nodata or 0, nodata]).all())),
        "tags": all(tags.get(name) == text for name, text in profile.tags.items()),
        "scale": set(file.scales) == {profile.scale},
    }


@contextmanager
def _writing() -> Iterator[None]:
    """What rasterio raises where a file cannot be written, or not be read back, as errors of the system."""
    try:
        yield
    except (RasterioError, CPLE_BaseError, ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise OSError(str(error.__cause__ or error)) from error


@dataclass(frozen=True)
class ClassAreas:
    """How much of a map each class covers: pixels (K,), and square metres (K,), NaN where a pixel's size is unknown."""

    pixels: NDArray[np.int64]
    square_metres: NDArray[np.float64]


def class_areas(codes: Iterable[tuple[Window, NDArray[np.integer]]], *, legend: Legend, geobox: GeoBox) -> ClassAreas:
    """Adds up the pixels of each of the K classes, and their areas, over windows and their (1, h, w) codes."""
    size = len(legend.codes)
    place = np.full(2**16, size)  # the last is everything else
    place[list(legend.codes)] = np.arange(size)
    pixels, areas = np.zeros(size, np.int64), np.zeros(size)
    for window, values in codes:
        row = np.arange(window.height)[:, None] * (size + 1)
        occurrences = np.bincount((place[values[0]] + row).ravel(), minlength=window.height * (size + 1))
        counts = occurrences.reshape(window.height, size + 1)[:, :size]  # (h, K)
        each = pixel_areas_m2(geobox, window)[:, None]
        pixels += counts.sum(0)
        areas += np.where(counts > 0, counts * each, 0).sum(0)
    return ClassAreas(pixels, areas)


def pixel_areas_m2(geobox: GeoBox, window: Window) -> NDArray[np.float64]:
    """Area on the ground of the pixel in the middle of each row of a window: (h,) in square metres, NaN where unknown.

    That of its corners in Lambert's azimuthal equal-area projection about the nearer pole, on the ellipsoid of the CRS.
    """
    crs = CRS() if geobox.crs is None else CRS.from_wkt(geobox.crs)
    ellipsoid = _ELLIPSOID.search(crs.to_wkt()) if crs.is_geographic or crs.is_projected else None
    if ellipsoid is None or geobox.transform == IDENTITY:
        return np.full(window.height, np.nan)
    major, inverse = (float(number) for number in ellipsoid.groups() if number is not None)
    left = window.col + window.width // 2
    sampled = np.unique(np.append(np.arange(0, window.height, _STEP), window.height - 1))
    columns, rows = np.meshgrid([left, left + 1], window.row + sampled)  # (n, 2)
    a, b, c, d, e, f = tuple(geobox.transform)[:6]
    rows = np.stack([rows, rows + 1])  # (2, n, 2): upper, lower corners
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    if crs.is_geographic:  # grids of the whole Earth may end half a pixel beyond the poles, where no ground is
        pole = (1 - 1e-9) * np.pi / 2 / crs.units_factor[1]  # the other pole itself has no place in the projection
        y = np.clip(y, -pole, pole)
    # twice the area is the cross product of the diagonals
    (east_down, east_up), (north_down, north_up) = (
        (at[1, :, 1] - at[0, :, 0], at[0, :, 1] - at[1, :, 0])
        for at in _equal_area(crs, x, y, major=major, inverse=inverse)
    )
    area = np.abs(east_down * north_up - north_down * east_up) / 2
    return np.interp(np.arange(window.height), sampled, area)


def _equal_area(
    crs: CRS, x: NDArray[np.float64], y: NDArray[np.float64], *, major: float, inverse: float
) -> NDArray[np.float64]:
    """Map coordinates in Lambert's projection about the nearer pole: (2, *shape) metres, NaN off the map."""
    shape = f"+a={major!r} +rf={inverse!r}" if inverse else f"+R={major!r}"
    ground = np.full((2, *x.shape), np.nan)
    for latitude in (90, -90):
        polar = CRS.from_string(f"+proj=laea +lat_0={latitude} +lon_0=0 {shape} +units=m +no_defs")
        try:
            ground = np.reshape(transform(crs, polar, x.ravel(), y.ravel())[:2], (2, *x.shape))
        except (RasterioError, CPLE_BaseError):  # beyond what the CRS covers, or the other pole
            continue
        ground = np.where(np.isfinite(ground).all(0), ground, np.nan)
        if np.nansum(np.hypot(*ground) - major * np.sqrt(2)) < 0:  # nearer than the equator, on average
            break
    return ground
