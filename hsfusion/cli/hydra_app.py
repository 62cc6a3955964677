"""Starting a Hydra app from a command."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hsfusion.cli.checking import check, check_config_dir
from hsfusion.cli.main import guarded
from hsfusion.cli.messages import CONF

# key -> how Hydra calls the choice of its group: a simulated scene holds another one
_SCENES = {"scene": "scene", "scene.of": "scene@scene.of"}


def run_app(task: Callable[[DictConfig], object], config_name: str) -> None:
    """Composes a configuration from ``conf/`` and the command line and calls the task with it, once or in a multirun.

    In a multirun one failing run does not stop the others: each failure is told in its line. Errors of Hydra itself
    come through as exceptions.

    Raises:
        SystemExit: with the exit code of the first run that failed.
    """
    codes: list[int] = []

    def checked(cfg: DictConfig) -> None:
        def run() -> None:
            check(cfg, config_name)
            task(cfg)

        if HydraConfig.get().runtime.choices["hydra/launcher"] == "basic":
            codes.append(guarded(run))  # Hydra would print lines of its own, and stop
        else:
            run()  # in another process

    check_config_dir()
    sys.argv[1:] = [word for given in sys.argv[1:] for word in _written_out(given, config_name)]
    # otherwise Hydra prints its own message and exits with 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with tempfile.TemporaryDirectory(prefix="hsfusion-") as folder:
        os.environ["HSFUSION_SWEEP"] = folder  # where files of Hydra go that nobody reads
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(checked)()
    if failed := [code for code in codes if code]:
        raise SystemExit(failed[0])


def _written_out(word: str, config_name: str) -> list[str]:
    """``scene=PATH``, ``scene.of=PATH`` and ``scene.of=GROUP`` as the words they are short for; others as they are."""
    key, _, value = word.partition("=")
    if key not in _SCENES:
        return [word]
    paths = value.split(",")  # several in a multirun
    if not all(Path(path).suffix or "/" in path for path in paths):
        return [f"{_SCENES[key]}={value}"]
    quoted = [_quoted(path) for path in paths]
    described = {path.endswith((".yaml", ".yml")) for path in paths}
    if config_name == "predict" and len(described) == 1:
        group, field = ("described_cube", "file") if described == {True} else ("cube", "path")
        return [f"{_SCENES[key]}={group}", f"{key}.{field}={','.join(quoted)}"]
    if described != {True}:
        return [word]
    named = len(paths) > 1 or key != "scene" or any(given.startswith("name=") for given in sys.argv[1:])
    name = [] if named else [f"name={_quoted(Path(value).stem)}"]
    return [f"{_SCENES[key]}=described", f"{key}.files=" + ",".join(f"[{path}]" for path in quoted), *name]


def _quoted(text: str) -> str:
    """A text in quotes of Hydra's grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
