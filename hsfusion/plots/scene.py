"""Figures of a scene: class maps, split maps, colour composites, spectra, and the quality of bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from hsfusion.plots.style import PAGE_WIDTH_IN, STYLE, Color, legend_below, legend_columns, titled_figure
from hsfusion.plots.weights import broken_at_gaps, mark_water_vapour, set_spectral_limits

# Apart in grey print as well: relative luminance falls in steps from unused to buffer.
SPLIT_ROLES = (
    ("unused", Color.UNLABELLED),
    ("training", Color.BLUE),
    ("validation", Color.YELLOW),
    ("test", Color.ORANGE),
    ("buffer", "#303030"),
)
# red, green and blue in nm: true colours, and two false ones that are customary
_COMPOSITES = {
    (640.0, 550.0, 460.0): "true colours",
    (850.0, 650.0, 550.0): "false colours",
    (2200.0, 1650.0, 1050.0): "false colours",
}
_NEAR_NM = 50.0
_PANELS = ("colour composite", "ground truth", "prediction")
_AXES_HEIGHT_IN = 2.6
_PANEL_HEIGHT_IN = 1.25
MOST_PIXELS = 1600  # along a side; a printed panel shows fewer


def composite_bands(wavelength_nm: NDArray[np.float64] | None, good: ArrayLike) -> tuple[list[int], str]:
    """Chooses good bands (C,) for red, green and blue, and returns them with a title for the picture."""
    usable = np.flatnonzero(good)
    if wavelength_nm is None:
        three = [int(usable[i * (usable.size - 1) // 4]) for i in (3, 2, 1)]
        return three, f"bands {', '.join(str(c + 1) for c in three)}, wavelengths not known"
    usable = usable[np.argsort(wavelength_nm[usable], kind="stable")]
    three, colours = [int(usable[i * (usable.size - 1) // 4]) for i in (3, 2, 1)], "false colours"
    for centres, name in _COMPOSITES.items():
        distance = np.abs(wavelength_nm[usable] - np.array(centres)[:, None])  # (3, C')
        if distance.min(1).max() <= _NEAR_NM:
            three, colours = usable[distance.argmin(1)].tolist(), name
            break
    return three, f"{colours}, {', '.join(f'{wavelength_nm[c]:.0f}' for c in three)} nm"


def composite(cube_bands: ArrayLike) -> NDArray[np.float64]:
    """Stretches red, green and blue (3, H, W), each from its 2nd to its 98th percentile, to (H, W, 3) in 0..1.

    White where any of the three is NaN, 0 throughout a constant band.
    """
    bands = np.asarray(cube_bands, float)
    valid = np.isfinite(bands).all(axis=0)  # (H, W)
    image = np.ones((*valid.shape, 3))
    if valid.any():
        pixels = bands[:, valid]  # (3, N)
        low, high = np.percentile(pixels, (2, 98), axis=1, keepdims=True)
        image[valid] = np.clip((pixels - low) / np.where(high > low, high - low, np.inf), 0, 1).T
    return image


@rc_context(STYLE)
def composite_figure(rgb: ArrayLike, *, title: str) -> Figure:
    """Draws a colour composite (H, W, 3) in 0..1."""
    return _one_map(np.asarray(rgb, float), title=title, width_in=4.6)


@rc_context(STYLE)
def map_figure(
    rgb: ArrayLike,
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    codes: Sequence[int],
    names: Sequence[str],
    colors: Sequence[str],
    title: str,
) -> Figure:
    """Draws composite (H, W, 3), ground truth and prediction (H, W) side by side over one legend.

    The maps hold K class codes, whose names and hex colours follow, and 0 for unlabelled or not predicted.
    """
    image, true, predicted = (np.asarray(layer) for layer in (rgb, truth, prediction))
    legend = [(0, "unlabelled", Color.UNLABELLED), *zip(codes, names, colors, strict=True)]
    panel_in = min(0.32 * PAGE_WIDTH_IN * true.shape[0] / true.shape[1], 8.0)
    figure = titled_figure(PAGE_WIDTH_IN, panel_in + 0.6, title=title, layout="compressed")
    layers = (np.where(np.isfinite(image), image, 1.0), _colored(true, legend), _colored(predicted, legend))
    for axes, label, layer in zip(figure.subplots(1, 3), _PANELS, layers, strict=True):
        _draw_image(axes, layer)
        axes.set_title(label, loc="center", fontsize=8, fontweight="normal")
    _draw_legend(figure, [(name, color) for _, name, color in legend])
    return figure


@rc_context(STYLE)
def class_map_figure(
    classes: ArrayLike, *, codes: Sequence[int], names: Sequence[str], colors: Sequence[str], title: str
) -> Figure:
    """Draws a class map (H, W), 0 = not classified, over the legend of K codes, names and hex colours."""
    drawn = np.asarray(classes)
    legend = [(0, "not classified", Color.UNLABELLED), *zip(codes, names, colors, strict=True)]
    entries = [(name, color) for code, name, color in legend if code or (drawn == 0).any()]
    return _one_map(_colored(drawn, legend), title=title, width_in=PAGE_WIDTH_IN, entries=entries)


@rc_context(STYLE)
def split_figure(roles: ArrayLike, *, title: str) -> Figure:
    """Draws which pixels (H, W) are 0 unused, 1 training, 2 validation, 3 test, 4 buffer."""
    everything = np.asarray(roles)
    step = -(-max(everything.shape) // MOST_PIXELS)
    image = np.array([to_rgb(color) for _, color in SPLIT_ROLES])[everything[::step, ::step]]
    counts = np.bincount(everything.ravel(), minlength=len(SPLIT_ROLES))
    entries = [(f"{name}: {n:,} px", color) for (name, color), n in zip(SPLIT_ROLES, counts, strict=True) if n]
    return _one_map(image, title=title, width_in=4.6, entries=entries)


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


def _colored(codes: NDArray, legend: Sequence[tuple[int, str, str]]) -> NDArray[np.float64]:
    """Turns (H, W) class codes into (H, W, 3) colours."""
    rows = {code: row for row, (code, _, _) in enumerate(legend)}
    present, place = np.unique(codes, return_inverse=True)
    palette = np.array([to_rgb(color) for _, _, color in legend])
    return palette[[rows[code] for code in present.tolist()]][place].reshape(*codes.shape, 3)


def _one_map(
    image: NDArray[np.float64], *, title: str, width_in: float, entries: Sequence[tuple[str, str]] = ()
) -> Figure:
    """Draws an image (H, W, 3) over its legend."""
    height_in = min(max(width_in * image.shape[0] / image.shape[1], 1.0), 9.0)
    figure = titled_figure(width_in, height_in + 0.6, title=title)
    _draw_image(figure.add_subplot(), image)
    _draw_legend(figure, entries)
    return figure


def _draw_image(axes: Axes, image: NDArray[np.float64]) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def _draw_legend(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    """Puts the legend, if it has entries, under the map and makes the figure as much higher."""
    columns = legend_columns([name for name, _ in entries], width_in=figure.get_figwidth())
    handles = [Patch(facecolor=color, edgecolor="#606060", lw=0.4, label=name) for name, color in entries]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=1.2, columnspacing=1.2)
    figure.set_figheight(figure.get_figheight() + 0.145 * -(-len(entries) // columns))


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
