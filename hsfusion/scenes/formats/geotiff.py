"""GeoTIFF and COG, through rasterio and by their driver only: a VRT that is named ``.tif`` must not open."""

from __future__ import annotations

import logging
import re
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning

from hsfusion.errors import InputError, printable
from hsfusion.publishing import is_sealed
from hsfusion.scenes.formats.cube_file import NM_PER_UNIT, BandTable, CubeFile, can_hold, strict_number, strict_numbers
from hsfusion.scenes.geobox import GeoBox, Window
from hsfusion.scenes.scene import file_version

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNIT_WORDS = "|".join(sorted(map(re.escape, NM_PER_UNIT), key=len, reverse=True))
# "band 1 (418.24 Nanometers)", "B012 0.4955 um", "418.24 nm"
_DESCRIPTION = re.compile(
    rf"(?P<before>.*?)(?<![\w.,+-])(?P<number>[+-]?\d[\d.,]*(?:[eE][+-]?\d+)?)\s*(?P<unit>{_UNIT_WORDS})\s*[)\]]?",
    re.IGNORECASE,
)
_A_RANGE = re.compile(rf"(?:[-–/]|\bto)\s*$|\d\s*(?:{_UNIT_WORDS})\b", re.IGNORECASE)
_TIMES = ("acquired", "acquisition_time", "acquisition_date", "start_time")
_CALLED_ALPHA = "%s: band %d is read as data, although it is called alpha, as GDAL calls some bands of data."
_CLOSE_NM = 1.0  # GDAL writes IMAGERY tags to 0.001 micrometres
_GOOD = {"true": "1", "yes": "1", "false": "0", "no": "0"}
_log = logging.getLogger(__name__)


def open_geotiff(path: Path) -> CubeFile:
    """Opens a GeoTIFF.

    Wavelengths are read from the first of these that has them: tags of each band (``wavelength``, ``fwhm``, ``bbl``
    or ``good``, ``wavelength_units``, in any case), GDAL's ``IMAGERY`` tags, in micrometres by its raster data
    model, lists in the tags of the file, and descriptions of bands. Where only some bands name one, none is known.
    A last band that is alpha is a mask and no layer. Blocks that were never written are read as nodata where the
    file names a nodata value or has a mask, and are an error where they would be read as zeros.
    """
    with rasterio.Env(), _opened(path) as source:  # without the first, GDAL prints its warnings
        dtype = np.dtype(source.dtypes[0])
        if source.subdatasets or dtype.kind not in "iuf":
            value = f"{max(1, len(source.subdatasets))} images of {source.dtypes[0]}"
            raise InputError(path, "content", value, "one image of real numbers with all bands", "convert it")
        missing, blocks = _missing_blocks(source, path)
        bands, alpha = _data_and_alpha(source)
        masked = any(map(_has_mask, source.mask_flag_enums))
        masks = tuple(Path(name) for name in source.files if name.lower().endswith(".msk"))
        nodata, facts = _one_nodata(source, path), {}
        if nodata is not None and dtype.kind != "f" and not can_hold(dtype, nodata):
            facts["nodata"] = f"{nodata:g} cannot stand in {dtype.name}, so no pixel has it"
            nodata = None
        if missing:
            if not (masked or alpha) and nodata is None:
                expected = "0, because no nodata value says what they hold"
                fix = "write the file again, or set its nodata value"
                raise InputError(path, "number of blocks never written", f"{missing} of {blocks}", expected, fix)
            facts["never written"] = f"{missing} of {blocks} blocks, read as no data"
        crs, points = source.crs.to_wkt() if source.crs else None, len(source.gcps[0])
        geobox = GeoBox((source.height, source.width), source.transform, crs)
        if points and source.transform.is_identity:
            geobox, facts["place"] = GeoBox(geobox.shape), f"only {points} ground control points, not used"
        gain, offset = _scales(source, path, bands)
        return CubeFile(
            path=path,
            format=f"GeoTIFF {'BIP' if _by_pixel(source) else 'BSQ'} {dtype.name}",
            pixels=TiffPixels(path, dtype, masked, alpha, masks),
            layers=len(bands),
            geobox=geobox,
            table=_tagged_bands(source, path, bands),
            nodata=nodata,
            gain=gain,
            offset=offset,
            facts=_sensor(source.tags()) | facts,
            masks=masks,
        )


