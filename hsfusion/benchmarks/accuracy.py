"""Networks beside classifiers without one on the same pixels, over several seeds, on one scene or a suite of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import product
from statistics import mean
from typing import Any

from hsfusion.benchmarks.comparisons import Row, network_row, summarise
from hsfusion.runs.settings import TrainSettings
from hsfusion.scenes import LabelledScene
from hsfusion.trust.baselines import BASELINES, paired_interval

_HEADS: tuple[str, ...] = (
    *("scene", "method", "overall accuracy", "average", "best baseline", "ahead (95 % interval)"),
    *("wins", "leakage", "seconds"),
)


def compare_fusions(
    scene: LabelledScene,
    settings: TrainSettings,
    *,
    seeds: Sequence[int],
    fusions: Sequence[str],
    keep_bands: Sequence[int | None],
    done: Collection[tuple[str, int]] = (),
) -> Iterator[Row]:
    """Kinds of fusion, each with every number of bands to keep; the row of the first holds the baselines.

    None keeps as many bands as are worth their cost; ``seeds`` are of networks, and of splits without one. ``done`` are
    methods and seeds to leave out.
    """
    for seed in seeds:
        baselines = settings.baselines
        for fusion, keep in product(fusions, keep_bands):
            name = fusion if keep is None else f"{fusion}, {keep} bands"
            if (name, seed) not in done:
                model = replace(settings.model, fusion=fusion, keep_bands=keep)
                yield network_row(scene, replace(settings, model=model, baselines=baselines), name, seed)
            baselines = ()


def with_baselines(rows: Sequence[Row]) -> list[Row]:
    """The rows, each followed by one for each of its baselines."""
    result = []
    for row in rows:
        shared = {"seed": row["seed"], "split": row["split"]}
        result += [row, *({**of, **shared, "method": name} for name, of in row["baselines"].items())]
    return result


def summarise_scenes(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Scene -> method -> mean and standard deviation over its splits; of networks also ``ahead``, see :func:`ahead`."""
    summary: dict[str, dict[str, Any]] = {}
    for scene in dict.fromkeys(row["scene"] for row in rows):
        of_scene = [row for row in rows if row["scene"] == scene]
        summary[scene] = summarise(with_baselines(of_scene))
        for method in dict.fromkeys(row["method"] for row in of_scene):
            summary[scene][method]["ahead"] = ahead(of_scene, method)
    return summary


def ahead(rows: Sequence[Row], method: str) -> dict[str, Any] | None:
    """How far a network is ahead of the baseline with the highest mean overall accuracy over the splits of a scene.

    Returns:
        the baseline, the mean of the paired differences with the ends of its 95 % t-interval over the splits, on how
        many of them the network is better, and how many there are; None without baselines
    """
    baselines = {row["seed"]: row["baselines"] for row in rows if row["baselines"]}
    own = {row["seed"]: row["overall_accuracy"] for row in rows if row["method"] == method and row["seed"] in baselines}
    if not own:
        return None
    reached = {name: [baselines[seed][name]["overall_accuracy"] for seed in own] for name in baselines[min(own)]}
    best = max(reached, key=lambda name: mean(reached[name]))
    gains = [a - b for a, b in zip(own.values(), reached[best], strict=True)]
    middle, low, high = paired_interval(gains)
    wins = sum(gain > 0 for gain in gains)
    return {"baseline": best, "mean": middle, "low": low, "high": high, "wins": wins, "splits": len(gains)}


def suite_table(rows: Sequence[Row]) -> list[str]:
    """Lines of text: each network on each scene beside the best baseline, over the splits."""
    lines = [_HEADS]
    for scene, methods in summarise_scenes(rows).items():
        for method, values in methods.items():
            if "ahead" in values:
                own = [row for row in rows if (row["scene"], row["method"]) == (scene, method)]
                seconds = mean(row["seconds"] + row["choice_seconds"] for row in own)
                overall, average = (_spread(values[key]) for key in ("overall_accuracy", "average_accuracy"))
                beside = _beside(values["ahead"], methods)
                leakage = f"{values['leakage']:.3f}"
                lines.append((scene, method, overall, average, *beside, leakage, f"{seconds:.0f}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _spread(of: dict[str, float]) -> str:
    return f"{of['mean']:.4f} ± {of['std']:.4f}"


def _beside(gain: dict[str, Any] | None, methods: dict[str, Any]) -> tuple[str, str, str]:
    """The best baseline, how far the network is ahead of it, and on how many of the splits."""
    if gain is None:
        return "", "", ""
    name, interval = gain["baseline"], "" if gain["low"] is None else f" ({gain['low']:+.4f} to {gain['high']:+.4f})"
    reached = f"{_spread(methods[name]['overall_accuracy'])} {BASELINES[name]}"
    return reached, f"{gain['mean']:+.4f}{interval}", f"{gain['wins']} of {gain['splits']}"
