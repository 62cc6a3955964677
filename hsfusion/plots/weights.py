"""Band weights over wavelength, and how they are made up: groups, channels, runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from hsfusion.plots.style import (
    PAGE_WIDTH_IN,
    PERCENT,
    SMALL_PT,
    STYLE,
    Color,
    legend_below,
    text_width_in,
    titled_figure,
)
from hsfusion.spectra.bands import RANGES_NM
from hsfusion.spectra.weights import WeightSpread

_WEAK_WATER_VAPOUR_NM = (940.0, 1130.0)
_GAP = 3.0  # times the median spacing
_AXES_HEIGHT_IN = 2.5
_STRIP_HEIGHT_IN = 0.5  # of the selection frequency
_IMPORTANCE_HEIGHT_IN = 1.1
_MATTERS = 0.05  # nats, by the rules in docs/weights.md
_AXES_WIDTH_IN = 5.8  # what the axes have of the figure once labels and legend took theirs
_STAMP_LEVEL, _CURVE_LEVEL, _TEXT_LEVEL = 1.8, 3.0, 5.0
_MATRIX_WIDTH_IN = 5.6
_VALUE_PT = 5.5


@rc_context(STYLE)
def band_weights_figure(
    wavelength_nm: ArrayLike,
    weight: ArrayLike,
    *,
    groups: Sequence[tuple[str, float, float]],
    title: str,
    spectra: Mapping[str, tuple[ArrayLike, str]] | None = None,
    spread: WeightSpread | None = None,
    stamp: str | None = None,
    sources: Mapping[str, float] | None = None,
    untrained: ArrayLike | None = None,
    runs: ArrayLike | None = None,
    atmospheric: ArrayLike | None = None,
    importance: Mapping[str, Any] | None = None,
) -> Figure:
    """Draws the band weights (C,) over wavelength, with the band groups and what each of them totals.

    * ``spectra``: class name to (C,) mean spectrum in the scene's own unit, and hex colour.
    * ``spread``: over the runs whose median the weights are; the share of the runs that select each band is drawn in a
      strip under the curve.
    * ``stamp``: a warning written across the plot, such as "borderline".
    * ``sources``: weight of each further raster, which has no wavelength: named in the legend.
    * ``untrained``: (C,) what untrained networks give the bands; None for the same everywhere.
    * ``runs``: (R, C) the weights of each run, whose totals the groups get; None for one run.
    * ``atmospheric``: (C,) bands at an absorption edge or a spike of the atmospheric correction, ticked on the axis.
    * ``importance``: fields of :class:`hsfusion.trust.importance.WindowImportance`: the part of each weight that is
      subtracted is coloured, and what is lost without each window is drawn under the curve.
    """
    nm, weights = np.asarray(wavelength_nm, float), np.asarray(weight, float)
    figure = Figure(layout="constrained")
    axes, below = _weight_axes(figure, nm, title=title, spread=spread, importance=importance)
    contrast = None if importance is None else importance["contrast"]
    handles = _draw_weights(axes, nm, weights=weights, spread=spread, contrast=contrast)
    handles.append(_draw_untrained(axes, nm, untrained))
    handles += [Patch(fc="none", ec="none", label=f"{name}: {100 * w:.1f} %") for name, w in (sources or {}).items()]
    if atmospheric is not None and np.any(atmospheric):
        look = {"marker": "^", "ms": 3, "ls": "", "color": Color.GREY, "clip_on": False, "zorder": _TEXT_LEVEL}
        at, floor = nm[np.asarray(atmospheric, bool)], axes.get_xaxis_transform()
        handles += axes.plot(at, np.zeros(at.size), transform=floor, label="edge or spike of the atmosphere", **look)
    background, curves = _draw_spectra(axes, nm, spectra) if spectra else (axes, [])
    handles += mark_water_vapour(background) + curves
    totals = totals_by_group(nm, weights if runs is None else runs, groups)
    taken = _shade_groups(background, axes, nm=nm, totals=totals, groups=groups)
    _leave_room(background, [spectrum for spectrum, _ in (spectra or {}).values()], taken=taken)
    _leave_room(axes, [weights, *([] if spread is None else [spread.lower, spread.upper])], taken=taken)
    if stamp:
        _stamp(background, stamp)
    legend_below(figure, handles, height_in=_AXES_HEIGHT_IN + 1.2 * below)
    return figure


def plot_band_weights(
    wavelength_nm: ArrayLike, weight: ArrayLike, *, untrained: ArrayLike | None = None, ax: Axes | None = None
) -> Axes:
    """Draws band weights (C,) over wavelength into axes, by default of a new pyplot figure; returns the axes."""
    nm, weights = np.asarray(wavelength_nm, float), np.asarray(weight, float)
    if ax is None:
        from matplotlib import pyplot  # notebooks show its figures

        ax = pyplot.subplots(figsize=(PAGE_WIDTH_IN, 3), layout="constrained")[1]
    handles = [*_draw_weights(ax, nm, weights=weights, spread=None), _draw_untrained(ax, nm, untrained)]
    handles += mark_water_vapour(ax)
    ax.set(xlabel="wavelength (nm)", ylabel="band weight")
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def broken_at_gaps(wavelength_nm: ArrayLike, values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sorts a spectrum (C,) by wavelength and puts a NaN in the middle of every step over three times the median."""
    nm, y = np.asarray(wavelength_nm, float), np.asarray(values, float)
    order = np.argsort(nm, kind="stable")
    nm, y = nm[order], y[order]
    step = np.diff(nm)
    if not (step > 0).any():
        return nm, y
    after = np.flatnonzero(step > _GAP * np.median(step[step > 0]))
    middle = (nm[after] + nm[after + 1]) / 2
    return np.insert(nm, after + 1, middle), np.insert(y, after + 1, np.nan)


