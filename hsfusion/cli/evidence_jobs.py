"""What the processes of ``hsfusion benchmark evidence`` do: each function reads files and leaves one."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.fitting import sample_of
from hsfusion.cli.job_pool import write_json
from hsfusion.cli.outputs import header_of, versions, write_known, write_weights
from hsfusion.cli.session import Start, begin, fit, new_network, set_up
from hsfusion.data.datamodule import PatchDataModule, prepare
from hsfusion.data.splits import TEST, TRAIN, VAL, Split
from hsfusion.data.subsets import resampled, with_bands
from hsfusion.inference.masked import MaskedNetwork
from hsfusion.scenes import Scene
from hsfusion.spectra import BandGroup, Bands
from hsfusion.training.building import LearnedWeights
from hsfusion.training.model_file import load_model, save_model
from hsfusion.trust.faithfulness import (
    Score,
    band_covariance,
    conditional_fill,
    deletion,
    insertion,
    mean_fill,
    permutation_importance,
)
from hsfusion.trust.rankings import Pixels, choices, retrain_score

#: repeats of the permutation of a group, and random orders of windows
REPEATS = 20
_FIRST_UNTRAINED = 2**40  # above the seeds that a training can be given


def settings_with(settings: str, **changes: Any) -> DictConfig:
    """A resolved configuration (YAML) with some keys changed."""
    cfg = OmegaConf.merge(OmegaConf.create(settings), {"progress": False, "logger": None}, changes)
    assert isinstance(cfg, DictConfig)
    return cfg


@lru_cache(2)
def split_of(settings: str, which: str, seed: int) -> Split:
    """A split of the scene; ``which`` is the key of the configuration that says how: split or random_split."""
    cfg = settings_with(settings, seed=seed)
    cfg.split = cfg[which]
    return set_up(cfg).split


def used_bands(settings: str, split: Split) -> NDArray[np.int64]:
    """(C',) indices of the bands that the network may use: the good ones in a group."""
    names = split.labelled.legend.names
    inside = new_network(settings_with(settings), split.labelled.scene, names).network.fusion.membership.any(0)
    return np.flatnonzero(inside.numpy()[: len(split.labelled.scene.bands)])


def untrained_weights(settings: str, split: Split, number: int) -> NDArray[np.float64]:
    """The weights (N, C) of so many networks before their training, each of another seed, scaled to sum to 1."""
    cfg, scene, names = settings_with(settings), split.labelled.scene, split.labelled.legend.names
    data, found = None, []
    with torch.random.fork_rng(devices=[]):
        for i in range(number):
            torch.manual_seed(_FIRST_UNTRAINED + i)
            network = new_network(cfg, scene, names).network
            if data is None:
                data = PatchDataModule(prepare(split, network.used_bands.numpy()), split, seed=0)
            found.append(LearnedWeights(network, sample_of(network, data, split, most=256)).weight[: len(scene.bands)])
    weight = np.stack(found)
    return weight / np.maximum(weight.sum(1, keepdims=True), 1e-300)


def train_run(path: Path, *, settings: str, which: str, split_seed: int, seed: int, resample: int | None) -> None:
    """Trains a network and fills the folder of ``path``, at once and complete.

    Args:
        path: metrics.json in that folder.
        settings: the resolved configuration.
        which: see :func:`split_of`.
        split_seed: of the split.
        seed: of the network and the batches.
        resample: number of the resample of the training pixels; None for all of them.
    """
    cfg = settings_with(settings, seed=seed)
    split = split_of(settings, which, split_seed)
    if resample is not None:
        split = resampled(split, resample, share=cfg.resample_share)
    experiment = begin(cfg, split)
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.parent.name}-", dir=path.parent.parent) as partial:
        folder = Path(partial) / "run"
        folder.mkdir()
        outcome = fit(cfg, experiment, Path(partial))
        assert outcome is not None, "a benchmark runs in one process"
        write_weights(experiment, outcome, folder)
        metrics = {**outcome.metrics, "seed": seed, "versions": versions()}
        save_model(folder / "model.safetensors", experiment.network, header=header_of(experiment, metrics))
        known = write_known(experiment, outcome, folder, used=np.flatnonzero(experiment.network.used_bands))
        write_json(folder / path.name, {**metrics, "resample": resample, "beats_chance": known["beats_chance"]})
        if path.parent.exists():  # without metrics.json: not of this function
            shutil.rmtree(path.parent)
        folder.replace(path.parent)


