import logging

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.enums import WktVersion
from scene_files.labels import (
    ARRAYS,
    CODES,
    FILES,
    PLACED,
    TRANSFORM,
    UTM,
    moved,
    save,
    scene_of,
    write_envi,
    write_pam,
    write_tiff,
)

from hsfusion.errors import InputError
from hsfusion.scenes import GeoBox, Legend, read_labels, write_class_map
from hsfusion.scenes.geobox import check_same_grid
from hsfusion.scenes.labels import read_label_pair
from hsfusion.scenes.legend import PALETTE


@pytest.mark.parametrize("dtype", ["u2", ">u2", "i2", "u4", ">i4", "i8", "u8", "f4", ">f8"])
def test_codes_of_any_number_type_are_kept(tmp_path, dtype):
    labels = read_labels(save(tmp_path / "gt.npy", CODES.astype(dtype)), scene_of())
    assert labels.codes.dtype == np.int32
    np.testing.assert_array_equal(labels.codes, CODES)
    assert labels.original == {1: 1, 7: 7, 300: 300}
    assert labels.legend().names == ("class 1", "class 7", "class 300")


@pytest.mark.parametrize("dtype", ["u1", "i1", "?"])
def test_small_number_types_are_read(tmp_path, dtype):
    labels = read_labels(save(tmp_path / "gt.npy", np.array([[0, 1, 1]]).astype(dtype)), scene_of((1, 3)))
    assert labels.codes.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "i8", "f4", "f8"])
def test_every_tiff_type_is_read(tmp_path, dtype):
    codes = np.minimum(CODES, 255)
    path = write_tiff(tmp_path / "gt.tif", codes.astype(dtype))
    np.testing.assert_array_equal(read_labels(path, scene_of(transform=TRANSFORM, crs=UTM)).codes, codes)


@pytest.mark.parametrize(
    ("codes", "dtype", "final"),
    [
        ([-3, 5, 0], "i2", {1: -3, 2: 5}),
        ([5, 70000, 0], "i4", {1: 5, 2: 70000}),
        ([2**24, 2**24 + 1, 0], "i4", {1: 2**24, 2: 2**24 + 1}),  # one and the same as float32
        ([2**62, 2**62 + 1, 0], "i8", {1: 2**62, 2: 2**62 + 1}),  # one and the same as float64
        ([2**64 - 1, 1, 0], "u8", {1: 1, 2: 2**64 - 1}),
        ([-(2**63), 2**63 - 1, 0], "i8", {1: -(2**63), 2: 2**63 - 1}),
        ([2.0**30, -1, 0], "f8", {1: -1, 2: 2**30}),
    ],
)
def test_codes_that_maps_cannot_hold_are_renumbered_exactly_and_loudly(tmp_path, caplog, codes, dtype, final):
    labels = read_labels(save(tmp_path / "gt.npy", np.array([codes], dtype)), scene_of((1, 3)))
    assert labels.original == final
    own = {code: value for value, code in final.items()} | {0: 0}
    assert labels.codes.tolist() == [[own[int(code)] for code in codes]]
    assert labels.legend().names == tuple(f"class {code}" for code in final.values())
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert ", ".join(f"{old} is {new}" for new, old in final.items()) in record.getMessage()


@pytest.mark.parametrize("unlabelled", [255, [255], (255, 9)])
def test_another_code_may_mean_unlabelled_and_then_0_is_a_class(tmp_path, unlabelled):
    path = save(tmp_path / "gt.npy", np.array([[0, 1, 255]], "u1"))
    labels = read_labels(path, scene_of((1, 3)), unlabelled=unlabelled)
    assert labels.codes.tolist() == [[1, 2, 0]]
    assert labels.legend(names={0: "water", 1: "soil"}).names == ("water", "soil")


def test_several_codes_may_mean_unlabelled(tmp_path):
    path = save(tmp_path / "gt.npy", np.array([[0, 4, 9, 255]]))
    assert read_labels(path, scene_of((1, 4)), unlabelled=[0, 9, 255]).codes.tolist() == [[0, 4, 0, 0]]


