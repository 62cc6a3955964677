"""Checkpoints: whole and finite at any time, kept where a signal stops the training, and gone on from to the bit."""

import errno
import os
import platform
import re
import shutil
import signal
import tempfile
from dataclasses import replace
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, LearningRateMonitor, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger

from hsfusion import ModelSettings, TrainSettings, blocks, even_groups
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import STOP_SIGNALS, DivergedError, EnvironmentFailure, InputError
from hsfusion.runs.folder import interrupted_checkpoint, recorded_configuration
from hsfusion.runs.training import train
from hsfusion.scenes import ArrayScene
from hsfusion.training import callbacks
from hsfusion.training.classifier import FusionClassifier

SCENE = synthetic_scene(seed=0, height=40, width=40)
SETTINGS = TrainSettings(
    groups=even_groups(4),
    split=blocks(block_pixels=8),
    model=ModelSettings(channels=4, width=8, receptive_field=5, linear=False, whitening="none"),
    epochs=3,
    steps_per_epoch=4,
    threads=1,
    figures=False,
    baselines=(),
)


class Stopped(Exception):
    """What a handler of a signal raises."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of the model of a training that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(SCENE, settings=SETTINGS, folder=folder)
    return (folder / "model.safetensors").read_bytes()


def state(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def at_step(monkeypatch, number, action):
    """Has an action in the middle of a step, counted from 0."""
    step = FusionClassifier.training_step

    def training_step(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        return action(loss) if self.global_step == number else loss

    monkeypatch.setattr(FusionClassifier, "training_step", training_step)


@pytest.mark.parametrize(("number", "step"), [*((number, 5) for number in STOP_SIGNALS), (signal.SIGTERM, 7)])
def test_signal_keeps_the_step_and_the_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, whole, number, step):
    def stop(number, frame):
        raise Stopped

    def send(loss):
        signal.raise_signal(number)
        return loss

    before = signal.signal(number, stop)
    try:
        with monkeypatch.context() as patched:
            at_step(patched, step, send)
            with pytest.raises(Stopped):
                train(SCENE, settings=SETTINGS, folder=tmp_path / "cut")
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert state(tmp_path / "cut")["global_step"] == step + 1
    if number != signal.SIGTERM:  # the checkpoint is the same
        return
    train(SCENE, settings=SETTINGS, folder=tmp_path / "rest", resume=tmp_path / "cut")
    assert (tmp_path / "rest" / "model.safetensors").read_bytes() == whole


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
@pytest.mark.parametrize(
    ("change", "step", "kept"),
    [
        ({"trainer": partial(pl.Trainer, accelerator="cpu", accumulate_grad_batches=3)}, 2, 3),
        ({"callbacks": (partial(GradientAccumulationScheduler, {1: 3}),)}, 4, 6),
        ({"callbacks": (partial(StochasticWeightAveraging, 0.01, swa_epoch_start=1),)}, 5, 8),
        ({"callbacks": (LearningRateMonitor,), "loggers": (CSVLogger,)}, 2, 3),
    ],
    ids=["gathered", "gathered from an epoch on", "averaged", "watched"],
)
def test_run_stops_only_where_nothing_of_it_is_lost(tmp_path, monkeypatch, change, step, kept):
    def stop(number, frame):
        raise Stopped

    def send(loss):
        sent.append(step)
        if len(sent) == 1:
            signal.raise_signal(signal.SIGUSR1)
        return loss

    sent, settings = [], replace(SETTINGS, **change)
    train(SCENE, settings=settings, folder=tmp_path / "whole")
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with monkeypatch.context() as patched, pytest.raises(Stopped):
            at_step(patched, step, send)
            train(SCENE, settings=settings, folder=tmp_path / "cut")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert state(tmp_path / "cut")["global_step"] == kept
    train(SCENE, settings=settings, folder=tmp_path / "rest", resume=tmp_path / "cut")
    models = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "rest")]
    assert models[0] == models[1]


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """The folder of a training that ended in the middle."""
    run = tmp_path_factory.mktemp("cut") / "run"

    def stop(loss):
        raise Stopped

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stopped):
        at_step(patched, 9, stop)
        train(SCENE, settings=SETTINGS, folder=run)
    return run


def test_flipped_bit_of_a_checkpoint_is_named_before_it_is_gone_on_from(tmp_path, cut):
    run = shutil.copytree(cut, tmp_path / "run")
    path = run / "checkpoints" / "last.ckpt"
    whole, configuration = path.read_bytes(), (run / "config.yaml").read_text()
    assert interrupted_checkpoint(run, configuration) == path
    for place in range(0, len(whole), 997):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(InputError, match=r"last.ckpt: content is damaged, or more than numbers and text, expected"):
            interrupted_checkpoint(run, configuration)


def changed(*, pixel=(0, 0, 0), by=0, label=0):
    """The scene with another number, or another label."""
    cube, labels = SCENE.scene.read(), SCENE.labels.copy()
    cube[pixel] += by
    labels[0, 0] = label or labels[0, 0]
    return replace(SCENE, scene=ArrayScene(cube, bands=SCENE.scene.bands, name=SCENE.scene.name), labels=labels)


@pytest.mark.parametrize(
    ("scene", "threads", "line"),
    [
        (
            changed(by=1e-6, pixel=(7, 39, 39)),
            1,
            "scene: content (bands, place, values) of synthetic is changed, expected unchanged since {run} began. ",
        ),
        (changed(label=SCENE.labels[0, 0] % 4 + 1), 1, "scene: ground truth of synthetic is changed, expected "),
        (SCENE, 2, "{run}: number of threads is 2, expected 1, as at its start. Fix: add threads=1."),
    ],
    ids=["pixels", "labels", "threads"],
)
def test_inputs_that_are_others_than_when_the_run_began_are_named_before_it_goes_on(
    tmp_path, cut, scene, threads, line
):
    before = torch.get_num_threads()
    try:
        with pytest.raises(InputError, match=f"^{re.escape(line.format(run=cut))}"):
            train(scene, settings=replace(SETTINGS, threads=threads), folder=tmp_path / "rest", resume=cut)
    finally:
        torch.set_num_threads(before)
    assert not (tmp_path / "rest").exists()


def test_second_signal_does_not_wait_for_the_step(tmp_path, monkeypatch):
    heard = []

    def stop(number, frame):
        heard.append(number)
        raise Stopped

    def send(loss):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("not reached")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        at_step(monkeypatch, 5, send)
        with pytest.raises(Stopped):
            train(SCENE, settings=SETTINGS, folder=tmp_path / "cut")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert heard == [signal.SIGINT, signal.SIGTERM]
    assert state(tmp_path / "cut")["global_step"] == 4


def test_diverged_run_keeps_the_last_good_checkpoint_and_names_the_step(tmp_path, monkeypatch):
    at_step(monkeypatch, 7, lambda loss: loss * float("nan"))  # the loss itself is one
    line = r"^training: weights are not finite at step 7, batch 3 of epoch 1, expected numbers. Fix: "
    with pytest.raises(DivergedError, match=line):
        train(SCENE, settings=SETTINGS, folder=tmp_path / "run")
    kept = state(tmp_path / "run")
    assert kept["global_step"] == 4
    assert all(tensor.isfinite().all() for tensor in kept["state_dict"].values())


def test_loss_that_is_not_finite_is_named_with_its_step(tmp_path, monkeypatch):
    loss_of = FusionClassifier._loss

    def loss(self, patches, classes):
        value, logits = loss_of(self, patches, classes)
        return (value * float("inf") if self.training and self.global_step == 6 else value), logits

    monkeypatch.setattr(FusionClassifier, "_loss", loss)
    with pytest.raises(DivergedError, match=r"^training: loss is inf at step 6, batch 2 of epoch 1, expected a finite"):
        train(SCENE, settings=SETTINGS, folder=tmp_path / "run")
    assert state(tmp_path / "run")["global_step"] == 4


@pytest.fixture
def full_disk(monkeypatch):
    """Has chosen checkpoints, counted from 0, end in an error of the disk, half written; gives their number so far."""
    tried = []

    def fail(full):
        seal = callbacks.seal

        def torn(part):
            tried.append(len(tried))
            if tried[-1] in full:
                os.truncate(part, part.stat().st_size // 2)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            seal(part)

        monkeypatch.setattr(callbacks, "seal", torn)
        return tried

    return fail


def test_full_disk_leaves_the_older_checkpoint_and_is_tried_again(tmp_path, monkeypatch, full_disk, whole):
    def steps(loss):
        kept.append(state(tmp_path / "run")["global_step"])
        return loss

    kept = []
    full_disk({1})
    at_step(monkeypatch, 9, steps)
    train(SCENE, settings=SETTINGS, folder=tmp_path / "run")
    assert kept == [4]
    assert state(tmp_path / "run")["global_step"] == 12
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == whole
    assert "last.ckpt: cannot be written (No space left" in (tmp_path / "run" / "train.log").read_text()


def test_disk_that_stays_full_ends_the_training_with_one_line_after_three_misses(tmp_path, full_disk):
    tried = full_disk({1, 2, 3})
    settings = SETTINGS.__class__(**{**vars(SETTINGS), "epochs": 9})
    with pytest.raises(EnvironmentFailure, match=r"last.ckpt: cannot be written \(No space left on device\). Fix: "):
        train(SCENE, settings=settings, folder=tmp_path / "run")
    assert len(tried) == 4
    assert state(tmp_path / "run")["global_step"] == 4
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]


def test_no_other_filesystem_has_a_part_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    train(SCENE, settings=SETTINGS, folder=tmp_path / "run")
    assert state(tmp_path / "run")["global_step"] == 12


def test_run_that_is_still_going_is_refused_with_its_process(tmp_path, monkeypatch):
    lines = []

    def resume(loss):
        with pytest.raises(EnvironmentFailure) as refused:
            recorded_configuration(tmp_path / "run")
        lines.append(str(refused.value))
        return loss

    at_step(monkeypatch, 5, resume)
    train(SCENE, settings=SETTINGS, folder=tmp_path / "run")
    assert lines == [
        f"{tmp_path / 'run'}: run is still running, in process {os.getpid()} on {platform.node()}, "
        "expected an interrupted one. Fix: wait until it ends, or stop it."
    ]
    assert recorded_configuration(tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))


def test_what_a_killed_run_left_locks_nobody_out(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/last.ckpt", "config.yaml", "inputs.json", ".lock", ".process"):
        (tmp_path / name).touch()
    assert recorded_configuration(tmp_path) == {}
