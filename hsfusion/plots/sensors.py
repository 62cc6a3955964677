"""Accuracy with the bands of several sensors, and where these lie."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from hsfusion.plots.style import BLACK, BLUE, PAGE_WIDTH_IN, SKY_BLUE, STYLE, VERMILION
from hsfusion.plots.weights import STRONG_WATER_VAPOUR_NM

_ACCURACY_HEIGHT_IN = 2.3
_ROW_HEIGHT_IN = 0.24
_MARGINS_IN = 1.2  # of title, legends and axis labels
_APART = 0.15  # of the metrics of one sensor
_LOOKS = ((BLUE, "o"), (VERMILION, "D"))  # by colour and by shape


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
    _draw_accuracies(upper, accuracies)
    upper.set_xticks(range(len(bands)), [f"{name}\n{np.size(nm)} bands" for name, (nm, _) in bands.items()])
    _draw_bands(lower, bands)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_accuracies(axes: Axes, accuracies: Mapping[str, Mapping[str, ArrayLike]]) -> None:
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


def _draw_bands(axes: Axes, bands: Mapping[str, tuple[ArrayLike, ArrayLike | None]]) -> None:
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
