"""What GDAL would follow, run or pass over in files of features, looked for before GDAL opens them.

Specifications: OGC 12-128r19 (GeoPackage), RFC 7946 (GeoJSON), ESRI Shapefile Technical Description (1998).
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from hsfusion.errors import InputError

FIX = "save the layer anew, as a GeoPackage"
_MOST_TEXT_BYTES = 2**20  # of a .prj or .cpg, which GDAL reads whole
_SHAPEFILE_TEXTS = (".prj", ".cpg", ".qpj")
_SHAPEFILE_INDICES = (".qix", ".sbn", ".sbx", ".idm", ".ind")
_DATABASE_LOGS = ("-wal", "-shm", "-journal")
_GAP = rb"(?:\s|/\*.*?\*/|//[^\n]*)*"  # GDAL passes over comments
# any spelling of the member crs: GDAL looks for its name in any case, with escapes and in any quotes
_JSON_CRS = re.compile(
    rb"""["'](?:c|\\u00[46]3)(?:r|\\u00[57]2)(?:s|\\u00[57]3)["']""" + _GAP + b":" + _GAP + rb"(?:\{|null)",
    re.IGNORECASE | re.DOTALL,
)
# the only one that is taken: of GeoJSON 2008, a name and no link, which GDAL would follow into the network
_JSON_TYPE = rb'"type"\s*:\s*"name"'
_JSON_NAME = rb'"properties"\s*:\s*\{\s*"name"\s*:\s*"([^"\\]{1,200})"\s*\}'
_JSON_NAMED_CRS = re.compile(
    rb'"crs"\s*:\s*\{\s*(?:%(type)b\s*,\s*%(name)b|%(name)b\s*,\s*%(type)b)\s*\}'
    % {b"type": _JSON_TYPE, b"name": _JSON_NAME}
)
_NAMED = "a name like urn:ogc:def:crs:EPSG::32633, or no crs"


def check_json_crs(path: Path, crs: CRS) -> None:
    """Makes sure that a GeoJSON file has the CRS that GDAL found.

    GDAL takes WGS 84 where it does not understand the member crs; that is right only where there is none.

    Raises:
        InputError: if it names another.
    """
    found = _JSON_NAMED_CRS.search(path.read_bytes())
    if found is None:
        return
    name = (found[1] or found[2]).decode("utf-8", "replace")
    if crs.to_epsg() == 4326 and not name.upper().endswith((":CRS84", ":4326")):
        raise vector_error(path, "crs", plain(name), _NAMED, FIX)


def check_geojson(path: Path) -> None:
    """Makes sure that a file is a collection of features, and names its CRS, if at all, in words.

    Raises:
        InputError: if it does not.
    """
    content = path.read_bytes()
    if b'"FeatureCollection"' not in content:
        raise vector_error(path, "type", "something else", '"FeatureCollection"', "save the labels as a GeoPackage")
    for member in _JSON_CRS.finditer(content):
        if _JSON_NAMED_CRS.match(content, member.start()) is None:
            said = plain(content[member.start() :][:80].decode("utf-8", "replace"))
            raise vector_error(path, "crs", said, _NAMED, FIX)


def check_geopackage(path: Path) -> None:
    """Makes sure that a file is whole, and without views and foreign tables.

    A view can run for ever, a foreign table can read other files.

    Raises:
        InputError: if it is not.
    """
    _check_plain(path, (Path(f"{path}{end}") for end in _DATABASE_LOGS))
    with open(path, "rb") as file:
        start = file.read(100)
    page = int.from_bytes(start[16:18], "big")
    needed = int.from_bytes(start[28:32], "big") * (65536 if page == 1 else page)
    if len(start) < 100 or path.stat().st_size < needed:
        raise vector_error(
            path, "size", f"{path.stat().st_size} bytes", f"at least {needed or 100}", "copy the file anew"
        )
    made = rows_of(path, "SELECT type, name, coalesce(sql, '') FROM sqlite_master")
    if "gpkg_contents" not in [name for kind, name, _ in made if kind == "table"]:
        raise vector_error(path, "content", "an SQLite database without gpkg_contents", "a GeoPackage", FIX)
    for kind, name, sql in made:
        virtual = re.match(r"\s*create\s+virtual\s+table", sql, re.IGNORECASE)
        if kind == "view" or (virtual and not re.search(r"\busing\s+[\"']?rtree\b", sql, re.IGNORECASE)):
            raise vector_error(
                path, f"{kind} {plain(name)}", "a query", "tables only", "export the layer to a file of its own"
            )


