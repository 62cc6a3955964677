"""A multirun that is started again: what is finished is left alone, what is half done goes on."""

import json
import os
import signal

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from hsfusion.cli import commands
from hsfusion.cli.words import CONF
from hsfusion.runs import evaluation, training
from hsfusion.runs.folder import finish_in_sweep, place_in_sweep
from hsfusion.training.callbacks import History

SWEEP = ["-m", "seed=0,1", "sweep_dir=all"]


@pytest.fixture
def started(monkeypatch):
    """The checkpoint that each training goes on from, None for a new one."""
    checkpoints, run_trainer = [], training.run_trainer

    def record(*args, checkpoint=None):
        checkpoints.append(checkpoint)
        run_trainer(*args, checkpoint=checkpoint)

    monkeypatch.setattr(training, "run_trainer", record)
    return checkpoints


def test_sweep_after_a_kill_trains_nothing_twice(hsfusion, forked, tmp_path, started, monkeypatch):
    words, epochs = ["trainer.max_epochs=3"], iter(range(6))

    def kill(*_):  # in the second epoch of the second training
        if next(epochs) == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(History, "on_train_epoch_start", kill)
        number = forked("train", *SWEEP, *words, cwd=tmp_path, small=True)
    assert os.WTERMSIG(os.waitpid(number, 0)[1]) == signal.SIGKILL
    first = (tmp_path / "all/seed=0/metrics.json").stat()
    done = hsfusion("train", *SWEEP, *words, cwd=tmp_path, small=True)
    assert done.returncode == 0, done.stderr
    assert "finished     all/seed=0\n" in done.stdout
    assert (tmp_path / "all/seed=0/metrics.json").stat() == first
    assert [path.parts[-3] for path in started] == ["seed=1"]
    assert sorted(path.name for path in (tmp_path / "all").glob("seed*")) == ["seed=0", "seed=1", "seed=1~2"]
    alone = hsfusion("train", "seed=1", "run_dir=alone", *words, cwd=tmp_path, small=True)
    assert alone.returncode == 0, alone.stderr
    models = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("all/seed=1~2", "alone")]
    assert models[0] == models[1]
    (tmp_path / "all/seed=1~2/checkpoints/last.ckpt").unlink()  # of a finished run nobody needs it
    done = hsfusion("train", *SWEEP, *words, cwd=tmp_path, small=True)
    assert done.stdout.splitlines() == ["finished     all/seed=0", "finished     all/seed=1~2"]
    assert len(started) == 2  # with the run alone


def test_sweep_grows_and_keeps_its_settings(hsfusion, tmp_path, started):
    words = ["trainer.max_epochs=1", "band_cost=0.1"]
    assert hsfusion("train", *SWEEP, *words, cwd=tmp_path, small=True).returncode == 0
    assert set(json.loads((tmp_path / "all/seed=1/validation.json").read_text())) == set(evaluation.VALIDATION_METRICS)
    for given, line in (
        ([*words, "trainer.max_epochs=2"], "trainer.max_epochs is 2, expected 1"),
        (words[:1], "band_cost is 0.3, expected 0.1"),  # as where an experiment no longer sets it
    ):
        other = hsfusion("train", *SWEEP, *given, cwd=tmp_path, small=True)
        assert (other.returncode, other.stdout) == (2, "")
        assert [of.partition(". Fix")[0] for of in other.stderr.splitlines()] == [
            f"hsfusion: error: command line: {line} as in all/seed={seed}" for seed in (0, 1)
        ]
    more = hsfusion("train", *SWEEP, "seed=0,1,2", *words, cwd=tmp_path, small=True)
    assert more.returncode == 0, more.stderr
    assert len(started) == 3
    assert "sweep_dir" not in (tmp_path / "all/seed=2/config.yaml").read_text().splitlines()[0]


def test_run_of_a_sweep_is_finished_before_it_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "validation_accuracies", lambda trainings: {"kappa": 1})
    cfg = OmegaConf.create({"optimized_metric": "kappa", "sweep_dir": "all", "run_dir": str(tmp_path / "all/seed=0")})

    def show():
        raise OSError("closed")

    (tmp_path / "all/seed=0").mkdir(parents=True)
    with pytest.raises(OSError, match="closed"):
        commands._finished(cfg, [], show)
    assert place_in_sweep(tmp_path / "all", ["seed=0"])[2] == {"kappa": 1}


