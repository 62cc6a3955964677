"""Line charts as inline SVG that stretch with the page and take its colours, light or dark."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

_SIDE = 1000  # units of the stretched drawing area, either way


@dataclass(frozen=True)
class Axes:
    """What a chart shows.

    Attributes:
        x: lowest and highest value across.
        y: lowest and highest value upwards.
        x_label: quantity and unit across.
        y_label: quantity and unit upwards.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str

    def across(self, value: float) -> float:
        """Place of a value from the left, in percent."""
        return 100 * (value - self.x[0]) / (self.x[1] - self.x[0])

    def upwards(self, value: float) -> float:
        """Place of a value from the top, in percent."""
        return 100 - 100 * (value - self.y[0]) / (self.y[1] - self.y[0])


def chart(axes: Axes, alternative: str, *, behind: str = "", curves: str = "", before: str = "") -> str:
    """A chart as SVG.

    Args:
        axes: what it shows.
        alternative: text in place of the picture.
        behind: SVG below the curves, placed in percent.
        curves: paths of :func:`curve` and :func:`area`.
        before: SVG above the curves, placed in percent.
    """
    return (
        f'<svg class="plot" role="img" aria-label="{escape(alternative)}">{behind}{_ticks(axes)}'
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" preserveAspectRatio="none" width="100%" height="100%">{curves}</svg>'
        f'<rect class="frame" width="100%" height="100%"/>{before}</svg>'
    )


def curve(axes: Axes, x: ArrayLike, y: ArrayLike, *, css: str) -> str:
    """A line through points, broken where a value is NaN; a lone point is a dot."""
    across, up = _places(axes, x, y)
    return f'<path class="{css}" d="{_runs(across, up)}"/>'


def area(axes: Axes, x: ArrayLike, lower: ArrayLike, upper: ArrayLike, *, css: str) -> str:
    """The area between two lines, broken where one is NaN."""
    across, low = _places(axes, x, lower)
    high = _places(axes, x, upper)[1]
    ok = np.isfinite(low) & np.isfinite(high)
    there = np.flatnonzero(ok)
    pieces = np.split(there, np.flatnonzero(np.diff(there) > 1) + 1)
    drawn = []
    for piece in (piece for piece in pieces if piece.size > 1):
        points = zip(
            np.append(across[piece], across[piece[::-1]]), np.append(high[piece], low[piece[::-1]]), strict=True
        )
        drawn.append("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points) + "Z")
    return f'<path class="{css}" stroke="none" d="{"".join(drawn)}"/>'


def key(sample: str, words: str) -> str:
    """An entry of the list below a chart: a sample, drawn on 24 by 12 units, and what it stands for."""
    return f'<li><svg viewBox="0 0 24 12" aria-hidden="true">{sample}</svg>{escape(words)}</li>'


def keys(*entries: str) -> str:
    """The list below a chart or map."""
    return f'<ul class="keys">{"".join(entries)}</ul>'


def _places(axes: Axes, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places in units of the stretched area."""
    across, up = np.asarray(x, np.float64), np.asarray(y, np.float64)
    low_x, high_x, low_y, high_y = *axes.x, *axes.y
    return _SIDE * (across - low_x) / (high_x - low_x), _SIDE * (high_y - up) / (high_y - low_y)


def _runs(across: NDArray[np.float64], up: NDArray[np.float64]) -> str:
    """Path data; every stretch without NaN is a line, and one of a single point a line without length, a dot."""
    words, down = [], False
    for a, b in zip(across, up, strict=True):
        if not np.isfinite(b):
            down = False
            continue
        words.append(f"L{a:.1f} {b:.1f}" if down else f"M{a:.1f} {b:.1f}h0")
        down = True
    return "".join(words)


def _ticks(axes: Axes) -> str:
    parts = []
    for value in _round_values(*axes.x, most=6):
        at = f"{axes.across(value):.2f}%"
        parts.append(f'<line x1="{at}" x2="{at}" y1="100%" y2="100%" transform="translate(0 5)"/>')
        parts.append(f'<text x="{at}" y="100%" dy="1.3em" text-anchor="middle">{value:g}</text>')
    for value in _round_values(*axes.y, most=6):
        at = f"{axes.upwards(value):.2f}%"
        parts.append(f'<line x1="0" x2="100%" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="0" y="{at}" dx="-.5em" dy=".35em" text-anchor="end">{value:g}</text>')
    parts.append(f'<text x="50%" y="100%" dy="2.8em" text-anchor="middle">{escape(axes.x_label)}</text>')
    # Turned about its own middle, which a percentage cannot give: a nested area stands there.
    upright = f'<text transform="rotate(-90)" text-anchor="middle" dy="-3.4em">{escape(axes.y_label)}</text>'
    parts.append(f'<svg x="0" y="50%" overflow="visible">{upright}</svg>')
    return "".join(parts)


def _round_values(low: float, high: float, *, most: int) -> list[float]:
    values = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return [float(v) for v in values if low - slack <= v <= high + slack]
