"""Finding the bands of one scene in another, by wavelength and never by index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hsfusion.spectra.bands import Bands
from hsfusion.spectra.response import band_spacing_nm


def match_bands(wanted: Bands, offered: Bands, *, needed: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Finds each wanted band among the good offered ones.

    A band matches if its centre lies within half a FWHM of the wanted centre; where the FWHM is unknown, the spacing of
    the wanted bands stands for it. Nearest pairs are joined first, and no offered band is taken twice. If that leaves a
    needed band without one, only the needed bands are matched: a band that nobody needs stands in no other's way.

    Args:
        wanted: C bands.
        offered: C' bands.
        needed: (C,) the wanted bands that count; None for all.

    Returns:
        (C,) index among the offered bands, -1 where none matches.
    """
    width = band_spacing_nm(wanted, np.ones((1, len(wanted)), bool)) if wanted.fwhm_nm is None else wanted.fwhm_nm
    distance = np.abs(wanted.wavelength_nm[:, None] - offered.wavelength_nm)  # (C, C')
    near = (distance <= width[:, None] / 2) & offered.good
    found = _nearest_first(near, distance)
    # not at once: all bands of a sensor tell twins with one centre apart, where spectrometers overlap
    if needed is not None and (found[needed] < 0).any():
        found = _nearest_first(near & needed[:, None], distance)
    return found


def _nearest_first(near: NDArray[np.bool_], distance: NDArray[np.float64]) -> NDArray[np.int64]:
    """Joins the pairs (C, C') that are near, each row and each column once: (C,) column, -1 where none is left."""
    found = np.full(near.shape[0], -1)
    taken = np.zeros(near.shape[1], bool)
    pairs = np.argwhere(near)
    for i, j in pairs[np.argsort(distance[near], kind="stable")]:
        if found[i] < 0 and not taken[j]:
            found[i], taken[j] = j, True
    return found
