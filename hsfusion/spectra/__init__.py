"""Bands, band groups, response curves and band weights. NumPy only."""

from hsfusion.spectra.bands import BandGroup, Bands, band_spacing_nm, even_groups, gaussian_basis, intervals, membership
from hsfusion.spectra.resampling import match_bands
from hsfusion.spectra.weights import BandWeights, combine, group_of_bands

__all__ = [
    "BandGroup",
    "BandWeights",
    "Bands",
    "band_spacing_nm",
    "combine",
    "even_groups",
    "gaussian_basis",
    "group_of_bands",
    "intervals",
    "match_bands",
    "membership",
]
