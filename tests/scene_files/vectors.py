"""Polygons and points as labels: faithful ones, and damaged ones."""

import json
import os
import struct
import warnings
import zipfile

import numpy as np
import shapely
from affine import Affine
from pyogrio import raw
from rasterio.crs import CRS
from rasterio.warp import transform

from hsfusion.scenes import ArrayScene, GeoBox
from hsfusion.spectra import Bands

LEFT, TOP, STEP = 500000.0, 4500000.0, 30.0
UTM = "EPSG:32633"
DRIVERS = {"GPKG": "gpkg", "GeoJSON": "geojson", "ESRI Shapefile": "shp"}


def scene_of(shape=(3, 4), *, place=(STEP, 0.0, LEFT, 0.0, -STEP, TOP), crs=UTM):
    geobox = GeoBox(shape, Affine(*place), crs and CRS.from_user_input(crs).to_wkt())
    return ArrayScene(np.zeros((1, *shape)), bands=Bands.from_wavelengths([500.0]), name="s", geobox=geobox)


def pixels(row, col, height=1, width=1):
    """A rectangle that covers whole pixels of the scene."""
    x, y = LEFT + STEP * col, TOP - STEP * row
    return shapely.box(x, y - STEP * height, x + STEP * width, y)


def point(row, col):
    return shapely.Point(LEFT + STEP * col, TOP - STEP * row)


def write(path, shapes, *, driver="GPKG", crs=UTM, kind="Unknown", mask=None, layer=None, encoding=None, **columns):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the file has another ending than its format likes
        raw.write(
            path,
            shapely.to_wkb(np.array(shapes, object)),
            [np.array(values) for values in columns.values()],
            list(columns),
            field_mask=mask,
            layer=layer,
            append=layer is not None and path.exists(),
            driver=driver,
            encoding=encoding,
            geometry_type=kind,
            crs=crs,
        )
    return path


def write_kml(path, shapes, codes):
    """Placemarks with a name and a field, as Google Earth and QGIS write them."""
    marks = "".join(
        f"<Placemark><name>field {code}</name><ExtendedData><Data name='code'><value>{code}</value></Data>"
        f"</ExtendedData><Polygon><outerBoundaryIs><LinearRing><coordinates>{corners}</coordinates></LinearRing>"
        "</outerBoundaryIs></Polygon></Placemark>"
        for code, corners in zip(codes, map(_kml_corners, shapes), strict=True)
    )
    text = f"<kml xmlns='http://www.opengis.net/kml/2.2'><Document><name>fields</name>{marks}</Document></kml>"
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'
    if path.suffix == ".kmz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("doc.kml", text)
    else:
        path.write_text(text)
    return path


def _kml_corners(shape):
    return " ".join(f"{x:.9f},{y:.9f},0" for x, y in shapely.get_coordinates(reprojected(shape, "EPSG:4326")))


def reprojected(shape, crs):
    return shapely.transform(shape, lambda xy: np.column_stack(transform(UTM, crs, *xy.T.tolist())))


def drop_triggers(database):
    """Without those of a GeoPackage, which call functions that only GDAL knows."""
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f'DROP TRIGGER "{name}"')
    database.commit()


TWO = [pixels(0, 0, 2, 2), pixels(1, 2, 2, 2)]
DRAWN = [[1, 1, 0, 0], [1, 1, 2, 2], [0, 0, 2, 2]]

BOX = [[[14.999, 40.64], [15.002, 40.64], [15.002, 40.66], [14.999, 40.66], [14.999, 40.64]]]
POLYGON = {"type": "Polygon", "coordinates": BOX}


def feature(geometry=POLYGON, **properties):
    return {"type": "Feature", "properties": properties or {"code": 1}, "geometry": geometry}


def collection(*features, **members):
    return {"type": "FeatureCollection", **members, "features": list(features)}


def shape(kind, coordinates):
    return {"type": kind, "coordinates": coordinates}


def named_crs(name):
    return {"type": "name", "properties": {"name": name}}


JSON = {
    "no features": collection(),
    "features missing": {"type": "FeatureCollection"},
    "lone geometry": POLYGON,
    "other JSON": {"labels": [1, 2, 3]},
    "no coordinates": collection(feature(shape("Polygon", []))),
    "coordinates in words": collection(feature(shape("Polygon", "here"))),
    "NaN": collection(feature(shape("Point", [float("nan"), 40.0]))),
    "latitude of 400": collection(feature(shape("Point", [15.0, 400.0]))),
    "open ring": collection(feature(shape("Polygon", [BOX[0][:-1]]))),
    "bow tie": collection(feature(shape("Polygon", [[[15, 40], [16, 41], [16, 40], [15, 41], [15, 40]]]))),
    "line": collection(feature(shape("LineString", [[15.0, 40.64], [15.001, 40.65]]))),
    "collection": collection(feature({"type": "GeometryCollection", "geometries": [POLYGON]})),
    "elsewhere": collection(feature(shape("Point", [-15.0, 40.64]))),
    "rows and columns": collection(feature(shape("Point", [1, 1]))),
    "fraction": collection(feature(code=1.5)),
    "huge code": collection(feature(code=2**70)),
    "null": collection(feature(code=None)),
    "unlabelled": collection(feature(code=0)),
    "no properties": collection({"type": "Feature", "properties": None, "geometry": POLYGON}),
    "other properties": collection(feature(kind=1)),
    "crs null": collection(feature(), crs=None),
    "crs unknown": collection(feature(), crs=named_crs("urn:ogc:def:crs:EPSG::99999")),
    "crs linked": collection(feature(), crs={"type": "link", "properties": {"href": "http://127.0.0.1:9/crs"}}),
    "crs of another place": collection(feature(), crs=named_crs("urn:ogc:def:crs:EPSG::32633")),
}
THERE = "http://127.0.0.1:9/x"
LINK = json.dumps({"type": "link", "properties": {"href": THERE}})


