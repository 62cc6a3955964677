"""Arrays in files: NumPy (``.npy``, ``.npz``), MATLAB, HDF5 and netCDF-4, and what the readers of HDF5 products share.

NumPy and MATLAB do not name their axes: they are (H, W) or (H, W, layers), as the public benchmarks come, unless the
user names them. Nothing is unpickled. A damaged file of MATLAB 5 can crash scipy, which therefore reads it in a process
of its own first. MATLAB 7.3 (``save -v7.3``) is HDF5 with the axes of each array in reverse order. HDF5 whose numbers
lie in other files is refused, for the library makes them up where such a file is missing.

Specifications: HDF5 File Format 3.0 and Dimension Scale Specification (The HDF Group), netCDF-4 (Unidata), CF
Conventions 1.11, and MathWorks, MAT-File Versions.
"""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeGuard

import h5py
import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import (
    NM_PER_UNIT,
    ArrayPixels,
    BandTable,
    CubeFile,
    FileArray,
    MappedPixels,
    layers_first,
)
from hsfusion.scenes.geobox import GeoBox, Window

Stored: TypeAlias = h5py.Group | h5py.Dataset

_AXIS_OF_WORD = {"band": "layers", "row": "rows", "col": "cols"}  # the words of scene.axes
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
# words in names of dimensions, in lower case
_WORDS = {
    "layers": "b band bands nb nbands bandnumber channel channels layer layers spectral spectrum"
    " wavelength wavelengths wavelen wl wvl lambda",
    "rows": "y ny ydim yc north northing lat latitude row rows nrows line lines nlines"
    " downtrack alongtrack atrack scan scans",
    "cols": "x nx xdim xc east easting lon long longitude col cols ncols column columns ncolumns"
    " sample samples nsamples pixel pixels npixels crosstrack acrosstrack xtrack",
}
_AXIS_OF_NAME = {word: axis for axis, words in _WORDS.items() for word in words.split()}
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"  # NAME of a scale that holds no numbers


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
    if isinstance(axes, str) or sorted(map(str, axes)) != sorted(_AXIS_OF_WORD) or len(shape) != 3:
        expected = "the words band, row and col in the order of an array of three axes"
        fix = f"correct it, such as scene.axes=[band,row,col]; the array is {text}"
        raise InputError(path, "scene.axes", printable(list(axes)), expected, fix)
    return tuple(_AXIS_OF_WORD[axis] for axis in axes)


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
    return isinstance(stored, h5py.Dataset) and stored.ndim in (2, 3) and _is_real(stored)


def _is_real(dataset: h5py.Dataset) -> bool:
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
    if not isinstance(dataset, h5py.Dataset) or not _is_real(dataset) or not dataset.size:
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
    unit = attribute_text(dataset, "Units") or attribute_text(dataset, "units")
    source = wavelength if unit else f"{wavelength} (unit by the product's specification)"
    return BandTable(band_list(file, wavelength), band_list(file, fwhm), unit=unit or "Nanometers", source=source)


