"""From the composed configuration to what a run takes: scene, settings, folder."""

from __future__ import annotations

import logging
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.checking import command_again
from hsfusion.cli.main import Interrupted
from hsfusion.errors import InputError

if TYPE_CHECKING:
    from hsfusion.runs.settings import TrainSettings
    from hsfusion.scenes import LabelledScene, Scene

_NAME = re.compile(r"\w[\w-]*")  # of a scene in conf/
_OF_DATA = ("batch_size", "steps_per_epoch", "noise", "flips", "range_dropout")
_OF_TRAINING = ("seed", "threads", "class_weights", "label_smoothing", "fusion_lr_scale", "band_cost", "progress")
_OF_FINETUNING = ("patience", "freeze", "thaw_at", "lr_scales")


def settings_of(cfg: DictConfig) -> TrainSettings:
    """The settings of a training that a configuration says.

    Raises:
        InputError: if a value is out of range.
    """
    from hsfusion.runs.settings import ModelSettings, TrainSettings, replaced

    plain = {key: cfg[key] for key in _OF_TRAINING}
    plain |= {key: cfg.data[key] for key in _OF_DATA}
    plain |= {key: _to_plain(cfg[key]) for key in _OF_FINETUNING if key in cfg}
    plain["freeze"] = tuple(plain.get("freeze", ()))
    model = {**_to_plain(cfg.model), "backbone": _backbone(cfg.model.backbone)}
    return TrainSettings(
        **plain,
        epochs=cfg.trainer.max_epochs,
        figures=cfg.get("figures", True),
        groups=instantiate(cfg.groups),
        split=instantiate(cfg.split),
        model=replaced(ModelSettings(), model, prefix="model."),
        optimizer=instantiate(cfg.optimizer),
        trainer=instantiate(cfg.trainer),
        loggers=tuple(instantiate(logger) for logger in (cfg.logger or {}).values()),
    )


