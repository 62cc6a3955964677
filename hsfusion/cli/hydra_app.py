"""Starting a Hydra app from a command."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig

from hsfusion.cli.checking import check, check_config_dir, takes_word
from hsfusion.cli.main import guarded
from hsfusion.cli.messages import CONF
from hsfusion.errors import InputError

# key -> how Hydra calls the choice of its group: a simulated scene holds another one
_SCENES = {"scene": "scene", "scene.of": "scene@scene.of"}


def run_app(task: Callable[[DictConfig], object], config_name: str) -> None:
    """Composes a configuration from ``conf/`` and the command line and calls the task with it, once or in a multirun.

    In a multirun one failing run does not stop the others: each failure is told in its line. Errors of Hydra itself
    come through as exceptions.

    Raises:
        SystemExit: with the exit code of the first run that failed.
    """
    codes: list[int] = []

    def checked(cfg: DictConfig) -> None:
        def run() -> None:
            check(cfg, config_name)
            task(cfg)

        if HydraConfig.get().runtime.choices["hydra/launcher"] == "basic":
            codes.append(guarded(run))  # Hydra would print lines of its own, and stop
        else:
            run()  # in another process

    check_config_dir()
    sys.argv[1:] = hydra_words(sys.argv[1:], config_name)
    # otherwise Hydra prints its own message and exits with 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with tempfile.TemporaryDirectory(prefix="hsfusion-") as folder:
        os.environ["HSFUSION_SWEEP"] = folder  # where files of Hydra go that nobody reads
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(checked)()
    if failed := [code for code in codes if code]:
        raise SystemExit(failed[0])


def hydra_words(words: Sequence[str], config_name: str) -> list[str]:
    """The words of a command line as Hydra has to get them: paths and names in any letters, and no shorthand.

    ``scene=PATH``, ``scene.of=PATH`` and ``scene.of=GROUP`` are written out, see :func:`hydra_word` for all others.

    Args:
        words: as the user typed them.
        config_name: the file in conf/ that they are for.

    Raises:
        InputError: if a word cannot be read, with what to type instead.
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

    Args:
        word: as the user typed it; flags, ``~key`` and words without ``=`` are left alone.
        multirun: whether commas separate the values of several runs.

    Raises:
        InputError: if the key is malformed, a list cannot be read, or a path holds ``${``.
    """
    key, sign, value = word.partition("=")
    if not sign or not value or word.startswith(("-", "~")):
        return word
    if _parsed(f"{key}=") is None:
        raise InputError(
            "command line",
            "word",
            word,
            "key=value with a key of letters from a to z, digits and dots",
            "hsfusion COMMAND --help lists the keys",
        )
    return f"{key}={_hydra_value(key.lstrip('+'), value, multirun=multirun)}"


def word_value(word: str) -> Any:
    """The value of a ``key=value``, read by the rule of :func:`hydra_word` and then by Hydra, for one run.

    Raises:
        InputError: if it cannot be read, or stands for several values.
    """
    override = _parsed(hydra_word(word, multirun=False))
    if override is None or override.is_sweep_override():
        key, _, value = word.partition("=")
        raise InputError("command line", key, value, "one value", f"correct {key}")
    return override.value()


def _hydra_value(key: str, value: str, *, multirun: bool) -> str:
    if takes_word(key) and _exists(key, value):
        return _as_text(value)
    override = _parsed(f"_={value}")
    if override is None:
        if multirun and "," in value:
            return ",".join(_hydra_value(key, part.strip(), multirun=False) for part in value.split(","))
        if value.lstrip()[:1] in ("[", "{") and not takes_word(key):
            raise _unreadable_list(key, value)
        return _as_text(value)
    if override.value() is None and (CONF / key).is_dir():
        options = " | ".join(path.stem for path in sorted((CONF / key).glob("*.yaml")))
        raise InputError("command line", key, value, options, "choose one of these")
    if not takes_word(key):
        return value
    parts = value.split(",")
    if override.value_type == ValueType.SIMPLE_CHOICE_SWEEP and multirun and len(parts) == len(_choices(override)):
        return ",".join(_hydra_value(key, part.strip(), multirun=False) for part in parts)
    if override.is_sweep_override():
        return value if multirun else _as_text(value)
    if isinstance(override.value(), list) and key.endswith("wavelengths"):  # which are a file or a list
        return value
    return value if isinstance(override.value(), str | None) else _as_text(value)


def _written_out(word: str, config_name: str, *, named: bool, multirun: bool) -> list[str]:
    """``scene=PATH``, ``scene.of=PATH`` and ``scene.of=GROUP`` as the words they are short for."""
    key, _, value = word.partition("=")
    if key not in _SCENES:
        return [hydra_word(word, multirun=multirun)]
    paths = _texts(key, value, multirun=multirun)  # several in a multirun
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


def _texts(key: str, value: str, *, multirun: bool) -> list[str]:
    """The paths or names that a value stands for: several in a multirun only."""
    if _exists(key, value):
        return [value]
    override = _parsed(f"_={value}")
    if multirun and override is not None and override.value_type == ValueType.SIMPLE_CHOICE_SWEEP:
        return [str(item.text if isinstance(item, QuotedString) else item) for item in _choices(override)]
    if multirun and override is None:
        return [text for part in value.split(",") for text in _texts(key, part.strip(), multirun=False)]
    plain = None if override is None or override.is_sweep_override() else override.value()
    return [plain if isinstance(plain, str) else value]


def _choices(override: Override) -> list[Any]:
    value = override.value()
    return value.list if isinstance(value, ChoiceSweep) else []


def _parsed(word: str) -> Override | None:
    """A word as Hydra reads it; None where it cannot."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _exists(key: str, text: str) -> bool:
    """Whether a text is the path of something; ``null`` is none.

    Raises:
        InputError: if such a path holds ``${``, for what stands after it would be looked up, now or when the run's
            configuration is read again.
    """
    try:
        exists = text.lower() != "null" and text != "" and Path(text).exists()
    except (OSError, ValueError):  # too long for a name
        return False
    if exists and "${" in text:
        raise InputError("command line", key, text, "a path without ${", "rename the file or folder")
    return exists


def _as_text(text: str) -> str:
    """A text as Hydra reads it back, in quotation marks where it would not otherwise."""
    override = _parsed(f"_={text}")
    if override is not None and not override.is_sweep_override() and override.value() == text:
        return text
    return QuotedString(text, Quote.double).with_quotes()


def _unreadable_list(key: str, value: str) -> InputError:
    """What to type for a list or mapping: its texts in quotation marks, as far as it is clear where they end."""
    pieces = re.split(r"(\s*[\[\]{},]\s*|(?<=\w):\s+)", value)
    pieces[::2] = [piece if not piece or _parsed(f"_={piece}") else _as_text(piece) for piece in pieces[::2]]
    word = f"{key}={''.join(pieces)}"
    example = shlex.quote(word if _parsed(word) else f'{key}=["a, b.yaml"]')
    fix = f"type {example}" if _parsed(word) else f"put texts into quotation marks, such as {example}"
    return InputError("command line", key, value, "a list or mapping as Hydra reads it", fix)
