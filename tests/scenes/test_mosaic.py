import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from hsfusion.errors import InputError
from hsfusion.scenes import ArrayRaster, ArrayScene, GeoBox, LabelledScene, Legend, StackedScene, Window, join_scenes
from hsfusion.scenes.legend import PALETTE
from hsfusion.scenes.mosaic import SEPARATOR_ROWS, check_same_unit, far_from_training, median_spectrum, on_common_legend
from hsfusion.scenes.scene import DerivedScene, read_all
from hsfusion.spectra import Bands


def scene(name, nm, shape, start=0, good=None):
    values = start + np.arange(len(nm) * shape[0] * shape[1], dtype=np.float32).reshape(len(nm), *shape)
    bands = Bands(
        np.array(nm, float), np.full(len(nm), 10.0), np.ones(len(nm), bool) if good is None else np.array(good)
    )
    return ArrayScene(values, bands=bands, name=name, geobox=GeoBox(shape, Affine(2, 0, start, 0, -2, 0)))


def labelled(cube, codes, names):
    labels = np.zeros(cube.geobox.shape, np.int64)
    for i, code in enumerate(codes):
        labels[i] = code
    return LabelledScene(cube, labels, Legend.of(labels, names=dict(zip(codes, names, strict=True))))


NORTH = scene("north", [500, 600, 700], (4, 5))
SOUTH = scene("south", [701, 400, 501, 598], (3, 2), start=100)  # another order, a band more, a few nm off


def test_single_scene_stays_as_it_is():
    one = labelled(NORTH, [1], ["corn"])
    assert join_scenes([one]) is one


def test_scenes_lie_below_each_other_with_bands_matched_by_wavelength():
    joined = join_scenes([labelled(NORTH, [1, 2], ["corn", "woods"]), labelled(SOUTH, [2], ["woods"])])
    cube = read_all(joined.scene)
    assert cube.shape == (3, 4 + SEPARATOR_ROWS + 3, 5)
    np.testing.assert_array_equal(cube[:, :4], read_all(NORTH))
    np.testing.assert_array_equal(cube[:, 4 + SEPARATOR_ROWS :, :2], read_all(SOUTH)[[2, 3, 0]])
    assert np.isnan(cube[:, 4 : 4 + SEPARATOR_ROWS]).all()
    assert np.isnan(cube[:, 4 + SEPARATOR_ROWS :, 2:]).all()
    assert joined.scene.bands.wavelength_nm.tolist() == [500, 600, 700]
    window = Window(2, 1, SEPARATOR_ROWS + 4, 3)
    np.testing.assert_array_equal(joined.scene.read(window), cube[:, 2 : SEPARATOR_ROWS + 6, 1:4])
    assert joined.labels[0, 0] == 1
    assert joined.labels[4 + SEPARATOR_ROWS].tolist() == [2, 2, 0, 0, 0]
    assert joined.legend.names == ("corn", "woods")


def test_classes_are_joined_by_name_and_codes_that_disagree_are_given_anew(caplog):
    first, second = labelled(NORTH, [3, 8], ["corn", "woods"]), labelled(SOUTH, [3, 4], ["woods", "rye"])
    joined = join_scenes([first, second])
    code = dict(zip(joined.legend.names, joined.legend.codes, strict=True))
    assert sorted(code.values()) == [1, 2, 3]
    assert joined.labels[:2, 0].tolist() == [code["corn"], code["woods"]]
    assert joined.labels[4 + SEPARATOR_ROWS : 6 + SEPARATOR_ROWS, 0].tolist() == [code["woods"], code["rye"]]
    assert "different codes" in caplog.text
    color = dict(zip(joined.legend.names, joined.legend.colors, strict=True))
    assert color["woods"] == first.legend.colors[1]  # the first scene that has the class decides


def test_band_that_one_scene_calls_bad_is_bad_and_may_be_missing():
    third = scene("third", [500, 700], (3, 3), good=[True, False])
    with pytest.raises(InputError, match=r"^third: missing bands is 600\.0 nm, expected the good bands of north"):
        join_scenes([labelled(NORTH, [1], ["a"]), labelled(third, [1], ["a"])])
    first = scene("first", [500, 600, 700], (4, 5), good=[True, False, True])
    joined = join_scenes([labelled(first, [1], ["a"]), labelled(third, [1], ["a"])])
    assert joined.scene.bands.good.tolist() == [True, False, False]
    assert np.isnan(read_all(joined.scene)[1, 4 + SEPARATOR_ROWS :]).all()


UTM = CRS.from_epsg(32632).to_wkt()


