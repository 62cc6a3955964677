import logging
import pickle

import numpy as np
import pytest

from hsfusion.errors import InputError
from hsfusion.scenes import ArrayRaster, ArrayScene, LabelledScene, Legend, StackedScene, Window, open_scene
from hsfusion.scenes.scene import fingerprint, read_all
from hsfusion.scenes.simulate import SimulatedScene, simulate
from hsfusion.spectra import Bands

NM = np.arange(400.0, 1001.0, 10)


def bands(nm, fwhm=10.0, good=None):
    nm = np.asarray(nm, float)
    width = None if fwhm is None else np.broadcast_to(fwhm, nm.shape)
    return Bands(nm, width, np.ones(nm.shape, bool) if good is None else np.asarray(good, bool))


def scene(values=None, *, of=None):
    """Two by three pixels; a pixel's spectrum is linear in wavelength unless values (C,) are given."""
    of = bands(NM) if of is None else of
    spectrum = of.wavelength_nm if values is None else np.asarray(values, float)
    cube = spectrum[:, None, None] * np.arange(1, 7).reshape(2, 3)
    return ArrayScene(cube.astype(np.float32), bands=of, name="field")


def spectrum_of(simulated):
    return read_all(simulated)[:, 0, 0]


def test_bands_at_the_place_and_width_of_the_scenes_own_are_its_own():
    of = scene(np.random.default_rng(0).random(NM.size))
    own = spectrum_of(SimulatedScene(of, bands(NM[3:9], 9.9), name="same"))
    np.testing.assert_allclose(own, spectrum_of(of)[3:9], rtol=1e-6)


def test_linear_spectrum_stays_linear_and_level_stays_level():
    wide = bands([500, 633, 850], [40, 60, 100])
    np.testing.assert_allclose(spectrum_of(SimulatedScene(scene(), wide, name="wide")), [500, 633, 850], rtol=2e-3)
    level = spectrum_of(SimulatedScene(scene(np.full(NM.size, 7.0)), wide, name="wide"))
    np.testing.assert_allclose(level, 7, rtol=1e-6)


def test_weights_are_the_gaussian_over_the_widths_of_the_scenes_bands():
    line = np.zeros(NM.size)
    line[10] = 1  # 500 nm
    seen = spectrum_of(SimulatedScene(scene(line), bands([500], [30]), name="one"))
    # of N(500, 30 / 2.3548): 495 to 505 in 485 to 515
    assert seen[0] == pytest.approx(0.30526 / 0.76096, abs=1e-4)


def test_order_of_the_scenes_bands_changes_nothing():
    turned = np.random.default_rng(1).permutation(NM.size)
    values = np.random.default_rng(2).random(NM.size)
    wide = bands([900, 450, 700], 35.0)
    straight = spectrum_of(SimulatedScene(scene(values), wide, name="wide"))
    mixed = spectrum_of(SimulatedScene(scene(values[turned], of=bands(NM[turned])), wide, name="wide"))
    np.testing.assert_allclose(mixed, straight, rtol=1e-6)


@pytest.mark.parametrize("fwhm", [10.0, None])
def test_nothing_is_made_up_in_gaps_or_beyond_the_range(fwhm):
    gap = (NM > 640) & (NM < 710)
    for of in (bands(NM[~gap], fwhm), bands(NM, fwhm, good=~gap)):
        wanted = bands([380, 395, 600, 640, 648, 675, 705, 720, 1000, 1020], 10.0)
        simulated = SimulatedScene(scene(of=of), wanted, name="s")
        assert simulated.bands.wavelength_nm.tolist() == [600, 640, 720, 1000]
        assert simulated.left_out.wavelength_nm.tolist() == [380, 395, 648, 675, 705, 1020]
        assert np.isfinite(read_all(simulated)).all()


def test_wide_band_over_a_gap_is_left_out_and_over_a_seam_is_not():
    wide = bands([675], [100])
    with pytest.raises(InputError, match=r"field: range of the good bands is 400 to 1000 nm, expected bands of s"):
        SimulatedScene(scene(of=bands(NM, good=abs(NM - 675) > 20)), wide, name="s")
    seams = scene(of=bands(NM, 7.0))  # 3 nm between bands of 7 nm
    assert len(SimulatedScene(seams, wide, name="s").bands) == 1
    narrow = SimulatedScene(seams, bands([505, 510], 2.0), name="s")  # the first lies in a seam
    np.testing.assert_allclose(spectrum_of(narrow), [505, 510], rtol=1e-5)