def totals_by_group(
    wavelength_nm: ArrayLike, weight: ArrayLike, groups: Sequence[tuple[str, float, float]]
) -> dict[str, float]:
    """What the bands of each group weigh together, from (C,) of one run or the median over (R, C) of several.

    Bands that take turns from run to run have small medians, and so has their sum; the group has not.
    """
    nm, runs = np.asarray(wavelength_nm, float), np.atleast_2d(np.asarray(weight, float))
    return {name: float(np.median(runs[:, (nm >= low) & (nm < high)].sum(1))) for name, low, high in groups}


def set_spectral_limits(axes: Axes, x: NDArray[np.float64]) -> None:
    """Ends the axis a little beyond the first and the last band."""
    pad = max(0.01 * float(np.ptp(x)), 1.0)
    axes.set_xlim(float(x.min()) - pad, float(x.max()) + pad)


def mark_water_vapour(axes: Axes) -> list[Artist]:
    """Marks where the atmosphere absorbs, as far as the axes reach; returns legend handles."""
    low, high = axes.get_xlim()
    handles: list[Artist] = []
    for lower, upper in RANGES_NM["water_vapour"]:
        if lower < high and upper > low:
            axes.axvspan(max(lower, low), min(upper, high), fc="none", ec="#9A9A9A", hatch="/////", lw=0, zorder=1)
            handles = [Patch(fc="white", ec="#9A9A9A", hatch="/////", lw=0, label="water vapour, strong")]
    weak = [at for at in _WEAK_WATER_VAPOUR_NM if low < at < high]
    lines = [axes.axvline(at, color="#606060", lw=0.7, ls=":", zorder=1.5, label="water vapour, weak") for at in weak]
    return handles + lines[:1]


def _weight_axes(
    figure: Figure,
    nm: NDArray[np.float64],
    *,
    title: str,
    spread: WeightSpread | None,
    importance: Mapping[str, Any] | None,
) -> tuple[Axes, float]:
    """Axes for the curve, above those of importance and of the selection frequency, and the height of these."""
    heights = [_AXES_HEIGHT_IN]
    heights += [_IMPORTANCE_HEIGHT_IN] * (importance is not None) + [_STRIP_HEIGHT_IN] * (spread is not None)
    axes, *below = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    if importance is not None:
        _draw_importance(below[0], importance)
    if spread is not None:
        x, y = broken_at_gaps(nm, spread.frequency)
        below[-1].fill_between(x, 0, y, color=Color.BLUE, alpha=0.35, lw=0)
        below[-1].plot(x, y, color=Color.BLUE, lw=0.8, marker=".", ms=2)
        below[-1].set(ylim=(0, 1.05), yticks=(0, 0.5, 1), yticklabels=("0", "50", "100"))
        below[-1].set_ylabel("selected\n(% of runs)", fontsize=SMALL_PT)
        below[-1].spines[["top", "right"]].set_visible(False)
    axes.set_title(title, wrap=True)
    set_spectral_limits(axes, nm)
    [axes, *below][-1].set_xlabel("wavelength (nm)")
    axes.set_ylabel("band weight (% of the total)")
    axes.yaxis.set_major_formatter(PERCENT)
    return axes, sum(heights[1:])


