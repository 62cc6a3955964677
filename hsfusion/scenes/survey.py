"""A survey of the pixels of a cube, and whether it is plausible although it opens: each warning is one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.scenes.formats.cube_file import CubeFile, MappedPixels, can_hold
from hsfusion.scenes.formats.envi import LAYOUTS
from hsfusion.scenes.geobox import GeoBox, Window
from hsfusion.scenes.scene import ArrayRaster, Scene
from hsfusion.spectra import Bands
from hsfusion.spectra.bands import RANGES_NM

#: the quantiles of a survey, as fractions
QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)
_MOST_NUMBERS = 100_000_000  # to be read: one or two seconds
_MOST_SORTED = 20_000_000  # for the quantiles
_WINDOWS = 8  # at least, of a scene that is read in part

_FILLS = (-9999.0, -999.0, -32768.0, -2147483648.0)  # in files of any type; beside them, what _fills says
_IMPOSSIBLE = 1e19  # nothing that is measured is as large, in any unit
_SENSIBLE_NM = (300.0, 15_000.0)  # imaging spectrometers see from the near ultraviolet to the thermal infrared
_WIDE, _NARROW = 5.0, 0.1  # FWHM, in median spacings, that can hardly be meant
_BLANK = 0.001  # share of pixels that are 0 in all bands
_SHOWN = 3
_EDGE_NM = 10.0  # beside them, and beside a gap
_GAP = 3.0  # times the median spacing
_SPIKE = 10.0  # times the usual departure from the line between the neighbours
_LEAST_BANDS = 20  # of which something is usual
_LINES, _SAMPLES, _PLACES = 16, 32, 3  # of the sample
_LEAST_NUMBERS = 1000
# Read as written, no real cube was rougher than in a wrong way; of 210 wrong readings, 202 were found under this limit.
_FAR_SMOOTHER = 0.6


@dataclass(frozen=True, eq=False)
class Survey:
    """What the bands of a cube hold. Shares are fractions of the pixels that were looked at; values are physical."""

    pixels: int  # looked at
    total: int  # of the cube
    empty: float  # share of pixels without data in any band
    blank: float  # share of pixels that are exactly 0 wherever they have data
    no_data: NDArray[np.float64]  # (C,) share of pixels
    zero: NDArray[np.float64]  # (C,) share that is exactly 0
    lowest: NDArray[np.float64]  # (C,) smallest value, NaN for a band without data
    highest: NDArray[np.float64]  # (C,) largest value
    at_lowest: NDArray[np.float64]  # (C,) share that has exactly the smallest value
    at_highest: NDArray[np.float64]  # (C,) share that has exactly the largest value
    lowest_at: NDArray[np.int64]  # (C, 2) row and column of the first pixel with the smallest value
    highest_at: NDArray[np.int64]  # (C, 2) likewise, of the largest value
    mean: NDArray[np.float64]  # (C,)
    quantiles: NDArray[np.float64]  # (5, C), see QUANTILES; of evenly spaced pixels where they are many
    correlation: NDArray[np.float64]  # (C,) of right-hand neighbours: near 1 for a picture, 0 for noise
    dead: NDArray[np.bool_]  # (C,) bands without data, or with one value everywhere

    @property
    def sample(self) -> str:
        """What shares are shares of, in words."""
        return "the pixels" if self.pixels == self.total else f"the {self.pixels:,} pixels that were looked at"


def survey(cube: Scene | ArrayRaster) -> Survey:
    """Looks at every pixel of a cube of up to 100 million numbers, or at evenly spaced windows of whole rows."""
    rows, columns = cube.geobox.shape
    layers = cube.read(Window(0, 0, 1, 1)).shape[0]
    windows = _windows(cube.geobox, layers=layers)
    seen = np.concatenate([np.arange(window.row, window.row + window.height) for window in windows])  # rows
    values, first = np.empty((layers, seen.size, columns), np.float32), 0
    for window in windows:
        values[:, first : first + window.height] = cube.read(window)
        first += window.height
    step = -(-values.size // _MOST_SORTED)
    bands = [_survey_band(band, seen) for band in values]
    has_data, is_zero = np.zeros(values.shape[1:], bool), np.ones(values.shape[1:], bool)
    for band in values:
        has_data |= np.isfinite(band)
        is_zero &= (band == 0) | ~np.isfinite(band)
    return Survey(
        pixels=seen.size * columns,
        total=rows * columns,
        empty=1 - float(has_data.mean()),
        blank=float((has_data & is_zero).mean()),
        quantiles=np.array([_quantiles(band.ravel()[::step]) for band in values]).T,
        **{name: np.array([band[name] for band in bands]) for name in bands[0]},
    )


def _survey_band(band: NDArray[np.float32], seen: NDArray[np.int64]) -> dict[str, Any]:
    """What a survey says of a band (h, W), of which the rows (h,) of the cube were looked at."""
    data = band[np.isfinite(band)]
    facts: dict[str, Any] = {"no_data": 1 - data.size / band.size, "zero": (data == 0).sum() / band.size}
    facts["mean"] = data.mean(dtype=np.float64) if data.size else np.nan
    for name, reduce in (("lowest", np.fmin.reduce), ("highest", np.fmax.reduce)):
        end = reduce(band, axis=None)
        is_end = band == end
        row, column = np.divmod(is_end.argmax(), band.shape[1])
        facts |= {name: float(end), f"at_{name}": is_end.mean(), f"{name}_at": (seen[row], column)}
    one_value = facts["lowest"] == facts["highest"] and (facts["lowest"] == 0 or band.size > 1)
    facts["dead"] = not data.size or one_value
    facts["correlation"] = np.nan if facts["dead"] else _correlation(band)
    return facts


def _correlation(band: NDArray[np.float32]) -> float:
    """Pearson's correlation of right-hand neighbours, NaN where it has no meaning."""
    left, right = band[:, :-1], band[:, 1:]
    both = np.isfinite(left) & np.isfinite(right)
    if not both.any():
        return np.nan
    x, y = (part[both].astype(np.float64) for part in (left, right))
    x, y = x - x[0], y - y[0]  # where all are alike exactly 0
    x, y = x - x.mean(), y - y.mean()
    spread = (x @ x) * (y @ y)
    return float(x @ y / np.sqrt(spread)) if spread > 0 else np.nan


