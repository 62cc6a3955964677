import csv

import numpy as np
import pytest

from hsfusion.errors import InputError
from hsfusion.spectra import Bands, BandWeights, combine, group_of_bands
from hsfusion.spectra.weights import as_cell, from_cell, untrained_weights, write_history_csv, write_table


def example(fwhm=True):
    bands = Bands(
        np.array([400.0, 700.123, 690.5]), np.array([9.5, 10, 10.25]) if fwhm else None, np.array([1, 1, 0], bool)
    )
    return BandWeights(bands, ("a", "b|c", ""), np.array([0.25, 0.75, 0.0]))


@pytest.mark.parametrize("fwhm", [True, False])
def test_csv_round_trip_is_exact(tmp_path, fwhm):
    weights = example(fwhm)
    weights.to_csv(tmp_path / "w.csv")
    back = BandWeights.from_csv(tmp_path / "w.csv")
    assert back.weight.tolist() == weights.weight.tolist()
    assert back.group == weights.group
    assert back.bands.wavelength_nm.tolist() == weights.bands.wavelength_nm.tolist()
    assert back.bands.good.tolist() == [True, True, False]
    assert (back.bands.fwhm_nm is None) == (not fwhm)
    assert (tmp_path / "w.csv").read_text().splitlines()[0] == "band,wavelength_nm,fwhm_nm,good,group,weight"


def test_weights_that_do_not_sum_to_one_are_refused():
    with pytest.raises(InputError, match=r"sum 0\.5"):
        BandWeights(Bands.from_wavelengths([400.0, 500.0]), ("", ""), np.array([0.25, 0.25]))


def test_a_single_band_has_all_the_weight_before_the_training():
    table = BandWeights(Bands.from_wavelengths([900.0]), ("a",), np.ones(1))
    np.testing.assert_allclose(untrained_weights(table, number=3), np.ones((3, 1)))


def test_combine_is_the_formula_by_hand():
    response = np.array([[[0.5, 0.5, 0], [1, 0, 0]], [[0, 0, 1], [0, 0, 1]]])  # (G, M, C)
    a = np.array([[0.5, -1.0], [-0.5, 0.0]])
    share = np.array([0.75, 0.25])
    expected = [0.75 * 0.5 * 0.5 + 0.25 * 1 * 1, 0.75 * 0.5 * 0.5, 0.75 * 0.5]
    np.testing.assert_allclose(combine(response, a, channel_share=share), expected)


def test_group_of_a_band_in_two_groups_names_both():
    assert group_of_bands(np.array([[True, True, False], [False, True, False]]), ["a", "b"]) == ("a", "a|b", "")


def test_top_windows_are_disjoint_and_best_first():
    nm = np.arange(400, 900, 10.0)
    weight = np.full(nm.size, 0.001)
    weight[(nm >= 540) & (nm <= 580)] = 1.0
    weight[(nm >= 740) & (nm <= 760)] = 0.5
    weight /= weight.sum()
    windows = BandWeights(Bands.from_wavelengths(nm), ("",) * nm.size, weight).windows(3)
    assert windows[0][:2] == (535.0, 585.0)
    assert windows[1][0] <= 740 <= 760 <= windows[1][1]
    assert windows[0][2] > windows[1][2] > windows[2][2]
    assert all(b[0] >= a[1] or b[1] <= a[0] for i, a in enumerate(windows) for b in windows[i + 1 :])


def test_windows_stay_within_the_range_of_the_bands():
    nm = np.arange(400, 500, 10.0)
    weight = np.zeros(nm.size)
    weight[[0, -1]] = 0.75, 0.25
    weights = BandWeights(Bands.from_wavelengths(nm), ("",) * nm.size, weight)
    assert weights.windows(3, width_nm=40) == [(400, 440, 0.75), (450, 490, 0.25)]
    assert weights.windows(3, width_nm=1e5) == [(400, 490, 1.0)]


def test_layers_of_other_rasters_count_and_come_back_from_csv(tmp_path):
    bands = Bands.from_wavelengths([400.0, 500.0])
    weights = BandWeights(bands, ("a", "a"), np.array([0.3, 0.2]), (("lidar", 0.1), ("radar", 0.25), ("radar", 0.15)))
    weights.to_csv(tmp_path / "w.csv")
    back = BandWeights.from_csv(tmp_path / "w.csv")
    assert back.sources == weights.sources
    assert len(back.bands) == 2
    assert back.group_totals() == pytest.approx({"a": 0.5, "lidar": 0.1, "radar": 0.4})
    with pytest.raises(InputError, match=r"sum 0\.5"):
        BandWeights(bands, ("a", "a"), np.array([0.3, 0.2]))


def test_bands_without_groups_have_no_totals():
    weights = BandWeights(
        Bands.from_wavelengths([400.0, 410.0, 420.0, 500.0]), ("",) * 4, np.array([0.1, 0.2, 0.3, 0.4])
    )
    assert weights.group_totals() == {}


def test_history_has_a_row_for_each_step(tmp_path):
    write_history_csv(tmp_path / "h.csv", [5, 10], np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert (tmp_path / "h.csv").read_text().splitlines() == ["step,1,2", "5,0.25,0.75", "10,0.5,0.5"]


NAMES = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-1", "'a'", "red", "ü=1", ""]


def test_text_that_would_be_a_formula_is_none_in_a_cell_and_comes_back():
    cells = [as_cell(name) for name in NAMES]
    assert [cell[:1] for cell in cells[:6]] == ["'"] * 6
    assert cells[8:] == NAMES[8:]
    assert [from_cell(cell) for cell in cells] == NAMES
    assert (as_cell(-5), as_cell(-0.5), as_cell(None)) == (-5, -0.5, None)


def test_names_of_groups_come_back_from_tables(tmp_path):
    names = tuple(name for name in NAMES if "\r" not in name)
    bands = Bands.from_wavelengths(np.arange(len(names)) + 400.0)
    weight = np.full(len(names) + 1, 1 / (len(names) + 1))
    BandWeights(bands, names, weight[1:], (("=lidar", weight[0]),)).to_csv(tmp_path / "w.csv")
    back = BandWeights.from_csv(tmp_path / "w.csv")
    assert (back.group, back.sources[0][0]) == (names, "=lidar")
    write_table(tmp_path / "rows.csv", ["group", "weight", "band"], [("=1", -0.5, -1)])
    with open(tmp_path / "rows.csv", newline="") as file:
        assert list(csv.reader(file))[1] == ["'=1", "-0.5", "-1"]
