"""Tables and figures of compared band weights."""

from __future__ import annotations

import csv
import json
import math
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import plots
from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.runs.comparison import WeightComparison, split_kinds
from hsfusion.runs.selection import SELECTED
from hsfusion.spectra import Bands
from hsfusion.spectra.weights import from_cell, ranked_bands, write_rows_csv

_MOST_TABLE_BYTES = 2**26  # 64 channels x 10,000 bands in lines of 100 letters
_MOST_NUMBERS = 2**24  # of a response: channels x bands
_STEMS = ("band_weights", "groups", "channels", "faithfulness", "top_k", "group_importance")
_OWN = re.compile(
    rf"(weights|windows|{SELECTED})\.csv|weights\.json|report\.html|groups/{SELECTED}\.yaml|({'|'.join(_STEMS)})\.(png|svg)"
)


def check_out(folder: Path) -> None:
    """Refuses a folder that holds anything but what an earlier call wrote.

    Raises:
        InputError: naming a file that is not.
        EnvironmentFailure: if the folder cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, "out", "a file", "a folder", "name another: out=FOLDER")
    inside = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    foreign = next((name for name in inside if not _OWN.fullmatch(name)), None) if folder.exists() else None
    if foreign is not None:
        raise InputError(
            folder,
            "out",
            f"a folder with {foreign}",
            "a new folder, or one that hsfusion weights wrote",
            "name another: out=FOLDER",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailure(f"{folder}: cannot be made ({error}). Fix: choose another out=FOLDER.") from error


def write_weights(weights: WeightComparison, folder: Path) -> list[Path]:
    """Writes weights.csv, weights.json, windows.csv and the figures; returns their paths."""
    rows, windows = ranked_bands(weights.reported, weights.spread, untrained=weights.untrained), window_rows(weights)
    write_rows_csv(folder / "weights.csv", rows)
    if windows:
        write_rows_csv(folder / "windows.csv", windows)
    content = {**_summary(weights), "windows": windows, "bands": rows}
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    (folder / "weights.json").write_text(text + "\n", encoding="utf-8")
    figures = {"band_weights": curve_figure(weights), **_group_figures(weights), **evidence_figures(weights)}
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / stem)
    tables = ["weights.csv", "weights.json", *(["windows.csv"] if windows else [])]
    return [folder / name for name in (*tables, *(f"{stem}.svg" for stem in figures))]


def window_rows(weights: WeightComparison) -> list[dict[str, Any]]:
    """The windows as rows of a table: rank, lower_nm, upper_nm, group, weight, times_untrained, selection_frequency."""
    rows = []
    for rank, window in enumerate(weights.windows, start=1):
        group = weights.groups_in(window.lower_nm, window.upper_nm)
        frequency = window.frequency if len(weights.runs) > 1 else None
        limits = {"lower_nm": window.lower_nm, "upper_nm": window.upper_nm}
        share = {"weight": window.share, "times_untrained": window.raised, "selection_frequency": frequency}
        rows.append({"rank": rank, **limits, "group": group, **share})
    return rows


def _summary(weights: WeightComparison) -> dict[str, Any]:
    """Runs, stability and verdict as plain values; an undefined index is null."""
    stability, verdict = weights.stability, weights.verdict
    numbers = {} if stability is None else {k: getattr(stability, k) for k in ("index", "lower", "upper")}
    return {
        "scene": weights.scene,
        "runs": [{**vars(run), "folder": None if run.folder is None else str(run.folder)} for run in weights.runs],
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


def curve_figure(weights: WeightComparison) -> Any:
    """Draws the weights over wavelength."""
    reported, spread = weights.reported, weights.spread
    return plots.band_weights_figure(
        reported.bands.wavelength_nm,
        reported.weight,
        groups=weights.groups,
        spectra=None,
        colors=None,
        title=f"Band weights: {weights.scene}, {weights.made}",
        spread=None if spread is None else (spread.lower, spread.upper),
        frequency=None if spread is None else spread.frequency,
        stamp=weights.stamp,
        untrained=weights.untrained,
        runs=weights.profiles,
        sources={key: total for key, total in reported.group_totals().items() if key in dict(reported.sources)},
    )


def _group_figures(weights: WeightComparison) -> dict[str, Any]:
    """The weights group by group and channel by channel."""
    reported, spread, figures = weights.reported, weights.spread, {}
    if weights.groups:
        figures["groups"] = plots.group_profiles_figure(
            reported.bands.wavelength_nm,
            reported.weight,
            runs=weights.profiles,
            groups=weights.groups,
            spread=None if spread is None else (spread.lower, spread.upper),
            title=weights.stamped(f"Band weights by group: {weights.scene}, {weights.made}"),
        )
    return figures | _channel_figures(weights)


def _channel_figures(weights: WeightComparison) -> dict[str, Any]:
    """The fused channels of the runs that tell them; none where none does."""
    bands = weights.reported.bands
    tables = [(run, read_channels(run.folder, bands)) for run in weights.runs if run.folder is not None]
    channels = [(run, of) for run, of in tables if of is not None]
    if not channels:
        return {}
    several = f"{len(channels)} runs, channels not matched between them"
    title = f"Fused channels: {weights.scene}, {several if len(channels) > 1 else weights.made}"
    return {
        "channels": plots.channels_figure(
            weights.reported.bands.wavelength_nm,
            [(of.share, of.weight) for _, of in channels],
            names=[f"{run.folder.name if run.folder else run.scene}: seed {run.seed}" for run, _ in channels],
            title=weights.stamped(title),
        )
    }


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


def smallest_numbers(weights: WeightComparison) -> dict[tuple[str, str], int | None]:
    """Split and classifier to the smallest number of our bands that keeps 95 % of the accuracy with all."""
    content = weights.evidence or {}
    found = content.get("top_k", {}).get("cheapest", {})
    return {(content["split"]["kind"], classifier): number for classifier, number in found.items()}


@dataclass(frozen=True, eq=False)
class Channels:
    """What each fused channel of a run is made of, the most used channel first.

    Attributes:
        share: (M,) of what the network takes in.
        weight: (M, C), band weights of each channel; without further rasters they sum to 1.
    """

    share: NDArray[np.float64]
    weight: NDArray[np.float64]


def read_channels(folder: Path, bands: Bands) -> Channels | None:
    r"""Reads response.csv and group_weights.csv of a run; None where there are none.

    The weight of band c in channel m is :math:`\sum_g |a_{gm}| |s_{gmc}| / \sum_g |a_{gm}|`.

    Raises:
        InputError: if they are damaged.
    """
    response, groups = folder / "response.csv", folder / "group_weights.csv"
    if not (response.is_file() and groups.is_file()):
        return None
    try:
        rows = _rows(groups)
        share = {int(row["channel"]): float(row["channel_share"]) for row in rows}
        channels = len(share)
        if sorted(share) != list(range(1, channels + 1)) or not 0 < channels * len(bands) <= _MOST_NUMBERS:
            raise ValueError("channels do not count from 1")
        size = {(from_cell(row["group"]), int(row["channel"])): abs(float(row["weight"])) for row in rows}
        weight = _channel_weights(response, size, shape=(channels, len(bands)), wavelength_nm=bands.wavelength_nm)
        shares = np.array([share[m + 1] for m in range(channels)])
        if not (np.isfinite(weight).all() and np.isfinite(shares).all()):
            raise ValueError("a number is not finite")
    except (OSError, KeyError, IndexError, TypeError, ValueError, csv.Error) as error:
        raise InputError(response, "table", repr(error), "the tables of hsfusion train", "train anew") from error
    order = np.argsort(-shares, kind="stable")
    return Channels(shares[order], weight[order])


def _channel_weights(
    response: Path, size: dict[tuple[str, int], float], *, shape: tuple[int, int], wavelength_nm: NDArray[np.float64]
) -> NDArray[np.float64]:
    weight, total = np.zeros(shape), np.zeros(shape[0])
    for (_, channel), value in size.items():
        total[channel - 1] += value
    for row in _rows(response):
        m, c = int(row["channel"]) - 1, int(row["band"]) - 1
        if row["wavelength_nm"] in ("nan", ""):  # a layer of a further raster
            continue
        if min(m, c) < 0 or abs(float(row["wavelength_nm"]) - wavelength_nm[c]) > 1e-3:
            raise ValueError(f"band {c + 1} has another wavelength in band_weights.csv")
        weight[m, c] += size[from_cell(row["group"]), m + 1] * abs(float(row["weight"]))
    return weight / np.maximum(total, 1e-300)[:, None]


def _rows(table: Path) -> list[dict[str, str]]:
    status = table.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_TABLE_BYTES:
        raise ValueError(f"no plain file of at most {_MOST_TABLE_BYTES} bytes")
    with open(table, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
