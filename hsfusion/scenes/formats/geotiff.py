"""GeoTIFF and COG, through rasterio and by their driver only: a VRT that is named ``.tif`` must not open."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import NM_PER_UNIT, BandTable, CubeFile, strict_number, strict_numbers
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNIT_WORDS = "|".join(sorted(map(re.escape, NM_PER_UNIT), key=len, reverse=True))
# "band 1 (418.24 Nanometers)", "B012 0.4955 um", "418.24 nm"
_DESCRIPTION = re.compile(
    rf"(?P<before>.*?)(?<![\w.,+-])(?P<number>[+-]?\d[\d.,]*(?:[eE][+-]?\d+)?)\s*(?P<unit>{_UNIT_WORDS})\s*[)\]]?",
    re.IGNORECASE,
)
_A_RANGE = re.compile(rf"(?:[-–/]|\bto)\s*$|\d\s*(?:{_UNIT_WORDS})\b", re.IGNORECASE)
_CLOSE_NM = 1.0  # GDAL writes IMAGERY tags to 0.001 micrometres
# whether a tag says the same as scale and offset of a band
_AGREES: dict[str, Callable[[float, float, float], bool]] = {
    "reflectance_scale_factor": lambda value, scale, offset: bool(np.isclose(value * scale, 1)),
    "scale_factor": lambda value, scale, offset: bool(np.isclose([value, value, value * scale], [1, scale, 1]).any()),
    "add_offset": lambda value, scale, offset: bool(np.isclose(value, [0, offset]).any()),
}
_GOOD = {"true": "1", "yes": "1", "false": "0", "no": "0"}


def open_geotiff(path: Path) -> CubeFile:
    """Opens a GeoTIFF.

    Wavelengths: see :func:`_tagged_bands`. Blocks that were never written are read as nodata where the file names a
    nodata value or has a mask, and are an error where they would be read as zeros.
    """
    with rasterio.Env(), _opened(path) as source:  # without the first, GDAL prints its warnings
        dtype = np.dtype(source.dtypes[0])
        if source.subdatasets or dtype.kind not in "iuf":
            value = f"{max(1, len(source.subdatasets))} images of {source.dtypes[0]}"
            raise InputError(path, "content", value, "one image of real numbers with all bands", "convert it")
        missing, blocks = _missing_blocks(source, path)
        masked = any(flags == [MaskFlags.per_dataset] for flags in source.mask_flag_enums)
        nodata, facts = _nodata(source, dtype)
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
        geobox, place = _place(source)
        gain, offset = _scales(source, path)
        return CubeFile(
            path=path,
            format=f"GeoTIFF {'BIP' if _by_pixel(source) else 'BSQ'} {dtype.name}",
            pixels=TiffPixels(path, dtype, masked),
            layers=source.count,
            geobox=geobox,
            table=_tagged_bands(source, path),
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


_opening = threading.Lock()  # one logger tells of the files of all threads


@contextmanager
def _nothing_skipped(path: Path) -> Iterator[None]:
    """Refuses tags that GDAL skips, as of a file cut short: it goes on without CRS, scale, nodata or wavelengths.

    rasterio raises no error then, but logs it, most below the level of warnings.
    """
    unread: list[str] = []
    log = logging.getLogger("rasterio._env")

    def kept(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "GDAL signalled an error" in text or "tag ignored" in text:
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
            path, "content", f"unreadable in part ({printable(unread[0])})", "a whole GeoTIFF", "copy it anew"
        )


def _opened(path: Path) -> rasterio.DatasetReader:
    with rasterio.Env(), warnings.catch_warnings(), _nothing_skipped(path):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # many cubes have no place, and that is fine
        return rasterio.open(path.absolute(), driver="GTiff")  # GDAL would follow a name like GTIFF_DIR:1:other.tif


def _by_pixel(source: rasterio.DatasetReader) -> bool:
    return source.interleaving is not None and source.interleaving.name == "pixel"


def _missing_blocks(source: rasterio.DatasetReader, path: Path) -> tuple[int, int]:
    """Counts the blocks (strips or tiles) that were never written, which GDAL reads as zeros, and all of them.

    A file of which the last block ends behind its end is refused: GDAL finds that out only on reading it.
    """
    height, width = source.block_shapes[0]
    rows, columns = -(-source.height // height), -(-source.width // width)
    bands = source.indexes[: 1 if _by_pixel(source) else None]
    missing, last = 0, (0, "", 0)
    with _nothing_skipped(path):
        for band, row, column in product(bands, range(rows), range(columns)):
            offset = source.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band)
            missing += offset is None
            last = max(last, (int(offset or 0), f"BLOCK_SIZE_{column}_{row}", band))
        end = last[0] + int(source.get_tag_item(last[1], "TIFF", bidx=last[2]) or 0) if last[0] else 0
    size = path.stat().st_size
    if end > size:
        expected = f"at most {size}, where the file ends"
        raise InputError(path, "end of the last block", f"at byte {end}", expected, "copy the file anew")
    return missing, rows * columns * len(bands)


def _nodata(source: rasterio.DatasetReader, dtype: np.dtype) -> tuple[float | None, dict[str, str]]:
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
    """Gain and offset of each band; None where they change nothing.

    GDAL's scale multiplies. ENVI's ``reflectance_scale_factor``, which programs copy into tags, divides. Whether a tag
    ``scale_factor`` multiplies (netCDF) or divides (HDF products) cannot be told, so it may only repeat GDAL's.
    """
    gain, offset = np.array(source.scales), np.array(source.offsets)
    whole = _lower_case(source.tags(ns="ENVI")) | _lower_case(source.tags())
    name = "reflectance_scale_factor"
    factor = strict_number(path, f"the tag {name}", whole[name]) if name in whole else 1.0
    if (gain == 1).all() and factor > 0:
        gain = gain / factor
    for band, scale, shift in zip(source.indexes, gain, offset, strict=True):
        tags = whole | _lower_case(source.tags(band))
        for name in _AGREES.keys() & tags.keys():
            value = strict_number(path, f"the tag {name}", tags[name])
            if not _AGREES[name](value, scale, shift):
                raise InputError(
                    path,
                    f"the tag {name}",
                    f"{value:g}",
                    f"what scale {scale:g} and offset {shift:g} of band {band} say, for it may multiply or divide",
                    "set GDAL's scale and offset of the bands (gdal_edit.py -scale -offset), or remove the tag",
                )
    return None if (gain == 1).all() else gain, None if (offset == 0).all() else offset


def _place(source: rasterio.DatasetReader) -> tuple[GeoBox, dict[str, str]]:
    points, shape = len(source.gcps[0]), (source.height, source.width)
    if points and source.transform.is_identity:
        return GeoBox(shape), {"place": f"only {points} ground control points, not used"}
    return GeoBox(shape, source.transform, source.crs.to_wkt() if source.crs else None), {}


def _sensor(tags: Mapping[str, str]) -> dict[str, str]:
    """Sensor and time, where the tags of the file name them."""
    known = _lower_case(tags)

    def first(*names: str) -> str:
        return next((printable(known[name], longest=80) for name in names if name in known), "")

    acquired = first("acquired", "acquisition_time", "acquisition_date", "start_time")
    return {"sensor": first("sensor_type", "sensor") or "not named"} | ({"acquired": acquired} if acquired else {})


def _lower_case(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags by their names in lower case, with ``_`` for spaces; those that say nothing are left out."""
    return {name.strip().lower().replace(" ", "_"): value for name, value in tags.items() if value.strip()}


