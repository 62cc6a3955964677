"""Band groups as wavelength intervals in nm, never as band indices."""

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
    """All bands with ``lower_nm <= wavelength < upper_nm``.

    Attributes:
        name: what figures and tables call the group.
        lower_nm: first wavelength inside, in nm.
        upper_nm: first wavelength beyond, in nm.
    """

    name: str
    lower_nm: float
    upper_nm: float

    def __post_init__(self) -> None:
        """Checks the interval.

        Raises:
            InputError: if it is empty.
        """
        if not self.lower_nm < self.upper_nm:
            raise InputError(
                f"band group {self.name}",
                "interval",
                f"[{self.lower_nm}, {self.upper_nm}) nm",
                "lower_nm below upper_nm",
                "swap or correct the two",
            )


def membership(groups: Sequence[BandGroup], bands: Bands) -> NDArray[np.bool_]:
    """Says which good bands each group holds.

    Returns:
        (G, C) bool.

    Raises:
        InputError: if two groups share a name or a group holds no good band.
    """
    names = [group.name for group in groups]
    if len(set(names)) < len(names) or not names:
        raise InputError("groups", "names", names, "at least one group, names unique", "rename or add groups")
    nm = bands.wavelength_nm
    inside = np.stack([(nm >= group.lower_nm) & (nm < group.upper_nm) & bands.good for group in groups])
    for group, row in zip(groups, inside, strict=True):
        if not row.any():
            raise InputError(
                "groups",
                f"number of good bands in {group.name} [{group.lower_nm:g}, {group.upper_nm:g}) nm",
                0,
                f"at least 1 of the scene's {len(bands)} bands ({nm.min():.0f} to {nm.max():.0f} nm)",
                "choose groups that lie inside the scene's range",
            )
    return inside


def intervals(bands: Bands, *, nm: Mapping[str, Sequence[float]]) -> list[BandGroup]:
    """Groups given by hand.

    Args:
        bands: the scene's bands.
        nm: name -> [lower_nm, upper_nm).

    Raises:
        InputError: if an interval is no pair, is empty, or holds no good band.
    """
    groups = []
    for name, limits in nm.items():
        if not isinstance(limits, Sequence) or len(limits) != 2 or not all(isinstance(v, int | float) for v in limits):
            raise InputError(
                f"band group {name}", "interval", limits, "[lower_nm, upper_nm]", "give two wavelengths in nm"
            )
        groups.append(BandGroup(str(name), float(limits[0]), float(limits[1])))
    membership(groups, bands)
    return groups


def even_groups(bands: Bands, *, number: int) -> list[BandGroup]:
    """Cuts the range of the good bands into intervals of equal width in nm, dropping those without a band.

    Args:
        bands: the scene's bands.
        number: how many intervals to cut.

    Raises:
        InputError: if the number is not positive.
    """
    if number < 1:
        raise InputError("groups", "number", number, "at least 1", "raise groups.number")
    nm = bands.wavelength_nm[bands.good]
    if nm.size == 0:
        raise InputError("groups", "number of good bands", 0, "at least 1", "correct the table")
    edges = np.linspace(nm.min(), nm.max() + 1e-6, number + 1)
    groups = [BandGroup(f"{lower:.0f}-{upper:.0f} nm", float(lower), float(upper)) for lower, upper in pairwise(edges)]
    return [group for group in groups if ((nm >= group.lower_nm) & (nm < group.upper_nm)).any()]
