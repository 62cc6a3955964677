"""Going on with an interrupted run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.descriptions import ConfigurationLoader, read_text
from hsfusion.cli.messages import CONF
from hsfusion.errors import InputError, printable
from hsfusion.nn import FusionNetwork, SeveralNetworks
from hsfusion.training.checked_values import Unfit, shown
from hsfusion.training.checkpoint_file import check_fits, read_checkpoint
from hsfusion.training.classifier import FusionClassifier

# what may differ: nothing of it changes what the run computes
_FREE = ("resume", "run_dir", "name", "progress", "threads", "logger", "trainer.accelerator", "trainer.devices")
_MOST_BYTES, _DEEPEST = 2**24, 12  # of config.yaml; bands by the thousand are the longest that it holds
_CONSTRUCTOR = re.compile(r"_[a-z]\w*_?")  # keys such as _target_: names of code
_CONSTRUCTORS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


def checkpoint_of(configuration: dict[str, Any]) -> Path | None:
    """The checkpoint that ``resume`` names; None where it names nothing.

    Args:
        configuration: of the run that is to go on, see :func:`hsfusion.cli.descriptions.with_descriptions`.

    Raises:
        InputError: if there is none, it is damaged, holds more than numbers and words, or the run had another
            configuration.
    """
    if configuration["resume"] is None:
        return None
    run = Path(str(configuration["resume"]))
    path = run / "checkpoints" / "last.ckpt"
    # Lightning would take names like these for addresses on the network, or files in archives
    if "::" in str(run.absolute()):
        raise InputError(run, field="resume", value="a name with ::", expected="a run folder", fix="rename the folder")
    for file in (path, run / "config.yaml"):
        if not file.is_file():
            raise InputError(
                run, field=str(file.relative_to(run)), value="missing", expected="a run folder", fix="correct resume"
            )
    before = _read_config(run / "config.yaml")
    _check_code(run / "config.yaml", before, configuration)
    _check_command(run, before, configuration)
    _check_same(run, _settings(before), _settings(configuration))
    _read(path)
    return path.absolute()


def check_checkpoint(path: Path, cfg: DictConfig, network: FusionNetwork | SeveralNetworks) -> None:
    """Checks that a checkpoint has the form of what is to be trained, before a run folder is made.

    Raises:
        InputError: naming the part that has not.
    """
    module = FusionClassifier(
        network, optimizer=instantiate(cfg.optimizer), total_steps=1, seed=0
    )  # its numbers do not matter, its form does
    try:
        check_fits(_read(path), module)
    except Unfit as error:
        raise _damaged(path, error) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_checkpoint(path)
    except Unfit as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise _damaged(path, Unfit("content", f"unreadable ({error.strerror})", "a whole checkpoint")) from error


def _damaged(path: Path, error: Unfit) -> InputError:
    return InputError(path, field=error.field, value=error.value, expected=error.expected, fix="start a new run")


def _read_config(path: Path) -> Any:
    """The configuration of a run as plain values: nothing in it is resolved, let alone called."""
    try:
        text = read_text(path, most_bytes=_MOST_BYTES)
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):  # before it is put together: a few lines could fill the memory
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
                raise Unfit("content", f"an alias, or over {_DEEPEST} deep", "values as a run writes them")
        content = yaml.load(text, ConfigurationLoader)
        if not isinstance(content, dict):
            raise Unfit("content", shown(content), "keys and values")
    except InputError:
        raise
    except Unfit as error:
        raise InputError(
            path, field=error.field, value=error.value, expected=error.expected, fix="start a new run"
        ) from error
    except Exception as error:  # whatever damaged YAML makes PyYAML raise
        reason = getattr(error, "problem", None) if isinstance(error, yaml.YAMLError) else type(error).__name__
        raise InputError(
            path, field="content", value=f"unreadable ({reason})", expected="that of a run", fix="start a new run"
        ) from error
    return content


def _check_code(path: Path, before: Any, now: Any) -> None:
    """Refuses names of code that neither hsfusion nor the user's own configuration knows; none of them is called."""
    known = {
        target for file in CONF.rglob("*.yaml") for _, target in _code(OmegaConf.to_container(OmegaConf.load(file)))
    }
    known |= {target for _, target in _code(now)}
    for key, value in _code(before):
        if key not in _CONSTRUCTORS or (key == "_target_" and value not in known):
            raise InputError(
                path, field=key, value=value, expected="what hsfusion train writes there", fix="start a new run"
            )


def _code(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str) and _CONSTRUCTOR.fullmatch(key):
                yield key, shown(item)
            yield from _code(item)
    elif isinstance(value, list):
        for item in value:
            yield from _code(item)


def _check_command(run: Path, before: Any, now: Any) -> None:
    was, this = ("finetune" if "pretrained" in config else "train" for config in (before, now))
    if was != this:
        raise InputError(
            "command line",
            field="resume",
            value=f"a run of hsfusion {was}",
            expected=f"one of hsfusion {this}",
            fix=f"hsfusion {was} resume={run}, with the words that it was started with",
        )


def _check_same(run: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for key in sorted(before.keys() | now.keys()):
        was = before.get(key)
        if was != now.get(key):
            said = was if isinstance(was, int | float | None) else printable(was)
            name = printable(key)
            raise InputError(
                "command line",
                field=name,
                value=now.get(key),
                expected=f"{said} as in {run}",
                fix=f"resume with {name}={said}, or start a new run",
            )


def _settings(content: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), child)
        elif not any(prefix == key or prefix.startswith(f"{key}.") for key in _FREE):
            flat[prefix] = value

    walk("", content)
    return flat
