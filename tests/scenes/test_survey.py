import dataclasses
import sys

import numpy as np
import pytest

from hsfusion.scenes import ArrayRaster
from hsfusion.scenes.survey import atmospheric_bands, survey

NAN = np.nan
module = sys.modules[survey.__module__]
CUBE = np.array(
    [
        [[0, 1, 2], [3, 4, 4]],  # one zero, the largest value twice
        [[-1, NAN, 5], [-1, 7, NAN]],  # two without data
        [[NAN] * 3, [NAN] * 3],
        [[6, 6, 6], [6, 6, NAN]],
        [[0, 0, 0], [0, 0, 0]],
    ],
    np.float32,
)


def found(cube=CUBE):
    return survey(ArrayRaster(np.asarray(cube)))


def test_every_figure_of_a_small_cube_is_exact():
    result = found()
    assert (result.pixels, result.total) == (6, 6)
    np.testing.assert_allclose(result.no_data, [0, 2 / 6, 1, 1 / 6, 0])
    np.testing.assert_allclose(result.zero, [1 / 6, 0, 0, 0, 1])
    np.testing.assert_array_equal(result.lowest, [0, -1, NAN, 6, 0])
    np.testing.assert_array_equal(result.highest, [4, 7, NAN, 6, 0])
    np.testing.assert_allclose(result.at_lowest, [1 / 6, 2 / 6, 0, 5 / 6, 1])
    np.testing.assert_allclose(result.at_highest, [2 / 6, 1 / 6, 0, 5 / 6, 1])
    assert result.lowest_at.tolist() == [[0, 0], [0, 0], [0, 0], [0, 0], [0, 0]]
    assert result.highest_at.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0], [0, 0]]
    np.testing.assert_allclose(result.mean, [14 / 6, 10 / 4, NAN, 6, 0])
    np.testing.assert_allclose(result.quantiles[2], [2.5, 2, NAN, 6, 0])
    np.testing.assert_allclose(result.quantiles[0, :2], [0.1, -1])
    np.testing.assert_array_equal(result.dead, [False, False, True, True, True])


def test_pixels_without_data_and_pixels_that_are_zero_in_all_bands_are_counted():
    cube = np.ones((2, 2, 4), np.float32)
    cube[:, 0, 0] = NAN
    cube[:, 1, :3] = 0
    cube[0, 0, 1], cube[1, 0, 1] = NAN, 0  # no data in one band, 0 in the other
    cube[0, 0, 2] = 0  # 0 in one band only
    result = found(cube)
    assert (result.empty, result.blank) == (1 / 8, 4 / 8)


def test_correlation_is_that_of_right_hand_neighbours():
    rng = np.random.default_rng(0)
    layer = rng.normal(size=(9, 11)) + np.arange(11)
    layer[2, 3] = NAN
    left, right = layer[:, :-1].ravel(), layer[:, 1:].ravel()
    both = np.isfinite(left) & np.isfinite(right)
    expected = np.corrcoef(left[both].astype(np.float32), right[both].astype(np.float32))[0, 1]
    layers = np.stack([layer, layer + 10_000, np.ones_like(layer)])
    np.testing.assert_allclose(found(layers).correlation[:2], expected, atol=1e-5)
    assert np.isnan(found(layers).correlation[2])


def test_picture_correlates_and_noise_does_not():
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(100) / 9) * np.ones((100, 1))
    result = found(np.stack([wave, rng.normal(size=wave.shape)]))
    assert result.correlation[0] > 0.98
    assert abs(result.correlation[1]) < 0.05


@pytest.mark.parametrize("at_once", [1, 200, 1000])
def test_windows_give_what_the_whole_gives(monkeypatch, at_once):
    rng = np.random.default_rng(1)
    cube = rng.integers(-3, 9, (4, 37, 13)).astype(np.float32)
    cube[rng.random(cube.shape) < 0.1] = NAN
    cube[2] = NAN
    cube[3, :20] = -4  # the smallest in several windows
    whole = found(cube)
    monkeypatch.setattr("hsfusion.scenes.geobox._NUMBERS", at_once)
    parts = found(cube)
    for field in dataclasses.fields(whole):
        np.testing.assert_allclose(getattr(parts, field.name), getattr(whole, field.name), err_msg=field.name)


