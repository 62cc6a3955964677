"""Choosing k bands by the band weights, and rankings that have to be beaten.

Rankings see training pixels only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_selection import mutual_info_classif
from sklearn.svm import LinearSVC

from hsfusion.errors import InputError
from hsfusion.trust.baselines import PixelTable, fit_baselines

_EXPLAINED = 0.99  # share of the variance that the components behind the PCA loadings explain

#: k -> (k,) indices of bands
Choice = Callable[[int], NDArray[np.int64]]

#: standardised spectra (N, C) and class indices (N,)
Pixels = tuple[NDArray[np.floating], NDArray[np.integer]]


def select_bands(
    weight: NDArray[np.floating], wavelength_nm: NDArray[np.floating], *, number: int
) -> NDArray[np.int64]:
    r"""The k bands that stand for the weight: each for the k-th part of it.

    The spectrum is cut in order of wavelength into k intervals of equal weight, and the band in the middle of each is
    taken, where the cumulative weight is nearest to :math:`(i + 1/2) / k`. The k heaviest bands would be neighbours
    that say the same. Uniform weights give evenly spaced bands. Where one band holds more than its part, the free band
    nearest to the middle in cumulative weight follows. Bands without weight are taken when no others are left.

    Args:
        weight: (C,), non-negative.
        wavelength_nm: (C,), in any order.
        number: k.

    Returns:
        (k,) indices of bands, in order of wavelength
    """
    if not 1 <= number <= weight.size:
        raise InputError("select", "k", number, f"1 to {weight.size}", "choose that many bands")
    order = np.argsort(wavelength_nm, kind="stable")
    part = weight[order].astype(np.float64) / weight.sum()
    middle = np.cumsum(part) - part / 2
    taken = np.zeros(weight.size, bool)
    for target in (np.arange(number) + 0.5) / number:
        # a band without weight lies between parts and stands for none; equal distances may differ by rounding
        distance = np.abs(middle - target).round(9) + 2 * (part == 0)
        taken[np.argmin(np.where(taken, np.inf, distance))] = True
    return order[taken]


def evenly_spaced(wavelength_nm: NDArray[np.floating], *, number: int) -> NDArray[np.int64]:
    """Every (C / k)-th of the bands (C,) in order of wavelength: (k,) indices."""
    places = ((np.arange(number) + 0.5) * wavelength_nm.size / number).astype(np.int64)
    return np.argsort(wavelength_nm, kind="stable")[places]


def random_bands(bands: int, *, number: int, seed: int, draw: int = 0) -> NDArray[np.int64]:
    """Random bands of C: (k,) indices, ascending; another draw gives others."""
    return np.sort(np.random.default_rng([seed, 5, draw]).choice(bands, number, replace=False))


def highest(score: NDArray[np.floating], *, number: int) -> NDArray[np.int64]:
    """The k bands of highest score (C,), the highest first; of equal ones the first in the file."""
    return np.argsort(-score, kind="stable")[:number]


def mutual_information(train: Pixels, *, seed: int) -> NDArray[np.float64]:
    """Mutual information (C,) of each band and the classes, in nats, by nearest neighbours.

    Source: Ross (2014), doi:10.1371/journal.pone.0087357.
    """
    return np.asarray(mutual_info_classif(*train, random_state=seed))


def pca_loading(pixels: NDArray[np.floating]) -> NDArray[np.float64]:
    r"""Loading (C,) of each band on the first principal components, :math:`\sum_j \lambda_j v_{jc}^2`.

    Of as many components j as explain 99 % of the variance; of all, every standardised band would get the same.
    Source: Chang et al. (1999), doi:10.1109/36.803411, who sum over all components of bands not standardised.
    """
    values, vectors = np.linalg.eigh(np.cov(pixels.T))  # ascending
    values, vectors = values[::-1], vectors[:, ::-1]
    components = int(np.searchsorted(np.cumsum(values) / values.sum(), _EXPLAINED)) + 1
    return (vectors[:, :components] ** 2) @ values[:components]


def svm_weights(train: Pixels, *, seed: int) -> NDArray[np.float64]:
    """Root of the summed squares (C,) of the weights of linear SVMs, one class against the others.

    Source: Guyon et al. (2002), doi:10.1023/A:1012487302797, without their elimination.
    """
    machine = LinearSVC(dual="auto", random_state=seed).fit(*train)
    return np.sqrt((machine.coef_**2).sum(0))


def choices(
    weight: NDArray[np.floating], train: Pixels, *, wavelength_nm: NDArray[np.floating], seed: int
) -> dict[str, Choice]:
    """Our choice of bands, ``weights``, and those that it has to beat, by name: each a function of k.

    The weights (C,) are learned from the same training pixels. The other scores choose their k highest bands, as is
    usual, and in a second version, ``spread``, by the rule of ours.
    """
    scores = {
        "mutual information": mutual_information(train, seed=seed),
        "PCA loading": pca_loading(train[0]),
        "SVM weights": svm_weights(train, seed=seed),
    }
    return {
        "weights": lambda k: select_bands(weight, wavelength_nm, number=k),
        "evenly spaced": lambda k: evenly_spaced(wavelength_nm, number=k),
        "random": lambda k: random_bands(weight.size, number=k, seed=seed),
        "lowest weights": lambda k: highest(-weight, number=k),
        **{name: lambda k, of=of: highest(of, number=k) for name, of in scores.items()},
        # all scores may be 0
        **{
            f"{name}, spread": lambda k, of=of + 1e-12: select_bands(of, wavelength_nm, number=k)
            for name, of in scores.items()
        },
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
    """The cheapest sensor: the smallest k from which on the accuracy stays at or above a share of the full one.

    One k above and the next below is noise, so that every larger k has to hold as well; the numbers ascend. Choose k by
    the accuracy on validation pixels: what the test pixels say at a k that they chose is too high.
    """
    best = None
    for k, accuracy in zip(reversed(numbers), reversed(accuracies), strict=True):
        if accuracy < share * full:
            break
        best = k
    return best
