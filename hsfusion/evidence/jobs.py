"""What an evidence run computes: each job leaves one file, complete or not at all.

Processes of joblib carry them out, and those of any number of calls on the same folder, such as the runs of a Hydra
launcher: each job is held by a lock.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from filelock import FileLock, Timeout
from joblib.externals.loky.process_executor import TerminatedWorkerError
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from hsfusion.data.patches import prepare
from hsfusion.data.splits import TEST, TRAIN, UNUSED, Split, Splitter
from hsfusion.errors import EnvironmentFailure
from hsfusion.publishing import LEFTOVERS
from hsfusion.runs.evaluation import masked_network
from hsfusion.runs.experiment import initialise, split_scene, used_layers
from hsfusion.runs.folder import write_json
from hsfusion.runs.run import Training, run_of
from hsfusion.runs.settings import Settings, TrainSettings, choice, random_pixels, refusal, within
from hsfusion.runs.training import fit
from hsfusion.scenes import LabelledScene, Scene
from hsfusion.scenes.scene import pixel_blocks
from hsfusion.training.model_file import load_model, save_model
from hsfusion.trust.chance import moved_by, null_moves
from hsfusion.trust.faithfulness import ORDERS, band_covariance, conditional_fill, curve_masks, mean_fill, permutations
from hsfusion.trust.rankings import RIVALS

CLASSIFIERS = ("svm", "network")
#: repeats of the permutation of a group
REPEATS = 20
#: the two directions of a curve, and what stands for bands that are removed
DIRECTIONS, FILLS = ("deletion", "insertion"), ("mean", "conditional")
#: folder of the locks of jobs, inside that of the evidence
LOCKS = ".locks"
_PAUSE_S = 2.0  # before looking again for what other processes have finished
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvidenceSettings(Settings):
    """How evidence is collected. Every field is a key of conf/evidence.yaml, which explains them."""

    resamples: int = within(6, 1)
    seeds: int = within(5, 1)
    moved_maps: int = within(3, 0)
    first_seed: int = within(0, 0, 2**31)
    split_seed: int | None = within(None, 0, 2**31)
    jobs: int | None = within(None, 1)
    faithfulness_pixels: int = within(200, 20, 20_000)
    top_k: tuple[int, ...] = (5, 10, 20, 30)
    rivals: tuple[str, ...] = choice(RIVALS, *RIVALS)
    retrain: tuple[str, ...] = choice(("svm",), *CLASSIFIERS)
    retrain_epochs: int = within(20, 1)
    top_k_seeds: int = within(3, 1)
    top_k_members: int = within(3, 1)
    random_split: Splitter | None = field(default_factory=random_pixels)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(type(k) is int for k in self.top_k) or list(self.top_k) != sorted(set(self.top_k)):
            raise refusal("top_k", list(self.top_k), "rising whole numbers, such as [5,10,20]")

    @property
    def of_split(self) -> int:
        """Seed of the first split."""
        return self.first_seed if self.split_seed is None else self.split_seed

    def split_seed_of(self, resample: int) -> int:
        """Seed of the split whose training pixels a resample is half of."""
        return self.of_split + resample // 2


@dataclass(frozen=True)
class Task:
    """What all jobs of a call share; a copy of it in another process equals it, and no task of another call does."""

    scene: LabelledScene = field(compare=False)
    settings: TrainSettings = field(compare=False)
    plan: EvidenceSettings = field(compare=False)
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Job:
    """A function of a module, called with the path of the file that it leaves, the task and the arguments."""

    work: Callable[..., None]
    path: Path
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Workers:
    """So many processes, each of so many threads, that carry out jobs whose file in ``folder`` is missing."""

    folder: Path
    task: Task
    number: int
    threads: int
    shown: bool

    def run(self, jobs: Sequence[Job], *, stage: str) -> None:
        """Carries out the jobs; returns when all are done, and raises the error of the first that fails."""
        while waiting := [job for job in jobs if not job.path.exists()]:
            free = [job for job in waiting if not _is_held(self.folder, job)]
            if not (free and any(self._carry_out_some(free, stage=stage))):
                time.sleep(_PAUSE_S)  # other calls hold all that are left

    def _carry_out_some(self, waiting: Sequence[Job], *, stage: str) -> list[bool]:
        """Which of the jobs, in any order, were carried out here, and not by another call."""
        # one job at a time, for they take minutes; scenes travel as they are
        options: Any = {"return_as": "generator_unordered", "batch_size": 1, "max_nbytes": None}
        carry_out = joblib.delayed(_carry_out)
        work = [carry_out(self.task, job, self.folder, in_worker=self.number > 1) for job in waiting]
        try:
            with joblib.parallel_config("loky", inner_max_num_threads=self.threads):
                done: Any = joblib.Parallel(self.number, **options)(work)
            return list(track(done, stage, len(waiting), console=Console(stderr=True), disable=not self.shown))
        except TerminatedWorkerError as error:
            raise EnvironmentFailure(
                "benchmark: a process was killed, perhaps because memory ran out. Fix: run it again, which continues "
                "where it stopped; with a lower jobs=N if it happens again."
            ) from error


def _carry_out(task: Task, job: Job, folder: Path, *, in_worker: bool) -> bool:
    """Whether the job was carried out here; it was not where another process holds or has finished it."""
    if in_worker:
        logging.getLogger("hsfusion").setLevel(logging.ERROR)  # the parent has logged it already
    try:
        with _lock(folder, job):
            if job.path.exists():
                return False
            _sweep(job.path)
            job.work(job.path, _first_of(task), **job.arguments)
            return True
    except Timeout:
        return False


def _lock(folder: Path, job: Job) -> FileLock:
    return FileLock(folder / LOCKS / "~".join(job.path.relative_to(folder).parts), timeout=0)


def _is_held(folder: Path, job: Job) -> bool:
    try:
        with _lock(folder, job):
            return False
    except Timeout:
        return True


def remove_locks(folder: Path) -> None:
    """Removes the locks that no call holds."""
    for path in (folder / LOCKS).iterdir():
        with suppress(Timeout, OSError), FileLock(path, timeout=0):
            path.unlink()
    with suppress(OSError):  # some are held
        (folder / LOCKS).rmdir()


def _sweep(path: Path) -> None:
    """Removes what processes that were killed left half done of a job, where and as these name it; nothing else."""
    for left in path.parent.parent.glob(f".{path.parent.name}-????????"):
        shutil.rmtree(left, ignore_errors=True)
    for left in path.parent.glob(LEFTOVERS):
        if left.name.startswith(f".{path.name}."):
            left.unlink(missing_ok=True)


@lru_cache(1)
def _first_of(task: Task) -> Task:
    """The first of the equal tasks that came to this process, whose scene may have been read already."""
    return task


@lru_cache(4)
def split_of(task: Task, which: str, seed: int) -> Split:
    """A split of the scene; ``which`` names it: split, that of the settings, or random_split."""
    split: Any = task.settings.split if which == "split" else task.plan.random_split
    settings = replace(task.settings, seed=seed, split=partial(split, seed=None))
    return split_scene(task.scene, settings)


def moves_of(task: Task) -> list[int]:
    """The moves of the label map on which networks are trained, see :func:`hsfusion.trust.chance.null_moves`."""
    plan, labels = task.plan, split_of(task, "split", task.plan.of_split).labelled.labels
    moves = null_moves(labels, number=plan.moved_maps, seed=plan.of_split, has_data=partial(_has_data, task))
    if len(moves) < plan.moved_maps:
        _log.warning("Only %d of %d label maps can be moved to where they mean nothing.", len(moves), plan.moved_maps)
    return moves


def _has_data(task: Task, pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    whole, scene = np.zeros(pixels.size, bool), task.scene.scene
    for places, values in pixel_blocks(scene, pixels, np.flatnonzero(used_layers(scene, task.settings))):
        whole[places] = np.isfinite(values).all(1)
    return whole


def draw_of(task: Task, resample: int, move: int | None) -> Split:
    """The split whose training pixels are a resample, with its labels where they are, or moved."""
    split = half_of(split_of(task, "split", task.plan.split_seed_of(resample)), resample % 2)
    if move is None:
        return split
    labels = split.labelled.labels
    shape = labels.shape[0], labels.shape[1]
    to = moved_by(np.flatnonzero(labels), shape, seed=task.plan.of_split, move=move)
    return with_moved_labels(split, to, kept=_has_data(task, to))


def used_bands(scene: Scene, settings: TrainSettings) -> NDArray[np.int64]:
    """(C',) indices of the bands of a scene that a network may use."""
    return np.flatnonzero(used_layers(scene, settings)[: len(scene.bands)])


def train_run(path: Path, task: Task, *, seed: int, draw: Sequence[Any] = (), of: Sequence[Any] = ()) -> None:
    """Trains a network and fills the folder of ``path``, its metrics.json, at once and complete.

    On a ``draw``, arguments of :func:`draw_of`, or on the whole of a split, ``of`` those of :func:`split_of`.
    """
    settings = replace(task.settings, seed=seed)
    split = draw_of(task, *draw) if draw else split_of(task, *of)
    resample = draw[0] if draw else None
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


def score_run(path: Path, task: Task, *, run: str, draw: Sequence[Any], plan: dict[str, Any]) -> None:
    """Writes the accuracies of a run's network under the replacements of every curve, and under permutations.

    The plan is that of :func:`hsfusion.evidence.stages.curve_plan`.
    """
    seed = task.plan.of_split
    network, _ = load_model(Path(run) / "model.safetensors")
    split = draw_of(task, *draw)
    cube = prepare(split, network.fusion.membership.any(0).numpy())  # a band whose gate is shut tells about others
    shown, most = split.pixels(TEST), task.plan.faithfulness_pixels
    if shown.size > most:
        shown = np.sort(np.random.default_rng([split.seed, 13, draw[0]]).choice(shown, most, replace=False))
    masked = masked_network(network, cube, split, pixels=shown)
    groups: NDArray[np.bool_] = network.fusion.membership.numpy()  # (G, C + E)
    layers = groups.shape[1]
    units = np.array([np.isin(np.arange(layers), window) for window in plan["windows"]])  # (U, C + E)
    in_use = units.any(0) | np.isin(np.arange(layers), plan["closed"])  # other layers always stay
    spectra = cube.spectra(split.pixels(TRAIN))
    covariances = [band_covariance(spectra @ basis.T) for basis in masked.bases]  # of the bands as weighed
    fills = dict(zip(FILLS, ([mean_fill], [partial(conditional_fill, of) for of in covariances]), strict=True))
    result: dict[str, Any] = {"pixels": masked.pixels, "all_bands": masked.accuracy(masked.logits())}
    result |= {direction: {} for direction in DIRECTIONS}
    for i, (direction, (name, fill)) in enumerate(itertools.product(DIRECTIONS, fills.items())):
        options: Any = {"number": np.array(plan["number"]), "seed": [seed, i], "random_orders": ORDERS}
        keep = curve_masks(np.array(plan["weight"]), direction=direction, windows=units, **options)  # (1 + n, S, C + E)
        different, place = np.unique(keep.reshape(-1, layers), axis=0, return_inverse=True)
        replacements = (np.stack([of(row | ~in_use) for of in fill]) for row in different)
        accuracy = np.array([masked.accuracy(masked.logits(replacement)) for replacement in replacements])
        result[direction][name] = accuracy[place].reshape(keep.shape[:2]).tolist()
    orders = permutations(masked.pixels, seed=seed, repeats=REPEATS)
    exchanged = (masked.exchanged_logits(np.diag(group.astype(float)), other) for group in groups for other in orders)
    write_json(path, {**result, "groups": [result["all_bands"], *map(masked.accuracy, exchanged)]})


def half_of(split: Split, half: int) -> Split:
    """Keeps the first half of the training blocks or fields, 0, or the other, 1; the pixels of the other become unused.

    Both have all classes: one that lies in a single block or field is halved by pixels, as all are in splits without
    either, and a single pixel is in both. Blocks are those of a new grid. Validation and test pixels stay as they are.
    """
    pixels, rng = split.pixels(TRAIN), np.random.default_rng([split.seed, 12])
    classes = np.unique(split.labelled.labels.flat[pixels], return_inverse=True)[1]
    side = _halves(_units(split, pixels, rng), classes, rng)
    for k in range(classes.max(initial=-1) + 1):
        members = rng.permutation(np.flatnonzero(classes == k))
        if len(np.unique(side[members])) == 1:
            side[members] = np.arange(members.size) % 2 if members.size > 1 else half
    roles = split.roles.copy()
    roles.flat[pixels[side != half]] = UNUSED
    return replace(split, roles=roles)


def _units(split: Split, pixels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Number of the field or block of each of the training pixels (N,), or of the pixel itself."""
    if split.kind == "fields" and split.fields is not None:
        return split.fields[np.isin(np.flatnonzero(split.labelled.labels), pixels)]
    if split.block_pixels is None:
        return np.arange(pixels.size)
    height, width = split.roles.shape
    row, col = ((at + rng.integers(split.block_pixels)) // split.block_pixels for at in np.divmod(pixels, width))
    return row * (height + width) + col


def _halves(units: NDArray[np.int64], classes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Assigns units (N,) class by class, the rarest first, to the half that has fewer pixels of the class: (N,)."""
    number = np.unique(units, return_inverse=True)[1]
    counts = np.zeros((number.max(initial=-1) + 1, classes.max(initial=-1) + 1), int)
    np.add.at(counts, (number, classes), 1)
    half, total = np.full(len(counts), -1), np.zeros((2, counts.shape[1]), int)
    for k in np.argsort(counts.sum(0)):
        for i in rng.permutation(np.flatnonzero((counts[:, k] > 0) & (half < 0))):
            half[i] = np.argmin(total[:, k])
            total[half[i]] += counts[i]
    return half[number]


def with_moved_labels(split: Split, to: NDArray[np.int64], *, kept: NDArray[np.bool_]) -> Split:
    """Labels and roles of the N labelled pixels in other places (N,), of the pixels kept (N,); the rest is unused."""
    pixels, labelled = np.flatnonzero(split.labelled.labels)[kept], split.labelled
    labels, roles = np.zeros_like(labelled.labels), np.zeros_like(split.roles)
    labels.flat[to[kept]] = labelled.labels.flat[pixels]
    roles.flat[to[kept]] = split.roles.flat[pixels]
    return replace(split, labelled=replace(labelled, labels=labels), roles=roles, fields=None)
