"""Agreement of the band weights of repeated trainings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from hsfusion.errors import InputError

_TOP, _HALF_WIDTH = 20, 3  # bands; fewer for sensors with few bands
_ABOVE = 1.02  # slightly above the highest index, so that the logarithm exists


@dataclass(frozen=True)
class Stability:
    """Nogueira's index of agreement of ``profiles``, with its confidence interval.

    1 if all select the same bands, 0 on average if they select at random; nan if undefined, because none selects any
    band or all select every band. Undefined limits of the interval are nan, too. Each profile is the median of
    ``members`` runs.
    """

    index: float
    lower: float
    upper: float
    profiles: int
    members: int = 1


class Quartiles(NamedTuple):
    """Quartiles of each band (C,) over the runs; the median is the reported profile."""

    lower: NDArray[np.float64]
    median: NDArray[np.float64]
    upper: NDArray[np.float64]


def nogueira(selected: NDArray[np.bool_], *, members: int = 1) -> Stability:
    r"""Agreement of selections (R, C) beyond chance, whatever their sizes.

    .. math:: \hat\Phi = 1 - \frac{\frac1C \sum_c \frac{R}{R-1} p_c (1 - p_c)}
                                 {\frac{\bar k}{C} \left(1 - \frac{\bar k}{C}\right)}

    with the frequency p of each band and the mean size of a selection. Source: Nogueira, Sechidis and Brown (2018), On
    the stability of feature selection algorithms, JMLR 18(174).

    The interval (95 %) is that of the delete-one jackknife of log(1.02 - index) with t quantiles (Tukey 1958; Miller
    1974, doi:10.1093/biomet/61.1.1), as the index is skewed near 1. Of five selections it holds the true index in 0.94
    to 0.99 of simulations of independent bands; the paper's normal interval in 0.63 to 0.78. Two selections, and those
    that without one of them have no index, give none.
    """
    runs = len(selected)
    if runs < 2:
        raise InputError("stability", "runs", runs, "at least 2", "train with more seeds")
    index = float(_agreement(selected.mean(0), runs))
    lower = upper = np.nan
    if runs > 2:
        without = _agreement((selected.sum(0) - selected) / (runs - 1), runs - 1)  # (R,)
        half = t.ppf(0.975, runs - 1) * np.sqrt((runs - 1) * np.log(_ABOVE - without).var())
        lower, upper = _ABOVE - (_ABOVE - index) * np.exp([half, -half])
    return Stability(index, float(np.maximum(lower, -1)), float(np.minimum(upper, 1)), runs, members)


def _agreement(frequency: NDArray[np.floating], runs: int) -> NDArray[np.float64]:
    """Nogueira's index from the frequency (..., C) of each band; nan where all bands or none are selected."""
    share = frequency.mean(-1)
    with np.errstate(invalid="ignore"):
        return 1 - runs / (runs - 1) * (frequency * (1 - frequency)).mean(-1) / (share * (1 - share))


