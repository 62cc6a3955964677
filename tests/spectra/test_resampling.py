from itertools import permutations

import numpy as np
import pytest
from spectral import BandResampler

from hsfusion.data.public import indian_pines_bands
from hsfusion.spectra import Bands, band_spacing_nm
from hsfusion.spectra.resampling import mixing_matrix, resampling_matrix
from hsfusion.spectra.sensors import sensor_bands

SPECTROMETERS = ("enmap", "prisma", "emit", "desis", "aviris_classic")


def axis(nm, fwhm=None, good=None):
    nm = np.asarray(nm, float)
    return Bands(
        nm, None if fwhm is None else np.broadcast_to(fwhm, nm.shape), np.ones(nm.shape, bool) if good is None else good
    )


@pytest.mark.parametrize("bands", [indian_pines_bands(), axis([400, 410, 425, 450]), axis([500]), axis([500], 10)])
def test_a_sensor_carries_over_to_itself_as_it_is(bands):
    np.testing.assert_array_equal(resampling_matrix(bands, bands), np.eye(len(bands)))


@pytest.mark.parametrize("name", SPECTROMETERS)
def test_every_listed_sensor_carries_over_to_itself_as_it_is(name):
    bands = sensor_bands(name)
    np.testing.assert_array_equal(resampling_matrix(bands, bands), np.diag(bands.good.astype(float)))


def test_a_band_between_two_others_is_dealt_by_distance():
    share = resampling_matrix(axis([402.5, 410, 415]), axis([400, 410, 420]))
    np.testing.assert_allclose(share, [[0.75, 0.25, 0], [0, 1, 0], [0, 0.5, 0.5]])


def test_fine_bands_keep_their_mean_wavelength_on_coarse_ones():
    fine, coarse = axis(np.arange(405, 595, 2.5), 3), axis(np.arange(400, 601, 20), 20)
    share = resampling_matrix(fine, coarse)
    np.testing.assert_allclose(share.sum(1), 1)
    np.testing.assert_allclose(share @ coarse.wavelength_nm, fine.wavelength_nm)


