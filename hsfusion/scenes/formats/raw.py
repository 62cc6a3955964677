"""Raw binaries of numbers, read through a memory map."""

from __future__ import annotations

import functools
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.scene import Window, take_layers

#: interleave -> axes of the binary
LAYOUTS = {
    "bsq": ("bands", "lines", "samples"),
    "bil": ("lines", "bands", "samples"),
    "bip": ("lines", "samples", "bands"),
}
_MOST_MAPPED = 256 * 2**20  # bytes of files that may be counted as this process's memory
_others = {"bytes": 0}  # what other libraries map, which cannot be given back here


@dataclass(frozen=True)
class EnviPixels:
    """The binary of an ENVI file, read through a memory map.

    Attributes:
        path: the binary.
        dtype: of its numbers, with their byte order.
        order: bsq, bil or bip.
        shape: of the binary, in that order.
        offset: bytes before the first number.
    """

    path: Path
    dtype: np.dtype
    order: str
    shape: tuple[int, ...]
    offset: int

    def read(self, window: Window) -> NDArray:
        """Reads a window: (layers, height, width) as stored.

        Raises:
            InputError: if the file is no longer as long as it was.
        """
        status = self.check_size()
        row, col, height, width = window
        part = {"bands": slice(None), "lines": slice(row, row + height), "samples": slice(col, col + width)}
        names = LAYOUTS[self.order]
        memory = _mapped(self.path, (status.st_ino, status.st_mtime_ns))
        if _mapped_bytes() - _others["bytes"] > _MOST_MAPPED:
            memory.madvise(mmap.MADV_DONTNEED)  # the pages stay in the system's cache, no longer in this process
            _others["bytes"] = _mapped_bytes()
        cube = np.ndarray(self.shape, self.dtype, memory, self.offset)
        values = cube[tuple(part[name] for name in names)]
        return values.transpose([names.index(name) for name in ("bands", "lines", "samples")])

    def read_layers(self, window: Window, layers: NDArray[np.int64]) -> NDArray:
        """Reads chosen layers of a window: (L, height, width) as stored, in the file's memory order.

        Raises:
            InputError: if the file is no longer as long as it was.
        """
        if self.order != "bip" or not hasattr(os, "preadv"):
            return take_layers(self.read(window), layers)
        self.check_size()
        row, col, height, width = window
        columns, bands = self.shape[1:]
        # line by line: the system reads ahead, and what is not wanted is dropped while it is in the processor's cache
        line, taken = np.empty((width, bands), self.dtype), np.empty((height, width, len(layers)), self.dtype)
        with open(self.path, "rb", buffering=0) as file:
            for i, pixels in enumerate(taken, start=row):
                place = self.offset + (i * columns + col) * bands * self.dtype.itemsize
                if os.preadv(file.fileno(), [line.view(np.uint8).data], place) < line.nbytes:
                    raise self._wrong_size(self.path.stat().st_size)
                np.take(line, layers, axis=1, out=pixels, mode="clip")  # the other modes go through a buffer
        return taken.transpose(2, 0, 1)

    def check_size(self) -> os.stat_result:
        """Makes sure that the binary is as long as the header says.

        Returns:
            what the system says of the file.

        Raises:
            InputError: if it is not.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise InputError(
                self.path, field="file", value=error.strerror, expected="the binary", fix="put it back"
            ) from error
        if status.st_size != self._bytes:
            raise self._wrong_size(status.st_size)
        return status

    def _wrong_size(self, size: int) -> InputError:
        shape = " x ".join(map(str, self.shape))
        return InputError(
            self.path,
            field="size",
            value=f"{size} bytes",
            expected=f"{self._bytes}: {shape} of type {self.dtype.str} after {self.offset}",
            fix="copy the file anew, or correct its header",
        )

    @property
    def _bytes(self) -> int:
        return self.offset + int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@functools.lru_cache(maxsize=8)
def _mapped(path: Path, version: tuple[int, int]) -> mmap.mmap:
    """The binary as a memory map, kept: every new one would have the system look up all its pages again."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _mapped_bytes() -> int:
    """Bytes of mapped files in this process's memory; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0
