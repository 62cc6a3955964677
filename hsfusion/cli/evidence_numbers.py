"""From what the trainings left to the numbers of evidence.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.cli.evidence_jobs import REPEATS, read_json
from hsfusion.spectra import BandGroup, Bands, BandWeights
from hsfusion.trust.faithfulness import (
    Curve,
    band_windows,
    deletion,
    insertion,
    order_by_weight,
    permutation_importance,
)
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

_CURVES = {"deletion": deletion, "insertion": insertion}
_STEPS = 15  # numbers of windows at which the curves are known, at most


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


def faithfulness_of(
    profiles: Profiles, scored: Sequence[Path], *, seed: int, split_seed: int, names: Sequence[str]
) -> dict[str, Any]:
    """Curves and importance of groups, from the mean accuracy of several networks under the same replacements.

    Args:
        profiles: the weights of all runs.
        scored: what :func:`~hsfusion.cli.evidence_jobs.score_run` wrote, of each network.
        seed: of the first of these networks.
        split_seed: of the random orders.
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
    for direction, curve in _CURVES.items():
        found[direction] = {}
        for fill in ("mean", "conditional"):
            replayed: Iterator[NDArray] = iter(np.mean([record[direction][fill] for record in records], axis=0))
            of = curve(
                lambda keep, said=replayed: next(said),
                np.array(plan["order"]),
                windows=profiles.windows,
                number=number,
                seed=split_seed,
                random_orders=REPEATS,
            )
            found[direction][fill] = _curve(of)
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
    accuracy = np.mean([record["groups"] for record in records], axis=0)  # (1 + G REPEATS,)
    said = iter(accuracy.tolist())
    pixels = int(records[0]["pixels"])
    found = permutation_importance(
        lambda bands, order: next(said), np.zeros((len(names), 1), bool), pixels=pixels, seed=0, repeats=REPEATS
    )
    no_loss = (accuracy[1:].reshape(len(names), REPEATS) >= accuracy[0]).sum(1)
    return [
        {"name": name, "importance": float(drop), "spread": float(spread), "p": float((1 + lost) / (1 + REPEATS))}
        for name, drop, spread, lost in zip(names, found.drop, found.spread, no_loss, strict=True)
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
            for direction in _CURVES
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
