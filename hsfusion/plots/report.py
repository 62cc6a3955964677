"""The report of a run or of an evidence folder: one self-contained HTML page that asks for nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hsfusion.plots.report_curve import WeightProfile
from hsfusion.plots.report_evidence import accuracies_of, evidence_parts
from hsfusion.plots.report_maps import Maps, class_maps, split_map
from hsfusion.plots.report_parts import caveats as caveat_box
from hsfusion.plots.report_parts import figures, paragraph, preformatted, section, table, verdict_box
from hsfusion.plots.report_style import page
from hsfusion.plots.report_weights import (
    no_weights_yet,
    profile_of,
    weight_parts,
    window_rows,
)

# of the page without its configuration, and without what an evidence folder adds: it stays below 2 MB
_MOST_CHARACTERS = 1_700_000
_UNJUDGED = ("not judged yet", ("The trainings or their comparison are not finished.",))
Figures = Mapping[str, tuple[Path, str, str]]


def report_html(
    *,
    title: str,
    summary: Mapping[str, str],
    caveats: Sequence[str],
    verdict: tuple[str, Sequence[str]],
    weights: WeightProfile,
    top_windows: Sequence[Mapping[str, Any]],
    weight_figures: Figures,
    accuracy_figures: Figures,
    per_class: Sequence[tuple[str, float | None, int]],
    maps: Maps,
    configuration: str,
    versions: Mapping[str, str],
    reproduce: str,
    transfer: Sequence[str] = (),
    scratch: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """Writes the report of a run as one HTML page of less than 2 MB (configuration apart), everything escaped.

    Figures are given as heading to (path of an SVG or PNG, text in place of the picture, caption). A very large SVG
    gives way to the PNG beside it; a figure the page has no room for is named instead.

    Args:
        title: heading of the page.
        summary: what to value, the numbers to read first.
        caveats: sentences a reader must see before the numbers; none for no such box.
        verdict: the word and the sentences on what the weights are worth.
        weights: the band weights of the run.
        top_windows: lower_nm, upper_nm, weight (0..1) and raised (times untrained) of each, in the order to list.
        weight_figures: figures below the weights.
        accuracy_figures: figures on how good the map is and how it was learned.
        per_class: (class name, accuracy 0..1 or None without test pixels, test pixels).
        maps: class map, ground truth, composite and split.
        configuration: resolved configuration as text.
        versions: package to version.
        reproduce: the command that repeats the run.
        transfer: lines that say what was taken over from another network; none for no such section.
        scratch: quantity to its value after fine-tuning and from scratch; None where nothing was compared.

    Raises:
        ValueError: if a figure is neither SVG nor PNG, or a map holds a code that has no colour.
        FileNotFoundError: if a figure does not exist.
    """
    pictures = [class_maps(maps), split_map(maps)]
    above = _weights_above({}, verdict=verdict, profile=weights, windows=window_rows(top_windows, runs=1))
    room = _MOST_CHARACTERS - sum(map(len, (*pictures, *above)))
    shown_weights, room = figures(weight_figures, room=room)
    shown_accuracy, _ = figures(accuracy_figures, room=room)
    parts = [
        caveat_box(caveats),
        _summary(summary),
        _between("verdict", above[0]),
        section("Band weights over wavelength", _between("weights", "\n".join(above[1:]))),
        *([section("How the weights are made up", *shown_weights)] if shown_weights else []),
        _between("evidence", ""),
        section("Accuracy", _classes(per_class), *shown_accuracy),
        section("Class map and ground truth", pictures[0]),
        section("Split", pictures[1]),
        *_taken_over(transfer, scratch),
        *_ending(reproduce, configuration=configuration, versions=versions),
    ]
    return page(title, "\n".join(parts))


def with_evidence(page: str, evidence: Mapping[str, Any], *, name: str) -> str:
    """Puts what an evidence folder says about the weights into the page of a run.

    The curve, with its spread and stamp, becomes the median over all trainings, which is what the verdict is on.

    Args:
        page: what :func:`report_html` wrote.
        evidence: content of ``evidence.json`` with its verdict.
        name: of the folder.

    Raises:
        ValueError: if the page has no place for it.
    """
    verdict, runs = evidence["verdict"], len(evidence["runs"])
    said = [f"Judged by the {runs} trainings of {name} on this scene, not by this run alone.", *verdict["sentences"]]
    above = _weights_above(evidence, verdict=_UNJUDGED, profile=None, windows=[])
    own = paragraph(f"Of the {runs} trainings together. The weights of this run alone are in band_weights.csv.")
    for place, content in (
        ("verdict", verdict_box(verdict["word"], said)),
        ("weights", "\n".join([own, *above[1:]])),
        ("evidence", "\n".join(evidence_parts(evidence))),
    ):
        start, end = _between(place, "\n").split("\n")
        before, _, rest = page.partition(start)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"no place for the {place}")
        page = before + _between(place, content) + after
    return page


def _between(place: str, content: str) -> str:
    """Content that :func:`with_evidence` finds again."""
    return f"<!-- {place} -->{content}<!-- /{place} -->"


def evidence_html(
    evidence: Mapping[str, Any],
    *,
    title: str,
    configuration: str,
    versions: Mapping[str, str],
    reproduce: str,
    figures_of: Figures | None = None,
) -> str:
    """Writes the report of an evidence folder as one HTML page of less than 2 MB (configuration apart).

    Parts whose numbers are not there yet are left out.

    Args:
        evidence: content of ``evidence.json``.
        title: heading of the page.
        configuration: resolved configuration as text.
        versions: package to version.
        reproduce: the command that repeats the trainings.
        figures_of: more figures to show, heading to (path, text in place of the picture, caption).

    Raises:
        ValueError: if a figure is neither SVG nor PNG.
        FileNotFoundError: if a figure does not exist.
    """
    split, runs = evidence["split"], evidence.get("runs", [])
    summary = {"Scene": evidence["scene"], "Split": f"{split['kind']}, leakage {split['leakage']:.4f}"}
    summary["Trainings"] = str(len(runs))
    if runs:
        summary["Overall accuracy"] = accuracies_of(runs)
    leaks = [f"The split leaks: {split['leakage']:.1%} of the test pixels see a training or validation pixel."]
    above = _weights_above(evidence, verdict=_UNJUDGED, profile=None, windows=[])
    below = evidence_parts(evidence)
    shown, _ = figures(figures_of or {}, room=_MOST_CHARACTERS - sum(map(len, (*above, *below))))
    parts = [
        caveat_box(leaks if split["leakage"] > 0 else []),
        _summary(summary),
        above[0],
        section("Band weights over wavelength", *above[1:]),
        *([section("Figures", *shown)] if shown else []),
        *below,
        *_ending(reproduce, configuration=configuration, versions=versions),
    ]
    return page(title, "\n".join(parts))


def _weights_above(
    evidence: Mapping[str, Any],
    *,
    verdict: tuple[str, Sequence[str]],
    profile: WeightProfile | None,
    windows: Sequence[tuple[str, ...]],
) -> list[str]:
    """The verdict, the curve and its tables: of the evidence as far as it goes, else of what else is given."""
    if "verdict" in evidence:
        verdict = (evidence["verdict"]["word"], evidence["verdict"]["sentences"])
    profile = profile_of(evidence) or profile
    if profile is None:
        return [verdict_box(*verdict), no_weights_yet()]
    if "top_windows" in evidence:
        windows = window_rows(evidence["top_windows"], runs=len(evidence["runs"]))
    return [verdict_box(*verdict), *weight_parts(profile, windows, word=verdict[0])]


def _summary(summary: Mapping[str, str]) -> str:
    return section("Summary", table("Settings and results", ("quantity", "value"), rows=summary.items()))


def _classes(per_class: Sequence[tuple[str, float | None, int]]) -> str:
    rows = [(name, "none" if a is None else f"{100 * a:.1f} %", f"{pixels:,}") for name, a, pixels in per_class]
    header = ("class", "accuracy", "test pixels")
    return table("Accuracy per class: recall on the test pixels", header, rows=rows, numbers=(1, 2))


def _taken_over(transfer: Sequence[str], scratch: Mapping[str, tuple[str, str]] | None) -> list[str]:
    """What came from another network, and what that gained."""
    if not transfer:
        return []
    parts = [preformatted("\n".join(transfer), label="What was taken over")]
    if scratch:
        rows = [(name, *values) for name, values in scratch.items()]
        parts.append(table("The same pixels without it", ("quantity", "fine-tuned", "from scratch"), rows=rows))
    return [section("Taken over", *parts)]


def _ending(reproduce: str, *, configuration: str, versions: Mapping[str, str]) -> list[str]:
    return [
        section("How to repeat this run", preformatted(reproduce, label="Command")),
        section("Configuration", preformatted(configuration, label="Configuration")),
        section("Software", table("Versions", ("package", "version"), rows=versions.items())),
    ]
