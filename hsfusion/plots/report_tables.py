"""The tables and words of a report, from band weights and from the numbers of an evidence folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsfusion.plots.weights import totals_by_group

_STABILITY = {
    "single": "single runs",
    "reported": "reported: medians over the runs of each resample, with seeds and a draw of pixels of their own",
    "untrained": "control: networks that were not trained, judged the same way",
}
_REPLACED = {"mean": "by their mean", "conditional": "by what the other bands let expect"}
_ESTIMATORS = {"network": "our network", "svm": "an SVM"}


@dataclass(frozen=True, eq=False)
class WeightProfile:
    """Band weights and what is known about each band.

    Attributes:
        wavelength_nm: (C,) centre wavelengths.
        weight: (C,) non-negative; they and the sources sum to 1.
        fwhm_nm: (C,), or None where unknown.
        good: (C,) bool, False for bands that are not used; None for all.
        band_groups: C names, empty for bands in no group; empty for no names at all.
        groups: (name, lower_nm, upper_nm) of each, half-open.
        sources: (name, weight) of each layer of further rasters.
        quartiles: (C,) lower and upper over runs, or None for one run.
        frequency: (C,) share of the runs that select the band, or None for one run.
        profiles: (R, C) the weights of each run whose median this is; None for one run.
        untrained: (C,) what networks that have not been trained give the bands; None for the same everywhere.
    """

    wavelength_nm: NDArray[np.float64]
    weight: NDArray[np.float64]
    fwhm_nm: NDArray[np.float64] | None = None
    good: NDArray[np.bool_] | None = None
    band_groups: Sequence[str] = ()
    groups: Sequence[tuple[str, float, float]] = ()
    sources: Sequence[tuple[str, float]] = ()
    quartiles: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    frequency: NDArray[np.float64] | None = None
    profiles: NDArray[np.float64] | None = None
    untrained: NDArray[np.float64] | None = None


class Table(NamedTuple):
    """A table: the first column heads the rows, the columns of numbers are set flush right."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()


def profile_of(evidence: Mapping[str, Any]) -> WeightProfile | None:
    """The reported profile of an evidence folder; None before its trainings are done."""
    if "ensemble" not in evidence:
        return None
    bands, quartiles = evidence["bands"], evidence.get("quartiles")

    def array(values: Any) -> NDArray[np.float64] | None:
        return None if values is None else np.array(values, np.float64)

    return WeightProfile(
        np.array(bands["wavelength_nm"], np.float64),
        np.array(evidence["ensemble"], np.float64),
        fwhm_nm=array(bands.get("fwhm_nm")),
        good=np.array(bands["good"], bool),
        band_groups=evidence["band_groups"],
        groups=[(group["name"], group["lower_nm"], group["upper_nm"]) for group in evidence["groups"]],
        quartiles=quartiles and (np.array(quartiles["lower"], np.float64), np.array(quartiles["upper"], np.float64)),
        frequency=array(evidence.get("selection_frequency")),
        profiles=array(evidence["profiles"]),
        untrained=array(evidence.get("untrained")),
    )


def curve_caption(profile: WeightProfile) -> str:
    """What the figure of the weights shows."""
    if profile.profiles is None:
        words = (
            "What the forward pass uses of each band; all weights sum to 100 %. One training: another seed spreads the "
            "weight differently within a window."
        )
    else:
        words = (
            f"The median over {len(profile.profiles)} trainings of what the forward pass uses of each band, scaled to "
            "sum to 100 %; the area lies between their quartiles, scaled alike."
        )
    if profile.untrained is not None:
        about = "about " if profile.profiles is None else ""
        words += f" Dashed is {about}what untrained networks give: all groups the same, however few their bands."
    if profile.frequency is not None:
        words += " Below: the share of runs that select each band."
    return words


def curve_in_words(profile: WeightProfile) -> str:
    """The figure of the weights for those who cannot see it."""
    nm, best = profile.wavelength_nm, int(np.argmax(profile.weight))
    expected = (
        f"a uniform weight were {_percent(1 / nm.size)}"
        if profile.untrained is None
        else f"untrained networks give that band {_percent(float(profile.untrained[best]))}"
    )
    words = (
        f"Band weights over wavelength, {nm.size} bands from {nm.min():.0f} to {nm.max():.0f} nm. The largest is "
        f"{_percent(float(profile.weight[best]))} at {nm[best]:.0f} nm, {expected}."
    )
    if profile.frequency is not None:
        often, never = (profile.frequency >= 0.8).sum(), (profile.frequency == 0).sum()
        words += f" {often} bands are selected in at least 80 % of runs, {never} in none."
    return f"{words} The tables below hold the values."


