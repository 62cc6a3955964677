"""Names, colours and order of classes that a file carries: colour tables, category names, attribute tables, styles.

Specifications: :mod:`hsfusion.scenes.pam` for GDAL's; NV5 Geospatial, ENVI Header Files (classes, class names, class
lookup).
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.formats.envi import class_table
from hsfusion.scenes.pam import pam_path, read_pam

_log = logging.getLogger(__name__)

_MOST_BYTES = 2**24  # of a style
_LONGEST_NAME = 200
_EXACT = 2**53  # up to here every whole number is a float64
_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0+)?", re.ASCII)
_TAG = re.compile(r"class_(-?\d{1,18})")


@dataclass(frozen=True)
class Categories:
    """What a file says of its classes, by its own codes; codes that do not occur in it may be among them.

    Attributes:
        names: code -> name.
        colors: code -> ``#rrggbb``.
        order: classes that have a name only, in the order that the file gives them; the first has code 1.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, str] = field(default_factory=dict)
    order: Sequence[str] = ()

    @classmethod
    def of_list(cls, path: Path, listed: Iterable[tuple[str, str]]) -> Categories:
        """From values and their labels, as styles and domains of fields list them.

        Whole numbers are codes, which a label other than the number gives a name; a word is a name itself.
        """
        labels = {" ".join(value.split()): label for value, label in listed}
        named = {value: label for value, label in labels.items() if label != value and _WHOLE.fullmatch(value)}
        names = {int(value.partition(".")[0]): label for value, label in named.items()}
        return cls(_clean(path, names), order=tuple(value for value in labels if value))


def read_categories(file: CubeFile) -> Categories:
    """Reads names and colours of classes from a GeoTIFF, or an ENVI file, and what lies beside it.

    Tags ``class_<code>``, as our own maps have, go before category names, and these before an attribute table.

    Raises:
        InputError: if they are damaged or contradict each other.
    """
    kind = file.format.split(" ")[0]
    if kind == "ENVI":
        names, colors = class_table(file.path)
        return Categories(_clean(file.path, names), colors)
    if kind != "GeoTIFF":
        return Categories()
    colors, tags = _from_tiff(file.path)
    try:
        beside = read_pam(file.path)
    except ValueError as error:
        raise InputError(
            pam_path(file.path), "content", "unreadable", "names of classes as GDAL writes them", "delete it"
        ) from error
    names = {**beside.table_names, **dict(enumerate(beside.names)), **tags}
    return Categories(_clean(file.path, names), {**beside.table_colors, **colors})


def _from_tiff(path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Colours by code, of the colour table, and names by code, of the tags."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path.absolute(), driver="GTiff") as source:
                tags = source.tags()
                has_table = source.colorinterp[0].name == "palette"
                table = source.colormap(1) if has_table else {}
    except (RasterioError, ValueError) as error:  # ValueError: a palette without its table
        raise InputError(path, "colour table", "unreadable", "a whole GeoTIFF", f"write it anew ({error})") from error
    names = {int(match[1]): name for tag, name in tags.items() if (match := _TAG.fullmatch(tag))}
    return {code: f"#{r:02x}{g:02x}{b:02x}" for code, (r, g, b, _) in table.items()}, names


def classes_of(
    path: Path, values: NDArray[Any], ids: NDArray[np.int64], unlabelled: Collection[int]
) -> tuple[list[Any], NDArray[np.int64]]:
    """The classes of features, sorted, and (N,) which of them each has; -1 for none.

    Args:
        path: the file, for messages.
        values: (N,) values of a field: whole numbers, also as text, are codes, words are names.
        ids: (N,) feature ids, for messages.
        unlabelled: codes that mean "no class".

    Raises:
        InputError: if a value is neither.
    """
    given = [None if value != value else value for value in values.tolist()]  # NaN is not itself
    given = [" ".join(value.split()) or None if isinstance(value, str) else value for value in given]
    codes = _codes_in_text({value for value in given if isinstance(value, str)})
    for i, value in enumerate(given):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT)
        if not (value is None or whole or isinstance(value, str)):
            raise InputError(
                path,
                "class",
                f"{str(value)[:40]} in feature {ids[i]}",
                "whole numbers (codes) or words (names)",
                "choose another field as scene.class_field",
            )
    known = [codes.get(v, v) if isinstance(v, str) else v if v is None else int(v) for v in given]
    if missing := sum(value is None for value in known):
        _log.warning("%s: features without a class, left out: %d.", path, missing)
    known = [None if value in unlabelled else value for value in known]
    classes = sorted({value for value in known if value is not None})  # of one type: a field has one
    position = {value: i for i, value in enumerate(classes)}
    return classes, np.array([-1 if value is None else position[value] for value in known], np.int64)


