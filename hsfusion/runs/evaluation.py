"""Evaluation on validation and test pixels: accuracies, baselines, choice of settings, worth of windows."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hsfusion.data.noise import noise_differences
from hsfusion.data.patches import PatchDataModule, TrainingCube, prepare
from hsfusion.data.splits import BUFFER, TEST, TRAIN, UNUSED, VAL, Split, Splitter
from hsfusion.errors import InputError
from hsfusion.inference.classification import MaskedNetwork
from hsfusion.nn import FusionNetwork, StochasticGates
from hsfusion.runs.experiment import Experiment, initialise, split_scene, used_layers
from hsfusion.runs.folder import read_json
from hsfusion.runs.settings import TrainSettings, replaced
from hsfusion.scenes import LabelledScene
from hsfusion.scenes.scene import read_pixels
from hsfusion.training.building import WeightReadout
from hsfusion.training.classifier import accuracies, confusion_matrix
from hsfusion.trust import baselines
from hsfusion.trust.baselines import PixelTable, log_likelihoods, temperature
from hsfusion.trust.chance import Chance, compare_with_moved_labels, thin_evenly
from hsfusion.trust.faithfulness import permutations, predicted_fills
from hsfusion.trust.importance import WindowImportance, contrast_of, losses_without, spectral_windows, standard_errors

if TYPE_CHECKING:
    from hsfusion.runs.run import Training

_log = logging.getLogger(__name__)
#: metrics that a search can maximise
VALIDATION_METRICS = ("val/overall_accuracy", "val/average_accuracy", "val/kappa", "val/mean_iou")
_MOST_TESTED = 20_000  # pixels that classifiers are compared on: their patches lie in memory
_MOST_EPOCHS = 20  # of a short training
_MOST_COMPARED, _MOST_SHOWN = 2000, 256  # validation pixels: of a discriminant, and of a network
_MOST_SPECTRA = 5000  # training pixels
_LEAST_GAIN = 0.05  # of the log-likelihood: the probability of the right class is 5 % higher


def confusion_at(split: Split, classes: NDArray[np.integer], role: int) -> NDArray[np.int64]:
    """Counts (K, K + 1) of a map of class indices (H, W) at the pixels of one role."""
    pixels, legend = split.roles == role, split.labelled.legend
    truth = legend.indices(split.labelled.labels[pixels])
    return confusion_matrix(truth, classes[pixels], num_classes=len(legend.codes))


def validation_accuracies(trainings: Sequence[Training]) -> dict[str, float]:
    """:data:`VALIDATION_METRICS` of the class maps of the networks that were kept; empty without validation pixels."""
    confusion = np.sum([confusion_at(of.experiment.split, of.result.classes, VAL) for of in trainings], axis=0)
    if not confusion.any():
        return {}
    reached = accuracies(confusion, names=trainings[0].experiment.split.labelled.legend.names)
    return {name: reached[name.removeprefix("val/")] for name in VALIDATION_METRICS}


def evaluate_test(split: Split, classes: NDArray[np.integer]) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """The only use of the test pixels: confusion matrix (K, K + 1), parts ``split`` and ``test`` of metrics.json."""
    legend = split.labelled.legend
    test = split.roles == TEST
    truth = legend.indices(split.labelled.labels[test])
    confusion = confusion_at(split, classes, TEST)
    roles = {"train": TRAIN, "val": VAL, "test": TEST, "buffer": BUFFER}
    seen, right = split.in_seen_fields(), truth == classes[test]
    train = np.bincount(legend.indices(split.labelled.labels[split.roles == TRAIN]), minlength=len(legend.names))
    of_split = {
        "kind": split.kind,
        "seed": split.seed,
        **{f"{name}_pixels": split.count(role) for name, role in roles.items()},
        "train_per_class": dict(zip(legend.names, train.tolist(), strict=True)),
        "train_share": split.count(TRAIN) / int((split.labelled.labels > 0).sum()),
        "leakage": split.leakage,
        "patch_overlap": split.patch_overlap,
        "seen_fields": float(seen.mean()),
    }
    fields = {"accuracy_seen_fields": seen, "accuracy_new_fields": ~seen}
    by_field = {name: float(right[those].mean()) if those.any() else None for name, those in fields.items()}
    return confusion, {"split": of_split, "test": {**accuracies(confusion, names=legend.names), **by_field}}


def compare_with_chance(experiment: Experiment, classes: NDArray[np.integer]) -> Chance:
    """Compares a map of class indices (H, W) with classifiers of meaningless labels, on the validation pixels."""
    split, scene = experiment.split, experiment.split.labelled.scene
    index, train, val = experiment.cube.classes.numpy(), split.pixels(TRAIN), split.pixels(VAL)
    return compare_with_moved_labels(
        (train, index[train]),
        (val, index[val]),
        classes.ravel()[val],
        shape=split.roles.shape,
        read=partial(read_pixels, scene, layers=np.flatnonzero(experiment.network.used_bands.numpy())),
        seed=split.seed,
    )


def compare_with_baselines(split: Split, classes: NDArray[np.integer], settings: TrainSettings) -> dict[str, Any]:
    """Fits the baselines of the settings on the training pixels, and tests them on the test pixels of the network.

    ``classes`` (H, W) are class indices by the network; of more than 20,000 test pixels every n-th is used. Returns for
    metrics.json: name -> accuracies, chosen ``setting``, ``seconds``, and ``network_ahead``: the difference in overall
    accuracy with the ends of its 95 % interval over the fields of the test pixels.
    """
    tested = split.pixels(TEST)
    roles = split.roles.copy()
    roles.flat[np.delete(tested, np.s_[:: -(-len(tested) // _MOST_TESTED)])] = UNUSED
    split = replace(split, roles=roles)
    cube = prepare(split, used_layers(split.labelled.scene, settings), roles=(TRAIN, VAL, TEST))
    train, val, test = (pixel_table(cube, split, role) for role in (TRAIN, VAL, TEST))
    right = classes.ravel()[split.pixels(TEST)] == test.classes
    units = _fields_of(split.pixels(TEST), split)
    names = split.labelled.legend.names
    rows, noise = {}, noise_differences(cube, split)
    for fitted in baselines.fit_baselines(train, val, test, names=settings.baselines, noise=noise, seed=settings.seed):
        metrics = accuracies(confusion_matrix(test.classes, fitted.classes, num_classes=len(names)), names=names)
        rows[fitted.name] = {
            **{key: metrics[key] for key in ("overall_accuracy", "average_accuracy", "kappa")},
            "setting": fitted.setting,
            "seconds": fitted.seconds,
            "network_ahead": list(baselines.paired_difference(right, fitted.classes == test.classes, units)),
        }
    return rows


def pixel_table(cube: TrainingCube, split: Split, role: int) -> PixelTable:
    """The pixels of a role as the baselines see them."""
    pixels = split.pixels(role)
    patches = PatchDataModule(cube, split, seed=0)
    parts = [patches.patches(some, step=None).mean((2, 3)) for some in torch.from_numpy(pixels).split(1024)]
    context = torch.cat(parts).numpy() if parts else np.zeros((0, cube.values.shape[1]), np.float32)
    return PixelTable(cube.spectra(pixels), context, cube.classes.numpy()[pixels])


def blocks_of(pixels: NDArray[np.int64], split: Split) -> NDArray[np.int64]:
    """Number of the block that each pixel lies in: neighbouring pixels tend to be right or wrong together."""
    rows, cols = np.divmod(pixels, split.roles.shape[1])
    return rows // baselines.BLOCK * split.roles.shape[1] + cols // baselines.BLOCK


def _fields_of(pixels: NDArray[np.int64], split: Split) -> NDArray[np.int64]:
    """Number of the field of each labelled pixel (N,), or of its block if the field is smaller than a block."""
    field_of = split.field_of
    sizes, field = np.bincount(field_of[field_of >= 0], minlength=1), field_of[pixels]
    return np.where(sizes[field] >= baselines.BLOCK**2, field, sizes.size + blocks_of(pixels, split))


def baseline_lines(table: dict[str, Any]) -> list[str]:
    """The baselines, and the lead of the network over the best of them, for the summary of a run."""
    ranked = sorted(table.items(), key=lambda item: -item[1]["overall_accuracy"])
    name, best = ranked[0]
    ahead, low, high = best["network_ahead"]
    others = ", ".join(f"{baselines.BASELINES[key]} {row['overall_accuracy']:.4f}" for key, row in ranked)
    lines = [f"baselines    {others}"]
    interval = f"(95 % interval {low:+.4f} to {high:+.4f})"
    lines.append(f"lead         {ahead:+.4f} over {baselines.BASELINES[name]} {interval}")
    if low <= 0:
        how = "worse than" if high < 0 else "not clearly better than"
        lines.append(f"warning: the network is {how} {baselines.BASELINES[name]}, which is simpler")
    return lines


class LinearFit(NamedTuple):
    """A logistic regression, as buffers of the linear part, and the log-likelihoods (V,) of network and regression."""

    buffers: dict[str, Any]
    scores: NDArray[np.float64]


def fit_linear_part(experiment: Experiment, data: PatchDataModule) -> None:
    """Fits the linear part of a trained network, if it has one.

    It sees the spectrum of the pixel, or the mean of the whitened spectra over the patch, and has a share in the
    logits; both are chosen for the highest likelihood on validation pixels. It uses the bands that the network has left
    open, or all if that is clearly better: with few labels a network leaves too few bands open.
    """
    network, split = experiment.network, experiment.split
    linear, fusion = network.linear, network.fusion
    if linear is None:
        return
    if not split.count(VAL):
        _log.info("no validation pixels, no linear part: its share could not be chosen")
        return
    inside = fusion.membership.any(0).cpu().numpy()
    opened = inside & (fusion.openness > 0).cpu().numpy()
    whitening = np.eye(len(inside)) if network.whitening is None else network.whitening.cpu().double().numpy()
    train, val = (pixel_table(experiment.cube, split, role) for role in (TRAIN, VAL))
    logits = validation_logits(experiment, data)[0]

    def best(bands: NDArray[np.bool_]) -> LinearFit:
        bases = (np.eye(len(inside))[bands], whitening[bands])
        fits = [_linear_fit(train, val, basis, logits, of_mean=i) for i, basis in enumerate(bases)]
        return max(fits, key=lambda fit: fit.scores.mean())

    chosen = best(opened)
    if isinstance(fusion.gates, StochasticGates) and (inside & ~opened).any():
        every = best(inside)
        chosen = every if clearly_above(every.scores, chosen.scores) else chosen
    for name, value in chosen.buffers.items():
        linear.get_buffer(name).copy_(torch.as_tensor(value))
    share = 100 * float(linear.network_share)
    _log.info("share in the map: %.0f %% network, the rest a logistic regression of the %s", share, linear.sees)


def _linear_fit(
    train: PixelTable, val: PixelTable, basis: NDArray[np.float64], logits: NDArray[np.float64], *, of_mean: int
) -> LinearFit:
    """Fits it to spectra or to means over patches, in a basis (C', C), to accompany logits (V, K) of a network."""
    seen = [((table.context if of_mean else table.spectra) @ basis.T, table.classes) for table in (train, val)]
    weight, bias = baselines.linear_classifier(*seen, num_classes=logits.shape[1])
    softness, direct = temperature(logits, val.classes), seen[1][0] @ weight.T + bias
    share, scores = baselines.network_share(logits / softness, direct, val.classes)
    buffers = {"weight": weight @ basis, "bias": bias, "of_mean": of_mean, "temperature": softness}
    return LinearFit({**buffers, "network_share": share}, scores)


def clearly_above(scores: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether the mean of scores (V,) is higher by 0.05 and by more than one standard error of the difference."""
    ahead = scores - others
    return bool(ahead.mean() > max(_LEAST_GAIN, ahead.std() / len(ahead) ** 0.5))


@torch.no_grad()
def validation_logits(experiment: Experiment, data: PatchDataModule) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits (V, K) of the network at the validation pixels, on the CPU, and their class indices (V,)."""
    network, pixels = experiment.network.eval(), torch.from_numpy(experiment.split.pixels(VAL))
    parts = [network.classify(data.patches(some, step=None).cpu()) for some in pixels.split(1024)]
    return torch.cat(parts).flatten(1).double().numpy(), experiment.cube.classes[pixels].numpy()


def validation_scores(
    experiment: Experiment, data: PatchDataModule, class_shares: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Contribution of each validation pixel (V,) to the mean log-likelihood, calibrated by one temperature.

    If shares of the classes (K,) are given, each class counts by its share.
    """
    logits, classes = validation_logits(experiment, data)
    values = log_likelihoods(logits / temperature(logits, classes), classes)
    if class_shares is None:
        return values
    weights = (class_shares / np.maximum(np.bincount(classes, minlength=len(class_shares)), 1))[classes]
    return values * weights / weights.mean()


@torch.no_grad()
def average_with_start(experiment: Experiment, start: Mapping[str, torch.Tensor], data: PatchDataModule) -> None:
    """Averages a fine-tuned network with its start, with the share that maximises :func:`validation_scores`.

    With few labels a network forgets more than it learns (Wortsman et al. 2022, doi:10.1109/CVPR52688.2022.00780).
    """
    if not experiment.split.count(VAL):
        return
    end, scores = {name: tensor.clone() for name, tensor in experiment.network.state_dict().items()}, {}

    def take(share: float) -> None:
        state = {name: torch.lerp(start[name], of, share) if of.is_floating_point() else of for name, of in end.items()}
        experiment.network.load_state_dict(state)

    for share in (1.0, 0.75, 0.5, 0.25, 0.0):
        take(share)
        scores[share] = validation_scores(experiment, data, experiment.initial.class_shares).mean()
    best = max(scores, key=lambda share: scores[share])
    take(best)
    _log.info("of what fine-tuning changed, the validation pixels keep %.0f %%", 100 * best)


def window_importance(
    experiment: Experiment, weights: WeightReadout, *, windows: NDArray[np.bool_] | None = None
) -> WindowImportance | None:
    """Worth of windows (U, C + E) on validation pixels, by the rules in docs/weights.md; None without such pixels.

    The default are windows of 50 nm.
    """
    network, split, cube = experiment.network, experiment.split, experiment.cube
    if not split.count(VAL):
        return None
    train, val = thin_evenly(split.pixels(TRAIN), _MOST_SPECTRA), thin_evenly(split.pixels(VAL), _MOST_COMPARED)
    spectra, classes, bands = cube.spectra(train), cube.classes.numpy(), split.labelled.scene.bands
    known = np.any(spectra, axis=0)  # the others are not used
    layers = spectra.shape[1]
    nm = np.append(bands.wavelength_nm, np.full(layers - len(bands), np.nan))
    windows = spectral_windows(nm, known & np.isfinite(nm)) if windows is None else windows
    others = cube.spectra(val)
    data = losses_without((spectra[:, known], classes[train]), (others[:, known], classes[val]), windows[:, known])
    shown = thin_evenly(val, _MOST_SHOWN)
    masked = masked_network(network, cube, split, pixels=shown)
    [order] = permutations(len(shown), seed=split.seed, repeats=1)
    whole, every = masked.log_likelihoods(masked.logits()), np.eye(layers)
    covariance = spectra.T.astype(np.float64) @ spectra / len(spectra)
    beside = (masked.of_spectra(every - fill) for fill in predicted_fills(covariance, others, windows))
    exchanged = [masked.exchanged_logits(part, order) for part in (*beside, *map(np.diag, windows))]
    residual, permuted = np.split(np.stack([whole - masked.log_likelihoods(logits) for logits in exchanged]), 2)
    contrast = contrast_of(weights.response, weights.group_weights, channel_share=weights.channel_share)
    contrast = contrast * weights.network_part
    return WindowImportance(
        lower_nm=np.array([nm[window].min() for window in windows]),
        upper_nm=np.array([nm[window].max() for window in windows]),
        bands=windows.sum(1),
        weight=windows @ weights.weight,
        data=data.mean(1),
        data_error=standard_errors(data, blocks_of(val, split)),
        network=residual.mean(1),
        network_error=standard_errors(residual, blocks_of(shown, split)),
        permuted=permuted.mean(1),
        changed=np.abs(permuted).mean(1),
        gradients=windows @ masked.integrated_gradients(most=_MOST_SHOWN),
        contrast=contrast[: len(bands)],
    )


def masked_network(
    network: FusionNetwork, cube: TrainingCube, split: Split, *, pixels: NDArray[np.int64]
) -> MaskedNetwork:
    """The network, and the patches around some pixels (N,), whose bands are to be replaced."""
    chosen = torch.from_numpy(pixels)
    patches = PatchDataModule(cube, split, seed=0).patches(chosen, step=None)
    return MaskedNetwork(network, patches, cube.classes[chosen])


def selected(
    labelled: LabelledScene, settings: TrainSettings, *, resume: str | Path | None = None
) -> tuple[TrainSettings, list[dict[str, Any]]]:
    """The settings chosen on the scene's validation pixels, and what was tried.

    A resumed run uses what was chosen at its start. Processes that train one network together choose nothing.
    """
    tried = _candidates(settings)
    widest = max(candidate.model.receptive_field for _, candidate in tried) // 2
    if widest > settings.model.receptive_field // 2:  # what is chosen shall not move pixels to another role
        split = partial(_buffered, split=settings.split, widest=widest, seed=settings.split_seed)
        tried = [(change, replace(candidate, split=split)) for change, candidate in tried]
    settings = tried[0][1]
    if resume is not None and (Path(resume) / "choices.json").is_file():
        choices = read_json(Path(resume) / "choices.json")["choices"]
        taken = next((choice["change"] for choice in choices if choice["taken"]), {})
        return changed(settings, taken), choices
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if together or getattr(settings.trainer, "keywords", {}).get("devices", 1) not in (1, "auto"):
        _log.info("select is ignored where several processes train one network")
        return settings, []
    return (settings, []) if len(tried) == 1 else _chosen(labelled, tried)


def _candidates(settings: TrainSettings) -> list[tuple[Mapping[str, Any], TrainSettings]]:
    """The unchanged settings, and those of each change that is compatible and changes something."""
    tried: list[tuple[Mapping[str, Any], TrainSettings]] = [({}, settings)]
    for change in settings.select:
        try:
            candidate = changed(settings, change)
        except InputError as error:
            _log.info("select: %s is not compatible with the other settings: %s", dict(change), error)
            continue
        if candidate not in [known for _, known in tried]:
            tried.append((change, candidate))
    return tried


def changed(settings: TrainSettings, change: Mapping[str, Any]) -> TrainSettings:
    """Settings with one of the changes in ``settings.select``."""
    fields = {name: value for name, value in change.items() if hasattr(settings, name)}
    if "lr" in change:
        fields["optimizer"] = partial(settings.optimizer or torch.optim.AdamW, lr=change["lr"])
    return replaced(settings, {**fields, "model": {name: change[name] for name in change.keys() - fields - {"lr"}}})


def _buffered(labelled: LabelledScene, *, split: Splitter, widest: int, radius: int, **options: Any) -> Split:
    """A split with the buffer for the widest receptive field, for a network with another radius."""
    return replace(split(labelled, radius=widest, **options), radius=radius)


def _chosen(
    labelled: LabelledScene, tried: Sequence[tuple[Mapping[str, Any], TrainSettings]]
) -> tuple[TrainSettings, list[dict[str, Any]]]:
    """The settings to train with, chosen by a short training with each candidate, and a row for each candidate.

    All use the same split, and together they take no more epochs than the training itself. The change with the highest
    log-likelihood on validation pixels is adopted if its gain over the first settings exceeds one standard error.
    """
    settings = tried[0][1]
    split = split_scene(labelled, settings)
    if not split.count(VAL):
        return settings, []
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    most = max(1, min(_MOST_EPOCHS, settings.epochs // len(tried)))
    quiet = {"patience": None, "progress": False, "loggers": (), "callbacks": ()}
    judged = [_judge(replace(short, epochs=min(most, short.epochs), **quiet), split) for _, short in tried]
    blocks = blocks_of(split.pixels(VAL), split)
    means, gains = [float(of.mean()) for of in judged], [_gain(of - judged[0], blocks) for of in judged]
    better = [i for i, (gain, error) in enumerate(gains) if gain > error]
    best = max(better, key=lambda i: means[i], default=0)
    _log.info("select: %s adopted", dict(tried[best][0]) or "unchanged settings")
    return tried[best][1], [
        {"change": dict(change), "log_likelihood": means[i], "gain": gains[i], "taken": i == best}
        for i, (change, _) in enumerate(tried)
    ]


def _judge(settings: TrainSettings, split: Split) -> NDArray[np.float64]:
    """Log-likelihood of each validation pixel (V,) by a network trained with these settings."""
    from hsfusion.runs.training import fit_network, patch_data  # which imports this module

    experiment = initialise(replace(split, radius=settings.model.receptive_field // 2), settings)
    data = patch_data(settings, experiment)
    fit_network(settings, experiment.network, [(experiment, data)], None)
    fit_linear_part(experiment, data)
    return validation_scores(experiment, data)


def _gain(difference: NDArray[np.float64], blocks: NDArray[np.integer]) -> list[float]:
    """Mean of differences (V,), and its standard error over blocks."""
    return [float(difference.mean()), float(standard_errors(difference[None], blocks)[0])]
