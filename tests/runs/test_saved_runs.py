"""What a run folder gives back, and what a damaged one says."""

import json
import re
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

import hsfusion
from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.runs import trackio_logger
from hsfusion.runs.report import log_outputs
from hsfusion.runs.settings import TrainSettings
from hsfusion.scenes.description import read_configuration
from hsfusion.trust.verdict import Duplicate

from .conftest import TINY


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


@pytest.mark.parametrize("name", ["metrics.json", "verdict.json"])
@pytest.mark.parametrize("content", [None, "", "[1, 2"])
def test_damaged_or_missing_file_is_named(folder, name, content):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(InputError, match=name) as error:
        hsfusion.load_run(folder)
    assert "\n" not in str(error.value)


def test_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: run is missing, expected the folder of a run"):
        hsfusion.load_run(tmp_path / "nowhere")
    (tmp_path / "seed=1").mkdir()
    (tmp_path / "seed=1/metrics.json").write_text("{}")
    with pytest.raises(InputError, match=r"run is a folder of runs \(1\), .*\. Fix: name one, such as .*seed=1\."):
        hsfusion.load_run(tmp_path)


def test_duplicate_bands_are_read(folder):
    (folder / "verdict.json").write_text(json.dumps({"beats_chance": True, "duplicates": [[0, 4, 0.9995]]}))
    assert hsfusion.load_run(folder).duplicates == (Duplicate(0, 4, 0.9995),)


def test_verdict_says_what_labels_without_meaning_reach_and_that_old_runs_were_not_compared(run, folder):
    chance = run.metrics["chance"]
    assert json.loads((folder / "verdict.json").read_text())["chance"] == chance
    assert run.beats_chance is (min(chance["network"], chance["labels"]) > chance["moved"])
    scores = f"the network reaches a kappa of {chance['network']:.2f}"
    assert scores in " ".join(hsfusion.compare([hsfusion.load_run(folder)]).verdict.sentences)
    old = {name: of for name, of in run.metrics.items() if name != "chance"}
    (folder / "metrics.json").write_text(json.dumps(old))
    found = hsfusion.compare([hsfusion.load_run(folder)]).verdict
    assert "The run was compared with chance agreement on test pixels" in " ".join(found.sentences)


def test_file_keeps_mean_and_correlation_of_the_training_spectra(run, folder):
    for kept, of_network in zip(hsfusion.load_run(folder).statistics, run.statistics, strict=True):
        np.testing.assert_array_equal(kept, of_network)
    mean, correlation = hsfusion.compare([folder]).statistics
    assert mean.shape == (len(run.weights.bands),)
    np.testing.assert_allclose(np.diag(correlation), 1, atol=1e-4)
    np.testing.assert_array_equal(correlation, correlation.T)


def test_name_in_place_of_a_function_is_refused_with_what_makes_it():
    with pytest.raises(InputError, match=r"split is random, expected a function, such as split=hs.blocks"):
        TrainSettings(split="random")


def test_settings_take_a_mapping_for_the_model():
    settings = hsfusion.TrainSettings(model={"channels": 4})
    assert settings.model == hsfusion.ModelSettings(channels=4)
    with pytest.raises(InputError, match=r"name is model\.chanels, expected a setting. Fix: did you mean model\.chann"):
        hsfusion.TrainSettings(model={"chanels": 4})


def test_numbers_of_numpy_are_written_and_trained_with_as_those_of_python(scene, run, tmp_path):
    numpy = {"epochs": np.int32(2), "seed": np.int64(0), "noise": np.float64(0.05), "figures": np.bool_(False)}
    split = hsfusion.blocks(fraction=np.float64(0.3), seed=np.int64(0))
    model = {**TINY["model"], "receptive_field": np.int64(5)}
    same = hsfusion.train(scene, folder=tmp_path / "run", **{**TINY, **numpy, "split": split, "model": model})
    assert np.array_equal(same.weights.weight, run.weights.weight)
    assert read_configuration(tmp_path / "run" / "config.yaml")["split"]["fraction"] == 0.3
    assert same.header.seed == 0


