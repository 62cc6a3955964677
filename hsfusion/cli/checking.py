"""Checks of a composed configuration, before anything is opened or written."""

from __future__ import annotations

import math
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from hsfusion.cli.messages import CONF
from hsfusion.errors import InputError
from hsfusion.scenes.description import WORD_KEYS, check_scene_value, expected_of

# type of a default -> what may stand there instead, and its name
_TYPES = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
    str: ((str, int, float), "a word"),
}
# keys that take a file or a folder, and which
_PLACES = {
    "run_dir": "a folder",
    "folder": "a folder",
    "resume": "a run folder",
    "run": "a run folder, or a model.safetensors",
    "pretrained": "a run folder, or a model.safetensors",
    "json": "a file",
    "figure": "a file",
    "out": "a file",
    "scene.cache": "a folder",
    "split.train": "a file",
    "split.test": "a file",
}
# keys that are null by default, or have no default
_OPTIONAL = {
    "threads": int,
    "split.per_class": int,
    "split.val_per_class": int,
    "random_split.per_class": int,
    "jobs": int,
    "model.keep_bands": int,
    "patience": int,
    "scratch_epochs": int,
    "batch": int,
    **dict.fromkeys(_PLACES, str),
    **dict.fromkeys((f"scene.{file}_{key}" for file in ("cube", "labels") for key in ("url", "sha256")), str),
    "scene.step_m": float,
}
# keys that may be null although it is not their default
_NULL_TOO = ("model.knot_spacing_nm", "scene.class_names", "scene.class_colors", "scene.nominal", "scene.sources")
_INFINITY = math.inf
_RANGES = {
    "seed": (0, 2**32),
    "seeds": (1, _INFINITY),
    "threads": (1, _INFINITY),
    **dict.fromkeys(("resamples", "jobs", "top_k_seeds", "top_k_members", "retrain_epochs"), (1, _INFINITY)),
    "first_seed": (0, 2**31),
    "split_seed": (0, 2**31),
    "resample_share": (0.05, 1),
    "faithfulness_pixels": (20, 20_000),
    **dict.fromkeys(
        ("inputs", "batch", "channels", "bands", "rows", "columns", "tile", "repeats", "patches"), (1, _INFINITY)
    ),
    "label_smoothing": (0, 0.99),
    "trainer.max_epochs": (1, _INFINITY),
    "patience": (1, _INFINITY),
    "scratch_epochs": (1, _INFINITY),
    **{f"thaw_at.{part}": (0, 1) for part in ("response", "group_weights", "cnn", "classifier")},
    **{f"lr_scales.{part}": (0, _INFINITY) for part in ("response", "group_weights", "cnn", "classifier")},
    "data.batch_size": (2, _INFINITY),
    "data.steps_per_epoch": (1, _INFINITY),
    "data.noise": (0, _INFINITY),
    "data.range_dropout": (0, 1),
    "model.channels": (1, _INFINITY),
    "model.width": (1, _INFINITY),
    "model.knot_spacing_nm": (1, _INFINITY),
    "model.dropout": (0, 0.99),
    "fusion_lr_scale": (0, _INFINITY),
    "band_cost": (0, _INFINITY),
    "model.keep_bands": (1, _INFINITY),
    "optimizer.lr": (0, _INFINITY),
    "optimizer.weight_decay": (0, _INFINITY),
    "split.block_pixels": (1, _INFINITY),
    "split.per_class": (1, _INFINITY),
    "split.val_per_class": (1, _INFINITY),
    "groups.number": (1, _INFINITY),
}


def takes_word(key: str) -> bool:
    """Whether a key takes one word or one path, so that whatever stands there is meant as text."""
    part, _, name = key.rpartition(".")
    words = {"name", *(key for key, kind in _OPTIONAL.items() if kind is str)}
    return key in words or (part in ("scene", "scene.of") and name in WORD_KEYS)


