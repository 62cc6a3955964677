"""Stability, faithfulness and band selection in a report, from the numbers of an evidence folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from hsfusion.plots.report_chart import Axes, area, chart, curve, key, keys
from hsfusion.plots.report_curve import spectral_axes
from hsfusion.plots.report_parts import paragraph, section, table
from hsfusion.plots.weights import broken_at_gaps

_COMPARED = {
    "single": "single runs",
    "reported": "reported: medians over the runs of each resample, with seeds and a draw of pixels of their own",
    "untrained": "control: networks that were not trained, judged the same way",
}
_REPLACED = {"mean": "by their mean", "conditional": "by what the other bands let expect"}
_ESTIMATORS = {"network": "our network", "svm": "an SVM"}


def evidence_parts(evidence: Mapping[str, Any]) -> list[str]:
    """The sections on stability, faithfulness and retraining on few bands, as far as their numbers are there."""
    parts = []
    if "stability" in evidence:
        parts.append(_stability(evidence))
    if "faithfulness" in evidence:
        parts.append(_faithfulness(evidence["faithfulness"]))
    if "top_k" in evidence:
        parts.append(_top_k(evidence["top_k"], evidence["split"]["kind"]))
    if evidence.get("runs"):
        parts.append(_runs(evidence["runs"]))
    return parts


def accuracies_of(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean and range of the overall accuracy over runs, in words."""
    values = [float(run["overall_accuracy"]) for run in runs]
    return f"{np.mean(values):.4f} (mean of {len(values)}; {min(values):.4f} to {max(values):.4f})"


def _number(value: float | None, digits: int) -> str:
    return "undefined" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _stability(evidence: Mapping[str, Any]) -> str:
    stability = evidence["stability"]
    rows = []
    for name, words in _COMPARED.items():
        found = stability.get(name)
        if found:
            interval = f"{_number(found['lower'], 2)} to {_number(found['upper'], 2)}"
            rows.append((words, _number(found["index"], 2), interval, str(found["profiles"]), str(found["members"])))
    said = paragraph(
        f"Each profile selects {stability['bands']} bands at most, those whose weight training raised most over that "
        "of untrained networks, and more than on average; a selected band counts for the bands up to "
        f"{stability['half_width']} beside it. Nogueira's index is 1 where all profiles agree and 0 where they "
        "agree no more than by chance; from 0.75 on agreement counts as excellent."
    )
    header = ("compared", "index", "95 % interval", "profiles", "runs in each")
    parts = [said, table("Agreement of the profiles", header, rows=rows, numbers=(1, 2, 3, 4))]
    if "selection_frequency" in evidence:
        parts.append(_frequency(evidence))
    return section("Stability over seeds and training pixels", *parts)


def _frequency(evidence: Mapping[str, Any]) -> str:
    nm = np.array(evidence["bands"]["wavelength_nm"], np.float64)
    share = 100 * np.array(evidence["selection_frequency"], np.float64)
    axes = spectral_axes(nm, 105.0, y_label="selected in (% of runs)")
    x, y = broken_at_gaps(nm, share)
    always = int((share >= 80).sum())
    alternative = (
        f"How often each band is selected, over wavelength: {always} of {nm.size} bands in at least 80 % of "
        f"{len(evidence['runs'])} runs, {int((share == 0).sum())} in none."
    )
    drawn = chart(axes, alternative, curves=area(axes, x, 0 * x, y, css="area") + curve(axes, x, y, css="curve"))
    words = f"Selection frequency over the {len(evidence['runs'])} runs."
    return f"<figure>{drawn}<figcaption>{escape(words)}</figcaption></figure>"


def _faithfulness(faith: Mapping[str, Any]) -> str:
    parts = [
        paragraph(
            "If the weights are right, accuracy falls sooner where the bands of greatest weight are removed first "
            "(deletion: a small area is good) and rises sooner where they are put in first (insertion: a large area "
            "is good) than in 20 random orders. Of 20 orders, p can be no lower than 1/21 = 0.048. "
            "Weights count as faithful where one curve of each kind has p < 0.05 and none has p > 0.1."
        )
    ]
    charts, rows = [], []
    for way in ("deletion", "insertion"):
        for replaced, words in _REPLACED.items():
            found = faith.get(way, {}).get(replaced)
            if found:
                charts.append(_removal_chart(way, found, numbers=faith["numbers"], replaced=words))
                rows.append((f"{way}, replaced {words}", *_areas(found)))
    if charts:
        parts.append(f'<div class="charts">{"".join(charts)}</div>')
        parts.append(
            keys(
                key('<line x1="0" x2="24" y1="6" y2="6" class="curve"/>', "by falling weight"),
                key('<line x1="0" x2="24" y1="6" y2="6" class="run"/>', "random orders, mean"),
                key('<rect width="24" height="12" class="random-area"/>', "random orders, range"),
            )
        )
        header = ("curve", "area", "area of random orders, mean", "p")
        parts.append(table("Deletion and insertion", header, rows=rows, numbers=(1, 2, 3)))
    if faith.get("groups"):
        rows = [(group["name"], f"{group['importance']:.4f}", _number(group["p"], 3)) for group in faith["groups"]]
        header = ("band group", "accuracy lost", "p")
        parts.append(table("Values of a group exchanged between pixels", header, rows=rows, numbers=(1, 2)))
    return section("Faithfulness: do bands of great weight matter?", *parts)


