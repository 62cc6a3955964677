"""The look all figures share: palette, sizes, and how a figure is saved."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter

from hsfusion.publishing import write_file

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType


class Color:
    """Okabe & Ito (2008), Color Universal Design: distinct with every common kind of colour blindness; and greys."""

    BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
    YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
    GREY, UNLABELLED = "#808080", "#F0F0F0"


PAGE_WIDTH_IN = 7.2  # two columns of a journal page
SMALL_PT = 6.5

STYLE: dict[RcKeyType, Any] = {
    "axes.edgecolor": "#404040",
    "axes.grid": False,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "figure.titlesize": 9,
    "figure.titleweight": "bold",
    # DejaVu comes with matplotlib: the same figure on every machine; a browser without it takes its own sans-serif
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "hatch.color": "#9A9A9A",
    "hatch.linewidth": 0.5,
    "legend.fontsize": SMALL_PT,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "xtick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 7,
    "ytick.major.width": 0.6,
}
_SAVING: dict[RcKeyType, Any] = {"svg.fonttype": "none", "svg.hashsalt": "hsfusion"}
_METADATA = {"png": {"Software": None}, "svg": {"Date": None}}
_DOTS_PER_INCH = 200
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g}")  # of fractions, on axes labelled with the unit


@cache
def text_width_in(text: str, *, size_pt: float) -> float:
    """How wide a line of text is drawn, in inches."""
    if not text.strip():
        return 0.0
    font = FontProperties(family=STYLE["font.family"], size=size_pt)
    return float(TextPath((0, 0), text, prop=font).get_extents().width) / 72


def legend_columns(names: Sequence[str], *, width_in: float = PAGE_WIDTH_IN) -> int:
    """The most columns, filled from top to bottom, in which a legend is no wider than the figure."""
    widths_in = [text_width_in(name, size_pt=SMALL_PT) + 0.5 for name in names]  # key and gap
    for columns in range(min(len(names), 6), 1, -1):
        if sum(max(column) for column in np.array_split(widths_in, columns)) < width_in:
            return columns
    return 1


def titled_figure(width_in: float, height_in: float, *, title: str, layout: str = "constrained") -> Figure:
    """Makes a figure with its title at the left."""
    figure = Figure(figsize=(width_in, height_in), layout=layout)  # pyright: ignore[reportArgumentType]
    figure.suptitle(title, x=0.01, ha="left", wrap=True)
    return figure


def open_frame(axes: Axes) -> None:
    """Draws horizontal grid lines, and a frame at the left and below only."""
    axes.grid(axis="y", color="#DDDDDD", lw=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, handles: Sequence[Artist], *, height_in: float) -> None:
    """Puts the legend under axes of that height and makes the figure as high as both need."""
    columns = legend_columns([str(handle.get_label()) for handle in handles])
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    figure.set_size_inches(PAGE_WIDTH_IN, height_in + 0.9 + 0.14 * -(-len(handles) // columns))


def save_figure(figure: Figure, stem: Path) -> None:
    """Writes ``<stem>.png`` (200 dpi) and ``<stem>.svg`` (text stays text).

    The folder is made if missing; a dot in the name is kept.
    """
    for kind in _METADATA:
        write_file(stem.parent / f"{stem.name}.{kind}", figure_file(figure, kind))


def figure_file(figure: Figure, kind: str) -> bytes:
    """A figure as the content of a file, ``png`` or ``svg``.

    The same figure gives byte-identical files: no date is written and the SVG's ids are salted with a constant.
    """
    content = io.BytesIO()
    # Ticks come into being when they are first drawn, so the style has to hold here too.
    with rc_context(STYLE | _SAVING):
        figure.savefig(content, format=kind, dpi=_DOTS_PER_INCH, metadata=_METADATA[kind])
    return content.getvalue()
