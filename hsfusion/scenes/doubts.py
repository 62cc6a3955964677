"""What looks wrong about a cube although it opens: each doubt one line, for people to judge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.raw_layout import axis_like_bands, smoother_layout
from hsfusion.scenes.scene import Window
from hsfusion.scenes.survey import Survey
from hsfusion.spectra import Bands

_FILLS = (-9999.0, -999.0, -32768.0, -2147483648.0)  # in files of any type; beside them, what _is_fill says
_IMPOSSIBLE = 1e15  # nothing that is measured is as large, in any unit, but for photon radiances
_NOT_OF_THE_REST = 1000.0  # times what the rest reaches, in photon radiances, too
_NEAR = 1e-3  # relative difference of a nodata value that was rounded, or mistyped
_SENSIBLE_NM = (300.0, 15_000.0)  # imaging spectrometers see from the near ultraviolet to the thermal infrared
_WIDE, _NARROW = 5.0, 0.1  # FWHM, in median spacings, that can hardly be meant
_PILE = 0.001  # share of pixels at one extreme value that no picture has by chance
_LEAST_PIXELS = 10  # of such a pile
_BELOW_ZERO = 0.01
_SHOWN = 3


def warnings_of(file: CubeFile, found: Survey, bands: Bands | None) -> list[str]:
    """Lists what looks wrong about a cube.

    Numbers that are meant to be typed are stored ones, and exact; shares are those of the pixels that were looked at.

    Args:
        file: the cube.
        found: survey of its pixels.
        bands: its bands, or None where its wavelengths are not known.

    Returns:
        Sentences without line breaks; none if nothing looks wrong.

    Raises:
        InputError: if the file cannot be read.
    """
    marked = file.table.good if bands is None else bands.good
    good = np.ones(file.layers, bool) if marked is None else np.array(marked)
    used = good & ~found.dead
    doubts = [] if bands is None else [*_order(bands), *_widths(bands), *_unit(bands)]
    doubts += _nodata(file, found, used)
    if used.any():
        doubts += [*_scale(file, found, used), *_ceilings(file, found, used, bands), *_negative(file, found, used)]
    doubts += [*_dead(found, good, bands), *_layout(file)]
    return doubts


def runs(chosen: NDArray[np.bool_], bands: Bands | None) -> str:
    """Names chosen bands by their numbers, from 1, and wavelengths: ``3, 104-113 (1343-1433 nm)``."""
    index = np.flatnonzero(chosen)
    parts = [part for part in np.split(index, np.flatnonzero(np.diff(index) > 1) + 1) if part.size]
    texts = []
    for part in parts:
        first, last = part[0], part[-1]
        text = f"{first + 1}" if first == last else f"{first + 1}-{last + 1}"
        if bands is not None:
            ends = bands.wavelength_nm[[first, last]]
            text += f" ({ends[0]:.0f} nm)" if first == last else f" ({ends[0]:.0f}-{ends[1]:.0f} nm)"
        texts.append(text)
    return ", ".join(texts)


def _order(bands: Bands) -> Iterator[str]:
    nm = bands.wavelength_nm
    step = np.diff(nm)
    back = np.flatnonzero(step < 0)
    if back.size and back.size < np.count_nonzero(step):  # a descending axis is in order, too
        steps = [f"band {i + 1} to {i + 2} ({nm[i]:.1f} to {nm[i + 1]:.1f} nm)" for i in back]
        yield f"wavelengths step back {_times(back.size)}: {_first(steps)}. File order is kept."
    value, count = np.unique(nm, return_counts=True)
    if (count > 1).any():
        twice = [f"{nm:g} nm ({n} bands)" for nm, n in zip(value[count > 1], count[count > 1], strict=True)]
        yield f"wavelengths occur more than once: {_first(twice)}."


def _widths(bands: Bands) -> Iterator[str]:
    spacing = np.abs(np.diff(bands.wavelength_nm))
    spacing = spacing[spacing > 0]
    if bands.fwhm_nm is None or not spacing.size:
        return
    width, step = float(np.median(bands.fwhm_nm)), float(np.median(spacing))
    if not _NARROW * step <= width <= _WIDE * step:
        yield (
            f"FWHM is {width:g} nm where bands are {step:g} nm apart (medians): it may be in another unit, "
            "or not a full width."
        )


def _unit(bands: Bands) -> Iterator[str]:
    nm = bands.wavelength_nm
    if nm.min() < _SENSIBLE_NM[0] or nm.max() > _SENSIBLE_NM[1]:
        yield (
            f"wavelengths run from {nm.min():g} to {nm.max():g} nm, and no imaging spectrometer sees that: "
            "check their unit."
        )


def _nodata(file: CubeFile, found: Survey, used: NDArray[np.bool_]) -> Iterator[str]:
    nodata, share, unmatched = file.nodata, _share_of(found), False
    declared = "the file declares no nodata"
    if nodata is not None:
        source = "scene.nodata is" if file.nodata_given else "the file declares nodata"
        declared = f"{source} {exact(file.as_stored(nodata))}"
        fits = _fits(nodata, file.pixels.dtype)
        if not fits:
            yield f"{declared}, which {file.pixels.dtype.name} cannot hold: no pixel is taken as no data."
        unmatched = file.nodata_given and fits and not found.no_data.any()  # that of a file often has no pixel
    if unmatched:
        declared += f", which {_none_of(found)} has"
    fills = [fill for end in _ends(found) for fill in _grouped(file, end, _is_fill(file, end, found, used))]
    for fill in fills[:_SHOWN]:
        hold = "1 band holds" if fill.bands.sum() == 1 else f"{fill.bands.sum()} bands hold"
        yield (
            f"{hold} {exact(fill.stored)} (in up to {fill.share:.1%} of {share}), which often means no data, but "
            f"{declared}: {_advice(file, fill.stored)} if so."
        )
    if len(fills) > _SHOWN:
        yield f"{len(fills) - _SHOWN} more values look like no data in the same way."
    if unmatched and not fills:
        yield f"{declared}{_nearest(file, found)}."
    unshifted = file.offset is None or not file.offset.any()  # else a stored 0 is no physical 0
    if file.layers > 1 and found.blank > _PILE and nodata != 0 and unshifted:
        yield (
            f"{found.blank:.1%} of {share} are 0 in all bands that have data there, which often means no data: "
            f"{_advice(file, 0)} if so."
        )


class _End(NamedTuple):
    """One end of the values of each band: value (C,), share of pixels that have it (C,), a pixel that has it (C, 2)."""

    value: NDArray[np.float64]
    share: NDArray[np.float64]
    place: NDArray[np.int64]
    is_highest: bool


class _Pile(NamedTuple):
    """Bands (C,) of which an extreme value is one stored number, and the largest share of pixels that have it."""

    stored: np.generic
    value: float
    bands: NDArray[np.bool_]
    share: float


def _ends(found: Survey) -> tuple[_End, _End]:
    return (
        _End(found.lowest, found.at_lowest, found.lowest_at, is_highest=False),
        _End(found.highest, found.at_highest, found.highest_at, is_highest=True),
    )


def _is_fill(file: CubeFile, end: _End, found: Survey, used: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Bands (C,) of which one end is a value that nothing measured can be, or, below, a pile far off the rest.

    A pile at the upper end may be saturation as well, see :func:`_ceilings`.
    """
    dtype = file.pixels.dtype
    values = [value for value in _FILLS if _fits(value, dtype)]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values += [limits.min, limits.min + 1] if dtype.kind == "i" else []
        values += [limits.max, limits.max - 1] if dtype.itemsize > 2 else []  # no sensor counts as far
    hit = np.logical_or.reduce([end.value == _physical(file, value) for value in values])
    rest = np.abs(found.inner).max(axis=0)
    with np.errstate(invalid="ignore"):  # comparisons with NaN, of bands without data, are False
        size = np.abs(end.value)
        hit |= (size > _IMPOSSIBLE) & ~(size <= _NOT_OF_THE_REST * rest)
        if not end.is_highest:
            hit |= used & _is_far_off(end, found) & (end.value != 0) & (end.share > _least_share(found))
    return hit & (end.place[:, 0] >= 0)


