"""One training: a scene, a split and settings to a trained network and what it says."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsfusion.data.patches import PatchDataModule, TrainingCube, check_patch_fits, prepare, valid_pixels
from hsfusion.data.splits import TEST, TRAIN, VAL, Split, dilate
from hsfusion.errors import DivergedError, InputError
from hsfusion.inference import instance_weight_maps, predict_scene
from hsfusion.nn import FusionNetwork, check_backbone
from hsfusion.runs.fitting import (
    FittedNetwork,
    class_counts,
    configuration_errors,
    fit_network,
    patch_data,
    sample_patches,
)
from hsfusion.runs.folder import start_folder, training_log
from hsfusion.runs.resuming import check_checkpoint, interrupted_checkpoint
from hsfusion.runs.run import Run, Training, run_of
from hsfusion.runs.settings import TrainSettings, describe, with_fields
from hsfusion.scenes import LabelledScene, Scene
from hsfusion.scenes.description import open_described
from hsfusion.spectra import BandGroup, membership
from hsfusion.training.building import WeightReadout, backbone_arguments, build_network
from hsfusion.training.classifier import accuracies, confusion_matrix
from hsfusion.training.transfer import TransferReport
from hsfusion.trust.verdict import beats_chance

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainingResult:
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
        is_main: whether this is the process that writes files.
    """

    history: dict[str, tuple[list[int], list[float]]]
    best_step: int | None
    classes: NDArray[np.int64]
    confidence: NDArray[np.float32]
    instance_maps: NDArray[np.float32] | None
    confusion: NDArray[np.int64]
    weights: WeightReadout
    weight_history: tuple[list[int], NDArray[np.float64]]
    metrics: dict[str, Any]
    beats_chance: bool
    is_main: bool

    @property
    def val_accuracy(self) -> float | None:
        """Overall accuracy of the model that was kept on the validation pixels; None without any."""
        steps, values = self.history.get("val/overall_accuracy", ([], []))
        return dict(zip(steps, values, strict=True)).get(self.best_step or -1)


@dataclass(frozen=True, eq=False)
class InitialModel:
    """A network before the training.

    Attributes:
        network: new, or transferred from another scene.
        groups: the band groups.
        architecture: plain keyword arguments that build the network again.
        transfer: what became of the parts of the pretrained network; None for a new one.
        seen_before: pixels of other grounds, and of earlier trainings.
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
        initial: the network, with mean and standard deviation of the training pixels; trained in place.
        cube: the patches of the training and validation pixels.
    """

    split: Split
    initial: InitialModel
    cube: TrainingCube

    @property
    def network(self) -> FusionNetwork:
        """The network."""
        return self.initial.network


def train(
    scene: LabelledScene | str | Path,
    *,
    settings: TrainSettings | None = None,
    name: str | None = None,
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    command: str = "",
    configuration: str | None = None,
    **fields: Any,
) -> Run:
    """Trains a network on a scene with labels.

    Args:
        scene: the scene, or the path of its description (YAML).
        settings: of the training; None for the defaults.
        name: of the run, in figures and reports; None for the name of the scene.
        folder: a new run folder for checkpoints, tables, maps, figures and report; None to write nothing.
        resume: run folder of an interrupted run with the same settings, to go on with.
        command: how to repeat the run, for its report.
        configuration: the settings as YAML, for config.yaml; None for those of this call.
        **fields: fields of :class:`TrainSettings` that replace those of ``settings``: ``epochs=20, seed=1``.
            A mapping for ``model`` replaces fields of the model: ``model={"channels": 16}``.

    Returns:
        the run. Of a distributed run only the first process writes the folder.

    Raises:
        HsFusionError: if the input cannot be used, or the training diverges.
    """
    settings = with_fields(settings, fields)
    with training_log() as log:
        if command:
            _log.info(command)
        labelled = as_labelled(scene)
        name, configuration = name or labelled.scene.name, configuration or describe(settings)
        checkpoint = None if resume is None else interrupted_checkpoint(Path(resume), configuration)
        experiment = prepare_experiment(labelled, settings)
        if checkpoint is not None:
            check_checkpoint(checkpoint, settings, experiment.network)
        architecture = experiment.initial.architecture
        path = None if folder is None else start_folder(Path(folder), configuration, log, architecture=architecture)
        result = fit(settings, experiment, path, checkpoint=checkpoint)
        run = run_of(name, Training(settings, experiment, result, command, configuration))
        if path is not None and result.is_main:
            run.write_outputs(path, figures=settings.figures)
    return run


