import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from hsfusion.errors import InputError
from hsfusion.trust.stability import (
    compared_bands,
    nogueira,
    quartiles,
    relative_profiles,
    top_bands,
    uniformity_p,
    widened,
    window_stability,
)

NM = np.linspace(400, 2400, 100)


def bumps(centres, *, width=4.0, bands=100):
    places = np.arange(bands)
    profile = np.sum([np.exp(-((places - c) ** 2) / (2 * width**2)) for c in centres], axis=0)
    return profile / profile.sum()


# the index


def test_index_and_interval_match_a_calculation_by_hand():
    """p = (2/3, 1/3), mean size 1: 1 - (1/3) / (1/4). Without one of the three the index is -1, -1/3 and -1/3."""
    found = nogueira(np.array([[1, 0], [0, 0], [1, 1]], bool))
    logs = np.log([2.02, 1.02 + 1 / 3, 1.02 + 1 / 3])
    half = 4.302652729911275 * np.sqrt(2 / 3 * ((logs - logs.mean()) ** 2).sum())
    np.testing.assert_allclose([found.index, found.upper], [-1 / 3, 1.02 - (1.02 + 1 / 3) * np.exp(-half)])
    assert found.lower == -1  # cut off there
    assert (found.profiles, found.members) == (3, 1)


def test_two_selections_and_undefined_ones_have_no_interval():
    found = nogueira(np.array([[1, 0, 0], [1, 1, 0]], bool))
    assert np.isfinite(found.index) and np.isnan([found.lower, found.upper]).all()
    found = nogueira(np.array([[0, 0, 0], [0, 0, 0], [1, 1, 0]], bool))  # without the third none is selected
    assert np.isfinite(found.index) and np.isnan([found.lower, found.upper]).all()


def test_index_of_equal_sizes_is_the_mean_of_kunchevas_over_pairs():
    rng = np.random.default_rng(0)
    selected = np.zeros((6, 20), bool)
    for row in selected:
        row[rng.choice(20, 7, replace=False)] = True
    pairs = [(selected[i] & selected[j]).sum() for i in range(6) for j in range(i)]
    kuncheva = np.mean([(common * 20 - 49) / (7 * 13) for common in pairs])
    assert nogueira(selected).index == pytest.approx(kuncheva)


@pytest.mark.parametrize("size", [1, 5, 19])
def test_identical_selections_of_any_size_have_index_1_and_an_interval_without_width(size):
    found = nogueira(np.tile(np.arange(20) < size, (4, 1)))
    np.testing.assert_allclose([found.index, found.lower, found.upper], 1)


@pytest.mark.parametrize("size", [2, 10, 50, 90])
def test_random_selections_have_index_0_whatever_their_size(size):
    rng = np.random.default_rng(size)
    selected = np.argsort(rng.random((60, 100)), axis=1) < size
    assert abs(nogueira(selected).index) < 0.03


def test_random_selections_of_different_sizes_have_index_0():
    rng = np.random.default_rng(3)
    selected = np.argsort(rng.random((60, 100)), axis=1) < rng.integers(5, 60, (60, 1))
    assert abs(nogueira(selected).index) < 0.05


def test_index_stays_under_exchange_of_selected_and_left_out_and_of_runs_and_bands():
    rng = np.random.default_rng(1)
    selected = rng.random((5, 30)) < np.linspace(0, 1, 30)
    found = nogueira(selected)
    for other in (~selected, selected[::-1], selected[:, ::-1]):
        again = nogueira(other)
        np.testing.assert_allclose([again.index, again.lower, again.upper], [found.index, found.lower, found.upper])


@pytest.mark.parametrize(
    "chance", [[0.9] * 8 + [0.1] * 32, [0.95] * 30 + [0.02] * 170, [0.9] * 20 + [0.6] * 10 + [0.05] * 70]
)
def test_interval_of_five_profiles_covers_the_true_index_in_at_least_93_of_100_experiments(chance):
    rng, chance = np.random.default_rng(7), np.array(chance)
    share = chance.mean()
    truth = 1 - (chance * (1 - chance)).mean() / (share * (1 - share))
    found = [nogueira(rng.random((5, len(chance))) < chance) for _ in range(500)]
    covered = np.mean([of.lower <= truth <= of.upper for of in found])
    assert 0.93 <= covered <= 0.99