def test_nan_nodata_and_mask_are_unlabelled(tmp_path):
    scene = scene_of((1, 3), transform=TRANSFORM, crs=UTM)
    values = np.array([[np.nan, 2, -9999]], "f4")
    path = write_tiff(tmp_path / "nodata.tif", values, nodata=-9999)
    assert read_labels(path, scene).codes.tolist() == [[0, 2, 0]]
    path = write_tiff(tmp_path / "mask.tif", np.array([[1, 2, 3]], "u1"), mask=np.array([[255, 255, 0]], "u1"))
    labels = read_labels(path, scene)
    assert labels.codes.tolist() == [[1, 2, 0]]
    assert labels.legend().codes == (1, 2)
    values = np.array([[np.nan, 2, 3]], "f4")
    path = write_tiff(tmp_path / "both.tif", values, mask=np.array([[255, 255, 0]], "u1"))
    assert read_labels(path, scene).codes.tolist() == [[0, 2, 0]]
    path = write_tiff(tmp_path / "int.tif", np.array([[0, 1, 255]], "u1"), nodata=255)
    assert read_labels(path, scene, unlabelled=[]).codes.tolist() == [[1, 2, 0]]


def test_map_that_hsfusion_wrote_reads_back_as_labels_with_names_and_colours(tmp_path):
    legend = Legend((2, 9, 300), ("a & b", "ü", "<c>"), ("#010203", "#ff8000", "#000000"))
    values = np.array([[0, 2, 9], [300, 300, 0]])
    write_class_map(tmp_path / "m", values, legend=legend, geobox=GeoBox((2, 3), TRANSFORM, UTM), tags={"scene": "s"})
    labels = read_labels(tmp_path / "m", scene_of(transform=TRANSFORM, crs=UTM))
    np.testing.assert_array_equal(labels.codes, values)
    assert labels.legend() == legend


def test_names_of_the_sidecar_alone_are_taken(tmp_path):
    path = write_tiff(tmp_path / "gt.tif", CODES.astype("u2"))
    names = "".join(f"<Category>{'two  words' if i == 7 else ''}</Category>" for i in range(10))
    write_pam(path, f"<CategoryNames>{names}</CategoryNames>")
    labels = read_labels(path, scene_of(transform=TRANSFORM, crs=UTM))
    assert labels.legend().names == ("class 1", "two words", "class 300")


def test_tags_go_before_category_names(tmp_path):
    path = write_tiff(tmp_path / "gt.tif", CODES.astype("u2"), tags={"class_7": "tag"})
    write_pam(path, "<CategoryNames>" + "".join(f"<Category>{i}th</Category>" for i in range(8)) + "</CategoryNames>")
    assert read_labels(path, scene_of(**PLACED)).legend().names == ("1th", "tag", "class 300")


def test_black_that_only_fills_a_colour_table_is_no_colour(tmp_path):
    path = write_tiff(tmp_path / "gt.tif", np.array([[1, 7, 9]], "u1"), colormap={1: (1, 2, 3, 255)})
    labels = read_labels(path, scene_of((1, 3), transform=TRANSFORM, crs=UTM))
    assert labels.legend().colors == ("#010203", *PALETTE[:2])


def test_envi_classification_keeps_names_and_colours(tmp_path):
    lookup = "{0, 0, 0, 255, 0, 0, 0, 255, 0}"
    fields = {"classes": 3, "class names": "{Unclassified, corn field, woods}", "class lookup": lookup}
    labels = read_labels(write_envi(tmp_path, np.array([[0, 1, 2]]), **fields), scene_of((1, 3)))
    assert labels.codes.tolist() == [[0, 1, 2]]
    assert labels.legend() == Legend((1, 2), ("corn field", "woods"), ("#ff0000", "#00ff00"))


