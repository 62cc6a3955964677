"""Class maps, split maps and colour composites."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from hsfusion.plots.style import BLUE, ORANGE, PAGE_WIDTH_IN, SMALL_PT, STYLE, UNLABELLED, YELLOW, legend_columns

# Apart in grey print as well: relative luminance falls in steps from unused to buffer.
SPLIT_ROLES = (
    ("unused", UNLABELLED),
    ("training", BLUE),
    ("validation", YELLOW),
    ("test", ORANGE),
    ("buffer", "#303030"),
)
_PANELS = ("colour composite", "ground truth", "prediction")
_MOST_PIXELS = 1600  # along a side; a printed panel shows fewer


def composite(cube_bands: ArrayLike) -> NDArray[np.float64]:
    """Stretches three bands to a colour composite, each from its 2nd to its 98th percentile.

    Args:
        cube_bands: (3, H, W) red, green and blue in any unit, NaN = nodata.

    Returns:
        (H, W, 3) in 0..1; white where any of the three is NaN, 0 throughout a constant band.
    """
    bands = np.asarray(cube_bands, float)
    valid = np.isfinite(bands).all(axis=0)  # (H, W)
    image = np.ones((*valid.shape, 3))
    if not valid.any():
        return image
    pixels = bands[:, valid]  # (3, N)
    low, high = np.percentile(pixels, (2, 98), axis=1, keepdims=True)
    image[valid] = np.clip((pixels - low) / np.where(high > low, high - low, np.inf), 0, 1).T
    return image


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
    """Draws composite, ground truth and prediction side by side over one legend.

    Args:
        rgb: (H, W, 3) in 0..1.
        truth: (H, W) class codes, 0 = unlabelled.
        prediction: (H, W) class codes, 0 = not predicted.
        codes: the K class codes, with their ...
        names: ... K names and ...
        colors: ... K hex colours.
        title: stands above the panels.

    Raises:
        ValueError: if the maps differ in shape or hold a code that is not in ``codes``.
    """
    step = -(-max(np.shape(truth)) // _MOST_PIXELS)
    image, true, predicted = (np.asarray(layer)[::step, ::step] for layer in (rgb, truth, prediction))
    if not image.shape[:2] == true.shape == predicted.shape:
        raise ValueError(f"maps have shapes {np.shape(rgb)}, {np.shape(truth)}, {np.shape(prediction)}, expected one")
    legend = [(0, "unlabelled", UNLABELLED), *zip(codes, names, colors, strict=True)]
    columns = legend_columns([name for _, name, _ in legend])
    legend_in = 0.145 * -(-len(legend) // columns)
    panel_in = min(0.32 * PAGE_WIDTH_IN * true.shape[0] / true.shape[1], 8.0)
    figure = Figure(figsize=(PAGE_WIDTH_IN, panel_in + legend_in + 0.6), layout="compressed")
    figure.suptitle(title, x=0.01, ha="left", wrap=True)
    layers = (np.where(np.isfinite(image), image, 1.0), _colored(true, legend), _colored(predicted, legend))
    for axes, label, layer in zip(figure.subplots(1, 3), _PANELS, layers, strict=True):
        _draw_image(axes, layer)
        axes.set_title(label, loc="center", fontsize=8, fontweight="normal")
    _draw_legend(figure, [(name, color) for _, name, color in legend], columns=columns)
    return figure


@rc_context(STYLE)
def class_map_figure(
    classes: ArrayLike, *, codes: Sequence[int], names: Sequence[str], colors: Sequence[str], title: str
) -> Figure:
    """Draws a class map over its legend.

    Args:
        classes: (H, W) class codes, 0 = not classified.
        codes: the K class codes, with their ...
        names: ... K names and ...
        colors: ... K hex colours.
        title: stands above the map.

    Raises:
        ValueError: if the map holds a code that is not in ``codes``.
    """
    drawn = np.asarray(classes)
    legend = [(0, "not classified", UNLABELLED), *zip(codes, names, colors, strict=True)]
    legend = legend if (drawn == 0).any() else legend[1:]
    columns = legend_columns([name for _, name, _ in legend])
    panel_in = min(PAGE_WIDTH_IN * drawn.shape[0] / drawn.shape[1], 9.0)
    figure = Figure(figsize=(PAGE_WIDTH_IN, panel_in + 0.145 * -(-len(legend) // columns) + 0.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, wrap=True)
    _draw_image(axes, _colored(drawn, legend))
    _draw_legend(figure, [(name, color) for _, name, color in legend], columns=columns)
    return figure


@rc_context(STYLE)
def split_figure(roles: ArrayLike, *, title: str) -> Figure:
    """Draws which pixels train, select, test, and lie unused between them.

    Args:
        roles: (H, W) uint8, 0 unused, 1 training, 2 validation, 3 test, 4 buffer.
        title: stands above the map.

    Raises:
        ValueError: if another value occurs.
    """
    everything = np.asarray(roles)
    step = -(-max(everything.shape) // _MOST_PIXELS)
    legend = [(code, name, color) for code, (name, color) in enumerate(SPLIT_ROLES)]
    drawn = everything[::step, ::step]
    height_in = min(max(4.0 * drawn.shape[0] / drawn.shape[1], 1.0), 8.0)
    figure = Figure(figsize=(4.6, height_in + 0.85), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, wrap=True)
    _draw_image(axes, _colored(drawn, legend))
    counts = [int((everything == code).sum()) for code, _, _ in legend]
    entries = [(f"{name}: {n:,} px", color) for (_, name, color), n in zip(legend, counts, strict=True) if n]
    _draw_legend(figure, entries, columns=3)
    return figure


@rc_context(STYLE)
def instance_weights_figure(shares: ArrayLike, *, names: Sequence[str], title: str) -> Figure:
    """Draws where each group or source was trusted, a panel for each on one scale.

    Args:
        shares: (G, H, W) share of each group in the sum at each pixel, NaN = nodata.
        names: G names.
        title: stands above the panels.

    Raises:
        ValueError: if there is not one name for each map.
    """
    every = np.asarray(shares, float)
    if every.ndim != 3 or len(every) != len(names):
        raise ValueError(f"shares have shape {every.shape}, expected ({len(names)}, H, W)")
    step = -(-max(every.shape[1:]) // (_MOST_PIXELS // 4))
    drawn = every[:, ::step, ::step]
    columns = min(len(names), 5)
    rows = -(-len(names) // columns)
    panel_in = min(0.85 * PAGE_WIDTH_IN / columns * drawn.shape[1] / drawn.shape[2], 6.0)
    figure = Figure(figsize=(PAGE_WIDTH_IN, rows * (panel_in + 0.25) + 0.5), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", wrap=True)
    panels = figure.subplots(rows, columns, squeeze=False)
    scale = Normalize(0, float(np.max(drawn, where=np.isfinite(drawn), initial=1e-12)))
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name, layer in zip(panels.flat, names, drawn, strict=False):
        axes.imshow(layer, norm=scale, cmap="cividis", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        mean = f"{np.nanmean(layer):.1%}" if np.isfinite(layer).any() else "no data"
        axes.set_title(f"{name}: {mean}", loc="center", fontsize=SMALL_PT, fontweight="normal")
    bar = ScalarMappable(scale, "cividis")
    figure.colorbar(bar, ax=panels, format=PercentFormatter(1.0), label="share in the sum", pad=0.01, fraction=0.03)
    return figure


def _colored(codes: NDArray, legend: Sequence[tuple[int, str, str]]) -> NDArray[np.float64]:
    """Turns (H, W) class codes into (H, W, 3) colours."""
    known = np.array([code for code, _, _ in legend])
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known, codes, sorter=order), known.size - 1)
    row = order[place]  # (H, W)
    if (known[row] != codes).any():
        strange = np.unique(codes[known[row] != codes])
        raise ValueError(f"map holds the codes {strange.tolist()}, expected only {sorted(known.tolist())}")
    return np.array([to_rgb(color) for _, _, color in legend])[row]  # (H, W, 3)


def _draw_image(axes: Axes, image: NDArray[np.float64]) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_legend(figure: Figure, entries: Sequence[tuple[str, str]], *, columns: int) -> None:
    handles = [Patch(facecolor=color, edgecolor="#606060", lw=0.4, label=name) for name, color in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=1.2, columnspacing=1.2)
