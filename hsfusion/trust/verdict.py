"""What the numbers allow one to say about band weights, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.spectra.weights import BandWeights
from hsfusion.trust.chance import chance_sentence
from hsfusion.trust.stability import Stability

#: index from which agreement counts as excellent: Fleiss' benchmark, which Nogueira et al. (2018) take over
STABLE = 0.75
#: why the weights of a free convolution are none
FREE = "The free convolution can absorb the scale of any band: its weights are no evidence."
_LEVEL = 0.05
_CRITICAL_Z = 2.326  # one-sided 1 % point of the normal distribution
_MOST_ALIKE = 6  # bands of the same values that are named
_MOVED_MAPS = 3
_NAMED = 5  # windows


@dataclass(frozen=True)
class WavelengthWindow:
    """One of the windows that hold most weight: its share, the median over the runs.

    ``raised`` is its part of the weight of all bands as a multiple of what untrained networks give it, the median, too;
    ``frequency`` the share of the runs that select a band in it, one of those that training raised most.
    """

    lower_nm: float
    upper_nm: float
    share: float
    raised: float
    frequency: float

    def describe(self, runs: int) -> str:
        """In words, of so many runs."""
        often = f", selected in {round(self.frequency * runs)} of {runs} runs" if runs > 1 else ""
        share = f"{self.share:.0%} of the weight, {self.raised:.1f} x untrained"
        return f"{self.lower_nm:.0f}-{self.upper_nm:.0f} nm ({share}{often})"


@dataclass(frozen=True)
class Duplicate:
    """Two bands that say the same, by index."""

    first: int
    second: int
    correlation: float


@dataclass(frozen=True)
class Verdict:
    """What the band weights are worth, why, and the windows of greatest weight; none where there is no evidence.

    The word is ``supported``, ``borderline``, ``not supported``, ``no evidence`` or, without an evidence run, ``not
    tested``.
    """

    word: str
    sentences: tuple[str, ...]
    windows: tuple[WavelengthWindow, ...]


def beats_chance(confusion: NDArray[np.integer], *, receptive_field: int) -> bool:
    """Whether a network agrees with the labels of pixels that it has not seen more than chance does.

    Smooth labels that mean nothing pass: it stands in where there are no moved label maps (docs/weights.md).

    A network that does not may put its weights anywhere, and they mean nothing. The agreement p_o of map and truth,
    from counts of test pixels (K, K) or (K, K + 1), rows truth, is compared with the agreement p_e that chance gives
    for the same row and column sums, as in Cohen's kappa, at the 1 % level. Pixels within one receptive field are
    counted as one observation, for neighbours are alike.
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
    """Pairs of bands whose spectra (N, C) have a correlation above a limit, either sign, or equal values.

    Bands without variance have no correlation; they are pairs where they are equal. The first band comes before the
    second.
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
    """The windows of greatest weight with their selection frequency, heaviest first.

    They are looked for in the profile that is reported; (R, C) are the bands that each run selects and its weights:
    bands that take turns have small medians and make a heavy window; ``untrained`` (C,) are the mean weights of
    networks that have not been trained.
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
    """Judges the band weights of one or several runs.

    By the rule in docs/weights.md, from what the arguments say:

    * ``unreadable``: why the weights cannot be read at all.
    * ``chance``: the scores of each run, fields of :class:`hsfusion.trust.chance.Chance`.
    * ``uniformity_p``, ``stability``: None of a single run.
    * ``curves``: ``area``, ``lower`` and ``p`` of each curve by name; None where no bands were removed.
    * ``moved``: values by name, on the ``labels`` and on each of the ``moved`` label maps.
    """
    numbers = beats_chance, uniformity_p, stability, curves or {}, moved or {}
    word, why = ("no evidence", unreadable) if unreadable else _judge(*numbers)
    compared = () if unreadable or not chance else (chance_sentence(chance),)
    if word == "no evidence":
        return Verdict(word, (why, *compared), ())
    named = tuple(windows[:_NAMED])
    shown = _shown(named, runs=len(beats_chance))
    return Verdict(word, (why, *compared, *shown, *_pair_sentences(named, pairs, wavelength_nm)), named)