def test_bad_bands_of_scene_and_sensor_play_no_part():
    values = np.ones(NM.size)
    values[20] = 1e6
    of = scene(values, of=bands(NM, good=np.arange(NM.size) != 20))
    simulated = SimulatedScene(of, bands([500, 600, 700], [60, 10, 10], good=[1, 1, 0]), name="s")
    assert simulated.bands.wavelength_nm.tolist() == [500]
    np.testing.assert_allclose(spectrum_of(simulated), 1, rtol=1e-6)


def test_missing_values_reach_only_the_bands_that_are_made_of_them():
    cube = np.ones((NM.size, 2, 3), np.float32)
    cube[10, 0, 0] = np.nan  # 500 nm
    cube[:, 1, 2] = np.nan
    simulated = SimulatedScene(ArrayScene(cube, bands=bands(NM), name="field"), bands([480, 500, 900], 20.0), name="s")
    missing = np.isnan(read_all(simulated))
    assert missing[:, 0, 0].tolist() == [False, True, False]
    assert missing[:, 1, 2].all()
    assert missing.sum() == 4


def test_layers_and_windows_are_those_of_the_whole():
    height = np.arange(6.0).reshape(1, 2, 3)
    of = StackedScene(scene(), {"lidar": ArrayRaster(height), "radar": ArrayRaster(np.concatenate([-height, height]))})
    simulated = SimulatedScene(of, bands([450, 550, 650], 30.0), name="s")
    whole = read_all(simulated)
    assert simulated.sources == (("lidar", 1), ("radar", 2))
    assert whole.shape == (6, 2, 3)
    assert (whole[4] == -height[0]).all()
    for layers in ([2, 0], [5, 1, 3], [4], []):
        part = simulated.read(Window(1, 1, 1, 2), np.array(layers, np.int64))
        np.testing.assert_allclose(part, whole[layers, 1:, 1:], rtol=1e-6)


def test_bands_narrower_than_the_scenes_own_are_counted_and_told(tmp_path, caplog):
    path = tmp_path / "mine.csv"
    path.write_text("wavelength_nm,fwhm_nm\n500,5\n600,20\n610,9\n1100,9\n1120,9\n")
    with caplog.at_level(logging.INFO):
        simulated = simulate(scene(), str(path))
    assert simulated.narrower == 2
    assert caplog.messages == [
        "field_mine: 3 of the 5 bands of the sensor; 2 lie where field has no good bands (1100, 1120 nm). "
        "2 are narrower than its own, which cannot be sharpened."
    ]


def test_labels_legend_and_sources_stay():
    labels = np.array([[0, 1, 2], [2, 1, 0]])
    of = LabelledScene(scene(), labels, Legend.of(labels, names={1: "corn", 2: "woods"}))
    simulated = simulate(of, "desis")
    assert (simulated.labels == labels).all()
    assert simulated.legend == of.legend
    assert simulated.scene.name == "field_desis"
    assert simulated.scene.geobox == of.scene.geobox
    assert len(simulated.scene.bands) == 235


def test_sensor_without_a_band_in_common_names_both_ranges():
    with pytest.raises(
        InputError, match=r"is 1200 to 1300 nm, expected bands of field_desis inside it \(402 to 1000 nm\)"
    ):
        simulate(scene(of=bands(np.arange(1200, 1301, 10.0))), "desis")
    with pytest.raises(InputError, match="range of the good bands is empty"):
        simulate(scene(of=bands(NM, good=np.zeros(NM.size))), "desis")


def test_it_can_be_sent_to_another_process():
    simulated = simulate(scene(), "sentinel2")
    there = pickle.loads(pickle.dumps(simulated))
    np.testing.assert_array_equal(read_all(there), read_all(simulated))


def test_records_lead_to_the_file_that_it_is_made_from(tmp_path):
    np.save(tmp_path / "cube.npy", np.zeros((4, 5, NM.size), np.uint16))
    of = open_scene(tmp_path / "cube.npy", wavelengths=NM.tolist(), wavelength_unit="nm", scale=0.5)
    simulated = simulate(of, "desis")
    assert simulated.provenance() == of.provenance()
    assert of.provenance()[0]["scale"] == 0.5
    assert simulated.files() == [tmp_path / "cube.npy"]
    assert fingerprint(simulated) != fingerprint(simulate(of, "sentinel2"))
