"""Evidence on band weights: repeated trainings, their agreement, and what happens where bands are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["EvidenceSettings", "gather_evidence"]

if TYPE_CHECKING:
    from hsfusion.evidence.stages import EvidenceSettings, gather_evidence


def __getattr__(name: str) -> Any:
    """Imports what trains when it is asked for: evidence is read without torch."""
    if name not in __all__:
        raise AttributeError(f"module 'hsfusion.evidence' has no attribute {name!r}")
    from hsfusion.evidence import stages

    return getattr(stages, name)
