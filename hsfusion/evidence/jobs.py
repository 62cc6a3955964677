"""The jobs of an evidence run; each writes one file, completely or not at all.

The processes of joblib share the jobs, also among several calls on the same folder, such as the runs of a Hydra
launcher: a process locks a job while it works on it.
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
#: number of permutations of each group
REPEATS = 20
#: the directions of a curve, and the values that replace removed bands
DIRECTIONS, FILLS = ("deletion", "insertion"), ("mean", "conditional")
#: folder of the locks of jobs, in the evidence folder
LOCKS = ".locks"
_PAUSE_S = 2.0  # before checking again what other processes have finished
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvidenceSettings(Settings):
    """How evidence is collected. Every field is a key of conf/evidence.yaml, which documents it."""

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
        """Seed of the split of which a draw is one half of the training pixels."""
        return self.of_split + resample // 2


@dataclass(frozen=True)
class Task:
    """What all jobs of a call share. Copies in other processes are equal to it; tasks of other calls are not."""

    scene: LabelledScene = field(compare=False)
    settings: TrainSettings = field(compare=False)
    plan: EvidenceSettings = field(compare=False)
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Job:
    """A module-level function, and its arguments: the path of the file to write, then the task, then these."""

    work: Callable[..., None]
    path: Path
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Workers:
    """Processes, ``number`` of them with ``threads`` each, that carry out jobs whose file in ``folder`` is missing."""

    folder: Path
    task: Task
    number: int
    threads: int
    shown: bool

    def run(self, jobs: Sequence[Job], *, stage: str) -> None:
        """Carries out the jobs; returns when all are done, or raises the error of the first that fails."""
        while waiting := [job for job in jobs if not job.path.exists()]:
            free = [job for job in waiting if not _is_held(self.folder, job)]
            if not (free and any(self._carry_out_some(free, stage=stage))):
                time.sleep(_PAUSE_S)  # other calls work on all that are left

    def _carry_out_some(self, waiting: Sequence[Job], *, stage: str) -> list[bool]:
        """Whether each of the jobs, in any order, was carried out by this call, not by another one."""
        # one job at a time, because each takes minutes; scenes are pickled, not memory-mapped
        options: Any = {"return_as": "generator_unordered", "batch_size": 1, "max_nbytes": None}
        carry_out = joblib.delayed(_carry_out)
        work = [carry_out(self.task, job, self.folder, in_worker=self.number > 1) for job in waiting]
        try:
            with joblib.parallel_config("loky", inner_max_num_threads=self.threads):
                done: Any = joblib.Parallel(self.number, **options)(work)
            return list(track(done, stage, len(waiting), console=Console(stderr=True), disable=not self.shown))
        except TerminatedWorkerError as error:
            raise EnvironmentFailure(
                "evidence: a worker process was killed, perhaps for lack of memory. Fix: run the command again, which "
                "continues where it stopped; use a lower jobs=N if it happens again."
            ) from error


def _carry_out(task: Task, job: Job, folder: Path, *, in_worker: bool) -> bool:
    """Carries out a job unless another process has it locked or has finished it; returns whether it did."""
    if in_worker:
        logging.getLogger("hsfusion").setLevel(logging.ERROR)  # the parent process has logged these messages
    try:
        with _lock(folder, job):
            if job.path.exists():
                return False
            _remove_leftovers(job.path)
            job.work(job.path, _cached(task), **job.arguments)
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
    with suppress(OSError):  # not empty: calls hold some
        (folder / LOCKS).rmdir()


def _remove_leftovers(path: Path) -> None:
    """Removes incomplete files and folders that killed processes left of a job, by their names; nothing else."""
    for left in path.parent.parent.glob(f".{path.parent.name}-????????"):
        shutil.rmtree(left, ignore_errors=True)
    for left in path.parent.glob(LEFTOVERS):
        if left.name.startswith(f".{path.name}."):
            left.unlink(missing_ok=True)


@lru_cache(1)
def _cached(task: Task) -> Task:
    """The first of the equal tasks that reached this process; its scene may have been read already."""
    return task


@lru_cache(4)
def split_of(task: Task, which: str, seed: int) -> Split:
    """A split of the scene; ``which`` is ``split``, the one of the settings, or ``random_split``."""
    split: Any = task.settings.split if which == "split" else task.plan.random_split
    settings = replace(task.settings, seed=seed, split=partial(split, seed=None))
    return split_scene(task.scene, settings)


def moves_of(task: Task) -> list[int]:
    """Indices of the moved label maps on which networks are trained, see :func:`hsfusion.trust.chance.null_moves`."""
    plan, labels = task.plan, split_of(task, "split", task.plan.of_split).labelled.labels
    moves = null_moves(labels, number=plan.moved_maps, seed=plan.of_split, has_data=partial(_has_data, task))
    if len(moves) < plan.moved_maps:
        message = "Only %d of %d moved label maps could be made: the others lack data, or repeat the labels."
        _log.warning(message, len(moves), plan.moved_maps)
    return moves


def _has_data(task: Task, pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    whole, scene = np.zeros(pixels.size, bool), task.scene.scene
    for places, values in pixel_blocks(scene, pixels, np.flatnonzero(used_layers(scene, task.settings))):
        whole[places] = np.isfinite(values).all(1)
    return whole


def draw_of(task: Task, resample: int, move: int | None) -> Split:
    """The split with only the training pixels of a draw; its labels are moved if ``move`` is given."""
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
    """Trains a network and writes its run folder, which appears complete; ``path`` is its metrics.json.

    The pixels are those of a ``draw``, arguments of :func:`draw_of`, or of a whole split, ``of`` arguments of
    :func:`split_of`.
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
        if path.parent.exists():  # without metrics.json: not written by this function
            shutil.rmtree(path.parent)
        folder.replace(path.parent)


