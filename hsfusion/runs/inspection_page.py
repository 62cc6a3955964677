"""What an inspection says, in words: parts of a page, each with rows of a name and a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from hsfusion.runs.inspection import Inspection, ModelInspection
from hsfusion.scenes.survey import exact, format_band_ranges
from hsfusion.training.model_file import FORMAT_VERSION

_Rows = Iterable[tuple[str, str]]


def page(found: Inspection | ModelInspection) -> dict[str, _Rows]:
    """Title -> rows of a name and a text, of a file or of a model."""
    return _model_page(found) if isinstance(found, ModelInspection) else _file_page(found)


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
