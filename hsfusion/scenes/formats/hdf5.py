"""HDF5, netCDF-4 and MATLAB 7.3: arrays that name their axes, and what the readers of products share.

Specifications: HDF5 File Format 3.0 and Dimension Scale Specification (The HDF Group), netCDF-4 (Unidata), CF
Conventions 1.11, HDF-EOS5 Data Model (NASA ESE-RFC-008), and MathWorks, MAT-File Versions: MATLAB 7.3 is HDF5 with the
axes of each array in reverse order. Only hard links are followed, and only numbers in the file itself are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import h5py
import numpy as np
from h5py import h5l  # pyright: ignore[reportAttributeAccessIssue]
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.arrays import AXIS_OF_WORD, array_axes, choose_array
from hsfusion.scenes.formats.cube_file import NM_PER_UNIT, BandTable, CubeFile
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window

Stored: TypeAlias = h5py.Group | h5py.Dataset

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
_WAVELENGTH = re.compile(
    r"((cent(er|re|ral)|band|spectral|nominal|mean|radiation|sensor)_?)*(wave_?len(gth)?s?|wls?|wvls?|lambdas?)"
    r"(_?cent(er|re)s?)?(_?3d)?(_?(nm|um))?|band_?cent(er|re)s?(_?(nm|um))?"
)
_FWHM = re.compile(r"(.*_)?fwhm(_.*)?|band_?widths?(_?(nm|um))?|full_width.*")
_DEPTH = 3  # levels of groups that are searched for lists of wavelengths
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"  # NAME of a scale that holds no numbers


_MATLAB_CLASSES = {"double", "single", "logical"} | {f"{s}int{bits}" for bits in (8, 16, 32, 64) for s in ("", "u")}


def format_error(
    stored: Stored, field: str, value: object, expected: str, fix: str = "get the file anew"
) -> InputError:
    """An error that names the file of a group or dataset."""
    return InputError(stored.file.filename, printable(field), printable(value), expected, fix)


def resolve(file: h5py.Group, name: str) -> Stored | None:
    """What stands at a path inside the file, or None; refuses a way there over links, which may lead to other files."""
    here: Any = file
    for part in filter(None, name.split("/")):
        key = part.encode("utf-8", "surrogateescape")
        if not isinstance(here, h5py.Group) or not here.id.links.exists(key):
            return None
        if here.id.links.get_info(key).type != h5l.TYPE_HARD:  # asked before the link is followed
            fix = "copy the data into one file (h5repack)"
            raise format_error(file, name, "a link", "an object of the file itself", fix)
        here = here[key]
    return here if isinstance(here, Stored) else None


def members(group: h5py.Group) -> list[str]:
    """Names of what a group holds, links left out."""
    names = [str(name) for name in group]
    kinds = [group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type for name in names]
    return [name for name, kind in zip(names, kinds, strict=True) if kind == h5l.TYPE_HARD]


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

    Args:
        file: the file or group.
        name: of the dataset.
        fill: the number that means "no data", the only one that may stand for parts that were never stored: the library
            makes those up, as after a killed run.
    """
    dataset = resolve(file, name)
    if not isinstance(dataset, h5py.Dataset) or not _is_real(dataset) or not dataset.size:
        raise format_error(file, name, "missing" if dataset is None else "something else", "an array of real numbers")
    whole = dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_ALLOCATED
    means_none = fill is not None and np.array_equal(dataset.fillvalue, fill, equal_nan=True)
    size, elsewhere = dataset.id.get_storage_size(), dataset.is_virtual or dataset.external
    if elsewhere or not (whole or (means_none and size)):
        found = "in other files" if elsewhere else f"{size} bytes, not the whole"
        expected = "all chunks in this file, or a fill value that means no data"
        raise format_error(file, f"stored part of {dataset.name}", found, expected, "write the file anew")
    return dataset


def band_list(file: h5py.Group, name: str) -> NDArray[np.float64] | None:
    """A list of numbers such as wavelengths; None where there is none."""
    return None if resolve(file, name) is None else np.asarray(stored_numbers(file, name)[()], np.float64)


