"""Files of polygons and points: GeoPackage, GeoJSON, Shapefile and KML, through pyogrio.

Specifications: OGC 12-128r19 (GeoPackage), RFC 7946 (GeoJSON), ESRI Shapefile Technical Description (1998), OGC
12-007r2 (KML).
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from hsfusion.scenes.categories import Categories, style_categories
from hsfusion.scenes.readers.envi import envi_header
from hsfusion.scenes.vector_checks import (
    FIX,
    check_geojson,
    check_geopackage,
    check_json_crs,
    check_null,
    check_shapefile,
    part_of,
    plain,
    rows_of,
    vector_error,
)

_log = logging.getLogger(__name__)

_MOST_BYTES = 2**27  # of a file: 8 million corners, which take about 1 GB on the way
_MOST_FEATURES = 5 * 10**5
_NO_ENCODING = (
    "for neither a .cpg nor the .dbf names their encoding, and they are not UTF-8. "
    "If they look wrong, write its name to a .cpg file beside it."
)
_CHECKS = {"GPKG": check_geopackage, "ESRI Shapefile": check_shapefile, "GeoJSON": check_geojson}
_JSON_START = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"')


@dataclass(frozen=True, eq=False)
class VectorLayer:
    """N features of a layer.

    Attributes:
        path: the file.
        shapes: (N,) shapely geometries, None where a feature has none.
        values: (N,) values of the class field, as stored.
        ids: (N,) feature ids, for messages.
        crs: coordinate reference system.
        categories: what a style, or the field itself, lists of the classes.
    """

    path: Path
    shapes: NDArray[np.object_]
    values: NDArray[Any]
    ids: NDArray[np.int64]
    crs: CRS
    categories: Categories

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
    if b"<kml" in start or (start.startswith(b"PK\3\4") and path.suffix.lower() == ".kmz"):
        return "LIBKML"
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
        raise vector_error(
            path, "size", f"{path.stat().st_size} bytes", f"at most {_MOST_BYTES}", "cut it to the scene"
        )
    if driver in _CHECKS:
        _CHECKS[driver](path)
    encoding = _table_encoding(path) if driver == "ESRI Shapefile" else None
    with _told_in_one_line(path, driver):
        layers = [str(name) for name, kind in pyogrio.list_layers(path.absolute()) if kind is not None]
        name = _chosen(path, layer, layers, field="scene.labels_variable", what="layer")
        info = pyogrio.read_info(path.absolute(), layer=name, force_feature_count=True, encoding=encoding)
        if info["driver"] != driver:
            raise vector_error(path, "content", info["driver"], driver, FIX)
        count = int(info["features"])
        if not 0 < count <= _MOST_FEATURES:
            raise vector_error(
                path, f"number of features of layer {name}", count, f"1 to {_MOST_FEATURES}", "check the file"
            )
        field = _chosen(
            path, class_field, [str(one) for one in info["fields"]], field="scene.class_field", what="field"
        )
        crs = _crs(path, info["crs"], driver)
        _, ids, wkb, columns = read(
            path.absolute(), layer=name, columns=[field], force_2d=True, return_fids=True, encoding=encoding
        )
    if len(wkb) != count:
        raise vector_error(path, f"number of readable features of layer {name}", len(wkb), count, FIX)
    try:
        shapes = shapely.from_wkb(wkb)
    except GEOSException as error:
        raise vector_error(path, "geometry", plain(error), "whole polygons or points", "repair it in QGIS") from error
    lost = ids[shapely.is_missing(shapes)]  # GDAL says nothing of geometries that it cannot read
    if driver in ("GPKG", "ESRI Shapefile") and lost.size:
        columns_of = None if driver == "ESRI Shapefile" else (name, info["geometry_name"], info["fid_column"])
        check_null(path, lost, columns_of)
    if encoding == "ISO-8859-1":
        _warn_of_encoding(path, columns[0])
    listed = Categories.of_list(path, _listed(path, driver, name, field))
    return VectorLayer(path, np.asarray(shapes, object), columns[0], ids, crs, listed)


@contextlib.contextmanager
def _told_in_one_line(path: Path, driver: str) -> Iterator[None]:
    """GDAL's errors as ours, and its warnings in the log; in GeoJSON, where they tell of wrong content, as errors."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            yield
        # UnboundLocalError: what pyogrio 0.13 makes of a CRS that is not UTF-8
        except (DataSourceError, DataLayerError, UnicodeDecodeError, UnboundLocalError) as error:
            raise vector_error(path, "content", "unreadable", f"a whole {driver}", f"{FIX} ({plain(error)})") from error
    for message in dict.fromkeys(plain(warning.message) for warning in told):
        if driver == "GeoJSON":
            raise vector_error(path, "content", f"doubtful ({message})", "GeoJSON as in RFC 7946", FIX)
        if "file extension" not in message:  # formats are told by content
            _log.warning("%s: %s", path, message)


