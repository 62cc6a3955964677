"""Everything that a GPU takes part in, on a pretended one: none of its tensors meets one of the CPU."""

from functools import partial

import lightning.pytorch as pl
import pytest
import rasterio
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from pretended_gpu import pretended_gpu

import hsfusion as hs
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import HsFusionError
from hsfusion.nn import StochasticGates
from hsfusion.scenes import ArrayScene, LabelledScene
from hsfusion.scenes.scene import read_all
from hsfusion.training.classifier import FusionClassifier

SMALL = {"epochs": 2, "steps_per_epoch": 4, "baselines": (), "figures": False}
MODEL = {"channels": 4, "width": 8, "receptive_field": 3}


@pytest.fixture
def trainer(monkeypatch):
    with pretended_gpu(monkeypatch) as trainer:
        yield trainer


@pytest.fixture
def devices(monkeypatch):
    """The devices of the patches of each step."""
    devices, step = set(), FusionClassifier.training_step

    def spy(module, batch, index):
        devices.add(batch[1].device.type)
        return step(module, batch, index)

    monkeypatch.setattr(FusionClassifier, "training_step", spy)
    return devices


def scene(seed=0, name="synthetic", **keys):
    made = synthetic_scene(seed=seed, height=24, width=24, **keys)
    if name == "synthetic":
        return made
    return LabelledScene(ArrayScene(read_all(made.scene), bands=made.scene.bands, name=name), made.labels, made.legend)


@pytest.mark.parametrize(
    "model",
    [
        *({"fusion": kind} for kind in ("channel", "instance", "channel_instance", "free")),
        *({"keep_bands": 5}, {"whitening": "none"}),
    ],
    ids=lambda model: "-".join(str(value) for value in model.values()),
)
def test_networks_are_trained_and_read(trainer, devices, model):
    run = hs.train(scene(step_m=10.0), trainer=trainer, model={**MODEL, **model}, **SMALL)
    assert devices == {"cuda"} and run.trained.result.device.type == "cuda"
    assert 0 < run.accuracy["overall_accuracy"] <= 1


def test_precision_callbacks_and_patience(trainer, devices):
    mixed = partial(trainer, precision="bf16-mixed", accumulate_grad_batches=2, gradient_clip_val=0.5)
    hs.train(scene(), trainer=mixed, model=MODEL, patience=1, class_weights="balanced", range_dropout=0.5, **SMALL)
    assert devices == {"cuda"}


def test_a_run_goes_on_is_tuned_and_predicts_as_on_the_cpu(trainer, devices, tmp_path):
    settings = {**SMALL, "trainer": trainer}
    hs.train(scene(), model=MODEL, folder=tmp_path / "run", **settings)
    tuned = hs.finetune(tmp_path / "run", scene(1), per_class=10, thaw_at={"cnn": 0.5}, **settings)
    assert devices == {"cuda"} and tuned.trained.result.device.type == "cuda"
    for device in ("cuda", "cpu"):
        hs.predict(tmp_path / "run", scene(1).scene, tmp_path / f"{device}.tif", device=device, smooth="bilateral")
    maps = [rasterio.open(tmp_path / f"{device}.tif").read() for device in ("cuda", "cpu")]
    assert (maps[0] == maps[1]).all()


def test_scenes_are_trained_together(trainer, devices):
    runs = hs.train_jointly([scene(), scene(1, name="other")], trainer=trainer, model=MODEL, **SMALL)
    assert devices == {"cuda"} and len(runs) == 2


def test_control_a_tensor_that_stays_behind_is_noticed(trainer, monkeypatch):
    def forward(gates, x):
        return x * torch.randn(len(x), x.shape[1])[:, :, None, None]

    monkeypatch.setattr(StochasticGates, "forward", forward)
    with pytest.raises(RuntimeError, match="expected all tensors on one device"):
        hs.train(scene(), trainer=trainer, model=MODEL, **SMALL)


@pytest.mark.parametrize(("cuda", "accelerator"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_or_the_cpu_whatever_else_there_is(monkeypatch, cuda, accelerator):
    taken = {}

    def make(**words):
        taken.update(words)
        raise MisconfigurationException("enough")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    with pytest.raises(HsFusionError, match="enough"):
        hs.train(scene(), trainer=partial(make, accelerator="auto"), **SMALL)
    assert taken["accelerator"] == accelerator


def test_what_makes_the_trainer_may_choose_the_device_itself():
    def make(**words):
        return pl.Trainer(accelerator="cpu", devices=1, **words)

    assert hs.train(scene(), trainer=make, model=MODEL, **SMALL).trained.result.device.type == "cpu"


def test_a_gpu_that_is_not_asked_for_is_no_reason_to_warn(trainer):
    on_cpu = partial(pl.Trainer, accelerator="cpu", devices=1)
    assert hs.train(scene(), trainer=on_cpu, model=MODEL, **SMALL).trained.result.device.type == "cpu"
