"""The verdict on band weights: a word, and sentences that give the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.spectra.weights import BandWeights
from hsfusion.trust.chance import chance_sentence
from hsfusion.trust.stability import Stability

#: index from which agreement counts as excellent: Fleiss' benchmark, adopted by Nogueira et al. (2018)
STABLE = 0.75
#: why the weights of a free convolution are no evidence
FREE = "The free convolution can absorb the scale of any band: its weights are no evidence."
_LEVEL = 0.05
_CRITICAL_Z = 2.326  # one-sided 1 % point of the normal distribution
_MOST_ALIKE = 6  # correlated bands named in a sentence
_MOVED_MAPS = 3  # required for "supported"
_NAMED = 5  # windows in the verdict


@dataclass(frozen=True)
class WavelengthWindow:
    """One of the heaviest windows.

    Attributes:
        share: of the weight of all bands, median over the runs.
        raised: this share as a multiple of the share in untrained networks, median over the runs.
        frequency: share of the runs that select a band in the window, one of those whose weight training raised most.
    """

    lower_nm: float
    upper_nm: float
    share: float
    raised: float
    frequency: float

    def describe(self, runs: int) -> str:
        """The window in words; ``runs`` is the number of runs."""
        often = f", selected in {round(self.frequency * runs)} of {runs} runs" if runs > 1 else ""
        share = f"{self.share:.0%} of the weight, {self.raised:.1f} x untrained"
        return f"{self.lower_nm:.0f}-{self.upper_nm:.0f} nm ({share}{often})"


@dataclass(frozen=True)
class Duplicate:
    """Two redundant bands, by index."""

    first: int
    second: int
    correlation: float


@dataclass(frozen=True)
class Verdict:
    """A word on the band weights, the reasons, and the heaviest windows; no windows if there is no evidence.

    The word is ``supported``, ``borderline``, ``not supported``, ``not tested`` or ``no evidence``.
    """

    word: str
    sentences: tuple[str, ...]
    windows: tuple[WavelengthWindow, ...]


def beats_chance(confusion: NDArray[np.integer], *, receptive_field: int) -> bool:
    """Whether a network agrees with the labels of unseen pixels better than chance; if not, its weights mean nothing.

    The observed agreement of map and ground truth, from counts of test pixels (K, K) or (K, K + 1) with rows for the
    ground truth, is compared with the agreement expected by chance for the same row and column sums, as in Cohen's
    kappa: a one-sided test at the 1 % level. Pixels within one receptive field count as one observation, because
    neighbours are correlated.

    Smooth but meaningless labels pass, so this test is used only if there are too few moved label maps
    (docs/weights.md).
    """
    counts = confusion.astype(np.float64)
    total = counts.sum()
    if total == 0:
        return False
    observed = np.trace(counts) / total
    expected = (counts.sum(1) * counts.sum(0)[: len(counts)]).sum() / total**2
    observations = max(1.0, total / receptive_field**2)
    error = np.sqrt(expected * (1 - expected) / observations)
    return bool(observed - expected > _CRITICAL_Z * error)


def duplicates(spectra: NDArray[np.floating], *, above: float = 0.9999) -> list[Duplicate]:
    """Pairs of bands whose absolute correlation over spectra (N, C) exceeds a limit.

    Bands without variance have no correlation; they form a pair if their values are equal. The lower index comes first.
    """
    centred = spectra - spectra.mean(0, dtype=np.float64)
    norm = np.sqrt((centred**2).sum(0))
    flat = norm <= 1e-9 * np.sqrt((spectra.astype(np.float64) ** 2).sum(0))
    unit = np.where(flat, 0, centred / np.where(flat, 1, norm))
    correlation = (unit.T @ unit).clip(-1, 1)  # (C, C)
    equal = np.outer(flat, flat) & np.isclose(spectra.mean(0)[:, None], spectra.mean(0)[None, :], rtol=1e-6, atol=0)
    pairs = np.argwhere(np.triu((np.abs(correlation) > above) | equal, 1))
    return [Duplicate(i, j, 1.0 if equal[i, j] else float(correlation[i, j])) for i, j in pairs.tolist()]


def weight_windows(
    weights: BandWeights,
    selected: NDArray[np.bool_],
    *,
    profiles: NDArray[np.float64],
    untrained: NDArray[np.float64],
    number: int = 8,
    width_nm: float = 50.0,
) -> tuple[WavelengthWindow, ...]:
    """The heaviest windows of the reported profile, in descending order of their median share over the runs.

    If runs select different bands of a window, each band has a small median, but the window is heavy in every run: the
    shares are therefore summed in each run.

    Args:
        weights: the reported profile, in which the windows are located.
        selected: (R, C), the bands that each run selects.
        profiles: (R, C), the weights of each run.
        untrained: (C,), the mean weights of untrained networks.
        number: of windows, at most.
        width_nm: of a window, at most.
    """
    nm, windows = weights.bands.wavelength_nm, []
    for lower, upper, _ in weights.windows(number, width_nm=width_nm):
        inside = (nm >= lower) & (nm <= upper)
        total, expected = profiles[:, inside].sum(1), untrained[inside].sum() / max(untrained.sum(), 1e-300)
        raised = np.median(total / np.maximum(profiles.sum(1), 1e-300)) / max(expected, 1e-300)
        often = selected[:, inside].any(1).mean()
        windows.append(WavelengthWindow(lower, upper, float(np.median(total)), float(raised), float(often)))
    return tuple(sorted(windows, key=lambda window: -window.share))


def verdict(
    windows: Sequence[WavelengthWindow],
    *,
    beats_chance: Sequence[bool],
    chance: Sequence[Mapping[str, Any] | None],
    uniformity_p: float | None,
    stability: Stability | None,
    pairs: Sequence[Duplicate],
    wavelength_nm: NDArray[np.floating],
    curves: Mapping[str, Mapping[str, Any]] | None = None,
    moved: Mapping[str, Mapping[str, Any]] | None = None,
    unreadable: str | None = None,
) -> Verdict:
    """Judges the band weights of one or several runs by the rule in docs/weights.md.

    Args:
        windows: the heaviest windows.
        beats_chance: whether each run beats meaningless labels.
        chance: the scores of each run, fields of :class:`hsfusion.trust.chance.Chance`.
        uniformity_p: p-value against untrained networks; None for a single run.
        stability: agreement of the runs; None for a single run.
        pairs: redundant bands.
        wavelength_nm: (C,), of all bands.
        curves: ``area``, ``lower`` and ``p`` of each curve, by name; None if no bands were removed.
        moved: statistics by name, each for the true ``labels`` and for every one of the ``moved`` label maps.
        unreadable: why the weights cannot be interpreted at all; None if they can.
    """
    numbers = beats_chance, uniformity_p, stability, curves or {}, moved or {}
    word, why = ("no evidence", unreadable) if unreadable else _judge(*numbers)
    compared = () if unreadable or not chance else (chance_sentence(chance),)
    if word == "no evidence":
        return Verdict(word, (why, *compared), ())
    named = tuple(windows[:_NAMED])
    of_windows = _window_sentences(named, runs=len(beats_chance))
    return Verdict(word, (why, *compared, *of_windows, *_pair_sentences(named, pairs, wavelength_nm)), named)


def _judge(
    beats_chance: Sequence[bool],
    uniformity_p: float | None,
    stability: Stability | None,
    curves: Mapping[str, Mapping[str, Any]],
    moved: Mapping[str, Mapping[str, Any]],
) -> tuple[str, str]:
    """The word of a verdict and the sentence that gives the reason."""
    runs, failed = len(beats_chance), sum(not beats for beats in beats_chance)
    if failed or not runs:
        return "no evidence", (
            f"On unseen pixels {failed} of {runs} runs did no better than chance, or than a classifier of meaningless "
            "labels: the weights are no evidence."
        )
    if uniformity_p is not None and uniformity_p >= _LEVEL:
        return "no evidence", (
            f"The weights do not differ significantly from those of untrained networks (p = {uniformity_p:.2g})."
        )
    if stability is None:
        return "not tested", "There is one run: another seed may weight other bands. Train several and compare."
    if not stability.index >= STABLE:  # also where it is undefined
        return "not supported", (
            f"Repeated trainings do not agree on the bands: {_agreement(stability)}; at least {STABLE} is required."
        )
    return _judge_agreeing(stability, curves, moved)


def _judge_agreeing(
    stability: Stability, curves: Mapping[str, Mapping[str, Any]], moved: Mapping[str, Mapping[str, Any]]
) -> tuple[str, str]:
    """Word and sentence for runs that agree; an interval that does not exclude its limit leaves a doubt."""
    doubts = [] if stability.lower >= STABLE else [f"the interval of the index does not exclude values below {STABLE}"]
    if wide := [name for name, of in curves.items() if not of["lower"] > 0]:
        doubts.append(f"the interval of the area does not exclude 0 ({'; '.join(wide)})")
    if curves and (maps := min((len(of["moved"]) for of in moved.values()), default=0)) < _MOVED_MAPS:
        doubts.append(f"networks were trained on {maps or 'no'} moved label maps, not on {_MOVED_MAPS}")
    however = f" However, {', and '.join(doubts)}." if doubts else ""
    agree = f"Repeated trainings agree ({_agreement(stability)})"
    if not curves:
        return "not tested", f"{agree}, but bands were not removed to test whether the networks use them.{however}"
    if objections := _objections(curves, moved):
        return "not supported", f"{agree}, but agreement alone is not sufficient. {' '.join(objections)}"
    areas, p = [of["area"] for of in curves.values()], max(of["p"] for of in curves.values())
    return "borderline" if doubts else "supported", (
        f"{agree}, and heavy bands matter more to the accuracy than other open bands (areas of the curves "
        f"{min(areas):.3f} to {max(areas):.3f}, largest p = {p:.2g}).{however}"
    )


def _objections(curves: Mapping[str, Mapping[str, Any]], moved: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences on curves without significance, and on statistics that moved label maps equal or exceed."""
    weak = [f"{name} (area {of['area']:.3f}, p = {of['p']:.2g})" for name, of in curves.items() if of["p"] >= _LEVEL]
    equalled = [
        f"{name} ({of['labels']:.3g}; on moved maps up to {most:.3g})"
        for name, of in moved.items()
        if not of["labels"] > (most := np.nanmax([*of["moved"], -np.inf]))
    ]
    no_effect = "Heavy bands are not shown to matter more to the accuracy than other open bands"
    no_meaning = "Networks trained on moved label maps, which are meaningless, reach values as high"
    return [f"{start}: {'; '.join(parts)}." for start, parts in ((no_effect, weak), (no_meaning, equalled)) if parts]


