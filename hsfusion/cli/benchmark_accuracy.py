"""``hsfusion benchmark accuracy``."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from hsfusion.errors import InputError

_METRICS = ("overall_accuracy", "average_accuracy", "kappa", "mean_iou")


def measure(cfg: DictConfig) -> None:
    """Trains each kind of fusion and each baseline on the same pixels with every seed; prints a table, writes JSON."""
    _check(cfg)
    rows: list[dict[str, Any]] = []
    for seed in range(cfg.first_seed, cfg.first_seed + cfg.seeds):
        for fusion, keep in itertools.product(cfg.fusions, cfg.keep_bands):
            job = OmegaConf.merge(cfg, {"seed": seed, "model": {"fusion": fusion, "keep_bands": keep}})
            assert isinstance(job, DictConfig)
            rows.append(_network_row(job))
            show(rows[-1])
        for name in cfg.baselines:
            rows.append(_baseline_row(cfg, name, seed))
            show(rows[-1])
        write_results(cfg, rows)
    summary = summary_of(rows)
    for name, values in summary.items():
        print(
            f"{name:<18} overall accuracy {values['overall_accuracy']['mean']:.4f} ± "
            f"{values['overall_accuracy']['std']:.4f}, average {values['average_accuracy']['mean']:.4f} ± "
            f"{values['average_accuracy']['std']:.4f}, {values['bands']}leakage {values['leakage']:.3f}, "
            f"{values['seconds']:.0f} s"
        )


def _check(cfg: DictConfig) -> None:
    from hsfusion.training.building import FUSIONS

    known = {"fusions": FUSIONS, "baselines": ("svm", "forest")}
    for key, names in known.items():
        if not isinstance(cfg[key], ListConfig) or not set(cfg[key]) <= set(names):
            raise InputError(
                "command line",
                field=key,
                value=cfg[key],
                expected=f"a list of {', '.join(names)}",
                fix=f"{key}=[{names[0]}]",
            )
    if not isinstance(cfg.keep_bands, ListConfig) or not all(k is None or isinstance(k, int) for k in cfg.keep_bands):
        raise InputError(
            "command line",
            field="keep_bands",
            value=cfg.keep_bands,
            expected="a list of numbers of bands, null for all that are worth their cost",
            fix="keep_bands=[null,20]",
        )
    if "free" in cfg.fusions and any(k is not None for k in cfg.keep_bands):
        raise InputError(
            "command line",
            field="fusions",
            value=cfg.fusions,
            expected="no free convolution together with keep_bands: it has no gates",
            fix="measure it in a run of its own",
        )
    for key in ("seed", "run_dir", "resume"):
        if cfg[key]:
            raise InputError(
                "command line", field=key, value=cfg[key], expected="nothing in a benchmark", fix="use seeds=N"
            )
    write_results(cfg, [])


def write_results(cfg: DictConfig, rows: list[dict[str, Any]]) -> None:
    """Writes what there is so far, so that a long benchmark that is cut short loses nothing."""
    if cfg.json is None:
        return
    from hsfusion.cli.outputs import versions

    result = {"config": OmegaConf.to_container(cfg, resolve=True), "versions": versions(), "summary": summary_of(rows)}
    Path(str(cfg.json)).write_text(json.dumps({**result, "runs": rows}, indent=2) + "\n", encoding="utf-8")


def _network_row(cfg: DictConfig) -> dict[str, Any]:
    from hsfusion.cli.session import fit, set_up

    with tempfile.TemporaryDirectory() as folder:
        outcome = fit(cfg, set_up(cfg), Path(folder))
    assert outcome is not None
    metrics, keep = outcome.metrics, cfg.model.keep_bands
    name = cfg.model.fusion if keep is None else f"{cfg.model.fusion}, {keep} bands"
    row = row_of(name, cfg.seed, metrics["test"], metrics["split"], metrics["timing"]["train_seconds"])
    return {**row, "bands": int((outcome.weights.weight > 0).sum())}


def _baseline_row(cfg: DictConfig, name: str, seed: int) -> dict[str, Any]:
    import time

    from hsfusion.cli.session import set_up, test_accuracies
    from hsfusion.data.datamodule import prepare
    from hsfusion.data.splits import TEST, TRAIN, VAL
    from hsfusion.trust.baselines import forest_predictions, svm_predictions

    job = OmegaConf.merge(cfg, {"seed": seed})
    assert isinstance(job, DictConfig)
    experiment = set_up(job)
    split = experiment.split
    cube = prepare(split, experiment.network.used_bands.numpy())
    classes = cube.classes.numpy()
    train, val = ((cube.spectra(split.pixels(role)), classes[split.pixels(role)]) for role in (TRAIN, VAL))
    test = cube.spectra(split.pixels(TEST))
    start = time.perf_counter()
    if name == "svm":
        predicted = svm_predictions(train, val, test, seed=seed)
    else:
        predicted = forest_predictions(train, test, seed=seed)
    seconds = time.perf_counter() - start
    whole = classes.copy()
    whole[split.pixels(TEST)] = predicted
    metrics = test_accuracies(split, whole.reshape(split.roles.shape))[1]
    return row_of(name, seed, metrics["test"], metrics["split"], seconds)


def row_of(method: str, seed: int, test: dict[str, Any], split: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One method with one seed, as plain values."""
    return {"method": method, "seed": seed, **{key: test[key] for key in _METRICS}, "split": split, "seconds": seconds}


def show(row: dict[str, Any]) -> None:
    """Prints a row when it is there."""
    print(
        f"seed {row['seed']} {row['method']:<18} overall accuracy {row['overall_accuracy']:.4f}, "
        f"{row['seconds']:.0f} s",
        flush=True,
    )


def summary_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over the seeds."""
    from statistics import mean, stdev

    summary = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        spread = {}
        for key in _METRICS:
            values = [row[key] for row in mine]
            spread[key] = {"mean": mean(values), "std": stdev(values) if len(values) > 1 else 0.0}
        leakage = mean(row["split"]["leakage"] for row in mine)
        bands = [row["bands"] for row in mine if "bands" in row]
        spread["bands"] = f"{min(bands)}-{max(bands)} bands, " if bands else ""
        summary[method] = {**spread, "leakage": leakage, "seconds": mean(row["seconds"] for row in mine)}
    return summary
