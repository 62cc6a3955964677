"""What a sweeper gets from a training, and what a search leaves."""

import csv
import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from hsfusion.cli.app import TrialTable
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.runs.folder import held

from .conftest import SMALL


@pytest.fixture
def search(hsfusion, tmp_path, monkeypatch):
    """Runs a training as one trial of a search, and gives what it returned."""
    values = []

    def instantiate_sweeper(plugins, *, hydra_context, task_function, config):
        launcher = plugins.instantiate_launcher(hydra_context, task_function, config)

        def sweep(arguments):
            (done,) = launcher.launch([arguments], initial_job_idx=0)
            values.append(done.return_value)

        return SimpleNamespace(sweep=sweep)

    monkeypatch.setattr(Plugins, "instantiate_sweeper", instantiate_sweeper)
    ConfigStore.instance().store(group="hydra/sweeper", name="recorded", node={"_target_": "recorded"})

    def run(*words):
        small = [word for word in SMALL if not word.startswith("split")]
        done = hsfusion("train", "-m", "hydra/sweeper=recorded", "run_dir=run", *small, *words, cwd=tmp_path)
        return done, values

    return run


def test_training_returns_the_validation_accuracy_of_its_map(search, tmp_path):
    done, values = search()
    assert done.returncode == 0, done.stderr
    truth = synthetic_scene(seed=0, height=40, width=40).labels
    with rasterio.open(tmp_path / "run" / "split.tif") as split, rasterio.open(tmp_path / "run" / "map.tif") as classes:
        val = split.read(1) == 2
        assert values == [pytest.approx((classes.read(1)[val] == truth[val]).mean())]


def test_search_does_not_go_by_test_pixels(search):
    done, values = search("optimized_metric=test/overall_accuracy")
    assert (done.returncode, values) == (2, [])
    line = "optimized_metric is test/overall_accuracy, expected val/overall_accuracy | val/average_accuracy | val/kappa"
    assert line in done.stderr.splitlines()[-1]


def test_search_without_validation_pixels_says_so(search, tmp_path):
    labels = synthetic_scene(seed=0, height=40, width=40).labels
    for name, half in (("train", 0), ("test", 1)):
        np.save(tmp_path / f"{name}.npy", np.where(np.arange(40) // 20 == half, labels, 0))
    words = ["split=fixed", "split.train=train.npy", "split.test=test.npy"]
    done, values = search(*words, "trainer.max_epochs=1")
    assert (done.returncode, values) == (2, [])
    assert "split.val_fraction is 0, expected validation pixels, which a search needs" in done.stderr


@pytest.mark.parametrize(
    ("word", "pip"),
    [
        ("hydra/launcher=submitit_slurm", "hydra-submitit-launcher"),
        ("hydra/launcher=joblib", "hydra-joblib-launcher"),
        ("experiment=tune_optuna", "hydra-optuna-sweeper 'sqlalchemy<2'"),
    ],
)
def test_plugin_that_is_not_installed_is_named_with_its_package(hsfusion, tmp_path, word, pip):
    if importlib.util.find_spec(pip.split("-")[1]) is not None:
        pytest.skip("it is installed")
    done = hsfusion("train", word, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith(f"Fix: pip install {pip}.\n") and done.stderr.count("\n") == 1


def test_table_of_trials_names_the_words_of_the_best(tmp_path, monkeypatch, capsys):
    trials = [
        SimpleNamespace(number=0, state=SimpleNamespace(name="COMPLETE"), value=0.75, params={"model.width": 32}),
        SimpleNamespace(number=1, state=SimpleNamespace(name="FAIL"), value=None, params={"model.width": 64}),
    ]
    study = SimpleNamespace(trials=trials, best_trial=trials[0], best_params=trials[0].params)
    monkeypatch.setitem(sys.modules, "optuna", SimpleNamespace(load_study=lambda **_: study))
    sweep = {"sweep": {"dir": str(tmp_path)}, "sweeper": {"study_name": "a", "storage": "b"}}
    TrialTable().on_multirun_end(OmegaConf.create({"hydra": sweep, "optimized_metric": "val/kappa"}))
    with open(tmp_path / "trials.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["trial", "state", "val/kappa", "model.width"],
            ["0", "COMPLETE", "0.75", "32"],
            ["1", "FAIL", "", "64"],
        ]
    assert "best: trial 0, model.width=32\n" in capsys.readouterr().out
    assert (tmp_path / "trials.png").is_file()


def test_search_by_optuna_goes_on_with_its_study(hsfusion, tmp_path):
    optuna = pytest.importorskip("optuna")
    words = ["experiment=tune_optuna", "trainer.max_epochs=1", "model.receptive_field=3", "groups.number=4"]
    words += ["+optimizer.eps=choice(1e-8,1e-7)", "+optimizer.foreach=false"]
    for trials in (1, 2):  # in all
        done = hsfusion("train", *words, f"hydra.sweeper.n_trials={trials}", cwd=tmp_path, small=True)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "runs/tune/trials.csv").read_text().count("COMPLETE") == trials
        study = optuna.load_study(study_name="tune", storage=f"sqlite:///{tmp_path}/runs/tune/study.db")
        trial = study.ask()  # as one that a kill meets
        trial.suggest_loguniform("optimizer.lr", 0.0003, 0.01)
        trial.suggest_uniform("band_cost", 0.0, 0.6)
        trial.suggest_categorical("+optimizer.eps", (1e-8, 1e-7))
    rows = list(csv.reader((tmp_path / "runs/tune/trials.csv").read_text().splitlines()))[1:]
    assert [row[1] for row in rows] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert rows[1][3:] == rows[2][3:] != rows[0][3:]
    assert len(list(tmp_path.glob("runs/tune/*/validation.json"))) == 2

    def refused(*more, words=words):
        done = hsfusion("train", *words, *more, cwd=tmp_path, small=True)
        assert done.returncode and done.stderr.count("\n") == 1
        assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "RUNNING"]
        return done.stderr

    with held(tmp_path / "runs/tune"):
        assert "runs/tune: run is still running, in process " in refused()
    assert "optimizer.lr is CategoricalDistribution(choices=(0.1, 0.2)), expected LogUniform" in refused(
        "optimizer.lr=choice(0.1,0.2)"
    )
    assert "label_smoothing is 0.1, expected 0.05 as in the study tune. Fix: restore" in refused("label_smoothing=0.1")
    assert "optimizer.fused is False, expected absent as in the study" in refused("optimizer.fused=false")
    assert "optimizer.foreach is absent, expected False as in the study" in refused(words=words[:-1])
    assert "optimized_metric is val/kappa, expected val/overall_acc" in refused("optimized_metric=val/kappa")


def test_search_of_which_every_trial_fails_ends_in_its_error(hsfusion, tmp_path):
    pytest.importorskip("optuna")
    words = ["experiment=tune_optuna", "model.dropout=2", "hydra.sweeper.n_trials=2"]
    done = hsfusion("train", *words, "hydra.sweeper.max_failure_rate=1", cwd=tmp_path, small=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("hsfusion: error: settings: model.dropout is 2, expected between ")


@pytest.mark.parametrize("word", ["modle.width=16", "groups.numbr=4"])
def test_mistyped_key_of_a_search_is_the_one_that_is_named(hsfusion, tmp_path, word):
    pytest.importorskip("optuna")
    done = hsfusion("train", "experiment=tune_optuna", word, "band_cost=interval(0,0.1)", cwd=tmp_path)
    assert done.returncode == 2
    assert f"key is {word.partition('=')[0]}, expected a key of the configuration. Fix: did you mean" in done.stderr
