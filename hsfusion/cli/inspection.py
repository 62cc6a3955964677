"""``hsfusion inspect``: a page of text, figures or JSON on a file.

A module that is itself named inspect would hide Python's own from files that are run beside it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hsfusion.cli.hydra_app import word_value
from hsfusion.cli.inspect_model import inspect_model, is_model
from hsfusion.errors import InputError
from hsfusion.scenes.description import read_description, scene_keys
from hsfusion.scenes.scene_values import check_scene_value

_OPTIONS = ("--plot", "--json", "--help", "-h")
_HELP = """hsfusion inspect FILE [key=value ...] [--plot [FOLDER]] [--json]

Tells what a file holds: format, size, bands, values, place, labels, and what looks wrong about it.

FILE is a cube of any known format, a raster of labels, a scene description (.yaml), or a model: a run folder or its
model.safetensors. Labels that are polygons or points are told beside a cube: labels=FILE class_field=NAME.
--plot [FOLDER]  draws a composite, the spectra and the quality of the bands, or the band weights of a model, into
                 FOLDER (default NAME_inspect)
--json           prints JSON instead, with figures for every band

Keys, as in hsfusion train scene=file (scene.KEY=value will do, too):
  {keys}"""


@dataclass(frozen=True)
class _Request:
    """What the words of the command line ask for."""

    cube: str
    keys: dict[str, Any]
    folder: Path | None
    as_json: bool


def command() -> None:
    """Entry point of the command."""
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(_HELP.format(keys=" ".join(key for key in scene_keys() if key != "cube")))
        return
    request = _request(words)
    if is_model(Path(request.cube)):
        if request.keys:
            raise _unknown("key", next(iter(request.keys)), ["--plot", "--json"])
        inspect_model(Path(request.cube), folder=request.folder, as_json=request.as_json)
        return
    if request.folder is not None:
        from hsfusion.runs.inspection import check_figure_folder

        check_figure_folder(request.folder)  # before a long look at the pixels
    from hsfusion.runs.inspection import as_json, inspect_file

    inspected = inspect_file(request.cube, request.keys)
    if request.as_json:
        print(json.dumps(as_json(inspected), indent=1, allow_nan=False, ensure_ascii=False))
    else:
        from hsfusion.cli.inspect_page import print_page

        print_page(inspected)
    if request.folder is not None:
        from hsfusion.runs.inspection import write_inspection_figures

        written = write_inspection_figures(inspected, request.folder)
        if not request.as_json:
            print(f"\nFigures: {', '.join(map(str, written))}")


def _request(words: list[str]) -> _Request:
    words = [_without_scene(word) for word in words if word != "scene=file"]  # as in a command for training
    overrides = [word for word in words if _is_override(word)]
    places = [word for word in words if not word.startswith("-") and not _is_override(word)]
    for word in words:
        if word.startswith("-") and word.partition("=")[0] not in _OPTIONS:
            raise _unknown("option", word, list(_OPTIONS))
    plot = next((word for word in words if word.partition("=")[0] == "--plot"), None)
    keys = dict(map(_key, overrides))
    folder = None if plot is None else plot.partition("=")[2]
    if plot == "--plot" and len(places) + ("cube" in keys) == 2:  # the word after it is the folder
        after = words.index(plot) + 1
        folder = places.pop(places.index(words[after])) if words[after : after + 1] and words[after] in places else ""
    file = keys.pop("cube", None)
    places += [] if file is None else [str(file)]
    if len(places) != 1:
        raise InputError(
            "command line",
            "files",
            " ".join(places) or "missing",
            "one file: hsfusion inspect FILE [key=value ...] [--plot [FOLDER]]",
            "name one file",
        )
    cube = places[0]
    if Path(cube).suffix.lower() in (".yaml", ".yml"):
        described = read_description(cube)
        cube, keys = str(described.pop("cube")), {**described, **keys}
    if plot is None:
        return _Request(cube, keys, None, "--json" in words)
    return _Request(cube, keys, Path(folder or f"{Path(places[0]).stem}_inspect"), "--json" in words)


def _without_scene(word: str) -> str:
    """``scene=PATH`` as the path; the name of a benchmark stands for keys that are of no use here."""
    path = word.removeprefix("scene=")
    if path == word or "/" in path or Path(path).suffix or Path(path).exists():
        return path
    raise InputError(
        "command line",
        "scene",
        path,
        "a file, as names of scenes are known to hsfusion train only",
        "name the cube itself: hsfusion inspect CUBE [labels=PATH]",
    )


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
