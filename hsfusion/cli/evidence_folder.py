"""What ``hsfusion benchmark evidence`` asks of its words and of its folder."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from hsfusion.errors import EnvironmentFailure, InputError

_CLASSIFIERS = ("svm", "network")
# what does not change a number: classifiers can be added later
_FREE = ("folder", "jobs", "progress", "retrain")
# names of what is not complete yet: of train_run, and of write_json and claim
_PARTIAL_RUN = re.compile(r"\.seed-\d+(-resample-\d+)?-[a-z0-9_]{8}")
_PARTIAL_FILE = re.compile(r"\.(config|[\w-]+\.json)\.\d+")


def check(cfg: DictConfig) -> None:
    """Refuses words that do not fit, before anything is opened or written.

    Raises:
        InputError: naming the first.
    """
    for key in ("seed", "run_dir", "resume"):
        if cfg[key]:
            raise InputError(
                "command line", field=key, value=cfg[key], expected="nothing in a benchmark", fix="use seeds=N"
            )
    if not isinstance(cfg.top_k, ListConfig) or not all(type(k) is int for k in cfg.top_k):
        raise InputError(
            "command line", field="top_k", value=cfg.top_k, expected="a list of numbers", fix="top_k=[5,10,20]"
        )
    if list(cfg.top_k) != sorted(set(cfg.top_k)):
        raise InputError(
            "command line", field="top_k", value=cfg.top_k, expected="rising numbers", fix="top_k=[5,10,20]"
        )
    if not isinstance(cfg.retrain, ListConfig) or not set(cfg.retrain) <= set(_CLASSIFIERS):
        raise InputError(
            "command line", field="retrain", value=cfg.retrain, expected="a list of svm, network", fix="retrain=[svm]"
        )
    if cfg.trainer.devices != 1:
        raise InputError(
            "command line", field="trainer.devices", value=cfg.trainer.devices, expected="1", fix="use jobs=N"
        )


def settings_of(cfg: DictConfig) -> str:
    """All of the configuration that a number depends on, resolved, as YAML."""
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    return OmegaConf.to_yaml(OmegaConf.create({key: value for key, value in values.items() if key not in _FREE}))


def claim(folder: Path, settings: str) -> None:
    """Makes the folder this configuration's own, or goes on with it.

    Raises:
        InputError: if it holds something else.
        EnvironmentFailure: if it cannot be made.
    """
    file = folder / "config.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            if any(folder.iterdir()):
                raise InputError(
                    folder, field="folder", value="not empty", expected="a new or empty folder", fix="name another"
                )
            partial = folder / f".config.{os.getpid()}"
            partial.write_text(settings, encoding="utf-8")
            partial.replace(file)
        there = file.read_text(encoding="utf-8")
    except OSError as error:
        raise EnvironmentFailure(f"{folder}: cannot be used ({error}). Fix: choose another folder.") from error
    if there != settings:
        lines = [line for line in settings.splitlines() if line not in there.splitlines()]
        raise InputError(
            file,
            field="configuration",
            value="another one",
            expected=f"that of this command ({', '.join(map(str.strip, lines[:3])) or 'with fewer keys'})",
            fix="give the same words as before, or another folder",
        )


def sweep(folder: Path) -> None:
    """Removes what processes that were killed left half done, where and as these name it; nothing else."""
    for place in (".", "runs", "faithfulness", "top_k/*", "top_k/*/members"):
        for path in folder.glob(f"{place}/.*"):
            if path.is_dir() and _PARTIAL_RUN.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_file() and _PARTIAL_FILE.fullmatch(path.name):
                path.unlink(missing_ok=True)


def processes(cfg: DictConfig) -> int:
    """How many jobs run at once, unless the words say so: one on each core, or one on a GPU."""
    import torch

    if cfg.jobs is not None:
        return int(cfg.jobs)
    on_gpu = cfg.trainer.accelerator not in ("cpu", "auto") or (
        cfg.trainer.accelerator == "auto" and torch.cuda.is_available()
    )
    if on_gpu:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # Linux only
