"""What may stand in the keys of a scene, on command lines and in descriptions alike."""

from __future__ import annotations

from collections.abc import Callable

from hsfusion.errors import InputError

_LARGEST = 2**63  # of whole numbers


def _is_word(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return type(value) is int and abs(value) <= _LARGEST


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _is_name(value: object) -> bool:
    return _is_word(value) or _is_number(value)


def _list_of(holds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(holds, value))


def _by(key: Callable[[object], bool], holds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(key, value)) and all(map(holds, value.values()))


def _either(*kinds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: any(holds(value) for holds in kinds)


def _is_interval(value: object) -> bool:
    return _list_of(_is_number)(value) and isinstance(value, list) and len(value) == 2


_WORD = (_is_word, "a word (in quotation marks where it looks like a number)")
_FILE = (_is_word, "a file")
_NUMBER = (_is_number, "a number")
_OF_CLASSES = _either(_list_of(_is_word), _by(_is_name, _is_word))
# key -> whether a value may stand there, and what may
_KINDS: dict[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(("cube", "labels", "path", "file"), _FILE),
    **dict.fromkeys(("variable", "grid", "wavelength_unit", "labels_variable", "class_field"), _WORD),
    **dict.fromkeys(("scale", "offset", "nodata"), _NUMBER),
    "name": (_is_name, "a word"),
    "sensor": (_is_word, "the name of a sensor, or a CSV file of its bands"),
    "files": (_list_of(_is_word), "a list of files"),
    "scenes": (_list_of(_is_word), "a list of descriptions (.yaml) and names of scenes"),
    "axes": (_list_of(_is_word), "a list of the words band, row and col, such as [band,row,col]"),
    "wavelengths": (_either(_is_word, _list_of(_is_number)), "a file, or a list of numbers"),
    "bad_bands": (
        _list_of(_either(_is_word, _is_interval)),
        "a list of intervals [first_nm, last_nm] and names, such as [water_vapour, [400, 420]]",
    ),
    "unlabelled": (_either(_is_whole, _list_of(_is_whole)), "a code, or a list of codes"),
    "class_names": (_OF_CLASSES, "names by code, such as {1: corn, 2: woods}, or a list of names"),
    "class_colors": (_OF_CLASSES, 'colours by code, such as {1: "#e6b800"}, or a list of colours'),
    "sources": (_by(_is_name, _is_word), "files by name, such as {lidar: dsm.tif}"),
}
#: the keys that take one word or one path
WORD_KEYS = frozenset(key for key, (holds, _) in _KINDS.items() if holds("word"))
_NEVER_NULL = ("bad_bands", "unlabelled", "path", "file", "files", "scenes")


def expected_of(key: str) -> str | None:
    """What may stand in a key of a scene, in words; None for keys of another kind of scene."""
    return _KINDS[key][1] if key in _KINDS else None


def check_scene_value(source: object, key: str, value: object, *, field: str | None = None) -> None:
    """Makes sure that a value is of the type that a key of a scene has to have; other keys are passed over.

    Args:
        source: the file, or the part of the configuration, that holds it.
        key: name of the key.
        value: plain values, lists and mappings of them.
        field: what messages call the key; None for its name.

    Raises:
        InputError: if it is of another.
    """
    if key not in _KINDS or (value is None and key not in _NEVER_NULL):
        return
    holds, expected = _KINDS[key]
    if not holds(value):
        shown = " ".join(("null" if value is None else str(value)).split())[:80]
        raise InputError(source, field or key, shown, expected, f"correct {field or key}")
