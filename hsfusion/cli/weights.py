"""``hsfusion weights``: band weights of runs, drawn, compared and written, and bands chosen by them."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from hsfusion.cli.hydra_app import word_value
from hsfusion.errors import InputError
from hsfusion.runs.comparison import WeightComparison, compare
from hsfusion.runs.selection import chosen_of, write_selection

_EVIDENCE = "evidence.json"
_MOST_RUNS = 1000
_WIDTH = 100
_HELP = """hsfusion weights RUN [RUN ...] [select=K [width=NM]] [evidence=FOLDER] [out=FOLDER]

Draws the learned band weights of runs, compares them, and says how far they can be believed.

RUN is a run folder of hsfusion train or finetune; several must have the same bands. Or it is one evidence folder of
hsfusion benchmark evidence, of which everything is drawn.

select=K    chooses K bands by the weights: selected_K.csv, and groups/selected_K.yaml to train on these bands alone
width=NM    with select=K: chooses K windows of NM nm instead, those that hold most weight, and trains on broad bands
evidence=FOLDER
            puts the verdict, stability and faithfulness of an evidence folder of the same scene into the report of RUN
out=FOLDER  where to write (default FIRST_RUN/weights): weights.csv and weights.json (nm, FWHM, group, weight,
            quartiles, selection frequency), windows.csv, figures as SVG and PNG"""


@dataclass(frozen=True)
class _Request:
    """What the words of the command line ask for."""

    folders: list[Path]
    select: int | None
    width_nm: int | None
    evidence: Path | None
    out: Path


def command() -> None:
    """Entry point of the command."""
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(_HELP)
        return
    request = _request(words)
    weights = _read(request.folders)
    chosen = None if request.select is None else chosen_of(weights, request.select, width_nm=request.width_nm)
    from hsfusion.runs.weight_files import check_out, write_weights

    check_out(request.out)
    written = [] if request.evidence is None else [_add_evidence(weights, request.evidence)]
    written += write_weights(weights, request.out)
    if weights.evidence is not None:
        from hsfusion.evidence.page import write_page

        written.append(write_page(weights, request.folders[0], request.out))
    _print_page(weights)
    if chosen is not None:
        written += write_selection(weights, chosen, request.out)
        print(f"\n{chosen.told}")
        again = ["hsfusion", "train", "--config-dir", str(request.out), f"groups={chosen.stem}"]
        print(f"to train on them: {shlex.join([*again, 'band_cost=0'])} scene=...")
    print("\nWritten: " + ", ".join(map(str, written)))


def _request(words: list[str]) -> _Request:
    folders, given = [], {}
    for word in words:
        key, sign, value = word.partition("=")
        if sign and key in ("select", "width") and value:
            given[key] = value
        elif sign and key in ("evidence", "out") and value:
            if (folder := word_value(f"folder={value}")) is not None:  # null is the default
                given[key] = folder
        elif word.startswith("-") or (sign and key.isidentifier() and not Path(word).exists()):
            raise InputError(
                "command line",
                "word",
                word,
                "RUN | select=K | width=NM | evidence=FOLDER | out=FOLDER",
                "correct it; hsfusion weights --help lists the words",
            )
        else:
            folders.append(Path(word))
    if not 1 <= len(folders) <= _MOST_RUNS:
        raise InputError(
            "command line",
            "runs",
            len(folders),
            f"1 to {_MOST_RUNS} run folders: hsfusion weights RUN [RUN ...]",
            "name a run folder",
        )
    real = [os.path.realpath(folder) for folder in folders]  # Path.resolve fails on a link to itself
    twice = next((folder for folder, path in zip(folders, real, strict=True) if real.count(path) > 1), None)
    if twice is not None:  # it would agree with itself
        raise InputError("command line", "runs", f"{twice} twice", "each once", "drop one")
    return _asked(folders, given)


def _asked(folders: list[Path], given: dict[str, str]) -> _Request:
    """What the folders and the KEY=VALUE words ask for."""
    select = given.get("select")
    if select is not None and not (select.isascii() and select.isdigit() and int(select[:9]) > 0 and len(select) < 9):
        raise InputError("command line", "select", select, "a number of bands", "write select=K")
    width = given.get("width")
    if width is not None and (select is None or not re.fullmatch("0*[1-9][0-9]{0,4}", width)):
        raise InputError("command line", "width", width, "whole nm, with select=K", "write width=50")
    evidence = Path(given["evidence"]) if "evidence" in given else None
    if evidence is not None and (len(folders) > 1 or (folders[0] / _EVIDENCE).exists()):
        raise InputError(
            "command line",
            "runs",
            ", ".join(map(str, folders)),
            "one run folder, whose report evidence=FOLDER is for",
            "name one run",
        )
    out = Path(given["out"]) if "out" in given else folders[0] / "weights"
    number, width_nm = None if select is None else int(select), None if width is None else int(width)
    return _Request(folders, number, width_nm, evidence, out)


def _read(folders: list[Path]) -> WeightComparison:
    evidence = [folder for folder in folders if (folder / _EVIDENCE).exists()]
    if not evidence:
        return compare(folders)
    if len(folders) > 1:
        raise InputError(
            evidence[0],
            "folder",
            "an evidence folder among others",
            "one evidence folder alone, or run folders",
            "name it alone",
        )
    from hsfusion.evidence.store import read_evidence

    return read_evidence(folders[0])


def _add_evidence(weights: WeightComparison, folder: Path) -> Path:
    """Puts what an evidence folder says into the report of the run; returns its path."""
    from hsfusion.evidence.page import add_evidence
    from hsfusion.evidence.store import read_evidence

    return add_evidence(weights, read_evidence(folder), folder)


def _print_page(weights: WeightComparison) -> None:
    """Prints runs, verdict and windows."""
    print(f"{weights.scene}: {len(weights.reported.bands)} bands, {len(weights.runs)} run(s)\n")
    print("    overall  average  leakage  seed  split     run")
    for run in weights.runs:
        chance = "" if run.beats_chance else "  (no better than chance)"
        print(
            f"    {run.overall_accuracy:7.4f}  {run.average_accuracy:7.4f}  {run.leakage:7.4f}  {run.seed:4}  "
            f"{run.split:8}  {run.folder}{chance}"
        )
    if weights.verdict is None:
        print("\nverdict: none yet, the evidence run has not come to its end")
    else:
        print(f"\nverdict: {weights.verdict.word}")
        for sentence in weights.verdict.sentences:
            print("\n".join(wrap(sentence, _WIDTH, initial_indent="  ", subsequent_indent="  ")))
    if weights.windows:
        print("\n    window (nm)   weight  x untrained" + ("   selected in" if len(weights.runs) > 1 else ""))
    for window in weights.windows:
        often = f"   {window.frequency:.0%} of the runs" if len(weights.runs) > 1 else ""
        print(f"    {window.lower_nm:4.0f}-{window.upper_nm:<6.0f} {window.share:8.1%} {window.raised:12.1f}{often}")
    for name, share in weights.reported.sources:
        print(f"    {name}: {share:.1%}")
    if weights.evidence is not None:
        from hsfusion.runs.weight_files import smallest_numbers

        for (split, kind), number in smallest_numbers(weights).items():
            told = "none measured does" if number is None else f"{number} bands"
            print(f"cheapest sensor that keeps 95 % ({kind}, {split}, chosen on validation pixels): {told}")
