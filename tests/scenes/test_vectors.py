import json
import os
import sqlite3
import warnings
from contextlib import closing

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.warp import transform
from scene_files.vectors import (
    DRAWN,
    DRIVERS,
    JSON,
    LEFT,
    LINKED,
    LOST_GEOMETRIES,
    QUERIES,
    SHAPEFILES,
    SQL,
    STEP,
    TEXTS,
    TOP,
    TWO,
    UTM,
    collection,
    drop_triggers,
    feature,
    pixels,
    point,
    reprojected,
    scene_of,
    write,
    write_kml,
)

from hsfusion.errors import InputError
from hsfusion.scenes import read_labels
from hsfusion.scenes.labels import read_ids, read_label_pair
from hsfusion.scenes.legend import one_line


@pytest.mark.parametrize("name", ["name", "code", "whole"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_polygons_of_each_format_and_kind_of_field_are_drawn_exactly(tmp_path, driver, name):
    columns = {"name": np.array(["Äcker", "wood"], object)[::-1], "code": [1, 2], "whole": [1.0, 2.0]}
    path = write(tmp_path / f"gt.{DRIVERS[driver]}", TWO, driver=driver, kind="Polygon", **columns)
    labels = read_labels(path, scene_of(), class_field=name)
    assert labels.codes.dtype == np.int32
    assert labels.codes.tolist() == DRAWN
    assert labels.legend().names == (("wood", "Äcker") if name == "name" else ("class 1", "class 2"))


def test_format_is_told_by_content(tmp_path):
    for driver in ("GPKG", "GeoJSON"):
        path = write(tmp_path / driver, TWO, driver=driver, code=[1, 2])
        path.rename(tmp_path / "gt.tif")
        assert read_labels(tmp_path / "gt.tif", scene_of(), class_field="code").codes.tolist() == DRAWN


def test_json_may_start_with_a_mark_and_blank_lines(tmp_path):
    path = write(tmp_path / "gt.json", TWO, driver="GeoJSON", code=[1, 2])
    path.write_bytes(b"\xef\xbb\xbf\n\n" + path.read_bytes())
    assert read_labels(path, scene_of(), class_field="code").codes.tolist() == DRAWN


def test_points_take_the_pixel_that_they_lie_in(tmp_path):
    several = shapely.MultiPoint([point(0, 3.999), point(2.999, 3), point(3, 4)])  # the last is just outside
    path = write(tmp_path / "gt.gpkg", [point(0, 0), point(1.5, 1.999), several], code=[4, 5, 6])
    drawn = read_labels(path, scene_of(), class_field="code").codes
    assert drawn.tolist() == [[4, 0, 0, 6], [0, 5, 0, 0], [0, 0, 0, 6]]


def test_polygon_takes_the_pixels_whose_centres_it_holds(tmp_path):
    just, barely_not = pixels(0, 0, 0.51, 1.51), pixels(2, 0, 0.49, 4)
    holed = shapely.difference(pixels(0, 2, 3, 2), pixels(1, 2, 1, 1))
    parts = shapely.MultiPolygon([pixels(1, 0), pixels(1, 1, 0.6, 0.6)])
    path = write(tmp_path / "gt.gpkg", [just, barely_not, holed, parts], code=[1, 2, 3, 4])
    drawn = read_labels(path, scene_of(), class_field="code").codes
    assert drawn.tolist() == [[1, 1, 3, 3], [4, 4, 0, 3], [0, 0, 3, 3]]


def test_parts_of_a_multipolygon_may_touch_and_overlap(tmp_path):
    area = shapely.MultiPolygon([pixels(0, 0, 2, 2), pixels(1, 1, 2, 2), pixels(2, 0)])
    drawn = read_labels(write(tmp_path / "gt.gpkg", [area], code=[1]), scene_of(), class_field="code").codes
    assert drawn.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]]


def test_polygon_that_reaches_round_the_world_is_cut(tmp_path):
    path = write(tmp_path / "gt.gpkg", [shapely.box(-4e7, -4e7, LEFT + 2.2 * STEP, 4e7)], code=[1])
    drawn = read_labels(path, scene_of(), class_field="code").codes
    assert drawn.tolist() == [[1, 1, 0, 0]] * 3


