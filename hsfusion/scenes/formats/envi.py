"""ENVI files: a text header beside a raw binary. Specification: NV5 Geospatial, ENVI Header Files."""

from __future__ import annotations

import codecs
import functools
import logging
import math
import mmap
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.formats.cube_file import BandTable, CubeFile, is_plain_beside, strict_number
from hsfusion.scenes.formats.map_info import place
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window, take_layers

#: interleave -> axes of the binary
LAYOUTS = {
    "bsq": ("bands", "lines", "samples"),
    "bil": ("lines", "bands", "samples"),
    "bip": ("lines", "samples", "bands"),
}
_MOST_MAPPED = 256 * 2**20  # bytes of files that may be counted as this process's memory
_others = {"bytes": 0}  # what other libraries map, which cannot be given back here
_log = logging.getLogger(__name__)
_DTYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
_BINARY_SUFFIXES = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".IMG", ".DAT", ".BSQ", ".BIL", ".BIP")
_MOST_BYTES = 2**20  # of a header
_FIX = "correct the header"
_MEANING = {
    "bands": "the number of bands",
    "lines": "the number of rows",
    "samples": "the number of columns",
    "data type": "the code of the number type",
    "header offset": "the bytes before the first number",
    "classes": "the number of classes",
}
_OTHER_TYPES = ("library", "meta", "mosaic", "virtual", "series")  # of which the binary is no raster, or missing
_HALF_TURN = (
    "rotation=180 is read as a half turn, as ENVI means it; GDAL writes the same for rows that run north, so if GDAL "
    "wrote this header, flip the rows of the scene and write it again"
)


def envi_header(path: Path) -> Path | None:
    """The ENVI header that a path names or that lies beside it; None where there is none.

    Raises:
        InputError: if what lies beside is a link, or neither a file nor a folder.
    """
    if _starts_as_header(path):
        return path
    return next(
        (beside for beside in header_places(path) if is_plain_beside(beside) and _starts_as_header(beside)), None
    )


def header_places(path: Path) -> list[Path]:
    """The files in which the header of a binary is looked for, such as ``cube.img.hdr`` and ``cube.hdr``."""
    places = [place for end in (".hdr", ".HDR") for place in (Path(f"{path}{end}"), path.with_suffix(end))]
    return [place for place in dict.fromkeys(places) if place != path]


