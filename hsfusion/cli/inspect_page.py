"""The pages of text that ``hsfusion inspect`` prints, of files and of models."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hsfusion.errors import printable, unescaped
from hsfusion.runs.inspection import Inspection, ModelInspection
from hsfusion.scenes.survey import exact, format_band_ranges
from hsfusion.training.model_file import FORMAT_VERSION, ModelHeader

_WIDTH, _LEFT = 100, 14  # of the page, and of the names
_Rows = Iterable[tuple[str, ...]]


def print_page(found: Inspection | ModelInspection) -> None:
    """Prints the page: plain text where the output is no terminal."""
    console = Console(highlight=False, emoji=False)
    console.width = min(_WIDTH, console.width) if console.is_terminal else _WIDTH
    path = found.path.absolute()
    with console.capture() as captured:
        console.print(_text(path.name, "bold"), soft_wrap=True)
        console.print(_text(str(path.parent), "dim"), soft_wrap=True)
        for title, rows in (_model_page(found) if isinstance(found, ModelInspection) else _file_page(found)).items():
            console.print()
            console.print(Text(title, style="bold"))
            console.print(Padding(_table(rows), (0, 0, 0, 2)))
    for line in captured.get().splitlines():
        print(line.rstrip(), file=unescaped(sys.stdout))


def _text(words: str, style: str = "") -> Text:
    """Text of a file, in which nothing but the style steers the terminal."""
    return Text(printable(words, longest=None), style)


def _table(rows: _Rows) -> Table:
    """Rows of a name and a text; or of four cells, of which the numbers stand to the right."""
    table, rows = Table.grid(padding=(0, 2, 0, 0)), list(rows)
    if len(rows[0]) == 2:
        table.add_column(min_width=_LEFT, max_width=3 * _LEFT, style="dim", overflow="fold")
        table.add_column(overflow="fold")
    else:
        for at in range(len(rows[0])):
            table.add_column(justify="right" if at in (0, 2, 3) and len(rows[0]) > 1 else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_text, row))
    return table


def _file_page(found: Inspection) -> dict[str, _Rows]:
    sections: dict[str, _Rows] = {"File": _file(found)}
    if not found.is_labels:
        sections |= {"Bands": _bands(found), "Values": _values(found)}
    sections["Place"] = found.place.items()
    if found.labels is not None:
        sections["Labels"] = _labels(found)
    return {**sections, "Warnings": [(f"! {line}",) for line in found.warnings] or [("none",)]}


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


def _values(found: Inspection) -> Iterator[tuple[str, str]]:
    file, survey = found.file, found.survey
    factors = [f"{sign} {_span(of)}" for sign, of in (("x", file.gain), ("+", file.offset)) if of is not None]
    scaled = f"stored values {' '.join(factors)}, applied once"
    yield "scale", scaled if factors else "none named: values are as stored"
    good = found.good & ~survey.dead
    missing = "none in good bands"
    if good.any():
        yield "range", f"{survey.lowest[good].min():.5g} to {survey.highest[good].max():.5g} in good bands"
        low, _, middle, _, high = np.median(survey.quantiles[:, good], axis=1)
        yield "quantiles", f"2 / 50 / 98 %: {low:.4g} / {middle:.4g} / {high:.4g}, medians of the good bands"
        values = (1 - survey.no_data[good]).sum()
        zero, negative = survey.zero[good].sum() / values, survey.negative[good].sum() / values
        yield "zeros", f"{_share(zero)} of the values in good bands; negative {_share(negative)}"
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


def _labels(found: Inspection) -> Iterator[tuple[str, ...]]:
    counts = found.labels or ()
    classes = [count for count in counts if count.code != 0]
    labelled = sum(count.pixels for count in classes)
    yield "code", "class", "pixels", "of labelled"
    for count in counts:
        share = "" if count.code == 0 or not labelled else f"{count.pixels / labelled:.1%}"
        yield str(count.code), count.name, f"{count.pixels:,}", share
    yield "", "1 class" if len(classes) == 1 else f"{len(classes)} classes", f"{labelled:,}", ""


def _model_page(found: ModelInspection) -> dict[str, _Rows]:
    header, used = found.header, found.used[: len(found.header.bands)]
    bands, classes, test = header.bands, header.classes, header.test or {}
    versions = {"hsfusion": header.hsfusion_version or "not named", **header.versions}
    accuracies = {name: row["accuracy"] for name, row in test.get("per_class", {}).items()}
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
            (str(code), f"{name} ({color})" + (f", accuracy {accuracies[name]:.4f}" if name in accuracies else ""))
            for code, name, color in zip(classes.codes, classes.names, classes.colors, strict=True)
        ],
        "Training scene": _training_scene(header),
        "Accuracies": [(name.replace("_", " "), f"{value:.4f}") for name, value in test.items() if name != "per_class"]
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


def _training_scene(header: ModelHeader) -> Iterator[tuple[str, str]]:
    scene, split = header.training_scene, header.split
    if scene is None:
        yield "name", "not named"
    else:
        yield "name", scene["name"]
        yield "size", "{:,} rows x {:,} columns".format(*scene["shape"])
        yield "coordinates", scene["crs"] or "none"
        yield from (("file", f"{entry['name']}, {entry['bytes']:,} bytes") for entry in scene.get("files", []))
        for entry in scene["values"]:
            scale, offset = ("of each band" if isinstance(entry[k], list) else entry[k] for k in ("scale", "offset"))
            yield "values", f"{entry['name']}: {entry['format']}, scale {scale}, offset {offset}"
    if split is not None:
        roles = {"train": "training", "val": "validation", "test": "test"}
        pixels = ", ".join(f"{split[f'{role}_pixels']:,} {word}" for role, word in roles.items())
        yield "split", f"{split['kind']}: {pixels} pixels"
        yield "leakage", f"{split['leakage']:.4f} of the test pixels have a training pixel in their patch"
