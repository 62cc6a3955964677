"""Band weights while they are learned."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from hsfusion.plots.style import BLACK, PAGE_WIDTH_IN, STYLE
from hsfusion.plots.weights import broken_at_gaps

_DECADES = 3  # of weights that the colours tell apart


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
    _draw(figure, axes, nm=nm, steps=at, values=values)
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


def _draw(
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
