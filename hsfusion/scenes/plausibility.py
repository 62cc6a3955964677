"""Whether a cube is plausible although it opens: each warning one line, for people to judge."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsfusion.scenes.formats.cube_file import CubeFile, Pixels
from hsfusion.scenes.formats.envi import EnviPixels
from hsfusion.scenes.scene import Window
from hsfusion.scenes.survey import Survey
from hsfusion.spectra import Bands

_FILLS = (-9999.0, -999.0, -32768.0, -2147483648.0)  # in files of any type; beside them, what _is_fill says
_IMPOSSIBLE = 1e15  # nothing that is measured is as large, in any unit, but for photon radiances
_NOT_OF_THE_REST = 1000.0  # times what the rest reaches, in photon radiances, too
_SENSIBLE_NM = (300.0, 15_000.0)  # imaging spectrometers see from the near ultraviolet to the thermal infrared
_WIDE, _NARROW = 5.0, 0.1  # FWHM, in median spacings, that can hardly be meant
_PILE = 0.001  # share of pixels at one extreme value that no picture has by chance
_LEAST_PIXELS = 10  # of such a pile
_BELOW_ZERO = 0.01
_SHOWN = 3
_AXES = {"bsq": "bls", "bil": "lbs", "bip": "lsb"}  # axes of the binary: bands, lines, samples
_LINES, _SAMPLES, _PLACES = 16, 32, 3  # of the sample
_SIDE, _LEAST_SQUARE = 32, 256  # of that in which a curve along lines or samples has to show
_LEAST_NUMBERS = 1000
# Read as written, no real cube was rougher than in a wrong way; of 210 wrong readings, 202 were found under this limit.
_FAR_SMOOTHER = 0.6
# Share of the variance between the means along an axis: of nine real cubes and 1080 crops in the right order, one crop
# reached the limit along rows or columns; with bands as rows or columns, five of nine did.
_LIKE_BANDS, _UNLIKE_BANDS = 0.7, 0.2


def plausibility_warnings(file: CubeFile, survey: Survey, bands: Bands | None) -> list[str]:
    """Lists what looks wrong about a cube, one sentence each; ``bands`` are None where wavelengths are not known.

    Numbers that are meant to be typed are stored ones, and exact; shares are those of the pixels that were looked at.
    """
    marked = file.table.good if bands is None else bands.good
    good = np.ones(file.layers, bool) if marked is None else np.array(marked)
    used = good & ~survey.dead
    lines = [] if bands is None else [*_wavelengths(bands)]
    lines += _nodata(file, survey, used)
    if used.any():
        lines += [*_scale(file, survey, used), *_ceilings(file, survey, used, bands), *_negative(file, survey, used)]
    lines += [*_dead(survey, good, bands), *_layout(file)]
    return lines


def format_band_ranges(chosen: NDArray[np.bool_], bands: Bands | None) -> str:
    """Names chosen bands by their numbers, from 1, and wavelengths: ``3, 104-113 (1343-1433 nm)``."""
    index = np.flatnonzero(chosen)
    texts = []
    for part in np.split(index, np.flatnonzero(np.diff(index) > 1) + 1) if index.size else ():
        first, last = part[0], part[-1]
        text = f"{first + 1}" if first == last else f"{first + 1}-{last + 1}"
        if bands is not None:
            ends = bands.wavelength_nm[[first, last]]
            text += f" ({ends[0]:.0f} nm)" if first == last else f" ({ends[0]:.0f}-{ends[1]:.0f} nm)"
        texts.append(text)
    return ", ".join(texts)


def _wavelengths(bands: Bands) -> Iterator[str]:
    nm = bands.wavelength_nm
    step = np.diff(nm)
    back = np.flatnonzero(step < 0)
    if back.size and back.size < np.count_nonzero(step):  # a descending axis is in order, too
        steps = [f"band {i + 1} to {i + 2} ({nm[i]:.1f} to {nm[i + 1]:.1f} nm)" for i in back]
        times = "once" if back.size == 1 else f"{back.size} times"
        yield f"wavelengths step back {times}: {_first(steps)}. File order is kept."
    value, count = np.unique(nm, return_counts=True)
    if (count > 1).any():
        twice = [f"{nm:g} nm ({n} bands)" for nm, n in zip(value[count > 1], count[count > 1], strict=True)]
        yield f"wavelengths occur more than once: {_first(twice)}."
    spacing = float(np.median(np.abs(step[step != 0]))) if step.any() else np.nan
    width = np.nan if bands.fwhm_nm is None else float(np.median(bands.fwhm_nm))
    if width < _NARROW * spacing or width > _WIDE * spacing:
        where = f"FWHM is {width:g} nm where bands are {spacing:g} nm apart (medians)"
        yield f"{where}: it may be in another unit, or not a full width."
    if nm.min() < _SENSIBLE_NM[0] or nm.max() > _SENSIBLE_NM[1]:
        where = f"wavelengths run from {nm.min():g} to {nm.max():g} nm"
        yield f"{where}, and no imaging spectrometer sees that: check their unit."


def _nodata(file: CubeFile, survey: Survey, used: NDArray[np.bool_]) -> Iterator[str]:
    nodata, share, unmatched = file.nodata, survey.sample, False
    declared = "the file declares no nodata"
    if nodata is not None:
        source = "scene.nodata is" if file.nodata_given else "the file declares nodata"
        declared = f"{source} {exact(file.as_stored(nodata))}"
        fits = _fits(nodata, file.pixels.dtype)
        if not fits:
            yield f"{declared}, which {file.pixels.dtype.name} cannot hold: no pixel is taken as no data."
        unmatched = file.nodata_given and fits and not survey.no_data.any()  # that of a file often has no pixel
    if unmatched:
        declared += f", which {'no pixel' if survey.is_whole else f'none of {survey.sample}'} has"
    fills = [fill for end in _ends(survey) for fill in _grouped(file, end, _is_fill(file, end, survey, used))]
    for fill in fills[:_SHOWN]:
        hold = "1 band holds" if fill.bands.sum() == 1 else f"{fill.bands.sum()} bands hold"
        yield (
            f"{hold} {exact(fill.stored)} (in up to {fill.share:.1%} of {share}), which often means no data, but "
            f"{declared}: {_advice(file, fill.stored)} if so."
        )
    if len(fills) > _SHOWN:
        yield f"{len(fills) - _SHOWN} more values look like no data in the same way."
    if unmatched and not fills:
        yield f"{declared}."
    unshifted = file.offset is None or not file.offset.any()  # else a stored 0 is no physical 0
    if file.layers > 1 and survey.blank > _PILE and nodata != 0 and unshifted:
        yield (
            f"{survey.blank:.1%} of {share} are 0 in all bands that have data there, which often means no data: "
            f"{_advice(file, 0)} if so."
        )


class _End(NamedTuple):
    """One end of the values of each band."""

    value: NDArray[np.float64]  # (C,)
    share: NDArray[np.float64]  # (C,) of pixels that have it
    place: NDArray[np.int64]  # (C, 2) of a pixel that has it
    is_highest: bool


class _Pile(NamedTuple):
    """Bands (C,) of which an extreme value is one stored number, and the largest share of pixels that have it."""

    stored: np.generic
    value: float
    bands: NDArray[np.bool_]
    share: float


def _ends(survey: Survey) -> tuple[_End, _End]:
    return (
        _End(survey.lowest, survey.at_lowest, survey.lowest_at, is_highest=False),
        _End(survey.highest, survey.at_highest, survey.highest_at, is_highest=True),
    )


def _is_fill(file: CubeFile, end: _End, survey: Survey, used: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Bands (C,) of which one end is a value that nothing measured can be, or, below, a pile far off the rest."""
    dtype = file.pixels.dtype
    values = [value for value in _FILLS if _fits(value, dtype)]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values += [limits.min, limits.min + 1] if dtype.kind == "i" else []
        values += [limits.max, limits.max - 1] if dtype.itemsize > 2 else []  # no sensor counts as far
    hit = np.logical_or.reduce([end.value == _physical(file, value) for value in values])
    rest = np.abs(survey.inner).max(axis=0)
    with np.errstate(invalid="ignore"):  # comparisons with NaN, of bands without data, are False
        size = np.abs(end.value)
        hit |= (size > _IMPOSSIBLE) & ~(size <= _NOT_OF_THE_REST * rest)
        if not end.is_highest:
            hit |= used & _is_far_off(end, survey) & (end.value != 0) & (end.share > _least_share(survey))
    return hit & (end.place[:, 0] >= 0)


