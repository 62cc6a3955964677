"""The sample of the documentation: five trainings on Indian Pines, and their output.

python scripts/sample.py regenerates docs/sample/ and docs/images/indian_pines.png in about five minutes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorly.datasets
from matplotlib import rc_context
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

import hsfusion as hs
from hsfusion import plots
from hsfusion.plots.style import STYLE, Color
from hsfusion.plots.weights import broken_at_gaps, mark_water_vapour

ROOT = Path(__file__).parents[1]
SAMPLE, PICTURE = ROOT / "docs" / "sample", ROOT / "docs" / "images" / "indian_pines.png"
CUBE = Path(tensorly.datasets.__file__).with_name("data") / "Indian_pines_corrected.npy"
CHOICE = ROOT / "docs" / "results" / "band_choice_indian_pines_2026-11-30.json"


def sample(folder: Path) -> None:
    """Trains in a folder, and copies what the documentation shows."""

    def hsfusion(*words: str | Path) -> None:
        subprocess.run([sys.executable, "-m", "hsfusion", *map(str, words)], cwd=folder, check=True)

    hsfusion("train", "--multirun", "seed=0,1,2,3,4", "name=sample", "threads=1", "progress=false")
    runs = sorted(folder.glob("runs/sample/*/"))  # by date, which is by seed
    hsfusion("predict", f"run={runs[0]}", "scene=indian_pines", "out=map.tif", "threads=1")
    hsfusion("weights", *runs, "out=weights")
    hsfusion("inspect", CUBE, f"wavelengths={ROOT / 'hsfusion/data/indian_pines_bands.csv'}", "--plot", "inspect")
    figures = [
        runs[0] / "figures" / f"{stem}.svg" for stem in ("map", "split", "confusion", "group_weights", "training")
    ]
    figures += [folder / "weights" / "band_weights.svg", folder / "inspect" / "band_quality.svg"]
    for path in (runs[0] / "report.html", folder / "map.html", *figures):
        shutil.copy(path, SAMPLE)
    plots.save_figure(few_bands(), SAMPLE / "few_bands")
    (SAMPLE / "few_bands.png").unlink()
    with rc_context(STYLE):
        picture(runs).savefig(PICTURE, metadata={"Software": None})


def few_bands() -> Figure:
    """Accuracies of trainings on few bands, as docs/results holds them."""
    (of,) = json.loads(CHOICE.read_text(encoding="utf-8"))["runs"]
    title = "Retrained on k bands: Indian Pines, five splits"
    return plots.top_k_figure((5, 10, 20, 30), {"blocks": of["blocks"]}, full={}, smallest={}, title=title)


def picture(folders: list[Path]) -> Figure:
    """The maps of the first run on Indian Pines, and the weights of all."""
    run, weights = hs.load_run(folders[0]), hs.compare(folders)
    assert weights.spread is not None, "it takes several runs"
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
    SAMPLE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        sample(Path(made))
