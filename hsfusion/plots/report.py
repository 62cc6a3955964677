"""The report of a run or of an evidence folder: one self-contained HTML page that loads nothing and runs nothing.

The templates in ``templates/`` hold its structure, its prose and its look.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from hsfusion.plots.weights import CURVE_ID, totals_by_group

# bytes of the page of a run, and of a page with its evidence
_MOST_BYTES, _MOST_WITH_EVIDENCE = 1_700_000, 1_950_000
_LARGEST_SVG = 400_000  # bytes, above which the PNG beside it is taken
_MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_PIXELS_PER_INCH = 120  # of the page; 8 pt type is then drawn 13 pixels high
_PNG_DOTS_PER_INCH = 200  # as save_figure writes them
_CURVE = "band_weights"

Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WeightProfile:
    """Band weights and what is known about each band; None where it is unknown.

    Attributes:
        wavelength_nm: (C,) centre wavelengths.
        weight: (C,) non-negative; they and the sources sum to 1.
        fwhm_nm: (C,).
        good: (C,) bool, False for bands that are not used; None for all.
        band_groups: C names, empty for bands in no group; empty for no names at all.
        groups: (name, lower_nm, upper_nm) of each, half-open.
        sources: (name, weight) of each layer of further rasters.
        quartiles: (C,) lower and upper over runs, or None for one run.
        frequency: (C,) share of the runs that select the band, or None for one run.
        profiles: (R, C) the weights of each run whose median this is; None for one run.
        untrained: (C,) what untrained networks give the bands; None for the same everywhere.
    """

    wavelength_nm: Values
    weight: Values
    fwhm_nm: Values | None = None
    good: Sequence[bool] | NDArray[np.bool_] | None = None
    band_groups: Sequence[str] = ()
    groups: Sequence[tuple[str, float, float]] = ()
    sources: Sequence[tuple[str, float]] = ()
    quartiles: tuple[Values, Values] | None = None
    frequency: Values | None = None
    profiles: Sequence[Sequence[float]] | NDArray[np.float64] | None = None
    untrained: Values | None = None


def report_html(
    content: Mapping[str, Any], *, weights: WeightProfile, windows: Sequence[Mapping[str, Any]], figures: Path
) -> str:
    """Writes the report of a run as one HTML page of less than 2 MB, everything escaped.

    A very large SVG gives way to the PNG beside it; a figure that the page has no room for is named instead.

    Args:
        content: what the template ``run.html.j2`` shows, by name.
        weights: the band weights of the run.
        windows: lower_nm, upper_nm, weight (0..1) and raised (times untrained) of each, in the order to list.
        figures: folder of the figures; those that are not drawn are left out.
    """
    shown = {**content, "weights": _described(weights, windows)}
    template = _environment().get_template("run.html.j2")
    pictures = _pictures(figures, shown["weights"])
    return _fitted(lambda: template.render(shown, figures=pictures), pictures, most=_MOST_BYTES)


def evidence_html(evidence: Mapping[str, Any], *, content: Mapping[str, Any], figures: Path) -> str:
    """Writes the report of an evidence folder as one HTML page of less than 2 MB, everything escaped.

    Parts whose numbers are not there yet are left out.

    Args:
        evidence: content of ``evidence.json``.
        content: title, configuration, versions, and the command that repeats it (reproduce).
        figures: folder of the figures; those that are not drawn are left out.
    """
    weights, runs = _of_evidence(evidence), len(evidence.get("runs", []))
    shown = {**content, "evidence": evidence, "weights": weights, "runs": runs}
    template = _environment().get_template("evidence.html.j2")
    pictures = _pictures(figures, weights)
    return _fitted(lambda: template.render(shown, figures=pictures), pictures, most=_MOST_BYTES)


def with_evidence(page: str, evidence: Mapping[str, Any], *, name: str, figures: Path) -> str:
    """Puts what an evidence folder says about the weights into the page of a run.

    The curve, with its spread and stamp, becomes the median over all trainings, which is what the verdict is on.

    Args:
        page: what :func:`report_html` wrote.
        evidence: content of ``evidence.json`` with its verdict.
        name: of the evidence folder.
        figures: folder of the figures of the evidence.

    Raises:
        ValueError: if the page has no place for it.
    """
    verdict, runs, weights = evidence["verdict"], len(evidence["runs"]), _of_evidence(evidence)
    judged = [f"Judged by the {runs} trainings of {name} on this scene, not by this run alone.", *verdict["sentences"]]
    note = f"Of the {runs} trainings together. The weights of this run alone are in band_weights.csv."
    parts: Any = _environment().get_template("parts.html.j2").module
    pictures = _pictures(figures, weights)

    def filled() -> str:
        judgement = _replaced(page, "verdict", parts.verdict(verdict["word"], judged))
        weighed = _replaced(judgement, "weights", parts.weights(weights, pictures, note))
        return _replaced(weighed, "evidence", parts.evidence(evidence, pictures))

    return _fitted(filled, pictures, most=_MOST_WITH_EVIDENCE)


def _replaced(page: str, place: str, content: str) -> str:
    """Exchanges what stands between the two comments of a name."""
    before, start, rest = page.partition(f"<!-- {place} -->")
    _, end, after = rest.partition(f"<!-- /{place} -->")
    if not end:
        raise ValueError(f"no place for the {place}")
    return "".join((before, start, content, end, after))  # Markup + str would escape the page


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["mean"] = lambda values: float(np.mean(values))
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["digits"] = _digits
    return environment


def _digits(value: float | None, digits: int) -> str:
    return "undefined" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _described(profile: WeightProfile, windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Band weights as the templates take them: every band, in the order of the file, with totals and windows."""
    lower, upper = profile.quartiles or (None, None)
    columns = {
        "nm": profile.wavelength_nm,
        "weight": profile.weight,
        "fwhm": profile.fwhm_nm,
        "group": profile.band_groups or None,
        "lower": lower,
        "upper": upper,
        "untrained": profile.untrained,
        "frequency": profile.frequency,
    }
    number = np.size(profile.wavelength_nm)
    good = np.ones(number, bool) if profile.good is None else np.asarray(profile.good)
    bands = [
        {"number": c + 1, "good": good[c], **{k: None if of is None else of[c] for k, of in columns.items()}}
        for c in range(number)
    ]
    weights = profile.weight if profile.profiles is None else profile.profiles
    return {
        "bands": bands,
        "groups": profile.groups,
        "totals": totals_by_group(profile.wavelength_nm, weights, profile.groups),
        "sources": profile.sources,
        "windows": windows,
        "runs": 0 if profile.profiles is None else len(profile.profiles),
    }


