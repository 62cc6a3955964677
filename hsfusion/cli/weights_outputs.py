"""What ``hsfusion weights`` writes: tables, figures, and a configuration to retrain on chosen bands."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import plots
from hsfusion.cli.weights_evidence import split_kinds
from hsfusion.cli.weights_judged import Weights
from hsfusion.cli.weights_read import read_channels
from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.spectra.weights import ranked_bands, write_rows_csv

_STEMS = ("band_weights", "groups", "channels", "faithfulness", "top_k", "group_importance")
_OWN = re.compile(
    rf"(weights|windows|selected_\d+)\.csv|weights\.json|report\.html|groups/selected_\d+\.yaml|({'|'.join(_STEMS)})\.(png|svg)"
)


def check_out(folder: Path) -> None:
    """Refuses a folder that holds anything but what an earlier call wrote.

    Raises:
        InputError: naming a file that is not.
        EnvironmentFailure: if the folder cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, field="out", value="a file", expected="a folder", fix="name another: out=FOLDER")
    inside = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    foreign = next((name for name in inside if not _OWN.fullmatch(name)), None) if folder.exists() else None
    if foreign is not None:
        raise InputError(
            folder,
            field="out",
            value=f"a folder with {foreign}",
            expected="a new folder, or one that hsfusion weights wrote",
            fix="name another: out=FOLDER",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailure(f"{folder}: cannot be made ({error}). Fix: choose another out=FOLDER.") from error


def write_weights(weights: Weights, folder: Path) -> list[Path]:
    """Writes weights.csv, weights.json, windows.csv and the figures; returns their paths."""
    rows, windows = ranked_bands(weights.reported, weights.spread), window_rows(weights)
    write_rows_csv(folder / "weights.csv", rows)
    if windows:
        write_rows_csv(folder / "windows.csv", windows)
    content = {**_told(weights), "windows": windows, "bands": rows}
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    (folder / "weights.json").write_text(text + "\n", encoding="utf-8")
    figures = _weight_figures(weights) | _evidence_figures(weights)
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / stem)
    tables = ["weights.csv", "weights.json", *(["windows.csv"] if windows else [])]
    return [folder / name for name in (*tables, *(f"{stem}.svg" for stem in figures))]


def window_rows(weights: Weights) -> list[dict[str, Any]]:
    """The windows as rows of a table: rank, lower_nm, upper_nm, group, weight, times_untrained, selection_frequency."""
    nm, group = weights.reported.bands.wavelength_nm, weights.reported.group
    rows = []
    for rank, window in enumerate(weights.windows, start=1):
        inside = np.flatnonzero((nm >= window.lower_nm) & (nm <= window.upper_nm))
        named = dict.fromkeys(name for c in inside for name in group[c].split("|") if name)
        frequency = window.frequency if len(weights.runs) > 1 else None
        limits = {"lower_nm": window.lower_nm, "upper_nm": window.upper_nm}
        share = {"weight": window.share, "times_untrained": window.raised, "selection_frequency": frequency}
        rows.append({"rank": rank, **limits, "group": "|".join(named), **share})
    return rows


def _told(weights: Weights) -> dict[str, Any]:
    """Runs, stability and verdict as plain values; an undefined index is null."""
    stability, verdict = weights.stability, weights.verdict
    numbers = {} if stability is None else {k: getattr(stability, k) for k in ("index", "lower", "upper")}
    return {
        "scene": weights.scene,
        "runs": [{**vars(run), "folder": str(run.folder)} for run in weights.runs],
        "further_rasters": [{"name": name, "weight": weight} for name, weight in weights.reported.sources],
        "stability": None
        if stability is None
        else {
            **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
            "profiles": stability.profiles,
            "members": stability.members,
        },
        "verdict": None if verdict is None else {"word": verdict.word, "sentences": list(verdict.sentences)},
    }


def _weight_figures(weights: Weights) -> dict[str, Any]:
    """The weights over wavelength, group by group and channel by channel."""
    reported, spread = weights.reported, weights.spread
    nm, name = reported.bands.wavelength_nm, f"{weights.scene}, {_of_runs(weights)}"
    edges = None if spread is None else (spread.lower, spread.upper)
    figures = {
        "band_weights": plots.band_weights_figure(
            nm,
            reported.weight,
            groups=weights.groups,
            spectra=None,
            colors=None,
            title=f"Band weights: {name}",
            spread=edges,
            frequency=None if spread is None else spread.frequency,
            stamp=weights.stamp,
            sources={key: total for key, total in reported.group_totals().items() if key in dict(reported.sources)},
        )
    }
    if weights.groups:
        figures["groups"] = plots.group_profiles_figure(
            nm,
            reported.weight,
            runs=weights.profiles,
            groups=weights.groups,
            spread=edges,
            title=_stamped(weights, f"Band weights by group: {name}"),
        )
    return figures | _channel_figures(weights)


