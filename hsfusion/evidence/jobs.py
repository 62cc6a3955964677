"""What an evidence run computes: each job leaves one file, complete or not at all, in a process of joblib's."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hsfusion.data.patches import PatchDataModule, prepare
from hsfusion.data.splits import TEST, TRAIN, VAL, Split, Splitter, resampled, with_bands
from hsfusion.errors import DivergedError, EnvironmentFailure, HsFusionError, unescaped
from hsfusion.evidence.store import write_json
from hsfusion.inference.classification import MaskedNetwork
from hsfusion.runs.experiment import initialise, new_model, split_scene, used_layers
from hsfusion.runs.run import Training, run_of
from hsfusion.runs.settings import TrainSettings
from hsfusion.runs.training import fit, sample_patches
from hsfusion.scenes import LabelledScene, Scene
from hsfusion.spectra import BandGroup, Bands
from hsfusion.training.building import WeightReadout
from hsfusion.training.model_file import load_model, save_model
from hsfusion.trust.faithfulness import band_covariance, conditional_fill, curve_masks, mean_fill, permutations
from hsfusion.trust.rankings import Pixels, choices, retrain_score

#: repeats of the permutation of a group, and random orders of windows
REPEATS = 20
#: the two directions of a curve
DIRECTIONS = ("deletion", "insertion")
_FIRST_UNTRAINED = 2**40  # above the seeds that a training can be given
_KINDS = {kind.__name__: kind for kind in (EnvironmentFailure, DivergedError)}


@dataclass(frozen=True, eq=False)
class Task:
    """The scene and settings that all jobs of an evidence run share; equal tasks compute equal numbers.

    Attributes:
        scene: with its labels.
        settings: of a training; its seed does not count.
        random_split: the split beside that of the settings, of random pixels.
        resample_share: share of the training pixels of each class in a resample.
        faithfulness_pixels: test pixels of which bands are removed, at most.
        numbers: of bands to choose.
        retrain_epochs: of a network on chosen bands.
        key: identifies all of this.
    """

    scene: LabelledScene
    settings: TrainSettings
    random_split: Splitter
    resample_share: float
    faithfulness_pixels: int
    numbers: tuple[int, ...]
    retrain_epochs: int
    key: str

    def __hash__(self) -> int:
        """Of the key."""
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        """By the key: a task that travelled to another process is the same."""
        return isinstance(other, Task) and other.key == self.key


@dataclass(frozen=True)
class Job:
    """Something to do in a process of its own.

    Attributes:
        work: called with ``path`` and the arguments; a function of a module, as processes find it by its name.
        path: the file that it leaves, complete or not at all.
        cost: how long it takes beside others, in training steps.
        arguments: of the work.
    """

    work: Callable[..., None]
    path: Path
    cost: float
    arguments: dict[str, Any] = field(default_factory=dict)


class Workers:
    """Processes that carry out jobs whose file is missing, and a bar that shows how far they are.

    Args:
        number: of processes; with 1 everything is done in this one.
        bar: the bar.
        total: cost of all jobs that will come.
    """

    def __init__(self, number: int, bar: Progress, *, total: float) -> None:
        self._number, self._bar, self._left = number, bar, total
        self._task = bar.add_task("", total=total)

    def run(self, jobs: Sequence[Job], *, stage: str) -> None:
        """Carries out the jobs; returns when all are done.

        Raises:
            HsFusionError: of the first job that fails.
            EnvironmentFailure: if a process is killed.
        """
        waiting = [job for job in jobs if not job.path.exists()]
        self._left -= sum(job.cost for job in jobs) - sum(job.cost for job in waiting)
        # what was done before tells nothing about how fast this goes
        self._bar.update(self._task, total=self._bar.tasks[0].completed + self._left)
        self._bar.update(self._task, description=f"{stage} {len(jobs) - len(waiting)}/{len(jobs)}")
        # one job at a time, for they take minutes; scenes travel as they are
        parallel: Any = joblib.Parallel(self._number, return_as="generator_unordered", batch_size=1, max_nbytes=None)  # pyright: ignore[reportArgumentType]
        tasks = [joblib.delayed(_carry_out)(job, self._number > 1) for job in waiting]
        try:
            for done, (cost, failure) in enumerate(parallel(tasks), 1):
                if failure is not None:
                    kind, message = failure
                    raise _KINDS.get(kind, HsFusionError)(message)
                self._left -= cost
                self._bar.advance(self._task, cost)
                finished = len(jobs) - len(waiting) + done
                self._bar.update(self._task, description=f"{stage} {finished}/{len(jobs)}")
        except TerminatedWorkerError as error:
            raise EnvironmentFailure(
                "benchmark: a process was killed, perhaps because memory ran out. Fix: run again, which continues "
                "where this stopped; with fewer jobs=N if it happens again."
            ) from error


@contextmanager
def workers(number: int, *, threads: int, total: float, shown: bool) -> Iterator[Workers]:
    """Processes for the jobs of an evidence run.

    Args:
        number: of processes.
        threads: of each for matrix products.
        total: cost of all jobs that will come.
        shown: whether a bar shows how far they are.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # jobs take minutes: the time left follows from all that were done
    bar = Progress(*columns, console=Console(file=unescaped(sys.stderr)), disable=not shown, speed_estimate_period=1e6)
    with bar, joblib.parallel_config("loky", inner_max_num_threads=threads):
        yield Workers(number, bar, total=total)


