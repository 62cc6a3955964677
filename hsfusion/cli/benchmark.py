"""``hsfusion benchmark``: methods beside each other, evidence on band weights, and speed."""

from __future__ import annotations

import difflib
import json
import sys
from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import chain, product
from pathlib import Path
from statistics import mean
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.app import run_app
from hsfusion.errors import InputError

_DRAWN = {"overall accuracy": "overall_accuracy", "average accuracy": "average_accuracy"}


def accuracy(cfg: DictConfig) -> None:
    """Trains each kind of fusion and each baseline on the same pixels with every seed; prints a table, writes JSON."""
    from hsfusion.benchmarks.comparisons import BASELINES, compare_fusions
    from hsfusion.cli.commands import scene_of, settings_of
    from hsfusion.training.building import FUSIONS

    for key, known in (("fusions", FUSIONS), ("baselines", BASELINES)):
        if not OmegaConf.is_list(cfg[key]) or not set(cfg[key]) <= set(known):
            _refuse(key, cfg[key], f"a list of {', '.join(known)}")
    _check_numbers(cfg, "keep_bands", "a list of numbers of bands, null for all that are worth their cost")
    if "free" in cfg.fusions and any(k is not None for k in cfg.keep_bands):
        _refuse("fusions", list(cfg.fusions), "no free convolution together with keep_bands: it has no gates")
    lists = {key: list(cfg[key]) for key in ("fusions", "keep_bands", "baselines")}
    _collect(cfg, compare_fusions(scene_of(cfg), settings_of(cfg), seeds=_seeds(cfg), **lists))


def sensors(cfg: DictConfig) -> None:
    """Trains the network on the scene as it is and as each sensor would see it; prints a table, writes JSON, a figure.

    Every seed has the same training and test pixels for all sensors.
    """
    from hsfusion.benchmarks.comparisons import compare_sensors, sensor_scenes
    from hsfusion.cli.commands import scene_of, settings_of
    from hsfusion.spectra.sensors import SENSORS, sensor_name

    named = list(cfg.sensors) if OmegaConf.is_list(cfg.sensors) else []
    if not named or not all(isinstance(name, str) for name in named):
        _refuse("sensors", cfg.sensors, f"a list of {', '.join(SENSORS)} and CSV files")
    if twice := [name for name, times in Counter(map(sensor_name, named)).items() if times > 1]:
        _refuse("sensors", f"{twice[0]} twice", "each name once")
    if cfg.figure is not None and not Path(cfg.figure).parent.is_dir():
        _refuse("folder of figure", Path(cfg.figure).parent, "a folder")
    seeds, settings = _seeds(cfg), settings_of(cfg)
    scenes = sensor_scenes(scene_of(cfg), settings, named)
    rows = _collect(cfg, compare_sensors(scenes, settings, seeds=seeds))
    if cfg.figure is not None:
        _draw_sensors(Path(cfg.figure), rows, scenes, seeds=len(seeds))


def finetune(cfg: DictConfig) -> None:
    """Fine-tunes and trains from scratch on the same pixels, for each number of labels and seed; prints a table."""
    from hsfusion.benchmarks.comparisons import compare_finetuning, pretrained_models
    from hsfusion.cli.commands import check_finetune_words, scene_of, settings_of

    _check_numbers(cfg, "labels", "a list of numbers of labels per class, each once, null for all")
    missing = [key for key in ("per_class", "val_per_class") if key not in cfg.split]
    if missing and any(cfg.labels):
        _refuse("labels", list(cfg.labels), f"[null], all of the labels: this split has no {' and no '.join(missing)}")
    check_finetune_words(cfg)
    if cfg.trainer.devices not in (1, "1", "auto"):
        _refuse("trainer.devices", cfg.trainer.devices, "1")
    seeds, scene, settings = _seeds(cfg), scene_of(cfg), settings_of(cfg)
    models = pretrained_models(scene, settings, str(cfg.pretrained), seeds)
    numbers = {"labels": list(cfg.labels), "scratch_epochs": cfg.scratch_epochs}
    _collect(cfg, compare_finetuning(scene, settings, models=models, **numbers))


def evidence(cfg: DictConfig) -> None:
    """Fills a folder with trainings and evidence.json; continues where an earlier run with the same words stopped."""
    from hydra.utils import instantiate

    from hsfusion.cli.app import command_again
    from hsfusion.cli.commands import scene_of, settings_of
    from hsfusion.evidence import EvidenceSettings, gather_evidence

    _seeds(cfg)
    if cfg.trainer.devices != 1:
        _refuse("trainer.devices", cfg.trainer.devices, "1; jobs=N for several processes")
    plan = EvidenceSettings(**_fields(cfg, EvidenceSettings) | {"random_split": instantiate(cfg.random_split)})
    # what does not change a number: classifiers can be added later
    values = {key: cfg[key] for key in cfg if key not in ("folder", "jobs", "progress", "retrain")}
    content = gather_evidence(
        scene_of(cfg),
        str(cfg.folder),
        settings=settings_of(cfg),
        plan=plan,
        command=command_again("benchmark evidence"),
        configuration=OmegaConf.to_yaml(OmegaConf.create(values), resolve=True),
        message=print,
    )
    _show_evidence(content, Path(str(cfg.folder)))


