"""Whether the bands of greatest weight are those that a trained network uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t
from sklearn.covariance import ledoit_wolf

#: random orders that a curve is compared with
ORDERS = 199
_RIDGES = 10.0 ** np.arange(-6, 1)  # of standardised bands


@dataclass(frozen=True, eq=False)
class Curve:
    """Accuracy (S,) along the order of weight, against n random orders (n, S), the means over several networks.

    The area is that between the curve and the mean of the random ones over the share of windows, 0 to 1; it is positive
    where the weights are right: below random in a deletion, above in an insertion. Its 95 % interval has t quantiles
    and the variance over networks and that over orders; of one network it is nan. The p-value is (1 + number of random
    orders at least as good) / (1 + n).
    """

    accuracy: NDArray[np.float64]
    random_accuracy: NDArray[np.float64]
    area: float
    lower: float
    upper: float
    p_value: float

    @classmethod
    def from_accuracies(cls, accuracy: NDArray[np.floating], *, number: NDArray[np.int64], direction: str) -> Curve:
        """The curve of accuracies (N, 1 + n, S) of networks under the masks of :func:`curve_masks`, at numbers (S,)."""
        accuracy = np.asarray(accuracy, np.float64)
        networks, orders, mean = len(accuracy), accuracy.shape[1] - 1, accuracy.mean(0)
        sign = -1 if direction == "deletion" else 1
        of_orders = sign * np.asarray(np.trapezoid(accuracy, number / number[-1], axis=2))  # (N, 1 + n)
        areas, random = of_orders[:, 0] - of_orders[:, 1:].mean(1), of_orders[:, 1:].mean(0)  # (N,), (n,)
        area, half = float(areas.mean()), np.nan
        if networks > 1:
            error = np.sqrt(areas.var(ddof=1) / networks + random.var(ddof=1) / orders)
            half = float(t.ppf(0.975, networks - 1) * error)
        # equal areas may differ by rounding: they count as at least as good
        better = int((random >= of_orders[:, 0].mean() - 1e-12).sum())
        return cls(mean[0], mean[1:], area, area - half, area + half, (1 + better) / (1 + orders))


def band_covariance(pixels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Shrunk covariance (C, C) of standardised training pixels (N, C); invertible however alike the bands are.

    Source: Ledoit and Wolf (2004), doi:10.1016/S0047-259X(03)00096-4.
    """
    return np.asarray(ledoit_wolf(pixels.astype(np.float64), assume_centered=True)[0])


def mean_fill(keep: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Matrix (C, C) that leaves the bands kept (C,) and sets the others to their mean, 0 in standardised values."""
    return np.diag(keep.astype(np.float64))


def conditional_fill(covariance: NDArray[np.floating], keep: NDArray[np.bool_]) -> NDArray[np.float64]:
    r"""Matrix (C, C) that gives the removed bands the values that the kept ones (C,) let expect: x becomes F x.

    .. math:: F_{kk} = I, \quad F_{rk} = \Sigma_{rk} \Sigma_{kk}^{-1}, \quad F_{\cdot r} = 0

    A mean in one band among neighbours that say otherwise is a spectrum that no network has seen; this one is
    plausible, but keeps what the kept bands tell about the removed ones: curves fall later. Without kept bands it is
    :func:`mean_fill`.
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
    r"""Without each window (U, C) the :func:`conditional_fill` with the ridge, 1e-6 to 1, that predicts it best.

    From the sample covariance (C, C) of standardised training pixels, and the standardised spectra (V, C) of others.
    Shrinkage for all bands alike leaves a part of a band that has an exact copy, and whitening enlarges it.

    What is off is read off the inverse :math:`P` of the covariance with each ridge, which all windows share:

    .. math:: x_r - F_{rk} x_k = P_{rr}^{-1} (P x)_r
    """
    ridged = [covariance + ridge * np.eye(len(covariance)) for ridge in _RIDGES]
    inverses = [np.linalg.inv(of) for of in ridged]
    products = [spectra @ inverse for inverse in inverses]
    for window in windows:
        off = [
            np.linalg.solve(inverse[np.ix_(window, window)], product[:, window].T)
            for inverse, product in zip(inverses, products, strict=True)
        ]
        best = int(np.argmin([np.square(of).sum() for of in off]))
        yield conditional_fill(ridged[best], ~window)


def band_windows(wavelength_nm: NDArray[np.floating], *, size: int = 7) -> NDArray[np.bool_]:
    """Cuts the spectrum into windows (U, C) of so many neighbouring bands; of lone bands with size 1.

    The bands are dealt out in order of wavelength (C,) and as evenly as they go, so that no window has over ``size``.
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
    """The bands that stay at each point of a curve: (1 + n, S, C), by falling weight first, then n random orders.

    * ``weight``: (U,) of windows; equal ones are put in a random order.
    * ``windows``: (U, C), which bands each holds. Bands in none stay in a deletion, and are never kept in an insertion.
    * ``number``: (S,) rising numbers of windows to remove or to keep, from 0 to U.
    * ``seed``: of the orders; another one for each curve.
    * ``direction``: deletion, where the first windows of the order go first, or insertion, where only they stay.
    """
    rng = np.random.default_rng([*seed, 3])
    first, *rankings = (rng.permutation(weight.size) for _ in range(1 + random_orders))
    rankings = [first[np.argsort(-weight[first], kind="stable")], *rankings]
    chosen = np.stack([[windows[ranking[:n]].any(0) for n in number.tolist()] for ranking in rankings])
    return ~chosen if direction == "deletion" else chosen


def permutations(pixels: int, *, seed: int, repeats: int) -> list[NDArray[np.int64]]:
    """Orders (N,) of the pixels by which the values of a group are exchanged."""
    rng = np.random.default_rng([seed, 4])
    return [rng.permutation(pixels) for _ in range(repeats)]
