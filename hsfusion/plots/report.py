"""The report of a run or of an evidence folder: one self-contained HTML page that loads nothing and runs nothing.

The templates in ``templates/`` hold its structure, its prose and its look.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hsfusion.plots.report_tables import (
    Table,
    WeightProfile,
    accuracies_in_words,
    band_values,
    curve_caption,
    curve_in_words,
    evidence_tables,
    profile_of,
    weight_tables,
    window_rows,
)
from hsfusion.plots.weights import CURVE_ID

# bytes of the page of a run, and of a page with its evidence
_MOST_BYTES, _MOST_WITH_EVIDENCE = 1_700_000, 1_950_000
_LARGEST_SVG = 400_000  # bytes, above which the PNG beside it is taken
_MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_PIXELS_PER_INCH = 120  # of the page; 8 pt type is then drawn 13 pixels high
_PNG_DOTS_PER_INCH = 200  # as save_figure writes them
_UNJUDGED = ("not judged yet", ("The trainings or their comparison are not finished.",))


class PageFigure(NamedTuple):
    """A figure of a page.

    Attributes:
        path: of an SVG or PNG.
        heading: stands before the caption.
        alternative: text in place of the picture.
        caption: what it shows.
        values: texts for the bands of a curve, in order of wavelength, that the pointer shows on its SVG.
    """

    path: Path
    heading: str
    alternative: str
    caption: str
    values: Sequence[str] = ()


Figures = Mapping[str, Sequence[PageFigure]]


def report_html(
    *,
    title: str,
    summary: Mapping[str, str],
    caveats: Sequence[str],
    verdict: tuple[str, Sequence[str]],
    weights: WeightProfile,
    curve: Path | None,
    top_windows: Sequence[Mapping[str, Any]],
    per_class: Sequence[tuple[str, float | None, int]],
    figures: Figures,
    configuration: str,
    versions: Mapping[str, str],
    reproduce: str,
    transfer: Sequence[str] = (),
    scratch: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """Writes the report of a run as one HTML page of less than 2 MB, everything escaped.

    A very large SVG gives way to the PNG beside it; a figure that the page has no room for is named instead.

    Args:
        title: heading of the page.
        summary: what to value, the numbers to read first.
        caveats: sentences a reader must see before the numbers; none for no such box.
        verdict: the word and the sentences on what the weights are worth.
        weights: the band weights of the run.
        curve: the figure of :func:`band_weights_figure`, None for none; an SVG shows the values below the pointer.
        top_windows: lower_nm, upper_nm, weight (0..1) and raised (times untrained) of each, in the order to list.
        per_class: (class name, accuracy 0..1 or None without test pixels, test pixels).
        figures: of the sections ``composition`` (of the weights), ``accuracy``, ``map`` and ``split``.
        configuration: resolved configuration as text.
        versions: package to version.
        reproduce: the command that repeats the run.
        transfer: lines that say what was taken over from another network; none for no such section.
        scratch: quantity to its value after fine-tuning and from scratch; None where nothing was compared.

    Raises:
        ValueError: if a figure is neither SVG nor PNG.
        FileNotFoundError: if a figure does not exist.
    """
    recalls = [(name, "none" if a is None else f"{100 * a:.1f} %", f"{pixels:,}") for name, a, pixels in per_class]
    header = ("class", "accuracy", "test pixels")
    compared = [(name, *values) for name, values in (scratch or {}).items()]
    context = {
        "verdict": verdict,
        "weights": weight_tables(weights, window_rows(top_windows, runs=1)),
        "classes": Table("Accuracy per class: recall on the test pixels", header, recalls, (1, 2)),
        "transfer": "\n".join(transfer),
        "scratch": Table("The same pixels without it", ("quantity", "fine-tuned", "from scratch"), compared),
        **_frame(title, summary, caveats, configuration=configuration, versions=versions, reproduce=reproduce),
    }
    return _page("run.html.j2", context, _with_curve(figures, curve, weights))


def evidence_html(
    evidence: Mapping[str, Any],
    *,
    title: str,
    configuration: str,
    versions: Mapping[str, str],
    reproduce: str,
    curve: Path | None = None,
    figures: Figures | None = None,
) -> str:
    """Writes the report of an evidence folder as one HTML page of less than 2 MB, everything escaped.

    Parts whose numbers are not there yet are left out.

    Args:
        evidence: content of ``evidence.json``.
        title: heading of the page.
        configuration: resolved configuration as text.
        versions: package to version.
        reproduce: the command that repeats the trainings.
        curve: the figure of :func:`band_weights_figure`, None for none.
        figures: of the sections ``composition`` (of the weights), ``faithfulness`` and ``top_k``.

    Raises:
        ValueError: if a figure is neither SVG nor PNG.
        FileNotFoundError: if a figure does not exist.
    """
    split, runs = evidence["split"], evidence.get("runs", [])
    summary = {"Scene": evidence["scene"], "Split": f"{split['kind']}, leakage {split['leakage']:.4f}"}
    summary["Trainings"] = str(len(runs))
    if runs:
        summary["Overall accuracy"] = accuracies_in_words(runs)
    leaks = [f"The split leaks: {split['leakage']:.1%} of the test pixels see a training or validation pixel."]
    judged, profile = evidence.get("verdict"), profile_of(evidence)
    context = {
        "verdict": (judged["word"], judged["sentences"]) if judged else _UNJUDGED,
        "weights": profile and weight_tables(profile, window_rows(evidence.get("top_windows", []), runs=len(runs))),
        "evidence": evidence,
        "tables": evidence_tables(evidence),
        **_frame(
            title,
            summary,
            leaks if split["leakage"] > 0 else [],
            configuration=configuration,
            versions=versions,
            reproduce=reproduce,
        ),
    }
    return _page("evidence.html.j2", context, _with_curve(figures or {}, curve, profile))


def with_evidence(
    page: str, evidence: Mapping[str, Any], *, name: str, curve: Path | None = None, figures: Figures | None = None
) -> str:
    """Puts what an evidence folder says about the weights into the page of a run.

    The curve, with its spread and stamp, becomes the median over all trainings, which is what the verdict is on.

    Args:
        page: what :func:`report_html` wrote.
        evidence: content of ``evidence.json`` with its verdict.
        name: of the folder.
        curve: the figure of :func:`band_weights_figure` of the evidence, None for none.
        figures: of the sections ``faithfulness`` and ``top_k``.

    Raises:
        ValueError: if the page has no place for it.
    """
    verdict, profile, runs = evidence["verdict"], profile_of(evidence), len(evidence["runs"])
    assert profile is not None, "no verdict before the trainings are done"
    judged = [f"Judged by the {runs} trainings of {name} on this scene, not by this run alone.", *verdict["sentences"]]
    parts: Any = _environment().get_template("parts.html.j2").module
    tables = evidence_tables(evidence)
    weights = weight_tables(profile, window_rows(evidence.get("top_windows", []), runs=runs))
    note = f"Of the {runs} trainings together. The weights of this run alone are in band_weights.csv."

    def filled(shown: Mapping[str, Any]) -> str:
        contents = {
            "verdict": parts.verdict(verdict["word"], judged),
            "weights": parts.weights(weights, shown, note),
            "evidence": parts.evidence(evidence, tables, shown),
        }
        return _replaced(page, contents)

    shown = _with_curve(figures or {}, curve, profile)
    return filled(_embedded(shown, room=_MOST_WITH_EVIDENCE - len(filled(_embedded({}, room=0)).encode())))


def _replaced(page: str, contents: Mapping[str, str]) -> str:
    """Exchanges what stands between the two comments of each name."""
    for place, content in contents.items():
        before, start, rest = page.partition(f"<!-- {place} -->")
        _, end, after = rest.partition(f"<!-- /{place} -->")
        if not end:
            raise ValueError(f"no place for the {place}")
        page = "".join((before, start, content, end, after))  # Markup + str would escape the page
    return page


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _page(template: str, context: Mapping[str, Any], figures: Figures) -> str:
    """Renders without figures to know what room they have, then with them."""
    page = _environment().get_template(template)
    room = _MOST_BYTES - len(page.render(context, figures=_embedded({}, room=0)).encode())
    return page.render(context, figures=_embedded(figures, room=room))


def _frame(
    title: str,
    summary: Mapping[str, str],
    caveats: Sequence[str],
    *,
    configuration: str,
    versions: Mapping[str, str],
    reproduce: str,
) -> dict[str, Any]:
    """What every page holds."""
    return {
        "title": title,
        "summary": Table("Settings and results", ("quantity", "value"), list(summary.items())),
        "caveats": caveats,
        "configuration": configuration,
        "versions": Table("Versions", ("package", "version"), list(versions.items())),
        "reproduce": reproduce,
    }


def _with_curve(figures: Figures, curve: Path | None, profile: WeightProfile | None) -> Figures:
    """Adds the curve of the weights, first because it gets room first."""
    if curve is None or profile is None:
        return figures
    words = (curve_in_words(profile), curve_caption(profile))
    return {"curve": [PageFigure(curve, "Band weights", *words, band_values(profile))], **figures}


def _embedded(figures: Figures, *, room: int) -> dict[str, list[dict[str, Any]]]:
    """Section to its figures as the templates take them, embedded as long as there is room for them.

    Raises:
        ValueError: if a figure is neither SVG nor PNG.
        FileNotFoundError: if a figure does not exist.
    """
    names = ("curve", "composition", "accuracy", "map", "split", "faithfulness", "top_k")
    shown: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for section, listed in figures.items():
        for figure in listed:
            path = _lighter(figure.path)
            content = path.read_bytes()
            source = f"data:{_MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(content).decode('ascii')}"
            strips = _strips(content.decode(), figure.values) if path.suffix == ".svg" and figure.values else []
            size = len(source) + sum(100 + len(words) for _, words in strips)
            fits = size <= room
            room -= size if fits else 0
            embedded = {"name": path.name, "source": source if fits else None, "width": _width_px(content)}
            shown[section].append({**figure._asdict(), **embedded, "strips": strips})
    return shown


def _lighter(path: Path) -> Path:
    """Checks a figure's kind and takes the PNG beside it if it is an SVG that holds very much."""
    if path.suffix not in _MEDIA_TYPES:
        raise ValueError(f"figure {path} has the extension {path.suffix!r}, expected .svg or .png")
    twin = path.parent / f"{path.stem}.png"
    heavy = path.suffix == ".svg" and path.stat().st_size > _LARGEST_SVG
    return twin if heavy and twin.exists() else path