def _data_and_alpha(source: rasterio.DatasetReader) -> tuple[Sequence[int], int | None]:
    """The bands that hold data, and the last one where it is a mask: alpha, which is 0 where there are no data."""
    # GDAL's option ALPHA calls the second band so, and the fourth of four bands of bytes is called so in any case
    called = [i for i, meaning in zip(source.indexes, source.colorinterp, strict=True) if meaning == ColorInterp.alpha]
    is_rgba = source.count == 4 and source.dtypes[0] == "uint8"
    is_mask = called == [source.count] and source.count > 1 and not is_rgba
    for band in called:
        if not is_mask and "wavelength" not in _lower_case(source.tags(band)):
            _log.warning(_CALLED_ALPHA, source.name, band)
    return (source.indexes[:-1], source.count) if is_mask else (source.indexes, None)


def _has_mask(flags: list[MaskFlags]) -> bool:
    """Whether a band has a mask that is neither its nodata value nor an alpha band: its own, or one of all bands."""
    return flags not in ([MaskFlags.all_valid], [MaskFlags.nodata]) and MaskFlags.alpha not in flags


def _one_nodata(source: rasterio.DatasetReader, path: Path) -> float | None:
    values = {str(value) for value in source.nodatavals}  # as words NaN equals itself
    if len(values) > 1:
        value, fix = " and ".join(sorted(values)), "set one with gdal_edit.py -a_nodata"
        raise InputError(path, "nodata value", value, "one for all bands", fix)
    return source.nodatavals[0]


def is_tiff(path: Path) -> bool:
    """Whether a file starts as a TIFF does, BigTIFF too."""
    with open(path, "rb") as file:
        return file.read(4) in TIFF_STARTS


@dataclass(frozen=True)
class TiffPixels:
    """The stored numbers of a GeoTIFF; ``masked``: it has a mask of its own; ``alpha``: the band that is one."""

    path: Path = field(repr=False)
    dtype: np.dtype
    masked: bool
    alpha: int | None
    masks: tuple[Path, ...] = field(repr=False)  # the files of its mask

    def read(self, window: Window, layers: NDArray[np.int64] | None = None) -> NDArray:
        """See :meth:`Pixels.read`."""
        source = _kept_open(self)
        indexes = source.indexes[: -1 if self.alpha else None] if layers is None else (layers + 1).tolist()
        with rasterio.Env():  # without it GDAL prints its warnings
            stored = source.read(indexes, window=window.slices, masked=self.masked)
            if self.alpha is None:
                return stored
            none = source.read([self.alpha], window=window.slices) == 0  # (1, h, w)
            return np.ma.masked_where(np.broadcast_to(none, stored.shape), stored, copy=False)


_open = threading.local()  # the file that this thread read last: neighbouring windows share blocks, which GDAL keeps


def _kept_open(pixels: TiffPixels) -> rasterio.DatasetReader:
    """The open file, as long as what reads it is in use: Windows neither replaces nor deletes it before."""
    version = [pixels.path, *map(file_version, (pixels.path, *pixels.masks))]
    if getattr(_open, "version", None) != version or _open.reader() is not pixels:
        _open.version, _open.source, _open.reader = None, None, None  # closes the last one
        _open.source = source = _opened(pixels.path)
        _open.reader = weakref.ref(pixels, lambda _: source.close())
        _open.version = version
    return _open.source


_opening = threading.Lock()  # one logger tells of the files of all threads


@contextmanager
def _nothing_skipped(path: Path) -> Iterator[None]:
    """Refuses tags that GDAL skips, as of a file cut short: it goes on without CRS, scale, nodata or wavelengths."""
    unread: list[str] = []  # which rasterio does not raise, but logs, most below the level of warnings
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
        value = f"unreadable in part ({printable(unread[0])})"
        raise InputError(path, "content", value, "a whole GeoTIFF", "copy it again")