def test_named_class_0_that_is_taken_as_unlabelled_is_told(tmp_path, caplog):
    path = write_envi(tmp_path, np.array([[0, 1]]), classes=2, **{"class names": "{Water, Soil}"})
    read_labels(path, scene_of((1, 2)))
    assert "calls code 0 Water" in caplog.text
    assert read_labels(path, scene_of((1, 2)), unlabelled=[]).legend().names == ("Water", "Soil")


@pytest.mark.parametrize(("nodata", "warned"), [(255, True), (0, False), (None, False)])
def test_zero_beside_another_nodata_is_said_to_be_no_class(tmp_path, caplog, nodata, warned):
    path = write_tiff(tmp_path / "gt.tif", np.array([[0, 1, 255]], "u1"), nodata=nodata)
    read_labels(path, scene_of((1, 3), transform=TRANSFORM, crs=UTM))
    assert ("0 counts as no class, although nodata is 255" in caplog.text) == warned
    caplog.clear()
    read_labels(path, scene_of((1, 3), transform=TRANSFORM, crs=UTM), unlabelled=[])
    assert "no class" not in caplog.text


def test_users_names_and_colours_go_by_the_codes_of_the_file_and_before_its_own(tmp_path):
    path = write_tiff(tmp_path / "gt.tif", np.array([[-1, 0, 1]], "i2"), tags={"class_-1": "sea", "class_1": "land"})
    labels = read_labels(path, scene_of((1, 3), transform=TRANSFORM, crs=UTM))
    assert labels.legend() == Legend((1, 2), ("sea", "land"), PALETTE[:2])
    legend = labels.legend(names={"-1": "deep sea"}, colors={1: "#ABCDEF"})
    assert legend == Legend((1, 2), ("deep sea", "land"), (PALETTE[0], "#abcdef"))
    with pytest.raises(InputError, match=r"class_names is \[2\], expected codes of the labels -1, 1\. Fix: drop them"):
        labels.legend(names={2: "land"})


def test_one_legend_serves_scenes_that_lack_some_of_its_codes(tmp_path, caplog):
    labels = read_labels(save(tmp_path / "gt.npy", np.array([[2, 1]])), scene_of((1, 2)))
    assert labels.legend(names={1: "a", 2: "b", 6: "moor"}).names == ("a", "b")
    assert caplog.messages == ["class_names: no pixel of this scene has the codes 6."]
    one_off = ["a", "b", "c"], {0: "a", 1: "b"}, {2: "a", 3: "b"}
    for wrong in (*one_off, {1: "a", "moor": "b"}, {1: "a", 22: "b"}, {6: "moor"}):
        with pytest.raises(InputError, match="class_names is"):
            labels.legend(names=wrong)


def test_table_of_points_is_refused_with_the_way_to_use_it(tmp_path):
    (tmp_path / "points.csv").write_text("x,y,class\n500015,4499985,corn\n")
    with pytest.raises(InputError, match=r"points\.csv: format is CSV, .*delimited text layer .*GeoPackage"):
        read_labels(tmp_path / "points.csv", scene_of((1, 3), transform=TRANSFORM, crs=UTM))


def test_colours_that_are_taken_are_not_given_again():
    assert Legend.of(np.array([1, 2, 3]), colors={2: PALETTE[0]}).colors == (PALETTE[1], PALETTE[0], PALETTE[2])


def test_lists_of_names_and_colours_start_at_code_1(tmp_path):
    labels = read_labels(save(tmp_path / "gt.npy", np.array([[2, 1]])), scene_of((1, 2)))
    legend = labels.legend(names=["a", "b"], colors=["#000001", "#000002"])
    assert legend == Legend((1, 2), ("a", "b"), ("#000001", "#000002"))


def test_names_that_are_given_become_one_line(tmp_path):
    labels = read_labels(save(tmp_path / "gt.npy", np.array([[2, 1]])), scene_of((1, 2)))
    assert labels.legend(names={1: " a\n b ", 2: "c\x07"}).names == ("a b", "c\\x07")
    assert Legend((1,), (" Corn",), PALETTE[:1]) == Legend((1,), ("Corn",), PALETTE[:1])


