"""Which format a file has, told by its content and never by its name, and who reads it."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hsfusion.errors import InputError
from hsfusion.scenes.formats.arrays import AXIS_OF_WORD, open_npy, open_npz
from hsfusion.scenes.formats.cube_file import CubeFile, library_errors, stacking
from hsfusion.scenes.formats.envi import decoded, envi_header, header_places, open_envi
from hsfusion.scenes.formats.geotiff import TIFF_STARTS, open_geotiff
from hsfusion.scenes.formats.hdf5 import open_hdf5
from hsfusion.scenes.formats.matlab import open_matlab, open_matlab73
from hsfusion.scenes.formats.products import is_product_image, open_product

_XML = (b"<?xml", b"<level_X", b"<hsi_doc")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_OFFSETS = (0, *(512 << i for i in range(8)))  # a user block may come before: 512 bytes or a doubling of them
_MATLAB5, _MATLAB73 = b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"
_CUBE_ENDINGS = (".hdr", ".tif", ".tiff", ".h5", ".he5", ".nc", ".mat", ".npy", ".npz")  # of files worth naming
_ZIP = (b"PK\3\4", b"PK\5\6")  # the second: of no members
_READERS: dict[str, Callable[..., CubeFile]] = {
    "npy": open_npy,
    "npz": open_npz,
    "tiff": open_geotiff,
    "product": open_product,
    "envi": open_envi,
    "hdf5": open_hdf5,
    "matlab5": open_matlab,
    "matlab73": open_matlab73,
}
# keyword arguments that a reader takes
_CHOICES = {
    "hdf5": ("variable", "grid", "axes"),
    **dict.fromkeys(("matlab5", "matlab73", "npz"), ("variable", "axes")),
    "npy": ("axes",),
}


def open_cube_file(
    path: str | Path, *, variable: str | None = None, grid: str | None = None, axes: Sequence[str] | None = None
) -> CubeFile:
    """Opens the layers of a file, whatever its format.

    Args:
        path: the file.
        variable: name of the array to take, for formats that hold several.
        grid: ``map`` or ``sensor``, for products that hold both (EMIT).
        axes: ``band``, ``row`` and ``col`` in the order of the array, for formats that do not name its axes.

    Raises:
        InputError: if the file is damaged, of no known format, or of one that leaves no such choice.
    """
    known = file_format(path)
    choices: dict[str, Any] = {"variable": variable, "grid": grid, "axes": axes}
    given = {name: value for name, value in choices.items() if value is not None}
    for name, value in given.items():
        if name not in _CHOICES.get(known, ()):
            raise InputError(
                path,
                f"scene.{name}",
                value,
                f"nothing, as a file of format {known} leaves no such choice",
                f"drop scene.{name}",
            )
    if axes is not None:
        given["axes"] = _checked_axes(path, axes)
    with library_errors(Path(path)):
        return _READERS[known](Path(path), **given)


def _checked_axes(path: str | Path, axes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(axes, str) or sorted(map(str, axes)) != sorted(AXIS_OF_WORD):
        raise InputError(
            path,
            "scene.axes",
            axes if isinstance(axes, str) else f"[{','.join(map(str, axes))}]",
            "the words band, row and col in the order of the array",
            "correct it, such as scene.axes=[band,row,col]",
        )
    return tuple(AXIS_OF_WORD[axis] for axis in axes)


def file_format(path: str | Path) -> str:
    """Says what a file is by its first bytes, or by those of the header beside it.

    Raises:
        InputError: if it cannot be read or is something else.
    """
    start = _first_bytes(Path(path))
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith(_ZIP):
        return "npz"
    if start.startswith(_MATLAB5):
        return "matlab5"
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_XML):
        return "product"
    if start.startswith(TIFF_STARTS):
        return "product" if is_product_image(Path(path)) else "tiff"
    if _is_hdf5(Path(path), start):
        return "matlab73" if start.startswith(_MATLAB73) else "hdf5"
    if envi_header(Path(path)) is not None:
        return "product" if is_product_image(Path(path)) else "envi"
    _check_header(Path(path))
    names = " or ".join(dict.fromkeys(place.name for place in header_places(Path(path)) if place.suffix == ".hdr"))
    raise InputError(
        path,
        "content",
        f"{start[:6]!r}...",
        "a GeoTIFF, an ENVI file, an HDF5 or netCDF-4 file, a MATLAB 5 or 7.3 file, or a NumPy .npy or .npz",
        f"convert the file; if it is the binary of an ENVI file, put its header beside it as {names}",
    )


def _check_header(path: Path) -> None:
    """Refuses what stands where an ENVI header is looked for, and is none."""
    places = [path] if path.suffix.lower() == ".hdr" else header_places(path)
    for header in filter(Path.exists, places):
        first = decoded(_first_bytes(header)).strip().partition("\n")[0].strip()
        raise InputError(
            header,
            "first line",
            repr(first[:40]),
            "ENVI, as an ENVI header starts",
            f"write an ENVI header, or convert {path.name}",
        )


def _is_hdf5(path: Path, start: bytes) -> bool:
    """Whether the signature of HDF5 stands at one of its places (HDF5 File Format Specification 3.0, II.A)."""
    if start.startswith(_HDF5):
        return True
    with open(path, "rb") as file:
        return any(file.seek(offset) == offset and file.read(8) == _HDF5 for offset in _HDF5_OFFSETS)


def _first_bytes(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise _is_folder(path)
        if not stat.S_ISREG(mode):  # a pipe would wait for ever
            raise InputError(path, "file", "no plain file", "a file", "name the file itself")
        with open(path, "rb") as file:
            return file.read(128)
    except OSError as error:
        raise InputError(
            path,
            "file",
            error.strerror,
            "a readable raster",
            "check the path (relative paths start at the folder of the command)",
        ) from error


def _is_folder(path: Path) -> InputError:
    """What to do with a folder: which of its files look like cubes, or how to make one of its bands."""
    names = sorted(file.name for file in path.iterdir() if file.suffix.lower() in _CUBE_ENDINGS)
    fix = stacking(path / names[0]) if names else None
    some = f", such as {', '.join(names[:3])}" if names else ""
    return InputError(path, "file", "a folder", "a file", fix or f"name a file in it{some}")
