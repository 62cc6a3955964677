"""GeoTIFF and COG, through rasterio and by their driver only: a VRT that is named ``.tif`` must not open."""

from __future__ import annotations

import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.band_tags import lower_case, tagged_bands
from hsfusion.scenes.formats.cube_file import CubeFile, strict_number
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window

_Numbers = NDArray[np.float64]
_MOST_LAYERS = 10_000
_MOST_BLOCK_BYTES = 2**29  # GDAL holds a block as a whole
_RASTERS_BESIDE = (".msk", ".ovr")  # GDAL opens them by any driver: a VRT there would read any file
_TEXTS_BESIDE = (".aux.xml", ".tfw", ".TFW", ".tifw", ".tiffw", ".wld", ".WLD", ".tab", ".TAB")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_geotiff(path: Path) -> CubeFile:
    """Opens a GeoTIFF.

    Wavelengths: see :func:`tagged_bands`. Blocks that were never written are read as nodata where the file names a
    nodata value or has a mask, and are an error where they would be read as zeros.

    Raises:
        InputError: if GDAL cannot open it, it is not whole, contradicts itself, or holds no real numbers.
    """
    with rasterio.Env(), _opened(path) as source:  # without the first, GDAL prints its warnings
        dtype = _number_type(source, path)
        with _all_read(path):
            missing, blocks = _missing_blocks(source, path)
        masked = any(flags == [MaskFlags.per_dataset] for flags in source.mask_flag_enums)
        nodata, facts = _nodata(source, path, dtype)
        if missing and not masked and nodata is None:
            raise InputError(
                path,
                "number of blocks never written",
                f"{missing} of {blocks}",
                "0, as no nodata value says what they hold",
                "write the file anew, or set its nodata value",
            )
        if missing:
            facts["never written"] = f"{missing} of {blocks} blocks, read as no data"
        interleave = "BIP" if source.interleaving and source.interleaving.name == "pixel" else "BSQ"
        geobox, place = _place(source, path)
        gain, offset = _scales(source, path)
        return CubeFile(
            path=path,
            format=f"GeoTIFF {interleave} {dtype.name}",
            pixels=TiffPixels(path, dtype, masked),
            layers=source.count,
            geobox=geobox,
            table=tagged_bands(source, path),
            nodata=nodata,
            gain=gain,
            offset=offset,
            facts=_sensor(source.tags()) | place | facts,
        )


def is_tiff(path: Path) -> bool:
    """Whether a file starts as a TIFF does, BigTIFF too."""
    with open(path, "rb") as file:
        return file.read(4) in TIFF_STARTS


@dataclass(frozen=True)
class TiffPixels:
    """The stored numbers of a GeoTIFF.

    Attributes:
        path: the file.
        dtype: of its numbers.
        masked: whether it has a mask of its own.
    """

    path: Path
    dtype: np.dtype
    masked: bool

    def read(self, window: Window) -> NDArray:
        """Reads a window: (layers, height, width) as stored."""
        return self.read_layers(window, None)

    def read_layers(self, window: Window, layers: NDArray[np.int64] | None) -> NDArray:
        """Reads chosen layers of a window: (L, height, width) as stored."""
        block = RasterioWindow(window.col, window.row, window.width, window.height)  # pyright: ignore[reportCallIssue]
        indexes = None if layers is None else (layers + 1).tolist()
        source = _kept_open(self.path)
        with rasterio.Env():  # without it GDAL prints its warnings
            return source.read(indexes, window=block, masked=self.masked)


_open = threading.local()  # the file that this thread read last: neighbouring windows share blocks, which GDAL keeps


def _kept_open(path: Path) -> rasterio.DatasetReader:
    status = path.stat()
    version = path, status.st_ino, status.st_size, status.st_mtime_ns
    if getattr(_open, "version", None) != version:
        _open.version, _open.source = None, None  # closes the last one
        _open.source = _opened(path)
        _open.version = version
    return _open.source


