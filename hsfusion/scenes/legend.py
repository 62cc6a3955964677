"""The legend: which classes there are, and what they are called and coloured, in files too.

Names and colours stand in the tags and colour table of a GeoTIFF, in GDAL's Persistent Auxiliary Metadata beside it
(PAM, ``.aux.xml``), and in headers of ENVI classifications (class names, class lookup). What a GeoTIFF cannot hold is
written to PAM, where GDAL and QGIS look for it: class names, and some CRS (SRS).
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.formats.envi import class_table

#: ending of GDAL's Persistent Auxiliary Metadata
PAM = ".aux.xml"
#: 24 colours that stay apart on a map; more classes start over
PALETTE = (
    *("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6"),
    *("#bfef45", "#fabed4", "#469990", "#dcbeff", "#9a6324", "#808000", "#800000", "#000075"),
    *("#aaffc3", "#ffd8b1", "#a9a9a9", "#e4a900", "#1b7837", "#5ab4ac", "#c51b7d", "#7f3b08"),
)
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_TAG = re.compile(r"class_(-?\d{1,18})")
_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0+)?", re.ASCII)


@dataclass(frozen=True)
class Legend:
    """Codes, names and colours of the K classes, in the order of the network's outputs."""

    codes: tuple[int, ...]  # from 1 to 65535, ascending; 0 is always "unlabelled"
    names: tuple[str, ...]  # unique, each made one line
    colors: tuple[str, ...]  # ``#rrggbb``

    def __post_init__(self) -> None:
        codes, names, wrong = self.codes, tuple(one_line(str(name)) for name in self.names), None
        object.__setattr__(self, "names", names)
        if not codes or list(codes) != sorted(set(codes)) or not 1 <= codes[0] <= codes[-1] <= 65535:
            expected = "ascending integers from 1 to 65535, 0 being unlabelled"
            wrong = ("codes", codes, expected, "renumber the classes")
        elif len(codes) > 32767:
            wrong = ("number of classes", len(codes), "at most 32767", "leave out or join classes")
        elif twice := sorted({name for name in names if names.count(name) > 1}):
            wrong = ("names", f"{twice} for more than one class", "unique names", "rename classes by class_names")
        elif "" in names:
            wrong = ("name", f"empty for class {codes[names.index('')]}", "a word", "name the class by class_names")
        elif odd := [color for color in self.colors if not _COLOR.fullmatch(color)]:
            wrong = ("colour", repr(odd[0]), "#rrggbb", "write colours like #ffcc00, in quotation marks")
        if wrong:
            raise InputError("legend", *wrong)

    def _repr_html_(self) -> str:
        """A table with the colours of the classes, for notebooks."""
        cells = zip(self.codes, self.names, self.colors, strict=True)
        rows = [
            f'<tr><td style="background: {c}"></td><td>{n}</td><td>{escape(name)}</td></tr>' for n, name, c in cells
        ]
        return f"<table><tr><th></th><th>code</th><th>class</th></tr>{''.join(rows)}</table>"

    @classmethod
    def of(
        cls,
        labels: NDArray[np.integer],
        *,
        names: Mapping[int, str] | None = None,
        colors: Mapping[int, str] | None = None,
    ) -> Legend:
        """Legend of the codes but 0 in labels (H, W), without a name ``class <code>``, without a colour a free one."""
        codes = [int(code) for code in np.unique(labels) if code != 0]
        colored = {int(code): str(color).lower() for code, color in (colors or {}).items()}
        free = [color for color in PALETTE if color not in colored.values()] or list(PALETTE)
        bare = [code for code in codes if code not in colored]
        colored |= {code: free[i % len(free)] for i, code in enumerate(bare)}
        return cls(
            tuple(codes),
            tuple(str((names or {}).get(code, f"class {code}")) for code in codes),
            tuple(colored[code] for code in codes),
        )

    def mappings(self) -> dict[str, dict[int, str]]:
        """``names`` and ``colors`` by code, as :meth:`of` takes them."""
        given = {"names": self.names, "colors": self.colors}
        return {what: dict(zip(self.codes, of, strict=True)) for what, of in given.items()}

    def indices(self, labels: NDArray[np.integer]) -> NDArray[np.int16]:
        """Class indices 0..K-1 of codes; -1 for codes that are not in the legend (such as 0)."""
        indices, known = np.full(labels.shape, -1, np.int16), np.isin(labels, self.codes)
        indices[known] = np.searchsorted(self.codes, labels[known])
        return indices