def _of_evidence(evidence: Mapping[str, Any]) -> dict[str, Any] | None:
    """The reported weights of an evidence folder; None before its trainings are done."""
    if "ensemble" not in evidence:
        return None
    quartiles = evidence.get("quartiles")
    profile = WeightProfile(
        evidence["bands"]["wavelength_nm"],
        evidence["ensemble"],
        fwhm_nm=evidence["bands"].get("fwhm_nm"),
        good=evidence["bands"]["good"],
        band_groups=evidence["band_groups"],
        groups=[(group["name"], group["lower_nm"], group["upper_nm"]) for group in evidence["groups"]],
        quartiles=quartiles and (quartiles["lower"], quartiles["upper"]),
        frequency=evidence.get("selection_frequency"),
        profiles=evidence["profiles"],
        untrained=evidence.get("untrained"),
    )
    return _described(profile, evidence.get("top_windows", []))


def _pictures(folder: Path, weights: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Stem of each figure in a folder to its name, source, width in pixels, and strips over the curve."""
    pictures = {}
    for svg in sorted(folder.glob("*.svg")):
        png = svg.with_suffix(".png")
        path = png if svg.stat().st_size > _LARGEST_SVG and png.exists() else svg
        content = path.read_bytes()
        source = f"data:{_MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(content).decode('ascii')}"
        strips = _strips(content.decode(), weights["bands"]) if weights and svg.stem == _CURVE and path == svg else []
        pictures[svg.stem] = {"name": path.name, "source": source, "width": _width_px(content), "strips": strips}
    return pictures


def _fitted(render: Callable[[], str], pictures: Mapping[str, dict[str, Any]], *, most: int) -> str:
    """Renders the page; as long as it is too large, the largest figure but the curve gives way to its name."""
    large = sorted((of for stem, of in pictures.items() if stem != _CURVE), key=lambda of: len(of["source"]))
    while len((page := render()).encode()) > most and large:
        large.pop()["source"] = None
    return page


def _width_px(content: bytes) -> int | None:
    """Width that draws all figures at one scale, from a PNG's or SVG's own size; None where it is unknown."""
    if content.startswith(b"\x89PNG"):
        return round(struct.unpack(">I", content[16:20])[0] / _PNG_DOTS_PER_INCH * _PIXELS_PER_INCH)
    size = re.search(rb'<svg[^>]*\bwidth="([\d.]+)pt"', content)
    return round(float(size[1]) / 72 * _PIXELS_PER_INCH) if size else None


def _strips(svg: str, bands: Sequence[dict[str, Any]]) -> list[tuple[float, dict[str, Any] | None]]:
    """Strips (width in percent, band) around the markers of the drawn curve, after one for the left margin."""
    group = re.search(rf'<g id="{CURVE_ID}">(.*?)</g>\s*</g>', svg, re.DOTALL)
    width = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    at = [float(x) for x in re.findall(r'<use [^>]*?\bx="([\d.]+)"', group[1])] if group else []
    if width is None or not 1 < len(at) == len(bands):
        return []
    x = 100 * np.array(at) / float(width[1])
    edges = np.concatenate([[1.5 * x[0] - 0.5 * x[1]], (x[1:] + x[:-1]) / 2, [1.5 * x[-1] - 0.5 * x[-2]]])
    widths = np.diff(np.clip(edges, 0, 100), prepend=0).tolist()
    ascending = sorted(bands, key=lambda band: float(band["nm"]))
    return list(zip(widths, [None, *ascending], strict=True))
