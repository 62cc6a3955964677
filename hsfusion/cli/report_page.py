"""What report.html of a run says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import plots
from hsfusion.cli.checking import command_again
from hsfusion.cli.descriptions import to_yaml
from hsfusion.cli.session import Experiment, Outcome
from hsfusion.cli.weights_judged import untrained_weight
from hsfusion.scenes import Legend, Scene
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import BandWeights
from hsfusion.trust.verdict import FREE, Duplicate, Verdict, Window, verdict, weight_windows

_RGB_NM = (640.0, 550.0, 460.0)


def run_page(
    configuration: dict[str, Any],
    experiment: Experiment,
    outcome: Outcome,
    *,
    weights: BandWeights,
    metrics: dict[str, Any],
    known: dict[str, Any],
    folder: Path,
) -> str:
    """Writes the report of a run whose figures are in its folder; returns the page."""
    own = weights.weight[None]
    windows = weight_windows(weights, own > 0, profiles=own, untrained=untrained_weight(weights))
    judged = _verdict(windows, weights, known, fusion=experiment.network.fusion.kind)
    transfer, test = experiment.start.transfer, metrics["test"]
    return plots.report_html(
        title=f"hsfusion: {configuration['name']}",
        summary=_summary(experiment, weights, metrics),
        caveats=_caveats(experiment, metrics, evidence=known["beats_chance"]),
        verdict=(judged.word, judged.sentences),
        weights=_profile(experiment, weights),
        top_windows=[{**vars(window), "weight": window.share} for window in windows],
        weight_figures=_there(folder, _weight_figures(experiment, outcome)),
        accuracy_figures=_there(folder, _accuracy_figures(outcome, test)),
        per_class=[(name, row["accuracy"], row["support"]) for name, row in test["per_class"].items()],
        maps=_maps(experiment, outcome, leakage=metrics["split"]["leakage"]),
        configuration=to_yaml(configuration),
        versions=metrics["versions"],
        transfer=() if transfer is None else transfer.lines(),
        scratch=_scratch(metrics) if "scratch" in metrics else None,
        reproduce=command_again("train" if transfer is None else "finetune"),
    )


def _verdict(windows: Sequence[Window], weights: BandWeights, known: dict[str, Any], *, fusion: str) -> Verdict:
    """What the weights of this one run are worth."""
    return verdict(
        windows,
        beats_chance=[known["beats_chance"]],
        uniformity_p=None,
        stability=None,
        p_values={},
        pairs=[Duplicate(*pair) for pair in known["duplicates"]],
        wavelength_nm=weights.bands.wavelength_nm,
        unreadable=FREE if fusion == "free" else None,
    )


def _profile(experiment: Experiment, weights: BandWeights) -> plots.WeightProfile:
    free = experiment.network.fusion.kind == "free"
    return plots.WeightProfile(
        weights.bands.wavelength_nm,
        weights.weight,
        fwhm_nm=weights.bands.fwhm_nm,
        untrained=untrained_weight(weights),
        good=weights.bands.good,
        band_groups=weights.group,
        groups=[] if free else [(group.name, group.lower_nm, group.upper_nm) for group in experiment.start.groups],
        sources=weights.sources,
    )


def _maps(experiment: Experiment, outcome: Outcome, *, leakage: float) -> plots.Maps:
    labelled = experiment.split.labelled
    legend = labelled.legend
    return plots.Maps(
        shown_composite(labelled.scene),
        labelled.labels,
        legend_codes(legend, outcome.classes),
        experiment.split.roles,
        codes=legend.codes,
        names=legend.names,
        colors=legend.colors,
        leakage=leakage,
    )


def legend_codes(legend: Legend, classes: NDArray[np.integer]) -> NDArray[np.integer]:
    """Codes (H, W) of the legend for class indices (H, W), 0 for the index -1 of pixels without data."""
    return np.array([*legend.codes, 0])[classes]


def shown_composite(scene: Scene) -> NDArray[np.float64]:
    """Colour composite (H, W, 3) of a scene, stretched."""
    return plots.composite(read_all(scene, np.array(_rgb_bands(scene))))


def _rgb_bands(scene: Scene) -> list[int]:
    """Indices of the bands nearest to red, green and blue; three evenly spread where the scene has no visible light."""
    nm = np.where(scene.bands.good, scene.bands.wavelength_nm, np.inf)
    nearest = [int(np.abs(nm - wanted).argmin()) for wanted in _RGB_NM]
    if max(abs(nm[c] - wanted) for c, wanted in zip(nearest, _RGB_NM, strict=True)) <= 50:
        return nearest
    good = np.flatnonzero(scene.bands.good)
    return [int(good[i * (good.size - 1) // 2]) for i in (2, 1, 0)]


def _there(folder: Path, shown: dict[str, tuple[str, str, str]]) -> dict[str, tuple[Path, str, str]]:
    """Heading to (path, alternative text, caption) of the figures that the run has drawn."""
    paths = {heading: folder / "figures" / name for heading, (name, _, _) in shown.items()}
    return {
        heading: (paths[heading], alternative, caption)
        for heading, (_, alternative, caption) in shown.items()
        if paths[heading].exists()
    }


def _weight_figures(experiment: Experiment, outcome: Outcome) -> dict[str, tuple[str, str, str]]:
    """Heading to (file, alternative text, caption)."""
    groups, channels = outcome.weights.group_weights.shape
    steps, history = outcome.weight_history
    end = f", and {(history[-1] > 0).sum()} of {history.shape[1]} weights are open at the end" if len(steps) else ""
    kept = "no step" if outcome.best_step is None else f"step {outcome.best_step}"
    return {
        "Group weights": (
            "group_weights.svg",
            f"Matrix of the weights of {groups} band groups in {channels} fused channels, with the share of each "
            "channel above it; the values are in group_weights.csv.",
            "Sign and size of each band group in each fused channel.",
        ),
        "Weights during training": (
            "weight_history.png",
            f"Band weights as colours over wavelength and training step: {len(steps)} steps are shown, {kept} is "
            f"marked{end}; the values are in weight_history.csv.",
            "How the weights came about: bands that did not pay for themselves closed.",
        ),
        "Where each group counted": (
            "instance_weights.png",
            f"A map for each of {groups} band groups of its share in the weighted sum; the values are in "
            "instance_weights.tif.",
            "The share of each group in the weighted sum, pixel by pixel.",
        ),
    }


def _accuracy_figures(outcome: Outcome, test: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Heading to (file, alternative text, caption)."""
    kept = "the last step was kept" if outcome.best_step is None else f"step {outcome.best_step} was kept"
    return {
        "Confusion matrix": (
            "confusion.svg",
            f"Confusion matrix of the test pixels, overall accuracy {test['overall_accuracy']:.4f}. "
            f"{_confused(outcome.confusion, list(test['per_class']))}",
            "Rows are the truth.",
        ),
        "Training": (
            "training.svg",
            f"Loss and validation accuracies over the training steps; {kept}.",
            "The dotted line marks the step whose weights were kept.",
        ),
    }


