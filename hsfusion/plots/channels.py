"""Signed weights of the groups in each fused channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from hsfusion.plots.style import BLUE, PAGE_WIDTH_IN, STYLE, VERMILION, text_width_in

_MATRIX_WIDTH_IN = 5.6
_VALUE_PT = (7.0, 5.5)


@rc_context(STYLE)
def group_weights_figure(
    weights: ArrayLike, *, group_names: Sequence[str], channel_share: ArrayLike, title: str
) -> Figure:
    """Draws the group weights as a matrix, channels from the largest share to the smallest.

    Args:
        weights: (G, M) signed weights.
        group_names: G names, from the first row down.
        channel_share: (M,) share of each fused channel in what the network takes in, sums to 1.
        title: stands above the figure.

    Raises:
        ValueError: if names or shares do not fit the weights.
    """
    matrix, share = np.asarray(weights, float), np.asarray(channel_share, float)
    if matrix.shape != (len(group_names), share.size):
        raise ValueError(
            f"weights have shape {matrix.shape}, expected (groups, channels) {len(group_names), share.size}"
        )
    order = np.argsort(-share, kind="stable")
    matrix = matrix[:, order]  # (G, M)
    height_in = 0.3 * max(len(group_names), 3)
    figure = Figure(figsize=(PAGE_WIDTH_IN, height_in + 1.7), layout="constrained")
    bars, cells = figure.subplots(2, 1, sharex=True, height_ratios=[0.55, height_in])
    figure.suptitle(title, x=0.01, ha="left", wrap=True)

    _draw_shares(bars, share[order])
    limit = float(np.abs(matrix).max()) or 1.0
    image = cells.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    cells.set_yticks(range(len(group_names)), list(group_names))
    every = -(-order.size // 40)
    cells.set_xticks(range(0, order.size, every), [str(m + 1) for m in order[::every]])
    figure.colorbar(image, ax=cells, label="group weight", pad=0.01, fraction=0.05)
    _write_values(cells, matrix, limit=limit)
    note = "" if _value_size_pt(order.size) else "; − marks negative weights"
    cells.set_xlabel(f"fused channel, by falling share (dashed: equal share{note})")
    return figure


def _draw_shares(axes: Axes, share: NDArray[np.float64]) -> None:
    axes.bar(np.arange(share.size), share, width=0.8, color=BLUE)
    axes.axhline(1 / share.size, color=VERMILION, lw=0.8, ls="--")
    axes.set_ylabel("share")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)


def _value_size_pt(channels: int) -> float | None:
    """Finds the largest type in which a value fits a cell, None if none does."""
    width_in = _MATRIX_WIDTH_IN / channels
    return next((size for size in _VALUE_PT if text_width_in("−0.00", size_pt=size) < width_in), None)


def _write_values(axes: Axes, matrix: NDArray[np.float64], *, limit: float) -> None:
    """Writes the values where a cell has the room; where it has not, a minus, since grey print loses the sign."""
    size = _value_size_pt(matrix.shape[1])
    for (row, column), value in np.ndenumerate(matrix):
        text = f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
        if size is None:
            text = "−" if value < -0.05 * limit else ""
        if text:
            color = "white" if abs(value) > 0.6 * limit else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=size or _VALUE_PT[-1], color=color)
