"""``hsfusion train``."""

from __future__ import annotations

from omegaconf import DictConfig

from hsfusion.cli.hydra_app import run_app


def train(cfg: DictConfig) -> None:
    """Trains one network and fills a run folder."""
    from hsfusion.cli.outputs import write_outputs
    from hsfusion.cli.run_folder import log_to, make_run_folder
    from hsfusion.cli.session import fit, set_up

    folder = make_run_folder(cfg.name, cfg.run_dir)
    handler = log_to(folder)
    try:
        experiment = set_up(cfg)
        outcome = fit(cfg, experiment, folder)
        if outcome is not None:
            write_outputs(cfg, experiment, outcome, folder)
    finally:
        handler.close()


def command() -> None:
    """Entry point of the command."""
    run_app(train, "train")


if __name__ == "__main__":  # processes of a distributed run start here
    from hsfusion.cli.main import run_command

    raise SystemExit(run_command("train"))
