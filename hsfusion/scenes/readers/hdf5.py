"""HDF5 and netCDF-4: satellite products told by their content, and plain files of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TypeGuard

import h5py
import numpy as np

from hsfusion.errors import InputError
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.readers.arrays import choose_array
from hsfusion.scenes.readers.cube_file import CubeFile
from hsfusion.scenes.readers.emit import is_emit, open_emit
from hsfusion.scenes.readers.hdf5_file import (
    attribute_number,
    bad,
    check_survivable,
    datasets,
    is_real,
    member,
    opened,
    plain,
)
from hsfusion.scenes.readers.hdf5_pixels import pixels_of
from hsfusion.scenes.readers.neon import is_neon, open_neon
from hsfusion.scenes.readers.prisma import is_prisma, open_prisma

_AXES = {2: ("rows", "cols"), 3: ("rows", "cols", "layers")}


def open_hdf5(path: Path, *, variable: str | None = None, grid: str | None = None) -> CubeFile:
    """Opens an HDF5 file: a PRISMA, EMIT or NEON product, or one of the arrays of any other file.

    Args:
        path: the file.
        variable: path of a dataset (H, W) or (H, W, layers) inside the file; it is then taken as it is, also out of a
            product. ``_FillValue``, ``missing_value``, ``scale_factor`` and ``add_offset`` are honoured (CF Conventions
            1.11, sections 2.5.1 and 8.1). For a product of NEON also the name of one of its sites.
        grid: ``map`` or ``sensor``, for EMIT only, see :func:`open_emit`.

    Raises:
        InputError: if the file is damaged, leads into other files, or leaves open which array is meant.
    """
    check_survivable(path)
    with opened(path) as file:
        emit = variable is None and is_emit(file)
        prisma = variable is None and is_prisma(file)
        neon = (variable is None or not _is_array(member(file, variable))) and is_neon(file)
    if emit:
        return open_emit(path, grid=grid)
    if grid is not None:
        raise InputError(
            path,
            field="scene.grid",
            value=plain(grid),
            expected="nothing, as only products of EMIT hold two grids",
            fix="drop scene.grid",
        )
    if prisma:
        return open_prisma(path)
    return open_neon(path, site=variable) if neon else _open_array(path, variable)


def _open_array(path: Path, variable: str | None) -> CubeFile:
    with opened(path) as file:
        name = (variable or "").strip("/")
        dataset = member(file, name) if name else None
        if not _is_array(dataset):
            found = {name: dataset.shape for name, dataset in datasets(file) if _is_array(dataset)}
            name = choose_array(path, found, variable)
            dataset = member(file, name)
        assert _is_array(dataset), "found above"
        nodata = _nodata(dataset)
        pixels = pixels_of(file, path, name, axes=_AXES[dataset.ndim], fill=nodata)
        gain, offset = attribute_number(dataset, "scale_factor"), attribute_number(dataset, "add_offset")
    return CubeFile(
        path=path,
        format=f"HDF5 {pixels.dtype.name}",
        pixels=pixels,
        layers=pixels.layers,
        geobox=GeoBox(pixels.grid),
        nodata=None if nodata is None or np.isnan(nodata) else nodata,  # NaN means no data in every format
        gain=None if gain is None else np.full(pixels.layers, gain),
        offset=None if offset is None else np.full(pixels.layers, offset),
        facts={"variable": plain(name)},
    )


def _nodata(dataset: h5py.Dataset) -> float | None:
    """The number that means «no data», by either of the names that the CF Conventions have for it."""
    floating = dataset.dtype.kind == "f"
    fill, missing = (attribute_number(dataset, name, may_be_nan=floating) for name in ("_FillValue", "missing_value"))
    if fill is None or missing is None:
        return missing if fill is None else fill
    with np.errstate(over="ignore"):
        both = np.array([fill, missing]).astype(dataset.dtype if floating else np.float64)  # one may be rounded
    if not np.array_equal(both[0], both[1], equal_nan=True):
        raise bad(
            dataset, f"missing_value of {dataset.name}", missing, f"{fill} as _FillValue", "delete one of the two"
        )
    return fill


def _is_array(stored: object) -> TypeGuard[h5py.Dataset]:
    return isinstance(stored, h5py.Dataset) and stored.ndim in _AXES and is_real(stored)
