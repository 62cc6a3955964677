"""``hsfusion evidence``, and ``hsfusion benchmark``: comparisons of methods, and speed."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.app import command_again, plain, run_app, words_again
from hsfusion.cli.main import COMMAND, shown
from hsfusion.cli.words import CONF, hydra_words
from hsfusion.errors import InputError

# keys of benchmark accuracy that change no number of a row
_FREE = ("rows", "seeds", "first_seed", "json", "suite_folder", "progress", "sweep_dir")


def accuracy(cfg: DictConfig) -> None:
    """Trains each kind of fusion and the baselines with every seed, on one scene or a suite; prints a table."""
    from hsfusion.benchmarks import comparisons
    from hsfusion.cli.commands import scene_of, settings_of, show_warnings

    lists = {key: _listed(cfg, key) for key in ("fusions", "keep_bands")}
    seeds, suite, fixed = _seeds(cfg), None if cfg.scenes is None else _suite(cfg), plain(cfg)
    for key in _FREE if suite is None else {*_FREE, "scene", "split", "name"}:
        del fixed[key]
    entries = [{"name": str(cfg.name)}] if suite is None else suite
    fixed["suite"] = suite
    earlier = _earlier_rows(cfg, fixed)

    def measured() -> Iterator[dict[str, Any]]:
        for entry in _chosen_rows(cfg, entries):
            done = {(row["method"], row["seed"]) for row in earlier if row["scene"] == entry["name"]}
            of = cfg if suite is None else _row_config(cfg, entry["words"])
            for row in comparisons.compare_fusions(scene_of(of), settings_of(of), seeds=seeds, done=done, **lists):
                yield {"scene": entry["name"], **row, "commit": comparisons.commit()}

    show_warnings()
    rows = _collect(cfg, measured(), summarise=comparisons.summarise_scenes, configuration=fixed, earlier=earlier)
    print("\n".join(comparisons.table(comparisons.with_baselines(rows) if suite is None else rows)))


def _suite(cfg: DictConfig) -> list[dict[str, Any]]:
    """The rows of a suite."""
    words = HydraConfig.get().overrides.task
    if given := [word for word in words if word.lstrip("+~").startswith(("scene=", "scene.", "split"))]:
        _refuse("scene and split", ", ".join(given), "nothing: the rows of the suite set them")
    path = CONF / "suite.yaml" if cfg.scenes == "suite" else Path(str(cfg.scenes))
    if not path.is_file():
        _refuse("scenes", cfg.scenes, "suite, or a YAML file like conf/suite.yaml")
    return plain(OmegaConf.load(path))


def _chosen_rows(cfg: DictConfig, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The requested rows whose files exist; the others are named in one line."""
    names = [entry["name"] for entry in entries]
    wanted = names if cfg.rows is None else _listed(cfg, "rows")
    if not set(wanted) <= set(names):
        _refuse("rows", wanted, f"a list of {', '.join(names)}")
    chosen, missing = [], []
    for entry in entries:
        if entry["name"] in wanted:
            paths = [word.partition("=")[2] for word in entry.get("words", ()) if "{folder}" in word]
            known = cfg.suite_folder is not None or not paths
            exists = known and all(Path(path.replace("{folder}", str(cfg.suite_folder))).exists() for path in paths)
            (chosen if exists else missing).append(entry)
    if missing:
        print(f"skipped, no files in suite_folder={cfg.suite_folder}: {', '.join(entry['name'] for entry in missing)}")
    return chosen


def _row_config(cfg: DictConfig, words: list[str]) -> DictConfig:
    """The configuration with scene and split of a row of the suite."""
    words = [word.replace("{folder}", str(cfg.suite_folder)) for word in words]
    row = compose("train", overrides=hydra_words(words, "train"))
    changed = cfg.copy()
    OmegaConf.set_struct(changed, False)
    changed.scene, changed.split = row.scene, row.split
    return changed


