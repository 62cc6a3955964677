"""Which format a file has, detected from its content and never from its name, and who reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import h5py

from hsfusion.errors import InputError
from hsfusion.scenes.formats.arrays import open_matlab, open_matlab73, open_npy, open_npz
from hsfusion.scenes.formats.cube_file import CubeFile, library_errors
from hsfusion.scenes.formats.envi import envi_header, header_places, open_envi
from hsfusion.scenes.formats.geotiff import TIFF_STARTS, open_geotiff
from hsfusion.scenes.formats.hdf5_arrays import open_hdf5
from hsfusion.scenes.formats.hdf5_products import is_emit, neon_sites, open_emit, open_neon, open_prisma, prisma_swaths
from hsfusion.scenes.formats.products import is_product_image, open_product

_STARTS = {
    "npy": (b"\x93NUMPY",),
    "npz": (b"PK\3\4", b"PK\5\6"),  # the second: of no members
    "matlab5": (b"MATLAB 5.0 MAT-file",),
    "matlab73": (b"MATLAB 7.3 MAT-file",),
    "tiff": TIFF_STARTS,
}
_XML = (b"<?xml", b"<level_X", b"<hsi_doc")
_READERS: dict[str, Callable[..., CubeFile]] = {
    "npy": open_npy,
    "npz": open_npz,
    "tiff": open_geotiff,
    "product": open_product,
    "envi": open_envi,
    "hdf5": open_hdf5,
    "emit": open_emit,
    "prisma": open_prisma,
    "neon": open_neon,
    "matlab5": open_matlab,
    "matlab73": open_matlab73,
}


def open_cube_file(
    path: str | Path, *, variable: str | None = None, grid: str | None = None, axes: Sequence[str] | None = None
) -> CubeFile:
    """Opens the layers of a file, whatever its format; for the arguments see :func:`hsfusion.scenes.open_scene`.

    An array inside a product of HDF5 that ``variable`` names is taken as it is.
    """
    with library_errors(Path(path)):
        known = file_format(path)
        if known == "hdf5" and variable is None:
            known = _hdf5_format(Path(path))
        choices: dict[str, Any] = {"variable": variable, "grid": grid, "axes": axes}
        given = {name: value for name, value in choices.items() if value is not None}
        for name, value in given.items():
            if name not in signature(_READERS[known]).parameters:
                expected = f"nothing, because format {known} has no such choice"
                raise InputError(path, f"scene.{name}", value, expected, f"drop scene.{name}")
        return _READERS[known](Path(path), **given)


def file_format(path: str | Path) -> str:
    """Says what a file is by its first bytes, or by those of the header beside it."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(128)
    except OSError as error:
        fix = "name a file (relative paths start at the folder of the command)"
        what = {FileNotFoundError: "missing", IsADirectoryError: "a folder"}.get(type(error), error.strerror)
        raise InputError(path, "file", what, "a readable raster", fix) from error
    known = next((name for name, starts in _STARTS.items() if start.startswith(starts)), "")
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_XML):
        return "product"
    if not known and h5py.is_hdf5(path):
        return "hdf5"
    if not known and envi_header(path) is not None:
        known = "envi"
    if known in ("tiff", "envi") and is_product_image(path):
        return "product"
    if known:
        return known
    names = " or ".join(dict.fromkeys(place.name for place in header_places(path) if place.suffix == ".hdr"))
    raise InputError(
        path,
        "content",
        f"{start[:6]!r}...",
        "a GeoTIFF, an ENVI file, an HDF5 or netCDF-4 file, a MATLAB 5 or 7.3 file, or a NumPy .npy or .npz",
        f"convert it; for the binary of an ENVI file, put its header, which starts with ENVI, beside it as {names}",
    )


def _hdf5_format(path: Path) -> str:
    """A product, or else an HDF5 file of arrays, as one of NEON with several sites is."""
    with h5py.File(path, "r") as file:
        if is_emit(file):
            return "emit"
        if prisma_swaths(file):
            return "prisma"
        return "neon" if len(neon_sites(file)) == 1 else "hdf5"
