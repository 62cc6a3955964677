import numpy as np
import pytest

from hsfusion.data.public import indian_pines_bands
from hsfusion.errors import InputError
from hsfusion.spectra import BandGroup, Bands, band_spacing_nm, even_groups, gaussian_basis, intervals, membership


def test_interval_is_half_open_and_bad_bands_are_left_out():
    bands = Bands(np.array([400.0, 500.0, 600.0, 550.0]), None, np.array([True, True, True, False]))
    inside = membership([BandGroup("a", 400, 600), BandGroup("b", 600, 700)], bands)
    assert inside.tolist() == [[True, True, False, False], [False, False, True, False]]


def test_file_order_is_kept_when_wavelengths_step_back():
    bands = indian_pines_bands()
    assert len(bands) == 200
    steps = np.flatnonzero(np.diff(bands.wavelength_nm) < 0)
    assert bands.wavelength_nm[steps].tolist() == [696.5, 1282.55]
    assert bands.fwhm_nm is not None
    assert 8 < bands.fwhm_nm.min() < bands.fwhm_nm.max() < 20


def test_group_without_a_band_is_an_error_that_names_it():
    with pytest.raises(InputError, match=r"thermal \[8000, 12000\).*is 0, expected at least 1.*400 to 2489 nm"):
        intervals(indian_pines_bands(), nm={"thermal": [8000, 12000]})


@pytest.mark.parametrize("limits", [[1000, np.inf], [-np.inf, 1000], [1000, np.nan], [1000, 400]])
def test_limits_that_are_not_finite_or_the_wrong_way_round_are_one_line(limits):
    with pytest.raises(InputError, match=r"group swir: interval is .* nm, expected .* both finite\. Fix: swap"):
        intervals(indian_pines_bands(), nm={"swir": limits})


def test_two_groups_of_one_name_are_an_error():
    with pytest.raises(InputError, match="names unique"):
        membership([BandGroup("a", 400, 600), BandGroup("a", 600, 700)], Bands.from_wavelengths([450, 650]))


@pytest.mark.parametrize("number", [1, 7, 14, 40])
def test_even_groups_hold_every_good_band_once(number):
    bands = indian_pines_bands()
    inside = membership(even_groups(bands, number=number), bands)
    assert inside.sum(0).tolist() == [1] * 200
    assert np.ptp(inside.sum(1)) <= 1


def test_even_groups_of_few_bands_hold_one_each():
    bands = Bands.from_wavelengths([400.0, 410.0, 2490.0, 2500.0])
    assert membership(even_groups(bands, number=10), bands).sum(1).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nm\n400\n", "header is"),
        ("wavelength_nm\n", "header is without a row"),
        ("wavelength_nm\n400\nred\n", "wavelength_nm of row 2 is 'red'"),
        ("wavelength_nm\n-400\n", "is -400"),
        ("wavelength_nm,fwhm_nm\n400,\n", "fwhm_nm of row 1"),
        ("wavelength_nm\n400\n476,32\n", "number of cells of row 2 is 2, expected 1 .* not with a decimal comma"),
        ("wavelength_nm,fwhm_nm\n476,32,10,5\n", "number of cells of row 1 is 4, expected 2"),
        ("wavelength_nm\n0.4\n", r"bands\.csv: wavelength_nm is 0\.4, expected .* at least 100 .* its unit"),
        ("wavelength_nm,fwhm_nm\n400,0\n", r"fwhm_nm is 0\.0, expected positive numbers in nm, at most 100000"),
        ("wavelength_nm,good,good\n400,1,0\n", "header is good twice, expected each column once"),
        ("wavelength_nm,good\n400,1\n410,nan\n", "good of row 2 is 'nan', expected 1"),
        ("wavelength_nm,good\n400,2\n", "good of row 1 is '2'"),
        ("wavelength_nm\n" + "4" * 200_000 + "\n", "band table is unreadable"),
    ],
)
def test_band_table_that_is_wrong_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "bands.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Bands.from_csv(path)


def test_bad_bands_in_micrometres_are_refused_and_in_nm_are_taken():
    bands = Bands.from_wavelengths([600.0, 625.0, 700.0])
    assert bands.without([[600, 650]]).good.tolist() == [False, False, True]
    with pytest.raises(InputError, match=r"bad_bands is \[0\.6, 0\.65\], .* multiply micrometres by 1000"):
        bands.without([[0.6, 0.65]])


def test_missing_band_table_names_the_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv"):
        Bands.from_csv(tmp_path / "none.csv")


def test_knots_do_not_depend_on_the_sensor():
    groups = [BandGroup("a", 400, 1000)]
    fine = Bands.from_wavelengths(np.arange(400, 1000, 2.0))
    coarse = Bands.from_wavelengths(np.arange(400, 1000, 10.0))
    np.testing.assert_allclose(
        gaussian_basis(fine, groups, knot_spacing_nm=40)[::5], gaussian_basis(coarse, groups, knot_spacing_nm=40)
    )


def test_basis_is_smooth_and_sums_to_about_one_inside():
    bands = Bands.from_wavelengths(np.arange(500, 900, 5.0))
    basis = gaussian_basis(bands, [BandGroup("a", 400, 1000)], knot_spacing_nm=40)
    np.testing.assert_allclose(basis.sum(1), 1, atol=0.01)
    assert gaussian_basis(bands, [BandGroup("a", 400, 1000)], knot_spacing_nm=None).tolist() == np.eye(80).tolist()


# the width of spectrum that a band stands for


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
