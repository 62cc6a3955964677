"""Evidence: trainings over seeds and resamples, and what they say about the band weights."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hsfusion.data.splits import Splitter
from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.evidence.jobs import (
    Job,
    Task,
    Workers,
    score_run,
    split_of,
    train_run,
    untrained_weights,
    used_bands,
    workers,
)
from hsfusion.evidence.numbers import (
    Profiles,
    chosen_jobs,
    faithfulness_of,
    group_dicts,
    member_profiles,
    plan_of,
    retrain_jobs,
    stability_of,
    top_k_of,
    verdict_of,
)
from hsfusion.evidence.store import NAME, read_json, write_json
from hsfusion.runs.experiment import as_labelled
from hsfusion.runs.run import duplicate_bands
from hsfusion.runs.settings import TrainSettings, check_ranges, describe, random_pixels, refusal, replaced, within
from hsfusion.scenes import LabelledScene
from hsfusion.spectra import BandWeights

CLASSIFIERS = ("svm", "network")
_RANKINGS, _DRAWS = 10, 19  # of trust.rankings.choices, and further draws of random bands
# cost of what is no training, in training steps: measured on Indian Pines
_PER_MASK, _SVM, _CHOICE = 1.7, 150, 400
_MASKS = 4 * 21 * 15
_UNTRAINED = 50  # networks whose mean the weights are compared with
# names of what is not complete yet: of train_run, and of write_json and _claim
_PARTIAL_RUN = re.compile(r"\.seed-\d+(-resample-\d+)?-[a-z0-9_]{8}")
_PARTIAL_FILE = re.compile(r"\.(config|[\w-]+\.json)\.\d+")


@dataclass(frozen=True, kw_only=True)
class EvidenceSettings:
    """How evidence is collected. Every field is a key of conf/benchmark_evidence.yaml.

    Attributes:
        resamples: random parts of the training pixels.
        resample_share: share of the training pixels of each class in them.
        seeds: trainings on each of them, every one with a seed of its own.
        first_seed: the first of these seeds.
        split_seed: seed of the one split that all trainings share; None for ``first_seed``.
        jobs: processes at once; None for one on each core, or one on a GPU.
        faithfulness_pixels: test pixels of which bands are removed, drawn at random where there are more.
        top_k: numbers of bands to choose and to train on alone.
        retrain: what is trained on the chosen bands: svm, network.
        retrain_epochs: of these networks.
        top_k_seeds: splits of each kind on which bands are chosen, from ``split_seed`` on.
        top_k_members: trainings that give the weights on each of these splits but the first.
        random_split: the split of random pixels on which bands are chosen, too.
    """

    resamples: int = within(5, 1)
    resample_share: float = within(0.8, 0.05, 1)
    seeds: int = within(5, 1)
    first_seed: int = within(0, 0, 2**31)
    split_seed: int | None = within(None, 0, 2**31)
    jobs: int | None = within(None, 1)
    faithfulness_pixels: int = within(1000, 20, 20_000)
    top_k: tuple[int, ...] = (5, 10, 20, 30)
    retrain: tuple[str, ...] = ("svm",)
    retrain_epochs: int = within(20, 1)
    top_k_seeds: int = within(3, 1)
    top_k_members: int = within(3, 1)
    random_split: Splitter = field(default_factory=random_pixels)

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            InputError: naming the first that cannot be used.
        """
        check_ranges(self)
        if not all(type(k) is int for k in self.top_k) or list(self.top_k) != sorted(set(self.top_k)):
            raise refusal("top_k", list(self.top_k), "rising whole numbers, such as [5,10,20]")
        if not set(self.retrain) <= set(CLASSIFIERS):
            raise refusal("retrain", list(self.retrain), f"a list of {', '.join(CLASSIFIERS)}")

    @property
    def of_split(self) -> int:
        """Seed of the split that all trainings share."""
        return self.first_seed if self.split_seed is None else self.split_seed


