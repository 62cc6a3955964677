"""The weights section of a report: the curve over wavelength with its values, windows, groups and every band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hsfusion.plots.report_curve import WeightProfile, group_totals, percent, weights_figure
from hsfusion.plots.report_parts import paragraph, table


def profile_of(evidence: Mapping[str, Any]) -> WeightProfile | None:
    """The reported profile of an evidence folder; None before its trainings are done."""
    if "ensemble" not in evidence:
        return None
    bands = evidence["bands"]
    quartiles, frequency, fwhm = evidence.get("quartiles"), evidence.get("selection_frequency"), bands.get("fwhm_nm")
    return WeightProfile(
        np.array(bands["wavelength_nm"], np.float64),
        np.array(evidence["ensemble"], np.float64),
        fwhm_nm=None if fwhm is None else np.array(fwhm, np.float64),
        good=np.array(bands["good"], bool),
        band_groups=evidence["band_groups"],
        groups=[(group["name"], group["lower_nm"], group["upper_nm"]) for group in evidence["groups"]],
        quartiles=None
        if quartiles is None
        else (np.array(quartiles["lower"], np.float64), np.array(quartiles["upper"], np.float64)),
        frequency=None if frequency is None else np.array(frequency, np.float64),
        profiles=np.array(evidence["profiles"], np.float64),
        untrained=np.array(evidence["untrained"], np.float64) if "untrained" in evidence else None,
    )


def weight_parts(profile: WeightProfile, windows: Sequence[tuple[str, ...]], *, word: str) -> list[str]:
    """Curve, table of windows, table of groups and the table of every band.

    Args:
        profile: the weights.
        windows: rows of the windows of greatest weight, see :func:`window_rows`.
        word: of the verdict; written across the curve where it says that the weights are no evidence.
    """
    header = ("window (nm)", "weight", "× untrained", "selected in", "group")[: len(windows[0]) if windows else 3]
    numbers = (1, 2, 3)[: len(header) - 1]
    shown = table("Wavelength windows with the largest weight", header, rows=windows, numbers=numbers)
    groups = _groups(profile) if profile.groups or profile.sources else ""
    return [weights_figure(profile, word=word), f'<div class="tables">{shown}{groups}</div>', _every_band(profile)]


def window_rows(windows: Sequence[Mapping[str, Any]], *, runs: int) -> list[tuple[str, ...]]:
    """Rows for windows as evidence.json holds them; the frequency and group are of several runs only."""
    rows = [
        (f"{of['lower_nm']:.0f}–{of['upper_nm']:.0f}", percent(of["weight"]), f"{of['raised']:.1f}") for of in windows
    ]
    if runs == 1:
        return rows
    more = [(f"{100 * of['frequency']:.0f} % of runs", str(of.get("group") or "")) for of in windows]
    return [(*row, *told) for row, told in zip(rows, more, strict=True)]


def _groups(profile: WeightProfile) -> str:
    totals = group_totals(profile)
    rows = [(name, f"{lower:.0f}–{upper:.0f}", percent(totals[name])) for name, lower, upper in profile.groups]
    rows += [(name, "further raster", percent(value)) for name, value in profile.sources]
    of = "" if profile.profiles is None else ", median over the runs"
    return table(f"Weight of each band group{of}", ("group", "range (nm)", "weight"), rows=rows, numbers=(2,))


def _every_band(profile: WeightProfile) -> str:
    """A table of all bands, folded up."""
    header, columns = ["band", "nm"], [[f"{nm:.1f}" for nm in profile.wavelength_nm]]
    for name, values, scale, digits in (
        ("FWHM (nm)", profile.fwhm_nm, 1, 1),
        ("weight (%)", profile.weight, 100, 3),
        ("lower quartile (%)", None if profile.quartiles is None else profile.quartiles[0], 100, 3),
        ("upper quartile (%)", None if profile.quartiles is None else profile.quartiles[1], 100, 3),
        ("untrained (%)", profile.untrained, 100, 3),
        ("selected in (% of runs)", profile.frequency, 100, 0),
    ):
        if values is not None:
            header.append(name)
            columns.append([f"{scale * value:.{digits}f}" for value in values])
    numbers = tuple(range(1, len(header)))
    if profile.band_groups:
        header.append("group")
        columns.append(list(profile.band_groups))
    rows = [(str(c + 1), *cells) for c, cells in enumerate(zip(*columns, strict=True))]
    inner = table("Every band, in the order of the file", tuple(header), rows=rows, numbers=numbers)
    return f"<details><summary>All {len(rows)} bands as a table</summary>{inner}</details>"


def no_weights_yet() -> str:
    """Stands in place of the curve as long as no training is done."""
    return paragraph("No training is done yet.")