def band_values(profile: WeightProfile) -> list[str]:
    """What is known about each band in words, in order of wavelength."""
    return [_band_in_words(profile, int(c)) for c in np.argsort(profile.wavelength_nm, kind="stable")]


def _band_in_words(profile: WeightProfile, c: int) -> str:
    words = [f"band {c + 1}: {profile.wavelength_nm[c]:.1f} nm"]
    if profile.fwhm_nm is not None:
        words.append(f"FWHM {profile.fwhm_nm[c]:.1f} nm")
    if profile.band_groups and profile.band_groups[c]:
        words.append(f"group {profile.band_groups[c]}")
    words.append(f"weight {100 * profile.weight[c]:.2f} %")
    if profile.quartiles is not None:
        words.append("quartiles {:.2f} and {:.2f} %".format(*(100 * edge[c] for edge in profile.quartiles)))
    if profile.untrained is not None:
        words.append(f"untrained {100 * profile.untrained[c]:.2f} %")
    if profile.frequency is not None:
        words.append(f"selected in {100 * profile.frequency[c]:.0f} % of runs")
    if profile.good is not None and not profile.good[c]:
        words.append("not used")
    return ", ".join(words)


def weight_tables(profile: WeightProfile, windows: Sequence[Sequence[str]]) -> dict[str, Table]:
    """The windows of greatest weight, the groups, and every band.

    Args:
        profile: the weights.
        windows: rows of :func:`window_rows`.
    """
    header = ("window (nm)", "weight", "× untrained", "selected in", "group")[: len(windows[0]) if windows else 3]
    runs = profile.weight if profile.profiles is None else profile.profiles
    totals = totals_by_group(profile.wavelength_nm, runs, profile.groups)
    groups = [(name, f"{lower:.0f}–{upper:.0f}", _percent(totals[name])) for name, lower, upper in profile.groups]
    groups += [(name, "further raster", _percent(value)) for name, value in profile.sources]
    of = "" if profile.profiles is None else ", median over the runs"
    caption = f"Weight of each band group{of}"
    return {
        "windows": Table("Wavelength windows with the largest weight", header, windows, range(1, min(len(header), 4))),
        "groups": Table(caption, ("group", "range (nm)", "weight"), groups, (2,)),
        "bands": _every_band(profile),
    }


def window_rows(windows: Sequence[Mapping[str, Any]], *, runs: int) -> list[tuple[str, ...]]:
    """Rows for windows as evidence.json holds them; the frequency and group are of several runs only."""
    rows = [
        (f"{of['lower_nm']:.0f}–{of['upper_nm']:.0f}", _percent(of["weight"]), f"{of['raised']:.1f}") for of in windows
    ]
    if runs == 1:
        return rows
    more = [(f"{100 * of['frequency']:.0f} % of runs", str(of.get("group") or "")) for of in windows]
    return [(*row, *columns) for row, columns in zip(rows, more, strict=True)]


def _every_band(profile: WeightProfile) -> Table:
    header, columns = ["band", "nm"], [[f"{nm:.1f}" for nm in profile.wavelength_nm]]
    quartiles = profile.quartiles or (None, None)
    for name, values, scale, digits in (
        ("FWHM (nm)", profile.fwhm_nm, 1, 1),
        ("weight (%)", profile.weight, 100, 3),
        ("lower quartile (%)", quartiles[0], 100, 3),
        ("upper quartile (%)", quartiles[1], 100, 3),
        ("untrained (%)", profile.untrained, 100, 3),
        ("selected in (% of runs)", profile.frequency, 100, 0),
    ):
        if values is not None:
            header.append(name)
            columns.append([f"{scale * value:.{digits}f}" for value in values])
    numbers = range(1, len(header))
    if profile.band_groups:
        header.append("group")
        columns.append(list(profile.band_groups))
    rows = [(str(c + 1), *cells) for c, cells in enumerate(zip(*columns, strict=True))]
    return Table("Every band, in the order of the file", header, rows, numbers)


