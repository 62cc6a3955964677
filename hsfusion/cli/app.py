"""Hydra apps: composing and checking configurations, and Hydra's errors in one line with the closest valid key."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import Field, fields
from itertools import pairwise
from pathlib import Path
from textwrap import fill, indent
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from hsfusion.cli.main import guarded, report, shown
from hsfusion.cli.words import CONF, fixed_keys, hydra_words, more_arguments
from hsfusion.errors import InputError, correction
from hsfusion.runs.settings import ModelSettings, TrainSettings, limits_of
from hsfusion.scenes.description import active_keys, check_scene_value, commented_keys, expected_of, read_configuration

_RUN = "a run folder, or a model.safetensors"
_RESUMABLE = ("train", "finetune")
_TARGET = re.compile(r"_target_: *(\S+)")
_HYDRA = JobReturn.return_value, Hydra.get_mode  # both are replaced while a command runs
_search = ExitStack()  # locks that a search holds until it ends
_EXPECTED = {"run": _RUN, "pretrained": _RUN, "folder": "a folder"}  # of keys without a default

# part of the name of a command -> keys of its defaults that it does not accept
_NOT = {"benchmark": "(seed|run_dir|sweep_dir|resume|optimized_metric)$", "finetune": r"model\.(?!keep_bands)"}
# names of keys in other programs
_MEANT = {"ckpt_path": "resume", "lr": "optimizer.lr", "batch_size": "data.batch_size"}
_MEANT |= dict.fromkeys(("epochs", "max_epochs"), "trainer.max_epochs")


def run_app(task: Callable[[DictConfig], object], config_name: str) -> None:
    """Composes a configuration from ``conf/`` and the command line and calls the task with it, once or in a multirun.

    In a multirun a run that fails does not stop the others: each failure is one line, and the exit code is that of the
    first.
    """
    codes, failures = list[int](), list[Exception]()

    def checked(cfg: DictConfig) -> object:
        values: list[object] = []
        if HydraConfig.get().runtime.choices["hydra/launcher"] != "basic":
            OmegaConf.update(cfg, "progress", False, force_add=True)  # of several processes in one terminal
        elif not is_search():
            codes.append(guarded(lambda: values.append(_run(cfg, task, config_name, fixed))))
            return values[0] if values else None
        return _run(cfg, task, config_name, fixed)

    def value_of(done: JobReturn) -> object:  # Hydra would print lines of its own, and stop at the first failure
        value, cfg = done._return_value, done.hydra_cfg
        if done.status == JobStatus.FAILED:
            if not cfg or cfg.hydra.runtime.choices["hydra/sweeper"] != "basic":
                failures.append(value)
                raise value
            codes.append(report(value))
        return value

    _check_config_dir()
    if {"-h", "--help"} & set(words := hydra_words(sys.argv[1:], config_name)):
        show_help(config_name, words)
        return
    fixed = fixed_keys(words)
    sys.argv[1:] = [*words, *(["hydra.sweep.dir=${sweep_dir}"] if "sweep_dir" in fixed else [])]
    read = property(value_of, _HYDRA[0].fset)
    JobReturn.return_value, Hydra.get_mode = read, _mode  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with tempfile.TemporaryDirectory(prefix="hsfusion-") as folder, _search:
            os.environ |= {"HYDRA_FULL_ERROR": "1", "HSFUSION_SWEEP": folder}  # for Hydra's errors, and its files
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(checked)()
    except ValueError as error:  # of Optuna, where every trial failed
        raise (first := failures[0] if failures and "Record does not" in str(error) else error) from first.__cause__
    finally:
        JobReturn.return_value, Hydra.get_mode = _HYDRA  # pyright: ignore[reportAttributeAccessIssue]
    if failed := [code for code in codes if code]:
        raise SystemExit(failed[0])


def _mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """Whether this is a multirun; Hydra's own method hides errors of the configuration, and blames another argument."""
    return self.compose_config(config_name, overrides, RunMode.MULTIRUN, validate_sweep_overrides=False).hydra.mode


def _run(cfg: DictConfig, task: Callable[[DictConfig], object], config_name: str, fixed: Collection[str]) -> object:
    """One run; a run that is finished in its sweep is not repeated."""
    resumable = config_name in _RESUMABLE
    reached = _take_place(cfg, fixed) if resumable and cfg.sweep_dir else None
    if reached is not None:
        run = Path(cfg.run_dir)
        check_record(cfg, run, read_configuration(run / "config.yaml"), config_name)
        print(f"finished     {run}")
        return reached.get(cfg.optimized_metric)
    composed = resumed(cfg, config_name) if resumable and cfg.resume else cfg
    check(composed, config_name)
    return task(composed)


