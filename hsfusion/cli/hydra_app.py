"""Starting a Hydra app from a command."""

from __future__ import annotations

import os
from collections.abc import Callable

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.messages import CONF
from hsfusion.errors import InputError

# type of a default -> what a user may give instead, and its name
_NUMBERS = {int: ((int,), "a whole number"), float: ((int, float), "a number"), bool: ((bool,), "true or false")}


def run_app(task: Callable[[DictConfig], object], config_name: str) -> None:
    """Composes a configuration from ``conf/`` and the command line and calls the task with it, once or in a multirun.

    Errors of Hydra come through as exceptions.
    """
    failed: list[Exception] = []

    def checked(cfg: DictConfig) -> None:
        try:
            check_types(cfg)
            task(cfg)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            failed.append(error)  # Hydra would print a line of its own

    # otherwise Hydra prints its own message and exits with 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(checked)()
    if failed:
        raise failed[0]


def check_types(cfg: DictConfig) -> None:
    """Makes sure that a value that is a number in ``conf/`` still is one.

    Raises:
        InputError: if it is not.
    """
    for group, option in HydraConfig.get().runtime.choices.items():
        path = CONF / str(group) / f"{option}.yaml"
        if not path.is_file():
            continue
        defaults = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(defaults, dict)
        for key, default in defaults.items():
            value = OmegaConf.select(cfg, f"{group}.{key}")
            if type(default) in _NUMBERS and value is not None and type(value) not in _NUMBERS[type(default)][0]:
                raise InputError(
                    "command line",
                    field=f"{group}.{key}",
                    value=value,
                    expected=f"{_NUMBERS[type(default)][1]}, such as {default}",
                    fix="correct it",
                )