def _confused(confusion: NDArray[np.integer], names: list[str]) -> str:
    """The most frequent confusion, in words."""
    wrong = confusion[:, : len(names)].copy()
    np.fill_diagonal(wrong, 0)
    if not wrong.any():
        return "No class is taken for another."
    true, taken = (int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
    return f"The most frequent confusion: {wrong[true, taken]} pixels of {names[true]} are taken for {names[taken]}."


def _summary(experiment: Experiment, weights: BandWeights, metrics: dict[str, Any]) -> dict[str, str]:
    split, test = metrics["split"], metrics["test"]
    summary = {
        "Scene": experiment.split.labelled.scene.name,
        "Overall accuracy": f"{test['overall_accuracy']:.4f}",
        "Average accuracy": f"{test['average_accuracy']:.4f}",
        "Kappa": f"{test['kappa']:.4f}",
        "Mean IoU": f"{test['mean_iou']:.4f}",
        "Split": f"{split['kind']}, leakage {split['leakage']:.4f}",
        "Pixels": f"{split['train_pixels']} training, {split['val_pixels']} validation, {split['test_pixels']} test",
        "Bands in use": _bands_in_use(experiment, weights),
        "Training time": f"{metrics['timing']['train_seconds']:.0f} s",
    }
    if "scratch" in metrics:
        summary["Overall accuracy from scratch"] = f"{metrics['scratch']['test']['overall_accuracy']:.4f}"
    return summary


def _scratch(metrics: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Quantity to its value after fine-tuning and from scratch, on the same pixels."""
    ours, other = metrics["test"], metrics["scratch"]
    rows = {
        name: (f"{ours[key]:.4f}", f"{other['test'][key]:.4f}")
        for name, key in (
            ("overall accuracy", "overall_accuracy"),
            ("average accuracy", "average_accuracy"),
            ("kappa", "kappa"),
        )
    }
    there, step = other["finetuned_there_at_step"], other["step"]
    rows["step at which the validation accuracy from scratch was reached"] = (
        "never" if there is None else str(there),
        "unknown" if step is None else str(step),
    )
    return rows


def _bands_in_use(experiment: Experiment, weights: BandWeights) -> str:
    used = weights.bands.wavelength_nm[weights.weight > 0]
    text = f"{used.size} of {len(weights.bands)}"
    if experiment.start.architecture["keep_bands"] is None:
        return text
    return f"{text}: {', '.join(f'{nm:.0f}' for nm in sorted(used))} nm"


def _caveats(experiment: Experiment, metrics: dict[str, Any], *, evidence: bool) -> list[str]:
    split, caveats = metrics["split"], []
    if not evidence:
        caveats.append(
            "No evidence: on the test pixels the network is not better than chance (1 % level, pixels within one "
            "receptive field counted once). Weights of a network that has learned nothing mean nothing."
        )
    if experiment.network.fusion.kind == "free":
        caveats.append(FREE)
    if split["leakage"] > 0:
        caveats.append(
            f"The split leaks: {split['leakage']:.1%} of the test pixels see a training or validation pixel. "
            "The accuracies are too high."
        )
    if not split["val_pixels"]:
        caveats.append("There were no validation pixels: the model of the last epoch was kept.")
    return caveats
