from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from hsfusion.data.leakage import all_seen, check_no_leakage, training_mask
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
    with pytest.raises(InputError, match="use the split that an earlier training of the model on this ground used"):
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
        (replace(HERE, crs=CRS.from_epsg(32633).to_wkt()), False),
        (replace(HERE, transform=Affine(30, 0, 501_200, 0, -30, 5_800_000)), False),
        (replace(HERE, transform=Affine(10, 0, 500_000, 0, -10, 5_800_000)), False),
    ],
)
def test_the_same_classes_in_another_place_are_another_ground(other, same):
    one = split(0, seed=0)
    assert refused(changed(one, geobox=HERE), changed(one, geobox=other)) == same
    assert refused(changed(one, geobox=other), changed(one, geobox=HERE)) == same


def test_a_header_keeps_the_latest_grounds(other):
    entries = [{"ground": f"{i:064x}", "pixels": "x"} for i in range(20)]
    assert all_seen({"seen_before": entries, "seen": {"ground": "f" * 64, "pixels": "y"}})[-1]["pixels"] == "y"
    assert len(all_seen({"seen_before": entries})) == 16
