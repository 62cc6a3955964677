"""Evidence on band weights: repeated trainings, their agreement, and what happens where bands are removed."""

from hsfusion.evidence.stages import EvidenceSettings, gather_evidence

__all__ = ["EvidenceSettings", "gather_evidence"]
