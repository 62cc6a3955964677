"""The confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from hsfusion.plots.style import PAGE_WIDTH_IN, SMALL_PT, STYLE, text_width_in

_NO_SUPPORT = "#C8C8C8"
_ZERO = "#B0B0B0"


@rc_context(STYLE)
def confusion_figure(confusion: ArrayLike, *, names: Sequence[str], title: str) -> Figure:
    """Draws a confusion matrix: colours by row, counts in the cells, recall of every class at the right.

    Args:
        confusion: (K, K) or (K, K + 1) pixel counts, rows are the truth and columns the prediction; the last of
            K + 1 columns counts pixels without a prediction and is drawn if there are any.
        names: K class names.
        title: stands above the matrix.

    Raises:
        ValueError: if the matrix has not one row and one column for each name.
    """
    counts = np.asarray(confusion)
    k = len(names)
    if counts.shape not in ((k, k), (k, k + 1)):
        raise ValueError(f"confusion has shape {counts.shape}, expected {(k, k)} or {(k, k + 1)}")
    columns = [*names, "no prediction"] if counts[:, k:].any() else list(names)
    counts = counts[:, : len(columns)]
    support = counts.sum(axis=1)
    share = np.divide(counts, support[:, None], out=np.full(counts.shape, np.nan), where=support[:, None] > 0)

    cell_in = min(0.6, max(4.5 / k, 0.22))
    label_in = max(text_width_in(name, size_pt=SMALL_PT) for name in columns)
    side_in = cell_in * len(columns)
    width_in = max(side_in + label_in + 1.7, min(text_width_in(title, size_pt=9) * 1.15, PAGE_WIDTH_IN))
    upright = label_in + 0.05 > cell_in
    height_in = cell_in * k + (label_in if upright else 0.2) + 0.75
    figure = Figure(figsize=(width_in, height_in), layout="compressed")
    axes = figure.add_subplot()
    colors = matplotlib.colormaps["Blues"].with_extremes(bad=_NO_SUPPORT)
    image = axes.imshow(np.ma.masked_invalid(share), cmap=colors, vmin=0, vmax=1, interpolation="nearest")
    figure.suptitle(title, x=0.01, ha="left", wrap=True)
    _name_classes(axes, names, columns=columns, rotation=90 if upright else 0)
    _write_counts(axes, counts, share=share, size_pt=min(8.0, cell_in * 72 * 0.27))
    _write_recall(axes, np.diagonal(share))
    bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.04, format=PercentFormatter(1.0))
    bar.set_label("share of the true class")
    return figure


def _name_classes(axes: Axes, names: Sequence[str], *, columns: Sequence[str], rotation: float) -> None:
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_xticks(range(len(columns)), list(columns), rotation=rotation, fontsize=SMALL_PT)
    axes.set_yticks(range(len(names)), list(names), fontsize=SMALL_PT)
    for axis, labels in ((axes.xaxis, columns), (axes.yaxis, names)):
        axis.set_ticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.tick_params(which="both", length=0)
    axes.grid(which="minor", color="white", lw=0.6)


def _write_counts(axes: Axes, counts: NDArray, *, share: NDArray[np.float64], size_pt: float) -> None:
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if share[row, column] > 0.55 else "black" if count else _ZERO
        if np.isnan(share[row, column]):
            color = "#707070"
        axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=color, fontsize=size_pt)


def _write_recall(axes: Axes, recall: NDArray[np.float64]) -> None:
    """Writes the recall of each row right of the matrix; a class without pixels has none."""
    right = axes.secondary_yaxis("right")
    labels = ["no pixels" if np.isnan(value) else f"{100 * value:.1f} %" for value in recall]
    right.set_yticks(range(recall.size), labels, fontsize=SMALL_PT)
    right.tick_params(length=0)
    axes.annotate("recall", (1, 1), (4, 3), xycoords="axes fraction", textcoords="offset points", fontsize=SMALL_PT)
    right.spines["right"].set_visible(False)
