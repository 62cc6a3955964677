import numpy as np
import pytest

from hsfusion.spectra import Bands, band_spacing_nm


def spacing(nm, used=None):
    used = np.ones(len(nm), bool) if used is None else np.array(used)
    return band_spacing_nm(Bands.from_wavelengths(nm), used[None])


def test_even_bands_stand_for_their_distance():
    np.testing.assert_allclose(spacing([400.0, 410, 420, 430]), 10)


def test_order_of_the_bands_does_not_matter():
    nm = np.array([400.0, 405, 420, 440, 445, 470])
    order = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(spacing(nm[order]), spacing(nm)[order])


def test_a_copy_shares_the_width_of_its_band():
    alone = spacing([400.0, 410, 420, 430])
    copied = spacing([400.0, 410, 410, 420, 430])
    assert copied[1] == copied[2] == alone[1] / 2
    assert copied.sum() == pytest.approx(alone.sum())


def test_bands_do_not_reach_across_a_gap():
    width = spacing([400.0, 410, 420, 800, 810, 820])
    np.testing.assert_allclose(width, 10)


def test_bands_out_of_use_do_not_count():
    width = spacing([400.0, 405, 410, 420], used=[True, False, True, True])
    np.testing.assert_allclose(width, [10, 1, 10, 10])


def test_single_band_has_a_width():
    assert spacing([500.0]).tolist() == [1.0]
    assert spacing([500.0, 500.0]).tolist() == [0.5, 0.5]