def _channel_figures(weights: Weights) -> dict[str, Any]:
    """The fused channels of the runs that tell them; none where none does."""
    found = [(run, read_channels(run.folder, weights.reported.bands)) for run in weights.runs]
    channels = [(run, of) for run, of in found if of is not None]
    if not channels:
        return {}
    several = f"{len(channels)} runs, channels not matched between them"
    title = f"Fused channels: {weights.scene}, {several if len(channels) > 1 else _of_runs(weights)}"
    return {
        "channels": plots.channels_figure(
            weights.reported.bands.wavelength_nm,
            [(of.share, of.weight) for _, of in channels],
            names=[f"{run.folder.name}: seed {run.seed}" for run, _ in channels],
            title=_stamped(weights, title),
        )
    }


def _of_runs(weights: Weights) -> str:
    if len(weights.runs) == 1:
        return f"seed {weights.runs[0].seed}, one run"
    return f"median of {len(weights.runs)} runs"


def _stamped(weights: Weights, title: str) -> str:
    return title if weights.stamp is None else f"{title} [{weights.stamp}]"


def _evidence_figures(weights: Weights) -> dict[str, Any]:
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
        if groups:
            figures["group_importance"] = plots.group_importance_figure(
                groups, title=f"Permuted band groups: {weights.scene}"
            )
    accuracies = {split: content["top_k"][split] for split in split_kinds(content)} if top_k else {}
    accuracies = {split: of for split, of in accuracies.items() if of}
    if top_k and accuracies:
        figures["top_k"] = plots.top_k_figure(
            top_k["numbers"],
            accuracies,
            full=top_k.get("full") or {},
            smallest=smallest_numbers(weights),
            title=f"Retrained on k bands: {weights.scene}",
        )
    return figures


def smallest_numbers(weights: Weights) -> dict[tuple[str, str], int | None]:
    """Split and classifier to the smallest number of our bands that keeps 95 % of the accuracy with all."""
    content = weights.evidence or {}
    found = content.get("top_k", {}).get("cheapest", {})
    return {(content["split"]["kind"], classifier): number for classifier, number in found.items()}


def write_selection(weights: Weights, bands: NDArray[np.int64], folder: Path) -> tuple[Path, Path]:
    """Writes the chosen bands (k,) as a table, and as band groups of one band each, on which to train.

    Groups say in nm which bands a network sees, whatever the scene: bands in no group are left out.

    Raises:
        InputError: if a chosen band has the wavelength of another one, so that no interval holds it alone.
    """
    number = bands.size
    rows = {row["band"] - 1: row for row in ranked_bands(weights.reported, weights.spread)}
    table, config = folder / f"selected_{number}.csv", folder / "groups" / f"selected_{number}.yaml"
    lines = [f"  {name}: [{lower!r}, {upper!r}]" for name, lower, upper in _single_bands(weights, bands)]
    write_rows_csv(table, [rows[c] for c in bands.tolist()])
    config.parent.mkdir(exist_ok=True)
    head = (
        f"# {number} bands chosen by band weights, each a group of its own:\n"
        f"# {_stamped(weights, f'{weights.scene}, {_of_runs(weights)}')}\n"
        f"# hsfusion train --config-dir {folder} groups=selected_{number} band_cost=0 scene=...\n"
        "_target_: hsfusion.spectra.intervals\n_partial_: true\nnm:\n"
    )
    config.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return table, config


def _single_bands(weights: Weights, bands: NDArray[np.int64]) -> Iterable[tuple[str, float, float]]:
    """Name and interval in nm of each chosen band, which reaches no other band."""
    nm = weights.reported.bands.wavelength_nm
    for c in bands.tolist():
        others = np.abs(np.delete(nm, c) - nm[c])
        reach = min(1.0, float(others.min()) / 2) if others.size else 1.0
        if reach == 0:
            raise InputError(
                "select",
                field=f"wavelength of band {c + 1}",
                value=f"{nm[c]:g} nm, as that of another band",
                expected="a band that its wavelength names",
                fix="mark one of the two as bad, and train anew",
            )
        yield f"band {c + 1}", float(nm[c] - reach), float(nm[c] + reach)
