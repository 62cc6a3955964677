"""From what the trainings left to the numbers of evidence.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.evidence.jobs import DIRECTIONS, FILLS, REPEATS, EvidenceSettings, Job, choose, retrain
from hsfusion.evidence.store import read_json
from hsfusion.runs.comparison import Profiles
from hsfusion.spectra import BandWeights
from hsfusion.trust.faithfulness import Curve, order_by_weight
from hsfusion.trust.rankings import random_bands, smallest_number
from hsfusion.trust.stability import compared_bands, quartiles
from hsfusion.trust.verdict import FREE, Duplicate, Verdict, verdict

_STEPS = 15  # numbers of windows at which the curves are known, at most
#: split, that of the settings, or random_split; and its seed
Pair = tuple[str, int]
_FULL = "all bands"
_DRAWS = 20  # of random bands; the first is everybody's, the others are ...
_DRAWN = ("svm", "split")  # ... for the classifier that is quick enough, on the split that counts


def stability_of(profiles: Profiles, control: NDArray[np.float64]) -> dict[str, Any]:
    """Stability, spread, top windows and uniformity; ``control`` (S, T, C) are other untrained networks."""
    spread, (bands, half_width) = profiles.spread, compared_bands(profiles.used.size)
    nm, names = profiles.bands.wavelength_nm[profiles.used], [profiles.group[c] for c in profiles.used]
    stabilities = profiles.stabilities()
    untrained = replace(profiles, weight=control).stabilities().get("reported")
    stabilities |= {} if untrained is None else {"untrained": untrained}
    found: dict[str, Any] = {
        "profiles": profiles.runs.tolist(),
        "ensemble": profiles.reported.weight.tolist(),
        "quartiles": {"lower": spread.lower.tolist(), "upper": spread.upper.tolist()},
        "untrained": profiles.untrained.tolist(),
        "selection_frequency": spread.frequency.tolist(),
        "stability": {"bands": bands, "half_width": half_width, **{k: asdict(of) for k, of in stabilities.items()}},
        "top_windows": [
            {
                "lower_nm": window.lower_nm,
                "upper_nm": window.upper_nm,
                "weight": window.share,
                "raised": window.raised,
                "frequency": window.frequency,
                "group": names[int(np.abs(nm - (window.lower_nm + window.upper_nm) / 2).argmin())],
            }
            for window in profiles.heaviest
        ],
    }
    if (p := profiles.uniformity_p) is not None:
        found["uniformity_p"] = p
    return found


def verdict_of(profiles: Profiles, evidence: Mapping[str, Any]) -> Verdict:
    """The verdict on the reported profile, from the numbers there are."""
    curves = evidence.get("faithfulness", {})
    names = [(direction, fill) for direction in DIRECTIONS if direction in curves for fill in FILLS]
    return verdict(
        profiles.heaviest,
        beats_chance=[run["beats_chance"] for run in evidence["runs"]],
        uniformity_p=evidence.get("uniformity_p"),
        stability=profiles.stabilities().get("reported"),
        p_values={f"{direction}, {fill}": curves[direction][fill]["p"] for direction, fill in names},
        pairs=[Duplicate(*pair) for pair in evidence["duplicates"]],
        wavelength_nm=profiles.bands.wavelength_nm,
        unreadable=FREE if evidence["fusion"] == "free" else None,
    )


def curve_plan(profiles: Profiles) -> dict[str, Any]:
    """Windows by the reported weight, then by the mean over the runs; and after how many the accuracy is asked for."""
    windows = profiles.windows
    number = np.unique(np.round(len(windows) * np.linspace(0, 1, _STEPS) ** 1.5).astype(int))
    return {
        "order": order_by_weight(profiles.reported.weight, windows, then=profiles.runs.mean(0)).tolist(),
        "windows": [np.flatnonzero(window).tolist() for window in windows],
        "number": number.tolist(),
    }


def faithfulness_of(
    plan: Mapping[str, Any], scored: Sequence[Path], *, seed: int, names: Sequence[str]
) -> dict[str, Any]:
    """Curves and importance of the named groups, from the mean accuracy of several networks, each scored in a file."""
    records, number = [read_json(path) for path in scored], np.array(plan["number"])
    sizes = np.cumsum([0, *(len(plan["windows"][u]) for u in plan["order"])])
    curves = {
        direction: {
            fill: _curve(np.mean([record[direction][fill] for record in records], axis=0), number, direction)
            for fill in FILLS
        }
        for direction in DIRECTIONS
    }
    return {
        "seed": seed,
        "networks": len(records),
        "pixels": records[0]["pixels"],
        "accuracy": float(np.mean([record["all_bands"] for record in records])),
        "windows": len(plan["windows"]),
        "window_numbers": plan["number"],
        "numbers": sizes[number].tolist(),  # of bands
        **curves,
        "groups": _importance(np.mean([record["groups"] for record in records], axis=0), names),
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
        "random_areas": curve.random_area.tolist(),
        "p": curve.p_value,
    }


def _importance(accuracies: NDArray[np.float64], names: Sequence[str]) -> list[dict[str, Any]]:
    """Loss of accuracy for each group, from accuracies (1 + G REPEATS,), that of all bands first."""
    permuted = accuracies[1:].reshape(len(names), REPEATS)
    loss, no_loss = accuracies[0] - permuted, (permuted >= accuracies[0]).sum(1)
    return [
        {"name": name, "importance": float(drop.mean()), "spread": float(drop.std()), "p": (1 + lost) / (1 + REPEATS)}
        for name, drop, lost in zip(names, loss, no_loss.tolist(), strict=True)
    ]


def chosen_jobs(places: Mapping[Pair, Path], members: Mapping[Pair, Sequence[Path]]) -> list[Job]:
    """Jobs that choose bands on the training pixels of each split, with the median weight of the trainings on it."""
    jobs = []
    for (which, seed), place in places.items():
        weight = np.stack([BandWeights.from_csv(run / "band_weights.csv").weight for run in members[which, seed]])
        profile = quartiles(weight).median.tolist()
        jobs.append(Job(choose, place / "chosen.json", {"which": which, "split_seed": seed, "profile": profile}))
    return jobs


def retrain_jobs(places: Mapping[Pair, Path], plan: EvidenceSettings, used: NDArray[np.int64]) -> list[Job]:
    """Jobs that train on chosen bands: for each split, classifier and number k, and on all bands in use (C',)."""
    jobs = []
    for (which, seed), place in places.items():
        chosen = read_json(place / "chosen.json")
        sets: dict[str, dict[str, list[int]]] = {_FULL: {_FULL: used.tolist()}}
        sets |= {str(k): {ranking: bands[str(k)] for ranking, bands in chosen.items()} for k in plan.top_k}
        drawn = {
            f"random-{k}": {
                str(draw): used[random_bands(used.size, number=k, seed=seed, draw=draw)].tolist()
                for draw in range(1, _DRAWS)
            }
            for k in plan.top_k
        }
        for classifier in plan.retrain:
            common = {"which": which, "split_seed": seed, "classifier": classifier}
            jobs += [
                Job(retrain, _file(place, classifier, name), {**common, "chosen": named})
                for name, named in (sets | drawn if (classifier, which) == _DRAWN else sets).items()
            ]
    return jobs


def _file(place: Path, classifier: str, name: str) -> Path:
    return place / f"{classifier}-{name.replace(' ', '-')}.json"


def top_k_of(
    places: Mapping[Pair, Path], plan: EvidenceSettings, *, members: Mapping[Pair, Sequence[Path]], kind: str
) -> dict[str, Any]:
    """The part ``top_k`` of evidence.json; accuracies stand under the kind of the split, and under ``random``."""
    found: dict[str, Any] = {"numbers": list(plan.top_k), "seeds": sorted({seed for _, seed in places})}
    for which, key in (("random_split", "random"), ("split", kind)):  # the configured one, where both are random
        own = [place for pair, place in places.items() if pair[0] == which]
        full = {name: _scores(own, name, _FULL)[_FULL] for name in plan.retrain}
        found[key] = {name: _accuracies(own, name, plan.top_k) for name in plan.retrain}
        found[f"full_{key}"] = {name: float(np.mean(of)) for name, of in full.items()}
        found[f"members_{key}"] = [len(members[pair]) for pair in places if pair[0] == which]
        if which == "split" and "svm" in plan.retrain:
            found[f"random_p_{key}"] = _with_draws(own, plan.top_k, found[key]["svm"])
    own = [place for (which, _), place in places.items() if which == "split"]
    validated = {}
    for name in plan.retrain:  # by the accuracies on validation pixels a k can be chosen
        full = _scores(own, name, _FULL, role="val")[_FULL]
        if None not in full:
            weights = [float(np.mean(_scores(own, name, str(k), role="val")["weights"])) for k in plan.top_k]
            validated[name] = {"full": float(np.mean(full)), "weights": weights}
    cheapest = {name: smallest_number(plan.top_k, of["weights"], full=of["full"]) for name, of in validated.items()}
    return {**found, "full": found[f"full_{kind}"], "val": validated, "cheapest": cheapest}


def _scores(places: Sequence[Path], classifier: str, name: str, *, role: str = "test") -> dict[str, list[Any]]:
    """Ranking -> the accuracy on each split of a classifier trained on its bands."""
    read = [read_json(_file(place, classifier, name)) for place in places]
    return {ranking: [of[ranking][role] for of in read] for ranking in read[0]}


def _accuracies(places: Sequence[Path], classifier: str, numbers: Sequence[int]) -> dict[str, list[list[float]]]:
    """Ranking -> accuracies, a row for each k and a column for each split."""
    rows = [_scores(places, classifier, str(k)) for k in numbers]
    return {ranking: [row[ranking] for row in rows] for ranking in rows[0]}


def _with_draws(
    places: Sequence[Path], numbers: Sequence[int], accuracies: dict[str, list[list[float]]]
) -> list[float]:
    """Puts the mean over all draws of random bands in place of the first; gives p of ours for each number of bands."""
    p_values = []
    for i, k in enumerate(numbers):
        more = np.array(list(_scores(places, "svm", f"random-{k}").values())).T
        drawn = np.column_stack([accuracies["random"][i], more])  # (splits, draws)
        better = int((drawn.mean(0) >= np.mean(accuracies["weights"][i])).sum())
        p_values.append((1 + better) / (1 + _DRAWS))
        accuracies["random"][i] = drawn.mean(1).tolist()
    return p_values