def product_bands(file: h5py.Group, wavelength: str, fwhm: str) -> tuple[NDArray[np.float64] | None, BandTable]:
    """Wavelengths of a product, and its band table: in nm by its specification where the file names no unit."""
    dataset, centres, unit, source = resolve(file, wavelength), band_list(file, wavelength), None, wavelength
    if dataset is not None:
        unit = attribute_text(dataset, "Units") or attribute_text(dataset, "units")
        source = wavelength if unit else f"{wavelength} (unit by the product's specification)"
        unit = unit or "Nanometers"
    return centres, BandTable(centres, band_list(file, fwhm), unit=unit, source=source)


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
class H5Pixels:
    """The stored numbers of a dataset, read by hyperslab.

    Attributes:
        path: the file.
        name: of the dataset.
        dtype: of its numbers.
        axes: what its axes are, in their order: ``layers`` (may be missing), ``rows``, ``cols``.
        shape: of the dataset, in that order.
    """

    path: Path
    name: str
    dtype: np.dtype
    axes: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self._size("layers")

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return self._size("rows"), self._size("cols")

    def _size(self, axis: str) -> int:
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def read(self, window: Window) -> NDArray:
        """Reads a window: (layers, height, width) as stored."""
        row, col, height, width = window
        part = {"layers": slice(None), "rows": slice(row, row + height), "cols": slice(col, col + width)}
        with h5py.File(self.path, "r") as file:
            dataset = file[self.name]
            assert isinstance(dataset, h5py.Dataset), "it was when it was described"
            values = dataset[tuple(part[axis] for axis in self.axes)]
        values = values.transpose([self.axes.index(axis) for axis in part if axis in self.axes])
        return values if "layers" in self.axes else values[None]


def pixels_of(file: h5py.File, name: str, axes: tuple[str, ...], *, fill: float | None = None) -> H5Pixels:
    """Describes a dataset for reading; axes: see :class:`H5Pixels`, fill: see :func:`stored_numbers`."""
    dataset = stored_numbers(file, name, fill=fill)
    if dataset.ndim != len(axes):
        raise format_error(file, f"shape of {name}", dataset.shape, f"{len(axes)} axes ({', '.join(axes)})")
    return H5Pixels(Path(file.filename), name, dataset.dtype, axes, tuple(map(int, dataset.shape)))


def open_matlab73(path: Path, *, variable: str | None = None, axes: Sequence[str] | None = None) -> CubeFile:
    """Opens an array (H, W) or (H, W, layers) of a MATLAB 7.3 file.

    Args:
        path: the file.
        variable: name of the array; needed where the file has several.
        axes: of the array as MATLAB shows it, see :func:`array_axes`.
    """
    with h5py.File(path, "r") as file:
        shapes = {
            name: stored.shape[::-1]
            for name in members(file)
            if is_array(stored := resolve(file, name))
            and attribute_text(stored, "MATLAB_class") in _MATLAB_CLASSES
            and "MATLAB_empty" not in stored.attrs
        }
        name = choose_array(path, shapes, variable)
        pixels = pixels_of(file, name, array_axes(path, shapes[name], axes)[::-1])
    return CubeFile(
        path=path,
        format=f"MATLAB 7.3 {pixels.dtype.name}",
        pixels=pixels,
        layers=pixels.layers,
        geobox=GeoBox(pixels.grid),
        facts={"variable": printable(name)},
    )


