"""Arguments of the command line: from what the user types to what Hydra expects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import OmegaConf

from hsfusion.errors import InputError
from hsfusion.scenes.description import WORD_KEYS

CONF = next(
    path
    for path in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf")
    if (path / "train.yaml").is_file()
)
# key -> Hydra's name for the choice of its group: a simulated scene holds another one
_SCENES = {"scene": "scene", "scene.of": "scene@scene.of"}
_TEXTS = {"name", "run_dir", "sweep_dir", "folder", "resume", "run", "pretrained", "json", "out"}
_TEXTS |= {"split.train", "split.test", *(f"{scene}.{key}" for scene in _SCENES for key in WORD_KEYS)}
_LISTS = {"select", "baselines"}
_CALLED = ("trainer", "optimizer")  # groups that make one object, whose other arguments can be set, too
_ESCAPED = set("\\()[]{}:=, \t")  # what Hydra escapes with a backslash in the arguments of a run of a multirun
# what commas separate: text in quotation marks, and any other
_PART = re.compile(r"""\s*(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,])+""")


def hydra_words(words: Sequence[str], config_name: str) -> list[str]:
    """The arguments of a command line as Hydra expects them: paths and names in any characters, and no shorthand.

    ``scene=PATH``, ``scene.of=PATH`` and ``scene.of=GROUP`` are written out, see :func:`hydra_word` for all others. A
    run of a description or a cube is named after that file, unless the call or an experiment names it.
    """
    multirun = any(word == "-m" or word.startswith("--multi") for word in words)
    written = [new for word in words for new in _written_out(word, config_name, multirun=multirun)]
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    source = "scene.cube" if given.get("scene") == "file" else "scene"
    paths = [Path(_text(part)) for part in _parts(given.get(source, ""), multirun=multirun)]
    a_file = source == "scene.cube" or paths[0].suffix in (".yaml", ".yml")
    unnamed = a_file and len(paths) == 1 and config_name != "predict" and not {"name", "experiment"} & given.keys()
    return [*written, f"name={_as_text(paths[0].stem)}"] if unnamed and paths[0].stem else written


def hydra_word(word: str, *, multirun: bool) -> str:
    """A ``key=value`` as Hydra expects it, in quotation marks of Hydra's grammar where they are needed.

    ``none`` stands for an empty list. A key that takes one word or one path gets the text as it is, except for
    ``null`` and text in quotation marks; with ``--multirun`` commas separate values, unless the file exists.
    All other keys follow Hydra's grammar.
    """
    key, _, value = word.partition("=")
    name = key.lstrip("+")
    group, _, last = name.partition(".")
    if key == name and last and (group == "callbacks" or last in more_arguments(group, last)):
        word = f"++{word}"
    if value == "null" and (CONF / name).is_dir():
        options = " | ".join(path.stem for path in sorted((CONF / name).glob("*.yaml")))
        raise InputError("command line", name, value, options, "choose one of these")
    if value == "none" and name in _LISTS:
        return f"{key}=[]"
    if not value or name not in _TEXTS:
        return word
    return f"{key}={','.join(_quoted(name, part, multirun) for part in _parts(value, multirun=multirun))}"


def fixed_keys(words: Sequence[str]) -> set[str]:
    """The keys of the arguments that are the same in all runs of a multirun, as Hydra hands them to a run."""
    parsed = [of for of in map(_parsed, words) if of is not None]
    swept = {of.get_key_element(): of.is_sweep_override() for of in parsed}
    return {key for key, several in swept.items() if not several}


def more_arguments(group: str, name: str = "") -> set[str]:
    """Arguments of Trainer or optimizers that no file in conf/ sets; if one sets ``name``, empty without an import."""
    files: list[Any] = [OmegaConf.load(path) for path in (CONF / group).glob("*.yaml")] if group in _CALLED else []
    known = {key for file in files for key in file}
    made = () if name in known else {file["_target_"] for file in files if "_target_" in file}
    return {argument for target in made for argument in signature(get_object(target)).parameters} - known


def word_value(word: str) -> Any:
    """The value of a ``key=value``, read by the rule of :func:`hydra_word` and then by Hydra, for one run."""
    override = _parsed(hydra_word(word, multirun=False))
    if override is None or override.is_sweep_override():
        key, _, value = word.partition("=")
        raise InputError("command line", key, value, "one value, with texts in quotation marks", f"correct {key}")
    return override.value()


def _parts(value: str, *, multirun: bool) -> list[str]:
    return [part.strip() for part in _PART.findall(value)] if multirun and not _exists(value) else [value]


def _quoted(key: str, text: str, swept: bool) -> str:
    """A text as Hydra reads it back; null, text in quotation marks, and a list of wavelengths stay."""
    read = None if _exists(text) else _parsed(f"_={text}")
    if read is not None and not read.is_sweep_override():
        meant = read.value()
        if meant is None or text[:1] in ("'", '"') or (isinstance(meant, list) and key.endswith("wavelengths")):
            return text
    return _as_text(text, swept=swept)


def _written_out(word: str, config_name: str, *, multirun: bool) -> list[str]:
    """``scene=PATH``, ``scene.of=PATH`` and ``scene.of=GROUP`` written out in full."""
    key, _, value = word.partition("=")
    if key not in _SCENES:
        return [hydra_word(word, multirun=multirun)]
    paths = [_text(part) for part in _parts(value, multirun=multirun)]
    if not all(Path(path).suffix or set(path) & set("/\\") for path in paths):
        return [hydra_word(f"{_SCENES[key]}={value}", multirun=multirun)]
    texts = [_as_text(path) for path in paths]
    described = all(path.endswith((".yaml", ".yml")) for path in paths)
    if config_name == "predict":
        group, field = ("described_cube", "file") if described else ("cube", "path")
        return [f"{_SCENES[key]}={group}", f"{key}.{field}={','.join(texts)}"]
    if not described:
        if Path(paths[0]).is_file():
            fix = f"write it into a description, or give {key}=file {key}.cube=PATH {key}.labels=PATH"
            raise InputError("command line", key, value, "a description (.yaml), or the name of a scene", fix)
        return [f"{key}={','.join(texts)}"]
    return [f"{_SCENES[key]}=described", f"{key}.files=" + ",".join(f"[{text}]" for text in texts)]


def _text(value: str) -> str:
    """The path or name that a value stands for."""
    override = None if _exists(value) else _parsed(f"_={value}")
    plain = None if override is None or override.is_sweep_override() else override.value()
    return plain if isinstance(plain, str) and value[:1] in ("'", '"') else value


def _parsed(word: str) -> Override | None:
    """A word as Hydra reads it; None where it cannot."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _exists(text: str) -> bool:
    """Whether a text is the path of something; ``null`` is none."""
    try:
        return text.lower() != "null" and Path(text).exists()
    except (OSError, ValueError):  # too long for a name
        return False


def _as_text(text: str, *, swept: bool = False) -> str:
    """A text that Hydra reads back unchanged, also in a run of a multirun: in quotation marks where needed."""
    override = _parsed(f"_={text}")
    as_it_is = override is not None and not override.is_sweep_override() and override.value() == text
    return text if as_it_is and not (swept and _ESCAPED & set(text)) else QuotedString(text, Quote.double).with_quotes()
