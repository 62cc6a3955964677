"""Labels drawn as polygons or points: which class has which pixel of a scene; files of such features, through pyogrio.

Specifications: OGC 12-128r19 (GeoPackage), RFC 7946 (GeoJSON), ESRI Shapefile Technical Description (1998), OGC
12-007r2 (KML).
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import re
import struct
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyogrio.raw import read
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import rasterize
from rasterio.warp import transform
from shapely.errors import GEOSException

from hsfusion.errors import InputError, printable
from hsfusion.scenes.categories import Categories, classes_of, layer_categories
from hsfusion.scenes.formats.envi import envi_header
from hsfusion.scenes.geobox import IDENTITY, GeoBox, crs_name

_log = logging.getLogger(__name__)

_FIX = "save the layer anew, as a GeoPackage"
_MOST_BYTES = 2**27  # of a file: 8 million corners, which take about 1 GB on the way
_JSON_START = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"')
_ALLOWED = {0: "Point", 3: "Polygon", 4: "MultiPoint", 6: "MultiPolygon"}
_FAR = 2.0**20  # pixels outside the scene, beyond which polygons are cut before GDAL counts their rows
_CORNERS = 5 * 10**5  # drawn at a time
_NOWHERE = 1e12  # pixels; no map reaches that far


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
        return InputError(self.path, field, value, expected, fix)


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


def draw_classes(
    path: Path,
    geobox: GeoBox,
    *,
    driver: str,
    layer: str | None,
    class_field: str | None,
    unlabelled: Collection[int],
    reference: str,
) -> tuple[NDArray[np.int32], list[Any], Categories]:
    """Draws polygons and points on the grid of a scene.

    A polygon takes the pixels whose centres it holds, a point the pixel that it lies in. Pixels that two classes claim
    get none. Whatever labels nothing is counted in the log.

    Args:
        path: the file.
        geobox: the grid; geometries are brought to its CRS corner by corner.
        driver: what :func:`vector_format` said.
        layer: name of the layer.
        class_field: attribute that holds the class: whole numbers, also as text, are codes, words are names.
        unlabelled: codes that mean "no class".
        reference: name of the scene, for messages.

    Returns:
        (H, W) index of the class, -1 for none; the classes; and what the file lists of them.

    Raises:
        InputError: if the file is damaged, holds other geometries or values, or nothing inside the scene.
    """
    _check_place(path, geobox, reference)
    features = _read_layer(path, driver=driver, layer=layer, class_field=class_field)
    _check_types(features)
    classes, which = classes_of(path, features.values, features.ids, unlabelled)
    missing = shapely.is_missing(features.shapes) | shapely.is_empty(features.shapes)
    _count(path, int((missing & (which >= 0)).sum()), "features without a geometry, left out")
    which[missing] = -1
    used = np.flatnonzero(which >= 0)
    parts, owner = _parts(_in_pixels(features, used, geobox))
    inside = _inside(features, parts, used[owner], geobox)
    there = np.unique(owner[inside]).size
    _count(path, used.size - there, f"features outside {reference}, left out")
    if not there:
        expected = f"at least 1 of the {used.size} that have a class and a geometry"
        fix = f"check the CRS of the layer, {crs_name(features.crs.to_wkt())}"
        raise features.error(f"number of features inside {reference}", 0, expected, fix)
    drawn = _drawn(path, parts[inside], owner[inside], which[used], geobox.shape)
    return drawn, classes, features.categories


def _read_layer(path: Path, *, driver: str, layer: str | None, class_field: str | None) -> VectorLayer:
    """Reads the geometries and the classes of a layer; the layer may go unnamed where there is only one."""
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise _error(path, "size", f"{size} bytes", f"at most {_MOST_BYTES}", "cut it to the scene")
    named = _json_crs(path) if driver == "GeoJSON" else None
    encoding = _table_encoding(path) if driver == "ESRI Shapefile" else None
    if driver == "GPKG":
        _check_pages(path, size)
    with _reported(path, driver):
        layers = [str(name) for name, kind in pyogrio.list_layers(path.absolute()) if kind is not None]
        name = _chosen(path, layer, layers, field="scene.labels_variable", what="layer")
        info = pyogrio.read_info(path.absolute(), layer=name, force_feature_count=True, encoding=encoding)
        if info["driver"] != driver:
            raise _error(path, "content", info["driver"], driver, _FIX)
        fields = [str(one) for one in info["fields"]]
        field = _chosen(path, class_field, fields, field="scene.class_field", what="field")
        crs = _crs(path, info["crs"], named)
        _, ids, wkb, columns = read(
            path.absolute(), layer=name, columns=[field], force_2d=True, return_fids=True, encoding=encoding
        )
    count = int(info["features"])
    if not 0 < count == len(wkb):
        raise _error(path, f"number of readable features of layer {name}", len(wkb), max(count, 1), _FIX)
    try:
        shapes = shapely.from_wkb(wkb)
    except GEOSException as error:
        raise _error(path, "geometry", printable(error), "whole polygons or points", "repair it in QGIS") from error
    if encoding == "ISO-8859-1":
        _warn_of_encoding(path, columns[0])
    listed = layer_categories(path, name if driver == "GPKG" else None, field)
    return VectorLayer(path, np.asarray(shapes, object), columns[0], ids, crs, listed)


def _json_crs(path: Path) -> str | None:
    """Name of the CRS of a whole GeoJSON file; None where it has none, and so longitudes and latitudes.

    Only a name is taken, as in GeoJSON 2008: GDAL would follow a link into the network.
    """
    members: list[dict[str, Any] | None] = []

    def take(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members.extend(value for key, value in pairs if key.lower() == "crs" and isinstance(value, dict | None))
        return dict(pairs)

    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=take)
    except (ValueError, RecursionError) as error:
        raise _error(path, "content", "unreadable", "a whole GeoJSON file", f"{_FIX} ({printable(error)})") from error
    if not isinstance(content, dict) or content.get("type") != "FeatureCollection":
        raise _error(path, "type", "something else", '"FeatureCollection"', "save the labels as a GeoPackage")
    properties = [(member or {}).get("properties") for member in members]
    names = [one.get("name") if isinstance(one, dict) else None for one in properties]
    for member, name in zip(members, names, strict=True):
        if not isinstance(name, str) or member != {"type": "name", "properties": {"name": name}}:
            expected = "a name like urn:ogc:def:crs:EPSG::32633, or no crs"
            raise _error(path, "crs", printable(member), expected, _FIX)
    return names[0] if names else None


def _check_pages(path: Path, size: int) -> None:
    """Makes sure that a GeoPackage is as long as its header says, which SQLite does not."""
    with open(path, "rb") as file:
        start = file.read(100)
    page = int.from_bytes(start[16:18], "big")
    needed = int.from_bytes(start[28:32], "big") * (65536 if page == 1 else page)
    if len(start) < 100 or size < needed:
        raise _error(path, "size", f"{size} bytes", f"at least {needed or 100}", "copy the file anew")


def _table_encoding(path: Path) -> str | None:
    """Encoding of the texts of a whole Shapefile; None where GDAL knows it, by .cpg or by the language of the .dbf.

    That of an unknown ANSI code page, 0x57, stands in tables of any encoding.
    """
    _check_parts(path)
    content = _part_of(path, ".dbf").read_bytes()
    if _part_of(path, ".cpg").is_file() or content[29] not in (0, 0x57):
        return None
    start = int.from_bytes(content[8:10], "little")
    names = b"".join(content[i : i + 11].partition(b"\0")[0] for i in range(32, start - 1, 32))
    try:
        return "UTF-8" if (names + content[start:]).decode("utf-8") else None
    except UnicodeDecodeError:
        return "ISO-8859-1"


def _warn_of_encoding(path: Path, values: NDArray[Any]) -> None:
    if not "".join(value for value in values.tolist() if isinstance(value, str)).isascii():
        _log.warning(
            "%s: names of classes are read as ISO-8859-1, for neither a .cpg nor the .dbf names their encoding, "
            "and they are not UTF-8. If they look wrong, write its name to a .cpg file beside it.",
            path,
        )


def _check_parts(path: Path) -> None:
    """Makes sure that all parts of a Shapefile are whole; GDAL reads what is left of one, silently."""
    counts: dict[str, int] = {}
    for suffix in (".shp", ".shx", ".dbf"):
        part = path if suffix == ".shp" else _part_of(path, suffix)
        if not part.is_file():
            fix = "copy all parts together"
            raise _error(path, f"{suffix} beside it", "missing", "all of .shp, .shx, .dbf", fix)
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
        raise _error(path, "number of records in .dbf", counts[".dbf"], counts[".shx"], "copy all parts anew")


def _part_of(path: Path, suffix: str) -> Path:
    """A part of a Shapefile; on systems that tell capitals apart, old programs write .SHX."""
    small, large = path.with_suffix(suffix), path.with_suffix(suffix.upper())
    return small if small.is_file() or not large.is_file() else large


@contextlib.contextmanager
def _reported(path: Path, driver: str) -> Iterator[None]:
    """GDAL's errors as ours, and its warnings in the log; in GeoJSON, where they tell of wrong content, as errors."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        # UnboundLocalError: what pyogrio 0.13 makes of a CRS that is not UTF-8
        except (DataSourceError, DataLayerError, UnicodeDecodeError, UnboundLocalError) as error:
            raise _error(path, "content", "unreadable", f"a whole {driver}", f"{_FIX} ({printable(error)})") from error
    for message in dict.fromkeys(printable(warning.message) for warning in caught):
        if driver == "GeoJSON":
            raise _error(path, "content", f"doubtful ({message})", "GeoJSON as in RFC 7946", _FIX)
        if "file extension" not in message:  # formats are detected from content
            _log.warning("%s: %s", path, message)


