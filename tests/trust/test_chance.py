"""Labels that mean nothing but are smooth, against labels that the spectra know."""

from collections import Counter

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hsfusion.data.public import indian_pines
from hsfusion.data.splits import blocks
from hsfusion.scenes.scene import read_pixels
from hsfusion.trust.chance import (
    _MOST_ALIKE,
    MAPS,
    Chance,
    _near,
    chance_sentence,
    compare_with_moved_labels,
    kappa,
    moved,
    moved_by,
    null_moves,
)
from hsfusion.trust.verdict import beats_chance

SHAPE = 64, 64
BLOCK = 8  # pixels
TRAIN, VAL = 0, 1


def smooth_maps(number, *, seed, width=4.0):
    """Smooth random numbers (number, H, W)."""
    noise = np.random.default_rng([seed, 0]).normal(size=(number, *SHAPE))
    return gaussian_filter(noise, (0, width, width), mode="wrap") * 2 * width * np.pi**0.5


def fields(*, seed):
    """Three classes (H, W) in smooth fields."""
    return smooth_maps(3, seed=seed).argmax(0)


def ground(*, seed, bands=24, noise=0.2):
    """Spectra (H * W, C) of ground with the fields of a seed, which changes smoothly from place to place besides."""
    rng = np.random.default_rng([seed, 1])
    spectra = smooth_maps(bands, seed=seed + 1000) + rng.normal(0, noise, (bands, *SHAPE))
    return (spectra + rng.normal(0, 1.5, (bands, 3))[:, fields(seed=seed)]).reshape(bands, -1).T


def roles():
    """Blocks for training and validation, (H, W) 0 or 1, side by side as on a chessboard."""
    rows, cols = np.indices(SHAPE) // BLOCK
    return (rows + cols) % 2


def compare(labels, spectra, *, predicted=None, seed=0):
    parts = [(pixels, labels.ravel()[pixels]) for pixels in (np.flatnonzero(roles() == role) for role in (TRAIN, VAL))]
    predicted = parts[VAL][1] if predicted is None else predicted.ravel()[parts[VAL][0]]
    return compare_with_moved_labels(*parts, predicted, shape=SHAPE, read=lambda at: spectra[at], seed=seed)


def nearest_neighbours(labels, spectra):
    """Classes (H, W) by the nearest of the training spectra: what a flexible network makes of the labels."""
    train = np.flatnonzero(roles() == TRAIN)
    distance = (spectra**2).sum(1)[:, None] - 2 * spectra @ spectra[train].T + (spectra[train] ** 2).sum(1)
    return labels.ravel()[train][distance.argmin(1)].reshape(SHAPE)


def agrees(labels, predicted):
    """The old rule, on the validation pixels."""
    at, counts = roles() == VAL, np.zeros((3, 3), int)
    np.add.at(counts, (labels[at], predicted[at]), 1)
    return beats_chance(counts, receptive_field=3)


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_the_ground_beat_the_same_fields_elsewhere(seed):
    labels, spectra = fields(seed=seed), ground(seed=seed)
    found = compare(labels, spectra, predicted=nearest_neighbours(labels, spectra))
    assert found.maps == MAPS
    assert found.beaten


@pytest.mark.parametrize("seed", range(3))
def test_smooth_labels_of_another_seed_do_not_though_they_agree_better_than_chance(seed):
    labels, spectra = fields(seed=seed + 50), ground(seed=seed)
    predicted = nearest_neighbours(labels, spectra)
    assert agrees(labels, predicted)  # the rule that this one replaces
    assert not compare(labels, spectra, predicted=predicted).beaten


def test_a_network_at_random_does_not_beat_them_whatever_the_labels_are():
    labels = fields(seed=0)
    found = compare(labels, ground(seed=0), predicted=np.random.default_rng(0).integers(3, size=SHAPE))
    assert found.labels > found.moved > found.network
    assert found.beaten is False


def test_labels_without_meaning_pass_about_one_time_in_twenty():
    spectra = ground(seed=0)
    passed = [compare(fields(seed=seed), spectra, seed=seed).beaten for seed in range(100, 120)]
    assert sum(passed) <= 4  # of 20, with p = 0.05: more with a probability of 0.003


def test_maps_depend_on_the_seed_alone():
    labels, spectra = fields(seed=0), ground(seed=0)
    assert compare(labels, spectra) == compare(labels, spectra)
    assert compare(labels, spectra, seed=1).moved != compare(labels, spectra).moved


def test_without_validation_pixels_or_data_elsewhere_nothing_is_compared():
    nothing = np.zeros(0, np.int64)
    train = np.arange(100), np.arange(100) % 2
    given = {"shape": SHAPE, "seed": 0}
    assert compare_with_moved_labels(train, (nothing, nothing), nothing, read=lambda at: 1 / 0, **given) == Chance()
    empty = compare_with_moved_labels(train, train, train[1], read=lambda at: np.full((len(at), 3), np.nan), **given)
    assert (empty.network, empty.maps, empty.beaten) == (1.0, 0, None)


def test_pixels_without_data_are_left_out_and_every_map_trains_on_as_many():
    labels, spectra = fields(seed=0), ground(seed=0)
    spectra[np.indices(SHAPE)[1].ravel() > 50] = np.nan
    assert compare(labels, spectra).beaten