def register_backbones(names: Sequence[str]) -> None:
    """Imports backbones that the user vouches for, each under its dotted name, or modules that register theirs.

    Raises:
        InputError: if one cannot be imported.
    """
    from hsfusion.nn import BACKBONES, register_backbone

    for name in names:
        try:
            imported = get_object(name)
            if not isinstance(imported, ModuleType) and imported not in BACKBONES.values():
                register_backbone(name, imported)
        except (ImportError, ValueError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise InputError(
                "command line",
                "backbones",
                name,
                f"dotted names of classes or modules that Python can import ({reason})",
                "correct it, or add its folder to PYTHONPATH",
            ) from error


def _backbone(config: Any) -> Any:
    """A backbone as settings take it; a class that has no name yet gets its dotted path."""
    from hsfusion.nn import BACKBONES, register_backbone

    if not OmegaConf.is_config(config):
        return config
    maker = instantiate(config, _partial_=True, _convert_="all")
    if maker.func not in BACKBONES.values():
        register_backbone(config["_target_"], maker.func)
    return maker


def scene_of(cfg: DictConfig) -> LabelledScene:
    """Opens the scene that a configuration names.

    Raises:
        InputError: if it has no labels, or cannot be opened.
    """
    from hsfusion.scenes import LabelledScene

    labelled = instantiate(cfg.scene)
    if not isinstance(labelled, LabelledScene):
        raise InputError("command line", "scene", "without labels", "a scene with labels", "use scene=file")
    return labelled


def several_scenes(cfg: DictConfig) -> list[LabelledScene]:
    """Opens the scenes that ``scene.scenes`` names: descriptions (.yaml), names of scenes, and ``NAME@SENSOR``.

    Raises:
        InputError: if one has no labels, or cannot be opened.
    """
    from hsfusion.scenes import LabelledScene

    opened = []
    for entry in cfg.scene.scenes:
        labelled = _open(entry)
        if not isinstance(labelled, LabelledScene):
            raise _refusal("scene.scenes", entry, "scenes with labels", "add labels to its description")
        opened.append(labelled)
    return opened


def _open(entry: str) -> LabelledScene | Scene:
    from hsfusion.scenes.description import open_described
    from hsfusion.scenes.simulate import simulate

    if _is_description(entry):
        return open_described([entry])
    if "@" in entry:
        name, _, sensor = entry.rpartition("@")
        return simulate(_open(name), sensor)
    return instantiate(_named_scene(entry))


def configuration_of(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain values, resolved, with what the descriptions that it names say, as ``contents``.

    It is written into run folders, shown, and compared when a run is resumed; nothing is built from it.

    Raises:
        InputError: if a description cannot be used.
    """
    from hsfusion.scenes.description import read_descriptions

    values = _to_plain(cfg)
    scene = values.get("scene")
    for part in (scene, scene.get("of") if isinstance(scene, dict) else None):  # a simulated scene holds another one
        if isinstance(part, dict) and "files" in part:  # descriptions may change, or go
            part["contents"] = read_descriptions(part["files"])
        if isinstance(part, dict) and "scenes" in part:
            part["contents"] = [_content(entry) for entry in part["scenes"]]
    return values


def _content(entry: str) -> dict[str, Any]:
    """What an entry of ``scene.scenes`` stands for, as plain values."""
    from hsfusion.scenes.description import read_descriptions

    if _is_description(entry):
        return {"files": [entry], "contents": read_descriptions([entry])}
    if "@" in entry:
        name, _, sensor = entry.rpartition("@")
        return {"of": _content(name), "sensor": sensor}
    return _to_plain(_named_scene(entry))


def _is_description(entry: str) -> bool:
    return entry.endswith((".yaml", ".yml"))


def _named_scene(name: str) -> DictConfig:
    """The configuration of a scene that a file in conf/, or in the user's own --config-dir, names."""
    if not _NAME.fullmatch(name):
        raise _refusal("scene.scenes", repr(name), "descriptions (.yaml) and names of scenes", "correct it")
    scene = compose("train", overrides=[f"scene={name}"]).scene
    missing = sorted(OmegaConf.missing_keys(scene))
    if missing:
        raise _refusal("scene.scenes", name, f"a scene that needs no {missing[0]}", "describe it in a YAML file")
    return scene


def refuse_several(scenes: Sequence[str], **keywords: Any) -> None:
    """What the configuration calls where one scene is opened.

    Raises:
        InputError: always.
    """
    raise _refusal("scene", "several", "one scene; only hsfusion train takes several", "choose another scene")


def _refusal(field: str, value: object, expected: str, fix: str) -> InputError:
    return InputError("command line", field, value, expected, fix)


def options_of(cfg: DictConfig, command: str) -> dict[str, Any]:
    """Keywords of :func:`hsfusion.runs.train` and its kin that every training has."""
    from hsfusion.scenes.description import to_yaml

    check_devices(cfg)
    return {
        "settings": settings_of(cfg),
        "name": str(cfg.name),
        "folder": run_folder(cfg),
        "resume": cfg.resume,
        "command": command_again(command),
        "configuration": to_yaml(configuration_of(cfg)),
    }


def check_name(name: object) -> None:
    """Makes sure that the folder of a run lies inside ``runs/``.

    Raises:
        InputError: if its name leads elsewhere, or cannot be that of a folder.
    """
    from hsfusion.runs.folder import is_folder_name

    if not is_folder_name(str(name)):
        expected = 'a name that one folder can have, without / \\ : * ? " < > | and control characters'
        raise _refusal("name", name or "empty", expected, "add name=WORD")


@contextmanager
def resume_advice(cfg: DictConfig, options: Mapping[str, Any], command: str) -> Iterator[None]:
    """Where a training is interrupted, says with which command it goes on."""
    try:
        yield
    except Interrupted as interruption:
        folder = options["folder"]
        start = folder if (folder / "checkpoints" / "last.ckpt").is_file() else cfg.resume
        again = command_again(command, *([] if start is None else [f"resume={start}"]))
        interruption.advice = f"{'Start again' if start is None else 'Continue'} with: {again}"
        raise


def run_folder(cfg: DictConfig) -> Path:
    """The folder of a run: that of ``run_dir``, or a new one ``runs/<name>/<date-time-ms>-<4 hex>``.

    Raises:
        InputError: if the name leads elsewhere, or cannot be that of a folder.
    """
    check_name(cfg.name)
    if cfg.run_dir:
        return Path(str(cfg.run_dir))
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]
    return Path("runs") / str(cfg.name) / f"{now}-{secrets.token_hex(2)}"


def check_devices(cfg: DictConfig) -> None:
    """Refuses distributed runs in a multirun.

    Raises:
        InputError: if there are several devices.
    """
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN and cfg.trainer.devices != 1:
        raise InputError(
            "trainer",
            "devices",
            cfg.trainer.devices,
            "1 in a multirun",
            "start distributed runs one by one, without --multirun",
        )


def show_warnings() -> None:
    """Shows what is logged as a warning on stderr, in place of every other handler."""
    from hsfusion.runs.folder import LineFormatter

    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    screen = logging.StreamHandler(sys.stderr)
    screen.setLevel(logging.WARNING)
    screen.setFormatter(LineFormatter("hsfusion: %(message)s"))
    root.addHandler(screen)


def _to_plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