def _with_member(member):
    return json.dumps(collection(feature())).replace('"features"', f'{member}, "features"')


# a CRS that GDAL would fetch from the network, or that is written as such a one could be
LINKED = {
    "crs linked": _with_member(f'"crs": {LINK}'),
    "crs by its type in capitals": _with_member(f'"crs": {{"properties": {{"href": "{THERE}"}}, "type": "LINK"}}'),
    "crs in capitals": _with_member(f'"CRS": {LINK}'),
    "crs in capitals and escaped": _with_member(f'"\\u0043\\u0052\\u0053": {LINK}'),
    "crs twice": _with_member(f'"crs": null, "crs": {LINK}'),
    "crs of a feature": json.dumps(collection(feature() | {"crs": json.loads(LINK)})),
}
# addresses that GDAL is shown, and does not fetch
ADDRESSED = {
    "crs named by an address": _with_member(f'"crs": {{"type": "name", "properties": {{"name": "{THERE}"}}}}'),
    "crs of JSON-FG": _with_member(
        f'"conformsTo": ["http://www.opengis.net/spec/json-fg-1/0.2/conf/core"], "coordRefSys": "{THERE}"'
    ),
}
TEXTS = {
    "truncated": json.dumps(collection(*[feature()] * 20)).encode()[:-40],
    "cut in a number": json.dumps(collection(feature())).encode()[:120],
    "deep arrays": b'{"type": "FeatureCollection", "features": ' + b"[" * 10**5 + b"]" * 10**5 + b"}",
    "no text": json.dumps(collection(feature(code="QQ"))).encode().replace(b"QQ", b"\xff\xfe"),
    "not closed": b'{"type": "FeatureCollection", "features": [',
}

SQL = {
    "no contents": "DROP TABLE gpkg_contents",
    "no layer": "DROP TABLE gt",
    "empty layer": "DELETE FROM gt",
    "undefined Cartesian CRS": "UPDATE gpkg_contents SET srs_id = -1; UPDATE gpkg_geometry_columns SET srs_id = -1",
    "CRS that is none": "UPDATE gpkg_spatial_ref_sys SET definition = 'x', organization_coordsys_id = 99999999, "
    "organization = 'NONE' WHERE srs_id = 32633",
    "blob too short": "UPDATE gt SET geom = x'4750000103000000'",
    "blob without end": "UPDATE gt SET geom = substr(geom, 1, 60)",
    "blob of NaN": "UPDATE gt SET geom = x'47500001797f00000101000000000000000000f87f000000000000f87f'",
}

# what GDAL does not run unless the layer itself is one
QUERIES = {"layer that is a view": "ALTER TABLE gt RENAME TO other; CREATE VIEW gt AS SELECT * FROM other"}


def _cut(name, size):
    return lambda folder: os.truncate(folder / name, size)


def _put(name, at, content):
    def change(folder):
        data = bytearray((folder / name).read_bytes())
        data[at : at + len(content)] = content
        (folder / name).write_bytes(data)

    return change


SHAPEFILES = {
    **{f"no {suffix}": lambda folder, suffix=suffix: (folder / f"gt{suffix}").unlink() for suffix in (".dbf", ".shx")},
    "no .prj": lambda folder: (folder / "gt.prj").unlink(),
    ".prj that is no text": lambda folder: (folder / "gt.prj").write_bytes(b"\xff\xfe\0\0"),
    **{f".shp of {size} bytes": _cut("gt.shp", size) for size in (50, 100, 108, 200, 371)},
    **{f".shx of {size} bytes": _cut("gt.shx", size) for size in (0, 50, 100, 108)},
    **{f".dbf of {size} bytes": _cut("gt.dbf", size) for size in (0, 20, 64, 100)},
    "infinite corner": _put("gt.shp", 156, struct.pack("<d", np.inf)),
    "other number of rows": _put("gt.dbf", 4, struct.pack("<I", 1)),
}

# of the first feature; GDAL reads the others
LOST_GEOMETRIES = {
    "two thousand million parts": _put("gt.shp", 144, b"\xff\xff\xff\x7f"),
    "index elsewhere": _put("gt.shx", 100, b"\x7f\xff\xff\xff"),
}
