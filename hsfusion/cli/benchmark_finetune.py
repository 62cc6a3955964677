"""``hsfusion benchmark finetune``: what a pretrained network is worth on a new scene."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from hsfusion.cli.benchmark_accuracy import row_of, show, summary_of, write_results
from hsfusion.errors import InputError


def measure(cfg: DictConfig) -> None:
    """Fine-tunes and trains from scratch on the same pixels, for each number of labels and seed; prints a table."""
    _check(cfg)
    write_results(cfg, [])
    rows: list[dict[str, Any]] = []
    for seed in range(cfg.first_seed, cfg.first_seed + cfg.seeds):
        for number in cfg.labels:
            for row in _rows(cfg, seed, number):
                rows.append(row)
                show(row)
            write_results(cfg, rows)
    for name, values in summary_of(rows).items():
        steps = [row["step_as_good"] for row in rows if row["method"] == name and "step_as_good" in row]
        told = f", as good as scratch after {_median(steps)} steps" if steps else ""
        print(
            f"{name:<24} overall accuracy {values['overall_accuracy']['mean']:.4f} ± "
            f"{values['overall_accuracy']['std']:.4f}, average {values['average_accuracy']['mean']:.4f} ± "
            f"{values['average_accuracy']['std']:.4f}{told}"
        )


def _check(cfg: DictConfig) -> None:
    if not isinstance(cfg.labels, ListConfig) or not all(
        k is None or (isinstance(k, int) and k > 0) for k in cfg.labels
    ):
        raise InputError(
            "command line",
            field="labels",
            value=cfg.labels,
            expected="a list of numbers of labels per class, null for all",
            fix="labels=[5,10,20,null]",
        )
    for key in ("seed", "run_dir", "resume"):
        if cfg[key]:
            raise InputError(
                "command line", field=key, value=cfg[key], expected="nothing in a benchmark", fix="use seeds=N"
            )


def _rows(cfg: DictConfig, seed: int, number: int | None) -> list[dict[str, Any]]:
    """One row for the network as it was carried over, where it knows all classes, one fine-tuned, one from scratch."""
    from hsfusion.cli.finetune import carried_network, first_step_as_good, kept_accuracy, scratch_configuration
    from hsfusion.cli.session import begin, fit, set_up
    from hsfusion.training.model_file import load_model

    job = OmegaConf.merge(cfg, {"seed": seed, "split": {"per_class": number}})
    assert isinstance(job, DictConfig)
    path = Path(str(cfg.pretrained).replace("{seed}", str(seed)))
    network, header = load_model(path / "model.safetensors" if path.is_dir() else path)
    make = partial(carried_network, network=network, header=header)
    experiment = set_up(job, make=make)
    label = "all labels" if number is None else f"{number} labels"
    rows = []
    names = experiment.split.labelled.legend.names
    if set(names) <= {name.strip() for name in header["classes"]["names"]}:
        metrics = _as_it_is(job, make, experiment)
        rows.append(row_of("not trained", seed, metrics["test"], metrics["split"], 0.0))
    with tempfile.TemporaryDirectory() as folder:
        tuned = fit(job, experiment, Path(folder))
    scratch_job = scratch_configuration(job, header)
    with tempfile.TemporaryDirectory() as folder:
        scratch = fit(scratch_job, begin(scratch_job, experiment.split), Path(folder))
    assert tuned is not None
    assert scratch is not None, "a benchmark runs in one process"
    for method, outcome in (("fine-tuned", tuned), ("scratch", scratch)):
        metrics = outcome.metrics
        seconds = metrics["timing"]["train_seconds"]
        rows.append(row_of(f"{method}, {label}", seed, metrics["test"], metrics["split"], seconds))
    reached = kept_accuracy(scratch)
    if reached is not None:
        rows[-2]["step_as_good"] = first_step_as_good(tuned.history, reached)
        rows[-1]["step_as_good"] = first_step_as_good(scratch.history, reached)
    return rows


def _as_it_is(cfg: DictConfig, make: Any, experiment: Any) -> dict[str, Any]:
    """Accuracies of the network with the standardisation that it brought along, not trained on this scene at all."""
    from hsfusion.cli.session import test_accuracies
    from hsfusion.inference import predict_scene

    labelled = experiment.split.labelled
    torch.manual_seed(cfg.seed)
    start = make(cfg, labelled.scene, labelled.legend.names)
    classes, _ = predict_scene(start.network, labelled.scene)
    return test_accuracies(experiment.split, classes)[1]


def _median(steps: list[int | None]) -> str:
    return f"{np.median([np.inf if step is None else step for step in steps]):.0f}"
