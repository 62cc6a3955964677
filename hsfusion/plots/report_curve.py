"""The curve of the band weights in a report, with the values of every band below the pointer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from hsfusion.plots.report_chart import Axes, area, chart, curve, key, keys
from hsfusion.plots.weights import STRONG_WATER_VAPOUR_NM, WEAK_WATER_VAPOUR_NM, broken_at_gaps, totals_by_group

_STAMPED = ("no evidence", "unstable", "not faithful")  # verdicts that stand across the curve
_PLOT_WIDTH_PX, _LETTER_PX = 880, 7.4  # of the chart on a desktop and of its letters: what fits is written


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


def spectral_axes(nm: NDArray[np.float64], highest: float, *, y_label: str) -> Axes:
    """Axes over wavelength, from 0 to a highest value."""
    pad = max(0.01 * float(np.ptp(nm)), 1.0)
    return Axes((float(nm.min()) - pad, float(nm.max()) + pad), (0.0, highest), "wavelength (nm)", y_label)


def group_totals(profile: WeightProfile) -> dict[str, float]:
    """Group name to the weight of its bands, the median over the runs."""
    runs = profile.weight if profile.profiles is None else profile.profiles
    return totals_by_group(profile.wavelength_nm, runs, profile.groups)


def percent(value: float) -> str:
    """A share of 1 in percent, with its unit."""
    return f"{100 * value:.1f} %"


def weights_figure(profile: WeightProfile, *, word: str) -> str:
    """The curve over wavelength with atmosphere, groups and spread, and the slider that reads it band by band.

    Args:
        profile: the weights.
        word: of the verdict; written across the curve where it says that the weights are no evidence.
    """
    nm, weight = profile.wavelength_nm, 100 * profile.weight
    quartiles = None if profile.quartiles is None else [100 * edge for edge in profile.quartiles]
    highest = max(float(np.max([weight] if quartiles is None else [weight, *quartiles])), 100 / nm.size, 1e-9)
    axes = spectral_axes(nm, 1.25 * highest, y_label="band weight (% of the total)")
    x, y = broken_at_gaps(nm, weight)
    if quartiles is None:
        curves = area(axes, x, np.zeros(x.size), y, css="area")
    else:
        lower, upper = (broken_at_gaps(nm, edge)[1] for edge in quartiles)
        curves = area(axes, x, lower, upper, css="area")
    if profile.untrained is not None:
        curves += curve(axes, *broken_at_gaps(nm, 100 * profile.untrained), css="uniform")
    curves += curve(axes, x, y, css="curve")
    cursor = '<line class="cursor" x1="0" x2="0" y1="0" y2="100%" visibility="hidden"/>'
    stamp = (
        f'<text class="stamp" x="50%" y="60%" text-anchor="middle">{escape(word)}</text>' if word in _STAMPED else ""
    )
    drawn = chart(
        axes,
        _alternative(profile, word=word),
        behind=_shades(profile, axes) + _atmosphere(axes) + stamp,
        curves=curves,
        before=_uniform(axes, profile)
        + _group_names(profile, axes)
        + _dots(profile, axes)
        + cursor
        + _hover_bands(profile, axes),
    )
    slider = (
        f'<label for="band">Values band by band, by arrow keys or by touching the curve</label>'
        f'<input id="band" type="range" min="0" max="{nm.size - 1}" value="0" step="1">'
        f'<output for="band" aria-live="off">Point at the curve or move the slider.</output>'
    )
    return (
        f'<figure class="weights">{drawn}<div class="reader" hidden>{slider}</div>{_keys(profile, axes)}'
        f"<figcaption><strong>Band weights.</strong> {escape(_caption(profile))}</figcaption></figure>"
    )


def _caption(profile: WeightProfile) -> str:
    if profile.profiles is None:
        words = (
            "What the forward pass uses of each band; all weights sum to 100 %. One training: another seed spreads the "
        )
        words += "weight differently within a window."
    else:
        words = (
            f"The median over {len(profile.profiles)} trainings of what the forward pass uses of each band, scaled to "
        )
        words += "sum to 100 %; the area lies between their quartiles, scaled alike."
    if profile.untrained is not None:
        about = "about " if profile.profiles is None else ""
        words += f" Dashed is {about}what untrained networks give: all groups the same, however few their bands."
    return words


def _alternative(profile: WeightProfile, *, word: str) -> str:
    """The curve in words, for those who cannot see it."""
    nm = profile.wavelength_nm
    best = int(np.argmax(profile.weight))
    stamp = f"; stamped {word}" if word in _STAMPED else ""
    expected = (
        f"a uniform weight were {percent(1 / nm.size)}"
        if profile.untrained is None
        else f"untrained networks give that band {percent(float(profile.untrained[best]))}"
    )
    return (
        f"Band weights over wavelength, {nm.size} bands from {nm.min():.0f} to {nm.max():.0f} nm. The largest is "
        f"{percent(float(profile.weight[best]))} at {nm[best]:.0f} nm, {expected}{stamp}. The tables below hold the "
        "values."
    )


def _keys(profile: WeightProfile, axes: Axes) -> str:
    spread = "area below the curve" if profile.quartiles is None else "between the quartiles over runs"
    low, high = axes.x
    entries = [
        key(
            '<line x1="0" x2="24" y1="6" y2="6" class="curve"/>',
            "band weight" if profile.quartiles is None else "band weight, median",
        ),
        key('<rect width="24" height="12" class="area"/>', spread),
        key(
            '<line x1="0" x2="24" y1="6" y2="6" class="uniform"/>',
            "untrained networks" if profile.untrained is not None else "uniform weight",
        ),
    ]
    if any(a < high and b > low for a, b in STRONG_WATER_VAPOUR_NM):
        hatched = '<path d="M0 12L12 0M6 12L18 0M12 12L24 0" class="hatching"/>'
        entries.append(key(hatched, "water vapour, strong"))
    if any(low < at < high for at in WEAK_WATER_VAPOUR_NM):
        entries.append(key('<line x1="12" x2="12" y1="0" y2="12" class="weak"/>', "water vapour, weak"))
    return keys(*entries)


def _places(profile: WeightProfile, axes: Axes) -> list[tuple[str, float, float]]:
    """Name, left and right end, in percent, of each group that the axes show, in order of wavelength."""
    groups = sorted(profile.groups, key=lambda group: group[1])
    low, high = axes.x
    return [
        (name, axes.across(max(lower, low)), axes.across(min(upper, high)))
        for name, lower, upper in groups
        if lower < high and upper > low
    ]


def _shades(profile: WeightProfile, axes: Axes) -> str:
    """A shade for each group."""
    return "".join(
        f'<rect class="{"odd" if i % 2 else "even"}" x="{left:.2f}%" width="{right - left:.2f}%" height="100%"/>'
        for i, (_, left, right) in enumerate(_places(profile, axes))
    )


def _group_names(profile: WeightProfile, axes: Axes) -> str:
    """Name and total of each group, as far as each has the room."""
    totals, parts = group_totals(profile), []
    for name, left, right in _places(profile, axes):
        room = (right - left) / 100 * _PLOT_WIDTH_PX
        lines = [line for line in (name, percent(totals[name])) if len(line) * _LETTER_PX < room]
        middle = f"{(left + right) / 2:.2f}%"
        parts += [
            f'<text class="group" x="{middle}" y="0" dy="{dy}em" text-anchor="middle">{escape(line)}</text>'
            for line, dy in zip(lines, (1.3, 2.5), strict=False)
        ]
    return "".join(parts)


def _atmosphere(axes: Axes) -> str:
    """Marks where water vapour absorbs, as far as the axes reach."""
    low, high = axes.x
    parts = [
        '<defs><pattern id="vapour" width="6" height="6" patternUnits="userSpaceOnUse">'
        '<path class="hatching" d="M0 6L6 0"/></pattern></defs>'
    ]
    for lower, upper in STRONG_WATER_VAPOUR_NM:
        left, right = axes.across(max(lower, low)), axes.across(min(upper, high))
        if left < right:
            parts.append(f'<rect fill="url(#vapour)" x="{left:.2f}%" width="{right - left:.2f}%" height="100%"/>')
    for at in (f"{axes.across(nm):.2f}%" for nm in WEAK_WATER_VAPOUR_NM if low < nm < high):
        parts.append(f'<line class="weak" x1="{at}" x2="{at}" y1="0" y2="100%"/>')
    return "".join(parts)


def _uniform(axes: Axes, profile: WeightProfile) -> str:
    """The weight that all bands would share, where untrained networks are not drawn."""
    if profile.untrained is not None:
        return ""
    at = f"{axes.upwards(100 / profile.wavelength_nm.size):.2f}%"
    return f'<line class="uniform" x1="0" x2="100%" y1="{at}" y2="{at}"/>'


def _dots(profile: WeightProfile, axes: Axes) -> str:
    """A dot for each band where they are few enough to tell apart."""
    if profile.weight.size > 60:
        return ""
    places = zip(profile.wavelength_nm, 100 * profile.weight, strict=True)
    return "".join(
        f'<circle class="dot" r="3.5" cx="{axes.across(nm):.2f}%" cy="{axes.upwards(value):.2f}%"/>'
        for nm, value in places
    )


def _hover_bands(profile: WeightProfile, axes: Axes) -> str:
    """An invisible strip for each band, in order of wavelength, with its values as tool tip."""
    order = np.argsort(profile.wavelength_nm, kind="stable")
    at = np.array([axes.across(float(nm)) for nm in profile.wavelength_nm[order]])
    edges = np.concatenate([[0.0], (at[1:] + at[:-1]) / 2, [100.0]])
    strips = [
        f'<rect data-at="{at[i]:.2f}" x="{edges[i]:.2f}%" width="{edges[i + 1] - edges[i]:.2f}%" height="100%">'
        f"<title>{escape(_words(profile, int(c)))}</title></rect>"
        for i, c in enumerate(order)
    ]
    return f'<g class="bands">{"".join(strips)}</g>'


def _words(profile: WeightProfile, c: int) -> str:
    """What is known about one band, in words."""
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
