"""ENVI files: a text header beside a raw binary. Specification: NV5 Geospatial, ENVI Header Files.

GDAL turns ``map info`` into a coordinate system, but guesses where it makes no sense, be it an unknown datum, so what
it says is checked. Its transform is not used: it turns a scene about the corner of pixel (1, 1), whichever pixel the
tie point is, swaps width and height of turned pixels, and takes a rotation of 180 degrees for a flip of the rows.
"""

from __future__ import annotations

import codecs
import logging
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from hsfusion.errors import InputError
from hsfusion.scenes.formats.cube_file import (
    BandTable,
    CubeFile,
    MappedPixels,
    crs_as_wkt,
    strict_number,
    strict_numbers,
)
from hsfusion.scenes.geobox import GeoBox, crs_name

#: interleave -> axes of the binary
LAYOUTS = {"bsq": ("layers", "rows", "cols"), "bil": ("rows", "layers", "cols"), "bip": ("rows", "cols", "layers")}
_log = logging.getLogger(__name__)
_DTYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
_BINARY_SUFFIXES = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".IMG", ".DAT", ".BSQ", ".BIL", ".BIP")
_RASTER_TYPES = r"(?!.*(library|meta|mosaic|virtual|series))(envi|standard).*|"  # the others have no raster as binary
_NUMBERS = ("tie column", "tie row", "easting", "northing", "pixel width", "pixel height", "rotation")
_PER_DEGREE = {"degrees": 1, "degree": 1, "minutes": 60, "minute": 60, "seconds": 3600, "second": 3600}
_PER_DEGREE |= dict.fromkeys(("radians", "radian"), math.pi / 180)
_FEET = dict.fromkeys(("feet", "foot", "ft", "us survey feet", "survey feet"), 0.3048)  # which foot, the CRS says
_METRES = {**dict.fromkeys(("meters", "meter", "metres", "metre", "m", "meter(s)"), 1), **_FEET, "yards": 0.9144}
_METRES |= {**dict.fromkeys(("km", "kilometers", "kilometres"), 1000), "miles": 1609.344, "nautical miles": 1852}
_UNITS = re.compile(r"\s*units\s*=", re.IGNORECASE)
_FAKE = "ENVI\nsamples = 4\nlines = 4\nbands = 1\ndata type = 1\ninterleave = bsq\nbyte order = 0\nheader offset = 0\n"
_HALF_TURN = "%s: rotation=180 is a half turn, as ENVI means it; if GDAL wrote this header, flip the rows."


def envi_header(path: Path) -> Path | None:
    """The ENVI header that a path names or that lies beside it; None where there is none."""
    return next((place for place in (path, *header_places(path)) if _starts_as_header(place)), None)


def header_places(path: Path) -> list[Path]:
    """The files in which the header of a binary is looked for, such as ``cube.img.hdr`` and ``cube.hdr``."""
    places = [place for end in (".hdr", ".HDR") for place in (Path(f"{path}{end}"), path.with_suffix(end))]
    return [place for place in dict.fromkeys(places) if place != path]


