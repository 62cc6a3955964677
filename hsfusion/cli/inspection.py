"""``hsfusion inspect``: a page of text, figures or JSON on a file.

A module that is itself named inspect would hide Python's own from files that are run beside it.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from hsfusion.cli.words import word_value
from hsfusion.errors import InputError, printable
from hsfusion.scenes.description import check_scene_value, read_description, scene_keys
from hsfusion.scenes.survey import exact, format_band_ranges
from hsfusion.training.model_file import FORMAT_VERSION

if TYPE_CHECKING:
    from hsfusion.runs.inspection import Inspection, ModelInspection

_MODELS = {".safetensors", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"}  # all but the first are refused with the reason
_WIDTH, _LEFT = 100, 14  # of the page, and of the names
_Rows = Iterable[tuple[str, str]]
_HELP = """hsfusion inspect FILE [key=value ...] [--plot [FOLDER]] [--json]

Tells what a file holds: format, size, bands, values, place, labels, and what looks wrong about it.

FILE is a cube of any known format, a raster of labels, a scene description (.yaml), or a model: a run folder or its
model.safetensors. Labels that are polygons or points are told beside a cube: labels=FILE class_field=NAME.
--plot [FOLDER]  draws a composite, the spectra and the quality of the bands into FOLDER (default NAME_inspect)
--json           prints JSON instead, with figures for every band

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
    parser.add_argument("--json", action="store_true")
    given, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        raise _unknown("option", unknown[0], ["--plot", "--json", "--help"])
    file, keys = _file_and_keys(given.words)
    folder = None if given.plot is None else Path(given.plot or f"{Path(file).stem}_inspect")
    if Path(file).suffix.lower() in (".yaml", ".yml"):
        described = read_description(file)
        file, keys = str(described.pop("cube")), {**described, **keys}
    from hsfusion.runs.inspection import inspect_file, inspect_model

    is_model = Path(file).suffix.lower() in _MODELS or Path(file).is_dir()
    if is_model and folder is not None:
        raise InputError("command line", "--plot", "given", "a cube", "hsfusion weights RUN draws band weights")
    found = inspect_model(Path(file)) if is_model else inspect_file(file, keys)
    _show(found, folder, as_json=given.json)


def _show(found: Inspection | ModelInspection, folder: Path | None, *, as_json: bool) -> None:
    from hsfusion.runs.inspection import Inspection

    figures = found.figures() if folder is not None and isinstance(found, Inspection) else {}
    if as_json:
        print(json.dumps(found.to_dict(), indent=1, allow_nan=False, ensure_ascii=False))
    else:
        _print_page(found)
    if folder is None:
        return
    from hsfusion import plots

    for stem, figure in figures.items():
        plots.save_figure(figure, folder / stem)
    if not as_json:
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


def _print_page(found: Inspection | ModelInspection) -> None:
    from hsfusion.runs.inspection import ModelInspection

    path, left = found.path.absolute(), " " * (_LEFT + 4)
    print(f"{printable(path.name, longest=None)}\n{printable(path.parent, longest=None)}")
    for title, rows in (_model_page(found) if isinstance(found, ModelInspection) else _file_page(found)).items():
        print(f"\n{title}")
        for name, text in rows:
            first = f"  {printable(name, longest=None):<{_LEFT}}  "
            words = printable(text, longest=None)
            print(fill(words, _WIDTH, initial_indent=first, subsequent_indent=left) if words else first.rstrip())


def _file_page(found: Inspection) -> dict[str, _Rows]:
    spectra = {} if found.is_labels else {"Bands": _bands(found), "Values": _values(found)}
    labels = {} if found.labels is None else {"Labels": _labels(found)}
    warnings = [("!", line) for line in found.warnings] or [("none", "")]
    return {"File": _file(found), **spectra, "Place": found.place.items(), **labels, "Warnings": warnings}


def _file(found: Inspection) -> Iterator[tuple[str, str]]:
    file = found.file
    rows, columns = file.geobox.shape
    yield "format", file.format
    yield from file.facts.items()
    yield "size", f"{rows:,} rows x {columns:,} columns x {file.layers:,} {'band' if file.layers == 1 else 'bands'}"
    if not found.is_labels:
        yield from (("also", f"{_layers(*source)} on the same grid") for source in found.sources)
        yield "memory", f"{decimal(rows * columns * file.layers * 4)} when loaded (float32)"


def _layers(name: str, number: int) -> str:
    return f"{name}: {number} {'layer' if number == 1 else 'layers'}"


def _range(nm: NDArray[np.float64] | None) -> str:
    return "not named" if nm is None else f"{nm.min():.1f} to {nm.max():.1f} nm"