def accuracies_in_words(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean and range of the overall accuracy over runs."""
    values = [float(run["overall_accuracy"]) for run in runs]
    return f"{np.mean(values):.4f} (mean of {len(values)}; {min(values):.4f} to {max(values):.4f})"


def evidence_tables(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Tables and remarks on stability, faithfulness and retraining; None or empty as long as they have no numbers."""
    faith, top = evidence.get("faithfulness"), evidence.get("top_k")
    own = evidence["split"]["kind"]
    return {
        "stability": _stability_table(evidence["stability"]) if "stability" in evidence else None,
        "curves": faith and _curves_table(faith),
        "importance": _importance_table((faith or {}).get("groups") or []),
        "top_k": top and _top_k_tables(top, own),
        "full": ", ".join(f"{_ESTIMATORS[k]} {100 * value:.1f}" for k, value in (top or {}).get("full", {}).items()),
        "remarks": top and _remarks(top, own),
        "runs": _runs_table(evidence.get("runs", [])),
    }


def _stability_table(stability: Mapping[str, Any]) -> Table:
    rows = []
    for name, words in _STABILITY.items():
        of = stability.get(name)
        if of:
            interval = f"{_number(of['lower'], 2)} to {_number(of['upper'], 2)}"
            rows.append((words, _number(of["index"], 2), interval, str(of["profiles"]), str(of["members"])))
    header = ("compared", "index", "95 % interval", "profiles", "runs in each")
    return Table("Agreement of the profiles", header, rows, (1, 2, 3, 4))


def _curves_table(faith: Mapping[str, Any]) -> Table:
    rows = []
    for way in ("deletion", "insertion"):
        for replaced, words in _REPLACED.items():
            curve = faith.get(way, {}).get(replaced)
            if curve:
                random = float(np.mean(curve.get("random_areas") or [np.nan]))
                numbers = (_number(curve["area"], 3), _number(random, 3), _number(curve["p"], 3))
                rows.append((f"{way}, replaced {words}", *numbers))
    header = ("curve", "area", "area of random orders, mean", "p")
    return Table("Deletion and insertion", header, rows, (1, 2, 3))


def _importance_table(groups: Sequence[Mapping[str, Any]]) -> Table:
    rows = [(group["name"], f"{group['importance']:.4f}", _number(group["p"], 3)) for group in groups]
    return Table("Values of a group exchanged between pixels", ("band group", "accuracy lost", "p"), rows, (1, 2))


def _top_k_tables(top: Mapping[str, Any], own: str) -> list[Table]:
    """A table for each kind of split, the configured one first, and estimator: accuracy of every ranking at every k."""
    tables = []
    for kind in dict.fromkeys((own, "random")):
        for name, words in _ESTIMATORS.items():
            rankings = top.get(kind, {}).get(name)
            if rankings:
                caption = f"{words[0].upper()}{words[1:]}, {kind} split"
                tables.append(_ranking_table(caption, rankings, numbers=top["numbers"]))
    return tables


def _ranking_table(caption: str, rankings: Mapping[str, Sequence[Sequence[float]]], *, numbers: Sequence[int]) -> Table:
    mean = {name: [100 * float(np.mean(scores)) for scores in by_number] for name, by_number in rankings.items()}
    best = [max(values[i] for values in mean.values()) for i in range(len(next(iter(mean.values()))))]
    rows = [
        (name, *(f"{value:.1f}{' *' if value == best[i] else ''}" for i, value in enumerate(values)))
        for name, values in mean.items()
    ]
    header = ("bands by", *(f"k = {k}" for k in numbers[: len(best)]))
    return Table(caption, header, rows, range(1, len(header)))


def _remarks(top: Mapping[str, Any], own: str) -> list[str]:
    """Sentences on random bands, on the cheapest sensor, and on how many trainings are behind the weights."""
    remarks = []
    for kind in dict.fromkeys((own, "random")):
        if f"random_p_{kind}" in top:
            listed = ", ".join(f"{p:.3f} for {k}" for k, p in zip(top["numbers"], top[f"random_p_{kind}"], strict=True))
            remarks.append(f"Against 20 random choices, SVM, {kind} split: p = {listed} bands.")
        if f"members_{kind}" in top:
            trainings = ", ".join(map(str, top[f"members_{kind}"]))
            remarks.append(f"Trainings behind the weights on the {kind} splits: {trainings}.")
    for name, k in top.get("cheapest", {}).items():
        sensor = "no number of bands tried keeps it" if k is None else f"{k} bands"
        remarks.append(
            f"The cheapest sensor that keeps 95 % of the accuracy with all bands, by {_ESTIMATORS[name]} on validation "
            f"pixels of the {own} split: {sensor}."
        )
    return remarks


def _runs_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            f"seed {run['seed']}, resample {run['resample']}",
            f"{run['overall_accuracy']:.4f}",
            f"{run['average_accuracy']:.4f}",
            "yes" if run["beats_chance"] else "no",
        )
        for run in runs
    ]
    return Table("Every training", ("run", "overall accuracy", "average accuracy", "better than chance"), rows, (1, 2))


def _percent(value: float) -> str:
    """A share of 1 in percent, with its unit."""
    return f"{100 * value:.1f} %"


def _number(value: float | None, digits: int) -> str:
    return "undefined" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"
