"""What the validation pixels of a scene decide: the model, after short trainings, and the share of its linear part."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsfusion.data.patches import PatchDataModule
from hsfusion.data.splits import TRAIN, VAL, Split
from hsfusion.errors import InputError
from hsfusion.nn import BandCentres
from hsfusion.runs.experiment import Experiment, initialise, split_scene
from hsfusion.runs.folder import read_json
from hsfusion.runs.settings import ModelSettings, TrainSettings, replaced
from hsfusion.scenes import LabelledScene
from hsfusion.trust.baselines import BLOCK, PixelTable, linear_classifier, log_likelihoods, network_share, temperature

_log = logging.getLogger(__name__)
_MOST_EPOCHS = 20  # of a short training


def fit_linear_part(experiment: Experiment, data: PatchDataModule, *, seed: int) -> None:
    """Fits the linear part of a trained network, if it has one, and its share by the validation pixels."""
    network, split, cube = experiment.network, experiment.split, experiment.cube
    linear, gates = network.linear, network.fusion.gates
    if linear is None or not split.count(VAL):
        return
    bands = network.used_bands if isinstance(gates, BandCentres) else network.fusion.membership.any(0)
    tables = []
    for role in (TRAIN, VAL):
        spectra = cube.spectra(split.pixels(role))[:, bands.numpy()]
        tables.append(PixelTable(spectra, spectra, cube.classes.numpy()[split.pixels(role)]))
    train, val = tables
    weight, bias = linear_classifier(train, val, num_classes=len(linear.bias), seed=seed)
    logits, direct = validation_logits(experiment, data)[0], val.spectra @ weight.T + bias
    softness, direct_softness = temperature(logits, val.classes), temperature(direct, val.classes)
    share = network_share(logits / softness, direct / direct_softness, val.classes)
    linear.weight[:, bands] = torch.from_numpy(weight / direct_softness).float()
    linear.bias.copy_(torch.from_numpy(bias / direct_softness))
    linear.temperature.fill_(softness)
    linear.network_share.fill_(share)
    _log.info("the map rests to %.0f %% on the network, to %.0f %% on the linear part", 100 * share, 100 * (1 - share))


@torch.no_grad()
def validation_logits(experiment: Experiment, data: PatchDataModule) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits (V, K) of the network at the validation pixels, on the CPU, and their class indices (V,)."""
    network, pixels = experiment.network.eval(), torch.from_numpy(experiment.split.pixels(VAL))
    parts = [network.classify(data.patches(some, step=None).cpu()) for some in pixels.split(1024)]
    return torch.cat(parts).flatten(1).double().numpy(), experiment.cube.classes[pixels].numpy()


def selected(
    labelled: LabelledScene, settings: TrainSettings, *, resume: str | Path | None = None
) -> tuple[TrainSettings, list[dict[str, Any]]]:
    """The settings with the model that the scene's validation pixels choose, and what was tried.

    A resumed run takes what was chosen when it began. Processes that train together choose nothing.
    """
    if resume is not None and (Path(resume) / "choices.json").is_file():
        choices = read_json(Path(resume) / "choices.json")["choices"]
        taken = next((choice["change"] for choice in choices if choice["taken"]), {})
        return replace(settings, model=replaced(settings.model, taken)), choices
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if together or getattr(settings.trainer, "keywords", {}).get("devices", 1) not in (1, "auto"):
        _log.info("select: nothing is tried where processes train together")
        return settings, []
    return select_model(labelled, settings)


@dataclass(frozen=True)
class Choice:
    """A change of the model that was tried.

    Attributes:
        change: fields of :class:`ModelSettings`; empty for the model as it is.
        log_likelihood: mean of the validation pixels, after calibration by one temperature.
        gain: over the model as it is, with the standard error over blocks of pixels.
        taken: whether the network is trained so.
    """

    change: Mapping[str, Any]
    log_likelihood: float
    gain: tuple[float, float]
    taken: bool = False


def select_model(labelled: LabelledScene, settings: TrainSettings) -> tuple[TrainSettings, list[dict[str, Any]]]:
    """Trains the model, and each change that ``settings.select`` names, for a few epochs on the training pixels.

    All see the same split, and together they take no more epochs than the training itself. The change with the highest
    log-likelihood of the validation pixels replaces the model as it is if it gains more than one standard error.

    Returns:
        the settings to train with, and a row for each model that was tried
    """
    models: list[tuple[Mapping[str, Any], ModelSettings]] = [({}, settings.model)]
    for change in settings.select:
        try:
            model = replaced(settings.model, change)
        except InputError as error:
            _log.info("select: %s does not go with the model: %s", dict(change), error)
            continue
        if model not in [known for _, known in models]:
            models.append((change, model))
    if len(models) == 1:
        return settings, []
    split = split_scene(labelled, settings)
    if not split.count(VAL):
        return settings, []
    epochs = max(1, min(_MOST_EPOCHS, settings.epochs // len(models)))
    short = replace(settings, epochs=epochs, patience=None, progress=False, loggers=(), callbacks=())
    tried = [(change, model, _judge(replace(short, model=model), split)) for change, model in models]
    base = tried[0][2]
    rows, cols = np.divmod(split.pixels(VAL), split.roles.shape[1])
    blocks = rows // BLOCK * split.roles.shape[1] + cols // BLOCK
    choices = [Choice(change, float(of.mean()), _gain(of - base, blocks)) for change, _, of in tried]
    better = [i for i, choice in enumerate(choices) if choice.gain[0] > choice.gain[1]]
    best = max(better, key=lambda i: choices[i].log_likelihood, default=0)
    for i, choice in enumerate(choices):
        _log.info(
            "select: %s, validation log-likelihood %.3f, gain %.3f +- %.3f%s",
            dict(choice.change) or "model as it is",
            choice.log_likelihood,
            *choice.gain,
            ", taken" if i == best else "",
        )
    tables = [asdict(replace(choice, taken=i == best)) for i, choice in enumerate(choices)]
    return replace(settings, model=tried[best][1]), tables


def _judge(settings: TrainSettings, split: Split) -> NDArray[np.float64]:
    """Log-likelihood of each validation pixel (V,) by a network trained with these settings."""
    from hsfusion.runs.training import fit_network, patch_data  # which imports this module

    experiment = initialise(replace(split, radius=settings.model.receptive_field // 2), settings)
    data = patch_data(settings, experiment)
    fit_network(settings, experiment.network, [(experiment, data)], None)
    fit_linear_part(experiment, data, seed=settings.seed)
    logits, classes = validation_logits(experiment, data)
    return log_likelihoods(logits / temperature(logits, classes), classes)


def _gain(difference: NDArray[np.float64], blocks: NDArray[np.integer]) -> tuple[float, float]:
    """Mean of differences (V,), and its standard error where those of a block go together."""
    mean = float(difference.mean())
    _, block = np.unique(blocks, return_inverse=True)
    return mean, float(np.sqrt(np.square(np.bincount(block, difference - mean)).sum()) / len(difference))
