import numpy as np
import pytest
import rasterio
from affine import Affine

from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.scenes import (
    ArrayRaster,
    ArrayScene,
    BandSelection,
    GeoBox,
    LabelledScene,
    Legend,
    Mosaic,
    StackedScene,
    Window,
    join_scenes,
    open_labelled_scene,
    open_scene,
    open_with_sources,
    read_labels,
    write_class_map,
    write_raster,
)
from hsfusion.scenes.scene import fingerprint
from hsfusion.scenes.simulate import SimulatedScene
from hsfusion.spectra import Bands

TRANSFORM = Affine(30.0, 2.0, 500000.0, 2.0, -30.0, 4500000.0)
UTM = rasterio.crs.CRS.from_epsg(32633).to_wkt()


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "bands.csv"
    path.write_text("wavelength_nm\n450\n550\n650\n")
    return path


def test_wavelengths_of_another_number_name_both_numbers(tmp_path, table):
    np.save(tmp_path / "cube.npy", np.zeros((4, 5, 4)))
    with pytest.raises(InputError, match="number of wavelengths is 3, expected 4"):
        open_scene(tmp_path / "cube.npy", wavelengths=table)


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x93NUMPY\x01\x00", b"II*\0\x08\0\0\0"])
def test_file_that_is_no_raster_is_one_clear_line(tmp_path, table, content):
    path = tmp_path / "cube.tif"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cube\.tif: .* expected"):
        open_scene(path, wavelengths=table)


def test_pickled_array_is_never_loaded(tmp_path, table):
    np.save(tmp_path / "cube.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"cube\.npy: .*expected"):
        open_scene(tmp_path / "cube.npy", wavelengths=table)


def scene_of(shape=(4, 5), **place):
    return ArrayScene(
        np.zeros((1, *shape)), bands=Bands.from_wavelengths([500.0]), name="s", geobox=GeoBox(shape, **place)
    )


def test_labels_of_another_shape_name_both_shapes(tmp_path):
    np.save(tmp_path / "gt.npy", np.ones((4, 6), int))
    with pytest.raises(InputError, match=r"gt\.npy: shape .*\(4, 6\), expected \(4, 5\)"):
        read_labels(tmp_path / "gt.npy", scene_of())


def test_legend_maps_sparse_codes_to_indices_and_back():
    legend = Legend.of(np.array([[0, 10, 14], [1, 10, 0]]), names={10: "broccoli"})
    assert legend.codes == (1, 10, 14)
    assert legend.names == ("class 1", "broccoli", "class 14")
    assert legend.indices(np.array([0, 1, 10, 14, 99, 5])).tolist() == [-1, 0, 1, 2, -1, -1]


def test_labels_and_scene_of_two_shapes_do_not_go_together():
    with pytest.raises(InputError, match=r"\(3, 3\)"):
        LabelledScene(scene_of(), np.ones((3, 3), np.int64), Legend.of(np.ones((3, 3), int)))


def test_open_labelled_scene_takes_names_as_a_list(tmp_path, table):
    np.save(tmp_path / "cube.npy", np.arange(60).reshape(4, 5, 3))
    labels = np.ones((4, 5), int)
    labels[0] = 2
    np.save(tmp_path / "gt.npy", labels)
    labelled = open_labelled_scene(
        tmp_path / "cube.npy", labels=tmp_path / "gt.npy", wavelengths=table, class_names=["corn", "woods"]
    )
    assert labelled.legend.names == ("corn", "woods")


@pytest.mark.parametrize(("codes", "dtype"), [((1, 7, 255), "uint8"), ((1, 256), "uint16")])
def test_class_map_has_codes_colours_names_place_and_nodata(tmp_path, codes, dtype):
    values = np.array([[0, *codes]])
    legend = Legend(codes, tuple(f"a & b {c}" for c in codes), ("#ff8000", "#0000ff", "#112233")[: len(codes)])
    path = tmp_path / "map.tif"
    write_class_map(
        path, values, legend=legend, geobox=GeoBox(values.shape, TRANSFORM, UTM), tags={"scene": " s\a", "note": ""}
    )
    with rasterio.open(path) as file:
        assert (file.read(1) == values).all()
        assert file.dtypes == (dtype,)
        assert file.nodata == 0
        assert file.colormap(1)[codes[0]] == (255, 128, 0, 255)
        assert file.transform == TRANSFORM
        assert file.crs.to_epsg() == 32633
        assert file.tags()[f"class_{codes[0]}"] == f"a & b {codes[0]}"
        assert file.tags()["scene"] == r"s\x07"
    xml = (tmp_path / "map.tif.aux.xml").read_text()
    assert xml.count("<Category>") == codes[-1] + 1
    assert f"<Category>a &amp; b {codes[-1]}</Category></CategoryNames>" in xml


def test_raster_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "map.tif"
    write_raster(path, np.ones((2, 2), np.uint8), geobox=GeoBox((2, 2)))
    before = path.read_bytes()
    monkeypatch.setattr(np, "array_equal", lambda *a, **k: False)  # a disk that gives back something else
    with pytest.raises(EnvironmentFailure, match="read back differently"):
        write_raster(path, np.zeros((2, 2), np.uint8), geobox=GeoBox((2, 2)))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_every_scene_made_of_files_leads_to_them_and_to_what_their_numbers_mean(tmp_path, table):
    for name in ("north", "south"):
        np.save(tmp_path / f"{name}.npy", np.ones((4, 5, 3), np.uint16))
    np.save(tmp_path / "lidar.npy", np.ones((4, 5, 1), np.float32))
    parts = [
        open_with_sources(
            tmp_path / f"{name}.npy", wavelengths=table, scale=0.5, sources={"lidar": tmp_path / "lidar.npy"}
        )
        for name in ("north", "south")
    ]
    labels = np.ones((4, 5), np.int64)
    joined = join_scenes([LabelledScene(part, labels, Legend.of(labels)) for part in parts]).scene
    taken = BandSelection(joined, bands=joined.bands, sources=joined.sources, needed=np.ones(4, bool))
    for scene in (joined, taken):
        assert [path.name for path in scene.files()] == ["north.npy", "lidar.npy", "south.npy", "lidar.npy"]
        assert [(entry["name"], entry["scale"]) for entry in scene.provenance()] == [("north", 0.5), ("south", 0.5)]
    assert fingerprint(taken) == fingerprint(joined)


def edited(path, before, after):
    path.write_text(path.read_text().replace(before, after))


def with_mask(path, value):
    with rasterio.open(path / "cube.tif", "r+") as file:
        file.write_mask(np.full((4, 4), value, np.uint8))


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("cube.img", {}, lambda path: edited(path / "cube.hdr", "order = 0", "order = 1")),
        ("cube.img", {}, lambda path: edited(path / "cube.hdr", "bil", "bip")),
        ("cube.tif", {}, lambda path: with_mask(path, 0)),
        ("two.npz", {"variable": "a"}, {"variable": "b"}),
        ("two.npz", {"variable": "a", "axes": ["col", "row", "band"]}, {"variable": "a"}),
        ("cube.npy", {"axes": ["col", "row", "band"]}, {}),
        (
            "cube.npy",
            {"sources": {"dsm": "cube.img"}},
            lambda path: edited(path / "cube.hdr", "order = 0", "order = 1"),
        ),
    ],
)
def test_fingerprint_changes_with_what_decides_on_the_pixels(tmp_path, table, monkeypatch, file, before, after):
    monkeypatch.chdir(tmp_path)
    cube = np.arange(64, dtype=np.int16).reshape(4, 4, 4)[..., :3]
    np.save("cube.npy", cube)
    np.savez("two.npz", a=cube, b=cube[::-1])
    cube.tofile("cube.img")
    text = "ENVI\nsamples = 4\nlines = 4\nbands = 3\ndata type = 2\ninterleave = bil\nbyte order = 0\n"
    (tmp_path / "cube.hdr").write_text(text)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        write_raster(tmp_path / "cube.tif", cube.transpose(2, 0, 1), geobox=GeoBox((4, 4), TRANSFORM))
        with_mask(tmp_path, 255)

        def opened(options):
            return open_with_sources(file, wavelengths=table, **options)

        first, first_again = opened(before), opened(before)
        known, pixels = fingerprint(first), first.read()
        assert fingerprint(first_again) == known
        if callable(after):
            after(tmp_path)
        second = opened(before if callable(after) else after)
    assert fingerprint(second) != known
    assert not np.array_equal(second.read(), pixels, equal_nan=True)