def _codes_in_text(texts: Collection[str]) -> dict[str, int]:
    """Texts as whole numbers; none where one of them is no such number, or two are one number in two writings."""
    if not all(_WHOLE.fullmatch(text) for text in texts):
        return {}
    codes = {text: int(text.partition(".")[0]) for text in texts}
    return codes if len(set(codes.values())) == len(codes) else {}


def layer_categories(path: Path, layer: str | None, attribute: str) -> Categories:
    """What the style of a layer, or the list of values of its field, says of the classes.

    Args:
        path: the file; a style may lie beside it, as ``.qml``.
        layer: name of the layer of a GeoPackage, which holds styles and lists itself; None for other files.
        attribute: the field.

    Raises:
        InputError: if a style or the GeoPackage is damaged.
    """
    tables = {row[0] for row in _rows(path, "SELECT name FROM sqlite_master")} if layer is not None else set()
    styles: list[bytes] = []
    if "layer_styles" in tables:  # where QGIS stores them
        query = "SELECT styleQML FROM layer_styles WHERE f_table_name = ? ORDER BY useAsDefault DESC"
        styles = [str(row[0] or "<qgis/>").encode() for row in _rows(path, query, layer)]
    if path.with_suffix(".qml").is_file():
        styles.append(path.with_suffix(".qml").read_bytes())
    for style in styles:
        if listed := _style_categories(path, style, attribute):
            return Categories.of_list(path, listed)
    if {"gpkg_data_columns", "gpkg_data_column_constraints"} <= tables:
        query = (
            "SELECT value, coalesce(v.description, '') FROM gpkg_data_columns c JOIN gpkg_data_column_constraints v "
            "USING (constraint_name) WHERE table_name = ? AND column_name = ? AND constraint_type = 'enum' "
            "ORDER BY v.rowid"
        )
        return Categories.of_list(path, [(str(a), str(b)) for a, b in _rows(path, query, layer, attribute)])
    return Categories()


def _rows(path: Path, query: str, *parameters: str | None) -> list[tuple[Any, ...]]:
    """What a query of a GeoPackage gives."""
    # immutable: no file is written beside it; but recent edits may stand in the log beside it
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True)) as database:
            return database.execute(query, parameters).fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise InputError(
            path, "content", "unreadable", "a whole GeoPackage", f"save the layer anew, as a GeoPackage ({text})"
        ) from error


def _style_categories(path: Path, content: bytes, attribute: str) -> list[tuple[str, str]]:
    """Values and labels of the categories of an attribute, in the order of a style of QGIS (QML); none if it has none.

    Args:
        path: the file that holds it, for messages.
        content: the style.
        attribute: name of the field that the categories have to be of.

    Raises:
        InputError: if it is no XML, or too large.
    """
    try:
        if len(content) > _MOST_BYTES or b"<!ENTITY" in content:  # entities can grow without end
            raise ValueError(f"larger than {_MOST_BYTES} bytes, or with entities")
        renderer = ElementTree.fromstring(content).find(".//renderer-v2[@type='categorizedSymbol']")
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:  # LookupError: odd encodings
        raise InputError(path, "style", "unreadable", "QML", f"delete it ({error})") from error
    if renderer is None or renderer.get("attr", "").strip('"') != attribute:
        return []
    return [(node.get("value", ""), node.get("label", "")) for node in renderer.iterfind("categories/category")]


def _clean(path: Path, names: Mapping[int, str]) -> dict[int, str]:
    """Names in one line each, without those that are empty."""
    cleaned = {code: one_line(name, path=path) for code, name in names.items()}
    return {code: name for code, name in cleaned.items() if name}


def one_line(name: str, *, path: Path) -> str:
    """A name of a class as it goes into legends, tables and messages.

    Raises:
        InputError: if it is too long, or holds what cannot be printed.
    """
    name = " ".join(name.split())
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise InputError(
            path,
            "class name",
            printable(name, longest=40),
            f"at most {_LONGEST_NAME} printable characters",
            "rename the class",
        )
    return name
