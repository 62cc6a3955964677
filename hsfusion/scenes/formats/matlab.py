"""MATLAB files of version 5 (``save`` without ``-v7.3``) and 7.3, axes (H, W) or (H, W, layers).

Specifications: MathWorks, MAT-File Format (version 5). Version 7.3 is HDF5 behind a text of 512 bytes, each array with
its axes in reverse order: https://www.mathworks.com/help/matlab/import_export/mat-file-versions.html and the attribute
``MATLAB_class``. On a damaged file of version 5 scipy can crash, or take all memory, so it runs in another process.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import h5py
from numpy.typing import NDArray

from hsfusion.errors import EnvironmentFailure, InputError, printable
from hsfusion.scenes.formats.arrays import array_axes, choose_array, cube_of_array, unpacked_limit, unreadable_array
from hsfusion.scenes.formats.cube_file import CubeFile, library_errors
from hsfusion.scenes.formats.hdf5_file import attribute, attribute_text, is_real, member, members, opened, pixels_of
from hsfusion.scenes.geobox import GeoBox

_MOST_VARIABLES = 10_000
_SECONDS, _PATIENCE = 10, 10  # processor time for a small file; how many times as long to wait on a busy machine
_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15  # bytes, types of element
_BYTES = {"logical": 1, "single": 4, "double": 8} | {f"{s}int{8 * n}": n for n in (1, 2, 4, 8) for s in ("", "u")}
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # each takes memory
_CHILD = f"from {__name__} import _answer; _answer()"


def open_matlab(path: Path, *, variable: str | None = None, axes: tuple[str, ...] | None = None) -> CubeFile:
    """Opens an array of a MATLAB 5 file, which is read into memory.

    Limits grow with the file, see :func:`unpacked_limit` for the size of an array: reading takes at most twice that
    memory and 512 MiB, and 10 s of processor time and 1 s more for every 8 MiB of the file.

    Args:
        path: the file.
        variable: name of the array; needed where there are several that can be a raster.
        axes: see :func:`hsfusion.scenes.formats.arrays.array_axes`.

    Raises:
        InputError: if the file is damaged, holds no such array, or one beyond these limits.
        EnvironmentFailure: if no process can be started.
    """
    _check_elements(path)
    size = path.stat().st_size
    memory, seconds = 2 * unpacked_limit(size) + 2**29, _SECONDS + size // 2**23
    name, array = isolated(_load, path, variable, memory=memory, seconds=seconds)
    facts = {"variable": printable(name)}
    return cube_of_array(path, array, axes, format=f"MATLAB 5 {array.dtype.name}", facts=facts)


def isolated(function: Callable[..., Any], path: Path, *args: Any, memory: int, seconds: int) -> Any:
    """Calls a function on a file in a process of its own, for libraries that damaged files crash or keep busy.

    Not in a pool of multiprocessing, which runs the user's script a second time where that has no ``__main__`` guard.

    Args:
        function: of a module; its first argument is the file.
        path: the file.
        args: further arguments.
        memory: bytes that the process may take, where the platform has such limits.
        seconds: of processor time, where it has; of the clock it may take ten times as long anywhere.

    Returns:
        what the function returns

    Raises:
        InputError: if the function raises it or another error that damaged files cause, or the process dies.
        EnvironmentFailure: if the process does not start.
    """
    paths = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, sys.path)])
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD],  # -P: no module in the folder of the command is imported
            input=pickle.dumps((memory, seconds, function, path, args)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | _ONE_THREAD | {"PYTHONPATH": paths},
            timeout=_PATIENCE * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _unreadable(path, f"the reader took more than {_PATIENCE * seconds} s") from error
    except OSError as error:
        raise EnvironmentFailure(f"{path}: the process that reads it does not start: {error}.") from error
    if ended.returncode:
        raise _unreadable(path, f"the reader failed, exit code {ended.returncode}")
    answer = pickle.loads(ended.stdout)
    if isinstance(answer, InputError):
        raise answer
    return answer


def _answer() -> None:
    """What the process of :func:`isolated` runs."""
    memory, seconds, function, path, args = pickle.load(sys.stdin.buffer)
    try:
        import resource
    except ImportError:  # Windows; the parent does not wait for ever
        pass
    else:
        for which, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
            hard = resource.getrlimit(which)[1]
            with contextlib.suppress(ValueError, OSError):  # a platform without this limit
                resource.setrlimit(which, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        with library_errors(path):
            answer = function(path, *args)
    except InputError as error:
        answer = error
    pickle.dump(answer, sys.stdout.buffer, protocol=5)


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


def _load(path: Path, variable: str | None) -> tuple[str, NDArray]:
    """Name and numbers of the array that is meant."""
    from scipy.io import loadmat, whosmat  # not above: slow to import, and for this process alone

    variables = whosmat(path, appendmat=False)
    shapes = {name: shape for name, shape, kind in variables if kind in _BYTES}
    others = {name: kind for name, _, kind in variables if kind not in _BYTES}
    if len(shapes) + len(others) < len(variables):
        raise _unreadable(path, "two variables have one name")
    if variable in others or (others and not shapes):
        raise InputError(
            path,
            "variable",
            ", ".join(f"{printable(name)} ({kind})" for name, kind in list(others.items())[:20]),
            "an array (H, W) or (H, W, layers) of real numbers",
            "save the array by itself, not in a struct or a cell",
        )
    name = choose_array(path, shapes, variable)
    kinds = {name: kind for name, _, kind in variables}
    nbytes, limit = math.prod(shapes[name]) * _BYTES[kinds[name]], unpacked_limit(path.stat().st_size)
    if nbytes > limit:
        raise InputError(
            path,
            f"size of {printable(name)}",
            f"{nbytes} bytes",
            f"at most {limit}, for a file of {path.stat().st_size} bytes",
            "save it with -v7.3, or as .npy",
        )
    # numbers keep the type that they are stored in, which may be smaller than that of the array
    return name, loadmat(path, appendmat=False, variable_names=[name], mat_dtype=False)[name]


def _unreadable(path: Path, reason: str) -> InputError:
    return unreadable_array(path, "a whole MATLAB 5 file", reason)


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
