"""Labels drawn as polygons or points: which class has which pixel of a scene; files of such features, through pyogrio.

Specifications: OGC 12-128r19 (GeoPackage), RFC 7946 (GeoJSON), ESRI Shapefile Technical Description (1998), OGC
12-007r2 (KML).
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
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
from hsfusion.scenes.formats.envi import envi_header
from hsfusion.scenes.geobox import IDENTITY, GeoBox, crs_name
from hsfusion.scenes.legend import whole_number, words

_log = logging.getLogger(__name__)

_FIX = "save the layer again, as a GeoPackage"
_JSON_START = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"')
_POINT, _POLYGON, _MULTIPOINT, _MULTIPOLYGON = 0, 3, 4, 6  # of shapely.get_type_id
_FAR = 2.0**20  # pixels outside the scene, beyond which polygons are cut before GDAL counts their rows
_NOWHERE = 1e12  # pixels; no map reaches that far
# UnboundLocalError: what pyogrio 0.13 makes of a CRS that is not UTF-8
_ERRORS = (DataSourceError, DataLayerError, GEOSException, ValueError, LookupError, RecursionError, UnboundLocalError)
_EXACT = 2**53  # up to here every whole number is a float64


@dataclass(frozen=True, eq=False)
class VectorLayer:
    """N features of a layer, with the values of the class field and ids as stored."""

    path: Path
    shapes: NDArray[np.object_]
    values: NDArray[Any]
    ids: NDArray[np.int64]
    crs: CRS


def vector_format(path: Path) -> str | None:
    """GDAL's name of the format of a file of features, detected from its first bytes; None for other files."""
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError:
        return None  # opening it will show what is wrong
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
) -> tuple[NDArray[np.int32], list[Any]]:
    """Draws polygons and points on the grid of a scene: (H, W) index of the class, -1 for none, and the classes.

    Geometries are brought to its CRS corner by corner. A polygon takes the pixels whose centres it holds, a point the
    pixel that it lies in. Pixels that two classes claim get none. Features that label nothing are counted in the log.
    """
    _check_place(path, geobox, reference)
    features = _read_layer(path, driver=driver, layer=layer, class_field=class_field)
    classes, which = _classes_of(features, unlabelled)
    missing = shapely.is_missing(features.shapes) | shapely.is_empty(features.shapes)
    _count(path, (missing & (which >= 0)).sum(), "features without a geometry, left out")
    which[missing] = -1
    used = np.flatnonzero(which >= 0)
    parts, owner = _parts(_in_pixels(features, used, geobox))
    inside = _inside(features, parts, used[owner], geobox)
    count = np.unique(owner[inside]).size
    _count(path, used.size - count, f"features outside {reference}, left out")
    if not count:
        expected = f"at least 1 of the {used.size} that have a class and a geometry"
        fix = f"check the CRS of the layer, {crs_name(features.crs.to_wkt())}"
        if not used.size:
            missing_class = f"fill in {class_field or 'the class'} of the features"
            fix = "export the layer with geometries, which are empty or missing" if classes else missing_class
        raise InputError(path, f"number of features inside {reference}", 0, expected, fix)
    return _drawn(path, parts[inside], owner[inside], which[used], geobox.shape), classes


def _check_place(path: Path, geobox: GeoBox, reference: str) -> None:
    crs = CRS.from_wkt(geobox.crs) if geobox.crs else None
    placed = crs is not None and (crs.is_geographic or crs.is_projected)
    if not placed or geobox.transform == IDENTITY:
        value = "missing" if placed or geobox.crs is None else crs_name(geobox.crs)
        expected = f"a georeferenced cube, because {path.name} holds map coordinates"
        fix = "give a label raster of the same shape as the cube, or a georeferenced cube"
        raise InputError(reference, "transform" if placed else "CRS", value, expected, fix)


def _read_layer(path: Path, *, driver: str, layer: str | None, class_field: str | None) -> VectorLayer:
    """Reads the geometries and the classes of a layer; the layer may go unnamed where there is only one."""
    named = _json_crs(path) if driver == "GeoJSON" else None
    _check_whole(path, driver)
    encoding = _table_encoding(path) if driver == "ESRI Shapefile" else None
    with _reported(path, driver):
        layers = [str(name) for name, kind in pyogrio.list_layers(path.absolute()) if kind is not None]
        name = _chosen(path, layer, layers, field="scene.labels_variable", what="layer")
        info = pyogrio.read_info(path.absolute(), layer=name, force_feature_count=True, encoding=encoding)
        fields = [str(one) for one in info["fields"]]
        field = _chosen(path, class_field, fields, field="scene.class_field", what="field")
        crs = _crs(path, info["crs"], named)
        options = {"force_2d": True, "return_fids": True, "encoding": encoding}
        _, ids, wkb, columns = read(path.absolute(), layer=name, columns=[field], **options)
        shapes = np.asarray(shapely.from_wkb(wkb), object)
    if not 0 < int(info["features"]) == len(wkb):
        expected = str(max(int(info["features"]), 1))
        raise InputError(path, f"number of readable features of layer {name}", len(wkb), expected, _FIX)
    return VectorLayer(path, shapes, columns[0], ids, crs)


