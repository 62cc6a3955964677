"""Callbacks, loggers and Lightning's switches on the command line."""

import importlib.util
import json

import numpy as np
import pytest
import rasterio
import torch
from hydra import compose, initialize_config_dir

from hsfusion.cli.commands import settings_of
from hsfusion.cli.words import CONF, hydra_word, hydra_words
from hsfusion.data.synthetic import synthetic_scene

from .conftest import SMALL


def test_callbacks_of_users_run_beside_those_of_the_training(hsfusion, tmp_path):
    words = ["callbacks=[ema,early_stopping,lr_monitor]", "callbacks.mine._target_=lightning.pytorch.callbacks.Timer"]
    words += ["+trainer.callbacks=[{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss}]"]
    done = hsfusion(
        "train",
        "run_dir=run",
        *words,
        "trainer.limit_train_batches=3",
        "trainer.enable_progress_bar=false",
        cwd=tmp_path,
        small=True,
    )
    assert done.returncode == 0, done.stderr
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6  # of two epochs
    assert any("val/loss" in key for key in checkpoint["callbacks"])  # that of trainer.callbacks
    names = {key.partition("{")[0] for key in checkpoint["callbacks"]}
    assert {"EMAWeightAveraging", "EarlyStopping", "Timer", "KeepBest", "History"} <= names
    assert "lr-" in (tmp_path / "run/logs/metrics.csv").read_text().splitlines()[0]
    # what is kept is what was validated: the mean
    curve = dict(zip(*checkpoint["callbacks"]["History"]["curves"]["val/overall_accuracy"], strict=True))
    truth = synthetic_scene(seed=0, height=40, width=40).labels
    with rasterio.open(tmp_path / "run/split.tif") as split, rasterio.open(tmp_path / "run/map.tif") as classes:
        val = split.read(1) == 2
        reached = (classes.read(1)[val] == truth[val]).mean()
    assert reached == pytest.approx(curve[checkpoint["callbacks"]["KeepBest"]["step"]])


def test_fast_dev_run_trains_one_batch_and_writes_a_run(hsfusion, tmp_path):
    done = hsfusion("train", "run_dir=run", "trainer.fast_dev_run=true", cwd=tmp_path, small=True)
    assert done.returncode == 0, done.stderr
    assert "test" in json.loads((tmp_path / "run/metrics.json").read_text())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["callbacks=lr_monitor", "logger=none"], "no logger. Fix: correct callbacks.* or trainer.*"),
        (["trainer.limit_train_batches=-1"], "trainer cannot be used: You have passed invalid value -1"),
        (["trainer.limit_train_batches=half"], "trainer cannot be used: '<=' not supported"),
        (["trainer.overfit_batches=3"], "settings: trainer.overfit_batches is 3, expected 0; trainer.li"),
        (
            ["callbacks=early_stopping", "trainer.limit_val_batches=0"],
            "trainer: limit_val_batches is 0, expected above 0",
        ),
        (["trainer.precision=64-true"], "trainer: precision is 64-true, expected one of 32, 32-true, bf16-mixed"),
        (["callbacks=early_stopping", "callbacks.early_stopping.patients=3"], "callbacks cannot be used"),
        (["logger=mlflow"], "pip install -U 'mlflow"),
        (["logger=wandb"], "pip install -U 'wandb"),
        (["logger=trackio"], "pip install -U 'trackio"),
    ],
)
def test_what_lightning_refuses_is_one_line(hsfusion, tmp_path, words, line):
    if importlib.util.find_spec(words[0].partition("=")[2]) is not None:
        pytest.skip("the package is installed")
    done = hsfusion("train", *words, cwd=tmp_path, small=True)
    assert done.returncode in (2, 3), done.stderr
    assert line in done.stderr and done.stderr.startswith("hsfusion: error: ") and done.stderr.count("\n") == 1


def test_callback_that_goes_by_validation_pixels_is_refused_without_any(hsfusion, tmp_path):
    labels = synthetic_scene(seed=0, height=40, width=40).labels
    for part, half in (("train", 0), ("test", 1)):
        np.save(tmp_path / f"{part}.npy", np.where(np.arange(40) // 20 == half, labels, 0))
    words = [*(word for word in SMALL if not word.startswith("split")), "callbacks=early_stopping"]
    done = hsfusion("train", *words, "split=fixed", "split.train=train.npy", "split.test=test.npy", cwd=tmp_path)
    assert done.stderr == (
        "hsfusion: error: split: number of validation pixels is 0, expected above 0, which EarlyStopping needs. "
        "Fix: leave out EarlyStopping, or raise split.val_fraction.\n"
    )


@pytest.mark.parametrize(
    ("word", "added"),
    [
        ("callbacks.mine._target_=a.B", True),
        ("trainer.limit_train_batches=10", True),
        ("trainer.max_epochs=3", False),
        ("optimizer.fused=true", True),
        ("optimizer.lr=0.1", False),
        ("optimizer.weight_deca=0.1", False),
        ("trainer.limit_train_batch=10", False),
        ("callbacks=ema", False),
        ("~callbacks.ema", False),
        ("+trainer.fast_dev_run=true", False),
    ],
)
def test_keys_that_lightning_or_a_callback_takes_need_no_plus(word, added):
    assert hydra_word(word, multirun=False) == ("++" if added else "") + word


def test_lists_reach_what_is_made_as_those_of_python():
    words = ["optimizer.betas=[0.8,0.9]", "callbacks.mine={_target_: builtins.dict, steps: [1, 2]}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = settings_of(compose("train", overrides=hydra_words(words, "train")))
    assert settings.optimizer is not None
    assert settings.optimizer([torch.nn.Parameter(torch.zeros(1))]).defaults["betas"] == (0.8, 0.9)
    assert repr(settings.callbacks[0]()) == "{'steps': [1, 2]}"
