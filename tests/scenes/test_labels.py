import logging
import os
import pickle

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import WktVersion

from hsfusion.errors import InputError
from hsfusion.scenes import ArrayScene, GeoBox, Legend, read_labels, write_class_map
from hsfusion.scenes.geobox import check_same_grid
from hsfusion.scenes.labels import Labels, on_one_legend
from hsfusion.scenes.legend import PALETTE
from hsfusion.spectra import Bands

TRANSFORM = Affine(30.0, 2.0, 500000.0, 2.0, -30.0, 4500000.0)
UTM = CRS.from_epsg(32633).to_wkt()
PLACED = {"transform": TRANSFORM, "crs": UTM}
CODES = np.array([[0, 1, 1], [7, 0, 300]])  # (H, W)


def moved(metres):
    return Affine(30.0, 2.0, 500000.0 + metres, 2.0, -30.0, 4500000.0)


def scene_of(shape=(2, 3), **place):
    cube = np.zeros((1, *shape), np.float32)
    return ArrayScene(cube, bands=Bands.from_wavelengths([500.0]), name="s", geobox=GeoBox(shape, **place))


def save(path, array):
    np.save(path, array)
    return path


def write_tiff(path, values, *, transform=TRANSFORM, crs=UTM, colormap=None, tags=None, mask=None, **profile):
    layers = values if values.ndim == 3 else values[None]
    shape = {"count": layers.shape[0], "height": layers.shape[1], "width": layers.shape[2]}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", dtype=layers.dtype, transform=transform, crs=crs, **shape, **profile
        ) as file,
    ):
        file.write(layers)
        file.update_tags(**(tags or {}))
        if colormap:
            file.write_colormap(1, colormap)
        if mask is not None:
            file.write_mask(mask)
    return path


def write_envi(folder, values, **fields):
    (folder / "gt").write_bytes(values.astype("u1").tobytes())
    header = {"samples": values.shape[1], "lines": values.shape[0], "bands": 1, "data type": 1, "interleave": "bsq"}
    header |= {"file type": "ENVI Classification"} | fields
    (folder / "gt.hdr").write_text("\n".join(["ENVI", *(f"{key} = {value}" for key, value in header.items())]) + "\n")
    return folder / "gt"


def write_pam(path, inside):
    path.with_name(f"{path.name}.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1">{inside}</PAMRasterBand></PAMDataset>', encoding="utf-8"
    )


@pytest.mark.parametrize("dtype", ["u2", ">u2", "i2", "u4", ">i4", "i8", "u8", "f4", ">f8"])
def test_codes_of_any_number_type_are_kept(tmp_path, dtype):
    labels = read_labels(save(tmp_path / "gt.npy", CODES.astype(dtype)), scene_of())
    assert labels.codes.dtype == np.int64
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


def test_tags_go_before_category_names_and_these_before_an_attribute_table(tmp_path):
    path = write_tiff(tmp_path / "gt.tif", CODES.astype("u2"), tags={"class_7": "tag"})
    names = "".join(f"<Category>{i}th</Category>" for i in range(8))
    write_pam(path, f"<CategoryNames>{names}</CategoryNames>{TABLE}")
    assert read_labels(path, scene_of(**PLACED)).legend().names == ("1th", "tag", "woods")


TABLE = """<GDALRasterAttributeTable>
<FieldDefn index="0"><Name>Value</Name><Type>0</Type><Usage>5</Usage></FieldDefn>
<FieldDefn index="1"><Name>Class</Name><Type>2</Type><Usage>2</Usage></FieldDefn>
<FieldDefn index="2"><Name>R</Name><Type>0</Type><Usage>6</Usage></FieldDefn>
<FieldDefn index="3"><Name>G</Name><Type>0</Type><Usage>7</Usage></FieldDefn>
<FieldDefn index="4"><Name>B</Name><Type>0</Type><Usage>8</Usage></FieldDefn>
<Row index="0"><F>1</F><F>corn</F><F>255</F><F>128</F><F>0</F></Row>
<Row index="1"><F>300</F><F>woods</F><F>0</F><F>16</F><F>1</F></Row></GDALRasterAttributeTable>"""


