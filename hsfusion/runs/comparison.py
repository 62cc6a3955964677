"""The band weights of one run or several beside each other, and how far they can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.runs.run import Run, load_run
from hsfusion.spectra import BandWeights
from hsfusion.spectra.weights import WeightSpread, untrained_weight

if TYPE_CHECKING:
    from hsfusion.trust.stability import Stability
    from hsfusion.trust.verdict import Verdict, WavelengthWindow


@dataclass(frozen=True)
class RunRecord:
    """A run and how well its network does.

    Attributes:
        folder: of the run; None where it is not saved.
        scene: its name.
        seed: of the training.
        split: its kind.
        leakage: share of the test pixels that see a training or validation pixel.
        overall_accuracy: fraction, on test pixels.
        average_accuracy: fraction, on test pixels.
        beats_chance: whether the network knows more than chance about these.
        duplicates: pairs of bands by index, and the correlation for which they say the same.
        fusion: kind of its network.
        carried: whether the network was carried over from another one.
        resample: of the training pixels; None for all of them.
    """

    folder: Path | None
    scene: str
    seed: int
    split: str
    leakage: float
    overall_accuracy: float
    average_accuracy: float
    beats_chance: bool
    duplicates: tuple[tuple[int, int, float], ...] = ()
    fusion: str = "channel"
    carried: bool = False
    resample: int | None = None


@dataclass(frozen=True, eq=False)
class WeightComparison:
    """What there is to draw, to write and to say.

    Attributes:
        runs: the runs, R.
        profiles: (R, C), the band weights of each.
        reported: of the run; of several runs the median, of further rasters the mean.
        spread: quartiles and selection frequency; None for one run.
        stability: of single runs, or of ensembles; None for one run, or where it is not measured yet.
        windows: that hold most weight.
        untrained: (C,), the mean weights of networks that have not been trained.
        verdict: None where an evidence run has not got so far.
        groups: name, first wavelength, and first beyond the last, of each band group in nm.
        evidence: content of ``evidence.json``; None for run folders.
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

    @property
    def scene(self) -> str:
        """Name of the scene; of several joined by +."""
        return " + ".join(dict.fromkeys(run.scene for run in self.runs))

    @property
    def stamp(self) -> str | None:
        """The warning that figures bear; None where the weights can be shown without."""
        if self.verdict is None:
            return "not finished"
        return None if self.verdict.word in {"supported", "not tested"} else self.verdict.word

    def stamped(self, title: str) -> str:
        """A title with the warning, if there is one."""
        return title if self.stamp is None else f"{title} [{self.stamp}]"

    @property
    def made(self) -> str:
        """Of which runs the reported weights are."""
        return f"seed {self.runs[0].seed}, one run" if len(self.runs) == 1 else f"median of {len(self.runs)} runs"

    def groups_in(self, lower_nm: float, upper_nm: float) -> str:
        """Names of the groups of the bands from one wavelength to another, joined by ``|``."""
        nm, group = self.reported.bands.wavelength_nm, self.reported.group
        inside = np.flatnonzero((nm >= lower_nm) & (nm <= upper_nm))
        return "|".join(dict.fromkeys(name for c in inside for name in group[c].split("|") if name))


def compare(runs: Sequence[Run | str | Path]) -> WeightComparison:
    """Compares the band weights of runs: median, spread, windows, stability and verdict.

    Args:
        runs: from :func:`hsfusion.train`, or their folders; at least one.

    Returns:
        the comparison: ``verdict``, ``reported`` (the median weights), ``spread``, ``stability``, ``windows``

    Raises:
        InputError: if a folder is no finished run, the runs have other bands than the first, or one stands twice.
    """
    if not runs:
        raise InputError("compare", "number of runs", 0, "at least 1", "name a run")
    opened = [run if isinstance(run, Run) else load_run(run) for run in runs]
    tables = [run.weights for run in opened]
    names = [str(run.folder or run.name) for run in opened]
    for name, table in zip(names, tables, strict=True):
        _check_same_bands(names[0], tables[0], name, table)
    _check_no_copies(names, tables)
    first, every = tables[0], np.stack([_with_sources(table) for table in tables])  # (R, C + E)
    profiles = every[:, : len(first.bands)]
    relative, selected = _selected(profiles, first)
    reported, spread = (first, None) if len(opened) == 1 else _over_runs(every, selected, first)
    records = tuple(map(_record, opened))
    return _judged(records, profiles, reported, relative=relative, selected=selected, spread=spread)


def _record(run: Run) -> RunRecord:
    split, test = run.metrics["split"], run.metrics["test"]
    carried = run.folder is not None and (run.folder / "transfer.json").exists()
    return RunRecord(
        run.folder,
        run.header.scene_name or "",
        run.metrics["seed"],
        split["kind"],
        split["leakage"],
        test["overall_accuracy"],
        test["average_accuracy"],
        run.beats_chance,
        tuple((pair.first, pair.second, pair.correlation) for pair in run.duplicates),
        run.header.fusion,
        carried or (run.training is not None and run.training.experiment.initial.transfer is not None),
    )