def scenes_of_every_type(path):
    cube = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    np.save(path / "flight.npy", cube.transpose(1, 2, 0))
    opened = open_scene(path / "flight.npy", wavelengths=[450, 550, 650], wavelength_unit="nm")
    bands = Bands(opened.bands.wavelength_nm, np.full(3, 100.0), np.ones(3, bool))
    array = ArrayScene(cube, bands=bands, name="array", geobox=GeoBox((4, 5), TRANSFORM, UTM))
    stacked = StackedScene(array, {"lidar": ArrayRaster(np.ones((1, 4, 5)))})
    selected = BandSelection(array, bands=bands, sources=(), needed=np.ones(3, bool))
    simulated = SimulatedScene(array, Bands(np.array([500.0]), np.array([100.0]), np.ones(1, bool)), name="coarse")
    return opened, array, stacked, selected, simulated, Mosaic([opened, array])


def test_every_scene_is_read_whole_without_a_window(tmp_path):
    for scene in scenes_of_every_type(tmp_path):
        whole = scene.read(Window(0, 0, *scene.geobox.shape))
        np.testing.assert_array_equal(scene.read(), whole)
        np.testing.assert_array_equal(scene.read(layers=np.array([0])), whole[:1])


def test_scenes_describe_themselves_in_one_line(tmp_path):
    opened, array, stacked, selected, *_ = scenes_of_every_type(tmp_path)
    assert repr(opened) == "<FileScene flight: 4 rows x 5 columns x 3 bands, 450-650 nm, no CRS>"
    place = "WGS 84 / UTM zone 33N (EPSG:32633)"
    assert repr(array) == f"<ArrayScene array: 4 rows x 5 columns x 3 bands, 450-650 nm, {place}>"
    assert repr(stacked) == f"<StackedScene array: 4 rows x 5 columns x 3 bands, 450-650 nm, lidar (1 layer), {place}>"
    assert repr(selected).startswith("<BandSelection array: 4 rows")


def test_labelled_scene_says_how_much_is_labelled(tmp_path):
    opened = scenes_of_every_type(tmp_path)[0]
    labelled = LabelledScene(
        opened, np.array([[0, 1, 1, 2, 2]] * 4), Legend((1, 2), ("moor", "wood"), ("#ff8000",) * 2)
    )
    assert repr(labelled) == f"LabelledScene({opened!r}, 16 labelled pixels of 2 classes)"
