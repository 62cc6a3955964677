"""The training loop of a run: what the configuration says, handed to Lightning."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.trainer import make_trainer, run
from hsfusion.data.datamodule import PatchDataModule, SeveralDataModule, TrainingCube
from hsfusion.data.splits import TRAIN, Split
from hsfusion.errors import HsFusionError, InputError
from hsfusion.nn import SETTLED, FusionNetwork, SeveralNetworks
from hsfusion.training.callbacks import History, KeepBest, WeightHistory
from hsfusion.training.classifier import FusionClassifier, balanced_class_weights

_log = logging.getLogger(__name__)
_NEVER = 2.0  # share of the training after which a frozen part learns


@dataclass(frozen=True, eq=False)
class Training:
    """What a training left beside the network.

    Attributes:
        history: the curves.
        best_step: step of the model that was kept; None where the last was kept.
        weight_history: optimizer steps, and the weights (steps, C + E) at each.
        device: that it ran on.
        seconds: that it took.
        samples_per_second: pixels that it saw.
    """

    history: dict[str, tuple[list[int], list[float]]]
    best_step: int | None
    weight_history: tuple[list[int], NDArray[np.float64]]
    device: torch.device
    seconds: float
    samples_per_second: float


def train_network(
    cfg: DictConfig,
    network: FusionNetwork | SeveralNetworks,
    data: PatchDataModule | SeveralDataModule,
    folder: Path,
    *,
    measured: Sequence[tuple[FusionNetwork, torch.Tensor | None]],
    class_counts: NDArray[np.integer],
    val_pixels: int,
    checkpoint: Path | None,
) -> Training | None:
    """Trains a network in place, and keeps the best epoch by validation pixels.

    Args:
        cfg: the whole configuration.
        network: the network; it ends on the CPU.
        data: the patches.
        folder: where checkpoints and logs go.
        measured: the networks whose band weights are kept at every epoch, with patches for instance weights.
        class_counts: (K,) training pixels of each class.
        val_pixels: number of validation pixels.
        checkpoint: of an interrupted run, to go on with.

    Returns:
        what it left; None on all but the first process of a distributed run.
    """
    module = _classifier(cfg, network, class_counts)
    # the step after which the last batch knew its bands
    gates = network.fusion.gates
    settled = 0 if gates is None or gates.kept.any() else int(SETTLED * module.total_steps) + 1
    history, best, weights = History(), KeepBest(val_pixels, first_step=settled), WeightHistory(measured)
    last = ModelCheckpoint(folder / "checkpoints", "last", enable_version_counter=False)
    callbacks: list[pl.Callback] = [history, weights, best, last, *_stopping(cfg, val_pixels)]
    trainer = make_trainer(cfg, folder, callbacks, validated=val_pixels > 0)
    start = time.perf_counter()
    run(trainer, module, data, checkpoint)
    seconds = time.perf_counter() - start
    if not trainer.is_global_zero:
        return None
    best.restore(module)
    network.cpu()
    kept = "of the end" if best.step is None else best.step
    _log.info("trained %d steps in %.1f s, kept step %s", trainer.global_step, seconds, kept)
    return Training(
        history.curves,
        best.step,
        (weights.steps, np.array(weights.weights)),
        trainer.strategy.root_device,
        seconds,
        module.steps_run * cfg.data.batch_size / seconds,
    )


def _stopping(cfg: DictConfig, val_pixels: int) -> list[pl.Callback]:
    """What ends a training early, if the configuration says when."""
    if cfg.get("patience") is None:
        return []
    if not val_pixels:
        raise InputError(
            "split",
            field="number of validation pixels",
            value=0,
            expected="at least 1 for patience to go by",
            fix="leave out patience, or raise split.val_fraction",
        )
    return [EarlyStopping("val/overall_accuracy", mode="max", patience=cfg.patience)]


def patches_of(cfg: DictConfig, cube: TrainingCube, split: Split, **more: Any) -> PatchDataModule:
    """The patches of a scene, as the configuration says; ``more`` goes before it."""
    with blaming("data"):
        return instantiate(cfg.data)(cube, split, seed=cfg.seed, **more)


def class_counts(cube: TrainingCube, split: Split) -> NDArray[np.int64]:
    """(K,) training pixels of each class."""
    classes = cube.classes.numpy()[split.pixels(TRAIN)]
    return np.bincount(classes[classes >= 0], minlength=len(split.labelled.legend.codes))


def sample_of(network: FusionNetwork, data: PatchDataModule, split: Split, *, most: int) -> torch.Tensor | None:
    """Training patches over which instance weights are averaged; None for other kinds."""
    if not network.fusion.kind.endswith("instance"):
        return None
    pixels = torch.from_numpy(split.pixels(TRAIN))
    some = pixels[torch.linspace(0, len(pixels) - 1, min(most, len(pixels))).long()]
    return data.patches(some, step=None).cpu()


def plain(cfg: DictConfig | dict[str, Any]) -> dict[str, Any]:
    """A configuration as plain Python values, resolved."""
    values = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


@contextmanager
def blaming(part: str) -> Iterator[None]:
    """Turns what a constructor makes of a wrong value into an error of the input."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise HsFusionError(f"configuration: {part} cannot be used: {error}. Fix: correct {part}.*") from error


def _classifier(
    cfg: DictConfig, network: FusionNetwork | SeveralNetworks, counts: NDArray[np.integer]
) -> FusionClassifier:
    with blaming("optimizer"):
        optimizer = instantiate(cfg.optimizer)
        optimizer([torch.nn.Parameter(torch.zeros(1))])  # values out of range show here and not in the middle of it
    return FusionClassifier(
        network,
        optimizer=optimizer,
        total_steps=cfg.trainer.max_epochs * cfg.data.steps_per_epoch,
        seed=cfg.seed,
        fusion_lr_scale=cfg.fusion_lr_scale,
        band_cost=cfg.band_cost,
        class_weights=_class_weights(cfg.class_weights, counts),
        label_smoothing=cfg.label_smoothing,
        thaw_at={**plain(cfg.get("thaw_at", {})), **dict.fromkeys(cfg.get("freeze", ()), _NEVER)},
        lr_scales=plain(cfg.get("lr_scales", {})),
    )


def _class_weights(kind: str, counts: NDArray[np.integer]) -> list[float] | None:
    if kind == "none":
        return None
    if kind != "balanced":
        raise InputError(
            "configuration", field="class_weights", value=kind, expected="none or balanced", fix="correct it"
        )
    return balanced_class_weights(counts.tolist())