def rows_of(path: Path, query: str, *parameters: str) -> list[tuple[Any, ...]]:
    """What a query of a GeoPackage gives."""
    # immutable: no file is written beside it; but recent edits may stand in the log beside it
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True)) as database:
            return database.execute(query, parameters).fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise vector_error(path, "content", "unreadable", "a whole GeoPackage", f"{FIX} ({plain(error)})") from error


def check_null(path: Path, lost: NDArray[np.int64], columns: tuple[str, str, str] | None) -> None:
    """Makes sure that features without a geometry have none in the file either.

    Args:
        path: the file.
        lost: ids of the features.
        columns: layer, and its columns of geometries and of ids, of a GeoPackage; None for a Shapefile.

    Raises:
        InputError: if one has.
    """
    if columns is not None:
        layer, geometry, fid = ('"' + name.replace('"', '""') + '"' for name in columns)
        null = [row[0] for row in rows_of(path, f"SELECT {fid} FROM {layer} WHERE {geometry} IS NULL")]
    else:
        places = np.fromfile(part_of(path, ".shx"), ">i4", offset=100).reshape(-1, 2)[:, 0].astype(np.int64) * 2
        kinds = np.memmap(path, np.uint8, "r")[np.clip(places[:, None] + np.arange(8, 12), 0, path.stat().st_size - 1)]
        null = np.flatnonzero(~kinds.any(1)).tolist()
    bad = lost[~np.isin(lost, null)]
    if bad.size:
        raise vector_error(
            path, "geometry", f"unreadable in feature {bad[0]}", "a polygon or point", "delete the feature"
        )


def _check_plain(path: Path, beside: Iterable[Path]) -> None:
    """Makes sure that what lies beside a file, if anything, is a file; from a pipe GDAL would read for ever."""
    for file in beside:
        if os.path.lexists(file) and not file.is_file():
            raise vector_error(
                path, f"the file {file.name} beside it", "no plain file", "a file, or none", "move it away"
            )


def part_of(path: Path, suffix: str) -> Path:
    """A part of a Shapefile; on systems that tell capitals apart, old programs write .SHX."""
    small, large = path.with_suffix(suffix), path.with_suffix(suffix.upper())
    return small if small.is_file() or not large.is_file() else large


def check_shapefile(path: Path) -> None:
    """Makes sure that all parts are there and as long as their headers say.

    GDAL reads what is left of a truncated one, silently.

    Raises:
        InputError: if one is not.
    """
    ends = (*_SHAPEFILE_TEXTS, *_SHAPEFILE_INDICES)
    _check_plain(path, (path.with_suffix(one) for end in ends for one in (end, end.upper())))
    for text in (part_of(path, end) for end in _SHAPEFILE_TEXTS):
        if text.is_file() and text.stat().st_size > _MOST_TEXT_BYTES:
            raise vector_error(
                text, "size", f"{text.stat().st_size} bytes", f"at most {_MOST_TEXT_BYTES}", "copy all parts anew"
            )
    counts: dict[str, int] = {}
    for suffix in (".shp", ".shx", ".dbf"):
        part = path if suffix == ".shp" else part_of(path, suffix)
        if not part.is_file():
            raise vector_error(
                path, f"{suffix} beside it", "missing", "all of .shp, .shx, .dbf", "copy all parts together"
            )
        with open(part, "rb") as file:
            start = file.read(100)
        size = part.stat().st_size
        if suffix == ".dbf":
            counts[suffix], header, width = struct.unpack("<IHH", start[4:12]) if size >= 32 else (0, 32, 0)
            needed = header + counts[suffix] * width
        else:
            needed = max(100, 2 * int.from_bytes(start[24:28], "big"))
            counts[suffix] = (size - 100) // 8
        if size < needed or (size > needed and suffix != ".dbf"):  # a table may end with one byte more
            raise vector_error(part, "size", f"{size} bytes", f"{needed} as its header says", "copy all parts anew")
    if counts[".dbf"] != counts[".shx"]:
        expected = f"{counts['.shx']} as in the .shx"
        raise vector_error(path, "number of records in .dbf", counts[".dbf"], expected, "copy all parts anew")


def plain(text: object) -> str:
    """At most 200 printable characters in one line."""
    words = " ".join(str(text).split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:200]


def vector_error(path: Path, field: str, value: object, expected: object, fix: str) -> InputError:
    """An error that names a file."""
    return InputError(path, field=field, value=value, expected=str(expected), fix=fix)