def _draw_importance(axes: Axes, importance: Mapping[str, Any]) -> None:
    """Draws what is lost without each window: bars for the data, points for the network, two standard errors each."""
    names = ("lower_nm", "upper_nm", "data", "data_error", "network", "network_error")
    lower, upper, data, data_error, network, network_error = (np.asarray(importance[name], float) for name in names)
    middle, width = (lower + upper) / 2, np.maximum(upper - lower, 10.0)
    axes.bar(middle, data, width, color=Color.SKY_BLUE, alpha=0.7, label="a discriminant trained without the window")
    look: Any = {"fmt": "none", "elinewidth": 0.8}
    axes.errorbar(middle - width / 8, data, 2 * data_error, ecolor=Color.BLUE, **look)
    axes.errorbar(middle + width / 8, network, 2 * network_error, ecolor=Color.VERMILION, **look)
    label = "this network, with what the other bands cannot predict exchanged"
    axes.plot(middle + width / 8, network, ".", color=Color.VERMILION, ms=4, label=label)
    axes.axhline(0, color="#404040", lw=0.6)
    axes.axhline(_MATTERS, color=Color.GREY, lw=0.7, ls="--")
    axes.set_ylabel("lost without it\n(nats)", fontsize=SMALL_PT)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.02), max(1.35 * high, 2.5 * _MATTERS))
    axes.legend(loc="upper left", ncols=2, fontsize=SMALL_PT, borderaxespad=0.1)


def _leave_room(axes: Axes, curves: Sequence[ArrayLike], *, taken: float) -> None:
    """Ends the curves below the group labels, which take that share of the height."""
    values = np.concatenate(curves) if curves else np.ones(1)
    highest = float(np.max(values, where=np.isfinite(values), initial=1e-12))
    axes.set_ylim(0, highest / (1 - taken) * 1.03)


def _draw_weights(
    axes: Axes,
    nm: NDArray[np.float64],
    *,
    weights: NDArray[np.float64],
    spread: WeightSpread | None,
    contrast: ArrayLike | None = None,
) -> list[Artist]:
    """Draws the curve, its envelope and the part that is subtracted; returns their legend handles."""
    x, y = broken_at_gaps(nm, weights)
    size = 1.4 if nm.size > 60 else 3.0  # a band between two gaps shows by its marker alone
    name = "band weight" if spread is None else "band weight, median of the runs"
    curve = axes.plot(x, y, color=Color.BLACK, lw=1.4, marker="o", ms=size, label=name, zorder=_CURVE_LEVEL + 1)
    handles: list[Artist] = [*curve]
    if spread is not None:
        low, high = (broken_at_gaps(nm, edge)[1] for edge in (spread.lower, spread.upper))
        look = {"color": Color.BLUE, "alpha": 0.3, "lw": 0, "zorder": _CURVE_LEVEL}
        handles.append(axes.fill_between(x, low, high, label="quartiles", **look))
    else:
        axes.fill_between(x, 0, y, color=Color.SKY_BLUE, alpha=0.35, lw=0, zorder=_CURVE_LEVEL)
    if contrast is not None:
        part = broken_at_gaps(nm, weights * np.asarray(contrast, float))[1]
        look = {"color": Color.ORANGE, "alpha": 0.75, "lw": 0, "zorder": _CURVE_LEVEL + 0.5}
        handles.append(axes.fill_between(x, 0, part, label="subtracted from other bands (contrast)", **look))
    return handles


def _draw_untrained(axes: Axes, nm: NDArray[np.float64], untrained: ArrayLike | None) -> Artist:
    """Draws what the weights are compared with; returns its legend handle."""
    look = {"color": Color.VERMILION, "lw": 1, "ls": "--", "zorder": 4}
    if untrained is None:
        return axes.axhline(1 / nm.size, label="uniform weight 1/C", **look)
    (line,) = axes.plot(*broken_at_gaps(nm, untrained), label="untrained networks", **look)
    return line


def _draw_spectra(
    axes: Axes, nm: NDArray[np.float64], spectra: Mapping[str, tuple[ArrayLike, str]]
) -> tuple[Axes, list[Artist]]:
    """Draws thin lines into axes behind the ones for the weights; returns these axes and legend handles."""
    behind = axes.twinx()
    behind.set_zorder(axes.get_zorder() - 1)
    axes.patch.set_visible(False)
    behind.set_ylabel("class mean spectrum (scene's unit)", color="#505050")
    behind.tick_params(axis="y", colors="#505050")
    handles: list[Artist] = []
    for name, (spectrum, color) in spectra.items():
        look = {"color": color, "marker": "." if nm.size <= 60 else "", "ms": 2}
        handles += behind.plot(*broken_at_gaps(nm, spectrum), lw=0.7, zorder=2, label=name, **look)
    return behind, handles


