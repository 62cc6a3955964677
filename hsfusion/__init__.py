"""Hyperspectral band fusion with learned band weights that can be trusted.

The names below are imported when they are first used; ``import hsfusion`` itself imports none of its parts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# name -> module that holds it, and its name there where that is another
_FRONT_DOOR = {
    "open_scene": ("hsfusion.scenes.description", "open_path"),
    "indian_pines": ("hsfusion.data.public", "indian_pines"),
    "train": ("hsfusion.runs.training", "train"),
    "train_jointly": ("hsfusion.runs.training", "train_jointly"),
    "finetune": ("hsfusion.runs.finetuning", "finetune"),
    "predict": ("hsfusion.runs.prediction", "predict"),
    "compare": ("hsfusion.runs.comparison", "compare"),
    "load_run": ("hsfusion.runs.run", "load_run"),
    "gather_evidence": ("hsfusion.evidence.stages", "gather_evidence"),
    "load_evidence": ("hsfusion.runs.comparison", "read_evidence"),
    "blocks": ("hsfusion.runs.settings", "blocks"),
    "fields": ("hsfusion.runs.settings", "fields_split"),
    "random_pixels": ("hsfusion.runs.settings", "random_pixels"),
    "fixed_split": ("hsfusion.runs.settings", "fixed_split"),
    "even_groups": ("hsfusion.runs.settings", "even_groups"),
    "interval_groups": ("hsfusion.runs.settings", "interval_groups"),
    "TrainSettings": ("hsfusion.runs.settings", "TrainSettings"),
    "ModelSettings": ("hsfusion.runs.settings", "ModelSettings"),
    "PredictSettings": ("hsfusion.runs.prediction", "PredictSettings"),
    "Run": ("hsfusion.runs.run", "Run"),
    "BandWeights": ("hsfusion.spectra", "BandWeights"),
    "WeightedSum": ("hsfusion.nn", "WeightedSum"),
}
__all__ = [
    "BandWeights",
    "ModelSettings",
    "PredictSettings",
    "Run",
    "TrainSettings",
    "WeightedSum",
    "blocks",
    "compare",
    "even_groups",
    "fields",
    "finetune",
    "fixed_split",
    "gather_evidence",
    "indian_pines",
    "interval_groups",
    "load_evidence",
    "load_run",
    "open_scene",
    "predict",
    "random_pixels",
    "train",
    "train_jointly",
]

if TYPE_CHECKING:
    from hsfusion.data.public import indian_pines
    from hsfusion.evidence.stages import gather_evidence
    from hsfusion.nn import WeightedSum
    from hsfusion.runs.comparison import compare
    from hsfusion.runs.comparison import read_evidence as load_evidence
    from hsfusion.runs.finetuning import finetune
    from hsfusion.runs.prediction import PredictSettings, predict
    from hsfusion.runs.run import Run, load_run
    from hsfusion.runs.settings import (
        ModelSettings,
        TrainSettings,
        blocks,
        even_groups,
        fixed_split,
        interval_groups,
        random_pixels,
    )
    from hsfusion.runs.settings import fields_split as fields
    from hsfusion.runs.training import train, train_jointly
    from hsfusion.scenes.description import open_path as open_scene
    from hsfusion.spectra import BandWeights


def __getattr__(name: str) -> Any:
    if name not in _FRONT_DOOR:
        raise AttributeError(f"module 'hsfusion' has no attribute {name!r}")
    module, attribute = _FRONT_DOOR[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
