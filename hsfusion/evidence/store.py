"""``evidence.json`` read back as objects."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.runs.comparison import RunRecord, WeightComparison
from hsfusion.spectra import Bands, BandWeights
from hsfusion.spectra.weights import WeightSpread
from hsfusion.trust.stability import Stability
from hsfusion.trust.verdict import Verdict, WavelengthWindow

NAME = "evidence.json"


def read_evidence(folder: str | Path) -> WeightComparison:
    """Reads an evidence folder; stages that are not done yet are left out."""
    path = Path(folder) / NAME
    try:
        return _comparison(path.parent, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        value = f"unreadable ({type(error).__name__}: {error})"
        raise InputError(path, "content", value, "that of an evidence run", "run the evidence again") from error


def _comparison(folder: Path, content: dict[str, Any]) -> WeightComparison:
    bands = Bands.from_dict(content["bands"])

    def per_band(values: Any) -> NDArray[np.float64]:
        return np.array(values, np.float64).reshape(len(bands))

    sources = tuple((source["name"], source["weight"]) for source in content["sources"])
    reported = BandWeights(bands, tuple(content["band_groups"]), per_band(content["ensemble"]), sources)
    lower, upper = (per_band(content["quartiles"][key]) for key in ("lower", "upper"))
    agreement: dict[str, Any] = content.get("stability", {}).get("reported") or {}
    stability: dict[str, Any] = {key: math.nan if value is None else value for key, value in agreement.items()}
    verdict: dict[str, Any] | None = content.get("verdict")
    limits = tuple((group["name"], group["lower_nm"], group["upper_nm"]) for group in content["groups"])
    return WeightComparison(
        tuple(_run(folder, content, run) for run in content["runs"]),
        np.array(content["profiles"], np.float64).reshape(len(content["runs"]), len(bands)),
        reported,
        WeightSpread(lower, upper, per_band(content["selection_frequency"])),
        Stability(**stability) if stability else None,
        _windows(content.get("top_windows", [])),
        per_band(content["untrained"]),
        None
        if verdict is None
        else Verdict(verdict["word"], tuple(verdict["sentences"]), _windows(verdict["windows"])),
        limits,
        content,
    )


def _run(folder: Path, content: dict[str, Any], run: dict[str, Any]) -> RunRecord:
    return RunRecord(
        folder / "runs" / Path(run["folder"]).name,  # the folder may have been moved
        content["scene"],
        run["seed"],
        content["split"]["kind"],
        content["split"]["leakage"],
        run["overall_accuracy"],
        run["average_accuracy"],
        run["beats_chance"],
        resample=run["resample"],
    )


def _windows(rows: list[dict[str, Any]]) -> tuple[WavelengthWindow, ...]:
    names = ("lower_nm", "upper_nm", "weight", "raised", "frequency")
    return tuple(WavelengthWindow(*(row[name] for name in names)) for row in rows)