def _earlier_rows(cfg: DictConfig, configuration: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that the same command left in its file."""
    if cfg.json is None or not Path(str(cfg.json)).exists():
        return []
    try:
        content = json.loads(Path(str(cfg.json)).read_text(encoding="utf-8"))
        if content["config"] == json.loads(json.dumps(configuration)):
            return content["runs"]
    except (ValueError, LookupError, TypeError):
        pass
    fix = "choose another file, or delete it"
    raise InputError(cfg.json, "content", "results of another command", "results of this command, to continue", fix)


def sensors(cfg: DictConfig) -> None:
    """Trains the network on the scene as it is and as each sensor would see it; prints a table."""
    from hsfusion.benchmarks.comparisons import compare_sensors, sensor_scenes, summarise, table
    from hsfusion.cli.commands import scene_of, settings_of
    from hsfusion.spectra.sensors import sensor_name

    named = _listed(cfg, "sensors")
    if len(set(map(sensor_name, named))) < len(named):
        _refuse("sensors", named, "each name once")
    seeds, settings = _seeds(cfg), settings_of(cfg)
    scenes = sensor_scenes(scene_of(cfg), settings, named)
    rows = _collect(cfg, compare_sensors(scenes, settings, seeds=seeds), summarise=summarise, configuration=plain(cfg))
    print("\n".join(table(rows)))


def finetune(cfg: DictConfig) -> None:
    """Fine-tunes and trains from scratch on the same pixels, for each number of labels and seed; prints a table."""
    from hsfusion.benchmarks.comparisons import compare_finetuning, pretrained_models, summarise, table
    from hsfusion.cli.commands import check_finetune_words, scene_of, settings_of

    labels = _listed(cfg, "labels")
    if any(labels) and "per_class" not in cfg.split:
        _refuse("labels", labels, "[null], all of the labels: this split has no per_class")
    check_finetune_words(cfg)
    seeds, scene, settings = _seeds(cfg), scene_of(cfg), settings_of(cfg)
    models = pretrained_models(scene, settings, str(cfg.pretrained), seeds)
    rows = compare_finetuning(scene, settings, models=models, labels=labels, scratch_epochs=cfg.scratch_epochs)
    print("\n".join(table(_collect(cfg, rows, summarise=summarise, configuration=plain(cfg)))))


def evidence(cfg: DictConfig) -> None:
    """Fills a folder with trainings and evidence.json; continues an earlier call with the same arguments."""
    from hydra.utils import instantiate

    from hsfusion.cli.commands import scene_of, settings_of, values_of
    from hsfusion.evidence.jobs import EvidenceSettings
    from hsfusion.evidence.stages import gather_evidence

    _seeds(cfg)
    plan = EvidenceSettings(**values_of(EvidenceSettings, cfg) | {"random_split": instantiate(cfg.random_split)})
    free = ("folder", "jobs", "worker", "progress", "retrain", "sweep_dir")  # changes no number, or adds to them
    values = {key: cfg[key] for key in cfg if key not in free}
    verdict = gather_evidence(
        scene_of(cfg),
        str(cfg.folder),
        settings=settings_of(cfg),
        plan=plan,
        command=command_again("evidence"),
        configuration=OmegaConf.to_yaml(OmegaConf.create(values), resolve=True),
    )["verdict"]
    print(f"verdict: {verdict['word']}", *verdict["sentences"], sep="\n  ")
    print(f"stability, windows and figures: {shown('hsfusion', 'weights', str(cfg.folder))}")


def speed(cfg: DictConfig, kind: str) -> None:
    """Runs a benchmark of speed with the keys of the configuration; prints its table, writes JSON."""
    from hsfusion.benchmarks.comparisons import circumstances
    from hsfusion.benchmarks.training_speed import SPEEDS
    from hsfusion.cli.commands import scene_of, settings_of, values_of
    from hsfusion.runs.folder import write_json

    benchmark = SPEEDS[kind](**values_of(SPEEDS[kind], cfg))
    if kind == "train":
        _seeds(cfg)
    result = benchmark.measure(*((scene_of(cfg), settings_of(cfg)) if kind == "train" else ()))
    print("\n".join(benchmark.table(result)))
    if cfg.json is not None:
        write_json(Path(str(cfg.json)), circumstances(command_again(f"benchmark {kind}"), plain(cfg)) | result)


KINDS = {
    "accuracy": (accuracy, "networks and baselines on the same pixels, over several seeds or a suite"),
    "sensors": (sensors, "networks on a scene as other sensors would see it: would Sentinel-2 be enough?"),
    "finetune": (finetune, "fine-tuning against training from scratch, on the same few labels"),
    "train": (speed, "samples per second of train, a bare loop, and a loop with a Dataset of single patches"),
    "read": (speed, "time to read a cube, against a raw read of its bytes, rasterio and spectral"),
    "predict": (speed, "pixels per second of predict, a loop over patches, and the bare network"),
    "fusion": (speed, "speed and memory of WeightedSum against the plain expression"),
}


def command() -> None:
    """Entry point of both commands; the first argument of a benchmark is what to measure."""
    if os.environ[COMMAND] == "evidence":
        run_app(evidence, "evidence")
        return
    kind = next((word for word in sys.argv[1:2] if "=" not in word and not word.startswith("-")), None)
    if kind is None and {"-h", "--help"} & set(sys.argv[1:]):
        kinds = (f"  {name:<10}{text}" for name, (_, text) in KINDS.items())
        print("hsfusion benchmark KIND [key=value ...]\n", *kinds, "\nKeys: hsfusion benchmark KIND --help", sep="\n")
        return
    if kind not in KINDS:
        fix = f"hsfusion benchmark {(*difflib.get_close_matches(kind or '', KINDS, 1), 'accuracy')[0]}"
        raise InputError("command line", "benchmark", kind, " | ".join(KINDS), fix)
    del sys.argv[1]
    task = KINDS[kind][0]
    run_app(partial(speed, kind=kind) if task is speed else task, f"benchmark_{kind}")


def _collect(
    cfg: DictConfig,
    measured: Iterable[dict[str, Any]],
    *,
    summarise: Callable[[list[dict[str, Any]]], dict[str, Any]],
    configuration: dict[str, Any],
    earlier: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Prints each row, and rewrites the file with all rows so far; an unwritable file fails before anything runs."""
    from hsfusion.benchmarks.comparisons import document
    from hsfusion.runs.folder import write_json

    words = words_again(str(HydraConfig.get().job.config_name).replace("_", " "))
    # without the folders of this machine
    named = [word.partition("=")[::2] if word.startswith(("json=", "suite_folder=")) else (word, "") for word in words]
    command = shown(*(f"{key}={Path(path).name}" if path else key for key, path in named))
    rows = list(earlier)
    for row in chain([None], measured):
        rows += [] if row is None else [row]
        if cfg.json is not None:
            content = document(rows, summary=summarise(rows), command=command, configuration=configuration)
            write_json(Path(str(cfg.json)), content)
        if row is not None:
            text = f"overall accuracy {row['overall_accuracy']:.4f}, {row['seconds']:.0f} s"
            print(f"{row.get('scene', '')} seed {row['seed']} {row['method']:<18} {text}".lstrip(), flush=True)
    return rows


def _seeds(cfg: DictConfig) -> range:
    from hsfusion.runs.settings import check_value

    if cfg.trainer.devices not in (1, "1", "auto"):
        _refuse("trainer.devices", cfg.trainer.devices, "1")
    for key in ("seed", "run_dir", "sweep_dir", "resume"):
        if cfg[key]:
            _refuse(key, cfg[key], "nothing in a benchmark: use seeds=N")
    check_value("seeds", cfg.get("seeds", 1), "int", lower=1)
    return range(cfg.get("first_seed", 0), cfg.get("first_seed", 0) + cfg.get("seeds", 1))


def _listed(cfg: DictConfig, key: str) -> list[Any]:
    entries = plain(cfg[key])
    if not isinstance(entries, list) or any(entries.count(entry) > 1 for entry in entries):
        _refuse(key, entries, "a list, each entry once")
    return entries


def _refuse(key: str, value: object, expected: str) -> None:
    raise InputError("command line", key, value, expected, f"correct {key}")
