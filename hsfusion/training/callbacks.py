"""Callbacks of the training."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


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
