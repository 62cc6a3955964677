"""Band weights of several runs: group by group, and channel by channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from hsfusion.plots.style import BLACK, BLUE, GREY, PAGE_WIDTH_IN, SKY_BLUE, STYLE, VERMILION
from hsfusion.plots.weights import broken_at_gaps

_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g}")
_COLUMNS = 4
_SHOWN_RUNS, _SHOWN_CHANNELS = 6, 3
# of the channels by falling share; the line tells them apart in grey
_LOOKS = ((BLACK, "-"), (VERMILION, "--"), (BLUE, ":"))


@rc_context(STYLE)
def group_profiles_figure(
    wavelength_nm: ArrayLike,
    weight: ArrayLike,
    *,
    runs: ArrayLike,
    groups: Sequence[tuple[str, float, float]],
    spread: tuple[ArrayLike, ArrayLike] | None,
    title: str,
) -> Figure:
    """Draws the weights inside each band group in a panel of its own, all with one scale.

    Args:
        wavelength_nm: (C,) centre wavelengths in nm, in any order.
        weight: (C,) what is reported.
        runs: (R, C) the weights of each run; what they give a group, median and quartiles, is in the panel's title.
        groups: (name, lower_nm, upper_nm) of each, half-open, with one band at least.
        spread: (C,) lower and upper quartiles over runs; None for one run.
        title: stands above the figure.
    """
    nm, reported, profiles = (np.asarray(values, float) for values in (wavelength_nm, weight, runs))
    edges = None if spread is None else tuple(np.asarray(edge, float) for edge in spread)
    columns = min(_COLUMNS, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(PAGE_WIDTH_IN, 1.25 * rows + 0.7), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", wrap=True)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, (name, lower, upper) in zip(panels, groups, strict=False):
        inside = (nm >= lower) & (nm < upper)
        _draw_group(axes, nm[inside], reported[inside], None if edges is None else [edge[inside] for edge in edges])
        low, middle, high = np.quantile(profiles[:, inside].sum(1), [0.25, 0.5, 0.75])
        told = f"{100 * middle:.1f} %"
        told += f" (runs {100 * low:.1f}–{100 * high:.1f})" if len(profiles) > 1 else ""
        axes.set_title(f"{name}\n{told}", fontsize=6.5, fontweight="normal")
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    panels[0].set_ylim(bottom=0)
    note = "; in brackets: quartiles of what the runs give the group" if len(profiles) > 1 else ""
    figure.supxlabel(f"wavelength (nm){note}", fontsize=8)
    figure.supylabel("band weight (% of the total)", fontsize=8)
    return figure


def _draw_group(
    axes: Axes, nm: NDArray[np.float64], weight: NDArray[np.float64], spread: Sequence[NDArray[np.float64]] | None
) -> None:
    x, y = broken_at_gaps(nm, weight)
    if spread is not None:
        low, high = (broken_at_gaps(nm, edge)[1] for edge in spread)
        axes.fill_between(x, low, high, color=SKY_BLUE, alpha=0.5, lw=0)
    axes.plot(x, y, color=BLACK, marker="o", ms=1.6, lw=1.1)
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.spines[["top", "right"]].set_visible(False)


@rc_context(STYLE)
def channels_figure(
    wavelength_nm: ArrayLike, channels: Sequence[tuple[ArrayLike, ArrayLike]], *, names: Sequence[str], title: str
) -> Figure:
    """Draws what the fused channels of each run are made of.

    Channels have no order that runs share: the first of one run is not the first of another, and no mean over runs is
    drawn for any of them. Their sorted shares can be compared, and the spread over all channels of all runs.

    Args:
        wavelength_nm: (C,) centre wavelengths in nm, in any order.
        channels: for each of R runs the share (M,) of its channels, falling, and their band weights (M, C).
        names: R names of the runs.
        title: stands above the figure.
    """
    nm = np.asarray(wavelength_nm, float)
    runs = [(np.asarray(share, float), np.asarray(weight, float)) for share, weight in channels]
    shown = min(len(runs), _SHOWN_RUNS)
    figure = Figure(figsize=(PAGE_WIDTH_IN, 2.4 + 1.05 * shown), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", wrap=True)
    halves: Any = figure.subfigures(2, 1, height_ratios=[2.0, 0.3 + 1.05 * shown])
    top, below = halves
    left, right = top.subplots(1, 2, width_ratios=[1, 1.6])
    _draw_shares(left, [share for share, _ in runs])
    _draw_pooled(right, nm, np.concatenate([weight for _, weight in runs]))
    for axes, (share, weight), name in zip(
        below.subplots(shown, 1, sharex=True, squeeze=False).flat, runs, names, strict=False
    ):
        for m, (color, line) in zip(range(len(share)), _LOOKS, strict=False):
            axes.plot(*broken_at_gaps(nm, weight[m]), color=color, ls=line, lw=1, label=f"{100 * share[m]:.1f} %")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="share", title_fontsize=6.5)
        axes.set_title(name, fontsize=6.5, fontweight="normal", pad=2)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.spines[["top", "right"]].set_visible(False)
    part = "" if shown == len(runs) else f", first {shown} of {len(runs)} runs"
    below.supxlabel(f"wavelength (nm); the {_SHOWN_CHANNELS} most used channels of each run{part}", fontsize=8)
    below.supylabel("weight (%)", fontsize=8)
    return figure


def _draw_shares(axes: Axes, shares: Sequence[NDArray[np.float64]]) -> None:
    for share in shares:
        axes.plot(np.arange(1, share.size + 1), share, color=GREY if len(shares) > 1 else BLACK, lw=0.6)
    most = min(share.size for share in shares)
    if len(shares) > 1:
        median = np.median([share[:most] for share in shares], axis=0)
        axes.plot(np.arange(1, most + 1), median, color=BLACK, lw=1.4, label="median of the runs (grey)")
    axes.axhline(1 / most, color=VERMILION, lw=0.8, ls="--", label="equal share")
    axes.set(xlabel="channel of a run, by falling share", ylabel="share (%)", ylim=(0, None))
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right")


def _draw_pooled(axes: Axes, nm: NDArray[np.float64], weight: NDArray[np.float64]) -> None:
    """Quartiles of the weight of each band over channels (channels of all runs, C), which need no order."""
    levels = np.quantile(weight, [0.25, 0.5, 0.75, 0.95], axis=0)
    x = broken_at_gaps(nm, levels[0])[0]
    low, middle, high, most = (broken_at_gaps(nm, level)[1] for level in levels)
    axes.fill_between(x, low, high, color=SKY_BLUE, alpha=0.5, lw=0, label="quartiles")
    axes.plot(x, middle, color=BLACK, lw=1.2, label="median")
    axes.plot(x, most, color=VERMILION, lw=0.8, ls="--", label="95 % of the channels below")
    axes.set(xlabel="wavelength (nm)", ylabel="weight in a channel (%)", ylim=(0, None))
    axes.set_title(f"all {len(weight)} channels", fontsize=6.5, fontweight="normal", loc="right")
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1, borderaxespad=0.1)
