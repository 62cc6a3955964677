"""From what the trainings left to the numbers of evidence.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.evidence.jobs import DIRECTIONS, REPEATS, Job, Task, choose, retrain
from hsfusion.evidence.store import read_json
from hsfusion.spectra import BandGroup, Bands, BandWeights
from hsfusion.trust.faithfulness import Curve, Importance, band_windows, order_by_weight
from hsfusion.trust.rankings import random_bands, smallest_number
from hsfusion.trust.stability import (
    Stability,
    compared_bands,
    quartiles,
    relative_profiles,
    top_bands,
    uniformity_p,
    window_stability,
)
from hsfusion.trust.verdict import FREE, Duplicate, Verdict, verdict, weight_windows

_STEPS = 15  # numbers of windows at which the curves are known, at most
#: split, that of the settings, or random_split; and its seed
Pair = tuple[str, int]
_FULL = "all bands"
_DRAWS = 20  # of random bands; the first is everybody's, the others are ...
_DRAWN = ("svm", "split")  # ... for the classifier that is quick enough, on the split that counts


@dataclass(frozen=True, eq=False)
class Profiles:
    """The weights of all runs.

    Attributes:
        bands: the C bands of the scene.
        group: C names.
        used: (C',) indices of the bands that networks may use.
        weight: (S, T, C), S runs of each of T resamples, each run of another seed.
        untrained: (C,), the mean weights of networks that have not been trained.
    """

    bands: Bands
    group: tuple[str, ...]
    used: NDArray[np.int64]
    weight: NDArray[np.float64]
    untrained: NDArray[np.float64]

    @property
    def runs(self) -> NDArray[np.float64]:
        """(S T, C)."""
        return self.weight.reshape(-1, self.weight.shape[2])

    @property
    def ensembles(self) -> NDArray[np.float64]:
        """(T, C) the median of each resample; of a single one its S runs.

        They have seeds of their own, so that their agreement is what to expect of whoever trains S networks anew on
        another draw from the same side of the same split. What is reported, the median of all runs, is steadier, but
        that could be measured with as many runs again only.
        """
        if self.weight.shape[1] == 1:
            return self.weight[:, 0]
        return np.stack([quartiles(runs).median for runs in self.weight.transpose(1, 0, 2)])

    def relative(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is judged of weights (..., C): those of the bands in use (..., C'), relative to untrained networks."""
        return relative_profiles(weight, self.untrained)[..., self.used]

    @property
    def windows(self) -> NDArray[np.bool_]:
        """(U, C) windows of 7 neighbouring bands that networks may use."""
        within = band_windows(self.bands.wavelength_nm[self.used])
        windows = np.zeros((len(within), len(self.bands)), bool)
        windows[:, self.used] = within
        return windows

    @property
    def ensemble(self) -> NDArray[np.float64]:
        """(C,) the profile that is reported: the median of all runs."""
        return quartiles(self.runs).median

    @property
    def top(self) -> tuple[int, int]:
        """How many of the best bands of each run are compared, and the half width of their windows."""
        return compared_bands(self.used.size)

    @property
    def selected(self) -> NDArray[np.bool_]:
        """(S T, C) the bands of each run that training raised most; the only one in use."""
        chosen = np.zeros(self.runs.shape, bool)
        chosen[:, self.used] = top_bands(self.relative(self.runs), self.top[0]) if self.used.size > 1 else True
        return chosen


def stability_of(profiles: Profiles, control: NDArray[np.float64]) -> dict[str, Any]:
    """Stability, spread, top windows and uniformity, as far as the number of runs allows.

    Args:
        profiles: the weights of all runs.
        control: (S, T, C) weights of untrained networks, others than those of the profiles, judged like the runs.
    """
    spread, chosen = quartiles(profiles.runs), profiles.selected
    of_control = _stabilities(replace(profiles, weight=control)).get("reported")
    found: dict[str, Any] = {
        "profiles": profiles.runs.tolist(),
        "ensemble": profiles.ensemble.tolist(),
        "quartiles": {"lower": spread.lower.tolist(), "upper": spread.upper.tolist()},
        "untrained": profiles.untrained.tolist(),
        "selection_frequency": chosen.mean(0).tolist(),
        "stability": {
            "bands": profiles.top[0],
            "half_width": profiles.top[1],
            **{name: asdict(value) for name, value in _stabilities(profiles).items()},
            **({} if of_control is None else {"untrained": asdict(of_control)}),
        },
        "top_windows": [
            {
                "lower_nm": window.lower_nm,
                "upper_nm": window.upper_nm,
                "weight": window.share,
                "raised": window.raised,
                "frequency": window.frequency,
                "group": _group_at(profiles, (window.lower_nm + window.upper_nm) / 2),
            }
            for window in _windows(profiles)
        ],
    }
    if len(profiles.ensembles) > 1 and len(profiles.windows) > 1:
        rows = profiles.relative(profiles.ensembles)
        found["uniformity_p"] = uniformity_p(rows, profiles.windows[:, profiles.used])
    return found


def _stabilities(profiles: Profiles) -> dict[str, Stability]:
    """Indices by name: of the single runs, and the one reported, of ensembles where there are any."""
    seeds, resamples, _ = profiles.weight.shape
    if seeds * resamples == 1 or profiles.used.size == 1:
        return {}
    members = {"single": (profiles.runs, 1), "reported": (profiles.ensembles, seeds if resamples > 1 else 1)}
    return {
        name: window_stability(
            profiles.relative(weight),
            profiles.bands.wavelength_nm[profiles.used],
            bands=profiles.top[0],
            half_width=profiles.top[1],
            members=number,
        )
        for name, (weight, number) in members.items()
    }


def _windows(profiles: Profiles) -> tuple[Any, ...]:
    weights = BandWeights(profiles.bands, profiles.group, profiles.ensemble)
    return weight_windows(weights, profiles.selected, profiles=profiles.runs, untrained=profiles.untrained)


def _group_at(profiles: Profiles, nm: float) -> str:
    """Name of the group of the band nearest to a wavelength."""
    return profiles.group[int(profiles.used[np.abs(profiles.bands.wavelength_nm[profiles.used] - nm).argmin()])]


def plan_of(profiles: Profiles) -> dict[str, Any]:
    """Windows in the order of the reported weight, and after how many of them the accuracy is asked for.

    Windows without any, which fewer than half of the runs open, follow in the order of the mean over the runs. Denser
    where few are removed, as the curves bend there.
    """
    windows = profiles.windows
    units = len(windows)
    number = np.unique(np.round(units * np.linspace(0, 1, _STEPS) ** 1.5).astype(int))
    return {
        "order": order_by_weight(profiles.ensemble, windows, then=profiles.runs.mean(0)).tolist(),
        "windows": [np.flatnonzero(window).tolist() for window in windows],
        "number": number.tolist(),
    }


def faithfulness_of(profiles: Profiles, scored: Sequence[Path], *, seed: int, names: Sequence[str]) -> dict[str, Any]:
    """Curves and importance of groups, from the mean accuracy of several networks under the same replacements.

    Args:
        profiles: the weights of all runs.
        scored: what :func:`~hsfusion.evidence.jobs.score_run` wrote, of each network.
        seed: of the first of these networks.
        names: of the G groups, further rasters included.
    """
    records, plan = [read_json(path) for path in scored], plan_of(profiles)
    number = np.array(plan["number"])
    found: dict[str, Any] = {
        "seed": seed,
        "networks": len(records),
        "pixels": records[0]["pixels"],
        "accuracy": float(np.mean([record["all_bands"] for record in records])),
        "windows": len(plan["windows"]),
        "window_numbers": number.tolist(),
        "numbers": _bands_in(plan, number),
    }
    for direction in DIRECTIONS:
        found[direction] = {}
        for fill in ("mean", "conditional"):
            accuracy = np.mean([record[direction][fill] for record in records], axis=0)
            found[direction][fill] = _curve(Curve.from_accuracies(accuracy, number=number, direction=direction))
    return {**found, "groups": _importance(records, names)}


def _bands_in(plan: Mapping[str, Any], number: NDArray[np.int64]) -> list[int]:
    """Bands in the first windows of the order."""
    sizes = np.cumsum([0, *(len(plan["windows"][u]) for u in plan["order"])])
    return sizes[number].tolist()


def _curve(curve: Curve) -> dict[str, Any]:
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


def _importance(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Loss of accuracy for each group; p is the share of permutations, the group as it is included, without a loss."""
    means = np.mean([record["groups"] for record in records], axis=0)  # (1 + G REPEATS,)
    accuracy, permuted = float(means[0]), means[1:].reshape(len(names), REPEATS)
    loss = Importance.from_accuracies(accuracy, permuted)
    no_loss = (permuted >= accuracy).sum(1)
    return [
        {"name": name, "importance": float(drop), "spread": float(spread), "p": float((1 + lost) / (1 + REPEATS))}
        for name, drop, spread, lost in zip(names, loss.drop, loss.spread, no_loss, strict=True)
    ]


def verdict_of(profiles: Profiles, evidence: Mapping[str, Any]) -> Verdict:
    """The verdict on the reported profile, from the numbers there are."""
    reported = evidence["stability"].get("reported")
    curves = evidence.get("faithfulness", {})
    return verdict(
        _windows(profiles),
        beats_chance=[run["beats_chance"] for run in evidence["runs"]],
        uniformity_p=evidence.get("uniformity_p"),
        stability=None if reported is None else Stability(**reported),
        p_values={
            f"{direction}, {fill}": curves[direction][fill]["p"]
            for direction in DIRECTIONS
            if direction in curves
            for fill in ("mean", "conditional")
        },
        pairs=[Duplicate(*pair) for pair in evidence["duplicates"]],
        wavelength_nm=profiles.bands.wavelength_nm,
        unreadable=FREE if evidence["fusion"] == "free" else None,
    )


def group_dicts(groups: Sequence[BandGroup]) -> list[dict[str, Any]]:
    """Groups as plain values."""
    return [asdict(group) for group in groups]


def member_profiles(members: Mapping[Pair, Sequence[Job]]) -> dict[Pair, NDArray[np.float64]]:
    """The reported profile (C,) of the trainings on each split."""
    return {
        pair: quartiles(
            np.stack([BandWeights.from_csv(job.path.parent / "band_weights.csv").weight for job in jobs])
        ).median
        for pair, jobs in members.items()
    }


def chosen_jobs(
    task: Task, places: Mapping[Pair, Path], weights: Mapping[Pair, NDArray[np.float64]], *, cost: float
) -> list[Job]:
    """Jobs that choose bands on the training pixels of each split, with the weights learned from these."""
    return [
        Job(
            choose,
            place / "chosen.json",
            cost,
            {"task": task, "which": which, "split_seed": seed, "profile": weights[which, seed].tolist()},
        )
        for (which, seed), place in places.items()
    ]


def retrain_jobs(
    task: Task,
    places: Mapping[Pair, Path],
    *,
    numbers: Sequence[int],
    used: NDArray[np.int64],
    costs: Mapping[str, float],
) -> list[Job]:
    """Jobs that train on chosen bands: for each split, classifier and number k, and on all bands.

    Args:
        task: scene and settings.
        places: folder of each split, with ``chosen.json``.
        numbers: of bands.
        used: (C',) indices of all bands that may be used.
        costs: of one training of each classifier.
    """
    jobs = []
    for (which, seed), place in places.items():
        chosen = read_json(place / "chosen.json")
        sets: dict[str, dict[str, list[int]]] = {_FULL: {_FULL: used.tolist()}}
        sets |= {f"{k}": {ranking: bands[str(k)] for ranking, bands in chosen.items()} for k in numbers}
        drawn = {f"random-{k}": _further_draws(used, number=k, seed=seed) for k in numbers}
        for classifier, cost in costs.items():
            common = {"task": task, "which": which, "split_seed": seed, "classifier": classifier}
            jobs += [
                Job(retrain, _file(place, classifier, name), cost * len(named), {**common, "chosen": named})
                for name, named in (sets | drawn if (classifier, which) == _DRAWN else sets).items()
            ]
    return jobs


def _further_draws(used: NDArray[np.int64], *, number: int, seed: int) -> dict[str, list[int]]:
    """More choices of random bands, by the number of the draw."""
    draws = range(1, _DRAWS)
    return {f"{d}": used[random_bands(used.size, number=number, seed=seed, draw=d)].tolist() for d in draws}


def _file(place: Path, classifier: str, name: str) -> Path:
    return place / f"{classifier}-{name.replace(' ', '-')}.json"


def top_k_of(
    places: Mapping[Pair, Path],
    *,
    numbers: Sequence[int],
    classifiers: Sequence[str],
    members: Mapping[Pair, int],
    kind: str,
) -> dict[str, Any]:
    """The part ``top_k`` of evidence.json.

    Args:
        places: folder of each split.
        numbers: of bands.
        classifiers: what was trained.
        members: number of trainings behind the weights of each split.
        kind: of the configured split: the key of its accuracies; those of random pixels stand under ``random``.
    """
    found: dict[str, Any] = {"numbers": list(numbers), "seeds": sorted({seed for _, seed in places})}
    for which, key in (("random_split", "random"), ("split", kind)):  # the configured one, where both are random
        own = {pair: place for pair, place in places.items() if pair[0] == which}
        found[key] = {name: _accuracies(list(own.values()), name, numbers) for name in classifiers}
        full = {name: [read_json(_file(place, name, _FULL))[_FULL] for place in own.values()] for name in classifiers}
        found[f"full_{key}"] = {name: float(np.mean([of["test"] for of in each])) for name, each in full.items()}
        found[f"members_{key}"] = [members[pair] for pair in own]
        if which == "split" and "svm" in classifiers:
            found[f"random_p_{key}"] = _with_draws(list(own.values()), numbers, found[key]["svm"])
    own = [place for (which, _), place in places.items() if which == "split"]
    chosen = {name: _validated(own, name, numbers) for name in classifiers}
    validated = {name: of for name, of in chosen.items() if of is not None}
    cheapest = {name: smallest_number(numbers, of["weights"], full=of["full"]) for name, of in validated.items()}
    return {**found, "full": found[f"full_{kind}"], "val": validated, "cheapest": cheapest}


def _with_draws(
    places: Sequence[Path], numbers: Sequence[int], accuracies: dict[str, list[list[float]]]
) -> list[float]:
    """Puts the mean over all draws of random bands in place of the first, and tells how many are as good as ours.

    Returns:
        for each number of bands p, by the means over the splits: with the 20 draws at least 1/21
    """
    p_values = []
    for i, k in enumerate(numbers):
        more = [[of["test"] for of in read_json(_file(place, "svm", f"random-{k}")).values()] for place in places]
        drawn = np.column_stack([accuracies["random"][i], more])  # (splits, draws)
        better = int((drawn.mean(0) >= np.mean(accuracies["weights"][i])).sum())
        p_values.append((1 + better) / (1 + _DRAWS))
        accuracies["random"][i] = drawn.mean(1).tolist()
    return p_values


def _validated(places: Sequence[Path], classifier: str, numbers: Sequence[int]) -> dict[str, Any] | None:
    """Mean accuracies on the validation pixels, by which a k can be chosen: with all bands, and with k of ours.

    None where a split has no validation pixels.
    """
    full = [read_json(_file(place, classifier, _FULL))[_FULL]["val"] for place in places]
    ours = [[read_json(_file(place, classifier, str(k)))["weights"]["val"] for place in places] for k in numbers]
    if None in full:
        return None
    return {"full": float(np.mean(full)), "weights": [float(np.mean(row)) for row in ours]}


def _accuracies(places: Sequence[Path], classifier: str, numbers: Sequence[int]) -> dict[str, list[list[float]]]:
    """Ranking -> accuracies, a row for each k and a column for each split."""
    read = [[read_json(_file(place, classifier, str(k))) for place in places] for k in numbers]
    return {name: [[of[name]["test"] for of in row] for row in read] for name in read[0][0]}
