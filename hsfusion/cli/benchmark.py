"""``hsfusion benchmark``: methods beside each other, evidence on band weights, and speed."""

from __future__ import annotations

import difflib
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.hydra_app import run_app
from hsfusion.errors import InputError


def accuracy(cfg: DictConfig) -> None:
    """Trains each kind of fusion and each baseline on the same pixels with every seed; prints a table, writes JSON."""
    from hsfusion.benchmarks.comparisons import BASELINES, compare_fusions, summarise
    from hsfusion.cli.experiment import scene_of, settings_of
    from hsfusion.training.building import FUSIONS

    _check_lists(cfg, {"fusions": FUSIONS, "baselines": BASELINES})
    _check_numbers(cfg, "keep_bands", "a list of numbers of bands, null for all that are worth their cost")
    if "free" in cfg.fusions and any(k is not None for k in cfg.keep_bands):
        _refuse("fusions", list(cfg.fusions), "no free convolution together with keep_bands: it has no gates")
    seeds = _seeds(cfg)
    rows = compare_fusions(
        scene_of(cfg),
        settings_of(cfg),
        seeds=seeds,
        fusions=list(cfg.fusions),
        keep_bands=list(cfg.keep_bands),
        baselines=list(cfg.baselines),
    )
    for name, values in summarise(_collected(cfg, rows)).items():
        print(
            f"{name:<18} overall accuracy {_spread(values, 'overall_accuracy', seeds)}, average "
            f"{_spread(values, 'average_accuracy', seeds)}, {values['bands']}leakage {values['leakage']:.3f}, "
            f"{values['seconds']:.0f} s"
        )


def sensors(cfg: DictConfig) -> None:
    """Trains the network on the scene as it is and as each sensor would see it; prints a table, writes JSON, a figure.

    Every seed has the same training and test pixels for all sensors.
    """
    from hsfusion.benchmarks.comparisons import compare_sensors, sensor_scenes, summarise
    from hsfusion.cli.experiment import scene_of, settings_of
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
    rows = _collected(cfg, compare_sensors(scenes, settings, seeds=seeds))
    for name, values in summarise(rows).items():
        print(
            f"{name:<18} {len(scenes[name].scene.bands):>4} bands, overall accuracy "
            f"{_spread(values, 'overall_accuracy', seeds)}, average {_spread(values, 'average_accuracy', seeds)}, "
            f"{values['seconds']:.0f} s"
        )
    if cfg.figure is not None:
        _draw_sensors(Path(cfg.figure), rows, scenes, seeds=len(seeds))


def finetune(cfg: DictConfig) -> None:
    """Fine-tunes and trains from scratch on the same pixels, for each number of labels and seed; prints a table."""
    from hsfusion.benchmarks.comparisons import compare_finetuning, median_step, pretrained_models, summarise
    from hsfusion.cli.experiment import scene_of, settings_of
    from hsfusion.cli.finetune import check_words

    _check_numbers(cfg, "labels", "a list of numbers of labels per class, each once, null for all")
    missing = [key for key in ("per_class", "val_per_class") if key not in cfg.split]
    if missing and any(cfg.labels):
        _refuse("labels", list(cfg.labels), f"[null], all of the labels: this split has no {' and no '.join(missing)}")
    check_words(cfg)
    if cfg.trainer.devices not in (1, "1", "auto"):
        _refuse("trainer.devices", cfg.trainer.devices, "1")
    seeds, scene, settings = _seeds(cfg), scene_of(cfg), settings_of(cfg)
    models = pretrained_models(scene, settings, str(cfg.pretrained), seeds)
    rows = compare_finetuning(
        scene, settings, models=models, labels=list(cfg.labels), scratch_epochs=cfg.scratch_epochs
    )
    rows = _collected(cfg, rows)
    for name, values in summarise(rows).items():
        of_method = [row for row in rows if row["method"] == name and "step_as_good" in row]
        steps = f", as good as scratch after {median_step(of_method)} steps" if of_method else ""
        print(
            f"{name:<24} overall accuracy {_spread(values, 'overall_accuracy', seeds)}, average "
            f"{_spread(values, 'average_accuracy', seeds)}{steps}"
        )


