"""What a cube holds: its spectra, and the quality of its bands."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from hsfusion.plots.style import PAGE_WIDTH_IN, STYLE, Color, legend_below, titled_figure
from hsfusion.plots.weights import broken_at_gaps, mark_water_vapour, set_spectral_limits

_AXES_HEIGHT_IN = 2.6
_PANEL_HEIGHT_IN = 1.25


@rc_context(STYLE)
def spectra_figure(
    wavelength_nm: ArrayLike | None, mean: ArrayLike, quantiles: ArrayLike, *, good: ArrayLike, unit: str, title: str
) -> Figure:
    """Draws the mean spectrum (C,) of a scene over the range of its values.

    The quantiles (5, C) are those of 2, 25, 50, 75 and 98 %. Bands that are not good are left out. Where wavelengths,
    in any order, are None, the axis is the number of the band.
    """
    good = np.asarray(good, bool)
    levels = np.where(good, np.asarray(quantiles, float), np.nan)  # (5, C)
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, wrap=True)
    axes.set_ylabel(unit)
    x = _band_axis(axes, wavelength_nm, good.size)
    handles: list[Artist] = []
    for low, high, alpha, label in ((0, 4, 0.18, "2 to 98 % of the pixels"), (1, 3, 0.38, "25 to 75 %")):
        nm, lower = broken_at_gaps(x, levels[low])
        upper = broken_at_gaps(x, levels[high])[1]
        handles.append(axes.fill_between(nm, lower, upper, color=Color.BLUE, alpha=alpha, lw=0, label=label, zorder=3))
    marker = {"marker": "o", "ms": 1.4 if good.sum() > 60 else 3.0}  # shows a band between two gaps
    middle = np.where(good, np.asarray(mean, float), np.nan)
    handles += axes.plot(*broken_at_gaps(x, middle), color=Color.BLACK, label="mean", zorder=4, **marker)
    # above the mean, and with gaps through which it shows, for often they are the same
    handles += axes.plot(*broken_at_gaps(x, levels[2]), color=Color.ORANGE, ls=(0, (3, 3)), label="median", zorder=5)
    handles += _mark_bad(axes, x, good) + (mark_water_vapour(axes) if wavelength_nm is not None else [])
    legend_below(figure, handles, height_in=_AXES_HEIGHT_IN)
    return figure


@rc_context(STYLE)
def band_quality_figure(
    wavelength_nm: ArrayLike | None,
    no_data: ArrayLike,
    zero: ArrayLike,
    correlation: ArrayLike,
    *,
    good: ArrayLike,
    dead: ArrayLike,
    title: str,
) -> Figure:
    """Draws how much of each band (C,) is missing or 0, and how alike neighbouring pixels are in it.

    Shares of the pixels, correlations (NaN where they have no meaning), and whether a band is good, or dead: without
    data, or with one value everywhere. Where wavelengths are None, the axis is the number of the band.
    """
    good, dead, alike = np.asarray(good, bool), np.asarray(dead, bool), np.asarray(correlation, float)
    figure = titled_figure(PAGE_WIDTH_IN, 2 * _PANEL_HEIGHT_IN, title=title)
    upper, lower = figure.subplots(2, 1, sharex=True)
    x = _band_axis(lower, wavelength_nm, good.size)
    look = {"lw": 0.8, "marker": "o", "ms": 1.6 if x.size > 60 else 3.0, "zorder": 3}
    handles: list[Artist] = []
    for axes, values, color, label in (
        (upper, zero, Color.ORANGE, "exactly 0"),
        (upper, no_data, Color.VERMILION, "no data"),
        (lower, alike, Color.BLUE, "correlation of neighbouring pixels (noise: 0)"),
    ):
        handles += axes.plot(*broken_at_gaps(x, np.asarray(values, float)), color=color, label=label, **look)
    upper.set(ylabel="share of the pixels", ylim=(-0.05, 1.05))
    upper.yaxis.set_major_formatter(PercentFormatter(1.0))
    lower.set(ylabel="correlation", ylim=(min([0.0, *alike[np.isfinite(alike)]]) - 0.05, 1.05))
    for axes in (upper, lower):
        marks = _mark_bad(axes, x, good) + (mark_water_vapour(axes) if wavelength_nm is not None else [])
    if dead.any():
        upper.plot(x[dead], np.full(dead.sum(), 1.03), "|", color=Color.BLACK, ms=5, clip_on=False)
        label = "dead: no data, or one value everywhere"
        marks.append(Line2D([], [], color=Color.BLACK, marker="|", ls="", label=label))
    legend_below(figure, handles + marks, height_in=2 * _PANEL_HEIGHT_IN + 0.2)
    return figure


def _band_axis(axes: Axes, wavelength_nm: ArrayLike | None, bands: int) -> NDArray[np.float64]:
    """Places of the bands (C,) along the axis, which it sets: wavelengths, or their numbers from 1."""
    if wavelength_nm is None:
        x, label = np.arange(1.0, bands + 1), "band (wavelengths are not known)"
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        x, label = np.asarray(wavelength_nm, float), "wavelength (nm)"
    set_spectral_limits(axes, x)
    axes.set_xlabel(label)
    return x


def _mark_bad(axes: Axes, x: NDArray[np.float64], good: NDArray[np.bool_]) -> list[Artist]:
    """Shades the bands that are marked as bad, each as wide as the usual spacing."""
    if good.all():
        return []
    spacing = float(np.median(np.diff(np.unique(x)))) if x.size > 1 else 1.0
    for at in x[~good].tolist():
        axes.axvspan(at - spacing / 2, at + spacing / 2, color="#E6E6E6", lw=0, zorder=0)
    return [Patch(fc="#E6E6E6", label="bad bands")]
