import numpy as np
import pytest

from hsfusion.trust.faithfulness import (
    Curve,
    band_covariance,
    band_windows,
    conditional_fill,
    curve_masks,
    mean_fill,
    permutations,
    predicted_fills,
)

BANDS = 40
USED = np.arange(BANDS) // 5 == 3  # bands 15-19 hold the classes
WINDOWS = band_windows(np.arange(BANDS, dtype=float), size=5)
NUMBER = np.arange(len(WINDOWS) + 1)


def curve(direction, score, weight, *, number=NUMBER, seed=0, windows=WINDOWS, **plan):
    """Of one network."""
    masks = curve_masks(np.asarray(weight), windows=windows, number=number, seed=[seed], direction=direction, **plan)
    return Curve.from_accuracies(np.stack([score(keep) for keep in masks])[None], number=number, direction=direction)


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


def test_prediction_leaves_nothing_of_an_exact_copy_and_does_not_follow_the_noise_of_few_pixels():
    spectra = np.random.default_rng(0).normal(size=(90, 40))
    spectra[:, 39] = spectra[:, 0]
    covariance, others = spectra[:60].T @ spectra[:60] / 60, spectra[60:]
    [fill] = predicted_fills(covariance, others, np.arange(40)[None] == 39)
    np.testing.assert_allclose(others @ fill[39], others[:, 0], atol=1e-4)
    covariance, window = spectra[:30].T @ spectra[:30] / 30, np.arange(40) == 20  # of which the others know nothing
    sharp = conditional_fill(covariance + 1e-6 * np.eye(40), ~window)
    [fill] = predicted_fills(covariance, others, window[None])
    fitted, other = (np.var(others[:, 20] - others @ of[20]) for of in (sharp, fill))
    assert other < 1.5 < fitted


def test_prediction_of_each_window_is_the_best_of_all_ridges():
    spectra = np.random.default_rng(1).normal(size=(200, 30)).cumsum(1)
    covariance, others = spectra[:40].T @ spectra[:40] / 40, spectra[40:]
    windows = band_windows(np.arange(30.0), size=4)
    for window, fill in zip(windows, predicted_fills(covariance, others, windows), strict=True):
        fills = [conditional_fill(covariance + ridge * np.eye(30), ~window) for ridge in 10.0 ** np.arange(-6, 1)]
        off = [np.square(others[:, window] - others @ of[window].T).sum() for of in fills]
        np.testing.assert_array_equal(fill, fills[int(np.argmin(off))])


# windows


def test_windows_hold_each_band_once_and_follow_the_wavelength():
    nm = np.random.default_rng(0).permutation(200) + 400.0
    windows = band_windows(nm, size=7)
    np.testing.assert_array_equal(windows.sum(0), 1)
    assert windows.shape == (29, 200)
    assert set(windows.sum(1)) == {6, 7}
    assert all(np.ptp(nm[window]) == window.sum() - 1 for window in windows)
    np.testing.assert_array_equal(band_windows(np.arange(4.0), size=1), np.eye(4))


# curves


@pytest.mark.parametrize("fill", [mean_fill, lambda keep: conditional_fill(band_covariance(planted()[0]), keep)])
def test_weights_that_name_the_planted_window_beat_random_orders(fill):
    weight = WINDOWS @ USED.astype(float)
    removed, kept = (curve(way, score_of(fill), weight, seed=3, random_orders=30) for way in ("deletion", "insertion"))
    assert removed.accuracy[0] == kept.accuracy[-1] > 0.99
    assert removed.accuracy[1] < 0.65 and kept.accuracy[1] > 0.9
    assert removed.area > 0.1 and kept.area > 0.1
    assert removed.random_accuracy.shape == (30, 9)


def linear_score(keep):
    """Accuracy that each band adds to by its weight."""
    weight = np.random.default_rng(0).random(BANDS)
    return 0.5 + 0.5 * keep.astype(float) @ (weight / weight.sum())


@pytest.mark.parametrize("direction", ["deletion", "insertion"])
def test_p_value_counts_the_random_orders_that_are_at_least_as_good(direction):
    right = WINDOWS @ np.random.default_rng(0).random(BANDS)
    best = curve(direction, linear_score, right)
    assert best.p_value == 1 / 200 and best.area > 0
    worst = curve(direction, linear_score, -right)
    assert worst.p_value == 1 and worst.area < 0
    found = curve(direction, linear_score, np.array([3, 1, 8, 0, 2, 6, 5, 4]))
    steps = NUMBER / NUMBER[-1]
    areas = np.trapezoid(found.random_accuracy, steps, axis=1)
    ahead = (areas - np.trapezoid(found.accuracy, steps)) * (1 if direction == "deletion" else -1)
    assert found.p_value == (1 + (ahead <= 0).sum()) / 200
    assert 1 / 200 < found.p_value < 1
    assert found.area == pytest.approx(ahead.mean())


def test_orders_that_make_no_difference_have_p_1_and_no_area():
    found = curve("deletion", lambda keep: np.full(len(keep), 0.7), np.arange(8.0))
    assert found.p_value == 1
    assert found.area == pytest.approx(0)


def test_area_between_known_curves():
    plan = {"windows": np.eye(4, dtype=bool), "number": np.array([0, 1, 4])}
    found = curve("insertion", lambda keep: keep @ np.array([0.0, 0, 0, 1]), np.arange(4.0), **plan)
    np.testing.assert_allclose(found.accuracy, [0, 1, 1])  # an area of 7/8, of random orders that or 3/8
    share = found.random_accuracy[:, 1].mean()
    assert found.area == pytest.approx(7 / 8 - (3 / 8 + share / 2))


def test_interval_has_the_variance_over_networks_and_that_over_orders():
    number = np.array([0, 1])
    ends = np.array([[[0.0, 0.5], [0, 0.3], [0, 0.1]], [[0.0, 0.8], [0, 0.2], [0, 0.2]]])  # (2, 1 + 2, 2)
    found = Curve.from_accuracies(ends, number=number, direction="insertion")
    areas, orders = np.array([0.15, 0.3]), np.array([0.125, 0.075])  # of networks, and of random orders
    half = 12.706204736 * np.sqrt(areas.var(ddof=1) / 2 + orders.var(ddof=1) / 2)
    np.testing.assert_allclose([found.area, found.lower, found.upper], [0.225, 0.225 - half, 0.225 + half])
    assert np.isnan(Curve.from_accuracies(ends[:1], number=number, direction="insertion").lower)


def test_equal_weights_get_another_order_with_every_seed_and_bands_in_no_window_stay_as_they_are():
    windows = np.eye(5, 6, dtype=bool)  # the last band is in none
    plan = {"windows": windows, "number": np.arange(6), "random_orders": 1}
    found = {
        (seed, way): curve_masks(np.array([1.0, 1, 1, 1, 2]), seed=[seed], direction=way, **plan)
        for seed in (0, 1)
        for way in ("deletion", "insertion")
    }
    assert not found[0, "deletion"][:, 1, 4][0] and found[0, "insertion"][0, 1, 4]  # the greatest weight comes first
    assert (found[0, "deletion"][0] != found[1, "deletion"][0]).any()
    np.testing.assert_array_equal(found[0, "deletion"], ~found[0, "insertion"])
    assert found[0, "deletion"][..., 5].all() and not found[0, "insertion"][..., 5].any()


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
