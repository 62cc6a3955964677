"""Comparisons of methods on the same pixels, over several seeds: networks and baselines, sensors, fine-tuning.

Each comparison yields a row per method and seed as soon as it is ready; ``table`` shows the means over the seeds.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from hsfusion.data.leakage import check_no_leakage
from hsfusion.errors import InputError
from hsfusion.inference import predict_scene
from hsfusion.runs.evaluation import evaluate_test
from hsfusion.runs.experiment import new_model, prepare_experiment
from hsfusion.runs.finetuning import (
    PretrainedModel,
    alternatives,
    best_of,
    pretrained_model,
    starting_experiment,
    transferred_model,
    unknown_classes,
)
from hsfusion.runs.folder import versions
from hsfusion.runs.run import Training
from hsfusion.runs.settings import TrainSettings
from hsfusion.runs.training import fit, train
from hsfusion.scenes import LabelledScene
from hsfusion.scenes.simulate import simulate
from hsfusion.spectra.sensors import sensor_name
from hsfusion.trust.baselines import BASELINES, paired_interval

_METRICS = ("overall_accuracy", "average_accuracy", "kappa")
_HEADS: tuple[str, ...] = (
    *("scene", "method", "overall accuracy", "average", "bands in use", "best baseline", "lead (95 % interval)"),
    *("wins", "leakage", "seconds"),
)

Row = dict[str, Any]


def compare_sensors(
    scenes: dict[str, LabelledScene], settings: TrainSettings, *, seeds: Sequence[int]
) -> Iterator[Row]:
    """The network on a scene as several sensors see it, from :func:`sensor_scenes`."""
    settings = replace(settings, baselines=())
    return (network_row(scene, settings, name, seed) for seed in seeds for name, scene in scenes.items())


def network_row(scene: LabelledScene, settings: TrainSettings, name: str, seed: int) -> Row:
    """One training with its choices and baselines; ``choice_seconds`` hold all but training and baselines."""
    start = time.perf_counter()
    run = train(scene, settings=replace(settings, seed=seed))
    baselines, row = run.metrics.get("baselines", {}), _row(name, seed, run.metrics)
    baseline_seconds = sum(of["seconds"] for of in baselines.values())
    return {
        **row,
        "choice_seconds": time.perf_counter() - start - row["seconds"] - baseline_seconds,
        "baseline_seconds": baseline_seconds,
        "bands_in_use": int((run.weights.weight > 0).sum()),
        "bands": len(scene.scene.bands),
        "choices": run.metrics.get("choices", []),
        "baselines": baselines,
    }


def sensor_scenes(scene: LabelledScene, settings: TrainSettings, sensors: Sequence[str]) -> dict[str, LabelledScene]:
    """Name in tables -> the scene as that sensor would have seen it, the scene as it is first."""
    scenes = {"as it is": scene}
    scenes |= {sensor_name(sensor): simulate(scene, sensor) for sensor in sensors}
    for name, seen in scenes.items():
        try:
            new_model(settings, seen.scene, seen.legend.names)
        except InputError as error:
            source = f"groups and model, as {name} sees the scene"
            fix = "use groups=even, which adapts to the bands, without keep_bands, or leave out this sensor"
            raise InputError(source, error.field, error.value, error.expected, fix) from error
    return scenes


def pretrained_models(
    scene: LabelledScene, settings: TrainSettings, pretrained: str, seeds: Sequence[int]
) -> dict[int, PretrainedModel]:
    """Network and header of the model of each seed; ``{seed}`` in the path stands for the seed."""
    models = {seed: pretrained_model(pretrained.replace("{seed}", str(seed))) for seed in seeds}
    for seed, model in models.items():
        make = partial(transferred_model, model=model)
        check_no_leakage(prepare_experiment(scene, replace(settings, seed=seed), make=make).split, model[1].to_dict())
    return models


def compare_finetuning(
    scene: LabelledScene,
    settings: TrainSettings,
    *,
    models: Mapping[int, PretrainedModel],
    labels: Sequence[int | None],
    scratch_epochs: int,
) -> Iterator[Row]:
    """Fine-tuning against training from scratch on the same numbers of training pixels per class, None for all.

    ``models`` are by seed, from :func:`pretrained_models`.
    """
    for seed, model in models.items():
        job = replace(settings, seed=seed)
        yield from _untrained_rows(scene, job, model)
        for number in labels:
            yield from _finetuned_rows(scene, job, model, number=number, epochs=scratch_epochs)


def _untrained_rows(scene: LabelledScene, settings: TrainSettings, model: PretrainedModel) -> list[Row]:
    """The network where it was trained, as its file says; and transferred to here, if it knows all classes."""
    rows, header, make = [], model[1], partial(transferred_model, model=model, responses="folded")
    if header.test is not None and header.split is not None:
        rows.append(_row("where it was trained", settings.seed, header.to_dict(), seconds=0.0))
    experiment = prepare_experiment(scene, settings, make=make)
    labelled = experiment.split.labelled
    if not unknown_classes(header, labelled.legend.names):
        untouched = make(labelled.scene, labelled.legend.names).network
        metrics = evaluate_test(experiment.split, predict_scene(untouched, labelled.scene)[0])[1]
        rows.append(_row("carried over", settings.seed, metrics, seconds=0.0))
    return rows


def _finetuned_rows(
    scene: LabelledScene, settings: TrainSettings, model: PretrainedModel, *, number: int | None, epochs: int
) -> list[Row]:
    """A network fine-tuned, one from scratch on the same pixels, and what fine-tuning keeps of these and untouched."""
    if number is not None:  # who has few labels has few to choose an epoch by, too
        settings = replace(settings, split=partial(settings.split, per_class=number, val_per_class=number))
    experiment = starting_experiment(scene, settings, model=model)
    tuned = Training(settings, experiment, fit(settings, experiment), "", "")
    trainings = alternatives(tuned, model, scratch_epochs=epochs)
    label = "all labels" if number is None else f"{number} labels"
    rows, results = [], {"fine-tuned": tuned.result, "kept": trainings[best_of(trainings)[0]].result}
    results |= {"scratch": trainings["scratch"].result} if "scratch" in trainings else {}
    for method, result in results.items():
        rows.append(_row(f"{method}, {label}", settings.seed, result.metrics))
    return rows


def _row(method: str, seed: int, metrics: dict[str, Any], *, seconds: float | None = None) -> Row:
    """One method with one seed, as plain values; ``seconds`` replace those of the training."""
    return {
        "method": method,
        "seed": seed,
        **{key: metrics["test"][key] for key in _METRICS},
        "split": metrics["split"],
        "seconds": metrics["timing"]["train_seconds"] if seconds is None else seconds,
    }


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) of each method over the seeds."""
    summary: dict[str, Any] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [row for row in rows if row["method"] == method]
        values = {key: [row[key] for row in of_method] for key in _METRICS}
        summary[method] = {
            **{key: {"mean": mean(of), "std": stdev(of) if len(of) > 1 else 0.0} for key, of in values.items()},
            "leakage": mean(row["split"]["leakage"] for row in of_method),
            "seconds": mean(row["seconds"] for row in of_method),
        }
    return summary


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
        shared = {key: row[key] for key in ("scene", "seed", "split") if key in row}
        result += [row, *({**of, **shared, "method": name} for name, of in row.get("baselines", {}).items())]
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

    The baseline, the mean of the paired differences with the ends of its 95 % t-interval, on how many of the splits the
    network is better, and how many there are; None without baselines.
    """
    baselines = {row["seed"]: row["baselines"] for row in rows if row.get("baselines")}
    reached = {row["seed"]: row["overall_accuracy"] for row in rows if row["method"] == method}
    reached = {seed: accuracy for seed, accuracy in reached.items() if seed in baselines}
    if not reached:
        return None
    others = {name: [baselines[seed][name]["overall_accuracy"] for seed in reached] for name in baselines[min(reached)]}
    best = max(others, key=lambda name: mean(others[name]))
    gains = [a - b for a, b in zip(reached.values(), others[best], strict=True)]
    middle, low, high = paired_interval(gains)
    wins = sum(gain > 0 for gain in gains)
    return {"baseline": best, "mean": middle, "low": low, "high": high, "wins": wins, "splits": len(gains)}


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of text: each method on each scene, networks beside the best baseline where there are any.

    Means over the seeds, and standard deviations where there are several; columns without any content are left out.
    """
    lines = [_HEADS]
    for scene, method in dict.fromkeys((row.get("scene", ""), row["method"]) for row in rows):
        of_scene = [row for row in rows if row.get("scene", "") == scene]
        of_method = [row for row in of_scene if row["method"] == method]
        values, first = summarise(of_method)[method], of_method[0]
        used = sorted({str(row["bands_in_use"]) for row in of_method if "bands" in row}, key=int)
        bands = f"{'-'.join(dict.fromkeys((used[0], used[-1])))} of {first['bands']}" if used else ""
        reached = [_spread(values[key], len(of_method)) for key in ("overall_accuracy", "average_accuracy")]
        seconds = mean(row["seconds"] + row.get("choice_seconds", 0.0) for row in of_method)
        beside = _beside(of_scene, method) if "baselines" in first else ("", "", "")
        lines.append((scene, method, *reached, bands, *beside, f"{values['leakage']:.3f}", f"{seconds:.0f}"))
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _spread(of: dict[str, float], number: int) -> str:
    return f"{of['mean']:.4f}" + (f" ± {of['std']:.4f}" if number > 1 else "")


