"""NumPy arrays on disk (``.npy``), axes (H, W) or (H, W, layers) as the public benchmarks come.

Specification: numpy.lib.format, versions 1.0 and 2.0. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import math
import tokenize
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.readers.cube_file import ArrayPixels, CubeFile, Pixels
from hsfusion.scenes.scene import Window

_MOST_HEADER = 10_000  # bytes of a header, what numpy itself allows


def open_npy(path: Path) -> CubeFile:
    """Opens a ``.npy`` file, which is read through a memory map.

    Raises:
        InputError: if it is damaged or holds something else than a cube.
    """
    try:
        with open(path, "rb") as file:
            header = read_npy_header(path, file)
            size = path.stat().st_size
    except OSError as error:
        raise unreadable_array(path, "a readable .npy file", error) from error
    check_npy(path, header, size)
    return cube_of_pixels(path, NpyPixels(path, header, 0), header.shape, format=f"NumPy {header.dtype.name}")


@dataclass(frozen=True)
class NpyHeader:
    """What a header says.

    Attributes:
        shape: of the array.
        order: C, or F for the first index running fastest.
        dtype: of the numbers, with their byte order.
        length: of the header itself, in bytes.
    """

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class NpyPixels:
    """The numbers of a ``.npy`` file, or of one that is stored in a zip file, read through a memory map.

    Attributes:
        path: the file.
        header: of the array.
        offset: byte of the file at which the header begins.
    """

    path: Path
    header: NpyHeader
    offset: int

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""
        return self.header.dtype

    def read(self, window: Window) -> NDArray:
        """Reads a window: (layers, height, width) as stored.

        Raises:
            InputError: if the file is no longer as long as it was.
        """
        header, start = self.header, self.offset + self.header.length
        try:
            if self.path.stat().st_size < start + header.nbytes:
                raise unreadable_array(self.path, f"at least {start + header.nbytes} bytes", "shorter than at opening")
            array = np.memmap(self.path, header.dtype, "r", start, header.shape, header.order)
        except OSError as error:
            raise unreadable_array(self.path, "a readable file", error) from error
        row, col, height, width = window
        return layers_first(array)[:, row : row + height, col : col + width]


def read_npy_header(path: Path, file: IO[bytes]) -> NpyHeader:
    """Reads the header of an array.

    Raises:
        InputError: if it is damaged, or of another version.
    """
    start = file.read(12)
    version = tuple(start[6:8])
    if len(start) < 12 or not start.startswith(b"\x93NUMPY") or version not in ((1, 0), (2, 0)):
        raise unreadable_array(path, "a .npy header of version 1.0 or 2.0", f"begins with {start[:8]!r}")
    length = int.from_bytes(start[8:10] if version == (1, 0) else start[8:12], "little")
    end = length + (10 if version == (1, 0) else 12)
    if length > _MOST_HEADER:  # numpy would read all of it before it complains
        raise unreadable_array(path, f"a header of at most {_MOST_HEADER} bytes", f"{length} bytes")
    text = io.BytesIO((start + file.read(max(0, end - 12)))[8:end])
    parse = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Python 2 wrote it
            shape, fortran, dtype = parse(text)
    # a header is a Python literal, and this is what reading one can raise
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, EOFError, tokenize.TokenError) as error:
        raise unreadable_array(path, "a whole .npy header", error) from error
    return NpyHeader(tuple(int(length) for length in shape), "F" if fortran else "C", dtype, end)


def check_npy(path: Path, header: NpyHeader, size: int) -> None:
    """Makes sure that a header is that of a cube, and fits the size of its file.

    Raises:
        InputError: if it is not, or the file is longer or shorter.
    """
    check_array(path, header.shape, header.dtype)
    if header.length + header.nbytes != size:
        raise InputError(
            path,
            field="size",
            value=f"{size} bytes",
            expected=f"{header.length + header.nbytes}: {' x '.join(map(str, header.shape))} of type"
            f" {header.dtype.str} after a header of {header.length}",
            fix="copy the file anew",
        )


def check_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Makes sure that an array can be a cube.

    Raises:
        InputError: if it has other axes, is empty, or holds no real numbers.
    """
    if dtype.kind not in "iufb":
        name = " ".join(str(dtype).split())[:100]
        raise InputError(path, field="dtype", value=name, expected="real numbers", fix="convert the array")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(
            path, field="shape", value=shape, expected="axes (H, W) or (H, W, layers)", fix="reorder the array"
        )


def choose_array(path: Path, found: Mapping[str, tuple[int, ...]], variable: str | None) -> str:
    """Says which array of a file is meant: the one named, or the only one that can be a raster.

    Args:
        path: the file.
        found: name -> shape of each array of real numbers.
        variable: the name, or None. Rows and columns of numbers, such as wavelengths, have to be named to be taken.

    Raises:
        InputError: if there is none of that name, or the name is needed and missing.
    """
    rasters = {name: shape for name, shape in found.items() if len(shape) in (2, 3) and min(shape) > 0}
    likely = [name for name, shape in rasters.items() if min(shape[:2]) > 1]
    if variable in rasters:
        return str(variable)
    if variable is None and len(likely) == 1:
        return likely[0]
    names = [f"{printable(name)} ({' x '.join(map(str, shape))})" for name, shape in rasters.items()]
    raise InputError(
        path,
        field="variable",
        value=printable(variable) if variable is not None else "not named" if names else "none",
        expected=f"one of {', '.join(names[:20])}" if names else "an array (H, W) or (H, W, layers) of real numbers",
        fix="name it by scene.variable, that of labels by scene.labels_variable" if names else "save such an array",
    )


def printable(name: str) -> str:
    """A name out of a file, as it can stand in a line."""
    return name[:60] if name.isprintable() else ascii(name[:60])


def unpacked_limit(packed: int) -> int:
    """Bytes that so many packed bytes may become: 128 MiB, and 32 times as many.

    Packing makes cubes 1.5 to 5 times smaller, and class maps, which are small, a hundred times. A file that is made
    to fill the memory can grow 1032 times, the most that deflate can do.
    """
    return 2**27 + 32 * packed


def cube_of_array(path: Path, array: NDArray, *, format: str, facts: Mapping[str, str] | None = None) -> CubeFile:
    """A cube from an array (H, W) or (H, W, layers) in memory.

    Raises:
        InputError: if it has other axes, is empty, or holds no real numbers.
    """
    check_array(path, array.shape, array.dtype)
    return cube_of_pixels(path, ArrayPixels(layers_first(array)), array.shape, format=format, facts=facts)


def cube_of_pixels(
    path: Path, pixels: Pixels, shape: tuple[int, ...], *, format: str, facts: Mapping[str, str] | None = None
) -> CubeFile:
    """A cube whose numbers are an array of the given shape (H, W) or (H, W, layers)."""
    height, width, layers = (*shape, 1)[:3]
    return CubeFile(path, format, pixels, layers, GeoBox((height, width)), facts=facts or {})


def layers_first(array: NDArray) -> NDArray:
    """A view (layers, H, W) of an array (H, W) or (H, W, layers)."""
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def unreadable_array(path: Path, expected: str, reason: object) -> InputError:
    """An error, in one line, that says why an array cannot be read."""
    text = " ".join(str(reason).split())[:200]
    return InputError(path, field="array", value=f"unreadable ({text})", expected=expected, fix="write the file anew")