def evidence(cfg: DictConfig) -> None:
    """Fills a folder with trainings and evidence.json; continues where an earlier run with the same words stopped."""
    from hydra.utils import instantiate

    from hsfusion.cli.checking import command_again
    from hsfusion.cli.experiment import scene_of, settings_of
    from hsfusion.evidence import EvidenceSettings, gather_evidence

    _seeds(cfg)
    if cfg.trainer.devices != 1:
        _refuse("trainer.devices", cfg.trainer.devices, "1; jobs=N for several processes")
    for key in ("top_k", "retrain"):
        if not OmegaConf.is_list(cfg[key]):
            _refuse(key, cfg[key], "a list")
    keys = (
        *("resamples", "resample_share", "seeds", "first_seed", "split_seed", "jobs", "faithfulness_pixels"),
        *("retrain_epochs", "top_k_seeds", "top_k_members"),
    )
    plan = EvidenceSettings(
        **{key: cfg[key] for key in keys},
        top_k=tuple(cfg.top_k),
        retrain=tuple(cfg.retrain),
        random_split=instantiate(cfg.random_split),
    )
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


def read(cfg: DictConfig) -> None:
    """Times reading a cube tile by tile, in turns with a raw read of its bytes."""
    from hsfusion.benchmarks import reading

    _measure(cfg, reading, reading.ReadBenchmark)


def predict(cfg: DictConfig) -> None:
    """Times predict in turns with the bare network and a loop over patches."""
    from hsfusion.benchmarks import prediction

    _measure(cfg, prediction, prediction.PredictBenchmark)


def fusion(cfg: DictConfig) -> None:
    """Times forward and backward of each kind of weights in turns with the plain expression."""
    from hsfusion.benchmarks import fusion as benchmark

    _measure(cfg, benchmark, benchmark.FusionBenchmark)


KINDS = {
    "accuracy": (accuracy, "networks beside an SVM and a random forest on the same pixels, over several seeds"),
    "sensors": (sensors, "networks on a scene as other sensors would see it: would Sentinel-2 be enough?"),
    "finetune": (finetune, "fine-tuning beside training from scratch, on the same few labels"),
    "evidence": (evidence, "how stable and how faithful the band weights are, over seeds and resamples"),
    "read": (read, "reading a cube, beside a raw read of its bytes, rasterio and spectral"),
    "predict": (predict, "pixels per second of predict, beside a loop over patches and the bare network"),
    "fusion": (fusion, "speed and memory of WeightedSum beside the plain expression"),
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
        raise InputError(
            "command line",
            "benchmark",
            kind,
            " | ".join(KINDS),
            f"hsfusion benchmark {close[0] if close else 'accuracy'}",
        )
    del sys.argv[1]
    run_app(KINDS[kind][0], f"benchmark_{kind}")


def _measure(cfg: DictConfig, benchmark: Any, options: Any) -> None:
    """Runs a speed benchmark with the keys of the configuration; prints its table, writes JSON."""
    import torch

    if cfg.get("threads") is not None:
        torch.set_num_threads(cfg.threads)
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict), "a configuration of keys"
    names = options.__dataclass_fields__
    result = benchmark.measure(
        options(**{name: tuple(v) if isinstance(v := plain[name], list) else v for name in names})
    )
    print("\n".join(benchmark.table(result)))
    if cfg.json is not None:
        Path(str(cfg.json)).write_text(json.dumps({"config": plain, **result}, indent=2) + "\n", encoding="utf-8")