def test_large_cube_is_read_in_evenly_spaced_windows_and_the_share_is_told(monkeypatch):
    monkeypatch.setattr(module, "_MOST_NUMBERS", 3 * 2000)
    cube = np.broadcast_to(np.arange(1000.0)[:, None], (3, 1000, 10))
    read = []

    class Watched(ArrayRaster):
        def read(self, window):
            read.append(window)
            return super().read(window)

    result = survey(Watched(cube))
    assert result.total == 10_000
    assert result.pixels == sum(window.height for window in read[1:]) * 10 == 2000
    rows = [window.row for window in read[1:]]
    assert len(rows) == 8
    assert rows[0] == 0
    assert rows[-1] + read[-1].height == 1000
    assert np.ptp(np.diff(rows)) <= 1
    np.testing.assert_allclose(result.mean, 499.5, atol=0.5)


def test_quantiles_of_many_numbers_come_from_evenly_spaced_pixels(monkeypatch):
    cube = np.arange(20_000.0).reshape(1, 200, 100)
    monkeypatch.setattr(module, "_MOST_SORTED", 1000)
    result = found(cube)
    np.testing.assert_allclose(result.quantiles[:, 0], [400, 5000, 10000, 15000, 19600], atol=25)
    assert (result.lowest[0], result.highest[0]) == (0, 19_999)


@pytest.mark.parametrize("ends", [(-3.4028235e38, 3.4028235e38), (-1e34, 9.969209968386869e36)])
def test_statistics_of_numbers_near_the_end_of_their_type_do_not_overflow(ends):
    low, high = (float(np.float32(end)) for end in ends)
    cube = np.array([[[low, 1.0, 2.0, high], [low, 3.0, 4.0, high]]], np.float32)
    result = found(cube)
    assert low < result.mean[0] < high
    np.testing.assert_allclose(result.quantiles[[1, 2, 3], 0], [0.75 * 1 + 0.25 * low, 2.5, 0.75 * 4 + 0.25 * high])
    assert -1 <= result.correlation[0] <= 1


def test_one_pixel_can_be_surveyed_and_is_not_called_dead():
    result = found(np.array([5.0, 0, NAN])[:, None, None])
    assert result.dead.tolist() == [False, True, True]
    assert np.isnan(result.correlation).all()


# what the atmosphere makes


def smooth_spectrum(nm):
    """With a red edge, and noise of a thousandth."""
    noise = np.random.default_rng(0).normal(0, 1e-3, nm.size)
    return 0.1 + 0.3 / (1 + np.exp(-(nm - 715) / 15)) - 1e-4 * (nm - 1000) + noise


def test_spikes_are_flagged_and_neither_their_neighbours_nor_the_red_edge():
    nm = np.arange(400.0, 1300, 10)
    mean = smooth_spectrum(nm)
    mean[[36, 73]] += (-0.06, 0.05)  # oxygen at 760 nm, water vapour at 1130 nm
    flags = atmospheric_bands(mean, nm, np.ones(nm.size, bool))
    assert np.flatnonzero(flags["spike"]).tolist() == [36, 73]
    assert not flags["edge"].any()
    turned = atmospheric_bands(mean[::-1], nm[::-1], np.ones(nm.size, bool))
    assert np.flatnonzero(turned["spike"][::-1]).tolist() == [36, 73]
    assert not atmospheric_bands(smooth_spectrum(nm), nm, np.ones(nm.size, bool))["spike"].any()


def test_bands_beside_gaps_and_strong_water_vapour_are_edges():
    nm = np.arange(400.0, 2500, 10)
    used = ~((nm >= 1340) & (nm <= 1440)) & (nm != 800) & ~((nm >= 1000) & (nm <= 1020))
    flags = atmospheric_bands(smooth_spectrum(nm), nm, used)
    at = nm[flags["edge"]]
    # a single missing band leaves a step of two, which is no gap; three leave one
    assert at.tolist() == [980, 990, 1030, 1040, 1320, 1330, 1450, 1460, *np.arange(1790.0, 1961, 10)]
    assert not flags["spike"].any()


def test_a_step_back_to_another_spectrometer_is_neither():
    nm = np.r_[np.arange(400.0, 1000, 6), np.arange(905.0, 1300, 12)]
    mean = np.where(np.arange(nm.size) < 100, 0.3, 0.35) + np.random.default_rng(0).normal(0, 1e-4, nm.size)
    flags = atmospheric_bands(mean, nm, np.ones(nm.size, bool))
    assert not flags["spike"].any() and not flags["edge"].any()


def test_of_few_bands_nothing_is_usual():
    nm = np.array([490.0, 560, 665, 705, 740, 783, 842, 865, 1610, 2190])
    flags = atmospheric_bands(np.eye(10)[3], nm, np.ones(10, bool))
    assert not flags["spike"].any() and not flags["edge"].any()
    assert not atmospheric_bands(np.ones(30), np.arange(30.0), np.ones(30, bool))["spike"].any()