def speed(cfg: DictConfig, kind: str) -> None:
    """Runs a benchmark of speed with the keys of the configuration; prints its table, writes JSON."""
    import torch

    from hsfusion.benchmarks.speed import FusionBenchmark, PredictBenchmark, ReadBenchmark

    benchmark = {"read": ReadBenchmark, "predict": PredictBenchmark, "fusion": FusionBenchmark}[kind]
    if cfg.get("threads") is not None:
        torch.set_num_threads(cfg.threads)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    result = benchmark(**_fields(cfg, benchmark)).measure()
    print("\n".join(benchmark.table(result)))
    if cfg.json is not None:
        Path(str(cfg.json)).write_text(json.dumps({"config": plain, **result}, indent=2) + "\n", encoding="utf-8")


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


def _fields(cfg: DictConfig, settings: Any) -> dict[str, Any]:
    """Values of the fields of a dataclass, lists as tuples."""
    values = {name: cfg[name] for name in settings.__dataclass_fields__}
    return {name: tuple(value) if OmegaConf.is_list(value) else value for name, value in values.items()}


def _collect(cfg: DictConfig, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prints each row and writes all so far, as they come; a file that cannot be written fails before anything runs."""
    from hsfusion.benchmarks.comparisons import table, write_rows

    collected: list[dict[str, Any]] = []
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    for row in chain([None], rows):
        if row is not None:
            collected.append(row)
            text = f"overall accuracy {row['overall_accuracy']:.4f}, {row['seconds']:.0f} s"
            print(f"seed {row['seed']} {row['method']:<18} {text}", flush=True)
        if cfg.json is not None:
            write_rows(Path(str(cfg.json)), collected, configuration=plain)
    print("\n".join(table(collected)))
    return collected


def _seeds(cfg: DictConfig) -> range:
    for key in ("seed", "run_dir", "resume"):
        if cfg[key]:
            _refuse(key, cfg[key], "nothing in a benchmark: use seeds=N")
    return range(cfg.first_seed, cfg.first_seed + cfg.seeds)


def _check_numbers(cfg: DictConfig, key: str, expected: str) -> None:
    numbers = list(cfg[key]) if OmegaConf.is_list(cfg[key]) else [0]
    if not all(k is None or (type(k) is int and k > 0 and numbers.count(k) == 1) for k in numbers):
        _refuse(key, cfg[key], expected)


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
    bands = {}
    for name, label in labels.items():
        seen = scenes[name].scene.bands
        bands[label] = (seen.wavelength_nm[seen.good], None if seen.fwhm_nm is None else seen.fwhm_nm[seen.good])
    number = f"{seeds} seeds, ± 1 standard deviation" if seeds > 1 else "1 seed"
    name = scenes[AS_IT_IS].scene.name
    title = f"{name} as other sensors would see it: {rows[0]['split']['kind']} split, {number}"
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    save_figure(sensors_figure(accuracies, bands, title=title), stem)
    print(f"figure       {stem}.png")


def _show_evidence(content: dict[str, Any], folder: Path) -> None:
    """Prints accuracy, stability, curves and the verdict."""
    overall = [run["overall_accuracy"] for run in content["runs"]]
    print(f"{len(overall)} trainings, overall accuracy {mean(overall):.4f} ({min(overall):.4f} to {max(overall):.4f})")
    for name in ("single", "reported", "untrained"):
        if index := content["stability"].get(name):
            profiles = f"{index['profiles']} profiles of {index['members']} runs"
            interval = f"{index['index']:.2f} ({index['lower']:.2f} to {index['upper']:.2f})"
            print(f"stability, {name:<17} {interval}, {profiles}")
    for direction, fill in product(("deletion", "insertion"), ("mean", "conditional")):
        curve = content["faithfulness"][direction][fill]
        random = f"random orders {mean(curve['random_areas']):.3f}"
        print(f"{direction}, {fill:<17} area {curve['area']:.3f}, {random}, p = {curve['p']:.3f}")
    print(f"verdict      {content['verdict']['word']}")
    for sentence in content["verdict"]["sentences"]:
        print(f"             {sentence}")
    print(f"evidence     {folder / 'evidence.json'}")
