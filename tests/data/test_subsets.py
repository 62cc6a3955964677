import numpy as np
import pytest

from hsfusion.data.splits import TEST, TRAIN, VAL, blocks, resampled, with_bands
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.scenes.scene import read_all


@pytest.fixture(scope="module")
def split():
    return blocks(synthetic_scene(seed=0, height=40, width=40), radius=2, seed=0)


def test_a_resample_keeps_its_share_of_each_class_and_all_other_pixels(split):
    fewer = resampled(split, 3, share=0.8)
    labels = split.labelled.labels
    for code in split.labelled.legend.codes:
        before, after = ((labels == code) & (one.roles == TRAIN) for one in (split, fewer))
        assert after.sum() == round(0.8 * before.sum())
        assert not (after & ~before).any()
    for role in (VAL, TEST):
        np.testing.assert_array_equal(fewer.pixels(role), split.pixels(role))
    assert fewer.leakage == 0


def test_resamples_repeat_with_their_number_and_differ_with_another(split):
    np.testing.assert_array_equal(resampled(split, 1).roles, resampled(split, 1).roles)
    assert (resampled(split, 1).roles != resampled(split, 2).roles).any()
    both = (resampled(split, 1, share=0.5).roles == TRAIN) & (resampled(split, 2, share=0.5).roles == TRAIN)
    assert both.sum() == pytest.approx(0.25 * split.count(TRAIN), rel=0.25)


def test_a_small_share_leaves_a_pixel_of_each_class(split):
    assert resampled(split, 0, share=1e-6).count(TRAIN) == len(split.labelled.legend.codes)


def test_fewer_bands_are_those_of_the_scene_in_the_order_of_the_file(split):
    fewer = with_bands(split, np.array([7, 2, 30]))
    scene, whole = fewer.labelled.scene, split.labelled.scene
    np.testing.assert_array_equal(scene.bands.wavelength_nm, whole.bands.wavelength_nm[[2, 7, 30]])
    np.testing.assert_array_equal(read_all(scene), read_all(whole)[[2, 7, 30]])
    np.testing.assert_array_equal(fewer.roles, split.roles)
    np.testing.assert_array_equal(fewer.labelled.labels, split.labelled.labels)
