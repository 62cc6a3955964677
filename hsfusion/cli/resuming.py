"""Going on with an interrupted run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from hsfusion.errors import InputError

# what may differ: nothing of it changes what the run computes
_FREE = ("resume", "run_dir", "name", "progress", "threads", "logger", "trainer.accelerator", "trainer.devices")


def checkpoint_of(cfg: DictConfig) -> Path | None:
    """The checkpoint that ``resume`` names; None where it names nothing.

    Raises:
        InputError: if there is none, it is damaged, or the run had another configuration.
    """
    if cfg.resume is None:
        return None
    run = Path(str(cfg.resume))
    path = run / "checkpoints" / "last.ckpt"
    for file in (path, run / "config.yaml"):
        if not file.is_file():
            raise InputError(
                run, field=str(file.relative_to(run)), value="missing", expected="a run folder", fix="correct resume"
            )
    before, now = _settings(OmegaConf.load(run / "config.yaml")), _settings(cfg)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise InputError(
                "command line",
                field=key,
                value=now.get(key),
                expected=f"{before.get(key)} as in {run}",
                fix=f"resume with {key}={before.get(key)}, or start a new run",
            )
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise InputError(
            path, field="content", value="unreadable", expected="a whole checkpoint", fix="start a new run"
        ) from error
    return path


def _settings(cfg: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), child)
        elif not any(prefix == key or prefix.startswith(f"{key}.") for key in _FREE):
            flat[prefix] = value

    walk("", OmegaConf.to_container(cfg, resolve=True))
    return flat
