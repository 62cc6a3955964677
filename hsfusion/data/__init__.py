"""Data: Indian Pines, synthetic scenes, splits and leakage, statistics, index batches, the DataModule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["PatchDataModule"]

if TYPE_CHECKING:
    from hsfusion.data.datamodule import PatchDataModule


def __getattr__(name: str) -> Any:
    """Imports the DataModule when it is asked for: Lightning takes seconds."""
    if name != "PatchDataModule":
        raise AttributeError(f"module 'hsfusion.data' has no attribute {name!r}")
    from hsfusion.data.datamodule import PatchDataModule

    return PatchDataModule
