"""What the tags and descriptions of a GeoTIFF say of its bands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.formats.cube_file import NM_PER_UNIT, BandTable, strict_number

Tags = Mapping[str, str]

_UNIT_WORDS = "|".join(sorted(map(re.escape, NM_PER_UNIT), key=len, reverse=True))
# "band 1 (418.24 Nanometers)", "B012 0.4955 um", "418.24 nm"
_DESCRIPTION = re.compile(
    rf"(?P<before>.*?)(?<![\w.,+-])(?P<number>[+-]?\d[\d.,]*(?:[eE][+-]?\d+)?)\s*(?P<unit>{_UNIT_WORDS})\s*[)\]]?",
    re.IGNORECASE,
)
_A_RANGE = re.compile(rf"(?:[-–/]|\bto)\s*$|\d\s*(?:{_UNIT_WORDS})\b", re.IGNORECASE)
_LONGEST_DESCRIPTION = 200
_CLOSE_NM = 1.0  # GDAL writes IMAGERY tags to 0.001 micrometres
_GOOD = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True, eq=False)
class _Said:
    """What one place says: (C,) wavelengths and widths, NaN where it says nothing, and their unit."""

    where: str
    wavelength: NDArray[np.float64]
    fwhm: NDArray[np.float64] | None = None
    unit: str | None = None


def tagged_bands(source: rasterio.DatasetReader, path: Path) -> BandTable:
    """Reads the band table of an open file.

    Asked in this order: tags of each band (``wavelength``, ``fwhm``, ``bbl`` or ``good``, ``wavelength_units``, in any
    case); GDAL's ``IMAGERY`` tags, in micrometres by its raster data model; lists in the tags of the file; and
    descriptions of bands. A band without a mark is good. Where only some bands name a wavelength the table has none,
    and its source names the first one without. A list of another length than there are bands is the table as it is,
    for :meth:`CubeFile.bands` to refuse, unless the user has a better one.

    Args:
        source: the open file.
        path: for messages.

    Raises:
        InputError: if a value is no number, or two places contradict each other.
    """
    tags = [lower_case(source.tags(band)) for band in source.indexes]
    whole = lower_case(source.tags(ns="ENVI")) | lower_case(source.tags())
    places = (
        _from_tags(path, tags, whole),
        _from_imagery(path, [source.tags(band, ns="IMAGERY") for band in source.indexes]),
        _from_lists(path, whole, source.count),
        _from_descriptions(path, source),
    )
    good = _good_bands(path, tags, whole)
    listed = places[2]
    if listed.wavelength.size != source.count:
        return BandTable(listed.wavelength, None, good, listed.unit, f"wavelength ({listed.where})")
    said = [place for place in places if np.isfinite(place.wavelength).any()]
    if not said:
        return BandTable(good=good)
    first = said[0]
    for other in said[1:]:
        _check_agreement(path, first, other)
    without = np.flatnonzero(~np.isfinite(first.wavelength))
    if without.size:
        return BandTable(good=good, source=f"wavelength of band {without[0] + 1} ({first.where} names it for others)")
    if first.fwhm is not None and not np.isfinite(first.fwhm).all():
        band = np.flatnonzero(~np.isfinite(first.fwhm))[0] + 1
        raise InputError(
            path,
            f"fwhm of band {band}",
            "missing",
            f"a number, as {first.where} names it for others",
            "give every band its fwhm, or none",
        )
    return BandTable(first.wavelength, first.fwhm, good, first.unit, f"wavelength ({first.where})")


def lower_case(tags: Tags) -> dict[str, str]:
    """Tags by their names in lower case, with ``_`` for spaces; those that say nothing are left out."""
    return {name.strip().lower().replace(" ", "_"): value for name, value in tags.items() if value.strip()}


def _values(path: Path, tags: Sequence[Tags], name: str, field: str) -> NDArray[np.float64] | None:
    """Values of a tag of each band, NaN for bands without; None if no band has it."""
    if not any(name in band for band in tags):
        return None
    return np.array(
        [
            strict_number(path, f"{field} of band {i}", band[name]) if name in band else np.nan
            for i, band in enumerate(tags, 1)
        ]
    )


def _from_tags(path: Path, tags: Sequence[Tags], whole: Tags) -> _Said:
    where = "the tag wavelength of each band"
    wavelength = _values(path, tags, "wavelength", "wavelength")
    if wavelength is None:
        return _Said(where, np.full(len(tags), np.nan))
    words = [band["wavelength_units"] for band in tags if "wavelength_units" in band]
    words += [whole[name] for name in ("wavelength_units",) if name in whole]
    return _Said(where, wavelength, _values(path, tags, "fwhm", "fwhm"), _one_unit(path, words))


def _from_imagery(path: Path, tags: Sequence[Tags]) -> _Said:
    wavelength = _values(path, tags, "CENTRAL_WAVELENGTH_UM", "CENTRAL_WAVELENGTH_UM")
    fwhm = _values(path, tags, "FWHM_UM", "FWHM_UM")
    none = np.full(len(tags), np.nan)
    return _Said("the IMAGERY tags", none if wavelength is None else wavelength, fwhm, "Micrometers")


def _from_lists(path: Path, whole: Tags, count: int) -> _Said:
    """Lists such as ``{418.24, 423.87}`` in the tags of the file; the wavelengths may be more or fewer than bands."""
    found: dict[str, NDArray[np.float64]] = {}
    for name in ("wavelength", "fwhm"):
        words = _list(whole.get(name, ""))
        if words:
            found[name] = np.array([strict_number(path, f"{name} {i} of the list", w) for i, w in enumerate(words, 1)])
    if "fwhm" in found and found["fwhm"].size != count:
        raise _wrong_length(path, "fwhm", found["fwhm"].size, count)
    words = [whole["wavelength_units"]] if "wavelength_units" in whole else []
    none = np.full(count, np.nan)
    return _Said("the list of the file", found.get("wavelength", none), found.get("fwhm"), _one_unit(path, words))


def _from_descriptions(path: Path, source: rasterio.DatasetReader) -> _Said:
    wavelength, words = np.full(source.count, np.nan), []
    try:
        descriptions = source.descriptions
    except UnicodeDecodeError:  # tags in another encoding than UTF-8 say nothing either
        descriptions = ()
    for i, text in enumerate(descriptions):
        match = _DESCRIPTION.fullmatch(text.strip()) if text and len(text) <= _LONGEST_DESCRIPTION else None
        if match and not _A_RANGE.search(match["before"]):
            wavelength[i] = strict_number(path, f"wavelength in the description of band {i + 1}", match["number"])
            words.append(match["unit"])
    return _Said("the band descriptions", wavelength, unit=_one_unit(path, words))


def _good_bands(path: Path, tags: Sequence[Tags], whole: Tags) -> NDArray[np.bool_] | None:
    def good(i: int, word: str) -> bool:
        known = _GOOD.get(word.strip().lower())
        value = strict_number(path, f"mark of band {i} as good", word) if known is None else known
        if value not in (0, 1):
            raise InputError(path, f"mark of band {i} as good", repr(word)[:60], "1 or 0", "correct it")
        return value == 1

    marks = [band.get("bbl", band.get("good")) for band in tags]
    if all(mark is None for mark in marks):
        marks = list(_list(whole.get("bbl", "")))
        if not marks:
            return None
        if len(marks) != len(tags):
            raise _wrong_length(path, "bbl", len(marks), len(tags))
    return np.array([mark is None or good(i, mark) for i, mark in enumerate(marks, 1)])


def _list(text: str) -> list[str]:
    words = [word.strip() for word in text.strip().strip("{}[]()").split(",")]
    return words if words[-1] else words[:-1]  # a comma may end a list


def _wrong_length(path: Path, name: str, length: int, count: int) -> InputError:
    return InputError(
        path,
        f"number of values of {name} in the list of the file",
        length,
        f"{count}, one for each band",
        "correct the tags",
    )


def _one_unit(path: Path, words: list[str]) -> str | None:
    """The unit that all words mean, as the first words it; None where there are none."""
    for word in words:
        if _meaning(word) != _meaning(words[0]):
            raise InputError(
                path, "wavelength units", f"{words[0]!r} and {word!r}", "one unit for all bands", "correct the tags"
            )
    return words[0] if words else None


def _meaning(unit: str) -> float | str:
    word = unit.strip().lower()
    return NM_PER_UNIT.get(word, word)


def _check_agreement(path: Path, first: _Said, other: _Said) -> None:
    """Makes sure that two places name the same wavelengths, whatever an unnamed unit may be."""
    both = np.isfinite(first.wavelength) & np.isfinite(other.wavelength)
    apart = [
        np.flatnonzero(both & (np.abs(first.wavelength * here - other.wavelength * there) > _CLOSE_NM))
        for here, there in product(_factors(first.unit), _factors(other.unit))
    ]
    if not all(bands.size for bands in apart):
        return
    band = int(apart[0][0])
    raise InputError(
        path,
        f"wavelength of band {band + 1}",
        f"{first.wavelength[band]:g} {first.unit or ''}".strip() + f" in {first.where}",
        f"{other.wavelength[band]:g} {other.unit or ''}".strip() + f" as in {other.where}",
        "correct one of the two",
    )


def _factors(unit: str | None) -> tuple[float, ...]:
    known = _meaning(unit or "")
    return (known,) if isinstance(known, float) else (1.0, 1000.0)
