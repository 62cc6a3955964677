"""What loggers and the Trainer of a run are told."""

from functools import partial
from typing import ClassVar

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger

import hsfusion
from hsfusion.errors import HsFusionError

from .conftest import TINY


class _Recorder(DummyLogger):
    told: ClassVar[list[dict]] = []

    def __init__(self, save_dir):
        super().__init__()

    def log_hyperparams(self, params, *_):
        self.told.append(dict(params))


def test_loggers_get_all_settings_and_the_folder_of_a_run_before_it_trains(scene, tmp_path):
    _Recorder.told.clear()
    groups = hsfusion.interval_groups({"red (edge)": [400, 1000], "SWIR": [1000, 2500]})
    given = {"groups": groups, "loggers": (_Recorder,), "optimizer": partial(torch.optim.AdamW, lr=0.003)}
    hsfusion.train(scene, **{**TINY, **given}, folder=tmp_path / "run")
    first, *later = _Recorder.told
    assert (first["optimizer"]["lr"], first["model"]["width"], first["seed"]) == (0.003, 8, 0)
    assert first["folder"] == str(tmp_path / "run")
    assert isinstance(first["groups"]["nm"], str)  # MLflow refuses brackets in a key
    assert later
    assert all(of.items() <= first.items() for of in later)  # MLflow refuses another value of a key


def test_training_without_checkpoints_in_short_epochs_needs_no_warning(scene, tmp_path):
    short = partial(pl.Trainer, accelerator="cpu", enable_checkpointing=False, limit_train_batches=2)
    run = hsfusion.train(scene, **TINY, trainer=short, loggers=(_Recorder,), folder=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert run.metrics["test"]["overall_accuracy"] == run.accuracy["overall_accuracy"]


def test_optimizer_that_takes_no_groups_is_refused_before_the_training(scene):
    with pytest.raises(HsFusionError, match=r"optimizer cannot be used: LBFGS doesn't .* \(parameter groups\)\. Fix"):
        hsfusion.train(scene, **TINY, optimizer=torch.optim.LBFGS)


def test_reason_of_another_library_ends_with_one_stop(scene, tmp_path):
    barebones = partial(pl.Trainer, barebones=True)
    with pytest.raises(HsFusionError, match=r"barebones mode\. Fix: correct trainer"):
        hsfusion.train(scene, **TINY, trainer=barebones, folder=tmp_path / "run")
