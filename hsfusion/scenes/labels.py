"""Labels: which class each pixel of a scene has, from rasters of codes or from polygons and points."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.geobox import GeoBox, check_same_grid
from hsfusion.scenes.legend import Categories, Legend, by_code, read_categories, whole_number
from hsfusion.scenes.scene import Scene
from hsfusion.scenes.vectors import draw_classes, vector_format

_log = logging.getLogger(__name__)

MOST_CLASSES = 4096  # more are measurements
_HIGHEST_CODE = 65535  # maps are uint8 or uint16
_MOSTLY_LABELLED, _MOSTLY_AGREED = 0.5, 0.9  # of the pixels labelled in either, and in both beyond chance
_NO_CLASS_NAMES = {
    *("unclassified", "unlabelled", "unlabeled", "unlabelled pixels", "undefined", "unknown", "background", "none"),
    *("no data", "nodata", "no class", "masked", "masked pixels", "void", "ignore", "null", "0", "class 0"),
}


@dataclass(frozen=True, eq=False)
class Labels:
    """Ground truth on the grid of a scene, with names and colours of the classes from its file, by code."""

    codes: NDArray[np.integer]  # (H, W), 0 for unlabelled, others from 1 to 65535
    names: Mapping[int, str]  # of classes that the file names
    colors: Mapping[int, str]  # ``#rrggbb``, likewise
    original: Mapping[int, int | str]  # what the file calls the class: a word, or its own code

    def legend(
        self,
        *,
        names: Sequence[str] | Mapping[Any, str] | None = None,
        colors: Sequence[str] | Mapping[Any, str] | None = None,
    ) -> Legend:
        """The legend, in which names, and colours (``#rrggbb``), that are given go before those of the file.

        They go by the code **of the file** (or its word), or are a list that starts with that of its code 1.
        """
        black = [code for code, color in self.colors.items() if color == "#000000"]  # colour tables are filled up with
        file_colors = {code: one for code, one in self.colors.items() if len(black) < 2 or code not in black}
        given_names = self._by_own_code(names, field="class_names")
        given_colors = self._by_own_code(colors, field="class_colors")
        return Legend.of(self.codes, names={**self.names, **given_names}, colors={**file_colors, **given_colors})

    def _by_own_code(self, given: Sequence[str] | Mapping[Any, str] | None, *, field: str) -> dict[int, str]:
        """Values by the code here. One legend of all codes may serve many scenes, some of which lack some codes."""
        new_codes, values = {str(original): code for code, original in self.original.items()}, by_code(given)
        unknown = [key for key in values if str(key) not in new_codes]
        are_codes = isinstance(given, Mapping) and all((whole_number(str(key)) or 0) > 0 for key in unknown)
        if unknown and are_codes and new_codes.keys() <= set(map(str, values)):
            _log.warning("%s: no pixel of this scene has the codes %s.", field, ", ".join(map(str, unknown)))
        elif unknown:
            listed = ", ".join(list(new_codes)[:40]) + ", ..." * (len(new_codes) > 40)
            raise InputError("legend", field, unknown, f"codes of the labels {listed}", "drop them")
        return {new_codes[str(key)]: str(value) for key, value in values.items() if key not in unknown}


@dataclass(frozen=True, eq=False)
class LabelledScene:
    """A scene with ground truth on its grid: (H, W) class codes, 0 or masked for unlabelled, and their legend."""

    scene: Scene
    labels: NDArray[np.integer]
    legend: Legend

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.ma.filled(self.labels, 0))
        check_same_grid(GeoBox(self.labels.shape), self.scene.geobox, source="labels", reference=self.scene.name)

    def __repr__(self) -> str:
        labelled = f"{np.count_nonzero(self.labels):,} labelled pixels of {len(self.legend.codes)} classes"
        return f"LabelledScene({self.scene!r}, {labelled})"

    def _repr_html_(self) -> str:
        """The scene and its classes, for notebooks."""
        return f"<p>{escape(repr(self))}</p>{self.legend._repr_html_()}"

    def where(self, valid: NDArray[np.bool_]) -> LabelledScene:
        """Drops labels of pixels (H, W) that are not valid, and classes that then have none, down to two classes."""
        lost = int(((self.labels > 0) & ~valid).sum())
        kept = np.where(valid, self.labels, 0) if lost else self.labels
        if lost:
            _log.warning("%d labelled pixels have no data and are left out.", lost)
        kept_classes = [i for i, code in enumerate(self.legend.codes) if (kept == code).any()]
        for i in set(range(len(self.legend.codes))) - set(kept_classes):
            _log.warning("Class %s has no pixel with data and is left out.", self.legend.names[i])
        if len(kept_classes) < 2:
            field = "number of classes with labelled pixels that have data in every used band"
            fix = "label more classes, or mark bands without data as not good"
            raise InputError(self.scene.name, field, len(kept_classes), "at least 2", fix)
        return LabelledScene(self.scene, kept, Legend.of(kept, **self.legend.mappings()))


def mostly_alike(classes: NDArray[np.integer], others: NDArray[np.integer], *, labelled: tuple[int, int]) -> bool:
    """Whether two rasters of labels are mostly the same, whatever the codes of their classes.

    Half of the pixels that either labels are labelled in both, and the kappa of these is above 0.9 once each class is
    assigned to one of the other raster: maps of one large class agree by chance.

    Args:
        classes: (N,) codes of labelled pixels of one, all or a sample.
        others: (N,) codes of the other there, 0 for unlabelled.
        labelled: numbers of all labelled pixels of either.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import

    both = others > 0
    shared = both.mean() * labelled[0] if both.size else 0.0
    if not both.any() or shared < _MOSTLY_LABELLED * (sum(labelled) - shared):
        return False
    (rows, one), (columns, other) = (np.unique(codes[both], return_inverse=True) for codes in (classes, others))
    counts = np.bincount(one * columns.size + other, minlength=rows.size * columns.size).reshape(rows.size, -1)
    share = counts / counts.sum()
    pairs = linear_sum_assignment(share, maximize=True)
    chance = float((share.sum(1)[pairs[0]] * share.sum(0)[pairs[1]]).sum())
    return bool(share[pairs].sum() - chance > _MOSTLY_AGREED * (1 - chance))


def read_labels(
    path: str | Path,
    scene: Scene,
    *,
    variable: str | None = None,
    class_field: str | None = None,
    unlabelled: int | Sequence[int] = 0,
) -> Labels:
    """Reads the classes of the pixels of a scene.

    Codes from 1 to 65535 are kept, also where a field holds them as text. Where others occur, classes are numbered 1 to
    K in ascending order, and names in alphabetical order. The log lists these numbers.

    Args:
        path: a raster of one layer on the grid of the scene, in any format that cubes have and of any whole numbers; or
            polygons or points in a GeoPackage, GeoJSON, Shapefile or KML, which are drawn on that grid.
        scene: the scene that the labels belong to.
        variable: the array, or layer, in files that hold several.
        class_field: the attribute of polygons and points that holds the class.
        unlabelled: code, or codes, that mean "no class", beside the file's own nodata.
    """
    path, none = Path(path), {int(code) for code in np.ravel(unlabelled)}
    index, classes, categories = _indexed(path, scene, variable, class_field, none)
    if 0 in none:
        _warn_of_zero(path, index, categories)
    return _numbered(path, index, classes, categories)


def _warn_of_zero(path: Path, index: NDArray[np.integer], categories: Categories) -> None:
    """Logs that pixels of code 0 are left out of which the file says that they are a class."""
    zero = categories.names.get(0, "")
    if (index < 0).any() and zero and zero.lower() not in _NO_CLASS_NAMES:
        _log.warning("%s calls code 0 %s, but it counts as unlabelled.", path, zero)


def read_label_pair(
    first: str | Path, second: str | Path, scene: Scene
) -> tuple[Labels, NDArray[np.bool_], NDArray[np.bool_]]:
    """Reads two rasters of class codes as one, and which pixels (H, W) each of them labels: none may be in both."""
    for path in (first, second):
        if kind := vector_format(Path(path)):
            raise InputError(path, "format", kind, "a raster of class codes", "rasterise it on the grid of the scene")
    files = [_indexed(Path(path), scene, None, None, {0}) for path in (first, second)]
    in_first, in_second = (index >= 0 for index, _, _ in files)
    for path, (index, _, categories), pixels in zip((first, second), files, (in_first, in_second), strict=True):
        _warn_of_zero(Path(path), index, categories)
        if not pixels.any():
            raise InputError(path, "number of labelled pixels", 0, "at least 1", "give a raster of class codes")
    if both := int((in_first & in_second).sum()):
        raise InputError(second, f"number of labelled pixels also in {first}", both, "0", "remove them from one")
    classes = sorted({code for _, codes, _ in files for code in codes})
    joint = np.full(scene.geobox.shape, -1, np.int32)
    for index, codes, _ in files:
        joint[index >= 0] = np.searchsorted(classes, codes)[index[index >= 0]]
    (*_, one), (*_, other) = files
    for code in classes:
        names = [of.names.get(int(code), "") for of in (one, other)]
        if all(names) and names[0] != names[1]:
            expected, fix = f"{names[0]} as in {first}", "number the classes of both files in the same way"
            raise InputError(second, f"name of class {code}", names[1], expected, fix)
    categories = Categories({**other.names, **one.names}, {**other.colors, **one.colors})
    return _numbered(Path(first), joint, classes, categories), in_first, in_second


def read_ids(path: str | Path, scene: Scene, *, field: str | None = None) -> NDArray[np.integer]:
    """Numbers the fields that the pixels of a scene lie in: (H, W), -1 for none.

    ``path`` is a raster of ids, 0 for none, or polygons with an attribute ``field``; see :func:`read_labels`.
    """
    features = vector_format(Path(path))
    if field is None and features:
        raise InputError(path, "split.field", "missing", "the attribute that holds the ids", "give split.field=NAME")
    return _indexed(Path(path), scene, None, field, set() if features else {0})[0]


def _indexed(
    path: Path, scene: Scene, variable: str | None, class_field: str | None, none: Collection[int]
) -> tuple[NDArray[np.integer], Sequence[int | str], Categories]:
    """(H, W) index of the class of each pixel, -1 for none; the classes; and what the file says of them."""
    if driver := vector_format(path):
        grid, reference = scene.geobox, f"the scene {scene.name}"
        options = {"driver": driver, "layer": variable, "class_field": class_field, "unlabelled": none}
        return *draw_classes(path, grid, reference=reference, **options), Categories({}, {})
    if path.suffix.lower() == ".csv":
        fix = "add it to QGIS as a delimited text layer with its CRS, and save that layer as a GeoPackage"
        raise InputError(path, "format", "CSV", "a raster, or a layer of polygons or points", fix)
    file = open_cube_file(path, variable=variable)
    if class_field is not None or file.layers != 1:
        field, given = ("scene.class_field", class_field) if class_field else ("number of bands", file.layers)
        raise file.error(field, given, "one band (H, W) of class codes, without fields", "keep one layer of labels")
    check_same_grid(file.geobox, scene.geobox, source=path, reference=f"the scene {scene.name}")
    return *raster_codes(file, none), read_categories(file)


def raster_codes(file: CubeFile, unlabelled: Collection[int]) -> tuple[NDArray[np.int32], list[int]]:
    """Reads class codes of any whole number type, exactly: (H, W) index of the code, and the codes, ascending.

    The index is -1 for unlabelled codes, nodata, NaN, and what is masked.
    """
    scaled = any(one is not None and (one != neutral).any() for one, neutral in ((file.gain, 1), (file.offset, 0)))
    if scaled or file.pixels.dtype.kind not in "biuf":
        kind = f"{'scaled ' * scaled}{file.pixels.dtype.name}"
        raise file.error("number type", kind, "whole numbers that are not scaled", "give a raster of class codes")
    stored = file.pixels.read(file.geobox.window)[0]
    data, masked = np.ma.getdata(stored), np.ma.getmaskarray(stored)
    if data.dtype.kind == "f":
        masked = masked | np.isnan(data) | (data == (np.nan if file.nodata is None else file.nodata))
        exact = 2 ** (np.finfo(data.dtype).nmant + 1)  # up to here, each whole number has its own
        wrong = ~masked & ~((np.abs(data) <= exact) & (np.floor(data) == data))
        if wrong.any():
            expected = f"whole numbers up to {exact}; others are measurements, so this is no label raster"
            raise file.error("class codes", f"{data[wrong][0]:g}", expected, "give a raster of class codes")
    values = np.unique(data[~masked])
    codes = [int(value) for value in values]
    classes = [code for code in codes if code not in unlabelled and code != file.nodata]
    if 0 in codes and 0 in unlabelled and file.nodata not in (None, 0):
        _log.warning("%s: 0 counts as no class, although nodata is %g (see scene.unlabelled).", file.path, file.nodata)
    position = {code: i for i, code in enumerate(classes)}
    index, labels = np.array([position.get(code, -1) for code in codes], np.int32), np.full(data.shape, -1, np.int32)
    for row in range(len(data)):  # whole scenes of int64 would fill the memory
        labels[row, ~masked[row]] = index[np.searchsorted(values, data[row, ~masked[row]])]
    return labels, classes


def _numbered(path: Path, index: NDArray[np.integer], classes: Sequence[int | str], categories: Categories) -> Labels:
    """Labels with final codes from (H, W) indices of sorted classes, -1 for none."""
    present = np.unique(index[index >= 0]).tolist()
    if not 0 < len(present) <= MOST_CLASSES:
        expected = f"1 to {MOST_CLASSES}, beside the unlabelled"
        fix = "check scene.unlabelled, scene.class_field, and the nodata of the file"
        raise InputError(path, "number of classes", len(present), expected, fix)
    kept = [classes[i] for i in present]
    as_they_are = all(isinstance(value, int) and 1 <= value <= _HIGHEST_CODE for value in kept)
    final: dict[Any, Any] = dict(zip(kept, kept if as_they_are else range(1, len(kept) + 1), strict=True))
    table = np.zeros(len(classes) + 1, np.int32)  # the last for index -1
    table[present] = list(final.values())
    names: dict[int, str] = {}
    for value, code in final.items():
        if isinstance(value, str):
            names[code] = value
        elif value in categories.names or value != code:
            names[code] = categories.names.get(value, f"class {value}")
    colors = {code: categories.colors[value] for value, code in final.items() if value in categories.colors}
    _tell_numbers(path, final)
    return Labels(table[index], names, colors, {code: value for value, code in final.items()})


def _tell_numbers(source: Path | str, final: Mapping[Any, int]) -> None:
    if all(value == code for value, code in final.items()):
        return
    if isinstance(next(iter(final)), int):
        how = "get other codes, because those of maps go from 1 to 65535"
        listed = [f"{value} is {code}" for value, code in final.items()]
    else:
        how, listed = "are numbered in alphabetical order", [f"{code}={value}" for value, code in final.items()]
    _log.warning("%s: classes %s: %s.", source, how, ", ".join(listed[:30]) + ", ..." * (len(listed) > 30))