def gather_evidence(
    scene: LabelledScene | str | Path,
    folder: str | Path,
    *,
    settings: TrainSettings | None = None,
    plan: EvidenceSettings | None = None,
    command: str = "hsfusion.gather_evidence(...)",
    configuration: str | None = None,
    message: Callable[[str], None] = lambda text: None,
    **fields: Any,
) -> dict[str, Any]:
    """Trains over seeds and resamples, and judges the band weights; continues where an earlier call stopped.

    Args:
        scene: the scene with labels, or the path of its description (YAML).
        folder: for everything: the runs and evidence.json.
        settings: how each network is trained, ``TrainSettings(epochs=20)``; None for the defaults. Its seed has no
            effect: those of ``plan`` replace it.
        plan: how much is trained and measured; None for the defaults.
        command: how to repeat it, for the report.
        configuration: settings and plan as YAML, for config.yaml; None for those of this call.
        message: called with a line that users should see.
        **fields: fields of :class:`EvidenceSettings` that replace those of ``plan``: ``seeds=3, resamples=2``.

    Returns:
        the content of evidence.json; ``hsfusion.load_evidence(folder)`` reads it as objects.

    Raises:
        HsFusionError: if the input cannot be used, the folder holds other evidence, or a training diverges.
    """
    settings = settings or TrainSettings()
    progress, settings = settings.progress, replace(settings, progress=False, loggers=())
    plan = replaced(plan or EvidenceSettings(), fields)
    threads = settings.threads or 1
    torch.set_num_threads(threads)
    labelled = as_labelled(scene)
    configuration = configuration or describe(settings) + describe(plan)
    stages = _Stages(labelled, Path(folder), settings, plan, configuration, command=command, message=message)
    with workers(_processes(settings, plan), threads=threads, total=stages.cost, shown=progress) as pool:
        stages.collect(pool)
    return stages.content


