"""One training, from the configuration to a network and its numbers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig

from hsfusion.cli.fitting import Training, blaming, class_counts, patches_of, plain, sample_of, train_network
from hsfusion.data.datamodule import PatchDataModule, TrainingCube, check_patch_fits, prepare, valid_pixels
from hsfusion.data.splits import TEST, TRAIN, VAL, Split, dilate
from hsfusion.errors import DivergedError, InputError
from hsfusion.inference import instance_weight_maps, predict_scene
from hsfusion.nn import FusionNetwork
from hsfusion.scenes import LabelledScene, Scene, recorded
from hsfusion.spectra import BandGroup
from hsfusion.training.accuracy import accuracies, confusion_matrix
from hsfusion.training.building import LearnedWeights
from hsfusion.training.transfer_report import TransferReport
from hsfusion.trust.evidence import beats_chance

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a training gave.

    Attributes:
        history: the curves.
        best_step: step of the model that was kept; None where the last was kept.
        classes: (H, W) predicted class indices, -1 without data.
        confidence: (H, W).
        instance_maps: (G, H, W) share of each group at each pixel; None where weights are the same everywhere.
        confusion: (K, K + 1) counts of the test pixels.
        weights: what was learned about the bands.
        weight_history: optimizer steps, and the weights (steps, C + E) at each.
        metrics: the content of metrics.json but for seed and versions.
        beats_chance: whether the network knows more than chance about the test pixels.
    """

    history: dict[str, tuple[list[int], list[float]]]
    best_step: int | None
    classes: NDArray[np.int64]
    confidence: NDArray[np.float32]
    instance_maps: NDArray[np.float32] | None
    confusion: NDArray[np.int64]
    weights: LearnedWeights
    weight_history: tuple[list[int], NDArray[np.float64]]
    metrics: dict[str, Any]
    beats_chance: bool

    @property
    def val_accuracy(self) -> float | None:
        """Overall accuracy of the model that was kept on the validation pixels; None without any."""
        steps, values = self.history.get("val/overall_accuracy", ([], []))
        return dict(zip(steps, values, strict=True)).get(self.best_step or -1)


@dataclass(frozen=True, eq=False)
class Start:
    """A network before the training.

    Attributes:
        network: new, or carried over from another scene.
        groups: the band groups.
        architecture: plain keyword arguments that build the network again.
        transfer: what became of the parts of the pretrained network; None for a new one.
        seen_before: pixels of other grounds, and of earlier trainings, see :mod:`hsfusion.cli.seen`.
    """

    network: FusionNetwork
    groups: list[BandGroup]
    architecture: dict[str, Any]
    transfer: TransferReport | None = None
    seen_before: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Experiment:
    """All that is known before the training.

    Attributes:
        split: which pixel is used for what, with scene and ground truth.
        start: the network, with mean and standard deviation of the training pixels; trained in place.
        cube: the patches of the training and validation pixels.
    """

    split: Split
    start: Start
    cube: TrainingCube

    @property
    def network(self) -> FusionNetwork:
        """The network."""
        return self.start.network


def new_network(
    cfg: DictConfig, scene: Scene, class_names: Sequence[str], *, groups: list[BandGroup] | None = None
) -> Start:
    """A network that has seen nothing yet, as the configuration says; ``groups`` stand for those that it makes."""
    if groups is None:
        with blaming("groups"):
            groups = list(instantiate(cfg.groups)(scene.bands))
    architecture = {key: value for key, value in plain(cfg.model).items() if not key.startswith("_")}
    with blaming("model"):
        network = instantiate(cfg.model)(scene.bands, groups, sources=scene.sources, num_classes=len(class_names))
    return Start(network, groups, architecture)


#: builds the network: called with the configuration, the scene and the names of its classes
Maker = Callable[[DictConfig, Scene, Sequence[str]], Start]


def set_up(cfg: DictConfig, *, make: Maker = new_network) -> Experiment:
    """Opens the scene, splits it and builds the network.

    Args:
        cfg: the whole configuration.
        make: builds the network.

    Raises:
        HsFusionError: if anything of it does not fit together.
    """
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    labelled = instantiate(cfg.scene)
    if not isinstance(labelled, LabelledScene):
        raise InputError(
            "command line",
            field="scene",
            value="without labels",
            expected="a scene with labels",
            fix="use scene=file",
        )
    return begin(cfg, split_scene(cfg, labelled, make=make), make=make)


