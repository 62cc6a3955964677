from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from hsfusion.data.leakage import all_seen, check_apart, check_no_leakage, training_mask
from hsfusion.data.splits import blocks
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import InputError
from hsfusion.scenes import ArrayScene, GeoBox, LabelledScene, Legend, Window
from hsfusion.spectra import Bands


def split(ground, *, seed):
    valid = np.ones((40, 40), bool)
    return blocks(synthetic_scene(height=40, width=40, seed=ground), radius=1, seed=seed, valid=valid)


@pytest.fixture(scope="module")
def other():
    """A ground with some pixels unlabelled, as an unlabelled border is usual."""
    made = synthetic_scene(height=40, width=40, seed=1)
    made.labels[:5] = 0
    return blocks(made, radius=1, seed=0, valid=np.ones((40, 40), bool))


def test_test_pixels_that_a_model_was_trained_on_are_refused_and_its_own_split_passes(other):
    header = {"seen": training_mask(split(0, seed=0)), "seed": 0}
    check_no_leakage(split(0, seed=0), header)
    check_no_leakage(other, header)
    with pytest.raises(InputError, match=r"test pixels that the pretrained model has seen is .* \(split.seed=0\)"):
        check_no_leakage(split(0, seed=1), header)


def test_what_was_seen_before_fine_tuning_elsewhere_is_not_forgotten(other):
    first = {"seen": training_mask(split(0, seed=0))}
    second = {"seen": training_mask(other), "seen_before": list(all_seen(first))}
    assert all_seen(second) == (first["seen"], second["seen"])
    with pytest.raises(InputError, match="the split that an earlier training of the model on this ground used"):
        check_no_leakage(split(0, seed=1), second)
    check_no_leakage(split(0, seed=0), second)


def changed(split, *, labels=None, geobox=None, bands=None):
    """The same split of a scene of which something differs."""
    scene, labels = split.labelled.scene, split.labelled.labels if labels is None else labels
    cube = scene.read(Window(0, 0, *labels.shape))[: None if bands is None else len(bands)]
    other = ArrayScene(cube, bands=bands or scene.bands, name="other", geobox=geobox)
    return replace(split, labelled=LabelledScene(other, labels, Legend.of(labels)))


def refused(trained, tested):
    """Whether a model trained on one split may not be tested on another of all other roles."""
    roles = np.where(trained.roles == 3, 1, 3).astype(np.uint8)
    try:
        check_no_leakage(replace(tested, roles=roles), {"seen": training_mask(trained)})
    except InputError:
        return True
    return False


UTM = CRS.from_epsg(32632).to_wkt()
HERE = GeoBox((40, 40), Affine(30, 0, 500_000, 0, -30, 5_800_000), UTM)


def test_ground_is_told_by_its_classes_and_not_by_which_pixels_are_labelled():
    """Two scenes of one shape, every pixel labelled."""
    assert refused(split(0, seed=0), split(0, seed=0))
    assert not refused(split(0, seed=0), split(1, seed=0))


def test_other_bands_and_other_codes_of_the_classes_are_the_same_ground():
    one = split(0, seed=0)
    few = Bands.from_wavelengths(one.labelled.scene.bands.wavelength_nm[:5])
    renumbered = np.array([0, 9, 2, 31, 1])[one.labelled.labels]
    assert refused(one, changed(one, bands=few))
    assert refused(one, changed(one, labels=renumbered))
    assert not refused(one, changed(one, labels=np.minimum(one.labelled.labels, 3)))


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (HERE, True),
        (None, True),  # the georeference got lost
        (replace(HERE, transform=Affine(30.000001, 0, 500_000.01, 0, -30, 5_800_000)), True),  # rounded
        (replace(HERE, crs=CRS.from_epsg(32632).to_wkt(version="WKT2_2019")), True),
        (replace(HERE, crs=None), True),
        (replace(HERE, transform=Affine.identity()), True),  # a CRS alone is no place
        (replace(HERE, crs=CRS.from_epsg(32633).to_wkt()), False),
        (replace(HERE, transform=Affine(30, 0, 501_200, 0, -30, 5_800_000)), False),
        (replace(HERE, transform=Affine(10, 0, 500_000, 0, -10, 5_800_000)), False),
    ],
)
def test_the_same_classes_in_another_place_are_another_ground(other, same):
    one = split(0, seed=0)
    assert refused(changed(one, geobox=HERE), changed(one, geobox=other)) == same
    assert refused(changed(one, geobox=other), changed(one, geobox=HERE)) == same


def fewer_labels(split, *, classes=0, pixels=0):
    """Labels without the first class, or without some pixels."""
    labels = np.where(split.labelled.labels <= classes, 0, split.labelled.labels)
    labels.flat[np.random.default_rng(0).choice(labels.size, pixels, replace=False)] = 0
    return labels


@pytest.mark.parametrize("change", [{"pixels": 1}, {"pixels": 100}, {"classes": 1}])
def test_ground_without_a_place_is_known_again_by_mostly_the_same_labels(other, change):
    whole = split(0, seed=0)
    fewer = changed(whole, labels=fewer_labels(whole, **change))
    assert refused(whole, fewer)  # a cloud, another date, a class that was dropped
    assert refused(fewer, whole)
    assert not refused(other, fewer)
    assert not refused(fewer, other)


