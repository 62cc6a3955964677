"""What ``hsfusion inspect`` finds out about a file."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_labelled_scene, open_scene
from hsfusion.scenes.categories import read_categories
from hsfusion.scenes.doubts import warnings_of
from hsfusion.scenes.places import describe_place
from hsfusion.scenes.readers.cube_file import NM_PER_UNIT, CubeFile
from hsfusion.scenes.readers.formats import open_cube_file
from hsfusion.scenes.survey import Survey, survey
from hsfusion.spectra import Bands

_LABEL_KEYS = ("labels_variable", "class_field", "unlabelled", "class_names", "class_colors", "sources")
_MOST_CODES = 256  # of a lone layer of whole numbers that is taken for labels


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
        labels: pixels of each class, by code, or None where there are no labels; code 0 is «unlabelled».
        labels_path: their file.
        warnings: what looks wrong.
    """

    file: CubeFile
    bands: Bands | None
    marked_bad: NDArray[np.bool_]
    given_bad: NDArray[np.bool_]
    found: Survey
    place: Mapping[str, str]
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
    reading = {key: value for key, value in keys.items() if key not in (*_LABEL_KEYS, "labels")}
    bare = open_cube_file(cube, variable=reading.get("variable"), grid=reading.get("grid"))
    missing = None if reading.get("wavelengths") is not None else _missing_wavelengths(bare, reading)
    if missing is not None:  # everything else can be told without them, if something stands there
        centres = np.linspace(1000, 2000, bare.layers).tolist()
        reading |= {"wavelengths": centres, "wavelength_unit": "nm", "bad_bands": ()}
    scene = open_scene(cube, **reading)
    file = scene.file if missing is None else dataclasses.replace(scene.file, table=bare.table)
    bands = scene.bands if missing is None else None
    found = survey(scene)
    labels, told = None, []
    if keys.get("labels") is not None:
        more = {key: keys[key] for key in ("labels", *_LABEL_KEYS) if key in keys}
        with _listening() as told:
            labels = _count(cube, reading | more)
    elif missing is not None:
        labels = _own_codes(file)
    own = labels is not None and keys.get("labels") is None
    marked = np.ones(file.layers, bool) if file.table.good is None else file.table.good
    return Inspected(
        file=file,
        bands=bands,
        marked_bad=~marked,
        given_bad=marked & ~scene.bands.good,
        found=found,
        place=describe_place(scene.geobox),
        labels=labels,
        labels_path=None if own or labels is None else str(keys["labels"]),
        warnings=() if own else (*([] if missing is None else [missing]), *warnings_of(file, found, bands), *told),
    )


def _missing_wavelengths(file: CubeFile, reading: Mapping[str, Any]) -> str | None:
    """What to say where a file names no wavelengths, or no unit; None where both are known."""
    unit = (file.table.unit or "").strip().lower()
    if file.table.wavelength is not None and (unit in NM_PER_UNIT or reading.get("wavelength_unit") is not None):
        return None
    try:
        file.bands()
    except InputError as error:
        return f"{error.field} is {error.value}, expected {error.expected}: {error.fix}."
    return None


def _count(cube: str, arguments: dict[str, Any]) -> tuple[LabelCount, ...]:
    labelled = open_labelled_scene(cube, **arguments)
    legend = labelled.legend
    pixels = [int((labelled.labels == code).sum()) for code in legend.codes]
    classes = [LabelCount(*row) for row in zip(legend.codes, legend.names, pixels, strict=True)]
    return (*classes, LabelCount(0, "unlabelled", labelled.labels.size - sum(pixels)))


def _own_codes(file: CubeFile) -> tuple[LabelCount, ...] | None:
    """Codes of a file that is one layer of few whole numbers; None for any other."""
    height, width = file.geobox.shape
    if file.layers != 1 or height * width > 10**8:
        return None
    values = file.read(Window(0, 0, height, width))
    codes, pixels = np.unique(values[np.isfinite(values)], return_counts=True)
    if not codes.size or codes.size > _MOST_CODES or (codes != np.round(codes)).any():
        return None
    names = {0: "unlabelled"} | dict(read_categories(file).names)
    rows = sorted(zip(codes.astype(int).tolist(), pixels.tolist(), strict=True), key=lambda row: (row[0] == 0, row[0]))
    return tuple(LabelCount(code, names.get(code, f"class {code}"), number) for code, number in rows)


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collects what the readers of labels log, which else would stand before the page."""
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name != "hsfusion.scenes.opening":  # of dead bands, which the survey tells
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
        "labels": labels,
        "warnings": list(inspected.warnings),
    }


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's; None for NaN, which JSON does not know."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
