"""ENVI files: a text header beside a raw binary. Specification: NV5 Geospatial, ENVI Header Files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from spectral.io.envi import EnviException, read_envi_header

from hsfusion.errors import InputError
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window, finite_or_nan
from hsfusion.spectra import Bands

_DTYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
# axes of the binary -> their order as (bands, rows, columns)
_LAYOUTS = {
    "bsq": ("bands", "lines", "samples"),
    "bil": ("lines", "bands", "samples"),
    "bip": ("lines", "samples", "bands"),
}
_NM_PER_UNIT = {
    **dict.fromkeys(("nanometers", "nanometer", "nm"), 1.0),
    **dict.fromkeys(("micrometers", "micrometer", "microns", "micron", "um", "µm", "μm"), 1000.0),
}
_BINARY_SUFFIXES = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip")
_MOST_BYTES, _MOST_LINES = 2**20, 20_000  # of a header; the parser's time grows with the square of the lines


def envi_header(path: Path) -> Path | None:
    """The ENVI header that a path names or that lies beside it; None where there is none."""
    for candidate in (path, Path(f"{path}.hdr"), path.with_suffix(".hdr")):
        try:
            with open(candidate, "rb") as file:
                if file.read(4) == b"ENVI":
                    return candidate
        except OSError:
            continue
    return None


class EnviRaster:
    """The layers of an ENVI file, read through a memory map.

    Scale and offset are applied: by ``reflectance scale factor``, which divides, or by ``data gain values`` and ``data
    offset values``.

    Args:
        path: the binary or its header.

    Raises:
        InputError: if the header is damaged, contradicts itself or the binary, or names something not known.
    """

    def __init__(self, path: str | Path) -> None:
        header_path = envi_header(Path(path))
        assert header_path is not None, "the caller has seen a header"
        self.header = _Header(header_path)
        self.path = _binary(Path(path), header_path)
        sizes = {name: self.header.integer(name, lowest=1) for name in ("bands", "lines", "samples")}
        self.layers = sizes["bands"]
        self._dtype, self._order = self._number_format(), self.header.choice("interleave", _LAYOUTS)
        self._shape = tuple(sizes[name] for name in _LAYOUTS[self._order])
        self._offset = self.header.integer("header offset", lowest=0, default=0)
        self._check_size()
        self._nodata = self.header.number("data ignore value")
        self._gain, self._shift = self._scaling()
        self.geobox = self._place((sizes["lines"], sizes["samples"]))

    def bands(self, *, unit: str | None = None) -> Bands:
        """The bands that the header tells of.

        Args:
            unit: ``nm`` or ``um``, where the header names none.

        Raises:
            InputError: if wavelengths or their unit are missing, unknown or contradict each other.
        """
        header = self.header
        wavelength = header.numbers("wavelength", length=self.layers)
        if wavelength is None:
            raise header.error("wavelength", "missing", f"{self.layers} centres", "add scene.wavelengths=CSV")
        said = header.text("wavelength units", "").lower()
        known = said if said in _NM_PER_UNIT else (unit or "")
        if known not in _NM_PER_UNIT:
            raise header.error(
                "wavelength units",
                said or "missing",
                "Nanometers or Micrometers",
                "correct the header, or add scene.wavelength_unit=nm or =um",
            )
        if unit is not None and _NM_PER_UNIT[unit] != _NM_PER_UNIT[known]:
            raise header.error(
                "wavelength units", said, f"{unit} as scene.wavelength_unit says", "correct one of the two"
            )
        factor = _NM_PER_UNIT[known]
        fwhm = header.numbers("fwhm", length=self.layers)
        good = header.numbers("bbl", length=self.layers)
        try:
            return Bands(
                wavelength * factor,
                None if fwhm is None else fwhm * factor,
                np.ones(self.layers, bool) if good is None else good != 0,
            )
        except InputError as error:
            raise header.error(error.field, error.value, error.expected, error.fix) from error

    def read(self, window: Window) -> NDArray[np.float32]:
        """Reads a window: (layers, height, width) float32, NaN where there are no data.

        Raises:
            InputError: if the file is no longer as long as it was.
        """
        self._check_size()
        row, col, height, width = window
        part = {"bands": slice(None), "lines": slice(row, row + height), "samples": slice(col, col + width)}
        names = _LAYOUTS[self._order]
        cube = np.memmap(self.path, self._dtype, "r", self._offset, self._shape)
        values = cube[tuple(part[name] for name in names)]
        values = values.transpose([names.index(name) for name in ("bands", "lines", "samples")])
        result = np.array(values, dtype=np.float32)
        if self._gain is not None:
            result = result * self._gain[:, None, None] + self._shift[:, None, None]
        if self._nodata is not None:
            result[np.asarray(values == np.dtype(self._dtype).type(self._nodata))] = np.nan
        return finite_or_nan(result)

    def _number_format(self) -> str:
        code = self.header.integer("data type", lowest=1)
        if code not in _DTYPES:
            raise self.header.error("data type", code, f"one of {', '.join(map(str, _DTYPES))}", "convert the cube")
        order = self.header.integer("byte order", lowest=0, default=0 if code == 1 else None)
        if order not in (0, 1):
            raise self.header.error("byte order", order, "0 (little endian) or 1 (big endian)", "correct the header")
        return "<>"[order] + _DTYPES[code]

    def _check_size(self) -> None:
        needed = self._offset + int(np.prod(self._shape, dtype=object)) * np.dtype(self._dtype).itemsize
        size = self.path.stat().st_size
        if size != needed:
            raise InputError(
                self.path,
                field="size",
                value=f"{size} bytes",
                expected=f"{needed}: {' x '.join(map(str, self._shape))} of type {self._dtype} after {self._offset}",
                fix=f"copy the file anew, or correct {self.header.path.name}",
            )

    def _scaling(self) -> tuple[NDArray[np.float32] | None, NDArray[np.float32]]:
        header = self.header
        factor = header.number("reflectance scale factor")
        gain = header.numbers("data gain values", length=self.layers)
        shift = header.numbers("data offset values", length=self.layers)
        if factor is not None and (gain is not None or shift is not None):
            raise header.error(
                "reflectance scale factor", factor, "nothing beside data gain or offset values", "keep one"
            )
        if factor is not None and factor <= 0:
            raise header.error("reflectance scale factor", factor, "a positive number", "correct the header")
        if factor is not None:
            gain = np.full(self.layers, 1 / factor)
        if gain is None and shift is None:
            return None, np.zeros(self.layers, np.float32)
        gain = np.ones(self.layers) if gain is None else gain
        return gain.astype(np.float32), (np.zeros(self.layers) if shift is None else shift).astype(np.float32)

    def _place(self, shape: tuple[int, int]) -> GeoBox:
        if "map info" not in self.header.fields:
            return GeoBox(shape)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(self.path, driver="ENVI") as file:  # for the place only
                    return GeoBox(shape, file.transform, file.crs.to_wkt() if file.crs else None)
        except RasterioError as error:
            raise self.header.error("map info", "unreadable", "what GDAL understands", str(error)) from error


class _Header:
    """The fields of a header, each asked for with its type."""

    def __init__(self, path: Path) -> None:
        self.path = path
        start = path.read_bytes()[: _MOST_BYTES + 1] if path.stat().st_size <= _MOST_BYTES else b""
        if not start or start.count(b"\n") > _MOST_LINES:
            raise self.error(
                "size", "too large", f"at most {_MOST_BYTES} bytes and {_MOST_LINES} lines", "name the header"
            )
        try:
            start.decode("utf-8")  # the parser would leave the file open
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that names were not in lower case
                self.fields: dict[str, Any] = read_envi_header(str(path))
        except (EnviException, UnicodeDecodeError) as error:
            raise self.error("content", "unreadable", "an ENVI header in UTF-8", "write it anew") from error

    def error(self, field: str, value: object, expected: str, fix: str) -> InputError:
        """An error that names this header."""
        return InputError(self.path, field=field, value=value, expected=expected, fix=fix)

    def text(self, name: str, default: str | None = None) -> str:
        """A field that is one word or more."""
        value = self.fields.get(name, default)
        if not isinstance(value, str):
            raise self.error(name, "missing" if value is None else value, "a word", "correct the header")
        return value.strip()

    def choice(self, name: str, known: Any) -> str:
        """A field that is one of the known words."""
        value = self.text(name).lower()
        if value not in known:
            raise self.error(name, value, " | ".join(known), "correct the header")
        return value

    def integer(self, name: str, *, lowest: int, default: int | None = None) -> int:
        """A field that is a whole number."""
        value = self.text(name, None if default is None else str(default))
        if not (value.isascii() and value.isdigit() and int(value[:18]) >= lowest):
            raise self.error(name, value, f"a whole number of at least {lowest}", "correct the header")
        return int(value)

    def number(self, name: str) -> float | None:
        """A field that is one number, or None where it is missing."""
        values = self.numbers(name, length=1)
        return None if values is None else float(values[0])

    def numbers(self, name: str, *, length: int) -> NDArray[np.float64] | None:
        """A field that is a list of numbers (length,), or None where it is missing."""
        value = self.fields.get(name)
        if value is None:
            return None
        words = [word for word in value if word] if isinstance(value, list) else [value]
        if len(words) != length:
            raise self.error(f"number of values of {name}", len(words), str(length), "correct the header")
        try:
            return np.array([float(word) for word in words])
        except ValueError as error:
            raise self.error(name, str(error).rsplit(": ", 1)[-1], "numbers", "correct the header") from error


def _binary(path: Path, header: Path) -> Path:
    if path != header:
        return path
    stem = path.with_suffix("") if path.suffix.lower() == ".hdr" else path
    found = [candidate for suffix in _BINARY_SUFFIXES if (candidate := Path(f"{stem}{suffix}")).is_file()]
    found = [candidate for candidate in found if candidate != header]
    if len(found) != 1:
        raise InputError(
            header,
            field="binary",
            value=", ".join(candidate.name for candidate in found) or "missing",
            expected=f"one file {stem.name} with one of the endings {', '.join(_BINARY_SUFFIXES[1:])} or none",
            fix="name the binary instead of the header",
        )
    return found[0]
