"""Arrays in files: NumPy (``.npy``, ``.npz``) and MATLAB, and what all readers of HDF5 share.

NumPy and MATLAB do not name their axes: they are (H, W) or (H, W, layers), as the public benchmarks come, unless the
user names them. Nothing is unpickled. A damaged file of MATLAB 5 can crash scipy, which therefore reads it in a process
of its own first. MATLAB 7.3 (``save -v7.3``) is HDF5 with the axes of each array in reverse order. HDF5 whose numbers
lie in other files is refused, for the library makes them up where such a file is missing.

Specifications: HDF5 File Format 3.0 (The HDF Group) and MathWorks, MAT-File Versions.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeGuard

import h5py
import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import ArrayPixels, BandTable, CubeFile, FileArray, MappedPixels, layers_first
from hsfusion.scenes.geobox import GeoBox, Window

Stored: TypeAlias = h5py.Group | h5py.Dataset

#: the words of scene.axes
AXIS_OF_WORD = {"band": "layers", "row": "rows", "col": "cols"}
_TRIAL = """
import sys
sys.path[:] = sys.argv[2:]
from scipy.io import loadmat
try:
    loadmat(sys.argv[1], appendmat=False)
except Exception:
    pass  # which comes again
"""
_MATLAB_CLASSES = {"logical", "single", "double"} | {f"{s}int{bits}" for bits in (8, 16, 32, 64) for s in ("", "u")}


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
    shapes = {name: shape for name, shape, kind in whosmat(path, appendmat=False) if kind in _MATLAB_CLASSES}
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
        printable(variable) if variable is not None else "not given" if names else "none",
        f"one of {', '.join(names[:20])}" if names else "an array (H, W) or (H, W, layers) of real numbers",
        "name it by scene.variable, that of labels by scene.labels_variable" if names else "save such an array",
    )


def _cube_in_memory(path: Path, name: str, array: NDArray, axes: Sequence[str] | None, kind: str) -> CubeFile:
    known = array_axes(path, array.shape, array.dtype, axes)
    cube, facts = layers_first(array, known), {"variable": printable(name)}
    pixels = ArrayPixels(cube, f"{name} {known}")
    return CubeFile(path, f"{kind} {array.dtype.name}", pixels, len(cube), GeoBox(cube.shape[1:]), facts=facts)


def format_error(
    stored: Stored, field: str, value: object, expected: str, fix: str = "download or copy the file again"
) -> InputError:
    """An error that names the file of a group or dataset."""
    return InputError(stored.file.filename, printable(field), printable(value), expected, fix)


def resolve(file: h5py.Group, name: str) -> Stored | None:
    """What stands at a path inside the file, or None."""
    if name not in file:
        return None
    stored = file[name]
    return stored if isinstance(stored, Stored) else None


def is_array(stored: object) -> TypeGuard[h5py.Dataset]:
    """Whether something is a dataset of two or three axes of real numbers."""
    return isinstance(stored, h5py.Dataset) and stored.ndim in (2, 3) and is_real(stored)


def is_real(dataset: h5py.Dataset) -> bool:
    """Whether a dataset holds real numbers."""
    try:
        return dataset.dtype.kind in "iufb"
    except TypeError:  # a type that NumPy has no counterpart of
        return False


def stored_numbers(file: h5py.Group, name: str, *, fill: float | None = None) -> h5py.Dataset:
    """A dataset of real numbers that all lie in this file.

    The library makes up what was never stored, as after a killed run: only ``fill``, the number that means "no data",
    may stand there.
    """
    dataset = resolve(file, name)
    if not isinstance(dataset, h5py.Dataset) or not is_real(dataset) or not dataset.size:
        raise format_error(file, name, "missing" if dataset is None else "something else", "an array of real numbers")
    whole = dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_ALLOCATED
    means_none = fill is not None and np.array_equal(dataset.fillvalue, fill, equal_nan=True)
    size = dataset.id.get_storage_size()
    elsewhere = dataset.is_virtual or dataset.external or dataset.file.filename != file.file.filename
    if elsewhere or not (whole or (means_none and size)):
        value = "in other files" if elsewhere else f"{size} bytes, not the whole"
        expected = "all numbers in this file, or a fill value that means no data"
        raise format_error(file, f"stored part of {name}", value, expected, "write the file again (h5repack)")
    return dataset


def band_list(file: h5py.Group, name: str) -> NDArray[np.float64] | None:
    """A list of numbers such as wavelengths; None where there is none."""
    return None if resolve(file, name) is None else np.asarray(stored_numbers(file, name)[()], np.float64)


def product_bands(file: h5py.Group, wavelength: str, fwhm: str) -> BandTable:
    """The band table of a product: in nm by its specification where the file names no unit."""
    dataset = resolve(file, wavelength)
    if dataset is None:
        return BandTable(source=wavelength)
    unit = unit_of(dataset)
    source = wavelength if unit else f"{wavelength} (unit by the product's specification)"
    return BandTable(band_list(file, wavelength), band_list(file, fwhm), unit=unit or "Nanometers", source=source)


def text_of(value: object) -> str | None:
    """A value of a file as text, in one line, or None if it is none."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return printable(" ".join(value.strip("\0").split()), longest=10_000) if isinstance(value, str) else None


