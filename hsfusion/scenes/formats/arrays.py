"""NumPy arrays on disk (``.npy``), axes (H, W) or (H, W, layers) as the public benchmarks come, unless told otherwise.

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

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import ArrayPixels, CubeFile, Pixels
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window

AXIS_OF_WORD = {"band": "layers", "row": "rows", "col": "cols"}  # the words of scene.axes
ROWS_COLS_LAYERS = ("rows", "cols", "layers")  # the axes of arrays of MATLAB and NumPy, by convention
_MOST_HEADER = 10_000  # bytes of a header, what numpy itself allows


def open_npy(path: Path, *, axes: tuple[str, ...] | None = None) -> CubeFile:
    """Opens a ``.npy`` file, which is read through a memory map.

    Args:
        path: the file.
        axes: see :func:`array_axes`.

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
    pixels = NpyPixels(path, header, 0, array_axes(path, header.shape, axes))
    return cube_of_pixels(path, pixels, pixels.axes, header.shape, format=f"NumPy {header.dtype.name}")


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
        axes: of the array, see :func:`array_axes`.
    """

    path: Path
    header: NpyHeader
    offset: int
    axes: tuple[str, ...]

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
        return layers_first(array, self.axes)[:, row : row + height, col : col + width]


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


def array_axes(path: Path, shape: tuple[int, ...], axes: tuple[str, ...] | None) -> tuple[str, ...]:
    """What the axes of an array are whose file does not name them: rows, columns, bands by convention.

    Args:
        path: the file.
        shape: of the array, two or three axes.
        axes: ``rows``, ``cols`` and ``layers`` in the order of the array, where the user names it.

    Raises:
        InputError: if the user names three axes of an array that has two.
    """
    if axes is not None and len(shape) == 2:
        raise InputError(
            path,
            field="scene.axes",
            value="set",
            expected=f"null, as an array of {' x '.join(map(str, shape))} has no axis of bands",
            fix="drop scene.axes",
        )
    return axes or ROWS_COLS_LAYERS[: len(shape)]


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
    names = [f"{printable(name, longest=60)} ({' x '.join(map(str, shape))})" for name, shape in rasters.items()]
    raise InputError(
        path,
        field="variable",
        value=printable(variable) if variable is not None else "not named" if names else "none",
        expected=f"one of {', '.join(names[:20])}" if names else "an array (H, W) or (H, W, layers) of real numbers",
        fix="name it by scene.variable, that of labels by scene.labels_variable" if names else "save such an array",
    )


def unpacked_limit(packed: int) -> int:
    """Bytes that so many packed bytes may become: 128 MiB, and 32 times as many.

    Packing makes cubes 1.5 to 5 times smaller, and class maps, which are small, a hundred times. A file that is made
    to fill the memory can grow 1032 times, the most that deflate can do.
    """
    return 2**27 + 32 * packed


def cube_of_array(
    path: Path,
    array: NDArray,
    axes: tuple[str, ...] | None,
    *,
    format: str,
    facts: Mapping[str, str] | None = None,
) -> CubeFile:
    """A cube from an array in memory, its axes as :func:`array_axes` has them.

    Raises:
        InputError: if it has other axes, is empty, or holds no real numbers.
    """
    check_array(path, array.shape, array.dtype)
    axes = array_axes(path, array.shape, axes)
    pixels = ArrayPixels(layers_first(array, axes))
    return cube_of_pixels(path, pixels, axes, array.shape, format=format, facts=facts)


def cube_of_pixels(
    path: Path,
    pixels: Pixels,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    *,
    format: str,
    facts: Mapping[str, str] | None = None,
) -> CubeFile:
    """A cube whose numbers are an array of the given axes and shape."""
    size = dict(zip(axes, shape, strict=True))
    grid = size["rows"], size["cols"]
    return CubeFile(path, format, pixels, size.get("layers", 1), GeoBox(grid), facts=facts or {})


def layers_first(array: NDArray, axes: tuple[str, ...]) -> NDArray:
    """A view (layers, H, W) of an array of two or three axes."""
    if "layers" not in axes:
        array, axes = array[None], ("layers", *axes)
    return array.transpose([axes.index(axis) for axis in ("layers", "rows", "cols")])


def unreadable_array(path: Path, expected: str, reason: object) -> InputError:
    """An error, in one line, that says why an array cannot be read."""
    return InputError(
        path, field="array", value=f"unreadable ({printable(reason)})", expected=expected, fix="write the file anew"
    )
