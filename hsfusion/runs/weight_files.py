"""Tables and figures of compared band weights."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from hsfusion import plots
from hsfusion.runs.comparison import Selection, WeightComparison
from hsfusion.runs.folder import plain_values
from hsfusion.spectra.weights import ranked_bands, write_table


def write_weights(weights: WeightComparison, folder: Path, selection: Selection | None = None) -> list[Path]:
    """Writes weights.json, tables and figures, and of a selection the band groups to train on; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "weights": ranked_bands(weights.reported, weights.spread, untrained=weights.untrained),
        "windows": window_rows(weights),
    }
    content = {**_summary(weights), "windows": tables["windows"], "bands": tables["weights"]}
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    (folder / "weights.json").write_text(text + "\n", encoding="utf-8")
    written = [folder / "weights.json"]
    if selection is not None:
        tables[selection.stem] = list(selection.rows)
        written.append(_write_groups(weights, selection, folder))
    for name, rows in tables.items():
        if rows:
            write_table(folder / f"{name}.csv", rows[0], (row.values() for row in rows))
            written.append(folder / f"{name}.csv")
    figures = {"band_weights": curve_figure(weights), **_group_figure(weights), **evidence_figures(weights)}
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / stem)
    return [*written, *(folder / f"{stem}.svg" for stem in figures)]


def _write_groups(weights: WeightComparison, selection: Selection, folder: Path) -> Path:
    """Writes a selection as band groups; these say in nm which bands a network sees: those in no group are left out."""
    path = folder / "groups" / f"{selection.stem}.yaml"
    path.parent.mkdir(exist_ok=True)
    lines = [
        f"# {len(selection.intervals)} chosen by band weights, each a group of its own:",
        f"# {weights.stamped(f'{weights.scene}, {weights.origin}')}",
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
    content = {
        "scene": weights.scene,
        "runs": runs,
        "further_rasters": [{"name": name, "weight": weight} for name, weight in weights.reported.sources],
        "stability": None if stability is None else asdict(stability),
        "verdict": None if verdict is None else {"word": verdict.word, "sentences": verdict.sentences},
    }
    return plain_values(content)


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


def _group_figure(weights: WeightComparison) -> dict[str, Any]:
    """The weights group by group."""
    if not weights.groups:
        return {}
    spread = weights.spread
    figure = plots.group_profiles_figure(
        weights.reported.bands.wavelength_nm,
        weights.reported.weight,
        runs=weights.profiles,
        groups=weights.groups,
        spread=None if spread is None else (spread.lower, spread.upper),
        title=weights.stamped(f"Band weights by group: {weights.scene}, {weights.origin}"),
    )
    return {"groups": figure}


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
        groups = [(group["name"], group["importance"], group.get("p")) for group in curves.get("groups", [])]
        title = f"Permuted band groups: {weights.scene}"
        figures |= {"group_importance": plots.group_importance_figure(groups, title=title)} if groups else {}
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
