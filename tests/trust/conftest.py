"""Trainings for the trust tests: the parts that the commands use, on generated scenes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from hsfusion.data.patches import PatchDataModule, prepare, valid_pixels
from hsfusion.data.splits import TEST, blocks
from hsfusion.nn import FusionNetwork
from hsfusion.runs.evaluation import fit_linear_part, window_importance
from hsfusion.runs.experiment import Experiment, InitialModel
from hsfusion.runs.training import run_trainer
from hsfusion.scenes import ArrayScene, LabelledScene
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import even_groups
from hsfusion.training.building import WeightReadout, build_network
from hsfusion.training.classifier import FusionClassifier, confusion_matrix
from hsfusion.trust.verdict import beats_chance


@dataclass(frozen=True, eq=False)
class Trained:
    network: FusionNetwork
    before: np.ndarray  # (C,) band weights of the untrained network
    weight: np.ndarray  # (C,) band weights
    nm: np.ndarray
    accuracy: float  # overall, of the test pixels
    evidence: bool
    experiment: Experiment

    def inside(self, windows_nm, weight=None):
        within = sum((self.nm >= lower) & (self.nm < upper) for lower, upper in windows_nm).astype(bool)
        return float((self.weight if weight is None else weight)[within].sum())

    def worth(self, lower, upper):
        """Loss of the data and of the network without the bands in an interval [lower, upper) in nm."""
        window = ((self.nm >= lower) & (self.nm < upper))[None]
        importance = window_importance(self.experiment, WeightReadout(self.network), windows=window)
        return float(importance.data[0]), float(importance.network[0])

    def shares(self, weight=None):
        """Weight in each of the 14 intervals of equal width."""
        edges = np.linspace(self.nm.min(), self.nm.max() + 1e-6, 15)
        return np.histogram(self.nm, edges, weights=self.weight if weight is None else weight)[0]


@pytest.fixture(scope="session")
def train():
    torch.set_num_threads(1)
    return _train


def _train(
    labelled,
    *,
    seed,
    fusion="channel",
    raw=False,
    epochs=20,
    steps_per_epoch=50,
    band_cost=0.3,
    keep_bands=None,
    linear=True,
    **size,
):
    scene = labelled.scene
    build = partial(
        build_network,
        scene.bands,
        even_groups(scene.bands, number=14),
        fusion=fusion,
        keep_bands=keep_bands,
        sources=scene.sources,
        whitening="none" if raw or keep_bands else "noise",
        linear=linear and not raw,
        **size,
    )
    used = build(num_classes=2).used_bands.numpy()
    split = blocks(labelled, radius=3, seed=seed, valid=valid_pixels(scene, used), block_pixels=8)
    cube = prepare(split, used)
    if raw:  # the scene's own numbers, brought to a common size: what a network without standardisation gets
        size = float(np.median(cube.std))
        values = cube.values * torch.from_numpy(cube.std / size).float() + torch.from_numpy(cube.mean / size).float()
        cube = replace(cube, values=values.contiguous())
    torch.manual_seed(seed)
    network = build(num_classes=len(split.labelled.legend.codes))
    before = WeightReadout(network).weight[: len(scene.bands)]
    data = PatchDataModule(cube, split, seed=seed, steps_per_epoch=steps_per_epoch)
    module = FusionClassifier(
        network,
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01),
        total_steps=steps_per_epoch * epochs,
        seed=seed,
        band_cost=band_cost,
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, enable_model_summary=False, use_distributed_sampler=False, **quiet
    )
    run_trainer(trainer, module, data)
    experiment = Experiment(split, InitialModel(network, [], {}), cube)
    fit_linear_part(experiment, data)
    network.eval()
    test = torch.from_numpy(split.pixels(TEST))
    with torch.no_grad():
        said = torch.cat([network.classify(data.patches(p, step=None)).flatten(1).argmax(1) for p in test.split(1024)])
    confusion = confusion_matrix(cube.classes.numpy()[test], said.numpy(), num_classes=len(split.labelled.legend.codes))
    return Trained(
        network=network,
        before=before,
        weight=WeightReadout(network).weight[: len(scene.bands)],
        nm=scene.bands.wavelength_nm,
        accuracy=float(np.trace(confusion) / confusion.sum()),
        evidence=beats_chance(confusion, receptive_field=7),
        experiment=experiment,
    )


@pytest.fixture(scope="session")
def changed():
    """A labelled scene with another cube (C, H, W), and with other bands if need be."""

    def make(labelled, cube=None, *, bands=None, labels=None):
        cube = read_all(labelled.scene) if cube is None else cube
        scene = ArrayScene(cube, bands=bands or labelled.scene.bands, name="changed")
        return LabelledScene(scene, labelled.labels if labels is None else labels, labelled.legend)

    return make
