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
from hsfusion.scenes.scene import Window

#: interleave -> axes of the binary
LAYOUTS = {
    "bsq": ("bands", "lines", "samples"),
    "bil": ("lines", "bands", "samples"),
    "bip": ("lines", "samples", "bands"),
}
_MOST_MAPPED = 512 * 2**20  # bytes of files that may be counted as this process's memory
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
        memory, cube = _mapped(self, (status.st_ino, status.st_mtime_ns))
        if _mapped_bytes() - _others["bytes"] > _MOST_MAPPED:
            memory.madvise(mmap.MADV_DONTNEED)  # the pages stay in the system's cache, no longer in this process
            _others["bytes"] = _mapped_bytes()
        values = cube[tuple(part[name] for name in names)]
        return values.transpose([names.index(name) for name in ("bands", "lines", "samples")])

    def check_size(self) -> os.stat_result:
        """Makes sure that the binary is as long as the header says.

        Returns:
            what the system says of the file.

        Raises:
            InputError: if it is not.
        """
        needed = self.offset + int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        try:
            status = self.path.stat()
        except OSError as error:
            raise InputError(
                self.path, field="file", value=error.strerror, expected="the binary", fix="put it back"
            ) from error
        size = status.st_size
        if size != needed:
            raise InputError(
                self.path,
                field="size",
                value=f"{size} bytes",
                expected=f"{needed}: {' x '.join(map(str, self.shape))} of type {self.dtype.str} after {self.offset}",
                fix="copy the file anew, or correct its header",
            )
        return status


@functools.lru_cache(maxsize=8)
def _mapped(pixels: EnviPixels, version: tuple[int, int]) -> tuple[mmap.mmap, NDArray]:
    """The binary as a memory map, kept: every new one would have the system look up all its pages again."""
    with open(pixels.path, "rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return memory, np.ndarray(pixels.shape, pixels.dtype, memory, pixels.offset)


def _mapped_bytes() -> int:
    """Bytes of mapped files in this process's memory; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0