def test_names_and_colours_of_an_attribute_table_are_taken(tmp_path):
    path = write_tiff(tmp_path / "gt.tif", CODES.astype("u2"))
    write_pam(path, TABLE)
    labels = read_labels(path, scene_of(transform=TRANSFORM, crs=UTM))
    assert labels.legend().names == ("corn", "class 7", "woods")
    assert labels.legend().colors == ("#ff8000", PALETTE[0], "#001001")


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
    assert "calls code 0 Water; it is taken as unlabelled" in caplog.text
    assert read_labels(path, scene_of((1, 2)), unlabelled=[]).legend().names == ("Water", "Soil")


def test_users_names_and_colours_go_by_the_codes_of_the_file_and_before_its_own(tmp_path):
    path = write_tiff(tmp_path / "gt.tif", np.array([[-1, 0, 1]], "i2"), tags={"class_-1": "sea", "class_1": "land"})
    labels = read_labels(path, scene_of((1, 3), transform=TRANSFORM, crs=UTM))
    assert labels.legend() == Legend((1, 2), ("sea", "land"), PALETTE[:2])
    legend = labels.legend(names={"-1": "deep sea"}, colors={1: "#ABCDEF"})
    assert legend == Legend((1, 2), ("deep sea", "land"), (PALETTE[0], "#abcdef"))
    with pytest.raises(InputError, match=r"class_names is \[2\], expected codes of the labels -1, 1\. Fix: drop them"):
        labels.legend(names={2: "land"})


def test_colours_that_are_taken_are_not_given_again():
    assert Legend.of(np.array([1, 2, 3]), colors={2: PALETTE[0]}).colors == (PALETTE[1], PALETTE[0], PALETTE[2])


def test_lists_of_names_and_colours_start_at_code_1(tmp_path):
    labels = read_labels(save(tmp_path / "gt.npy", np.array([[2, 1]])), scene_of((1, 2)))
    legend = labels.legend(names=["a", "b"], colors=["#000001", "#000002"])
    assert legend == Legend((1, 2), ("a", "b"), ("#000001", "#000002"))


@pytest.mark.parametrize(
    "given",
    [{"names": "corn"}, {"names": 5}, {"names": ["a", "b", "c"]}, {"names": {1: "a", 2: "a"}}, {"names": {9: "x"}}]
    + [{"colors": color} for color in ("#ffffff", {1: "red"}, {1: "#fff"}, {1: 255}, {3: "#ffffff"}, {"x": "#ffffff"})],
)
def test_names_and_colours_that_fit_no_class_are_one_line(tmp_path, given):
    labels = read_labels(save(tmp_path / "gt.npy", np.array([[2, 1]])), scene_of((1, 2)))
    with pytest.raises(InputError, match=r"^legend: .* is .*, expected .*\. Fix: .*") as caught:
        labels.legend(**given)
    assert "\n" not in str(caught.value)


def test_two_files_are_put_on_one_legend(tmp_path):
    scene = scene_of((1, 4))
    first = read_labels(save(tmp_path / "a.npy", np.array([[70000, 5, 0, 0]])), scene)
    second = read_labels(save(tmp_path / "b.npy", np.array([[0, 0, 5, -2]])), scene)
    one, two, both = on_one_legend(first, second)
    assert one.codes.tolist() == [[3, 2, 0, 0]]
    assert two.codes.tolist() == [[0, 0, 2, 1]]
    assert both.codes.tolist() == [[3, 2, 2, 1]]
    assert both.original == {1: -2, 2: 5, 3: 70000}
    assert both.legend().names == ("class -2", "class 5", "class 70000")


def test_codes_and_names_go_on_no_one_legend():
    codes, words = (Labels(np.ones((1, 1), np.int64), {}, {}, {1: own}) for own in (1, "corn"))
    with pytest.raises(InputError, match="codes in one and names in the other"):
        on_one_legend(codes, words)


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


def test_order_of_axes_makes_no_other_crs():
    boxes = [GeoBox((2, 3), TRANSFORM, CRS.from_user_input(name).to_wkt()) for name in ("OGC:CRS84", "EPSG:4326")]
    check_same_grid(*boxes, source="a", reference="b")


