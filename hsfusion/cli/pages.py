"""``hsfusion inspect`` and ``hsfusion weights``: pages of text, and figures, on a file and on the weights of runs."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from hsfusion.cli.main import COMMAND, shown
from hsfusion.cli.words import word_value
from hsfusion.errors import InputError, correction, printable
from hsfusion.scenes.description import check_scene_value, read_description, scene_keys

_MODELS = {".safetensors", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"}  # all but the first are refused with the reason
_WIDTH, _LEFT = 100, 14  # of the page, and of the names
#: help of each command
HELP = {
    "inspect": """hsfusion inspect FILE [key=value ...] [--plot [FOLDER]]

Shows what a file holds: format, size, bands, values, georeferencing, labels, and what looks wrong with it.

FILE is a cube of any known format, a raster of labels, a scene description (.yaml), or a model: a run folder or its
model.safetensors. Polygons and points need their cube as FILE, and labels=PATH class_field=NAME.
--plot [FOLDER]  draws a composite, the spectra and the quality of the bands into FOLDER (default NAME_inspect)

Keys, as in hsfusion train scene=file (scene.KEY=value also works):
  {keys}""",
    "weights": """hsfusion weights RUN [RUN ...] [select=K [width=NM]] [out=FOLDER]

Draws the learned band weights of runs, compares them, and reports how far they can be trusted.

RUN is a run folder of hsfusion train or finetune; several runs must have the same bands. Or it is one folder of
hsfusion evidence, of which everything is drawn.

select=K    chooses K bands by weight, far enough apart not to be redundant: selected_K.csv, with centre and width of a
            filter for each, and groups/selected_K.yaml, to train on these bands only
width=NM    with select=K: chooses the K windows of NM nm with the largest weight instead, to train on broad bands
out=FOLDER  where to write (default FIRST_RUN/weights): weights.csv and weights.json (nm, FWHM, group, weight,
            quartiles, selection frequency), windows.csv, figures as SVG and PNG""",
}


def help_of(command: str) -> str:
    """The text that ``--help`` prints."""
    return HELP[command].format(keys=" ".join(key for key in scene_keys() if key != "cube"))


def command() -> None:
    """Entry point of both commands."""
    name, words = os.environ[COMMAND], sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(help_of(name))
    else:
        {"inspect": inspect, "weights": weights}[name](words)


def inspect(words: Sequence[str]) -> None:
    """Shows what a file holds."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--plot", nargs="?", const="")
    given, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        raise _unknown("option", unknown[0], ["--plot", "--help"], "inspect")
    file, keys = _cube_and_keys(given.words)
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


def weights(words: Sequence[str]) -> None:
    """Draws and compares the weights of runs, and chooses bands by them."""
    from hsfusion.runs.comparison import weights_of
    from hsfusion.runs.settings import check_value

    runs, given = _files_and_keys(words, ["select", "width", "out"], "weights")
    number, width_nm = given.get("select"), given.get("width")
    for key in ("select", "width"):
        check_value(key, given.get(key), "int | None", lower=1)
    if not runs:
        raise InputError("command line", "runs", "missing", "run folders", "hsfusion weights RUN [RUN ...]")
    if width_nm is not None and number is None:
        raise InputError("command line", "width", width_nm, "a width together with select=K", "add select=K")
    folders = list(map(Path, runs))
    out = Path(given.get("out") or folders[0] / "weights")
    if out.is_file():
        raise InputError("command line", "out", f"a file, {out}", "a folder", "choose another out")
    compared = weights_of(folders)
    from hsfusion.runs.report import page, select, write_page, write_weights

    selection = None if number is None else select(compared, number, width_nm=width_nm)
    written = write_weights(compared, out, selection)
    if compared.evidence is not None:
        written.append(write_page(compared, folders[0], out))
    print("\n".join(page(compared)))
    if selection is not None:
        again = ["hsfusion", "train", "--config-dir", str(out), f"groups={selection.stem}", "band_cost=0"]
        print(f"\n{selection.summary}\nto train on these: {shown(*again)} scene=...")
    print("\nWritten: " + ", ".join(map(str, written)))


def _cube_and_keys(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    words = [word.removeprefix("scene=") for word in words if word != "scene=file"]  # as in a command for training
    files, keys = _files_and_keys(words, scene_keys(), "inspect", prefix="scene.")
    for key, value in keys.items():
        check_scene_value("command line", key, value)
    files += [str(cube)] if (cube := keys.pop("cube", None)) is not None else []
    if len(files) != 1:
        usage = "one file: hsfusion inspect FILE [key=value ...] [--plot [FOLDER]]"
        raise InputError("command line", "files", " ".join(files) or "missing", usage, "name one file")
    return files[0], keys


def _files_and_keys(
    words: Sequence[str], known: Sequence[str], command: str, *, prefix: str = ""
) -> tuple[list[str], dict[str, Any]]:
    """Paths, and the values of ``key=value``, read as Hydra reads the arguments of hsfusion train."""
    files, keys = [], {}
    for word in words:
        name, sign, value = word.partition("=")
        key = name.removeprefix("+").removeprefix(prefix)
        if word.startswith("-"):
            raise _unknown("option", word, ["--help"], command)
        # a path may contain =, too, if it exists, or if what comes before the sign is no key
        if not sign or (key not in known and (Path(word).exists() or not key.isidentifier())):
            files.append(word)
        elif key not in known:
            raise _unknown("key", key, known, command)
        else:
            keys[key] = word_value(f"{prefix}{key}={value}")
    return files, keys


def _unknown(field: str, word: str, known: Sequence[str], command: str) -> InputError:
    fix = correction(word, known, f"hsfusion {command} --help lists them")
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