class _Stages:
    """The stages, each adding to evidence.json.

    Attributes:
        content: of evidence.json so far.

    Raises:
        InputError: if the folder holds the evidence of another configuration, or a number of bands is too large.
    """

    def __init__(
        self,
        labelled: LabelledScene,
        folder: Path,
        settings: TrainSettings,
        plan: EvidenceSettings,
        configuration: str,
        *,
        command: str,
        message: Callable[[str], None],
    ) -> None:
        self._folder, self._settings, self._plan = folder, settings, plan
        self._command, self._message = command, message
        self._task = Task(
            labelled,
            settings,
            plan.random_split,
            plan.resample_share,
            plan.faithfulness_pixels,
            plan.top_k,
            plan.retrain_epochs,
            hashlib.sha256(configuration.encode()).hexdigest(),
        )
        self._split = split_of(self._task, "split", plan.of_split)
        self._used = used_bands(self._task, labelled.scene)
        for k in plan.top_k:
            if not 1 <= k <= self._used.size:
                raise refusal("top_k", k, f"1 to {self._used.size}")
        _claim(folder, configuration)
        sweep(folder)
        self.content: dict[str, Any] = {}
        self._seeds = range(plan.first_seed, plan.first_seed + plan.seeds)

    @property
    def cost(self) -> float:
        """Of all stages, in training steps."""
        plan = self._plan
        splits = len(self._splits())
        runs = plan.seeds * plan.resamples * self._settings.steps
        scored = plan.seeds * self._scored_cost()
        if not (plan.top_k and plan.retrain):
            return runs + scored
        members = (splits - 1) * plan.top_k_members * self._settings.steps
        sets = len(plan.top_k) * _RANKINGS + 1
        drawn = plan.top_k_seeds * len(plan.top_k) * _DRAWS * _SVM if "svm" in plan.retrain else 0
        chosen = splits * (_CHOICE + sets * sum(map(self._retrain_cost, plan.retrain)))
        return runs + scored + members + drawn + chosen

    def collect(self, pool: Workers) -> None:
        """Goes through the stages."""
        profiles = self._train(pool)
        self._score(pool, profiles)
        if self._plan.top_k and self._plan.retrain:
            self._choose(pool, profiles)

    def _train(self, pool: Workers) -> Profiles:
        """The trainings, and what their weights say beside each other."""
        plan = self._plan
        pairs = [(r * plan.seeds + seed, r) for seed, r in itertools.product(self._seeds, range(plan.resamples))]
        folders = [self._folder / "runs" / f"seed-{seed}-resample-{resample}" for seed, resample in pairs]
        jobs = [
            self._training(folder, "split", plan.of_split, seed, resample)
            for folder, (seed, resample) in zip(folders, pairs, strict=True)
        ]
        pool.run(jobs, stage="trainings")
        read = [BandWeights.from_csv(folder / "band_weights.csv") for folder in folders]
        first, weight = read[0], np.stack([of.weight for of in read])
        shape = (plan.seeds, plan.resamples, -1)
        untrained = untrained_weights(self._task, self._split, _UNTRAINED + len(folders))
        control = untrained[_UNTRAINED:].reshape(shape)
        profiles = Profiles(first.bands, first.group, self._used, weight.reshape(shape), untrained[:_UNTRAINED].mean(0))
        layers = zip(first.sources, np.mean([[w for _, w in of.sources] for of in read], axis=0).tolist(), strict=True)
        self.content["command"] = self._command
        self.content["sources"] = [{"name": name, "weight": mean} for (name, _), mean in layers]
        self.content |= self._scene(profiles) | {"runs": [self._run(*row) for row in zip(folders, pairs, strict=True)]}
        self.content |= stability_of(profiles, control)
        self.content["duplicates"] = self._duplicates()
        self._write(profiles)
        return profiles

    def _score(self, pool: Workers, profiles: Profiles) -> None:
        """The networks of the first resample, one for each seed, where bands are replaced."""
        arguments = {**plan_of(profiles), "task": self._task, "split_seed": self._plan.of_split, "resample": 0}
        jobs = [
            Job(
                score_run,
                self._folder / "faithfulness" / f"seed-{seed}.json",
                self._scored_cost(),
                {**arguments, "run": str(self._folder / "runs" / f"seed-{seed}-resample-0")},
            )
            for seed in self._seeds
        ]
        pool.run(jobs, stage="faithfulness")
        names = [group["name"] for group in self.content["groups"]]
        names += [name for name, _ in self._split.labelled.scene.sources]
        self.content["faithfulness"] = faithfulness_of(
            profiles,
            [job.path for job in jobs],
            seed=self._seeds[0],
            names=["all"] if self._settings.model.fusion == "free" else names,
        )
        self._write(profiles)

    def _choose(self, pool: Workers, profiles: Profiles) -> None:
        """Choices of k bands on several splits, and classifiers trained on them alone."""
        places = {pair: self._folder / "top_k" / f"{pair[0]}-{pair[1]}" for pair in self._splits()}
        own = ("split", self._plan.of_split)
        members = {
            pair: [
                self._training(place / "members" / f"seed-{seed}", *pair, seed, None)
                for seed in range(self._plan.first_seed, self._plan.first_seed + self._plan.top_k_members)
            ]
            for pair, place in places.items()
            if pair != own
        }
        pool.run([job for jobs in members.values() for job in jobs], stage="trainings on other splits")
        weights = {own: profiles.ensemble, **member_profiles(members)}
        pool.run(chosen_jobs(self._task, places, weights, cost=_CHOICE), stage="choices of bands")
        costs = {name: self._retrain_cost(name) for name in self._plan.retrain}
        if "network" not in costs and any(self._folder.glob("top_k/*/network-*.json")):
            self._message(
                "The networks on k bands that are in the folder are left out: add retrain=[svm,network] to have them."
            )
        pool.run(
            retrain_jobs(self._task, places, numbers=list(self._plan.top_k), used=self._used, costs=costs),
            stage="trainings on chosen bands",
        )
        members_of = {pair: len(profiles.runs) if pair == own else self._plan.top_k_members for pair in places}
        self.content["top_k"] = top_k_of(
            places,
            numbers=list(self._plan.top_k),
            classifiers=list(self._plan.retrain),
            members=members_of,
            kind=self._split.kind,
        )
        self._write(profiles)

    def _splits(self) -> list[tuple[str, int]]:
        """Key of the configuration and seed of each split on which bands are chosen."""
        seeds = range(self._plan.of_split, self._plan.of_split + self._plan.top_k_seeds)
        return list(itertools.product(("split", "random_split"), seeds))

    def _training(self, folder: Path, which: str, split_seed: int, seed: int, resample: int | None) -> Job:

        arguments = {"which": which, "split_seed": split_seed, "seed": seed, "resample": resample}
        return Job(train_run, folder / "metrics.json", self._settings.steps, {"task": self._task, **arguments})

    def _scored_cost(self) -> float:
        return _MASKS * _PER_MASK * self._plan.faithfulness_pixels / 1000

    def _retrain_cost(self, classifier: str) -> float:
        """Of one set of bands."""
        return _SVM if classifier == "svm" else 0.6 * self._plan.retrain_epochs * self._settings.steps_per_epoch

    def _scene(self, profiles: Profiles) -> dict[str, Any]:
        """What was looked at."""
        bands, split = profiles.bands, self._split
        return {
            "scene": split.labelled.scene.name,
            "fusion": self._settings.model.fusion,
            "split": {"kind": split.kind, "seed": self._plan.of_split, "leakage": split.leakage},
            "bands": bands.to_dict(),
            "band_groups": list(profiles.group),
            "groups": group_dicts(self._settings.groups(bands)),
        }

    def _run(self, folder: Path, pair: tuple[int, int]) -> dict[str, Any]:

        metrics = read_json(folder / "metrics.json")
        return {
            "seed": pair[0],
            "resample": pair[1],
            "folder": folder.relative_to(self._folder).as_posix(),
            "overall_accuracy": metrics["test"]["overall_accuracy"],
            "average_accuracy": metrics["test"]["average_accuracy"],
            "beats_chance": metrics["beats_chance"],
        }

    def _duplicates(self) -> list[list[float]]:
        """Pairs of usable bands that say the same about the training pixels."""
        return [[pair.first, pair.second, pair.correlation] for pair in duplicate_bands(self._split, self._used)]

    def _write(self, profiles: Profiles) -> None:
        """Writes all there is, with the verdict that it allows."""
        said = asdict(verdict_of(profiles, self.content))
        windows = [{**w, "weight": w.pop("share")} for w in map(dict, said["windows"])]
        self.content["verdict"] = {**said, "windows": windows}
        write_json(self._folder / NAME, self.content)