@pytest.mark.parametrize("pair", [(32633, 25833), (4326, 4258), (28355, 7855), (32633, 32632), (32633, 32733)])
def test_crs_that_differ_by_datum_or_zone_are_told_by_name(pair):
    boxes = [GeoBox((2, 3), TRANSFORM, CRS.from_epsg(code).to_wkt()) for code in pair]
    with pytest.raises(InputError, match=rf"CRS is .*EPSG:{pair[0]}\), expected .*EPSG:{pair[1]}\) as b"):
        check_same_grid(*boxes, source="a", reference="b")


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("trapped",))


PAM_NAMES = "<CategoryNames><Category>{}</Category></CategoryNames>"
ARRAYS = {
    "fraction": np.array([[0, 1.5, 2]]),
    "almost whole": np.array([[0, 1 + 2**-50, 2]]),
    "half precision beyond its whole numbers": np.array([[0, 4096, 2]], "f2"),
    "float32 beyond its whole numbers": np.array([[0, 2**25, 2]], "f4"),
    "float64 beyond its whole numbers": np.array([[0, 2.0**60, 2]]),
    "infinite": np.array([[0, np.inf, 2]]),
    "minus infinite": np.array([[0, -np.inf, 2]]),
    "all NaN": np.full((1, 3), np.nan),
    "all unlabelled": np.zeros((1, 3), int),
    "complex": np.array([[0, 1j, 2]]),
    "words": np.array([["a", "b", "c"]]),
    "bytes": np.array([[b"a", b"b", b"c"]]),
    "objects": np.array([[0, 1, None]], object),
    "pickle": np.array([[Trap()] * 3], object),
    "records": np.zeros((1, 3), [("a", "u1"), ("b", "u1")]),
    "dates": np.zeros((1, 3), "M8[s]"),
    "another shape": np.ones((1, 4), int),
    "transposed": np.ones((3, 1), int),
    "flat": np.ones(3, int),
    "empty": np.ones((0, 3), int),
    "picture": np.ones((1, 3, 3), "u1"),
    "one hot": np.eye(3, dtype=int)[None],
    "four axes": np.ones((1, 3, 1, 1), int),
}
FILES = {
    "no file": lambda folder: folder / "gt.tif",
    "folder": lambda folder: folder,
    "empty file": lambda folder: _bytes(folder, b""),
    "text": lambda folder: _bytes(folder, b"0,1,2\n"),
    "picture as PNG": lambda folder: _bytes(folder, b"\x89PNG\r\n\x1a\n" + b"\0" * 100),
    "bare pickle": lambda folder: _bytes(folder, pickle.dumps(Trap())),
    "VRT": lambda folder: _bytes(folder, b'<VRTDataset rasterXSize="3" rasterYSize="1"></VRTDataset>'),
    "truncated npy": lambda folder: _bytes(folder, save(folder / "a.npy", np.ones((1, 3), int)).read_bytes()[:-5]),
    "truncated tiff": lambda folder: _bytes(folder, _tiff(folder).read_bytes()[:150]),
    "other CRS": lambda folder: _tiff(folder, crs="EPSG:32632"),
    "other zone, south": lambda folder: _tiff(folder, crs="EPSG:32733"),
    "shifted": lambda folder: _tiff(folder, transform=moved(0.3)),
    "pixels twice as large": lambda folder: _tiff(folder, transform=Affine(60.0, 4.0, 500000.0, 4.0, -60.0, 4500000.0)),
    "north down": lambda folder: _tiff(folder, transform=Affine(30.0, -2.0, 500000.0, 2.0, 30.0, 4500000.0)),
    "tiff of another shape": lambda folder: _tiff(folder, np.ones((2, 3), "u1")),
    "RGB": lambda folder: _tiff(folder, np.ones((3, 1, 3), "u1"), photometric="rgb"),
    "complex tiff": lambda folder: _tiff(folder, np.ones((1, 3), "c8")),
    "fractional tiff": lambda folder: _tiff(folder, np.full((1, 3), 0.25, "f4")),
    "all nodata": lambda folder: _tiff(folder, np.full((1, 3), 7, "u1"), nodata=7),
    "all masked": lambda folder: _tiff(folder, mask=np.zeros((1, 3), "u1")),
    "scaled": lambda folder: _scaled(_tiff(folder), scales=(0.1,)),
    "with offset": lambda folder: _scaled(_tiff(folder), offsets=(100.0,)),
    "broken sidecar": lambda folder: _pam(_tiff(folder), "<CategoryNames>"),
    "sidecar with entities": lambda folder: _sidecar(
        _tiff(folder), b'<!DOCTYPE a [<!ENTITY x "y">]><PAMDataset>&x;</PAMDataset>'
    ),
    "sidecar that is empty": lambda folder: _sidecar(_tiff(folder), b""),
    "sidecar in no encoding": lambda folder: _sidecar(_tiff(folder), b'<?xml version="1.0" encoding="x"?><a/>'),
    "sidecar of zeros": lambda folder: _sidecar(_tiff(folder), b"\0" * 100),
    "endless name": lambda folder: _pam(_tiff(folder), PAM_NAMES.format("x" * 201)),
    "name that turns the line round": lambda folder: _tiff(folder, tags={"class_1": "a\u202eb"}),
    "attribute table without numbers": lambda folder: _pam(_tiff(folder), TABLE.replace("<F>1</F>", "<F>one</F>")),
    "attribute table of short rows": lambda folder: _pam(_tiff(folder), TABLE.replace("<F>128</F>", "")),
    "attribute table of bright colours": lambda folder: _pam(_tiff(folder), TABLE.replace("128", "256")),
    "ENVI, fewer names": lambda folder: _envi(folder, classes=3, names="{a, b}"),
    "ENVI, names without classes": lambda folder: _envi(folder, names="{a, b}"),
    "ENVI, classes in words": lambda folder: _envi(folder, classes="two", names="{a, b}"),
    "ENVI, no list": lambda folder: _envi(folder, classes=1, names="a"),
    "ENVI, short lookup": lambda folder: _envi(folder, classes=2, lookup="{0, 0, 0}"),
    "ENVI, bright lookup": lambda folder: _envi(folder, classes=1, lookup="{0, 0, 256}"),
    "ENVI, fractional lookup": lambda folder: _envi(folder, classes=1, lookup="{0, 0, 0.5}"),
    "ENVI, lookup in words": lambda folder: _envi(folder, classes=1, lookup="{0, 0, red}"),
    "ENVI, scaled": lambda folder: write_envi(folder, np.ones((1, 3)), **{"reflectance scale factor": 10}),
}