@pytest.mark.parametrize(
    "given",
    [{"names": "corn"}, {"names": ["a", "b", "c"]}, {"names": {1: "a", 2: " a"}}, {"names": {9: "x"}}]
    + [{"names": {2: ""}}, {"names": ["a", " "]}]
    + [{"colors": color} for color in ("#ffffff", {1: "red"}, {1: "#fff"}, {1: 255}, {3: "#ffffff"}, {"x": "#ffffff"})],
)
def test_names_and_colours_that_fit_no_class_are_one_line(tmp_path, given):
    labels = read_labels(save(tmp_path / "gt.npy", np.array([[2, 1]])), scene_of((1, 2)))
    with pytest.raises(InputError, match=r"^legend: .* is .*, expected .*\. Fix: .*") as caught:
        labels.legend(**given)
    assert "\n" not in str(caught.value)


def test_two_files_get_one_numbering(tmp_path):
    files = [
        save(tmp_path / "a.npy", np.array([[70000, 5, 0, 0]])),
        save(tmp_path / "b.npy", np.array([[0, 0, 5, -2]])),
    ]
    labels, in_first, in_second = read_label_pair(*files, scene_of((1, 4)))
    assert labels.codes.tolist() == [[3, 2, 2, 1]]
    assert labels.original == {1: -2, 2: 5, 3: 70000}
    assert labels.legend().names == ("class -2", "class 5", "class 70000")
    assert (in_first.tolist(), in_second.tolist()) == ([[True, True, False, False]], [[False, False, True, True]])


def test_class_of_code_0_in_a_pair_is_logged(tmp_path, caplog):
    files = []
    for i, codes in enumerate(([[0, 1, 0]], [[0, 0, 1]])):
        (tmp_path / str(i)).mkdir()
        files.append(write_envi(tmp_path / str(i), np.array(codes), classes=2, **{"class names": "{Water, Soil}"}))
    read_label_pair(*files, scene_of((1, 3)))
    assert caplog.text.count("calls code 0 Water") == 2


@pytest.mark.parametrize(("second", "refused"), [("Water, Soil", True), ("Soil, Water", False)])
def test_pair_that_gives_a_code_two_names_is_refused(tmp_path, second, refused):
    files = []
    for i, (codes, names) in enumerate((([[1, 2, 0]], "Soil, Water"), ([[0, 0, 1]], second))):
        (tmp_path / str(i)).mkdir()
        fields = {"class names": f"{{Unclassified, {names}}}"}
        files.append(write_envi(tmp_path / str(i), np.array(codes), classes=3, **fields))
    if refused:
        with pytest.raises(
            InputError, match=r"name of class 1 is Water, expected Soil as in .* Fix: number the classes"
        ):
            read_label_pair(*files, scene_of((1, 3)))
    else:
        assert read_label_pair(*files, scene_of((1, 3)))[0].legend().names == ("Soil", "Water")


def test_file_of_a_pair_without_labels_is_named(tmp_path):
    files = [save(tmp_path / "a.npy", np.array([[1, 2]])), save(tmp_path / "b.npy", np.array([[0, 0]]))]
    with pytest.raises(InputError, match=r"b\.npy: number of labelled pixels is 0"):
        read_label_pair(*files, scene_of((1, 2)))


def test_labels_shifted_by_half_a_pixel_are_refused_and_by_less_than_a_thousandth_are_not(tmp_path):
    scene = scene_of(transform=TRANSFORM, crs=UTM)
    for shift, fine in ((0.02, True), (15.0, False)):
        path = write_tiff(tmp_path / "gt.tif", CODES.astype("u2"), transform=moved(shift))
        if fine:
            assert read_labels(path, scene).codes.tolist() == CODES.tolist()
        else:
            with pytest.raises(InputError, match=r"gt\.tif: transform is \(30.* as the scene s, to 1e-3 pixel"):
                read_labels(path, scene)


