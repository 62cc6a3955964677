"""Deletion and insertion curves: whether the heavy bands are those that a trained network uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t
from sklearn.covariance import ledoit_wolf

#: number of random orders that a curve is compared with
ORDERS = 199
_RIDGES = 10.0 ** np.arange(-6, 1)  # added to the variances of standardised bands


@dataclass(frozen=True, eq=False)
class Curve:
    """Accuracy in the order of weight (S,) and in n random orders (n, S), each the mean over the networks.

    The area lies between the curve and the mean of the random ones, over the share of windows from 0 to 1. It is
    positive if the weights are right, which means an accuracy below the random ones in a deletion and above them in an
    insertion. Its 95 % interval combines the variances over networks and over orders, with t quantiles; the limits are
    nan for a single network. The p-value is (1 + number of random orders at least as good) / (1 + n).
    """

    accuracy: NDArray[np.float64]
    random_accuracy: NDArray[np.float64]
    area: float
    lower: float
    upper: float
    p_value: float

    @classmethod
    def from_accuracies(cls, accuracy: NDArray[np.floating], *, number: NDArray[np.int64], direction: str) -> Curve:
        """The curve from accuracies (N, 1 + n, S) of networks with the masks of :func:`curve_masks`, numbers (S,)."""
        accuracy = np.asarray(accuracy, np.float64)
        networks, orders, mean = len(accuracy), accuracy.shape[1] - 1, accuracy.mean(0)
        sign = -1 if direction == "deletion" else 1
        of_orders = sign * np.asarray(np.trapezoid(accuracy, number / number[-1], axis=2))  # (N, 1 + n)
        areas, random = of_orders[:, 0] - of_orders[:, 1:].mean(1), of_orders[:, 1:].mean(0)  # (N,), (n,)
        area, half = float(areas.mean()), np.nan
        if networks > 1:
            error = np.sqrt(areas.var(ddof=1) / networks + random.var(ddof=1) / orders)
            half = float(t.ppf(0.975, networks - 1) * error)
        # areas that differ only by rounding count as equal
        better = int((random >= of_orders[:, 0].mean() - 1e-12).sum())
        return cls(mean[0], mean[1:], area, area - half, area + half, (1 + better) / (1 + orders))


def band_covariance(pixels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Shrunk covariance (C, C) of standardised training pixels (N, C); invertible even if bands are collinear.

    Source: Ledoit and Wolf (2004), doi:10.1016/S0047-259X(03)00096-4.
    """
    return np.asarray(ledoit_wolf(pixels.astype(np.float64), assume_centered=True)[0])


def mean_fill(keep: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Matrix (C, C) that keeps some bands (C,) and sets the others to their mean, 0 in standardised values."""
    return np.diag(keep.astype(np.float64))


def conditional_fill(covariance: NDArray[np.floating], keep: NDArray[np.bool_]) -> NDArray[np.float64]:
    r"""Matrix F (C, C) that replaces the removed bands by their expectation given the bands kept (C,): x becomes F x.

    .. math:: F_{kk} = I, \quad F_{rk} = \Sigma_{rk} \Sigma_{kk}^{-1}, \quad F_{\cdot r} = 0

    A band at its mean among neighbours far from theirs makes a spectrum unlike any in training. The expectation is
    plausible, but retains what the kept bands reveal about the removed ones, so that curves fall later. Equal to
    :func:`mean_fill` if no band is kept.
    """
    fill = mean_fill(keep)
    kept, removed = np.flatnonzero(keep), np.flatnonzero(~keep)
    if kept.size and removed.size:
        within = covariance[np.ix_(kept, kept)]
        fill[np.ix_(removed, kept)] = np.linalg.solve(within, covariance[np.ix_(kept, removed)]).T
    return fill


def predicted_fills(
    covariance: NDArray[np.floating], spectra: NDArray[np.floating], windows: NDArray[np.bool_]
) -> Iterator[NDArray[np.float64]]:
    r"""The :func:`conditional_fill` without each window (U, C), with the ridge, 1e-6 to 1, that predicts it best.

    Takes the sample covariance (C, C) of standardised training pixels, and standardised spectra (V, C) of other pixels,
    on which the ridge is chosen. A covariance with one shrinkage for all bands does not fully predict a band from its
    exact copy, and whitening enlarges the residual.

    The residuals follow from the inverse :math:`P` of the covariance with each ridge, which serves all windows:

    .. math:: x_r - F_{rk} x_k = P_{rr}^{-1} (P x)_r
    """
    ridged = [covariance + ridge * np.eye(len(covariance)) for ridge in _RIDGES]
    inverses = [np.linalg.inv(of) for of in ridged]
    products = [spectra @ inverse for inverse in inverses]
    for window in windows:
        residuals = [
            np.linalg.solve(inverse[np.ix_(window, window)], product[:, window].T)
            for inverse, product in zip(inverses, products, strict=True)
        ]
        best = int(np.argmin([np.square(of).sum() for of in residuals]))
        yield conditional_fill(ridged[best], ~window)


def band_windows(wavelength_nm: NDArray[np.floating], *, size: int = 7) -> NDArray[np.bool_]:
    """Divides the spectrum into windows (U, C) of at most ``size`` neighbouring bands.

    The bands, in order of wavelength (C,), are distributed as evenly as possible.
    """
    order = np.argsort(wavelength_nm, kind="stable")
    parts = np.array_split(order, -(-order.size // size))
    windows = np.zeros((len(parts), order.size), bool)
    for u, part in enumerate(parts):
        windows[u, part] = True
    return windows


def curve_masks(
    weight: NDArray[np.floating],
    *,
    windows: NDArray[np.bool_],
    number: NDArray[np.int64],
    seed: Sequence[int],
    direction: str,
    random_orders: int = ORDERS,
) -> NDArray[np.bool_]:
    """The bands kept at each point of a curve, in descending order of weight, then in n random orders: (1 + n, S, C).

    Args:
        weight: (U,), of the windows; ties are broken at random.
        windows: (U, C), the bands of each window. Bands outside all windows are always kept in a deletion, and never in
            an insertion.
        number: (S,), ascending numbers of windows to remove or to keep, from 0 to U.
        seed: of the random orders, different for each curve.
        direction: ``deletion``, which removes the first windows of the order, or ``insertion``, which keeps only them.
        random_orders: n.
    """
    rng = np.random.default_rng([*seed, 3])
    first, *rankings = (rng.permutation(weight.size) for _ in range(1 + random_orders))
    rankings = [first[np.argsort(-weight[first], kind="stable")], *rankings]
    chosen = np.stack([[windows[ranking[:n]].any(0) for n in number.tolist()] for ranking in rankings])
    return ~chosen if direction == "deletion" else chosen


def permutations(pixels: int, *, seed: int, repeats: int) -> list[NDArray[np.int64]]:
    """Random orders (N,) of the pixels, by which the values of a group are permuted."""
    rng = np.random.default_rng([seed, 4])
    return [rng.permutation(pixels) for _ in range(repeats)]
