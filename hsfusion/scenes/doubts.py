"""What looks wrong about a cube although it opens: each doubt one line, for people to judge."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hsfusion.scenes.raw_layout import axis_like_bands, smoother_layout
from hsfusion.scenes.readers.cube_file import CubeFile
from hsfusion.scenes.survey import QUANTILES, Survey
from hsfusion.spectra import Bands

_SENTINELS = (-9999.0, -999.0, -32768.0, -2147483648.0, -1e34, 9.969209968386869e36, 1e20)  # «no data» in many products
_SENSIBLE_NM = (300.0, 15_000.0)  # imaging spectrometers see from the near ultraviolet to the thermal infrared
_WIDE, _NARROW = 5.0, 0.1  # FWHM, in median spacings, that can hardly be meant
_PILE = 0.001  # share of pixels at one extreme value that no picture has by chance
_LEAST_PIXELS = 10  # of such a pile
_BELOW_ZERO = 0.01
_SHOWN = 3


def warnings_of(file: CubeFile, found: Survey, bands: Bands | None) -> list[str]:
    """Lists what looks wrong about a cube.

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
    doubts += _nodata(file, found)
    if used.any():
        doubts += [*_scale(file, found, used), *_extremes(file, found, used, bands)]
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


def _nodata(file: CubeFile, found: Survey) -> Iterator[str]:
    dtype, nodata = file.pixels.dtype, file.nodata
    if nodata is not None and not _fits(nodata, dtype):
        yield f"nodata is {nodata:g}, which {dtype.name} cannot hold: no pixel is taken as no data."
    for value in _SENTINELS:
        if not _fits(value, dtype) or value == nodata:
            continue
        hit = (found.lowest == _physical(file, value)) | (found.highest == _physical(file, value))
        if hit.any():
            share = np.where(found.lowest == _physical(file, value), found.at_lowest, found.at_highest)[hit].max()
            said = "the file names no nodata value" if nodata is None else f"nodata is {nodata:g}"
            yield (
                f"{hit.sum()} bands hold {value:g} (in up to {share:.1%} of the pixels), which often means no data, "
                f"but {said}: set nodata={value:g} if so."
            )
    if file.layers > 1 and found.blank > _PILE and nodata != 0:
        yield f"{found.blank:.1%} of the pixels are 0 in all bands, which often means no data: set nodata=0 if so."


def _scale(file: CubeFile, found: Survey, used: NDArray[np.bool_]) -> Iterator[str]:
    if "radiance" in " ".join(file.facts.values()).lower():
        return
    typical = float(np.median(found.quantiles[-1, used]))  # 98 % of a typical band lie below
    factor = 1.0 if file.gain is None else float(np.median(file.gain))
    if factor == 1 and 100 < typical < 30_000:
        yield (
            f"{QUANTILES[-1]:.0%} of the values lie below {typical:.5g}, and the file names no scale: "
            "if they are reflectances x 10,000, set scale=0.0001."
        )
    elif factor < 1 and typical > 1.5 and np.ptp(np.asarray(file.gain)) == 0:
        yield f"values reach {typical:.3g} after the scale {factor:g}, where reflectance ends near 1: check the scale."
    elif factor < 1 and 0 < typical < 0.005:
        yield f"values stay below {typical:.3g} after the scale {factor:g}: they may have been scaled before."


def _extremes(file: CubeFile, found: Survey, used: NDArray[np.bool_], bands: Bands | None) -> Iterator[str]:
    dtype = file.pixels.dtype
    top = [2.0**bits - 1 for bits in (10, 12, 14, 15, 16)] if dtype.kind in "iu" and dtype.itemsize == 2 else []
    top += [255.0] if dtype.kind in "iu" and dtype.itemsize == 1 else []
    full = np.logical_or.reduce([found.highest == _physical(file, value) for value in top] or [np.zeros(1, bool)])
    values, count = np.unique(found.highest[used], return_counts=True)
    steps = (found.highest - found.lowest) / (
        1 if file.gain is None else file.gain
    )  # few of them share a maximum anyway
    often = np.isin(found.highest, values[count >= 3]) & ((dtype.kind == "f") | (steps > 1000))  # one ceiling for many
    high = used & (full | often) & (found.at_highest > max(_PILE, _LEAST_PIXELS / found.pixels))
    if high.any():
        yield (
            f"values pile up at {np.nanmax(found.highest[high]):g} in bands {runs(high, bands)} "
            f"(in up to {found.at_highest[high].max():.1%} of the pixels): saturated, clipped, or no data."
        )
    negative = found.negative[used].sum() / max((1 - found.no_data[used]).sum(), 1e-12)
    if negative > _BELOW_ZERO:
        yield f"{negative:.1%} of the values in good bands are negative."


def _dead(found: Survey, good: NDArray[np.bool_], bands: Bands | None) -> Iterator[str]:
    unmarked = found.dead & good
    if found.dead.all():
        yield "no band holds more than one value."
    elif unmarked.any():
        yield f"bands {runs(unmarked, bands)} are dead (no data, or one value everywhere) but not marked as bad."


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
        return bool(np.isnan(value) or abs(value) <= np.finfo(dtype).max)
    return value == np.floor(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def _physical(file: CubeFile, stored: float) -> NDArray[np.float32]:
    """What a stored number becomes in each band (C,), by the very steps of :meth:`CubeFile.read`."""
    values = np.full(file.layers, stored, np.float32)
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
