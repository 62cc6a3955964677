"""Figures of a run, drawn before its report shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import plots
from hsfusion.cli.report_page import legend_codes, run_page, shown_composite
from hsfusion.cli.session import Experiment, Outcome
from hsfusion.data.splits import TRAIN
from hsfusion.scenes.scene import read_pixels
from hsfusion.spectra import BandWeights

_MOST_PIXELS = 5000  # of a class, whose mean spectrum is drawn


def write_figures(
    configuration: dict[str, Any],
    experiment: Experiment,
    outcome: Outcome,
    *,
    weights: BandWeights,
    metrics: dict[str, Any],
    known: dict[str, Any],
    folder: Path,
) -> None:
    """Draws the figures of a run and writes report.html."""
    labelled = experiment.split.labelled
    fusion = experiment.network.fusion.kind
    run = f"{labelled.scene.name}, {fusion} fusion, {metrics['split']['kind']} split, seed {configuration['seed']}"
    figures = {
        **_weight_figures(
            experiment,
            outcome,
            weights,
            run,
            stamp=None if known["beats_chance"] and fusion != "free" else "no evidence",
        ),
        **_map_figures(experiment, outcome, run),
        "training": plots.training_figure(outcome.history, best_step=outcome.best_step),
    }
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / "figures" / stem)
    page = run_page(configuration, experiment, outcome, weights=weights, metrics=metrics, known=known, folder=folder)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _weight_figures(
    experiment: Experiment, outcome: Outcome, weights: BandWeights, run: str, *, stamp: str | None
) -> dict[str, Any]:
    legend, learned = experiment.split.labelled.legend, outcome.weights
    free = experiment.network.fusion.kind == "free"
    sources = experiment.split.labelled.scene.sources
    names = ["all"] if free else [*(group.name for group in experiment.start.groups), *(name for name, _ in sources)]
    steps, history = outcome.weight_history
    limits = [] if free else [(group.name, group.lower_nm, group.upper_nm) for group in experiment.start.groups]
    figures = {
        "band_weights": plots.band_weights_figure(
            weights.bands.wavelength_nm,
            weights.weight,
            groups=limits,
            spectra=_class_spectra(experiment),
            colors=dict(zip(legend.names, legend.colors, strict=True)),
            title=f"Band weights: {run}",
            stamp=stamp,
            sources={name: total for name, total in weights.group_totals().items() if name in dict(sources)},
        ),
        "weight_history": plots.weight_history_figure(
            weights.bands.wavelength_nm,
            steps,
            history[:, : len(weights.bands)],
            title=f"Weights during training: {run}",
            best_step=outcome.best_step,
        ),
        "group_weights": plots.group_weights_figure(
            learned.group_weights,
            group_names=names,
            channel_share=learned.channel_share,
            title=f"Group weights: {run}",
        ),
    }
    if outcome.instance_maps is not None:
        figures["instance_weights"] = plots.instance_weights_figure(
            outcome.instance_maps, names=names, title=f"Where each group counted: {run}"
        )
    return figures


def _map_figures(experiment: Experiment, outcome: Outcome, run: str) -> dict[str, Any]:
    labelled = experiment.split.labelled
    legend = labelled.legend
    return {
        "map": plots.map_figure(
            shown_composite(labelled.scene),
            labelled.labels,
            legend_codes(legend, outcome.classes),
            codes=legend.codes,
            names=legend.names,
            colors=legend.colors,
            title=run,
        ),
        "split": plots.split_figure(experiment.split.roles, title=f"Split: {run}"),
        "confusion": plots.confusion_figure(outcome.confusion, names=legend.names, title=f"Test pixels: {run}"),
    }


def _class_spectra(experiment: Experiment) -> dict[str, NDArray[np.float64]]:
    """Mean spectrum (C,) of training pixels of each class, of at most 5,000 evenly spread over their list."""
    labelled, train = experiment.split.labelled, experiment.split.pixels(TRAIN)
    scene, codes = labelled.scene, labelled.labels.ravel()[train]
    spectra = {}
    for code, name in zip(labelled.legend.codes, labelled.legend.names, strict=True):
        pixels = train[codes == code]
        shown = pixels[:: max(1, -(-len(pixels) // _MOST_PIXELS))]  # a class need not occur in each of several scenes
        values = read_pixels(scene, shown, np.arange(len(scene.bands))).T.astype(np.float64, order="C")  # (C, N)
        finite = np.isfinite(values)
        total = np.where(finite, values, 0).sum(1)
        spectra[name] = np.where(finite.any(1), total / np.maximum(finite.sum(1), 1), np.nan)
    return spectra
