"""One training, from the configuration to a network and its numbers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.trainer import make_trainer, run
from hsfusion.data.datamodule import PatchDataModule, TrainingCube, check_patch_fits, prepare, valid_pixels
from hsfusion.data.splits import TEST, TRAIN, VAL, Split
from hsfusion.errors import DivergedError, HsFusionError, InputError
from hsfusion.inference import instance_weight_maps, predict_scene
from hsfusion.nn import SETTLED, FusionNetwork
from hsfusion.scenes import LabelledScene, recorded
from hsfusion.spectra import BandGroup
from hsfusion.training.accuracy import accuracies, confusion_matrix
from hsfusion.training.building import LearnedWeights
from hsfusion.training.callbacks import History, KeepBest, WeightHistory
from hsfusion.training.classifier import FusionClassifier, balanced_class_weights

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Experiment:
    """All that is known before the training.

    Attributes:
        split: which pixel is used for what, with scene and ground truth.
        groups: the band groups.
        architecture: plain keyword arguments that build the network again.
        network: untrained, with mean and standard deviation of the training pixels.
        cube: the prepared scene.
    """

    split: Split
    groups: list[BandGroup]
    architecture: dict[str, Any]
    network: FusionNetwork
    cube: TrainingCube


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


def set_up(cfg: DictConfig) -> Experiment:
    """Opens the scene, splits it and builds the network.

    Raises:
        HsFusionError: if anything of it does not fit together.
    """
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    labelled = instantiate(cfg.scene)
    if not isinstance(labelled, LabelledScene):
        raise InputError(
            "command line", field="scene", value="without labels", expected="a scene with labels", fix="use scene=file"
        )
    scene = labelled.scene
    for entry in recorded(scene):
        _log.info("values: %s", entry)
    with _blaming("groups"):
        groups = instantiate(cfg.groups)(scene.bands)
    architecture = {key: value for key, value in plain(cfg.model).items() if not key.startswith("_")}
    with _blaming("model"):
        build = partial(instantiate(cfg.model), scene.bands, groups, sources=scene.sources)
        # what the network sees decides on the split, the split on the classes: 2 stand in until they are known
        plan = build(num_classes=2)
    used_bands = plan.used_bands.numpy()
    check_patch_fits(scene, plan.receptive_field)
    valid = valid_pixels(scene, used_bands)
    with _blaming("split"):
        split = instantiate(cfg.split)(labelled, radius=plan.receptive_field // 2, seed=cfg.seed, valid=valid)
    holes = split.holes(valid)
    if holes:
        _log.warning("%.1f %% of the training patches hold pixels without data, seen as the band's mean.", 100 * holes)
    counts = ", ".join(
        f"{split.count(role)} {name}" for role, name in ((TRAIN, "training"), (VAL, "validation"), (TEST, "test"))
    )
    _log.info(
        "%s, %d groups, %s split: %s pixels, leakage %.4f", scene.name, len(groups), split.kind, counts, split.leakage
    )
    cube = prepare(split, used_bands)
    torch.manual_seed(cfg.seed)
    network = build(num_classes=len(split.labelled.legend.codes))
    network.mean.copy_(torch.from_numpy(cube.mean))
    network.std.copy_(torch.from_numpy(cube.std))
    return Experiment(split, groups, architecture, network, cube)


@contextmanager
def _blaming(part: str) -> Iterator[None]:
    """Turns what a constructor makes of a wrong value into an error of the input."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise HsFusionError(f"configuration: {part} cannot be used: {error}. Fix: correct {part}.*") from error


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
    data, module = _modules(cfg, experiment)
    # the step after which the last batch knew its bands
    settled = 0 if network.fusion.gates is None else int(SETTLED * module.total_steps) + 1
    history, best = History(), KeepBest(split.count(VAL), first_step=settled)
    weight_history = WeightHistory(_sample(experiment, data, most=256))
    last = ModelCheckpoint(folder / "checkpoints", "last", enable_version_counter=False)
    trainer = make_trainer(cfg, folder, [history, weight_history, best, last], validated=split.count(VAL) > 0)
    start = time.perf_counter()
    run(trainer, module, data, checkpoint)
    train_seconds = time.perf_counter() - start
    if not trainer.is_global_zero:
        return None
    best.restore(module)
    device = trainer.strategy.root_device
    network.cpu()
    weights = LearnedWeights(network, _sample(experiment, data, most=1024))
    if not (_finite(network.state_dict().values()) and np.isfinite(weights.weight).all()):
        raise DivergedError("training: weights are not finite, expected numbers. Fix: lower optimizer.lr.")
    _log.info("trained %d steps in %.1f s, kept step %s", trainer.global_step, train_seconds, best.step or "of the end")
    start = time.perf_counter()
    classes, confidence = predict_scene(network, split.labelled.scene, device=device)
    predict_seconds = time.perf_counter() - start
    instance = network.fusion.kind.endswith("instance")
    maps = instance_weight_maps(network, split.labelled.scene, device=device) if instance else None
    network.cpu()
    confusion, metrics = test_accuracies(split, classes)
    metrics["timing"] = {
        "train_seconds": train_seconds,
        "samples_per_second": module.steps_run * cfg.data.batch_size / train_seconds,
        "predict_pixels_per_second": classes.size / predict_seconds,
    }
    recorded = weight_history.steps, np.array(weight_history.weights)
    return Outcome(history.curves, best.step, classes, confidence, maps, confusion, weights, recorded, metrics)


def _finite(tensors: Iterable[torch.Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def _modules(cfg: DictConfig, experiment: Experiment) -> tuple[PatchDataModule, FusionClassifier]:
    with _blaming("data"):
        data = instantiate(cfg.data)(experiment.cube, experiment.split, seed=cfg.seed)
    with _blaming("optimizer"):
        optimizer = instantiate(cfg.optimizer)
        optimizer([torch.nn.Parameter(torch.zeros(1))])  # values out of range show here and not in the middle of it
    module = FusionClassifier(
        experiment.network,
        optimizer=optimizer,
        total_steps=cfg.trainer.max_epochs * cfg.data.steps_per_epoch,
        seed=cfg.seed,
        fusion_lr_scale=cfg.fusion_lr_scale,
        band_cost=cfg.band_cost,
        class_weights=_class_weights(cfg.class_weights, experiment),
        label_smoothing=cfg.label_smoothing,
    )
    return data, module


def _sample(experiment: Experiment, data: PatchDataModule, *, most: int) -> torch.Tensor | None:
    """Training patches over which instance weights are averaged; None for other kinds."""
    if not experiment.network.fusion.kind.endswith("instance"):
        return None
    pixels = torch.from_numpy(experiment.split.pixels(TRAIN))
    some = pixels[torch.linspace(0, len(pixels) - 1, min(most, len(pixels))).long()]
    return data.patches(some, step=None).cpu()


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain Python values, resolved."""
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _class_weights(kind: str, experiment: Experiment) -> list[float] | None:
    if kind == "none":
        return None
    if kind != "balanced":
        raise InputError(
            "configuration", field="class_weights", value=kind, expected="none or balanced", fix="correct it"
        )
    classes = experiment.cube.classes.numpy()[experiment.split.pixels(TRAIN)]
    return balanced_class_weights(np.bincount(classes[classes >= 0]).tolist())


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