def _width_px(content: bytes) -> int | None:
    """Width that draws all figures at one scale, from a PNG's or SVG's own size; None where it is unknown."""
    if content.startswith(b"\x89PNG"):
        return round(struct.unpack(">I", content[16:20])[0] / _PNG_DOTS_PER_INCH * _PIXELS_PER_INCH)
    size = re.search(rb'<svg[^>]*\bwidth="([\d.]+)pt"', content)
    return round(float(size[1]) / 72 * _PIXELS_PER_INCH) if size else None


def _strips(svg: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """(width in percent, words) of a strip for each band, and of the margins, from the markers of the drawn curve."""
    group = re.search(rf'<g id="{CURVE_ID}">(.*?)</g>\s*</g>', svg, re.DOTALL)
    width = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    at = [float(x) for x in re.findall(r'<use [^>]*?\bx="([\d.]+)"', group[1])] if group else []
    if width is None or not 1 < len(at) == len(values):
        return []
    x = 100 * np.array(at) / float(width[1])
    edges = np.concatenate([[1.5 * x[0] - 0.5 * x[1]], (x[1:] + x[:-1]) / 2, [1.5 * x[-1] - 0.5 * x[-2]]])
    widths = np.diff(np.clip(edges, 0, 100), prepend=0)
    return [(f"{w:.4f}", words) for w, words in zip(widths, ("", *values), strict=True)]