def _judge(
    beats_chance: Sequence[bool],
    uniformity_p: float | None,
    stability: Stability | None,
    curves: Mapping[str, Mapping[str, Any]],
    moved: Mapping[str, Mapping[str, Any]],
) -> tuple[str, str]:
    """The word of a verdict and the sentence that gives the reason."""
    runs, lost = len(beats_chance), sum(not beats for beats in beats_chance)
    if lost or not runs:
        return "no evidence", (
            f"{lost} of {runs} runs do no better on pixels that they have not seen than chance, or than a classifier "
            "of labels that mean nothing: their weights are no evidence."
        )
    if uniformity_p is not None and uniformity_p >= _LEVEL:
        return "no evidence", f"The weights do not differ from those of untrained networks (p = {uniformity_p:.2g})."
    if stability is None:
        return "not tested", "There is one run: another seed may weight other bands. Train several and compare."
    if not stability.index >= STABLE:  # also where it is undefined
        return "not supported", (
            f"Repeated trainings do not agree on the bands: {_agreement(stability)}, below {STABLE}."
        )
    return _judge_agreeing(stability, curves, moved)


def _judge_agreeing(
    stability: Stability, curves: Mapping[str, Mapping[str, Any]], moved: Mapping[str, Mapping[str, Any]]
) -> tuple[str, str]:
    """The same of runs that agree: intervals that reach their limit are doubts."""
    doubts = [] if stability.lower >= STABLE else [f"the interval of the index does not lie above {STABLE}"]
    doubts += [f"that of the area of {name} does not lie above 0" for name, of in curves.items() if not of["lower"] > 0]
    if curves and (maps := min((len(of["moved"]) for of in moved.values()), default=0)) < _MOVED_MAPS:
        doubts.append(f"networks were trained on {maps or 'no'} moved label maps, not on {_MOVED_MAPS}")
    but = f" But {', and '.join(doubts)}." if doubts else ""
    agree = f"Repeated trainings agree ({_agreement(stability)})"
    if not curves:
        return "not tested", f"{agree}, but no band was removed to see what it is worth.{but}"
    if reasons := _against(curves, moved):
        return "not supported", f"{agree}, which is not enough. {' '.join(reasons)}"
    areas, p = [of["area"] for of in curves.values()], max(of["p"] for of in curves.values())
    return "borderline" if doubts else "supported", (
        f"{agree}, and bands of great weight matter more to the accuracy than other open ones (areas "
        f"between the curves {min(areas):.3f} to {max(areas):.3f}, largest p = {p:.2g}).{but}"
    )


def _against(curves: Mapping[str, Mapping[str, Any]], moved: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences on curves that are not significant, and on values that networks on moved label maps reach."""
    missed = [f"{name}, area {of['area']:.3f}, p = {of['p']:.2g}" for name, of in curves.items() if of["p"] >= _LEVEL]
    reached = [
        f"{name} {of['labels']:.3g}, at most {most:.3g}"
        for name, of in moved.items()
        if not of["labels"] > (most := np.nanmax([*of["moved"], -np.inf]))
    ]
    start = "Bands of great weight are not shown to matter more to the accuracy than other open ones"
    moved_start = "Networks trained on moved label maps, which mean nothing, get as far"
    return [f"{of}: {'; '.join(parts)}." for of, parts in ((start, missed), (moved_start, reached)) if parts]


def _agreement(stability: Stability) -> str:
    """The index in words, with the number of runs behind each profile."""
    if np.isnan(stability.index):
        return "no band stands out in any of them, the index is undefined"
    of = f"medians of {stability.members} runs" if stability.members > 1 else "single runs"
    known = not np.isnan(stability.lower)
    interval = f"95 % interval {stability.lower:.2f} to {stability.upper:.2f}" if known else "too few for an interval"
    return f"Nogueira index {stability.index:.2f} of {stability.profiles} {of}, {interval}"


def _shown(windows: Sequence[WavelengthWindow], *, runs: int) -> list[str]:
    """A sentence on the windows that most runs select, and one on the others; none without any."""
    sentences = []
    for start, often in (("Heaviest windows", True), ("Heavy, but selected by fewer than half of the runs", False)):
        named = [window.describe(runs) for window in windows if (runs == 1 or window.frequency >= 0.5) == often]
        sentences += [f"{start}: {'; '.join(named)}."] if named else []
    return sentences


def _pair_sentences(
    windows: Sequence[WavelengthWindow], pairs: Sequence[Duplicate], wavelength_nm: NDArray[np.floating]
) -> list[str]:
    """A sentence on each set of bands alike that has a band in one of the windows; bands count from 1."""
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
                f"Bands {', '.join(named[:_MOST_ALIKE])} and {last} hold nearly the same values (correlation "
                f"{least:.5f} or closer): how their weight is shared between them means nothing."
            )
    return sentences
