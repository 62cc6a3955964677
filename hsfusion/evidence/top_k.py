"""Choices of k bands on several splits, and classifiers trained on these bands only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.data.noise import noise_differences
from hsfusion.data.patches import TrainingCube, prepare
from hsfusion.data.splits import TEST, TRAIN, VAL, Split
from hsfusion.evidence.jobs import EvidenceSettings, Job, Task, draw_of, split_of, used_bands
from hsfusion.runs.experiment import initialise, used_layers
from hsfusion.runs.folder import read_json, write_json
from hsfusion.runs.training import fit
from hsfusion.scenes import ArrayScene
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import BandGroup, Bands, BandWeights
from hsfusion.trust.rankings import Pixels, choices, random_bands, retrain_score, scores, smallest_number
from hsfusion.trust.stability import quartiles

#: split, that of the settings, or random_split; and its seed
Pair = tuple[str, int]
_FULL = "all bands"
_DRAWS = 20  # of random bands; all classifiers and splits use the first, ...
_DRAWN = ("svm", "split")  # ... only the fast classifier on the split of the settings uses the others


def choice_jobs(places: Mapping[Pair, Path], members: Mapping[Pair, Sequence[Path]]) -> list[Job]:
    """Jobs that choose bands on the training pixels of each split, by the median weight of the trainings on it."""
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
            if "random" in plan.rivals
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
    """The part ``top_k`` of evidence.json, with accuracies under the kind of the split and under ``random``."""
    result: dict[str, Any] = {"numbers": list(plan.top_k), "seeds": sorted({seed for _, seed in places})}
    for which, key in (("random_split", "random"), ("split", kind)):  # the latter, if both are random
        folders = [place for pair, place in places.items() if pair[0] == which]
        if not folders:
            continue
        full = {name: _scores(folders, name, _FULL)[_FULL] for name in plan.retrain}
        result[key] = {}
        for name in plan.retrain:  # ranking -> accuracies, a row for each k and a column for each split
            rows = [_scores(folders, name, str(k)) for k in plan.top_k]
            result[key][name] = {ranking: [row[ranking] for row in rows] for ranking in rows[0]}
        result[f"full_{key}"] = {name: float(np.mean(of)) for name, of in full.items()}
        result[f"members_{key}"] = [len(members[pair]) for pair in places if pair[0] == which]
        if which == "split" and "svm" in plan.retrain and "random" in plan.rivals:
            result[f"random_p_{key}"] = _with_draws(folders, plan.top_k, result[key]["svm"])
    folders = [place for (which, _), place in places.items() if which == "split"]
    validated = {}
    for name in plan.retrain:  # accuracies on validation pixels, by which k can be chosen
        full = _scores(folders, name, _FULL, role="val")[_FULL]
        if None not in full:
            weights = [float(np.mean(_scores(folders, name, str(k), role="val")["weights"])) for k in plan.top_k]
            validated[name] = {"full": float(np.mean(full)), "weights": weights}
    cheapest = {name: smallest_number(plan.top_k, of["weights"], full=of["full"]) for name, of in validated.items()}
    return {**result, "full": result[f"full_{kind}"], "val": validated, "cheapest": cheapest}


def _scores(places: Sequence[Path], classifier: str, name: str, *, role: str = "test") -> dict[str, list[Any]]:
    """Ranking -> the accuracy on each split of a classifier trained on its bands."""
    read = [read_json(_file(place, classifier, name)) for place in places]
    return {ranking: [of[ranking][role] for of in read] for ranking in read[0]}


def _with_draws(
    places: Sequence[Path], numbers: Sequence[int], accuracies: dict[str, list[list[float]]]
) -> list[float]:
    """Replaces the first draw of random bands by the mean over all; returns the p-value of the weights for each k."""
    p_values = []
    for i, k in enumerate(numbers):
        more = np.array(list(_scores(places, "svm", f"random-{k}").values())).T
        drawn = np.column_stack([accuracies["random"][i], more])  # (splits, draws)
        better = int((drawn.mean(0) >= np.mean(accuracies["weights"][i])).sum())
        p_values.append((1 + better) / (1 + _DRAWS))
        accuracies["random"][i] = drawn.mean(1).tolist()
    return p_values


def rank(path: Path, task: Task, *, draw: Sequence[Any]) -> None:
    """Writes the scores of each band in use by rankings without a network on a draw, see :func:`draw_of`."""
    used, split = used_bands(task.scene.scene, task.settings), draw_of(task, *draw)
    spectra, classes = _pixels(task, split)[0]
    noise = noise_differences(_cube(task, split), split)[:, used]
    named = scores((spectra[:, used], classes), noise=noise, seed=split.seed)
    write_json(path, {name: score.tolist() for name, score in named.items()})


def choose(path: Path, task: Task, *, which: str, split_seed: int, profile: list[float]) -> None:
    """Writes the bands that each ranking chooses on the training pixels of the split that gave the profile (C,)."""
    split = split_of(task, which, split_seed)
    scene = split.labelled.scene  # without bands that are constant over its training pixels
    used, nm = used_bands(scene, task.settings), scene.bands.wavelength_nm
    spectra, classes = _pixels(task, split)[0]
    noise = noise_differences(_cube(task, split), split)[:, used]
    train = spectra[:, used], classes
    named = choices(np.array(profile)[used], train, noise=noise, wavelength_nm=nm[used], seed=split_seed)
    numbers = task.plan.top_k
    names = ("weights", *task.plan.rivals)
    chosen = {name: {str(k): used[np.sort(named[name](k))].tolist() for k in numbers} for name in names}
    write_json(path, chosen)


def retrain(
    path: Path, task: Task, *, which: str, split_seed: int, classifier: str, chosen: dict[str, list[int]]
) -> None:
    """Writes the accuracies on validation and test pixels of a classifier trained on the bands of each ranking."""
    split = split_of(task, which, split_seed)
    scores = {}
    for bands in dict.fromkeys(map(tuple, chosen.values())):
        if classifier == "svm":
            train, val, test = _pixels(task, split)
            scores[bands] = retrain_score(train, val, test=test, bands=np.array(bands), seed=split_seed)
        else:
            scores[bands] = _network_accuracies(task, split, np.array(bands), split_seed)
    write_json(
        path, {name: dict(zip(("val", "test"), scores[tuple(bands)], strict=True)) for name, bands in chosen.items()}
    )


def _network_accuracies(task: Task, split: Split, bands: NDArray[np.int64], seed: int) -> tuple[float | None, float]:
    """Accuracies of a network with one group per band, so that a channel can be any contrast of bands."""
    model = replace(task.settings.model, fusion="channel", keep_bands=None)
    # no sparsity penalty: all chosen bands stay open
    settings = replace(
        task.settings, seed=seed, band_cost=0.0, epochs=task.plan.retrain_epochs, model=model, groups=lone_groups
    )
    result = fit(settings, initialise(with_bands(split, bands), settings))
    return result.val_accuracy, float(result.metrics["test"]["overall_accuracy"])


def lone_groups(bands: Bands) -> list[BandGroup]:
    """A group for each centre wavelength, bounded by the midpoints between neighbours."""
    centres = np.unique(bands.wavelength_nm)
    middle = (centres[1:] + centres[:-1]) / 2
    edges = [centres[0] - 1, *middle, centres[-1] + 1]
    limits = zip(centres, edges[:-1], edges[1:], strict=True)
    return [BandGroup(f"{nm:.10g} nm", float(lower), float(upper)) for nm, lower, upper in limits]


@lru_cache(1)
def _cube(task: Task, split: Split) -> TrainingCube:
    used = used_layers(task.scene.scene, task.settings)
    used[len(task.scene.scene.bands) :] = False  # further rasters are not bands
    return prepare(split, used)


@lru_cache(2)
def _pixels(task: Task, split: Split) -> tuple[Pixels, Pixels, Pixels]:
    """Standardised spectra (N, C + E) and classes of the training, validation and test pixels."""
    cube = _cube(task, split)
    classes = cube.classes.numpy()
    train, val, test = ((cube.spectra(split.pixels(role)), classes[split.pixels(role)]) for role in (TRAIN, VAL, TEST))
    return train, val, test


def with_bands(split: Split, chosen: NDArray[np.integer]) -> Split:
    """The same pixels with only some of the bands, as a sensor with these bands would have seen them.

    ``chosen`` are indices (k,) in any order; the bands keep the order of the file. Layers of further rasters are left
    out.
    """
    scene, kept = split.labelled.scene, np.sort(chosen).astype(np.int64)
    bands = replace(scene.bands[kept], good=np.ones(len(kept), bool))  # even bands that are constant on this split
    fewer = ArrayScene(read_all(scene, kept), bands=bands, name=scene.name, geobox=scene.geobox)
    return replace(split, labelled=replace(split.labelled, scene=fewer))
