"""NumPy arrays on disk (``.npy``, and several in one ``.npz``), and the axes of arrays whose files do not name them.

Axes are (H, W) or (H, W, layers) as the public benchmarks come, unless told otherwise. Nothing is ever unpickled.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import ArrayPixels, CubeFile, Pixels
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window

AXIS_OF_WORD = {"band": "layers", "row": "rows", "col": "cols"}  # the words of scene.axes
ROWS_COLS_LAYERS = ("rows", "cols", "layers")  # the axes of arrays of MATLAB and NumPy, by convention


def open_npy(path: Path, *, axes: tuple[str, ...] | None = None) -> CubeFile:
    """Opens a ``.npy`` file, which is read through a memory map.

    Args:
        path: the file.
        axes: see :func:`array_axes`.

    Raises:
        InputError: if it holds something else than a cube, or more bytes than the cube.
    """
    array = _mapped(path)
    check_array(path, array.shape, array.dtype)
    _check_size(path, path.stat().st_size, array.offset, array.shape, array.dtype)
    pixels = NpyPixels(path, array.dtype, array.shape, array_axes(path, array.shape, axes))
    return cube_of_pixels(path, pixels, pixels.axes, array.shape, format=f"NumPy {array.dtype.name}")


@dataclass(frozen=True)
class NpyPixels:
    """The numbers of a ``.npy`` file, read through a memory map.

    Attributes:
        path: the file.
        dtype: type of the numbers.
        shape: of the array.
        axes: of the array, see :func:`array_axes`.
    """

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    axes: tuple[str, ...]

    def read(self, window: Window) -> NDArray:
        """Reads a window: (layers, height, width) as stored.

        Raises:
            InputError: if the file holds another array than it did.
        """
        array = _mapped(self.path)
        if (array.shape, array.dtype) != (self.shape, self.dtype):
            raise _wrong_size(self.path, "another array", f"{self.shape} of type {self.dtype.str}, as at opening")
        row, col, height, width = window
        return layers_first(array, self.axes)[:, row : row + height, col : col + width]


def _mapped(path: Path) -> np.memmap:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Python 2 wrote the header
        return np.load(path, mmap_mode="r", allow_pickle=False)


def open_npz(path: Path, *, variable: str | None = None, axes: tuple[str, ...] | None = None) -> CubeFile:
    """Opens an array of a ``.npz`` file, which is read into memory.

    Args:
        path: the file.
        variable: name of the array; needed where there are several that can be a raster.
        axes: see :func:`array_axes`.

    Raises:
        InputError: if the file grows too much when it is unpacked, or holds no such array.
    """
    with warnings.catch_warnings(), zipfile.ZipFile(path) as archive:
        warnings.simplefilter("ignore")  # that Python 2 wrote a header
        infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        members = {info.filename.removesuffix(".npy"): info for info in infos}
        if len(members) != len(infos):
            raise unreadable_array(path, "names that occur once", "two arrays of one name")
        headers = {name: _member_header(archive, info) for name, info in members.items()}
        shapes = {name: shape for name, (shape, dtype, _) in headers.items() if dtype.kind in "iufb"}
        name = choose_array(path, shapes, variable)
        info, (shape, dtype, start) = members[name], headers[name]
        limit = unpacked_limit(info.compress_size)
        if info.file_size > limit:
            raise InputError(
                path,
                "size when unpacked",
                f"{info.file_size} bytes",
                f"at most {limit} from {info.compress_size} packed bytes",
                "save the array by numpy.save",
            )
        _check_size(path, info.file_size, start, shape, dtype)
        with archive.open(info) as member:  # which compares the checksum
            array = np.lib.format.read_array(member, allow_pickle=False)
    facts = {"variable": printable(name)}
    return cube_of_array(path, array, axes, format=f"NumPy npz {array.dtype.name}", facts=facts)


def _member_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type of the numbers, and the byte at which they begin."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        return shape, dtype, member.tell()


def _check_size(path: Path, size: int, start: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Makes sure that an array ends where its file does; numpy does not miss what a header leaves out."""
    expected = start + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size != expected:
        told = f"{expected}: {' x '.join(map(str, shape))} of type {dtype.str} after a header of {start}"
        raise _wrong_size(path, f"{size} bytes", told)


def _wrong_size(path: Path, value: str, expected: str) -> InputError:
    return InputError(path, "size", value, expected, "copy the file anew")


def check_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Makes sure that an array can be a cube.

    Raises:
        InputError: if it has other axes, is empty, or holds no real numbers.
    """
    if dtype.kind not in "iufb":
        name = " ".join(str(dtype).split())[:100]
        raise InputError(path, "dtype", name, "real numbers", "convert the array")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(path, "shape", shape, "axes (H, W) or (H, W, layers)", "reorder the array")


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
            "scene.axes",
            "set",
            f"null, as an array of {' x '.join(map(str, shape))} has no axis of bands",
            "drop scene.axes",
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
        "variable",
        printable(variable) if variable is not None else "not named" if names else "none",
        f"one of {', '.join(names[:20])}" if names else "an array (H, W) or (H, W, layers) of real numbers",
        "name it by scene.variable, that of labels by scene.labels_variable" if names else "save such an array",
    )


def unpacked_limit(packed: int) -> int:
    """Bytes that so many packed bytes may become: 128 MiB, and 32 times as many.

    Packing makes cubes 1.5 to 5 times smaller, and class maps, which are small, a hundred times. A file that is made
    to fill the memory can grow 1032 times, the most that deflate can do.
    """
    return 2**27 + 32 * packed


def cube_of_array(
    path: Path, array: NDArray, axes: tuple[str, ...] | None, *, format: str, facts: Mapping[str, str] | None = None
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
    return InputError(path, "array", f"unreadable ({printable(reason)})", expected, "write the file anew")