def _carry_out(job: Job, in_worker: bool) -> tuple[float, tuple[str, str] | None]:
    """Does it; its cost, and kind and message of an error, which cannot travel between processes."""
    if in_worker:
        logging.getLogger("hsfusion").setLevel(logging.ERROR)  # the parent has logged it already
    try:
        job.work(path=job.path, **job.arguments)
    except HsFusionError as error:
        return job.cost, (type(error).__name__, str(error))
    return job.cost, None


@lru_cache(2)
def split_of(task: Task, which: str, seed: int) -> Split:
    """A split of the scene; ``which`` names it: split, that of the settings, or random_split."""
    split = task.settings.split if which == "split" else task.random_split
    settings = replace(task.settings, seed=seed, split=split)
    return split_scene(task.scene, settings)


def used_bands(task: Task, scene: Scene) -> NDArray[np.int64]:
    """(C',) indices of the bands that a network may use."""
    return np.flatnonzero(used_layers(scene, task.settings)[: len(scene.bands)])


def untrained_weights(task: Task, split: Split, number: int) -> NDArray[np.float64]:
    """The weights (N, C) of so many networks before their training, each of another seed, scaled to sum to 1."""
    scene, names = split.labelled.scene, split.labelled.legend.names
    data, weights = None, []
    with torch.random.fork_rng(devices=[]):
        for i in range(number):
            torch.manual_seed(_FIRST_UNTRAINED + i)
            network = new_model(task.settings, scene, names).network
            if data is None:
                data = PatchDataModule(prepare(split, network.used_bands.numpy()), split, seed=0)
            sample = sample_patches(network, data, split, most=256)
            weights.append(WeightReadout(network, sample).weight[: len(scene.bands)])
    weight = np.stack(weights)
    return weight / np.maximum(weight.sum(1, keepdims=True), 1e-300)


def train_run(path: Path, *, task: Task, which: str, split_seed: int, seed: int, resample: int | None) -> None:
    """Trains a network and fills the folder of ``path``, at once and complete.

    Args:
        path: metrics.json in that folder.
        task: scene and settings.
        which: see :func:`split_of`.
        split_seed: of the split.
        seed: of the network and the batches.
        resample: number of the resample of the training pixels; None for all of them.
    """
    settings = replace(task.settings, seed=seed)
    split = split_of(task, which, split_seed)
    if resample is not None:
        split = resampled(split, resample, share=task.resample_share)
    experiment = initialise(split, settings)
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.parent.name}-", dir=path.parent.parent) as partial_folder:
        folder = Path(partial_folder) / "run"
        folder.mkdir()
        result = fit(settings, experiment)
        run = run_of(split.labelled.scene.name, Training(settings, experiment, result, "", ""))
        run.write_tables(folder)
        save_model(folder / "model.safetensors", experiment.network, header=run.header)
        write_json(folder / path.name, {**run.metrics, "resample": resample, "beats_chance": run.beats_chance})
        if path.parent.exists():  # without metrics.json: not of this function
            shutil.rmtree(path.parent)
        folder.replace(path.parent)


def score_run(
    path: Path,
    *,
    task: Task,
    split_seed: int,
    run: str,
    resample: int,
    order: list[int],
    windows: list[list[int]],
    number: list[int],
) -> None:
    """Writes the accuracies of a run's network under the replacements of every curve, and under permutations.

    Args:
        path: the file.
        task: scene and settings.
        split_seed: of the split.
        run: folder of the run.
        resample: that it was trained on.
        order: (U,) windows in falling order of weight.
        windows: indices of the bands of each window.
        number: (S,) numbers of windows to remove.
    """
    masked, spectra, groups = _masked_run(task, split_seed=split_seed, run=run, resample=resample)
    layers = spectra.shape[1]
    units = np.array([np.isin(np.arange(layers), window) for window in windows])  # (U, C + E)
    outside = ~units.any(0)  # layers in no window always stay
    covariance = band_covariance(spectra)
    fills = {"mean": mean_fill, "conditional": partial(conditional_fill, covariance)}
    result: dict[str, Any] = {"pixels": masked.pixels, "all_bands": masked.accuracy(np.eye(layers))}
    for direction in DIRECTIONS:
        keep = curve_masks(
            np.array(order),
            windows=units,
            number=np.array(number),
            seed=split_seed,
            direction=direction,
            random_orders=REPEATS,
        )  # (1 + n, S, C + E)
        result[direction] = {
            name: [[masked.accuracy(fill(row | outside)) for row in rows] for rows in keep]
            for name, fill in fills.items()
        }
    orders = permutations(masked.pixels, seed=split_seed, repeats=REPEATS)
    unpermuted = masked.permuted_accuracy(np.zeros(groups.shape[1], bool), np.arange(masked.pixels))
    permuted = [masked.permuted_accuracy(group, other) for group in groups for other in orders]
    write_json(path, {**result, "groups": [unpermuted, *permuted]})