def _is_far_off(end: _End, found: Survey) -> NDArray[np.bool_]:
    """Bands (C,) of which one end is as far from the other values as these from each other; not of a few steps."""
    inner = found.inner
    outer = inner[-1] if end.is_highest else inner[0]
    with np.errstate(invalid="ignore"):
        return (np.abs(end.value - outer) >= inner[-1] - inner[0]) & (np.diff(inner, axis=0) > 0).all(axis=0)


def _grouped(file: CubeFile, end: _End, chosen: NDArray[np.bool_]) -> Iterator[_Pile]:
    """The chosen bands (C,) by the number that is stored where they have their extreme."""
    stored: dict[np.generic, list[int]] = {}
    numbers: dict[tuple[object, ...], np.generic] = {}
    for band in np.flatnonzero(chosen):
        scaling = [None if values is None else values[band] for values in (file.gain, file.offset)]
        key = (end.value[band], *scaling)  # bands that share all of these store one number: one pixel is read
        if key not in numbers:
            row, col = end.place[band].tolist()
            numbers[key] = np.ma.getdata(file.pixels.read(Window(row, col, 1, 1)))[band, 0, 0]
        stored.setdefault(numbers[key], []).append(int(band))
    for number, bands in stored.items():
        value = float(end.value[bands[0]])
        yield _Pile(number, value, np.isin(np.arange(file.layers), bands), float(end.share[bands].max()))


