"""Damaged and lying inputs of every kind, each with the words of the command that meets it."""

from scene_files.cases import Case
from scene_files.damaged_cubes import (
    against_binary,
    hdf5_files,
    header_fields,
    huge,
    matlab_files,
    numpy_files,
    product_files,
    tiff_files,
    truncated,
    units_and_wavelengths,
    wrong_axes,
)
from scene_files.damaged_labels import label_rasters, label_vectors
from scene_files.damaged_words import band_tables, descriptions, keys, of_training
from scene_files.flipped_bits import flipped_bits
from scene_files.posing_files import posing
from scene_files.special_files import special_files

_KINDS = (
    *(truncated, against_binary, huge, header_fields, units_and_wavelengths, wrong_axes, flipped_bits),
    *(numpy_files, matlab_files, tiff_files, product_files, hdf5_files, label_rasters, label_vectors),
    *(special_files, posing, descriptions, keys, band_tables, of_training),
)


def cases() -> list[Case]:
    """All of them."""
    return [case for kind in _KINDS for case in kind()]
