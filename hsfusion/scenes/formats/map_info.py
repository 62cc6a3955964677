"""Places as ENVI words them, in ``map info`` and ``coordinate system string``.

Specification: NV5 Geospatial, ENVI Header Files. GDAL turns them into a coordinate system, but guesses where they make
no sense, be it a zone 99; so everything is checked before and after. Its transform is not used: it turns a scene about
the corner of pixel (1, 1), whichever pixel the tie point is, swaps width and height of turned pixels, and takes a
rotation of 180 degrees for a flip of the rows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from hsfusion.errors import InputError
from hsfusion.scenes.formats.cube_file import strict_number

_NUMBERS = ("column of the tie point", "row of the tie point", "easting", "northing", "pixel width", "pixel height")
_ANGLES = ("degrees", "degree", "minutes", "minute", "seconds", "second", "radians", "radian")
_PER_DEGREE = {"minutes": 60, "minute": 60, "seconds": 3600, "second": 3600}
_FAKE = "ENVI\nsamples = 4\nlines = 4\nbands = 1\ndata type = 1\ninterleave = bsq\nbyte order = 0\nheader offset = 0\n"


@dataclass(frozen=True)
class MapInfo:
    """The words of a map info.

    Attributes:
        projection: its name, in lower case.
        numbers: column and row of the tie point from 1, its coordinates, width and height of a pixel.
        rest: what follows without a name: zone and hemisphere of UTM, datum.
        rotation: in degrees.
        unit: of the coordinates, in lower case; empty where it is not named.
    """

    projection: str
    numbers: tuple[float, ...]
    rest: tuple[str, ...]
    rotation: float
    unit: str

    @property
    def geographic(self) -> bool:
        """Whether it is in longitude and latitude."""
        return self.projection.startswith("geographic")

    @property
    def transform(self) -> Affine:
        """From (column, row) to map coordinates, in degrees if they are angles (but for radians).

        The tie point lies on its coordinates. From there one column on is a pixel's width, turned by the rotation
        counter-clockwise from east, and one row on is its height, turned likewise from south.
        """
        column, row, east, north, width, height = self.numbers
        cos, sin = math.cos(math.radians(self.rotation)), math.sin(math.radians(self.rotation))
        if self.rotation % 90 == 0:
            cos, sin = round(cos), round(sin)
        a, d = width * cos, width * sin
        b, e = height * sin, -height * cos
        corner = (east - (column - 1) * a - (row - 1) * b, north - (column - 1) * d - (row - 1) * e)
        return Affine(*(value / _PER_DEGREE.get(self.unit, 1) for value in (a, b, corner[0], d, e, corner[1])))


def parse_map_info(source: object, words: Sequence[str]) -> MapInfo:
    """Takes a map info apart.

    Args:
        source: the file that it stands in, for messages.
        words: projection, tie point, coordinates, pixel sizes, then zone, hemisphere, datum, ``units=``, ``rotation=``.

    Raises:
        InputError: if words are missing, no finite numbers, or make no sense.
    """
    if len(words) < 7:
        expected = "projection, tie pixel, coordinates, pixel sizes"
        raise _wrong(source, "map info", f"{', '.join(words)[:80]!r}", expected)
    numbers = tuple(
        strict_number(source, f"{name} in map info", word) for name, word in zip(_NUMBERS, words[1:7], strict=True)
    )
    if min(numbers[4:]) <= 0:
        raise _wrong(source, "pixel size in map info", f"{numbers[4]:g} x {numbers[5]:g}", "positive numbers")
    named = {name.strip().lower(): word.strip() for name, sign, word in (w.partition("=") for w in words[7:]) if sign}
    rotation = strict_number(source, "rotation in map info", named.get("rotation", "0"))
    rest = tuple(word.strip() for word in words[7:] if "=" not in word)
    unit = named.get("units", "").lower()
    info = MapInfo(words[0].strip().lower(), numbers, rest, rotation, unit)
    if unit and (info.geographic or info.projection == "utm") and (unit in _ANGLES) != info.geographic:
        raise _wrong(source, "units in map info", unit, f"units that fit the projection {words[0]}")
    if info.projection == "utm":
        _check_zone(source, info)
    return info


def _check_zone(source: object, info: MapInfo) -> None:
    zone, hemisphere = (*info.rest, "", "")[:2]
    if not (zone.isascii() and zone.isdigit() and len(zone) < 4 and 1 <= int(zone) <= 60):
        raise _wrong(source, "UTM zone in map info", repr(zone[:40]), "a whole number from 1 to 60")
    if hemisphere.lower() not in ("north", "south"):
        raise _wrong(source, "hemisphere in map info", repr(hemisphere[:40]), "North or South")


def place(
    source: object, map_info: Sequence[str], *, system: str = "", system_source: object = "", projection_info: str = ""
) -> tuple[Affine, str | None]:
    """The place that a header names.

    Args:
        source: the header, for messages.
        map_info: words of ``map info``.
        system: WKT of ``coordinate system string``; empty where there is none.
        system_source: the header and the line of that, for messages; needed where there is one.
        projection_info: ``projection info``, which some projections need.

    Returns:
        transform from (column, row) to map coordinates, and the coordinate system as WKT

    Raises:
        InputError: if something is wrong with them, or they contradict each other.
    """
    info = parse_map_info(source, map_info)
    datum = info.rest[2:3] if info.projection == "utm" else info.rest[:1]
    if system:
        _check_wkt(system_source, system)
    elif (info.projection == "utm" or info.geographic) and not datum:
        raise _wrong(source, "datum in map info", "missing", "a datum such as WGS-84, or a coordinate system string")
    transform, crs = info.transform, _by_gdal(source, map_info, system, projection_info)
    if not (np.isfinite(list(transform)).all() and transform.determinant):
        raise _wrong(source, "map info", tuple(transform)[:6], "finite numbers and pixels with an area")
    if crs is None:
        return transform, None
    _check_agreement(system_source or source, info, crs)
    wkt = crs.to_wkt()
    if not system and datum and not _is_wgs84(datum[0]) and '"WGS 84"' in wkt:  # what GDAL takes for unknown names
        expected = "one that GDAL knows, or a coordinate system string"
        raise _wrong(source, "datum in map info", repr(datum[0][:40]), expected)
    return transform, wkt


def _is_wgs84(datum: str) -> bool:
    return datum.upper().replace("-", "").replace(" ", "") == "WGS84"


def _check_wkt(source: object, system: str) -> None:
    try:
        with rasterio.Env():  # or GDAL would print
            CRS.from_wkt(system)
    except CRSError as error:
        raise _wrong(source, "coordinate system string", repr(system[:40]), "WKT that can be read") from error


def _by_gdal(source: object, map_info: Sequence[str], system: str, projection_info: str) -> CRS | None:
    """The coordinate system of these fields alone, by GDAL, in memory: beside the real header, it reads more files."""
    words = ["WGS-84" if _is_wgs84(word) else word for word in map_info]
    fields = {"map info": ", ".join(words), "coordinate system string": system, "projection info": projection_info}
    header = _FAKE + "".join(f"{name} = {{{' '.join(text.split())}}}\n" for name, text in fields.items() if text)
    folder = str(uuid4())
    try:
        with (
            warnings.catch_warnings(),
            MemoryFile(header.encode(), dirname=folder, filename="place.hdr"),
            MemoryFile(bytes(16), dirname=folder, filename="place.img") as file,
        ):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(file.name, driver="ENVI") as raster:
                return raster.crs
    except (CRSError, RasterioError) as error:
        why = " ".join(str(error).split())
        raise _wrong(source, "map info", "unreadable", f"what GDAL understands ({why[:200]})") from error


def _check_agreement(source: object, info: MapInfo, crs: CRS) -> None:
    """Makes sure that the projection of a map info and its coordinate system are of one kind, and of one UTM zone."""
    kind = "geographic" if crs.is_geographic else "projected"
    if info.geographic != crs.is_geographic and info.projection != "arbitrary":
        wanted = "geographic" if info.geographic else "projected"
        raise _wrong(source, "coordinate system", kind, f"a {wanted} one, as the projection {info.projection} needs")
    said = crs.to_dict()
    if info.projection != "utm" or said.get("proj") in ("tmerc", "etmerc"):
        return
    south = info.rest[1].lower() == "south"
    if (said.get("proj"), said.get("zone"), bool(said.get("south"))) != ("utm", int(info.rest[0]), south):
        name = crs.to_wkt().partition('"')[2].partition('"')[0]
        raise _wrong(source, "coordinate system string", name[:60], f"UTM {' '.join(info.rest[:2])} as map info says")


def _wrong(source: object, field: str, value: object, expected: str) -> InputError:
    return InputError(source, field, value, expected, "correct the place")