def date(name, *, row=0, crs=UTM, first=0):
    """A field of 40 rows and 5 columns, the upper half of which has another class; labelled from its first row on."""
    cube = scene(name, [500, 600, 700], (40, 5))
    cube.geobox = GeoBox((40, 5), Affine(2, 0, 100, 0, -2, 200 - 2 * row), crs)
    codes = [0] * first + [1] * (20 - first) + [2] * 20
    labels = np.repeat(codes, 5).reshape(40, 5)
    return LabelledScene(cube, labels, Legend.of(labels, names={1: "corn", 2: "rye"}))


@pytest.mark.parametrize("crs", [UTM, None])
def test_two_dates_of_one_field_are_refused(crs):
    fix = "train on one of them, or on both by scene=several"
    with pytest.raises(InputError, match=f"^june: number of labelled pixels that may also has is 195, .*{fix}"):
        join_scenes([date("may", crs=crs), date("june", crs=crs, first=1)])


@pytest.mark.parametrize("crs", [25832, 4326])
def test_dates_on_different_grids_are_refused_and_overlaps_of_them_warned_of(crs, caplog):
    west, north, size = 500_100.0, 5_000_200.0, 2.0
    places = [
        (np.arange(2) * 80 + west, north - np.arange(2) * 80),
        (west + np.arange(2) * 80, north - 76 - np.arange(2) * 80),
    ]
    one, *others = (date(name) for name in ("one", "again", "next"))
    one.scene.geobox = GeoBox((40, 5), Affine(size, 0, west, 0, -size, north), UTM)
    for other, (x, y) in zip(others, places, strict=True):
        x, y = transform(UTM, CRS.from_epsg(crs), x, y)
        affine = Affine((x[1] - x[0]) / 40, 0, x[0], 0, (y[1] - y[0]) / 40, y[0])
        other.scene.geobox = GeoBox((40, 5), affine, CRS.from_epsg(crs).to_wkt())
    with pytest.raises(
        InputError, match=r"^again: number of labelled pixels that one also has is (1[89]\d|200), .*in one only"
    ):
        join_scenes([one, others[0]])
    join_scenes([one, others[1]])
    assert "one and next label 10 pixels of the same ground on different grids" in caplog.text


@pytest.mark.parametrize("turn", [1, -1])
def test_points_on_a_fine_and_a_coarse_grid_are_refused_in_either_order(turn):
    fine, coarse = (scene(name, [500, 600, 700], shape) for name, shape in (("points", (40, 5)), ("plots", (8, 1))))
    fine.geobox = GeoBox((40, 5), Affine(2, 0, 100, 0, -2, 200), UTM)
    coarse.geobox = GeoBox((8, 1), Affine(10, 0, 100, 0, -10, 200), UTM)
    labels = np.zeros((40, 5), int)
    labels[::5, 0] = 1, 1, 1, 1, 2, 2, 2, 2  # in the corner of each plot of 10 m
    both = [LabelledScene(of, codes, Legend.of(codes)) for of, codes in ((fine, labels), (coarse, labels[::5, :1]))]
    with pytest.raises(InputError, match=r"number of labelled pixels that .* also has is 8, .*in one only"):
        join_scenes(both[::turn])


def test_overlap_of_flight_lines_is_repeated_ground():
    joined = join_scenes([date("north"), date("south", row=38)])
    assert joined.scene.geobox.shape == (80 + SEPARATOR_ROWS, 5)
    second, further = 40 + SEPARATOR_ROWS, 2 + SEPARATOR_ROWS
    overlap = [(Window(38, 0, 2, 5), (further, 0)), (Window(second, 0, 2, 5), (-further, 0))]
    assert (
        joined.scene.repeats() == DerivedScene(joined.scene, bands=joined.scene.bands, sources=()).repeats() == overlap
    )
    assert join_scenes([date("north"), date("south", row=40)]).scene.repeats() == []
    assert join_scenes([date("north"), date("south", row=38, crs=None)]).scene.repeats() == []


def test_further_rasters_have_to_be_the_same():
    stacked = StackedScene(SOUTH, {"lidar": ArrayRaster(np.ones((1, 3, 2)))})
    with pytest.raises(InputError, match=r"^south: further rasters is \(\('lidar', 1\),\), expected none as in north"):
        join_scenes([labelled(NORTH, [1], ["a"]), labelled(stacked, [1], ["a"])])
    north = StackedScene(NORTH, {"lidar": ArrayRaster(np.zeros((1, 4, 5)))})
    joined = join_scenes([labelled(north, [1], ["a"]), labelled(stacked, [1], ["a"])])
    assert read_all(joined.scene)[3, [0, 4 + SEPARATOR_ROWS], 0].tolist() == [0, 1]


def test_scenes_of_one_name_are_refused():
    with pytest.raises(InputError, match="names is"):
        join_scenes([labelled(NORTH, [1], ["a"]), labelled(NORTH, [1], ["a"])])


def test_scenes_in_different_units_are_refused():
    raw = scene("raw", [500, 600, 700], (4, 5), start=5000)
    with pytest.raises(InputError, match=r"^raw: typical value is 503\d, 1\d\d times that of north, expected the same"):
        join_scenes([labelled(NORTH, [1], ["a"]), labelled(raw, [1], ["a"])])


