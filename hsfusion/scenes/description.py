"""Scene descriptions: a YAML file that says where a scene's files are and what their numbers mean.

Whoever wrote a description is not trusted. It is parsed into plain values of known keys and types, and scenes are
opened from those: it never becomes part of the composed configuration, where Hydra would call what it names in
``_target_`` and OmegaConf would resolve ``${oc.env:NAME}``.
"""

from __future__ import annotations

import inspect
import re
import stat
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import yaml

from hsfusion.errors import InputError, printable
from hsfusion.scenes.joined import join_scenes
from hsfusion.scenes.labels import LabelledScene
from hsfusion.scenes.opening import open_labelled_scene, open_scene, open_with_sources
from hsfusion.scenes.scene import Scene
from hsfusion.scenes.scene_values import check_scene_value

_TARGET = "hsfusion.scenes.open_labelled_scene"
_MOST_BYTES = 2**20
_DEEPEST = 10  # of mappings and lists in one another
# what a word without quotes is read as: nothing but numbers as YAML 1.2 and Hydra write them, and null
_NUMBERS = {
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


class DescriptionLoader(yaml.SafeLoader):
    """YAML as plain values: of words without quotes, numbers and null are read as such, all others are text.

    YAML 1.1, which PyYAML reads, would take ``no`` for False, ``010`` for 8 and ``1:30`` for 90, and ``1e-4`` for text.
    A key that stands twice is an error.
    """

    yaml_implicit_resolvers: ClassVar = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        written = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for i, key in enumerate(written) if key in written[:i]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(problem=f"key {twice} twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep=deep)


class ConfigurationLoader(DescriptionLoader):
    """The same with ``true`` and ``false``, for what :func:`to_yaml` wrote."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that this module's loaders, or any of YAML 1.1, would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Writes an object that occurs twice in full both times."""
        return True


for _tag, (_pattern, _first) in _NUMBERS.items():
    for _class in (DescriptionLoader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))
DescriptionLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)\Z"), [*"~nN", ""])
ConfigurationLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)\Z"), list("tf"))


def scene_keys() -> list[str]:
    """The keys that a description may hold: the arguments of :func:`hsfusion.scenes.open_labelled_scene`."""
    parameters = {**inspect.signature(open_labelled_scene).parameters, **inspect.signature(open_scene).parameters}
    return [
        name for name, parameter in parameters.items() if parameter.kind != parameter.VAR_KEYWORD and name != "path"
    ]


def read_description(path: str | Path) -> dict[str, Any]:
    """Reads a description; relative paths in it start at its own folder.

    ``defaults``, and ``_target_`` where it is that of a scene, are passed over, so that one file serves here and in a
    folder of ``--config-dir``. Every other key that starts with ``_``, at any depth, and ``${`` are refused.

    Raises:
        InputError: if it cannot be read, or holds something else than the keys of a scene.
    """
    path = Path(path).absolute()
    content = _load(path)
    content.pop("defaults", None)
    if content.get("_target_") == _TARGET:
        del content["_target_"]
    _check_inert(path, content)
    keys = scene_keys()
    for key, value in content.items():
        if key not in keys:
            close = get_close_matches(str(key), keys, 1)
            fix = f"did you mean {close[0]}?" if close else "remove it"
            raise InputError(path, "key", key, " | ".join(keys), fix)
        check_scene_value(path, key, value)
    content = {key: value for key, value in content.items() if value is not None}
    if "cube" not in content:
        raise InputError(path, "cube", "missing", "a file", "add cube: PATH")
    for key in ("cube", "labels", "wavelengths"):
        if isinstance(content.get(key), str):
            content[key] = str(path.parent / content[key])
    content.setdefault("name", printable(path.stem, longest=None))
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


def open_path(path: str | Path, *, labels: str | Path | None = None, **options: Any) -> Scene | LabelledScene:
    """Opens a scene: a cube, a cube with labels, or what a description (YAML) says.

    Args:
        path: the cube, in any supported format, or a description.
        labels: raster or vector file of the ground truth; None for a scene without labels.
        **options: the keys of a description: wavelengths, class_field, nodata, scale, ...; see
            :func:`hsfusion.scenes.open_scene` and :func:`hsfusion.scenes.open_labelled_scene`.

    Returns:
        a scene with labels, to train on, or without

    Raises:
        InputError: if a file cannot be read, the file does not say what an option has to, or options are given with a
            description, which holds its own.
    """
    if str(path).endswith((".yaml", ".yml")):
        given = {**({} if labels is None else {"labels": labels}), **options}
        if given:
            raise InputError(path, "options", ", ".join(given), "none", "write them into the description")
        content = read_description(path)
        return open_described([str(path)]) if "labels" in content else open_described_cube(str(path))
    if labels is None:
        return open_with_sources(path, **options)
    return open_labelled_scene(path, labels=labels, **options)


