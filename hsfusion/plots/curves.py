"""Loss and accuracies over the steps of a training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import ArrayLike

from hsfusion.plots.style import BLACK, BLUE, GREEN, PAGE_WIDTH_IN, PURPLE, STYLE, VERMILION

# key in the history: name in the legend, colour, line style (tells the curves apart in grey)
_LOSSES = {"train/loss": ("training", BLUE, "-"), "val/loss": ("validation", VERMILION, "--")}
_ACCURACIES = {
    "val/overall_accuracy": ("overall accuracy", BLUE, "-"),
    "val/average_accuracy": ("average accuracy", VERMILION, "--"),
    "val/kappa": ("kappa", GREEN, "-."),
    "val/mean_iou": ("mean IoU", PURPLE, ":"),
}
_LOG_RATIO = 30.0


@rc_context(STYLE)
def training_figure(history: Mapping[str, tuple[ArrayLike, ArrayLike]], *, best_step: int | None) -> Figure:
    """Draws the losses in one panel and, if there are any, the validation accuracies in another.

    Args:
        history: key to (steps, values), both of one length. Drawn are ``train/loss``, ``val/loss``,
            ``val/overall_accuracy``, ``val/average_accuracy``, ``val/kappa`` and ``val/mean_iou``, whichever exist.
        best_step: step whose weights were kept, or None.
    """
    panels = [("loss", _LOSSES), ("validation accuracy", _ACCURACIES)]
    panels = [(label, curves) for label, curves in panels if any(key in history for key in curves)]
    width = PAGE_WIDTH_IN if len(panels) > 1 else 0.55 * PAGE_WIDTH_IN
    figure = Figure(figsize=(width, 2.9), layout="constrained")
    if not panels:
        figure.text(0.5, 0.5, "no training history was recorded", ha="center", va="center")
        return figure
    for axes, (label, curves) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        series = {key: history[key] for key in curves if key in history}
        _draw_panel(axes, series, look=curves)
        axes.set(xlabel="step", ylabel=label)
        if best_step is not None:
            axes.axvline(best_step, color=BLACK, lw=0.8, ls=(0, (1, 2)), label=f"kept: step {best_step}")
        if curves is _ACCURACIES:
            axes.set_ylim(top=1.0)
        elif _spans_decades(np.concatenate([np.asarray(y, float) for _, y in series.values()])):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        # Above the panel, where no curve can run through it.
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1.2, borderaxespad=0.2)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#DDDDDD", lw=0.5)
        axes.set_axisbelow(True)
    return figure


def _draw_panel(
    axes: Axes, series: Mapping[str, tuple[ArrayLike, ArrayLike]], *, look: Mapping[str, tuple[str, str, str]]
) -> None:
    for key, (steps, values) in series.items():
        name, color, line = look[key]
        marker = "o" if np.size(steps) <= 40 else ""  # a curve of one point shows too
        axes.plot(np.asarray(steps), np.asarray(values, float), color=color, ls=line, marker=marker, ms=2.5, label=name)


def _spans_decades(values: ArrayLike) -> bool:
    finite = np.asarray(values)[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() / finite.min() > _LOG_RATIO)
