"""ENVI files: a text header beside a raw binary. Specification: NV5 Geospatial, ENVI Header Files."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.readers.cube_file import BandTable, CubeFile
from hsfusion.scenes.readers.envi_header import EnviHeader, envi_header, is_plain_beside
from hsfusion.scenes.readers.map_info import place
from hsfusion.scenes.readers.raw import LAYOUTS, EnviPixels

_log = logging.getLogger(__name__)
_DTYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
_BINARY_SUFFIXES = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".IMG", ".DAT", ".BSQ", ".BIL", ".BIP")
_OTHER_TYPES = ("library", "meta", "mosaic", "virtual", "series")  # of which the binary is no raster, or missing
_HALF_TURN = (
    "rotation=180 is read as a half turn, as ENVI means it; GDAL writes the same for rows that run north, so if GDAL "
    "wrote this header, flip the rows of the scene and write it again"
)


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
    header = EnviHeader(header_path)
    binary = _binary(path, header_path)
    _check_plain_raster(header)
    sizes = {name: header.integer(name, lowest=1) for name in ("bands", "lines", "samples")}
    order = header.choice("interleave", LAYOUTS)
    offset = header.integer("header offset", lowest=0, default=0)
    shape = tuple(sizes[name] for name in LAYOUTS[order])
    pixels = EnviPixels(binary, np.dtype(_number_format(header)), order, shape, offset)
    pixels.check_size()
    gain, shift = _scaling(header, sizes["bands"])
    geobox, told = _place(header, (sizes["lines"], sizes["samples"]))
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
        facts={"sensor": header.text("sensor type", "") or "not named"} | told,
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
    header = EnviHeader(header_path)
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


def _number_format(header: EnviHeader) -> str:
    code = header.integer("data type", lowest=1)
    if code not in _DTYPES:
        raise header.error("data type", code, f"one of {', '.join(map(str, _DTYPES))}", "convert the cube")
    order = header.integer("byte order", lowest=0, default=0 if code == 1 else None)
    if order not in (0, 1):
        raise header.error("byte order", order, "0 (little endian) or 1 (big endian)", "correct the header")
    return "<>"[order] + _DTYPES[code]


def _check_plain_raster(header: EnviHeader) -> None:
    """Makes sure that the binary is a raster of numbers without compression and without gaps.

    Raises:
        InputError: if a field says otherwise.
    """
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


def _scaling(header: EnviHeader, layers: int) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    factor = header.number("reflectance scale factor")
    gain = header.numbers("data gain values", length=layers)
    offset = header.numbers("data offset values", length=layers)
    if gain is not None and not gain.all():
        raise header.error("data gain values", 0, "numbers that are not 0")
    if factor is None:
        return gain, offset
    if gain is not None or offset is not None:
        raise header.error("reflectance scale factor", factor, "nothing beside data gain or offset values", "keep one")
    if not factor > 0:
        raise header.error("reflectance scale factor", factor, "a positive number")
    return np.full(layers, 1 / factor), None


def _place(header: EnviHeader, shape: tuple[int, int]) -> tuple[GeoBox, dict[str, str]]:
    system, projection = (", ".join(header.words(name)) for name in ("coordinate system string", "projection info"))
    if "map info" not in header.fields:
        told = "only a coordinate system string and no map info, not used"
        return GeoBox(shape), {"place": told} if system else {}
    transform, crs = place(header.path, header.words("map info"), system=system, projection_info=projection)
    if transform.a < 0 < transform.e:
        _log.warning("%s: %s.", header.path, _HALF_TURN)
        return GeoBox(shape, transform, crs), {"place": _HALF_TURN}
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
            field="binary",
            value=", ".join(candidate.name for candidate in found) or "missing",
            expected=f"one file {stem.name} with one of the endings {', '.join(_BINARY_SUFFIXES[1:])} or none",
            fix="name the binary instead of the header",
        )
    return found[0]