def _is_far_off(end: _End, survey: Survey) -> NDArray[np.bool_]:
    """Bands (C,) of which one end is as far from the other values as these from each other; not of a few steps."""
    inner, outer = survey.inner, survey.inner[-1 if end.is_highest else 0]
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
    """How a stored number is made to mean no data; that of a file can only be replaced by one close to it."""
    if file.nodata is None or file.nodata_given or np.isclose(float(stored), file.nodata):
        return f"set scene.nodata={exact(stored)}"
    return "correct the nodata value of the file"


def _scale(file: CubeFile, survey: Survey, used: NDArray[np.bool_]) -> Iterator[str]:
    if "radiance" in " ".join(file.facts.values()).lower():
        return
    typical = float(np.median(survey.quantiles[-1, used]))
    factor = 1.0 if file.gain is None else float(np.median(file.gain))
    most = f"in half of the good bands, 98% of the values lie below {typical:.5g}{survey.in_sample}"
    few = f"in half of the good bands, 2% of the values lie above {typical:.5g}{survey.in_sample}"
    if factor == 1 and 100 < typical < 30_000:
        yield f"{most}, and the file names no scale: if they are reflectances x 10,000, set scene.scale=0.0001."
    elif factor < 1 and typical > 1.5 and np.ptp(np.asarray(file.gain)) == 0:
        yield f"{few} after the scale {factor:g}, where reflectance ends near 1: check the scale."
    elif factor < 1 and 0 < typical < 0.005:
        yield f"{most} after the scale {factor:g}: they may have been scaled before."


