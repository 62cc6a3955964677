import numpy as np
import pytest

from hsfusion.trust.faithfulness import (
    Curve,
    band_covariance,
    band_windows,
    conditional_fill,
    curve_masks,
    mean_fill,
    order_by_weight,
    permutations,
)

BANDS = 40
USED = np.arange(BANDS) // 5 == 3  # bands 15-19 hold the classes
WINDOWS = band_windows(np.arange(BANDS, dtype=float), size=5)
NUMBER = np.arange(len(WINDOWS) + 1)


def curve(direction, score, order, *, number, **plan):
    masks = curve_masks(np.asarray(order), number=number, direction=direction, **plan)
    return Curve.from_accuracies(np.stack([score(keep) for keep in masks]), number=number, direction=direction)


def planted(seed=0, pixels=400):
    """Standardised pixels (N, C) of 2 classes that differ in five bands, and their classes."""
    rng = np.random.default_rng(seed)
    classes = np.arange(pixels) % 2
    spectra = rng.normal(size=(pixels, BANDS))
    spectra[:, USED] += 1.5 * (2 * classes[:, None] - 1)
    return (spectra - spectra.mean(0)) / spectra.std(0), classes


def score_of(fill):
    """Score of a classifier that sums the five bands, under a replacement."""
    spectra, classes = planted()

    def score(keep):
        said = np.array([(spectra @ fill(row).T)[:, USED].sum(1) > 0 for row in keep])
        return (said == classes).mean(1)

    return score


# replacements


def test_conditional_fill_is_the_regression_of_the_removed_bands_on_the_kept_ones():
    rng = np.random.default_rng(0)
    spectra = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6))
    spectra -= spectra.mean(0)
    keep = np.array([True, False, True, True, False, True])
    fill = conditional_fill(spectra.T @ spectra / 500, keep)
    fitted = np.linalg.lstsq(spectra[:, keep], spectra[:, ~keep], rcond=None)[0]
    np.testing.assert_allclose((spectra @ fill.T)[:, ~keep], spectra[:, keep] @ fitted, atol=1e-9)
    np.testing.assert_array_equal(fill[keep], np.eye(6)[keep])
    np.testing.assert_array_equal(fill[:, ~keep], 0)


def test_conditional_fill_is_mean_fill_for_unrelated_bands_and_with_no_or_every_band():
    covariance = np.array([[1, 0.8, 0], [0.8, 1, 0], [0, 0, 1.0]])
    for keep in ([False, False, True], [False] * 3, [True] * 3):
        np.testing.assert_allclose(conditional_fill(covariance, np.array(keep)), mean_fill(np.array(keep)))
    np.testing.assert_allclose(conditional_fill(covariance, np.array([True, False, True]))[1], [0.8, 0, 0])


def test_covariance_of_duplicated_bands_can_be_solved():
    spectra = np.repeat(np.random.default_rng(0).normal(size=(100, 3)), 2, axis=1)
    fill = conditional_fill(band_covariance(spectra), np.array([True, True, True, True, True, False]))
    assert fill[5, 4] == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(fill[5, :4], 0, atol=0.1)


# windows


def test_windows_hold_each_band_once_and_follow_the_wavelength():
    nm = np.random.default_rng(0).permutation(200) + 400.0
    windows = band_windows(nm, size=7)
    np.testing.assert_array_equal(windows.sum(0), 1)
    assert windows.shape == (29, 200)
    assert set(windows.sum(1)) == {6, 7}
    assert all(np.ptp(nm[window]) == window.sum() - 1 for window in windows)
    np.testing.assert_array_equal(band_windows(np.arange(4.0), size=1), np.eye(4))


def test_order_by_weight_compares_means_so_that_large_windows_gain_nothing():
    windows = np.array([[1, 1, 1, 0], [0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(order_by_weight(np.array([0.2, 0.2, 0.2, 0.4]), windows), [1, 0])


# curves


@pytest.mark.parametrize("fill", [mean_fill, lambda keep: conditional_fill(band_covariance(planted()[0]), keep)])
def test_an_order_that_names_the_planted_window_beats_twenty_random_orders(fill):
    order = order_by_weight(USED / 5, WINDOWS)
    removed = curve("deletion", score_of(fill), order, windows=WINDOWS, number=NUMBER, seed=3)
    kept = curve("insertion", score_of(fill), order, windows=WINDOWS, number=NUMBER, seed=3)
    assert removed.accuracy[0] == kept.accuracy[-1] > 0.99
    assert removed.accuracy[1] < 0.65 and kept.accuracy[1] > 0.9
    assert removed.area < removed.random_area.mean()
    assert kept.area > kept.random_area.mean()
    assert removed.random_accuracy.shape == (20, 9)


def test_p_value_counts_the_random_orders_that_are_at_least_as_good():
    def score(keep):
        return 0.5 + 0.5 * keep.astype(float) @ (weight / weight.sum())

    weight = np.random.default_rng(0).random(BANDS)
    order = order_by_weight(weight, WINDOWS)
    directions = ("deletion", "insertion")
    for direction in directions:
        best = curve(direction, score, order, windows=WINDOWS, number=NUMBER, seed=0)
        assert best.p_value == 1 / 21
        assert curve(direction, score, order[::-1], windows=WINDOWS, number=NUMBER, seed=0).p_value == 1
    order = np.array([2, 5, 0, 7, 1, 6, 4, 3])
    removed, kept = (curve(way, score, order, windows=WINDOWS, number=NUMBER, seed=0) for way in directions)
    assert removed.p_value == (1 + (removed.random_area <= removed.area).sum()) / 21
    assert kept.p_value == (1 + (kept.random_area >= kept.area).sum()) / 21
    assert 1 / 21 < removed.p_value < 1 and 1 / 21 < kept.p_value < 1


def test_orders_that_make_no_difference_have_p_1():
    found = curve(
        "deletion", lambda keep: np.full(len(keep), 0.7), np.arange(8), windows=WINDOWS, number=NUMBER, seed=0
    )
    assert found.p_value == 1
    assert found.area == pytest.approx(0.7)


def test_area_of_a_known_curve():
    windows = np.eye(4, dtype=bool)
    plan = {"windows": windows, "number": np.array([0, 1, 4]), "seed": 0, "random_orders": 2}
    found = curve("insertion", lambda keep: keep.mean(1), np.arange(4), **plan)
    np.testing.assert_allclose(found.accuracy, [0, 0.25, 1])
    assert found.area == pytest.approx(0.5)


def test_curves_repeat_with_their_seed_and_differ_with_another():
    def area(seed):
        plan = {"windows": WINDOWS, "number": NUMBER, "seed": seed}
        return curve("deletion", score_of(mean_fill), np.arange(8), **plan).random_area.tolist()

    assert area(1) == area(1) != area(2)


# permutation


def test_permutation_of_the_planted_group_costs_accuracy_and_of_the_others_nothing():
    spectra, classes = planted()

    def score(columns, order):
        mixed = np.where(columns, spectra[order], spectra)
        return float(((mixed[:, USED].sum(1) > 0) == classes).mean())

    def importance():
        orders = permutations(len(classes), seed=0, repeats=5)
        whole = score(np.zeros(BANDS, bool), np.arange(len(classes)))
        return whole - np.array([[score(group, o) for o in orders] for group in WINDOWS]).mean(1)

    found = importance()
    assert found[3] == pytest.approx(0.5, abs=0.06)
    np.testing.assert_array_equal(np.delete(found, 3), 0)
    np.testing.assert_array_equal(importance(), found)
