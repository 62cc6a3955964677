"""Hyperspectral band fusion with learned band weights that can be trusted.

The names below are imported when they are first used; ``import hsfusion`` itself imports none of its parts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> module that holds it and its name there; the others are of hsfusion.runs
_ELSEWHERE = {
    "open_scene": ("hsfusion.scenes.description", "open_path"),
    "indian_pines": ("hsfusion.data.public", "indian_pines"),
    "gather_evidence": ("hsfusion.evidence", "gather_evidence"),
    "load_evidence": ("hsfusion.evidence.store", "read_evidence"),
    "BandWeights": ("hsfusion.spectra", "BandWeights"),
    "WeightedSum": ("hsfusion.nn", "WeightedSum"),
}
_SETTINGS = ("blocks", "random_pixels", "fixed_split", "even_groups", "interval_groups")
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
    from hsfusion.evidence import gather_evidence
    from hsfusion.evidence.store import read_evidence as load_evidence
    from hsfusion.nn import WeightedSum
    from hsfusion.runs import (
        ModelSettings,
        PredictSettings,
        Run,
        TrainSettings,
        compare,
        finetune,
        load_run,
        predict,
        train,
        train_jointly,
    )
    from hsfusion.runs.settings import blocks, even_groups, fixed_split, interval_groups, random_pixels
    from hsfusion.scenes.description import open_path as open_scene
    from hsfusion.spectra import BandWeights


def __getattr__(name: str) -> Any:
    """Imports a name of the front door."""
    if name not in __all__:
        raise AttributeError(f"module 'hsfusion' has no attribute {name!r}")
    own = "hsfusion.runs.settings" if name in _SETTINGS else "hsfusion.runs"
    module, attribute = _ELSEWHERE.get(name, (own, name))
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    """The names of the front door."""
    return sorted([*globals(), *__all__])