def _ceilings(file: CubeFile, survey: Survey, used: NDArray[np.bool_], bands: Bands | None) -> Iterator[str]:
    """Piles of pixels at the upper end: saturated, clipped, or no data."""
    dtype, end = file.pixels.dtype, _ends(survey)[1]
    top = [2.0**bits - 1 for bits in (10, 12, 14, 15, 16)] if dtype.kind in "iu" and dtype.itemsize == 2 else []
    top += [255.0] if dtype.kind in "iu" and dtype.itemsize == 1 else []
    full = np.logical_or.reduce([end.value == _physical(file, value) for value in top] or [np.zeros(1, bool)])
    values, count = np.unique(end.value[used], return_counts=True)
    steps = (survey.highest - survey.lowest) / (1 if file.gain is None else file.gain)
    fine = (dtype.kind == "f") | (steps > 1000)  # bands of few steps share a maximum anyway
    often = np.isin(end.value, values[count >= 3]) & fine  # one ceiling for many
    high = used & (full | often | _is_far_off(end, survey)) & (end.share > _least_share(survey))
    high &= ~_is_fill(file, end, survey, used)
    for pile in [*_grouped(file, end, high & (end.value != 0))][:_SHOWN]:
        stored = exact(pile.stored)
        value = stored if float(pile.stored) == pile.value else f"{pile.value:g} (stored as {stored})"
        yield (
            f"values pile up at {value} in bands {format_band_ranges(pile.bands, bands)} (in up to {pile.share:.1%} of "
            f"{survey.sample}): saturated, clipped, or no data; {_advice(file, pile.stored)} if they are no data."
        )


def _negative(file: CubeFile, survey: Survey, used: NDArray[np.bool_]) -> Iterator[str]:
    lowest = _ends(survey)[0]
    fill = np.where((lowest.value < 0) & _is_fill(file, lowest, survey, used), lowest.share, 0)  # has a line of its own
    values = (1 - survey.no_data - fill)[used].sum()
    negative = (survey.negative - fill)[used].sum() / max(values, 1e-12)
    if negative > _BELOW_ZERO:
        other = "other " if fill[used].any() else ""
        yield f"{negative:.1%} of the {other}values in good bands are negative{survey.in_sample}."


def _dead(survey: Survey, good: NDArray[np.bool_], bands: Bands | None) -> Iterator[str]:
    unmarked = survey.dead & good
    if survey.dead.all():
        yield f"no band holds more than one value{survey.in_sample}."
    elif unmarked.any():
        where = "everywhere" if survey.is_whole else f"in all of {survey.sample}"
        chosen = format_band_ranges(unmarked, bands)
        yield f"bands {chosen} are dead (no data, or one value {where}) but not marked as bad."


def _layout(file: CubeFile) -> Iterator[str]:
    if (smoother := suspect_interleave(file)) is not None:
        yield (
            f"neighbouring pixels and bands are far more alike when the binary is read as {smoother[0].upper()}, "
            f"{smoother[1]}: interleave or byte order of the header are probably wrong."
        )
    if (axis := suspect_axis_order(file)) is not None:
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


def _least_share(survey: Survey) -> float:
    """Share of pixels at one extreme value above which it is a pile."""
    return max(_PILE, _LEAST_PIXELS / survey.pixels)


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


