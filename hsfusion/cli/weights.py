"""``hsfusion weights``: band weights of runs, drawn, compared and written, and bands chosen by them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from textwrap import wrap
from typing import Any

from hsfusion.cli.words import word_value
from hsfusion.errors import InputError
from hsfusion.runs.comparison import EVIDENCE, WeightComparison, compare, read_evidence
from hsfusion.runs.settings import check_value

_WIDTH = 100
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
        raise InputError("command line", "width", width_nm, "with select=K", "add select=K")
    out, written = Path(given.get("out", folders[0] / "weights")), []
    if out.is_file():
        raise InputError("command line", "out", f"a file, {out}", "a folder", "choose another out")
    weights = _weights_of(folders)
    from hsfusion.runs.weight_files import select, write_page, write_weights

    selection = None if number is None else select(weights, number, width_nm=width_nm)
    written += write_weights(weights, out, selection)
    if weights.evidence is not None:
        written.append(write_page(weights, folders[0], out))
    _print_page(weights)
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


def _weights_of(folders: list[Path]) -> WeightComparison:
    if not any((folder / EVIDENCE).exists() for folder in folders):
        return compare(folders)
    if len(folders) > 1:
        raise InputError(
            "command line", "folders", ", ".join(map(str, folders)), "one evidence folder alone", "name one"
        )
    return read_evidence(folders[0])


def _print_page(weights: WeightComparison) -> None:
    several = len(weights.runs) > 1
    print(f"{weights.scene}: {len(weights.reported.bands)} bands, {len(weights.runs)} run(s)\n")
    print("    overall  average  leakage  seed  split     run")
    for run in weights.runs:
        numbers = f"{run.overall_accuracy:7.4f}  {run.average_accuracy:7.4f}  {run.leakage:7.4f}  {run.seed:4}"
        print(f"    {numbers}  {run.split:8}  {run.folder}{'' if run.beats_chance else '  (no better than chance)'}")
    if weights.verdict is None:
        print("\nverdict: none yet, the evidence run has not come to its end")
    else:
        print(f"\nverdict: {weights.verdict.word}")
        for sentence in (*weights.verdict.sentences, *weights.atmospheric_sentences):
            print("\n".join(wrap(sentence, _WIDTH, initial_indent="  ", subsequent_indent="  ")))
    if weights.windows:
        print("\n    window (nm)   weight  x untrained" + ("   selected in" if several else ""))
    for window in weights.windows:
        often = f"   {window.frequency:.0%} of the runs" if several else ""
        print(f"    {window.lower_nm:4.0f}-{window.upper_nm:<6.0f} {window.share:8.1%} {window.raised:12.1f}{often}")
    for name, share in weights.reported.sources:
        print(f"    {name}: {share:.1%}")
    if weights.evidence is not None:
        from hsfusion.runs.weight_files import smallest_numbers

        for (split, kind), number in smallest_numbers(weights).items():
            text = "none measured does" if number is None else f"{number} bands"
            print(f"cheapest sensor that keeps 95 % ({kind}, {split}, chosen on validation pixels): {text}")
