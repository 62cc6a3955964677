"""``hsfusion finetune``: a trained network on a new scene."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from hsfusion.cli.hydra_app import run_app
from hsfusion.cli.train import train_from
from hsfusion.errors import DivergedError, InputError
from hsfusion.scenes.legend import is_named

if TYPE_CHECKING:
    from hsfusion.cli.session import Experiment, Outcome, Start
    from hsfusion.nn import FusionNetwork
    from hsfusion.scenes import Scene

_log = logging.getLogger(__name__)


def finetune(cfg: DictConfig) -> None:
    """Carries a trained network over to a scene, trains it on, and fills a run folder."""
    from hsfusion.training.model_file import load_model

    check_words(cfg)
    path = Path(str(cfg.pretrained))
    network, header = load_model(path / "model.safetensors" if path.is_dir() else path)
    same = {key: value for key, value in header["architecture"].items() if key in cfg.model and key != "keep_bands"}
    cfg.model.update(same)  # what config.yaml shall say; bands are chosen by the network from scratch only
    train_from(
        cfg,
        "finetune",
        make=partial(carried_network, network=network, header=header),
        check=partial(_check_start, cfg, header),
        compare=partial(_compare, cfg, header),
    )


def carried_network(
    cfg: DictConfig, scene: Scene, class_names: Sequence[str], *, network: FusionNetwork, header: dict[str, Any]
) -> Start:
    """The pretrained network, carried over to the scene."""
    from hsfusion.cli.seen import all_seen
    from hsfusion.cli.session import Start
    from hsfusion.training.transfer import carry_over

    carried = carry_over(
        network,
        header=header,
        bands=scene.bands,
        sources=scene.sources,
        class_names=class_names,
        fresh_classes=[name for name in class_names if not is_named(name)],
    )
    report = carried.report.standardised_anew()
    return Start(carried.network, list(carried.groups), carried.architecture, report, all_seen(header))


def scratch_configuration(cfg: DictConfig, header: dict[str, Any]) -> DictConfig:
    """The same training for a new network of the same architecture, with all parts learning at full rate."""
    same = {key: value for key, value in header["architecture"].items() if key not in ("response", "keep_bands")}
    ours = {
        "pretrained": None,
        "freeze": [],
        "patience": None,
        "trainer": {"max_epochs": cfg.scratch_epochs},
        "model": same,
    }
    even = {**{f"thaw_at.{part}": 0.0 for part in cfg.thaw_at}, **{f"lr_scales.{part}": 1.0 for part in cfg.lr_scales}}
    scratch = OmegaConf.merge(cfg, ours, OmegaConf.from_dotlist([f"{key}={value}" for key, value in even.items()]))
    assert isinstance(scratch, DictConfig)
    return scratch


def first_step_as_good(history: dict[str, tuple[list[int], list[float]]], accuracy: float) -> int | None:
    """The first step at which the validation accuracy was reached; None if it never was."""
    steps, values = history.get("val/overall_accuracy", ([], []))
    return next((step for step, value in zip(steps, values, strict=True) if value >= accuracy), None)


def check_words(cfg: DictConfig) -> None:
    """Refuses what cannot be frozen, thawed or set.

    Raises:
        InputError: naming the first.
    """
    from hsfusion.training.classifier import PARTS

    if not isinstance(cfg.freeze, ListConfig) or not set(cfg.freeze) <= set(PARTS):
        raise InputError(
            "command line",
            field="freeze",
            value=cfg.freeze,
            expected=f"a list of {', '.join(PARTS)}",
            fix="write freeze=[cnn]",
        )
    if not any(part not in cfg.freeze and cfg.thaw_at[part] < 1 and cfg.lr_scales[part] > 0 for part in PARTS):
        raise InputError(
            "command line",
            field="parts that learn",
            value="none",
            expected=f"at least one of {', '.join(PARTS)}",
            fix="take one out of freeze, or lower thaw_at",
        )
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    allowed = () if cfg.scratch_epochs is None else ("model.keep_bands=",)
    bare = [word.lstrip("+~") for word in words]
    kept = [word for word in bare if word.startswith("model.") and not word.startswith(allowed)]
    if kept or (cfg.scratch_epochs is None and any(word.startswith("groups") for word in words)):
        raise InputError(
            "command line",
            field="model and groups",
            value=", ".join(kept) or "given",
            expected="nothing: they are those of the pretrained model",
            fix="leave them out; groups=… and model.keep_bands=… are for scratch_epochs only",
        )
    if cfg.scratch_epochs is not None and cfg.trainer.devices not in (1, "1", "auto"):
        raise InputError(
            "command line",
            field="trainer.devices",
            value=cfg.trainer.devices,
            expected="1 with scratch_epochs",
            fix="leave out scratch_epochs, and train the other network by itself",
        )


def _check_start(cfg: DictConfig, header: dict[str, Any], experiment: Experiment) -> None:
    """Refuses what would be known too late, and tells what was carried over before hours of training."""
    import torch

    from hsfusion.cli.seen import check_not_seen
    from hsfusion.cli.session import begin

    check_not_seen(experiment.split, header)
    report = experiment.start.transfer
    assert report is not None, "carried over"
    for line in report.coverage_lines():
        _log.info("%s", line)
    if not all(map(is_named, experiment.split.labelled.legend.names)):
        _log.warning(
            "Classes named by their codes (class 1, ...) start anew: name them to have classes copied by name."
        )
    fresh = [part for part in report.fresh if part.startswith("cnn.classifier")]
    if fresh and "classifier" in cfg.freeze:
        raise InputError(
            "command line",
            field="freeze",
            value="classifier",
            expected=f"parts that are copied; {', '.join(fresh)} start anew, as random numbers",
            fix="take classifier out of freeze",
        )
    if cfg.scratch_epochs is not None:  # whether its groups and bands fit the scene
        with torch.random.fork_rng(devices=[]):
            begin(scratch_configuration(cfg, header), experiment.split)


def _compare(cfg: DictConfig, header: dict[str, Any], experiment: Experiment, outcome: Outcome, folder: Path) -> None:
    """Trains a network from scratch on the same pixels, if asked for, and notes what fine-tuning gained."""
    from hsfusion.cli.session import begin, fit

    if cfg.scratch_epochs is None:
        return
    _log.info("for comparison: a network from scratch, on the same pixels")
    scratch = scratch_configuration(cfg, header)
    (folder / "scratch").mkdir()
    try:
        other = fit(scratch, begin(scratch, experiment.split), folder / "scratch")
    except DivergedError as error:  # what was fine-tuned is worth keeping
        _log.warning("the network from scratch: %s", error)
        return
    assert other is not None, "one process only"
    reached = other.val_accuracy
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