def suspect_interleave(file: CubeFile) -> tuple[str, str] | None:
    """Interleave and byte order under which neighbours are far more alike than under the declared ones; or None.

    A cube changes slowly along all three of its axes; read in a wrong way, at least along one of them it does not.
    Only raw cubes (ENVI) can be read in a wrong way.
    """
    declared = file.pixels
    if not isinstance(declared, EnviPixels):
        return None
    sizes = dict(zip(_AXES[declared.order], declared.shape, strict=True))
    if min(sizes.values()) < 2 or np.prod(list(sizes.values()), dtype=float) < _LEAST_NUMBERS:
        return None
    scores: dict[tuple[str, np.dtype], float] = {}
    for order, dtype in product(_AXES, {declared.dtype, declared.dtype.newbyteorder()}):
        shape = tuple(sizes[axis] for axis in _AXES[order])
        pixels = dataclasses.replace(declared, order=order, shape=shape, dtype=dtype)
        scores[order, dtype] = _roughness(file, pixels, sizes["l"], sizes["s"])
    best = min(scores, key=lambda reading: scores[reading] if np.isfinite(scores[reading]) else np.inf)
    if not scores[best] < _FAR_SMOOTHER * scores[declared.order, declared.dtype]:
        return None
    return best[0], "little endian" if best[1].newbyteorder("<") == best[1] else "big endian"


def suspect_axis_order(file: CubeFile) -> str | None:
    """``rows`` or ``columns`` where numbers follow one curve along them, as they do along bands, and not along bands.

    All pixels of a scene have much of their spectra in common: light, atmosphere, sensor. Rows have nothing in common.
    """
    lines, samples = file.geobox.shape
    if isinstance(file.pixels, EnviPixels) or min(lines, samples, file.layers) < 2 or lines * samples < _LEAST_SQUARE:
        return None
    ranks = _ranks(_sample(file.pixels, (lines, samples), most=(_SIDE, _SIDE)), file)  # (places, C, h, w)
    if np.isfinite(ranks).sum() < _LEAST_NUMBERS:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of layers without data
        bands, rows, columns = (_explained(ranks, axis) for axis in (1, 2, 3))
    axis, share = ("rows", rows) if rows > columns else ("columns", columns)
    return axis if share > _LIKE_BANDS and bands < _UNLIKE_BANDS else None


def _explained(ranks: NDArray[np.float64], axis: int) -> float:
    """Share of the variance at each place that lies between the means along an axis."""
    means = np.nanmean(ranks, axis=tuple({1, 2, 3} - {axis}))  # (places, n)
    between = np.nanmean((means - np.nanmean(means, axis=1, keepdims=True)) ** 2)
    spread = np.nanmean((ranks - np.nanmean(ranks, axis=(1, 2, 3), keepdims=True)) ** 2)
    return float(between / spread) if spread > 0 else 0.0


def _sample(pixels: Pixels, grid: tuple[int, int], *, most: tuple[int, int]) -> NDArray[np.float64]:
    """Blocks (places, C, h, w) from one corner to the other, NaN where the file has a mask."""
    height, width = map(min, grid, most)
    blocks = []
    for i in range(_PLACES):
        row, col = (int((size - part) * (i + 0.5) / _PLACES) for size, part in zip(grid, (height, width), strict=True))
        block = pixels.read(Window(row, col, height, width))
        with np.errstate(over="ignore", invalid="ignore"):  # numbers in a wrong byte order can be anything
            values = np.array(np.ma.getdata(block), np.float64)
        values[np.ma.getmaskarray(block)] = np.nan
        blocks.append(values)
    return np.stack(blocks)


def _roughness(file: CubeFile, pixels: EnviPixels, lines: int, samples: int) -> float:
    """Mean step of ranks between neighbours in each direction, relative to that between any two numbers, summed."""
    ranks = _ranks(_sample(pixels, (lines, samples), most=(_LINES, _SAMPLES)), file)  # (places, C, h, w)
    known = ranks[np.isfinite(ranks)]
    if known.size < _LEAST_NUMBERS:
        return np.nan
    spread = np.abs(known - np.random.default_rng(0).permutation(known)).mean()
    steps = [np.abs(np.diff(ranks, axis=axis)) for axis in (1, 2, 3)]
    if not spread or not all(np.isfinite(step).any() for step in steps):
        return np.nan
    return float(sum(np.nanmean(step) for step in steps) / spread)


def _ranks(values: NDArray[np.float64], file: CubeFile) -> NDArray[np.float64]:
    """Ranks 0..1 of numbers of any shape, equal ones sharing theirs; NaN for no data."""
    nodata = np.nan if file.nodata is None else float(file.as_stored(file.nodata))
    known = np.isfinite(values) & (values != nodata)
    ranks = np.full(values.shape, np.nan)
    if known.any():
        _, place, count = np.unique(values[known], return_inverse=True, return_counts=True)
        ranks[known] = ((np.cumsum(count) - count / 2) / count.sum())[place]
    return ranks
