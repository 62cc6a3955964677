"""Comparison of the band weights of one run or several, and how far they can be trusted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.runs.folder import checked_keys
from hsfusion.runs.run import Run, load_run
from hsfusion.scenes.survey import atmospheric_bands
from hsfusion.spectra import BandGroup, Bands, BandWeights
from hsfusion.spectra.weights import WeightSpread, untrained_weights
from hsfusion.trust.importance import WindowImportance, mean_importance, with_importance
from hsfusion.trust.stability import (
    Stability,
    compared_bands,
    quartiles,
    relative_profiles,
    top_bands,
    uniformity_p,
    uniformity_ratio,
    window_stability,
)
from hsfusion.trust.verdict import FREE, Duplicate, Verdict, WavelengthWindow, verdict, weight_windows

#: the file that an evidence run writes
EVIDENCE = "evidence.json"
_UNTRAINED = 199  # sets of untrained networks, as many in each as there are runs
_TRANSFERRED = "Runs that were transferred from another network start from its weights: that they agree is no evidence."


@dataclass(frozen=True)
class RunRecord:
    """A run and the accuracies of its network on test pixels, as fractions.

    Attributes:
        split: its kind.
        carried: whether the training started from another network.
        resample: number of the draw of training pixels; None for all of them.
        chance: fields of :class:`hsfusion.trust.chance.Chance`; None for a run that was not compared.
    """

    folder: Path | None
    scene: str
    seed: int
    split: str
    leakage: float
    overall_accuracy: float
    average_accuracy: float
    beats_chance: bool
    duplicates: tuple[Duplicate, ...] = ()
    fusion: str = "channel"
    carried: bool = False
    resample: int | None = None
    chance: dict[str, Any] | None = None

    @classmethod
    def of(cls, run: Run) -> RunRecord:
        """The record of a run."""
        with checked_keys(run.folder):
            split, test, seed = (run.metrics[key] for key in ("split", "test", "seed"))
            numbers = split["kind"], split["leakage"], test["overall_accuracy"], test["average_accuracy"]
        carried = run.folder is not None and (run.folder / "transfer.json").exists()
        return cls(
            run.folder,
            run.header.scene_name or "",
            seed,
            *numbers,
            run.beats_chance,
            run.duplicates,
            run.header.fusion,
            carried or (run.training is not None and run.training.experiment.initial.transfer is not None),
            chance=run.metrics.get("chance"),
        )


@dataclass(frozen=True, eq=False)
class Profiles:
    """The weights (S, T, C) of S runs on each of T resamples."""

    bands: Bands
    group: tuple[str, ...]
    weight: NDArray[np.float64]
    untrained: NDArray[np.float64]  # (C,), the mean of networks that have not been trained
    sources: tuple[tuple[str, float], ...] = ()  # mean weight of each layer of further rasters
    starts: NDArray[np.float64] | None = None  # (N, C) weights of single networks that have not been trained

    @classmethod
    def of(
        cls,
        tables: Sequence[BandWeights],
        architecture: Mapping[str, Any],
        *,
        groups: Sequence[BandGroup] = (),
        resamples: int = 1,
    ) -> Profiles:
        """Profiles of runs with the same bands, groups and architecture; the first T runs are one on each resample."""
        first = tables[0]
        weight = np.stack([table.weight for table in tables]).reshape(-1, resamples, len(first.bands))
        of_layers = np.mean([[layer for _, layer in table.sources] for table in tables], axis=0).tolist()
        sources = tuple(zip((name for name, _ in first.sources), of_layers, strict=True))
        options = {key: architecture[key] for key in ("knot_spacing_nm", "channels") if key in architecture}
        fusion, constraint = architecture.get("fusion", "channel"), architecture.get("constraint", "signed")
        alike = not fusion.startswith("channel") or constraint == "convex"
        ends = [(group.lower_nm, group.upper_nm) for group in groups]
        reach = (min(lower for lower, _ in ends), max(upper for _, upper in ends)) if ends else None
        starts = untrained_weights(first, alike=alike, reach_nm=reach, **options)
        return cls(first.bands, first.group, weight, starts.mean(0), sources, None if fusion == "free" else starts)

    @property
    def runs(self) -> NDArray[np.float64]:
        """(S T, C)."""
        return self.weight.reshape(-1, self.weight.shape[2])

    @cached_property
    def used(self) -> NDArray[np.int64]:
        """(C',) the bands that networks may use."""
        return usable_bands(self.bands, self.group)

    @cached_property
    def reported(self) -> BandWeights:
        """The median of all runs."""
        return BandWeights(self.bands, self.group, quartiles(self.runs).median, self.sources)

    @property
    def ensembles(self) -> NDArray[np.float64]:
        """(T, C) the median of each resample, over runs with different seeds; for a single resample, its S runs."""
        if self.weight.shape[1] == 1:
            return self.weight[:, 0]
        return np.stack([quartiles(runs).median for runs in self.weight.transpose(1, 0, 2)])

    def relative(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """The part of weights (..., C) that is judged: bands in use (..., C'), relative to untrained networks."""
        return relative_profiles(weight, self.untrained)[..., self.used]

    def windows(self, size: int = 7) -> NDArray[np.bool_]:
        """(U, C) windows of a number of neighbouring bands that networks may use."""
        from hsfusion.trust.faithfulness import band_windows  # with scikit-learn

        within = band_windows(self.bands.wavelength_nm[self.used], size=size)
        windows = np.zeros((len(within), len(self.bands)), bool)
        windows[:, self.used] = within
        return windows

    @property
    def selected(self) -> NDArray[np.bool_]:
        """(S T, C) the bands of each run whose weight training raised most."""
        chosen = np.zeros(self.runs.shape, bool)
        chosen[:, self.used] = top_bands(self.relative(self.runs), compared_bands(self.used.size)[0])
        return chosen

    @cached_property
    def spread(self) -> WeightSpread:
        """Quartiles and shares of selection over the runs."""
        of = quartiles(self.runs)
        return WeightSpread(of.lower, of.upper, self.selected.mean(0))

    @cached_property
    def heaviest(self) -> tuple[WavelengthWindow, ...]:
        """The windows of greatest weight."""
        return weight_windows(self.reported, self.selected, profiles=self.runs, untrained=self.untrained)

    @property
    def uniformity_p(self) -> float | None:
        """The p-value under the hypothesis of untrained weights; None where nothing can be compared."""
        rows, windows = self.relative(self.ensembles), self.windows()
        if min(len(rows), len(windows)) < 2:
            return None
        untrained = (self.relative(of.ensembles) for of in self.untrained_sets)
        return uniformity_p(rows, windows[:, self.used], untrained=untrained)

    @property
    def untrained_sets(self) -> list[Profiles]:
        """Sets of as many untrained networks as there are runs; empty if untrained weights are unknown."""
        if self.starts is None:
            return []
        chosen = np.random.default_rng(0).integers(len(self.starts), size=(_UNTRAINED, *self.weight.shape[:2]))
        return [replace(self, weight=self.starts[of]) for of in chosen]

    @property
    def uniformity_ratio(self) -> float | None:
        """How far the windows of single runs, one per resample, differ beyond chance: mean over the seeds."""
        windows = self.windows()
        if min(self.weight.shape[1], len(windows)) < 2:
            return None
        return float(np.mean([uniformity_ratio(self.relative(runs), windows[:, self.used]) for runs in self.weight]))

    @cached_property
    def stabilities(self) -> dict[str, Stability]:
        """Indices by name: that of single runs, and the reported one, which is that of ensembles if there are any."""
        seeds, resamples, _ = self.weight.shape
        if seeds * resamples == 1:
            return {}
        members = seeds if resamples > 1 else 1
        return {"single": self._stability(self.runs, 1), "reported": self._stability(self.ensembles, members)}

    def index_of_untrained(self) -> Stability | None:
        """The index of untrained networks: mean and central 95 % over sets of as many as the runs."""
        reported = [of.stabilities["reported"] for of in self.untrained_sets if of.stabilities]
        index = [of.index for of in reported if np.isfinite(of.index)]
        if not index:
            return None
        lower, upper = np.quantile(index, [0.025, 0.975]).tolist()
        return replace(reported[0], index=float(np.mean(index)), lower=lower, upper=upper)

    def index_of_members(self) -> dict[str, float]:
        """The index of medians of 1, 2, 3 and 5 of the S runs of each resample: mean over S choices of runs."""
        seeds, resamples, _ = self.weight.shape

        def index(number: int) -> float:
            choices = [(first + np.arange(number)) % seeds for first in range(seeds)]
            medians = [replace(self, weight=self.weight[chosen]).ensembles for chosen in choices]
            return float(np.mean([self._stability(of).index for of in medians]))

        return {str(number): index(number) for number in (1, 2, 3, 5) if number <= seeds and resamples > 1}

    def _stability(self, profiles: NDArray[np.float64], members: int = 1) -> Stability:
        nm, (bands, half_width) = self.bands.wavelength_nm[self.used], compared_bands(self.used.size)
        return window_stability(self.relative(profiles), nm, bands=bands, half_width=half_width, members=members)


def usable_bands(bands: Bands, group: Sequence[str]) -> NDArray[np.int64]:
    """(C',) the bands that networks may use: good ones in a group."""
    return np.flatnonzero(bands.good & np.array([bool(name) for name in group]))


@dataclass(frozen=True, eq=False)
class WeightComparison:
    """The comparison of the band weights of runs, as figures, tables and the verdict show it.

    Attributes:
        profiles: the weights of each run.
        groups: name, and lower and upper limit [lower, upper) in nm, of each band group.
        evidence: content of ``evidence.json``; None for run folders.
        first: the first run; None for an evidence folder.
        importance: worth of windows, mean over the runs; None if a run had no validation pixels.
    """

    runs: tuple[RunRecord, ...]
    profiles: Profiles
    verdict: Verdict
    groups: tuple[tuple[str, float, float], ...]
    importance: WindowImportance | None
    evidence: dict[str, Any] | None = None
    first: Run | None = None

    @property
    def reported(self) -> BandWeights:
        """The weights of the run; for several runs their median, for further rasters their mean."""
        return self.profiles.reported

    @property
    def spread(self) -> WeightSpread | None:
        """Quartiles, and shares of selection; None for one run."""
        return self.profiles.spread if len(self.runs) > 1 else None

    @property
    def stability(self) -> Stability | None:
        """Agreement of single runs, or of ensembles; None for one run."""
        return self.profiles.stabilities.get("reported")

    @property
    def windows(self) -> tuple[WavelengthWindow, ...]:
        """The windows of greatest weight."""
        return self.profiles.heaviest

    @cached_property
    def statistics(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Mean (C,) and correlation (C, C) of the training spectra of the first run."""
        run = self.first or load_run(self.runs[0].folder or "")
        mean, correlation = run.statistics
        number = len(self.reported.bands)  # without further rasters
        return mean[:number], correlation[:number, :number]

    @cached_property
    def atmospheric(self) -> NDArray[np.bool_]:
        """(C,) bands whose values may come from the atmosphere, see docs/weights.md."""
        used = np.isin(np.arange(len(self.reported.bands)), self.profiles.used)
        flags = atmospheric_bands(self.statistics[0], self.reported.bands.wavelength_nm, used)
        return flags["spike"] | flags["edge"]

    @property
    def sentences(self) -> tuple[str, ...]:
        """Sentences of the verdict, and one on heavy windows with bands that may come from the atmosphere."""
        nm, held = self.reported.bands.wavelength_nm, []
        for window in self.windows:
            inside = nm[self.atmospheric & (nm >= window.lower_nm) & (nm <= window.upper_nm)]
            if inside.size:
                bands = ", ".join(f"{of:.0f}" for of in np.sort(inside))
                held.append(f"{window.lower_nm:.0f}-{window.upper_nm:.0f} nm (at {bands} nm)")
        start = (
            "Heavy windows at an absorption edge or a spike of the atmospheric correction, which may make their weight"
        )
        return (*self.verdict.sentences, *([f"{start}: {'; '.join(held)}."] if held else []))

    @property
    def scene(self) -> str:
        """Name of the scene; several names are joined by +."""
        return " + ".join(dict.fromkeys(run.scene for run in self.runs))

    @property
    def stamp(self) -> str | None:
        """The warning stamped on figures; None if none is needed."""
        return None if self.verdict.word == "supported" else self.verdict.word

    @property
    def origin(self) -> str:
        """The runs behind the reported weights, in words."""
        return f"seed {self.runs[0].seed}, one run" if len(self.runs) == 1 else f"median of {len(self.runs)} runs"

    def groups_in(self, lower_nm: float, upper_nm: float) -> str:
        """Names of the groups of the bands from one wavelength to another, joined by ``|``."""
        nm, group = self.reported.bands.wavelength_nm, self.reported.group
        inside = np.flatnonzero((nm >= lower_nm) & (nm <= upper_nm))
        return "|".join(dict.fromkeys(name for c in inside for name in group[c].split("|") if name))


def compare(runs: Run | str | Path | Iterable[Run | str | Path]) -> WeightComparison:
    """Compares the band weights of runs: median, spread, windows, stability and verdict.

    Args:
        runs: from :func:`hsfusion.train`, or their folders; one or more, all with the same bands.

    Returns:
        the comparison: ``verdict``, ``reported`` (the median weights), ``spread``, ``stability``, ``windows``
    """
    runs = [runs] if isinstance(runs, Run | str | Path) else runs
    opened = [run if isinstance(run, Run) else load_run(run) for run in runs]
    if not opened:
        raise InputError("compare", "runs", "none", "at least one", "name runs or their folders")
    for run in opened:
        _check_same_bands(opened[0], run)
    _check_no_copies(opened)
    first = opened[0].weights
    header = opened[0].header
    profiles = Profiles.of([run.weights for run in opened], header.architecture, groups=header.groups)
    records, importance = tuple(map(RunRecord.of, opened)), mean_importance([run.metrics for run in opened])
    free = any(run.fusion == "free" for run in records)
    carried = len(records) > 1 and any(run.carried for run in records)
    pairs = {(pair.first, pair.second): pair for run in records for pair in run.duplicates}
    judged = verdict(
        profiles.heaviest,
        beats_chance=[run.beats_chance for run in records],
        chance=[run.chance for run in records],
        uniformity_p=profiles.uniformity_p,
        stability=profiles.stabilities.get("reported"),
        pairs=[pairs[key] for key in sorted(pairs)],
        wavelength_nm=first.bands.wavelength_nm,
        unreadable=FREE if free else _TRANSFERRED if carried else None,
    )
    known = () if opened[0].header.fusion == "free" else opened[0].header.groups
    groups = tuple((group.name, group.lower_nm, group.upper_nm) for group in known)
    judged = with_importance(judged, importance)
    return WeightComparison(records, profiles, judged, groups, importance, first=opened[0])


def _check_no_copies(runs: Sequence[Run]) -> None:
    """Refuses two copies of one training, which agree by construction."""
    weights = [[*run.weights.weight, *(weight for _, weight in run.weights.sources)] for run in runs]
    for this, other in combinations(range(len(runs)), 2):
        if np.allclose(weights[this], weights[other], rtol=1e-8, atol=0):  # tables hold nine digits
            first, second = (runs[i].folder or runs[i].name for i in (this, other))
            fix = "drop one of the two, or train with another seed"
            raise InputError(second, "weights", f"those of {first}", "those of another training", fix)


def _check_same_bands(first: Run, run: Run) -> None:
    """Refuses runs with different bands: averages over windows would hide what the sensors see."""
    tables = first.weights, run.weights
    nm, other = (table.bands.wavelength_nm for table in tables)
    used, of_run = (usable_bands(table.bands, table.group) for table in tables)
    sources = [[name for name, _ in table.sources] for table in tables]
    same = nm.shape == other.shape and np.allclose(nm, other, rtol=0, atol=1e-3) and np.array_equal(used, of_run)
    if not same or sources[0] != sources[1]:
        first_other = np.flatnonzero(np.abs(nm - other) > 1e-3)[:1] if nm.shape == other.shape else []
        named = ["".join(f" (band {i + 1}: {of[i]:g} nm)" for i in first_other) for of in (nm, other)]
        expected, value = (
            " + ".join([f"{nm.size} from {nm[0]:g} to {nm[-1]:g} nm{differs}, {used.size} in use", *names])
            for nm, used, names, differs in zip((nm, other), (used, of_run), sources, named, strict=True)
        )
        raise InputError(run.folder or run.name, "bands", value, expected, "compare runs of the same bands and order")


def read_evidence(folder: str | Path) -> WeightComparison:
    """Reads an evidence folder, with the results so far."""
    path = Path(folder) / EVIDENCE
    try:
        return _from_content(path.parent, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        value = f"unreadable ({type(error).__name__}: {error})"
        raise InputError(path, "content", value, "that of an evidence run", "run the evidence again") from error


def _from_content(folder: Path, content: dict[str, Any]) -> WeightComparison:
    bands, runs = Bands.from_dict(content["bands"]), content["runs"]
    shape = -1, len({run["resample"] for run in runs}), len(bands)
    profiles = Profiles(
        bands,
        tuple(content["band_groups"]),
        np.array(content["profiles"], np.float64).reshape(shape),
        np.array(content["untrained"], np.float64).reshape(len(bands)),
        tuple((source["name"], source["weight"]) for source in content["sources"]),
    )
    judged = content["verdict"]
    return WeightComparison(
        tuple(_record(folder, content, run) for run in runs),
        profiles,
        Verdict(judged["word"], tuple(judged["sentences"]), profiles.heaviest[: len(judged["windows"])]),
        tuple((group["name"], group["lower_nm"], group["upper_nm"]) for group in content["groups"]),
        mean_importance([content]),
        evidence=content,
    )


def _record(folder: Path, content: dict[str, Any], run: dict[str, Any]) -> RunRecord:
    return RunRecord(
        folder / "runs" / Path(run["folder"]).name,  # the folder may have been moved
        content["scene"],
        run["seed"],
        *(content["split"][key] for key in ("kind", "leakage")),
        *(run[key] for key in ("overall_accuracy", "average_accuracy", "beats_chance")),
        resample=run["resample"],
        chance=run.get("chance"),
    )


def weights_of(folders: Sequence[Path]) -> WeightComparison:
    """The weights of one evidence folder, or of several runs."""
    if not any((folder / EVIDENCE).exists() for folder in folders):
        return compare(folders)
    if len(folders) > 1:
        expected = "one evidence folder alone, or runs"
        raise InputError("command line", "folders", ", ".join(map(str, folders)), expected, "name one")
    return read_evidence(folders[0])