def score_run(
    path: Path,
    *,
    settings: str,
    split_seed: int,
    run: str,
    resample: int,
    order: list[int],
    windows: list[list[int]],
    number: list[int],
) -> None:
    """Writes the accuracy of a run's network under every replacement that the curves ask for, in their order.

    Args:
        path: the file.
        settings: the resolved configuration.
        split_seed: of the split.
        run: folder of the run.
        resample: that it was trained on.
        order: (U,) windows in falling order of weight.
        windows: indices of the bands of each window.
        number: (S,) numbers of windows to remove.
    """
    masked, spectra, groups = _masked_run(settings, split_seed=split_seed, run=run, resample=resample)
    layers = spectra.shape[1]
    units = np.array([np.isin(np.arange(layers), window) for window in windows])  # (U, C + E)
    covariance = band_covariance(spectra)
    fills = {"mean": mean_fill, "conditional": lambda keep: conditional_fill(covariance, keep)}
    result: dict[str, Any] = {"pixels": masked.pixels, "all_bands": masked.accuracy(np.eye(layers))}
    for direction, curve in (("deletion", deletion), ("insertion", insertion)):
        result[direction] = {}
        for name, fill in fills.items():
            recorded: list[list[float]] = []
            score = _recorded(masked, fill, units, recorded)
            plan = {"windows": units, "number": np.array(number), "seed": split_seed, "random_orders": REPEATS}
            curve(score, np.array(order), **plan)
            result[direction][name] = recorded
    importance: list[float] = []

    def permuted(bands: NDArray[np.bool_], other: NDArray[np.int64]) -> float:
        importance.append(masked.permuted_accuracy(bands, other))
        return importance[-1]

    permutation_importance(permuted, groups, pixels=masked.pixels, seed=split_seed, repeats=REPEATS)
    write_json(path, {**result, "groups": importance})


def _masked_run(
    settings: str, *, split_seed: int, run: str, resample: int
) -> tuple[MaskedNetwork, NDArray[np.float32], NDArray[np.bool_]]:
    """The network of a run at its test pixels, standardised spectra (N, C + E) of its training pixels, its groups."""
    cfg = settings_with(settings)
    torch.set_num_threads(cfg.threads)
    network, _ = load_model(Path(run) / "model.safetensors")
    split = resampled(split_of(settings, "split", split_seed), resample, share=cfg.resample_share)
    cube = prepare(split, network.fusion.membership.any(0).numpy())  # a band whose gate is shut tells about others
    pixels = split.pixels(TEST)
    if pixels.size > cfg.faithfulness_pixels:
        pixels = np.random.default_rng([split_seed, 13]).choice(pixels, cfg.faithfulness_pixels, replace=False)
    chosen = torch.from_numpy(np.sort(pixels))
    patches = PatchDataModule(cube, split, seed=0).patches(chosen, step=None)
    masked = MaskedNetwork(network, patches, cube.classes[chosen])
    return masked, cube.spectra(split.pixels(TRAIN)), network.fusion.membership.numpy()