def _starts_as_header(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return _decoded(file.read(128)).lstrip().startswith("ENVI")


def _decoded(content: bytes) -> str:
    """The text of a header: UTF-8 or UTF-16 by its byte order mark, else UTF-8, else what Windows writes."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


class EnviHeader:
    """The fields of a header, each asked for with its type; ``fields`` is their text by name in lower case."""

    def __init__(self, path: Path) -> None:
        """Reads a header, and refuses one with a list without an end or a field that is given twice."""
        self.path = path
        self.fields: dict[str, str] = {}
        text = re.sub(r"(?m)^;.*", "", re.sub(r"\r\n?", "\n", _decoded(path.read_bytes())))
        for words, value in re.findall(r"(?m)^([^={}\n]+)=[ \t]*(\{[^}]*\}|.*)", text):
            name = " ".join(words.lower().split())
            if name in self.fields or (value.startswith("{") and not value.endswith("}")):
                problem = "given twice" if name in self.fields else "a list without an end"
                raise self.error(name, problem, "one value, and a list to end in }")
            self.fields[name] = value.strip()

    def error(self, name: str, value: object, expected: str) -> InputError:
        """An error that names this header and a field."""
        return InputError(self.path, name[:60], value, expected, "correct the header")

    def word(self, name: str, pattern: str = ".*", *, expected: str = "a word", default: str | None = None) -> str:
        """A field that is one word, or several, which match a pattern in any case."""
        value = self.fields.get(name, default)
        if value is None or not re.fullmatch(pattern, value, re.IGNORECASE | re.ASCII | re.DOTALL):
            raise self.error(name, "missing" if value is None else repr(value)[:60], expected)
        return value

    def words(self, name: str) -> list[str]:
        """A field that is a list of words, each in one line; empty where the field is missing or holds nothing."""
        value = self.fields.get(name, "")
        words = value[1:-1].split(",") if value.startswith("{") else [value]
        words = [" ".join(word.split()) for word in words]
        return words if words[-1] else words[:-1]  # a comma may end a list

    def integer(self, name: str) -> int:
        """A field that is a whole number of at least 1."""
        return int(self.word(name, r"0*[1-9]\d{0,17}", expected="a whole number of at least 1"))

    def number(self, name: str) -> float | None:
        """A field that is one number, or None where it is missing."""
        values = self.numbers(name, length=1)
        return None if values is None else float(values[0])

    def numbers(self, name: str, *, length: int | None) -> NDArray[np.float64] | None:
        """A field that is a list of so many finite numbers (None: any), or None where it is missing."""
        if name not in self.fields:
            return None
        words = self.words(name)
        if length is not None and len(words) != length:
            raise self.error(name, f"a list of {len(words)}", f"{length} numbers")
        return strict_numbers(self.path, name, words)


def open_envi(path: Path) -> CubeFile:
    """Opens an ENVI file by its binary or its header.

    Scale and offset: ``data reflectance gain values`` and ``data reflectance offset values`` go before ``data gain
    values`` and ``data offset values``, which ENVI documents as those of radiance. ``reflectance scale factor``, which
    divides, must say the same as what is beside it.
    """
    header = EnviHeader(envi_header(path) or path)
    header.word("file type", _RASTER_TYPES, expected="ENVI Standard or ENVI Classification", default="")
    names = zip(LAYOUTS["bsq"], ("bands", "lines", "samples"), strict=True)
    sizes = {axis: header.integer(name) for axis, name in names}
    order = header.word("interleave", "|".join(LAYOUTS), expected=" | ".join(LAYOUTS)).lower()
    codes = "|".join(map(str, _DTYPES))
    code = int(header.word("data type", codes, expected=f"a code of real numbers, {codes}"))
    swapped = int(header.word("byte order", "[01]", expected="0 (little endian) or 1 (big endian)", default="0"))
    pixels = MappedPixels(
        _binary(path, header.path),
        np.dtype("<>"[swapped] + _DTYPES[code]),
        LAYOUTS[order],
        tuple(sizes[axis] for axis in LAYOUTS[order]),
        int(header.word("header offset", r"\d{1,18}", expected="a whole number", default="0")),
    )
    pixels.check_size()
    gain, offset, scale_facts = _scaling(header, pixels.layers)
    geobox, place_facts = _place(header, pixels.grid)
    facts = {"sensor": header.word("sensor type", default="") or "not given"}
    if "byte order" not in header.fields and pixels.dtype.itemsize > 1:
        facts["byte order"] = "not given, read as little endian"
    none = header.words("data ignore value") in (["NaN"], ["nan"])
    return CubeFile(
        path=pixels.path,
        format=f"ENVI {order.upper()} {pixels.dtype.name}",
        pixels=pixels,
        layers=pixels.layers,
        geobox=geobox,
        table=_band_table(header, pixels.layers),
        nodata=np.nan if none else header.number("data ignore value"),
        gain=gain,
        offset=offset,
        facts=facts | scale_facts | place_facts,
    )


def class_table(path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Names and colours as ``#rrggbb`` by code, from the header of a classification; path: the binary."""
    header = EnviHeader(envi_header(path) or path)
    if not {"class names", "class lookup"} & set(header.fields):
        return {}, {}
    number = header.integer("classes")
    names, rgb = header.words("class names"), header.numbers("class lookup", length=3 * number)
    if len(names) not in (0, number) or (rgb is not None and not np.isin(rgb, range(256)).all()):
        value = f"{number} beside {len(names)} class names"
        raise header.error("classes", value, "a name for each class, and colours in class lookup from 0 to 255")
    hexes = [] if rgb is None else [f"#{bytes(color).hex()}" for color in rgb.astype(np.uint8).reshape(-1, 3)]
    return dict(enumerate(names)), dict(enumerate(hexes))


def _band_table(header: EnviHeader, layers: int) -> BandTable:
    """What the header says of its bands; wavelengths of another number are left to :meth:`CubeFile.bands`."""
    good, wavelength = header.numbers("bbl", length=layers), header.numbers("wavelength", length=None)
    return BandTable(
        wavelength if wavelength is not None and wavelength.size else None,
        header.numbers("fwhm", length=layers),
        None if good is None else good != 0,
        unit=header.word("wavelength units", default="") or None,
        source=f"wavelength of {header.path.name}",
    )


def _scaling(
    header: EnviHeader, layers: int
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, dict[str, str]]:
    factor = header.number("reflectance scale factor")
    pairs = {
        kind: [header.numbers(f"{kind} {word} values", length=layers) for word in ("gain", "offset")]
        for kind in ("data reflectance", "data")
    }
    named = [kind for kind, pair in pairs.items() if any(values is not None for values in pair)]
    gain, offset = pairs[named[0] if named else "data"]
    text = "data reflectance gain values; data gain values beside them are not used"
    facts = {"scale from": text} if len(named) == 2 else {}
    if factor is None:
        return gain, offset, facts
    agrees = gain is None or np.allclose(gain * factor, 1, rtol=1e-6, atol=0)
    if not (factor > 0 and agrees) or (offset is not None and offset.any()):
        expected = f"a positive number, and the same scale as {named[0] if named else 'data'} gain and offset values"
        raise header.error("reflectance scale factor", f"{factor:g}", expected)
    return np.full(layers, 1 / factor), None, facts


def _binary(path: Path, header: Path) -> Path:
    if path != header:
        return path
    stem = path.with_suffix("") if path.suffix.lower() == ".hdr" else path
    beside = [file for suffix in _BINARY_SUFFIXES if (file := Path(f"{stem}{suffix}")) != header]
    files = list({file.stat().st_ino: file for file in beside if file.is_file()}.values())  # where case is nothing
    if len(files) != 1:
        names = ", ".join(candidate.name for candidate in files) or "missing"
        expected = f"one file {stem.name} with one of the endings {', '.join(_BINARY_SUFFIXES[1:])} or none"
        raise InputError(header, "binary", names, expected, "name the binary instead of the header")
    return files[0]


def map_transform(source: object, words: Sequence[str]) -> Affine:
    """The transform from (column, row) to map coordinates of a map info, in degrees if they are angles.

    The tie point, which counts from pixel (1, 1), lies on its coordinates. From there one column on is a pixel's width,
    turned by the rotation counter-clockwise from east, and one row on is its height, turned likewise from south.

    Its words: projection, tie point, coordinates, pixel sizes, then zone, hemisphere, datum, ``units=``, ``rotation=``.
    """
    named = _options(words)
    column, row, east, north, width, height, rotation = (
        strict_number(source, f"{name} in map info", word)
        for name, word in zip(_NUMBERS, [*[*words[1:], *[""] * 6][:6], named.get("rotation", "0")], strict=True)
    )
    if min(width, height) <= 0:
        sizes = f"pixel sizes {width:g} and {height:g}"
        raise InputError(source, "map info", sizes, "positive sizes", "correct the map info")
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    if rotation % 90 == 0:
        cos, sin = round(cos), round(sin)
    a, b, d, e = width * cos, height * sin, width * sin, -height * cos
    corner = (east - (column - 1) * a - (row - 1) * b, north - (column - 1) * d - (row - 1) * e)
    per_degree = _PER_DEGREE.get(named.get("units", ""), 1)
    return Affine(*(value / per_degree for value in (a, b, corner[0], d, e, corner[1])))


def _options(words: Sequence[str]) -> dict[str, str]:
    """What stands with its name at the end of a map info, in lower case: units and rotation."""
    pairs = (word.lower().partition("=") for word in words[7:] if "=" in word)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _place(header: EnviHeader, shape: tuple[int, int]) -> tuple[GeoBox, dict[str, str]]:
    system, projection = (", ".join(header.words(name)) for name in ("coordinate system string", "projection info"))
    if "map info" not in header.fields:
        text = "only a coordinate system string and no map info, not used"
        return GeoBox(shape), {"place": text} if system else {}
    words = header.words("map info")
    transform = map_transform(header.path, words)
    if system:
        crs_as_wkt(header.path, "coordinate system string", system)
    crs = _crs_by_gdal(words, system, projection)
    if crs is not None:
        _check_crs(header, words, crs, system)
    if transform.a < 0 < transform.e:
        _log.warning(_HALF_TURN, header.path)
    return GeoBox(shape, transform, None if crs is None else crs.to_wkt()), {}


def _crs_by_gdal(map_info: Sequence[str], system: str, projection_info: str) -> CRS | None:
    """The coordinate system of these fields alone, by GDAL, in memory: beside the real header, it reads more files."""
    # GDAL would put this unit in the place of that of the coordinate system string, feet of any kind as international
    # ones, and would turn the angles of a geographic one
    linear = not system and _options(map_info).get("units", "") in _METRES
    words = ["WGS-84" if _is_wgs84(word) else word for word in map_info if linear or not _UNITS.match(word)]
    fields = {"map info": ", ".join(words), "coordinate system string": system, "projection info": projection_info}
    header = _FAKE + "".join(f"{name} = {{{' '.join(text.split())}}}\n" for name, text in fields.items() if text)
    folder = str(uuid4())
    with (
        warnings.catch_warnings(),
        MemoryFile(header.encode(), dirname=folder, filename="place.hdr"),
        MemoryFile(bytes(16), dirname=folder, filename="place.img") as file,
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(file.name, driver="ENVI") as raster:
            return raster.crs


def _check_crs(header: EnviHeader, words: Sequence[str], crs: CRS, system: str) -> None:
    """Makes sure that projection, zone, unit and datum of a map info are those of its coordinate system."""
    projection, unit = words[0].lower(), _options(words).get("units", "")
    utm, geographic = projection == "utm", projection.startswith("geographic")
    rest = [*(word for word in words[7:] if "=" not in word), "", "", ""]
    zone, hemisphere, datum = rest[:3] if utm else ("", "", rest[0])
    wkt, parameters = crs.to_wkt(), crs.to_dict()
    zones = (str(parameters.get("zone")), "south" if parameters.get("south") else "north")
    other_zone = parameters.get("proj") not in ("tmerc", "etmerc") and zones != (zone.lstrip("0"), hemisphere.lower())
    guessed = not datum or ('"WGS 84"' in wkt and not _is_wgs84(datum))  # what GDAL takes for unknown names
    wrongs = {
        f"projection {projection}": geographic != crs.is_geographic and projection != "arbitrary",
        f"unit {unit}": unit and not _is_unit_of(crs, unit, system),
        f"UTM {zone} {hemisphere}": utm and other_zone,
        f"datum {datum!r}": not system and (utm or geographic or datum) and guessed,
    }
    for value, wrong in wrongs.items():
        if wrong:
            expected = f"what fits the coordinate system {crs_name(wkt)}, or a coordinate system string that fits it"
            raise header.error("map info", value, expected)


def _is_unit_of(crs: CRS, unit: str, system: str) -> bool:
    """Whether a unit of a map info is that of the coordinate system; feet have to have a string, which says which."""
    if not crs.is_projected:
        return unit in _PER_DEGREE or not crs.is_geographic  # a local one has any unit
    known = unit in _METRES and (bool(system) or unit not in _FEET)
    return known and math.isclose(_METRES[unit], crs.linear_units_factor[1], rel_tol=1e-5)  # feet differ by 2e-6


def _is_wgs84(datum: str) -> bool:
    return datum.upper().replace("-", "").replace(" ", "") == "WGS84"