@pytest.mark.parametrize("epsg", [4326, 3035, 32633, 31467, 2154, 27700])
@pytest.mark.parametrize("version", WktVersion)
def test_one_crs_in_another_dialect_is_the_same_grid(epsg, version):
    crs = CRS.from_epsg(epsg)
    boxes = [GeoBox((2, 3), TRANSFORM, wkt) for wkt in (crs.to_wkt(), crs.to_wkt(version=version))]
    check_same_grid(*boxes, source="a", reference="b")


@pytest.mark.parametrize("crs", ["EPSG:32633", CRS.from_epsg(32633), 32633, {"init": "EPSG:32633"}])
def test_crs_of_a_geobox_is_wkt_whatever_form_is_given(crs):
    assert GeoBox((2, 3), TRANSFORM, crs).crs == CRS.from_epsg(32633).to_wkt()


@pytest.mark.parametrize("version", ["WKT1_ESRI", "WKT2_2019"])
def test_wkt_of_a_geobox_stays_as_it_is(version):
    wkt = CRS.from_epsg(32633).to_wkt(version=version) + "\n"
    assert GeoBox((2, 3), TRANSFORM, wkt).crs == wkt


@pytest.mark.parametrize("crs", ["UTM 33", "EPSG:none", "PROJCS[none]", 3.5])
def test_crs_that_is_none_is_one_line(crs):
    with pytest.raises(InputError, match=r"GeoBox: crs is .*, expected WKT, an EPSG code such as EPSG:32633") as error:
        GeoBox((2, 3), TRANSFORM, crs)
    assert "\n" not in str(error.value)


def test_order_of_axes_makes_no_other_crs():
    boxes = [GeoBox((2, 3), TRANSFORM, CRS.from_user_input(name).to_wkt()) for name in ("OGC:CRS84", "EPSG:4326")]
    check_same_grid(*boxes, source="a", reference="b")


@pytest.mark.parametrize("pair", [(32633, 25833), (4326, 4258), (28355, 7855), (32633, 32632), (32633, 32733)])
def test_crs_that_differ_by_datum_or_zone_are_told_by_name(pair):
    boxes = [GeoBox((2, 3), TRANSFORM, CRS.from_epsg(code).to_wkt()) for code in pair]
    with pytest.raises(InputError, match=rf"CRS is .*EPSG:{pair[0]}\), expected .*EPSG:{pair[1]}\) as b"):
        check_same_grid(*boxes, source="a", reference="b")


def refused(path, scene, **options):
    with pytest.raises(InputError, match=r"^[^\n]+: .* (is|are) .*, expected .*\. Fix: .*") as caught:
        read_labels(path, scene, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("kind", ARRAYS)
def test_array_that_holds_no_labels_is_one_line(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "gt.npy", ARRAYS[kind], allow_pickle=True)
    assert "gt.npy" in refused(tmp_path / "gt.npy", scene_of((1, 3)))
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("kind", FILES)
def test_file_that_holds_no_labels_of_this_scene_is_one_line(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) in refused(FILES[kind](tmp_path), scene_of((1, 3), **PLACED))
    assert not (tmp_path / "trapped").exists()


def test_more_codes_than_a_label_raster_has_are_refused(tmp_path):
    path = save(tmp_path / "gt.npy", np.arange(4098)[None])
    assert "number of classes is 4097" in refused(path, scene_of((1, 4098)))


def test_names_that_repeat_are_refused_until_the_user_renames_one(tmp_path):
    path = write_envi(tmp_path, np.array([[1, 2]]), classes=3, **{"class names": "{Unclassified, corn, corn}"})
    labels = read_labels(path, scene_of((1, 2)))
    with pytest.raises(InputError, match=r"names is \['corn'\] for more than one class"):
        labels.legend()
    assert labels.legend(names={2: "maize"}).names == ("corn", "maize")


@pytest.mark.parametrize("option", [{"class_field": "code"}, {"variable": "gt"}])
def test_options_of_other_formats_are_refused(tmp_path, option):
    text = refused(save(tmp_path / "gt.npy", np.ones((1, 3), int)), scene_of((1, 3)), **option)
    assert next(iter(option)) in text