def _chosen(path: Path, name: str | None, names: Sequence[str], *, field: str, what: str) -> str:
    """A layer or field by its name; the layer may go unnamed where there is only one."""
    listed = printable(", ".join(names[:20]) + ", ..." * (len(names) > 20))
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
    fix = f"correct it (did you mean {printable(near[0])}?)" if near else f"correct {field}"
    raise _error(path, field, printable(name), f"one of the {what}s: {listed}", fix)


def _crs(path: Path, text: str | None, named: str | None) -> CRS:
    """The CRS of a layer.

    GDAL takes WGS 84 for GeoJSON where it does not understand its name; that is right only where there is none.
    """
    unknown = text is None or re.match(r'\w+\["?undefined', text, re.IGNORECASE)
    try:
        crs = None if unknown else CRS.from_user_input(text)
    except CRSError:
        crs = None
    if named and crs is not None and crs.to_epsg() == 4326 and not named.upper().endswith((":CRS84", ":4326")):
        raise _error(path, "crs", printable(named), "one that GDAL knows, such as urn:ogc:def:crs:EPSG::32633", _FIX)
    if crs is None or not (crs.is_geographic or crs.is_projected):
        expected = "that of the coordinates; it is never assumed"
        fix = "set the layer's CRS in QGIS and save it anew, as a GeoPackage"
        raise _error(path, "CRS", "missing" if unknown else "not known", expected, fix)
    return crs