def _selected(profiles: NDArray[np.float64], table: BandWeights) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Weights (R, C) as multiples of what untrained networks give, and which bands each run raises most."""
    from hsfusion.trust.stability import compared_bands, relative_profiles, top_bands

    relative, used = relative_profiles(profiles, untrained_weight(table)), _used(table)
    selected = np.zeros(relative.shape, bool)
    if used.size > 1:  # a lone band is selected by every run
        selected[:, used] = top_bands(relative[:, used], compared_bands(used.size)[0])
    return relative, selected


def _used(table: BandWeights) -> NDArray[np.int64]:
    """(C',) the bands that networks may use: good ones in a group."""
    return np.flatnonzero(table.bands.good & np.array([bool(group) for group in table.group]))


def _judged(
    runs: tuple[RunRecord, ...],
    profiles: NDArray[np.float64],
    reported: BandWeights,
    *,
    relative: NDArray[np.float64],
    selected: NDArray[np.bool_],
    spread: WeightSpread | None,
) -> WeightComparison:
    """The weights with their windows, stability and verdict."""
    from hsfusion.trust.faithfulness import band_windows
    from hsfusion.trust.stability import compared_bands, nogueira, uniformity_p, widened
    from hsfusion.trust.verdict import Duplicate, verdict, weight_windows

    nm, used = reported.bands.wavelength_nm, _used(reported)
    stability = uniform = None
    if len(runs) > 1:
        half_width = compared_bands(used.size)[1]
        stability = nogueira(widened(selected[:, used], nm[used], half_width=half_width))
        # windows hold 7 bands at most
        uniform = uniformity_p(relative[:, used], band_windows(nm[used])) if used.size > 7 else None
    untrained = untrained_weight(reported)
    windows = weight_windows(reported, selected, profiles=profiles, untrained=untrained)
    judged = verdict(
        windows,
        beats_chance=[run.beats_chance for run in runs],
        uniformity_p=uniform,
        stability=stability,
        p_values={},
        pairs=[
            Duplicate(*pair) for pair in sorted({pair[:2]: pair for run in runs for pair in run.duplicates}.values())
        ],
        wavelength_nm=nm,
        unreadable=_unreadable(runs),
    )
    return WeightComparison(
        runs, profiles, reported, spread, stability, windows, untrained, judged, groups_of(reported)
    )


def _unreadable(runs: tuple[RunRecord, ...]) -> str | None:
    """Why the weights of these runs say nothing, whatever the numbers; None where they can be read."""
    from hsfusion.trust.verdict import FREE

    if any(run.fusion == "free" for run in runs):
        return FREE
    if len(runs) > 1 and any(run.carried for run in runs):
        return (
            "Runs that were carried over from another network start from its weights: that they agree is no evidence."
        )
    return None


def split_kinds(content: dict[str, Any]) -> list[str]:
    """Kinds of split of which there are accuracies on k bands; the configured one first."""
    return [kind for kind in dict.fromkeys((content["split"]["kind"], "random")) if kind in content.get("top_k", {})]


def groups_of(weights: BandWeights) -> tuple[tuple[str, float, float], ...]:
    """Name, first wavelength, and first beyond the last, of each group in nm, as far as its bands tell.

    Groups whose bands are neighbours meet half-way.
    """
    nm = weights.bands.wavelength_nm
    limits: dict[str, tuple[float, float]] = {}
    for at, names in zip(nm.tolist(), weights.group, strict=True):
        for name in filter(None, names.split("|")):
            lower, upper = limits.get(name, (np.inf, 0.0))
            limits[name] = (min(lower, at), max(upper, float(np.nextafter(at, np.inf))))
    near = 3 * float(np.median(np.diff(np.sort(nm)))) if nm.size > 1 else 0.0
    for one, other in pairwise(sorted(limits, key=lambda name: limits[name])):
        (lower, end), (start, upper) = limits[one], limits[other]
        if 0 < start - end <= near:
            limits[one], limits[other] = (lower, (end + start) / 2), ((end + start) / 2, upper)
    return tuple((name, lower, upper) for name, (lower, upper) in limits.items())


def _with_sources(table: BandWeights) -> NDArray[np.float64]:
    """Weights (C + E,) of the bands and of the layers of further rasters."""
    return np.append(table.weight, [weight for _, weight in table.sources])


def _over_runs(
    every: NDArray[np.float64], selected: NDArray[np.bool_], first: BandWeights
) -> tuple[BandWeights, WeightSpread]:
    """What runs (R, C + E) have in common, and how they spread."""
    from hsfusion.trust.stability import quartiles

    number = len(first.bands)
    of = quartiles(every[:, :number])
    sources = zip((name for name, _ in first.sources), every[:, number:].mean(0).tolist(), strict=True)
    weights = BandWeights(first.bands, first.group, of.median, tuple(sources))
    return weights, WeightSpread(of.lower, of.upper, selected.mean(0))


def _check_no_copies(names: list[str], tables: list[BandWeights]) -> None:
    """Refuses one training twice: it agrees with itself."""
    first: dict[bytes, str] = {}
    for name, table in zip(names, tables, strict=True):
        other = first.setdefault(_with_sources(table).tobytes(), name)
        if other is not name:
            raise InputError(
                name,
                "weights",
                f"those of {other}",
                "another training each",
                "drop one of the two, or train with another seed",
            )


def _check_same_bands(first_name: str, first: BandWeights, name: str, table: BandWeights) -> None:
    """Refuses runs whose profiles have no common axis: an average over windows would hide what the sensors see."""
    nm, other = first.bands.wavelength_nm, table.bands.wavelength_nm
    names = [name for name, _ in first.sources], [name for name, _ in table.sources]
    if nm.shape == other.shape and np.allclose(nm, other, rtol=0, atol=1e-3) and names[0] == names[1]:
        used = [_used(t) for t in (first, table)]
        if np.array_equal(used[0], used[1]):
            return
        what, own = f"{used[1].size} in use of {other.size}", f"the {used[0].size} in use"
    else:
        what = f"{other.size} from {other.min():g} to {other.max():g} nm" + "".join(f" + {n}" for n in names[1])
        own = f"the {nm.size} from {nm.min():g} to {nm.max():g} nm" + "".join(f" + {n}" for n in names[0])
    raise InputError(
        name, "bands", what, f"{own} of {first_name}", "compare runs of the same bands, the others on their own"
    )
