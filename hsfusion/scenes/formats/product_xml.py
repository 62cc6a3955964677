"""The XML files of EnMAP and DESIS products, read as a stream: no entities, nothing kept that is not asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.formats.cube_file import strict_number

_MOST_BYTES = 16 * 2**20  # products have 1 to 5 MiB
_MOST_ELEMENTS, _MOST_BANDS, _DEEPEST, _LONGEST = 300_000, 10_000, 64, 100_000
_PIECE = 32_768
_SENSORS = {"level_X": "EnMAP", "hsi_doc": "DESIS"}  # by the root element
_BAND = {"EnMAP": "specific/bandCharacterisation/bandID", "DESIS": "specific/bandCharacterisation/band"}
_FIELDS = {
    "EnMAP": ("wavelengthCenterOfBand", "FWHMOfBand", "GainOfBand", "OffsetOfBand"),
    "DESIS": ("wavelengthCenterOfBand", "wavelengthWidthOfBand", "gainOfBand", "offsetOfBand"),
}
_TEXTS = (
    "base/level",
    "base/temporalCoverage/startTime",
    "specific/backgroundValue",
    "specific/vnirProductQuality/expectedChannelsList",
    "specific/swirProductQuality/expectedChannelsList",
    "product/image/vnir/channels",
    "product/image/swir/channels",
)


@dataclass(frozen=True)
class ProductXml:
    """What a product's XML says.

    Attributes:
        path: the file.
        sensor: EnMAP or DESIS.
        bands: texts of each band, in the order of their numbers 1, 2, ...
        texts: texts by path below the root.
    """

    path: Path
    sensor: str
    bands: list[dict[str, str]]
    texts: dict[str, str]

    def text(self, name: str) -> str:
        """The text of an element, in one line; empty where there is none."""
        return " ".join(self.texts.get(name, "").split())

    def integer(self, name: str) -> int:
        """An element that is a whole number.

        Raises:
            InputError: if it is missing or another.
        """
        word = self.text(name)
        if not (word.isascii() and word.isdigit() and len(word) < 10):
            raise self.error(name, word[:40] or "missing", "a whole number")
        return int(word)

    def number(self, name: str, text: str) -> float:
        """A number with a decimal point.

        Raises:
            InputError: if the text is another.
        """
        return strict_number(self.path, name, text)

    def columns(self, rows: slice) -> NDArray[np.float64]:
        """Wavelengths and widths in nm, gains and offsets: (4, bands).

        Raises:
            InputError: if a value is missing, no number, or a gain is 0.
        """
        names = _FIELDS[self.sensor]
        values = np.empty((len(names), rows.stop - rows.start))
        for column, row in enumerate(range(rows.start, rows.stop)):
            for line, name in enumerate(names):
                field = f"{name} of band {row + 1}"
                if name not in self.bands[row]:
                    raise self.error(field, "missing", "a number")
                values[line, column] = self.number(field, self.bands[row][name])
        if (values[2] == 0).any():
            band = rows.start + int(np.flatnonzero(values[2] == 0)[0]) + 1
            raise self.error(f"{names[2]} of band {band}", 0, "a number that is not 0")
        return values

    def error(
        self, field: str, value: object, expected: str, fix: str = "take the file from the product"
    ) -> InputError:
        """An error that names this file."""
        return InputError(self.path, field=field, value=value, expected=expected, fix=fix)


def read_product_xml(path: Path) -> ProductXml:
    """Reads the XML file of a product.

    Raises:
        InputError: if it is too large, damaged, has a DOCTYPE, is of no known product, or its bands are not 1 to C.
    """
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise InputError(
            path, field="size", value=f"{size} bytes", expected=f"at most {_MOST_BYTES}", fix="name the product's XML"
        )
    stream = _Stream(path)
    try:
        with open(path, "rb") as file:
            parse_in_pieces(stream.parser, file)
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: unknown encodings
        raise stream.error("content", "unreadable", f"whole XML ({' '.join(str(error).split())})") from error
    if not stream.bands:
        raise stream.error(_BAND[stream.sensor], "missing", "one element for each band")
    if sorted(stream.bands) != list(range(1, len(stream.bands) + 1)):
        numbers = sorted(stream.bands)
        raise stream.error(
            "numbers of bands",
            f"{numbers[0]} to {numbers[-1]}, {len(numbers)} in all",
            f"1 to {len(numbers)}, each once",
        )
    return ProductXml(path, stream.sensor, [stream.bands[i] for i in sorted(stream.bands)], stream.texts)


def parse_in_pieces(parser: expat.XMLParserType, file: BinaryIO) -> None:
    """Parses XML, but no tag of more than about 32 kB: time grows with the square of a tag's attributes.

    Raises:
        ExpatError: if it is not whole.
        ValueError: if a tag is too long.
    """
    read = 0
    while piece := file.read(_PIECE):
        parser.Parse(piece, False)
        read += len(piece)
        if read - parser.CurrentByteIndex > 2 * _PIECE:
            raise ValueError(f"tag of more than {_PIECE} bytes")
    parser.Parse(b"", True)


class _Stream:
    """Takes the wanted texts out of a stream of elements."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sensor = ""
        self.texts: dict[str, str] = {}
        self.bands: dict[int, dict[str, str]] = {}
        self._stack: list[str] = []
        self._elements = 0
        self._band: dict[str, str] = {}
        self._text: list[str] | None = None
        self._length = 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._doctype

    def error(self, field: str, value: object, expected: str) -> InputError:
        return InputError(self.path, field=field, value=value, expected=expected, fix="take the file from the product")

    def _doctype(self, *_: object) -> None:
        raise self.error("content", "XML with a DOCTYPE", "none, as products have none")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]  # any namespace
        self._elements += 1
        if self._elements > _MOST_ELEMENTS or len(self._stack) >= _DEEPEST:
            raise self.error("number or depth of elements", "too large", f"{_MOST_ELEMENTS} and {_DEEPEST} at most")
        if not self._stack:
            if name not in _SENSORS:
                raise self.error("root element", name[:40], " or ".join(f"{r} ({s})" for r, s in _SENSORS.items()))
            self.sensor = _SENSORS[name]
        self._stack.append(name)
        here = "/".join(self._stack[1:])
        if here == _BAND[self.sensor]:
            self._band = {"number": attributes["number"]} if "number" in attributes else {}
        self._text, self._length = ([], 0) if here in _TEXTS or self._of_band(here) else (None, 0)

    def _of_band(self, here: str) -> bool:
        parent, _, name = here.rpartition("/")
        return parent == _BAND[self.sensor] and name in (*_FIELDS[self.sensor], "bandNumber")

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)
            self._length += len(text)
            if self._length > _LONGEST:
                raise self.error(self._stack[-1], "too long", f"at most {_LONGEST} letters")

    def _end(self, _: str) -> None:
        here = "/".join(self._stack[1:])
        name = self._stack.pop()
        text, self._text = "".join(self._text or ()).strip(), None
        if here in _TEXTS:
            self.texts.setdefault(here, text)
        elif here == _BAND[self.sensor]:
            self._end_band()
        elif self._of_band(here):
            if name in self._band:
                raise self.error(name, "given twice for one band", "one value")
            self._band[name] = text

    def _end_band(self) -> None:
        word = self._band.get("number" if self.sensor == "EnMAP" else "bandNumber", "")
        number = int(word) if word.isascii() and word.isdigit() and len(word) < 6 else 0
        if not 1 <= number <= _MOST_BANDS or number in self.bands:
            raise self.error(
                "number of a band", word[:40] or "missing", f"whole numbers from 1 to {_MOST_BANDS}, each once"
            )
        self.bands[number] = self._band
