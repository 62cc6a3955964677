"""Going on with an interrupted run."""

from __future__ import annotations

import copy
import reprlib
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hsfusion.errors import InputError, printable
from hsfusion.nn import FusionNetwork, MultiSceneNetwork
from hsfusion.runs.settings import TrainSettings
from hsfusion.scenes.description import parse_configuration, read_configuration
from hsfusion.training.classifier import FusionClassifier

# what may differ: nothing of it changes what the run computes
_FREE = ("resume", "run_dir", "name", "progress", "threads", "figures", "logger", "loggers", "trainer.accelerator")
_FREE += ("trainer.devices",)
# what Lightning and the callbacks of a training take from a checkpoint
_KEYS = ("state_dict", "callbacks", "loops", "optimizer_states", "lr_schedulers", "epoch", "global_step")
_CALLBACKS = {"History", "WeightHistory", "KeepBest", "ModelCheckpoint"}
_DELETED = ("best_model_path", "last_model_path", "kth_best_model_path")


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
        raise InputError(run, "resume", "a name with ::", "a run folder", "rename the folder")
    for file in (path, run / "config.yaml"):
        if not file.is_file():
            raise InputError(run, str(file.relative_to(run)), "missing", "a run folder", "correct resume")
    before = read_configuration(run / "config.yaml")
    now = parse_configuration(configuration)
    _check_command(run, before, now)
    _check_same(run, _leaves(before), _leaves(now))
    _read(path)
    return path.absolute()


def check_checkpoint(path: Path, settings: TrainSettings, network: FusionNetwork | MultiSceneNetwork) -> None:
    """Checks that a checkpoint has the weights of what is to be trained, before a run folder is made.

    Raises:
        InputError: naming the part that has not.
    """
    optimizer = settings.optimizer or partial(torch.optim.AdamW, lr=1e-3)
    module = FusionClassifier(copy.deepcopy(network), optimizer=optimizer, total_steps=1, seed=0)
    content = _read(path)
    try:
        module.load_state_dict(content["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise _damaged(path, "state_dict", "of another network", "the weights of the configured one") from error


def _read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint that Lightning can go on from; nothing in it is executed."""
    try:
        # the explicit True wins over TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise _damaged(path, "content", "unreadable, or more than numbers and words", "a whole checkpoint") from error
    if not isinstance(content, dict) or not isinstance(content.get("callbacks"), dict):
        raise _damaged(path, "content", "that of another program", "a checkpoint of hsfusion")
    callbacks = {str(key).partition("{")[0]: state for key, state in content["callbacks"].items()}
    keys = [key for key in _KEYS if key not in content] + [f"callbacks.{key}" for key in _CALLBACKS - callbacks.keys()]
    if keys:
        raise _damaged(path, min(keys), "missing", f"a checkpoint with {', '.join([*_KEYS, *sorted(_CALLBACKS)])}")
    _check_deleted_paths(path, callbacks["ModelCheckpoint"])
    return content


def _check_deleted_paths(path: Path, state: Any) -> None:
    """Refuses all but checkpoints of runs among the files that Lightning deletes once it has written newer ones.

    It spares what lies outside of the new run, so that a run folder may be copied or moved; but it takes ``..`` as it
    stands, and addresses on the network for its own.
    """
    if not isinstance(state, dict):
        raise _damaged(path, "callbacks.ModelCheckpoint", "no mapping", "the state of the callback")
    for name in [*(state.get(key, "") for key in _DELETED), *(state.get("best_k_models") or ())]:
        parts = Path(name).parts if isinstance(name, str) else ()
        of_run = parts[-2:] == ("checkpoints", "last.ckpt") and ".." not in parts
        if name and (not of_run or "://" in name or "::" in name):
            raise _damaged(
                path, "path of a checkpoint to replace", reprlib.repr(name), "checkpoints/last.ckpt of a run"
            )


def _damaged(path: Path, field: str, value: object, expected: str) -> InputError:
    return InputError(path, field, value, expected, "start a new run")


def _check_command(run: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    was, this = ("finetune" if "pretrained" in config else "train" for config in (before, now))
    if was != this:
        raise InputError(
            "command line",
            "resume",
            f"a run of hsfusion {was}",
            f"one of hsfusion {this}",
            f"hsfusion {was} resume={run}, with the words that it was started with",
        )


def _check_same(run: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for key in sorted(before.keys() | now.keys()):
        was = before.get(key)
        if was != now.get(key):
            text, name = was if isinstance(was, int | float | None) else printable(was), printable(key)
            raise InputError(
                "command line",
                name,
                now.get(key),
                f"{text} as in {run}",
                f"resume with {name}={text}, or start a new run",
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
