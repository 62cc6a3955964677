"""``hsfusion predict``: a trained model and a scene to a map."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig

from hsfusion.cli.hydra_app import run_app
from hsfusion.errors import InputError

_written: set[Path] = set()  # by this process, in a multirun


def predict(cfg: DictConfig) -> None:
    """Classifies one scene into files."""
    from hsfusion import runs
    from hsfusion.cli.experiment import register_backbones, show_warnings
    from hsfusion.runs.finetuning import model_path
    from hsfusion.runs.prediction import PredictSettings, check_out
    from hsfusion.training.model_file import read_header

    show_warnings()
    if cfg.scene is None:
        _refuse("scene", "missing", "a file: add scene=PATH")
    multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    if multirun and "WORLD_SIZE" in os.environ:
        _refuse("--multirun", "under torchrun", "one map: drop one of the two")
    if int(os.environ.get("RANK", "0")) > 0:
        logging.getLogger("hsfusion").setLevel(logging.ERROR)  # the first process shows the warnings
    settings = PredictSettings(**{name: cfg[name] for name in PredictSettings.__dataclass_fields__})
    register_backbones(cfg.backbones)
    if cfg.out is not None:
        check_out(Path(cfg.out))
    read_header(model_path(cfg.run))  # what is wrong with the words comes before what is odd about the scene
    scene = instantiate(cfg.scene)
    name = getattr(scene, "scene", scene).name
    out = Path(cfg.out or f"{name}_map.tif")
    if multirun and out.resolve() in _written:
        raise InputError(out, "out", "that of another scene", "one each", "give the scenes other names")
    _written.add(out.resolve())
    made = runs.predict(cfg.run, scene, out, settings=settings)
    if made.areas is not None:  # None on all but the first process
        print(*made.coverage, sep="\n", end="\n" if made.coverage else "")
        print(
            f"map        {made.out}\nquick look {made.quick_look}\nareas      {made.table}\n"
            f"{made.pixels:,} pixels in {made.seconds:.1f} s ({made.pixels / made.seconds:,.0f} pixels/s, "
            f"{made.precision})"
        )


def _refuse(key: str, value: object, expected: str) -> None:
    raise InputError("command line", key, value, expected, f"correct {key}")


def command() -> None:
    """Entry point of the command."""
    run_app(predict, "predict")


if __name__ == "__main__":  # torchrun -m hsfusion.cli.predict
    from hsfusion.cli.main import run_command

    raise SystemExit(run_command("predict"))
