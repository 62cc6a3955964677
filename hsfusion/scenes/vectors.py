"""Labels drawn as polygons or points: which class has which pixel of a scene."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform

from hsfusion.errors import InputError
from hsfusion.scenes.categories import WHOLE, Categories
from hsfusion.scenes.geobox import IDENTITY, GeoBox, crs_name
from hsfusion.scenes.vector_files import VectorLayer, read_vector_layer

_log = logging.getLogger(__name__)

_ALLOWED = {0: "Point", 3: "Polygon", 4: "MultiPoint", 6: "MultiPolygon"}
_EXACT = 2**53  # up to here every whole number is a float64
_FAR = 2.0**20  # pixels outside the scene, beyond which polygons are cut before GDAL counts their rows
_CORNERS = 5 * 10**5  # handled at a time, and the most of one feature
_NOWHERE = 1e12  # pixels; no map reaches that far


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
        driver: what :func:`hsfusion.scenes.vector_files.vector_format` said.
        layer: name of the layer.
        class_field: attribute that holds the class: whole numbers, also as text, are codes, words are names.
        unlabelled: codes that mean «no class».
        reference: name of the scene, for messages.

    Returns:
        (H, W) index of the class, -1 for none; the classes; and what the file lists of them.

    Raises:
        InputError: if the file is damaged, holds other geometries or values, or nothing inside the scene.
    """
    _check_place(path, geobox, reference)
    features = read_vector_layer(path, driver=driver, layer=layer, class_field=class_field)
    _check_types(features)
    classes, which = _classes(features, unlabelled)
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


def _check_place(path: Path, geobox: GeoBox, reference: str) -> None:
    crs = CRS.from_wkt(geobox.crs) if geobox.crs else None
    placed = crs is not None and (crs.is_geographic or crs.is_projected)
    if not placed or geobox.transform == IDENTITY:
        raise InputError(
            reference,
            field="transform" if placed else "CRS",
            value="missing" if placed or geobox.crs is None else crs_name(geobox.crs),
            expected=f"a georeferenced cube, for {path.name} holds map coordinates",
            fix="give a label raster of the cube's own shape, or a cube that knows its place",
        )


def _check_types(features: VectorLayer) -> None:
    kinds = shapely.get_type_id(features.shapes)  # -1 for None
    wrong = np.flatnonzero(~np.isin(kinds, [-1, *_ALLOWED]))
    if wrong.size:
        kind = features.shapes[wrong].tolist()[0].geom_type
        raise features.error(
            "geometry", f"{kind} in feature {features.ids[wrong[0]]}", "polygons or points", "draw the classes as areas"
        )


def _classes(features: VectorLayer, unlabelled: Collection[int]) -> tuple[list[Any], NDArray[np.int64]]:
    """The classes, sorted, and (N,) which of them each feature has; -1 for none."""
    values = features.values
    if values.dtype.kind == "O":
        given = [" ".join(value.split()) if isinstance(value, str) else value for value in values.tolist()]
        codes = _codes_in_text({value for value in given if isinstance(value, str) and value})
        given = [None if value == "" else codes.get(value, value) for value in given]
    elif values.dtype.kind in "biuf":
        given = [None if value != value else value for value in values.tolist()]  # NaN is not itself
    else:
        given = values.tolist()
    for feature, value in zip(features.ids, given, strict=True):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT)
        if not (value is None or whole or isinstance(value, str)):
            raise features.error(
                "class",
                f"{str(value)[:40]} in feature {feature}",
                "whole numbers (codes) or words (names)",
                "choose another field as scene.class_field",
            )
    known = [value if isinstance(value, str) or value is None else int(value) for value in given]
    _count(features.path, sum(value is None for value in known), "features without a class, left out")
    known = [None if value in unlabelled else value for value in known]
    classes = sorted({value for value in known if value is not None})  # of one type: a field has one
    position = {value: i for i, value in enumerate(classes)}
    return classes, np.array([-1 if value is None else position[value] for value in known], np.int64)


def _codes_in_text(texts: Collection[str]) -> dict[str, int]:
    """Texts as whole numbers; none where one of them is no such number, or two are one number in two writings."""
    if not all(WHOLE.fullmatch(text) for text in texts):
        return {}
    codes = {text: int(text.partition(".")[0]) for text in texts}
    return codes if len(set(codes.values())) == len(codes) else {}


def _in_pixels(features: VectorLayer, used: NDArray[np.int64], geobox: GeoBox) -> NDArray[np.object_]:
    """The used geometries with coordinates (column, row) of the grid."""
    shapes = features.shapes[used]
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    if np.bincount(owner, minlength=1).max() > _CORNERS:
        raise features.error("geometry", "too large", f"at most {_CORNERS} corners in one feature", "simplify it")
    if not np.isfinite(xy).all():
        first = features.ids[used[owner[~np.isfinite(xy).all(1)][0]]]
        raise features.error("coordinates", f"not finite in feature {first}", "finite numbers", "delete the feature")
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
    if crs == target:
        return xy
    new = np.empty_like(xy)
    for start in range(0, len(xy), _CORNERS):  # as lists, which take much room
        part = slice(start, start + _CORNERS)
        try:
            new[part] = np.column_stack(transform(crs, target, xy[part, 0].tolist(), xy[part, 1].tolist())[:2])
        except CPLE_BaseError:
            return np.full_like(xy, np.inf)
    return new


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
    path: Path,
    parts: NDArray[np.object_],
    owner: NDArray[np.int64],
    which: NDArray[np.int64],
    grid: tuple[int, int],
) -> NDArray[np.int32]:
    """(H, W) index of the class of each pixel, -1 for none.

    Args:
        path: the file.
        parts: (n,) what to draw, with coordinates (column, row).
        owner: (n,) the feature of each part.
        which: (N,) the class of each feature.
        grid: (H, W).
    """
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
