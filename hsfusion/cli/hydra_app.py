"""Starting a Hydra app from a command."""

from __future__ import annotations

import os
from collections.abc import Callable

import hydra
from omegaconf import DictConfig

from hsfusion.cli.messages import CONF


def run_app(task: Callable[[DictConfig], object], config_name: str) -> None:
    """Composes a configuration from ``conf/`` and the command line and calls the task with it, once or in a multirun.

    Errors of Hydra come through as exceptions.
    """
    # otherwise Hydra prints its own message and exits with 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task)()