@pytest.mark.parametrize("seed", range(1, 6))
def test_two_scenes_of_the_same_large_class_are_not_taken_for_one(seed):
    def ground(seed):
        labels = np.where(np.random.default_rng(seed).random((40, 40)) < 0.97, 1, 2)
        return changed(split(0, seed=0), labels=labels)

    assert not refused(ground(0), ground(seed))


@pytest.mark.parametrize(("rows", "cols", "same"), [(0, 0, True), (-5, 3, True), (0, 39, True), (0, 40, False)])
def test_places_decide_whatever_the_labels(rows, cols, same):
    """A grid that is shifted by whole pixels, and a model that was trained on the upper right pixel only."""
    one = changed(split(0, seed=0), geobox=HERE)
    box = replace(HERE, transform=HERE.transform @ Affine.translation(cols, rows))
    two = changed(split(1, seed=0), geobox=box)
    roles = np.zeros((40, 40), np.uint8)
    roles[0, 39] = 1
    assert refused(replace(one, roles=roles), two) == same
    seen, tested = training_mask(replace(one, roles=roles)), np.zeros((40, 40), np.uint8)
    if not same:
        return
    tested[-rows, 39 - cols] = 3
    with pytest.raises(InputError, match="has seen is 1, expected 0"):
        check_no_leakage(replace(two, roles=tested, radius=0), {"seen": seen})
    with pytest.raises(InputError, match="number of test pixels that other trains on is 1, expected 0"):
        check_apart([replace(two, roles=tested, radius=0), replace(one, roles=roles)])


@pytest.mark.parametrize(
    ("epsg", "transform", "near", "far"),
    [
        (32632, Affine(60, 0, 500_000, 0, -60, 5_800_000), (0, 1), (0, 3)),
        (32632, Affine(10, 0, 500_000, 0, -10, 5_800_000), (3, 6), (3, 5)),  # without the centre of the pixel of 30 m
        (32632, Affine(10, 0, 500_000, 0, -10, 5_800_000), (5, 8), (6, 8)),
        (32631, Affine(60, 0, 907_339, 0, -60, 5_818_093), (19, 20), (19, 22)),
        (4326, Affine(1 / 3600, 0, 9, 0, -1 / 3600, 52.3509), (3, 3), (3, 5)),
    ],
)
def test_ground_of_training_pixels_on_another_grid_is_warned_of(caplog, epsg, transform, near, far):
    """A model that was trained on one pixel of 30 m, and a scene on another grid that is tested in and beside it."""
    one = changed(split(0, seed=0), geobox=HERE)
    two = changed(split(1, seed=0), geobox=GeoBox((40, 40), transform, CRS.from_epsg(epsg).to_wkt()))
    trained = np.zeros((40, 40), np.uint8)
    trained[1, 2] = 1  # 60 to 90 m east, 30 to 60 m south
    header = {"seen": training_mask(replace(one, roles=trained))}

    def tested(place, radius):
        roles = np.zeros((40, 40), np.uint8)
        roles[place] = 3
        caplog.clear()
        check_no_leakage(replace(two, roles=roles, radius=radius), header)
        return caplog.messages

    text = "other: about 1 of 1 test pixels see ground that the model was trained on, on another grid"
    assert tested(far, 0) == []
    assert tested(near, 0) == tested(far, 2) == [f"{text}, so the accuracy may be too high."]
    header |= {"seen_before": [header["seen"]]}
    assert len(tested(near, 0)) == 1  # not for each training


def test_place_without_epsg_code_decides_too():
    local = replace(HERE, crs=CRS.from_proj4("+proj=tmerc +lat_0=12 +lon_0=7.3 +datum=WGS84").to_wkt())
    assert refused(changed(split(0, seed=0), geobox=local), changed(split(1, seed=0), geobox=local))
    assert not refused(changed(split(0, seed=0), geobox=local), changed(split(0, seed=0), geobox=HERE))
    nowhere = replace(HERE, transform=Affine.identity())
    assert not refused(changed(split(0, seed=0), geobox=nowhere), changed(split(1, seed=0), geobox=nowhere))


def test_entries_of_older_model_files_need_the_same_labels():
    one = changed(split(0, seed=0), geobox=HERE)
    entry = {key: value for key, value in training_mask(one).items() if key in ("ground", "place", "pixels")}
    roles = np.where(one.roles == 3, 1, 3).astype(np.uint8)
    fewer = changed(one, labels=fewer_labels(one, pixels=1), geobox=HERE)
    check_no_leakage(replace(fewer, roles=roles), {"seen": entry})
    for geobox in (HERE, None):
        with pytest.raises(InputError, match="has seen"):
            check_no_leakage(replace(changed(one, geobox=geobox), roles=roles), {"seen": entry})


def test_classes_that_would_be_large_are_left_out_and_a_digest_decides(monkeypatch):
    one = split(0, seed=0)
    monkeypatch.setattr("hsfusion.data.leakage._MOST_BYTES", len(training_mask(one)["pixels"]) + 1)
    assert "classes" not in training_mask(one)
    assert refused(one, one)
    assert not refused(one, changed(one, labels=fewer_labels(one, pixels=1)))


def test_a_header_keeps_the_latest_grounds(other):
    entries = [{"ground": f"{i:064x}", "pixels": "x"} for i in range(20)]
    assert all_seen({"seen_before": entries, "seen": {"ground": "f" * 64, "pixels": "y"}})[-1]["pixels"] == "y"
    assert len(all_seen({"seen_before": entries})) == 16
