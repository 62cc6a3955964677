"""The summary that ``hsfusion benchmark evidence`` prints."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np


def show_summary(found: dict[str, Any], folder: Path) -> None:
    """Prints accuracy, stability, curves, tables of choices of bands, and the verdict."""
    runs, stability = found["runs"], found["stability"]
    accuracy = [run["overall_accuracy"] for run in runs]
    print(
        f"{len(runs)} trainings, overall accuracy {np.mean(accuracy):.4f} ({min(accuracy):.4f} to {max(accuracy):.4f})"
    )
    for name in ("single", "reported", "untrained"):
        if name in stability:
            index = stability[name]
            print(
                f"stability, {name:<17} {_number(index['index'])} ({_number(index['lower'])} to "
                f"{_number(index['upper'])}), {index['profiles']} profiles of {index['members']} runs"
            )
    for direction, fill in itertools.product(("deletion", "insertion"), ("mean", "conditional")):
        curve = found["faithfulness"][direction][fill]
        print(
            f"{direction}, {fill:<17} area {curve['area']:.3f}, random orders {np.mean(curve['random_areas']):.3f}, "
            f"p = {curve['p']:.3f}"
        )
    for line in _top_k_lines(found.get("top_k")):
        print(line)
    print(f"verdict      {found['verdict']['word']}")
    for sentence in found["verdict"]["sentences"]:
        print(f"             {sentence}")
    print(f"evidence     {folder / 'evidence.json'}")


def _number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.2f}"


def _top_k_lines(top_k: dict[str, Any] | None) -> list[str]:
    """A table for each kind of split and each classifier: rankings by numbers of bands."""
    lines: list[str] = []
    for kind in (key for key in top_k or {} if f"full_{key}" in (top_k or {})):
        assert top_k is not None
        for classifier, rankings in top_k[kind].items():
            full = top_k[f"full_{kind}"][classifier]
            lines.append(f"{classifier}, {kind} split, overall accuracy with k bands (all bands {full:.4f})")
            lines.append(f"  {'':<28}" + "".join(f"{f'k = {k}':>10}" for k in top_k["numbers"]))
            for name, rows in rankings.items():
                lines.append(f"  {name:<28}" + "".join(f"{np.mean(row):>10.4f}" for row in rows))
            if classifier == "svm" and f"random_p_{kind}" in top_k:
                p_values = "".join(f"{p:>10.3f}" for p in top_k[f"random_p_{kind}"])
                lines.append(f"  {'weights against random, p':<28}{p_values}")
    return lines
