"""HDF5 and netCDF-4 files that are no known product: axes, wavelengths and place by the conventions of netCDF.

Specifications: HDF5 Dimension Scale Specification (The HDF Group), netCDF-4 (Unidata), CF Conventions 1.11.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from hsfusion.errors import printable
from hsfusion.scenes.formats.arrays import (
    AXIS_OF_WORD,
    array_axes,
    attribute_number,
    attribute_numbers,
    attribute_text,
    choose_array,
    format_error,
    is_array,
    is_real,
    pixels_of,
    resolve,
    stored_numbers,
    unit_of,
)
from hsfusion.scenes.formats.cube_file import NM_PER_UNIT, BandTable, CubeFile, crs_as_wkt
from hsfusion.scenes.geobox import GeoBox, crs_name, transform_of_centres

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
_METRES = {"m", "metre", "metres", "meter", "meters"}
_log = logging.getLogger(__name__)
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"  # NAME of a scale that holds no numbers


def open_hdf5(path: Path, *, variable: str | None = None, axes: Sequence[str] | None = None) -> CubeFile:
    """Opens an array of an HDF5 file that is no known product.

    The axes of an array of three are named by dimension scales and labels, unless ``axes`` does (:func:`array_axes`).
    Where an axis of bands is all that is known, rows come before columns; nothing is flipped. Wavelengths are those of
    the scale of the bands, or of a list called ``wavelength`` beside the array, FWHM those of a list called ``fwhm``.
    The place is that of the scales of rows and columns, in the CRS of the grid mapping (section 5.6) or WGS 84 for
    degrees north and east, or else in metres: other scales may be numbers of pixels. ``_FillValue``, ``missing_value``,
    ``valid_range``, ``valid_min``, ``valid_max``, ``scale_factor`` and ``add_offset`` are honoured (CF Conventions
    1.11, sections 2.5.1 and 8.1), and ``_Unsigned`` (NetCDF User's Guide).
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
        pixels = replace(pixels, dtype=_dtype(dataset), valid=_valid_range(dataset))
        nodata, missing = (_meant(dataset, value) for value in (nodata, missing))
        gain, offset = attribute_number(dataset, "scale_factor"), attribute_number(dataset, "add_offset")
        table, (geobox, facts) = _band_table(dataset, known), _place(dataset, known, pixels.grid)
    words = {axis: word for word, axis in AXIS_OF_WORD.items()}
    if pixels.valid is not None:
        facts["valid range"] = "{:g} to {:g} as stored, others are no data".format(*pixels.valid)
    return CubeFile(
        path=path,
        format=f"HDF5 {pixels.dtype.name}",
        pixels=pixels,
        layers=pixels.layers,
        geobox=geobox,
        table=table,
        nodata=next((value for value in (nodata, missing) if value is not None and not np.isnan(value)), None),
        background=missing,
        gain=None if gain is None else np.full(pixels.layers, gain),
        offset=None if offset is None else np.full(pixels.layers, offset),
        facts={"variable": printable(name), "axes": ", ".join(words[axis] for axis in known)} | facts,
    )


def _dtype(dataset: h5py.Dataset) -> np.dtype:
    """The type of what is stored: unsigned where the attribute ``_Unsigned`` says so of signed numbers."""
    unsigned = (attribute_text(dataset, "_Unsigned") or "").lower() == "true"
    return np.dtype(dataset.dtype.str.replace("i", "u")) if unsigned else dataset.dtype


def _meant(dataset: h5py.Dataset, value: float | None) -> float | None:
    """A stored number by the type that is meant."""
    if value is None or _dtype(dataset) == dataset.dtype:
        return value
    return value % 2 ** (8 * dataset.dtype.itemsize)


def _valid_range(dataset: h5py.Dataset) -> tuple[float, float] | None:
    """The lowest and the highest stored number that count as data."""
    names = [name for name in ("valid_range", "valid_min", "valid_max") if name in dataset.attrs]
    if not names:
        return None
    if names[0] == "valid_range":
        ends = attribute_numbers(dataset, "valid_range", length=2).tolist()
    else:
        ends = [attribute_number(dataset, name) for name in ("valid_min", "valid_max")]
    # floating numbers beside whole stored ones are physical values, by the NetCDF User's Guide, appendix A
    if dataset.dtype.kind != "f" and any(np.asarray(dataset.attrs[name]).dtype.kind == "f" for name in names):
        gain, offset = attribute_number(dataset, "scale_factor") or 1, attribute_number(dataset, "add_offset") or 0
        ends = [None if end is None else round((end - offset) / gain, 3) for end in ends]
        low, high = ends[:: -1 if gain < 0 else 1]
    else:
        low, high = (_meant(dataset, end) for end in ends)
    return (-np.inf if low is None else low), (np.inf if high is None else high)


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
    unit, fwhm = unit_of(lists[0]), None
    for stored in _beside(dataset, "fwhm", size):
        factors = [NM_PER_UNIT.get((word or "").lower()) for word in (unit_of(stored) or unit, unit)]
        if factors[0] is not None and factors[1] is not None:
            fwhm = _numbers(stored) * (factors[0] / factors[1])
    return BandTable(_numbers(lists[0]), fwhm, unit=unit, source=printable((lists[0].name or "").strip("/")))


def _place(dataset: h5py.Dataset, axes: tuple[str, ...], grid: tuple[int, int]) -> tuple[GeoBox, dict[str, str]]:
    """Where the centres of pixels lie by the scales of columns and rows, evenly spaced, in the unit of the CRS."""
    firsts = [next(filter(_is_list, dataset.dims[axes.index(axis)].values()), None) for axis in ("cols", "rows")]
    scales = [scale for scale in firsts if scale is not None]
    units = [(unit_of(scale) or "").lower() for scale in scales]
    wkt = _crs(dataset, units)
    if wkt is None and (len(units) < 2 or not set(units) <= _METRES):
        return GeoBox(grid), {}
    if len(scales) < 2:
        wrong = "missing"
    elif wkt is not None and not all(_is_unit_of(CRS.from_wkt(wkt), unit) for unit in units):
        wrong = f"in {printable(' and '.join(units), longest=60)}, which {crs_name(wkt)} is not"
    elif (transform := transform_of_centres(*map(_numbers, scales))) is not None:
        return GeoBox(grid, transform, wkt), {}
    else:
        wrong = "not evenly spaced"
    text = f"the coordinates of columns and rows are {wrong}, so the georeferencing is not used"
    _log.warning("%s: %s.", dataset.file.filename, text)
    return GeoBox(grid), {"place": text}


def _crs(dataset: h5py.Dataset, units: Sequence[str]) -> str | None:
    name = (attribute_text(dataset, "grid_mapping") or "spatial_ref").partition(":")[0].strip()
    mapping = resolve(dataset.file, f"{dataset.parent.name}/{name}") or resolve(dataset.file, name)
    for key in ("crs_wkt", "spatial_ref"):
        if mapping is not None and (wkt := attribute_text(mapping, key)):
            return crs_as_wkt(dataset.file.filename, f"{key} of {printable(name)}", wkt)
    is_degrees = len(units) == 2 and all(map(re.fullmatch, ("degrees?_?e(ast)?", "degrees?_?n(orth)?"), units))
    return crs_as_wkt(dataset.file.filename, "units", 4326) if is_degrees else None


def _is_unit_of(crs: CRS, unit: str) -> bool:
    if not unit or crs.is_geographic:
        return not unit or unit.startswith("deg")
    name = crs.linear_units.lower() if crs.is_projected else ""
    return unit == name or {unit, name} <= _METRES


def _beside(dataset: h5py.Dataset, name: str, size: int) -> list[h5py.Dataset]:
    """A list of numbers of that name and length in the group of an array, or else at the top of the file."""
    stored = resolve(dataset.file, f"{dataset.parent.name}/{name}") or resolve(dataset.file, name)
    return [stored] if isinstance(stored, h5py.Dataset) and _is_list(stored) and len(stored) == size else []


def _is_list(stored: h5py.Dataset) -> bool:
    name = attribute_text(stored, "NAME") or ""
    return stored.ndim == 1 and is_real(stored) and not name.startswith(_NO_VARIABLE)


def _is_wavelengths(scale: h5py.Dataset) -> bool:
    names = (scale.name or "").rpartition("/")[2], attribute_text(scale, "standard_name") or ""
    named = any("wavelength" in name.lower() for name in names)
    return (named or (unit_of(scale) or "").lower() in NM_PER_UNIT) and _is_list(scale)


def _numbers(stored: h5py.Dataset) -> NDArray[np.float64]:
    gain, offset = attribute_number(stored, "scale_factor"), attribute_number(stored, "add_offset")
    numbers = np.asarray(stored_numbers(stored.file, stored.name or "")[()], np.float64)
    return numbers * (1 if gain is None else gain) + (offset or 0)
