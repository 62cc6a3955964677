"""MATLAB 7.3 files: HDF5 behind a text of 512 bytes, each array with its axes in reverse order.

Layout: https://www.mathworks.com/help/matlab/import_export/mat-file-versions.html and the attribute ``MATLAB_class``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeGuard

import h5py

from hsfusion.errors import printable
from hsfusion.scenes.formats.arrays import array_axes, choose_array
from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.formats.hdf5_file import (
    attribute,
    attribute_text,
    is_real,
    member,
    members,
    opened,
    pixels_of,
)
from hsfusion.scenes.geobox import GeoBox

_CLASSES = {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}


def open_matlab73(path: Path, *, variable: str | None = None, axes: tuple[str, ...] | None = None) -> CubeFile:
    """Opens an array (H, W) or (H, W, layers) of a MATLAB 7.3 file.

    Args:
        path: the file.
        variable: name of the array; needed where the file has several.
        axes: of the array as MATLAB shows it, see :func:`hsfusion.scenes.formats.arrays.array_axes`.

    Raises:
        InputError: if the file is damaged or leaves open which array is meant.
    """
    with opened(path) as file:
        arrays = {name: dataset for name in members(file) if _is_array(dataset := member(file, name))}
        shapes = {name: dataset.shape[::-1] for name, dataset in arrays.items()}
        name = choose_array(path, shapes, variable)
        pixels = pixels_of(file, path, name, axes=array_axes(path, shapes[name], axes)[::-1])
    return CubeFile(
        path=path,
        format=f"MATLAB 7.3 {pixels.dtype.name}",
        pixels=pixels,
        layers=pixels.layers,
        geobox=GeoBox(pixels.grid),
        facts={"variable": printable(name)},
    )


def _is_array(stored: h5py.Group | h5py.Dataset | None) -> TypeGuard[h5py.Dataset]:
    """Whether a variable is a full array of real numbers: no structure, text, cell array or sparse matrix."""
    return (
        isinstance(stored, h5py.Dataset)
        and attribute_text(stored, "MATLAB_class") in _CLASSES
        and attribute(stored, "MATLAB_empty") is None
        and stored.ndim in (2, 3)
        and is_real(stored)
    )