def test_a_broad_band_spreads_over_fine_ones_with_the_width_they_lack():
    broad, fine = axis([550], 50), axis(np.arange(400, 701, 5), 30)
    share = resampling_matrix(broad, fine)[0]
    nm = fine.wavelength_nm
    lacking = 40 / np.sqrt(8 * np.log(2))  # standard deviation of a FWHM of sqrt(50² - 30²)
    hat = 5 / np.sqrt(6)  # of a triangle from -5 to 5
    assert share.sum() == pytest.approx(1)
    assert share @ nm == pytest.approx(550)
    # the Gaussian is cut at 1.5 FWHM
    assert np.sqrt(share @ (nm - 550) ** 2) == pytest.approx(np.hypot(lacking, hat), rel=0.01)
    assert np.all(np.diff(share[: nm.size // 2 + 1]) >= -1e-9)  # one smooth hill


def test_order_of_the_bands_does_not_matter():
    rng = np.random.default_rng(0)
    old, new = axis(rng.uniform(400, 900, 40), rng.uniform(5, 20, 40)), axis(rng.uniform(400, 900, 30), 8)
    share = resampling_matrix(old, new)
    i, j = rng.permutation(40), rng.permutation(30)
    turned = resampling_matrix(axis(old.wavelength_nm[i], old.fwhm_nm[i]), axis(new.wavelength_nm[j], 8))
    np.testing.assert_allclose(turned, share[np.ix_(i, j)], atol=1e-12)


def test_bands_of_one_centre_share_what_one_alone_takes():
    old = axis([403, 412, 419])
    alone = resampling_matrix(old, axis([400, 410, 420], 10))
    twice = resampling_matrix(old, axis([400, 410, 420, 410], 10))
    np.testing.assert_allclose(twice[:, [1, 3]], np.repeat(alone[:, [1]] / 2, 2, axis=1))
    np.testing.assert_allclose(twice[:, [0, 2]], alone[:, [0, 2]])


def test_bad_bands_take_nothing_and_others_take_their_place():
    share = resampling_matrix(axis([410]), axis([400, 410, 420], 12, good=[True, False, True]))
    np.testing.assert_allclose(share, [[0.5, 0, 0.5]])
    assert not resampling_matrix(axis([410]), axis([410], good=[False])).any()


def test_nothing_is_covered_beyond_half_a_width_from_the_ends():
    share = resampling_matrix(axis([394, 395, 425, 426]), axis([400, 410, 420], 10))
    np.testing.assert_allclose(share, [[0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]])


def test_a_broad_band_across_the_end_is_covered_in_part():
    covered = resampling_matrix(axis([905], 60), axis(np.arange(400, 901, 5), 10)).sum()
    assert covered == pytest.approx(0.5, abs=0.02)  # the last band reaches to 905 nm


def test_nothing_is_covered_in_a_gap():
    new = axis([400, 410, 420, 460, 470, 480], 12)
    share = resampling_matrix(axis([415, 426, 427, 440, 454, 453]), new)
    np.testing.assert_allclose(share.sum(1), [1, 1, 0, 0, 1, 0])
    assert resampling_matrix(axis([440]), axis([400, 410, 420, 460, 470, 480], 20)).sum() == 1  # twice 20 nm: no gap


def test_gap_in_the_atmosphere_of_two_sensors_is_not_bridged():
    good = ~((indian_pines_bands().wavelength_nm > 1300) & (indian_pines_bands().wavelength_nm < 1500))
    bands = indian_pines_bands()
    holed = Bands(bands.wavelength_nm, bands.fwhm_nm, good)
    lost = resampling_matrix(bands, holed).sum(1) == 0
    np.testing.assert_array_equal(lost, ~good)


@pytest.mark.parametrize(("old", "new"), list(permutations(SPECTROMETERS, 2)))
def test_mass_is_kept_between_sensors_wherever_both_see(old, new):
    old, new = sensor_bands(old), sensor_bands(new)
    share = resampling_matrix(old, new)
    assert (share >= 0).all()
    assert share.sum(1).max() <= 1 + 1e-12
    nm = new.wavelength_nm[new.good]
    inner = (old.wavelength_nm > nm.min() + 60) & (old.wavelength_nm < nm.max() - 60)
    step = np.diff(np.sort(nm))
    for k in np.flatnonzero(step > 20):  # water vapour, and joins between spectrometers
        lower, upper = np.sort(nm)[k : k + 2]
        inner &= (old.wavelength_nm < lower - 30) | (old.wavelength_nm > upper + 30)
    np.testing.assert_allclose(share[inner].sum(1), 1, atol=1e-9)
    assert inner.sum() > 20
    np.testing.assert_allclose(share[inner] @ new.wavelength_nm, old.wavelength_nm[inner], atol=1.0)
    assert not share[(old.wavelength_nm < nm.min() - 60) | (old.wavelength_nm > nm.max() + 60)].any()


def test_ten_thousand_bands_are_quick():
    fine, coarse = axis(np.linspace(400, 2500, 10_000), 30), axis(np.linspace(400, 2500, 1000), 3)
    assert resampling_matrix(fine, coarse).sum() > 9900


def test_new_bands_see_old_ones_by_a_gaussian_within_their_fwhm():
    old = axis(np.arange(380, 521, 10), 10)
    middle, between, broad = mixing_matrix(old, axis([450, 405, 450], [8, 10, 40]))
    np.testing.assert_allclose(middle, old.wavelength_nm == 450)
    np.testing.assert_allclose(between[[2, 3]], 0.5)
    sd = 40 / 2.354820045
    density = np.exp(-0.5 * (np.arange(-20, 20, 0.01) / sd) ** 2)
    assert broad[7] == pytest.approx(density[1500:2500].sum() / density.sum(), abs=1e-3)
    assert (broad > 0).sum() == 5


def test_a_band_of_the_sensor_itself_is_not_blurred_again():
    old = axis(np.arange(380, 521, 4), 10)
    np.testing.assert_array_equal(mixing_matrix(old, axis([400, 404], 10))[:, 4:8], np.eye(4)[1:3])
    assert (mixing_matrix(old, axis([400], 11)) > 0).sum() > 1


@pytest.mark.parametrize("shift", [1e-13, 4.5e-13, 1e-3])
def test_a_band_shifted_by_what_a_unit_rounds_is_nearly_the_same(shift):
    old = indian_pines_bands()
    for new in (axis(old.wavelength_nm + shift, old.fwhm_nm), axis(old.wavelength_nm, old.fwhm_nm + shift)):
        np.testing.assert_allclose(mixing_matrix(old, new), np.eye(len(old)), atol=shift)


def test_values_beyond_the_old_bands_are_not_made_up():
    old = axis([400, 410, 420], 10, good=[True, True, False])
    mix = mixing_matrix(old, axis([380, 400, 405, 412, 420], 10))
    np.testing.assert_allclose(mix, [[0, 0, 0], [1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("sensor", SPECTROMETERS)
def test_new_bands_are_mixed_as_by_the_library_spectral(sensor):
    old, new = indian_pines_bands(), sensor_bands(sensor)
    width = np.clip(band_spacing_nm(old, old.good[None]), old.fwhm_nm, 1.5 * old.fwhm_nm)
    order = np.argsort(old.wavelength_nm - width / 2)  # along which the library walks
    of_library = BandResampler(old.wavelength_nm[order], new.wavelength_nm, width[order], new.fwhm_nm).matrix
    mixed = mixing_matrix(old, new)[:, order]
    seen = mixed.any(1)
    assert seen.sum() > len(new) / 2
    np.testing.assert_allclose(mixed[seen], np.array(of_library)[seen], atol=1e-5)
