"""Files of polygons and points: GeoPackage, GeoJSON and Shapefile, through pyogrio.

Specifications: OGC 12-128r19 (GeoPackage), RFC 7946 (GeoJSON), ESRI Shapefile Technical Description (1998).
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import re
import sqlite3
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyogrio.raw import read
from rasterio.crs import CRS
from rasterio.errors import CRSError
from shapely.errors import GEOSException

from hsfusion.errors import InputError
from hsfusion.scenes.readers.envi import envi_header

_log = logging.getLogger(__name__)

_MOST_BYTES = 2**27  # of a file: 8 million corners, which take about 1 GB on the way
_MOST_FEATURES = 5 * 10**5
_JSON_START = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"')
_JSON_CRS = re.compile(rb'"crs"\s*:\s*(null|\{)')
_JSON_CRS_NAME = re.compile(rb'"crs"\s*:\s*\{[^{}]*\{\s*"name"\s*:\s*"([^"]{1,200})"')
_FIX = "save the layer anew, as a GeoPackage"


@dataclass(frozen=True, eq=False)
class VectorLayer:
    """N features of a layer.

    Attributes:
        path: the file.
        shapes: (N,) shapely geometries, None where a feature has none.
        values: (N,) values of the class field, as stored.
        ids: (N,) feature ids, for messages.
        crs: coordinate reference system.
    """

    path: Path
    shapes: NDArray[np.object_]
    values: NDArray[Any]
    ids: NDArray[np.int64]
    crs: CRS

    def error(self, field: str, value: object, expected: str, fix: str) -> InputError:
        """An error that names the file."""
        return InputError(self.path, field=field, value=value, expected=expected, fix=fix)


def vector_format(path: Path) -> str | None:
    """GDAL's name of the format of a file of features, told by its first bytes; None for what is no such file."""
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError:
        return None  # whoever opens it will say what is wrong
    if start.startswith(b"SQLite format 3\0"):
        return "GPKG"
    if start.startswith(b"\0\0\x27\x0a") and envi_header(path) is None:
        return "ESRI Shapefile"
    return "GeoJSON" if _JSON_START.match(start) and envi_header(path) is None else None


def read_vector_layer(path: Path, *, driver: str, layer: str | None, class_field: str | None) -> VectorLayer:
    """Reads the geometries and the classes of a layer.

    Args:
        path: the file.
        driver: what :func:`vector_format` said.
        layer: its name; may be None where there is only one with geometries.
        class_field: the attribute that holds the class.

    Raises:
        InputError: if the file is damaged or too large, or layer, field or CRS are missing or not known.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise _error(path, "size", f"{path.stat().st_size} bytes", f"at most {_MOST_BYTES}", "cut it to the scene")
    {"GPKG": _check_geopackage, "ESRI Shapefile": _check_shapefile, "GeoJSON": _check_geojson}[driver](path)
    with _told_in_one_line(path, driver):
        layers = [str(name) for name, kind in pyogrio.list_layers(path.absolute()) if kind is not None]
        name = _chosen(path, layer, layers, field="scene.labels_variable", what="layer")
        info = pyogrio.read_info(path.absolute(), layer=name, force_feature_count=True)
        if info["driver"] != driver:
            raise _error(path, "content", info["driver"], driver, _FIX)
        count = int(info["features"])
        if not 0 < count <= _MOST_FEATURES:
            raise _error(path, f"number of features of layer {name}", count, f"1 to {_MOST_FEATURES}", "check the file")
        field = _chosen(
            path, class_field, [str(one) for one in info["fields"]], field="scene.class_field", what="field"
        )
        crs = _crs(path, info["crs"], driver)
        _, ids, wkb, columns = read(path.absolute(), layer=name, columns=[field], force_2d=True, return_fids=True)
    if len(wkb) != count:
        raise _error(path, f"number of readable features of layer {name}", len(wkb), count, _FIX)
    try:
        shapes = shapely.from_wkb(wkb)
    except GEOSException as error:
        raise _error(path, "geometry", _plain(error), "whole polygons or points", "repair it in QGIS") from error
    lost = ids[shapely.is_missing(shapes)]  # GDAL says nothing of geometries that it cannot read
    if driver != "GeoJSON" and lost.size:
        _check_null(
            path, lost, None if driver == "ESRI Shapefile" else (name, info["geometry_name"], info["fid_column"])
        )
    if driver == "ESRI Shapefile" and not path.with_suffix(".cpg").is_file():
        _warn_of_encoding(path, columns[0])
    return VectorLayer(path, np.asarray(shapes, object), columns[0], ids, crs)


@contextlib.contextmanager
def _told_in_one_line(path: Path, driver: str) -> Iterator[None]:
    """GDAL's errors as ours, and its warnings in the log; in GeoJSON, where they tell of wrong content, as errors."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            yield
        # UnboundLocalError: what pyogrio 0.13 makes of a CRS that is not UTF-8
        except (DataSourceError, DataLayerError, UnicodeDecodeError, UnboundLocalError) as error:
            raise _error(path, "content", "unreadable", f"a whole {driver}", f"{_FIX} ({_plain(error)})") from error
    for message in dict.fromkeys(_plain(warning.message) for warning in told):
        if driver == "GeoJSON":
            raise _error(path, "content", f"doubtful ({message})", "GeoJSON as in RFC 7946", _FIX)
        if "file extension" not in message:  # formats are told by content
            _log.warning("%s: %s", path, message)