def _shade_groups(
    background: Axes,
    axes: Axes,
    *,
    nm: NDArray[np.float64],
    totals: Mapping[str, float],
    groups: Sequence[tuple[str, float, float]],
) -> float:
    """Shades each group that holds a band and writes its name and total; returns the share of the height that takes."""
    low, high = axes.get_xlim()
    tallest_in = 0.0
    drawn = sorted((g for g in groups if ((nm >= g[1]) & (nm < g[2])).any()), key=lambda group: group[1])
    for i, (name, lower, upper) in enumerate(drawn):
        total = f"{100 * totals[name]:.1f} %"
        left, right = max(lower, low), min(upper, high)
        background.axvspan(left, right, color="#E2E2E2" if i % 2 else "#F1F1F1", lw=0, zorder=0)
        width_in = (right - left) / (high - low) * _AXES_WIDTH_IN
        wide = max(text_width_in(line, size_pt=SMALL_PT) for line in (name, total)) + 0.03 < width_in
        size = SMALL_PT if wide else min(SMALL_PT, max(4.0, width_in * 72 / 2.4))  # two lines of 1.2 times the size
        height_in = 2.4 * size / 72 if wide else max(text_width_in(line, size_pt=size) for line in (name, total))
        tallest_in = max(tallest_in, height_in + 0.12)
        look = {"fontsize": size, "rotation": 0 if wide else 90, "zorder": _TEXT_LEVEL, "gid": f"group:{name}"}
        place = {"ha": "center", "va": "top", "multialignment": "center", "xycoords": axes.get_xaxis_transform()}
        at = ((left + right) / 2, 1.0)
        axes.annotate(f"{name}\n{total}", at, (0, -3), textcoords="offset points", **place, **look)
    return min(tallest_in / _AXES_HEIGHT_IN, 0.5)


def _stamp(axes: Axes, text: str) -> None:
    """Writes large pale letters behind the curve, where they cannot be cropped away and hide no value."""
    size = min(34.0, 100 * _AXES_WIDTH_IN * 0.75 / text_width_in(text, size_pt=100))
    look = {"color": Color.VERMILION, "alpha": 0.4, "fontsize": size, "fontweight": "bold", "rotation": 8}
    place = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.4, text, zorder=_STAMP_LEVEL, **place, **look)


@rc_context(STYLE)
def group_weights_figure(
    weights: ArrayLike, *, group_names: Sequence[str], channel_share: ArrayLike, title: str
) -> Figure:
    """Draws the group weights (G, M) as a matrix, channels by falling share (M,) in what the network takes in."""
    share = np.asarray(channel_share, float)
    order = np.argsort(-share, kind="stable")
    matrix = np.asarray(weights, float)[:, order]  # (G, M)
    height_in = 0.3 * max(len(group_names), 3)
    figure = titled_figure(PAGE_WIDTH_IN, height_in + 1.7, title=title)
    bars, cells = figure.subplots(2, 1, sharex=True, height_ratios=[0.55, height_in])
    bars.bar(np.arange(share.size), share[order], width=0.8, color=Color.BLUE)
    bars.axhline(1 / share.size, color=Color.VERMILION, lw=0.8, ls="--")
    bars.set_ylabel("share")
    bars.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    bars.spines[["top", "right"]].set_visible(False)
    bars.tick_params(axis="x", bottom=False, labelbottom=False)
    limit = float(np.abs(matrix).max()) or 1.0
    image = cells.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    cells.set_yticks(range(len(group_names)), list(group_names))
    every = -(-order.size // 40)
    cells.set_xticks(range(0, order.size, every), [str(m + 1) for m in order[::every]])
    figure.colorbar(image, ax=cells, label="group weight", pad=0.01, fraction=0.05)
    cells.set_xlabel("fused channel, by falling share (dashed: equal share)")
    if text_width_in("−0.00", size_pt=_VALUE_PT) < _MATRIX_WIDTH_IN / share.size:
        for (row, column), value in np.ndenumerate(matrix):
            color = "white" if abs(value) > 0.6 * limit else "black"
            text = f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
            cells.text(column, row, text, ha="center", va="center", fontsize=_VALUE_PT, color=color)
    return figure
