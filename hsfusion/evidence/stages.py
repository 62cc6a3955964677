"""Evidence on the band weights: its stages, from repeated trainings to the verdict, and evidence.json."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.evidence import jobs
from hsfusion.evidence.jobs import DIRECTIONS, FILLS, EvidenceSettings, Job, Task, Workers
from hsfusion.evidence.top_k import Pair, choice_jobs, rank, retrain_jobs, top_k_of
from hsfusion.publishing import LEFTOVERS, write_file
from hsfusion.runs.comparison import EVIDENCE, Profiles
from hsfusion.runs.experiment import as_labelled
from hsfusion.runs.folder import INPUTS, check_same_inputs, inputs_of, plain_values, read_json, write_json
from hsfusion.runs.run import duplicate_bands
from hsfusion.runs.settings import TrainSettings, describe, refusal, replaced
from hsfusion.scenes import LabelledScene
from hsfusion.spectra import BandWeights
from hsfusion.trust.faithfulness import Curve
from hsfusion.trust.importance import mean_importance, with_importance
from hsfusion.trust.stability import compared_bands, window_stability
from hsfusion.trust.verdict import FREE, Duplicate, Verdict, verdict

_STEPS = 6  # points of a curve, at most
_WINDOW_SIZES, _FEWEST_OPEN = (7, 3, 1), 8  # bands of a window: the first size that leaves 8 windows open


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
    """Trains on several draws with several seeds, and judges the band weights; continues an interrupted call.

    Args:
        scene: the scene with labels, or the path of its description (YAML).
        folder: for all results: the runs and evidence.json.
        settings: how each network is trained, such as ``TrainSettings(epochs=20)``; None for the defaults. The seeds
            of ``plan`` replace its seed and that of its split.
        plan: what is trained and measured; None for the defaults.
        command: the command that repeats this, for the report.
        configuration: settings and plan as YAML, for config.yaml; None to derive it from this call.
        **fields: fields of :class:`EvidenceSettings` that replace those of ``plan``, such as ``seeds=3``.

    Returns:
        the content of evidence.json; ``hsfusion.load_evidence(folder)`` reads it as objects.

    Raises:
        HsFusionError: if the input cannot be used, the folder holds evidence of another scene, split or configuration,
            or a training diverges.
    """
    settings, folder = settings or TrainSettings(), Path(folder)
    progress, settings = settings.progress, replace(settings, progress=False, loggers=())
    plan = replaced(plan or EvidenceSettings(), fields)
    threads = settings.threads or 1
    torch.set_num_threads(threads)
    configuration = configuration or describe(settings) + describe(plan)
    task = Task(as_labelled(scene), settings, plan)
    stages = _Stages(folder, task, Workers(folder, task, _processes(settings, plan), threads, progress))
    stages.claim(configuration)
    (folder / jobs.LOCKS).mkdir(exist_ok=True)
    stages.content["command"] = command
    profiles = stages.train()
    stages.score(profiles)
    if plan.top_k and plan.retrain:
        stages.choose(profiles)
    jobs.remove_locks(folder)
    return stages.content


@dataclass(frozen=True)
class _Run:
    seed: int
    resample: int
    move: int | None = None  # of the label map; None for the true one

    @property
    def draw(self) -> tuple[int, int | None]:
        """Resample and move, the arguments of :func:`hsfusion.evidence.jobs.draw_of`."""
        return self.resample, self.move

    @property
    def prefix(self) -> str:
        """Prefix of its folder and file; empty unless the labels are moved."""
        return "" if self.move is None else f"moved-{self.move}-"


class _Stages:
    def __init__(self, folder: Path, task: Task, workers: Workers) -> None:
        self._folder, self._task, self._plan, self._workers = folder, task, task.plan, workers
        self._split = jobs.split_of(task, "split", task.plan.of_split)
        self._used = jobs.used_bands(task.scene.scene, task.settings)
        too_many = next((k for k in task.plan.top_k if not 1 <= k <= self._used.size), None)
        if too_many is not None:
            raise refusal("top_k", too_many, f"1 to {self._used.size}")
        plan = task.plan
        self._runs = [
            _Run(plan.first_seed + resample * plan.seeds + i, resample)
            for i in range(plan.seeds)
            for resample in range(plan.resamples)
        ]
        first = self._runs[: plan.resamples]  # one on each draw
        self._moved = [[replace(run, move=move) for run in first] for move in jobs.moves_of(task)]
        self._profiles_moved: list[Profiles] = []
        self.content: dict[str, Any] = {}

    def claim(self, configuration: str) -> None:
        """Reserves the folder for this configuration, scene and split; continues if it already is."""
        groups = [asdict(group) for group in self._task.settings.groups(self._split.labelled.scene.bands)]
        # if groups or split are functions, the configuration holds only their names
        inputs = inputs_of([self._split]) | {"groups": plain_values(groups)}
        _claim(self._folder, configuration, inputs)
        if not (self._folder / INPUTS).exists():
            given, fix = "created by an earlier version of hsfusion", "name another folder"
            raise InputError(self._folder, "folder", given, "one created by this version", fix)
        check_same_inputs(self._folder, inputs, [self._split], configuration)

    def train(self) -> Profiles:
        """Trains on each draw, every time with another seed, and on moved label maps."""
        plan, settings = self._plan, self._task.settings
        work = [
            Job(jobs.train_run, self._place(run) / "metrics.json", {"seed": run.seed, "draw": run.draw})
            for run in itertools.chain(self._runs, *self._moved)
        ]
        self._workers.run(work, stage="trainings")
        places = [self._folder / "rankings" / f"resample-{resample}.json" for resample in range(plan.resamples)]
        draws = [{"draw": run.draw} for run in self._runs[: plan.resamples]]
        self._workers.run([Job(rank, *of) for of in zip(places, draws, strict=True)], stage="other rankings")
        profiles = self._profiles(self._runs)
        self._profiles_moved = [self._profiles(runs) for runs in self._moved]
        importance = mean_importance([read_json(self._place(run) / "metrics.json") for run in self._runs])
        self.content |= {
            "sources": [{"name": name, "weight": mean} for name, mean in profiles.sources],
            "scene": self._split.labelled.scene.name,
            "fusion": settings.model.fusion,
            "split": {"kind": self._split.kind, "seed": plan.of_split, "leakage": self._split.leakage},
            "splits": -(-plan.resamples // 2),
            "bands": profiles.bands.to_dict(),
            "band_groups": list(profiles.group),
            "groups": [asdict(group) for group in settings.groups(profiles.bands)],
            "runs": [self._record(run) for run in self._runs],
            **stability_of(profiles),
            # index of agreement of rankings without a network on the same draws
            "rankings": _index_of_rankings([read_json(place) for place in places], profiles),
            **({} if importance is None else {"importance": importance.to_dict()}),
            # statistics of single runs on the true and on each of the moved label maps
            "moved": _moved_statistics(profiles, self._profiles_moved),
            # redundant pairs of usable bands at the training pixels
            "duplicates": [[p.first, p.second, p.correlation] for p in duplicate_bands(self._split, self._used)],
        }
        self._write(profiles)
        return profiles

    def score(self, profiles: Profiles) -> None:
        """Replaces bands for the first network of each draw, on the true and on the moved label maps."""
        work, scored = [], []
        first = self._runs[: self._plan.resamples]
        for runs, of in zip([first, *self._moved], [profiles, *self._profiles_moved], strict=True):
            plan = curve_plan(of)
            paths = [self._folder / "faithfulness" / f"{run.prefix}seed-{run.seed}.json" for run in runs]
            work += [
                Job(jobs.score_run, path, {"plan": plan, "run": str(self._place(run)), "draw": run.draw})
                for path, run in zip(paths, runs, strict=True)
            ]
            scored.append((plan, paths))
        self._workers.run(work, stage="faithfulness")
        names = [group["name"] for group in self.content["groups"]]
        names += [name for name, _ in self._split.labelled.scene.sources]
        names = ["all"] if self.content["fusion"] == "free" else names
        self.content["faithfulness"] = faithfulness_of(*scored[0], seed=self._plan.first_seed, names=names)
        curves, *moved = [_curves(plan["number"], [read_json(path) for path in paths]) for plan, paths in scored]
        self.content["moved"] |= {
            f"area of {direction}, {fill}": {
                "labels": curves[direction][fill]["area"],
                "moved": [of[direction][fill]["area"] for of in moved],
            }
            for direction, fill in itertools.product(DIRECTIONS, FILLS)
        }
        self._write(profiles)

    def choose(self, profiles: Profiles) -> None:
        """Chooses k bands on several splits, and trains classifiers on them alone."""
        plan = self._plan
        seeds = range(plan.of_split, plan.of_split + plan.top_k_seeds)
        kinds = ("split",) if plan.random_split is None else ("split", "random_split")
        pairs: list[Pair] = [(which, seed) for which in kinds for seed in seeds]
        places = {pair: self._folder / "top_k" / f"{pair[0]}-{pair[1]}" for pair in pairs}
        work = {
            pair: [
                Job(jobs.train_run, place / "members" / f"seed-{seed}" / "metrics.json", {"seed": seed, "of": pair})
                for seed in range(plan.first_seed, plan.first_seed + plan.top_k_members)
            ]
            for pair, place in places.items()
        }
        self._workers.run(list(itertools.chain(*work.values())), stage="trainings on whole splits")
        members = {pair: [job.path.parent for job in of] for pair, of in work.items()}
        self._workers.run(choice_jobs(places, members), stage="choices of bands")
        self._workers.run(retrain_jobs(places, plan, self._used), stage="trainings on chosen bands")
        done = [  # by this and by earlier calls: a later call may add a classifier
            name
            for name in jobs.CLASSIFIERS
            if all(job.path.exists() for job in retrain_jobs(places, replace(plan, retrain=(name,)), self._used))
        ]
        plan = replace(plan, retrain=tuple(done))
        self.content["top_k"] = top_k_of(places, plan, members=members, kind=self._split.kind)
        self._write(profiles)

    def _place(self, run: _Run) -> Path:
        return self._folder / f"{run.prefix}runs" / f"seed-{run.seed}-resample-{run.resample}"

    def _profiles(self, runs: Sequence[_Run]) -> Profiles:
        """The weights of runs, equally many on each draw."""
        tables = [BandWeights.from_csv(self._place(run) / "band_weights.csv") for run in runs]
        settings = self._task.settings
        groups = settings.groups(tables[0].bands)
        return Profiles.of(tables, vars(settings.model), groups=groups, resamples=self._plan.resamples)

    def _record(self, run: _Run) -> dict[str, Any]:
        metrics = read_json(self._place(run) / "metrics.json")
        return {
            "seed": run.seed,
            "resample": run.resample,
            "folder": self._place(run).relative_to(self._folder).as_posix(),
            "overall_accuracy": metrics["test"]["overall_accuracy"],
            "average_accuracy": metrics["test"]["average_accuracy"],
            "beats_chance": metrics["beats_chance"],
            "chance": metrics.get("chance"),
        }

    def _write(self, profiles: Profiles) -> None:
        """Writes the results so far, with the verdict that they allow."""
        judged = with_importance(verdict_of(profiles, self.content), mean_importance([self.content]))
        windows = [{**asdict(window), "weight": window.share} for window in judged.windows]
        self.content["verdict"] = {**asdict(judged), "windows": windows}
        file = self._folder / EVIDENCE
        if not (file.exists() and read_json(file).keys() > self.content.keys()):  # another call has more results
            write_json(file, self.content)


def _claim(folder: Path, configuration: str, inputs: dict[str, Any]) -> None:
    """Reserves the folder for this configuration; continues if it already is."""
    file = folder / "config.yaml"
    before = folder.iterdir() if folder.is_dir() else ()
    foreign = [path for path in before if not (path.match(LEFTOVERS) or path.name in (jobs.LOCKS, INPUTS))]
    if not file.exists():  # checked last: another call may have created it just now
        if folder.is_file() or foreign:
            raise InputError(folder, "folder", "not empty", "a new or empty folder", "name another folder")
        (folder / jobs.LOCKS).mkdir(parents=True, exist_ok=True)
        with FileLock(folder / jobs.LOCKS / file.name):  # else two first calls with different settings could go on
            if not file.exists():
                write_json(folder / INPUTS, inputs)
                write_file(file, configuration)
    if file.read_text(encoding="utf-8") != configuration:
        fix = "use the settings of the first call, or another folder"
        raise InputError(file, "configuration", "another one", "that of this command", fix)


def _processes(settings: TrainSettings, plan: EvidenceSettings) -> int:
    """Number of jobs that run at once: that of the plan, else one per core, or one on a GPU."""
    if plan.jobs is not None:
        return plan.jobs
    accelerator = getattr(settings.trainer, "keywords", {}).get("accelerator", "auto")
    if accelerator not in ("cpu", "auto") or (accelerator == "auto" and torch.cuda.is_available()):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # Linux only


def stability_of(profiles: Profiles) -> dict[str, Any]:
    """The parts of evidence.json on profiles, stability and uniformity."""
    bands, half_width = compared_bands(profiles.used.size)
    stabilities, untrained = profiles.stabilities, profiles.index_of_untrained()
    stabilities = stabilities if untrained is None else {**stabilities, "untrained": untrained}
    content: dict[str, Any] = {
        "profiles": profiles.runs.tolist(),
        "untrained": profiles.untrained.tolist(),
        "stability": {
            "bands": bands,
            "half_width": half_width,
            "index_of_members": profiles.index_of_members(),
            **{k: asdict(of) for k, of in stabilities.items()},
        },
    }
    if (p := profiles.uniformity_p) is not None:
        content["uniformity_p"] = p
    return content


def _index_of_rankings(draws: Sequence[Mapping[str, Sequence[float]]], profiles: Profiles) -> dict[str, float]:
    """The index of agreement of each ranking over the draws; empty for a single draw."""
    nm, (bands, half_width) = profiles.bands.wavelength_nm[profiles.used], compared_bands(profiles.used.size)
    return {
        name: window_stability(np.array([of[name] for of in draws]), nm, bands=bands, half_width=half_width).index
        for name in draws[0]
        if len(draws) > 1
    }


def _moved_statistics(profiles: Profiles, moved: Sequence[Profiles]) -> dict[str, Any]:
    """Index and uniformity of single runs on the true and on moved label maps; empty for a single draw."""
    named = {
        "index of single runs": lambda of: of.index_of_members().get("1"),
        "uniformity of single runs": lambda of: of.uniformity_ratio,
    }
    values = {name: [value(of) for of in (profiles, *moved)] for name, value in named.items()}
    return {name: {"labels": first, "moved": rest} for name, (first, *rest) in values.items() if first is not None}


def verdict_of(profiles: Profiles, evidence: Mapping[str, Any]) -> Verdict:
    """The verdict on the reported profile, from the results so far."""
    curves = evidence.get("faithfulness", {})
    names = [(direction, fill) for direction in DIRECTIONS if direction in curves for fill in FILLS]
    return verdict(
        profiles.heaviest,
        beats_chance=[run["beats_chance"] for run in evidence["runs"]],
        chance=[run.get("chance") for run in evidence["runs"]],
        uniformity_p=evidence.get("uniformity_p"),
        stability=profiles.stabilities.get("reported"),
        curves={f"{direction}, {fill}": curves[direction][fill] for direction, fill in names},
        moved=evidence["moved"],
        pairs=[Duplicate(*pair) for pair in evidence["duplicates"]],
        wavelength_nm=profiles.bands.wavelength_nm,
        unreadable=FREE if evidence["fusion"] == "free" else None,
    )


def curve_plan(profiles: Profiles) -> dict[str, Any]:
    """The open windows, with their weights, the bands of the closed ones, and the numbers of windows along a curve."""
    reported = profiles.reported.weight
    of_sizes = [profiles.windows(size) for size in _WINDOW_SIZES]
    every = next((of for of in of_sizes if (of @ reported > 0).sum() >= _FEWEST_OPEN), of_sizes[-1])
    windows = every[every @ reported > 0]
    number = np.unique(np.round(len(windows) * np.linspace(0, 1, _STEPS) ** 1.5).astype(int))
    return {
        "windows": [np.flatnonzero(window).tolist() for window in windows],
        "weight": (windows @ reported / windows.sum(1)).tolist(),
        "closed": np.flatnonzero(every.any(0) & ~windows.any(0)).tolist(),
        "number": number.tolist(),
    }


def faithfulness_of(
    plan: Mapping[str, Any], scored: Sequence[Path], *, seed: int, names: Sequence[str]
) -> dict[str, Any]:
    """Curves, and importance of the named groups, from the scores of several networks, a file for each."""
    records = [read_json(path) for path in scored]
    sizes = np.cumsum([0, *(len(plan["windows"][u]) for u in np.argsort(-np.array(plan["weight"]), kind="stable"))])
    return {
        "seed": seed,
        "networks": len(records),
        "pixels": records[0]["pixels"],
        "accuracy": float(np.mean([record["all_bands"] for record in records])),
        "windows": len(plan["windows"]),
        "numbers": sizes[plan["number"]].tolist(),  # of bands
        **_curves(plan["number"], records),
        "groups": _importance(np.mean([record["groups"] for record in records], axis=0), names),
    }


def _curves(number: Sequence[int], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        direction: {
            fill: _curve(np.array([record[direction][fill] for record in records]), np.array(number), direction)
            for fill in FILLS
        }
        for direction in DIRECTIONS
    }


def _curve(accuracies: NDArray[np.float64], number: NDArray[np.int64], direction: str) -> dict[str, Any]:
    curve = Curve.from_accuracies(accuracies, number=number, direction=direction)
    lower, upper = np.quantile(curve.random_accuracy, [0.05, 0.95], axis=0)
    return {
        "accuracy": curve.accuracy.tolist(),
        "random_mean": curve.random_accuracy.mean(0).tolist(),
        "random_lower": lower.tolist(),
        "random_upper": upper.tolist(),
        "area": curve.area,
        "lower": curve.lower,
        "upper": curve.upper,
        "p": curve.p_value,
    }


def _importance(accuracies: NDArray[np.float64], names: Sequence[str]) -> list[dict[str, Any]]:
    """Loss of accuracy by permuting each group, from accuracies (1 + G REPEATS,), the first without permutation."""
    permuted = accuracies[1:].reshape(len(names), jobs.REPEATS)
    loss, without_loss = accuracies[0] - permuted, (permuted >= accuracies[0]).sum(1)
    return [
        {"name": name, "importance": float(drop.mean()), "p": (1 + count) / (1 + jobs.REPEATS)}
        for name, drop, count in zip(names, loss, without_loss.tolist(), strict=True)
    ]