def split_scene(cfg: DictConfig, labelled: LabelledScene, *, make: Maker) -> Split:
    """Splits a scene for what the network sees of it."""
    scene = labelled.scene
    for entry in recorded(scene):
        _log.info("values: %s", entry)
    # what the network sees decides on the split, the split on the classes
    plan = make(cfg, scene, labelled.legend.names).network
    used_bands = plan.used_bands.numpy()
    check_patch_fits(scene, plan.receptive_field)
    radius = plan.receptive_field // 2
    valid = valid_pixels(scene, used_bands, where=dilate(labelled.labels > 0, radius))
    with blaming("split"):
        split = instantiate(cfg.split)(labelled, radius=radius, seed=cfg.seed, valid=valid)
    _tell(split, valid)
    return split


def begin(cfg: DictConfig, split: Split, *, make: Maker = new_network) -> Experiment:
    """Builds the network for a split, standardised with its training pixels."""
    torch.manual_seed(cfg.seed)
    start = make(cfg, split.labelled.scene, split.labelled.legend.names)
    cube = prepare(split, start.network.used_bands.numpy(), roles=(TRAIN, VAL))
    start.network.mean.copy_(torch.from_numpy(cube.mean))
    start.network.std.copy_(torch.from_numpy(cube.std))
    start.network.train()  # Lightning leaves it as it is
    gates = start.network.fusion.gates
    if gates is not None and gates.kept.any():  # settled for good: processes that train together would miss gradients
        gates.requires_grad_(False)
    return Experiment(split, start, cube)


def _tell(split: Split, valid: NDArray[np.bool_]) -> None:
    holes = split.holes(valid)
    if holes:
        _log.warning("%.1f %% of the training patches hold pixels without data, seen as the band's mean.", 100 * holes)
    counts = ", ".join(
        f"{split.count(role)} {name}" for role, name in ((TRAIN, "training"), (VAL, "validation"), (TEST, "test"))
    )
    name = split.labelled.scene.name
    _log.info("%s, %s split: %s pixels, leakage %.4f", name, split.kind, counts, split.leakage)


def fit(cfg: DictConfig, experiment: Experiment, folder: Path, *, checkpoint: Path | None = None) -> Outcome | None:
    """Trains, keeps the best epoch by validation pixels, and classifies the scene.

    Args:
        cfg: the whole configuration.
        experiment: from :func:`set_up`; its network is trained in place.
        folder: where checkpoints and logs go.
        checkpoint: of an interrupted run, to go on with.

    Returns:
        the outcome; None on all but the first process of a distributed run.

    Raises:
        DivergedError: if a weight is not finite at the end.
    """
    split, network = experiment.split, experiment.network
    data = patches_of(cfg, experiment.cube, split)
    training = train_network(
        cfg,
        network,
        data,
        folder,
        measured=[(network, sample_of(network, data, split, most=256))],
        class_counts=class_counts(experiment.cube, split),
        val_pixels=split.count(VAL),
        checkpoint=checkpoint,
    )
    return None if training is None else outcome_of(experiment, training, data)


def outcome_of(experiment: Experiment, training: Training, data: PatchDataModule) -> Outcome:
    """Reads the weights off a trained network, and classifies the scene.

    Raises:
        DivergedError: if a weight is not finite.
    """
    split, network = experiment.split, experiment.network
    weights = LearnedWeights(network, sample_of(network, data, split, most=1024))
    if not (_finite(network.state_dict().values()) and np.isfinite(weights.weight).all()):
        raise DivergedError("training: weights are not finite, expected numbers. Fix: lower optimizer.lr.")
    start = time.perf_counter()
    classes, confidence = predict_scene(network, split.labelled.scene, device=training.device)
    predict_seconds = time.perf_counter() - start
    instance = network.fusion.kind.endswith("instance")
    maps = instance_weight_maps(network, split.labelled.scene, device=training.device) if instance else None
    network.cpu()
    confusion, metrics = test_accuracies(split, classes)
    metrics["timing"] = {
        "train_seconds": training.seconds,
        "samples_per_second": training.samples_per_second,
        "predict_pixels_per_second": classes.size / predict_seconds,
    }
    return Outcome(
        training.history,
        training.best_step,
        classes,
        confidence,
        maps,
        confusion,
        weights,
        training.weight_history,
        metrics,
        beats_chance(confusion, receptive_field=network.receptive_field),
    )


def _finite(tensors: Iterable[torch.Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def test_accuracies(split: Split, classes: NDArray[np.int64]) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """The one look at the test pixels.

    Returns:
        the confusion matrix (K, K + 1), and the parts ``split`` and ``test`` of metrics.json.
    """
    legend = split.labelled.legend
    test = split.roles == TEST
    truth = legend.indices(split.labelled.labels)[test]
    confusion = confusion_matrix(truth, classes[test], num_classes=len(legend.codes))
    return confusion, {
        "split": {
            "kind": split.kind,
            "train_pixels": split.count(TRAIN),
            "val_pixels": split.count(VAL),
            "test_pixels": split.count(TEST),
            "leakage": split.leakage,
        },
        "test": accuracies(confusion, names=legend.names),
    }
