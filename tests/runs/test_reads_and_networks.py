"""What a training costs beside the training: reads of the cube, networks that are built."""

import pickle

import numpy as np
import pytest
from scene_files import envi

import hsfusion as hs
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.nn import FusionNetwork
from hsfusion.scenes import LabelledScene, opening
from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.scene import read_all

SHORT = {"select": (), "epochs": 1, "steps_per_epoch": 2, "threads": 1, "groups": hs.even_groups(4)}
SMALL = {"channels": 4, "width": 8, "receptive_field": 5}


@pytest.fixture
def cube(tmp_path):
    """Path and further arguments of a labelled scene in files: every tenth band of a synthetic one."""
    made = synthetic_scene(seed=0, height=40, width=40)
    nm = made.scene.bands.wavelength_nm[::10]
    words = "{" + ", ".join(f"{value:g}" for value in nm) + "}"
    path = envi.write(tmp_path, made.scene.read()[::10], dtype="f4", wavelength=words)
    np.save(tmp_path / "labels.npy", made.labels)
    return path, {"labels": tmp_path / "labels.npy"}


@pytest.fixture
def windows(monkeypatch):
    """The windows that are read of files."""
    read, seen = CubeFile.read, []

    def watched(self, window, layers=None):
        seen.append(tuple(window))
        return read(self, window, layers)

    monkeypatch.setattr(CubeFile, "read", watched)
    return seen


@pytest.fixture
def networks(monkeypatch):
    """The numbers of bands of the networks that are built; copies do not count."""
    build, seen = FusionNetwork.__init__, []

    def watched(self, *args, **keywords):
        build(self, *args, **keywords)
        seen.append(len(self.mean))

    monkeypatch.setattr(FusionNetwork, "__init__", watched)
    return seen


def test_training_with_figures_and_report_reads_the_cube_once_and_builds_one_network(
    cube, tmp_path, windows, networks, undrawn
):
    path, options = cube
    scene = hs.open_scene(path, **options)
    hs.train(scene, model=SMALL, folder=tmp_path / "run", **SHORT)
    assert windows == [(0, 0, 40, 40)]
    assert networks == [22]


def test_cube_that_is_too_large_to_keep_is_read_around_labelled_pixels(cube, monkeypatch, windows):
    path, options = cube
    monkeypatch.setattr(opening, "_MOST_KEPT", 1000)
    kept = hs.open_scene(path, **options)
    labels = np.where(np.arange(1600).reshape(40, 40) % 40 < 20, kept.labels, 0)
    windows.clear()
    run = hs.train(LabelledScene(kept.scene, labels, kept.legend), model=SMALL, baselines=(), **SHORT)
    assert run.metrics["test"]["overall_accuracy"] >= 0
    assert max(width for _, _, _, width in windows[:2]) <= 22


def test_pixels_in_a_temporary_file_train_the_same_network(cube, monkeypatch, caplog):
    path, options = cube
    runs = []
    for most in (2**29, 1):
        monkeypatch.setattr("hsfusion.scenes.scene._MOST_IN_MEMORY", most)
        with caplog.at_level("INFO"):
            runs.append(hs.train(hs.open_scene(path, **options), model=SMALL, baselines=(), **SHORT))
        assert ("GB of pixels go to a temporary file in" in caplog.text) == (most == 1)
    states = [run.network.state_dict() for run in runs]
    assert all(tensor.equal(states[1][name]) for name, tensor in states[0].items())
    assert (runs[0].class_map == runs[1].class_map).all()


def test_every_third_pixel_is_read_without_the_others_in_memory(cube, monkeypatch):
    path, _ = cube
    scene, layers = hs.open_scene(path), np.array([4, 1])
    monkeypatch.setattr("hsfusion.scenes.geobox._NUMBERS", 3000)
    np.testing.assert_array_equal(read_all(scene, layers, step=3), read_all(scene, layers)[:, ::3, ::3])


def test_kept_cube_gives_the_numbers_of_the_file_and_travels_without_them(cube):
    path, options = cube
    scene, file = hs.open_scene(path, **options).scene, hs.open_scene(path)
    some = np.array([3, 0, 7])
    for layers in (None, some):
        np.testing.assert_array_equal(scene.read((5, 6, 7, 8), layers), file.read((5, 6, 7, 8), layers))
    scene.read((0, 0, 2, 2))[:] = -1
    np.testing.assert_array_equal(scene.read(), file.read())
    assert len(pickle.dumps(scene)) < 10_000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(scene)).read(), file.read())


def test_fine_tuning_builds_a_network_for_each_that_it_compares(tmp_path, networks):
    scene = synthetic_scene(seed=0, height=40, width=40)
    fast = {**SHORT, "figures": False, "baselines": ()}
    hs.train(scene, model=SMALL, **fast).save(tmp_path / "run", figures=False)
    networks.clear()
    other = synthetic_scene(seed=1, height=40, width=40)
    run = hs.finetune(tmp_path / "run", other, scratch_epochs=1, **fast)
    assert len(networks) == 4  # as it was, transferred to be fine-tuned and as it is, and the one from scratch
    assert run.metrics["scratch"]["epochs"] == 1
