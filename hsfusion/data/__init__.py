"""Data: public and synthetic scenes, splits and leakage, patches and their DataModule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["PatchDataModule"]

if TYPE_CHECKING:
    from hsfusion.data.patches import PatchDataModule


def __getattr__(name: str) -> Any:
    """Imports the DataModule when it is asked for: Lightning takes seconds."""
    if name != "PatchDataModule":
        raise AttributeError(f"module 'hsfusion.data' has no attribute {name!r}")
    from hsfusion.data.patches import PatchDataModule

    return PatchDataModule