def _opened(path: Path) -> rasterio.DatasetReader:
    """Opens a file; one that ends with a digest of hsfusion's has to be to the bit what it was."""
    if is_sealed(path) is False:
        fix = "copy or make it again; if it was edited on purpose, copy it with gdal_translate"
        raise InputError(path, "content", "changed or damaged", "content that matches the digest at its end", fix)
    with rasterio.Env(), warnings.catch_warnings(), _nothing_skipped(path):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # many cubes have no place, and that is fine
        return rasterio.open(path.absolute(), driver="GTiff")  # GDAL would follow a name like GTIFF_DIR:1:other.tif


def _by_pixel(source: rasterio.DatasetReader) -> bool:
    return source.interleaving is not None and source.interleaving.name == "pixel"


def _missing_blocks(source: rasterio.DatasetReader, path: Path) -> tuple[int, int]:
    """Numbers of blocks never written, and of all; refuses a file cut short, which GDAL would open."""
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
        raise InputError(path, "end of the last block", f"at byte {end}", expected, "copy the file again")
    return missing, rows * columns * len(bands)


def _scales(
    source: rasterio.DatasetReader, path: Path, bands: Sequence[int]
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Gain and offset of the first bands; None where they change nothing."""
    # GDAL's scale multiplies, ENVI's reflectance_scale_factor, which programs copy into tags, divides; whether a tag
    # scale_factor multiplies (netCDF) or divides (HDF products) is ambiguous, so it may only repeat GDAL's
    gain, offset = (np.array(values[: len(bands)]) for values in (source.scales, source.offsets))
    whole = _lower_case(source.tags(ns="ENVI")) | _lower_case(source.tags())
    name = "reflectance_scale_factor"
    factor = strict_number(path, f"the tag {name}", whole[name]) if name in whole else 1.0
    if (gain == 1).all() and factor > 0:
        gain = gain / factor
    for band, scale, shift in zip(bands, gain, offset, strict=True):
        tags, inverse = whole | _lower_case(source.tags(band)), 1 / scale if scale else np.nan
        may_be = {name: [inverse], "scale_factor": [1, scale, inverse], "add_offset": [0, shift]}
        for name in may_be.keys() & tags.keys():
            value = strict_number(path, f"the tag {name}", tags[name])
            if not np.isclose(value, may_be[name]).any():
                expected = f"scale {scale:g} and offset {shift:g} as of band {band}: tags may multiply or divide"
                fix = "set GDAL's scale and offset of the bands (gdal_edit.py -scale -offset), or remove the tag"
                raise InputError(path, f"the tag {name}", f"{value:g}", expected, fix)
    return None if (gain == 1).all() else gain, None if (offset == 0).all() else offset


def _sensor(tags: Mapping[str, str]) -> dict[str, str]:
    known = {name: printable(value, longest=80) for name, value in _lower_case(tags).items()}
    times = [known[name] for name in _TIMES if name in known][:1]
    sensor = known.get("sensor_type", known.get("sensor", "not given"))
    return {"sensor": sensor, **({"acquired": times[0]} if times else {})}


def _lower_case(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags by their names in lower case, with ``_`` for spaces; those that say nothing are left out."""
    return {name.strip().lower().replace(" ", "_"): value for name, value in tags.items() if value.strip()}


def _tagged_bands(source: rasterio.DatasetReader, path: Path, bands: Sequence[int]) -> BandTable:
    """The band table of the first bands; a list of another length is for :meth:`CubeFile.bands` to refuse."""
    tags = [_lower_case(source.tags(band)) for band in bands]
    imagery = [_lower_case(source.tags(band, ns="IMAGERY")) for band in bands]
    whole = _lower_case(source.tags(ns="ENVI")) | _lower_case(source.tags())
    unit = _one_unit(path, [band["wavelength_units"] for band in [*tags, whole] if "wavelength_units" in band])
    listed, widths, good = _list(path, whole, "wavelength"), _list(path, whole, "fwhm"), _good_bands(path, tags, whole)
    if listed is not None and listed.size != len(bands):
        return BandTable(listed, None, good, unit, "wavelength (the list of the file)")
    centres, fwhm = (_values(path, tags, name) for name in ("wavelength", "fwhm"))
    central, width = (_values(path, imagery, name) for name in ("central_wavelength_um", "fwhm_um"))
    tables = [
        BandTable(centres, fwhm, good, unit, "the tag wavelength of each band"),
        BandTable(central, width, good, "Micrometers", "the IMAGERY tags"),
        BandTable(listed, widths, good, unit, "the list of the file"),
        _described(path, source, bands, good),
    ]
    named = [table for table in tables if table.wavelength is not None]
    if not named:
        return BandTable(good=good)
    first, nm = named[0], named[0].wavelength_nm
    for other in named[1:]:
        if nm is None or (other_nm := other.wavelength_nm) is None:
            continue
        for band in np.flatnonzero(np.abs(nm - other_nm) > _CLOSE_NM):  # NaN: not apart
            value, expected = f"{nm[band]:g} nm in {first.source}", f"{other_nm[band]:g} in {other.source}"
            raise InputError(path, f"wavelength of band {band + 1}", value, expected, "correct one of the two")
    without = np.flatnonzero(np.isnan(np.asarray(first.wavelength)))
    if without.size:
        return BandTable(good=good, source=f"wavelength of band {without[0] + 1} ({first.source} names it for others)")
    return replace(first, source=f"wavelength ({first.source})")


def _values(path: Path, tags: Sequence[Mapping[str, str]], name: str) -> NDArray[np.float64] | None:
    """Values of a tag of each band, NaN for bands without; None where no band has it."""
    named = {
        i: strict_number(path, f"{name} of band {i + 1}", band[name]) for i, band in enumerate(tags) if name in band
    }
    return np.array([named.get(i, np.nan) for i in range(len(tags))]) if named else None


def _list(path: Path, tags: Mapping[str, str], name: str) -> NDArray[np.float64] | None:
    """A list such as ``{418.24, 423.87}`` in the tags of the file; None where there is none."""
    words = tags.get(name, "").strip().strip("{}[]()").rstrip(", ").split(",")
    return strict_numbers(path, name, words) if words != [""] else None


def _described(
    path: Path, source: rasterio.DatasetReader, bands: Sequence[int], good: NDArray[np.bool_] | None
) -> BandTable:
    try:
        descriptions = source.descriptions[: len(bands)]
    except UnicodeDecodeError:  # tags in another encoding than UTF-8 say nothing either
        descriptions = ()
    matches = [_DESCRIPTION.fullmatch(text.strip()) if text else None for text in descriptions]
    named = [match if match and not _A_RANGE.search(match["before"]) else None for match in matches]
    words = [{"description": match["number"]} if match else {} for match in named]
    unit = _one_unit(path, [match["unit"] for match in named if match])
    return BandTable(_values(path, words, "description"), None, good, unit, "the band descriptions")


def _good_bands(path: Path, tags: Sequence[Mapping[str, str]], whole: Mapping[str, str]) -> NDArray[np.bool_] | None:
    """Bands that are not marked as bad, by their own tags or the list of the file; None where there are no marks."""
    marks = [band.get("bbl", band.get("good", "")).strip().lower() for band in tags]
    if any(marks):
        good = strict_numbers(path, "bbl", [_GOOD.get(mark, mark or "1") for mark in marks])
    else:
        good = _list(path, whole, "bbl")
    return None if good is None else good != 0


def _one_unit(path: Path, words: list[str]) -> str | None:
    """The unit that all words mean, as the first words it; None where there are none."""
    meanings = {NM_PER_UNIT.get(word.strip().lower(), word.strip().lower()) for word in words}
    if len(meanings) > 1:
        value = " and ".join(sorted(set(words)))
        raise InputError(path, "wavelength units", value, "one unit for all bands", "correct the tags")
    return words[0] if words else None