def _masked_run(
    task: Task, *, split_seed: int, run: str, resample: int
) -> tuple[MaskedNetwork, NDArray[np.float32], NDArray[np.bool_]]:
    """The network of a run at its test pixels, standardised spectra (N, C + E) of its training pixels, its groups."""
    if task.settings.threads is not None:
        torch.set_num_threads(task.settings.threads)
    network, _ = load_model(Path(run) / "model.safetensors")
    split = resampled(split_of(task, "split", split_seed), resample, share=task.resample_share)
    cube = prepare(split, network.fusion.membership.any(0).numpy())  # a band whose gate is shut tells about others
    pixels = split.pixels(TEST)
    if pixels.size > task.faithfulness_pixels:
        pixels = np.random.default_rng([split_seed, 13]).choice(pixels, task.faithfulness_pixels, replace=False)
    chosen = torch.from_numpy(np.sort(pixels))
    patches = PatchDataModule(cube, split, seed=0).patches(chosen, step=None)
    masked = MaskedNetwork(network, patches, cube.classes[chosen])
    return masked, cube.spectra(split.pixels(TRAIN)), network.fusion.membership.numpy()


def choose(path: Path, *, task: Task, which: str, split_seed: int, profile: list[float]) -> None:
    """Writes the bands that each ranking chooses on the training pixels of a split.

    Args:
        path: the file.
        task: scene and settings.
        which: see :func:`split_of`.
        split_seed: of the split, and of the rankings.
        profile: (C,) weights learned from these training pixels.
    """
    split = split_of(task, which, split_seed)
    used = used_bands(task, split.labelled.scene)
    train, _, _ = _pixels(task, split)
    nm = split.labelled.scene.bands.wavelength_nm
    named = choices(np.array(profile)[used], (train[0][:, used], train[1]), wavelength_nm=nm[used], seed=split_seed)
    write_json(
        path,
        {name: {str(k): used[np.sort(choice(k))].tolist() for k in task.numbers} for name, choice in named.items()},
    )


def retrain(
    path: Path, *, task: Task, which: str, split_seed: int, classifier: str, chosen: dict[str, list[int]]
) -> None:
    """Writes the accuracies on validation and test pixels of a classifier trained on some bands only.

    Args:
        path: the file.
        task: scene and settings.
        which: see :func:`split_of`.
        split_seed: of the split, and of the classifier.
        classifier: svm or network.
        chosen: name of a ranking -> its bands; those that choose the same share one training.
    """
    split = split_of(task, which, split_seed)
    scores: dict[tuple[int, ...], tuple[float | None, float]] = {}
    for bands in map(tuple, chosen.values()):
        if bands not in scores:
            score = _svm_accuracy if classifier == "svm" else _network_accuracy
            scores[bands] = score(task, split, np.array(bands), split_seed)
    write_json(
        path, {name: dict(zip(("val", "test"), scores[tuple(bands)], strict=True)) for name, bands in chosen.items()}
    )


def _svm_accuracy(task: Task, split: Split, bands: NDArray[np.int64], seed: int) -> tuple[float | None, float]:
    train, val, test = _pixels(task, split)
    return retrain_score(train, val, test=test, bands=bands, seed=seed)


def _network_accuracy(task: Task, split: Split, bands: NDArray[np.int64], seed: int) -> tuple[float | None, float]:
    """Of a network in which each band is a group of its own, so that a channel can be any contrast of bands."""
    model = replace(task.settings.model, fusion="channel", keep_bands=None)
    # these bands are chosen: closing some would compare other bands
    settings = replace(
        task.settings, seed=seed, band_cost=0.0, epochs=task.retrain_epochs, model=model, groups=lone_groups
    )
    result = fit(settings, initialise(with_bands(split, bands), settings))
    return result.val_accuracy, float(result.metrics["test"]["overall_accuracy"])


def lone_groups(bands: Bands) -> list[BandGroup]:
    """A group for each centre wavelength, from the middle to the one before to the middle to the next."""
    centres = np.unique(bands.wavelength_nm)
    middle = (centres[1:] + centres[:-1]) / 2
    edges = np.concatenate([[centres[0] - 1], middle, [centres[-1] + 1]])
    return [
        BandGroup(f"{nm:.10g} nm", float(lower), float(upper))
        for nm, lower, upper in zip(centres, edges[:-1], edges[1:], strict=True)
    ]


def _pixels(task: Task, split: Split) -> tuple[Pixels, Pixels, Pixels]:
    """Standardised spectra (N, C + E) and classes of the training, validation and test pixels."""
    scene = split.labelled.scene
    inside = used_layers(scene, task.settings)
    inside[len(scene.bands) :] = False
    cube = prepare(split, inside)
    classes = cube.classes.numpy()
    train, val, test = ((cube.spectra(split.pixels(role)), classes[split.pixels(role)]) for role in (TRAIN, VAL, TEST))
    return train, val, test
