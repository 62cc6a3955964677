"""Figures and report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from hsfusion import plots
from hsfusion.cli.checking import command_again
from hsfusion.cli.session import Experiment, Outcome
from hsfusion.data.splits import TRAIN
from hsfusion.scenes.scene import Scene, read_all
from hsfusion.spectra import BandWeights
from hsfusion.trust.evidence import beats_chance

_RGB_NM = (640.0, 550.0, 460.0)
# heading in the report -> file, kind, alternative text, caption
_SHOWN = {
    "Band weights": (
        "band_weights",
        "svg",
        "Band weights over wavelength",
        "What the forward pass uses of each band; they sum to 1.",
    ),
    "Group weights": (
        "group_weights",
        "svg",
        "Matrix of group weights",
        "Sign and size of each band group in each fused channel.",
    ),
    "Weights during training": (
        "weight_history",
        "png",
        "Band weights as colours over wavelength and training step",
        "How the weights came about: bands that did not pay for themselves closed.",
    ),
    "Where each group counted": (
        "instance_weights",
        "png",
        "A map for each group of its share in the sum",
        "The share of each group in the weighted sum, pixel by pixel.",
    ),
    "Class map": (
        "map",
        "png",
        "Composite, ground truth and class map side by side",
        "The class map beside the ground truth.",
    ),
    "Confusion matrix": ("confusion", "svg", "Confusion matrix of the test pixels", "Rows are the truth."),
    "Training": (
        "training",
        "svg",
        "Loss and validation accuracies over the steps",
        "The dotted line marks the step whose weights were kept.",
    ),
    "Split": (
        "split",
        "png",
        "Map of training, validation, test and buffer pixels",
        "Which pixel was used for what.",
    ),
}


def write_figures(
    cfg: DictConfig,
    experiment: Experiment,
    outcome: Outcome,
    *,
    weights: BandWeights,
    metrics: dict[str, Any],
    folder: Path,
) -> None:
    """Draws the figures of a run and writes report.html."""
    labelled = experiment.split.labelled
    run = f"{labelled.scene.name}, {cfg.model.fusion} fusion, {metrics['split']['kind']} split, seed {cfg.seed}"
    evidence = beats_chance(outcome.confusion, receptive_field=experiment.network.receptive_field)
    figures = {
        **_weight_figures(experiment, outcome, weights, run, stamp=None if evidence else "no evidence"),
        **_map_figures(experiment, outcome, run),
        "training": plots.training_figure(outcome.history, best_step=outcome.best_step),
    }
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / "figures" / stem)
    page = _report(cfg, weights=weights, metrics=metrics, folder=folder, caveats=_caveats(cfg, metrics, evidence))
    (folder / "report.html").write_text(page, encoding="utf-8")


def _weight_figures(
    experiment: Experiment, outcome: Outcome, weights: BandWeights, run: str, *, stamp: str | None
) -> dict[str, Any]:
    legend, learned = experiment.split.labelled.legend, outcome.weights
    free = experiment.network.fusion.kind == "free"
    sources = experiment.split.labelled.scene.sources
    names = ["all"] if free else [*(group.name for group in experiment.groups), *(name for name, _ in sources)]
    steps, history = outcome.weight_history
    limits = [] if free else [(group.name, group.lower_nm, group.upper_nm) for group in experiment.groups]
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
    rgb = read_all(labelled.scene)[_rgb_bands(labelled.scene)]
    return {
        "map": plots.map_figure(
            plots.composite(rgb),
            labelled.labels,
            np.array([*legend.codes, 0])[outcome.classes],
            codes=legend.codes,
            names=legend.names,
            colors=legend.colors,
            title=run,
        ),
        "split": plots.split_figure(experiment.split.roles, title=f"Split: {run}"),
        "confusion": plots.confusion_figure(outcome.confusion, names=legend.names, title=f"Test pixels: {run}"),
    }


def _report(cfg: DictConfig, *, weights: BandWeights, metrics: dict[str, Any], folder: Path, caveats: list[str]) -> str:
    split, test, timing = metrics["split"], metrics["test"], metrics["timing"]
    summary = {
        "Overall accuracy": f"{test['overall_accuracy']:.4f}",
        "Average accuracy": f"{test['average_accuracy']:.4f}",
        "Kappa": f"{test['kappa']:.4f}",
        "Mean IoU": f"{test['mean_iou']:.4f}",
        "Split": f"{split['kind']}, leakage {split['leakage']:.4f}",
        "Pixels": f"{split['train_pixels']} training, {split['val_pixels']} validation, {split['test_pixels']} test",
        "Bands in use": _bands_in_use(cfg, weights),
        "Training time": f"{timing['train_seconds']:.0f} s",
    }
    return plots.report_html(
        title=f"hsfusion: {cfg.name}",
        summary=summary,
        caveats=caveats,
        figures={
            title: (folder / "figures" / f"{stem}.{suffix}", alt, caption)
            for title, (stem, suffix, alt, caption) in _SHOWN.items()
            if (folder / "figures" / f"{stem}.{suffix}").exists()
        },
        per_class=[(name, row["accuracy"], row["support"]) for name, row in test["per_class"].items()],
        top_windows=weights.top_windows(8),
        configuration=OmegaConf.to_yaml(cfg, resolve=True),
        versions=metrics["versions"],
        reproduce=command_again("train"),
    )


def _bands_in_use(cfg: DictConfig, weights: BandWeights) -> str:
    used = weights.bands.wavelength_nm[weights.weight > 0]
    text = f"{used.size} of {len(weights.bands)}"
    return text if cfg.model.keep_bands is None else f"{text}: {', '.join(f'{nm:.0f}' for nm in sorted(used))} nm"


def _caveats(cfg: DictConfig, metrics: dict[str, Any], evidence: bool) -> list[str]:
    split = metrics["split"]
    caveats = [
        "These weights come from one training. Neighbouring bands say nearly the same, so another seed spreads the "
        "weight differently within a window: compare windows over several seeds before drawing conclusions."
    ]
    if not evidence:
        caveats.insert(
            0,
            "No evidence: on the test pixels the network is not better than chance (1 % level, pixels within one "
            "receptive field counted once). Weights of a network that has learned nothing mean nothing.",
        )
    if cfg.model.fusion == "free":
        caveats.append("The free convolution can absorb the scale of any band: its weights are no evidence.")
    if split["leakage"] > 0:
        caveats.append(
            f"The split leaks: {split['leakage']:.1%} of the test pixels see a training or validation pixel. "
            "The accuracies are too high."
        )
    if not split["val_pixels"]:
        caveats.append("There were no validation pixels: the model of the last epoch was kept.")
    return caveats


def _class_spectra(experiment: Experiment) -> dict[str, NDArray[np.float64]]:
    """Mean spectrum (C,) of the training pixels of each class."""
    scene = experiment.split.labelled.scene
    cube = read_all(scene)[: len(scene.bands)]
    labelled, train = experiment.split.labelled, experiment.split.roles == TRAIN
    spectra = {}
    for code, name in zip(labelled.legend.codes, labelled.legend.names, strict=True):
        pixels = cube[:, train & (labelled.labels == code)].astype(np.float64)
        finite = np.isfinite(pixels)
        total = np.where(finite, pixels, 0).sum(1)
        spectra[name] = np.where(finite.any(1), total / np.maximum(finite.sum(1), 1), np.nan)
    return spectra


def _rgb_bands(scene: Scene) -> list[int]:
    """Indices of the bands nearest to red, green and blue; three evenly spread where the scene has no visible light."""
    nm = np.where(scene.bands.good, scene.bands.wavelength_nm, np.inf)
    nearest = [int(np.abs(nm - wanted).argmin()) for wanted in _RGB_NM]
    if max(abs(nm[c] - wanted) for c, wanted in zip(nearest, _RGB_NM, strict=True)) <= 50:
        return nearest
    good = np.flatnonzero(scene.bands.good)
    return [int(good[i * (good.size - 1) // 2]) for i in (2, 1, 0)]
