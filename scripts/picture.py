"""The picture of README and documentation: a map beside its ground truth, and band weights with their spread.

hsfusion train --multirun seed=0,1,2,3,4 name=picture threads=1; python scripts/picture.py runs/picture/*/
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

import hsfusion as hs
from hsfusion.plots.style import STYLE, Color
from hsfusion.plots.weights import broken_at_gaps, mark_water_vapour

PATH = Path(__file__).parents[1] / "docs" / "images" / "indian_pines.png"


def picture(folders: list[str]) -> Figure:
    """The maps of the first run on Indian Pines, and the weights of all."""
    run, weights = hs.load_run(folders[0]), hs.compare(folders)
    assert weights.spread is not None and weights.verdict is not None, "it takes several runs"
    figure = Figure(figsize=(8.4, 2.7), layout="constrained", dpi=160)
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 1.9])
    palette = ListedColormap([Color.UNLABELLED, *run.legend.colors])
    overall = f"map, overall accuracy {run.accuracy['overall_accuracy']:.3f}"
    for ax, codes, title in ((axes[0], hs.indian_pines().labels, "ground truth"), (axes[1], run.class_map, overall)):
        ax.imshow(codes, cmap=palette, vmin=0, vmax=len(run.legend.codes), interpolation="nearest")
        ax.set_title(title)
        ax.set_axis_off()
    nm, ax = weights.reported.bands.wavelength_nm, axes[2]
    low, high = (100 * np.asarray(side)[: nm.size] for side in (weights.spread.lower, weights.spread.upper))
    ax.fill_between(broken_at_gaps(nm, low)[0], broken_at_gaps(nm, low)[1], broken_at_gaps(nm, high)[1], alpha=0.35)
    ax.plot(*broken_at_gaps(nm, 100 * weights.reported.weight[: nm.size]), color=Color.BLACK)
    mark_water_vapour(ax)
    ax.set(xlabel="wavelength (nm)", ylabel="band weight (%)", xlim=(nm.min(), nm.max()), ylim=(0, None))
    ax.set_title(f"median and quartiles of {len(folders)} trainings: {weights.verdict.word}")
    return figure


if __name__ == "__main__":
    with rc_context(STYLE):
        picture(sys.argv[1:]).savefig(PATH, metadata={"Software": None})
