"""``hsfusion benchmark evidence``: trainings over seeds and resamples, and what they say about the band weights."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from hsfusion.cli.checking import command_again
from hsfusion.cli.evidence_folder import check, claim, processes, settings_of, sweep
from hsfusion.errors import InputError
from hsfusion.spectra import BandWeights

if TYPE_CHECKING:
    from hsfusion.cli.evidence_numbers import Profiles
    from hsfusion.cli.job_pool import Job, Pool
    from hsfusion.data.splits import Split

_RANKINGS, _DRAWS = 10, 19  # of trust.rankings.choices, and further draws of random bands
# cost of what is no training, in training steps: measured on Indian Pines
_PER_MASK, _SVM, _CHOICE = 1.7, 150, 400
_MASKS = 4 * 21 * 15
_UNTRAINED = 50  # networks whose mean the weights are compared with


def measure(cfg: DictConfig) -> None:
    """Fills a folder with trainings and evidence.json; goes on where an earlier run with the same words stopped."""
    from hsfusion.cli.evidence_summary import show_summary
    from hsfusion.cli.job_pool import open_pool

    check(cfg)
    evidence = Evidence(cfg)
    threads = int(cfg.threads or 1)
    with open_pool(processes(cfg), threads=threads, total=evidence.cost, shown=bool(cfg.progress)) as pool:
        evidence.collect(pool)
    show_summary(evidence.found, evidence.folder)


class Evidence:
    """The stages, each adding to evidence.json.

    Args:
        cfg: the whole configuration.

    Attributes:
        found: the content of evidence.json so far.
        folder: where everything goes.

    Raises:
        InputError: if the folder holds the evidence of another configuration, or a number of bands is too large.
    """

    def __init__(self, cfg: DictConfig) -> None:
        import torch

        from hsfusion.cli.evidence_jobs import split_of, used_bands

        torch.set_num_threads(int(cfg.threads or 1))
        self._cfg, self.folder = cfg, Path(str(cfg.folder))
        self._settings = settings_of(cfg)
        self._split: Split = split_of(self._settings, "split", cfg.split_seed)
        self._used = used_bands(self._settings, self._split)
        for k in cfg.top_k:
            if not 1 <= k <= self._used.size:
                raise InputError(
                    "command line", field="top_k", value=k, expected=f"1 to {self._used.size}", fix="name other numbers"
                )
        claim(self.folder, self._settings)
        sweep(self.folder)
        self.found: dict[str, Any] = {}
        self._seeds = range(cfg.first_seed, cfg.first_seed + cfg.seeds)
        self._steps = cfg.trainer.max_epochs * cfg.data.steps_per_epoch

    @property
    def cost(self) -> float:
        """Of all stages, in training steps."""
        cfg = self._cfg
        splits = len(self._splits())
        runs = cfg.seeds * cfg.resamples * self._steps
        scored = cfg.seeds * self._scored_cost()
        if not (cfg.top_k and cfg.retrain):
            return runs + scored
        members = (splits - 1) * cfg.top_k_members * self._steps
        sets = len(cfg.top_k) * _RANKINGS + 1
        drawn = cfg.top_k_seeds * len(cfg.top_k) * _DRAWS * _SVM if "svm" in cfg.retrain else 0
        chosen = splits * (_CHOICE + sets * sum(map(self._retrain_cost, cfg.retrain)))
        return runs + scored + members + drawn + chosen

    def collect(self, pool: Pool) -> None:
        """Goes through the stages."""
        profiles = self._train(pool)
        self._score(pool, profiles)
        if self._cfg.top_k and self._cfg.retrain:
            self._choose(pool, profiles)

    def _train(self, pool: Pool) -> Profiles:
        """The trainings, and what their weights say beside each other."""
        from hsfusion.cli.evidence_jobs import untrained_weights
        from hsfusion.cli.evidence_numbers import Profiles, stability_of

        cfg = self._cfg
        pairs = [(r * cfg.seeds + seed, r) for seed, r in itertools.product(self._seeds, range(cfg.resamples))]
        folders = [self.folder / "runs" / f"seed-{seed}-resample-{resample}" for seed, resample in pairs]
        jobs = [
            self._training(folder, "split", cfg.split_seed, seed, resample)
            for folder, (seed, resample) in zip(folders, pairs, strict=True)
        ]
        pool.run(jobs, stage="trainings")
        read = [BandWeights.from_csv(folder / "band_weights.csv") for folder in folders]
        first, weight = read[0], np.stack([of.weight for of in read])
        shape = (cfg.seeds, cfg.resamples, -1)
        untrained = untrained_weights(self._settings, self._split, _UNTRAINED + len(folders))
        control = untrained[_UNTRAINED:].reshape(shape)
        profiles = Profiles(first.bands, first.group, self._used, weight.reshape(shape), untrained[:_UNTRAINED].mean(0))
        layers = zip(first.sources, np.mean([[w for _, w in of.sources] for of in read], axis=0).tolist(), strict=True)
        self.found["command"] = command_again("benchmark evidence")
        self.found["sources"] = [{"name": name, "weight": mean} for (name, _), mean in layers]
        self.found |= self._scene(profiles) | {"runs": [self._run(*row) for row in zip(folders, pairs, strict=True)]}
        self.found |= stability_of(profiles, control)
        self.found["duplicates"] = self._duplicates()
        self._write(profiles)
        return profiles

    def _score(self, pool: Pool, profiles: Profiles) -> None:
        """The networks of the first resample, one for each seed, where bands are replaced."""
        from hsfusion.cli.evidence_jobs import score_run
        from hsfusion.cli.evidence_numbers import faithfulness_of, plan_of
        from hsfusion.cli.job_pool import Job

        plan = {**plan_of(profiles), "settings": self._settings, "split_seed": self._cfg.split_seed, "resample": 0}
        jobs = [
            Job(
                score_run,
                self.folder / "faithfulness" / f"seed-{seed}.json",
                self._scored_cost(),
                {**plan, "run": str(self.folder / "runs" / f"seed-{seed}-resample-0")},
            )
            for seed in self._seeds
        ]
        pool.run(jobs, stage="faithfulness")
        names = [group["name"] for group in self.found["groups"]]
        names += [name for name, _ in self._split.labelled.scene.sources]
        self.found["faithfulness"] = faithfulness_of(
            profiles,
            [job.path for job in jobs],
            seed=self._seeds[0],
            split_seed=self._cfg.split_seed,
            names=["all"] if self._cfg.model.fusion == "free" else names,
        )
        self._write(profiles)

    def _choose(self, pool: Pool, profiles: Profiles) -> None:
        """Choices of k bands on several splits, and classifiers trained on them alone."""
        from hsfusion.cli.evidence_top_k import chosen_jobs, member_profiles, retrain_jobs, top_k_of

        places = {pair: self.folder / "top_k" / f"{pair[0]}-{pair[1]}" for pair in self._splits()}
        own = ("split", self._cfg.split_seed)
        members = {
            pair: [
                self._training(place / "members" / f"seed-{seed}", *pair, seed, None)
                for seed in range(self._cfg.first_seed, self._cfg.first_seed + self._cfg.top_k_members)
            ]
            for pair, place in places.items()
            if pair != own
        }
        pool.run([job for jobs in members.values() for job in jobs], stage="trainings on other splits")
        weights = {own: profiles.ensemble, **member_profiles(members)}
        pool.run(chosen_jobs(self._settings, places, weights, cost=_CHOICE), stage="choices of bands")
        costs = {name: self._retrain_cost(name) for name in self._cfg.retrain}
        if "network" not in costs and any(self.folder.glob("top_k/*/network-*.json")):
            print(
                "The networks on k bands that are in the folder are left out: add retrain=[svm,network] to have them."
            )
        pool.run(
            retrain_jobs(self._settings, places, numbers=list(self._cfg.top_k), used=self._used, costs=costs),
            stage="trainings on chosen bands",
        )
        members_of = {pair: len(profiles.runs) if pair == own else self._cfg.top_k_members for pair in places}
        self.found["top_k"] = top_k_of(
            places,
            numbers=list(self._cfg.top_k),
            classifiers=list(self._cfg.retrain),
            members=members_of,
            kind=self._split.kind,
        )
        self._write(profiles)

    def _splits(self) -> list[tuple[str, int]]:
        """Key of the configuration and seed of each split on which bands are chosen."""
        seeds = range(self._cfg.split_seed, self._cfg.split_seed + self._cfg.top_k_seeds)
        return list(itertools.product(("split", "random_split"), seeds))

    def _training(self, folder: Path, which: str, split_seed: int, seed: int, resample: int | None) -> Job:
        from hsfusion.cli.evidence_jobs import train_run
        from hsfusion.cli.job_pool import Job

        arguments = {"which": which, "split_seed": split_seed, "seed": seed, "resample": resample}
        return Job(train_run, folder / "metrics.json", self._steps, {"settings": self._settings, **arguments})

    def _scored_cost(self) -> float:
        return _MASKS * _PER_MASK * self._cfg.faithfulness_pixels / 1000

    def _retrain_cost(self, classifier: str) -> float:
        """Of one set of bands."""
        return _SVM if classifier == "svm" else 0.6 * self._cfg.retrain_epochs * self._cfg.data.steps_per_epoch

    def _scene(self, profiles: Profiles) -> dict[str, Any]:
        """What was looked at."""
        from hsfusion.cli.evidence_jobs import groups_of_scene
        from hsfusion.cli.evidence_numbers import group_dicts

        bands, split = profiles.bands, self._split
        return {
            "scene": split.labelled.scene.name,
            "fusion": self._cfg.model.fusion,
            "split": {"kind": split.kind, "seed": self._cfg.split_seed, "leakage": split.leakage},
            "bands": {
                "wavelength_nm": bands.wavelength_nm.tolist(),
                "fwhm_nm": None if bands.fwhm_nm is None else bands.fwhm_nm.tolist(),
                "good": bands.good.tolist(),
            },
            "band_groups": list(profiles.group),
            "groups": group_dicts(groups_of_scene(self._settings, split)),
        }

    def _run(self, folder: Path, pair: tuple[int, int]) -> dict[str, Any]:
        from hsfusion.cli.evidence_jobs import read_json

        metrics = read_json(folder / "metrics.json")
        return {
            "seed": pair[0],
            "resample": pair[1],
            "folder": folder.relative_to(self.folder).as_posix(),
            "overall_accuracy": metrics["test"]["overall_accuracy"],
            "average_accuracy": metrics["test"]["average_accuracy"],
            "beats_chance": metrics["beats_chance"],
        }

    def _duplicates(self) -> list[list[float]]:
        """Pairs of usable bands that say the same about the training pixels."""
        from hsfusion.cli.duplicate_bands import duplicate_bands

        return [[pair.first, pair.second, pair.correlation] for pair in duplicate_bands(self._split, self._used)]

    def _write(self, profiles: Profiles) -> None:
        """Writes all there is, with the verdict that it allows."""
        from dataclasses import asdict

        from hsfusion.cli.evidence_numbers import verdict_of
        from hsfusion.cli.job_pool import write_json

        said = asdict(verdict_of(profiles, self.found))
        windows = [{**w, "weight": w.pop("share")} for w in map(dict, said["windows"])]
        self.found["verdict"] = {**said, "windows": windows}
        write_json(self.folder / "evidence.json", self.found)
