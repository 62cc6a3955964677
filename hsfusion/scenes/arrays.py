"""NumPy arrays on disk: ``.npy`` and ``.npz``, axes (H, W) or (H, W, layers) as the public benchmarks come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.cube_file import ArrayPixels, CubeFile
from hsfusion.scenes.geobox import GeoBox


def open_npy(path: Path) -> CubeFile:
    """Opens a ``.npy`` file as a read-only memory map.

    Raises:
        InputError: if it is damaged or holds something else than a cube.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(
            path, field="array", value="unreadable", expected="a whole .npy file", fix=f"write it anew ({error})"
        ) from error
    return cube_of_array(path, array, format=f"NumPy {array.dtype.name}")


def cube_of_array(path: Path, array: NDArray, *, format: str) -> CubeFile:
    """A cube from an array (H, W) or (H, W, layers).

    Raises:
        InputError: if it has other axes, is empty, or holds no real numbers.
    """
    if array.dtype.kind not in "iufb":
        raise InputError(path, field="dtype", value=array.dtype, expected="real numbers", fix="convert the array")
    if array.ndim not in (2, 3) or array.size == 0:
        raise InputError(
            path, field="shape", value=array.shape, expected="axes (H, W) or (H, W, layers)", fix="reorder the array"
        )
    values = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return CubeFile(path, format, ArrayPixels(values), len(values), GeoBox((values.shape[1], values.shape[2])))
