"""Training: building the network, the LightningModule, callbacks, accuracies, the model file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["FusionClassifier"]

if TYPE_CHECKING:
    from hsfusion.training.classifier import FusionClassifier


def __getattr__(name: str) -> Any:
    """Imports the LightningModule when it is asked for: Lightning takes seconds."""
    if name != "FusionClassifier":
        raise AttributeError(f"module 'hsfusion.training' has no attribute {name!r}")
    from hsfusion.training.classifier import FusionClassifier

    return FusionClassifier
