"""Figures and report of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import plots
from hsfusion.data.splits import TRAIN
from hsfusion.runs.folder import group_members
from hsfusion.runs.run import Run, Training
from hsfusion.scenes import LabelledScene, Legend, Scene
from hsfusion.scenes.scene import read_all, read_pixels
from hsfusion.spectra import BandWeights
from hsfusion.spectra.weights import untrained_weight
from hsfusion.trust.verdict import FREE, Verdict, WavelengthWindow, verdict, weight_windows

if TYPE_CHECKING:
    from hsfusion.runs.training import Experiment, TrainingResult

_RGB_NM = (640.0, 550.0, 460.0)
_MOST_PIXELS = 5000  # of a class, whose mean spectrum is drawn


def write_figures(run: Run, folder: Path) -> None:
    """Draws the figures of a run into ``figures/`` of its folder."""
    training = _training(run)
    experiment, result = training.experiment, training.result
    fusion, split = experiment.network.fusion.kind, run.metrics["split"]
    title = (
        f"{experiment.split.labelled.scene.name}, {fusion} fusion, {split['kind']} split, seed {run.metrics['seed']}"
    )
    stamp = None if run.beats_chance and fusion != "free" else "no evidence"
    figures = {
        **_weight_figures(run.weights, experiment, result, title, stamp=stamp),
        **_map_figures(experiment, result, title),
        "training": plots.training_figure(result.history, best_step=result.best_step),
    }
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / "figures" / stem)


def write_report(run: Run, folder: Path) -> None:
    """Writes report.html, the page of a run whose figures are in its folder."""
    training, weights, metrics = _training(run), run.weights, run.metrics
    experiment, result = training.experiment, training.result
    untrained, profile = untrained_weight(weights), weights.weight[None]
    windows = weight_windows(weights, profile > 0, profiles=profile, untrained=untrained)
    judged = _verdict(windows, run, fusion=experiment.network.fusion.kind)
    transfer, curve = experiment.initial.transfer, folder / "figures" / "band_weights.svg"
    page = plots.report_html(
        title=f"hsfusion: {run.name}",
        summary=_summary(experiment, weights, metrics),
        caveats=_caveats(experiment, metrics, evidence=run.beats_chance),
        verdict=(judged.word, judged.sentences),
        weights=_profile(experiment, weights, untrained),
        curve=curve if curve.exists() else None,
        top_windows=[{**vars(window), "weight": window.share} for window in windows],
        figures={
            section: [figure for figure in figures if figure.path.exists()]
            for section, figures in _page_figures(folder / "figures", experiment, result, metrics).items()
        },
        per_class=[(name, row["accuracy"], row["support"]) for name, row in metrics["test"]["per_class"].items()],
        configuration=training.configuration,
        versions=metrics["versions"],
        transfer=() if transfer is None else transfer.lines(),
        scratch=_scratch(metrics) if "scratch" in metrics else None,
        reproduce=training.command,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _training(run: Run) -> Training:
    assert run.training is not None, "only what was trained here is drawn"
    return run.training


def _weight_figures(
    weights: BandWeights, experiment: Experiment, result: TrainingResult, title: str, *, stamp: str | None
) -> dict[str, Any]:
    legend, learned = experiment.split.labelled.legend, result.weights
    free = experiment.network.fusion.kind == "free"
    sources = experiment.split.labelled.scene.sources
    names = group_members(experiment)[0]
    steps, history = result.weight_history
    limits = [] if free else [(group.name, group.lower_nm, group.upper_nm) for group in experiment.initial.groups]
    figures = {
        "band_weights": plots.band_weights_figure(
            weights.bands.wavelength_nm,
            weights.weight,
            groups=limits,
            spectra=_class_spectra(experiment),
            colors=dict(zip(legend.names, legend.colors, strict=True)),
            title=f"Band weights: {title}",
            stamp=stamp,
            untrained=untrained_weight(weights),
            sources={name: total for name, total in weights.group_totals().items() if name in dict(sources)},
        ),
        "weight_history": plots.weight_history_figure(
            weights.bands.wavelength_nm,
            steps,
            history[:, : len(weights.bands)],
            title=f"Weights during training: {title}",
            best_step=result.best_step,
        ),
        "group_weights": plots.group_weights_figure(
            learned.group_weights,
            group_names=names,
            channel_share=learned.channel_share,
            title=f"Group weights: {title}",
        ),
    }
    if result.instance_maps is not None:
        figures["instance_weights"] = plots.instance_weights_figure(
            result.instance_maps, names=names, title=f"Where each group counted: {title}"
        )
    return figures


def _map_figures(experiment: Experiment, result: TrainingResult, title: str) -> dict[str, Any]:
    labelled = experiment.split.labelled
    legend = labelled.legend
    return {
        "map": plots.map_figure(
            shown_composite(labelled.scene),
            labelled.labels,
            legend_codes(legend, result.classes),
            codes=legend.codes,
            names=legend.names,
            colors=legend.colors,
            title=title,
        ),
        "split": plots.split_figure(experiment.split.roles, title=f"Split: {title}"),
        "confusion": plots.confusion_figure(result.confusion, names=legend.names, title=f"Test pixels: {title}"),
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


def _verdict(windows: Sequence[WavelengthWindow], run: Run, *, fusion: str) -> Verdict:
    """What the weights of this one run are worth."""
    return verdict(
        windows,
        beats_chance=[run.beats_chance],
        uniformity_p=None,
        stability=None,
        p_values={},
        pairs=run.duplicates,
        wavelength_nm=run.weights.bands.wavelength_nm,
        unreadable=FREE if fusion == "free" else None,
    )


def _profile(experiment: Experiment, weights: BandWeights, untrained: NDArray[np.float64]) -> plots.WeightProfile:
    free = experiment.network.fusion.kind == "free"
    return plots.WeightProfile(
        weights.bands.wavelength_nm,
        weights.weight,
        fwhm_nm=weights.bands.fwhm_nm,
        untrained=untrained,
        good=weights.bands.good,
        band_groups=weights.group,
        groups=[] if free else [(group.name, group.lower_nm, group.upper_nm) for group in experiment.initial.groups],
        sources=weights.sources,
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


def _page_figures(
    folder: Path, experiment: Experiment, result: TrainingResult, metrics: dict[str, Any]
) -> dict[str, list[plots.PageFigure]]:
    """The figures of each section of the page, whether drawn or not."""
    return {
        "composition": _composition_figures(folder, result),
        "accuracy": _accuracy_figures(folder, result, metrics["test"]),
        "map": [_class_map_figure(folder, experiment.split.labelled)],
        "split": [_split_figure(folder, experiment.split.roles, leakage=metrics["split"]["leakage"])],
    }


def _composition_figures(folder: Path, result: TrainingResult) -> list[plots.PageFigure]:
    groups, channels = result.weights.group_weights.shape
    steps, history = result.weight_history
    end = f", and {(history[-1] > 0).sum()} of {history.shape[1]} weights are open at the end" if len(steps) else ""
    kept = "no step" if result.best_step is None else f"step {result.best_step}"
    return [
        plots.PageFigure(
            folder / "group_weights.svg",
            "Group weights",
            f"Matrix of the weights of {groups} band groups in {channels} fused channels, with the share of each "
            "channel above it; the values are in group_weights.csv.",
            "Sign and size of each band group in each fused channel.",
        ),
        plots.PageFigure(
            folder / "weight_history.png",
            "Weights during training",
            f"Band weights as colours over wavelength and training step: {len(steps)} steps are shown, {kept} is "
            f"marked{end}; the values are in weight_history.csv.",
            "How the weights came about: bands that did not pay for themselves closed.",
        ),
        plots.PageFigure(
            folder / "instance_weights.png",
            "Where each group counted",
            f"A map for each of {groups} band groups of its share in the weighted sum; the values are in "
            "instance_weights.tif.",
            "The share of each group in the weighted sum, pixel by pixel.",
        ),
    ]


def _accuracy_figures(folder: Path, result: TrainingResult, test: dict[str, Any]) -> list[plots.PageFigure]:
    kept = "the last step was kept" if result.best_step is None else f"step {result.best_step} was kept"
    return [
        plots.PageFigure(
            folder / "confusion.svg",
            "Confusion matrix",
            f"Confusion matrix of the test pixels, overall accuracy {test['overall_accuracy']:.4f}. "
            f"{_confused(result.confusion, list(test['per_class']))}",
            "Rows are the truth.",
        ),
        plots.PageFigure(
            folder / "training.svg",
            "Training",
            f"Loss and validation accuracies over the training steps; {kept}.",
            "The dotted line marks the step whose weights were kept.",
        ),
    ]


def _class_map_figure(folder: Path, labelled: LabelledScene) -> plots.PageFigure:
    (height, width), pixels = labelled.labels.shape, int((labelled.labels > 0).sum())
    return plots.PageFigure(
        folder / "map.svg",
        "Maps",
        f"Colour composite, ground truth and class map of {height} by {width} pixels over the legend of "
        f"{len(labelled.legend.codes)} classes; the class codes are in map.tif.",
        f"Ground truth of {pixels:,} pixels beside what the network predicts for the whole scene.",
    )


def _split_figure(folder: Path, roles: NDArray[np.integer], *, leakage: float) -> plots.PageFigure:
    counts = np.bincount(roles.ravel(), minlength=5)
    names = ("unused", "training", "validation", "test", "buffer")
    listed = ", ".join(f"{count:,} {name}" for name, count in zip(names, counts, strict=True) if count)
    return plots.PageFigure(
        folder / "split.svg",
        "Split",
        f"Map of what each pixel is used for: {listed}; the codes are in split.tif.",
        f"Leakage {leakage:.4f}: the share of test pixels that see a training or validation pixel; 0 is honest.",
    )


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
    reached, step = other["finetuned_there_at_step"], other["step"]
    rows["step at which the validation accuracy from scratch was reached"] = (
        "never" if reached is None else str(reached),
        "unknown" if step is None else str(step),
    )
    return rows


def _bands_in_use(experiment: Experiment, weights: BandWeights) -> str:
    used = weights.bands.wavelength_nm[weights.weight > 0]
    text = f"{used.size} of {len(weights.bands)}"
    if experiment.initial.architecture["keep_bands"] is None:
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