def _claim(folder: Path, configuration: str) -> None:
    """Makes the folder this configuration's, or continues with it.

    Raises:
        InputError: if it holds something else.
        EnvironmentFailure: if it cannot be made.
    """
    file = folder / "config.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            if any(folder.iterdir()):
                raise InputError(folder, "folder", "not empty", "a new or empty folder", "name another")
            partial_file = folder / f".config.{os.getpid()}"
            partial_file.write_text(configuration, encoding="utf-8")
            partial_file.replace(file)
        before = file.read_text(encoding="utf-8")
    except OSError as error:
        raise EnvironmentFailure(f"{folder}: cannot be used ({error}). Fix: choose another folder.") from error
    if before != configuration:
        lines = [line for line in configuration.splitlines() if line not in before.splitlines()]
        raise InputError(
            file,
            "configuration",
            "another one",
            f"that of this command ({', '.join(map(str.strip, lines[:3])) or 'with fewer keys'})",
            "give the same words as before, or another folder",
        )


def sweep(folder: Path) -> None:
    """Removes what processes that were killed left half done, where and as these name it; nothing else."""
    for place in (".", "runs", "faithfulness", "top_k/*", "top_k/*/members"):
        for path in folder.glob(f"{place}/.*"):
            if path.is_dir() and _PARTIAL_RUN.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_file() and _PARTIAL_FILE.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _processes(settings: TrainSettings, plan: EvidenceSettings) -> int:
    """How many jobs run at once, unless the plan says so: one on each core, or one on a GPU."""
    if plan.jobs is not None:
        return plan.jobs
    accelerator = getattr(settings.trainer, "keywords", {}).get("accelerator", "auto")
    if accelerator not in ("cpu", "auto") or (accelerator == "auto" and torch.cuda.is_available()):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # Linux only