def _areas(found: Mapping[str, Any]) -> tuple[str, str, str]:
    random = found.get("random_areas") or [np.nan]
    return _number(found["area"], 3), _number(float(np.mean(random)), 3), _number(found["p"], 3)


def _removal_chart(way: str, found: Mapping[str, Any], *, numbers: Sequence[float], replaced: str) -> str:
    count = np.array(numbers, np.float64)
    values = {name: 100 * np.array(found[name], np.float64) for name in ("accuracy", "random_mean")}
    lower, upper = (100 * np.array(found[f"random_{end}"], np.float64) for end in ("lower", "upper"))
    high = max(100.0, float(np.nanmax(upper)))
    done = "removed" if way == "deletion" else "put in"
    axes = Axes(
        (float(count.min()), max(float(count.max()), count.min() + 1)), (0.0, high), f"bands {done}", "accuracy (%)"
    )
    area_ours, area_random, p = _areas(found)
    alternative = (
        f"Overall accuracy over bands {done}, {way}, replaced {replaced}: area {area_ours} by falling weight, "
        f"{area_random} in random orders on average, p = {p}."
    )
    curves = area(axes, count, lower, upper, css="random-area")
    curves += curve(axes, count, values["random_mean"], css="run")
    curves += curve(axes, count, values["accuracy"], css="curve")
    drawn = chart(axes, alternative, curves=curves)
    words = f"<strong>{way.capitalize()}</strong>, values replaced {escape(replaced)}: p = {p}."
    return f"<figure>{drawn}<figcaption>{words}</figcaption></figure>"


def _top_k(top: Mapping[str, Any], own: str) -> str:
    """A table for each kind of split, the configured one first, and estimator: accuracy of every ranking at every k."""
    full = [f"{_ESTIMATORS[name]} {100 * value:.1f}" for name, value in top.get("full", {}).items()]
    said = (
        "Trained anew on k bands only, all chosen from training pixels; mean overall accuracy on the test pixels over "
        "split seeds, in percent. A star marks the best of each column."
    )
    parts = [paragraph(said + (f" With all bands: {', '.join(full)}." if full else ""))]
    for kind in dict.fromkeys((own, "random")):
        for name, words in _ESTIMATORS.items():
            rankings = top.get(kind, {}).get(name)
            if rankings:
                caption = f"{words[0].upper()}{words[1:]}, {kind} split"
                parts.append(_accuracy_table(caption, rankings, numbers=top["numbers"]))
    return section("Retrained on few bands", *parts, *map(paragraph, _remarks(top, own)))


def _remarks(top: Mapping[str, Any], own: str) -> list[str]:
    """Sentences on random bands, on the cheapest sensor, and on how many trainings are behind the weights."""
    told = []
    for kind in dict.fromkeys((own, "random")):
        if f"random_p_{kind}" in top:
            listed = ", ".join(f"{p:.3f} for {k}" for k, p in zip(top["numbers"], top[f"random_p_{kind}"], strict=True))
            told.append(f"Against 20 random choices, SVM, {kind} split: p = {listed} bands.")
        if f"members_{kind}" in top:
            trainings = ", ".join(map(str, top[f"members_{kind}"]))
            told.append(f"Trainings behind the weights on the {kind} splits: {trainings}.")
    for name, k in top.get("cheapest", {}).items():
        found = "no number of bands tried keeps it" if k is None else f"{k} bands"
        told.append(
            f"The cheapest sensor that keeps 95 % of the accuracy with all bands, by {_ESTIMATORS[name]} on validation "
            f"pixels of the {own} split: {found}."
        )
    return told


def _accuracy_table(caption: str, rankings: Mapping[str, Sequence[Sequence[float]]], *, numbers: Sequence[int]) -> str:
    mean = {name: [100 * float(np.mean(scores)) for scores in by_number] for name, by_number in rankings.items()}
    best = [max(values[i] for values in mean.values()) for i in range(len(next(iter(mean.values()))))]
    rows = [
        (name, *(f"{value:.1f}{' *' if value == best[i] else ''}" for i, value in enumerate(values)))
        for name, values in mean.items()
    ]
    header = ("bands by", *(f"k = {k}" for k in numbers[: len(best)]))
    return table(caption, header, rows=rows, numbers=tuple(range(1, len(header))))


def _runs(runs: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            f"seed {run['seed']}, resample {run['resample']}",
            f"{run['overall_accuracy']:.4f}",
            f"{run['average_accuracy']:.4f}",
            "yes" if run["beats_chance"] else "no",
        )
        for run in runs
    ]
    header = ("run", "overall accuracy", "average accuracy", "better than chance")
    return section("Runs", table("Every training", header, rows=rows, numbers=(1, 2)))
