import functools
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from scipy.io import savemat

from hsfusion.data.public import benchmark_scene, nominal_wavelengths
from hsfusion.errors import InputError
from hsfusion.scenes import Window

CONF = Path(__file__).parents[2] / "conf"
CUBE = (np.arange(4 * 5 * 3).reshape(4, 5, 3) * 7 % 50 + 1).astype("i2")  # H, W, layers
LABELS = np.arange(20).reshape(4, 5) % 3
NOMINAL = {"spectrometers": [[400, 500, 3], [480, 500, 2]], "removed": [2, "5-5"]}  # leaves 400, 500, 480
PAGE = "http://page.example"
BENCHMARKS = {  # bands, classes, first and last wavelength
    "salinas": (204, 16, 365.9, 2486.2),
    "salinas_a": (204, 6, 365.9, 2486.2),
    "pavia_university": (103, 9, 430, 860),
    "pavia_centre": (102, 9, 430, 860),
    "botswana": (145, 14, 447.17, 2355.21),
    "houston_2013": (144, 15, 364, 1046.1),
}


def mat(array):
    file = io.BytesIO()
    savemat(file, {"data": array}, do_compression=True)
    return file.getvalue()


FILES = {"/cube.mat": mat(CUBE), "/labels.mat": mat(LABELS)}
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


def config(name, *words):
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("train", overrides=[f"scene={name}", *words]).scene


@pytest.mark.parametrize("name", BENCHMARKS)
def test_configuration_has_the_bands_and_classes_of_the_public_files(name):
    scene = config(name)
    bands, classes, first, last = BENCHMARKS[name]
    centres = nominal_wavelengths(scene.nominal)
    assert centres.size == bands
    np.testing.assert_allclose([centres.min(), centres.max()], [first, last], atol=0.1)
    assert len(set(scene.class_names.values())) == len(scene.class_names) == classes
    assert scene.cube is None
    assert all(sha256 is None or len(sha256) == 64 for sha256 in (scene.cube_sha256, scene.labels_sha256))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_configuration_opens_files_that_the_user_names(name, tmp_path, caplog):
    from hydra.utils import instantiate

    bands = BENCHMARKS[name][0]
    cube = np.random.default_rng(0).integers(1, 1000, (6, 7, bands)).astype("u2")
    codes = list(config(name).class_names)
    labels = np.resize([0, *codes], 42).reshape(6, 7)
    np.save(tmp_path / "cube.npy", cube)
    np.save(tmp_path / "gt.npy", labels)
    labelled = instantiate(config(name, f"scene.cube={tmp_path}/cube.npy", f"scene.labels={tmp_path}/gt.npy"))
    np.testing.assert_array_equal(labelled.scene.read(Window(0, 0, 6, 7)), cube.transpose(2, 0, 1))
    np.testing.assert_array_equal(labelled.labels, labels)
    assert labelled.legend.names == tuple(config(name).class_names.values())
    assert len(labelled.scene.bands) == bands
    assert caplog.text.count("unverified") == 2
    assert "These are nominal" in caplog.text


def test_water_bands_of_salinas_are_those_that_are_missing():
    centres = nominal_wavelengths(config("salinas").nominal)
    for lower, upper in ((1363, 1403), (1822, 1927)):  # bands 108-112 and 154-167 of AVIRIS
        assert not ((centres > lower) & (centres < upper)).any()


def test_wavelengths_of_hyperion_are_those_of_its_table():
    centres = nominal_wavelengths(config("botswana").nominal)
    # bands 10, 55, 82, 97, 102, 119, 134, 164, 187 and 220
    table = [447.17, 905.05, 962.91, 1114.19, 1164.68, 1336.15, 1487.53, 1790.19, 2022.25, 2355.21]
    np.testing.assert_allclose(centres[[0, 45, 46, 61, 62, 79, 80, 110, 111, 144]], table, atol=0.1)


def test_nominal_axis_numbers_bands_through_and_drops_the_removed():
    assert nominal_wavelengths(NOMINAL).tolist() == [400, 500, 480]
    assert nominal_wavelengths({"spectrometers": [[400, 500, 3]], "removed": ["1-2"]}).tolist() == [500]


