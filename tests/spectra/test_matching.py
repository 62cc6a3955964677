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


def test_no_band_is_taken_twice_and_bad_ones_are_not_taken():
    assert match_bands(bands([500, 502], 10), bands([501])).tolist() == [0, -1]
    assert match_bands(bands([500], 10), bands([500, 503], good=np.array([False, True]))).tolist() == [1]


def test_named_ranges_and_intervals_become_bad_bands_with_both_ends():
    there = bands([400, 1349, 1350, 1430, 1431, 1900])
    assert there.without(["water_vapour", [390, 400]]).good.tolist() == [False, True, False, False, True, False]
    assert there.good.all()


@pytest.mark.parametrize("given", ["vapour", [1], [2, 1], ["a", "b"], 5, None, [float("nan"), 3], [1, 2, 3]])
def test_range_that_is_none_is_one_line(given):
    with pytest.raises(InputError, match=r"bad_bands is .*, expected .*water_vapour\. Fix: .*"):
        bands([400, 500]).without([given])