def read_descriptions(files: Sequence[str]) -> list[dict[str, Any]]:
    """Reads several descriptions, for a configuration that is to say all.

    Raises:
        InputError: if one of them is not what it has to be.
    """
    if isinstance(files, str) or not files:
        raise InputError("scene", "files", files, "[PATH, ...]", "correct scene.files")
    return [read_description(file) for file in files]


def open_described(files: Sequence[str]) -> LabelledScene:
    """Opens the scenes of one description or more with their labels, joined into one.

    Args:
        files: the descriptions.

    Raises:
        InputError: if one of them is not what it has to be.
    """
    labelled = []
    for file, keywords in zip(files, read_descriptions(files), strict=True):
        if "labels" not in keywords:
            raise InputError(file, "labels", "missing", "a file", "add labels: PATH")
        labelled.append(open_labelled_scene(keywords.pop("cube"), **keywords))
    return join_scenes(labelled)


def to_yaml(values: dict[str, Any]) -> str:
    """Plain values as YAML that :class:`ConfigurationLoader` reads back unchanged."""
    return yaml.dump(values, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)


def read_configuration(path: Path, *, most_bytes: int) -> dict[str, Any]:
    """The configuration of a run, as :func:`to_yaml` wrote it, as plain values: nothing in it is resolved or called.

    Raises:
        InputError: if it cannot be read, or is no mapping.
    """
    return _parsed(
        path,
        lambda: read_text(path, most_bytes=most_bytes),
        ConfigurationLoader,
        what="configuration",
        deepest=_DEEPEST + 2,
    )


def parse_configuration(text: str) -> dict[str, Any]:
    """The values of a configuration that :func:`to_yaml` made text of."""
    return _parsed("configuration", lambda: text, ConfigurationLoader, what="configuration", deepest=_DEEPEST + 2)


def _load(path: Path) -> dict[str, Any]:
    return _parsed(path, lambda: read_text(path, most_bytes=_MOST_BYTES), DescriptionLoader, what="description")


def _parsed(
    source: object, read: Callable[[], str], loader: type[yaml.SafeLoader], *, what: str, deepest: int = _DEEPEST
) -> dict[str, Any]:
    try:
        text = read()
        _check_events(source, text, deepest)
        content = yaml.load(text, loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = getattr(error, "problem", None) or getattr(error, "strerror", None) or type(error).__name__
        raise InputError(source, what, f"unreadable ({reason})", "a YAML file of keys", "correct it") from error
    if not isinstance(content, dict | None):
        raise InputError(source, what, "a list", "keys and values", "correct it")
    return {str(key): value for key, value in (content or {}).items()}


def read_text(path: Path, *, most_bytes: int) -> str:
    """The text of a plain file that is no longer than it may be.

    Raises:
        InputError: if it is none, or longer.
        OSError, UnicodeDecodeError: if it cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
        raise InputError(path, "file", "no plain file", "a file", "name the file itself")
    if status.st_size > most_bytes:
        raise InputError(path, "size", status.st_size, f"at most {most_bytes} bytes", "shorten it")
    return path.read_text(encoding="utf-8")


def _check_inert(path: Path, value: Any, field: str = "") -> None:
    """Refuses what would be more than text in a configuration: keys such as _target_, and ${...}."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = f"{field}.{key}" if field else str(key)
            if str(key).startswith("_") or "${" in str(key):
                expected = "keys without ${ that do not start with _"
                raise InputError(path, name, printable(item, longest=80), expected, "rename or remove it")
            _check_inert(path, item, name)
    elif isinstance(value, list):
        for item in value:
            _check_inert(path, item, field)
    elif "${" in str(value):
        raise InputError(path, field, printable(value, longest=80), "text without ${", "write it out")


def _check_events(path: object, text: str, deepest: int) -> None:
    """Looks at a text before it is put together: a few lines could fill the memory, or take minutes."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise InputError(path, "alias", "*", "values", "write them out")
        if depth == 0 and isinstance(event, yaml.ScalarEvent):
            raise InputError(path, "description", "a word or a number", "keys and values", "correct it")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > deepest:
            raise InputError(path, "depth", f"over {deepest}", f"at most {deepest}", "correct the brackets")
