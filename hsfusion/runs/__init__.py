"""Experiments as Python: train, fine-tune, predict, compare, and the run that each gives.

The names are imported when they are first used: tables of runs are read and compared without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# name -> module of this package
_MODULES = {
    "ModelSettings": "settings",
    "PredictSettings": "prediction",
    "Run": "run",
    "TrainSettings": "settings",
    "compare": "comparison",
    "finetune": "finetuning",
    "load_run": "run",
    "predict": "prediction",
    "train": "training",
    "train_jointly": "joint",
}
__all__ = [
    "ModelSettings",
    "PredictSettings",
    "Run",
    "TrainSettings",
    "compare",
    "finetune",
    "load_run",
    "predict",
    "train",
    "train_jointly",
]

if TYPE_CHECKING:
    from hsfusion.runs.comparison import compare
    from hsfusion.runs.finetuning import finetune
    from hsfusion.runs.joint import train_jointly
    from hsfusion.runs.prediction import PredictSettings, predict
    from hsfusion.runs.run import Run, load_run
    from hsfusion.runs.settings import ModelSettings, TrainSettings
    from hsfusion.runs.training import train


def __getattr__(name: str) -> Any:
    """Imports a name."""
    if name not in _MODULES:
        raise AttributeError(f"module 'hsfusion.runs' has no attribute {name!r}")
    return getattr(import_module(f"hsfusion.runs.{_MODULES[name]}"), name)
