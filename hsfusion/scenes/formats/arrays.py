"""Arrays whose files do not name their axes: NumPy (``.npy``, ``.npz``) and MATLAB 5 (``save`` without ``-v7.3``).

Axes are (H, W) or (H, W, layers), as the public benchmarks come, unless the user names them. Nothing is unpickled.
A damaged file of MATLAB 5 can crash scipy, which therefore reads it in a process of its own first.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import ArrayPixels, CubeFile, MappedPixels, layers_first
from hsfusion.scenes.geobox import GeoBox

AXIS_OF_WORD = {"band": "layers", "row": "rows", "col": "cols"}  # the words of scene.axes
_TRIAL = """
import sys
sys.path[:] = sys.argv[2:]
from scipy.io import loadmat
try:
    loadmat(sys.argv[1], appendmat=False)
except Exception:
    pass  # which comes again
"""
MATLAB_CLASSES = {"logical", "single", "double"} | {f"{s}int{bits}" for bits in (8, 16, 32, 64) for s in ("", "u")}


def open_npy(path: Path, *, axes: Sequence[str] | None = None) -> CubeFile:
    """Opens a ``.npy`` file, which is read through a memory map; axes: see :func:`array_axes`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Python 2 wrote the header
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    step = 1 if array.flags.c_contiguous else -1  # in Fortran's order the first axis is the innermost
    known = array_axes(path, array.shape, array.dtype, axes)
    pixels = MappedPixels(path, array.dtype, known[::step], array.shape[::step], array.offset)
    pixels.check_size()
    return CubeFile(path, f"NumPy {array.dtype.name}", pixels, pixels.layers, GeoBox(pixels.grid))


def open_npz(path: Path, *, variable: str | None = None, axes: Sequence[str] | None = None) -> CubeFile:
    """Opens an array of a ``.npz`` file, which is read into memory; see :func:`choose_array`, :func:`array_axes`."""
    with warnings.catch_warnings(), zipfile.ZipFile(path) as archive:
        warnings.simplefilter("ignore")  # that Python 2 wrote a header
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        headers = {name.removesuffix(".npy"): _header(archive, name) for name in names}
    shapes = {name: shape for name, (shape, dtype) in headers.items() if dtype.kind in "iufb"}
    name = choose_array(path, shapes, variable)
    with np.load(path, allow_pickle=False) as arrays:
        return _cube_in_memory(path, name, arrays[name], axes, "NumPy npz")


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    return shape, dtype


def open_matlab(path: Path, *, variable: str | None = None, axes: Sequence[str] | None = None) -> CubeFile:
    """Opens an array of a MATLAB 5 file, which is read into memory; see :func:`choose_array`, :func:`array_axes`."""
    from scipy.io import loadmat, whosmat  # not above: slow to import

    _check_readable(path)
    shapes = {name: shape for name, shape, kind in whosmat(path, appendmat=False) if kind in MATLAB_CLASSES}
    name = choose_array(path, shapes, variable)
    # numbers keep the type that they are stored in, which may be smaller than that of the array
    array = loadmat(path, appendmat=False, variable_names=[name], mat_dtype=False)[name]
    return _cube_in_memory(path, name, array, axes, "MATLAB 5")


def _check_readable(path: Path) -> None:
    """Refuses a file on which scipy crashes, by trying it in a process of its own."""
    words = [sys.executable, "-P", "-c", _TRIAL, str(path), *sys.path]
    code = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode
    if code:
        value = f"unreadable (the reader ended with code {code})"
        raise InputError(path, "content", value, "a whole file", "write the file again")


def array_axes(path: Path, shape: tuple[int, ...], dtype: np.dtype, axes: Sequence[str] | None) -> tuple[str, ...]:
    """What the axes of an array are whose file does not name them: ``rows``, ``cols``, ``layers`` by convention.

    ``axes``: the words ``band``, ``row`` and ``col`` in the order of an array of three, where the user names it.
    """
    text = f"{' x '.join(map(str, shape))} of type {printable(dtype)}"
    if dtype.kind not in "iufb" or len(shape) not in (2, 3) or not min(shape):
        raise InputError(path, "array", text, "axes (H, W) or (H, W, layers) of real numbers", "convert the array")
    if axes is None:
        return ("rows", "cols", "layers")[: len(shape)]
    if isinstance(axes, str) or sorted(map(str, axes)) != sorted(AXIS_OF_WORD) or len(shape) != 3:
        expected = "the words band, row and col in the order of an array of three axes"
        fix = f"correct it, such as scene.axes=[band,row,col]; the array is {text}"
        raise InputError(path, "scene.axes", printable(list(axes)), expected, fix)
    return tuple(AXIS_OF_WORD[axis] for axis in axes)


def choose_array(path: Path, arrays: Mapping[str, tuple[int, ...]], variable: str | None) -> str:
    """Says which array of a file is meant: the one named, or the only one that can be a raster.

    ``arrays``: name -> shape of each array of real numbers. Single rows or columns, as of wavelengths, are to be named.
    """
    rasters = {name: shape for name, shape in arrays.items() if len(shape) in (2, 3) and min(shape) > 0}
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


def _cube_in_memory(path: Path, name: str, array: NDArray, axes: Sequence[str] | None, kind: str) -> CubeFile:
    cube = layers_first(array, array_axes(path, array.shape, array.dtype, axes))
    facts = {"variable": printable(name)}
    return CubeFile(
        path, f"{kind} {array.dtype.name}", ArrayPixels(cube), len(cube), GeoBox(cube.shape[1:]), facts=facts
    )