def _collected(cfg: DictConfig, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prints each row and writes all so far, as they come; a file that cannot be written fails before anything runs."""
    from hsfusion.benchmarks.comparisons import write_rows

    collected: list[dict[str, Any]] = []
    path = None if cfg.json is None else Path(str(cfg.json))
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    if path is not None:
        write_rows(path, collected, configuration=plain)
    for row in rows:
        collected.append(row)
        print(
            f"seed {row['seed']} {row['method']:<18} overall accuracy {row['overall_accuracy']:.4f}, "
            f"{row['seconds']:.0f} s",
            flush=True,
        )
        if path is not None:
            write_rows(path, collected, configuration=plain)
    return collected


def _seeds(cfg: DictConfig) -> range:
    for key in ("seed", "run_dir", "resume"):
        if cfg[key]:
            _refuse(key, cfg[key], "nothing in a benchmark: use seeds=N")
    return range(cfg.first_seed, cfg.first_seed + cfg.seeds)


def _check_lists(cfg: DictConfig, known: dict[str, Any]) -> None:
    for key, names in known.items():
        if not OmegaConf.is_list(cfg[key]) or not set(cfg[key]) <= set(names):
            _refuse(key, cfg[key], f"a list of {', '.join(names)}")


def _check_numbers(cfg: DictConfig, key: str, expected: str) -> None:
    numbers = list(cfg[key]) if OmegaConf.is_list(cfg[key]) else [0]
    if not all(k is None or (type(k) is int and k > 0 and numbers.count(k) == 1) for k in numbers):
        _refuse(key, cfg[key], expected)


def _refuse(key: str, value: object, expected: str) -> None:
    raise InputError("command line", key, value, expected, f"correct {key}")


def _spread(values: dict[str, Any], metric: str, seeds: range) -> str:
    spread = values[metric]
    return f"{spread['mean']:.4f}" + (f" ± {spread['std']:.4f}" if len(seeds) > 1 else "")


def _draw_sensors(path: Path, rows: list[dict[str, Any]], scenes: dict[str, Any], *, seeds: int) -> None:
    from hsfusion.benchmarks.comparisons import AS_IT_IS
    from hsfusion.plots import save_figure, sensors_figure
    from hsfusion.spectra.sensors import SENSORS

    labels = {name: SENSORS.get(name, name) for name in scenes}
    accuracies = {
        label: {
            metric.replace("_", " "): [row[metric] for row in rows if row["method"] == name]
            for metric in ("overall_accuracy", "average_accuracy")
        }
        for name, label in labels.items()
    }
    bands = {}
    for name, label in labels.items():
        of_scene = scenes[name].scene.bands
        fwhm = None if of_scene.fwhm_nm is None else of_scene.fwhm_nm[of_scene.good]
        bands[label] = (of_scene.wavelength_nm[of_scene.good], fwhm)
    number = f"{seeds} seeds, ± 1 standard deviation" if seeds > 1 else "1 seed"
    name = scenes[AS_IT_IS].scene.name
    title = f"{name} as other sensors would see it: {rows[0]['split']['kind']} split, {number}"
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    save_figure(sensors_figure(accuracies, bands, title=title), stem)
    print(f"figure       {stem}.png")


def _show_evidence(content: dict[str, Any], folder: Path) -> None:
    """Prints accuracy, stability, curves, tables of choices of bands, and the verdict."""
    runs, stability = content["runs"], content["stability"]
    overall = [run["overall_accuracy"] for run in runs]
    print(f"{len(runs)} trainings, overall accuracy {np.mean(overall):.4f} ({min(overall):.4f} to {max(overall):.4f})")
    for name in ("single", "reported", "untrained"):
        if name in stability:
            index = stability[name]
            value, lower, upper = (
                "undefined" if np.isnan(index[key]) else f"{index[key]:.2f}" for key in ("index", "lower", "upper")
            )
            print(
                f"stability, {name:<17} {value} ({lower} to {upper}), "
                f"{index['profiles']} profiles of {index['members']} runs"
            )
    for direction, fill in itertools.product(("deletion", "insertion"), ("mean", "conditional")):
        curve = content["faithfulness"][direction][fill]
        print(
            f"{direction}, {fill:<17} area {curve['area']:.3f}, random orders {np.mean(curve['random_areas']):.3f}, "
            f"p = {curve['p']:.3f}"
        )
    print("\n".join(_choice_lines(content.get("top_k"))))
    print(f"verdict      {content['verdict']['word']}")
    for sentence in content["verdict"]["sentences"]:
        print(f"             {sentence}")
    print(f"evidence     {folder / 'evidence.json'}")


def _choice_lines(top_k: dict[str, Any] | None) -> list[str]:
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
