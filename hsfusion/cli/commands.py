"""``hsfusion train``, ``finetune`` and ``predict``: from the composed configuration to scene, settings and files."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.app import command_again, is_search, plain, run_app
from hsfusion.cli.main import COMMAND, Interrupted, run_command
from hsfusion.cli.words import hydra_word
from hsfusion.errors import InputError, is_first_process, printable

if TYPE_CHECKING:
    from hsfusion.runs.run import Run
    from hsfusion.runs.settings import Settings, TrainSettings
    from hsfusion.scenes import LabelledScene


_maps: set[Path] = set()  # written by this process, in a multirun


def command() -> None:
    """Entry point of the three commands."""
    name = os.environ[COMMAND]
    _maps.clear()
    run_app({"train": train, "finetune": finetune, "predict": predict}[name], name)


def train(cfg: DictConfig) -> float | None:
    """Trains one network and fills a run folder; on several scenes, whose folders lie in it. Gives optimized_metric."""
    from hsfusion.runs import training

    with _training(cfg, "train") as options:
        if "scenes" not in cfg.scene:
            run = training.train(scene_of(cfg), **options)
            return _finished(cfg, [run], lambda: print(run.summary()))
        trained = training.train_jointly(several_scenes(cfg), **options)

    def show() -> None:
        metrics = training.joint_metrics(trained)
        for name, run in zip(metrics["scenes"], trained, strict=True):
            print(f"{name}:\n{run.summary()}")
        test = metrics["test"]
        print(f"all scenes: overall accuracy {test['overall_accuracy']:.4f}, kappa {test['kappa']:.4f}")

    return _finished(cfg, trained, show)


def finetune(cfg: DictConfig) -> float | None:
    """Transfers a trained network to a scene, trains it further, and fills a run folder. Gives optimized_metric."""
    from hsfusion.nn import DEFAULT_BACKBONE
    from hsfusion.runs import finetuning

    show_warnings()
    check_finetune_words(cfg)
    register_backbones(cfg.backbones)
    _, header = finetuning.pretrained_model(str(cfg.pretrained))
    same = {key: value for key, value in header.architecture.items() if key in cfg.model and key != "keep_bands"}
    same.setdefault("backbone", DEFAULT_BACKBONE)
    cfg.model.update(same)  # what config.yaml shall say; bands are chosen by the network from scratch only
    with _training(cfg, "finetune") as options:
        run = finetuning.finetune(str(cfg.pretrained), scene_of(cfg), scratch_epochs=cfg.scratch_epochs, **options)
    return _finished(cfg, [run], lambda: print(run.summary()))


def predict(cfg: DictConfig) -> None:
    """Classifies one scene into files."""
    from hsfusion.runs import prediction

    show_warnings()
    settings = prediction.PredictSettings(**values_of(prediction.PredictSettings, cfg))
    register_backbones(cfg.backbones)
    if cfg.get("scene") is None:
        raise _refusal("scene", "missing", "a file", "add scene=PATH")
    scene = instantiate(cfg.scene)
    out = Path(cfg.out or f"{getattr(scene, 'scene', scene).name}_map.tif")
    if out.resolve() in _maps:
        raise _refusal("out", out, "a different map for each scene", "give the scenes different names")
    _maps.add(out.resolve())
    made = prediction.predict(cfg.run, scene, out, settings=settings)
    if made.areas is not None:  # None on all but the first process
        print(*made.coverage, sep="\n", end="\n" if made.coverage else "")
        print(
            f"map        {made.out}\npage       {made.page}\nquick look {made.quick_look}\nareas      {made.table}\n"
            f"{made.pixels:,} pixels in {made.seconds:.1f} s ({made.pixels / made.seconds:,.0f} pixels/s)"
        )


def check_finetune_words(cfg: DictConfig) -> None:
    """Refuses words that would have no effect on a pretrained network, or that a network from scratch cannot have."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    allowed = () if cfg.scratch_epochs is None else ("model.keep_bands=", "groups")
    given = [word for word in words if word.lstrip("+~").startswith(("model.", "model/", "groups"))]
    if without_effect := [word for word in given if not word.lstrip("+~").startswith(allowed)]:
        fix = "leave them out; groups=… and model.keep_bands=… are for the network from scratch only"
        expected = "nothing: groups and model are those of the pretrained network"
        raise _refusal("model and groups", ", ".join(without_effect), expected, fix)
    if cfg.scratch_epochs is not None and cfg.trainer.devices not in (1, "1", "auto"):
        fix = "set scratch_epochs=null, and train the network from scratch separately"
        raise _refusal("trainer.devices", cfg.trainer.devices, "1 with scratch_epochs", fix)


