"""``hsfusion train``."""

from __future__ import annotations

from omegaconf import DictConfig

from hsfusion.cli.hydra_app import run_app


def train(cfg: DictConfig) -> None:
    """Trains one network and fills a run folder."""
    from hsfusion import runs
    from hsfusion.cli.experiment import options_of, resume_advice, scene_of, show_warnings
    from hsfusion.runs.folder import training_log

    show_warnings()
    if "scenes" in cfg.scene:
        _train_on_several(cfg)
        return
    options = options_of(cfg, "train")
    with resume_advice(cfg, options, "train"), training_log():
        run = runs.train(scene_of(cfg), **options)
    if run.folder is not None:  # None on all but the first process of a distributed run
        print(run.summary())


def _train_on_several(cfg: DictConfig) -> None:
    """Trains one network on several scenes; their folders lie in the run folder."""
    from hsfusion import runs
    from hsfusion.cli.experiment import options_of, resume_advice, several_scenes
    from hsfusion.runs.folder import training_log
    from hsfusion.runs.joint import joint_metrics

    options = options_of(cfg, "train")
    with resume_advice(cfg, options, "train"), training_log():
        trained = runs.train_jointly(several_scenes(cfg), group_weights=cfg.scene.group_weights, **options)
    if any(run.folder is None for run in trained):
        return
    for name, run in zip(joint_metrics(trained)["scenes"], trained, strict=True):
        print(f"{name}:\n{run.summary()}")
    test = joint_metrics(trained)["test"]
    print(f"all scenes: overall accuracy {test['overall_accuracy']:.4f}, kappa {test['kappa']:.4f}")


def command() -> None:
    """Entry point of the command."""
    run_app(train, "train")


if __name__ == "__main__":  # processes of a distributed run start here
    from hsfusion.cli.main import run_command

    raise SystemExit(run_command("train"))