def _chosen(path: Path, name: str | None, names: Sequence[str], *, field: str, what: str) -> str:
    """A layer or field by its name; the layer may go unnamed where there is only one."""
    listed = plain(", ".join(names[:20]) + ", ..." * (len(names) > 20))
    if not names:
        raise vector_error(
            path, f"number of {what}s", 0, "at least 1", "save the labels anew, as polygons with a class field"
        )
    if name in names:
        return str(name)
    if name is None and what == "layer" and len(names) == 1:
        return names[0]
    if name is None:
        raise vector_error(path, field, "missing", f"one of the {what}s: {listed}", f"add {field}=NAME")
    close = difflib.get_close_matches(name.lower(), [one.lower() for one in names], 1)
    near = [one for one in names if close and one.lower() == close[0]]
    fix = f"correct it (did you mean {plain(near[0])}?)" if near else f"correct {field}"
    raise vector_error(path, field, plain(name), f"one of the {what}s: {listed}", fix)


def _crs(path: Path, said: str | None, driver: str) -> CRS:
    unknown = said is None or re.match(r'\w+\["?undefined', said, re.IGNORECASE)
    try:
        crs = None if unknown else CRS.from_user_input(said)
    except CRSError:
        crs = None
    if crs is not None and not (crs.is_geographic or crs.is_projected):
        crs = None
    if driver == "GeoJSON" and crs is not None:
        check_json_crs(path, crs)
    if crs is None:
        expected = "that of the coordinates; it is never assumed"
        fix = "set the layer's CRS in QGIS and save it anew, as a GeoPackage"
        raise vector_error(path, "CRS", "missing" if unknown else "not known", expected, fix)
    return crs


def _table_encoding(path: Path) -> str | None:
    """Encoding of the texts of a Shapefile; None where GDAL knows it, by .cpg or by the language driver of the .dbf.

    That of an unknown ANSI code page, 0x57, stands in tables of any encoding.
    """
    content = part_of(path, ".dbf").read_bytes()
    if part_of(path, ".cpg").is_file() or content[29] not in (0, 0x57):
        return None
    start = int.from_bytes(content[8:10], "little")
    names = b"".join(content[i : i + 11].partition(b"\0")[0] for i in range(32, start - 1, 32))
    try:
        return "UTF-8" if (names + content[start:]).decode("utf-8") else None
    except UnicodeDecodeError:
        return "ISO-8859-1"


def _warn_of_encoding(path: Path, values: NDArray[Any]) -> None:
    if not "".join(value for value in values.tolist() if isinstance(value, str)).isascii():
        _log.warning("%s: names of classes are read as ISO-8859-1, %s", path, _NO_ENCODING)


def _listed(path: Path, driver: str, layer: str, field: str) -> list[tuple[str, str]]:
    """Values of a field and their labels, in the order of the layer's style, or of the field's own list of values."""
    tables = {row[0] for row in rows_of(path, "SELECT name FROM sqlite_master")} if driver == "GPKG" else set()
    styles: list[bytes] = []
    if "layer_styles" in tables:  # where QGIS stores them
        query = "SELECT styleQML FROM layer_styles WHERE f_table_name = ? ORDER BY useAsDefault DESC"
        styles = [str(row[0] or "<qgis/>").encode() for row in rows_of(path, query, layer)]
    if path.with_suffix(".qml").is_file():
        styles.append(path.with_suffix(".qml").read_bytes())
    for style in styles:
        if listed := style_categories(path, style, field):
            return listed
    if {"gpkg_data_columns", "gpkg_data_column_constraints"} <= tables:
        query = (
            "SELECT value, coalesce(v.description, '') FROM gpkg_data_columns c JOIN gpkg_data_column_constraints v "
            "USING (constraint_name) WHERE table_name = ? AND column_name = ? AND constraint_type = 'enum' "
            "ORDER BY v.rowid"
        )
        return [(str(value), str(label)) for value, label in rows_of(path, query, layer, field)]
    return []