def _windows(geobox: GeoBox, *, layers: int) -> list[Window]:
    """Windows of whole rows: all of them, or evenly spaced ones from the first row to the last."""
    rows, columns = geobox.shape
    wanted = max(1, _MOST_NUMBERS // layers // columns)
    if wanted >= rows:
        return geobox.stripes(layers)
    number = min(wanted, max(_WINDOWS, wanted // geobox.stripes(layers)[0].height))
    starts = np.linspace(0, rows - wanted // number, number).round().astype(int)
    return [Window(int(start), 0, wanted // number, columns) for start in starts]


def _quantiles(band: NDArray[np.float32]) -> NDArray[np.float64]:
    """In float64: the step between two float32 numbers may be larger than any of that type."""
    values = band[np.isfinite(band)].astype(np.float64)
    return np.quantile(values, QUANTILES) if values.size else np.full(len(QUANTILES), np.nan)


def plausibility_warnings(file: CubeFile, survey: Survey, bands: Bands | None) -> list[str]:
    """Lists what looks wrong about a cube, one sentence each; ``bands`` are None where wavelengths are not known."""
    marked = file.table.good if bands is None else bands.good
    good = np.ones(file.layers, bool) if marked is None else np.array(marked)
    used = good & ~survey.dead
    lines = [] if bands is None else [*_wavelengths(bands)]
    lines += [*_nodata(file, survey), *(_scale(file, survey, used) if used.any() else ())]
    if (smoother := suspect_interleave(file)) is not None:
        lines.append(
            f"neighbouring pixels and bands are far more alike when the binary is read as {smoother[0].upper()}, "
            f"{smoother[1]}: interleave or byte order of the header are probably wrong."
        )
    return lines


def atmospheric_bands(
    mean: NDArray[np.floating], wavelength_nm: NDArray[np.floating], used: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """Used bands whose values may be made by the atmosphere or its correction, by reason; masks (C,), in file order.

    * ``spike``: the mean spectrum (C,) departs from the line between the neighbours further than it does there, and at
      least 10 times as far as usual (median absolute departure, scaled to a standard deviation).
    * ``edge``: at most 10 nm from strong water vapour, or from a gap that unused or missing bands leave.
    """
    index = np.flatnonzero(used & np.isfinite(mean))
    flags = {reason: np.zeros(len(used), bool) for reason in ("spike", "edge")}
    if index.size < _LEAST_BANDS:
        return flags
    nm, value = wavelength_nm[index], np.asarray(mean, np.float64)[index]
    step = np.diff(nm) * np.sign(np.median(np.diff(nm)))
    along = step[:-1] / (step[:-1] + step[1:] + 1e-12)
    departure = np.abs(value[1:-1] - (1 - along) * value[:-2] - along * value[2:])
    joined = (step > 0) & (step <= _GAP * np.median(step))  # a step back leads to another spectrometer
    departure = np.pad(np.where(joined[:-1] & joined[1:], departure, 0.0), 2)  # of a band and both neighbours
    usual = 1.4826 * np.median(departure[departure > 0]) if departure.any() else np.inf
    largest = (departure[1:-1] >= departure[:-2]) & (departure[1:-1] >= departure[2:])
    flags["spike"][index] = largest & (departure[1:-1] > _SPIKE * usual)
    after = np.flatnonzero(step > _GAP * np.median(step))
    ends = np.array([np.sort(nm[[i, i + 1]]) for i in after]).reshape(-1, 2)
    for lower, upper in (*RANGES_NM["water_vapour"], *ends.tolist()):
        flags["edge"][index] |= (nm >= lower - _EDGE_NM) & (nm <= upper + _EDGE_NM)
    return flags


def format_band_ranges(chosen: NDArray[np.bool_], bands: Bands | None) -> str:
    """Names chosen bands by their numbers, from 1, and wavelengths: ``3, 104-113 (1343-1433 nm)``."""
    index = np.flatnonzero(chosen)
    texts = []
    for part in np.split(index, np.flatnonzero(np.diff(index) > 1) + 1) if index.size else ():
        ends = sorted({part[0], part[-1]})
        text = "-".join(str(end + 1) for end in ends)
        if bands is not None:
            text += f" ({'-'.join(f'{bands.wavelength_nm[end]:.0f}' for end in ends)} nm)"
        texts.append(text)
    return ", ".join(texts)


def _wavelengths(bands: Bands) -> Iterator[str]:
    nm = bands.wavelength_nm
    step = np.diff(nm)
    back = np.flatnonzero(step < 0)
    if back.size and back.size < np.count_nonzero(step):  # a descending axis is in order, too
        steps = [f"band {i + 1} to {i + 2} ({nm[i]:.1f} to {nm[i + 1]:.1f} nm)" for i in back]
        times = "once" if back.size == 1 else f"{back.size} times"
        yield f"wavelengths step back {times}: {', '.join(steps[:_SHOWN])}. File order is kept."
    spacing = float(np.median(np.diff(np.unique(nm)))) if step.any() else np.nan
    width = np.nan if bands.fwhm_nm is None else float(np.median(bands.fwhm_nm))
    if width < _NARROW * spacing or width > _WIDE * spacing:
        yield f"FWHM is {width:g} nm where bands are {spacing:g} nm apart (medians): check its unit."
    if nm.min() < _SENSIBLE_NM[0] or nm.max() > _SENSIBLE_NM[1]:
        yield f"wavelengths run from {nm.min():g} to {nm.max():g} nm: check their unit."


def _fills(file: CubeFile, survey: Survey) -> NDArray[np.bool_]:
    """(2, C) whether the lowest, and the highest, value of each band is one that nothing measured can be."""
    dtype = file.pixels.dtype
    values = [value for value in _FILLS if can_hold(dtype, value)]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values += [limits.min, limits.min + 1] if dtype.kind == "i" else []
        values += [limits.max, limits.max - 1] if dtype.itemsize > 1 else []
    ends = np.stack([survey.lowest, survey.highest])
    physical = [file.scaled(np.full((file.layers, 1, 1), value))[:, 0, 0] for value in values]  # (C,) each
    return np.logical_or.reduce([ends == fill for fill in physical] + [np.abs(ends) > _IMPOSSIBLE])


def _nodata(file: CubeFile, survey: Survey) -> Iterator[str]:
    fills = _fills(file, survey)
    nodata, declared, share = file.nodata, "the file declares no nodata", survey.sample
    if nodata is not None:
        source = "scene.nodata is" if file.nodata_given else "the file declares nodata"
        declared = f"{source} {exact(file.as_stored(nodata))}"
        if not can_hold(file.pixels.dtype, nodata):
            yield f"{declared}, which {file.pixels.dtype.name} cannot hold: no pixel is taken as no data."
        elif file.nodata_given and not survey.no_data.any():  # that of a file often has no pixel
            yield f"{declared}, which none of {share} has."
    ends = ((survey.lowest_at, survey.at_lowest), (survey.highest_at, survey.at_highest))
    for chosen, (place, shares) in zip(fills, ends, strict=True):
        for stored, bands in _by_number(file, chosen, place):
            hold = "1 band holds" if len(bands) == 1 else f"{len(bands)} bands hold"
            yield (
                f"{hold} {exact(stored)} (in up to {shares[bands].max():.1%} of {share}), which often means no "
                f"data or saturation, but {declared}: {_advice(file, stored)} if so."
            )
    unshifted = file.offset is None or not file.offset.any()  # else a stored 0 is no physical 0
    if file.layers > 1 and survey.blank > _BLANK and nodata != 0 and unshifted:
        yield (
            f"{survey.blank:.1%} of {share} are 0 in all bands that have data there, which often means no data: "
            f"{_advice(file, 0)} if so."
        )


def _by_number(
    file: CubeFile, chosen: NDArray[np.bool_], place: NDArray[np.int64]
) -> Iterator[tuple[np.generic, list[int]]]:
    """The chosen bands (C,) by the number that is stored at a place (C, 2) of each."""
    bands_by_number: dict[np.generic, list[int]] = {}
    cells = {(int(row), int(col)) for row, col in place[chosen]}
    pixels = {(row, col): np.ma.getdata(file.pixels.read(Window(row, col, 1, 1))) for row, col in cells}
    for band in np.flatnonzero(chosen):
        bands_by_number.setdefault(pixels[tuple(place[band])][band, 0, 0], []).append(int(band))
    yield from bands_by_number.items()


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
    most = f"in half of the good bands, 98% of the values lie below {typical:.5g}"
    if factor == 1 and 100 < typical < 30_000:
        yield f"{most}, and the file names no scale: if they are reflectances x 10,000, set scene.scale=0.0001."
    elif factor < 1 and typical > 1.5 and np.ptp(np.asarray(file.gain)) == 0:
        yield f"{most} after the scale {factor:g}, but reflectance ends near 1: check the scale."
    elif factor < 1 and 0 < typical < 0.005:
        yield f"{most} after the scale {factor:g}: they may have been scaled before."


def exact(value: float | np.generic) -> str:
    """Writes a number so that what is typed back is the same number of its type: ``-9999``, ``-3.4028235e+38``."""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else str(value)


def suspect_interleave(file: CubeFile) -> tuple[str, str] | None:
    """Interleave and byte order under which neighbours are far more alike than under the declared ones; or None.

    A cube changes slowly along all three of its axes; read in a wrong way, at least along one of them it does not.
    Only raw cubes (ENVI) can be read in a wrong way.
    """
    declared = file.pixels
    if not isinstance(declared, MappedPixels) or not file.format.startswith("ENVI"):
        return None
    sizes = dict(zip(declared.axes, declared.shape, strict=True))
    if min(sizes.values()) < 2 or np.prod(list(sizes.values()), dtype=float) < _LEAST_NUMBERS:
        return None
    scores: dict[tuple[tuple[str, ...], np.dtype], float] = {}
    for axes, dtype in product(LAYOUTS.values(), {declared.dtype, declared.dtype.newbyteorder()}):
        pixels = dataclasses.replace(declared, axes=axes, shape=tuple(sizes[axis] for axis in axes), dtype=dtype)
        scores[axes, dtype] = _roughness(file, pixels)
    best = min(scores, key=lambda reading: scores[reading] if np.isfinite(scores[reading]) else np.inf)
    if not scores[best] < _FAR_SMOOTHER * scores[declared.axes, declared.dtype]:
        return None
    order = next(name for name, axes in LAYOUTS.items() if axes == best[0])
    return order, "little endian" if best[1].newbyteorder("<") == best[1] else "big endian"


def _rank_sample(file: CubeFile, pixels: MappedPixels) -> NDArray[np.float64]:
    """Ranks 0..1 of blocks (places, C, h, w) of stored numbers, equal ones sharing theirs; NaN for no data."""
    grid = file.geobox.shape
    height, width = map(min, grid, (_LINES, _SAMPLES))
    blocks = []
    for i in range(_PLACES):  # from one corner to the other
        row, col = (int((size - part) * (i + 0.5) / _PLACES) for size, part in zip(grid, (height, width), strict=True))
        blocks.append(pixels.read(Window(row, col, height, width)))
    with np.errstate(over="ignore", invalid="ignore"):  # numbers in a wrong byte order can be anything
        values = np.ma.filled(np.ma.stack(blocks).astype(np.float64), np.nan)
    nodata = np.nan if file.nodata is None else float(file.as_stored(file.nodata))
    known = np.isfinite(values) & (values != nodata)
    ranks = np.full(values.shape, np.nan)
    if known.any():
        _, place, count = np.unique(values[known], return_inverse=True, return_counts=True)
        ranks[known] = ((np.cumsum(count) - count / 2) / count.sum())[place]
    return ranks


def _roughness(file: CubeFile, pixels: MappedPixels) -> float:
    """Mean step of ranks between neighbours in each direction, relative to that between any two numbers, summed."""
    ranks = _rank_sample(file, pixels)  # (places, C, h, w)
    known = ranks[np.isfinite(ranks)]
    if known.size < _LEAST_NUMBERS:
        return np.nan
    spread = np.abs(known - np.random.default_rng(0).permutation(known)).mean()
    steps = [np.abs(np.diff(ranks, axis=axis)) for axis in (1, 2, 3)]
    if not spread or not all(np.isfinite(step).any() for step in steps):
        return np.nan
    return float(sum(np.nanmean(step) for step in steps) / spread)