@dataclass(frozen=True, eq=False)
class _Statement:
    """What one place of the file says: (C,) wavelengths and widths, NaN where it says nothing, and their unit."""

    where: str
    wavelength: NDArray[np.float64]
    fwhm: NDArray[np.float64]
    unit: str | None

    def factors(self) -> list[float]:
        """Nanometres per unit: of an unnamed one, both that it can be."""
        unit = (self.unit or "").strip().lower()
        return [NM_PER_UNIT[unit]] if unit in NM_PER_UNIT else [1.0, 1000.0]


def _tagged_bands(source: rasterio.DatasetReader, path: Path) -> BandTable:
    """Reads the band table of an open file.

    Asked in this order: tags of each band (``wavelength``, ``fwhm``, ``bbl`` or ``good``, ``wavelength_units``, in any
    case); GDAL's ``IMAGERY`` tags, in micrometres by its raster data model; lists in the tags of the file; and
    descriptions of bands. A band without a mark is good. Where only some bands name a wavelength the table has none,
    and its source names the first one without. A list of another length than there are bands is the table as it is,
    for :meth:`CubeFile.bands` to refuse, unless the user has a better one.
    """
    tags = [_lower_case(source.tags(band)) for band in source.indexes]
    imagery = [_lower_case(source.tags(band, ns="IMAGERY")) for band in source.indexes]
    whole = _lower_case(source.tags(ns="ENVI")) | _lower_case(source.tags())
    unit = _one_unit(path, [band["wavelength_units"] for band in [*tags, whole] if "wavelength_units" in band])
    wavelength, fwhm = (_list(path, whole, name) for name in ("wavelength", "fwhm"))
    good = _good_bands(path, tags, whole)
    if wavelength is not None and wavelength.size != source.count:
        return BandTable(wavelength, None, good, unit, "wavelength (the list of the file)")
    none = np.full(source.count, np.nan)
    statements = [
        _Statement(
            "the tag wavelength of each band", _values(path, tags, "wavelength"), _values(path, tags, "fwhm"), unit
        ),
        _Statement(
            "the IMAGERY tags",
            _values(path, imagery, "central_wavelength_um"),
            _values(path, imagery, "fwhm_um"),
            "Micrometers",
        ),
        _Statement(
            "the list of the file", none if wavelength is None else wavelength, none if fwhm is None else fwhm, unit
        ),
        _described(path, source),
    ]
    named = [statement for statement in statements if np.isfinite(statement.wavelength).any()]
    if not named:
        return BandTable(good=good)
    first = named[0]
    for other in named[1:]:
        _check_agreement(path, first, other)
    without = np.flatnonzero(np.isnan(first.wavelength))
    if without.size:
        return BandTable(good=good, source=f"wavelength of band {without[0] + 1} ({first.where} names it for others)")
    fwhm = None if np.isnan(first.fwhm).all() else first.fwhm
    return BandTable(first.wavelength, fwhm, good, first.unit, f"wavelength ({first.where})")


