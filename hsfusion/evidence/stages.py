"""Evidence: trainings over seeds and resamples, and what they say about the band weights."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hsfusion.errors import InputError
from hsfusion.evidence.jobs import (
    EvidenceSettings,
    Job,
    Task,
    Workers,
    score_run,
    split_of,
    train_run,
    untrained_weights,
    used_bands,
)
from hsfusion.evidence.numbers import (
    Pair,
    chosen_jobs,
    curve_plan,
    faithfulness_of,
    retrain_jobs,
    stability_of,
    top_k_of,
    verdict_of,
)
from hsfusion.evidence.store import NAME, read_json, write_json
from hsfusion.runs.comparison import Profiles
from hsfusion.runs.experiment import as_labelled
from hsfusion.runs.run import duplicate_bands
from hsfusion.runs.settings import TrainSettings, describe, refusal, replaced
from hsfusion.scenes import LabelledScene
from hsfusion.spectra import BandWeights

_UNTRAINED = 50  # networks whose mean the weights are compared with
# names of what is not complete yet: of train_run and write_json
_PARTIAL = ("**/.seed-*-????????", "**/.*.json.[0-9]*")


def gather_evidence(
    scene: LabelledScene | str | Path,
    folder: str | Path,
    *,
    settings: TrainSettings | None = None,
    plan: EvidenceSettings | None = None,
    command: str = "hsfusion.gather_evidence(...)",
    configuration: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Trains over seeds and resamples, and judges the band weights; continues where an earlier call stopped.

    Args:
        scene: the scene with labels, or the path of its description (YAML).
        folder: for everything: the runs and evidence.json.
        settings: how each network is trained, ``TrainSettings(epochs=20)``; None for the defaults. Its seed, and
            that of its split, have no effect: those of ``plan`` replace them.
        plan: how much is trained and measured; None for the defaults.
        command: how to repeat it, for the report.
        configuration: settings and plan as YAML, for config.yaml; None for those of this call.
        **fields: fields of :class:`EvidenceSettings` that replace those of ``plan``: ``seeds=3, resamples=2``.

    Returns:
        the content of evidence.json; ``hsfusion.load_evidence(folder)`` reads it as objects.

    Raises:
        HsFusionError: if the input cannot be used, the folder holds other evidence, or a training diverges.
    """
    settings, folder = settings or TrainSettings(), Path(folder)
    progress, settings = settings.progress, replace(settings, progress=False, loggers=())
    plan = replaced(plan or EvidenceSettings(), fields)
    threads = settings.threads or 1
    torch.set_num_threads(threads)
    configuration = configuration or describe(settings) + describe(plan)
    task = Task(as_labelled(scene), settings, plan, hashlib.sha256(configuration.encode()).hexdigest())
    stages = _Stages(folder, task, Workers(task, _processes(settings, plan), threads, progress))
    _claim(folder, configuration)
    sweep(folder)
    stages.content["command"] = command
    profiles = stages.train()
    stages.score(profiles)
    if plan.top_k and plan.retrain:
        stages.choose(profiles)
    return stages.content