def attribute_text(stored: Stored, name: str) -> str | None:
    """An attribute that is text, in one line; None where there is none or it is something else."""
    return text_of(stored.attrs.get(name))


def attribute_numbers(stored: Stored, name: str, *, length: int, may_be_nan: bool = False) -> NDArray[np.float64]:
    """An attribute that has to be a list of finite numbers (length,), or of NaN if it may be."""
    value = stored.attrs.get(name)
    numbers = np.asarray(value)
    allowed = np.isfinite(numbers) | (may_be_nan & np.isnan(numbers)) if numbers.dtype.kind in "iuf" else False
    if numbers.size != length or not np.all(allowed):
        expected = "1 finite number" if length == 1 else f"{length} finite numbers"
        raise format_error(stored, name, "missing" if value is None else value, expected)
    return numbers.astype(np.float64).reshape(-1)


def one_number(stored: Stored, name: str, *, may_be_nan: bool = False) -> float:
    """An attribute that has to be one finite number, or NaN if it may be."""
    return float(attribute_numbers(stored, name, length=1, may_be_nan=may_be_nan)[0])


def attribute_number(stored: Stored, name: str, *, may_be_nan: bool = False) -> float | None:
    """An attribute as :func:`one_number`; None where there is none."""
    return one_number(stored, name, may_be_nan=may_be_nan) if name in stored.attrs else None


def unit_of(stored: Stored) -> str | None:
    """The unit of a dataset, by the first of the attributes that name it; None where none does."""
    return next(filter(None, (attribute_text(stored, name) for name in ("units", "Units", "unit", "Unit"))), None)


@dataclass(frozen=True)
class H5Pixels(FileArray):
    """The stored numbers of the dataset ``name``, read by hyperslab, and those outside ``valid`` masked."""

    name: str
    valid: tuple[float, float] | None = None  # lowest and highest number that counts as data

    def read(self, window: Window, layers: NDArray[np.int64] | None = None) -> NDArray:
        """See :meth:`Pixels.read`."""
        with h5py.File(self.path, "r") as file:
            stored = self.part(file[self.name], window, layers).view(self.dtype)
        return stored if self.valid is None else np.ma.masked_outside(stored, *self.valid, copy=False)


def pixels_of(file: h5py.File, name: str, axes: tuple[str, ...], *, fill: float | None = None) -> H5Pixels:
    """Describes a dataset for reading; axes: see :class:`FileArray`, fill: see :func:`stored_numbers`."""
    dataset = stored_numbers(file, name, fill=fill)
    return H5Pixels(Path(file.filename), dataset.dtype, axes, tuple(map(int, dataset.shape)), name)


def open_matlab73(path: Path, *, variable: str | None = None, axes: Sequence[str] | None = None) -> CubeFile:
    """Opens an array of a MATLAB 7.3 file; variable: see :func:`choose_array`, axes: as MATLAB shows the array."""
    with h5py.File(path, "r") as file:
        arrays = {
            name: stored
            for name in map(str, file)
            if is_array(stored := resolve(file, name))
            and attribute_text(stored, "MATLAB_class") in _MATLAB_CLASSES
            and "MATLAB_empty" not in stored.attrs
        }
        shapes = {name: stored.shape[::-1] for name, stored in arrays.items()}
        name = choose_array(path, shapes, variable)
        pixels = pixels_of(file, name, array_axes(path, shapes[name], arrays[name].dtype, axes)[::-1])
    facts = {"variable": printable(name)}
    return CubeFile(path, f"MATLAB 7.3 {pixels.dtype.name}", pixels, pixels.layers, GeoBox(pixels.grid), facts=facts)
