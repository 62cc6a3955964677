"""Choosing k bands by the band weights, and the rankings that this choice is compared with.

Rankings see training pixels only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_selection import mutual_info_classif
from sklearn.svm import LinearSVC

from hsfusion.errors import InputError
from hsfusion.trust.baselines import PixelTable, fit_baselines, noise_components

_EXPLAINED = 0.99  # share of signal to noise that the components behind the MNF loadings hold
_DISTINCT = 0.95  # correlation below which bands are distinct: a tenth of the variance is their own
_GAP = 3.0  # times the median spacing
_ROUNDS = 30  # in which weight moves from where there is too much

#: k -> (k,) indices of bands
Choice = Callable[[int], NDArray[np.int64]]

#: standardised spectra (N, C) and class indices (N,)
Pixels = tuple[NDArray[np.floating], NDArray[np.integer]]


def distinct_distance_nm(correlation: NDArray[np.floating], wavelength_nm: NDArray[np.floating]) -> float:
    """Distance at which bands are no longer redundant: where the correlation falls below 0.95, median over the bands.

    From the correlation (C, C) of training spectra; each band counts by its nearest band with lower correlation.
    """
    nm = np.asarray(wavelength_nm, np.float64)
    distance = np.abs(nm[:, None] - nm)
    return float(np.median(np.where(np.abs(correlation) < _DISTINCT, distance, np.ptp(nm)).min(1)))


def select_bands(
    weight: NDArray[np.floating], wavelength_nm: NDArray[np.floating], *, number: int, apart_nm: float = 0.0
) -> NDArray[np.int64]:
    r"""The k bands that represent the weight, one k-th of it each.

    The spectrum is cut in order of wavelength into k intervals of equal weight, and the band in the middle of each is
    chosen, where the cumulative weight reaches :math:`(i + 1/2) / k`. The k heaviest bands would be redundant
    neighbours. Uniform weights give evenly spaced bands. If one band holds more than one k-th, the free band nearest
    to the middle in cumulative weight is chosen. Bands without weight are chosen only when no others are left.

    Bands lie at least ``apart_nm`` apart, or half the even spacing if that is less: no interval of that width
    represents more than one k-th, and excess weight is distributed over the other bands in proportion.

    Args:
        weight: (C,), non-negative.
        wavelength_nm: (C,), in any order.
        number: k.
        apart_nm: from :func:`distinct_distance_nm`.

    Returns:
        (k,) indices of bands, in order of wavelength
    """
    if not 1 <= number <= weight.size:
        raise InputError("select", "k", number, f"1 to {weight.size}", "choose that many bands")
    order = np.argsort(wavelength_nm, kind="stable")
    nm, part = np.asarray(wavelength_nm, np.float64)[order], weight[order].astype(np.float64) / weight.sum()
    lower, upper = _band_edges(nm)
    apart_nm = min(apart_nm, float((upper - lower).sum()) / (2 * number))
    if apart_nm > 0:
        part = _limited(part, np.abs(nm[:, None] - nm) < apart_nm / 2, most=1 / number)
    middle = np.cumsum(part) - part / 2
    taken = np.zeros(weight.size, bool)
    for target in (np.arange(number) + 0.5) / number:
        near = (np.abs(nm[:, None] - nm[taken]) < apart_nm - 1e-6).any(1)
        # a band without weight lies between parts and stands for none; equal distances may differ by rounding
        distance = np.maximum(np.abs(middle - target) - part / 2, 0).round(9) + near + 2 * (part == 0)
        taken[np.argmin(np.where(taken, np.inf, distance))] = True
    return order[taken]


def _limited(part: NDArray[np.float64], near: NDArray[np.bool_], *, most: float) -> NDArray[np.float64]:
    """Shares (C,) of 1, limited so that the bands near each band (C, C) hold at most ``most``, as far as possible."""
    for _ in range(_ROUNDS):
        held = near @ part
        part = part * np.minimum(1.0, most / np.maximum(held, 1e-300))
        part /= part.sum()
    return part


def _band_edges(nm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each of the ascending bands (C,) begins and ends: halfway to the next, but not across a gap."""
    steps = np.diff(nm)
    half = np.minimum(steps, np.median(steps)) / 2 if steps.size else np.zeros(0)
    outer = float(np.median(half)) if half.size else 0.5
    return nm - np.r_[outer, half], nm + np.r_[half, outer]


