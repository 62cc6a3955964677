"""Arrays whose files do not name their axes: NumPy (``.npy``, ``.npz``) and MATLAB 5 (``save`` without ``-v7.3``).

Axes are (H, W) or (H, W, layers) as the public benchmarks come, unless told otherwise. Nothing in a file is unpickled.
On a damaged file of MATLAB 5 scipy can crash, so it runs in a process of its own.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import ArrayPixels, CubeFile, Pixels, library_errors
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window

AXIS_OF_WORD = {"band": "layers", "row": "rows", "col": "cols"}  # the words of scene.axes
_MATLAB_CLASSES = {"logical", "single", "double"} | {f"{s}int{bits}" for bits in (8, 16, 32, 64) for s in ("", "u")}
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # each takes memory
_CHILD = f"from {__name__} import _answer; _answer()"


def open_npy(path: Path, *, axes: Sequence[str] | None = None) -> CubeFile:
    """Opens a ``.npy`` file, which is read through a memory map; axes: see :func:`array_axes`."""
    array = _mapped(path)
    expected, size = array.offset + array.nbytes, path.stat().st_size
    if size != expected:  # numpy does not miss what a header leaves out
        told = f"{expected}: {' x '.join(map(str, array.shape))} of type {array.dtype.str} behind a header"
        raise InputError(path, "size", f"{size} bytes", told, "copy the file anew")
    pixels = NpyPixels(path, array.dtype, array_axes(path, array.shape, axes))
    return _cube(path, array, pixels, pixels.axes, f"NumPy {array.dtype.name}")


@dataclass(frozen=True)
class NpyPixels:
    """The numbers of a ``.npy`` file, read through a memory map.

    Attributes:
        path: the file.
        dtype: type of the numbers.
        axes: of the array, see :func:`array_axes`.
    """

    path: Path
    dtype: np.dtype
    axes: tuple[str, ...]

    def read(self, window: Window) -> NDArray:
        """Reads a window: (layers, height, width) as stored."""
        row, col, height, width = window
        return layers_first(_mapped(self.path), self.axes)[:, row : row + height, col : col + width]


def _mapped(path: Path) -> np.memmap:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Python 2 wrote the header
        return np.load(path, mmap_mode="r", allow_pickle=False)


def open_npz(path: Path, *, variable: str | None = None, axes: Sequence[str] | None = None) -> CubeFile:
    """Opens an array of a ``.npz`` file, which is read into memory.

    Args:
        path: the file.
        variable: name of the array; needed where there are several that can be a raster.
        axes: see :func:`array_axes`.
    """
    with warnings.catch_warnings(), zipfile.ZipFile(path) as archive:
        warnings.simplefilter("ignore")  # that Python 2 wrote a header
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        headers = {name.removesuffix(".npy"): _header(archive, name) for name in names}
    shapes = {name: shape for name, (shape, dtype) in headers.items() if dtype.kind in "iufb"}
    name = choose_array(path, shapes, variable)
    with np.load(path, allow_pickle=False) as arrays:
        return _cube_in_memory(path, name, arrays[name], axes, "NumPy npz")


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the numbers of a member."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    return shape, dtype


def open_matlab(path: Path, *, variable: str | None = None, axes: Sequence[str] | None = None) -> CubeFile:
    """Opens an array of a MATLAB 5 file, which is read into memory.

    Args:
        path: the file.
        variable: name of the array; needed where there are several that can be a raster.
        axes: see :func:`array_axes`.
    """
    # not in a pool of multiprocessing, which runs the user's script a second time where that has no __main__ guard
    paths = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-P", "-c", _CHILD],  # -P: no module in the folder of the command is imported
        input=pickle.dumps((path, variable)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | _ONE_THREAD | {"PYTHONPATH": paths},
        check=False,
    )
    answer: Any = pickle.loads(ended.stdout) if ended.returncode == 0 else None
    if ended.returncode:
        value = f"unreadable (the reader ended with code {ended.returncode})"
        answer = InputError(path, "content", value, "a whole MATLAB 5 file", "write the file anew")
    if isinstance(answer, InputError):
        raise answer
    name, array = answer
    return _cube_in_memory(path, name, array, axes, "MATLAB 5")


def _answer() -> None:
    """What the process of :func:`open_matlab` runs."""
    path, variable = pickle.load(sys.stdin.buffer)
    try:
        with library_errors(path):
            answer = _load_matlab(path, variable)
    except InputError as error:
        answer = error
    pickle.dump(answer, sys.stdout.buffer, protocol=5)


def _load_matlab(path: Path, variable: str | None) -> tuple[str, NDArray]:
    """Name and numbers of the array that is meant."""
    from scipy.io import loadmat, whosmat  # not above: slow to import, and for this process alone

    shapes = {name: shape for name, shape, kind in whosmat(path, appendmat=False) if kind in _MATLAB_CLASSES}
    name = choose_array(path, shapes, variable)
    # numbers keep the type that they are stored in, which may be smaller than that of the array
    return name, loadmat(path, appendmat=False, variable_names=[name], mat_dtype=False)[name]


def array_axes(path: Path, shape: tuple[int, ...], axes: Sequence[str] | None) -> tuple[str, ...]:
    """What the axes of an array are whose file does not name them: ``rows``, ``cols``, ``layers`` by convention.

    Args:
        path: the file.
        shape: of the array, two or three axes.
        axes: the words ``band``, ``row`` and ``col`` in the order of an array of three, where the user names it.
    """
    if axes is None:
        return ("rows", "cols", "layers")[: len(shape)]
    if isinstance(axes, str) or sorted(map(str, axes)) != sorted(AXIS_OF_WORD) or len(shape) != 3:
        told = " x ".join(map(str, shape))
        expected = "the words band, row and col in the order of an array of three axes"
        fix = f"correct it, such as scene.axes=[band,row,col]; the array is {told}"
        raise InputError(path, "scene.axes", printable(list(axes)), expected, fix)
    return tuple(AXIS_OF_WORD[axis] for axis in axes)


def choose_array(path: Path, found: Mapping[str, tuple[int, ...]], variable: str | None) -> str:
    """Says which array of a file is meant: the one named, or the only one that can be a raster.

    Args:
        path: the file.
        found: name -> shape of each array of real numbers.
        variable: the name, or None. Rows and columns of numbers, such as wavelengths, have to be named to be taken.
    """
    rasters = {name: shape for name, shape in found.items() if len(shape) in (2, 3) and min(shape) > 0}
    likely = [name for name, shape in rasters.items() if min(shape[:2]) > 1]
    if variable in rasters:
        return str(variable)
    if variable is None and len(likely) == 1:
        return likely[0]
    names = [f"{printable(name, longest=60)} ({' x '.join(map(str, shape))})" for name, shape in rasters.items()]
    raise InputError(
        path,
        "variable",
        printable(variable) if variable is not None else "not named" if names else "none",
        f"one of {', '.join(names[:20])}" if names else "an array (H, W) or (H, W, layers) of real numbers",
        "name it by scene.variable, that of labels by scene.labels_variable" if names else "save such an array",
    )


def layers_first(array: NDArray, axes: tuple[str, ...]) -> NDArray:
    """A view (layers, H, W) of an array of two or three axes."""
    if "layers" not in axes:
        array, axes = array[None], ("layers", *axes)
    return array.transpose([axes.index(axis) for axis in ("layers", "rows", "cols")])


def _cube_in_memory(path: Path, name: str, array: NDArray, axes: Sequence[str] | None, kind: str) -> CubeFile:
    known = array_axes(path, array.shape, axes)
    facts = {"variable": printable(name)}
    return _cube(path, array, ArrayPixels(layers_first(array, known)), known, f"{kind} {array.dtype.name}", facts)


def _cube(
    path: Path, array: NDArray, pixels: Pixels, axes: tuple[str, ...], kind: str, facts: Mapping[str, str] | None = None
) -> CubeFile:
    if array.dtype.kind not in "iufb" or array.ndim not in (2, 3) or not array.size:
        value = f"{' x '.join(map(str, array.shape))} of type {printable(array.dtype)}"
        expected = "axes (H, W) or (H, W, layers) of real numbers"
        raise InputError(path, "array", value, expected, "convert the array")
    size = dict(zip(axes, array.shape, strict=True))
    grid = size["rows"], size["cols"]
    return CubeFile(path, kind, pixels, size.get("layers", 1), GeoBox(grid), facts=facts or {})