def test_folder_of_a_run_in_a_sweep_follows_from_its_words(tmp_path):
    folder, start, reached = place_in_sweep(tmp_path, ["seed=1", "model.width=8"])
    assert (folder, start, reached) == (tmp_path / "model.width=8,seed=1", None, None)
    assert place_in_sweep(tmp_path, [])[0] == tmp_path / "run"
    paths = {place_in_sweep(tmp_path, [f"scene.cube={path}"])[0] for path in ("a/b.img", "a_b.img", "x" * 300)}
    assert len(paths) == 3 and {path.parent for path in paths} == {tmp_path}
    assert all(len(path.name) < 90 for path in paths)


def test_run_of_a_sweep_goes_on_in_another_folder_and_deletes_nothing(tmp_path, monkeypatch):
    run = tmp_path / "seed=1"
    run.mkdir()
    (run / "map.tif").write_text("of somebody else")
    assert place_in_sweep(tmp_path, ["seed=1"]) == (tmp_path / "seed=1~2", None, None)
    start = None
    for number in (2, 3):  # interrupted twice
        folder = tmp_path / f"seed=1~{number}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text("seed: 1\n")
        assert place_in_sweep(tmp_path, ["seed=1"]) == (
            tmp_path / f"seed=1~{number + 1}",
            start,
            None,
        )  # nothing kept yet
        (folder / "checkpoints/last.ckpt").write_text("")
        assert place_in_sweep(tmp_path, ["seed=1"]) == (tmp_path / f"seed=1~{number + 1}", folder, None)
        start = folder
    with monkeypatch.context() as further:  # a further process finds the folder of the first
        further.setenv("LOCAL_RANK", "1")
        further.setenv("HSFUSION_RUN_DIR", str(start))
        assert place_in_sweep(tmp_path, ["seed=1"]) == (start, tmp_path / "seed=1~2", None)
        finish_in_sweep(start, {"val/kappa": 0.1})
    finish_in_sweep(start, {"val/kappa": 0.5})
    assert place_in_sweep(tmp_path, ["seed=1"]) == (start, None, {"val/kappa": 0.5})
    assert (run / "map.tif").read_text() == "of somebody else"


@pytest.mark.parametrize("word", ["run_dir=there", "resume=there"])
def test_run_of_a_sweep_takes_no_folder(hsfusion, tmp_path, word):
    done = hsfusion("train", "sweep_dir=all", word, cwd=tmp_path, small=True)
    assert done.returncode == 2
    assert f"{word.partition('=')[0]} is there, expected null with sweep_dir" in done.stderr


def test_processes_that_train_together_are_refused_in_a_multirun(hsfusion, tmp_path):
    done = hsfusion("train", "-m", "seed=0,1", "trainer=ddp", "trainer.devices=2", cwd=tmp_path, small=True)
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and done.returncode == 2
    assert "trainer.devices is 2, expected 1 in a multirun. Fix: start these runs one by one: every further" in lines[0]


def test_benchmark_takes_no_sweep(hsfusion, tmp_path):
    done = hsfusion("benchmark", "accuracy", "sweep_dir=all", cwd=tmp_path, small=True)
    assert "sweep_dir is all, expected nothing in a benchmark" in done.stderr


def test_slurm_experiment_keeps_runs_and_logs_in_one_folder():
    pytest.importorskip("submitit")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["experiment=cluster_slurm"], return_hydra_config=True)
    assert (
        cfg.hydra.mode.name == "MULTIRUN"
        and cfg.hydra.sweep.dir == cfg.sweep_dir == "runs/cluster"
        and cfg.threads == 4
    )
    launcher = cfg.hydra.launcher
    assert (launcher.name, launcher.array_parallelism, launcher.max_num_timeout) == ("cluster", 16, 20)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_fill_the_same_folders(hsfusion, tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    words = [*SWEEP, f"hydra/launcher={launcher}", "trainer.max_epochs=1"]
    times = []
    for _ in range(2):
        done = hsfusion("train", *words, cwd=tmp_path, small=True)
        assert done.returncode == 0, done.stderr
        times.append({path.parts[-2]: path.stat().st_mtime_ns for path in tmp_path.glob("all/*/metrics.json")})
    assert set(times[0]) == {"seed=0", "seed=1"} and times[0] == times[1]
    failing = hsfusion("train", *words, "seed=0", "model.width=0,-1", cwd=tmp_path, small=True)
    assert failing.returncode == 2
    lines = [f"hsfusion: error: settings: model.width is {width}, expected at least 1" for width in (0, -1)]
    assert [line.partition(". ")[0] for line in failing.stderr.splitlines()] == lines