@contextmanager
def _training(cfg: DictConfig, command: str) -> Iterator[dict[str, Any]]:
    """Keywords of :func:`hsfusion.train` and similar functions; says how to continue after an interruption."""
    from hsfusion.runs.folder import recorded_command, training_log
    from hsfusion.scenes.description import to_yaml

    show_warnings()
    again = (None if cfg.resume is None else recorded_command(Path(cfg.resume))) or command_again(command)
    options = {
        "settings": settings_of(cfg),
        "name": str(cfg.name),
        "folder": run_folder(cfg),
        "resume": cfg.resume,
        "command": again,
        "configuration": f"# {printable(again, longest=None)}\n{to_yaml(configuration_of(cfg))}",
    }
    try:
        with training_log():
            yield options
    except Interrupted as interruption:
        if is_search() or cfg.sweep_dir:
            interruption.continues = True
            raise
        folder = options["folder"]
        start = folder if (folder / "checkpoints" / "last.ckpt").is_file() else cfg.resume
        if start is not None and HydraConfig.get().job.chdir:  # the next call begins elsewhere
            start = Path(start).absolute()
        again = command_again(command, *([] if start is None else [f"resume={start}"]))
        interruption.advice = f"{'Start again' if start is None else 'Continue'} with: {again}"
        raise


def _finished(cfg: DictConfig, runs: Sequence[Run], show: Callable[[], None]) -> float | None:
    """Marks what is finished, then shows it; gives what a search goes by: a metric of the validation pixels."""
    from hsfusion.runs.evaluation import validation_accuracies
    from hsfusion.runs.folder import finish_in_sweep

    reached = validation_accuracies([run.trained for run in runs])
    value = reached.get(cfg.optimized_metric)
    if value is None and is_search():
        raise _refusal("split.val_fraction", "0", "validation pixels, which a search needs", "raise it")
    if cfg.sweep_dir:
        finish_in_sweep(Path(cfg.run_dir), reached)
    if all(run.folder is not None for run in runs):  # None on all but the first process of a distributed run
        show()
    return value


def settings_of(cfg: DictConfig) -> TrainSettings:
    """The settings of a training, which check the values of a configuration."""
    from hsfusion.runs.evaluation import VALIDATION_METRICS
    from hsfusion.runs.settings import TrainSettings, check_value

    check_value("optimized_metric", cfg.optimized_metric, "str", choices=VALIDATION_METRICS)
    values = values_of(TrainSettings, cfg)
    make = partial(instantiate, _convert_="all")  # with lists and mappings of Python
    values |= {part: make(cfg[part]) for part in ("groups", "split", "optimizer", "trainer")}
    values["loggers"] = tuple(make(logger) for logger in (cfg.logger or {}).values())
    values["callbacks"] = tuple(make(callback, _partial_=True) for callback in (cfg.callbacks or {}).values())
    values["model"] = plain(cfg.model) | {"backbone": _backbone(cfg.model.backbone)}
    return TrainSettings(**values)


def values_of(settings: type[Settings], cfg: DictConfig) -> dict[str, Any]:
    """The fields of settings that a configuration has a key for, as plain values."""
    given = {name: plain(OmegaConf.select(cfg, key, default=...)) for name, key in settings.keys().items()}
    return {name: tuple(of) if isinstance(of, list) else of for name, of in given.items() if of is not ...}


def _backbone(config: Any) -> Any:
    """A backbone as settings take it; a class that has no name yet gets its dotted path."""
    from hsfusion.nn import BACKBONES, register_backbone

    if not OmegaConf.is_config(config):
        return config
    maker = instantiate(config, _partial_=True, _convert_="all")
    if maker.func not in BACKBONES.values():
        register_backbone(config["_target_"], maker.func)
    return maker


