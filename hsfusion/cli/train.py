"""``hsfusion train``."""

from __future__ import annotations

import logging

from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.checking import command_again
from hsfusion.cli.hydra_app import run_app


def train(cfg: DictConfig) -> None:
    """Trains one network and fills a run folder."""
    from hsfusion.cli.descriptions import read_descriptions
    from hsfusion.cli.outputs import write_outputs
    from hsfusion.cli.resuming import checkpoint_of
    from hsfusion.cli.run_folder import log_to, make_run_folder, start_log
    from hsfusion.cli.session import fit, set_up

    memory = start_log()
    log = logging.getLogger("hsfusion")
    log.info(command_again("train"))
    if "files" in cfg.scene:  # descriptions may change, or go
        cfg.scene.contents = read_descriptions(cfg.scene.files)
    checkpoint = checkpoint_of(cfg)
    experiment = set_up(cfg)
    # only now: input that is refused leaves no folder behind
    folder = make_run_folder(cfg.name, cfg.run_dir)
    log_to(folder, memory)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True), encoding="utf-8")
    try:
        outcome = fit(cfg, experiment, folder, checkpoint=checkpoint)
        if outcome is not None:
            write_outputs(cfg, experiment, outcome, folder)
    except Exception as error:
        log.error("%s: %s", type(error).__name__, error, exc_info=not hasattr(error, "exit_code"))
        raise


def command() -> None:
    """Entry point of the command."""
    run_app(train, "train")


if __name__ == "__main__":  # processes of a distributed run start here
    from hsfusion.cli.main import run_command

    raise SystemExit(run_command("train"))
