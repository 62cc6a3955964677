"""HDF5 files and windows of their datasets: hard links only, and numbers that lie in the file itself, all of them.

Specification: HDF5 File Format Specification 3.0, https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from h5py import h5l  # pyright: ignore[reportAttributeAccessIssue]
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import library_errors
from hsfusion.scenes.scene import Window

Stored: TypeAlias = h5py.Group | h5py.Dataset

_MOST_OBJECTS, _MOST_DEPTH = 5_000, 12
_MOST_SMALL_BYTES = 2**20  # of an attribute or a table of bands
UNIT_SPECIFIED = "unit by the product's specification"  # said of a source of bands where the file names no unit


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Opens a file for reading, and words what the library finds damaged in it.

    Raises:
        InputError: if it is no whole HDF5 file.
    """
    with library_errors(path), h5py.File(path, "r") as file:
        yield file


def bad(stored: Stored, field: str, value: object, expected: str, fix: str = "get the file anew") -> InputError:
    """An error that names the file of a group or dataset."""
    return InputError(stored.file.filename, printable(field), printable(value), expected, fix)


def member(file: h5py.Group, name: str) -> Stored | None:
    """What stands at a path inside the file, or None.

    Raises:
        InputError: if the way there leads over a link to another place or another file.
    """
    here: Any = file
    for part in name.split("/"):
        if not part:
            continue
        key = part.encode("utf-8", "surrogateescape")
        if not isinstance(here, h5py.Group) or not here.id.links.exists(key):
            return None
        if here.id.links.get_info(key).type != h5l.TYPE_HARD:  # asked before the link is followed
            raise bad(file, name, "a link", "an object of the file itself", "copy the data into one file (h5repack)")
        here = here[key]
    return here if isinstance(here, h5py.Group | h5py.Dataset) else None


def members(group: h5py.Group) -> list[str]:
    """Names of what a group holds, links left out.

    Raises:
        InputError: if there are more than a scene can have.
    """
    if len(group) > _MOST_OBJECTS:
        raise bad(group, "number of objects", len(group), f"at most {_MOST_OBJECTS} in a group", "name scene.variable")
    names = [str(name) for name in group]
    kinds = [group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type for name in names]
    return [name for name, kind in zip(names, kinds, strict=True) if kind == h5l.TYPE_HARD]


def datasets(file: h5py.File, *, skip: tuple[str, ...] = ()) -> Iterator[tuple[str, h5py.Dataset]]:
    """All datasets of a file with their names.

    Args:
        file: the file.
        skip: names at the root to leave out.

    Raises:
        InputError: if there are more than a scene can have.
    """
    waiting = [(name, 1) for name in members(file) if name not in skip]
    for seen in range(_MOST_OBJECTS):
        if not waiting:
            return
        name, depth = waiting.pop(0)
        stored = member(file, name)
        if isinstance(stored, h5py.Dataset):
            yield name, stored
        elif stored is not None and depth < _MOST_DEPTH:  # a group may hold itself
            waiting += [(f"{name}/{below}", depth + 1) for below in members(stored)]
        if seen + len(waiting) > _MOST_OBJECTS:
            break
    if waiting:
        raise bad(file, "number of objects", f"over {_MOST_OBJECTS}", "fewer", "name the dataset as scene.variable")


def checked(dataset: h5py.Dataset) -> h5py.Dataset:
    """Makes sure that the numbers of a dataset lie in its own file, in a way that the library can unpack.

    Raises:
        InputError: if they do not, or are no real numbers.
    """
    name = dataset.name or "dataset"
    if dataset.is_virtual or dataset.external:
        raise bad(dataset, f"storage of {name}", "in other files", "in this file", "copy the data into it (h5repack)")
    if not is_real(dataset):
        raise bad(dataset, f"number type of {name}", "another", "real numbers", "convert the numbers")
    if dataset.shape is None or 0 in dataset.shape:
        raise bad(dataset, f"shape of {name}", dataset.shape, "at least one number", "write the dataset anew")
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(i) for i in range(settings.get_nfilters())]
    missing = [name.decode(errors="replace") or code for code, _, _, name in filters if not h5py.h5z.filter_avail(code)]
    if missing:
        raise bad(dataset, f"compression of {name}", missing[0], "one that this HDF5 has", "use h5repack -f GZIP=4")
    return dataset


def is_real(dataset: h5py.Dataset) -> bool:
    """Whether a dataset holds real numbers."""
    try:
        return dataset.dtype.kind in "iufb"
    except TypeError:  # a type that NumPy has no counterpart of
        return False


def small_array(file: h5py.Group, name: str) -> NDArray[np.float64] | None:
    """A small dataset of numbers, such as a table of bands; None where there is none.

    Raises:
        InputError: if it is large, or holds something else.
    """
    dataset = member(file, name)
    if dataset is None:
        return None
    if not isinstance(dataset, h5py.Dataset):
        raise bad(file, name, "a group", "a dataset")
    checked(dataset)
    check_small(dataset)
    return np.asarray(dataset[()], np.float64)


def check_small(dataset: h5py.Dataset) -> None:
    """Makes sure that a dataset is small, unpacked and packed.

    Raises:
        InputError: if it is not, or is not all stored.
    """
    if dataset.nbytes > _MOST_SMALL_BYTES:
        raise bad(dataset, f"size of {dataset.name}", f"{dataset.nbytes} bytes", f"at most {_MOST_SMALL_BYTES}")
    if dataset.id.get_space_status() != h5py.h5d.SPACE_STATUS_ALLOCATED:
        raise bad(dataset, dataset.name or "dataset", "not stored, or not all of it", "all numbers")


