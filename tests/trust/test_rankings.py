import numpy as np
import pytest

from hsfusion.errors import InputError
from hsfusion.trust import rankings
from hsfusion.trust.rankings import (
    choices,
    distinct_distance_nm,
    evenly_spaced,
    filter_limits,
    mnf_loading,
    mutual_information,
    random_bands,
    retrain_score,
    select_bands,
    smallest_number,
    svm_weights,
)

NM = np.linspace(400, 2400, 60)
BEST = np.array([10, 11, 12, 40, 41, 42])


def planted(seed, pixels=240):
    """Pixels of 4 classes: two bits, one in the bands 10-12, one in 40-42, noise elsewhere."""
    rng = np.random.default_rng(seed)
    classes = np.arange(pixels) % 4
    spectra = rng.normal(size=(pixels, 60))
    spectra[:, 10:13] += 2 * (2 * (classes % 2) - 1)[:, None]
    spectra[:, 40:43] += 2 * (2 * (classes // 2) - 1)[:, None]
    return (spectra - spectra.mean(0)) / spectra.std(0), classes


WEIGHT = np.isin(np.arange(60), BEST) / 6


# our choice


@pytest.mark.parametrize("k", [1, 3, 7, 20, 60])
def test_uniform_weights_give_evenly_spaced_bands(k):
    chosen = select_bands(np.full(60, 1 / 60), NM, number=k)
    assert np.abs(chosen - evenly_spaced(NM, number=k)).max() <= 1
    assert len(set(chosen.tolist())) == k


def test_each_band_stands_for_an_equal_part_of_the_weight():
    weight = np.array([0, 4, 0, 2, 2, 0, 1, 1, 1, 1.0]) / 12
    np.testing.assert_array_equal(select_bands(weight, np.arange(10.0), number=3), [1, 3, 7])


def test_more_bands_lie_where_more_weight_is_and_in_every_window():
    places = np.arange(200)
    weight = 3 * np.exp(-((places - 50) ** 2) / 50) + np.exp(-((places - 150) ** 2) / 50)
    chosen = select_bands(weight, places.astype(float), number=8)
    assert ((chosen < 100).sum(), (chosen >= 100).sum()) == (6, 2)


def test_bands_without_weight_come_last():
    np.testing.assert_array_equal(select_bands(np.array([1.0, 0, 1]), np.arange(3.0), number=1), [0])
    assert set(select_bands(WEIGHT, NM, number=6)) == set(BEST)
    assert set(select_bands(WEIGHT, NM, number=8)) > set(BEST)


@pytest.mark.parametrize("k", [1, 5, 6, 17])
def test_choice_depends_on_wavelengths_and_not_on_the_file_order_nor_the_scale(k):
    weight = np.random.default_rng(0).random(60)
    mixed = np.random.default_rng(1).permutation(60)
    chosen = select_bands(weight, NM, number=k)
    np.testing.assert_array_equal(mixed[select_bands(weight[mixed], NM[mixed], number=k)], chosen)
    np.testing.assert_array_equal(select_bands(1000 * weight, NM, number=k), chosen)
    np.testing.assert_array_equal(mixed[evenly_spaced(NM[mixed], number=k)], evenly_spaced(NM, number=k))


def test_one_band_with_all_the_weight_is_chosen_once():
    chosen = select_bands((np.arange(60) == 30).astype(float), NM, number=5)
    assert 30 in chosen and len(set(chosen.tolist())) == 5


@pytest.mark.parametrize("k", [0, 61])
def test_numbers_of_bands_out_of_range_are_refused(k):
    with pytest.raises(InputError, match=f"k is {k}, expected 1 to 60"):
        select_bands(WEIGHT, NM, number=k)


# bands that say something of their own


def chain(nm, length_nm):
    """Correlation that falls with the distance in nm."""
    return np.exp(-np.abs(nm[:, None] - nm) / length_nm)


def test_distance_is_where_the_correlation_falls_below_the_limit():
    nm = np.arange(400.0, 1000, 10)
    assert distinct_distance_nm(chain(nm, 1000), nm) == 60  # exp(-50 / 1000) is 0.951
    assert distinct_distance_nm(-chain(nm, 1000), nm) == 60
    assert distinct_distance_nm(np.ones((60, 60)), nm) == 590
    mixed = np.random.default_rng(0).permutation(60)
    assert distinct_distance_nm(chain(nm, 1000)[np.ix_(mixed, mixed)], nm[mixed]) == 60


@pytest.mark.parametrize("number", [5, 14, 20, 30])
def test_bands_keep_the_distance_however_narrow_the_peak(number):
    nm = np.arange(400.0, 2400, 10)
    peaks = 60 * np.exp(-(((nm - 690) / 15) ** 2)) + 20 * np.exp(-(((nm - 2200) / 15) ** 2)) + 0.05
    neighbours = np.sort(nm[select_bands(peaks, nm, number=number)])
    assert np.diff(neighbours).min() == 10
    for apart in (40.0, 5000.0):
        chosen = select_bands(peaks, nm, number=number, apart_nm=apart)
        nearest = np.diff(nm[chosen]).min()
        assert len(set(chosen.tolist())) == number
        assert nearest >= min(apart, nm.size * 10 / (2 * number)) - 1e-6
        assert 690 in nm[chosen].round(-1) or np.abs(nm[chosen] - 690).min() <= 20


def test_what_a_peak_weighs_beyond_the_limit_goes_to_the_others_in_proportion():
    nm = np.arange(0.0, 1000, 10)
    weight = np.full(100, 0.001)
    weight[20], weight[60:64] = 1.0, 0.1
    chosen = nm[select_bands(weight, nm, number=6, apart_nm=30)]
    assert 200 in chosen
    assert ((chosen >= 590) & (chosen <= 640)).sum() == 2
    np.testing.assert_array_equal(select_bands(weight, nm, number=6, apart_nm=0), select_bands(weight, nm, number=6))


def test_distance_gives_way_where_too_few_bands_have_a_weight():
    weight = np.isin(np.arange(60), [10, 11, 12]).astype(float)
    np.testing.assert_array_equal(select_bands(weight, NM, number=3, apart_nm=500), [10, 11, 12])


def test_filters_are_as_wide_as_the_bands_say_the_same():
    nm = np.r_[np.arange(400.0, 1000, 10), np.arange(1100.0, 1300, 10)]
    limits = filter_limits(np.array([10, 59, 70]), chain(nm, 1000), nm)
    np.testing.assert_allclose(limits, [[445, 555], [935, 995], [1145, 1255]])  # the second ends at a gap
    close = filter_limits(np.array([10, 13]), np.ones((80, 80)), nm)
    np.testing.assert_allclose(close, [[395, 515], [515, 995]])
    alone = filter_limits(np.array([5]), np.eye(80), nm)
    np.testing.assert_allclose(alone, [[445, 455]])
    mixed = np.random.default_rng(0).permutation(80)
    where = np.array([int(np.flatnonzero(mixed == c)[0]) for c in (10, 59, 70)])
    np.testing.assert_allclose(filter_limits(where, chain(nm, 1000)[np.ix_(mixed, mixed)], nm[mixed]), limits)


# the others


def test_evenly_spaced_bands_lie_in_the_middle_of_equal_parts():
    np.testing.assert_array_equal(evenly_spaced(np.arange(200.0), number=5), [20, 60, 100, 140, 180])
    np.testing.assert_array_equal(evenly_spaced(np.arange(4.0), number=4), np.arange(4))


def test_random_bands_are_distinct_and_follow_the_seed():
    first, again, other = (random_bands(200, number=30, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(set(first.tolist())) == 30 and set(first) != set(other)


def test_mutual_information_and_svm_weights_name_the_planted_bands():
    train = planted(0)
    assert set(np.argsort(-mutual_information(train, seed=0))[:6]) == set(BEST)
    assert set(np.argsort(-svm_weights(train, seed=0))[:6]) == set(BEST)


def test_mnf_loading_names_the_bands_with_little_noise():
    rng = np.random.default_rng(0)
    noise = np.array([0.1] * 4 + [1.0] * 8)
    spectra = rng.normal(size=(400, 1)) + noise * rng.normal(size=(400, 12))
    differences = np.sqrt(2) * noise * rng.normal(size=(400, 12))
    assert set(np.argsort(-mnf_loading(spectra, differences))[:4]) == set(range(4))


NOISE = np.random.default_rng(5).normal(size=(200, 60))


def test_choices_hold_ours_and_six_others_that_all_give_k_bands():
    named = choices(WEIGHT, planted(0), noise=NOISE, wavelength_nm=NM, seed=0)
    assert len(named) == 7
    for name, choice in named.items():
        for k in (1, 5, 12):
            assert len(set(choice(k).tolist())) == k, name
    assert set(named["weights"](6)) <= set(BEST) and not set(named["lowest weights"](6)) & set(BEST)


def test_scores_of_others_choose_by_our_rule():
    train = planted(0)
    named = choices(WEIGHT, train, noise=NOISE, wavelength_nm=NM, seed=0)
    apart = distinct_distance_nm(np.corrcoef(train[0].T), NM)
    scores = {"SVM weights": svm_weights(train, seed=0), "MNF loading": mnf_loading(train[0], NOISE)}
    for name, score in scores.items():
        np.testing.assert_array_equal(named[name](5), select_bands(score, NM, number=5, apart_nm=apart))


def test_scores_of_0_are_spread_evenly(monkeypatch):
    monkeypatch.setattr(rankings, "mutual_information", lambda train, seed: np.zeros(60))
    named = choices(WEIGHT, planted(0), noise=NOISE, wavelength_nm=NM, seed=0)
    np.testing.assert_array_equal(named["mutual information"](3), select_bands(np.ones(60), NM, number=3))


# retraining


def test_retrained_svm_on_planted_bands_beats_the_one_on_other_bands():
    train, val, test = planted(0), planted(1, 80), planted(2, 400)
    chosen, good = retrain_score(train, val, test=test, bands=BEST, seed=0)
    _, bad = retrain_score(train, val, test=test, bands=np.arange(20, 26), seed=0)
    assert good > 0.95
    assert bad < 0.4
    assert chosen is not None and abs(chosen - good) < 0.1
    no_val = (val[0][:0], val[1][:0])
    none, alone = retrain_score(train, no_val, test=test, bands=BEST, seed=0)
    assert none is None and alone > 0.95


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.5, 0.76, 0.79, 0.8], 10),
        ([0.5, 0.77, 0.7, 0.8], 30),
        ([0.9, 0.9, 0.9, 0.9], 5),
        ([0.5, 0.6, 0.7, 0.75], None),
    ],
)
def test_smallest_number_holds_for_every_larger_one(accuracies, expected):
    assert smallest_number([5, 10, 20, 30], accuracies, full=0.8) == expected
