"""Starting a Hydra app from a command."""

from __future__ import annotations

import os
from collections.abc import Callable

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hsfusion.cli.checking import check, check_config_dir
from hsfusion.cli.messages import CONF


def run_app(task: Callable[[DictConfig], object], config_name: str) -> None:
    """Composes a configuration from ``conf/`` and the command line and calls the task with it, once or in a multirun.

    Errors of Hydra come through as exceptions. In a multirun one failing run does not stop the others; the first error
    is raised at the end.
    """
    failed: list[Exception] = []

    def checked(cfg: DictConfig) -> None:
        try:
            check(cfg, config_name)
            task(cfg)
        except Exception as error:
            if HydraConfig.get().runtime.choices["hydra/launcher"] != "basic":
                raise  # runs in another process
            failed.append(error)  # Hydra would print lines of its own

    check_config_dir()
    # otherwise Hydra prints its own message and exits with 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(checked)()
    if failed:
        raise failed[0]