def _check_place(path: Path, geobox: GeoBox, reference: str) -> None:
    crs = CRS.from_wkt(geobox.crs) if geobox.crs else None
    placed = crs is not None and (crs.is_geographic or crs.is_projected)
    if not placed or geobox.transform == IDENTITY:
        raise InputError(
            reference,
            "transform" if placed else "CRS",
            "missing" if placed or geobox.crs is None else crs_name(geobox.crs),
            f"a georeferenced cube, for {path.name} holds map coordinates",
            "give a label raster of the cube's own shape, or a cube that knows its place",
        )


def _check_types(features: VectorLayer) -> None:
    kinds = shapely.get_type_id(features.shapes)  # -1 for None
    wrong = np.flatnonzero(~np.isin(kinds, [-1, *_ALLOWED]))
    if wrong.size:
        kind = features.shapes[wrong].tolist()[0].geom_type
        raise features.error(
            "geometry", f"{kind} in feature {features.ids[wrong[0]]}", "polygons or points", "draw the classes as areas"
        )


def _in_pixels(features: VectorLayer, used: NDArray[np.int64], geobox: GeoBox) -> NDArray[np.object_]:
    """The used geometries with coordinates (column, row) of the grid."""
    shapes = features.shapes[used]
    xy = shapely.get_coordinates(shapes)
    xy = _brought_to(CRS.from_wkt(geobox.crs or ""), xy, features.crs)
    inverse = ~geobox.transform
    a, b, c, d, e, f = tuple(inverse)[:6]
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = np.column_stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f])
    if not (np.abs(pixels) <= _NOWHERE).all():
        raise features.error(
            "coordinates",
            f"such as have no place in {crs_name(geobox.crs or '')}",
            "what can be brought to the CRS of the scene",
            "cut the layer to the scene, or correct its CRS",
        )
    return shapely.set_coordinates(shapes.copy(), pixels)