def test_maps_are_drawn_until_enough_of_them_lie_on_data():
    labels, spectra = fields(seed=0), ground(seed=0)
    spectra[np.indices(SHAPE)[1].ravel() % 32 >= 16] = np.nan  # stripes: half of the moves keep half of the pixels
    parts = [
        (at, labels.ravel()[at])
        for at in (np.flatnonzero(np.isfinite(spectra[:, 0]) & (roles().ravel() == role)) for role in (TRAIN, VAL))
    ]
    found = compare_with_moved_labels(*parts, parts[VAL][1], shape=SHAPE, read=lambda at: spectra[at], seed=0)
    assert (found.maps, found.beaten) == (MAPS, True)


@pytest.mark.parametrize("shape", [(12, 12), (10, 16)])
def test_moves_keep_neighbours_and_fields_and_come_in_every_turn(shape):
    pixels, rng, turns = np.arange(shape[0] * shape[1]), np.random.default_rng(0), Counter()
    for _ in range(200):
        to = moved(pixels, shape, rng)
        assert np.array_equal(np.sort(to), pixels)  # a permutation: every field keeps its size
        corner = np.array(np.divmod(to.reshape(shape)[[0, 1, 0], [0, 0, 1]], shape[1])).T  # a pixel, and two neighbours
        steps = (corner[1:] - corner[0] + 1) % shape - 1  # with wrap-around
        assert np.abs(steps).sum(1).tolist() == [1, 1]
        turns[tuple(steps.ravel())] += 1
    assert len(turns) == (8 if shape[0] == shape[1] else 4)


def test_near_is_within_a_quarter_of_both_sides_around_the_edge():
    to = np.array([0, 2, 3, 10, 9, 8 * 12, 11 * 12])  # of a scene of 12 x 12
    assert _near(np.zeros(7, int), to, (12, 12)).tolist() == [True, True, False, True, False, False, True]


def test_kappa_is_chance_corrected():
    truth = np.array([0, 0, 0, 1])
    assert kappa(truth, truth) == 1
    assert kappa(truth, np.zeros(4, int)) == 0
    assert kappa(truth, np.array([0, 0, 1, 1])) == pytest.approx(0.5)  # (0.75 - 0.5) / (1 - 0.5)
    assert kappa(np.zeros(3, int), np.zeros(3, int)) == 0
    assert kappa(truth, np.array([0, 0, -1, 1])) < 1  # -1: no data


def test_sentence_gives_the_scores_or_says_that_there_are_none():
    runs = [vars(Chance(0.71, 0.6, 0.3, MAPS)), vars(Chance(0.73, 0.6, 0.31, MAPS))]
    assert "kappa of 0.71 and a linear discriminant 0.60" in chance_sentence(runs[:1])
    assert "at least 0.71" in chance_sentence(runs)
    assert "at most 0.31" in chance_sentence(runs)
    assert "1 of 3 runs were compared with chance agreement" in chance_sentence([*runs, None])
    assert "may pass" in chance_sentence([vars(Chance())])


@pytest.mark.parametrize(("most_alike", "beaten"), [(_MOST_ALIKE, None), (1.0, False)])
def test_regular_plots_are_not_their_own_null(monkeypatch, most_alike, beaten):
    rows, cols = np.indices(SHAPE) // (2 * BLOCK)
    labels = (rows + cols) % 2
    spectra = labels.reshape(-1, 1) + np.random.default_rng(0).normal(0, 0.1, (labels.size, 24))
    by_a_period = lambda pixels, shape, rng: (pixels + labels.size // 2) % labels.size  # noqa: E731
    monkeypatch.setattr("hsfusion.trust.chance.moved", by_a_period)
    monkeypatch.setattr("hsfusion.trust.chance._MOST_ALIKE", most_alike)
    assert compare(labels, spectra).beaten is beaten


def test_fields_of_a_real_scene_have_nineteen_moved_maps():
    scene = indian_pines()
    split = blocks(scene, radius=3, seed=0)
    parts = [(at, scene.legend.indices(scene.labels).ravel()[at]) for at in (split.pixels(1), split.pixels(2))]
    shape = scene.labels.shape
    chance = compare_with_moved_labels(
        *parts, parts[1][1], shape=shape, read=lambda at: read_pixels(scene.scene, at), seed=0
    )
    assert chance.maps == MAPS
    assert chance.beaten


def test_null_moves_are_those_that_leave_half_of_each_class_where_there_are_data():
    labels = fields(seed=0) + 1
    pixels = np.flatnonzero(labels)

    def kept(to):
        return to // SHAPE[1] < 40

    moves = null_moves(labels, number=3, seed=5, has_data=kept)
    assert len(moves) == 3 and moves == null_moves(labels, number=3, seed=5, has_data=kept)
    for move in moves:
        to = moved_by(pixels, SHAPE, seed=5, move=move)
        assert sorted(to) == pixels.tolist()
        for code in (1, 2, 3):
            assert kept(to)[labels.flat[pixels] == code].mean() >= 0.5
        assert _near(pixels, to, SHAPE).mean() <= 1 / 3
    assert null_moves(labels, number=3, seed=5, has_data=lambda to: np.zeros(to.size, bool)) == []