def test_common_legend_leaves_scenes_apart_and_knows_the_classes_of_all(caplog):
    common = on_common_legend([labelled(NORTH, [1, 2], ["corn", "woods"]), labelled(SOUTH, [4], ["rye"])])
    assert [one.legend.names for one in common] == [("corn", "woods", "rye")] * 2
    assert common[0].legend.codes == (1, 2, 4)
    assert [one.scene for one in common] == [NORTH, SOUTH]
    assert np.unique(common[0].labels).tolist() == [0, 1, 2]
    assert common[1].labels[0].tolist() == [4, 4]
    assert caplog.text == ""


def test_colours_of_the_palette_tell_the_classes_of_all_scenes_apart():
    colors = {1: "#123456", 2: "#123456"}  # of their own: as they are
    scenes = [labelled(NORTH, [1, 2], ["corn", "woods"]), labelled(SOUTH, [1, 2, 3], ["oat", "corn", "rye"])]
    lake = LabelledScene(
        SOUTH, scenes[1].labels, Legend.of(np.array([1, 2]), names={1: "lake", 2: "sea"}, colors=colors)
    )
    legend = on_common_legend([*scenes, lake])[0].legend
    given = dict(zip(legend.names, legend.colors, strict=True))
    assert (given["corn"], given["woods"]) == PALETTE[:2]
    assert given["lake"] == given["sea"] == "#123456"
    assert len(set(legend.colors)) == 5


def test_classes_without_names_are_joined_by_their_codes_with_a_warning(caplog):
    on_common_legend([labelled(NORTH, [1, 2], ["class 1", "woods"]), labelled(SOUTH, [1], ["class 1"])])
    assert "share a code and have no names: class 1." in caplog.text


def test_levels_are_medians_of_the_layers_asked_for():
    cube = np.arange(3)[:, None, None] * 10.0 + np.random.default_rng(0).normal(0, 0.1, (3, 200, 300))
    cube[2] = np.nan
    scene = ArrayScene(cube, bands=Bands.from_wavelengths([500, 600, 700]), name="s")
    np.testing.assert_allclose(median_spectrum(scene, np.array([1, 0])), [10, 0], atol=0.05)
    assert np.isnan(median_spectrum(scene, np.array([2]))).all()


def test_swath_along_either_diagonal_is_seen():
    cube = np.full((1, 300, 300), np.nan)
    for i in range(300):
        cube[0, i, max(0, 280 - i) : 300 - i + 20] = 5
    scene = ArrayScene(cube, bands=Bands.from_wavelengths([500]), name="s")
    assert median_spectrum(scene, np.array([0])).tolist() == [5]
    mirrored = ArrayScene(cube[:, :, ::-1], bands=scene.bands, name="s")
    assert median_spectrum(mirrored, np.array([0])).tolist() == [5]


def test_brighter_ground_is_no_other_unit_but_a_lost_scale_is():
    dark, bright = np.array([0.02, 0.05, np.nan]), np.array([0.3, 0.4, 0.5])
    check_same_unit(dark, bright, source="a", reference="b")
    for scale in (1e4, 1e-4):
        with pytest.raises(InputError, match=r"^a: typical value is .* times that of b, expected the same unit"):
            check_same_unit(bright * scale, bright, source="a", reference="b")
    check_same_unit(np.zeros(3), bright, source="a", reference="b")


NM = np.linspace(400, 2400, 200)
MEAN = 0.05 + 0.3 / (1 + np.exp(-(NM - 700) / 40)) * np.exp(-(((NM - 900) / 1200) ** 2))  # of vegetation
SUN = (NM / 500) ** -4 / (np.exp(4.97 * 500 / NM) - 1)


@pytest.mark.parametrize("spread", [0.15, 0.35])
def test_scene_in_another_unit_is_far_from_training(spread):
    std = spread * MEAN
    for brightness in (0.5, 0.67, 1, 1.5, 2):
        assert far_from_training(MEAN * brightness, MEAN, std) is None
    radiance = MEAN * SUN / np.median(SUN)
    for levels in (MEAN * 9, MEAN / 9, radiance * 9, radiance / 9):
        assert "same unit (reflectance, radiance or counts" in (far_from_training(levels, MEAN, std) or "")


def test_share_in_the_warning_is_that_of_the_bands():
    levels = np.array([9.0, 9, 1, 1, np.nan])
    warning = far_from_training(levels, np.ones(5), np.full(5, 0.5)) or ""
    assert warning.startswith("in 50% of the bands")
    assert far_from_training(np.full(5, np.nan), np.ones(5), np.ones(5)) is None
    assert far_from_training(levels, np.ones(5), np.zeros(5)) is None  # bands that were never varied
