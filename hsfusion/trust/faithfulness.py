"""Whether the bands of greatest weight are those that a trained network uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf


@dataclass(frozen=True, eq=False)
class Curve:
    """Accuracy (S,) along an order of units (windows or bands) removed or kept, against n random orders (n, S).

    Areas are under the accuracy over the share of units, from 0 to 1; the p-value is (1 + number of random orders at
    least as good) / (1 + n), so that 20 orders allow none below 1/21 = 0.048.
    """

    number: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    random_accuracy: NDArray[np.float64]
    area: float
    random_area: NDArray[np.float64]
    p_value: float

    @classmethod
    def from_accuracies(cls, accuracy: NDArray[np.floating], *, number: NDArray[np.int64], direction: str) -> Curve:
        """The curve of accuracies (1 + n, S) under the masks of :func:`curve_masks`, the order of weight first.

        A deletion is good where its area is small, an insertion where it is large.
        """
        accuracy = np.asarray(accuracy, np.float64)
        area = np.asarray(np.trapezoid(accuracy, number / number[-1], axis=1))  # (1 + n,)
        sign, orders = 1 if direction == "deletion" else -1, len(accuracy) - 1
        # equal areas may differ by rounding: they count as at least as good
        better = int((sign * (area[1:] - area[0]) <= 1e-12).sum())
        return cls(number, accuracy[0], accuracy[1:], float(area[0]), area[1:], (1 + better) / (1 + orders))


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


def order_by_weight(
    weight: NDArray[np.floating], windows: NDArray[np.bool_], *, then: NDArray[np.floating] | None = None
) -> NDArray[np.int64]:
    """Windows (U, C) in falling order of their mean weight, from band weights (C,); of equal ones by other weights."""
    size = windows.sum(1)
    first, second = ((windows @ of) / size for of in (weight, weight if then is None else then))
    return np.lexsort((-second, -first))


def curve_masks(
    order: NDArray[np.int64],
    *,
    windows: NDArray[np.bool_],
    number: NDArray[np.int64],
    seed: int,
    direction: str,
    random_orders: int = 20,
) -> NDArray[np.bool_]:
    """The bands that stay at each point of a curve: (1 + n, S, C), the order of weight first, then n random orders.

    * ``order``: (U,) indices of windows, a permutation.
    * ``windows``: (U, C), which bands each holds.
    * ``number``: (S,) rising numbers of windows to remove or to keep, from 0 to U.
    * ``direction``: deletion, where the first windows of the order go first, or insertion, where only they stay.
    """
    units = order.size
    rng = np.random.default_rng([seed, 3])
    rankings = [order, *(rng.permutation(units) for _ in range(random_orders))]
    first = np.stack([[windows[ranking[:n]].any(0) for n in number.tolist()] for ranking in rankings])
    return ~first if direction == "deletion" else first


def permutations(pixels: int, *, seed: int, repeats: int) -> list[NDArray[np.int64]]:
    """Orders (N,) of the pixels by which the values of a group are exchanged."""
    rng = np.random.default_rng([seed, 4])
    return [rng.permutation(pixels) for _ in range(repeats)]
