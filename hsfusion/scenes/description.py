"""Scene descriptions: YAML files that name the files of a scene and the meaning of their numbers.

Nothing in a description is called or resolved: it is parsed into plain values of known keys and types, and never
becomes part of the composed configuration, where Hydra would call its ``_target_``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from hsfusion.errors import InputError, correction, printable
from hsfusion.scenes.labels import LabelledScene
from hsfusion.scenes.mosaic import join_scenes
from hsfusion.scenes.opening import open_labelled_scene, open_scene, open_with_sources
from hsfusion.scenes.scene import Scene

_TARGET = "hsfusion.scenes.open_labelled_scene"
# what a word without quotes is read as: nothing but numbers as YAML 1.2 and Hydra write them, and null
_NUMBERS = {
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


class DescriptionLoader(yaml.SafeLoader):
    """YAML as plain values: of words without quotes only numbers and null are no text, other than in YAML 1.1.

    That takes ``no`` for False, ``010`` for 8, ``1:30`` for 90 and ``1e-4`` for text. Keys stand once.
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


_Check = Callable[[object], bool]


def _one(*types: type) -> _Check:
    return lambda value: type(value) in types


def _list(*types: type) -> _Check:
    return lambda value: isinstance(value, list) and all(type(one) in types for one in value)


def _by_name(value: object) -> bool:
    return isinstance(value, dict) and _list(str, int, float)([*value]) and _list(str)([*value.values()])


def _are_bad_bands(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, str) or (_list(int, float)(one) and len(one) == 2) for one in value
    )


# key of a scene -> whether a value may stand there, and what may; on command lines and in descriptions alike
_KINDS: dict[str, tuple[_Check, str]] = {
    **dict.fromkeys(("cube", "labels", "path", "file"), (_one(str), "a file")),
    **dict.fromkeys(
        ("variable", "grid", "wavelength_unit", "labels_variable", "class_field"),
        (_one(str), "a word (in quotation marks where it looks like a number)"),
    ),
    **dict.fromkeys(("scale", "offset", "nodata"), (_one(int, float), "a number")),
    "name": (_one(str, int, float), "a word"),
    "sensor": (_one(str), "the name of a sensor, or a CSV file of its bands"),
    "files": (_list(str), "a list of files"),
    "scenes": (_list(str), "a list of descriptions (.yaml) and names of scenes"),
    "axes": (_list(str), "a list of the words band, row and col, such as [band,row,col]"),
    "wavelengths": (lambda v: isinstance(v, str) or _list(int, float)(v), "a file, or a list of numbers"),
    "bad_bands": (
        _are_bad_bands,
        "a list of intervals [first_nm, last_nm] and names, such as [water_vapour, [400, 420]]",
    ),
    "unlabelled": (lambda v: type(v) is int or _list(int)(v), "a code, or a list of codes"),
    "class_names": (lambda v: _list(str)(v) or _by_name(v), "a list of names, or names by code: {1: corn, 2: woods}"),
    "class_colors": (lambda v: _list(str)(v) or _by_name(v), 'colours, or colours by code: {1: "#e6b800"}'),
    "sources": (_by_name, "files by name, such as {lidar: dsm.tif}"),
}
#: the keys that take one word or one path
WORD_KEYS = frozenset(key for key, (holds, _) in _KINDS.items() if holds("word"))
_NEVER_NULL = ("bad_bands", "unlabelled", "path", "file", "files", "scenes")


def expected_of(key: str) -> str | None:
    """What may stand in a key of a scene, in words; None for keys of another kind of scene."""
    return _KINDS[key][1] if key in _KINDS else None


def check_scene_value(source: object, key: str, value: object, *, field: str | None = None) -> None:
    """Makes sure that a plain value is of the type that a key of a scene takes; other keys are passed over.

    Messages name the ``source`` that holds it, and call the key ``field``.
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

    ``defaults`` and the ``_target_`` of a scene are passed over, as they stand in files of ``--config-dir``. Other keys
    that start with ``_``, at any depth, and ``${`` are refused.
    """
    path = Path(path).absolute()
    content = _parsed(path, path, DescriptionLoader, what="description")
    content.pop("defaults", None)
    if content.get("_target_") == _TARGET:
        del content["_target_"]
    keys = scene_keys()
    expected, fix = "keys that do not start with _, and nothing with ${", "rename or remove it"
    wrong = [(field, printable(value, longest=80), expected, fix) for field, value in active_keys(content)]
    unknown = [key for key in content if key not in keys]
    wrong += [("key", key, " | ".join(keys), correction(key, keys, "remove it")) for key in unknown]
    if wrong:
        raise InputError(path, *wrong[0])
    for key, value in content.items():
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
    """Opens a scene: a cube, a cube with labels, or the scene of a description (YAML).

    Args:
        path: the cube, in any supported format, or a description.
        labels: raster or vector file of the ground truth; None for a scene without labels.
        **options: the keys of a description; not allowed if ``path`` is a description.
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
    """Reads several descriptions."""
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


def read_configuration(source: Path | str) -> dict[str, Any]:
    """A configuration that :func:`to_yaml` made a file or text of, as plain values: nothing is resolved or called."""
    named = source if isinstance(source, Path) else "configuration"
    return _parsed(named, source, ConfigurationLoader, what="configuration")


def _parsed(source: object, text: str | Path, loader: type[yaml.SafeLoader], *, what: str) -> dict[str, Any]:
    try:
        content = dict(yaml.load(text.read_text(encoding="utf-8") if isinstance(text, Path) else text, loader) or {})
    except FileNotFoundError as error:
        fix = "name a file (relative paths start at the folder of the command)"
        raise InputError(source, what, "missing", "a YAML file of keys", fix) from error
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        reason = getattr(error, "problem", None) or getattr(error, "strerror", None) or type(error).__name__
        raise InputError(source, what, f"unreadable ({reason})", "a YAML file of keys", "correct it") from error
    return {str(key): value for key, value in content.items()}


def active_keys(value: Any, field: str = "") -> Iterator[tuple[str, Any]]:
    """What would be more than text in a configuration: keys such as _target_, and ${...}, each with its field."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = f"{field}.{key}" if field else str(key)
            if str(key).startswith("_") or "${" in str(key):
                yield name, item
            yield from active_keys(item, name)
    elif isinstance(value, list | tuple):  # the latter of !!pairs and !!omap
        for item in value:
            yield from active_keys(item, field)
    elif "${" in str(value):
        yield field, value


def commented_keys(folder: Path, *first: str) -> dict[str, str]:
    """Dotted keys and groups of the YAML files in a folder, with the comment above each.

    Where several files have a key, the comment is that of the file whose name stands earlier in ``first``.
    """
    keys: dict[str, str] = {}
    for path in sorted(folder.rglob("*.yaml"), key=lambda path: ([path.stem != name for name in first], path)):
        group, above = path.relative_to(folder).parts[:-1], []
        parts = list(group)
        keys.setdefault(".".join(group), "")
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = re.match(r"( *)([a-z]\w*):", line)
            if entry is not None:
                parts[len(group) + len(entry[1]) // 2 :] = [entry[2]]
                if not {"defaults", "hydra"} & set(parts):
                    keys[".".join(parts)] = keys.get(".".join(parts)) or " ".join(above)
            above = [*above, line.strip("# ")] if line.lstrip().startswith("#") else []
    del keys[""]
    return keys
