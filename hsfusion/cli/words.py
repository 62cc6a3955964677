"""Words of the command line: what the user types, and what Hydra has to get."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException

from hsfusion.errors import InputError
from hsfusion.scenes.description import WORD_KEYS

CONF = next(
    path
    for path in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf")
    if (path / "train.yaml").is_file()
)
# key -> how Hydra calls the choice of its group: a simulated scene holds another one
_SCENES = {"scene": "scene", "scene.of": "scene@scene.of"}
_TEXTS = (
    "name",
    "run_dir",
    "folder",
    "resume",
    "run",
    "pretrained",
    "json",
    "figure",
    "out",
    "split.train",
    "split.test",
)
# what commas separate: text in quotation marks, and any other
_PART = re.compile(r"""\s*(?:'[^']*'|"[^"]*"|[^,])+""")


def hydra_words(words: Sequence[str], config_name: str) -> list[str]:
    """The words of a command line as Hydra has to get them: paths and names in any letters, and no shorthand.

    ``scene=PATH``, ``scene.of=PATH`` and ``scene.of=GROUP`` are written out, see :func:`hydra_word` for all others.
    """
    multirun = any(word == "-m" or word.startswith("--multi") for word in words)
    named = any(word.lstrip("+").startswith("name=") for word in words)
    return [new for word in words for new in _written_out(word, config_name, named=named, multirun=multirun)]


def hydra_word(word: str, *, multirun: bool) -> str:
    """A ``key=value`` as Hydra has to get it, in quotation marks of Hydra's grammar where they are needed.

    A key that takes one word or one path gets the text as it stands, be there commas, brackets or digits only, except
    for ``null``, text in quotation marks, escaped characters and ``${...}``; with ``--multirun`` commas
    separate. Text that names an existing file or folder is that path, whatever else it could mean. For all other keys
    Hydra's grammar decides; only what it cannot read becomes a text. Applied twice, it changes nothing more.
    """
    key, sign, value = word.partition("=")
    if not sign or not value or word.startswith(("-", "~")):
        return word
    if _parsed(f"{key}=") is None:
        expected = "key=value with a key of letters from a to z, digits and dots"
        raise InputError("command line", "word", word, expected, "hsfusion COMMAND --help lists the keys")
    return f"{key}={_hydra_value(key.lstrip('+'), value, multirun=multirun)}"


def word_value(word: str) -> Any:
    """The value of a ``key=value``, read by the rule of :func:`hydra_word` and then by Hydra, for one run."""
    override = _parsed(hydra_word(word, multirun=False))
    if override is None or override.is_sweep_override():
        key, _, value = word.partition("=")
        raise InputError("command line", key, value, "one value", f"correct {key}")
    return override.value()


def _takes_text(key: str) -> bool:
    """Whether a key takes one word or one path, so that whatever stands there is meant as text."""
    part, _, name = key.rpartition(".")
    return key in _TEXTS or (part in _SCENES and name in {*WORD_KEYS, "cache"})


def _hydra_value(key: str, value: str, *, multirun: bool) -> str:
    takes_text = _takes_text(key)
    if takes_text and _exists(key, value):
        return _as_text(value)
    override = _parsed(f"_={value}")
    if override is not None and override.value() is None and (CONF / key).is_dir():
        options = " | ".join(path.stem for path in sorted((CONF / key).glob("*.yaml")))
        raise InputError("command line", key, value, options, "choose one of these")
    swept = override is not None and override.is_sweep_override()
    if multirun and (override is None or (takes_text and override.value_type == ValueType.SIMPLE_CHOICE_SWEEP)):
        parts = _PART.findall(value)
        if len(parts) > 1:
            return ",".join(_hydra_value(key, part.strip(), multirun=False) for part in parts)
    if override is None and value.lstrip()[:1] in ("[", "{") and not takes_text:
        example = shlex.quote(f'{key}=["a, b.yaml"]')
        fix = f"put texts into quotation marks, such as {example}"
        raise InputError("command line", key, value, "a list or mapping as Hydra reads it", fix)
    if override is not None and (not takes_text or (swept and multirun)):
        return value
    plain = False if override is None or swept else override.value()
    # wavelengths are a file or a list
    meant = plain is None or isinstance(plain, str) or (isinstance(plain, list) and key.endswith("wavelengths"))
    return value if meant else _as_text(value)


def _written_out(word: str, config_name: str, *, named: bool, multirun: bool) -> list[str]:
    """``scene=PATH``, ``scene.of=PATH`` and ``scene.of=GROUP`` as the words they are short for."""
    key, _, value = word.partition("=")
    if key not in _SCENES:
        return [hydra_word(word, multirun=multirun)]
    parts = _PART.findall(value) if multirun and not _exists(key, value) else [value]
    paths = [_text(key, part.strip()) for part in parts]
    if not all(Path(path).suffix or "/" in path for path in paths):
        return [hydra_word(f"{_SCENES[key]}={value}", multirun=multirun)]
    texts = [_as_text(path) for path in paths]
    described = {path.endswith((".yaml", ".yml")) for path in paths}
    if config_name == "predict" and len(described) == 1:
        group, field = ("described_cube", "file") if described == {True} else ("cube", "path")
        return [f"{_SCENES[key]}={group}", f"{key}.{field}={','.join(texts)}"]
    if described != {True}:
        return [hydra_word(word, multirun=multirun)]
    name = [] if named or len(paths) > 1 or key != "scene" else [f"name={_as_text(Path(paths[0]).stem)}"]
    return [f"{_SCENES[key]}=described", f"{key}.files=" + ",".join(f"[{text}]" for text in texts), *name]


def _text(key: str, value: str) -> str:
    """The path or name that a value stands for."""
    override = None if _exists(key, value) else _parsed(f"_={value}")
    plain = None if override is None or override.is_sweep_override() else override.value()
    return plain if isinstance(plain, str) else value


def _parsed(word: str) -> Override | None:
    """A word as Hydra reads it; None where it cannot."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _exists(key: str, text: str) -> bool:
    """Whether a text is the path of something; ``null`` is none."""
    try:
        exists = text.lower() != "null" and text != "" and Path(text).exists()
    except (OSError, ValueError):  # too long for a name
        return False
    if exists and "${" in text:  # what stands after it would be looked up
        raise InputError("command line", key, text, "a path without ${", "rename the file or folder")
    return exists


def _as_text(text: str) -> str:
    """A text as Hydra reads it back, in quotation marks where it would not otherwise."""
    override = _parsed(f"_={text}")
    if override is not None and not override.is_sweep_override() and override.value() == text:
        return text
    return QuotedString(text, Quote.double).with_quotes()