def compared_bands(number: int) -> tuple[int, int]:
    """How many of the heaviest of C bands are compared, and the half width of the windows around them."""
    return min(_TOP, max(1, number // 4)), min(_HALF_WIDTH, number // 30)


def relative_profiles(profiles: NDArray[np.floating], untrained: NDArray[np.floating]) -> NDArray[np.float64]:
    r"""Weights (..., C) as multiples of those of untrained networks (C,), scaled to sum to 1.

    .. math:: r_c = \frac{w_c / w^0_c}{\sum_b w_b / w^0_b}

    Bands of small groups start with more weight than those of large groups, and widely spaced bands with more than
    narrowly spaced ones. Runs that kept these weights would agree without having learned anything: only the change by
    training is evidence. Untrained weights are 0 for bands that networks cannot use.
    """
    usable = untrained > 0
    multiple = np.where(usable, profiles / np.where(usable, untrained, 1), 0)
    return multiple / np.maximum(multiple.sum(-1, keepdims=True), 1e-300)


def top_bands(profiles: NDArray[np.floating], bands: int) -> NDArray[np.bool_]:
    """The heaviest bands of each profile (R, C), at most k: (R, C).

    Only bands that weigh more than the mean, and more than every band left out, count: those few in a profile with few
    large weights, none in a uniform profile. Otherwise noise, or the order of the file, would decide on the others.
    """
    number = profiles.shape[1]
    next_best = np.sort(profiles, axis=1)[:, number - bands - 1]  # (R,)
    return profiles > np.maximum(next_best, (1 + 1e-9) * profiles.mean(1))[:, None]


def widened(selected: NDArray[np.bool_], wavelength_nm: NDArray[np.floating], *, half_width: int) -> NDArray[np.bool_]:
    """Extends selections (R, C) to bands at most ``half_width`` places away, in order of wavelength (C,): (R, C).

    Neighbouring bands carry nearly the same information. The selections may differ in size, which the index allows
    for; because bands near the ends of the spectrum have fewer neighbours, random selections have an index of about
    0.01 instead of 0.
    """
    order = np.argsort(wavelength_nm, kind="stable")
    inside = np.pad(selected[:, order], ((0, 0), (half_width, half_width)))
    windows = np.lib.stride_tricks.sliding_window_view(inside, 2 * half_width + 1, axis=1)  # (R, C, 2 half_width + 1)
    wide = np.empty_like(selected)
    wide[:, order] = windows.any(2)
    return wide


def quartiles(profiles: NDArray[np.floating]) -> Quartiles:
    """Quartiles of each band over the runs, from profiles (R, C).

    A window that one run opens by chance affects the mean but not the median. All three quartiles are scaled by one
    factor, so that the median has the mean sum of the profiles. If no band has a weight in half of the runs, the mean
    replaces the median.
    """
    profiles = profiles.astype(np.float64)
    lower, median, upper = np.quantile(profiles, [0.25, 0.5, 0.75], axis=0)
    if not median.any():
        return Quartiles(lower, profiles.mean(0), upper)
    factor = profiles.sum(1).mean() / median.sum()
    return Quartiles(lower * factor, median * factor, upper * factor)


def window_stability(
    profiles: NDArray[np.floating],
    wavelength_nm: NDArray[np.floating],
    *,
    bands: int = 20,
    half_width: int = 3,
    members: int = 1,
) -> Stability:
    """Nogueira's index of the windows around the ``bands`` heaviest bands: :func:`top_bands`, then :func:`widened`.

    ``members`` is the number of runs behind each profile (R, C), and ``half_width`` of a window is in bands.
    """
    selected = widened(top_bands(profiles, bands), wavelength_nm, half_width=half_width)
    return nogueira(selected, members=members)


def uniformity_p(
    profiles: NDArray[np.floating],
    windows: NDArray[np.bool_],
    *,
    untrained: Iterable[NDArray[np.floating]] = (),
    shifts: int = 999,
) -> float:
    """Whether the runs weight the same windows more than others: the larger p-value of two tests.

    The statistic is the variance over the windows (U, C), in order of wavelength, of the mean profile. Each run (R, C)
    is shifted along the windows by a random number of places, which preserves its shape but destroys what the runs have
    in common: p is the share of these shifts, with the unshifted runs as one of them, whose variance is as large. An
    F-test would assume that neighbouring windows are independent, and reject for 13 % instead of 5 % of smooth noise.
    With two runs p is at least one over the number of windows. For :func:`relative_profiles`, uniform weights are those
    of untrained networks.

    Bands near the edges of groups vary more than others before any training, which shifts mistake for something in
    common, in 9 to 12 % of untrained networks. The second p is the share of sets of ``untrained`` networks (R, C), with
    the runs as one of them, whose variance is as large.
    """
    variance, drawn = _variances(profiles, windows, shifts)
    of_untrained = np.array([_window_means(one, windows).mean(0).var() for one in untrained])
    # where all runs are uniform, or shifted alike, the two may differ by rounding
    lowest = variance * (1 - 1e-9) - 1e-20
    return float(max((1 + (of >= lowest).sum()) / (1 + len(of)) for of in (drawn, of_untrained) if len(of)))


def uniformity_ratio(profiles: NDArray[np.floating], windows: NDArray[np.bool_], *, shifts: int = 999) -> float:
    """The statistic of :func:`uniformity_p` as a multiple of its mean over the shifts."""
    variance, drawn = _variances(profiles, windows, shifts)
    return float(variance / max(drawn.mean(), 1e-300))


def _variances(
    profiles: NDArray[np.floating], windows: NDArray[np.bool_], shifts: int
) -> tuple[float, NDArray[np.float64]]:
    runs, number = len(profiles), len(windows)
    weight = _window_means(profiles, windows)
    places = np.random.default_rng(0).integers(number, size=(shifts, runs, 1))
    shifted = np.take_along_axis(weight[None], (np.arange(number) + places) % number, axis=2)  # (shifts, R, U)
    return float(weight.mean(0).var()), shifted.mean(1).var(1)


def _window_means(profiles: NDArray[np.floating], windows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean (R, U) of the bands of each window (U, C) in each profile (R, C)."""
    return profiles.astype(np.float64) @ windows.T / windows.sum(1)