def _recorded(masked: MaskedNetwork, fill: Any, units: NDArray[np.bool_], record: list[list[float]]) -> Score:
    """A score that keeps what it gave; layers in no window always stay."""
    outside = ~units.any(0)

    def score(keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        record.append([masked.accuracy(fill(row | outside)) for row in keep])
        return np.array(record[-1])

    return score


def choose(path: Path, *, settings: str, which: str, split_seed: int, profile: list[float]) -> None:
    """Writes the bands that each ranking chooses on the training pixels of a split.

    Args:
        path: the file.
        settings: the resolved configuration.
        which: see :func:`split_of`.
        split_seed: of the split, and of the rankings.
        profile: (C,) weights learned from these training pixels.
    """
    split = split_of(settings, which, split_seed)
    used = used_bands(settings, split)
    train, _, _ = _pixels(settings, split)
    nm = split.labelled.scene.bands.wavelength_nm
    own = train[0][:, used], train[1]
    named = choices(np.array(profile)[used], own, wavelength_nm=nm[used], seed=split_seed)
    numbers = settings_with(settings).top_k
    write_json(
        path, {name: {str(k): used[np.sort(choice(k))].tolist() for k in numbers} for name, choice in named.items()}
    )


def retrain(
    path: Path, *, settings: str, which: str, split_seed: int, classifier: str, chosen: dict[str, list[int]]
) -> None:
    """Writes the accuracies on validation and test pixels of a classifier trained on some bands only.

    Args:
        path: the file.
        settings: the resolved configuration.
        which: see :func:`split_of`.
        split_seed: of the split, and of the classifier.
        classifier: svm or network.
        chosen: name of a ranking -> its bands; those that choose the same share one training.
    """
    split = split_of(settings, which, split_seed)
    known: dict[tuple[int, ...], tuple[float | None, float]] = {}
    for bands in map(tuple, chosen.values()):
        if bands not in known:
            of = _svm_accuracy if classifier == "svm" else _network_accuracy
            known[bands] = of(settings, split, np.array(bands), split_seed)
    write_json(
        path, {name: dict(zip(("val", "test"), known[tuple(bands)], strict=True)) for name, bands in chosen.items()}
    )


def _svm_accuracy(settings: str, split: Split, bands: NDArray[np.int64], seed: int) -> tuple[float | None, float]:
    train, val, test = _pixels(settings, split)
    return retrain_score(train, val, test=test, bands=bands, seed=seed)


def _network_accuracy(settings: str, split: Split, bands: NDArray[np.int64], seed: int) -> tuple[float | None, float]:
    """Of a network in which each band is a group of its own, so that a channel can be any contrast of bands."""
    trainer = {"max_epochs": settings_with(settings).retrain_epochs}
    model = {"fusion": "channel", "keep_bands": None}
    # these bands are chosen: closing some would compare other bands
    cfg = settings_with(settings, seed=seed, band_cost=0.0, trainer=trainer, model=model)
    with tempfile.TemporaryDirectory(prefix="hsfusion-") as folder:
        outcome = fit(cfg, begin(cfg, with_bands(split, bands), make=_lone_bands), Path(folder))
    assert outcome is not None, "a benchmark runs in one process"
    return outcome.val_accuracy, float(outcome.metrics["test"]["overall_accuracy"])


def _lone_bands(cfg: DictConfig, scene: Scene, class_names: Sequence[str]) -> Start:
    groups = lone_groups(scene.bands)
    network = instantiate(cfg.model)(scene.bands, groups, sources=scene.sources, num_classes=len(class_names))
    return Start(network, groups, {})


def lone_groups(bands: Bands) -> list[BandGroup]:
    """A group for each centre wavelength, from the middle to the one before to the middle to the next."""
    centres = np.unique(bands.wavelength_nm)
    middle = (centres[1:] + centres[:-1]) / 2
    edges = np.concatenate([[centres[0] - 1], middle, [centres[-1] + 1]])
    return [
        BandGroup(f"{nm:.10g} nm", float(lower), float(upper))
        for nm, lower, upper in zip(centres, edges[:-1], edges[1:], strict=True)
    ]


def _pixels(settings: str, split: Split) -> tuple[Pixels, Pixels, Pixels]:
    """Standardised spectra (N, C + E) and classes of the training, validation and test pixels."""
    inside = np.zeros(len(split.labelled.scene.bands) + sum(n for _, n in split.labelled.scene.sources), bool)
    inside[used_bands(settings, split)] = True
    cube = prepare(split, inside)
    classes = cube.classes.numpy()
    train, val, test = ((cube.spectra(split.pixels(role)), classes[split.pixels(role)]) for role in (TRAIN, VAL, TEST))
    return train, val, test


def read_json(path: Path) -> dict[str, Any]:
    """What :func:`write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def groups_of_scene(settings: str, split: Split) -> list[BandGroup]:
    """The band groups of the networks."""
    return new_network(settings_with(settings), split.labelled.scene, split.labelled.legend.names).groups
