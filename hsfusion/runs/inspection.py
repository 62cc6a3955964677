"""What a file holds, what looks wrong about it, and both in words: rows of a name and a text."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from hsfusion import plots
from hsfusion.errors import InputError
from hsfusion.scenes import LabelledScene, Window, open_scene
from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.geobox import describe_place
from hsfusion.scenes.labels import raster_codes
from hsfusion.scenes.legend import read_categories
from hsfusion.scenes.opening import FileScene, with_labels, with_sources, with_user_metadata
from hsfusion.scenes.survey import Survey, atmospheric_bands, exact, format_band_ranges, plausibility_warnings, survey
from hsfusion.scenes.vectors import vector_format
from hsfusion.spectra import Bands
from hsfusion.training.model_file import FORMAT_VERSION, ModelHeader

if TYPE_CHECKING:
    from hsfusion.nn import FusionNetwork

# keys by what they describe
_OF_FILE = ("variable", "grid", "axes")
_OF_NUMBERS = ("wavelengths", "scale", "offset", "nodata")
_OF_SCENE = ("name", "wavelength_unit", "bad_bands")
_OF_LABELS = ("labels_variable", "class_field", "unlabelled", "class_names", "class_colors")
# of a lone layer of whole numbers that is taken for labels
_MOST_CODES = 256
_MOST_LABELS = 4 * 10**7
_MOST_PIXELS = 1000  # along a side of the composite
_AT_ONCE = 16_000_000  # numbers read

_Rows = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class LabelCount:
    """Pixels of one class."""

    code: int
    name: str
    pixels: int


@dataclass(frozen=True, eq=False)
class Inspection:
    """A cube, what it holds, and what looks wrong.

    Attributes:
        bands: None where wavelengths are not known.
        marked_bad, given_bad: (C,) bands that the file marks as bad, and those that only the user does.
        labels: pixels of each class; None where there are no labels; code 0 is "unlabelled".
        is_labels: whether the file itself holds labels, and no spectra.
    """

    file: CubeFile
    bands: Bands | None
    marked_bad: NDArray[np.bool_]
    given_bad: NDArray[np.bool_]
    survey: Survey
    place: Mapping[str, str]
    sources: tuple[tuple[str, int], ...]
    labels: tuple[LabelCount, ...] | None
    is_labels: bool
    warnings: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    @property
    def good(self) -> NDArray[np.bool_]:
        """(C,) False for bands that anyone says are bad."""
        return ~(self.marked_bad | self.given_bad)

    @property
    def atmospheric(self) -> dict[str, NDArray[np.bool_]]:
        """Bands (C,) that may show the atmosphere, by reason; none where wavelengths are not known."""
        if self.bands is None or self.is_labels:
            return {}
        return atmospheric_bands(self.survey.mean, self.bands.wavelength_nm, self.good & ~self.survey.dead)

    def figures(self) -> dict[str, Any]:
        """Composite, spectra and band quality, by the names of their files; a raster of labels has none of these."""
        file, values, name = self.file, self.survey, self.path.stem
        if self.is_labels or values.dead.all():
            raise InputError(file.path, "--plot", "given", "a cube with values", "leave out --plot")
        nm = None if self.bands is None else self.bands.wavelength_nm
        good = self.good & ~values.dead
        three, colours = plots.composite_bands(nm, good)
        part = "" if values.pixels == values.total else f" ({values.pixels / values.total:.0%} of the pixels)"
        unit = "value as stored" if file.gain is None else "value after scaling"
        title = f"Quality of the bands: {name}{part}"
        shares = (values.no_data, values.zero, values.correlation)
        return {
            "composite": plots.composite_figure(plots.composite(_thumbnail(file, three)), title=f"{name}: {colours}"),
            "spectra": plots.spectra_figure(
                nm, values.mean, values.quantiles, good=good, unit=unit, title=f"Spectra: {name}{part}"
            ),
            "band_quality": plots.band_quality_figure(nm, *shares, good=self.good, dead=values.dead, title=title),
        }


def inspect_file(cube: str, keys: Mapping[str, Any]) -> Inspection:
    """Opens a cube as :func:`hsfusion.scenes.open_labelled_scene` does by ``keys``, and surveys its pixels."""
    given = {key: value for key, value in keys.items() if value is not None}

    def part(*names: str) -> dict[str, Any]:
        return {name: given[name] for name in names if name in given}

    if features := vector_format(Path(cube)):
        raise InputError(
            cube, "format", features, "a raster", f"give it with its scene: hsfusion inspect CUBE labels={cube}"
        )
    with _logged_warnings() as logged:
        file = with_user_metadata(open_cube_file(cube, **part(*_OF_FILE)), **part(*_OF_NUMBERS))
        missing = None
        try:
            scene = open_scene(file, **part(*_OF_SCENE))
        except InputError as error:
            if error.value != "missing":  # wavelengths, or their unit
                raise
            missing = f"{error.field} is {error.value}, expected {error.expected}: {error.fix}."
            bands = Bands.from_wavelengths([]).without(given.get("bad_bands", ()))  # which checks the intervals
            scene = FileScene(file, bands=bands, name=file.path.stem)
        stack = with_sources(scene, given.get("sources"))
        surveyed = survey(scene)
        labels = _label_counts(with_labels(stack, **part("labels", *_OF_LABELS))) if "labels" in given else None
    codes = _label_codes(file) if missing and labels is None else None
    bands = None if missing else scene.bands
    marked = np.ones(file.layers, bool) if file.table.good is None else file.table.good
    doubts = [] if codes is not None else [*filter(None, [missing]), *plausibility_warnings(file, surveyed, bands)]
    return Inspection(
        file=file,
        bands=bands,
        marked_bad=~marked,
        given_bad=np.zeros(file.layers, bool) if bands is None else marked & ~bands.good,
        survey=surveyed,
        place=describe_place(scene.geobox),
        sources=stack.sources,
        labels=codes if labels is None else labels,
        is_labels=codes is not None,
        warnings=(*doubts, *logged),
    )


def _label_counts(labelled: LabelledScene) -> tuple[LabelCount, ...]:
    legend = labelled.legend
    pixels = [int((labelled.labels == code).sum()) for code in legend.codes]
    classes = [LabelCount(*row) for row in zip(legend.codes, legend.names, pixels, strict=True)]
    return (*classes, LabelCount(0, "unlabelled", labelled.labels.size - sum(pixels)))


def _label_codes(file: CubeFile) -> tuple[LabelCount, ...] | None:
    """Codes of a file that is one layer of few whole numbers; None for any other."""
    if file.layers != 1 or math.prod(file.geobox.shape) > _MOST_LABELS:
        return None
    try:
        index, codes = raster_codes(file, unlabelled=(0,))
    except InputError:
        return None  # measurements
    if len(codes) > _MOST_CODES:
        return None
    names = read_categories(file).names
    pixels = np.bincount(index.ravel() + 1, minlength=len(codes) + 1).tolist()
    classes = [LabelCount(code, names.get(code, f"class {code}"), n) for code, n in zip(codes, pixels[1:], strict=True)]
    return (*classes, LabelCount(0, names.get(0, "unlabelled"), pixels[0]))


@contextmanager
def _logged_warnings() -> Iterator[list[str]]:
    """Collects the warnings of readers, which would otherwise come before the page."""
    messages: list[str] = []
    log, listener = logging.getLogger("hsfusion"), logging.Handler(logging.WARNING)
    listener.emit = lambda record: messages.append(record.getMessage())
    propagates, log.propagate = log.propagate, False
    log.addHandler(listener)
    try:
        yield messages
    finally:
        log.removeHandler(listener)
        log.propagate = propagates


def _thumbnail(file: CubeFile, three: list[int]) -> NDArray[np.float32]:
    """Three bands (3, h, w) of every so-many-th row and column."""
    rows, columns = file.geobox.shape
    step = -(-max(rows, columns) // _MOST_PIXELS)
    height = max(1, _AT_ONCE // (columns * file.layers) // step * step)  # of large cubes only the rows that are drawn
    starts = range(0, rows, max(step, height))
    windows = [Window(row, 0, min(height, rows - row), columns) for row in starts]
    return np.concatenate([file.read(window)[three, ::step, ::step] for window in windows], axis=1)


def page(inspection: Inspection) -> dict[str, _Rows]:
    """Title -> rows of a name and a text."""
    spectra = {} if inspection.is_labels else {"Bands": _bands(inspection), "Values": _values(inspection)}
    labels = {} if inspection.labels is None else {"Labels": _labels(inspection)}
    warnings = [("!", line) for line in inspection.warnings] or [("none", "")]
    place = {"Georeferencing": inspection.place.items()}
    return {"File": _file(inspection), **spectra, **place, **labels, "Warnings": warnings}


def _file(inspection: Inspection) -> Iterator[tuple[str, str]]:
    file = inspection.file
    rows, columns = file.geobox.shape
    yield "format", file.format
    yield from file.facts.items()
    yield "size", f"{rows:,} rows x {columns:,} columns x {file.layers:,} {'band' if file.layers == 1 else 'bands'}"
    if not inspection.is_labels:
        yield from (("also", f"{_layers(*source)} on the same grid") for source in inspection.sources)
        yield "memory", f"{decimal(rows * columns * file.layers * 4)} when loaded (float32)"


def _layers(name: str, number: int) -> str:
    return f"{name}: {number} {'layer' if number == 1 else 'layers'}"


def _range(nm: NDArray[np.float64] | None) -> str:
    return "not given" if nm is None else f"{nm.min():.1f} to {nm.max():.1f} nm"


def _bands(inspection: Inspection) -> Iterator[tuple[str, str]]:
    bands, table = inspection.bands, inspection.file.table
    if bands is None:
        named = table.wavelength
        inside = "" if named is None else f": {named.min():g} to {named.max():g}, unit {table.unit or 'not given'}"
        yield "wavelengths", f"not known in nm, see the warnings{inside}"
    else:
        step = np.diff(np.unique(bands.wavelength_nm))
        spacing = f", {np.median(step):.3g} nm apart (median)" if step.size else ""
        yield "wavelengths", _range(bands.wavelength_nm) + spacing
        yield "from", f"{table.source}, unit {table.unit or 'given by wavelength_unit'}"
        yield "FWHM", _range(bands.fwhm_nm)
    empty = inspection.survey.no_data == 1
    reasons = {"marked": inspection.marked_bad, "by bad_bands": inspection.given_bad, "no data": empty}
    reasons["constant"] = inspection.survey.dead & ~empty
    bad = np.logical_or.reduce(list(reasons.values()))
    yield "bad bands", f"{bad.sum()} of {bad.size}" if bad.any() else "none"
    for reason, chosen in reasons.items():
        if chosen.any():
            yield f"  {reason}", f"{chosen.sum()}: {format_band_ranges(chosen, bands)}"
    flags = {reason: of for reason, of in inspection.atmospheric.items() if of.any()}
    if flags:
        yield "atmosphere", "the values of these bands may come from the atmosphere or its correction"
        yield from ((f"  {reason}", f"{of.sum()}: {format_band_ranges(of, bands)}") for reason, of in flags.items())


def _values(inspection: Inspection) -> Iterator[tuple[str, str]]:
    file, survey = inspection.file, inspection.survey
    factors = [f"{sign} {_span(of)}" for sign, of in (("x", file.gain), ("+", file.offset)) if of is not None]
    scaled = f"stored values {' '.join(factors)}, applied once"
    yield "scale", scaled if factors else "none named: values are as stored"
    good = inspection.good & ~survey.dead
    missing = "none in good bands"
    if good.any():
        yield "range", f"{survey.lowest[good].min():.5g} to {survey.highest[good].max():.5g} in good bands"
        if some := survey.no_data[good].mean():
            missing = f"{_share(survey.empty)} of the pixels in all bands; {_share(some)} of the values in good bands"
    yield "nodata value", "the file names none" if file.nodata is None else exact(file.as_stored(file.nodata))
    yield "no data", missing
    part = f"{survey.pixels:,} of {survey.total:,} pixels ({survey.pixels / survey.total:.1%}), in evenly spaced rows"
    yield "surveyed", part if survey.pixels < survey.total else f"all {survey.total:,} pixels"


def _span(values: NDArray[np.float64]) -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g} (one for each band)"


def _share(value: float) -> str:
    text = f"{value:.1%}" if value >= 0.001 else f"{100 * value:.2g}%"
    return "none" if value == 0 else "all" if value == 1 else text


def _labels(inspection: Inspection) -> Iterator[tuple[str, str]]:
    counts = inspection.labels or ()
    labelled = sum(count.pixels for count in counts if count.code != 0)
    for count in counts:
        share = "" if count.code == 0 or not labelled else f", {count.pixels / labelled:.1%} of the labelled ones"
        yield str(count.code), f"{count.name}: {count.pixels:,} pixels{share}"
    yield "classes", f"{sum(count.code != 0 for count in counts)}, {labelled:,} labelled pixels"


def model_page(path: Path) -> dict[str, _Rows]:
    """The page of a model file: title -> rows of a name and a text."""
    from hsfusion.training.model_file import load_model

    network, header = load_model(path)
    used = network.used_bands.numpy()[: len(header.bands)]
    bands, classes, test = header.bands, header.classes, header.test or {}
    scene = {**(header.training_scene or {"name": "not given"}), **(header.split or {})}
    versions = {"hsfusion": header.hsfusion_version or "not given", **header.versions}
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
        "Groups": _groups(network, header),
        "Classes": [
            (str(code), f"{name} ({color})")
            for code, name, color in zip(classes.codes, classes.names, classes.colors, strict=True)
        ],
        "Training scene": [(key, str(value)) for key, value in scene.items()],
        "Accuracies": [
            (name.replace("_", " "), f"{value:.4f}") for name, value in test.items() if isinstance(value, float)
        ]
        or [("test", "not given")],
    }


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {'none' if value is None else value}" for name, value in values.items())


def _groups(network: FusionNetwork, header: ModelHeader) -> Iterator[tuple[str, str]]:
    from hsfusion.training.building import WeightReadout

    weights, inside = None, network.fusion.membership.numpy()
    rows = [(group.name, _range(np.array([group.lower_nm, group.upper_nm]))) for group in header.groups]
    rows += [(name, f"{layers} further layers") for name, layers in header.sources]
    if header.fusion.endswith("instance"):
        yield "weights", "depend on the pixel; band_weights.csv of the run has their mean over training pixels"
    elif header.fusion == "free":
        yield "weights", "a free convolution, which does not use the groups"
    else:
        weights = WeightReadout(network).weight
    for g, (name, row) in enumerate(rows):
        count = "" if weights is None else f", {inside[g].sum()} bands, weight {100 * weights[inside[g]].sum():.1f} %"
        yield name, row + count