def test_exact_wavelengths_go_before_nominal_ones(tmp_path, caplog):
    (tmp_path / "cube.mat").write_bytes(FILES["/cube.mat"])
    (tmp_path / "gt.mat").write_bytes(FILES["/labels.mat"])
    options = {"name": "Test", "page": PAGE, "cube": tmp_path / "cube.mat", "labels": tmp_path / "gt.mat"}
    (tmp_path / "bands.csv").write_text("wavelength_nm\n410\n510\n610\n")
    labelled = benchmark_scene(**options, nominal=NOMINAL, wavelengths=tmp_path / "bands.csv")
    assert labelled.scene.bands.wavelength_nm.tolist() == [410, 510, 610]
    assert "nominal" not in caplog.text
    with pytest.raises(InputError, match="wavelength is missing"):
        benchmark_scene(**options)


def test_wavelengths_of_the_file_go_before_nominal_ones(tmp_path, caplog):
    (tmp_path / "cube").write_bytes(CUBE.tobytes())
    (tmp_path / "cube.hdr").write_text(
        "ENVI\nsamples = 5\nlines = 4\nbands = 3\ndata type = 2\nbyte order = 0\ninterleave = bip\n"
        "wavelength units = Nanometers\nwavelength = {410, 510, 610}\n"
    )
    np.save(tmp_path / "gt.npy", LABELS)
    labelled = benchmark_scene(
        name="Test", page=PAGE, cube=tmp_path / "cube", labels=tmp_path / "gt.npy", nominal=NOMINAL
    )
    assert labelled.scene.bands.wavelength_nm.tolist() == [410, 510, 610]
    assert "nominal" not in caplog.text


def test_files_are_opened_once_each(tmp_path, monkeypatch):
    from hsfusion.scenes.formats import registry

    opened, reader = [], registry._READERS["matlab5"]

    @functools.wraps(reader)  # by its signature it says which choices there are
    def read(path, **more):
        opened.append(path)
        return reader(path, **more)

    monkeypatch.setitem(registry._READERS, "matlab5", read)
    for name in ("cube", "labels"):
        (tmp_path / f"{name}.mat").write_bytes(FILES[f"/{name}.mat"])
    files = {"cube": tmp_path / "cube.mat", "labels": tmp_path / "labels.mat"}
    benchmark_scene(name="Test", page=PAGE, **files, nominal=NOMINAL, variable="data")
    assert opened == list(files.values())


def test_cube_with_other_bands_than_the_public_one_is_an_error(tmp_path):
    np.save(tmp_path / "cube.npy", CUBE[..., :2])
    np.save(tmp_path / "gt.npy", LABELS)
    with pytest.raises(InputError, match=f"number of bands is 2, expected 3, as in {PAGE}"):
        benchmark_scene(name="Test", page=PAGE, cube=tmp_path / "cube.npy", labels=tmp_path / "gt.npy", nominal=NOMINAL)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_missing_file_says_where_to_get_it(name):
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    with pytest.raises(InstantiationException) as caught:
        instantiate(config(name))
    error = caught.value.__cause__
    assert isinstance(error, InputError)
    assert "scene.cube is missing" in str(error)
    assert config(name).page in str(error)
    assert "set scene.cube=PATH" in str(error)


def test_own_file_that_differs_from_the_public_one_opens_with_a_warning(tmp_path, caplog):
    (tmp_path / "cube.mat").write_bytes(FILES["/cube.mat"])
    np.save(tmp_path / "gt.npy", LABELS)
    benchmark_scene(
        name="Test",
        page=PAGE,
        cube=tmp_path / "cube.mat",
        labels=tmp_path / "gt.npy",
        cube_sha256=SHA256["/cube.mat"],
        labels_sha256=SHA256["/labels.mat"],
        nominal=NOMINAL,
    )
    assert "gt.npy: unverified, its checksum is not that of the public file" in caplog.text
    assert "cube.mat: unverified" not in caplog.text


def test_scene_of_which_nobody_says_what_bands_are_left_asks_for_wavelengths(tmp_path):
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    np.save(tmp_path / "cube.npy", CUBE)
    np.save(tmp_path / "gt.npy", np.resize(np.arange(14), 20).reshape(4, 5))
    files = f"scene.cube={tmp_path}/cube.npy", f"scene.labels={tmp_path}/gt.npy"
    with pytest.raises(InstantiationException) as caught:
        instantiate(config("ksc", *files))
    assert "add scene.wavelengths=PATH" in str(caught.value.__cause__)
    bands = instantiate(
        config("ksc", *files, "scene.wavelengths=[500,600,700]", "scene.wavelength_unit=nm")
    ).scene.bands
    assert bands.wavelength_nm.tolist() == [500, 600, 700]
