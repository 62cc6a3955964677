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
from hsfusion.scenes.readers.cube_file import BandTable, CubeFile
from hsfusion.scenes.readers.raw import LAYOUTS, EnviPixels

_DTYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
_BINARY_SUFFIXES = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".IMG", ".DAT", ".BSQ", ".BIL", ".BIP")
_MOST_BYTES, _MOST_LINES = 2**20, 20_000  # of a header; the parser's time grows with the square of the lines


def envi_header(path: Path) -> Path | None:
    """The ENVI header that a path names or that lies beside it; None where there is none."""
    beside = (name for end in (".hdr", ".HDR") for name in (Path(f"{path}{end}"), path.with_suffix(end)))
    for candidate in (path, *beside):
        try:
            with open(candidate, "rb") as file:
                if file.read(4) == b"ENVI":
                    return candidate
        except OSError:
            continue
    return None


def open_envi(path: Path) -> CubeFile:
    """Opens an ENVI file.

    Scale and offset: ``reflectance scale factor``, which divides, or ``data gain values`` and ``data offset values``.

    Args:
        path: the binary or its header.

    Raises:
        InputError: if the header is damaged, contradicts itself or the binary, or names something not known.
    """
    header_path = envi_header(path)
    assert header_path is not None, "the caller has seen a header"
    header = _Header(header_path)
    binary = _binary(path, header_path)
    sizes = {name: header.integer(name, lowest=1) for name in ("bands", "lines", "samples")}
    order = header.choice("interleave", LAYOUTS)
    offset = header.integer("header offset", lowest=0, default=0)
    shape = tuple(sizes[name] for name in LAYOUTS[order])
    pixels = EnviPixels(binary, np.dtype(_number_format(header)), order, shape, offset)
    pixels.check_size()
    gain, shift = _scaling(header, sizes["bands"])
    return CubeFile(
        path=binary,
        format=f"ENVI {order.upper()} {pixels.dtype.name}",
        pixels=pixels,
        layers=sizes["bands"],
        geobox=_place(header, binary, (sizes["lines"], sizes["samples"])),
        table=_band_table(header, sizes["bands"]),
        nodata=header.number("data ignore value"),
        gain=gain,
        offset=shift,
        facts={"sensor": header.text("sensor type", "") or "not named"},
    )


def class_table(path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Names and colours as ``#rrggbb`` by code, as the header of a classification tells them.

    Args:
        path: the binary.

    Raises:
        InputError: if the numbers of classes, names and colours contradict each other.
    """
    header_path = envi_header(path)
    assert header_path is not None, "the caller has opened the file by its header"
    header = _Header(header_path)
    names, lookup = header.fields.get("class names"), header.fields.get("class lookup")
    if names is None and lookup is None:
        return {}, {}
    number = header.integer("classes", lowest=1)
    if names is not None and not (isinstance(names, list) and len(names) == number):
        value = len(names) if isinstance(names, list) else repr(names[:40])
        raise header.error("number of class names", value, f"{number} as classes says", "correct the header")
    rgb = header.numbers("class lookup", length=3 * number)
    if rgb is not None and not (np.isin(rgb, range(256))).all():
        raise header.error("class lookup", "other numbers", "whole numbers from 0 to 255", "correct the header")
    hexes = [] if rgb is None else [f"#{bytes(color).hex()}" for color in rgb.astype(np.uint8).reshape(-1, 3)]
    return dict(enumerate(names or ())), dict(enumerate(hexes))


def _number_format(header: _Header) -> str:
    code = header.integer("data type", lowest=1)
    if code not in _DTYPES:
        raise header.error("data type", code, f"one of {', '.join(map(str, _DTYPES))}", "convert the cube")
    order = header.integer("byte order", lowest=0, default=0 if code == 1 else None)
    if order not in (0, 1):
        raise header.error("byte order", order, "0 (little endian) or 1 (big endian)", "correct the header")
    return "<>"[order] + _DTYPES[code]


def _band_table(header: _Header, layers: int) -> BandTable:
    good = header.numbers("bbl", length=layers)
    return BandTable(
        header.numbers("wavelength", length=layers),
        header.numbers("fwhm", length=layers),
        None if good is None else good != 0,
        unit=header.text("wavelength units", "") or None,
        source=f"wavelength of {header.path.name}",
    )


def _scaling(header: _Header, layers: int) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    factor = header.number("reflectance scale factor")
    gain = header.numbers("data gain values", length=layers)
    offset = header.numbers("data offset values", length=layers)
    if factor is None:
        return gain, offset
    if gain is not None or offset is not None:
        raise header.error("reflectance scale factor", factor, "nothing beside data gain or offset values", "keep one")
    if not factor > 0:
        raise header.error("reflectance scale factor", factor, "a positive number", "correct the header")
    return np.full(layers, 1 / factor), None


def _place(header: _Header, binary: Path, shape: tuple[int, int]) -> GeoBox:
    if "map info" not in header.fields:
        return GeoBox(shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(binary, driver="ENVI") as file:  # for the place only
                return GeoBox(shape, file.transform, file.crs.to_wkt() if file.crs else None)
    except RasterioError as error:
        raise header.error("map info", "unreadable", "what GDAL understands", str(error)) from error


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
    found = list({file.stat().st_ino: file for file in found if file != header}.values())  # where case is nothing
    if len(found) != 1:
        raise InputError(
            header,
            field="binary",
            value=", ".join(candidate.name for candidate in found) or "missing",
            expected=f"one file {stem.name} with one of the endings {', '.join(_BINARY_SUFFIXES[1:])} or none",
            fix="name the binary instead of the header",
        )
    return found[0]