def is_search() -> bool:
    """Whether a sweeper chooses the settings by the results of earlier runs."""
    return HydraConfig.initialized() and HydraConfig.get().runtime.choices["hydra/sweeper"] != "basic"


def _take_place(cfg: DictConfig, fixed: Collection[str]) -> dict[str, float] | None:
    """Sets the folder of a run in ``sweep_dir``, and the run to resume; returns the accuracies of a finished one."""
    from hsfusion.runs.folder import place_in_sweep

    for key in ("run_dir", "resume"):
        if cfg[key] is not None:
            raise InputError("command line", key, cfg[key], "null with sweep_dir", f"remove {key} or sweep_dir")
    words = [word for word in HydraConfig.get().overrides.task if word.partition("=")[0] not in fixed]
    folder, start, reached = place_in_sweep(Path(str(cfg.sweep_dir)), words)
    cfg.run_dir, cfg.resume = str(folder), None if start is None else str(start)
    return reached


class TrialTable(Callback):
    """Creates the folder of an Optuna study, and at the end a table and a figure of its trials."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Creates the folder, which the database needs; a study that was killed runs only the rest of its trials."""
        if code := guarded(lambda: self._start(config)):  # Hydra lets pass what a callback raises
            raise SystemExit(code)

    def _start(self, config: DictConfig) -> None:
        from hydra_plugins.hydra_optuna_sweeper import _impl  # pyright: ignore[reportMissingImports]

        from hsfusion.cli.commands import configuration_of
        from hsfusion.runs import folder, search

        sweeper, sweep = config.hydra.sweeper, Path(config.hydra.sweep.dir)
        _search.enter_context(folder.held(sweep))
        words = [*(f"{key}={value}" for key, value in (sweeper.params or {}).items()), *config.hydra.overrides.task]
        space, fixed = _impl.create_params_from_overrides(words)
        given = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        given = configuration_of(given), {key: of for key, of in space.items() if key not in fixed}
        with read_write(config.hydra):
            sweeper.n_trials -= search.continue_study(sweeper.study_name, sweeper.storage, sweep, *given)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Writes and prints the table, and draws a figure."""
        from hsfusion.runs.search import write_trials

        sweeper, folder = config.hydra.sweeper, Path(config.hydra.sweep.dir)
        print(*write_trials(sweeper.study_name, sweeper.storage, folder, metric=config.optimized_metric), sep="\n")


def check(cfg: DictConfig, config_name: str) -> None:
    """Makes sure that keys are known and have values, and scenes values of the right type; settings check the rest."""
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        key = missing[0]
        expected = _EXPECTED.get(key) or expected_of(key.rpartition(".")[2]) or "a file"
        raise InputError("configuration", key, "missing", expected, f"add {key}=VALUE")
    if unknown := [str(key) for key in cfg if key not in _root_keys(config_name)]:
        raise InputError("command line", "key", unknown[0], "a known key", "remove it")
    for path in ("scene", "scene.of"):  # a simulated scene holds another one
        scene = OmegaConf.select(cfg, path)
        if isinstance(scene, DictConfig):
            for key, value in plain(scene).items():
                check_scene_value("command line", str(key), value, field=f"{path}.{key}")


def resumed(cfg: DictConfig, config_name: str) -> DictConfig:
    """The configuration of the run that ``resume`` names, read as data; a call that contradicts it is refused.

    The call sets what does not change the run (:data:`hsfusion.runs.folder.FREE`) and what is imported: a
    ``_target_`` of the record is called only if conf/, a file of ``--config-dir`` or the call names it, too.
    """
    from hsfusion.runs.folder import FREE, recorded_configuration

    record = recorded_configuration(run := Path(str(cfg.resume)))
    given = check_record(cfg, run, record, config_name)
    files = [path for folder in (CONF, *_config_dirs()) for path in Path(folder).rglob("*.yaml")]
    known = {target for path in files for target in _TARGET.findall(path.read_text(encoding="utf-8"))}
    if calls := sorted(_calls(record) - known - _calls(plain(cfg))):
        fix = "repeat the arguments that named it when the run was started"
        raise InputError(run / "config.yaml", "_target_", calls[0], "one that conf/ or the command line names", fix)
    result = OmegaConf.create({**record, "scene": _without_contents(record["scene"])})
    for key in (*FREE, "backbones"):
        of_call = key in ("resume", "run_dir", "sweep_dir", "logger", "optimized_metric", "backbones")
        value = OmegaConf.select(cfg, key, default=...)
        if value is not ... and (of_call or any(f"{key}.".startswith(f"{word}.") for word in given)):
            OmegaConf.update(result, key, value, merge=False, force_add=True)
    return result


def check_record(cfg: DictConfig, run: Path, record: dict[str, Any], config_name: str) -> set[str]:
    """Refuses a call that contradicts the recorded configuration of a run; returns the keys of the call."""
    from hsfusion.runs.folder import contradiction, leaves

    if unknown := sorted(record.keys() - cfg.keys()):
        fix = "resume with the command that started the run, or start a new run"
        raise InputError(run / "config.yaml", "key", unknown[0], f"a key of hsfusion {config_name}", fix)
    keys = (word.lstrip("+~").partition("=")[0] for word in HydraConfig.get().overrides.task)
    given = {key.rpartition("@")[2].replace("/", ".") for key in keys}
    before, default = leaves(record), leaves(plain(compose(config_name)))
    for key, value in leaves(plain(cfg)).items():
        part, differs = any(key.startswith(f"{word}.") for word in given), value != default.get(key)
        of_choice = part and (differs or key.endswith("_target_"))
        # in a sweep a call sets all keys; which ones an experiment sets does not show
        meant = (of_choice or cfg.sweep_dir or (differs and "experiment" in given)) and not re.match(
            _NOT.get(config_name, "$"), key
        )
        if (key in given or meant) and value != before.get(key):
            raise contradiction(run, key, value, before.get(key))
    return given


def _calls(value: Any) -> set[str]:
    """What instantiating a configuration would call, and texts that OmegaConf would resolve."""
    entries = active_keys(value)
    return {str(of) for field, of in entries if field.rpartition(".")[2] == "_target_" or "${" in str(of)}


def _without_contents(scene: Any) -> Any:
    """A scene without the contents of its descriptions, which are read again."""
    if not isinstance(scene, dict):
        return scene
    return {key: _without_contents(value) for key, value in scene.items() if key != "contents"}


def plain(value: Any) -> Any:
    """A part of a configuration as plain values, resolved."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _root_keys(name: str) -> set[str]:
    """The keys of a command: those of its file, of its defaults, and its groups."""
    config = OmegaConf.load(CONF / f"{name}.yaml")
    keys = {str(key) for key in config}
    for entry in config.defaults:
        if isinstance(entry, str):
            keys |= set() if entry == "_self_" else _root_keys(entry)
        else:
            keys |= {str(group).rpartition("@")[2] for group in entry}
    return keys


