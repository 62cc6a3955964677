from dataclasses import replace

import numpy as np
import pytest

from hsfusion.data.splits import TEST, TRAIN, UNUSED, VAL, Split, blocks, connected_fields, dilate
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.evidence.jobs import half_of, with_moved_labels
from hsfusion.evidence.top_k import with_bands
from hsfusion.scenes import LabelledScene, Legend
from hsfusion.scenes.scene import read_all


@pytest.fixture(scope="module")
def split():
    return blocks(synthetic_scene(seed=0, height=40, width=40), radius=2, seed=0)


def neighbours(split, other):
    """Share of the training pixels of one split that lie beside one of the other."""
    return (dilate(other.roles == TRAIN, 1) & (split.roles == TRAIN)).sum() / split.count(TRAIN)


def test_halves_share_no_pixel_and_make_up_the_training_pixels(split):
    first, second = (half_of(split, half) for half in (0, 1))
    roles = [of.roles == TRAIN for of in (first, second)]
    assert not (roles[0] & roles[1]).any()
    np.testing.assert_array_equal(roles[0] | roles[1], split.roles == TRAIN)
    labels = split.labelled.labels
    for code in split.labelled.legend.codes:
        shares = [(labels[of] == code).sum() / (labels[split.roles == TRAIN] == code).sum() for of in roles]
        assert min(shares) > 0.25
    for role in (VAL, TEST):
        np.testing.assert_array_equal(first.pixels(role), split.pixels(role))
    assert first.leakage == 0


def test_halves_are_made_of_blocks_where_there_are_any_and_of_pixels_elsewhere(split):
    by_pixels = replace(split, block_pixels=None)
    touching, mixed = (neighbours(half_of(of, 0), half_of(of, 1)) for of in (split, by_pixels))
    assert touching < 0.4 and mixed > 0.9


@pytest.mark.parametrize("block_pixels", [6, None])
def test_ground_that_two_flight_lines_show_lies_in_one_half(split, monkeypatch, block_pixels):
    overlaps = [((0, 0, 20, 40), (20, 0)), ((20, 0, 20, 40), (-20, 0))]
    monkeypatch.setattr(type(split.labelled.scene), "repeats", lambda scene: overlaps)
    half = half_of(replace(split, roles=np.full((40, 40), TRAIN, np.uint8), block_pixels=block_pixels), 0).roles
    np.testing.assert_array_equal(half[:20], half[20:])
    assert 600 < (half == TRAIN).sum() < 1000


def test_a_field_lies_in_one_half_unless_it_is_the_only_one_of_its_class():
    labels = np.zeros((9, 40), int)
    for i in range(7):
        labels[2:7, 5 * i + 1 : 5 * i + 5] = 1 + (i >= 6)  # six fields of class 1, one of class 2
    labelled = LabelledScene(synthetic_scene(seed=0, height=9, width=40).scene, labels, Legend.of((1, 2)))
    split = Split("fields", labelled, np.where(labels > 0, TRAIN, 0).astype(np.uint8), 1, 0, connected_fields(labels))
    first, second = (half_of(split, half).roles == TRAIN for half in (0, 1))
    shares = [first[:, 5 * i : 5 * i + 5].sum() / 20 for i in range(7)]
    assert sorted(shares[:6]) == [0, 0, 0, 1, 1, 1] and shares[6] == 0.5
    assert (first ^ second)[labels > 0].all()


def test_halves_repeat_and_differ_with_the_seed_of_the_split(split):
    np.testing.assert_array_equal(half_of(split, 1).roles, half_of(split, 1).roles)
    assert (half_of(split, 1).roles != half_of(replace(split, seed=1), 1).roles).any()


def test_a_single_pixel_of_a_class_is_in_both_halves(split):
    code = split.labelled.legend.codes[0]
    members = np.flatnonzero((split.labelled.labels == code) & (split.roles == TRAIN))
    roles = split.roles.copy()
    roles.flat[members[1:]] = UNUSED
    for half in (0, 1):
        assert half_of(replace(split, roles=roles), half).roles.flat[members[0]] == TRAIN


def test_fewer_bands_are_those_of_the_scene_in_the_order_of_the_file(split):
    fewer = with_bands(split, np.array([7, 2, 30]))
    scene, whole = fewer.labelled.scene, split.labelled.scene
    np.testing.assert_array_equal(scene.bands.wavelength_nm, whole.bands.wavelength_nm[[2, 7, 30]])
    np.testing.assert_array_equal(read_all(scene), read_all(whole)[[2, 7, 30]])
    np.testing.assert_array_equal(fewer.roles, split.roles)
    np.testing.assert_array_equal(fewer.labelled.labels, split.labelled.labels)


def test_moved_labels_take_their_roles_along_and_leave_out_what_is_not_kept(split):
    pixels = np.flatnonzero(split.labelled.labels)
    to = (pixels + 5) % split.roles.size
    kept = np.arange(pixels.size) > 0
    moved = with_moved_labels(split, to, kept=kept)
    np.testing.assert_array_equal(moved.labelled.labels.flat[to[1:]], split.labelled.labels.flat[pixels[1:]])
    np.testing.assert_array_equal(moved.roles.flat[to[1:]], split.roles.flat[pixels[1:]])
    assert (moved.labelled.labels > 0).sum() == pixels.size - 1
    assert set(np.flatnonzero(moved.roles)) <= set(to[1:])
    np.testing.assert_array_equal(read_all(moved.labelled.scene), read_all(split.labelled.scene))