def test_one_training_twice_in_memory_or_in_its_folder_is_refused(run, saved):
    assert hsfusion.compare(saved).runs == hsfusion.compare([saved]).runs
    for runs in ([run, run], [run, saved], [saved, run]):
        with pytest.raises(InputError, match="expected those of another training"):
            hsfusion.compare(runs)
    with pytest.raises(InputError, match="runs is none, expected at least one"):
        hsfusion.compare([])


def test_cube_without_labels_is_named(tmp_path):
    with pytest.raises(InputError, match=r"field\.img: labels is missing, expected a scene with labels"):
        hsfusion.train(tmp_path / "field.img")


def test_disk_that_is_too_small_is_refused_before_anything_is_trained(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6))
    with pytest.raises(EnvironmentFailure, match=r"run: free space is 1\.0 MB, expected about [2-4]\.\d MB"):
        hsfusion.train(scene, **TINY, folder=tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_model_is_kept_where_a_map_cannot_be_written(run, scene, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise EnvironmentFailure("map.tif: cannot be written")

    monkeypatch.setattr("hsfusion.runs.run.write_rasters", fail)
    with pytest.raises(EnvironmentFailure, match="cannot be written"):
        replace(run).save(tmp_path / "run", figures=False)
    assert hsfusion.predict(tmp_path / "run", scene, tmp_path / "map.tif", progress=False).out.exists()


def test_space_that_a_run_needs_is_estimated(scene, tmp_path):
    folder = hsfusion.train(scene, **TINY, folder=tmp_path / "run").folder
    used = sum(path.stat().st_size for path in folder.rglob("*")) + (folder / "checkpoints/last.ckpt").stat().st_size
    needed = float(re.search(r"needs about ([\d.]+) MB", (folder / "train.log").read_text())[1]) - 2  # no figures
    assert 0.8 * used < 1e6 * needed < 1.5 * used


@pytest.mark.parametrize(("method", "of_logger"), [("log_image", True), ("log_figure", False), ("add_figure", False)])
def test_each_logger_gets_accuracies_and_figures_in_its_way(method, of_logger):
    calls = {}

    def named(*names):
        return {name: lambda *given, name=name, **_: calls.update({name: given}) for name in names}

    place = named("finish") if of_logger else named(method)
    logger = named("log_metrics", "save", method) if of_logger else named("log_metrics", "save")
    accuracy = {"overall_accuracy": 0.9, "average_accuracy": 0.8, "kappa": 0.7, "mean_iou": 0.6, "per_class": {}}
    logger = SimpleNamespace(experiment=SimpleNamespace(**place), run_id="7", **logger)
    log_outputs(logger, {"map": "drawn"}, accuracy)
    ways = {"log_image": ("map", ["drawn"]), "log_figure": ("7", "drawn", "map.png"), "add_figure": ("map", "drawn")}
    assert calls[method] == ways[method]
    values = {"test/overall_accuracy": 0.9, "test/average_accuracy": 0.8, "test/kappa": 0.7, "test/mean_iou": 0.6}
    assert calls["log_metrics"] == (values,)
    assert set(calls) == {"log_metrics", "save", method, *(["finish"] if of_logger else [])}


def test_trackio_gets_metrics_by_step_settings_and_figures(monkeypatch):
    logged = []
    run = SimpleNamespace(log=lambda metrics, step=None: logged.append((metrics, step)), config={})
    trackio = SimpleNamespace(init=lambda *_, **__: run, Image=lambda image: image.format)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setattr(trackio_logger, "RequirementCache", lambda _: True)
    logger = trackio_logger.TrackioLogger(project="hsfusion", name="run", save_dir="logs")
    logger.log_hyperparams({"seed": 3})
    logger.log_metrics({"train/loss": 1.0}, step=4)
    logger.log_image("map", [Figure((1, 1))])
    assert run.config == {"seed": 3}
    assert logged == [({"train/loss": 1.0}, 4), ({"map": "PNG"}, None)]
