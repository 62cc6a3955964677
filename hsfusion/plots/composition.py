"""How band weights are made up: groups in channels, weights during training, groups and channels of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from hsfusion.plots.style import BLACK, BLUE, GREY, PAGE_WIDTH_IN, SKY_BLUE, STYLE, VERMILION, text_width_in
from hsfusion.plots.weights import broken_at_gaps

_MATRIX_WIDTH_IN = 5.6
_VALUE_PT = (7.0, 5.5)
_DECADES = 3  # of weights that the colours tell apart
_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g}")
_COLUMNS = 4
_SHOWN_RUNS, _SHOWN_CHANNELS = 6, 3
# of the channels by falling share; the line tells them apart in grey
_LOOKS = ((BLACK, "-"), (VERMILION, "--"), (BLUE, ":"))


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

    _draw_share_bars(bars, share[order])
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


def _draw_share_bars(axes: Axes, share: NDArray[np.float64]) -> None:
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


@rc_context(STYLE)
def weight_history_figure(
    wavelength_nm: ArrayLike, steps: ArrayLike, weights: ArrayLike, *, title: str, best_step: int | None = None
) -> Figure:
    """Draws the band weights over wavelength and training step as colours, on a logarithmic scale.

    Args:
        wavelength_nm: (C,) centre wavelengths in nm, in any order.
        steps: (T,) ascending optimizer steps.
        weights: (T, C) band weights at each of them, non-negative.
        title: stands above the figure.
        best_step: step whose weights were kept, or None.

    Raises:
        ValueError: if the weights are not (T, C).
    """
    nm, at, values = np.asarray(wavelength_nm, float), np.asarray(steps, float), np.asarray(weights, float)
    if values.shape != (at.size, nm.size):
        raise ValueError(f"weights have shape {values.shape}, expected (steps, bands) {(at.size, nm.size)}")
    figure = Figure(figsize=(PAGE_WIDTH_IN, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, wrap=True)
    axes.set(xlabel="wavelength (nm)", ylabel="step")
    if not at.size:
        axes.text(0.5, 0.5, "no epoch was finished", transform=axes.transAxes, ha="center")
        return figure
    _draw_history(figure, axes, nm=nm, steps=at, values=values)
    if best_step is not None:
        axes.axhline(best_step, color=BLACK, lw=0.8, ls=(0, (1, 2)))
        axes.annotate(
            f"kept: step {best_step}",
            (1, best_step),
            (-2, -2),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="top",
            textcoords="offset points",
            fontsize=6.5,
            bbox={"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.5},
        )
    return figure


def _draw_history(
    figure: Figure, axes: Axes, *, nm: NDArray[np.float64], steps: NDArray[np.float64], values: NDArray[np.float64]
) -> None:
    rows = np.stack([broken_at_gaps(nm, row)[1] for row in values])  # (T, C and gaps)
    x = _distinct(broken_at_gaps(nm, nm)[0])
    highest = float(np.max(values, where=np.isfinite(values), initial=0)) or 1.0
    lowest = highest / 10**_DECADES
    norm = LogNorm(lowest, highest)
    shown = np.ma.masked_invalid(np.maximum(rows, lowest))
    mesh = axes.pcolormesh(_edges(x), _edges(steps), shown, norm=norm, cmap="cividis", rasterized=True)
    bar = figure.colorbar(mesh, ax=axes, pad=0.01, extend="min", format=PercentFormatter(1.0))
    bar.set_label("band weight")


def _distinct(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moves equal wavelengths apart by so little that nobody sees it: a mesh wants them ascending."""
    return x + np.arange(x.size) * 1e-9 * max(float(np.ptp(x)), 1.0)


def _edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    if centres.size == 1:
        return centres[0] + np.array([-0.5, 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


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
