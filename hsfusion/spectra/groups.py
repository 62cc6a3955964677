"""Band groups as wavelength intervals in nm, never as band indices, and the response curves inside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.spectra.bands import Bands


@dataclass(frozen=True)
class BandGroup:
    """All bands with ``lower_nm <= wavelength < upper_nm``."""

    name: str
    lower_nm: float
    upper_nm: float

    def __post_init__(self) -> None:
        """Checks that the interval is not empty."""
        if not self.lower_nm < self.upper_nm:
            interval = f"[{self.lower_nm}, {self.upper_nm}) nm"
            raise InputError(f"band group {self.name}", "interval", interval, "[lower_nm, upper_nm]", "swap or correct")


def membership(groups: Sequence[BandGroup], bands: Bands) -> NDArray[np.bool_]:
    """Which good bands each group holds: (G, C) bool; groups without any are an error."""
    names = [group.name for group in groups]
    if len(set(names)) < len(names) or not names:
        raise InputError("groups", "names", names, "at least one group, names unique", "rename or add groups")
    nm = bands.wavelength_nm
    inside = np.stack([(nm >= group.lower_nm) & (nm < group.upper_nm) & bands.good for group in groups])
    for group, row in zip(groups, inside, strict=True):
        if not row.any():
            field = f"number of good bands in {group.name} [{group.lower_nm:g}, {group.upper_nm:g}) nm"
            expected = f"at least 1 of the scene's {len(bands)} bands ({nm.min():.0f} to {nm.max():.0f} nm)"
            raise InputError("groups", field, 0, expected, "choose groups that lie inside the scene's range")
    return inside


def intervals(bands: Bands, *, nm: Mapping[str, Sequence[float]]) -> list[BandGroup]:
    """Groups given by hand: name -> [lower, upper) in nm."""
    groups = []
    for name, limits in nm.items():
        try:
            lower, upper = (float(limit) for limit in limits)
        except (TypeError, ValueError) as error:
            fix = "give two wavelengths in nm"
            raise InputError(f"band group {name}", "interval", limits, "[lower_nm, upper_nm]", fix) from error
        groups.append(BandGroup(str(name), lower, upper))
    membership(groups, bands)
    return groups


def even_groups(bands: Bands, *, number: int) -> list[BandGroup]:
    """Cuts the range of the good bands into so many intervals with equal numbers of bands.

    Each group starts with the same share of the weight, and a band costs the same in all: of intervals of equal width,
    the stump of a few bands beside a gap would get a whole share for the price of these few. Of fewer wavelengths than
    groups each is one.
    """
    nm = np.unique(bands.wavelength_nm[bands.good])
    if number < 1 or not nm.size:
        given = f"{number} for {nm.size} good bands"
        raise InputError("groups", "number", given, "at least 1 of both", "raise groups.number, or correct bad_bands")
    first = np.round(np.linspace(0, nm.size, min(number, nm.size) + 1)).astype(int)[1:-1]  # of the second group on
    edges = [nm[0], *(nm[first - 1] + nm[first]) / 2, nm[-1] + 1e-6]
    return [BandGroup(f"{lower:.0f}-{upper:.0f} nm", float(lower), float(upper)) for lower, upper in pairwise(edges)]


def gaussian_basis(bands: Bands, groups: Sequence[BandGroup], *, knot_spacing_nm: float | None) -> NDArray[np.float64]:
    """Basis (C, K) in which the logarithm of a response curve is written.

    The curve is ``exp(basis @ coefficients)``, made to sum to one over the bands of its group. Knots sit at whole
    multiples of the spacing, wherever the groups reach, so that they do not depend on the sensor; each is a Gaussian
    with a standard deviation of one spacing, scaled so that the knots sum to about one. Without a spacing each band has
    a coefficient of its own.
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
    """The width of spectrum (C,) in nm that each band stands for, so that a sum over bands is an integral over nm.

    A band reaches halfway to its neighbours among the bands in groups (G, C), but at a gap or an end no further than
    half the median spacing. Bands with one and the same centre share their width: a copy of a band adds nothing. 1
    elsewhere.
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