class _Stages:
    """The stages, each adding to the content of evidence.json."""

    def __init__(self, folder: Path, task: Task, workers: Workers) -> None:
        self._folder, self._task, self._plan, self._workers = folder, task, task.plan, workers
        self._split = split_of(task, "split", task.plan.of_split)
        self._used = used_bands(task)
        too_many = next((k for k in task.plan.top_k if not 1 <= k <= self._used.size), None)
        if too_many is not None:
            raise refusal("top_k", too_many, f"1 to {self._used.size}")
        self.content: dict[str, Any] = {}

    def train(self) -> Profiles:
        """Trainings over seeds and resamples, every one with a seed of its own."""
        plan, scene = self._plan, self._split.labelled.scene
        pairs = [
            (plan.first_seed + resample * plan.seeds + i, resample)
            for i in range(plan.seeds)
            for resample in range(plan.resamples)
        ]
        folders = [self._run_folder(*pair) for pair in pairs]
        own = ("split", plan.of_split)
        jobs = [self._training(of, own, *pair) for of, pair in zip(folders, pairs, strict=True)]
        self._workers.run(jobs, stage="trainings")
        tables = [BandWeights.from_csv(of / "band_weights.csv") for of in folders]
        first, shape = tables[0], (plan.seeds, plan.resamples, -1)
        untrained = untrained_weights(self._task, self._split, _UNTRAINED + len(pairs))
        weight, control = np.stack([table.weight for table in tables]), untrained[_UNTRAINED:]
        of_layers = np.mean([[w for _, w in table.sources] for table in tables], axis=0).tolist()
        sources = tuple(zip((name for name, _ in first.sources), of_layers, strict=True))
        profiles = Profiles(
            *(first.bands, first.group, self._used), weight.reshape(shape), untrained[:_UNTRAINED].mean(0), sources
        )
        settings = self._task.settings
        self.content |= {
            "sources": [{"name": name, "weight": mean} for name, mean in sources],
            "scene": scene.name,
            "fusion": settings.model.fusion,
            "split": {"kind": self._split.kind, "seed": plan.of_split, "leakage": self._split.leakage},
            "bands": profiles.bands.to_dict(),
            "band_groups": list(profiles.group),
            "groups": [asdict(group) for group in settings.groups(profiles.bands)],
            "runs": [self._record(of, *pair) for of, pair in zip(folders, pairs, strict=True)],
            **stability_of(profiles, control.reshape(shape)),
            # pairs of usable bands that hold the same values at the training pixels
            "duplicates": [[p.first, p.second, p.correlation] for p in duplicate_bands(self._split, self._used)],
        }
        self._write(profiles)
        return profiles

    def score(self, profiles: Profiles) -> None:
        """The networks of the first resample, one for each seed, where bands are replaced."""
        plan, first = curve_plan(profiles), self._plan.first_seed
        places = {s: self._folder / "faithfulness" / f"seed-{s}.json" for s in range(first, first + self._plan.seeds)}
        jobs = [Job(score_run, path, {**plan, "run": str(self._run_folder(s, 0))}) for s, path in places.items()]
        self._workers.run(jobs, stage="faithfulness")
        names = [group["name"] for group in self.content["groups"]]
        names += [name for name, _ in self._split.labelled.scene.sources]
        names = ["all"] if self.content["fusion"] == "free" else names
        self.content["faithfulness"] = faithfulness_of(plan, list(places.values()), seed=first, names=names)
        self._write(profiles)

    def choose(self, profiles: Profiles) -> None:
        """Choices of k bands on several splits, and classifiers trained on them alone."""
        plan = self._plan
        own: Pair = ("split", plan.of_split)
        seeds = range(plan.of_split, plan.of_split + plan.top_k_seeds)
        pairs: list[Pair] = [(which, seed) for which in ("split", "random_split") for seed in seeds]
        places = {pair: self._folder / "top_k" / f"{pair[0]}-{pair[1]}" for pair in pairs}
        jobs = {
            pair: [
                self._training(place / "members" / f"seed-{seed}", pair, seed, None)
                for seed in range(plan.first_seed, plan.first_seed + plan.top_k_members)
            ]
            for pair, place in places.items()
            if pair != own
        }
        self._workers.run(list(itertools.chain(*jobs.values())), stage="trainings on other splits")
        members = {pair: [job.path.parent for job in of] for pair, of in jobs.items()}
        members[own] = [self._folder / run["folder"] for run in self.content["runs"]]
        self._workers.run(chosen_jobs(places, members), stage="choices of bands")
        self._workers.run(retrain_jobs(places, plan, self._used), stage="trainings on chosen bands")
        self.content["top_k"] = top_k_of(places, plan, members=members, kind=self._split.kind)
        self._write(profiles)

    def _run_folder(self, seed: int, resample: int) -> Path:
        return self._folder / "runs" / f"seed-{seed}-resample-{resample}"

    def _training(self, folder: Path, pair: Pair, seed: int, resample: int | None) -> Job:
        arguments = {"which": pair[0], "split_seed": pair[1], "seed": seed, "resample": resample}
        return Job(train_run, folder / "metrics.json", arguments)

    def _record(self, folder: Path, seed: int, resample: int) -> dict[str, Any]:
        metrics = read_json(folder / "metrics.json")
        return {
            "seed": seed,
            "resample": resample,
            "folder": folder.relative_to(self._folder).as_posix(),
            "overall_accuracy": metrics["test"]["overall_accuracy"],
            "average_accuracy": metrics["test"]["average_accuracy"],
            "beats_chance": metrics["beats_chance"],
        }

    def _write(self, profiles: Profiles) -> None:
        """Writes all there is, with the verdict that it allows."""
        judged = verdict_of(profiles, self.content)
        windows = [{**asdict(window), "weight": window.share} for window in judged.windows]
        self.content["verdict"] = {**asdict(judged), "windows": windows}
        write_json(self._folder / NAME, self.content)


def _claim(folder: Path, configuration: str) -> None:
    """Makes the folder this configuration's, or continues with it."""
    file = folder / "config.yaml"
    if not file.exists():
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise InputError(folder, "folder", "not empty", "a new or empty folder", "name another")
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(configuration, encoding="utf-8")
    before = file.read_text(encoding="utf-8")
    if before != configuration:
        fix = "give the same words as before, or another folder"
        raise InputError(file, "configuration", "another one", "that of this command", fix)


def sweep(folder: Path) -> None:
    """Removes what processes that were killed left half done, where and as these name it; nothing else."""
    for path in [path for pattern in _PARTIAL for path in folder.glob(pattern)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _processes(settings: TrainSettings, plan: EvidenceSettings) -> int:
    """How many jobs run at once, unless the plan says so: one on each core, or one on a GPU."""
    if plan.jobs is not None:
        return plan.jobs
    accelerator = getattr(settings.trainer, "keywords", {}).get("accelerator", "auto")
    if accelerator not in ("cpu", "auto") or (accelerator == "auto" and torch.cuda.is_available()):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # Linux only
