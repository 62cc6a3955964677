"""Whether the bands of great weight matter: deletion, insertion, permuted groups, retraining, other sensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from hsfusion.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PAGE_WIDTH_IN,
    PURPLE,
    SKY_BLUE,
    STYLE,
    VERMILION,
    legend_columns,
)
from hsfusion.plots.weights import STRONG_WATER_VAPOUR_NM

_READABLE = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1.0}  # under a text that a curve may cross
_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g}")
_FILLS = {"mean": "set to their mean", "conditional": "predicted from the kept"}
# ranking -> colour, line and marker, which tell it apart in grey
_RANKINGS = {
    "weights": (BLACK, "-", "o"),
    "evenly spaced": (VERMILION, "--", "s"),
    "random": (GREY, ":", "x"),
    "lowest weights": (PURPLE, ":", "v"),
    "mutual information": (BLUE, "-.", "^"),
    "PCA loading": (GREEN, "--", "D"),
    "SVM weights": (ORANGE, "-.", "P"),
    "mutual information, spread": (BLUE, ":", "^"),
    "PCA loading, spread": (GREEN, ":", "D"),
    "SVM weights, spread": (ORANGE, ":", "P"),
}
_CLASSIFIERS = {"network": "network", "svm": "SVM"}
_ACCURACY_HEIGHT_IN = 2.3
_ROW_HEIGHT_IN = 0.24
_MARGINS_IN = 1.2  # of title, legends and axis labels
_APART = 0.15  # of the metrics of one sensor
_LOOKS = ((BLUE, "o"), (VERMILION, "D"))  # by colour and by shape


@rc_context(STYLE)
def faithfulness_figure(
    numbers: ArrayLike, curves: Mapping[str, Mapping[str, Mapping[str, Any]]], *, total: int, title: str
) -> Figure:
    """Draws accuracy along the order of weight against random orders.

    Args:
        numbers: (S,) bands removed, or kept.
        curves: ``deletion`` and ``insertion`` to ``mean`` and ``conditional`` to ``accuracy``, ``random_mean``,
            ``random_lower`` and ``random_upper``, each (S,), with ``area`` and ``p``.
        total: number of bands in all.
        title: stands above the figure.
    """
    x = np.asarray(numbers, float)
    figure = Figure(figsize=(PAGE_WIDTH_IN, 4.6), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", wrap=True)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for row, kind, done in zip(panels, ("deletion", "insertion"), ("removed", "kept"), strict=True):
        for axes, (fill, words) in zip(row, _FILLS.items(), strict=True):
            curve = curves[kind][fill]
            axes.fill_between(
                x, curve["random_lower"], curve["random_upper"], color=GREY, alpha=0.35, lw=0, label="random orders"
            )
            axes.plot(x, curve["random_mean"], color=GREY, ls="--", label="their mean")
            axes.plot(x, curve["accuracy"], color=BLACK, marker="o", ms=2.5, label="by falling weight")
            axes.set_title(f"{kind}: {'removed' if kind == 'deletion' else 'other'} bands {words}", fontsize=7.5)
            sign = "below" if kind == "deletion" else "above"
            axes.text(
                0.98,
                0.96 if kind == "deletion" else 0.06,
                f"area {curve['area']:.3f}, {sign} random: p = {curve['p']:.2g}",
                transform=axes.transAxes,
                ha="right",
                va="top" if kind == "deletion" else "bottom",
                fontsize=6.5,
                bbox=_READABLE,
            )
            axes.set(xlabel=f"bands {done}, of {total}", ylim=(0, 1.02))
            axes.tick_params(labelbottom=True)
            _finish(axes)
        row[0].set_ylabel("overall accuracy (%)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


@rc_context(STYLE)
def top_k_figure(
    numbers: Sequence[int],
    accuracies: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]],
    *,
    full: Mapping[str, float | None],
    smallest: Mapping[tuple[str, str], int | None],
    title: str,
) -> Figure:
    """Draws the accuracy after retraining on k bands against k, for each ranking of the bands.

    Args:
        numbers: (S,) the numbers k.
        accuracies: kind of split, the configured one first, to classifier (``network``, ``svm``) to ranking to
            (S, splits).
        full: classifier to its accuracy with all bands, drawn for the first split; None where unknown.
        smallest: split and classifier to the smallest k of our ranking that keeps 95 % of it; None if none does.
        title: stands above the figure.
    """
    panels = [(split, kind) for split in accuracies for kind in _CLASSIFIERS if kind in accuracies[split]]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(PAGE_WIDTH_IN, 2.3 * rows + 0.9), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", wrap=True)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    named: dict[str, Any] = {}
    for axes, (split, kind) in zip(grid, panels, strict=False):
        for ranking, values in accuracies[split][kind].items():
            named[ranking] = _draw_ranking(axes, numbers, np.asarray(values, float), ranking)
        if split == next(iter(accuracies)) and full.get(kind) is not None:
            named |= _draw_full(axes, float(full[kind] or 0), smallest.get((split, kind)))
        axes.set_title(f"{_CLASSIFIERS[kind]}, {split} split", fontsize=7.5)
        axes.set(xlabel="bands k", ylabel="overall accuracy (%)", xticks=list(numbers))
        axes.tick_params(labelbottom=True)
        _finish(axes)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.legend(
        list(named.values()), list(named), loc="outside lower center", ncols=min(legend_columns(list(named)), 5)
    )
    return figure


def _draw_ranking(axes: Axes, numbers: Sequence[int], values: np.ndarray, ranking: str) -> Any:
    """Mean and range over splits (S, splits); returns the handle for the legend."""
    color, line, marker = _RANKINGS.get(ranking, (SKY_BLUE, "-", "*"))
    mean = values.mean(1)
    reach = np.stack([mean - values.min(1), values.max(1) - mean])
    ours = ranking == "weights"
    return axes.errorbar(
        numbers,
        mean,
        reach if values.shape[1] > 1 else None,
        color=color,
        ls=line,
        marker=marker,
        ms=3.5,
        lw=1.6 if ours else 1.0,
        elinewidth=0.6,
        zorder=4 if ours else 3,
    )


def _draw_full(axes: Axes, full: float, smallest: int | None) -> dict[str, Any]:
    """The accuracy with all bands, 95 % of it, and the smallest number that keeps so much; returns legend handles."""
    lines = {
        "all bands": axes.axhline(full, color=BLACK, lw=0.8),
        "95 % of it": axes.axhline(0.95 * full, color=BLACK, lw=0.8, ls=(0, (1, 2))),
    }
    if smallest is None:
        told = "no k keeps 95 %"
    else:
        axes.axvline(smallest, color=SKY_BLUE, lw=4, alpha=0.4, zorder=1)
        told = f"weights keep 95 % from k = {smallest}"
    axes.text(0.98, 0.04, told, transform=axes.transAxes, ha="right", va="bottom", fontsize=6.5, bbox=_READABLE)
    return lines


@rc_context(STYLE)
def group_importance_figure(groups: Sequence[tuple[str, float, float | None]], *, title: str) -> Figure:
    """Draws the accuracy lost where the values of a band group are exchanged between pixels.

    Args:
        groups: name, loss as a fraction, and p-value if there is one, of each.
        title: stands above the figure.
    """
    figure = Figure(figsize=(0.7 * PAGE_WIDTH_IN, 0.19 * len(groups) + 1.1), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, wrap=True)
    y = np.arange(len(groups))
    losses = [loss for _, loss, _ in groups]
    axes.barh(y, losses, color=BLUE, height=0.7)
    axes.axvline(0, color=BLACK, lw=0.6)
    for i, (_, loss, p) in enumerate(groups):
        told = f"{100 * loss:.1f}" + ("" if p is None else f"  p = {p:.2g}")
        axes.annotate(told, (max(loss, 0), i), (3, 0), textcoords="offset points", va="center", fontsize=6)
    axes.set_yticks(y, [name for name, _, _ in groups])
    axes.invert_yaxis()
    axes.margins(x=0.22)
    axes.set_xlabel("overall accuracy lost (percentage points)")
    axes.xaxis.set_major_formatter(_PERCENT)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _finish(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.grid(axis="y", color="#DDDDDD", lw=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


@rc_context(STYLE)
def sensors_figure(
    accuracies: Mapping[str, Mapping[str, ArrayLike]],
    bands: Mapping[str, tuple[ArrayLike, ArrayLike | None]],
    *,
    title: str,
) -> Figure:
    """Draws the accuracies with each sensor over the seeds, and below the bands that each sensor has.

    Every seed is a small mark; the large one is the mean, the line one standard deviation (n - 1) to both sides.

    Args:
        accuracies: sensor -> metric (two at most) -> one value for each seed, 0 to 1.
        bands: the same sensors -> (C,) centres in nm and (C,) FWHM in nm, or None where unknown.
        title: stands above the panels.

    Raises:
        ValueError: if the two do not name the same sensors.
    """
    if list(accuracies) != list(bands) or not bands:
        raise ValueError(f"accuracies of {list(accuracies)}, but bands of {list(bands)}")
    rows_in = _ROW_HEIGHT_IN * (len(bands) + 1)
    height_in = _ACCURACY_HEIGHT_IN + rows_in + _MARGINS_IN
    figure = Figure(figsize=(PAGE_WIDTH_IN, height_in), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", wrap=True)
    upper, lower = figure.subplots(2, 1, height_ratios=[_ACCURACY_HEIGHT_IN, rows_in])
    _draw_sensor_accuracies(upper, accuracies)
    upper.set_xticks(range(len(bands)), [f"{name}\n{np.size(nm)} bands" for name, (nm, _) in bands.items()])
    _draw_sensor_bands(lower, bands)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_sensor_accuracies(axes: Axes, accuracies: Mapping[str, Mapping[str, ArrayLike]]) -> None:
    metrics = list(next(iter(accuracies.values())))
    for i, (metric, (color, marker)) in enumerate(zip(metrics, _LOOKS, strict=False)):
        shift = _APART * (i - (len(metrics) - 1) / 2)
        values = [np.asarray(of_sensor[metric], float) for of_sensor in accuracies.values()]
        means = [float(np.mean(of_seeds)) for of_seeds in values]
        spreads = [float(np.std(of_seeds, ddof=1)) if of_seeds.size > 1 else 0.0 for of_seeds in values]
        x = np.arange(len(values)) + shift
        for at, of_seeds in zip(x, values, strict=True):
            if of_seeds.size > 1:
                axes.plot(np.full(of_seeds.size, at + 0.06), of_seeds, ls="", marker=marker, ms=1.8, c=color, alpha=0.6)
        axes.errorbar(x, means, spreads, ls="", marker=marker, ms=4.5, c=color, capsize=2.5, elinewidth=1, label=metric)
    axes.set_ylabel("accuracy of the test pixels")
    axes.set_xlim(-0.5, len(accuracies) - 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="y", color="#DDDDDD", lw=0.5)
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(metrics), columnspacing=1.2, borderaxespad=0.2)


def _draw_sensor_bands(axes: Axes, bands: Mapping[str, tuple[ArrayLike, ArrayLike | None]]) -> None:
    """One row for each sensor: a tick at each centre, over a bar as wide as the band."""
    for lower, upper in STRONG_WATER_VAPOUR_NM:
        axes.axvspan(lower, upper, fc="#EEEEEE", lw=0, zorder=0)
    for row, (centres, widths) in enumerate(bands.values()):
        nm = np.asarray(centres, float)
        if widths is not None:
            fwhm = np.asarray(widths, float)
            spans = list(zip(nm - fwhm / 2, fwhm, strict=True))
            axes.broken_barh(spans, (row - 0.3, 0.6), fc=SKY_BLUE, lw=0, zorder=2)
        axes.vlines(nm, row - 0.3, row + 0.3, colors=BLACK, lw=0.35, zorder=3)
    axes.set_yticks(range(len(bands)), list(bands))
    axes.set_ylim(len(bands) - 0.5, -0.5)  # the first at the top
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("wavelength (nm)")
    handles = [
        Line2D([], [], ls="", marker="|", c=BLACK, ms=6, label="centre of a band"),
        Patch(fc=SKY_BLUE, label="its FWHM"),
        Patch(fc="#EEEEEE", label="water vapour"),
    ]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
