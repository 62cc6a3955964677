"""Tables and figures of compared band weights."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import plots
from hsfusion.errors import InputError
from hsfusion.runs.comparison import Selection, WeightComparison
from hsfusion.spectra import Bands
from hsfusion.spectra.weights import from_cell, ranked_bands, write_table

_OWN = re.compile(
    r"(weights|windows|selected_\d+(_of_\d+_nm)?)\.csv|weights\.json|report\.html|groups/selected_\d+(_of_\d+_nm)?\.yaml|"
    r"(band_weights|groups|channels|faithfulness|top_k|group_importance)\.(png|svg)"
)


def check_out(folder: Path) -> None:
    """Refuses a file, and a folder that holds anything but what an earlier call wrote; makes a new one."""
    inside = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]
    foreign = (
        "a file" if folder.is_file() else next((f"a folder with {n}" for n in inside if not _OWN.fullmatch(n)), None)
    )
    if foreign is not None:
        expected = "a new folder, or one that hsfusion weights wrote"
        raise InputError(folder, "out", foreign, expected, "name another: out=FOLDER")
    folder.mkdir(parents=True, exist_ok=True)


def write_weights(weights: WeightComparison, folder: Path, selection: Selection | None = None) -> list[Path]:
    """Writes weights.json, tables and figures, and of a selection the band groups to train on; returns their paths."""
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
    figures = {"band_weights": curve_figure(weights), **_group_figures(weights), **evidence_figures(weights)}
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
    known = {} if stability is None else asdict(stability)
    return {
        "scene": weights.scene,
        "runs": [
            {
                **asdict(run),
                "folder": None if run.folder is None else str(run.folder),
                "duplicates": list(map(astuple, run.duplicates)),
            }
            for run in weights.runs
        ],
        "further_rasters": [{"name": name, "weight": weight} for name, weight in weights.reported.sources],
        "stability": {key: value if np.isfinite(value) else None for key, value in known.items()} or None,
        "verdict": None if verdict is None else {"word": verdict.word, "sentences": list(verdict.sentences)},
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


def _group_figures(weights: WeightComparison) -> dict[str, Any]:
    """The weights group by group, and the fused channels of those runs that have tables of them."""
    reported, spread, figures = weights.reported, weights.spread, {}
    nm = reported.bands.wavelength_nm
    if weights.groups:
        figures["groups"] = plots.group_profiles_figure(
            nm,
            reported.weight,
            runs=weights.profiles,
            groups=weights.groups,
            spread=None if spread is None else (spread.lower, spread.upper),
            title=weights.stamped(f"Band weights by group: {weights.scene}, {weights.origin}"),
        )
    tables = {run.folder: read_channels(run.folder, reported.bands) for run in weights.runs if run.folder is not None}
    names = {run.folder: f"{run.folder.name}: seed {run.seed}" for run in weights.runs if run.folder is not None}
    channels = {names[folder]: table for folder, table in tables.items() if table is not None}
    if channels:
        several = f"{len(channels)} runs, channels not matched between them"
        title = f"Fused channels: {weights.scene}, {several if len(channels) > 1 else weights.origin}"
        figures["channels"] = plots.channels_figure(
            nm, list(channels.values()), names=list(channels), title=weights.stamped(title)
        )
    return figures


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
    kinds = split_kinds(content) if top_k else []
    if top_k and any(top_k[kind] for kind in kinds):
        figures["top_k"] = plots.top_k_figure(
            top_k["numbers"],
            {kind: top_k[kind] for kind in kinds if top_k[kind]},
            full=top_k.get("full") or {},
            smallest=smallest_numbers(weights),
            title=f"Retrained on k bands: {weights.scene}",
        )
    return figures


def split_kinds(content: dict[str, Any]) -> list[str]:
    """Kinds of split of which there are accuracies on k bands; the configured one first."""
    return [kind for kind in dict.fromkeys((content["split"]["kind"], "random")) if kind in content.get("top_k", {})]


def smallest_numbers(weights: WeightComparison) -> dict[tuple[str, str], int | None]:
    """Split and classifier to the smallest number of our bands that keeps 95 % of the accuracy with all."""
    content = weights.evidence or {}
    found = content.get("top_k", {}).get("cheapest", {})
    return {(content["split"]["kind"], classifier): number for classifier, number in found.items()}


def read_channels(folder: Path, bands: Bands) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    r"""Reads response.csv and group_weights.csv of a run; None where there are none.

    The weight of band c in channel m is :math:`\sum_g |a_{gm}| |s_{gmc}| / \sum_g |a_{gm}|`.

    Returns:
        share (M,) of each fused channel in what the network takes in, the greatest first, and its band weights (M, C)
    """
    response, groups = folder / "response.csv", folder / "group_weights.csv"
    if not (response.is_file() and groups.is_file()):
        return None
    try:
        rows = _rows(groups)
        share = {row["channel"]: float(row["channel_share"]) for row in rows}
        size = {(from_cell(row["group"]), row["channel"]): abs(float(row["weight"])) for row in rows}
        place = {channel: m for m, channel in enumerate(share)}
        weight, total = np.zeros((len(share), len(bands))), np.zeros(len(share))
        for (_, channel), value in size.items():
            total[place[channel]] += value
        for row in _rows(response):
            if row["wavelength_nm"] in ("nan", ""):  # a layer of a further raster
                continue
            c = int(row["band"]) - 1
            if abs(float(row["wavelength_nm"]) - bands.wavelength_nm[c]) > 1e-3:
                raise ValueError(f"band {c + 1} has another wavelength in band_weights.csv")
            value = abs(float(row["weight"])) * size[from_cell(row["group"]), row["channel"]]
            weight[place[row["channel"]], c] += value
    except (OSError, KeyError, IndexError, TypeError, ValueError, csv.Error) as error:
        raise InputError(response, "table", repr(error), "the tables of hsfusion train", "train anew") from error
    shares = np.array(list(share.values()))
    order = np.argsort(-shares, kind="stable")
    return shares[order], (weight / np.maximum(total, 1e-300)[:, None])[order]


def _rows(table: Path) -> list[dict[str, str]]:
    with open(table, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
