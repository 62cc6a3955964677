"""HDF5 and netCDF-4: satellite products detected from content, and other files of arrays that name their axes.

Specifications: HDF5 Dimension Scale Specification (The HDF Group), netCDF-4 file format (Unidata), CF Conventions 1.11,
and HDF-EOS5 Data Model, File Format and Library (NASA ESE-RFC-008).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeGuard

import h5py
import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.arrays import AXIS_OF_WORD, array_axes, choose_array
from hsfusion.scenes.formats.cube_file import NM_PER_UNIT, BandTable, CubeFile
from hsfusion.scenes.formats.emit import is_emit, open_emit
from hsfusion.scenes.formats.hdf5_file import (
    attribute_number,
    attribute_text,
    bad,
    checked,
    datasets,
    is_real,
    is_small,
    member,
    members,
    opened,
    pixels_of,
)
from hsfusion.scenes.formats.neon import is_neon, open_neon
from hsfusion.scenes.formats.prisma import is_prisma, open_prisma
from hsfusion.scenes.geobox import GeoBox

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


def open_hdf5(
    path: Path, *, variable: str | None = None, grid: str | None = None, axes: tuple[str, ...] | None = None
) -> CubeFile:
    """Opens an HDF5 file: a PRISMA, EMIT or NEON product, or one of the arrays of any other file.

    The axes of an array of three are taken from the first of these that names them: dimension scales and labels,
    ``StructMetadata.0`` of HDF-EOS, and a list of wavelengths that is as long as one axis only. Where an axis of bands
    is all that is known, rows come before columns. Nothing is flipped.

    Args:
        path: the file.
        variable: path of a dataset with two or three axes inside the file; it is then taken as it is, also out of a
            product. ``_FillValue``, ``missing_value``, ``scale_factor`` and ``add_offset`` are honoured (CF Conventions
            1.11, sections 2.5.1 and 8.1). For a product of NEON also the name of one of its sites.
        grid: ``map`` or ``sensor``, for EMIT only, see :func:`open_emit`.
        axes: ``rows``, ``cols`` and ``layers`` in the order of the array, in place of what the file says.

    Raises:
        InputError: if the file is damaged, leads into other files, or leaves open which array is meant, or which of its
            axes is which.
    """
    with opened(path) as file:
        emit = variable is None and is_emit(file)
        prisma = variable is None and is_prisma(file)
        neon = (variable is None or not _is_array(member(file, variable))) and is_neon(file)
    if grid is not None and not emit:
        raise _no_choice(path, "scene.grid", grid, "only products of EMIT hold two grids")
    if axes is not None and (emit or prisma or neon):
        raise _no_choice(path, "scene.axes", "set", "the axes of a product are known")
    if emit:
        return open_emit(path, grid=grid)
    if prisma:
        return open_prisma(path)
    return open_neon(path, site=variable) if neon else _open_array(path, variable, axes)


def _no_choice(path: Path, field: str, value: str, reason: str) -> InputError:
    return InputError(path, field, printable(value), f"nothing, as {reason}", f"drop {field}")


def _open_array(path: Path, variable: str | None, axes: tuple[str, ...] | None) -> CubeFile:
    with opened(path) as file:
        name = (variable or "").strip("/")
        dataset = member(file, name) if name else None
        if not _is_array(dataset):
            shapes = {name: dataset.shape for name, dataset in datasets(file) if _is_array(dataset)}
            name = choose_array(path, shapes, variable)
            dataset = member(file, name)
        assert _is_array(dataset), "chosen among such"
        checked(dataset)
        lists = list(_band_lists(file, name))
        axes = _axes(file, dataset, lists) if axes is None else array_axes(path, dataset.shape, axes)
        nodata = _nodata(dataset)
        pixels = pixels_of(file, path, name, axes=axes, fill=nodata)
        gain, offset = attribute_number(dataset, "scale_factor"), attribute_number(dataset, "add_offset")
        table = _band_table(dataset, axes, lists)
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
        facts={"variable": printable(name), "axes": ", ".join(words[axis] for axis in axes)},
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
        raise bad(
            dataset, f"missing_value of {dataset.name}", missing, f"{fill} as _FillValue", "delete one of the two"
        )
    return fill


def _is_array(stored: object) -> TypeGuard[h5py.Dataset]:
    return isinstance(stored, h5py.Dataset) and stored.ndim in (2, 3) and is_real(stored)


def _axes(file: h5py.File, dataset: h5py.Dataset, lists: list[list[h5py.Dataset]]) -> tuple[str, ...]:
    """What each axis of a dataset is, by the first evidence that decides it.

    Raises:
        InputError: if nothing does.
    """
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
    raise bad(
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
    information = member(file, "HDFEOS INFORMATION")
    if not isinstance(information, h5py.Group):
        return []
    text = ""
    for name in sorted(name for name in members(information) if name.startswith("StructMetadata.")):
        part = member(information, name)
        if isinstance(part, h5py.Dataset) and h5py.check_string_dtype(part.dtype) and part.size == 1 and is_small(part):
            text += np.asarray(part.asstr("latin-1")[()]).item()
    field = re.escape((dataset.name or "").rpartition("/")[2])
    lists = set(re.findall(rf'FieldName="{field}".*?\bDimList=\(([^)]*)\)', text, re.DOTALL))
    return re.findall(r'"([^"]*)"', lists.pop()) if len(lists) == 1 else []


def _band_lists(file: h5py.File, name: str) -> Iterator[list[h5py.Dataset]]:
    """Lists of wavelengths and FWHM, the nearest first: in the group of a dataset, in groups in it, and further up."""
    folder = name
    while folder:
        folder = folder.rpartition("/")[0]
        group = member(file, folder) if folder else file
        assert isinstance(group, h5py.Group), "it holds the dataset"
        groups = [group]
        for _ in range(_DEPTH):
            stored = [member(near, key) for near in groups for key in members(near)]
            yield [one for one in stored if isinstance(one, h5py.Dataset) and (_is_wavelengths(one) or _is_fwhm(one))]
            groups = [one for one in stored if isinstance(one, h5py.Group)]


def _is_list(stored: h5py.Dataset) -> bool:
    """Whether a dataset is a list of numbers that are stored."""
    name = attribute_text(stored, "NAME") or ""
    return stored.ndim == 1 and is_real(stored) and not name.startswith(_NO_VARIABLE) and is_small(stored)


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
    return np.asarray(checked(stored)[()], np.float64) * (1 if gain is None else gain) + (offset or 0)
