"""The page that ``hsfusion weights`` writes for an evidence folder, and what that adds to the page of a run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from hsfusion import plots
from hsfusion.errors import InputError
from hsfusion.runs.comparison import WeightComparison
from hsfusion.runs.folder import plain_bytes, read_metrics

NAME = "report.html"
_MOST_BYTES = 2**20
_FIGURES = {
    "Band groups": (
        "groups.svg",
        "Median weights of each band group",
        "Median over the runs, quartiles as a band.",
    ),
    "Fused channels": ("channels.svg", "Responses of the fused channels", "Channels have no order between runs."),
    "Bands removed and put in": (
        "faithfulness.svg",
        "Accuracy over bands removed and put in by falling weight and in random orders; the tables hold areas and p",
        "If the weights are right, the line lies below random where bands are removed, above where they are put in.",
    ),
    "Band groups exchanged between pixels": (
        "group_importance.svg",
        "Accuracy lost for each band group whose values are exchanged between pixels; the table holds the values",
        "The more accuracy is lost, the more the network draws on a group.",
    ),
    "Retrained on k bands": (
        "top_k.svg",
        "Accuracy over the number of bands for each way to choose them; the tables hold the means",
        "Mean over split seeds, with the range.",
    ),
}


def write_page(weights: WeightComparison, source: Path, folder: Path) -> Path:
    """Writes the report of an evidence folder beside the figures; returns its path.

    Args:
        weights: read from the evidence folder.
        source: the evidence folder.
        folder: where the figures are, and the page goes.
    """
    assert weights.evidence is not None, "run folders have reports of their own"
    assert weights.runs[0].folder is not None, "read from a folder"
    configuration = source / "config.yaml"
    versions = read_metrics(weights.runs[0].folder).get("versions", {})
    page = plots.evidence_html(
        weights.evidence,
        title=f"hsfusion: evidence on the band weights of {weights.scene}",
        configuration=plain_bytes(configuration, most=_MOST_BYTES).decode() if configuration.exists() else "",
        versions=versions,
        reproduce=weights.evidence["command"],
        figures_of={
            title: (folder / name, alt, caption)
            for title, (name, alt, caption) in _FIGURES.items()
            if (folder / name).exists()
        },
    )
    path = folder / NAME
    path.write_text(page, encoding="utf-8")
    return path


def add_evidence(weights: WeightComparison, evidence: WeightComparison, source: Path) -> Path:
    """Puts the evidence of a folder into the report of a run; returns its path.

    Args:
        weights: read from the run folder.
        evidence: read from the evidence folder.
        source: the evidence folder.

    Raises:
        InputError: if they are of different scenes or bands, the evidence has no verdict yet, or the report is none.
    """
    assert evidence.evidence is not None, "read from an evidence folder"
    run = weights.runs[0]
    if not run.beats_chance or run.fusion != evidence.evidence["fusion"] or run.split != evidence.runs[0].split:
        of = f"{run.split} split, {run.fusion} fusion{'' if run.beats_chance else ', no better than chance'}"
        raise InputError(
            run.folder,
            field="run",
            value=of,
            expected=f"what the evidence is on: {evidence.runs[0].split} split, {evidence.evidence['fusion']} fusion",
            fix="run hsfusion benchmark evidence with the words of this run",
        )
    used = [[bool(name) for name in of.reported.group] for of in (weights, evidence)]
    told = [(of.scene, f"{of.reported.bands.wavelength_nm.size} bands") for of in (weights, evidence)]
    nm = [of.reported.bands.wavelength_nm for of in (weights, evidence)]
    if told[0] != told[1] or used[0] != used[1] or not np.allclose(*nm, rtol=0, atol=1e-3):
        raise InputError(
            source,
            field="scene and bands",
            value=", ".join(told[1]),
            expected=f"those of {run.folder}: {', '.join(told[0])} of the same wavelengths, in groups",
            fix="run hsfusion benchmark evidence on that scene",
        )
    if evidence.verdict is None:
        raise InputError(
            source, field="verdict", value="none yet", expected="a finished evidence run", fix="let it finish"
        )
    assert run.folder is not None, "read from a folder"
    path = run.folder / NAME
    try:
        page = plots.with_evidence(path.read_text(encoding="utf-8"), evidence.evidence, name=source.resolve().name)
    except (OSError, ValueError) as error:
        raise InputError(
            path, field="content", value=f"unreadable ({error})", expected="the report of a run", fix="train anew"
        ) from error
    partial = path.with_name(f".{NAME}.{os.getpid()}")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path
