"""``hsfusion benchmark finetune``: what a pretrained network is worth on a new scene."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf

from hsfusion.cli.benchmark_accuracy import row_of, show, summary_of, write_results
from hsfusion.cli.finetune import check_words
from hsfusion.errors import InputError
from hsfusion.scenes.legend import is_named


def measure(cfg: DictConfig) -> None:
    """Fine-tunes and trains from scratch on the same pixels, for each number of labels and seed; prints a table."""
    _check(cfg)
    seeds = range(cfg.first_seed, cfg.first_seed + cfg.seeds)
    for seed in seeds:
        _check_split(cfg, seed)
    write_results(cfg, [])
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        pretrained = _pretrained(cfg, seed)
        tasks = [partial(_not_trained, cfg, seed, pretrained)]
        tasks += [partial(_trained, cfg, seed, pretrained, number=number) for number in cfg.labels]
        for task in tasks:
            for row in task():
                rows.append(row)
                show(row)
            write_results(cfg, rows)
    for name, values in summary_of(rows).items():
        steps = [row["step_as_good"] for row in rows if row["method"] == name and "step_as_good" in row]
        told = f", as good as scratch after {_median(steps)} steps" if steps else ""
        accuracies = [
            f"{metric} {values[key]['mean']:.4f}" + (f" ± {values[key]['std']:.4f}" if cfg.seeds > 1 else "")
            for metric, key in (("overall accuracy", "overall_accuracy"), ("average", "average_accuracy"))
        ]
        print(f"{name:<24} {', '.join(accuracies)}{told}")


def _check(cfg: DictConfig) -> None:
    if not isinstance(cfg.labels, ListConfig) or not all(
        k is None or (type(k) is int and k > 0 and list(cfg.labels).count(k) == 1) for k in cfg.labels
    ):
        raise InputError(
            "command line",
            field="labels",
            value=cfg.labels,
            expected="a list of numbers of labels per class, each once, null for all",
            fix="labels=[5,10,20,null]",
        )
    missing = [key for key in ("per_class", "val_per_class") if key not in cfg.split]
    if missing and any(cfg.labels):
        raise InputError(
            "command line",
            field="labels",
            value=list(cfg.labels),
            expected=f"[null], all of the labels: this split has no {' and no '.join(missing)}",
            fix="use split=blocks, or labels=[null]",
        )
    check_words(cfg)
    if cfg.trainer.devices not in (1, "1", "auto"):
        raise InputError(
            "command line", field="trainer.devices", value=cfg.trainer.devices, expected="1", fix="use one device"
        )
    for key in ("seed", "run_dir", "resume"):
        if cfg[key]:
            raise InputError(
                "command line", field=key, value=cfg[key], expected="nothing in a benchmark", fix="use seeds=N"
            )


def _check_split(cfg: DictConfig, seed: int) -> None:
    """Refuses a model that is not there or knows test pixels, before hours of training.

    Raises:
        InputError: naming the seed.
    """
    from hsfusion.cli.finetune import carried_network
    from hsfusion.cli.seen import check_not_seen
    from hsfusion.cli.session import set_up

    pretrained = _pretrained(cfg, seed)
    job = OmegaConf.merge(cfg, {"seed": seed})
    assert isinstance(job, DictConfig)
    check_not_seen(set_up(job, make=partial(carried_network, **pretrained)).split, pretrained["header"])


def _pretrained(cfg: DictConfig, seed: int) -> dict[str, Any]:
    """Network and header of the model of a seed."""
    from hsfusion.training.model_file import load_model

    path = Path(str(cfg.pretrained).replace("{seed}", str(seed)))
    network, header = load_model(path / "model.safetensors" if path.is_dir() else path)
    return {"network": network, "header": header}


def _not_trained(cfg: DictConfig, seed: int, pretrained: dict[str, Any]) -> list[dict[str, Any]]:
    """The network where it was trained, as its file says; and carried over to here, if it knows all classes.

    With the mean and standard deviation that it brings along, as by ``predict bands=resample``, and with those of the
    training pixels here, with which fine-tuning starts.
    """
    from hsfusion.cli.finetune import carried_network
    from hsfusion.cli.session import set_up, test_accuracies
    from hsfusion.inference import predict_scene

    header = pretrained["header"]
    rows = []
    if "test" in header and "split" in header:
        rows.append(row_of("where it was trained", seed, header["test"], header["split"], 0.0))
    job = OmegaConf.merge(cfg, {"seed": seed})
    assert isinstance(job, DictConfig)
    make = partial(carried_network, **pretrained)
    experiment = set_up(job, make=make)
    labelled = experiment.split.labelled
    known = {name.strip() for name in header["classes"]["names"] if is_named(name)}
    if set(labelled.legend.names) <= known:
        as_it_is = make(job, labelled.scene, labelled.legend.names).network
        for method, network in (("carried over", as_it_is), ("carried over, rescaled", experiment.network)):
            metrics = test_accuracies(experiment.split, predict_scene(network, labelled.scene)[0])[1]
            rows.append(row_of(method, seed, metrics["test"], metrics["split"], 0.0))
    return rows


def _trained(cfg: DictConfig, seed: int, pretrained: dict[str, Any], *, number: int | None) -> list[dict[str, Any]]:
    """A network fine-tuned, and one from scratch on the same pixels."""
    from hsfusion.cli.finetune import carried_network, first_step_as_good, scratch_configuration
    from hsfusion.cli.session import begin, fit, set_up

    # who has few labels has few to choose an epoch by, too
    few = {} if number is None else {"split": {"per_class": number, "val_per_class": number}}
    job = OmegaConf.merge(cfg, {"seed": seed, **few})
    assert isinstance(job, DictConfig)
    experiment = set_up(job, make=partial(carried_network, **pretrained))
    scratch_job = scratch_configuration(job, pretrained["header"])
    with tempfile.TemporaryDirectory() as folder:
        tuned = fit(job, experiment, Path(folder, "tuned"))
        scratch = fit(scratch_job, begin(scratch_job, experiment.split), Path(folder, "scratch"))
    assert tuned is not None
    assert scratch is not None, "a benchmark runs in one process"
    label = "all labels" if number is None else f"{number} labels"
    rows = []
    for method, outcome in (("fine-tuned", tuned), ("scratch", scratch)):
        metrics, seconds = outcome.metrics, outcome.metrics["timing"]["train_seconds"]
        rows.append(row_of(f"{method}, {label}", seed, metrics["test"], metrics["split"], seconds))
        reached = scratch.val_accuracy
        if reached is not None:
            rows[-1]["step_as_good"] = first_step_as_good(outcome.history, reached)
    return rows


def _median(steps: list[int | None]) -> str:
    return f"{np.median([np.inf if step is None else step for step in steps]):.0f}"
