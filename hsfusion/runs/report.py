"""Figures and report of a run, and what a search has tried."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import plots
from hsfusion.data.splits import TRAIN
from hsfusion.plots.scene import MOST_PIXELS
from hsfusion.publishing import write_file
from hsfusion.runs.comparison import compare
from hsfusion.runs.folder import ROLES, group_members
from hsfusion.runs.run import Run, independence
from hsfusion.runs.weight_files import curve_figure, page_weights
from hsfusion.scenes.scene import read_all, read_pixels
from hsfusion.spectra import BandWeights
from hsfusion.spectra.weights import write_table
from hsfusion.trust.baselines import BASELINES
from hsfusion.trust.verdict import FREE

if TYPE_CHECKING:
    from hsfusion.runs.experiment import Experiment
    from hsfusion.runs.training import TrainingResult

_MOST_PIXELS = 5000  # of a class, whose mean spectrum is drawn


def write_figures(run: Run, folder: Path) -> None:
    """Draws the figures of a run into ``figures/`` of its folder."""
    training = run.trained
    experiment, result = training.experiment, training.result
    fusion, split = experiment.network.fusion.kind, run.metrics["split"]
    scene = experiment.split.labelled.scene.name
    title = f"{scene}, {fusion} fusion, {split['kind']} split, seed {run.metrics['seed']}"
    figures = {
        **_weight_figures(run, experiment, result, title),
        **_map_figures(experiment, result, title),
        "training": plots.training_figure(result.history, best_step=result.best_step),
    }
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / "figures" / stem)
    while result.loggers:  # once: what is written again, and other results of this training, find none
        log_outputs(result.loggers.pop(), {stem: figures[stem] for stem in ("band_weights", "map")}, run.accuracy)


def log_outputs(logger: Any, figures: dict[str, Any], accuracy: dict[str, Any]) -> None:
    """Gives a logger of Lightning that takes figures these, and accuracies on test pixels."""
    place = logger.experiment
    if not (hasattr(logger, "log_image") or hasattr(place, "log_figure") or hasattr(place, "add_figure")):
        return  # a CSV of the training beside metrics.json
    names = ("overall_accuracy", "average_accuracy", "kappa", "mean_iou")
    logger.log_metrics({f"test/{name}": accuracy[name] for name in names})
    for name, figure in figures.items():
        if hasattr(logger, "log_image"):  # Weights & Biases
            logger.log_image(name, [figure])
        elif hasattr(place, "log_figure"):  # MLflow
            place.log_figure(logger.run_id, figure, f"{name}.png")
        elif hasattr(place, "add_figure"):  # TensorBoard
            place.add_figure(name, figure, close=False)
    logger.save()
    if hasattr(place, "finish"):  # or the next run of a sweep would be part of this one
        place.finish()


def write_report(run: Run, folder: Path) -> None:
    """Writes report.html, the page of a run whose figures are in its folder."""
    training, compared = run.trained, compare([run])
    linear = training.experiment.network.linear
    judged = compared.verdict
    assert judged is not None, "a run is judged at once"
    content = {
        "title": f"hsfusion: {run.name}",
        "verdict": (judged.word, (*judged.sentences, *compared.atmospheric_sentences)),
        "beats_chance": run.beats_chance,
        "unreadable": FREE if run.header.fusion == "free" else None,
        "metrics": run.metrics,
        **_baseline_content(run.metrics.get("baselines")),
        "versions": run.metrics["versions"],
        "configuration": training.configuration,
        "reproduce": training.command,
        "weights": page_weights(compared),
        **_experiment_content(training.experiment, run.weights),
        "independence": independence(run.metrics),
        "best_step": training.result.best_step,
        "network_share": training.result.weights.network_share,
        "linear_sees": "" if linear is None else linear.sees,
    }
    page = plots.report_html("run", content, figures=folder / "figures")
    write_file(folder / "report.html", page)


def _baseline_content(baselines: dict[str, Any] | None) -> dict[str, Any]:
    if not baselines:
        return {"ahead": None}
    key = max(baselines, key=lambda name: baselines[name]["overall_accuracy"])
    ahead = baselines[key]["network_ahead"]
    return {"ahead": ahead, "best_baseline_key": key, "best_baseline": BASELINES[key], "baseline_names": BASELINES}


def _weight_figures(run: Run, experiment: Experiment, result: TrainingResult, title: str) -> dict[str, Any]:
    learned = result.weights
    return {
        "band_weights": curve_figure(compare([run]), title=title, spectra=_class_spectra(experiment)),
        "group_weights": plots.group_weights_figure(
            learned.group_weights,
            group_names=group_members(experiment)[0],
            channel_share=learned.channel_share,
            title=f"Group weights: {title}",
        ),
    }


def _map_figures(experiment: Experiment, result: TrainingResult, title: str) -> dict[str, Any]:
    labelled, legend = experiment.split.labelled, experiment.split.labelled.legend
    bands = labelled.scene.bands
    three, _ = plots.composite_bands(bands.wavelength_nm, bands.good)
    step = -(-max(labelled.labels.shape) // MOST_PIXELS)
    return {
        "map": plots.map_figure(
            plots.composite(read_all(labelled.scene, np.array(three), step=step)),
            labelled.labels[::step, ::step],
            np.array([*legend.codes, 0])[result.classes[::step, ::step]],  # 0 for the class -1 of pixels without data
            codes=legend.codes,
            names=legend.names,
            colors=legend.colors,
            title=title,
        ),
        "split": plots.split_figure(experiment.split.roles, title=f"Split: {title}"),
        "confusion": plots.confusion_figure(result.confusion, names=legend.names, title=f"Test pixels: {title}"),
    }


def _class_spectra(experiment: Experiment) -> dict[str, tuple[NDArray[np.float64], str]]:
    """Mean spectrum (C,) of at most 5,000 training pixels of each class, evenly spread, and the colour of the class."""
    labelled, train = experiment.split.labelled, experiment.split.pixels(TRAIN)
    scene, codes = labelled.scene, labelled.labels.ravel()[train]
    spectra = {}
    legend = labelled.legend
    for code, name, color in zip(legend.codes, legend.names, legend.colors, strict=True):
        pixels = train[codes == code]
        shown = pixels[:: max(1, -(-len(pixels) // _MOST_PIXELS))]  # a class need not occur in each of several scenes
        values = read_pixels(scene, shown, np.arange(len(scene.bands))).astype(np.float64)  # (N, C)
        finite = np.isfinite(values)
        total = np.where(finite, values, 0).sum(0)
        spectra[name] = np.where(finite.any(0), total / np.maximum(finite.sum(0), 1), np.nan), color
    return spectra


def _experiment_content(experiment: Experiment, weights: BandWeights) -> dict[str, Any]:
    split, transfer = experiment.split, experiment.initial.transfer
    used = np.sort(weights.bands.wavelength_nm[weights.weight > 0])
    listed = experiment.initial.architecture["keep_bands"] is not None
    named = f": {', '.join(f'{nm:.0f}' for nm in used)} nm" if listed else ""
    counts = np.bincount(split.roles.ravel(), minlength=len(ROLES)).tolist()
    return {
        "scene": split.labelled.scene.name,
        "bands_in_use": f"{used.size} of {len(weights.bands)}{named}",
        "shape": split.labelled.labels.shape,
        "classes": len(split.labelled.legend.codes),
        "labelled_pixels": int((split.labelled.labels > 0).sum()),
        "roles": dict(zip(ROLES, counts, strict=True)),
        "transfer": () if transfer is None else transfer.lines(),
    }


def write_trials(study: Any, folder: Path, *, metric: str) -> list[str]:
    """Writes trials.csv, and trials.png and trials.svg of those that came to an end; gives lines that say the best.

    Args:
        study: of Optuna.
        folder: of the files.
        metric: that the study maximizes.
    """
    trials = study.trials
    keys = sorted({key for trial in trials for key in trial.params})
    rows = [["trial", "state", metric, *keys]]
    rows += [[of.number, of.state.name, of.value, *(of.params.get(key) for key in keys)] for of in trials]
    write_table(folder / "trials.csv", rows[0], rows[1:])
    lines = ["".join(f"{str(cell)[:21]:<23}" for cell in row).rstrip() for row in rows]
    done = [trial for trial in trials if trial.value is not None]
    if done:
        of_keys = {key: [of.params[key] for of in done] for key in keys if all(key in of.params for of in done)}
        figure = plots.trials_figure([trial.value for trial in done], of_keys, metric=metric)
        plots.save_figure(figure, folder / "trials")
        words = " ".join(f"{key}={value}" for key, value in study.best_params.items())
        lines += [f"best: trial {study.best_trial.number}, {words}", f"figure       {folder / 'trials.png'}"]
    return [*lines, f"table        {folder / 'trials.csv'}"]