def open_hdf5(path: Path, *, variable: str | None = None, axes: Sequence[str] | None = None) -> CubeFile:
    """Opens an array of an HDF5 file that is no known product.

    The axes of an array of three are taken from the first of these that names them: dimension scales and labels,
    ``StructMetadata.0`` of HDF-EOS, and a list of wavelengths that is as long as one axis only. Where an axis of bands
    is all that is known, rows come before columns. Nothing is flipped.

    Args:
        path: the file.
        variable: path of a dataset with two or three axes inside the file, needed where there are several.
            ``_FillValue``, ``missing_value``, ``scale_factor`` and ``add_offset`` are honoured (CF Conventions 1.11,
            sections 2.5.1 and 8.1).
        axes: see :func:`array_axes`; in place of what the file says.
    """
    with h5py.File(path, "r") as file:
        arrays: dict[str, tuple[int, ...]] = {}
        file.visititems(lambda name, stored: arrays.update({name: stored.shape}) if is_array(stored) else None)
        name = (variable or "").strip("/")
        name = name if is_array(resolve(file, name)) else choose_array(path, arrays, variable)
        dataset = resolve(file, name)
        assert is_array(dataset), "chosen among such"
        lists = list(_band_lists(file, name))
        known = _axes(file, dataset, lists) if axes is None else array_axes(path, dataset.shape, axes)
        nodata = _nodata(dataset)
        pixels = pixels_of(file, name, known, fill=nodata)
        gain, offset = attribute_number(dataset, "scale_factor"), attribute_number(dataset, "add_offset")
        table = _band_table(dataset, known, lists)
    words = {axis: word for word, axis in AXIS_OF_WORD.items()}
    return CubeFile(
        path=path,
        format=f"HDF5 {pixels.dtype.name}",
        pixels=pixels,
        layers=pixels.layers,
        geobox=GeoBox(pixels.grid),
        table=table,
        nodata=None if nodata is None or np.isnan(nodata) else nodata,  # NaN means no data in every format
        gain=None if gain is None else np.full(pixels.layers, gain),
        offset=None if offset is None else np.full(pixels.layers, offset),
        facts={"variable": printable(name), "axes": ", ".join(words[axis] for axis in known)},
    )


def _nodata(dataset: h5py.Dataset) -> float | None:
    """The number that means "no data", by either of the names that the CF Conventions have for it."""
    floating = dataset.dtype.kind == "f"
    fill, missing = (attribute_number(dataset, name, may_be_nan=floating) for name in ("_FillValue", "missing_value"))
    if fill is None or missing is None:
        return missing if fill is None else fill
    with np.errstate(over="ignore"):
        both = np.array([fill, missing]).astype(dataset.dtype if floating else np.float64)  # one may be rounded
    if not np.array_equal(both[0], both[1], equal_nan=True):
        expected = f"{fill} as _FillValue"
        raise format_error(dataset, f"missing_value of {dataset.name}", missing, expected, "delete one of the two")
    return fill


