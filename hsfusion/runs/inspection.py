"""What a file holds, and what looks wrong about it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import plots
from hsfusion.errors import InputError
from hsfusion.scenes import LabelledScene, Window, open_scene
from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.geobox import describe_place
from hsfusion.scenes.labels import raster_codes
from hsfusion.scenes.legend import read_categories
from hsfusion.scenes.opening import FileScene, with_labels, with_sources, with_user_metadata
from hsfusion.scenes.survey import Survey, atmospheric_bands, plausibility_warnings, survey
from hsfusion.spectra import Bands
from hsfusion.training.model_file import ModelHeader

# keys by what they describe
_OF_FILE = ("variable", "grid", "axes")
_OF_NUMBERS = ("wavelengths", "wavelength_unit", "scale", "offset", "nodata")
_OF_SCENE = ("name", "wavelength_unit", "bad_bands")
_OF_LABELS = ("labels_variable", "class_field", "unlabelled", "class_names", "class_colors")
# of a lone layer of whole numbers that is taken for labels
_MOST_CODES = 256
_MOST_LABELS = 4 * 10**7
_MOST_PIXELS = 1000  # along a side of the composite
_AT_ONCE = 16_000_000  # numbers read


@dataclass(frozen=True)
class LabelCount:
    """Pixels of one class."""

    code: int
    name: str
    pixels: int


@dataclass(frozen=True, eq=False)
class Inspection:
    """A cube and what was found out about it.

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
        file, found, name = self.file, self.survey, self.path.stem
        if self.is_labels or found.dead.all():
            raise InputError(file.path, "--plot", "given", "a cube with values", "leave --plot away")
        nm = None if self.bands is None else self.bands.wavelength_nm
        good = self.good & ~found.dead
        three, colours = plots.composite_bands(nm, good)
        part = "" if found.pixels == found.total else f" ({found.pixels / found.total:.0%} of the pixels)"
        unit = "value as stored" if file.gain is None else "value after scaling"
        title = f"Quality of the bands: {name}{part}"
        shares = (found.no_data, found.zero, found.correlation)
        return {
            "composite": plots.composite_figure(plots.composite(_thumbnail(file, three)), title=f"{name}: {colours}"),
            "spectra": plots.spectra_figure(
                nm, found.mean, found.quantiles, good=good, unit=unit, title=f"Spectra: {name}{part}"
            ),
            "band_quality": plots.band_quality_figure(nm, *shares, good=self.good, dead=found.dead, title=title),
        }


def inspect_file(cube: str, keys: Mapping[str, Any]) -> Inspection:
    """Opens a cube as :func:`hsfusion.scenes.open_labelled_scene` does by ``keys``, and surveys its pixels."""
    given = {key: value for key, value in keys.items() if value is not None}

    def part(*names: str) -> dict[str, Any]:
        return {name: given[name] for name in names if name in given}

    with _logged_warnings() as logged:
        file = with_user_metadata(open_cube_file(cube, **part(*_OF_FILE)), **part(*_OF_NUMBERS))
        missing = _missing_wavelengths(file, given.get("wavelength_unit"))
        if missing is None:
            scene = open_scene(file, **part(*_OF_SCENE))
        else:
            bands = Bands.from_wavelengths([]).without(given.get("bad_bands", ()))  # which checks the intervals
            scene = FileScene(file, bands=bands, name=file.path.stem)
        stack = with_sources(scene, given.get("sources"))
        found = survey(scene)
        labels = _label_counts(with_labels(stack, **part("labels", *_OF_LABELS))) if "labels" in given else None
    own = _own_codes(file) if missing and labels is None else None
    bands = None if missing else scene.bands
    marked = np.ones(file.layers, bool) if file.table.good is None else file.table.good
    doubts = [] if own is not None else [*filter(None, [missing]), *plausibility_warnings(file, found, bands)]
    return Inspection(
        file=file,
        bands=bands,
        marked_bad=~marked,
        given_bad=np.zeros(file.layers, bool) if bands is None else marked & ~bands.good,
        survey=found,
        place=describe_place(scene.geobox),
        sources=stack.sources,
        labels=own if labels is None else labels,
        is_labels=own is not None,
        warnings=(*doubts, *logged),
    )


def _missing_wavelengths(file: CubeFile, unit: str | None) -> str | None:
    """The warning where a file names no wavelengths, or no unit; wrong ones are an error."""
    try:
        file.bands(unit=unit)
    except InputError as error:
        if error.value != "missing":
            raise
        return f"{error.field} is {error.value}, expected {error.expected}: {error.fix}."
    return None


def _label_counts(labelled: LabelledScene) -> tuple[LabelCount, ...]:
    legend = labelled.legend
    pixels = [int((labelled.labels == code).sum()) for code in legend.codes]
    classes = [LabelCount(*row) for row in zip(legend.codes, legend.names, pixels, strict=True)]
    return (*classes, LabelCount(0, "unlabelled", labelled.labels.size - sum(pixels)))


def _own_codes(file: CubeFile) -> tuple[LabelCount, ...] | None:
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
    """Collects what the readers log, which else would stand before the page."""
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


@dataclass(frozen=True, eq=False)
class ModelInspection:
    """A model file; ``used`` and ``weights`` are (C + E,), ``membership`` is (G, C + E)."""

    path: Path
    header: ModelHeader
    used: NDArray[np.bool_]
    membership: NDArray[np.bool_]
    weights: NDArray[np.float64] | None  # None where every pixel has its own


def inspect_model(path: Path) -> ModelInspection:
    """Reads a model file, or that of a run folder."""
    from hsfusion.training.building import WeightReadout
    from hsfusion.training.model_file import load_model

    file = path / "model.safetensors" if path.is_dir() else path
    network, header = load_model(file)
    weights = None if network.fusion.kind.endswith("instance") else WeightReadout(network).weight
    return ModelInspection(file, header, network.used_bands.numpy(), network.fusion.membership.numpy(), weights)
