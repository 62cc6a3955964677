"""Whether two scenes are given in one unit: reflectance beside raw numbers is a mistake that no other check sees."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.scene import Scene, Window

_WINDOWS, _EDGE = 16, 32  # looked at, in pixels
_MOST_TIMES = 30.0  # as bright, that a scene can be: far more than light and ground make, far less than a lost scale


def typical_levels(scene: Scene, layers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Median of layers (L,) over windows spread over the scene: (L,), NaN where they hold no data there."""
    height, width = scene.geobox.shape
    rows, cols = (np.linspace(0, max(size - _EDGE, 0), _WINDOWS).astype(int) for size in (height, width))
    parts = []
    for i in range(_WINDOWS):
        for col in {int(cols[i]), int(cols[-1 - i])}:  # along both diagonals, for a swath may lie along one
            window = Window(int(rows[i]), col, min(_EDGE, height), min(_EDGE, width))
            parts.append(scene.read(window, layers).reshape(len(layers), -1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of layers without data
        return np.nanmedian(np.concatenate(parts, axis=1), axis=1)


def check_same_unit(levels: NDArray, expected: NDArray, *, source: object, reference: object) -> None:
    """Makes sure that typical values differ by no more than light and ground make them differ.

    Args:
        levels: (L,) of the scene to check, NaN where unknown.
        expected: (L,) of the one that it has to be like.
        source: name of the first, for the message.
        reference: name of the second.

    Raises:
        InputError: if the median ratio of their sizes is above 30, or below a thirtieth.
    """
    known = np.isfinite(levels) & np.isfinite(expected) & (levels != 0) & (expected != 0)
    if not known.any():
        return
    times = float(np.median(np.abs(levels[known] / expected[known])))
    if not 1 / _MOST_TIMES <= times <= _MOST_TIMES:
        raise InputError(
            source,
            field="typical value",
            value=f"{np.median(np.abs(levels[known])):.4g}, {times:.3g} times that of {reference}",
            expected=f"the same unit, {np.median(np.abs(expected[known])):.4g}",
            fix="set the scale by which stored values become those of the other scene (scene.scale), or where the file "
            "has one, train on scenes in its unit",
        )