@pytest.mark.parametrize("far", [1e15, 1e30, 1e300])
def test_coordinates_that_are_on_no_map_are_refused(tmp_path, far):
    path = write(tmp_path / "gt.gpkg", [shapely.box(-far, -far, far, far)], code=[1])
    assert "coordinates is outside" in refused(path, class_field="code")


def test_rotated_scene_gets_the_pixels_that_the_formula_says(tmp_path):
    place = (20.0, 9.0, LEFT, 9.0, -20.0, TOP)
    area = shapely.Polygon([(LEFT + 40, TOP + 30), (LEFT + 160, TOP - 20), (LEFT + 110, TOP - 150), (LEFT, TOP - 60)])
    path = write(tmp_path / "gt.gpkg", [area], code=[7])
    col, row = np.meshgrid(np.arange(9) + 0.5, np.arange(8) + 0.5)
    a, b, c, d, e, f = place
    inside = shapely.contains_xy(area, a * col + b * row + c, d * col + e * row + f)
    assert 20 < inside.sum() < 60
    drawn = read_labels(path, scene_of((8, 9), place=place), class_field="code").codes
    np.testing.assert_array_equal(drawn, 7 * inside)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32632", "EPSG:3035", "EPSG:3857"])
def test_layer_in_another_crs_is_brought_to_that_of_the_scene(tmp_path, crs, driver):
    small = [pixels(0.1, 0.1, 1.8, 1.8), pixels(1.1, 2.1, 1.8, 1.8)]
    shapes = [reprojected(shape, crs) for shape in small]
    path = write(tmp_path / f"gt.{DRIVERS[driver]}", shapes, driver=driver, kind="Polygon", crs=crs, code=[1, 2])
    assert read_labels(path, scene_of(), class_field="code").codes.tolist() == DRAWN


def test_json_without_crs_is_longitude_and_latitude(tmp_path):
    shape = reprojected(pixels(0.1, 0.1, 1.8, 1.8), "EPSG:4326")
    feature = {"type": "Feature", "properties": {"code": 3}, "geometry": json.loads(shapely.to_geojson(shape))}
    (tmp_path / "gt.json").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    drawn = read_labels(tmp_path / "gt.json", scene_of(), class_field="code").codes
    assert drawn.tolist() == [[3, 3, 0, 0], [3, 3, 0, 0], [0, 0, 0, 0]]


def test_scene_in_degrees_takes_labels_in_metres(tmp_path):
    path = write(tmp_path / "gt.gpkg", [pixels(0, 0, 3, 4)], code=[1])
    [west], [north] = transform(UTM, "EPSG:4326", [LEFT], [TOP])
    scene = scene_of((4, 4), place=(0.0003, 0.0, west, 0.0, -0.0003, north), crs="EPSG:4326")
    assert read_labels(path, scene, class_field="code").codes.tolist() == [[1] * 4] * 3 + [[0] * 4]


def test_layer_of_which_no_feature_has_a_class_names_the_attribute(tmp_path):
    path = write(tmp_path / "gt.gpkg", [pixels(0, 0)], code=np.array([None], object))
    assert "fill in code of the features" in refused(path, class_field="code")


def test_layer_of_which_all_geometries_are_empty_is_not_told_to_fill_in_the_class(tmp_path):
    path = write(tmp_path / "gt.gpkg", [shapely.Polygon(), None], code=[1, 2])
    assert "Fix: export the layer with geometries, which are empty" in refused(path, class_field="code")


def test_polygons_in_a_pair_of_rasters_are_refused(tmp_path):
    path = write(tmp_path / "gt.gpkg", [pixels(0, 0)], code=[1])
    with pytest.raises(InputError, match=r"gt\.gpkg: format is GPKG, expected a raster of class codes"):
        read_label_pair(path, path, scene_of())


def test_pixels_that_two_classes_claim_get_none_and_are_counted(tmp_path, caplog):
    shapes = [pixels(0, 0, 2, 2), pixels(1, 1, 2, 2), pixels(0, 0, 3, 2)]
    path = write(tmp_path / "gt.gpkg", shapes, code=[1, 2, 1])
    drawn = read_labels(path, scene_of(), class_field="code").codes
    assert drawn.tolist() == [[1, 1, 0, 0], [1, 0, 2, 0], [1, 0, 2, 0]]
    assert "pixels claimed by two classes, unlabelled: 2." in caplog.text


