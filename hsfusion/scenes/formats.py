"""Which format a file has, told by its content and never by its name, and who reads it."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from hsfusion.errors import InputError
from hsfusion.scenes.arrays import open_npy
from hsfusion.scenes.cube_file import CubeFile
from hsfusion.scenes.envi import envi_header, open_envi
from hsfusion.scenes.geotiff import open_geotiff

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_READERS: dict[str, Callable[[Path], CubeFile]] = {"npy": open_npy, "tiff": open_geotiff, "envi": open_envi}


def open_cube_file(path: str | Path) -> CubeFile:
    """Opens the layers of a file, whatever its format.

    Raises:
        InputError: if the file is damaged, or of no known format.
    """
    return _READERS[file_format(path)](Path(path))


def file_format(path: str | Path) -> str:
    """Says what a file is by its first bytes, or by those of the header beside it.

    Raises:
        InputError: if it cannot be read or is something else.
    """
    start = _first_bytes(Path(path))
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith(_TIFF):
        return "tiff"
    if envi_header(Path(path)) is not None:
        return "envi"
    raise InputError(
        path,
        field="content",
        value=f"{start[:6]!r}...",
        expected="a GeoTIFF, an ENVI file, or a NumPy .npy",
        fix="convert the file",
    )


def _first_bytes(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
            raise InputError(path, field="file", value="no plain file", expected="a file", fix="name the file itself")
        with open(path, "rb") as file:
            return file.read(128)
    except OSError as error:
        raise InputError(
            path,
            field="file",
            value=error.strerror,
            expected="a readable raster",
            fix="check the path (relative paths start at the folder of the command)",
        ) from error
