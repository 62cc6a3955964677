"""Going on with an interrupted run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from hsfusion.errors import InputError, printable
from hsfusion.nn import FusionNetwork, SeveralNetworks
from hsfusion.runs.settings import TrainSettings
from hsfusion.scenes.description import parse_configuration, read_configuration
from hsfusion.training.checked_values import Unfit
from hsfusion.training.checkpoint_file import check_fits, read_checkpoint
from hsfusion.training.classifier import FusionClassifier

# what may differ: nothing of it changes what the run computes
_FREE = ("resume", "run_dir", "name", "progress", "threads", "figures", "logger", "loggers", "trainer.accelerator")
_FREE += ("trainer.devices",)
_MOST_BYTES = 2**24  # of config.yaml; bands by the thousand are the longest that it holds


def interrupted_checkpoint(run: Path, configuration: str) -> Path:
    """The checkpoint of an interrupted run.

    Args:
        run: its folder.
        configuration: of the run that is to go on, as YAML; it must be that of the interrupted one.

    Raises:
        InputError: if there is none, it is damaged, or the run had another configuration.
    """
    path = run / "checkpoints" / "last.ckpt"
    # Lightning would take names like these for addresses on the network, or files in archives
    if "::" in str(run.absolute()):
        raise InputError(run, field="resume", value="a name with ::", expected="a run folder", fix="rename the folder")
    for file in (path, run / "config.yaml"):
        if not file.is_file():
            raise InputError(
                run, field=str(file.relative_to(run)), value="missing", expected="a run folder", fix="correct resume"
            )
    before = read_configuration(run / "config.yaml", most_bytes=_MOST_BYTES)
    now = parse_configuration(configuration)
    _check_command(run, before, now)
    _check_same(run, _leaves(before), _leaves(now))
    _read(path)
    return path.absolute()


def check_checkpoint(path: Path, settings: TrainSettings, network: FusionNetwork | SeveralNetworks) -> None:
    """Checks that a checkpoint has the form of what is to be trained, before a run folder is made.

    Raises:
        InputError: naming the part that has not.
    """
    optimizer = settings.optimizer or partial(torch.optim.AdamW, lr=1e-3)
    module = FusionClassifier(network, optimizer=optimizer, total_steps=1, seed=0)  # its form matters, not its numbers
    try:
        check_fits(_read(path), module)
    except Unfit as error:
        raise _damaged(path, error) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_checkpoint(path)
    except Unfit as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise _damaged(path, Unfit("content", f"unreadable ({error.strerror})", "a whole checkpoint")) from error


def _damaged(path: Path, error: Unfit) -> InputError:
    return InputError(path, field=error.field, value=error.value, expected=error.expected, fix="start a new run")


def _check_command(run: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    was, this = ("finetune" if "pretrained" in config else "train" for config in (before, now))
    if was != this:
        raise InputError(
            "command line",
            field="resume",
            value=f"a run of hsfusion {was}",
            expected=f"one of hsfusion {this}",
            fix=f"hsfusion {was} resume={run}, with the words that it was started with",
        )


def _check_same(run: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for key in sorted(before.keys() | now.keys()):
        was = before.get(key)
        if was != now.get(key):
            text, name = was if isinstance(was, int | float | None) else printable(was), printable(key)
            raise InputError(
                "command line",
                field=name,
                value=now.get(key),
                expected=f"{text} as in {run}",
                fix=f"resume with {name}={text}, or start a new run",
            )


def _leaves(content: dict[str, Any]) -> dict[str, Any]:
    """Dotted key -> value of everything that is no mapping and decides on what the run computes."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), child)
        elif not any(prefix == key or prefix.startswith(f"{key}.") for key in _FREE):
            flat[prefix] = value

    walk("", content)
    return flat
