"""Lightning's Trainer, from the configuration."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import RichProgressBar
from omegaconf import DictConfig

from hsfusion.cli.main import raw
from hsfusion.data.datamodule import PatchDataModule, SeveralDataModule
from hsfusion.errors import EnvironmentFailure, HsFusionError, InputError
from hsfusion.training.classifier import FusionClassifier


def make_trainer(cfg: DictConfig, folder: Path, callbacks: list[pl.Callback], *, validated: bool) -> pl.Trainer:
    """Builds the Trainer that the configuration names.

    Args:
        cfg: the whole configuration.
        folder: where logs go.
        callbacks: beside the progress bar.
        validated: False where there are no validation pixels.

    Raises:
        HsFusionError: if it cannot be built.
        EnvironmentFailure: if this machine has not what it asks for.
    """
    _check_trainer(cfg)
    for name in ("lightning.pytorch", "lightning.fabric"):  # which sets its own level when it is imported
        logging.getLogger(name).setLevel(logging.WARNING)
    loggers = [instantiate(logger)(save_dir=folder / "logs") for logger in (cfg.logger or {}).values()]
    if cfg.progress:
        callbacks = [*callbacks, RichProgressBar(console_kwargs={"file": raw(sys.stdout)})]
    try:
        return instantiate(cfg.trainer)(
            callbacks=callbacks,
            logger=loggers or False,
            enable_progress_bar=cfg.progress,
            enable_model_summary=False,
            use_distributed_sampler=False,
            # a network that was trained before may be best as it is
            num_sanity_val_steps=-1 if cfg.get("pretrained") and validated else 0,
            limit_val_batches=1.0 if validated else 0,
            log_every_n_steps=cfg.data.steps_per_epoch,
        )
    except MisconfigurationException as error:
        raise EnvironmentFailure(
            f"trainer: accelerator is {cfg.trainer.accelerator} with {cfg.trainer.devices} devices, expected what this "
            f"machine has ({error}). Fix: use trainer=cpu or trainer=auto."
        ) from error
    except (TypeError, ValueError) as error:
        raise HsFusionError(f"configuration: trainer cannot be used: {error}. Fix: correct trainer.*") from error


def _check_trainer(cfg: DictConfig) -> None:
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN and cfg.trainer.devices != 1:
        raise InputError(
            "trainer",
            field="devices",
            value=cfg.trainer.devices,
            expected="1 in a multirun",
            fix="start distributed runs one by one, without --multirun",
        )


def run(
    trainer: pl.Trainer,
    module: FusionClassifier,
    data: PatchDataModule | SeveralDataModule,
    checkpoint: Path | None,
) -> None:
    """Trains, from a checkpoint on if there is one."""
    with warnings.catch_warnings():
        # the loaders hold a few indices each: workers would only cost time
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists.*")
        warnings.filterwarnings("ignore", message=".*dirpath has changed.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # lightning 2.6 with torch 2.13
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