def _bytes(folder, content):
    (folder / "gt").write_bytes(content)
    return folder / "gt"


def _tiff(folder, values=None, **kwargs):
    return write_tiff(folder / "gt.tif", np.array([[0, 1, 2]], "u1") if values is None else values, **kwargs)


def _pam(path, inside):
    write_pam(path, inside)
    return path


def _sidecar(path, content):
    path.with_name(f"{path.name}.aux.xml").write_bytes(content)
    return path


def _scaled(path, **what):
    with rasterio.open(path, "r+") as file:
        for name, value in what.items():
            setattr(file, name, value)
    return path


def _envi(folder, *, classes=None, names=None, lookup=None):
    fields = {"classes": classes, "class names": names, "class lookup": lookup}
    return write_envi(folder, np.ones((1, 3)), **{key: value for key, value in fields.items() if value is not None})


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
    path = save(tmp_path / "gt.npy", np.arange(4097)[None])
    assert "4097 different ones, expected at most 4096" in refused(path, scene_of((1, 4097)))


def test_names_that_repeat_are_refused_until_the_user_renames_one(tmp_path):
    path = write_envi(tmp_path, np.array([[1, 2]]), classes=3, **{"class names": "{Unclassified, corn, corn}"})
    labels = read_labels(path, scene_of((1, 2)))
    with pytest.raises(InputError, match=r"names is \['corn'\] for more than one class"):
        labels.legend()
    assert labels.legend(names={2: "maize"}).names == ("corn", "maize")


@pytest.mark.parametrize("unlabelled", ["0", 0.5, None, True, ["a"], [None], {"a": 1}])
def test_unlabelled_that_is_no_code_is_refused(tmp_path, unlabelled):
    path = save(tmp_path / "gt.npy", np.ones((1, 3), int))
    assert "scene: unlabelled is" in refused(path, scene_of((1, 3)), unlabelled=unlabelled)


@pytest.mark.parametrize("option", [{"class_field": "code"}, {"variable": "gt"}])
def test_options_of_other_formats_are_refused(tmp_path, option):
    refused(save(tmp_path / "gt.npy", np.ones((1, 3), int)), scene_of((1, 3)), **option)
