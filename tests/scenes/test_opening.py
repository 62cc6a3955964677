import numpy as np
import pytest
from scene_files import geotiff

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_labelled_scene, open_scene, open_with_sources
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.opening import FileScene

CUBE = np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3)
NM = [450.0, 550.0, 650.0]


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "cube.npy", CUBE)
    return tmp_path / "cube.npy"


def read(scene):
    return scene.read(Window(0, 0, *scene.geobox.shape)).transpose(1, 2, 0)


def envi(folder, **fields):
    CUBE.tofile(folder / "cube.bip")
    header = {"samples": 5, "lines": 4, "bands": 3, "data type": 2, "interleave": "bip", "byte order": 0, **fields}
    (folder / "cube.hdr").write_text("ENVI\n" + "".join(f"{key} = {value}\n" for key, value in header.items()))
    return folder / "cube.bip"


def test_list_of_wavelengths_has_to_come_with_its_unit(path):
    assert open_scene(path, wavelengths=NM, wavelength_unit="nm").bands.wavelength_nm.tolist() == NM
    micrometres = open_scene(path, wavelengths=[0.45, 0.55, 0.65], wavelength_unit="um")
    np.testing.assert_allclose(micrometres.bands.wavelength_nm, NM)
    with pytest.raises(InputError, match=r"wavelength units is missing, .*scene\.wavelength_unit=nm"):
        open_scene(path, wavelengths=NM)


def test_scale_and_offset_and_nodata_of_the_user_are_applied_once(path):
    given = open_scene(path, wavelengths=NM, wavelength_unit="nm", scale=0.5, offset=10, nodata=7)
    np.testing.assert_array_equal(read(given), np.where(CUBE == 7, np.nan, CUBE * 0.5 + 10))


def test_bad_bands_by_range_and_by_name(path):
    scene = open_scene(
        path, wavelengths=[450, 1400, 1900], wavelength_unit="nm", bad_bands=["water_vapour", [440, 450]]
    )
    assert scene.bands.good.tolist() == [False, False, False]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"wavelengths": NM[:2]}, "number of wavelengths is 2, expected 3"),
        ({"wavelength_unit": "Angstrom"}, "wavelength units is Angstrom, expected Nanometers or Micrometers"),
        ({"scale": 0}, r"scene\.scale is 0, expected a positive number"),
        ({"scale": float("nan")}, r"scene\.scale is nan"),
        ({"offset": float("inf")}, r"scene\.offset is inf"),
        ({"bad_bands": ["vapour"]}, "bad_bands is vapour"),
        ({"bad_bands": "vapour"}, "bad_bands is vapour, .*write a list such as"),
        ({"variable": "cube"}, r"scene\.variable is cube"),
        ({"name": "../a"}, r"name is '\.\./a', expected a word without /"),
        ({"grid": "map"}, r"scene\.grid is map"),
    ],
)
def test_wrong_key_is_one_line(path, given, message):
    with pytest.raises(InputError, match=message) as caught:
        open_scene(path, **{"wavelengths": NM, "wavelength_unit": "nm", **given})
    assert "\n" not in str(caught.value)


def test_what_the_file_says_itself_cannot_be_said_again(tmp_path):
    listed = {"wavelength": "{450, 550, 650}", "wavelength units": "nm"}
    scaled = envi(tmp_path, **listed, **{"reflectance scale factor": 100, "data ignore value": 3})
    with pytest.raises(InputError, match=r"scale is 0\.01 in the file itself"):
        open_scene(scaled, scale=0.5)
    with pytest.raises(InputError, match=r"nodata is 3\.0, expected 4 as scene\.nodata says"):
        open_scene(scaled, nodata=4)
    np.testing.assert_allclose(read(open_scene(scaled, nodata=3)), np.where(CUBE == 3, np.nan, CUBE / 100), rtol=1e-6)


@pytest.mark.parametrize("empty", [np.nan, 0.0, 7.5])
def test_band_without_information_is_not_good(tmp_path, caplog, empty):
    cube = CUBE.astype(np.float32)
    cube[..., 1] = empty
    np.save(tmp_path / "cube.npy", cube)
    np.save(tmp_path / "labels.npy", np.eye(4, 5, dtype=int))
    scene = open_labelled_scene(
        tmp_path / "cube.npy", labels=tmp_path / "labels.npy", wavelengths=NM, wavelength_unit="nm"
    ).scene
    assert scene.bands.good.tolist() == [True, False, True]
    assert "bands with a single value or no data are not used: 550 nm" in caplog.text


def test_cube_without_information_is_refused(tmp_path):
    np.save(tmp_path / "cube.npy", np.zeros((4, 5, 3)))
    np.save(tmp_path / "labels.npy", np.eye(4, 5, dtype=int))
    with pytest.raises(InputError, match="number of good bands with more than one value is 0"):
        open_labelled_scene(tmp_path / "cube.npy", labels=tmp_path / "labels.npy", wavelengths=NM, wavelength_unit="nm")


def test_band_that_is_empty_only_where_a_large_scene_was_looked_at_is_kept(tmp_path, monkeypatch, caplog):
    cube = np.random.default_rng(0).random((400, 5, 3))
    cube[1:, :, 1] = 0  # all but the row that is not looked at first
    cube[:, :, 2] = 0
    np.save(tmp_path / "cube.npy", cube)
    np.save(tmp_path / "labels.npy", np.eye(400, 5, dtype=int) + 1)
    monkeypatch.setattr("hsfusion.scenes.survey._MOST_NUMBERS", 100)
    monkeypatch.setattr("hsfusion.scenes.survey._windows", lambda *shape, **more: [Window(200, 0, 1, 5)])
    keys = {"labels": tmp_path / "labels.npy", "wavelengths": NM, "wavelength_unit": "nm"}
    scene = open_labelled_scene(tmp_path / "cube.npy", **keys).scene
    assert scene.bands.good.tolist() == [True, True, False]


