"""Scene descriptions: a YAML file that says where a scene's files are and what their numbers mean.

Nothing in a description is called or resolved. It is parsed into plain values of known keys and types, and scenes are
opened from those: it never becomes part of the composed configuration, where Hydra would call what it names in
``_target_`` and OmegaConf would resolve ``${oc.env:NAME}``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import yaml

from hsfusion.errors import InputError, printable
from hsfusion.scenes.labels import LabelledScene
from hsfusion.scenes.mosaic import join_scenes
from hsfusion.scenes.opening import open_labelled_scene, open_scene, open_with_sources
from hsfusion.scenes.scene import Scene

_TARGET = "hsfusion.scenes.open_labelled_scene"
_LARGEST = 2**63  # of whole numbers
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
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
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


def _is_word(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return type(value) is int and abs(value) <= _LARGEST


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _is_name(value: object) -> bool:
    return _is_word(value) or _is_number(value)


def _is_interval(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _list_of(*kinds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(any(holds(item) for holds in kinds) for item in value)


def _by_name(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_name, value)) and all(map(_is_word, value.values()))


_WORD = (_is_word, "a word (in quotation marks where it looks like a number)")
_FILE = (_is_word, "a file")
_NUMBER = (_is_number, "a number")
_WORDS = _list_of(_is_word)
# key of a scene -> whether a value may stand there, and what may; on command lines and in descriptions alike
_KINDS: dict[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(("cube", "labels", "path", "file"), _FILE),
    **dict.fromkeys(("variable", "grid", "wavelength_unit", "labels_variable", "class_field"), _WORD),
    **dict.fromkeys(("scale", "offset", "nodata"), _NUMBER),
    "name": (_is_name, "a word"),
    "sensor": (_is_word, "the name of a sensor, or a CSV file of its bands"),
    "files": (_WORDS, "a list of files"),
    "scenes": (_WORDS, "a list of descriptions (.yaml) and names of scenes"),
    "axes": (_WORDS, "a list of the words band, row and col, such as [band,row,col]"),
    "wavelengths": (lambda v: _is_word(v) or _list_of(_is_number)(v), "a file, or a list of numbers"),
    "bad_bands": (
        _list_of(_is_word, _is_interval),
        "a list of intervals [first_nm, last_nm] and names, such as [water_vapour, [400, 420]]",
    ),
    "unlabelled": (lambda v: _is_whole(v) or _list_of(_is_whole)(v), "a code, or a list of codes"),
    "class_names": (
        lambda v: _WORDS(v) or _by_name(v),
        "names by code, such as {1: corn, 2: woods}, or a list of names",
    ),
    "class_colors": (
        lambda v: _WORDS(v) or _by_name(v),
        'colours by code, such as {1: "#e6b800"}, or a list of colours',
    ),
    "sources": (_by_name, "files by name, such as {lidar: dsm.tif}"),
}
#: the keys that take one word or one path
WORD_KEYS = frozenset(key for key, (holds, _) in _KINDS.items() if holds("word"))
_NEVER_NULL = ("bad_bands", "unlabelled", "path", "file", "files", "scenes")


def expected_of(key: str) -> str | None:
    """What may stand in a key of a scene, in words; None for keys of another kind of scene."""
    return _KINDS[key][1] if key in _KINDS else None


def check_scene_value(source: object, key: str, value: object, *, field: str | None = None) -> None:
    """Makes sure that a value is of the type that a key of a scene takes; other keys are passed over.

    Args:
        source: the file, or the part of the configuration, that holds it.
        key: name of the key.
        value: plain values, lists and mappings of them.
        field: what messages call the key; None for its name.
    """
    if key not in _KINDS or (value is None and key not in _NEVER_NULL):
        return
    holds, expected = _KINDS[key]
    if not holds(value):
        shown = "null" if value is None else printable(value, longest=80)
        raise InputError(source, field or key, shown, expected, f"correct {field or key}")


def scene_keys() -> list[str]:
    """The keys that a description may hold: the arguments of :func:`hsfusion.scenes.open_labelled_scene`."""
    parameters = {**inspect.signature(open_labelled_scene).parameters, **inspect.signature(open_scene).parameters}
    return [name for name, one in parameters.items() if one.kind != one.VAR_KEYWORD and name != "path"]


def read_description(path: str | Path, *, needed: Sequence[str] = ("cube",)) -> dict[str, Any]:
    """Reads a description; relative paths in it start at its own folder.

    ``defaults``, and ``_target_`` where it is that of a scene, are passed over, so that one file serves here and in a
    folder of ``--config-dir``. Every other key that starts with ``_``, at any depth, and ``${`` are refused.
    """
    path = Path(path).absolute()
    content = _parsed(path, path, DescriptionLoader, what="description")
    content.pop("defaults", None)
    if content.get("_target_") == _TARGET:
        del content["_target_"]
    for field, value in _active(content):
        expected = "keys that do not start with _, and nothing with ${"
        raise InputError(path, field, printable(value, longest=80), expected, "rename or remove it")
    keys = scene_keys()
    for key, value in content.items():
        if key not in keys:
            close = get_close_matches(str(key), keys, 1)
            fix = f"did you mean {close[0]}?" if close else "remove it"
            raise InputError(path, "key", key, " | ".join(keys), fix)
        check_scene_value(path, key, value)
    content = {key: value for key, value in content.items() if value is not None}
    for key in needed:
        if key not in content:
            raise InputError(path, key, "missing", "a file", f"add {key}: PATH")
    for key in ("cube", "labels", "wavelengths"):
        if isinstance(content.get(key), str):
            content[key] = str(path.parent / content[key])
    content.setdefault("name", printable(path.stem, longest=None))
    if "sources" in content:
        content["sources"] = {name: str(path.parent / file) for name, file in content["sources"].items()}
    return content


def open_described_cube(file: str) -> Scene:
    """Opens the cube of a description; its labels, if it names any, are not looked at."""
    keywords = read_description(file)
    of_cube = {*inspect.signature(open_scene).parameters, "sources"}
    return open_with_sources(keywords["cube"], **{key: keywords[key] for key in keywords if key in of_cube})


def open_path(path: str | Path, *, labels: str | Path | None = None, **options: Any) -> Scene | LabelledScene:
    """Opens a scene: a cube, a cube with labels, or what a description (YAML) says.

    Args:
        path: the cube, in any supported format, or a description.
        labels: raster or vector file of the ground truth; None for a scene without labels.
        **options: the keys of a description: wavelengths, class_field, nodata, scale, ...; see
            :func:`hsfusion.scenes.open_scene` and :func:`hsfusion.scenes.open_labelled_scene`. A description holds its
            own.

    Returns:
        a scene with labels, to train on, or without
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


def read_descriptions(files: Sequence[str], *, needed: Sequence[str] = ("cube",)) -> list[dict[str, Any]]:
    """Reads several descriptions, for a configuration that is to say all."""
    if isinstance(files, str) or not files:
        raise InputError("scene", "files", files, "[PATH, ...]", "correct scene.files")
    return [read_description(file, needed=needed) for file in files]


def open_described(files: Sequence[str]) -> LabelledScene:
    """Opens the scenes of one description or more with their labels, joined into one."""
    described = read_descriptions(files, needed=("cube", "labels"))
    return join_scenes([open_labelled_scene(**keywords) for keywords in described])


def to_yaml(values: dict[str, Any]) -> str:
    """Plain values as YAML that :class:`ConfigurationLoader` reads back unchanged."""
    return yaml.dump(values, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)


def read_configuration(path: Path) -> dict[str, Any]:
    """The configuration of a run, as :func:`to_yaml` wrote it, as plain values: nothing in it is resolved or called."""
    return _parsed(path, path, ConfigurationLoader, what="configuration")


def parse_configuration(text: str) -> dict[str, Any]:
    """The values of a configuration that :func:`to_yaml` made text of."""
    return _parsed("configuration", text, ConfigurationLoader, what="configuration")


def _parsed(source: object, text: str | Path, loader: type[yaml.SafeLoader], *, what: str) -> dict[str, Any]:
    try:
        content = dict(yaml.load(text.read_text(encoding="utf-8") if isinstance(text, Path) else text, loader) or {})
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        reason = getattr(error, "problem", None) or getattr(error, "strerror", None) or type(error).__name__
        raise InputError(source, what, f"unreadable ({reason})", "a YAML file of keys", "correct it") from error
    return {str(key): value for key, value in content.items()}


def _active(value: Any, field: str = "") -> Iterator[tuple[str, Any]]:
    """What would be more than text in a configuration: keys such as _target_, and ${...}, each with its field."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = f"{field}.{key}" if field else str(key)
            if str(key).startswith("_") or "${" in str(key):
                yield name, item
            yield from _active(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _active(item, field)
    elif "${" in str(value):
        yield field, value
