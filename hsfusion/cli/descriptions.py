"""Scene descriptions: a YAML file that says where a scene's files are and what their numbers mean."""

from __future__ import annotations

import inspect
import stat
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    SafeLoader,
    ScalarEvent,
    YAMLError,
    parse,
)

from hsfusion.cli.scene_values import check_scene_value
from hsfusion.errors import InputError
from hsfusion.scenes import LabelledScene, Scene, join_scenes, open_labelled_scene, open_scene, open_with_sources

_TARGET = "hsfusion.scenes.open_labelled_scene"
_MOST_BYTES = 2**20
_DEEPEST = 10  # of mappings and lists in one another


def scene_keys() -> list[str]:
    """The keys that a description may hold: the arguments of :func:`hsfusion.scenes.open_labelled_scene`."""
    parameters = {**inspect.signature(open_labelled_scene).parameters, **inspect.signature(open_scene).parameters}
    return [
        name for name, parameter in parameters.items() if parameter.kind != parameter.VAR_KEYWORD and name != "path"
    ]


def read_description(path: str | Path) -> dict[str, Any]:
    """Reads a description; relative paths in it start at its own folder.

    ``defaults`` and ``_target_`` are passed over, so that one file serves here and in a folder of ``--config-dir``.

    Raises:
        InputError: if it cannot be read, or holds something else than the keys of a scene.
    """
    path = Path(path).absolute()
    content = _load(path)
    content.pop("defaults", None)
    target = content.pop("_target_", _TARGET)
    if target != _TARGET:
        raise InputError(path, field="_target_", value=target, expected=_TARGET, fix="correct or remove it")
    keys = scene_keys()
    for key, value in content.items():
        if key not in keys:
            close = get_close_matches(str(key), keys, 1)
            fix = f"did you mean {close[0]}?" if close else "remove it"
            raise InputError(path, field="key", value=key, expected=" | ".join(keys), fix=fix)
        check_scene_value(path, key, value)
    content = {key: value for key, value in content.items() if value is not None}
    if "cube" not in content:
        raise InputError(path, field="cube", value="missing", expected="a file", fix="add cube: PATH")
    for key in ("cube", "labels", "wavelengths"):
        if isinstance(content.get(key), str):
            content[key] = str(path.parent / content[key])
    content.setdefault("name", path.stem)
    if "sources" in content:
        content["sources"] = {name: str(path.parent / file) for name, file in content["sources"].items()}
    return content


def open_described_cube(file: str) -> Scene:
    """Opens the cube of a description; its labels, if it names any, are not looked at.

    Raises:
        InputError: if it is not what it has to be.
    """
    keywords = read_description(file)
    of_cube = {*inspect.signature(open_scene).parameters, "sources"}
    return open_with_sources(keywords["cube"], **{key: keywords[key] for key in keywords if key in of_cube})


def read_descriptions(files: Sequence[str]) -> list[dict[str, Any]]:
    """Reads several descriptions, for a configuration that is to say all.

    Raises:
        InputError: if one of them is not what it has to be.
    """
    if isinstance(files, str) or not files:
        raise InputError("scene", field="files", value=files, expected="[PATH, ...]", fix="correct scene.files")
    return [read_description(file) for file in files]


def open_described(files: Sequence[str], *, contents: Sequence[Mapping[str, Any]] | None = None) -> LabelledScene:
    """Opens the scenes of one description or more with their labels, joined into one.

    Args:
        files: the descriptions.
        contents: what they say, from :func:`read_descriptions`; None to read them.

    Raises:
        InputError: if one of them is not what it has to be.
    """
    labelled = []
    for file, content in zip(files, contents or read_descriptions(files), strict=True):
        keywords = dict(content)
        if "labels" not in keywords:
            raise InputError(file, field="labels", value="missing", expected="a file", fix="add labels: PATH")
        labelled.append(open_labelled_scene(keywords.pop("cube"), **keywords))
    return join_scenes(labelled)


def _load(path: Path) -> dict[str, Any]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
            raise InputError(path, field="file", value="no plain file", expected="a file", fix="name the file itself")
        if status.st_size > _MOST_BYTES:
            raise InputError(
                path, field="size", value=status.st_size, expected=f"at most {_MOST_BYTES} bytes", fix="shorten it"
            )
        text = path.read_text(encoding="utf-8")
        _check_events(path, text)
        content = OmegaConf.to_container(OmegaConf.create(text))
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        reason = getattr(error, "problem", None) or getattr(error, "strerror", None) or type(error).__name__
        raise InputError(
            path, field="description", value=f"unreadable ({reason})", expected="a YAML file of keys", fix="correct it"
        ) from error
    if not isinstance(content, dict):
        raise InputError(path, field="description", value="a list", expected="keys and values", fix="correct it")
    return {str(key): value for key, value in content.items()}


def _check_events(path: Path, text: str) -> None:
    """Looks at a text before it is put together: a few lines could fill the memory, or take minutes."""
    depth = 0
    for event in parse(text, SafeLoader):
        if isinstance(event, AliasEvent):
            raise InputError(path, field="alias", value="*", expected="values", fix="write them out")
        if depth == 0 and isinstance(event, ScalarEvent):
            raise InputError(
                path, field="description", value="a word or a number", expected="keys and values", fix="correct it"
            )
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > _DEEPEST:
            raise InputError(
                path,
                field="depth",
                value=f"over {_DEEPEST}",
                expected=f"at most {_DEEPEST}",
                fix="correct the brackets",
            )
