"""``hsfusion inspect``: a page of text and figures on a file.

A module that is itself named inspect would hide Python's own from files that are run beside it.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from textwrap import fill
from typing import Any

from hsfusion.cli.words import word_value
from hsfusion.errors import InputError, printable
from hsfusion.scenes.description import check_scene_value, read_description, scene_keys

_MODELS = {".safetensors", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"}  # all but the first are refused with the reason
_WIDTH, _LEFT = 100, 14  # of the page, and of the names
_HELP = """hsfusion inspect FILE [key=value ...] [--plot [FOLDER]]

Shows what a file holds: format, size, bands, values, place, labels, and what looks wrong about it.

FILE is a cube of any known format, a raster of labels, a scene description (.yaml), or a model: a run folder or its
model.safetensors. Labels that are polygons or points are counted beside a cube: labels=FILE class_field=NAME.
--plot [FOLDER]  draws a composite, the spectra and the quality of the bands into FOLDER (default NAME_inspect)

Keys, as in hsfusion train scene=file (scene.KEY=value will do, too):
  {keys}"""


def command() -> None:
    """Entry point of the command."""
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(_HELP.format(keys=" ".join(key for key in scene_keys() if key != "cube")))
        return
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--plot", nargs="?", const="")
    given, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        raise _unknown("option", unknown[0], ["--plot", "--help"])
    file, keys = _file_and_keys(given.words)
    folder = None if given.plot is None else Path(given.plot or f"{Path(file).stem}_inspect")
    if Path(file).suffix.lower() in (".yaml", ".yml"):
        described = read_description(file)
        file, keys = str(described.pop("cube")), {**described, **keys}
    from hsfusion.runs.inspection import inspect_file, model_page, page

    if Path(file).suffix.lower() in _MODELS or Path(file).is_dir():
        from hsfusion.runs.finetuning import model_path

        if folder is not None:
            raise InputError("command line", "--plot", "given", "a cube", "use hsfusion weights RUN for a model")
        _print_page(model_path(file), model_page(model_path(file)))
        return
    inspected = inspect_file(file, keys)
    figures = {} if folder is None else inspected.figures()
    _print_page(inspected.path, page(inspected))
    if folder is not None:
        from hsfusion import plots

        for stem, figure in figures.items():
            plots.save_figure(figure, folder / stem)
        print("\nFigures: " + ", ".join(str(folder / f"{stem}.png") for stem in figures))


def _file_and_keys(words: list[str]) -> tuple[str, dict[str, Any]]:
    words = [word.removeprefix("scene=") for word in words if word != "scene=file"]  # as in a command for training
    keys = dict(_key(word) for word in words if _is_override(word))
    files = [word for word in words if not _is_override(word)]
    files += [str(keys.pop("cube"))] if keys.get("cube") is not None else []
    if len(files) != 1:
        usage = "one file: hsfusion inspect FILE [key=value ...] [--plot [FOLDER]]"
        raise InputError("command line", "files", " ".join(files) or "missing", usage, "name one file")
    return files[0], keys


def _is_override(word: str) -> bool:
    """Whether a word is key=value; a path may hold such a sign, too, but then it exists, or no key is before it."""
    key, sign, _ = word.partition("=")
    name = key.removeprefix("+").removeprefix("scene.")
    return bool(sign) and (name in scene_keys() or (name.isidentifier() and not Path(word).exists()))


def _key(word: str) -> tuple[str, Any]:
    """A word as key and value, read as Hydra reads the words of hsfusion train."""
    key = word.partition("=")[0].removeprefix("+").removeprefix("scene.")
    if key not in scene_keys():
        raise _unknown("key", key, scene_keys())
    value = word_value(f"scene.{key}={word.partition('=')[2]}")
    check_scene_value("command line", key, value)
    return key, value


def _unknown(field: str, word: str, known: list[str]) -> InputError:
    close = get_close_matches(word, known, 1)
    fix = f"did you mean {close[0]}?" if close else "hsfusion inspect --help lists them"
    return InputError("command line", field, word, " | ".join(known), fix)


def _print_page(path: Path, rows_by_title: dict[str, Iterable[tuple[str, str]]]) -> None:
    path, left = path.absolute(), " " * (_LEFT + 4)
    print(f"{printable(path.name, longest=None)}\n{printable(path.parent, longest=None)}")
    for title, rows in rows_by_title.items():
        print(f"\n{title}")
        for name, text in rows:
            first = f"  {printable(name, longest=None):<{_LEFT}}  "
            words = printable(text, longest=None)
            print(fill(words, _WIDTH, initial_indent=first, subsequent_indent=left) if words else first.rstrip())
