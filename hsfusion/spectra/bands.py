"""Spectral bands: centre wavelengths and widths in nm."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
        """Copies to read-only arrays and checks lengths and units."""
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
        """Returns C, the number of bands."""
        return int(self.wavelength_nm.size)

    def without(self, ranges: Iterable[str | Sequence[float]]) -> Bands:
        """Marks bands inside ``(first_nm, last_nm)``, ends included, or of a name in :data:`RANGES_NM`, as not good."""
        good = np.array(self.good)
        for given in ranges:
            for lower, upper in _intervals_nm(given):
                good &= ~((lower <= self.wavelength_nm) & (self.wavelength_nm <= upper))
        return replace(self, good=good)

    @classmethod
    def from_wavelengths(cls, wavelength_nm: object) -> Bands:
        """Bands of which only the centres in nm are known, all of them good."""
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
