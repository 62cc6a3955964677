"""Parts of a split: fewer training pixels, fewer bands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hsfusion.data.splits import TRAIN, UNUSED, Split
from hsfusion.scenes import ArrayScene
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import Bands


def resampled(split: Split, number: int, *, share: float = 0.8) -> Split:
    """Keeps a random share of the training pixels of each class, one pixel at least; the others become unused.

    Drawn without replacement. Validation and test pixels stay as they are, so that networks trained on several
    resamples are told apart by what they were trained on alone.

    Args:
        split: the split.
        number: of the resample; the draw is a function of it and of the split.
        share: of the training pixels of each class.
    """
    rng = np.random.default_rng([number, 12])
    roles = split.roles.copy()
    for code in split.labelled.legend.codes:
        pixels = rng.permutation(np.flatnonzero((split.labelled.labels == code) & (split.roles == TRAIN)))
        roles.flat[pixels[max(1, round(share * pixels.size)) :]] = UNUSED
    return replace(split, roles=roles)


def with_bands(split: Split, chosen: NDArray[np.integer]) -> Split:
    """The same pixels with some of the bands only, as a sensor of these bands would have seen them.

    Args:
        split: the split.
        chosen: (k,) indices of bands, in any order; they come in the order of the file. Layers of further rasters are
            left out.
    """
    scene, kept = split.labelled.scene, np.sort(chosen).astype(np.int64)
    fwhm = scene.bands.fwhm_nm
    bands = Bands(scene.bands.wavelength_nm[kept], None if fwhm is None else fwhm[kept], scene.bands.good[kept])
    fewer = ArrayScene(read_all(scene, kept), bands=bands, name=scene.name, geobox=scene.geobox)
    return replace(split, labelled=replace(split.labelled, scene=fewer))
