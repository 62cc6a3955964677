"""Whether a cube looks more like one under another layout: interleave, byte order or order of the axes."""

from __future__ import annotations

import dataclasses
import warnings
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hsfusion.scenes.formats.cube_file import CubeFile, Pixels
from hsfusion.scenes.formats.envi import EnviPixels
from hsfusion.scenes.scene import Window

_AXES = {"bsq": "bls", "bil": "lbs", "bip": "lsb"}  # axes of the binary: bands, lines, samples
_LINES, _SAMPLES, _PLACES = 16, 32, 3  # of the sample
_SIDE, _LEAST_PIXELS = 32, 256  # of that in which a curve along lines or samples has to show
_LEAST_NUMBERS = 1000
# Eight real cubes were written in each of the six ways. Read as written, none was rougher than in a wrong way but for a
# crop of 7 x 7 pixels (1 / 0.69 times). Of the 210 wrong readings of the others, 202 were found out under this limit.
_FAR_SMOOTHER = 0.6
# Share of the variance that lies between the means along an axis. Of nine real cubes read in the right order, and 1080
# crops of them (half of these standardised band by band), no rows or columns reached the limit, but for one crop of
# 8 x 17 pixels. With bands as rows or columns five of the nine did, at 0.72 to 0.92, where what stood for bands was
# 0.10 at most; the others have too few bands or pixels, or spectra that have little in common.
_LIKE_BANDS, _UNLIKE_BANDS = 0.7, 0.2


def smoother_layout(file: CubeFile) -> tuple[str, str] | None:
    """Finds the interleave and byte order under which neighbours are far more alike than under the declared ones.

    A cube changes slowly along all three of its axes. Read in a wrong way, at least along one of them it does not.

    Args:
        file: any cube; only raw ones (ENVI) can be read in a wrong way.

    Returns:
        Interleave (bsq, bil or bip) and byte order (little endian or big endian), or None where the declared ones are
        the smoothest, or nearly so, or where there is too little to tell.

    Raises:
        InputError: if the file cannot be read.
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
        scores[order, dtype] = _roughness(pixels, sizes["l"], sizes["s"], nodata=_nodata(file))
    best = min(scores, key=lambda reading: scores[reading] if np.isfinite(scores[reading]) else np.inf)
    if not scores[best] < _FAR_SMOOTHER * scores[declared.order, declared.dtype]:
        return None
    return best[0], "little endian" if best[1].newbyteorder("<") == best[1] else "big endian"


def axis_like_bands(file: CubeFile) -> str | None:
    """Finds rows or columns along which the numbers follow one curve, as they do along bands, where bands do not.

    All pixels of a scene have much of their spectra in common: light, atmosphere, sensor. Rows have nothing in common.

    Args:
        file: any cube. Raw ones (ENVI) name their interleave, see :func:`smoother_layout`.

    Returns:
        ``rows`` or ``columns``, or None where neither is like bands, or there is too little to tell.

    Raises:
        InputError: if the file cannot be read.
    """
    lines, samples = file.geobox.shape
    if isinstance(file.pixels, EnviPixels) or min(lines, samples, file.layers) < 2 or lines * samples < _LEAST_PIXELS:
        return None
    ranks = _ranks(_sample(file.pixels, (lines, samples), most=(_SIDE, _SIDE)), _nodata(file))  # (places, C, h, w)
    if np.isfinite(ranks).sum() < _LEAST_NUMBERS:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of layers without data
        bands, rows, columns = (_explained(ranks, axis) for axis in (1, 2, 3))
    found, share = ("rows", rows) if rows > columns else ("columns", columns)
    return found if share > _LIKE_BANDS and bands < _UNLIKE_BANDS else None


def _nodata(file: CubeFile) -> float | None:
    return None if file.nodata is None else float(file.as_stored(file.nodata))


def _explained(ranks: NDArray[np.float64], axis: int) -> float:
    """Share of the variance at each place that lies between the means along an axis."""
    others = tuple(other for other in (1, 2, 3) if other != axis)
    means = np.nanmean(ranks, axis=others)  # (places, n)
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


def _roughness(pixels: EnviPixels, lines: int, samples: int, *, nodata: float | None) -> float:
    """Mean step between neighbours in each direction, as a share of that between any two numbers, summed.

    Steps are those of ranks, so that no scale and no outlier counts.
    """
    ranks = _ranks(_sample(pixels, (lines, samples), most=(_LINES, _SAMPLES)), nodata)  # (places, C, h, w)
    known = ranks[np.isfinite(ranks)]
    if known.size < _LEAST_NUMBERS:
        return np.nan
    spread = np.abs(known - np.random.default_rng(0).permutation(known)).mean()
    steps = [np.abs(np.diff(ranks, axis=axis)) for axis in (1, 2, 3)]
    if not spread or not all(np.isfinite(step).any() for step in steps):
        return np.nan
    return float(sum(np.nanmean(step) for step in steps) / spread)


def _ranks(values: NDArray[np.float64], nodata: float | None) -> NDArray[np.float64]:
    """Ranks 0..1 of numbers of any shape, equal ones sharing theirs; NaN for no data."""
    known = np.isfinite(values) if nodata is None else np.isfinite(values) & (values != nodata)
    ranks = np.full(values.shape, np.nan)
    if known.any():
        _, place, count = np.unique(values[known], return_inverse=True, return_counts=True)
        ranks[known] = ((np.cumsum(count) - count / 2) / count.sum())[place]
    return ranks