def _advice(file: CubeFile, stored: float | np.generic) -> str:
    """How a stored number is made to mean no data; a file's own nodata can only be replaced by one close to it."""
    if file.nodata is None or file.nodata_given or np.isclose(float(stored), file.nodata):
        return f"set scene.nodata={exact(stored)}"
    return "correct the nodata value of the file"


def _nearest(file: CubeFile, found: Survey) -> str:
    """The stored number that is nearest to the nodata value, where it is so near that it may be meant."""
    assert file.nodata is not None
    for end in _ends(found):
        physical = _physical(file, file.nodata)
        with np.errstate(invalid="ignore"):
            near = np.abs(end.value - physical) <= _NEAR * np.abs(physical)
        for pile in _grouped(file, end, near & (end.place[:, 0] >= 0)):
            return f"; {exact(pile.stored)} occurs: set scene.nodata={exact(pile.stored)} if that means no data"
    return ""


def _scale(file: CubeFile, found: Survey, used: NDArray[np.bool_]) -> Iterator[str]:
    if "radiance" in " ".join(file.facts.values()).lower():
        return
    typical = float(np.median(found.quantiles[-1, used]))
    factor = 1.0 if file.gain is None else float(np.median(file.gain))
    most = f"in half of the good bands, 98% of the values lie below {typical:.5g}{_looked_at(found)}"
    few = f"in half of the good bands, 2% of the values lie above {typical:.5g}{_looked_at(found)}"
    if factor == 1 and 100 < typical < 30_000:
        yield f"{most}, and the file names no scale: if they are reflectances x 10,000, set scene.scale=0.0001."
    elif factor < 1 and typical > 1.5 and np.ptp(np.asarray(file.gain)) == 0:
        yield f"{few} after the scale {factor:g}, where reflectance ends near 1: check the scale."
    elif factor < 1 and 0 < typical < 0.005:
        yield f"{most} after the scale {factor:g}: they may have been scaled before."


