"""The training loop: settings handed to Lightning's Trainer."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from numpy.typing import NDArray

from hsfusion.data.patches import PatchDataModule, SeveralDataModule, TrainingCube
from hsfusion.data.splits import TRAIN, Split
from hsfusion.errors import EnvironmentFailure, HsFusionError, InputError, unescaped
from hsfusion.nn import SETTLED, FusionNetwork, MultiSceneNetwork
from hsfusion.runs.settings import TrainSettings
from hsfusion.training.callbacks import History, KeepBest, WeightHistory
from hsfusion.training.classifier import FusionClassifier, balanced_class_weights

_log = logging.getLogger(__name__)
_NEVER = 2.0  # share of the training after which a frozen part learns


@dataclass(frozen=True, eq=False)
class FittedNetwork:
    """What the training loop leaves beside the network.

    Attributes:
        history: name of a metric -> optimizer steps and values.
        best_step: step of the model that was kept; None where the last was kept.
        weight_history: optimizer steps, and the band weights (steps, C + E) at each.
        device: that it ran on.
        seconds: that it took.
        samples_per_second: patches that it saw.
        is_main: whether this is the process that writes files: False on all but the first of a distributed run.
    """

    history: dict[str, tuple[list[int], list[float]]]
    best_step: int | None
    weight_history: tuple[list[int], NDArray[np.float64]]
    device: torch.device
    seconds: float
    samples_per_second: float
    is_main: bool


def fit_network(
    settings: TrainSettings,
    network: FusionNetwork | MultiSceneNetwork,
    data: PatchDataModule | SeveralDataModule,
    folder: Path | None,
    *,
    measured: Sequence[tuple[FusionNetwork, torch.Tensor | None]],
    class_counts: NDArray[np.integer],
    val_pixels: int,
    pretrained: bool,
    checkpoint: Path | None,
) -> FittedNetwork:
    """Trains a network in place, and keeps the best epoch by validation pixels.

    Args:
        settings: of the training.
        network: the network; it ends on the CPU.
        data: the patches.
        folder: where checkpoints and logs go; None to write nothing.
        measured: the networks whose band weights are kept at every epoch, with patches for instance weights.
        class_counts: (K,) training pixels of each class.
        val_pixels: number of validation pixels.
        pretrained: whether the network may be best as it is: its start counts as an epoch.
        checkpoint: of an interrupted run, to go on with.
    """
    module = _classifier(settings, network, class_counts)
    # the step after which the last batch knew its bands
    gates = network.fusion.gates
    settled = 0 if gates is None or gates.kept.any() else int(SETTLED * module.total_steps) + 1
    history, best, weights = History(), KeepBest(val_pixels, first_step=settled), WeightHistory(measured)
    callbacks: list[pl.Callback] = [history, weights, best]
    if folder is not None:
        callbacks.append(ModelCheckpoint(folder / "checkpoints", "last", enable_version_counter=False))
    callbacks += _stopping(settings, val_pixels)
    trainer = _trainer(settings, folder, callbacks, validated=val_pixels > 0, pretrained=pretrained)
    start = time.perf_counter()
    run_trainer(trainer, module, data, checkpoint=checkpoint)
    seconds = time.perf_counter() - start
    best.restore(module)
    network.cpu()
    kept = "of the end" if best.step is None else best.step
    _log.info("trained %d steps in %.1f s, kept step %s", trainer.global_step, seconds, kept)
    return FittedNetwork(
        history.curves,
        best.step,
        (weights.steps, np.array(weights.weights)),
        trainer.strategy.root_device,
        seconds,
        module.steps_run * settings.batch_size / seconds,
        trainer.is_global_zero,
    )


def run_trainer(
    trainer: pl.Trainer,
    module: FusionClassifier,
    data: PatchDataModule | SeveralDataModule,
    *,
    checkpoint: Path | None = None,
) -> None:
    """Trains, from a checkpoint on if there is one, without the warnings that do not apply."""
    with warnings.catch_warnings():
        # the loaders hold a few indices each: workers would only cost time
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists.*")
        warnings.filterwarnings("ignore", message=".*dirpath has changed.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # lightning 2.6 with torch 2.13
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)


def _stopping(settings: TrainSettings, val_pixels: int) -> list[pl.Callback]:
    """What ends a training early, if the settings say when."""
    if settings.patience is None:
        return []
    if not val_pixels:
        raise InputError(
            "split",
            "number of validation pixels",
            0,
            "at least 1 for patience to go by",
            "leave out patience, or raise split.val_fraction",
        )
    return [EarlyStopping("val/overall_accuracy", mode="max", patience=settings.patience)]


def _trainer(
    settings: TrainSettings, folder: Path | None, callbacks: list[pl.Callback], *, validated: bool, pretrained: bool
) -> pl.Trainer:
    """Builds Lightning's Trainer.

    Raises:
        HsFusionError: if it cannot be built.
        EnvironmentFailure: if this machine has not what it asks for.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):  # which sets its own level when it is imported
        logging.getLogger(name).setLevel(logging.WARNING)
    make = settings.trainer or partial(pl.Trainer, accelerator="auto", devices=1, deterministic=True)
    loggers = [] if folder is None else [logger(save_dir=folder / "logs") for logger in settings.loggers]
    bar: list[pl.Callback] = (
        [RichProgressBar(console_kwargs={"file": unescaped(sys.stdout)})] if settings.progress else []
    )
    try:
        return make(
            max_epochs=settings.epochs,
            callbacks=[*callbacks, *settings.callbacks, *bar],
            logger=loggers or False,
            enable_progress_bar=settings.progress,
            enable_model_summary=False,
            enable_checkpointing=folder is not None,
            use_distributed_sampler=False,
            num_sanity_val_steps=-1 if pretrained and validated else 0,
            limit_val_batches=1.0 if validated else 0,
            log_every_n_steps=settings.steps_per_epoch,
        )
    except MisconfigurationException as error:
        asked = getattr(make, "keywords", {})
        raise EnvironmentFailure(
            f"trainer: accelerator is {asked.get('accelerator')} with {asked.get('devices')} devices, expected what "
            f"this machine has ({error}). Fix: use trainer=cpu or trainer=auto."
        ) from error
    except (TypeError, ValueError) as error:
        raise HsFusionError(f"configuration: trainer cannot be used: {error}. Fix: correct trainer.*") from error