def as_labelled(scene: LabelledScene | str | Path) -> LabelledScene:
    """A scene with labels, opened where it is the path of a description.

    Raises:
        InputError: if it has no labels.
    """
    if isinstance(scene, str | Path):
        scene = open_described([str(scene)])
    if not isinstance(scene, LabelledScene):
        raise InputError("scene", "labels", "missing", "a scene with labels", "open it with labels=PATH")
    return scene


#: builds the network: called with the scene and the names of its classes
ModelMaker = Callable[[Scene, Sequence[str]], InitialModel]


def new_model(
    settings: TrainSettings, scene: Scene, class_names: Sequence[str], *, groups: list[BandGroup] | None = None
) -> InitialModel:
    """A network that has seen nothing yet; ``groups`` stand for those that the settings make."""
    if groups is None:
        with configuration_errors("groups"):
            groups = list(settings.groups(scene.bands))
    architecture = asdict(settings.model)
    architecture |= backbone_arguments(architecture.pop("backbone"))
    with configuration_errors("model"):
        network = build_network(
            scene.bands, groups, sources=scene.sources, num_classes=len(class_names), **architecture
        )
        check_backbone(network.cnn.features, channels=settings.model.channels)
    return InitialModel(network, groups, architecture)


def prepare_experiment(
    labelled: LabelledScene, settings: TrainSettings, *, make: ModelMaker | None = None
) -> Experiment:
    """Splits a scene, builds the network and standardises the training pixels.

    Args:
        labelled: the scene with its ground truth.
        settings: of the training.
        make: builds the network; None for a new one.

    Raises:
        HsFusionError: if anything of it does not fit together.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    make = make or partial(new_model, settings)
    torch.manual_seed(settings.seed)
    initial = make(labelled.scene, labelled.legend.names)
    network = initial.network
    split = split_scene(labelled, settings, radius=network.receptive_field // 2, used=network.used_bands.numpy())
    if split.labelled.legend.names != labelled.legend.names:  # a fixed split brings classes of its own
        return initialise(split, settings, make=make)
    return _standardised(split, initial)


def split_scene(labelled: LabelledScene, settings: TrainSettings, *, radius: int, used: NDArray[np.bool_]) -> Split:
    """Splits a scene for a receptive field of ``radius`` pixels around each and the used bands and layers (C + E,)."""
    scene = labelled.scene
    for entry in scene.provenance():
        _log.info("values: %s", entry)
    check_patch_fits(scene, 2 * radius + 1)
    valid = valid_pixels(scene, used, where=dilate(labelled.labels > 0, radius))
    with configuration_errors("split"):
        split = settings.split(labelled, radius=radius, seed=settings.seed, valid=valid)
    _log_split(split, valid)
    return split


def used_layers(scene: Scene, settings: TrainSettings) -> NDArray[np.bool_]:
    """(C + E,) bands and layers that a new network may use: good bands in a group, and further rasters."""
    bands = scene.bands
    inside = bands.good
    if settings.model.fusion != "free":
        with configuration_errors("groups"):
            inside = membership(list(settings.groups(bands)), bands).any(0)
    return np.append(inside, np.ones(sum(number for _, number in scene.sources), bool))


def initialise(split: Split, settings: TrainSettings, *, make: ModelMaker | None = None) -> Experiment:
    """Builds the network for a split, standardised with its training pixels."""
    torch.manual_seed(settings.seed)
    make = make or partial(new_model, settings)
    return _standardised(split, make(split.labelled.scene, split.labelled.legend.names))


def _standardised(split: Split, initial: InitialModel) -> Experiment:
    network = initial.network
    cube = prepare(split, network.used_bands.numpy(), roles=(TRAIN, VAL))
    network.mean.copy_(torch.from_numpy(cube.mean))
    network.std.copy_(torch.from_numpy(cube.std))
    network.train()  # Lightning leaves it as it is
    gates = network.fusion.gates
    if gates is not None and gates.kept.any():  # settled for good: processes that train together would miss gradients
        gates.requires_grad_(False)
    return Experiment(split, initial, cube)


def _log_split(split: Split, valid: NDArray[np.bool_]) -> None:
    holes = split.holes(valid)
    if holes:
        _log.warning("%.1f %% of the training patches hold pixels without data, seen as the band's mean.", 100 * holes)
    counts = ", ".join(
        f"{split.count(role)} {name}" for role, name in ((TRAIN, "training"), (VAL, "validation"), (TEST, "test"))
    )
    name = split.labelled.scene.name
    _log.info("%s, %s split: %s pixels, leakage %.4f", name, split.kind, counts, split.leakage)


def fit(
    settings: TrainSettings, experiment: Experiment, folder: Path | None = None, *, checkpoint: Path | None = None
) -> TrainingResult:
    """Trains, keeps the best epoch by validation pixels, and classifies the scene.

    Args:
        settings: of the training.
        experiment: from :func:`prepare_experiment`; its network is trained in place.
        folder: where checkpoints and logs go; None to write nothing.
        checkpoint: of an interrupted run, to go on with.

    Raises:
        DivergedError: if a weight is not finite at the end.
    """
    split, network = experiment.split, experiment.network
    data = patch_data(settings, experiment.cube, split)
    fitted = fit_network(
        settings,
        network,
        data,
        folder,
        measured=[(network, sample_patches(network, data, split, most=256))],
        class_counts=class_counts(experiment.cube, split),
        val_pixels=split.count(VAL),
        pretrained=experiment.initial.transfer is not None,
        checkpoint=checkpoint,
    )
    return read_result(experiment, fitted, data)


def read_result(experiment: Experiment, fitted: FittedNetwork, data: PatchDataModule) -> TrainingResult:
    """Reads the weights off a trained network, and classifies the scene.

    Raises:
        DivergedError: if a weight is not finite.
    """
    split, network = experiment.split, experiment.network
    weights = WeightReadout(network, sample_patches(network, data, split, most=1024))
    if not (_finite(network.state_dict().values()) and np.isfinite(weights.weight).all()):
        raise DivergedError("training: weights are not finite, expected numbers. Fix: lower optimizer.lr.")
    start = time.perf_counter()
    classes, confidence = predict_scene(network, split.labelled.scene, device=fitted.device)
    predict_seconds = time.perf_counter() - start
    instance = network.fusion.kind.endswith("instance")
    maps = instance_weight_maps(network, split.labelled.scene, device=fitted.device) if instance else None
    network.cpu()
    confusion, metrics = evaluate_test(split, classes)
    metrics["timing"] = {
        "train_seconds": fitted.seconds,
        "samples_per_second": fitted.samples_per_second,
        "predict_pixels_per_second": classes.size / predict_seconds,
    }
    return TrainingResult(
        fitted.history,
        fitted.best_step,
        classes,
        confidence,
        maps,
        confusion,
        weights,
        fitted.weight_history,
        metrics,
        beats_chance(confusion, receptive_field=network.receptive_field),
        fitted.is_main,
    )


def _finite(tensors: Iterable[torch.Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def evaluate_test(split: Split, classes: NDArray[np.int64]) -> tuple[NDArray[np.int64], dict[str, Any]]:
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
