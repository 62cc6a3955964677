"""Damaged and lying inputs of every kind, each with the words of the command that meets it."""

from scene_files.cases import Case
from scene_files.damaged_cubes import against_binary, header_fields, huge, truncated, units_and_wavelengths, wrong_axes
from scene_files.damaged_labels import label_rasters, label_vectors
from scene_files.damaged_words import band_tables, descriptions, keys, of_training
from scene_files.posing_files import posing

_KINDS = (
    *(truncated, against_binary, huge, header_fields, units_and_wavelengths, wrong_axes),
    *(label_rasters, label_vectors, posing, descriptions, keys, band_tables, of_training),
)


def cases() -> list[Case]:
    """All of them."""
    return [case for kind in _KINDS for case in kind()]
