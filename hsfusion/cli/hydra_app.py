"""Starting a Hydra app from a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

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
    sys.argv[1:] = [word for given in sys.argv[1:] for word in _written_out(given, config_name)]
    # otherwise Hydra prints its own message and exits with 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(checked)()
    if failed:
        raise failed[0]


def _written_out(word: str, config_name: str) -> list[str]:
    """``scene=PATH`` as the words it is short for; any other word as it is."""
    key, _, value = word.partition("=")
    paths = value.split(",")  # several in a multirun
    if key != "scene" or not all(Path(path).suffix or "/" in path for path in paths):
        return [word]
    quoted = [_quoted(path) for path in paths]
    described = {path.endswith((".yaml", ".yml")) for path in paths}
    if config_name == "predict" and len(described) == 1:
        group, field = ("described_cube", "file") if described == {True} else ("cube", "path")
        return [f"scene={group}", f"scene.{field}={','.join(quoted)}"]
    if described != {True}:
        return [word]
    named = len(paths) > 1 or any(given.startswith("name=") for given in sys.argv[1:])
    name = [] if named else [f"name={_quoted(Path(value).stem)}"]
    return ["scene=described", "scene.files=" + ",".join(f"[{path}]" for path in quoted), *name]


def _quoted(text: str) -> str:
    """A text in quotes of Hydra's grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
