"""The pixels of a scene, cell by cell, with what the network needs to see around them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from hsfusion.scenes import Scene, Window

#: Edge in pixels of the squares that are computed at once. Always the same, and counted from the scene's corner: what a
#: pixel's numbers are must not depend on how much memory there was.
CELL = 256


def cells_of(shape: tuple[int, int], edge: int = CELL) -> list[Window]:
    """The cells of a scene (H, W), row by row; those at its right and lower end may be smaller."""
    height, width = shape
    return [
        Window(row, col, min(edge, height - row), min(edge, width - col))
        for row in range(0, height, edge)
        for col in range(0, width, edge)
    ]


def read_with_halo(scene: Scene, window: Window, radius: int, layers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Reads a window and the pixels around it, reflected where the scene ends.

    Args:
        scene: the scene, larger than the radius in both directions.
        window: the window.
        radius: pixels around it.
        layers: (L,) indices of the bands and further layers to read.

    Returns:
        (L, height + 2 radius, width + 2 radius), NaN where there are no data; each pixel's numbers side by side where
        the file has them so.
    """
    (height, width), (row, col, rows, cols) = scene.geobox.shape, window
    top, left = max(0, row - radius), max(0, col - radius)
    bottom, right = min(height, row + rows + radius), min(width, col + cols + radius)
    cube = scene.read(Window(top, left, bottom - top, right - left), layers)
    pad_rows = (top - (row - radius), row + rows + radius - bottom)
    pad_cols = (left - (col - radius), col + cols + radius - right)
    if not any((*pad_rows, *pad_cols)):
        return cube
    if cube.strides[0] == cube.itemsize:  # numpy.pad would transpose it
        return np.pad(cube.transpose(1, 2, 0), (pad_rows, pad_cols, (0, 0)), mode="reflect").transpose(2, 0, 1)
    return np.pad(cube, ((0, 0), pad_rows, pad_cols), mode="reflect")


def read_ahead(
    scene: Scene, windows: Iterable[Window], *, radius: int, layers: NDArray[np.int64], depth: int = 2
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """Reads windows with their halo in a thread, a few ahead of who asks for them.

    Args:
        scene: the scene.
        windows: what to read, in this order.
        radius: pixels around each.
        layers: (L,) indices of the bands and further layers to read.
        depth: windows that may lie ready.

    Yields:
        each window and its pixels, see :func:`read_with_halo`.
    """
    waiting = iter(windows)
    ready: deque = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        try:
            while True:
                while len(ready) < depth and (window := next(waiting, None)) is not None:
                    ready.append((window, pool.submit(read_with_halo, scene, window, radius, layers)))
                if not ready:
                    return
                window, pixels = ready.popleft()
                # the next read starts before this one's result is used
                yield window, pixels.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
