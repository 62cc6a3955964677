"""What a file holds, and what looks wrong about it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import plots
from hsfusion.errors import InputError
from hsfusion.scenes import LabelledScene, Window, open_scene
from hsfusion.scenes.categories import read_categories
from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.geobox import describe_place
from hsfusion.scenes.labels import raster_codes
from hsfusion.scenes.opening import FileScene, open_with_user_metadata, with_labels, with_sources
from hsfusion.scenes.plausibility import plausibility_warnings
from hsfusion.scenes.survey import Survey, survey
from hsfusion.scenes.vectors import vector_format
from hsfusion.spectra import Bands

# keys by what they tell of
_OF_FILE = ("variable", "grid", "axes", "wavelengths", "wavelength_unit", "scale", "offset", "nodata")
_OF_SCENE = ("name", "wavelength_unit", "bad_bands")
_OF_LABELS = ("labels_variable", "class_field", "unlabelled", "class_names", "class_colors")
# of a lone layer of whole numbers that is taken for labels
_MOST_CODES = 256
_MOST_LABELS = 4 * 10**7
_STEMS = ("composite", "spectra", "band_quality")
_FILES = {f"{stem}.{kind}" for stem in _STEMS for kind in ("png", "svg")}
_RGB_NM = (640.0, 550.0, 460.0)
_INFRARED_NM = (850.0, 650.0, 550.0)  # the customary false colours
_SHORTWAVE_NM = (2200.0, 1650.0, 1050.0)
_NEAR_NM = 50.0
_MOST_PIXELS = 1000  # along a side of the composite
_AT_ONCE = 16_000_000  # numbers read


@dataclass(frozen=True)
class LabelCount:
    """Pixels of one class."""

    code: int
    name: str
    pixels: int


@dataclass(frozen=True, eq=False)
class Inspected:
    """A file and what was found out about it.

    Attributes:
        file: the cube.
        bands: its bands, or None where its wavelengths are not known.
        marked_bad: (C,) True for bands that the file says are bad.
        given_bad: (C,) True for bands that the user, and not the file, says are bad.
        found: survey of its pixels.
        place: coordinate system, pixel size, extent.
        sources: name and number of layers of each further raster.
        labels: pixels of each class, by code, or None where there are no labels; code 0 is "unlabelled".
        labels_path: their file.
        warnings: what looks wrong.
    """

    file: CubeFile
    bands: Bands | None
    marked_bad: NDArray[np.bool_]
    given_bad: NDArray[np.bool_]
    found: Survey
    place: Mapping[str, str]
    sources: tuple[tuple[str, int], ...]
    labels: tuple[LabelCount, ...] | None
    labels_path: str | None
    warnings: tuple[str, ...]

    @property
    def good(self) -> NDArray[np.bool_]:
        """(C,) False for bands that anyone says are bad."""
        return ~(self.marked_bad | self.given_bad)

    @property
    def is_labels(self) -> bool:
        """Whether the file itself holds labels, and no spectra."""
        return self.labels is not None and self.labels_path is None


def inspect_file(cube: str, keys: Mapping[str, Any]) -> Inspected:
    """Opens a cube, with labels if they are named, and looks at its pixels.

    Args:
        cube: the file.
        keys: further arguments of :func:`open_labelled_scene`.

    Raises:
        InputError: if a file is damaged, or is not what the keys say. Missing wavelengths are a warning only.
    """
    given = {key: value for key, value in keys.items() if value is not None}
    _check_request(cube, given)
    with _listening() as told:
        file = open_with_user_metadata(cube, **{key: given[key] for key in _OF_FILE if key in given})
        missing = _missing_wavelengths(file, given.get("wavelength_unit"))
        naming = {key: given[key] for key in _OF_SCENE if key in given}
        scene = _without_bands(file, **naming) if missing else open_scene(file, **naming)
        stack = with_sources(scene, given.get("sources"))
        found = survey(scene)
        labels = None
        if "labels" in given:
            labels = _count(with_labels(stack, **{key: given[key] for key in ("labels", *_OF_LABELS) if key in given}))
    own = _own_codes(file) if missing and labels is None else None
    bands = None if missing else scene.bands
    marked = np.ones(file.layers, bool) if file.table.good is None else file.table.good
    doubts = [] if own is not None else [*filter(None, [missing]), *plausibility_warnings(file, found, bands)]
    return Inspected(
        file=file,
        bands=bands,
        marked_bad=~marked,
        given_bad=np.zeros(file.layers, bool) if bands is None else marked & ~bands.good,
        found=found,
        place=describe_place(scene.geobox),
        sources=stack.sources,
        labels=own if labels is None else labels,
        labels_path=None if labels is None else str(given["labels"]),
        warnings=(*doubts, *told),
    )


def _check_request(cube: str, given: Mapping[str, Any]) -> None:
    """Refuses files and keys that are of no use."""
    for key in _OF_LABELS:
        if key in given and "labels" not in given:
            raise InputError("command line", key, given[key], "nothing without labels", "add labels=PATH")
    driver = vector_format(Path(cube))
    if driver is not None:
        raise InputError(
            cube,
            "content",
            f"polygons or points ({driver})",
            "a cube, or a raster of labels",
            f"give it as the labels of a cube: hsfusion inspect CUBE labels={cube} class_field=NAME",
        )


def _missing_wavelengths(file: CubeFile, unit: str | None) -> str | None:
    """What to say where a file names no wavelengths, or no unit; None where both are known.

    Raises:
        InputError: if what it says is wrong, or contradicts itself.
    """
    try:
        file.bands(unit=unit)
    except InputError as error:
        if error.value != "missing":
            raise
        return f"{error.field} is {error.value}, expected {error.expected}: {error.fix}."
    return None


def _without_bands(
    file: CubeFile, *, name: str | None = None, wavelength_unit: str | None = None, bad_bands: Sequence[Any] = ()
) -> FileScene:
    """A scene of which all is known but its wavelengths."""
    bands = Bands.from_wavelengths([]).without(bad_bands)  # which looks at the intervals, too
    return FileScene(file, bands=bands, name=str(name or file.path.stem))


def _count(labelled: LabelledScene) -> tuple[LabelCount, ...]:
    legend = labelled.legend
    pixels = [int((labelled.labels == code).sum()) for code in legend.codes]
    classes = [LabelCount(*row) for row in zip(legend.codes, legend.names, pixels, strict=True)]
    return (*classes, LabelCount(0, "unlabelled", labelled.labels.size - sum(pixels)))


def _own_codes(file: CubeFile) -> tuple[LabelCount, ...] | None:
    """Codes of a file that is one layer of few whole numbers; None for any other."""
    height, width = file.geobox.shape
    if file.layers != 1 or height * width > _MOST_LABELS:
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
def _listening() -> Iterator[list[str]]:
    """Collects what the readers log, which else would stand before the page."""
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    log, listener = logging.getLogger("hsfusion"), Listener(logging.WARNING)
    propagates, log.propagate = log.propagate, False
    log.addHandler(listener)
    try:
        yield told
    finally:
        log.removeHandler(listener)
        log.propagate = propagates


def as_json(inspected: Inspected) -> dict[str, Any]:
    """The same as the page, and the figures of every band, as plain values; None for what is not known."""
    file, found, bands = inspected.file, inspected.found, inspected.bands
    rows, columns = file.geobox.shape
    gain, offset = (None if values is None else _plain(values) for values in (file.gain, file.offset))
    values = {name: _plain(getattr(found, name)) for name in Survey.__dataclass_fields__}
    quantiles = dict(zip(("2 %", "25 %", "50 %", "75 %", "98 %"), values.pop("quantiles"), strict=True))
    named = None
    if bands is not None:
        fwhm = None if bands.fwhm_nm is None else _plain(bands.fwhm_nm)
        named = {"wavelength_nm": _plain(bands.wavelength_nm), "fwhm_nm": fwhm, "good": _plain(bands.good)}
        named |= {"source": file.table.source, "unit": file.table.unit}
    labels = None if inspected.labels is None else [vars(count) for count in inspected.labels]
    return {
        "file": str(file.path),
        "format": file.format,
        "facts": dict(file.facts),
        "rows": rows,
        "columns": columns,
        "layers": file.layers,
        "memory_bytes": rows * columns * file.layers * 4,
        "bands": named,
        "nodata": None if file.nodata is None else _plain(np.float64(file.nodata)),
        "gain": gain,
        "offset": offset,
        "survey": {**values, "quantiles": quantiles},
        "place": dict(inspected.place),
        "transform": list(file.geobox.transform)[:6],
        "sources": dict(inspected.sources),
        "labels": labels,
        "warnings": list(inspected.warnings),
    }


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's; None for NaN, which JSON does not know."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_figure_folder(folder: Path) -> None:
    """Refuses a folder in which figures would replace files that are not from an earlier look.

    Raises:
        InputError: naming it.
    """
    if folder.is_dir():
        there = {path.name for path in folder.iterdir()}
        if not (there & _FILES and there - _FILES):
            return
        value = f"a folder with {', '.join(sorted(there & _FILES))} among other files"
    elif not folder.exists():
        return
    else:
        value = "a file"
    raise InputError(folder, "--plot", value, "a new folder", "name another: --plot FOLDER")


def write_inspection_figures(inspected: Inspected, folder: Path) -> list[Path]:
    """Draws composite, spectra and band quality; labels alone have none of these.

    Raises:
        InputError: if there is nothing to draw.
    """
    if inspected.is_labels or inspected.found.dead.all():
        raise InputError(inspected.file.path, "--plot", "given", "a cube with values", "leave --plot away")
    file, bands, found = inspected.file, inspected.bands, inspected.found
    nm = None if bands is None else bands.wavelength_nm
    good = inspected.good
    name = file.path.stem
    three, colours = _three_bands(nm, good & ~found.dead)
    part = "" if found.pixels == found.total else f" ({found.pixels / found.total:.0%} of the pixels)"
    figures = {
        "composite": plots.composite_figure(plots.composite(_thumbnail(file, three)), title=f"{name}: {colours}"),
        "spectra": plots.spectra_figure(
            nm,
            found.mean,
            found.quantiles,
            good=good & ~found.dead,
            unit="value as stored" if file.gain is None else "value after scaling",
            title=f"Spectra: {name}{part}",
        ),
        "band_quality": plots.band_quality_figure(
            nm,
            found.no_data,
            found.zero,
            found.correlation,
            good=good,
            dead=found.dead,
            title=f"Quality of the bands: {name}{part}",
        ),
    }
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / stem)
    return [folder / f"{stem}.png" for stem in figures]


def _three_bands(nm: NDArray[np.float64] | None, good: NDArray[np.bool_]) -> tuple[list[int], str]:
    """Indices of the bands for red, green and blue, and what the picture is to be called."""
    usable = np.flatnonzero(good)
    if nm is not None:
        for wanted, colours in (
            (_RGB_NM, "true colours"),
            (_INFRARED_NM, "false colours"),
            (_SHORTWAVE_NM, "false colours"),
        ):
            nearest = [int(usable[np.abs(nm[usable] - centre).argmin()]) for centre in wanted]
            if max(abs(nm[c] - centre) for c, centre in zip(nearest, wanted, strict=True)) <= _NEAR_NM:
                return nearest, f"{colours}, {_listed([f'{nm[c]:.0f}' for c in nearest])} nm"
        usable = usable[np.argsort(nm[usable], kind="stable")]
    spread = [int(usable[i * (usable.size - 1) // 4]) for i in (3, 2, 1)]
    if nm is not None:
        return spread, f"false colours, {_listed([f'{nm[c]:.0f}' for c in spread])} nm"
    return spread, f"bands {_listed([str(c + 1) for c in spread])}, wavelengths not known"


def _listed(words: list[str]) -> str:
    return ", ".join(words)


def _thumbnail(file: CubeFile, three: list[int]) -> NDArray[np.float32]:
    """Three bands (3, h, w) of every so-many-th row and column."""
    rows, columns = file.geobox.shape
    step = -(-max(rows, columns) // _MOST_PIXELS)
    at_once = max(1, _AT_ONCE // (columns * file.layers))
    if at_once < step:  # of such a large cube only the rows that are drawn
        windows = [Window(row, 0, 1, columns) for row in range(0, rows, step)]
    else:
        height = at_once // step * step
        windows = [Window(row, 0, min(height, rows - row), columns) for row in range(0, rows, height)]
    return np.concatenate([file.read(window)[three, ::step, ::step] for window in windows], axis=1)
