import numpy as np
import pytest

from hsfusion.errors import InputError
from hsfusion.spectra import Bands, match_bands


def bands(nm, fwhm=None, good=None):
    nm = np.asarray(nm, float)
    return Bands(
        nm, None if fwhm is None else np.full(nm.shape, float(fwhm)), np.ones(nm.size, bool) if good is None else good
    )


def test_bands_of_another_order_and_more_of_them_are_found():
    assert match_bands(bands([500, 600, 700], 10), bands([701, 400, 500, 604.9])).tolist() == [2, 3, 0]


def test_band_beyond_half_a_width_is_missing():
    assert match_bands(bands([500, 600], 10), bands([505, 605.1])).tolist() == [0, -1]


def test_spacing_stands_for_unknown_widths():
    assert match_bands(bands([500, 510, 520]), bands([504.9, 515.1, 900])).tolist() == [0, -1, 1]


def test_scene_matches_itself_band_by_band_even_where_spectrometers_overlap():
    scene = bands([690, 700, 700, 686, 695, 705], 12)
    assert match_bands(scene, scene).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("shift", [0, 4.5e-13])
def test_detectors_of_one_centre_are_told_apart_by_their_widths(shift):
    wanted = Bands(np.array([700.0, 700, 710]), np.array([10.0, 12, 12]), np.ones(3, bool))
    offered = Bands(np.array([700.0, 710, 700 + shift]), np.array([12.0, 12, 10]), np.ones(3, bool))
    assert match_bands(wanted, offered).tolist() == [2, 0, 1]
    assert match_bands(wanted, offered, needed=np.array([False, True, True])).tolist() == [2, 0, 1]
    assert match_bands(wanted, Bands(offered.wavelength_nm, None, offered.good)).tolist() == [0, 2, 1]


def test_no_band_is_taken_twice_and_bad_ones_are_not_taken():
    assert match_bands(bands([500, 502], 10), bands([501])).tolist() == [0, -1]
    assert match_bands(bands([500], 10), bands([500, 503], good=np.array([False, True]))).tolist() == [1]


def test_band_that_nobody_needs_stands_in_no_others_way():
    wanted, offered = bands([500, 502], 10), bands([500.5])
    assert match_bands(wanted, offered).tolist() == [0, -1]
    assert match_bands(wanted, offered, needed=np.array([False, True])).tolist() == [-1, 0]
    # 500 has the band of 503, which has that of 507
    wanted, offered = bands([500, 503, 507], 10), bands([501, 506.5])
    assert match_bands(wanted, offered, needed=np.array([False, True, True])).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("seed", range(20))
def test_needed_band_is_missing_only_where_it_is_missing_among_the_needed_alone(seed):
    rng = np.random.default_rng(seed)
    wanted, offered = bands(rng.uniform(500, 560, 12), 10), bands(rng.uniform(500, 560, 9), 10)
    needed = rng.random(12) < 0.5
    alone = match_bands(bands(wanted.wavelength_nm[needed], 10), offered)
    found, plain = match_bands(wanted, offered, needed=needed), match_bands(wanted, offered)
    expected = plain[needed] if (plain[needed] >= 0).all() else alone
    assert found[needed].tolist() == expected.tolist()


def test_needed_bands_of_a_scene_match_themselves_where_spectrometers_overlap():
    scene = bands([690, 700, 700, 686, 695, 705], 12)
    needed = np.array([True, False, True, True, False, True])
    assert match_bands(scene, scene, needed=needed)[needed].tolist() == [0, 2, 3, 5]


def test_spacing_is_that_of_all_wanted_bands_and_not_of_the_needed_alone():
    wanted = bands([500, 510, 520, 530, 540])
    needed = np.array([True, False, False, False, True])
    assert match_bands(wanted, bands([508, 540]), needed=needed)[needed].tolist() == [-1, 1]


def test_named_ranges_and_intervals_become_bad_bands_with_both_ends():
    there = bands([400, 1349, 1350, 1430, 1431, 1900])
    assert there.without(["water_vapour", [390, 400]]).good.tolist() == [False, True, False, False, True, False]
    assert there.without("water_vapour").good.tolist() == there.without(["water_vapour"]).good.tolist()
    assert there.good.all()


@pytest.mark.parametrize("given", ["vapour", [1], [2, 1], ["a", "b"], 5, None, [float("nan"), 3], [1, 2, 3]])
def test_range_that_is_none_is_one_line(given):
    with pytest.raises(InputError, match=r"bad_bands is .*, expected .*water_vapour\. Fix: .*"):
        bands([400, 500]).without([given])
