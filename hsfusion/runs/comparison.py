"""The band weights of one run or several beside each other, and how far they can be believed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.runs.folder import checked_keys
from hsfusion.runs.run import Run, load_run
from hsfusion.scenes.survey import atmospheric_bands
from hsfusion.spectra import Bands, BandWeights
from hsfusion.spectra.weights import WeightSpread, untrained_weight
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

#: the file that an evidence run leaves
EVIDENCE = "evidence.json"
_TRANSFERRED = "Runs that were transferred from another network start from its weights: that they agree is no evidence."


@dataclass(frozen=True)
class RunRecord:
    """A run and how well its network does on test pixels, as fractions.

    Attributes:
        split: its kind.
        carried: whether the training started from another network.
        resample: of the training pixels; None for all of them.
        chance: fields of :class:`hsfusion.trust.chance.Chance`; None of a run that was not compared.
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
class WeightComparison:
    """The band weights of runs, compared: what figures, tables and the verdict show.

    Attributes:
        profiles: (R, C), the band weights of each run.
        reported: of the run; of several runs the median, of further rasters the mean.
        stability: of single runs, or of ensembles; None for one run, or where it is not measured yet.
        untrained: (C,), the mean weights of networks that have not been trained.
        verdict: None where an evidence run has not got so far.
        groups: name, first wavelength, and first beyond the last, of each band group in nm.
        evidence: content of ``evidence.json``; None for run folders.
        first: of the runs; None for an evidence folder.
        importance: what windows are worth, the mean over the runs; None where a run had no validation pixels.
    """

    runs: tuple[RunRecord, ...]
    profiles: NDArray[np.float64]
    reported: BandWeights
    spread: WeightSpread | None
    stability: Stability | None
    windows: tuple[WavelengthWindow, ...]
    untrained: NDArray[np.float64]
    verdict: Verdict | None
    groups: tuple[tuple[str, float, float], ...]
    evidence: dict[str, Any] | None = None
    first: Run | None = None
    importance: WindowImportance | None = None

    @property
    def used(self) -> NDArray[np.int64]:
        """(C',) the bands that networks may use: good ones in a group."""
        return _used(self.reported)

    @cached_property
    def statistics(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Mean (C,) and correlation (C, C) of the training spectra of the first run."""
        run = self.first or load_run(self.runs[0].folder or "")
        mean, correlation = run.statistics
        number = len(self.reported.bands)  # without further rasters
        return mean[:number], correlation[:number, :number]

    @cached_property
    def atmospheric(self) -> NDArray[np.bool_]:
        """(C,) bands whose values may be made by the atmosphere, see docs/weights.md."""
        used = np.isin(np.arange(len(self.reported.bands)), self.used)
        flags = atmospheric_bands(self.statistics[0], self.reported.bands.wavelength_nm, used)
        return flags["spike"] | flags["edge"]

    @property
    def atmospheric_sentences(self) -> tuple[str, ...]:
        """One that names the heaviest windows that hold such bands, if any do."""
        nm, held = self.reported.bands.wavelength_nm, []
        for window in self.windows:
            inside = nm[self.atmospheric & (nm >= window.lower_nm) & (nm <= window.upper_nm)]
            if inside.size:
                bands = ", ".join(f"{of:.0f}" for of in np.sort(inside))
                held.append(f"{window.lower_nm:.0f}-{window.upper_nm:.0f} nm (at {bands} nm)")
        start = (
            "Heavy windows at an absorption edge or a spike of the atmospheric correction, which may make their weight"
        )
        return (f"{start}: {'; '.join(held)}.",) if held else ()

    @property
    def scene(self) -> str:
        """Name of the scene; of several joined by +."""
        return " + ".join(dict.fromkeys(run.scene for run in self.runs))

    @property
    def stamp(self) -> str | None:
        """The warning that figures bear; None where the weights can be shown without."""
        if self.verdict is None:
            return "not finished"
        return None if self.verdict.word == "supported" else self.verdict.word

    @property
    def origin(self) -> str:
        """Of which runs the reported weights are."""
        return f"seed {self.runs[0].seed}, one run" if len(self.runs) == 1 else f"median of {len(self.runs)} runs"

    def groups_in(self, lower_nm: float, upper_nm: float) -> str:
        """Names of the groups of the bands from one wavelength to another, joined by ``|``."""
        nm, group = self.reported.bands.wavelength_nm, self.reported.group
        inside = np.flatnonzero((nm >= lower_nm) & (nm <= upper_nm))
        return "|".join(dict.fromkeys(name for c in inside for name in group[c].split("|") if name))


@dataclass(frozen=True, eq=False)
class Profiles:
    """The weights (S, T, C) of S runs of each of T resamples; ``used`` are the (C',) bands that networks may use."""

    bands: Bands
    group: tuple[str, ...]
    used: NDArray[np.int64]
    weight: NDArray[np.float64]
    untrained: NDArray[np.float64]  # (C,)
    sources: tuple[tuple[str, float], ...] = ()  # mean weight of each layer of further rasters

    @property
    def runs(self) -> NDArray[np.float64]:
        """(S T, C)."""
        return self.weight.reshape(-1, self.weight.shape[2])

    @property
    def reported(self) -> BandWeights:
        """The median of all runs."""
        return BandWeights(self.bands, self.group, quartiles(self.runs).median, self.sources)

    @property
    def ensembles(self) -> NDArray[np.float64]:
        """(T, C) the median of each resample, whose runs have seeds of their own; of a single one its S runs."""
        if self.weight.shape[1] == 1:
            return self.weight[:, 0]
        return np.stack([quartiles(runs).median for runs in self.weight.transpose(1, 0, 2)])

    def relative(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is judged of weights (..., C): those of the bands in use (..., C'), relative to untrained networks."""
        return relative_profiles(weight, self.untrained)[..., self.used]

    def windows(self, size: int = 7) -> NDArray[np.bool_]:
        """(U, C) windows of so many neighbouring bands that networks may use."""
        from hsfusion.trust.faithfulness import band_windows  # with scikit-learn

        within = band_windows(self.bands.wavelength_nm[self.used], size=size)
        windows = np.zeros((len(within), len(self.bands)), bool)
        windows[:, self.used] = within
        return windows

    @property
    def selected(self) -> NDArray[np.bool_]:
        """(S T, C) the bands of each run that training raised most."""
        chosen = np.zeros(self.runs.shape, bool)
        chosen[:, self.used] = top_bands(self.relative(self.runs), compared_bands(self.used.size)[0])
        return chosen

    @property
    def spread(self) -> WeightSpread:
        """Quartiles and shares of selection over the runs."""
        of = quartiles(self.runs)
        return WeightSpread(of.lower, of.upper, self.selected.mean(0))

    @property
    def heaviest(self) -> tuple[WavelengthWindow, ...]:
        """The windows of greatest weight."""
        return weight_windows(self.reported, self.selected, profiles=self.runs, untrained=self.untrained)

    @property
    def uniformity_p(self) -> float | None:
        """The p-value of weights that are those of untrained networks; None where nothing can be compared."""
        rows, windows = self.relative(self.ensembles), self.windows()
        return uniformity_p(rows, windows[:, self.used]) if min(len(rows), len(windows)) > 1 else None

    @property
    def uniformity_ratio(self) -> float | None:
        """How far the windows of single runs, one for each resample, differ beyond chance: the mean over the seeds."""
        windows = self.windows()
        if min(self.weight.shape[1], len(windows)) < 2:
            return None
        return float(np.mean([uniformity_ratio(self.relative(runs), windows[:, self.used]) for runs in self.weight]))

    def stabilities(self) -> dict[str, Stability]:
        """Indices by name: of the single runs, and the one reported, of ensembles where there are any."""
        seeds, resamples, _ = self.weight.shape
        if seeds * resamples == 1:
            return {}
        members = seeds if resamples > 1 else 1
        return {"single": self._stability(self.runs, 1), "reported": self._stability(self.ensembles, members)}

    def index_of_members(self) -> dict[str, float]:
        """The index of medians of 1, 2, 3 and 5 of the S runs of each resample, the mean over S choices of them."""
        seeds, resamples, _ = self.weight.shape
        places = np.arange(seeds)
        return {
            str(number): float(
                np.mean(
                    [
                        self._stability(
                            replace(self, weight=self.weight[(first + places[:number]) % seeds]).ensembles
                        ).index
                        for first in places
                    ]
                )
            )
            for number in (1, 2, 3, 5)
            if number <= seeds and resamples > 1
        }

    def _stability(self, profiles: NDArray[np.float64], members: int = 1) -> Stability:
        nm, (bands, half_width) = self.bands.wavelength_nm[self.used], compared_bands(self.used.size)
        return window_stability(self.relative(profiles), nm, bands=bands, half_width=half_width, members=members)


def compare(runs: Sequence[Run | str | Path]) -> WeightComparison:
    """Compares the band weights of runs: median, spread, windows, stability and verdict.

    Args:
        runs: from :func:`hsfusion.train`, or their folders; at least one, all of the same bands.

    Returns:
        the comparison: ``verdict``, ``reported`` (the median weights), ``spread``, ``stability``, ``windows``
    """
    opened = [run if isinstance(run, Run) else load_run(run) for run in runs]
    for run in opened:
        _check_same_bands(opened[0], run)
    every = np.stack([[*run.weights.weight, *(w for _, w in run.weights.sources)] for run in opened])  # (R, C + E)
    _check_no_copies(opened, every)
    first, number = opened[0].weights, len(opened[0].weights.bands)
    sources = zip((name for name, _ in first.sources), every[:, number:].mean(0).tolist(), strict=True)
    profiles = Profiles(
        *(first.bands, first.group, _used(first)), every[:, None, :number], untrained_weight(first), tuple(sources)
    )
    records, importance = tuple(map(RunRecord.of, opened)), mean_importance([run.metrics for run in opened])
    several, free = len(records) > 1, any(run.fusion == "free" for run in records)
    stability, windows = profiles.stabilities().get("reported"), profiles.heaviest
    pairs = {(pair.first, pair.second): pair for run in records for pair in run.duplicates}
    judged = verdict(
        windows,
        beats_chance=[run.beats_chance for run in records],
        chance=[run.chance for run in records],
        uniformity_p=profiles.uniformity_p,
        stability=stability,
        pairs=[pairs[key] for key in sorted(pairs)],
        wavelength_nm=first.bands.wavelength_nm,
        unreadable=FREE if free else _TRANSFERRED if several and any(run.carried for run in records) else None,
    )
    known = () if records[0].fusion == "free" else opened[0].header.groups
    return WeightComparison(
        records,
        profiles.runs,
        profiles.reported,
        profiles.spread if several else None,
        stability,
        windows,
        profiles.untrained,
        with_importance(judged, importance),
        tuple((group.name, group.lower_nm, group.upper_nm) for group in known),
        first=opened[0],
        importance=importance,
    )


def _used(table: BandWeights) -> NDArray[np.int64]:
    """Bands (C',) of :attr:`WeightComparison.used`."""
    return np.flatnonzero(table.bands.good & np.array([bool(group) for group in table.group]))


def _check_no_copies(runs: Sequence[Run], weights: NDArray[np.float64]) -> None:
    """Refuses one training twice: it agrees with itself."""
    first: dict[bytes, Run] = {}
    for run, row in zip(runs, weights, strict=True):
        other = first.setdefault(row.tobytes(), run)
        if other is not run:
            value, fix = f"those of {other.folder or other.name}", "drop one of the two, or train with another seed"
            raise InputError(run.folder or run.name, "weights", value, "those of another training", fix)


def _check_same_bands(first: Run, run: Run) -> None:
    """Refuses runs whose profiles have no common axis: an average over windows would hide what the sensors see."""
    tables = first.weights, run.weights
    nm, other = (table.bands.wavelength_nm for table in tables)
    used, of_run = (_used(table) for table in tables)
    sources = [[name for name, _ in table.sources] for table in tables]
    same = nm.shape == other.shape and np.allclose(nm, other, rtol=0, atol=1e-3) and np.array_equal(used, of_run)
    if not same or sources[0] != sources[1]:
        expected, value = (
            " + ".join([f"{nm.size} from {nm.min():g} to {nm.max():g} nm, {used.size} in use", *names])
            for nm, used, names in zip((nm, other), (used, of_run), sources, strict=True)
        )
        raise InputError(run.folder or run.name, "bands", value, expected, "compare runs of the same bands only")


def read_evidence(folder: str | Path) -> WeightComparison:
    """Reads an evidence folder; stages that are not done yet are left out."""
    path = Path(folder) / EVIDENCE
    try:
        return _from_content(path.parent, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        value = f"unreadable ({type(error).__name__}: {error})"
        raise InputError(path, "content", value, "that of an evidence run", "run the evidence again") from error


def _from_content(folder: Path, content: dict[str, Any]) -> WeightComparison:
    bands = Bands.from_dict(content["bands"])

    def per_band(values: Any) -> NDArray[np.float64]:
        return np.array(values, np.float64).reshape(len(bands))

    sources = tuple((source["name"], source["weight"]) for source in content["sources"])
    reported = BandWeights(bands, tuple(content["band_groups"]), per_band(content["ensemble"]), sources)
    lower, upper = (per_band(content["quartiles"][key]) for key in ("lower", "upper"))
    agreement: dict[str, Any] = content.get("stability", {}).get("reported") or {}
    stability: dict[str, Any] = {key: math.nan if value is None else value for key, value in agreement.items()}
    judged: dict[str, Any] | None = content.get("verdict")
    limits = tuple((group["name"], group["lower_nm"], group["upper_nm"]) for group in content["groups"])
    return WeightComparison(
        tuple(_record(folder, content, run) for run in content["runs"]),
        np.array(content["profiles"], np.float64).reshape(len(content["runs"]), len(bands)),
        reported,
        WeightSpread(lower, upper, per_band(content["selection_frequency"])),
        Stability(**stability) if stability else None,
        _windows(content.get("top_windows", [])),
        per_band(content["untrained"]),
        None if judged is None else Verdict(judged["word"], tuple(judged["sentences"]), _windows(judged["windows"])),
        limits,
        content,
        importance=mean_importance([content]),
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


def _windows(rows: list[dict[str, Any]]) -> tuple[WavelengthWindow, ...]:
    names = ("lower_nm", "upper_nm", "weight", "raised", "frequency")
    return tuple(WavelengthWindow(*(row[name] for name in names)) for row in rows)


def weights_of(folders: Sequence[Path]) -> WeightComparison:
    """The weights of one evidence folder, or of several runs."""
    if not any((folder / EVIDENCE).exists() for folder in folders):
        return compare(folders)
    if len(folders) > 1:
        expected = "one evidence folder alone, or runs"
        raise InputError("command line", "folders", ", ".join(map(str, folders)), expected, "name one")
    return read_evidence(folders[0])
