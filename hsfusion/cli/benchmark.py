"""``hsfusion benchmark``: methods beside each other, evidence on band weights, and speed."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.app import plain, run_app
from hsfusion.errors import InputError

_DRAWN = {"overall accuracy": "overall_accuracy", "average accuracy": "average_accuracy"}


def accuracy(cfg: DictConfig) -> None:
    """Trains each kind of fusion and each baseline on the same pixels with every seed; prints a table, writes JSON."""
    from hsfusion.benchmarks.comparisons import BASELINES, compare_fusions
    from hsfusion.cli.commands import scene_of, settings_of

    lists = {key: _listed(cfg, key) for key in ("fusions", "keep_bands", "baselines")}
    if not set(lists["baselines"]) <= set(BASELINES):
        _refuse("baselines", lists["baselines"], f"a list of {', '.join(BASELINES)}")
    _collect(cfg, compare_fusions(scene_of(cfg), settings_of(cfg), seeds=_seeds(cfg), **lists))


def sensors(cfg: DictConfig) -> None:
    """Trains the network on the scene as it is and as each sensor would see it; prints a table, draws a figure."""
    from hsfusion.benchmarks.comparisons import compare_sensors, sensor_scenes
    from hsfusion.cli.commands import scene_of, settings_of
    from hsfusion.spectra.sensors import sensor_name

    named = _listed(cfg, "sensors")
    if len(set(map(sensor_name, named))) < len(named):
        _refuse("sensors", named, "each name once")
    seeds, settings = _seeds(cfg), settings_of(cfg)
    scenes = sensor_scenes(scene_of(cfg), settings, named)
    rows = _collect(cfg, compare_sensors(scenes, settings, seeds=seeds))
    if cfg.figure is not None:
        _draw_sensors(Path(cfg.figure), rows, scenes, seeds=len(seeds))


def finetune(cfg: DictConfig) -> None:
    """Fine-tunes and trains from scratch on the same pixels, for each number of labels and seed; prints a table."""
    from hsfusion.benchmarks.comparisons import compare_finetuning, pretrained_models
    from hsfusion.cli.commands import check_finetune_words, scene_of, settings_of

    labels = _listed(cfg, "labels")
    if any(labels) and "per_class" not in cfg.split:
        _refuse("labels", labels, "[null], all of the labels: this split has no per_class")
    check_finetune_words(cfg)
    seeds, scene, settings = _seeds(cfg), scene_of(cfg), settings_of(cfg)
    models = pretrained_models(scene, settings, str(cfg.pretrained), seeds)
    _collect(cfg, compare_finetuning(scene, settings, models=models, labels=labels, scratch_epochs=cfg.scratch_epochs))


def evidence(cfg: DictConfig) -> None:
    """Fills a folder with trainings and evidence.json; continues where an earlier run with the same words stopped."""
    from hydra.utils import instantiate

    from hsfusion.cli.app import command_again
    from hsfusion.cli.commands import scene_of, settings_of, values_of
    from hsfusion.evidence.jobs import EvidenceSettings
    from hsfusion.evidence.stages import gather_evidence

    _seeds(cfg)
    plan = EvidenceSettings(**values_of(EvidenceSettings, cfg) | {"random_split": instantiate(cfg.random_split)})
    # what does not change a number: classifiers can be added later
    values = {key: cfg[key] for key in cfg if key not in ("folder", "jobs", "progress", "retrain")}
    content = gather_evidence(
        scene_of(cfg),
        str(cfg.folder),
        settings=settings_of(cfg),
        plan=plan,
        command=command_again("benchmark evidence"),
        configuration=OmegaConf.to_yaml(OmegaConf.create(values), resolve=True),
    )
    _show_evidence(content, Path(str(cfg.folder)))


def speed(cfg: DictConfig, kind: str) -> None:
    """Runs a benchmark of speed with the keys of the configuration; prints its table, writes JSON."""
    import torch

    from hsfusion.benchmarks.speed import FusionBenchmark, PredictBenchmark, ReadBenchmark
    from hsfusion.cli.commands import values_of

    benchmark = {"read": ReadBenchmark, "predict": PredictBenchmark, "fusion": FusionBenchmark}[kind]
    if cfg.get("threads") is not None:
        torch.set_num_threads(cfg.threads)
    result = benchmark(**values_of(benchmark, cfg)).measure()
    print("\n".join(benchmark.table(result)))
    if cfg.json is not None:
        Path(str(cfg.json)).write_text(json.dumps({"config": plain(cfg), **result}, indent=2) + "\n", encoding="utf-8")


KINDS = {
    "accuracy": (accuracy, "networks beside an SVM and a random forest on the same pixels, over several seeds"),
    "sensors": (sensors, "networks on a scene as other sensors would see it: would Sentinel-2 be enough?"),
    "finetune": (finetune, "fine-tuning beside training from scratch, on the same few labels"),
    "evidence": (evidence, "how stable and how faithful the band weights are, over seeds and resamples"),
    "read": (speed, "reading a cube, beside a raw read of its bytes, rasterio and spectral"),
    "predict": (speed, "pixels per second of predict, beside a loop over patches and the bare network"),
    "fusion": (speed, "speed and memory of WeightedSum beside the plain expression"),
}


def command() -> None:
    """Entry point of the command; its first word says what to measure."""
    kind = next((word for word in sys.argv[1:2] if "=" not in word and not word.startswith("-")), None)
    if kind is None and {"-h", "--help"} & set(sys.argv[1:]):
        print("Usage: hsfusion benchmark KIND [key=value ...]\n")
        print("\n".join(f"  {name:<10}{text}" for name, (_, text) in KINDS.items()))
        print("\nhsfusion benchmark KIND --help lists the keys of one.")
        return
    if kind not in KINDS:
        close = difflib.get_close_matches(kind or "", KINDS, 1)
        fix = f"hsfusion benchmark {close[0] if close else 'accuracy'}"
        raise InputError("command line", "benchmark", kind, " | ".join(KINDS), fix)
    del sys.argv[1]
    task = KINDS[kind][0]
    run_app(partial(speed, kind=kind) if task is speed else task, f"benchmark_{kind}")


def _collect(cfg: DictConfig, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prints each row and writes all so far, as they come; a file that cannot be written fails before anything runs."""
    from hsfusion.benchmarks.comparisons import table, write_rows

    collected: list[dict[str, Any]] = []
    for row in chain([None], rows):
        if row is not None:
            collected.append(row)
            text = f"overall accuracy {row['overall_accuracy']:.4f}, {row['seconds']:.0f} s"
            print(f"seed {row['seed']} {row['method']:<18} {text}", flush=True)
        if cfg.json is not None:
            write_rows(Path(str(cfg.json)), collected, configuration=plain(cfg))
    print("\n".join(table(collected)))
    return collected