def register_backbones(names: Sequence[str]) -> None:
    """Imports backbones, each under its dotted name, or modules that register theirs."""
    from hsfusion.nn import BACKBONES, register_backbone

    for name in names:
        try:
            imported = get_object(name)
            if not isinstance(imported, ModuleType) and imported not in BACKBONES.values():
                register_backbone(name, imported)
        except (ImportError, ValueError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            expected = f"dotted names of classes or modules that Python can import ({reason})"
            raise _refusal("backbones", name, expected, "correct it, or add its folder to PYTHONPATH") from error


def scene_of(cfg: DictConfig) -> LabelledScene:
    """Opens the scene that a configuration names, with its labels."""
    from hsfusion.runs.experiment import as_labelled

    return as_labelled(instantiate(cfg.scene))


def several_scenes(cfg: DictConfig) -> list[LabelledScene]:
    """Opens the scenes that ``scene.scenes`` names: descriptions (.yaml), names of scenes, and ``NAME@SENSOR``."""
    from hsfusion.runs.experiment import as_labelled

    return [as_labelled(instantiate(_scene_config(entry))) for entry in cfg.scene.scenes]


def refuse_several(scenes: Sequence[str], **keywords: Any) -> None:
    """What the configuration calls where one scene is opened."""
    raise _refusal("scene", "several", "one scene; only hsfusion train takes several", "choose another scene")


def _scene_config(entry: str) -> dict[str, Any]:
    """The configuration of a description, a named scene, or a scene as a sensor would see it."""
    if entry.endswith((".yaml", ".yml")):
        return {"_target_": "hsfusion.scenes.description.open_described", "files": [entry], "_convert_": "all"}
    name, _, sensor = entry.rpartition("@")
    if name:
        return {"_target_": "hsfusion.scenes.simulate.simulate", "of": _scene_config(name), "sensor": sensor}
    return plain(compose("train", overrides=[hydra_word(f"scene={entry}", multirun=False)]).scene)


def configuration_of(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain values, resolved, with what the descriptions that it names say, as ``contents``."""
    values = plain(cfg)
    _add_contents(values.get("scene"))
    return values


def _add_contents(scene: Any) -> None:
    """Adds what descriptions say, because they may change or be deleted."""
    from hsfusion.scenes.description import read_descriptions

    if isinstance(scene, dict):
        _add_contents(scene.get("of"))  # a simulated scene holds another one
        if "files" in scene:
            scene["contents"] = read_descriptions(scene["files"])
        if "scenes" in scene:
            scene["contents"] = [_scene_config(entry) for entry in scene["scenes"]]
            for part in scene["contents"]:
                _add_contents(part)


def run_folder(cfg: DictConfig) -> Path:
    """The folder of a run: that of ``run_dir``, or a new one ``runs/<name>/<date-time-ms>-<4 hex>``."""
    from hsfusion.runs.folder import is_folder_name

    if cfg.name is None or not is_folder_name(str(cfg.name)):
        expected = 'a name valid for a folder on any system, without / \\ : * ? " < > | and control characters'
        raise _refusal("name", cfg.name or "empty", expected, "add name=WORD")
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN and cfg.trainer.devices != 1:
        fix = "start these runs one by one: every further process would start all of them"
        raise _refusal("trainer.devices", cfg.trainer.devices, "1 in a multirun", fix)
    if cfg.run_dir:
        return Path(str(cfg.run_dir))
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]
    return Path("runs") / str(cfg.name) / f"{now}-{secrets.token_hex(2)}"


def show_warnings() -> None:
    """Shows logged warnings on stderr, instead of by any other handler."""
    from hsfusion.runs.folder import LineFormatter

    screen = logging.StreamHandler(sys.stderr)
    screen.setLevel(logging.WARNING if is_first_process() else logging.CRITICAL)
    screen.setFormatter(LineFormatter("hsfusion: %(message)s"))
    logging.getLogger().handlers[:] = [screen]


def _refusal(field: str, value: object, expected: str, fix: str) -> InputError:
    return InputError("command line", field, value, expected, fix)


if __name__ == "__main__":  # processes of a distributed run start here
    raise SystemExit(run_command(os.environ[COMMAND]))
