"""Callbacks of the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch

from hsfusion.nn import FusionNetwork
from hsfusion.training.building import WeightReadout

_FORGOTTEN = 1 / 3  # of the losses so far, at each epoch


class _Checkpointed(pl.Callback):
    """A callback of which the attributes named in ``kept`` go into the checkpoint."""

    kept: tuple[str, ...] = ()

    def state_dict(self) -> dict[str, Any]:
        """What goes into the checkpoint."""
        return {name.lstrip("_"): getattr(self, name) for name in self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it back."""
        for name in self.kept:
            setattr(self, name, state_dict[name.lstrip("_")])


class History(_Checkpointed):
    """Keeps what is logged at the end of each epoch as curves, name -> (steps, values), also in the checkpoint."""

    kept = ("curves",)

    def __init__(self) -> None:
        self.curves: dict[str, tuple[list[int], list[float]]] = {}

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Appends the metrics of the start, where it was validated."""
        self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Appends the metrics of the epoch."""
        for name, value in trainer.callback_metrics.items():
            steps, values = self.curves.setdefault(name, ([], []))
            steps.append(trainer.global_step)
            values.append(float(value))


class WeightHistory(_Checkpointed):
    """Keeps steps and band weights (C,), one network's after the other's, of each epoch, also in the checkpoint.

    ``measured`` are the network that is trained, or those of several scenes, each with (B, C, H, W) standardised
    patches over which instance weights are averaged; None for other kinds.
    """

    kept = ("steps", "weights")

    def __init__(self, measured: Sequence[tuple[FusionNetwork, torch.Tensor | None]]) -> None:
        self._measured = list(measured)
        self.steps: list[int] = []
        self.weights: list[list[float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Appends the weights of the epoch."""
        device = pl_module.device
        self._measured = [(network, None if x is None else x.to(device)) for network, x in self._measured]
        self.steps.append(trainer.global_step)
        self.weights.append([w for network, x in self._measured for w in WeightReadout(network, x).weight.tolist()])


class KeepBest(_Checkpointed):
    """Keeps the weights of the epoch with the lowest smoothed validation loss.

    The loss is that of the validation pixels, an exponential mean over the epochs so far that forgets a third at each:
    validation pixels are few, and the plain minimum is often a lucky early epoch. The start counts as an epoch, where
    it is validated; epochs that end before ``first_step`` do not: bands were still opening and closing. The weights go
    into the checkpoint, so that a resumed run chooses among all epochs. ``step`` is None as long as there was no
    validation.
    """

    kept = ("step", "_best", "_smooth", "_weights")

    def __init__(self, *, first_step: int = 0) -> None:
        self.first_step = first_step
        self.step: int | None = None
        self._best = self._smooth = 0.0
        self._weights: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compares the epoch with the best so far."""
        loss = trainer.callback_metrics.get("val/loss")
        if loss is None or trainer.global_step < self.first_step:
            return
        self._smooth += (float(loss) - self._smooth) * (1.0 if self.step is None else _FORGOTTEN)
        if self.step is None or self._smooth < self._best:
            self.step, self._best = trainer.global_step, self._smooth
            self._weights = {name: tensor.detach().cpu().clone() for name, tensor in pl_module.state_dict().items()}

    def restore(self, module: pl.LightningModule) -> None:
        """Gives the module the best weights; it keeps its own where there was no validation."""
        if self.step is not None:
            module.load_state_dict(self._weights)
