"""Spectral response curves: smooth functions of wavelength, given by a few coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hsfusion.spectra.bands import Bands
from hsfusion.spectra.groups import BandGroup


def gaussian_basis(bands: Bands, groups: Sequence[BandGroup], *, knot_spacing_nm: float | None) -> NDArray[np.float64]:
    """Basis in which the logarithm of a response curve is written.

    The curve is ``exp(basis @ coefficients)``, made to sum to one over the bands of its group. Knots sit at whole
    multiples of the spacing, wherever the groups reach, so that they do not depend on the sensor; each is a Gaussian
    with a standard deviation of one spacing, scaled so that the knots sum to about one.

    Args:
        bands: the C bands.
        groups: the groups that the curves belong to.
        knot_spacing_nm: distance of the knots in nm; None gives one free coefficient for each band.

    Returns:
        (C, K) float64.
    """
    if knot_spacing_nm is None:
        return np.eye(len(bands))
    lower = min(group.lower_nm for group in groups)
    upper = max(group.upper_nm for group in groups)
    first, last = np.floor(lower / knot_spacing_nm), np.ceil(upper / knot_spacing_nm)
    knots_nm = np.arange(first, last + 1) * knot_spacing_nm
    distance = (bands.wavelength_nm[:, None] - knots_nm[None, :]) / knot_spacing_nm
    return np.exp(-0.5 * distance**2) / np.sqrt(2 * np.pi)


def band_spacing_nm(bands: Bands, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The width of spectrum that each band stands for, so that a sum over bands is an integral over wavelength.

    A band reaches halfway to its neighbours among all bands in use, but at a gap or an end no further than half the
    median spacing. Bands with one and the same centre share their width: a copy of a band adds nothing.

    Args:
        bands: the C bands.
        inside: (G, C), membership; only bands in a group count.

    Returns:
        (C,) float64, positive, in nm; 1 for bands that are in no group.
    """
    used = inside.any(0)
    centres, which, count = np.unique(bands.wavelength_nm[used], return_inverse=True, return_counts=True)
    spacing = np.ones(len(bands))
    if centres.size < 2:
        spacing[used] /= max(used.sum(), 1)
        return spacing
    steps = np.diff(centres)
    half = np.minimum(steps, np.median(steps)) / 2
    width = np.append(half, np.median(steps) / 2) + np.insert(half, 0, np.median(steps) / 2)
    spacing[used] = (width / count)[which]
    return spacing