def _agreement(stability: Stability) -> str:
    """The index in words, with the number of runs behind each profile."""
    if np.isnan(stability.index):
        return "the Nogueira index is undefined, because no profile selects any band, or each selects all"
    of = f"medians of {stability.members} runs" if stability.members > 1 else "single runs"
    known = not np.isnan(stability.lower)
    interval = f"95 % interval {stability.lower:.2f} to {stability.upper:.2f}" if known else "interval undefined"
    return f"Nogueira index {stability.index:.2f} of {stability.profiles} {of}, {interval}"


def _window_sentences(windows: Sequence[WavelengthWindow], *, runs: int) -> list[str]:
    """A sentence on the windows that at least half of the runs select, and one on the others, if any."""
    sentences = []
    for start, often in (("Heaviest windows", True), ("Heavy, but selected in fewer than half of the runs", False)):
        named = [window.describe(runs) for window in windows if (runs == 1 or window.frequency >= 0.5) == often]
        sentences += [f"{start}: {'; '.join(named)}."] if named else []
    return sentences


def _pair_sentences(
    windows: Sequence[WavelengthWindow], pairs: Sequence[Duplicate], wavelength_nm: NDArray[np.floating]
) -> list[str]:
    """A sentence on each set of redundant bands with a band in one of the windows; bands are numbered from 1."""
    sets: list[set[int]] = []
    for pair in pairs:
        joined = {pair.first, pair.second}
        sets = [*(alike for alike in sets if not alike & joined), joined.union(*(of for of in sets if of & joined))]
    sentences = []
    for alike in map(sorted, sets):
        nm = wavelength_nm[alike]
        if any(((nm >= window.lower_nm) & (nm <= window.upper_nm)).any() for window in windows):
            named = [f"{band + 1} ({at:g} nm)" for band, at in zip(alike, nm.tolist(), strict=True)]
            last = named.pop() if len(named) <= _MOST_ALIKE else f"{len(named) - _MOST_ALIKE} others"
            least = min((pair.correlation for pair in pairs if pair.first in alike), key=abs)
            sentences.append(
                f"Bands {', '.join(named[:_MOST_ALIKE])} and {last} are redundant (absolute correlation at least "
                f"{abs(least):.5f}): how the weight is divided between them means nothing."
            )
    return sentences