def _ceilings(file: CubeFile, found: Survey, used: NDArray[np.bool_], bands: Bands | None) -> Iterator[str]:
    """Piles of pixels at the upper end: saturated, clipped, or no data."""
    dtype, end = file.pixels.dtype, _ends(found)[1]
    top = [2.0**bits - 1 for bits in (10, 12, 14, 15, 16)] if dtype.kind in "iu" and dtype.itemsize == 2 else []
    top += [255.0] if dtype.kind in "iu" and dtype.itemsize == 1 else []
    full = np.logical_or.reduce([end.value == _physical(file, value) for value in top] or [np.zeros(1, bool)])
    values, count = np.unique(end.value[used], return_counts=True)
    steps = (found.highest - found.lowest) / (1 if file.gain is None else file.gain)
    fine = (dtype.kind == "f") | (steps > 1000)  # bands of few steps share a maximum anyway
    often = np.isin(end.value, values[count >= 3]) & fine  # one ceiling for many
    high = (
        used
        & (full | often | _is_far_off(end, found))
        & (end.share > _least_share(found))
        & ~_is_fill(file, end, found, used)
    )
    for pile in [*_grouped(file, end, high & (end.value != 0))][:_SHOWN]:
        stored = exact(pile.stored)
        value = stored if float(pile.stored) == pile.value else f"{pile.value:g} (stored as {stored})"
        yield (
            f"values pile up at {value} in bands {runs(pile.bands, bands)} (in up to {pile.share:.1%} of "
            f"{_share_of(found)}): saturated, clipped, or no data; {_advice(file, pile.stored)} if they are no data."
        )


def _negative(file: CubeFile, found: Survey, used: NDArray[np.bool_]) -> Iterator[str]:
    lowest = _ends(found)[0]
    fill = np.where((lowest.value < 0) & _is_fill(file, lowest, found, used), lowest.share, 0)  # has a line of its own
    values = (1 - found.no_data - fill)[used].sum()
    negative = (found.negative - fill)[used].sum() / max(values, 1e-12)
    if negative > _BELOW_ZERO:
        other = "other " if fill[used].any() else ""
        yield f"{negative:.1%} of the {other}values in good bands are negative{_looked_at(found)}."


def _dead(found: Survey, good: NDArray[np.bool_], bands: Bands | None) -> Iterator[str]:
    unmarked = found.dead & good
    if found.dead.all():
        yield f"no band holds more than one value{_looked_at(found)}."
    elif unmarked.any():
        where = "everywhere" if found.pixels == found.total else f"in all of {_share_of(found)}"
        yield f"bands {runs(unmarked, bands)} are dead (no data, or one value {where}) but not marked as bad."


def _layout(file: CubeFile) -> Iterator[str]:
    smoother = smoother_layout(file)
    if smoother is not None:
        yield (
            f"neighbouring pixels and bands are far more alike when the binary is read as {smoother[0].upper()}, "
            f"{smoother[1]}: interleave or byte order of the header are probably wrong."
        )
    axis = axis_like_bands(file)
    if axis is not None:
        rows, columns = file.geobox.shape
        yield (
            f"values follow one curve along the {axis}, as they should along the bands: the axes of the array are "
            f"probably in another order than rows, columns, bands (here {rows} x {columns} x {file.layers})."
        )


def _fits(value: float, dtype: np.dtype) -> bool:
    """Whether a type can hold a number."""
    if dtype.kind not in "iu":
        with np.errstate(over="ignore"):
            return bool(np.isnan(value) or np.isfinite(np.float64(value).astype(dtype)))
    return value == np.floor(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def exact(value: float | np.generic) -> str:
    """Writes a number so that what is typed back is the same number of its type: ``-9999``, ``-3.4028235e+38``."""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < _IMPOSSIBLE else str(value)


def _least_share(found: Survey) -> float:
    """Share of pixels at one extreme value above which it is a pile."""
    return max(_PILE, _LEAST_PIXELS / found.pixels)


def _share_of(found: Survey) -> str:
    """What shares are shares of."""
    return "the pixels" if found.pixels == found.total else f"the {found.pixels:,} pixels that were looked at"


def _looked_at(found: Survey) -> str:
    return "" if found.pixels == found.total else f", in {_share_of(found)}"


def _none_of(found: Survey) -> str:
    return "no pixel" if found.pixels == found.total else f"none of {_share_of(found)}"


def _physical(file: CubeFile, stored: float) -> NDArray[np.float32]:
    """What a stored number becomes in each band (C,), by the very steps of :meth:`CubeFile.read`."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.full(file.layers, stored).astype(np.float32)
        if file.gain is not None:
            values *= file.gain.astype(np.float32)
        if file.offset is not None:
            values += file.offset.astype(np.float32)
    return values


def _first(texts: list[str]) -> str:
    more = len(texts) - _SHOWN
    return ", ".join(texts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