def _seeds(cfg: DictConfig) -> range:
    if cfg.trainer.devices not in (1, "1", "auto"):
        _refuse("trainer.devices", cfg.trainer.devices, "1")
    for key in ("seed", "run_dir", "resume"):
        if cfg[key]:
            _refuse(key, cfg[key], "nothing in a benchmark: use seeds=N")
    return range(cfg.first_seed, cfg.first_seed + cfg.seeds)


def _listed(cfg: DictConfig, key: str) -> list[Any]:
    entries = plain(cfg[key])
    if not isinstance(entries, list) or any(entries.count(entry) > 1 for entry in entries):
        _refuse(key, entries, "a list, each entry once")
    return entries


def _refuse(key: str, value: object, expected: str) -> None:
    raise InputError("command line", key, value, expected, f"correct {key}")


def _draw_sensors(path: Path, rows: list[dict[str, Any]], scenes: dict[str, Any], *, seeds: int) -> None:
    from hsfusion.benchmarks.comparisons import AS_IT_IS
    from hsfusion.plots import save_figure, sensors_figure
    from hsfusion.spectra.sensors import SENSORS

    labels = {name: SENSORS.get(name, name) for name in scenes}
    accuracies = {
        label: {metric: [row[key] for row in rows if row["method"] == name] for metric, key in _DRAWN.items()}
        for name, label in labels.items()
    }
    seen = {label: scenes[name].scene.bands for name, label in labels.items()}
    bands = {
        label: (of.wavelength_nm[of.good], None if of.fwhm_nm is None else of.fwhm_nm[of.good])
        for label, of in seen.items()
    }
    name, kind = scenes[AS_IT_IS].scene.name, rows[0]["split"]["kind"]
    title = f"{name} as other sensors would see it: {kind} split, {seeds} seed(s), ± 1 standard deviation"
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    stem.parent.mkdir(parents=True, exist_ok=True)
    save_figure(sensors_figure(accuracies, bands, title=title), stem)
    print(f"figure       {stem}.png")


def _show_evidence(content: dict[str, Any], folder: Path) -> None:
    """Prints accuracy, stability and the verdict."""
    overall = [run["overall_accuracy"] for run in content["runs"]]
    print(f"{len(overall)} trainings, overall accuracy {mean(overall):.4f} ({min(overall):.4f} to {max(overall):.4f})")
    if index := content["stability"].get("reported"):
        interval = f"{index['index']:.2f} ({index['lower']:.2f} to {index['upper']:.2f})"
        print(f"stability    {interval}, {index['profiles']} profiles of {index['members']} runs")
    print(f"verdict      {content['verdict']['word']}")
    for sentence in content["verdict"]["sentences"]:
        print(f"             {sentence}")
    print(f"evidence     {folder / 'evidence.json'}")