def test_large_scene_without_suspects_is_opened(tmp_path, monkeypatch):
    np.save(tmp_path / "cube.npy", np.random.default_rng(0).random((400, 5, 3)))
    np.save(tmp_path / "labels.npy", np.eye(400, 5, dtype=int) + 1)
    monkeypatch.setattr("hsfusion.scenes.survey._MOST_NUMBERS", 300)
    keys = {"labels": tmp_path / "labels.npy", "wavelengths": NM, "wavelength_unit": "nm"}
    assert open_labelled_scene(tmp_path / "cube.npy", **keys).scene.bands.good.tolist() == [True] * 3


def test_scene_without_labels_is_surveyed_with_the_same_warnings(tmp_path, caplog):
    cube = np.random.default_rng(0).random((40, 5, 3), np.float32)
    cube[:, 0] = -9999
    np.save(tmp_path / "cube.npy", cube)
    np.save(tmp_path / "labels.npy", np.eye(40, 5, dtype=int) + 1)
    keys = {"wavelengths": NM, "wavelength_unit": "nm"}
    open_labelled_scene(tmp_path / "cube.npy", labels=tmp_path / "labels.npy", **keys)
    logged = caplog.messages.copy()
    assert "cube: 3 bands hold -9999 (in up to 20.0% of the pixels)" in logged[0]
    caplog.clear()
    open_with_sources(tmp_path / "cube.npy", **keys)
    assert caplog.messages == logged
    caplog.clear()
    open_with_sources(tmp_path / "cube.npy", **keys, nodata=-9999)
    assert caplog.messages == []


def test_survey_of_a_large_scene_reads_a_bounded_number_of_pixels(tmp_path, monkeypatch, caplog):
    np.save(tmp_path / "cube.npy", np.random.default_rng(0).random((4000, 5, 3)))
    monkeypatch.setattr("hsfusion.scenes.survey._MOST_NUMBERS", 3000)
    rows = []
    read = FileScene.read

    def watched(self, window, layers=None):
        rows.append(window.height)
        return read(self, window, layers)

    monkeypatch.setattr(FileScene, "read", watched)
    open_with_sources(tmp_path / "cube.npy", wavelengths=NM, wavelength_unit="nm")
    assert 5 * sum(rows) <= 1100


def test_what_looks_wrong_is_logged_before_training(tmp_path, caplog):
    np.save(tmp_path / "cube.npy", np.random.default_rng(0).random((40, 5, 3)))
    np.save(tmp_path / "labels.npy", np.eye(40, 5, dtype=int) + 1)
    keys = {"labels": tmp_path / "labels.npy", "wavelengths": [550, 450, 650], "wavelength_unit": "nm"}
    open_labelled_scene(tmp_path / "cube.npy", **keys)
    assert "cube: wavelengths step back once" in caplog.text


MARKED = {
    "wavelength": "{0.4, 0.5, 0.6}",
    "wavelength units": "Micrometers",
    "fwhm": "{0.01, 0.02, 0.03}",
    "bbl": "{1, 0, 1}",
}


@pytest.mark.parametrize(
    ("table", "fwhm", "good"),
    [
        ("wavelength_nm\n450\n550\n650\n", None, [True, False, True]),
        ("wavelength_nm,fwhm_nm\n450,7\n550,8\n650,9\n", [7, 8, 9], [True, False, True]),
        ("wavelength_nm,good\n450,0\n550,1\n650,1\n", None, [False, False, True]),
    ],
)
def test_wavelengths_of_the_user_leave_the_bad_bands_of_the_file(tmp_path, table, fwhm, good):
    (tmp_path / "bands.csv").write_text(table)
    bands = open_scene(envi(tmp_path, **MARKED), wavelengths=tmp_path / "bands.csv").bands
    assert bands.wavelength_nm.tolist() == NM
    assert (bands.fwhm_nm if fwhm is None else bands.fwhm_nm.tolist()) == fwhm
    assert bands.good.tolist() == good


def test_bad_interval_without_a_band_is_logged(path, caplog):
    given = {"wavelengths": NM, "wavelength_unit": "nm"}
    open_scene(path, **given, bad_bands=["water_vapour", [440, 460], [650, 900]])
    assert caplog.text == ""
    open_scene(path, **given, bad_bands=[[440, 460], [700, 900]])
    assert "cube: bad_bands: no band lies from 700 to 900 nm; those of the scene lie from 450 to 650 nm." in caplog.text


def test_cube_that_is_open_is_not_opened_again(path, monkeypatch):
    file = open_cube_file(path)
    monkeypatch.setattr("hsfusion.scenes.opening.open_cube_file", None)
    scene = open_scene(file, wavelengths=NM, wavelength_unit="nm", scale=2)
    assert scene.name == "cube"
    np.testing.assert_array_equal(read(scene), CUBE * 2)


def test_file_of_one_band_says_that_bands_can_be_stacked(tmp_path):
    path = geotiff.write(tmp_path / "EO1H014_B242_L1T.TIF", geotiff.CUBE[:1], tags=None)
    with pytest.raises(InputError, match=r"wavelength is missing, .* Fix: stack the files .*add scene\.wavelengths"):
        open_scene(path)
    assert open_scene(path, wavelengths=[426.8], wavelength_unit="nm").bands.wavelength_nm.tolist() == [426.8]
