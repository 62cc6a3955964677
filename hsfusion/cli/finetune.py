"""``hsfusion finetune``: a trained network on a new scene."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.hydra_app import run_app
from hsfusion.cli.train import train_from
from hsfusion.errors import InputError

if TYPE_CHECKING:
    from hsfusion.cli.session import Experiment, Outcome, Start
    from hsfusion.nn import FusionNetwork
    from hsfusion.scenes import Scene

_log = logging.getLogger(__name__)


def finetune(cfg: DictConfig) -> None:
    """Carries a trained network over to a scene, trains it on, and fills a run folder."""
    from hsfusion.training.model_file import load_model

    _check(cfg)
    path = Path(str(cfg.pretrained))
    network, header = load_model(path / "model.safetensors" if path.is_dir() else path)
    train_from(
        cfg,
        "finetune",
        make=partial(carried_network, network=network, header=header),
        compare=partial(_compare, cfg, header),
    )


def carried_network(
    cfg: DictConfig, scene: Scene, class_names: Sequence[str], *, network: FusionNetwork, header: dict[str, Any]
) -> Start:
    """The pretrained network, carried over to the scene."""
    from hsfusion.cli.session import Start
    from hsfusion.training.transfer import carry_over

    carried = carry_over(network, header=header, bands=scene.bands, sources=scene.sources, class_names=class_names)
    return Start(carried.network, list(carried.groups), carried.architecture, carried.report)


def scratch_configuration(cfg: DictConfig, header: dict[str, Any]) -> DictConfig:
    """The same training for a new network of the same architecture, with all parts learning at full rate."""
    same = {key: value for key, value in header["architecture"].items() if key not in ("response", "keep_bands")}
    ours = {"freeze": [], "patience": None, "trainer": {"max_epochs": cfg.scratch_epochs}, "model": same}
    even = {**{f"thaw_at.{part}": 0.0 for part in cfg.thaw_at}, **{f"lr_scales.{part}": 1.0 for part in cfg.lr_scales}}
    scratch = OmegaConf.merge(cfg, ours, OmegaConf.from_dotlist([f"{key}={value}" for key, value in even.items()]))
    assert isinstance(scratch, DictConfig)
    return scratch


def first_step_as_good(history: dict[str, tuple[list[int], list[float]]], accuracy: float) -> int | None:
    """The first step at which the validation accuracy was reached; None if it never was."""
    steps, values = history.get("val/overall_accuracy", ([], []))
    return next((step for step, value in zip(steps, values, strict=True) if value >= accuracy), None)


def kept_accuracy(outcome: Outcome) -> float | None:
    """Validation accuracy of the model that was kept; None without validation pixels."""
    steps, values = outcome.history.get("val/overall_accuracy", ([], []))
    return dict(zip(steps, values, strict=True)).get(outcome.best_step or -1)


def _check(cfg: DictConfig) -> None:
    from hsfusion.training.classifier import PARTS

    unknown = [name for name in cfg.freeze if name not in PARTS]
    if unknown or len(set(cfg.freeze)) == len(PARTS):
        raise InputError(
            "command line",
            field="freeze",
            value=list(cfg.freeze),
            expected=f"some of {', '.join(PARTS)}, not all",
            fix="correct freeze",
        )


def _compare(cfg: DictConfig, header: dict[str, Any], experiment: Experiment, outcome: Outcome, folder: Path) -> None:
    """Trains a network from scratch on the same pixels, if asked for, and notes what fine-tuning gained."""
    from hsfusion.cli.session import begin, fit

    if cfg.scratch_epochs is None:
        return
    _log.info("for comparison: a network from scratch, on the same pixels")
    scratch = scratch_configuration(cfg, header)
    (folder / "scratch").mkdir()
    other = fit(scratch, begin(scratch, experiment.split), folder / "scratch")
    assert other is not None, "one process only"
    reached = kept_accuracy(other)
    outcome.metrics["scratch"] = {
        "test": other.metrics["test"],
        "timing": other.metrics["timing"],
        "epochs": cfg.scratch_epochs,
        "step": other.best_step,
        "val_overall_accuracy": reached,
        "finetuned_there_at_step": None if reached is None else first_step_as_good(outcome.history, reached),
    }


def command() -> None:
    """Entry point of the command."""
    run_app(finetune, "finetune")


if __name__ == "__main__":  # processes of a distributed run start here
    from hsfusion.cli.main import run_command

    raise SystemExit(run_command("finetune"))
