"""How a network learned and how well it classifies: the course of a training, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from hsfusion.plots.style import PAGE_WIDTH_IN, SMALL_PT, STYLE, Color, open_frame, text_width_in, titled_figure

# key in the history: name in the legend, colour, line style (tells the curves apart in grey)
_LOSSES = {"train/loss": ("training", Color.BLUE, "-"), "val/loss": ("validation", Color.VERMILION, "--")}
_ACCURACIES = {
    "val/overall_accuracy": ("overall accuracy", Color.BLUE, "-"),
    "val/average_accuracy": ("average accuracy", Color.VERMILION, "--"),
    "val/kappa": ("kappa", Color.GREEN, "-."),
    "val/mean_iou": ("mean IoU", Color.PURPLE, ":"),
}
_NO_SUPPORT = "#C8C8C8"
_ZERO = "#B0B0B0"


@rc_context(STYLE)
def training_figure(history: Mapping[str, tuple[ArrayLike, ArrayLike]], *, best_step: int | None) -> Figure:
    """Draws the losses in one panel and, if there are any, the validation accuracies in another.

    ``history`` is key to (steps, values): ``train/loss``, ``val/loss``, ``val/overall_accuracy``,
    ``val/average_accuracy``, ``val/kappa`` and ``val/mean_iou``, whichever exist. ``best_step`` is the step whose
    weights were kept.
    """
    panels = [("loss", _LOSSES), ("validation accuracy", _ACCURACIES)]
    panels = [(label, curves) for label, curves in panels if any(key in history for key in curves)]
    width = PAGE_WIDTH_IN if len(panels) > 1 else 0.55 * PAGE_WIDTH_IN
    figure = Figure(figsize=(width, 2.9), layout="constrained")
    if not panels:
        figure.text(0.5, 0.5, "no training history was recorded", ha="center", va="center")
        return figure
    for axes, (label, curves) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        series = {key: np.asarray(history[key], float) for key in curves if key in history}  # (2, T)
        for key, (steps, values) in series.items():
            name, color, line = curves[key]
            marker = "o" if steps.size <= 40 else ""  # a curve of one point shows too
            axes.plot(steps, values, color=color, ls=line, marker=marker, ms=2.5, label=name)
        axes.set(xlabel="step", ylabel=label)
        if best_step is not None:
            axes.axvline(best_step, color=Color.BLACK, lw=0.8, ls=(0, (1, 2)), label=f"kept: step {best_step}")
        if curves is _ACCURACIES:
            axes.set_ylim(top=1.0)
        # Above the panel, where no curve can run through it.
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1.2, borderaxespad=0.2)
        open_frame(axes)
    return figure


@rc_context(STYLE)
def trials_figure(values: ArrayLike, keys: Mapping[str, Sequence[Any]], *, metric: str) -> Figure:
    """Draws what the trials (N,) of a search reached, in their order with the best so far, and beside each key (N,)."""
    reached = np.asarray(values, float)
    panels = {"trial": np.arange(1, reached.size + 1), **keys}
    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(PAGE_WIDTH_IN, 1.9 * rows), layout="constrained")
    drawn = figure.subplots(rows, 3, sharey=True, squeeze=False)
    for axes in drawn.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (key, of) in zip(drawn.flat, panels.items(), strict=False):
        numbers = all(isinstance(value, int | float | np.integer) for value in of)
        axes.plot(of if numbers else [str(value) for value in of], reached, "o", ms=3, color=Color.BLUE, clip_on=False)
        if numbers and min(of, default=0) > 0 and max(of) > 20 * min(of) and key != "trial":
            axes.set_xscale("log")
            places = np.geomspace(min(of), max(of), 3)  # ticks of its own may overlap
            axes.set_xticks(places, [f"{place:.2g}" for place in places])
            axes.minorticks_off()
        axes.set(xlabel=key)
        open_frame(axes)
    drawn[0, 0].step(panels["trial"], np.maximum.accumulate(reached), where="post", color=Color.VERMILION, label="best")
    drawn[0, 0].legend(loc="lower right")
    figure.supylabel(metric, fontsize=8)
    return figure


@rc_context(STYLE)
def confusion_figure(confusion: ArrayLike, *, names: Sequence[str], title: str) -> Figure:
    """Draws a confusion matrix, (K, K) or (K, K + 1) pixel counts, with the recall of every class at the right.

    Rows are the truth and columns the prediction; the last of K + 1, pixels without one, is drawn if there are any.
    """
    counts, k = np.asarray(confusion), len(names)
    columns = [*names, "no prediction"] if counts[:, k:].any() else list(names)
    counts = counts[:, : len(columns)]
    support = counts.sum(axis=1)
    share = np.divide(counts, support[:, None], out=np.full(counts.shape, np.nan), where=support[:, None] > 0)

    cell_in = min(0.6, max(4.5 / k, 0.22))
    label_in = max(text_width_in(name, size_pt=SMALL_PT) for name in columns)
    upright = label_in + 0.05 > cell_in
    width_in = cell_in * len(columns) + label_in + 1.7
    width_in = max(width_in, min(text_width_in(title, size_pt=9) * 1.15, PAGE_WIDTH_IN))
    height_in = cell_in * k + (label_in if upright else 0.2) + 0.75
    figure = titled_figure(width_in, height_in, title=title, layout="compressed")
    axes = figure.add_subplot()
    colors = matplotlib.colormaps["Blues"].with_extremes(bad=_NO_SUPPORT)
    image = axes.imshow(np.ma.masked_invalid(share), cmap=colors, vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_xticks(range(len(columns)), columns, rotation=90 if upright else 0, fontsize=SMALL_PT)
    axes.set_yticks(range(k), names, fontsize=SMALL_PT)
    axes.tick_params(length=0)
    _write_cells(axes, counts, share=share, size_pt=min(8.0, cell_in * 72 * 0.27))
    recall = ["no pixels" if np.isnan(value) else f"{100 * value:.1f} %" for value in np.diagonal(share)]
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(k), recall, fontsize=SMALL_PT)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    axes.annotate("recall", (1, 1), (4, 3), xycoords="axes fraction", textcoords="offset points", fontsize=SMALL_PT)
    label = "share of the true class"
    figure.colorbar(image, ax=axes, shrink=0.6, pad=0.04, format=PercentFormatter(1.0), label=label)
    return figure


def _write_cells(axes: Axes, counts: NDArray, *, share: NDArray[np.float64], size_pt: float) -> None:
    """Writes the counts, and draws white lines between the cells."""
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if share[row, column] > 0.55 else "black" if count else _ZERO
        color = "#707070" if np.isnan(share[row, column]) else color
        axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=color, fontsize=size_pt)
    for axis, number in ((axes.yaxis, counts.shape[0]), (axes.xaxis, counts.shape[1])):
        axis.set_ticks(np.arange(number + 1) - 0.5, minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="minor", color="white", lw=0.6)