def is_small(dataset: h5py.Dataset) -> bool:
    """Whether a dataset is small, and stored in this file."""
    here = not dataset.is_virtual and not dataset.external
    return here and dataset.nbytes <= _MOST_SMALL_BYTES and dataset.id.get_storage_size() > 0


def attribute(stored: Stored, name: str) -> Any:
    """The value of an attribute, or None where there is none.

    Raises:
        InputError: if it is too large.
    """
    key = name.encode()
    if not h5py.h5a.exists(stored.id, key):
        return None
    opened_attribute = h5py.h5a.open(stored.id, key)
    if opened_attribute.get_space().get_simple_extent_npoints() == 0:  # the library does not tell its size
        return np.empty(0)
    size = opened_attribute.get_storage_size()
    if size > _MOST_SMALL_BYTES:
        raise bad(stored, name, f"{size} bytes long", f"at most {_MOST_SMALL_BYTES}")
    return stored.attrs[name]


def text_of(value: object) -> str | None:
    """A value of a file as text, or None if it is none."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return printable(value.strip("\0 \n"), longest=10_000) if isinstance(value, str) else None


def attribute_text(stored: Stored, name: str) -> str | None:
    """An attribute that is text, cut to one line; None where there is none or it is something else."""
    return text_of(attribute(stored, name))


def attribute_numbers(
    stored: Stored, name: str, *, length: int, may_be_nan: bool = False
) -> NDArray[np.float64] | None:
    """An attribute that is a list of finite numbers (length,), or of NaN if it may be; None where there is none.

    Raises:
        InputError: if it is something else.
    """
    value = attribute(stored, name)
    if value is None:
        return None
    numbers = np.asarray(value)
    allowed = np.isfinite(numbers) | (may_be_nan & np.isnan(numbers)) if numbers.dtype.kind in "iuf" else False
    if numbers.size != length or not np.all(allowed):
        raise bad(
            stored,
            name,
            value if numbers.size else "empty",
            "1 finite number" if length == 1 else f"{length} finite numbers",
        )
    return numbers.astype(np.float64).reshape(-1)


def attribute_number(stored: Stored, name: str, *, may_be_nan: bool = False) -> float | None:
    """An attribute that is one finite number, or NaN if it may be; None where there is none."""
    numbers = attribute_numbers(stored, name, length=1, may_be_nan=may_be_nan)
    return None if numbers is None else float(numbers[0])


@dataclass(frozen=True)
class H5Pixels:
    """The stored numbers of a dataset, read by hyperslab.

    Attributes:
        path: the file.
        name: of the dataset.
        dtype: of its numbers.
        axes: what its axes are, in their order: ``layers`` (may be missing), ``rows``, ``cols``.
        shape: of the dataset, in that order.
        version: size and time of change of the file when it was opened.
    """

    path: Path
    name: str
    dtype: np.dtype
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    version: tuple[int, int]

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
        """Reads a window: (layers, height, width) as stored.

        Raises:
            InputError: if the file is damaged or no longer what it was.
        """
        row, col, height, width = window
        part = {"layers": (0, self.layers), "rows": (row, row + height), "cols": (col, col + width)}
        with opened(self.path) as file:
            dataset = _dataset(file, self.name)
            if dataset.shape != self.shape or dataset.dtype != self.dtype:
                raise bad(file, self.name, f"{dataset.shape} {dataset.dtype}", f"{self.shape} {self.dtype} as before")
            if _version(self.path) != self.version:
                raise bad(file, "file", "changed under way", "the file as before", "leave it alone while it is read")
            ranges = [part[axis] for axis in self.axes]
            values = dataset[tuple(slice(*limits) for limits in ranges)]
        if "layers" not in self.axes:
            return values.transpose([self.axes.index(axis) for axis in ("rows", "cols")])[None]
        return values.transpose([self.axes.index(axis) for axis in ("layers", "rows", "cols")])


def pixels_of(file: h5py.File, path: Path, name: str, *, axes: tuple[str, ...], fill: float | None = None) -> H5Pixels:
    """Describes a dataset for reading.

    Args:
        file: the file, open.
        path: of the file.
        name: of the dataset.
        axes: see :class:`H5Pixels`.
        fill: the number that means "no data", the only one that may stand for parts that were never stored.

    Raises:
        InputError: if it is missing, has another number of axes, is not wholly stored, or is stored unsafely.
    """
    dataset = _dataset(file, name)
    if dataset.ndim != len(axes):
        raise bad(file, f"shape of {name}", dataset.shape, f"{len(axes)} axes ({', '.join(axes)})", "check the product")
    version = _version(path)
    _check_stored(dataset, fill)
    return H5Pixels(path, name, dataset.dtype, axes, tuple(int(size) for size in dataset.shape), version)


def _version(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    dataset = member(file, name)
    if not isinstance(dataset, h5py.Dataset):
        raise bad(
            file, name, "missing" if dataset is None else "a group", "a dataset", "name another, or get the file anew"
        )
    return checked(dataset)


def _check_stored(dataset: h5py.Dataset, fill: float | None) -> None:
    """The library makes up what was never stored, as after a killed run: only "no data" may be made up."""
    whole = dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_ALLOCATED
    means_none = fill is not None and np.array_equal(dataset.fillvalue, fill, equal_nan=True)
    kept = means_none and dataset.id.get_storage_size() > 0
    if not whole and not kept:
        raise bad(
            dataset,
            f"stored part of {dataset.name}",
            f"{dataset.id.get_storage_size()} bytes, not the whole",
            "all chunks, or a fill value that means no data",
            "write the file anew",
        )
