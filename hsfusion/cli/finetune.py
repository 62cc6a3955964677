"""``hsfusion finetune``: a trained network on a new scene."""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig

from hsfusion.cli.hydra_app import run_app
from hsfusion.errors import InputError


def finetune(cfg: DictConfig) -> None:
    """Transfers a trained network to a scene, trains it on, and fills a run folder."""
    from hsfusion import runs
    from hsfusion.cli.experiment import options_of, register_backbones, resume_advice, scene_of, show_warnings
    from hsfusion.nn import DEFAULT_BACKBONE
    from hsfusion.runs.finetuning import pretrained_model
    from hsfusion.runs.folder import training_log

    show_warnings()
    check_words(cfg)
    register_backbones(cfg.backbones)
    _, header = pretrained_model(str(cfg.pretrained))
    same = {key: value for key, value in header.architecture.items() if key in cfg.model and key != "keep_bands"}
    same.setdefault("backbone", DEFAULT_BACKBONE)
    cfg.model.update(same)  # what config.yaml shall say; bands are chosen by the network from scratch only
    options = options_of(cfg, "finetune")
    with resume_advice(cfg, options, "finetune"), training_log():
        run = runs.finetune(str(cfg.pretrained), scene_of(cfg), scratch_epochs=cfg.scratch_epochs, **options)
    if run.folder is not None:  # None on all but the first process of a distributed run
        print(run.summary())


def check_words(cfg: DictConfig) -> None:
    """Refuses words that fine-tuning cannot go by.

    Raises:
        InputError: naming the first.
    """
    if not isinstance(cfg.freeze, ListConfig):
        _refuse("freeze", cfg.freeze, "a list of parts", "write freeze=[cnn]")
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    allowed = () if cfg.scratch_epochs is None else ("model.keep_bands=",)
    bare = [word.lstrip("+~") for word in words]
    kept = [word for word in bare if word.startswith(("model.", "model/")) and not word.startswith(allowed)]
    if kept or (cfg.scratch_epochs is None and any(word.startswith("groups") for word in words)):
        _refuse(
            "model and groups",
            ", ".join(kept) or "given",
            "nothing: they are those of the pretrained model",
            "leave them out; groups=… and model.keep_bands=… are for scratch_epochs only",
        )
    if cfg.scratch_epochs is not None and cfg.trainer.devices not in (1, "1", "auto"):
        _refuse(
            "trainer.devices",
            cfg.trainer.devices,
            "1 with scratch_epochs",
            "leave out scratch_epochs, and train the other network by itself",
        )


def _refuse(field: str, value: object, expected: str, fix: str) -> None:
    raise InputError("command line", field, value, expected, fix)


def command() -> None:
    """Entry point of the command."""
    run_app(finetune, "finetune")


if __name__ == "__main__":  # processes of a distributed run start here
    from hsfusion.cli.main import run_command

    raise SystemExit(run_command("finetune"))