def test_interval_of_medians_covers_the_index_of_very_many():
    """Each profile is the median of 5 runs whose three peaks move and differ in height."""
    rng, places = np.random.default_rng(8), np.arange(100)

    def stability(profiles):
        centres = np.array([20, 50, 80]) + rng.normal(0, 3, (profiles, 5, 3))
        heights = np.exp(rng.normal(0, 0.6, (profiles, 5, 3, 1)))
        runs = (heights * np.exp(-((places - centres[..., None]) ** 2) / 18)).sum(2) + 0.05
        return window_stability(np.median(runs, axis=1), NM, bands=12, half_width=2)

    truth, found = stability(3000).index, [stability(5) for _ in range(400)]
    assert np.mean([of.lower <= truth <= of.upper for of in found]) >= 0.93


@pytest.mark.parametrize("value", [True, False])
def test_index_is_undefined_where_all_bands_or_none_are_selected(value):
    assert np.isnan(nogueira(np.full((3, 5), value)).index)


def test_one_run_has_no_stability():
    with pytest.raises(InputError, match="runs is 1, expected at least 2"):
        nogueira(np.ones((1, 5), bool))


# selections


def test_top_bands_leave_out_ties_and_what_is_below_the_mean():
    profiles = np.array([[0.5, 0.3, 0.1, 0.1], [0.4, 0.3, 0.2, 0.1], [1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(top_bands(profiles, 3), np.array(expected, bool))


def test_uniform_profiles_do_not_count_as_agreement():
    assert np.isnan(window_stability(np.full((5, 100), 0.01), NM).index)


def test_windows_are_widened_in_order_of_wavelength():
    nm = np.array([500.0, 400, 600, 700, 800, 900])
    selected = np.array([[False, True, False, False, False, False]])
    np.testing.assert_array_equal(widened(selected, nm, half_width=1), [[True, True, False, False, False, False]])
    np.testing.assert_array_equal(widened(selected, nm, half_width=0), selected)


def test_windows_of_random_bands_agree_by_little_more_than_chance():
    rng = np.random.default_rng(5)
    selected = np.argsort(rng.random((200, 100)), axis=1) < 8
    assert abs(nogueira(widened(selected, NM, half_width=3)).index) < 0.02


def test_peaks_moved_by_two_bands_agree_as_windows_more_than_as_bands():
    profiles = np.stack([bumps([20 + s, 70 + s]) for s in (-2, 0, 2)])
    windows, lone = (window_stability(profiles, NM, bands=10, half_width=h).index for h in (3, 0))
    assert windows > lone + 0.1


def test_fewer_bands_are_compared_where_there_are_few():
    assert [compared_bands(number) for number in (3, 40, 60, 90, 200)] == [(1, 0), (10, 1), (15, 2), (20, 3), (20, 3)]


# beside untrained networks


def test_relative_profiles_are_multiples_of_untrained_weights():
    untrained = np.array([0.4, 0.2, 0.2, 0.0])
    found = relative_profiles(np.array([[0.4, 0.4, 0.2, 0.0], [0.4, 0.2, 0.2, 0.2]]), untrained)
    np.testing.assert_allclose(found, [[0.25, 0.5, 0.25, 0], [1 / 3, 1 / 3, 1 / 3, 0]])


def test_weights_that_only_the_sizes_of_groups_made_do_not_agree():
    rng = np.random.default_rng(8)
    start = np.concatenate([np.full(size, 0.25 / size) for size in (10, 20, 30, 40)])
    profiles = start * np.exp(rng.normal(0, 0.05, (6, 100)))
    windows = np.kron(np.eye(10, dtype=bool), np.ones((1, 10), bool))
    assert window_stability(profiles, NM, bands=10).index > 0.6
    relative = relative_profiles(profiles, start)
    assert abs(window_stability(relative, NM, bands=10).index) < 0.2
    assert uniformity_p(profiles, windows) < 0.01 and uniformity_p(relative, windows) > 0.05
    learned = relative_profiles(profiles + 0.1 * bumps([90]), start)
    assert window_stability(learned, NM, bands=10).index > 0.9


# ensembles


def test_quartiles_are_those_of_each_band_times_one_factor():
    profiles = np.array([[0.2, 0.8, 0.0], [0.4, 0.4, 0.2], [0.1, 0.3, 0.6]])
    found = quartiles(profiles)  # the medians 0.2, 0.4 and 0.2 sum to 0.8
    np.testing.assert_allclose([found.lower[0], found.median[0], found.upper[0]], [0.1875, 0.25, 0.375])
    np.testing.assert_allclose(found.median, [0.25, 0.5, 0.25])


def test_a_band_of_one_run_is_not_in_the_median_and_weights_of_layers_stay_apart():
    profiles = np.array([[0.4, 0.2, 0.0], [0.4, 0.2, 0.0], [0.0, 0.2, 0.4]])  # the rest of 1 is a layer's
    np.testing.assert_allclose(quartiles(profiles).median, [0.4, 0.2, 0.0])
    np.testing.assert_allclose(quartiles(np.eye(3)).median, 1 / 3)  # no band has a weight in half of the runs


def noisy(rng, shape, *, sigma):
    profiles = bumps([20, 50, 80]) * np.exp(rng.normal(0, sigma, (*shape, 100)))
    return profiles / profiles.sum(-1, keepdims=True)


# uniformity


def test_planted_weights_are_told_from_uniform_ones_and_flat_ones_are_not():
    rng = np.random.default_rng(2)
    windows = np.kron(np.eye(10, dtype=bool), np.ones((1, 10), bool))
    flat = np.exp(rng.normal(0, 0.3, (5, 100)))
    assert uniformity_p(noisy(rng, (5,), sigma=0.3), windows) < 0.01
    assert uniformity_p(flat / flat.sum(1, keepdims=True), windows) > 0.05


def test_uniformity_is_right_for_runs_that_are_all_alike():
    windows = np.kron(np.eye(10, dtype=bool), np.ones((1, 10), bool))
    assert uniformity_p(np.full((3, 100), 0.01), windows) == 1
    # 10 of 1000 shifts are the same for all three
    assert uniformity_p(np.tile(bumps([50]), (3, 1)), windows) < 0.03


def test_uniform_weights_are_called_otherwise_in_at_most_5_of_100_experiments():
    rng = np.random.default_rng(4)
    windows = np.kron(np.eye(10, dtype=bool), np.ones((1, 10), bool))
    profiles = np.exp(rng.normal(0, 0.5, (300, 5, 100)))
    p = [uniformity_p(rows / rows.sum(1, keepdims=True), windows) for rows in profiles]
    assert np.mean(np.array(p) < 0.05) <= 0.08


def test_smooth_noise_is_called_otherwise_no_more_often():
    rng = np.random.default_rng(5)
    windows = np.kron(np.eye(25, dtype=bool), np.ones((1, 4), bool))
    noise = gaussian_filter1d(rng.normal(size=(300, 5, 100)), 8.0, axis=2, mode="wrap")
    profiles = np.exp(0.5 * noise / noise.std())
    p = [uniformity_p(rows / rows.sum(1, keepdims=True), windows, shifts=199) for rows in profiles]
    assert np.mean(np.array(p) < 0.05) <= 0.08


def test_sparse_weights_in_random_windows_are_not_told_from_uniform_ones():
    rng = np.random.default_rng(6)
    windows = np.kron(np.eye(10, dtype=bool), np.ones((1, 10), bool))
    share = np.argsort(rng.random((300, 5, 10)), axis=2) < 4  # every run leaves out 6 of 10 windows
    p = [uniformity_p(rows @ windows / 40, windows) for rows in share]
    assert np.mean(np.array(p) < 0.05) <= 0.08