def score_run(path: Path, task: Task, *, run: str, draw: Sequence[Any], plan: dict[str, Any]) -> None:
    """Writes the accuracies of a run's network with bands replaced, for every curve, and with groups permuted.

    ``plan`` comes from :func:`hsfusion.evidence.stages.curve_plan`.
    """
    seed = task.plan.of_split
    network, _ = load_model(Path(run) / "model.safetensors")
    split = draw_of(task, *draw)
    cube = prepare(split, network.fusion.membership.any(0).numpy())  # closed bands, too: they predict others
    shown, most = split.pixels(TEST), task.plan.faithfulness_pixels
    if shown.size > most:
        shown = np.sort(np.random.default_rng([split.seed, 13, draw[0]]).choice(shown, most, replace=False))
    masked = masked_network(network, cube, split, pixels=shown)
    groups: NDArray[np.bool_] = network.fusion.membership.numpy()  # (G, C + E)
    layers = groups.shape[1]
    units = np.array([np.isin(np.arange(layers), window) for window in plan["windows"]])  # (U, C + E)
    in_use = units.any(0) | np.isin(np.arange(layers), plan["closed"])  # others are never replaced
    spectra = cube.spectra(split.pixels(TRAIN))
    covariances = [band_covariance(spectra @ basis.T) for basis in masked.bases]  # of the bands as weighted
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
    """Keeps one half of the training blocks or fields, 0 or 1; the training pixels of the other half become unused.

    Both halves have all classes. A class whose blocks or fields all fall into one half is divided by pixels instead, as
    every class is in splits without blocks and fields; the only pixel of a class belongs to both halves. Blocks are
    those of another random grid. Validation and test pixels do not change.
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
    """Number of the field or block of each training pixel (N,); of the pixel itself in splits without either."""
    if split.kind == "fields" and split.fields is not None:
        return split.fields[np.isin(np.flatnonzero(split.labelled.labels), pixels)]
    width, scene = split.roles.shape[1], split.labelled.scene
    (rows, cols), ground = np.divmod(pixels, width), pixels.copy()
    for (row, col, height, columns), (down, right) in sorted(scene.repeats(), key=lambda of: of[1], reverse=True):
        if (down, right) < (0, 0):  # ground that several flight lines show is where the first one shows it
            again = (row <= rows) & (rows < row + height) & (col <= cols) & (cols < col + columns)
            ground[again] = pixels[again] + down * width + right
    if split.block_pixels is None:
        return ground
    row, col = ((at + rng.integers(split.block_pixels)) // split.block_pixels for at in np.divmod(ground, width))
    return row * sum(split.roles.shape) + col


def _halves(units: NDArray[np.int64], classes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Assigns units (N,), class by class from the rarest on, to the half with fewer pixels of the class: (N,)."""
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
    """Moves labels and roles of those N labelled pixels that are ``kept`` to other places (N,); the rest is unused."""
    pixels, labelled = np.flatnonzero(split.labelled.labels)[kept], split.labelled
    labels, roles = np.zeros_like(labelled.labels), np.zeros_like(split.roles)
    labels.flat[to[kept]] = labelled.labels.flat[pixels]
    roles.flat[to[kept]] = split.roles.flat[pixels]
    return replace(split, labelled=replace(labelled, labels=labels), roles=roles, fields=None)