def _starts_as_header(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return decoded(file.read(128)).lstrip().startswith("ENVI")
    except OSError:
        return False


def decoded(content: bytes) -> str:
    """The text of a header: UTF-8 or UTF-16 by its byte order mark, else UTF-8, else what Windows writes."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


class EnviHeader:
    """The fields of a header, each asked for with its type.

    Attributes:
        path: the header.
        fields: text, or the words of a list, by name in lower case.
        lines: number of the line in which a field starts, from 1, by name.
    """

    def __init__(self, path: Path) -> None:
        """Reads a header, and refuses one with a list without an end or a field that is given twice."""
        self.path = path
        self.fields: dict[str, str | list[str]] = {}
        self.lines: dict[str, int] = {}
        if path.stat().st_size > _MOST_BYTES:
            raise self.error("size", "too large", f"at most {_MOST_BYTES} bytes", "name the header")
        lines = enumerate(re.split(r"\r\n|\r|\n", decoded(path.read_bytes())), start=1)
        numbered = ((number, line) for number, line in lines if not line.startswith(";"))
        for number, line in numbered:
            name, sign, value = line.partition("=")
            name, value = " ".join(name.lower().split()), value.strip()
            if not sign:
                continue
            if name in self.fields:
                twice = f"given twice, in line {self.lines[name]}, too"
                self.lines[name] = number
                raise self.error(f"field {name!r}"[:60], twice, "one value", "keep one", of=name)
            self.lines[name] = number
            self.fields[name] = self._listed(name, value, numbered) if value.startswith("{") else value

    def _listed(self, name: str, start: str, following: Iterator[tuple[int, str]]) -> list[str]:
        """The words of a list that starts in one line and may end in a later one."""
        parts = [start]
        while "}" not in parts[-1]:
            _, line = next(following, (0, None))
            if line is None:
                raise self.error(f"list {name!r}"[:60], "without an end", "one that ends in }", of=name)
            parts.append(line)
        text = "\n".join(parts)[1:].partition("}")[0]
        return [" ".join(word.split()) for word in text.split(",")]

    def where(self, name: str) -> str:
        """The header, and the line of a field that it has, for messages."""
        return f"{self.path}, line {self.lines[name]}" if name in self.lines else str(self.path)

    def error(self, field: str, value: object, expected: str, fix: str = _FIX, *, of: str | None = None) -> InputError:
        """An error that names this header, and the line of the field, or of the one that it is ``of``."""
        return InputError(self.where(of or field), field, value, expected, fix)

    def text(self, name: str, default: str | None = None, *, expected: str = "a word") -> str:
        """A field that is one word or more."""
        value = self.fields.get(name, default)
        if not isinstance(value, str):
            raise self.error(name, "missing" if value is None else repr(value)[:60], expected)
        return value

    def words(self, name: str) -> list[str]:
        """A field that is a list of words, each in one line; empty where the field is missing or holds nothing."""
        value = self.fields.get(name, [])
        words = value if isinstance(value, list) else [value]
        return words[:-1] if words and not words[-1] else words  # a comma may end a list

    def choice(self, name: str, known: Collection[str]) -> str:
        """A field that is one of the known words."""
        value = self.text(name, expected=" | ".join(known)).lower()
        if value not in known:
            raise self.error(name, repr(value)[:60], " | ".join(known))
        return value

    def integer(self, name: str, *, lowest: int, default: int | None = None) -> int:
        """A field that is a whole number."""
        meaning = f", {_MEANING[name]}" if name in _MEANING else ""
        expected = f"a whole number of at least {lowest}{meaning}"
        value = self.text(name, None if default is None else str(default), expected=expected)
        if not (value.isascii() and value.isdigit() and len(value) < 19 and int(value) >= lowest):
            raise self.error(name, repr(value[:60]), expected)
        return int(value)

    def number(self, name: str) -> float | None:
        """A field that is one number, or None where it is missing."""
        values = self.numbers(name, length=1)
        return None if values is None else float(values[0])

    def numbers(self, name: str, *, length: int | None) -> NDArray[np.float64] | None:
        """A field that is a list of finite numbers (length,), or None where it is missing.

        Args:
            name: the field.
            length: how many; None for any.
        """
        if name not in self.fields:
            return None
        words = self.words(name)
        if length is not None and len(words) != length:
            raise self.error(f"number of values of {name}", len(words), str(length), of=name)
        return np.array([strict_number(self.where(name), name, word) for word in words])


def open_envi(path: Path) -> CubeFile:
    """Opens an ENVI file.

    Scale and offset: ``data reflectance gain values`` and ``data reflectance offset values`` go before ``data gain
    values`` and ``data offset values``, which ENVI documents as those of radiance. ``reflectance scale factor``, which
    divides, must say the same as what is beside it.

    Args:
        path: the binary or its header.

    Raises:
        InputError: if the header is damaged, contradicts itself or the binary, or names something not known.
    """
    header_path = envi_header(path)
    assert header_path is not None, "the caller has seen a header"
    header = EnviHeader(header_path)
    binary = _binary(path, header_path)
    _check_plain_raster(header)
    sizes = {name: header.integer(name, lowest=1) for name in ("bands", "lines", "samples")}
    order = header.choice("interleave", LAYOUTS)
    offset = header.integer("header offset", lowest=0, default=0)
    shape = tuple(sizes[name] for name in LAYOUTS[order])
    pixels = EnviPixels(binary, np.dtype(_number_format(header)), order, shape, offset)
    pixels.check_size()
    gain, shift, scale_facts = _scaling(header, sizes["bands"])
    geobox, place_facts = _place(header, (sizes["lines"], sizes["samples"]))
    facts = {"sensor": header.text("sensor type", "") or "not named"}
    if "byte order" not in header.fields and pixels.dtype.itemsize > 1:
        facts["byte order"] = "not named, read as little endian"
    return CubeFile(
        path=binary,
        format=f"ENVI {order.upper()} {pixels.dtype.name}",
        pixels=pixels,
        layers=sizes["bands"],
        geobox=geobox,
        table=_band_table(header, sizes["bands"]),
        nodata=_nodata(header),
        gain=gain,
        offset=shift,
        facts=facts | scale_facts | place_facts,
    )


@dataclass(frozen=True)
class EnviPixels:
    """The binary of an ENVI file, read through a memory map.

    Attributes:
        path: the binary.
        dtype: of its numbers, with their byte order.
        order: bsq, bil or bip.
        shape: of the binary, in that order.
        offset: bytes before the first number.
    """

    path: Path
    dtype: np.dtype
    order: str
    shape: tuple[int, ...]
    offset: int

    def read(self, window: Window) -> NDArray:
        """Reads a window: (layers, height, width) as stored."""
        status = self.check_size()
        row, col, height, width = window
        part = {"bands": slice(None), "lines": slice(row, row + height), "samples": slice(col, col + width)}
        names = LAYOUTS[self.order]
        memory = _mapped(self.path, (status.st_ino, status.st_mtime_ns))
        if _mapped_bytes() - _others["bytes"] > _MOST_MAPPED:
            memory.madvise(mmap.MADV_DONTNEED)  # the pages stay in the system's cache, no longer in this process
            _others["bytes"] = _mapped_bytes()
        cube = np.ndarray(self.shape, self.dtype, memory, self.offset)
        values = cube[tuple(part[name] for name in names)]
        return values.transpose([names.index(name) for name in ("bands", "lines", "samples")])

    def read_layers(self, window: Window, layers: NDArray[np.int64]) -> NDArray:
        """Reads chosen layers of a window: (L, height, width) as stored, in the file's memory order."""
        if self.order != "bip" or not hasattr(os, "preadv"):
            return take_layers(self.read(window), layers)
        self.check_size()
        row, col, height, width = window
        columns, bands = self.shape[1:]
        # line by line: the system reads ahead, and what is not wanted is dropped while it is in the processor's cache
        line, taken = np.empty((width, bands), self.dtype), np.empty((height, width, len(layers)), self.dtype)
        with open(self.path, "rb", buffering=0) as file:
            for i, pixels in enumerate(taken, start=row):
                place = self.offset + (i * columns + col) * bands * self.dtype.itemsize
                if os.preadv(file.fileno(), [line.view(np.uint8).data], place) < line.nbytes:
                    raise EOFError("the file ends too early")
                np.take(line, layers, axis=1, out=pixels, mode="clip")  # the other modes go through a buffer
        return taken.transpose(2, 0, 1)

    def check_size(self) -> os.stat_result:
        """Makes sure that the binary is as long as the header says, at each read, too.

        Returns:
            what the system says of the file.
        """
        status = self.path.stat()
        expected = self.offset + math.prod(self.shape) * self.dtype.itemsize
        if status.st_size != expected:
            told = f"{' x '.join(map(str, self.shape))} of type {self.dtype.str} after {self.offset}"
            raise InputError(
                self.path,
                "size",
                f"{status.st_size} bytes",
                f"{expected}: {told}",
                "copy the file anew, or correct its header",
            )
        return status


@functools.lru_cache(maxsize=8)
def _mapped(path: Path, version: tuple[int, int]) -> mmap.mmap:
    """The binary as a memory map, kept: every new one would have the system look up all its pages again."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _mapped_bytes() -> int:
    """Bytes of mapped files in this process's memory; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0


def class_table(path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Names and colours as ``#rrggbb`` by code, as the header of a classification tells them.

    Args:
        path: the binary.

    Raises:
        InputError: if the numbers of classes, names and colours contradict each other.
    """
    header_path = envi_header(path)
    assert header_path is not None, "the caller has opened the file by its header"
    header = EnviHeader(header_path)
    names, lookup = header.fields.get("class names"), header.fields.get("class lookup")
    if names is None and lookup is None:
        return {}, {}
    number = header.integer("classes", lowest=1)
    if names is not None and not (isinstance(names, list) and len(names) == number):
        value = len(names) if isinstance(names, list) else repr(names[:40])
        raise header.error("number of class names", value, f"{number} as classes says", of="class names")
    rgb = header.numbers("class lookup", length=3 * number)
    if rgb is not None and not (np.isin(rgb, range(256))).all():
        raise header.error("class lookup", "other numbers", "whole numbers from 0 to 255")
    hexes = [] if rgb is None else [f"#{bytes(color).hex()}" for color in rgb.astype(np.uint8).reshape(-1, 3)]
    return dict(enumerate(names or ())), dict(enumerate(hexes))


def _number_format(header: EnviHeader) -> str:
    code = header.integer("data type", lowest=1)
    if code not in _DTYPES:
        raise header.error("data type", code, f"one of {', '.join(map(str, _DTYPES))}", "convert the cube")
    order = header.integer("byte order", lowest=0, default=0)
    if order not in (0, 1):
        raise header.error("byte order", order, "0 (little endian) or 1 (big endian)")
    return "<>"[order] + _DTYPES[code]


def _check_plain_raster(header: EnviHeader) -> None:
    """Makes sure that the binary is a raster of numbers without compression and without gaps."""
    kind = header.text("file type", "").lower()
    if kind and (not kind.startswith(("envi", "standard")) or any(word in kind for word in _OTHER_TYPES)):
        raise header.error("file type", kind[:60], "ENVI Standard or ENVI Classification", "name a raster")
    if header.integer("file compression", lowest=0, default=0):
        raise header.error("file compression", "not 0", "0", "decompress the file")
    for name in ("major frame offsets", "minor frame offsets"):
        gaps = header.numbers(name, length=2)
        if gaps is not None and gaps.any():
            raise header.error(name, gaps.tolist(), "0 and 0", "write the binary without gaps")


def _band_table(header: EnviHeader, layers: int) -> BandTable:
    """What the header says of its bands; wavelengths of another number are left to :meth:`CubeFile.bands`."""
    good = header.numbers("bbl", length=layers)
    if good is not None and not np.isin(good, (0, 1)).all():
        other = good[~np.isin(good, (0, 1))][0]
        raise header.error("bbl", f"{other:g}", "1 for a good band and 0 for a bad one")
    wavelength = header.numbers("wavelength", length=None)
    return BandTable(
        wavelength if wavelength is not None and wavelength.size else None,
        header.numbers("fwhm", length=layers),
        None if good is None else good != 0,
        unit=header.text("wavelength units", "") or None,
        source=f"wavelength of {header.path.name}",
    )


def _nodata(header: EnviHeader) -> float | None:
    words = header.words("data ignore value")
    if len(words) == 1 and words[0].lower() == "nan":
        return np.nan
    return header.number("data ignore value")


def _scaling(
    header: EnviHeader, layers: int
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, dict[str, str]]:
    """Gain and offset (layers,), None for 1 and 0, and what is worth telling of them."""
    factor = header.number("reflectance scale factor")
    pairs = {
        kind: [header.numbers(f"{kind} {word} values", length=layers) for word in ("gain", "offset")]
        for kind in ("data reflectance", "data")
    }
    named = [kind for kind, pair in pairs.items() if any(values is not None for values in pair)]
    kind = named[0] if named else "data"
    gain, offset = pairs[kind]
    if gain is None and kind == "data reflectance":
        raise header.error(f"{kind} gain values", "missing", f"numbers beside {kind} offset values")
    if gain is not None and not gain.all():
        raise header.error(f"{kind} gain values", 0, "numbers that are not 0")
    facts = {}
    if len(named) == 2:
        facts = {"scale from": "data reflectance gain values; data gain values beside them are not used"}
        _log.info("%s: scale from %s.", header.path, facts["scale from"])
    if factor is None:
        return gain, offset, facts
    if not factor > 0:
        raise header.error("reflectance scale factor", factor, "a positive number")
    shifted = offset is not None and offset.any()
    if shifted or (gain is not None and not np.allclose(gain * factor, 1, rtol=1e-6, atol=0)):
        expected = f"the same scale as {kind} gain and offset values"
        raise header.error("reflectance scale factor", f"{factor:g}", expected, "keep the ones that are right")
    return np.full(layers, 1 / factor), None, facts


def _place(header: EnviHeader, shape: tuple[int, int]) -> tuple[GeoBox, dict[str, str]]:
    system, projection = (", ".join(header.words(name)) for name in ("coordinate system string", "projection info"))
    if "map info" not in header.fields:
        told = "only a coordinate system string and no map info, not used"
        return GeoBox(shape), {"place": told} if system else {}
    transform, crs = place(
        header.where("map info"),
        header.words("map info"),
        system=system,
        system_source=header.where("coordinate system string"),
        projection_info=projection,
    )
    if transform.a < 0 < transform.e:
        _log.warning("%s: %s.", header.where("map info"), _HALF_TURN)
    return GeoBox(shape, transform, crs), {}


def _binary(path: Path, header: Path) -> Path:
    if path != header:
        return path
    stem = path.with_suffix("") if path.suffix.lower() == ".hdr" else path
    beside = [file for suffix in _BINARY_SUFFIXES if (file := Path(f"{stem}{suffix}")) != header]
    found = [file for file in beside if is_plain_beside(file)]
    found = list({file.stat().st_ino: file for file in found}.values())  # where case is nothing
    if len(found) != 1:
        raise InputError(
            header,
            "binary",
            ", ".join(candidate.name for candidate in found) or "missing",
            f"one file {stem.name} with one of the endings {', '.join(_BINARY_SUFFIXES[1:])} or none",
            "name the binary instead of the header",
        )
    return found[0]
