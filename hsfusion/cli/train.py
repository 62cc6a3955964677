"""``hsfusion train``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import DictConfig

from hsfusion.cli.checking import command_again
from hsfusion.cli.hydra_app import run_app
from hsfusion.cli.main import Interrupted

if TYPE_CHECKING:
    from hsfusion.cli.session import Experiment, Maker, Outcome
    from hsfusion.cli.several import SeveralExperiment

_Begun = TypeVar("_Begun", "Experiment", "SeveralExperiment")


def train(cfg: DictConfig) -> None:
    """Trains one network and fills a run folder."""
    from hsfusion.cli.session import new_network

    if "scenes" in cfg.scene:
        _train_on_several(cfg)
    else:
        train_from(cfg, "train", make=new_network)


def train_from(
    cfg: DictConfig,
    command: str,
    *,
    make: Maker,
    check: Callable[[Experiment], None] = lambda experiment: None,
    compare: Callable[[Experiment, Outcome, Path], None] = lambda experiment, outcome, folder: None,
) -> None:
    """Trains a network and fills a run folder.

    Args:
        cfg: the whole configuration.
        command: the command that was given.
        make: builds the network to start from.
        check: called before the training; raises what speaks against it.
        compare: called before anything of the outcome is written, to add to its metrics.
    """
    from hsfusion.cli.descriptions import with_descriptions
    from hsfusion.cli.outputs import write_outputs
    from hsfusion.cli.session import fit, set_up

    def begun() -> Experiment:
        experiment = set_up(cfg, make=make)
        check(experiment)
        return experiment

    def finish(experiment: Experiment, folder: Path, checkpoint: Path | None) -> None:
        outcome = fit(cfg, experiment, folder, checkpoint=checkpoint)
        if outcome is not None:
            compare(experiment, outcome, folder)
            write_outputs(configuration, experiment, outcome, folder)

    configuration = with_descriptions(cfg)
    _run(cfg, configuration, command, begun, finish)


def _train_on_several(cfg: DictConfig) -> None:
    """Trains one network on several scenes; their folders lie in the run folder."""
    from hsfusion.cli.descriptions import with_descriptions
    from hsfusion.cli.several import fit_several, scene_contents, set_up_several, write_several

    def finish(experiment: SeveralExperiment, folder: Path, checkpoint: Path | None) -> None:
        finished = fit_several(cfg, experiment, folder, checkpoint=checkpoint)
        if finished:
            write_several(configuration, finished, folder)

    configuration = with_descriptions(cfg)
    configuration["scene"]["contents"] = scene_contents(cfg.scene.scenes)
    _run(cfg, configuration, "train", lambda: set_up_several(cfg), finish)


def _run(
    cfg: DictConfig,
    configuration: dict[str, Any],
    command: str,
    begin: Callable[[], _Begun],
    finish: Callable[[_Begun, Path, Path | None], None],
) -> None:
    """What every training does: log, resume, run folder.

    Args:
        cfg: the whole configuration.
        configuration: the same as plain values, with what descriptions say.
        command: the command that was given.
        begin: makes an experiment, or raises.
        finish: trains it and writes into the run folder, going on from a checkpoint if there is one.
    """
    from hsfusion.cli.descriptions import to_yaml
    from hsfusion.cli.resuming import check_checkpoint, checkpoint_of
    from hsfusion.cli.run_folder import check_name, log_to, make_run_folder, start_log

    check_name(configuration["name"])
    memory = start_log()
    log = logging.getLogger("hsfusion")
    log.info(command_again(command))
    checkpoint = checkpoint_of(configuration)
    experiment = begin()
    if checkpoint is not None:
        check_checkpoint(checkpoint, cfg, experiment.network)
    # only now: input that is refused leaves no folder behind
    folder = make_run_folder(cfg.name, cfg.run_dir)
    log_to(folder, memory)
    (folder / "config.yaml").write_text(to_yaml(configuration), encoding="utf-8")
    try:
        finish(experiment, folder, checkpoint)
    except Interrupted as interruption:
        whole = (folder / "checkpoints" / "last.ckpt").is_file()
        start = folder if whole else cfg.resume
        again = command_again(command, *([] if start is None else [f"resume={start}"]))
        interruption.advice = f"{'Start again' if start is None else 'Continue'} with: {again}"
        raise
    except Exception as error:
        log.error("%s: %s", type(error).__name__, error, exc_info=not hasattr(error, "exit_code"))
        raise


def command() -> None:
    """Entry point of the command."""
    run_app(train, "train")


if __name__ == "__main__":  # processes of a distributed run start here
    from hsfusion.cli.main import run_command

    raise SystemExit(run_command("train"))
