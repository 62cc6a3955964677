"""Trainings on k chosen bands: which jobs there are, and the table that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.cli.evidence_jobs import choose, read_json, retrain
from hsfusion.cli.job_pool import Job
from hsfusion.spectra import BandWeights
from hsfusion.trust.rankings import random_bands, smallest_number
from hsfusion.trust.stability import quartiles

#: key of the configuration that says how a split is made, and its seed
Pair = tuple[str, int]
_FULL = "all bands"
_DRAWS = 20  # of random bands; the first is everybody's, the others are ...
_DRAWN = ("svm", "split")  # ... for the classifier that is quick enough, on the split that counts


def member_profiles(members: Mapping[Pair, Sequence[Job]]) -> dict[Pair, NDArray[np.float64]]:
    """The reported profile (C,) of the trainings on each split."""
    return {
        pair: quartiles(
            np.stack([BandWeights.from_csv(job.path.parent / "band_weights.csv").weight for job in jobs])
        ).median
        for pair, jobs in members.items()
    }


def chosen_jobs(
    settings: str, places: Mapping[Pair, Path], weights: Mapping[Pair, NDArray[np.float64]], *, cost: float
) -> list[Job]:
    """Jobs that choose bands on the training pixels of each split, with the weights learned from these."""
    return [
        Job(
            choose,
            place / "chosen.json",
            cost,
            {"settings": settings, "which": which, "split_seed": seed, "profile": weights[which, seed].tolist()},
        )
        for (which, seed), place in places.items()
    ]


def retrain_jobs(
    settings: str,
    places: Mapping[Pair, Path],
    *,
    numbers: Sequence[int],
    used: NDArray[np.int64],
    costs: Mapping[str, float],
) -> list[Job]:
    """Jobs that train on chosen bands: for each split, classifier and number k, and on all bands.

    Args:
        settings: the resolved configuration.
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
            common = {"settings": settings, "which": which, "split_seed": seed, "classifier": classifier}
            jobs += [
                Job(
                    retrain,
                    _file(place, classifier, name),
                    cost * len(named),
                    {**common, "chosen": named},
                )
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