def _beside(rows: Sequence[Row], method: str) -> tuple[str, str, str]:
    """The best baseline, the lead of the network over it, and on how many of the splits the network is ahead."""
    if (gain := ahead(rows, method)) is None:
        return "", "", ""
    interval = "" if gain["low"] is None else f" ({gain['low']:+.4f} to {gain['high']:+.4f})"
    with_their_own = with_baselines([row for row in rows if "baselines" in row])  # there may be rows of them, too
    best = summarise(with_their_own)[gain["baseline"]]["overall_accuracy"]
    reached = f"{_spread(best, gain['splits'])} {BASELINES[gain['baseline']]}"
    return reached, f"{gain['mean']:+.4f}{interval}", f"{gain['wins']} of {gain['splits']}"


def document(
    rows: Sequence[Row], *, summary: dict[str, Any], command: str, configuration: dict[str, Any]
) -> dict[str, Any]:
    """What a benchmark writes: rows and summary, and when, where and by what they were measured."""
    return {**circumstances(command, configuration), "summary": summary, "runs": list(rows)}


def circumstances(command: str, configuration: dict[str, Any]) -> dict[str, Any]:
    """When, where and by what something was measured."""
    cpu = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", cpu.read_text()) if cpu.exists() else []
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "platform": platform.platform(),
            "processor": models[0] if models else platform.processor(),
            "cores": os.cpu_count(),
        },
        "command": command,
        "config": configuration,
        "versions": versions(),
    }


@cache
def commit() -> str | None:
    """The commit of a checkout at the first call, ``-dirty`` with changes; None for an installed package."""
    root = Path(__file__).parents[2]
    words = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    if not (root / ".git").exists():
        return None
    return subprocess.run(words, capture_output=True, text=True).stdout.strip() or None