def test_pixel_of_one_class_between_two_features_of_another_is_none(tmp_path):
    path = write(tmp_path / "gt.gpkg", [pixels(0, 0), pixels(0, 0), pixels(0, 0, 1, 2)], code=[2, 5, 2])
    assert read_labels(path, scene_of(), class_field="code").codes[0].tolist() == [0, 2, 0, 0]


def test_what_labels_nothing_is_counted(tmp_path, caplog):
    tiny = pixels(0.6, 0.6, 0.2, 0.2)
    shapes = [pixels(0, 1), tiny, tiny, pixels(9, 9), None, shapely.Polygon(), pixels(1, 1), pixels(2, 2)]
    codes = np.array([1, 2, 3, 4, 5, 6, 7, 0])
    mask = [np.array([False] * 6 + [True, False])]
    path = write(tmp_path / "gt.gpkg", shapes, code=codes, mask=mask)
    drawn = read_labels(path, scene_of(), class_field="code").codes
    assert drawn.tolist() == [[0, 1, 0, 0], [0] * 4, [0] * 4]
    for text in (
        "features without a class, left out: 1.",
        "features whose number counts as no class (scene.unlabelled), left out: 1.",
        "features without a geometry, left out: 2.",
        "features outside the scene s, left out: 1.",
        "features without a pixel centre of their own, which label nothing: 2.",
    ):
        assert text in caplog.text
    assert len(caplog.records) == 5


def test_umlauts_are_one_name_in_one_character_or_two(tmp_path):
    write(tmp_path / "a.gpkg", [pixels(0, 0), pixels(0, 1)], crop=["B\u00e4ume", "Ba\u0308ume"])
    labels = read_labels(tmp_path / "a.gpkg", scene_of(), class_field="crop")
    assert labels.legend().names == ("B\u00e4ume",)
    assert one_line("Ba\u0308ume") == "B\u00e4ume"


def test_words_are_numbered_in_their_order_and_the_user_may_rename_them(tmp_path):
    names = np.array(["soy", " corn  field ", "10", "9", ""], object)
    shapes = [point(0, col) for col in range(4)] + [point(1, 1)]
    labels = read_labels(write(tmp_path / "gt.gpkg", shapes, name=names), scene_of(), class_field="name")
    assert labels.codes.tolist() == [[4, 3, 1, 2], [0] * 4, [0] * 4]
    assert labels.legend().names == ("10", "9", "corn field", "soy")
    assert labels.legend(names={"soy": "Soja", 10: "ten"}).names == ("ten", "9", "corn field", "Soja")