def _json_crs(path: Path) -> str | None:
    """Name of the CRS of a GeoJSON file, as in GeoJSON 2008: GDAL would follow a link into the network."""
    members: list[Any] = []

    def take(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members.extend(value for key, value in pairs if key.lower() == "crs")
        return dict(pairs)

    with _reported(path, "GeoJSON"):
        json.loads(path.read_bytes(), object_pairs_hook=take)
        names = [one["properties"]["name"] for one in members if isinstance(one, dict) and one.get("type") == "name"]
    if len(names) < len(members):
        expected = "one with a name like urn:ogc:def:crs:EPSG::32633, or no crs"
        raise InputError(path, "crs", printable(members), expected, _FIX)
    return names[-1] if names else None


def _check_whole(path: Path, driver: str) -> None:
    """Refuses a GeoPackage or Shapefile that is shorter than its header says: GDAL reads what is left of one."""
    parts = {"GPKG": [path], "ESRI Shapefile": [path, *(_beside(path, suffix) for suffix in (".shx", ".dbf"))]}
    for part in parts.get(driver, ()):
        start, size = b"", 0
        if part.is_file():
            with open(part, "rb") as file:
                start, size = file.read(100), part.stat().st_size
        page, number, words = (int.from_bytes(start[a:b], "big") for a, b in ((16, 18), (28, 32), (24, 28)))
        needed = number * (65536 if page == 1 else page) if driver == "GPKG" else 2 * words
        needed = 32 if part.suffix.lower() == ".dbf" else max(needed, 100)
        if size < needed:
            fix = "copy all its files again (.shp, .shx and .dbf of a Shapefile)"
            raise InputError(part, "size", f"{size} bytes", f"at least {needed}", fix)


def _table_encoding(path: Path) -> str | None:
    """UTF-8 for a Shapefile whose texts are that although no part of it says so; None where GDAL knows better."""
    table = _beside(path, ".dbf")
    content = table.read_bytes() if table.is_file() else b""
    # the language 0x57 of a .dbf, an unknown ANSI code page, stands in tables of any encoding
    if len(content) < 32 or _beside(path, ".cpg").is_file() or content[29] not in (0, 0x57):
        return None
    start = int.from_bytes(content[8:10], "little")
    names = b"".join(content[i : i + 11].partition(b"\0")[0] for i in range(32, start - 1, 32))
    with contextlib.suppress(UnicodeDecodeError):
        (names + content[start:]).decode("utf-8")
        return "UTF-8"
    return "ISO-8859-1"


def _beside(path: Path, suffix: str) -> Path:
    """A part of a Shapefile; on systems that tell capitals apart, old programs write .SHX."""
    small, large = path.with_suffix(suffix), path.with_suffix(suffix.upper())
    return small if small.is_file() or not large.is_file() else large


@contextlib.contextmanager
def _reported(path: Path, driver: str) -> Iterator[None]:
    """Errors of libraries as ours, and GDAL's warnings in the log; of GeoJSON, where content is wrong, as errors."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except _ERRORS as error:
            fix = f"{_FIX} ({printable(error)})"
            raise InputError(path, "content", "unreadable", f"a whole {driver}", fix) from error
    for message in dict.fromkeys(printable(warning.message) for warning in caught):
        if driver == "GeoJSON":
            raise InputError(path, "content", f"doubtful ({message})", "GeoJSON as in RFC 7946", _FIX)
        if "file extension" not in message:  # formats are detected from content
            _log.warning("%s: %s", path, message)


def _chosen(path: Path, name: str | None, names: Sequence[str], *, field: str, what: str) -> str:
    """A layer or field by its name; the layer may go unnamed where there is only one."""
    if name in names:
        return str(name)
    if name is None and what == "layer" and len(names) == 1:
        return names[0]
    value = "missing" if name is None else printable(name)
    listed = printable(", ".join(names)) or "there are none"
    raise InputError(path, field, value, f"one of the {what}s: {listed}", f"give {field}=NAME")


def _crs(path: Path, text: str | None, named: str | None) -> CRS:
    """The CRS of a layer; that of a GeoJSON file whose name of it GDAL does not understand would be WGS 84."""
    unknown = text is None or re.match(r'\w+\["?undefined', text, re.IGNORECASE)
    try:
        crs = None if unknown else CRS.from_user_input(text)
    except CRSError:
        crs = None
    misread = named and crs is not None and crs.to_epsg() == 4326 and not named.upper().endswith((":CRS84", ":4326"))
    if misread or crs is None or not (crs.is_geographic or crs.is_projected):
        value = printable(named) if misread else "missing" if unknown else "not known"
        fix = "set the layer's CRS in QGIS and save it again, as a GeoPackage"
        raise InputError(path, "CRS", value, "that of the coordinates; it is never assumed", fix)
    return crs


def _classes_of(features: VectorLayer, unlabelled: Collection[int]) -> tuple[list[Any], NDArray[np.int64]]:
    """The classes of features, sorted, and (N,) which of them each has, -1 for none; texts may all be codes."""
    given = [None if value != value else value for value in features.values.tolist()]  # NaN is not itself
    given = [words(value) or None if isinstance(value, str) else value for value in given]
    texts = {value: whole_number(value) for value in given if isinstance(value, str)}
    if None in texts.values() or len(set(texts.values())) < len(texts):
        texts = {}
    for i, value in enumerate(given):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT)
        if not (value is None or whole or isinstance(value, str)):
            shown = f"{printable(value)} in feature {features.ids[i]}"
            expected = "whole numbers (codes) or words (names)"
            raise InputError(features.path, "class", shown, expected, "choose another field as scene.class_field")
    known: list[Any] = [texts.get(v, v) if isinstance(v, str) else v if v is None else int(v) for v in given]
    _count(features.path, sum(value is None for value in known), "features without a class, left out")
    none = [value in unlabelled for value in known]
    _count(features.path, sum(none), "features whose number counts as no class (scene.unlabelled), left out")
    known = [None if out else value for value, out in zip(known, none, strict=True)]
    classes = sorted({value for value in known if value is not None})  # of one type: a field has one
    position = {value: i for i, value in enumerate(classes)}
    return classes, np.array([-1 if value is None else position[value] for value in known], np.int64)


def _in_pixels(features: VectorLayer, used: NDArray[np.int64], geobox: GeoBox) -> NDArray[np.object_]:
    """The used geometries with coordinates (column, row) of the grid."""
    shapes, target = features.shapes[used], CRS.from_wkt(geobox.crs or "")
    xy = shapely.get_coordinates(shapes)
    try:
        if features.crs != target and len(xy):
            xy = np.column_stack(transform(features.crs, target, *xy.T.tolist())[:2])
    except CPLE_BaseError:
        xy = np.full_like(xy, np.inf)
    a, b, c, d, e, f = tuple(~geobox.transform)[:6]
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = np.column_stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f])
    if not (np.abs(pixels) <= _NOWHERE).all():
        value, expected = f"outside {crs_name(geobox.crs or '')}", "coordinates that exist in the CRS of the scene"
        fix = "cut the layer to the scene, or correct its CRS"
        raise InputError(features.path, "coordinates", value, expected, fix)
    return shapely.set_coordinates(shapes.copy(), pixels)


def _parts(shapes: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """The shapes, with multipolygons (in whose overlaps GDAL draws holes) in parts, and (n,) whose they are."""
    several = shapely.get_type_id(shapes) == _MULTIPOLYGON
    parts, owner = shapely.get_parts(shapes[several], return_index=True)
    owners = np.concatenate([np.flatnonzero(~several), np.flatnonzero(several)[owner]])
    return np.concatenate([shapes[~several], parts]), owners


def _inside(
    features: VectorLayer, parts: NDArray[np.object_], of: NDArray[np.int64], geobox: GeoBox
) -> NDArray[np.bool_]:
    """(n,) whether a part touches the scene; those that may have to be valid areas. Cuts what reaches far beyond."""
    rows, cols = geobox.shape
    left, upper, right, lower = shapely.bounds(parts).reshape(-1, 4).T
    near = (left < cols) & (right >= 0) & (upper < rows) & (lower >= 0)
    wrong = near & ~(shapely.is_valid(parts) & np.isin(shapely.get_type_id(parts), [_POINT, _POLYGON, _MULTIPOINT]))
    if wrong.any():
        first = int(np.argmax(wrong))
        reason = f"{parts[first].geom_type}: {shapely.is_valid_reason(parts[first]).partition('[')[0]}"
        value = f"not usable in {np.unique(of[wrong]).size} features, the first {features.ids[of[first]]} ({reason})"
        fix = "draw the classes as areas, or run Fix geometries of QGIS on the layer"
        raise InputError(features.path, "geometry", value, "valid polygons, or points", fix)
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
    first, last = (np.full(grid, -1, np.int32) for _ in range(2))  # feature of the last part that holds a pixel
    rasterize(zip(parts[order[::-1]], owner[order[::-1]].tolist(), strict=True), out=first)  # lowest class stays
    rasterize(zip(parts[order], owner[order].tolist(), strict=True), out=last)
    lowest, highest = (np.append(which, -1)[ids].astype(np.int32) for ids in (first, last))
    claimed_twice = lowest != highest
    _count(path, int(claimed_twice.sum()), "pixels claimed by two classes, unlabelled")
    unseen = np.setdiff1d(owner, np.union1d(first, last))
    _count(path, unseen.size, "features without a pixel centre of their own, which label nothing")
    return np.where(claimed_twice, -1, lowest)


def _count(path: Path, number: np.integer | int, what: str) -> None:
    if number:
        _log.warning("%s: %s: %d.", path, what, number)
