"""Windows of HDF5 datasets."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from hsfusion.scenes.readers.hdf5_file import bad, checked, member, opened
from hsfusion.scenes.scene import Window

_MOST_SIDE, _MOST_LAYERS = 1_000_000, 100_000
_MOST_RATIO = {"gzip": 1032, "lzf": 100}  # no packed chunk unpacks to more than that many times its size
_MOST_UNPACKED = 2**29  # bytes that one stored chunk may unpack to, unless it was seen to unpack to less


@dataclass(frozen=True)
class H5Pixels:
    """The stored numbers of a dataset, read by hyperslab.

    Attributes:
        path: the file.
        name: of the dataset.
        dtype: of its numbers.
        axes: what its axes are, in their order: ``layers`` (may be missing), ``rows``, ``cols``.
        shape: of the dataset, in that order.
        version: size and time of change of the file when it was looked through.
        suspects: offsets of the chunks so large as stored that they may unpack to far more than a chunk. One that
            was seen not to is taken out, so that each is unpacked twice only once.
    """

    path: Path
    name: str
    dtype: np.dtype
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    version: tuple[int, int]
    suspects: set[tuple[int, ...]] = field(default_factory=set, compare=False, repr=False)

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
            if _version(self.path) != self.version:  # its chunks are other ones than were looked through
                raise bad(file, "file", "changed under way", "the file as before", "leave it alone while it is read")
            ranges = [part[axis] for axis in self.axes]
            if self.suspects:
                self._check_unpacked(dataset, ranges)
            values = dataset[tuple(slice(*limits) for limits in ranges)]
        if "layers" not in self.axes:
            return values.transpose([self.axes.index(axis) for axis in ("rows", "cols")])[None]
        return values.transpose([self.axes.index(axis) for axis in ("layers", "rows", "cols")])

    def _check_unpacked(self, dataset: h5py.Dataset, ranges: list[tuple[int, int]]) -> None:
        """Makes sure that no chunk in reach unpacks to more than a chunk; the library would go on to allocate."""
        sizes = dataset.chunks or ()
        most = math.prod(sizes) * self.dtype.itemsize
        near = (range(start // size * size, stop, size) for size, (start, stop) in zip(sizes, ranges, strict=True))
        for offset in self.suspects.intersection(product(*near)):
            _, packed_bytes = dataset.id.read_direct_chunk(offset)
            if dataset.compression != "gzip" or _unpacks_over(packed_bytes, most):
                raise bad(dataset, f"chunk {offset} of {dataset.name}", "too large", f"{most} bytes, unpacked")
            self.suspects.discard(offset)


def pixels_of(file: h5py.File, path: Path, name: str, *, axes: tuple[str, ...], fill: float | None = None) -> H5Pixels:
    """Describes a dataset for reading.

    Args:
        file: the file, open.
        path: of the file.
        name: of the dataset.
        axes: see :class:`H5Pixels`.
        fill: the number that means «no data», the only one that may stand for parts that were never stored.

    Raises:
        InputError: if it is missing, has another number of axes, is not wholly stored, or is stored unsafely.
    """
    dataset = _dataset(file, name)
    if dataset.ndim != len(axes):
        raise bad(file, f"shape of {name}", dataset.shape, f"{len(axes)} axes ({', '.join(axes)})", "check the product")
    version = _version(path)
    pixels = H5Pixels(path, name, dataset.dtype, axes, tuple(int(size) for size in dataset.shape), version)
    if max(pixels.grid) > _MOST_SIDE or pixels.layers > _MOST_LAYERS:
        limits = f"at most {_MOST_LAYERS} layers of {_MOST_SIDE} x {_MOST_SIDE}"
        raise bad(file, f"shape of {name}", dataset.shape, limits, "correct the file")
    _check_stored(dataset, fill)
    return replace(pixels, suspects=_look_through(dataset))


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
    """The library makes up what was never stored, as after a killed run: only «no data» may be made up."""
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


def _look_through(dataset: h5py.Dataset) -> set[tuple[int, ...]]:
    """Makes sure that packed chunks are not empty, which would crash the library, and hardly larger than unpacked ones.

    Returns:
        Offsets of those that may unpack to too much.
    """
    if dataset.chunks is None:
        return set()
    most = math.prod(dataset.chunks) * dataset.dtype.itemsize * 11 // 10 + 1024
    ratio = _MOST_RATIO.get(dataset.compression or "", 1)
    strange: list[int] = []
    suspects: set[tuple[int, ...]] = set()

    def look(chunk: h5py.h5d.StoreInfo) -> None:
        if not 0 < chunk.size <= most:
            strange.append(chunk.size)
        elif ratio > 1 and chunk.size * ratio > _MOST_UNPACKED:
            suspects.add(tuple(chunk.chunk_offset))

    dataset.id.chunk_iter(look)
    if strange:
        raise bad(dataset, f"size of a chunk of {dataset.name}", strange[0], f"1 to {most} bytes")
    return suspects


def _unpacks_over(packed: bytes, most: int) -> bool:
    unpacker, size = zlib.decompressobj(), 0
    try:
        while not unpacker.eof and packed and size <= most:
            size += len(unpacker.decompress(packed, 2**20))
            packed = unpacker.unconsumed_tail
    except zlib.error:
        return False  # the library says what is wrong with it
    return size > most
