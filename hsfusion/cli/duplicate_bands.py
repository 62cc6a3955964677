"""Bands that say the same about the training pixels of a split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hsfusion.data.splits import TRAIN, Split
from hsfusion.scenes.scene import read_pixels
from hsfusion.trust.verdict import Duplicate, duplicates

_MOST_PIXELS = 20_000


def duplicate_bands(split: Split, used: NDArray[np.int64]) -> list[Duplicate]:
    """Pairs of the used bands (C',), by their index in the scene.

    Looked for in at most 20,000 training pixels, evenly spread over their list, that have data in all of these bands.
    """
    pixels = split.pixels(TRAIN)
    spectra = read_pixels(split.labelled.scene, pixels[:: -(-len(pixels) // _MOST_PIXELS)], used)  # (N, C')
    whole = spectra[np.isfinite(spectra).all(1)]
    if len(whole) < 2:
        return []
    return [Duplicate(int(used[pair.first]), int(used[pair.second]), pair.correlation) for pair in duplicates(whole)]
