"""Tables, figures and pages of compared band weights."""

from __future__ import annotations

import os
from dataclasses import asdict, astuple
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hsfusion import plots
from hsfusion.errors import InputError
from hsfusion.runs.comparison import Selection, WeightComparison
from hsfusion.runs.folder import read_json, write_json
from hsfusion.spectra.weights import ranked_bands, write_table

_PAGE = "report.html"


def write_weights(weights: WeightComparison, folder: Path, selection: Selection | None = None) -> list[Path]:
    """Writes weights.json, tables and figures, and of a selection the band groups to train on; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "weights": ranked_bands(weights.reported, weights.spread, untrained=weights.untrained),
        "windows": window_rows(weights),
    }
    write_json(folder / "weights.json", {**_summary(weights), "windows": tables["windows"], "bands": tables["weights"]})
    written = [folder / "weights.json"]
    if selection is not None:
        tables[selection.stem] = list(selection.rows)
        written.append(_write_groups(weights, selection, folder))
    for name, rows in tables.items():
        if rows:
            write_table(folder / f"{name}.csv", rows[0], (row.values() for row in rows))
            written.append(folder / f"{name}.csv")
    figures = {"band_weights": curve_figure(weights), **evidence_figures(weights)}
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / stem)
    return [*written, *(folder / f"{stem}.svg" for stem in figures)]


def _write_groups(weights: WeightComparison, selection: Selection, folder: Path) -> Path:
    """Writes a selection as band groups; these say in nm which bands a network sees: those in no group are left out."""
    path = folder / "groups" / f"{selection.stem}.yaml"
    path.parent.mkdir(exist_ok=True)
    lines = [
        f"# {len(selection.intervals)} chosen by band weights, each a group of its own:",
        f"# {weights.scene}, {weights.origin}" + (f" [{weights.stamp}]" if weights.stamp else ""),
        f"# hsfusion train --config-dir {folder} groups={selection.stem} band_cost=0 scene=...",
        "_target_: hsfusion.spectra.intervals\n_partial_: true\nnm:",
        *(f"  {name}: [{lower!r}, {upper!r}]" for name, lower, upper in selection.intervals),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def window_rows(weights: WeightComparison) -> list[dict[str, Any]]:
    """The windows as rows of a table."""
    return [
        {
            "rank": rank,
            "lower_nm": window.lower_nm,
            "upper_nm": window.upper_nm,
            "group": weights.groups_in(window.lower_nm, window.upper_nm),
            "weight": window.share,
            "times_untrained": window.raised,
            "selection_frequency": window.frequency if len(weights.runs) > 1 else None,
        }
        for rank, window in enumerate(weights.windows, start=1)
    ]


def _summary(weights: WeightComparison) -> dict[str, Any]:
    """Runs, stability and verdict as plain values; an undefined index is null."""
    stability, verdict = weights.stability, weights.verdict
    runs = [
        asdict(run) | {"folder": run.folder and str(run.folder), "duplicates": list(map(astuple, run.duplicates))}
        for run in weights.runs
    ]
    return {
        "scene": weights.scene,
        "runs": runs,
        "further_rasters": [{"name": name, "weight": weight} for name, weight in weights.reported.sources],
        "stability": None if stability is None else asdict(stability),
        "verdict": None if verdict is None else {"word": verdict.word, "sentences": verdict.sentences},
    }


def curve_figure(weights: WeightComparison) -> Any:
    """Draws the weights over wavelength."""
    reported, spread = weights.reported, weights.spread
    totals = reported.group_totals()
    return plots.band_weights_figure(
        reported.bands.wavelength_nm,
        reported.weight,
        groups=weights.groups,
        title=f"Band weights: {weights.scene}, {weights.origin}",
        spread=None if spread is None else (spread.lower, spread.upper),
        frequency=None if spread is None else spread.frequency,
        stamp=weights.stamp,
        untrained=weights.untrained,
        runs=weights.profiles,
        sources={name: totals[name] for name, _ in reported.sources},
    )


def evidence_figures(weights: WeightComparison) -> dict[str, Any]:
    """Draws what the evidence says about faithfulness and retraining; empty without evidence."""
    content, figures = weights.evidence or {}, {}
    curves, top_k = content.get("faithfulness"), content.get("top_k")
    if curves:
        figures["faithfulness"] = plots.faithfulness_figure(
            curves["numbers"],
            {kind: curves[kind] for kind in ("deletion", "insertion")},
            total=len(weights.reported.bands),
            title=f"Are the bands of great weight used? {weights.scene}",
        )
    if top_k:
        kinds = dict.fromkeys((content["split"]["kind"], "random"))  # the configured one first
        figures["top_k"] = plots.top_k_figure(
            top_k["numbers"],
            {kind: top_k[kind] for kind in kinds if top_k.get(kind)},
            full=top_k.get("full") or {},
            smallest=smallest_numbers(weights),
            title=f"Retrained on k bands: {weights.scene}",
        )
    return figures


def smallest_numbers(weights: WeightComparison) -> dict[tuple[str, str], int | None]:
    """Split and classifier to the smallest number of our bands that keeps 95 % of the accuracy with all."""
    content = weights.evidence or {}
    found = content.get("top_k", {}).get("cheapest", {})
    return {(content["split"]["kind"], classifier): number for classifier, number in found.items()}


def write_page(weights: WeightComparison, source: Path, folder: Path) -> Path:
    """Writes the report of an evidence folder, the source of the weights, beside the figures; returns its path."""
    assert weights.evidence is not None, "run folders have reports of their own"
    assert weights.runs[0].folder is not None, "read from a folder"
    configuration = source / "config.yaml"
    content = {
        "title": f"hsfusion: evidence on the band weights of {weights.scene}",
        "configuration": configuration.read_text(encoding="utf-8") if configuration.exists() else "",
        "versions": read_json(weights.runs[0].folder / "metrics.json").get("versions", {}),
        "reproduce": weights.evidence["command"],
    }
    page = plots.evidence_html(weights.evidence, content=content, figures=folder)
    path = folder / _PAGE
    path.write_text(page, encoding="utf-8")
    return path


def add_evidence(weights: WeightComparison, evidence: WeightComparison, source: Path) -> Path:
    """Puts the evidence of a folder, its source, on the same split, scene and bands, into the report of a run."""
    run, content = weights.runs[0], evidence.evidence
    assert content is not None and run.folder is not None, "both are read from folders"
    split, chance = evidence.runs[0].split, "" if run.beats_chance else ", no better than chance"
    of_run = f"{run.split} split, {run.fusion} fusion{chance}, {_bands(weights)}"
    of_evidence = f"{split} split, {content['fusion']} fusion, {_bands(evidence)}"
    nm = [of.reported.bands.wavelength_nm for of in (weights, evidence)]
    if of_run != of_evidence or not np.allclose(*nm, rtol=0, atol=1e-3):
        expected = f"what the evidence is on: {of_evidence}, of the same wavelengths"
        raise InputError(run.folder, "run", of_run, expected, "run hsfusion benchmark evidence on this scene")
    if evidence.verdict is None:
        raise InputError(source, "verdict", "none yet", "a finished evidence run", "let it finish")
    path = run.folder / _PAGE
    try:
        page = path.read_text(encoding="utf-8")
        with TemporaryDirectory() as drawn:
            for stem, figure in {"band_weights": curve_figure(evidence), **evidence_figures(evidence)}.items():
                plots.save_figure(figure, Path(drawn) / stem)
            page = plots.with_evidence(page, content, name=source.resolve().name, figures=Path(drawn))
    except (OSError, ValueError) as error:
        raise InputError(path, "content", f"unreadable ({error})", "the report of a run", "train anew") from error
    partial = path.with_name(f".{_PAGE}.{os.getpid()}")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path


def _bands(weights: WeightComparison) -> str:
    group = weights.reported.group
    return f"scene {weights.scene}, {sum(map(bool, group))} of {len(group)} bands"
