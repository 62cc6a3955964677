"""Callbacks of the training."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch


class History(pl.Callback):
    """Keeps what is logged at the end of each epoch, in memory and in the checkpoint.

    Attributes:
        curves: name -> (steps, values).
    """

    def __init__(self) -> None:
        self.curves: dict[str, tuple[list[int], list[float]]] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Appends the metrics of the epoch."""
        for name, value in trainer.callback_metrics.items():
            steps, values = self.curves.setdefault(name, ([], []))
            steps.append(trainer.global_step)
            values.append(float(value))

    def state_dict(self) -> dict[str, Any]:
        """What goes into the checkpoint."""
        return {"curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it back."""
        self.curves = {name: (list(steps), list(values)) for name, (steps, values) in state_dict["curves"].items()}


class KeepBest(pl.Callback):
    """Keeps the weights of the epoch with the highest overall accuracy on validation pixels, by lower loss among equals.

    They go into the checkpoint, so that a resumed run chooses among all epochs.

    Attributes:
        step: optimizer step of the kept weights; None as long as there was no validation.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self._score = (-1.0, 0.0)
        self._weights: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compares the epoch with the best so far."""
        metrics = trainer.callback_metrics
        if "val/overall_accuracy" not in metrics:
            return
        score = (float(metrics["val/overall_accuracy"]), -float(metrics["val/loss"]))
        if score > self._score:
            self._score, self.step = score, trainer.global_step
            self._weights = {name: tensor.detach().cpu().clone() for name, tensor in pl_module.state_dict().items()}

    def restore(self, module: pl.LightningModule) -> None:
        """Gives the module the best weights; it keeps its own where there was no validation."""
        if self.step is not None:
            module.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """What goes into the checkpoint."""
        return {"step": self.step, "score": list(self._score), "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it back."""
        self.step, self._weights = state_dict["step"], state_dict["weights"]
        self._score = (state_dict["score"][0], state_dict["score"][1])