def patch_data(
    settings: TrainSettings, cube: TrainingCube, split: Split, *, batch_size: int | None = None
) -> PatchDataModule:
    """The patches of a scene."""
    with configuration_errors("data"):
        return PatchDataModule(
            cube,
            split,
            seed=settings.seed,
            batch_size=settings.batch_size if batch_size is None else batch_size,
            steps_per_epoch=settings.steps_per_epoch,
            noise=settings.noise,
            flips=settings.flips,
            range_dropout=settings.range_dropout,
        )


def class_counts(cube: TrainingCube, split: Split) -> NDArray[np.int64]:
    """(K,) training pixels of each class."""
    classes = cube.classes.numpy()[split.pixels(TRAIN)]
    return np.bincount(classes[classes >= 0], minlength=len(split.labelled.legend.codes))


def sample_patches(network: FusionNetwork, data: PatchDataModule, split: Split, *, most: int) -> torch.Tensor | None:
    """Training patches over which instance weights are averaged; None for other kinds."""
    if not network.fusion.kind.endswith("instance"):
        return None
    pixels = torch.from_numpy(split.pixels(TRAIN))
    some = pixels[torch.linspace(0, len(pixels) - 1, min(most, len(pixels))).long()]
    return data.patches(some, step=None).cpu()


@contextmanager
def configuration_errors(part: str) -> Iterator[None]:
    """Turns what a constructor makes of a wrong value into an error of the input."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise HsFusionError(f"configuration: {part} cannot be used: {error}. Fix: correct {part}.*") from error


def _classifier(
    settings: TrainSettings, network: FusionNetwork | MultiSceneNetwork, counts: NDArray[np.integer]
) -> FusionClassifier:
    optimizer = settings.optimizer or partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01)
    with configuration_errors("optimizer"):
        optimizer([torch.nn.Parameter(torch.zeros(1))])  # values out of range show here and not in the middle of it
    return FusionClassifier(
        network,
        optimizer=optimizer,
        total_steps=settings.steps,
        seed=settings.seed,
        fusion_lr_scale=settings.fusion_lr_scale,
        band_cost=settings.band_cost,
        class_weights=balanced_class_weights(counts.tolist()) if settings.class_weights == "balanced" else None,
        label_smoothing=settings.label_smoothing,
        thaw_at={**settings.thaw_at, **dict.fromkeys(settings.freeze, _NEVER)},
        lr_scales=settings.lr_scales,
    )