def _bands(found: Inspection) -> Iterator[tuple[str, str]]:
    bands, table = found.bands, found.file.table
    if bands is None:
        named = table.wavelength
        inside = "" if named is None else f": {named.min():g} to {named.max():g}, unit {table.unit or 'not named'}"
        yield "wavelengths", f"not known in nm, see the warnings{inside}"
    else:
        step = np.abs(np.diff(bands.wavelength_nm))
        spacing = f", {np.median(step):.3g} nm apart (median)" if step.size else ""
        yield "wavelengths", _range(bands.wavelength_nm) + spacing
        yield "from", f"{table.source}, unit {table.unit or 'given by wavelength_unit'}"
        yield "FWHM", _range(bands.fwhm_nm)
    empty = found.survey.no_data == 1
    reasons = {"marked": found.marked_bad, "by bad_bands": found.given_bad, "no data": empty}
    reasons["one value"] = found.survey.dead & ~empty
    bad = np.logical_or.reduce(list(reasons.values()))
    yield "bad bands", f"{bad.sum()} of {bad.size}" if bad.any() else "none"
    for reason, chosen in reasons.items():
        if chosen.any():
            yield f"  {reason}", f"{chosen.sum()}: {format_band_ranges(chosen, bands)}"
    flags = {reason: of for reason, of in found.atmospheric.items() if of.any()}
    if flags:
        yield "atmosphere", "the values of these bands may be made by it, or by its correction"
        yield from ((f"  {reason}", f"{of.sum()}: {format_band_ranges(of, bands)}") for reason, of in flags.items())


def _values(found: Inspection) -> Iterator[tuple[str, str]]:
    file, survey = found.file, found.survey
    factors = [f"{sign} {_span(of)}" for sign, of in (("x", file.gain), ("+", file.offset)) if of is not None]
    scaled = f"stored values {' '.join(factors)}, applied once"
    yield "scale", scaled if factors else "none named: values are as stored"
    good = found.good & ~survey.dead
    missing = "none in good bands"
    if good.any():
        yield "range", f"{survey.lowest[good].min():.5g} to {survey.highest[good].max():.5g} in good bands"
        if some := survey.no_data[good].mean():
            missing = f"{_share(survey.empty)} of the pixels in all bands; {_share(some)} of the values in good bands"
    yield "nodata value", "the file names none" if file.nodata is None else exact(file.as_stored(file.nodata))
    yield "no data", missing
    part = f"{survey.pixels:,} of {survey.total:,} pixels ({survey.pixels / survey.total:.1%}), in evenly spaced rows"
    yield "looked at", part if survey.pixels < survey.total else f"all {survey.total:,} pixels"


def _span(values: NDArray[np.float64]) -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g} (one for each band)"


def _share(value: float) -> str:
    text = f"{value:.1%}" if value >= 0.001 else f"{100 * value:.2g}%"
    return "none" if value == 0 else "all" if value == 1 else text


def _labels(found: Inspection) -> Iterator[tuple[str, str]]:
    counts = found.labels or ()
    labelled = sum(count.pixels for count in counts if count.code != 0)
    for count in counts:
        share = "" if count.code == 0 or not labelled else f", {count.pixels / labelled:.1%} of the labelled ones"
        yield str(count.code), f"{count.name}: {count.pixels:,} pixels{share}"
    yield "classes", f"{sum(count.code != 0 for count in counts)}, {labelled:,} labelled pixels"


def _model_page(found: ModelInspection) -> dict[str, _Rows]:
    header, used = found.header, found.used[: len(found.header.bands)]
    bands, classes, test = header.bands, header.classes, header.test or {}
    scene = {**(header.training_scene or {"name": "not named"}), **(header.split or {})}
    versions = {"hsfusion": header.hsfusion_version or "not named", **header.versions}
    return {
        "Model": {
            "format": f"model.safetensors of hsfusion, format {FORMAT_VERSION}",
            "checksum": f"matches header and tensors ({str(header.checksum)[:12]}…)",
            "architecture": _listed({"fusion": header.fusion, **header.architecture}),
            "seed": str(header.seed),
            "versions": _listed(versions),
        }.items(),
        "Bands": {
            "number": f"{len(bands)}: {used.sum()} used, {(~bands.good).sum()} marked bad",
            "wavelengths": _range(bands.wavelength_nm),
            "used": _range(bands.wavelength_nm[used]) if used.any() else "none",
            "FWHM": _range(bands.fwhm_nm),
            **({"also": ", ".join(_layers(*source) for source in header.sources)} if header.sources else {}),
        }.items(),
        "Groups": _groups(found),
        "Classes": [
            (str(code), f"{name} ({color})")
            for code, name, color in zip(classes.codes, classes.names, classes.colors, strict=True)
        ],
        "Training scene": [(key, str(value)) for key, value in scene.items()],
        "Accuracies": [
            (name.replace("_", " "), f"{value:.4f}") for name, value in test.items() if isinstance(value, float)
        ]
        or [("test", "not named")],
    }


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {'none' if value is None else value}" for name, value in values.items())


def _groups(found: ModelInspection) -> Iterator[tuple[str, str]]:
    header, weights, inside = found.header, found.weights, found.membership
    rows = [(group.name, _range(np.array([group.lower_nm, group.upper_nm]))) for group in header.groups]
    rows += [(name, f"{layers} further layers") for name, layers in header.sources]
    if weights is None:
        yield "weights", "depend on the pixel: band_weights.csv of the run has their mean over training pixels"
    elif header.fusion == "free":
        yield "weights", "a free convolution: the groups play no part in it"
        weights = None
    for g, (name, row) in enumerate(rows):
        count = "" if weights is None else f", {inside[g].sum()} bands, weight {100 * weights[inside[g]].sum():.1f} %"
        yield name, row + count