def _check_config_dir() -> None:
    """Refuses files of ``--config-dir`` with the name of a packaged one, because Hydra would use the latter."""
    for folder in _config_dirs():
        for path in Path(folder).rglob("*.yaml"):
            if (CONF / path.relative_to(folder)).exists():
                raise InputError(path, "name", path.name, "a name that hsfusion does not use", "rename the file")


def command_again(command: str, *more: str) -> str:
    """The command that repeats this run, in a new folder, with ``more`` arguments after its own."""
    return shown(*words_again(command), *more)


def words_again(command: str) -> list[str]:
    """The arguments that repeat this run, in a new folder."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    words = [word for word in words if not word.lstrip("+").startswith(("run_dir=", "sweep_dir=", "resume="))]
    return ["hsfusion", *command.split(), *(f"--config-dir={folder}" for folder in _config_dirs()), *words]


def _config_dirs() -> list[str]:
    words = sys.argv[1:]
    folders = [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    return folders + [after for word, after in pairwise(words) if word in {"--config-dir", "-cd"}]


def explain(error: BaseException) -> str | None:
    """The line for an error of Hydra or OmegaConf; None for any other error."""
    text = str(error)
    if isinstance(error, InstantiationException):
        part = re.search(r"full_key: (\S+)", text)
        where = part.group(1) if part else "configuration"
        return f"{where}: {error.__cause__ or error}. Fix: correct the configuration."
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    option = re.search(r"Could not find '([^']+)'.*?Available options in '[^']*':(.*?)Config search", text, re.DOTALL)
    if option:
        (group, _, name), choices = option.group(1).rpartition("/"), option.group(2).split()
        if group.startswith("hydra/"):
            plugin = f"hydra-{name.partition('_')[0]}-{group.partition('/')[2]}"
            fix = f"pip install {plugin}" + (" 'sqlalchemy<2'" if name == "optuna" else "")
            expected = f"an installed plugin: {' | '.join(choices)}"
            return str(InputError("command line", group, name, expected, fix))
        fix = correction(name, choices, "choose one of these", prefix=f"{group}=", least=0.4)
        return str(InputError("command line", group, name, " | ".join(choices), fix))
    if key := re.search(r"Could not override '([^']+)'", text):
        return str(InputError("command line", "key", *_unknown_key(key.group(1))))
    if isinstance(error, OverrideParseException):
        return str(InputError("command line", "argument", error.override, "key=value", "correct it"))
    return f"command line: {text.splitlines()[0].rstrip('.')}, expected key=value. Fix: correct the argument."


def _unknown_key(key: str) -> tuple[str, str, str]:
    """The key, what is expected instead, and how to correct it."""
    key = key.removeprefix("scene@")  # as scene.of=NAME is handed to Hydra
    if key in _MEANT:
        return key, "a key of the configuration", f"did you mean {_MEANT[key]}?"
    group, last = key.partition(".")[0], key.rpartition(".")[2]
    valid = sorted({*commented_keys(CONF), *(f"{group}.{name}" for name in more_arguments(group))})
    if key in valid:
        return key, "a key of this command", "it belongs to another command, or another choice of the group"
    close = difflib.get_close_matches(key, valid, 1, 0.5) or [
        other for other in valid if difflib.SequenceMatcher(None, last, other.rpartition(".")[2]).ratio() > 0.7
    ]
    fix = f"did you mean {close[0]}?" if close else "hsfusion COMMAND --help lists the keys"
    return key, "a key of the configuration", fix


def show_help(config_name: str, words: Sequence[str]) -> None:
    """Prints the groups and keys of a command under these arguments, with the comments of conf/."""
    groups, keys = groups_and_keys(config_name, words)
    print(f"hsfusion {config_name.replace('_', ' ')} [key=value ...]\n\nConfig groups:")
    for group, name, options in groups:
        print(fill(f"  {group}={name}  one of: {options}", 110, subsequent_indent=" " * 6))
    print("\nKeys:")
    part = ""
    for key, value, comment in keys:
        of, dot, _ = key.partition(".")
        print("\n" * (bool(dot) and of != part) + f"  {key}={value}")
        if comment:
            print(indent(fill(comment, 104), " " * 6))
        part = of


def groups_and_keys(config_name: str, words: Sequence[str] = ()) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Groups of a command (name, choice, all choices), and keys (name, value, comment), under these arguments."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(config_name, overrides=[word for word in words if "=" in word], return_hydra_config=True)
    chosen = {group: name for group, name in cfg.hydra.runtime.choices.items() if not group.startswith("hydra/")}
    comments = commented_keys(CONF, config_name, *map(str, chosen.values()), "train")
    groups: list[tuple[str, ...]] = []
    for group, name in chosen.items():
        options = sorted(path.stem for path in (CONF / group.partition("@")[0]).glob("*.yaml"))
        groups.append((group, "null" if name is None else name, ", ".join(options)))
    hidden = "|".join(keys for part, keys in _NOT.items() if part in config_name) or "$"
    values: Any = OmegaConf.to_container(cfg, resolve=False)
    del values["hydra"]
    keys: list[tuple[str, ...]] = []
    fields_of = schema()
    moved = {package: group for group, _, package in (name.partition("@") for name in chosen) if package}
    for name, value in sorted(values.items(), key=lambda item: isinstance(item[1], dict)):
        for key, of in _leaves(value, name):
            if not re.match(hidden, key):
                last = f"{moved.get(name, name)}.{key.rpartition('.')[2]}"  # of a scene in a scene
                text = json.dumps(of, ensure_ascii=False).replace(chr(34), "")
                what = next(filter(None, map(comments.get, (key, last, key.rpartition(".")[0]))), "")
                keys.append((key, text, what + limits_of(fields_of.get(key))))
    return groups, keys


def schema() -> dict[str, Field[Any]]:
    """Key of the command line -> the field of the settings that it fills."""
    from hsfusion.evidence.jobs import EvidenceSettings
    from hsfusion.runs.prediction import PredictSettings

    parts = (PredictSettings, TrainSettings, ModelSettings, EvidenceSettings)
    return {part.keys()[entry.name]: entry for part in parts for entry in fields(part)}


def _leaves(value: Any, key: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(key, value)]
    return [leaf for name in value if str(name)[0] != "_" for leaf in _leaves(value[name], f"{key}.{name}")]
