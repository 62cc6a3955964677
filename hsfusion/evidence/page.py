"""The page that ``hsfusion weights`` writes for an evidence folder, and what that adds to the page of a run."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hsfusion import plots
from hsfusion.errors import InputError
from hsfusion.runs.comparison import WeightComparison
from hsfusion.runs.folder import read_json
from hsfusion.runs.weight_files import curve_figure, evidence_figures

NAME = "report.html"


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
    path = folder / NAME
    path.write_text(page, encoding="utf-8")
    return path


def add_evidence(weights: WeightComparison, evidence: WeightComparison, source: Path) -> Path:
    """Puts the evidence of a folder, its source, into the report of a run; returns its path.

    Raises:
        InputError: if they are of different scenes or bands, the evidence has no verdict yet, or the report is none.
    """
    assert evidence.evidence is not None, "read from an evidence folder"
    run = weights.runs[0]
    if not run.beats_chance or run.fusion != evidence.evidence["fusion"] or run.split != evidence.runs[0].split:
        of = f"{run.split} split, {run.fusion} fusion{'' if run.beats_chance else ', no better than chance'}"
        raise InputError(
            run.folder,
            "run",
            of,
            f"what the evidence is on: {evidence.runs[0].split} split, {evidence.evidence['fusion']} fusion",
            "run hsfusion benchmark evidence with the words of this run",
        )
    used = [[bool(name) for name in of.reported.group] for of in (weights, evidence)]
    told = [(of.scene, f"{of.reported.bands.wavelength_nm.size} bands") for of in (weights, evidence)]
    nm = [of.reported.bands.wavelength_nm for of in (weights, evidence)]
    if told[0] != told[1] or used[0] != used[1] or not np.allclose(*nm, rtol=0, atol=1e-3):
        raise InputError(
            source,
            "scene and bands",
            ", ".join(told[1]),
            f"those of {run.folder}: {', '.join(told[0])} of the same wavelengths, in groups",
            "run hsfusion benchmark evidence on that scene",
        )
    if evidence.verdict is None:
        raise InputError(source, "verdict", "none yet", "a finished evidence run", "let it finish")
    assert run.folder is not None, "read from a folder"
    path = run.folder / NAME
    try:
        page = _with_evidence(path.read_text(encoding="utf-8"), evidence, name=source.resolve().name)
    except (OSError, ValueError) as error:
        raise InputError(path, "content", f"unreadable ({error})", "the report of a run", "train anew") from error
    partial = path.with_name(f".{NAME}.{os.getpid()}")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path


def _with_evidence(page: str, evidence: WeightComparison, *, name: str) -> str:
    """The page of a run with the numbers and the figures of an evidence folder."""
    assert evidence.evidence is not None, "read from an evidence folder"
    with TemporaryDirectory() as drawn:
        for stem, figure in {"band_weights": curve_figure(evidence), **evidence_figures(evidence)}.items():
            plots.save_figure(figure, Path(drawn) / stem)
        return plots.with_evidence(page, evidence.evidence, name=name, figures=Path(drawn))