def _opened(path: Path) -> rasterio.DatasetReader:
    # a file that stands alone is opened alone; otherwise GDAL lists the folder and reads masks and texts beside
    options: dict[str, Any] = {} if _checked_beside(path) else {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
    with rasterio.Env(**options), warnings.catch_warnings(), _all_read(path):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # many cubes have no place, and that is fine
        return rasterio.open(path.absolute(), driver="GTiff")  # GDAL would follow a name like GTIFF_DIR:1:other.tif


_opening = threading.Lock()  # one logger tells of the files of all threads


@contextmanager
def _all_read(path: Path) -> Iterator[None]:
    """Makes sure that GDAL reads all that it tries to; it goes on without CRS, scale, nodata or wavelengths.

    rasterio raises no error then, but logs it, most below the level of warnings.

    Raises:
        InputError: if something could not be read.
    """
    unread: list[str] = []
    log, thread = logging.getLogger("rasterio._env"), threading.get_ident()

    def kept(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.thread == thread and ("GDAL signalled an error" in text or "tag ignored" in text):
            unread.append(text)
            return False  # the error tells it
        return record.levelno >= logging.WARNING

    with _opening:
        level = log.level
        log.addFilter(kept)
        log.setLevel(logging.INFO)
        try:
            yield
        finally:
            log.setLevel(level)
            log.removeFilter(kept)
    if unread:
        raise InputError(
            path,
            "content",
            f"unreadable in part ({printable(unread[0])})",
            "a whole GeoTIFF",
            "copy the file anew, or write it anew",
        )


def _missing_blocks(source: rasterio.DatasetReader, path: Path) -> tuple[int, int]:
    """Counts the blocks (strips or tiles) that were never written, which GDAL reads as zeros.

    Returns:
        number of missing blocks, number of all

    Raises:
        InputError: if there are more blocks than the file has bytes, or the last one ends behind the end of the file,
            which GDAL finds out only on reading it.
    """
    together = source.interleaving is not None and source.interleaving.name == "pixel"
    height, width = source.block_shapes[0]
    rows, columns, size = -(-source.height // height), -(-source.width // width), path.stat().st_size
    bands = source.indexes[: 1 if together else None]
    blocks, missing, last = rows * columns * len(bands), 0, (0, "", 0)
    if blocks > size:
        raise InputError(path, "number of blocks", blocks, f"fewer, in {size} bytes", "copy the file anew")
    for band, row, column in product(bands, range(rows), range(columns)):
        offset = source.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band)
        if offset is None:
            missing += 1
        else:
            last = max(last, (int(offset), f"BLOCK_SIZE_{column}_{row}", band))
    end = last[0] + int(source.get_tag_item(last[1], "TIFF", bidx=last[2]) or 0) if missing < blocks else 0
    if end > size:
        raise InputError(
            path,
            "end of the last block",
            f"at byte {end}",
            f"at most {size}, where the file ends",
            "copy the file anew",
        )
    return missing, blocks


def _checked_beside(path: Path) -> bool:
    """Whether files lie beside a GeoTIFF that GDAL would read with it.

    Raises:
        InputError: if one of them is a link or no plain file, or a mask is no TIFF.
    """
    beside = [Path(f"{path}{suffix}") for suffix in (*_RASTERS_BESIDE, ".aux.xml")]
    beside += [path.with_suffix(suffix) for suffix in _TEXTS_BESIDE]
    found = [file for file in beside if os.path.lexists(file)]
    if found:  # GDAL then looks for texts of other names, too; of those it opens these at once
        found += [path.with_suffix(suffix) for suffix in (".xml", ".XML") if os.path.lexists(path.with_suffix(suffix))]
    for file in found:
        plain = stat.S_ISREG(file.lstat().st_mode)
        if not plain or (file.suffix in _RASTERS_BESIDE and not is_tiff(file)):
            kind = "a TIFF" if file.suffix in _RASTERS_BESIDE else "a plain file"
            raise InputError(
                path,
                f"the file {file.name} beside it",
                "a link or of another kind",
                kind,
                "move it away, or put the file itself there",
            )
    return bool(found)


def _number_type(source: rasterio.DatasetReader, path: Path) -> np.dtype:
    """The type of all numbers.

    Raises:
        InputError: if bands differ, numbers are complex, or there are too many bands, several images, or huge blocks.
    """

    def error(field: str, value: object, expected: str, fix: str) -> InputError:
        return InputError(path, field, value, expected, fix)

    if source.count > _MOST_LAYERS:
        raise error("number of bands", source.count, f"at most {_MOST_LAYERS}", "keep the bands that are needed")
    names = sorted(set(source.dtypes))
    if len(names) > 1:
        raise error("number types", ", ".join(names), "one for all bands", "convert the bands to one")
    if names[0].startswith("complex") or np.dtype(names[0]).kind not in "iuf":
        raise error("number type", names[0], "real numbers", "convert the numbers")
    if source.subdatasets:
        images = f"{len(source.subdatasets)} images"
        raise error("content", images, "one image with all bands", "write the bands into one image")
    dtype = np.dtype(names[0])
    height, width = source.block_shapes[0]
    together = source.count if source.interleaving and source.interleaving.name == "pixel" else 1
    if height * width * together * dtype.itemsize > _MOST_BLOCK_BYTES:
        size = f"{height} x {width} pixels of {together} bands"
        raise error("size of a block", size, f"at most {_MOST_BLOCK_BYTES >> 20} MiB", "write the file in small tiles")
    return dtype


def _nodata(source: rasterio.DatasetReader, path: Path, dtype: np.dtype) -> tuple[float | None, dict[str, str]]:
    values = {value if value == value else "nan" for value in source.nodatavals}
    if len(values) > 1:
        raise InputError(
            path, "nodata value", " and ".join(sorted(map(str, values))), "one for all bands", "give all bands the same"
        )
    nodata = source.nodatavals[0]
    if nodata is None or dtype.kind == "f":
        return nodata, {}
    limits = np.iinfo(dtype)
    if float(nodata).is_integer() and limits.min <= int(nodata) <= limits.max:
        return nodata, {}
    return None, {"nodata": f"{nodata:g} cannot stand in {dtype.name}, so no pixel has it"}


def _scales(
    source: rasterio.DatasetReader, path: Path
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Reads gain and offset of each band; None where they change nothing.

    GDAL's scale multiplies. ENVI's ``reflectance_scale_factor``, which programs copy into tags, divides. Whether a tag
    ``scale_factor`` multiplies (netCDF) or divides (HDF products) cannot be told, so it may only repeat GDAL's.

    Args:
        source: the open file.
        path: for messages.

    Raises:
        InputError: if a scale is 0 or no finite number, or a tag says something else than the scale of the bands.
    """
    gain = _changing(path, "scale", source.scales, 1.0)
    offset = _changing(path, "offset", source.offsets, 0.0)
    whole = lower_case(source.tags(ns="ENVI")) | lower_case(source.tags())
    if "reflectance_scale_factor" in whole:
        name = "the tag reflectance_scale_factor"
        factor = strict_number(path, name, whole["reflectance_scale_factor"])
        if not factor > 0:
            raise _wrong_scale(path, name, factor, "a positive number")
        if gain is not None and not np.allclose(gain * factor, 1):
            raise _wrong_scale(
                path, "the tag reflectance_scale_factor", f"{factor:g}", f"1 / {gain[0]:g}, the bands' scale"
            )
        gain = np.full(source.count, 1 / factor) if gain is None and factor != 1 else gain
    for band in source.indexes:
        tags = whole | lower_case(source.tags(band))
        _check_tag(path, tags, "scale_factor", 1.0 if gain is None else float(gain[band - 1]), neutral=1.0)
        _check_tag(path, tags, "add_offset", 0.0 if offset is None else float(offset[band - 1]), neutral=0.0)
    return gain, offset


def _check_tag(path: Path, tags: dict[str, str], name: str, used: float, *, neutral: float) -> None:
    if name not in tags:
        return
    value = strict_number(path, f"the tag {name}", tags[name])
    if value == neutral or np.isclose(value, used) or (neutral and np.isclose(value * used, 1)):
        return
    raise InputError(
        path,
        f"the tag {name}",
        f"{value:g}",
        f"{used:g} as GDAL's {'scale' if neutral else 'offset'} of the bands, for it may multiply or divide",
        "set GDAL's scale and offset of the bands (gdal_edit.py -scale -offset), or remove the tag",
    )


def _changing(path: Path, name: str, values: tuple[float, ...], neutral: float) -> _Numbers | None:
    numbers = np.array(values)
    wrong = ~np.isfinite(numbers) | ((numbers == 0) & (neutral != 0))
    if wrong.any():
        band = int(np.flatnonzero(wrong)[0])
        wanted = "a finite number" + (" that is not 0" if neutral else "")
        raise _wrong_scale(path, f"{name} of band {band + 1}", numbers[band], wanted)
    return None if (numbers == neutral).all() else numbers


def _wrong_scale(path: Path, field: str, value: object, expected: str) -> InputError:
    return InputError(path, field, value, expected, "correct it")


def _place(source: rasterio.DatasetReader, path: Path) -> tuple[GeoBox, dict[str, str]]:
    try:
        crs = source.crs.to_wkt() if source.crs else None
    except CRSError as error:
        raise InputError(
            path, "CRS", "unreadable", "one that GDAL knows", f"set it anew ({printable(error)})"
        ) from error
    transform = source.transform
    if not (np.isfinite(list(transform)).all() and transform.determinant):
        raise InputError(
            path,
            "transform",
            tuple(transform)[:6],
            "finite numbers and pixels with an area",
            "georeference the file anew",
        )
    points = len(source.gcps[0])
    if points and transform.is_identity:
        return GeoBox((source.height, source.width)), {"place": f"only {points} ground control points, not used"}
    return GeoBox((source.height, source.width), transform, crs), {}


def _sensor(tags: dict[str, str]) -> dict[str, str]:
    """Sensor and time, where the tags of the file name them."""
    known = {name.strip().lower().replace("_", " "): value for name, value in tags.items()}

    def first(*names: str) -> str:
        return next((printable(known[name], longest=80) for name in names if known.get(name)), "")

    acquired = first("acquired", "acquisition time", "acquisition date", "start time")
    return {"sensor": first("sensor type", "sensor") or "not named"} | ({"acquired": acquired} if acquired else {})