def _axes(file: h5py.File, dataset: h5py.Dataset, lists: list[list[h5py.Dataset]]) -> tuple[str, ...]:
    """What each axis of a dataset is, by the first evidence that decides it."""
    names = _struct_metadata(file, dataset)
    known = [_axis(words) for words in _dimension_words(dataset)]
    eos = [_axis([name]) for name in names] if len(names) == dataset.ndim else []
    lengths = ({len(stored) for stored in near if _is_wavelengths(stored)} for near in lists)
    fits = ([i for i, length in enumerate(dataset.shape) if length in near] for near in lengths)
    nearest = next(filter(None, fits), [])
    by_length = ["layers" if [i] == nearest else axis for i, axis in enumerate(known)]
    for evidence in (known, eos, by_length):
        axes = _completed(evidence, dataset.ndim)
        if axes is not None:
            return axes
    if dataset.ndim == 2:
        return "rows", "cols"
    raise format_error(
        file,
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


def _axis(words: Iterable[str]) -> str | None:
    """What an axis is by its names; None where they say nothing, or different things."""
    axes = _meanings(words)
    return axes.pop() if len(axes) == 1 else None


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
        words += [attribute_text(scale, name) or "" for scale in scales for name in ("standard_name", "axis")]
        if not _meanings(words):
            units = [_unit(scale) or "" for scale in scales]
            words += ["wavelength" for unit in units if unit.lower() in NM_PER_UNIT]
            words += [unit for unit in units if unit.lower().startswith("degrees_")]
        yield words


def _struct_metadata(file: h5py.File, dataset: h5py.Dataset) -> list[str]:
    """Names of the dimensions of a field of HDF-EOS5; none where there are none, or fields of one name differ."""
    information = resolve(file, "HDFEOS INFORMATION")
    if not isinstance(information, h5py.Group):
        return []
    text = ""
    for name in sorted(name for name in members(information) if name.startswith("StructMetadata.")):
        part = resolve(information, name)
        if isinstance(part, h5py.Dataset) and h5py.check_string_dtype(part.dtype) and part.size == 1:
            text += np.asarray(part.asstr("latin-1")[()]).item()
    field = re.escape((dataset.name or "").rpartition("/")[2])
    lists = set(re.findall(rf'FieldName="{field}".*?\bDimList=\(([^)]*)\)', text, re.DOTALL))
    return re.findall(r'"([^"]*)"', lists.pop()) if len(lists) == 1 else []


def _band_lists(file: h5py.File, name: str) -> Iterator[list[h5py.Dataset]]:
    """Lists of wavelengths and FWHM, the nearest first: in the group of a dataset, in groups in it, and further up."""
    folder = name
    while folder:
        folder = folder.rpartition("/")[0]
        group = resolve(file, folder) if folder else file
        assert isinstance(group, h5py.Group), "it holds the dataset"
        groups = [group]
        for _ in range(_DEPTH):
            stored = [resolve(near, key) for near in groups for key in members(near)]
            yield [one for one in stored if isinstance(one, h5py.Dataset) and (_is_wavelengths(one) or _is_fwhm(one))]
            groups = [one for one in stored if isinstance(one, h5py.Group)]


def _is_list(stored: h5py.Dataset) -> bool:
    name = attribute_text(stored, "NAME") or ""
    return stored.ndim == 1 and _is_real(stored) and not name.startswith(_NO_VARIABLE)


def _is_wavelengths(stored: h5py.Dataset) -> bool:
    if _is_named_wavelengths(stored):
        return _is_list(stored)
    other = _is_fwhm(stored) or _meanings(_names(stored)[:1]) & {"rows", "cols"}
    return (_unit(stored) or "").lower() in NM_PER_UNIT and not other and _is_list(stored)


def _is_named_wavelengths(stored: h5py.Dataset) -> bool:
    return any(map(_WAVELENGTH.fullmatch, _names(stored)))


def _is_fwhm(stored: h5py.Dataset) -> bool:
    return any(map(_FWHM.fullmatch, _names(stored))) and _is_list(stored)


def _names(stored: h5py.Dataset) -> list[str]:
    texts = [(stored.name or "").rpartition("/")[2]]
    texts += [attribute_text(stored, name) or "" for name in ("standard_name", "long_name")]
    return ["_".join(re.findall(r"\w+", text.lower())) for text in texts if text]


def _unit(stored: h5py.Dataset) -> str | None:
    """The unit that a list names by an attribute, or at the end of its own name."""
    for name in ("units", "Units", "unit", "Unit"):
        unit = attribute_text(stored, name)
        if unit:
            return unit
    end = re.search(r"_(nm|um)$", (stored.name or "").lower())
    return end[1] if end else None


def _band_table(dataset: h5py.Dataset, axes: tuple[str, ...], lists: list[list[h5py.Dataset]]) -> BandTable:
    """Wavelengths of the axis of bands, of its own scale or the nearest list of that length, and their FWHM."""
    if "layers" not in axes:
        return BandTable()
    index = axes.index("layers")
    attached = list(dataset.dims[index].values())
    nearest = [[stored for stored in near if len(stored) == dataset.shape[index]] for near in lists]
    rivals = next(filter(None, (list(filter(_is_wavelengths, near)) for near in (attached, *nearest))), [])
    rivals = list(filter(_is_named_wavelengths, rivals)) or rivals
    if not rivals:
        return BandTable()
    wavelengths = rivals[0]
    if any(not np.array_equal(_numbers(rival), _numbers(wavelengths)) for rival in rivals):
        return BandTable(source=printable("one of " + ", ".join((rival.name or "").strip("/") for rival in rivals)))
    unit, fwhm = _unit(wavelengths), None
    for stored in filter(_is_fwhm, chain(*nearest)):
        units = [NM_PER_UNIT.get((word or "").lower()) for word in (_unit(stored) or unit, unit)]
        if units[0] is not None and units[1] is not None:
            fwhm = _numbers(stored) * (units[0] / units[1])
        break
    return BandTable(_numbers(wavelengths), fwhm, unit=unit, source=printable((wavelengths.name or "").strip("/")))


def _numbers(stored: h5py.Dataset) -> NDArray[np.float64]:
    """The numbers of a list, unpacked as the CF Conventions have it."""
    gain, offset = attribute_number(stored, "scale_factor"), attribute_number(stored, "add_offset")
    numbers = np.asarray(stored_numbers(stored.file, stored.name or "")[()], np.float64)
    return numbers * (1 if gain is None else gain) + (offset or 0)