def _chosen(path: Path, name: str | None, names: Sequence[str], *, field: str, what: str) -> str:
    """A layer or field by its name; the layer may go unnamed where there is only one."""
    listed = _plain(", ".join(names[:20]) + ", ..." * (len(names) > 20))
    if not names:
        raise _error(
            path, f"number of {what}s", 0, "at least 1", "save the labels anew, as polygons with a class field"
        )
    if name in names:
        return str(name)
    if name is None and what == "layer" and len(names) == 1:
        return names[0]
    if name is None:
        raise _error(path, field, "missing", f"one of the {what}s: {listed}", f"add {field}=NAME")
    close = difflib.get_close_matches(name.lower(), [one.lower() for one in names], 1)
    near = [one for one in names if close and one.lower() == close[0]]
    fix = f"correct it (did you mean {_plain(near[0])}?)" if near else f"correct {field}"
    raise _error(path, field, _plain(name), f"one of the {what}s: {listed}", fix)


def _crs(path: Path, said: str | None, driver: str) -> CRS:
    unknown = said is None or re.match(r'\w+\["?undefined', said, re.IGNORECASE)
    try:
        crs = None if unknown else CRS.from_user_input(said)
    except CRSError:
        crs = None
    if crs is not None and not (crs.is_geographic or crs.is_projected):
        crs = None
    if driver == "GeoJSON" and crs is not None:
        _check_json_crs(path, crs)
    if crs is None:
        expected = "that of the coordinates; it is never assumed"
        fix = "set the layer's CRS in QGIS and save it anew, as a GeoPackage"
        raise _error(path, "CRS", "missing" if unknown else "not known", expected, fix)
    return crs


def _check_json_crs(path: Path, crs: CRS) -> None:
    """GDAL takes WGS 84 where it does not understand the member crs; that is right only where there is none."""
    content = path.read_bytes()
    if not _JSON_CRS.search(content):
        return
    found = _JSON_CRS_NAME.search(content)
    name = found[1].decode("utf-8", "replace") if found else "no name"
    wgs84 = name.upper().endswith((":CRS84", ":4326"))
    if found is None or (crs.to_epsg() == 4326 and not wgs84):
        raise _error(path, "crs", _plain(name), "a name like urn:ogc:def:crs:EPSG::32633, or no crs", _FIX)


def _check_geojson(path: Path) -> None:
    if b'"FeatureCollection"' not in path.read_bytes():
        raise _error(path, "type", "something else", '"FeatureCollection"', "save the labels as a GeoPackage")


