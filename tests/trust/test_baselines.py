import time
import warnings

import numpy as np
import pytest

from hsfusion.trust import baselines
from hsfusion.trust.baselines import (
    BASELINES,
    PixelTable,
    fit_baselines,
    linear_classifier,
    network_share,
    noise_components,
    paired_difference,
    paired_interval,
    temperature,
)


def table(seed, *, number=60, classes=3):
    """Classes that differ in the mean of the third band alone."""
    rng = np.random.default_rng(seed)
    y = np.arange(number) % classes
    x = rng.standard_normal((number, 8))
    x[:, 2] = 0.3 * x[:, 2] + 2 * y
    return PixelTable(x, x, y)


def test_every_baseline_learns_what_is_there_and_names_what_it_chose():
    noise = np.random.default_rng(3).standard_normal((40, 8))
    rows = list(fit_baselines(table(0), table(1), table(2), noise=noise))
    assert [row.name for row in rows] == list(BASELINES)
    assert all((row.classes == table(2).classes).mean() > 0.9 for row in rows)
    assert {"C", "gamma"} <= rows[2].setting.keys()


def test_threads_of_the_forest_leave_the_warning_filters_of_the_process(monkeypatch):
    reset, filters = warnings.resetwarnings, list(warnings.filters)
    monkeypatch.setattr(warnings, "resetwarnings", lambda: (reset(), time.sleep(1e-4)))  # and another thread goes on
    rows = list(fit_baselines(table(0), table(1), table(2), noise=np.zeros((0, 8)), names=["forest"]))
    assert (rows[0].classes == table(2).classes).mean() > 0.9
    assert warnings.filters == filters


def test_without_validation_pixels_folds_choose():
    rows = fit_baselines(table(0), table(1)[np.arange(0)], table(2), noise=np.zeros((0, 8)), names=["lda", "svm_mnf"])
    assert all((row.classes == table(2).classes).mean() > 0.9 for row in rows)


@pytest.mark.parametrize("number", [1, 7])
def test_classes_of_a_single_pixel_are_fitted_without_a_warning(number):
    train = table(0)[np.r_[np.arange(0, 3 * number, 3), 1, 2]]
    for val in (table(1), table(1)[:0]):
        rows = list(fit_baselines(train, val, table(2), noise=np.zeros((0, 8))))
        assert [row.name for row in rows] == list(BASELINES)[number == 1 :]


def test_more_pixels_than_can_be_fitted_in_seconds_are_thinned_in_the_shares_of_their_classes(monkeypatch):
    monkeypatch.setattr(baselines, "_MOST", 30)
    monkeypatch.setattr(baselines, "_MOST_OF_SVM", 12)
    fitted = []

    def watched(estimator, grid, x, y, *more, **options):
        fitted.append(np.bincount(y).tolist())
        estimator.fit(x, y)
        return {}

    monkeypatch.setattr(baselines, "_fit_chosen", watched)
    list(fit_baselines(table(0), table(1), table(2), noise=np.zeros((0, 8))))
    assert fitted == [[10] * 3] * 2 + [[4] * 3] * 3 + [[10] * 3]


@pytest.mark.parametrize("present", [2, 3])
def test_linear_classifier_gives_logits_of_all_classes(present):
    train, val = table(0, classes=present), table(1, classes=present)
    weight, bias = linear_classifier((train.spectra, train.classes), (val.spectra, val.classes), num_classes=4)
    logits = val.spectra @ weight.T + bias
    assert (logits.argmax(1) == val.classes).mean() > 0.9
    assert np.abs(weight).max(0).argmax() == 2
    assert not weight[present:].any()


def test_share_goes_to_the_part_that_knows_the_classes():
    y = np.arange(90) % 3
    knows, guesses = 4.0 * np.eye(3)[y], np.random.default_rng(0).standard_normal((90, 3))
    assert network_share(knows, guesses, y)[0] == 1
    assert network_share(guesses, knows, y)[0] == 0


def test_temperature_softens_what_is_too_sure():
    y = np.arange(200) % 2
    said = np.where(np.random.default_rng(0).random(200) < 0.3, 1 - y, y)  # right in 70 % of the pixels
    logits = 10.0 * np.eye(2)[said]
    assert temperature(logits, y) == 4
    assert temperature(logits / 12, y) == pytest.approx(1, abs=0.25)


def test_interval_is_over_blocks_and_not_over_pixels():
    blocks = np.repeat(np.arange(10), 50)
    right = np.repeat(np.random.default_rng(0).random(10) < 0.5, 50)  # whole blocks are right or wrong
    difference, low, high = paired_difference(right, np.zeros(500, bool), blocks)
    assert difference == right.mean()
    assert high - low > 0.4
    scattered = paired_difference(right, np.zeros(500, bool), np.arange(500))
    assert scattered[2] - scattered[1] < 0.15


@pytest.mark.parametrize("number", [2, 5])
def test_interval_over_few_units_covers(number):
    rng, inside = np.random.default_rng(0), []
    for _ in range(300):
        units = np.repeat(np.arange(number), 40)
        one, other = (rng.random(units.size) < np.clip(rng.normal(0.8, 0.15, number), 0, 1)[units] for _ in range(2))
        _, low, high = paired_difference(one, other, units)
        inside.append(low <= 0 <= high)
    assert np.mean(inside) > 0.91


def test_of_one_unit_nothing_is_known():
    assert paired_difference(np.ones(40, bool), np.arange(40) < 20, np.zeros(40, int)) == (0.5, -1, 1)


def test_components_are_ordered_by_signal_to_noise():
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 10.0, 0.1])  # of the noise: the second band holds the largest variance and no signal
    spectra = rng.standard_normal((500, 3)) * np.array([3.0, 10.0, 0.1])
    axes = noise_components(spectra, rng.standard_normal((500, 3)) * scale * 2**0.5)
    assert np.abs(axes[:, 0]).argmax() == 0


def test_a_single_band_is_its_own_component():
    assert noise_components(np.array([[1.0], [2.0], [4.0]]), np.array([[1.0], [-1.0]])).shape == (1, 1)


def test_interval_of_paired_differences_is_that_of_student():
    mean, low, high = paired_interval([0.01, 0.03, 0.02, 0.04, 0.05])
    half = 2.7764 * np.sqrt(0.00025 / 5)
    np.testing.assert_allclose([mean, low, high], [0.03, 0.03 - half, 0.03 + half], rtol=1e-4)
    assert paired_interval([0.01]) == (0.01, None, None)