TEXTS_AS_CODES = {
    "ten last": (["1", "10", "2"], [1, 10, 2], ("class 1", "class 2", "class 10")),
    "zero is unlabelled": (["0", "7", "3"], [0, 7, 3], ("class 3", "class 7")),
    "leading zeros": (["01", "10", "02"], [1, 10, 2], ("class 1", "class 2", "class 10")),
    "as floats": (["1.0", "10.0", "2.0"], [1, 10, 2], ("class 1", "class 2", "class 10")),
    "blanks": ([" 3 ", "", "12"], [3, 0, 12], ("class 3", "class 12")),
    "signs and large ones": (["-3", "70000", "5"], [1, 3, 2], ("class -3", "class 5", "class 70000")),
    "two writings of one code": (["1", "01", "2"], [2, 1, 3], ("01", "1", "2")),
    "one word among them": (["1", "corn", "10"], [1, 3, 2], ("1", "10", "corn")),
    "fractions": (["1.5", "10", "2"], [1, 2, 3], ("1.5", "10", "2")),
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("kind", TEXTS_AS_CODES)
def test_whole_numbers_as_text_keep_their_value_and_other_texts_are_names(tmp_path, kind, driver):
    texts, codes, names = TEXTS_AS_CODES[kind]
    shapes = [pixels(0, col) for col in range(3)]
    columns = {"crop": np.array(texts, object)}
    path = write(tmp_path / f"gt.{DRIVERS[driver]}", shapes, driver=driver, kind="Polygon", **columns)
    labels = read_labels(path, scene_of(), class_field="crop")
    assert labels.codes[0].tolist() == [*codes, 0]
    assert labels.legend().names == names


def test_whole_numbers_as_text_are_labels_like_those_of_an_integer_field(tmp_path):
    for numbers in ([3, 0, 12, 7], [-1, 0, 70000, 7]):
        shapes, texts = [point(0, col) for col in range(4)], np.array([str(number) for number in numbers], object)
        path = write(tmp_path / f"gt{numbers[2]}.gpkg", shapes, code=np.array(numbers), text=texts)
        for unlabelled in (0, [], [7]):
            code, text = (
                read_labels(path, scene_of(), class_field=name, unlabelled=unlabelled) for name in ("code", "text")
            )
            np.testing.assert_array_equal(text.codes, code.codes)
            assert (text.names, text.original) == (code.names, code.original)


def test_features_of_a_number_that_is_no_class_are_counted_and_a_field_may_have_it(tmp_path, caplog):
    path = write(tmp_path / "gt.gpkg", [point(0, col) for col in range(3)], code=np.array([0, 1, 0]))
    assert read_labels(path, scene_of(), class_field="code").codes[0].tolist() == [0, 1, 0, 0]
    assert "features whose number counts as no class (scene.unlabelled), left out: 2." in caplog.text
    assert read_ids(path, scene_of(), field="code")[0].tolist() == [0, 1, 0, -1]


def test_alphabetical_numbers_of_names_are_shown(tmp_path, caplog):
    path = write(tmp_path / "gt.gpkg", TWO, crop=np.array(["soy", "corn"], object))
    read_labels(path, scene_of(), class_field="crop")
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "gt.gpkg: classes are numbered in alphabetical order: 1=corn, 2=soy." in record.getMessage()


def test_names_that_cannot_be_printed_are_escaped(tmp_path):
    path = write(tmp_path / "gt.gpkg", TWO, crop=np.array(["a\u202eb", "corn"], object))
    assert set(read_labels(path, scene_of(), class_field="crop").legend().names) == {"a\\u202eb", "corn"}


@pytest.mark.parametrize("field", ["code", "name"])
@pytest.mark.parametrize("ending", ["kml", "kmz"])
def test_kml_is_read_by_its_fields(tmp_path, ending, field):
    path = write_kml(tmp_path / f"gt.{ending}", [pixels(0.1, 0.1, 1.8, 1.8), pixels(1.1, 2.1, 1.8, 1.8)], ["2", "10"])
    labels = read_labels(path, scene_of(), class_field={"code": "code", "name": "Name"}[field])
    first, second = (2, 10) if field == "code" else (2, 1)
    assert labels.codes.tolist() == [[first, first, 0, 0], [first, first, second, second], [0, 0, second, second]]
    assert labels.legend().names == (("class 2", "class 10") if field == "code" else ("field 10", "field 2"))


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("ending", ["kml", "kmz"])
def test_truncated_kml_is_one_line(tmp_path, ending, cut):
    path = write_kml(tmp_path / f"gt.{ending}", TWO, ["2", "10"])
    os.truncate(path, int(path.stat().st_size * cut))
    assert f"gt.{ending}: " in refused(path, class_field="code")


def test_codes_that_maps_cannot_hold_are_renumbered(tmp_path):
    path = write(tmp_path / "gt.gpkg", [point(0, 0), point(0, 1), point(0, 2)], code=[-1, 2**40, 0])
    labels = read_labels(path, scene_of(), class_field="code")
    assert labels.codes[0].tolist() == [1, 2, 0, 0]
    assert labels.legend().names == ("class -1", f"class {2**40}")
    labels = read_labels(path, scene_of(), class_field="code", unlabelled=[-1])
    assert labels.codes[0].tolist() == [0, 2, 1, 0]


def test_layer_has_to_be_named_where_there_are_several(tmp_path):
    path = write(tmp_path / "gt.gpkg", TWO[:1], layer="fields", code=[1])
    write(path, TWO[1:], layer="woods", code=[2])
    assert "labels_variable is missing, expected one of the layers: fields, woods" in refused(path, class_field="code")
    assert "labels_variable is wods" in refused(path, class_field="code", variable="wods")
    drawn = read_labels(path, scene_of(), class_field="code", variable="woods").codes
    assert drawn.tolist() == [[0] * 4, [0, 0, 2, 2], [0, 0, 2, 2]]


def test_field_has_to_be_named_and_known(tmp_path):
    path = write(tmp_path / "gt.gpkg", TWO, code=[1, 2], Crop=np.array(["a", "b"], object))
    assert "scene.class_field is missing, expected one of the fields: code, Crop." in refused(path)
    assert "scene.class_field is crops, expected one of the fields: code, Crop." in refused(path, class_field="crops")


def test_geopackage_is_read_with_what_its_log_holds(tmp_path):
    path = write(tmp_path / "gt.gpkg", TWO, code=[1, 2])
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=wal")
        drop_triggers(database)
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE gt SET code = code + 2")
        database.commit()
        assert (tmp_path / "gt.gpkg-wal").exists()
        assert read_labels(path, scene_of(), class_field="code").codes.max() == 4


def encoded(path, encoding, *, names=("Äcker", "wood"), field="crop", language=0, cpg=None):
    """A Shapefile whose table is written in an encoding that only .cpg or the language driver may tell."""
    columns = {field: np.array(names, object)}
    write(path, TWO, driver="ESRI Shapefile", kind="Polygon", encoding=encoding, **columns)
    table = bytearray(path.with_suffix(".dbf").read_bytes())
    table[29] = language
    path.with_suffix(".dbf").write_bytes(table)
    path.with_suffix(".cpg").unlink(missing_ok=True)
    if cpg is not None:
        path.with_suffix(".cpg").write_text(cpg)
    return path


@pytest.mark.parametrize(
    ("encoding", "options"),
    [
        ("UTF-8", {}),
        ("UTF-8", {"language": 0x57}),  # ANSI of an unknown code page, which much software writes with any text
        ("UTF-8", {"cpg": "UTF-8"}),
        ("UTF-8", {"cpg": "UTF-8", "language": 0x03}),
        ("ISO-8859-1", {}),
        ("ISO-8859-1", {"cpg": "ISO-8859-1"}),
        ("CP437", {"language": 0x01}),
        ("CP437", {"cpg": "437"}),
        ("CP1251", {"language": 0xC9, "names": ("Лес", "wood")}),
    ],
)
def test_names_of_a_shapefile_have_the_encoding_that_its_parts_tell(tmp_path, encoding, options):
    path = encoded(tmp_path / "gt.shp", encoding, **options)
    names = read_labels(path, scene_of(), class_field="crop").legend().names
    assert set(names) == set(options.get("names", ("Äcker", "wood")))


def test_field_of_a_shapefile_may_have_a_name_in_utf_8(tmp_path):
    path = encoded(tmp_path / "gt.shp", "UTF-8", names=("corn", "wood"), field="Ackerfrü")
    assert read_labels(path, scene_of(), class_field="Ackerfrü").legend().names == ("corn", "wood")


def test_ten_thousand_features_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    shapes = [point(*at) for at in rng.permutation(100 * 100 * 4)[:10_000, None] // [200, 1] % 200 / 2 + 0.25]
    path = write(tmp_path / "gt.gpkg", shapes, code=np.ones(10_000, int))
    xy = shapely.get_coordinates(shapes)
    expected = np.zeros((100, 100), int)
    expected[((TOP - xy[:, 1]) // STEP).astype(int), ((xy[:, 0] - LEFT) // STEP).astype(int)] = 1
    np.testing.assert_array_equal(read_labels(path, scene_of((100, 100)), class_field="code").codes, expected)


def refused(path, scene=None, **options):
    with pytest.raises(InputError, match=r"^[^\n]+: .* is .*, expected .*\. Fix: .*") as caught:
        read_labels(path, scene or scene_of(), **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_json_of_which_the_others_are_made_is_read(tmp_path):
    (tmp_path / "gt.json").write_text(json.dumps(collection(feature())))
    assert (read_labels(tmp_path / "gt.json", scene_of(), class_field="code").codes == 1).all()


@pytest.mark.parametrize("kind", JSON)
def test_json_that_holds_no_labels_is_one_line(tmp_path, kind):
    (tmp_path / "gt.json").write_text(json.dumps(JSON[kind]))
    assert "gt.json: " in refused(tmp_path / "gt.json", class_field="code")


@pytest.mark.parametrize("kind", TEXTS)
def test_text_that_is_no_json_is_one_line(tmp_path, kind):
    (tmp_path / "gt.json").write_bytes(TEXTS[kind])
    assert "gt.json: " in refused(tmp_path / "gt.json", class_field="code")


@pytest.mark.parametrize("kind", LINKED)
def test_crs_that_leads_into_the_network_is_refused_before_gdal_sees_it(tmp_path, monkeypatch, kind):
    (tmp_path / "gt.json").write_text(LINKED[kind])
    monkeypatch.setattr("pyogrio.list_layers", None)
    assert "gt.json: " in refused(tmp_path / "gt.json", class_field="code")


@pytest.mark.parametrize("kind", SQL)
def test_geopackage_that_lies_is_one_line(tmp_path, kind):
    path = write(tmp_path / "gt.gpkg", TWO, code=[1, 2])
    with closing(sqlite3.connect(path)) as database:
        drop_triggers(database)
        database.executescript(SQL[kind])
        database.commit()
    assert "gt.gpkg: " in refused(path, class_field="code")


@pytest.mark.parametrize("kind", QUERIES)
def test_geopackage_with_views_and_foreign_tables_is_read(tmp_path, kind):
    path = write(tmp_path / "gt.gpkg", TWO, code=[1, 2])
    with closing(sqlite3.connect(path)) as database:
        drop_triggers(database)
        database.executescript(QUERIES[kind])
        database.commit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a foreign table has a field of no known type
        assert read_labels(path, scene_of(), class_field="code").codes.tolist() == DRAWN


@pytest.mark.parametrize("size", [16, 50, 99, 100, 4096, 40_000])
def test_truncated_geopackage_is_one_line(tmp_path, size):
    path = write(tmp_path / "gt.gpkg", TWO, code=[1, 2])
    os.truncate(path, size)
    assert "gt.gpkg: size is " in refused(path, class_field="code")


def test_database_that_is_no_geopackage_is_one_line(tmp_path):
    with closing(sqlite3.connect(tmp_path / "gt.gpkg")) as database:
        database.execute("CREATE TABLE labels (a)")
        database.commit()
    assert "gt.gpkg: content is unreadable" in refused(tmp_path / "gt.gpkg", class_field="code")


@pytest.mark.parametrize("kind", SHAPEFILES)
def test_damaged_shapefile_is_one_line(tmp_path, kind):
    path = write(tmp_path / "gt.shp", TWO, driver="ESRI Shapefile", kind="Polygon", code=[1, 2])
    SHAPEFILES[kind](tmp_path)
    assert "gt." in refused(path, class_field="code")


@pytest.mark.parametrize("kind", LOST_GEOMETRIES)
def test_feature_whose_geometry_cannot_be_read_is_left_out_and_counted(tmp_path, caplog, kind):
    path = write(tmp_path / "gt.shp", TWO, driver="ESRI Shapefile", kind="Polygon", code=[1, 2])
    LOST_GEOMETRIES[kind](tmp_path)
    drawn = read_labels(path, scene_of(), class_field="code").codes
    np.testing.assert_array_equal(drawn, np.where(np.array(DRAWN) == 2, 2, 0))
    assert "features without a geometry, left out: 1." in caplog.text


SCENES = {
    "without CRS": {"crs": None},
    "without place": {"place": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)},
    "with a CRS of its own": {"crs": 'LOCAL_CS["Arbitrary",UNIT["Meter",1]]'},
}


@pytest.mark.parametrize("kind", SCENES)
def test_scene_without_a_place_takes_no_vectors(tmp_path, kind):
    path = write(tmp_path / "gt.gpkg", TWO, code=[1, 2])
    message = refused(path, scene_of(**SCENES[kind]), class_field="code")
    assert message.startswith("the scene s: ")
    assert "a georeferenced cube, because gt.gpkg holds map coordinates" in message


def test_layer_without_crs_says_what_to_do(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is none
        path = write(tmp_path / "gt.gpkg", TWO, crs=None, code=[1, 2])
    assert (
        "CRS is missing, expected that of the coordinates; it is never assumed. Fix: set the layer's CRS in QGIS"
        in (refused(path, class_field="code"))
    )


@settings(
    max_examples=int(os.environ.get("HSFUSION_FUZZ", "60")), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_any_damaged_file_opens_or_is_one_clear_line(tmp_path, data):
    driver = data.draw(st.sampled_from(sorted(DRIVERS)))
    for file in tmp_path.iterdir():
        file.unlink()
    path = write(tmp_path / f"gt.{DRIVERS[driver]}", TWO, driver=driver, kind="Polygon", code=[1, 2])
    damaged = data.draw(st.sampled_from(sorted(tmp_path.iterdir())))
    content = bytearray(damaged.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged.write_bytes(content)
    try:
        assert read_labels(path, scene_of(), class_field="code").codes.shape == (3, 4)
    except InputError as error:
        assert str(error).isprintable()