def filter_limits(
    chosen: NDArray[np.integer], correlation: NDArray[np.floating], wavelength_nm: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Lower and upper limits (k, 2) in nm of a filter for each chosen band (k,), as wide as bands are redundant.

    A filter covers the neighbours whose correlation (C, C) with the chosen band in training spectra is at least 0.95,
    and that are nearer to it than to any other chosen band; it ends at a gap.
    """
    order = np.argsort(wavelength_nm, kind="stable")
    nm = np.asarray(wavelength_nm, np.float64)[order]
    lower, upper = _band_edges(nm)
    owner = np.abs(nm[:, None] - np.asarray(wavelength_nm)[chosen]).argmin(1)
    gap = np.diff(nm) > _GAP * np.median(np.diff(nm)) if nm.size > 1 else np.zeros(0, bool)
    limits = []
    for i, band in enumerate(chosen):
        at = int(np.flatnonzero(order == band)[0])
        joined = (owner == i) & (np.abs(correlation[band, order]) >= _DISTINCT)
        first = last = at
        while first > 0 and joined[first - 1] and not gap[first - 1]:
            first -= 1
        while last < nm.size - 1 and joined[last + 1] and not gap[last]:
            last += 1
        limits.append((lower[first], upper[last]))
    return np.array(limits)


def evenly_spaced(wavelength_nm: NDArray[np.floating], *, number: int) -> NDArray[np.int64]:
    """Every (C / k)-th of the bands (C,) in order of wavelength: (k,) indices."""
    places = ((np.arange(number) + 0.5) * wavelength_nm.size / number).astype(np.int64)
    return np.argsort(wavelength_nm, kind="stable")[places]


def random_bands(bands: int, *, number: int, seed: int, draw: int = 0) -> NDArray[np.int64]:
    """Random choice of k of C bands: (k,) indices, ascending; another ``draw`` gives others."""
    return np.sort(np.random.default_rng([seed, 5, draw]).choice(bands, number, replace=False))


def mutual_information(train: Pixels, *, seed: int) -> NDArray[np.float64]:
    """Mutual information (C,) of each band and the classes, in nats, by nearest neighbours.

    Source: Ross (2014), doi:10.1371/journal.pone.0087357.
    """
    return np.asarray(mutual_info_classif(*train, random_state=seed))


def mnf_loading(pixels: NDArray[np.floating], noise: NDArray[np.floating]) -> NDArray[np.float64]:
    r"""Loading (C,) of each band on the first MNF components, :math:`\sum_j \lambda_j v_{jc}^2`.

    The sum is over the components j that hold 99 % of the signal-to-noise ratio :math:`\lambda`; v is computed from
    standardised spectra (N, C) and differences between neighbours (P, C), see
    :func:`hsfusion.trust.baselines.noise_components`. Source: Chang et al. (1999), doi:10.1109/36.803411.
    """
    axes = noise_components(pixels, noise)
    values = (pixels @ axes).var(0)
    components = int(np.searchsorted(np.cumsum(values) / values.sum(), _EXPLAINED)) + 1
    return (axes[:, :components] ** 2) @ values[:components]


def svm_weights(train: Pixels, *, seed: int) -> NDArray[np.float64]:
    """Root of the summed squares (C,) of the weights of linear SVMs, one class against the others.

    Source: Guyon et al. (2002), doi:10.1023/A:1012487302797, without their elimination.
    """
    machine = LinearSVC(dual="auto", random_state=seed).fit(*train)
    return np.sqrt((machine.coef_**2).sum(0))


#: names of the choices of bands that ours, ``weights``, has to beat
RIVALS = ("mutual information", "SVM weights", "MNF loading", "evenly spaced", "random", "lowest weights")


def scores(train: Pixels, *, noise: NDArray[np.floating], seed: int) -> dict[str, NDArray[np.float64]]:
    """Mutual information, SVM weights and MNF loading of each band (C,) on training pixels, by name."""
    return {
        "mutual information": mutual_information(train, seed=seed),
        "SVM weights": svm_weights(train, seed=seed),
        "MNF loading": mnf_loading(train[0], noise),
    }


def choices(
    weight: NDArray[np.floating],
    train: Pixels,
    *,
    noise: NDArray[np.floating],
    wavelength_nm: NDArray[np.floating],
    seed: int,
) -> dict[str, Choice]:
    """The choice of bands by ``weights``, and :data:`RIVALS`, by name: each a function of k.

    The weights (C,) are learned from the same training pixels. The other scores are turned into a choice by the same
    rule, :func:`select_bands`: their k highest bands would be neighbours, and easy to beat.
    """
    rankings = {"weights": weight, **scores(train, noise=noise, seed=seed)}
    apart_nm = distinct_distance_nm(np.asarray(np.corrcoef(train[0].T)), wavelength_nm)
    return {
        **{
            # all scores may be 0
            name: lambda k, of=score + 1e-12 * (name != "weights"): select_bands(
                of, wavelength_nm, number=k, apart_nm=apart_nm
            )
            for name, score in rankings.items()
        },
        "evenly spaced": lambda k: evenly_spaced(wavelength_nm, number=k),
        "random": lambda k: random_bands(weight.size, number=k, seed=seed),
        "lowest weights": lambda k: np.argsort(weight, kind="stable")[:k],
    }


def retrain_score(
    train: Pixels, val: Pixels, *, test: Pixels, bands: NDArray[np.integer], seed: int
) -> tuple[float | None, float]:
    """Overall accuracy on the validation and on the test pixels of an RBF SVM that sees only the bands (k,).

    The first is None without validation pixels, which choose C and gamma.
    """
    both = np.concatenate([val[0], test[0]]), np.concatenate([val[1], test[1]])
    tables = [PixelTable(x[:, bands], x[:, bands], y) for x, y in (train, val, both)]
    [svm] = fit_baselines(*tables, noise=train[0][:0], names=("svm",), seed=seed)
    right = svm.classes == both[1]
    return float(right[: len(val[1])].mean()) if len(val[1]) else None, float(right[len(val[1]) :].mean())


def smallest_number(
    numbers: Sequence[int], accuracies: Sequence[float], *, full: float, share: float = 0.95
) -> int | None:
    """The fewest bands that suffice: the smallest k from which on the accuracy stays above a share of the full one.

    If one k passes and the next does not, that is noise, so every larger k must pass as well; the numbers ascend.
    Choose k by the accuracy on validation pixels: the accuracy on test pixels at a k chosen by them is too high.
    """
    best = None
    for k, accuracy in zip(reversed(numbers), reversed(accuracies), strict=True):
        if accuracy < share * full:
            break
        best = k
    return best