def by_code(given: Sequence[str] | Mapping[Any, str] | None) -> dict[Any, str]:
    """Names or colours by code, from such a mapping or from a list that starts with that of code 1."""
    if given is None or isinstance(given, Mapping):
        return dict(given or {})
    return dict(enumerate(given, start=1))


def is_named(name: str) -> bool:
    """Whether the name of a class was given, not made of its code (class 1), which says nothing of another scene."""
    return re.fullmatch(r"\s*class \d+\s*", name) is None


def one_line(name: str) -> str:
    """A name of a class as it goes into legends, tables and messages."""
    return printable(words(name))


def words(name: str) -> str:
    """A name with single blanks, and umlauts as one character, which some systems write as two."""
    return unicodedata.normalize("NFC", " ".join(name.split()))


class Categories(NamedTuple):
    """Names, and colours ``#rrggbb``, of classes by the codes of a file; codes that do not occur may be among them."""

    names: Mapping[int, str]
    colors: Mapping[int, str]


def whole_number(text: str) -> int | None:
    """The whole number that a text is, as ``12``, ``-3`` or ``4.0``; None for other texts."""
    return int(text.partition(".")[0]) if _WHOLE.fullmatch(text) else None


def read_categories(file: CubeFile) -> Categories:
    """Reads names and colours of classes from a GeoTIFF, or an ENVI file, and what lies beside it.

    Tags ``class_<code>``, as our own maps have, go before category names.
    """
    kind = file.format.split(" ")[0]
    if kind == "ENVI":
        names, colors = class_table(file.path)
        return Categories(_named(names), colors)
    if kind != "GeoTIFF":
        return Categories({}, {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(file.path.absolute(), driver="GTiff") as source:
                tags = source.tags()
                table = source.colormap(1) if source.colorinterp[0].name == "palette" else {}
        names = dict(enumerate(read_pam(file.path)))
    except (RasterioError, ElementTree.ParseError, ValueError, LookupError) as error:
        what, expected, fix = "names and colours of classes", "those that GDAL writes", f"write it again ({error})"
        raise InputError(file.path, what, "unreadable", expected, fix) from error
    names |= {int(match[1]): name for tag, name in tags.items() if (match := _TAG.fullmatch(tag))}
    return Categories(_named(names), {code: f"#{r:02x}{g:02x}{b:02x}" for code, (r, g, b, _) in table.items()})


def _named(names: Mapping[int, str]) -> dict[int, str]:
    return {code: one_line(name) for code, name in names.items() if name.strip()}


def pam_path(path: Path) -> Path:
    """Where GDAL looks for what a file cannot hold."""
    return Path(f"{path}{PAM}")


def write_pam(path: Path, *, crs: str | None, categories: Sequence[str]) -> None:
    """Writes what an existing GeoTIFF cannot hold beside it: its CRS (WKT), and the name of each value from 0 on."""
    root = ElementTree.Element("PAMDataset")
    with rasterio.open(path.absolute(), driver="GTiff") as file:
        is_held = crs is None or file.crs == CRS.from_wkt(crs)
    stored = ElementTree.parse(pam_path(path)).find("SRS") if pam_path(path).is_file() else None
    if stored is not None:  # GDAL knows that the keys of the GeoTIFF do not hold it
        stored.tail = None
        root.append(stored)
    elif not is_held:
        ElementTree.SubElement(root, "SRS", dataAxisToSRSAxisMapping="1,2").text = crs
    if categories:
        band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
        names = ElementTree.SubElement(band, "CategoryNames")
        for name in categories:
            ElementTree.SubElement(names, "Category").text = name
    pam_path(path).unlink(missing_ok=True)
    if len(root):
        text = ElementTree.tostring(root, "unicode", short_empty_elements=False)
        pam_path(path).write_text(text + "\n", encoding="utf-8")


def read_pam(path: Path) -> tuple[str, ...]:
    """The name of each value from 0 on that stands beside a GeoTIFF; empty where none does."""
    if not pam_path(path).is_file():
        return ()
    nodes = ElementTree.parse(pam_path(path)).findall("PAMRasterBand[@band='1']/CategoryNames/Category")
    return tuple(node.text or "" for node in nodes)