def _check_geopackage(path: Path) -> None:
    """Whole, and without views and foreign tables: a view can run for ever, a foreign table read other files."""
    with open(path, "rb") as file:
        start = file.read(100)
    page = int.from_bytes(start[16:18], "big")
    needed = int.from_bytes(start[28:32], "big") * (65536 if page == 1 else page)
    if len(start) < 100 or path.stat().st_size < needed:
        raise _error(path, "size", f"{path.stat().st_size} bytes", f"at least {needed or 100}", "copy the file anew")
    made = _rows(path, "SELECT type, name, coalesce(sql, '') FROM sqlite_master")
    if "gpkg_contents" not in [name for kind, name, _ in made if kind == "table"]:
        raise _error(path, "content", "an SQLite database without gpkg_contents", "a GeoPackage", _FIX)
    for kind, name, sql in made:
        virtual = re.match(r"\s*create\s+virtual\s+table", sql, re.IGNORECASE)
        if kind == "view" or (virtual and not re.search(r"\busing\s+[\"']?rtree\b", sql, re.IGNORECASE)):
            raise _error(
                path, f"{kind} {_plain(name)}", "a query", "tables only", "export the layer to a file of its own"
            )


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    # immutable: no file is written beside it; but recent edits may stand in the log beside it
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True)) as database:
            return database.execute(query).fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise _error(path, "content", "unreadable", "a whole GeoPackage", f"{_FIX} ({_plain(error)})") from error


def _check_null(path: Path, lost: NDArray[np.int64], columns: tuple[str, str, str] | None) -> None:
    """Makes sure that features without a geometry have none in the file either.

    Args:
        path: the file.
        lost: ids of the features.
        columns: layer, and its columns of geometries and of ids, of a GeoPackage; None for a Shapefile.
    """
    if columns is not None:
        layer, geometry, fid = ('"' + name.replace('"', '""') + '"' for name in columns)
        null = [row[0] for row in _rows(path, f"SELECT {fid} FROM {layer} WHERE {geometry} IS NULL")]
    else:
        places = np.fromfile(_part(path, ".shx"), ">i4", offset=100).reshape(-1, 2)[:, 0].astype(np.int64) * 2
        kinds = np.memmap(path, np.uint8, "r")[np.clip(places[:, None] + np.arange(8, 12), 0, path.stat().st_size - 1)]
        null = np.flatnonzero(~kinds.any(1)).tolist()
    bad = lost[~np.isin(lost, null)]
    if bad.size:
        raise _error(path, "geometry", f"unreadable in feature {bad[0]}", "a polygon or point", "delete the feature")


def _part(path: Path, suffix: str) -> Path:
    """A part of a Shapefile; on systems that tell capitals apart, old programs write .SHX."""
    small, large = path.with_suffix(suffix), path.with_suffix(suffix.upper())
    return small if small.is_file() or not large.is_file() else large


def _check_shapefile(path: Path) -> None:
    """All parts there and as long as their headers say: GDAL reads what is left of a truncated one, silently."""
    counts: dict[str, int] = {}
    for suffix in (".shp", ".shx", ".dbf"):
        part = path if suffix == ".shp" else _part(path, suffix)
        if not part.is_file():
            raise _error(path, f"{suffix} beside it", "missing", "all of .shp, .shx, .dbf", "copy all parts together")
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
            raise _error(part, "size", f"{size} bytes", f"{needed} as its header says", "copy all parts anew")
    if counts[".dbf"] != counts[".shx"]:
        expected = f"{counts['.shx']} as in the .shx"
        raise _error(path, "number of records in .dbf", counts[".dbf"], expected, "copy all parts anew")


def _warn_of_encoding(path: Path, values: NDArray[Any]) -> None:
    if values.dtype.kind == "O" and any(isinstance(value, str) and not value.isascii() for value in values):
        _log.warning("%s: names of classes are not ASCII, and no .cpg tells their encoding; check them.", path)


def _plain(text: object) -> str:
    """At most 200 printable characters in one line."""
    words = " ".join(str(text).split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:200]


def _error(path: Path, field: str, value: object, expected: object, fix: str) -> InputError:
    return InputError(path, field=field, value=value, expected=str(expected), fix=fix)