def _values(path: Path, tags: Sequence[Mapping[str, str]], name: str) -> NDArray[np.float64]:
    """Values of a tag of each band, NaN for bands without."""
    values = np.full(len(tags), np.nan)
    for i, band in enumerate(tags):
        if name in band:
            values[i] = strict_number(path, f"{name} of band {i + 1}", band[name])
    return values


def _list(path: Path, tags: Mapping[str, str], name: str) -> NDArray[np.float64] | None:
    """A list such as ``{418.24, 423.87}`` in the tags of the file; None where there is none."""
    words = tags.get(name, "").strip().strip("{}[]()").rstrip(", ").split(",")
    return strict_numbers(path, name, words) if words != [""] else None


def _described(path: Path, source: rasterio.DatasetReader) -> _Statement:
    wavelength, units = np.full(source.count, np.nan), []
    try:
        descriptions = source.descriptions
    except UnicodeDecodeError:  # tags in another encoding than UTF-8 say nothing either
        descriptions = ()
    for i, text in enumerate(descriptions):
        match = _DESCRIPTION.fullmatch(text.strip()) if text else None
        if match and not _A_RANGE.search(match["before"]):
            wavelength[i] = strict_number(path, f"wavelength in the description of band {i + 1}", match["number"])
            units.append(match["unit"])
    return _Statement("the band descriptions", wavelength, np.full(source.count, np.nan), _one_unit(path, units))


def _good_bands(path: Path, tags: Sequence[Mapping[str, str]], whole: Mapping[str, str]) -> NDArray[np.bool_] | None:
    """Bands that are not marked as bad, by their own tags or the list of the file; None where there are no marks."""
    marks = [band.get("bbl", band.get("good", "")).strip().lower() for band in tags]
    if any(marks):
        good = strict_numbers(path, "bbl", [_GOOD.get(mark, mark or "1") for mark in marks])
    else:
        good = _list(path, whole, "bbl")
    if good is not None and not np.isin(good, (0, 1)).all():
        raise InputError(path, "bbl", good.tolist(), "1 for a good band and 0 for a bad one", "correct the tags")
    return None if good is None else good == 1


def _one_unit(path: Path, words: list[str]) -> str | None:
    """The unit that all words mean, as the first words it; None where there are none."""
    meanings = {NM_PER_UNIT.get(word.strip().lower(), word.strip().lower()) for word in words}
    if len(meanings) > 1:
        said = " and ".join(sorted(set(words)))
        raise InputError(path, "wavelength units", said, "one unit for all bands", "correct the tags")
    return words[0] if words else None


def _check_agreement(path: Path, first: _Statement, other: _Statement) -> None:
    """Makes sure that two places name the same wavelengths, whatever an unnamed unit may be."""
    apart = [
        np.flatnonzero(np.abs(first.wavelength * here - other.wavelength * there) > _CLOSE_NM)  # NaN: not apart
        for here, there in product(first.factors(), other.factors())
    ]
    if all(bands.size for bands in apart):
        band = int(apart[0][0])
        said, expected = (f"{one.wavelength[band]:g} {one.unit or ''} in {one.where}" for one in (first, other))
        raise InputError(path, f"wavelength of band {band + 1}", said, expected, "correct one of the two")
