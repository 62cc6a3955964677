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
    path = run.folder / NAME
    try:
        page = path.read_text(encoding="utf-8")
        with TemporaryDirectory() as drawn:
            for stem, figure in {"band_weights": curve_figure(evidence), **evidence_figures(evidence)}.items():
                plots.save_figure(figure, Path(drawn) / stem)
            page = plots.with_evidence(page, content, name=source.resolve().name, figures=Path(drawn))
    except (OSError, ValueError) as error:
        raise InputError(path, "content", f"unreadable ({error})", "the report of a run", "train anew") from error
    partial = path.with_name(f".{NAME}.{os.getpid()}")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path


def _bands(weights: WeightComparison) -> str:
    """Scene, and number of bands in groups."""
    group = weights.reported.group
    return f"scene {weights.scene}, {sum(map(bool, group))} of {len(group)} bands"
