"""MATLAB files of version 5 (``save`` without ``-v7.3``), axes (H, W) or (H, W, layers).

Specification: MathWorks, MAT-File Format (version 5). On a damaged file the reader of scipy can crash, or take all
memory. So it runs in a child process with limits, and this process sees its numbers only.
"""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import EnvironmentFailure, InputError, printable
from hsfusion.scenes.formats import matlab_child
from hsfusion.scenes.formats.arrays import choose_array, cube_of_array, unpacked_limit, unreadable_array
from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.formats.limited_child import run_limited

_MOST_ANSWER = 2**20  # bytes
_MOST_VARIABLES = 10_000
_SECONDS, _PATIENCE = 4, 10  # processor time for a small file; how many times as long to wait on a busy machine
_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15  # bytes, types of element
_DTYPES = {
    f"{order}{kind}" for order, kinds in (("|", "u1 i1"), ("<", "u2 i2 u4 i4 u8 i8 f4 f8")) for kind in kinds.split()
}


def open_matlab(path: Path, *, variable: str | None = None, axes: tuple[str, ...] | None = None) -> CubeFile:
    """Opens an array of a MATLAB 5 file, which is read into memory.

    Limits grow with the file, see :func:`unpacked_limit` for the size of an array: reading takes at most twice that
    memory and 384 MiB, and 4 s of processor time and 1 s more for every 8 MiB of the file.

    Args:
        path: the file.
        variable: name of the array; needed where there are several that can be a raster.
        axes: see :func:`hsfusion.scenes.formats.arrays.array_axes`.

    Raises:
        InputError: if the file is damaged, holds no such array, or one beyond these limits.
        EnvironmentFailure: if the temporary folder has no room for the array, or no process can be started.
    """
    _check_elements(path)
    with _temporary_folder() as folder:
        answer = _ask(path, Path(folder), variable)
        try:
            name = _chosen(path, answer, variable)
            limit = unpacked_limit(path.stat().st_size)
            if answer["nbytes"] > limit:
                raise InputError(
                    path,
                    field=f"size of {printable(name)}",
                    value=f"{answer['nbytes']} bytes",
                    expected=f"at most {limit}, for a file of {path.stat().st_size} bytes",
                    fix="save it with -v7.3, or as .npy",
                )
            if answer["variable"] != name:
                raise _unreadable(path, "the reader took another array")
            array = _array(path, Path(folder) / "array", answer)
        except (KeyError, TypeError, ValueError, OSError) as error:  # the answer is not what it has to be
            raise _unreadable(path, "the reader gave no sound answer") from error
    facts = {"variable": printable(name)}
    return cube_of_array(path, array, axes, format=f"MATLAB 5 {array.dtype.name}", facts=facts)


def _check_elements(path: Path) -> None:
    """Follows the chain of variables to the end of the file; the reader does not miss what was cut off."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(_HEADER - 2)
        order = {b"IM": "<", b"MI": ">"}.get(file.read(2))
        if order is None:
            raise _unreadable(path, "the byte order is not said")
        at, count = _HEADER, 0
        while at + 8 <= size and count < _MOST_VARIABLES:
            file.seek(at)
            kind, length = struct.unpack(f"{order}2L", file.read(8))
            if kind not in (_MATRIX, _COMPRESSED):
                raise _unreadable(path, f"no variable at byte {at}")
            at, count = at + 8 + length, count + 1
    if at != size:
        raise _unreadable(path, f"{count} variables end at byte {at}, the file at {size}")


def _ask(path: Path, folder: Path, variable: str | None) -> dict[str, Any]:
    """Has the child process read a file."""
    size = path.stat().st_size
    nbytes, seconds = unpacked_limit(size), _SECONDS + size // 2**23
    limits = {"RLIMIT_AS": 2 * nbytes + 384 * 2**20, "RLIMIT_CPU": seconds, "RLIMIT_FSIZE": nbytes + _MOST_ANSWER}
    task = json.dumps({"variable": variable, "nbytes": nbytes})
    code, ending = run_limited(
        matlab_child.__file__, path, str(folder), task, limits=limits, patience=_PATIENCE * seconds
    )
    if code == matlab_child.NO_ROOM:
        raise EnvironmentFailure(f"{folder}: no room for the array of {path}. Fix: set TMPDIR to a larger disk.")
    if code != 0:
        raise _unreadable(path, f"the reader failed, {ending}")
    try:
        with open(folder / "answer.json", "rb") as file:
            return dict(json.loads(file.read(_MOST_ANSWER)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _unreadable(path, "the reader gave no answer") from error


def _chosen(path: Path, answer: dict[str, Any], variable: str | None) -> str:
    shapes = {str(name): tuple(int(length) for length in shape) for name, shape in answer["arrays"]}
    others = {str(name): printable(str(kind)) for name, kind in answer["others"]}
    if len(shapes) < len(answer["arrays"]):
        raise _unreadable(path, "two variables have one name")
    if variable in others or (others and not shapes):
        raise InputError(
            path,
            field="variable",
            value=", ".join(f"{printable(name)} ({kind})" for name, kind in list(others.items())[:20]),
            expected="an array (H, W) or (H, W, layers) of real numbers",
            fix="save the array by itself, not in a struct or a cell",
        )
    return choose_array(path, shapes, variable)


def _array(path: Path, file: Path, answer: dict[str, Any]) -> NDArray:
    shape = tuple(int(length) for length in answer["shape"])
    if answer["dtype"] not in _DTYPES:
        raise InputError(path, field="dtype", value=answer["dtype"], expected="real numbers", fix="convert the array")
    dtype = np.dtype(answer["dtype"])
    if min(shape) < 1 or math.prod(shape) * dtype.itemsize != file.stat().st_size:
        raise _unreadable(path, "the reader gave another number of values")
    return np.fromfile(file, dtype).reshape(shape, order="F")


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="hsfusion-")
    except OSError as error:
        raise EnvironmentFailure(
            f"{tempfile.gettempdir()}: no folder can be made ({error.strerror}). Fix: set TMPDIR."
        ) from error


def _unreadable(path: Path, reason: str) -> InputError:
    return unreadable_array(path, "a whole MATLAB 5 file", reason)