def text_of(value: object) -> str | None:
    """A value of a file as text, in one line, or None if it is none."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return printable(value.strip("\0 \n"), longest=10_000) if isinstance(value, str) else None


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


def attribute_number(stored: Stored, name: str, *, may_be_nan: bool = False) -> float | None:
    """An attribute that is one finite number, or NaN if it may be; None where there is none."""
    return float(attribute_numbers(stored, name, length=1, may_be_nan=may_be_nan)[0]) if name in stored.attrs else None


@dataclass(frozen=True)
class H5Pixels(FileArray):
    """The stored numbers of the dataset ``name``, read by hyperslab."""

    name: str

    def read(self, window: Window, layers: NDArray[np.int64] | None = None) -> NDArray:
        """See :meth:`Pixels.read`."""
        with h5py.File(self.path, "r") as file:
            return self.part(file[self.name], window, layers)


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


def open_hdf5(path: Path, *, variable: str | None = None, axes: Sequence[str] | None = None) -> CubeFile:
    """Opens an array of an HDF5 file that is no known product.

    The axes of an array of three are named by dimension scales and labels, unless ``axes`` does (:func:`array_axes`).
    Where an axis of bands is all that is known, rows come before columns; nothing is flipped. Wavelengths are those of
    the scale of the bands, or of a list called ``wavelength`` beside the array, FWHM those of a list called ``fwhm``.
    ``_FillValue``, ``missing_value``, ``scale_factor`` and ``add_offset`` are honoured (CF Conventions 1.11, sections
    2.5.1 and 8.1).
    """
    with h5py.File(path, "r") as file:
        arrays: dict[str, tuple[int, ...]] = {}
        file.visititems(lambda name, stored: arrays.update({name: stored.shape}) if is_array(stored) else None)
        name = (variable or "").strip("/")
        name = name if is_array(resolve(file, name)) else choose_array(path, arrays, variable)
        dataset = resolve(file, name)
        assert is_array(dataset), "chosen among such"
        known = _axes(dataset) if axes is None else array_axes(path, dataset.shape, dataset.dtype, axes)
        nan = dataset.dtype.kind == "f"
        nodata, missing = (attribute_number(dataset, key, may_be_nan=nan) for key in ("_FillValue", "missing_value"))
        pixels = pixels_of(file, name, known, fill=missing if nodata is None else nodata)
        gain, offset = attribute_number(dataset, "scale_factor"), attribute_number(dataset, "add_offset")
        table = _band_table(dataset, known)
    words = {axis: word for word, axis in _AXIS_OF_WORD.items()}
    return CubeFile(
        path=path,
        format=f"HDF5 {pixels.dtype.name}",
        pixels=pixels,
        layers=pixels.layers,
        geobox=GeoBox(pixels.grid),
        table=table,
        nodata=next((value for value in (nodata, missing) if value is not None and not np.isnan(value)), None),
        background=missing,
        gain=None if gain is None else np.full(pixels.layers, gain),
        offset=None if offset is None else np.full(pixels.layers, offset),
        facts={"variable": printable(name), "axes": ", ".join(words[axis] for axis in known)},
    )


def _axes(dataset: h5py.Dataset) -> tuple[str, ...]:
    """What each axis of a dataset is, as its dimensions say."""
    meanings = [_meanings(words) for words in _dimension_words(dataset)]
    known = [axes.pop() if len(axes) == 1 else None for axes in meanings]  # names may say nothing, or different things
    axes = _completed(known, dataset.ndim)
    if axes is not None or dataset.ndim == 2:
        return axes or ("rows", "cols")
    raise format_error(
        dataset,
        f"order of the axes of {dataset.name} ({' x '.join(map(str, dataset.shape))})",
        "not named by the file",
        "dimension scales with names such as wavelength, y, x, or scene.axes",
        "add the order, such as scene.axes=[band,row,col]",
    )


def _completed(known: list[str | None], rank: int) -> tuple[str, ...] | None:
    """All axes, where those that are known leave one way only: one is missing, or rows and columns in this order."""
    wanted = ("rows", "cols", "layers")[:rank]
    missing = [axis for axis in wanted if axis not in known]
    if len(known) != rank or len(missing) != known.count(None) or (len(missing) > 1 and missing != ["rows", "cols"]):
        return None
    return tuple(axis or missing.pop(0) for axis in known)


def _meanings(words: Iterable[str]) -> set[str]:
    axes = set()
    for word in words:
        parts = re.findall("[a-z]+", word.lower().split("_per_")[0])
        whole = _AXIS_OF_NAME.get("".join(parts))
        axes |= {whole} if whole else {_AXIS_OF_NAME[part] for part in parts if part in _AXIS_OF_NAME}
    return axes


def _dimension_words(dataset: h5py.Dataset) -> Iterator[list[str]]:
    """Names of each axis: its label, its scales, and what they say of themselves by the CF Conventions."""
    for dimension in dataset.dims:
        scales = list(dimension.values())
        words = [dimension.label, *((scale.name or "").rpartition("/")[2] for scale in scales)]
        yield words + [attribute_text(scale, name) or "" for scale in scales for name in ("standard_name", "axis")]


def _band_table(dataset: h5py.Dataset, axes: tuple[str, ...]) -> BandTable:
    """Wavelengths of the axis of bands, of its own scale or a list called so beside the array, and their FWHM."""
    if "layers" not in axes:
        return BandTable()
    axis = axes.index("layers")
    scales = [scale for scale in dataset.dims[axis].values() if _is_wavelengths(scale)]
    size = dataset.shape[axis]
    lists = scales or _beside(dataset, "wavelength", size) or _beside(dataset, "wavelengths", size)
    if not lists:
        return BandTable()
    unit, fwhm = _unit(lists[0]), None
    for stored in _beside(dataset, "fwhm", size):
        factors = [NM_PER_UNIT.get((word or "").lower()) for word in (_unit(stored) or unit, unit)]
        if factors[0] is not None and factors[1] is not None:
            fwhm = _numbers(stored) * (factors[0] / factors[1])
    return BandTable(_numbers(lists[0]), fwhm, unit=unit, source=printable((lists[0].name or "").strip("/")))


def _beside(dataset: h5py.Dataset, name: str, size: int) -> list[h5py.Dataset]:
    """A list of numbers of that name and length in the group of an array, or else at the top of the file."""
    stored = resolve(dataset.file, f"{dataset.parent.name}/{name}") or resolve(dataset.file, name)
    return [stored] if isinstance(stored, h5py.Dataset) and _is_list(stored) and len(stored) == size else []


def _is_list(stored: h5py.Dataset) -> bool:
    name = attribute_text(stored, "NAME") or ""
    return stored.ndim == 1 and _is_real(stored) and not name.startswith(_NO_VARIABLE)


def _is_wavelengths(scale: h5py.Dataset) -> bool:
    names = (scale.name or "").rpartition("/")[2], attribute_text(scale, "standard_name") or ""
    named = any("wavelength" in name.lower() for name in names)
    return (named or (_unit(scale) or "").lower() in NM_PER_UNIT) and _is_list(scale)


def _unit(stored: h5py.Dataset) -> str | None:
    return next(filter(None, (attribute_text(stored, name) for name in ("units", "Units", "unit", "Unit"))), None)


def _numbers(stored: h5py.Dataset) -> NDArray[np.float64]:
    gain, offset = attribute_number(stored, "scale_factor"), attribute_number(stored, "add_offset")
    numbers = np.asarray(stored_numbers(stored.file, stored.name or "")[()], np.float64)
    return numbers * (1 if gain is None else gain) + (offset or 0)
