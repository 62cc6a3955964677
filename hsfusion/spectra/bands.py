"""Spectral bands: centre wavelengths and widths in nm."""

from __future__ import annotations

import csv
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError

# no imaging spectrometer sees less, or more: numbers below are micrometres, numbers above are not nanometres
_SHORTEST_NM, _LONGEST_NM = 100.0, 100_000.0
_MOST_TABLE_BYTES = 2**22  # 10,000 bands in lines of 400 letters

#: ranges in nm that can be named: in the water vapour the ground cannot be seen from above
RANGES_NM = {"water_vapour": ((1350.0, 1430.0), (1800.0, 1950.0))}


@dataclass(frozen=True, eq=False)
class Bands:
    """The C bands of a scene, in file order (which need not be ascending in wavelength).

    Attributes:
        wavelength_nm: (C,) float64, centre wavelengths in nm.
        fwhm_nm: (C,) float64, full width at half maximum in nm, or None where unknown.
        good: (C,) bool, False for bands that must not be used.
    """

    wavelength_nm: NDArray[np.float64]
    fwhm_nm: NDArray[np.float64] | None
    good: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Copies to read-only arrays and checks them.

        Raises:
            InputError: on lengths that differ, or a wavelength or width that is no positive number.
        """
        wavelength = _frozen(self.wavelength_nm, np.float64)
        good = _frozen(self.good, np.bool_)
        fwhm = None if self.fwhm_nm is None else _frozen(self.fwhm_nm, np.float64)
        for field, values in (("fwhm_nm", fwhm), ("good", good)):
            if values is not None and values.shape != wavelength.shape:
                raise InputError(
                    "bands",
                    f"length of {field}",
                    values.size,
                    f"{wavelength.size}, one for each wavelength",
                    "give every band one value",
                )
        for field, values in (("wavelength_nm", wavelength), ("fwhm_nm", fwhm)):
            if values is not None and not (np.isfinite(values).all() and (values > 0).all()):
                first = values[~(np.isfinite(values) & (values > 0))][0]
                raise InputError("bands", field, first, "positive numbers in nm", "correct the band table")
        if wavelength.size and wavelength.min() < _SHORTEST_NM:
            raise InputError(
                "bands",
                "wavelength_nm",
                wavelength.min(),
                f"centres in nm, at least {_SHORTEST_NM:g}",
                "multiply wavelengths in micrometres by 1000",
            )
        if wavelength.size and wavelength.max() > _LONGEST_NM:
            raise InputError(
                "bands",
                "wavelength_nm",
                wavelength.max(),
                f"centres in nm, at most {_LONGEST_NM:g}",
                "correct the unit of the wavelengths",
            )
        object.__setattr__(self, "wavelength_nm", wavelength)
        object.__setattr__(self, "fwhm_nm", fwhm)
        object.__setattr__(self, "good", good)

    def __len__(self) -> int:
        """Returns C, the number of bands."""
        return int(self.wavelength_nm.size)

    def without(self, ranges: Iterable[str | Sequence[float]]) -> Bands:
        """Marks bands as not good.

        Args:
            ranges: intervals ``(first_nm, last_nm)``, both ends included, or names of :data:`RANGES_NM`.

        Raises:
            InputError: if a range is neither, or ends where no band can be, as one in micrometres does.
        """
        if isinstance(ranges, str):
            raise InputError("scene", "bad_bands", ranges, "a list", f"write bad_bands=[{ranges}]")
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
        """Reads a table with the columns ``wavelength_nm`` and, if known, ``fwhm_nm`` and ``good`` (1 or 0).

        Raises:
            InputError: if the file cannot be read, lacks the column ``wavelength_nm``, holds no numbers, or has a row
                with more cells than the header.
        """
        columns, rows = _table(path)
        wavelength = _column(path, rows, "wavelength_nm")
        fwhm = _column(path, rows, "fwhm_nm") if "fwhm_nm" in columns else None
        good = _column(path, rows, "good") if "good" in columns else np.ones(len(rows))
        other = np.flatnonzero(~np.isin(good, (0, 1)))
        if other.size:
            raise InputError(
                path,
                f"good of row {other[0] + 1}",
                f"{good[other[0]]:g}",
                "1 for a good band and 0 for a bad one",
                "correct the table",
            )
        try:
            return cls(wavelength, fwhm, good == 1)
        except InputError as error:
            raise InputError(path, error.field, error.value, error.expected, error.fix) from error


def _intervals_nm(given: object) -> tuple[tuple[float, float], ...]:
    if isinstance(given, str) and given in RANGES_NM:
        return RANGES_NM[given]
    try:
        lower, upper = (float(end) for end in given)  # pyright: ignore[reportGeneralTypeIssues]
    except (TypeError, ValueError):
        lower, upper = np.nan, np.nan
    if not lower <= upper:
        raise InputError(
            "scene",
            "bad_bands",
            given,
            f"[first_nm, last_nm] or one of {', '.join(RANGES_NM)}",
            "correct scene.bad_bands, such as [water_vapour, [400, 420]]",
        )
    if upper < _SHORTEST_NM:
        raise InputError(
            "scene",
            "bad_bands",
            given,
            f"an interval in nm that ends at {_SHORTEST_NM:g} or above",
            "multiply an interval in micrometres by 1000",
        )
    return ((lower, upper),)


def _frozen(values: object, dtype: type) -> NDArray:
    array = np.array(values, dtype=dtype).reshape(-1)
    array.setflags(write=False)
    return array


def _table(path: str | Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a band table, every cell below its column."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_TABLE_BYTES:  # a pipe would wait for ever
            raise InputError(
                path,
                "band table",
                f"{status.st_size} bytes" if stat.S_ISREG(status.st_mode) else "no plain file",
                f"a CSV file of at most {_MOST_TABLE_BYTES} bytes",
                "name the table itself",
            )
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(line for line in file if not line.startswith("#"))
            columns, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, "band table", "unreadable", "a CSV file", f"check the path ({error})") from error
    if "wavelength_nm" not in columns or not rows:
        raise InputError(
            path,
            "header",
            columns if rows else f"{columns} without a row",
            "a column wavelength_nm with a row for each band",
            "name the column of the band centres in nm wavelength_nm",
        )
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise InputError(path, "header", f"{twice} twice", "each column once", "drop one")
    for i, row in enumerate(rows, 1):
        if None in row:  # cells beyond the header
            raise InputError(
                path,
                f"number of cells of row {i}",
                len(columns) + len(row[None]),
                f"{len(columns)} as in the header",
                "write numbers with a decimal point, not with a decimal comma, and every cell below its column",
            )
    return columns, rows


def _column(path: str | Path, rows: list[dict[str, str]], name: str) -> NDArray[np.float64]:
    values = np.empty(len(rows))
    for i, row in enumerate(rows):
        try:
            values[i] = float(row[name].replace("_", "x"))  # Python takes 4_10 for 410
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(
                path, f"{name} of row {i + 1}", repr(row[name]), "a number", "correct the table"
            ) from error
    return values
