"""``hsfusion weights``: band weights of runs, drawn, compared and written, and bands chosen by them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from hsfusion.cli.words import word_value
from hsfusion.errors import InputError
from hsfusion.runs.comparison import weights_of
from hsfusion.runs.settings import check_value

_HELP = """hsfusion weights RUN [RUN ...] [select=K [width=NM]] [out=FOLDER]

Draws the learned band weights of runs, compares them, and says how far they can be believed.

RUN is a run folder of hsfusion train or finetune; several must have the same bands. Or it is one evidence folder of
hsfusion benchmark evidence, of which everything is drawn.

select=K    chooses K bands by the weights, so far apart that they do not say the same: selected_K.csv, with centre and
            width of a filter for each, and groups/selected_K.yaml to train on these bands alone
width=NM    with select=K: chooses K windows of NM nm instead, those that hold most weight, and trains on broad bands
out=FOLDER  where to write (default FIRST_RUN/weights): weights.csv and weights.json (nm, FWHM, group, weight,
            quartiles, selection frequency), windows.csv, figures as SVG and PNG"""


def command() -> None:
    """Entry point of the command."""
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(_HELP)
        return
    folders, given = _folders_and_keys(words)
    number, width_nm = given.get("select"), given.get("width")
    if width_nm is not None and number is None:
        raise InputError("command line", "width", width_nm, "a width together with select=K", "add select=K")
    out, written = Path(given.get("out", folders[0] / "weights")), []
    if out.is_file():
        raise InputError("command line", "out", f"a file, {out}", "a folder", "choose another out")
    weights = weights_of(folders)
    from hsfusion.runs.weight_files import page, select, write_page, write_weights

    selection = None if number is None else select(weights, number, width_nm=width_nm)
    written += write_weights(weights, out, selection)
    if weights.evidence is not None:
        written.append(write_page(weights, folders[0], out))
    print("\n".join(page(weights)))
    if selection is not None:
        again = ["hsfusion", "train", "--config-dir", str(out), f"groups={selection.stem}", "band_cost=0"]
        print(f"\n{selection.summary}\nto train on them: {shlex.join(again)} scene=...")
    print("\nWritten: " + ", ".join(map(str, written)))


def _folders_and_keys(words: list[str]) -> tuple[list[Path], dict[str, Any]]:
    folders, given = [], {}
    for word in words:
        key, sign, value = word.partition("=")
        if sign and value and key in ("select", "width"):
            given[key] = word_value(word)
            check_value(key, given[key], "int | None", lower=1)
        elif sign and value and key == "out":
            given[key] = value
        elif word.startswith("-") or (sign and key.isidentifier() and not Path(word).exists()):
            expected = "RUN | select=K | width=NM | out=FOLDER"
            raise InputError("command line", "word", word, expected, "hsfusion weights --help lists the words")
        else:
            folders.append(Path(word))
    if not folders:
        raise InputError("command line", "runs", "missing", "run folders", "hsfusion weights RUN [RUN ...]")
    return folders, {key: value for key, value in given.items() if value is not None}  # null is the default
