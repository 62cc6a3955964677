"""Whether two scenes are given in one unit: reflectance beside radiance is a mistake that no other check sees."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.scene import Scene, Window

_WINDOWS, _EDGE = 16, 32  # looked at, in pixels
# Mean and deviation of the training pixels of one scene against the medians of another, for seven real cubes. No band
# was beyond both limits for the halves of one scene, for two EnMAP scenes, and for a scene 0.5 to 2 times as bright.
# For a scene 9 times, or a ninth, as large 89 to 100 % of the bands were, and for one times the solar spectrum,
# whatever the factor, 30 to 100 %. Other ground, such as desert for a model of fields, reaches 39 to 68 %: a warning
# is right there, too.
_DEVIATIONS, _TIMES, _SHARE = 2.0, 2.5, 0.25
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


def far_from_training(levels: NDArray, mean: NDArray, std: NDArray) -> str | None:
    """Tells whether a scene is so unlike the training pixels that it may be in another unit.

    Deviations alone would name every dark or bright scene where the training pixels are alike, and ratios alone one of
    water where they are not: a band counts where both are large.

    Args:
        levels: (L,) typical values of the bands of the scene, NaN where unknown.
        mean: (L,) of the training pixels.
        std: (L,) standard deviation of the training pixels.

    Returns:
        A sentence on the bands that are far off; None where they are less than a quarter of those that are known.
    """
    known = np.isfinite(levels) & (std > 0) & (mean != 0)
    deviations = np.abs(levels - mean)[known] / std[known]
    times = levels[known] / mean[known]
    far = (deviations > _DEVIATIONS) & ((times > _TIMES) | (times < 1 / _TIMES))
    if not far.size or far.mean() < _SHARE:
        return None
    return (
        f"in {far.mean():.0%} of the bands that the model uses, the median of the scene is more than {_TIMES:g} times "
        f"the mean of the training pixels, or less than 1/{_TIMES:g} of it, and over {_DEVIATIONS:g} standard "
        f"deviations away (median of these bands: {np.median(deviations[far]):.3g}): the map is likely to be wrong. "
        "Check that both scenes are in the same unit (reflectance, radiance or counts; scene.scale); if they are, the "
        "model has seen no such ground: fine-tune it on labelled pixels of this scene"
    )
