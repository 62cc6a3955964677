"""Hydra's and OmegaConf's errors in one line that names the closest valid key."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hsfusion.errors import InputError

CONF = next(
    path
    for path in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf")
    if (path / "train.yaml").is_file()
)


def explain(error: BaseException) -> str | None:
    """Words an error of Hydra or OmegaConf; None for any other."""
    if isinstance(error, InstantiationException):
        part = re.search(r"full_key: (\S+)", str(error))
        return (
            f"{part.group(1) if part else 'configuration'}: {error.__cause__ or error}. Fix: correct the configuration."
        )
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    text = str(error)
    option = re.search(
        r"Could not find '([^']+)'.*?Available options in '[^']*':(.*?)Config search path", text, re.DOTALL
    )
    if option:
        wanted, choices = option.group(1), option.group(2).split()
        group, _, name = wanted.rpartition("/")
        return _unknown(group, name, choices)
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        full = key.group(1)
        return _unknown_key(full)
    if isinstance(error, OverrideParseException):
        expected, fix = "key=value", "correct that word"
        return str(InputError("command line", "word", error.override, expected, fix))
    return f"command line: {text.splitlines()[0].rstrip('.')}, expected key=value. Fix: correct that word."


def _unknown(group: str, name: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(name, choices, 1, 0.4)
    fix = f"did you mean {group}={close[0]}?" if close else "choose one of these"
    return str(InputError("command line", group, name, " | ".join(choices), fix))


def _unknown_key(key: str) -> str:
    if key == "scene@scene.of":  # as scene.of=NAME is handed to Hydra
        fix = "it belongs to scene=simulated"
        return str(InputError("command line", "key", "scene.of", "a key of the scene", fix))
    valid = sorted(valid_keys())
    group = key.partition(".")[0]
    if key in valid and (CONF / group).is_dir():
        name = key.partition(".")[2]
        options = [path.stem for path in sorted((CONF / group).glob("*.yaml")) if name in (OmegaConf.load(path) or {})]
        fix = f"{key} belongs to {group}={'|'.join(options)}"
        return str(InputError("command line", "key", key, f"a key of the chosen {group}", fix))
    if key in valid:
        commands = [
            path.stem.replace("_", " ") for path in sorted(CONF.glob("*.yaml")) if group in OmegaConf.load(path)
        ]
        fix = f"it belongs to hsfusion {' and '.join(commands)}"
        return str(InputError("command line", "key", key, "a key of this command", fix))
    last = key.rpartition(".")[2]
    close = difflib.get_close_matches(key, valid, 1, 0.5) or [
        name for name in valid if difflib.SequenceMatcher(None, last, name.rpartition(".")[2]).ratio() > 0.7
    ]
    fix = f"did you mean {close[0]}?" if close else "hsfusion COMMAND --help lists the keys"
    return str(InputError("command line", "key", key, "a key of the configuration", fix))


def valid_keys() -> set[str]:
    """Every dotted key that a file in conf/ sets, and the names of its groups."""
    keys: set[str] = set()
    for path in CONF.rglob("*.yaml"):
        config = OmegaConf.load(path)
        group = ".".join(path.relative_to(CONF).parts[:-1])
        keys.update({group} if group else set())
        if isinstance(config, DictConfig):
            keys.update(_dotted(OmegaConf.to_container(config, resolve=False), group))
    return keys


def _dotted(value: Any, prefix: str) -> set[str]:
    if not isinstance(value, dict):
        return {prefix}
    keys = {prefix} if prefix else set()
    for key, child in value.items():
        if key not in {"defaults", "hydra"} and not str(key).startswith("_"):
            keys |= _dotted(child, f"{prefix}.{key}" if prefix else str(key))
    return keys