def _brought_to(target: CRS, xy: NDArray[np.float64], crs: CRS) -> NDArray[np.float64]:
    """Coordinates (n, 2) in another CRS, infinite where it cannot hold one."""
    try:
        return xy if crs == target or not len(xy) else np.column_stack(transform(crs, target, *xy.T.tolist())[:2])
    except CPLE_BaseError:
        return np.full_like(xy, np.inf)


def _parts(shapes: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """The shapes, with one for each polygon of a multipolygon, and (n,) whose they are.

    GDAL draws a hole where two polygons of a multipolygon overlap, and shapely calls those that touch invalid.
    """
    several = shapely.get_type_id(shapes) == 6
    parts, owner = shapely.get_parts(shapes[several], return_index=True)
    owners = np.concatenate([np.flatnonzero(~several), np.flatnonzero(several)[owner]])
    return np.concatenate([shapes[~several], parts]), owners


def _inside(
    features: VectorLayer, parts: NDArray[np.object_], of: NDArray[np.int64], geobox: GeoBox
) -> NDArray[np.bool_]:
    """(n,) whether a part touches the scene; those that may have to be valid. Cuts what reaches far beyond."""
    rows, cols = geobox.shape
    left, upper, right, lower = shapely.bounds(parts).reshape(-1, 4).T
    near = (left < cols) & (right >= 0) & (upper < rows) & (lower >= 0)
    bad = np.flatnonzero(near)[~shapely.is_valid(parts[near])]
    if bad.size:
        reason = str(shapely.is_valid_reason(parts[bad[0]])).partition("[")[0]
        number = np.unique(of[bad]).size
        raise features.error(
            "geometry",
            f"invalid in {number} features, the first {features.ids[of[bad[0]]]} ({reason})",
            "valid polygons",
            "run Fix geometries of QGIS on the layer",
        )
    near[near] = shapely.intersects(parts[near], shapely.box(0, 0, cols, rows))
    far = near & ((np.minimum(left, upper) < -_FAR) | (right > cols + _FAR) | (lower > rows + _FAR))
    for i in np.flatnonzero(far):
        parts[i] = shapely.intersection(parts[i], shapely.box(-_FAR, -_FAR, cols + _FAR, rows + _FAR))
    return near


def _drawn(
    path: Path, parts: NDArray[np.object_], owner: NDArray[np.int64], which: NDArray[np.int64], grid: tuple[int, int]
) -> NDArray[np.int32]:
    """(H, W) index of the class, -1 for none, from (n,) parts in pixels, their feature, and (N,) its class."""
    order = np.argsort(which[owner], kind="stable")
    first = _burnt(parts, owner, order[::-1], grid)  # what is drawn last stays: the lowest class
    last = _burnt(parts, owner, order, grid)
    lowest, highest = (np.append(which, -1)[ids].astype(np.int32) for ids in (first, last))
    claimed_twice = lowest != highest
    _count(path, int(claimed_twice.sum()), "pixels claimed by two classes, unlabelled")
    unseen = np.setdiff1d(owner, np.union1d(first, last))
    _count(path, unseen.size, "features that hold no pixel centre of their own, and label nothing")
    return np.where(claimed_twice, -1, lowest)


def _burnt(
    parts: NDArray[np.object_], owner: NDArray[np.int64], order: NDArray[np.int64], grid: tuple[int, int]
) -> NDArray[np.int32]:
    """(H, W) feature of the last part, in an order, that holds a pixel; -1 for none."""
    ids = np.full(grid, -1, np.int32)
    batch = np.cumsum(shapely.get_num_coordinates(parts[order])) // _CORNERS  # rasterio makes lists of all at once
    for number in np.unique(batch):
        rasterize(((parts[i], int(owner[i])) for i in order[batch == number].tolist()), out=ids)
    return ids


def _count(path: Path, number: int, what: str) -> None:
    if number:
        _log.warning("%s: %s: %d.", path, what, number)


def _error(path: Path, field: str, value: object, expected: object, fix: str) -> InputError:
    return InputError(path, field, value, str(expected), fix)