def check(cfg: DictConfig, config_name: str) -> None:
    """Makes sure that every key is known and every value is of the right type and within its range.

    Raises:
        InputError: naming the first that is not.
    """
    missing = OmegaConf.missing_keys(cfg)
    if missing:
        key = sorted(missing)[0]
        raise InputError("configuration", key, "missing", _wanted(key, None), f"add {key}=VALUE")
    choices = HydraConfig.get().runtime.choices
    chosen = [word for word in HydraConfig.get().overrides.task if word.partition("=")[0].lstrip("+~") in choices]
    base = compose(config_name, overrides=chosen)
    for key in cfg:
        if key not in list(base):  # which has keys without a value, too
            raise InputError("command line", "key", key, "a known key", "remove it")
    _check_scene(cfg, base)
    defaults = _leaves(base)
    for key, value in _leaves(cfg).items():
        wanted = _OPTIONAL.get(key) if defaults.get(key) is None else type(defaults[key])
        if isinstance(value, ListConfig | DictConfig):
            continue
        if wanted in _TYPES and value is not None and type(value) not in _TYPES[wanted][0]:
            _refuse(key, value, _wanted(key, defaults.get(key)))
        if value is None and defaults.get(key) is not None and key.replace("scene.of.", "scene.") not in _NULL_TOO:
            _refuse(key, "null", _wanted(key, defaults[key]))
        lower, upper = _RANGES.get(key, (-_INFINITY, _INFINITY))
        if isinstance(value, int | float) and not lower <= value <= upper:
            _refuse(key, value, f"at least {lower}" if upper == _INFINITY else f"between {lower} and {upper}")
    for key, what in (("run_dir", "folder"), ("out", "file")):
        if HydraConfig.get().mode == RunMode.MULTIRUN and cfg.get(key) is not None:
            _refuse(key, cfg[key], f"null in a multirun, where every run needs a {what} of its own")


def _check_scene(cfg: DictConfig, base: DictConfig) -> None:
    for path in ("scene", "scene.of"):  # a simulated scene holds another one
        scene = OmegaConf.select(cfg, path)
        if not isinstance(scene, DictConfig):
            return
        plain = OmegaConf.to_container(scene, resolve=True)
        assert isinstance(plain, dict), "a configuration of keys"
        for key, value in plain.items():
            if value is None and OmegaConf.is_missing(OmegaConf.select(base, path), key):
                _refuse(f"{path}.{key}", "null", _wanted(f"{path}.{key}", None))
            check_scene_value("command line", str(key), value, field=f"{path}.{key}")


def check_config_dir() -> None:
    """Refuses files of ``--config-dir`` that have the name of a packaged one, for Hydra would take that one instead.

    Raises:
        InputError: naming the file.
    """
    for folder in _config_dirs():
        for path in Path(folder).rglob("*.yaml"):
            if (CONF / path.relative_to(folder)).exists():
                raise InputError(path, "name", path.name, "a name that hsfusion does not use", "rename the file")


def command_again(command: str, *more: str) -> str:
    """The words that repeat this run, in a new folder, and ``more`` words after them."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    words = [word for word in words if not word.lstrip("+").startswith(("run_dir=", "resume="))]
    flags = [f"--config-dir={folder}" for folder in _config_dirs()]
    return shlex.join(["hsfusion", *command.split(), *flags, *words, *more])


def _config_dirs() -> list[str]:
    """The folders of ``--config-dir`` on the command line."""
    words = sys.argv[1:]
    folders = [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    return folders + [after for word, after in pairwise(words) if word in {"--config-dir", "-cd"}]


def _refuse(key: str, value: object, expected: str) -> None:
    raise InputError("command line", key, value, expected, f"correct {key}")


def _wanted(key: str, default: object) -> str:
    """What may stand after a key, in words."""
    part, _, name = key.rpartition(".")
    if part in ("scene", "scene.of") and (kind := expected_of(name)) is not None:
        return kind
    if isinstance(default, ListConfig | DictConfig):
        return "a list" if isinstance(default, ListConfig) else "keys and values"
    kind = _OPTIONAL.get(key, type(default))
    return _PLACES.get(key, _TYPES[kind][1] if kind in _TYPES else "a value")


def _leaves(cfg: DictConfig) -> dict[str, Any]:
    """Dotted key -> value of everything, also of what lies in mappings, interpolations resolved."""
    leaves: dict[str, Any] = {}
    for key in cfg:
        value = leaves[str(key)] = cfg[key] if not OmegaConf.is_missing(cfg, key) else None
        if isinstance(value, DictConfig):
            leaves.update({f"{key}.{name}": leaf for name, leaf in _leaves(value).items()})
    return leaves
