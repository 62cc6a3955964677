"""Spectral bands, band groups as wavelength intervals in nm, never as band indices, and the response curves in them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError

# no imaging spectrometer sees less, or more: numbers below are micrometres, numbers above are not nanometres
_SHORTEST_NM, _LONGEST_NM = 100.0, 100_000.0
_NARROWEST_NM = 1e-6

#: ranges in nm that can be named: in the water vapour the ground cannot be seen from above
RANGES_NM = {"water_vapour": ((1350.0, 1430.0), (1800.0, 1950.0))}


@dataclass(frozen=True, eq=False)
class Bands:
    """The C bands of a scene, in file order (which need not be ascending in wavelength).

    Centre wavelengths and full widths at half maximum in nm, (C,) float64, widths None where unknown; (C,) bool, False
    for bands that must not be used.
    """

    wavelength_nm: NDArray[np.float64]
    fwhm_nm: NDArray[np.float64] | None
    good: NDArray[np.bool_]

    def __post_init__(self) -> None:
        wavelength, good = _read_only(self.wavelength_nm, np.float64), _read_only(self.good, np.bool_)
        fwhm = None if self.fwhm_nm is None else _read_only(self.fwhm_nm, np.float64)
        for field, values in (("fwhm_nm", fwhm), ("good", good)):
            if values is not None and values.shape != wavelength.shape:
                expected = f"{wavelength.size}, one for each wavelength"
                raise InputError("bands", f"length of {field}", values.size, expected, "give every band one value")
        for field, values, lowest in (("wavelength_nm", wavelength, _SHORTEST_NM), ("fwhm_nm", fwhm, _NARROWEST_NM)):
            if values is not None and not (fits := (lowest <= values) & (values <= _LONGEST_NM)).all():
                numbers = "positive numbers" if values is fwhm else f"numbers of at least {lowest:g}"
                expected, fix = f"{numbers} in nm, at most {_LONGEST_NM:g}", "correct the band table or its unit"
                raise InputError("bands", field, values[~fits][0], expected, fix)
        for field, values in (("wavelength_nm", wavelength), ("fwhm_nm", fwhm), ("good", good)):
            object.__setattr__(self, field, values)

    def __len__(self) -> int:
        return int(self.wavelength_nm.size)

    def __getitem__(self, index: NDArray[np.integer]) -> Bands:
        """The bands of these indices (k,), in this order."""
        fwhm = None if self.fwhm_nm is None else self.fwhm_nm[index]
        return Bands(self.wavelength_nm[index], fwhm, self.good[index])

    def without(self, ranges: Iterable[str | Sequence[float]]) -> Bands:
        """Marks bands inside ``(first_nm, last_nm)``, ends included, or of a name in :data:`RANGES_NM`, as not good."""
        good = np.array(self.good)
        for given in [ranges] if isinstance(ranges, str) else ranges:
            for lower, upper in _intervals_nm(given):
                good &= ~((lower <= self.wavelength_nm) & (self.wavelength_nm <= upper))
        return replace(self, good=good)

    @classmethod
    def from_wavelengths(cls, wavelength_nm: object) -> Bands:
        """Bands with known centres in nm only, all of them good."""
        wavelength = np.asarray(wavelength_nm, np.float64)
        return cls(wavelength, None, np.ones(wavelength.shape, bool))

    def to_dict(self) -> dict[str, Any]:
        """The bands as plain values, as model files hold them."""
        fwhm = None if self.fwhm_nm is None else self.fwhm_nm.tolist()
        return {"wavelength_nm": self.wavelength_nm.tolist(), "fwhm_nm": fwhm, "good": self.good.tolist()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Bands:
        """Bands from what :meth:`to_dict` gave."""
        fwhm = None if content["fwhm_nm"] is None else np.array(content["fwhm_nm"], np.float64)
        return cls(np.array(content["wavelength_nm"], np.float64), fwhm, np.array(content["good"], bool))

    @classmethod
    def from_csv(cls, path: str | Path) -> Bands:
        """Reads a table with the columns ``wavelength_nm`` and, if known, ``fwhm_nm`` and ``good`` (1 or 0)."""
        rows = _table(path)
        columns = {name: _column(path, rows, name) for name in ("wavelength_nm", "fwhm_nm", "good") if name in rows[0]}
        good = columns.get("good", np.ones(len(rows)))
        try:
            return cls(columns["wavelength_nm"], columns.get("fwhm_nm"), good == 1)
        except InputError as error:
            raise InputError(path, error.field, error.value, error.expected, error.fix) from error


def _intervals_nm(given: object) -> tuple[tuple[float, float], ...]:
    if isinstance(given, str) and given in RANGES_NM:
        return RANGES_NM[given]
    try:
        lower, upper = (float(end) for end in given)  # pyright: ignore[reportGeneralTypeIssues]
    except (TypeError, ValueError):
        lower, upper = np.nan, np.nan
    if not (lower <= upper and upper >= _SHORTEST_NM):
        expected = f"[first_nm, last_nm], the last at least {_SHORTEST_NM:g}, or one of {', '.join(RANGES_NM)}"
        fix = "write a list such as scene.bad_bands=[water_vapour, [400, 420]], multiply micrometres by 1000"
        raise InputError("scene", "bad_bands", given, expected, fix)
    return ((lower, upper),)


def _read_only(values: object, dtype: type) -> NDArray:
    array = np.array(values, dtype=dtype).reshape(-1)
    array.setflags(write=False)
    return array


def _table(path: str | Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(line for line in file if not line.startswith("#"))
            rows, names = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, "band table", "unreadable", "a CSV file", f"check the path ({error})") from error
    if not rows or "wavelength_nm" not in rows[0]:
        columns = list(rows[0]) if rows else "without a row"
        expected = "a column wavelength_nm with a row for each band"
        raise InputError(path, "header", columns, expected, "name the column of the band centres in nm wavelength_nm")
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise InputError(path, "header", f"{twice[0]} twice", "each column once", "keep the right one of the two")
    for i, row in enumerate(rows, 1):
        if None in row:  # cells beyond the header
            expected = f"{len(row) - 1} as in the header"
            fix = "write numbers with a decimal point, not with a decimal comma, and every cell below its column"
            raise InputError(path, f"number of cells of row {i}", len(row) - 1 + len(row[None]), expected, fix)
    return rows


def _column(path: str | Path, rows: list[dict[str, str]], name: str) -> NDArray[np.float64]:
    values, allowed = [], {0.0: 0.0, 1.0: 1.0} if name == "good" else None
    for i, row in enumerate(rows, 1):
        try:
            values.append(float(row[name]) if allowed is None else allowed[float(row[name])])
        except (KeyError, TypeError, ValueError) as error:
            expected = "a number" if allowed is None else "1 for a good band and 0 for a bad one"
            raise InputError(path, f"{name} of row {i}", repr(row[name]), expected, "correct the table") from error
    return np.array(values)


@dataclass(frozen=True)
class BandGroup:
    """All bands with ``lower_nm <= wavelength < upper_nm``."""

    name: str
    lower_nm: float
    upper_nm: float

    def __post_init__(self) -> None:
        if not -np.inf < self.lower_nm < self.upper_nm < np.inf:
            interval, expected = f"[{self.lower_nm}, {self.upper_nm}) nm", "[lower_nm, upper_nm], both finite"
            raise InputError(f"band group {self.name}", "interval", interval, expected, "swap or correct the limits")


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
    """Divides the range of the good bands into a number of intervals with equal numbers of bands.

    Each group starts with the same share of the weight, and a band costs the same in all groups: with intervals of
    equal width, a few bands beside a gap would get the share of a whole group. If there are fewer wavelengths than
    groups, each is a group.
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
