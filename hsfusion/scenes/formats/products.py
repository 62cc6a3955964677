"""EnMAP and DESIS products: an image beside an XML file that names wavelengths, gains and offsets.

Specifications: EnMAP HSI Level 1B/1C/2A Product Specification (EN-PCV-ICD-2009-2) and DESIS Product Specification
(PAV-DLR-ICD-003), both DLR. Wavelengths are in nm; physical value = stored value times gain plus offset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder, XMLParser, fromstring

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.formats.cube_file import (
    NM_PER_UNIT,
    BandTable,
    CubeFile,
    Pixels,
    is_plain_beside,
    library_errors,
    strict_number,
)
from hsfusion.scenes.formats.envi import envi_header, open_envi
from hsfusion.scenes.formats.geotiff import is_tiff, open_geotiff
from hsfusion.scenes.scene import Window

_IMAGE_NAME = re.compile(r"(?P<stem>.*)SPECTRAL_IMAGE(_(?P<detector>VNIR|SWIR))?(_COG)?(\.\w+)?", re.IGNORECASE)
_XML_NAME = re.compile(r"(?P<stem>.*)METADATA(\.XML)+", re.IGNORECASE)
_XML_ENDINGS = ("METADATA.XML", "METADATA.xml", "metadata.xml", "METADATA.XML.XML")
_NO_IMAGES = (".hdr", ".xml", ".msk", ".ovr", ".txt", ".vrt", ".tfw")
_CLOSE_NM = 1.0  # band tables that other programs write are rounded
_DETECTORS = ("VNIR", "SWIR")
_MOST_BYTES = 16 * 2**20  # products have 1 to 5 MiB
_SENSORS = {"level_X": "EnMAP", "hsi_doc": "DESIS"}  # by the root element
_BAND = {"EnMAP": "specific/bandCharacterisation/bandID", "DESIS": "specific/bandCharacterisation/band"}
_FIELDS = {
    "EnMAP": ("wavelengthCenterOfBand", "FWHMOfBand", "GainOfBand", "OffsetOfBand"),
    "DESIS": ("wavelengthCenterOfBand", "wavelengthWidthOfBand", "gainOfBand", "offsetOfBand"),
}


def is_product_image(path: Path) -> bool:
    """Whether a file, its content apart, is named as the spectral image of a product."""
    return _IMAGE_NAME.fullmatch(path.name) is not None


def open_product(path: Path) -> CubeFile:
    """Opens an EnMAP or DESIS product by its XML file, or by the spectral image beside it.

    An image that stands alone is opened as it is: its own tags may say everything.

    Raises:
        InputError: if the XML is none of the two, the image is missing, or the two contradict each other.
    """
    named_image = is_product_image(path)
    image_path, xml_path = (path, _xml_beside(path)) if named_image else (_image_beside(path), path)
    if xml_path is None:
        image = _open_image(image_path)
        if image.table.source != "wavelength":  # the tags say something, be it whole or not
            return image
        source = "wavelength (named neither in the image nor in a METADATA.XML beside it)"
        return replace(image, table=replace(image.table, source=source))
    xml = _read_xml(xml_path)
    image = _open_image(image_path)
    rows = _rows_of_image(xml, image)
    wavelength, fwhm, gain, offset = xml.columns(rows)
    _check_same(xml, image, wavelength=wavelength, gain=gain, offset=offset)
    level = xml.text("base/level")[:40] or "of no named level"
    facts = {"sensor": xml.sensor, "product": level, "acquired": xml.text("base/temporalCoverage/startTime")[:40]}
    kept = {name: value for name, value in image.facts.items() if name not in facts}
    pixels, nodata, told = _without_background(xml, image)
    return replace(
        image,
        format=f"{xml.sensor} {level} {image.format}",
        pixels=pixels,
        table=BandTable(wavelength, fwhm, _good(xml, rows, image), "nm", f"wavelengthCenterOfBand of {xml_path.name}"),
        nodata=nodata,
        gain=gain,
        offset=offset,
        facts={name: value for name, value in facts.items() if value} | kept | told,
    )


@dataclass(frozen=True)
class MaskedPixels:
    """Stored numbers of which one more value means no data.

    Attributes:
        stored: the numbers.
        background: the value.
    """

    stored: Pixels
    background: float

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored numbers."""
        return self.stored.dtype

    def read(self, window: Window) -> NDArray:
        """Reads a window: (layers, height, width) as stored, masked where it is the background.

        Raises:
            InputError: if the file cannot be read.
        """
        values = self.stored.read(window)
        return np.ma.masked_array(
            np.ma.getdata(values), np.ma.getmaskarray(values) | (np.ma.getdata(values) == self.background)
        )


@dataclass(frozen=True)
class ProductXml:
    """What a product's XML says.

    Attributes:
        path: the file.
        sensor: EnMAP or DESIS.
        root: all elements, their names without namespaces.
        bands: texts of each band, in the order of their numbers 1, 2, ...
    """

    path: Path
    sensor: str
    root: Element
    bands: list[dict[str, str]]

    def text(self, name: str) -> str:
        """The text of an element, in one line; empty where there is none."""
        return " ".join((self.root.findtext(name) or "").split())

    def integer(self, name: str) -> int:
        """An element that is a whole number.

        Raises:
            InputError: if it is missing or another.
        """
        word = self.text(name)
        if not (word.isascii() and word.isdigit() and len(word) < 10):
            raise self.error(name, word[:40] or "missing", "a whole number")
        return int(word)

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
                values[line, column] = strict_number(self.path, field, self.bands[row][name])
        if (values[2] == 0).any():
            band = rows.start + int(np.flatnonzero(values[2] == 0)[0]) + 1
            raise self.error(f"{names[2]} of band {band}", 0, "a number that is not 0")
        return values

    def error(
        self, field: str, value: object, expected: str, fix: str = "take the file from the product"
    ) -> InputError:
        """An error that names this file."""
        return InputError(self.path, field, value, expected, fix)


class _NoDoctype(TreeBuilder):
    """Builds trees of XML without a DOCTYPE, which could name entities."""

    def doctype(self, *_: object) -> None:
        """Refuses the document."""
        raise ValueError("XML with a DOCTYPE, which products do not have")


def _read_xml(path: Path) -> ProductXml:
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise InputError(path, "size", f"{size} bytes", f"at most {_MOST_BYTES}", "name the product's XML")
    with library_errors(path):
        root = fromstring(path.read_bytes(), XMLParser(target=_NoDoctype()))
    for element in root.iter():
        element.tag = re.sub(".*[}:]", "", element.tag)  # any namespace
    sensor = _SENSORS.get(root.tag, "")
    xml = ProductXml(path, sensor, root, [])
    if not sensor:
        raise xml.error("root element", root.tag[:40], " or ".join(f"{r} ({s})" for r, s in _SENSORS.items()))
    numbered = [_band(xml, element) for element in root.iterfind(_BAND[sensor])]
    numbers = sorted(number for number, _ in numbered)
    if not numbers:
        raise xml.error(_BAND[sensor], "missing", "one element for each band")
    if numbers != list(range(1, len(numbers) + 1)):
        told = f"{numbers[0]} to {numbers[-1]}, {len(numbers)} in all"
        raise xml.error("numbers of bands", told, f"1 to {len(numbers)}, each once")
    bands = dict(numbered)
    return replace(xml, bands=[bands[number] for number in numbers])


def _band(xml: ProductXml, element: Element) -> tuple[int, dict[str, str]]:
    """Number and texts of a band."""
    names = [part.tag for part in element]
    for name in _FIELDS[xml.sensor]:
        if names.count(name) > 1:
            raise xml.error(name, "given twice for one band", "one value")
    word = (element.get("number", "") if xml.sensor == "EnMAP" else element.findtext("bandNumber") or "").strip()
    if not (word.isascii() and word.isdigit() and len(word) < 6):
        raise xml.error("number of a band", word[:40] or "missing", "a whole number from 1")
    return int(word), {part.tag: (part.text or "").strip() for part in element}


def _open_image(path: Path) -> CubeFile:
    return open_geotiff(path) if is_tiff(path) else open_envi(path)


def _xml_beside(image: Path) -> Path | None:
    match = _IMAGE_NAME.fullmatch(image.name)
    assert match is not None, "the caller has seen the name of an image"
    for ending in _XML_ENDINGS:
        beside = image.with_name(match["stem"] + ending)
        if is_plain_beside(beside):
            return beside
    return None


def _image_beside(xml_path: Path) -> Path:
    match = _XML_NAME.fullmatch(xml_path.name)
    if match is None:
        raise InputError(
            xml_path,
            "name",
            xml_path.name,
            "one that ends in METADATA.XML, as in the product",
            "name it as in the product, or name the image",
        )
    start = f"{match['stem']}SPECTRAL_IMAGE".lower()
    found = sorted(
        file.name
        for file in xml_path.parent.iterdir()
        if file.name.lower().startswith(start)
        and _IMAGE_NAME.fullmatch(file.name)
        and file.suffix.lower() not in _NO_IMAGES
    )
    if len(found) != 1:
        raise InputError(
            xml_path,
            "image beside it",
            ", ".join(found) or "missing",
            f"one file {match['stem']}SPECTRAL_IMAGE with the ending .TIF, .BSQ, .BIL or .BIP",
            "name the image itself" if found else "put the image beside it",
        )
    return _plain_image(xml_path.with_name(found[0]))


def _plain_image(image: Path) -> Path:
    if not is_plain_beside(image) or (not is_tiff(image) and envi_header(image) is None):
        raise InputError(image, "content", "no TIFF and no ENVI header", "a GeoTIFF or ENVI image", "convert it")
    return image


def _rows_of_image(xml: ProductXml, image: CubeFile) -> slice:
    """Rows of the band table that belong to an image: all, or those of one detector (EnMAP L1B), VNIR first."""
    match = _IMAGE_NAME.fullmatch(image.path.name)
    detector = (match["detector"] or "").upper() if match else ""
    rows, source = slice(0, len(xml.bands)), "bandCharacterisation"
    if xml.sensor == "EnMAP" and detector:
        sizes = [xml.integer(f"product/image/{name.lower()}/channels") for name in _DETECTORS]
        rows = slice(0, sizes[0]) if detector == "VNIR" else slice(sizes[0], sum(sizes))
        source = f"product/image/{detector.lower()}/channels"
        if sum(sizes) != len(xml.bands):
            raise xml.error(
                "sum of channels of both detectors", sum(sizes), f"{len(xml.bands)} as bandCharacterisation"
            )
    if rows.stop - rows.start != image.layers:
        raise xml.error(
            f"number of bands in {source}",
            rows.stop - rows.start,
            f"{image.layers} as in {image.path.name}",
            "take XML and image from one product",
        )
    return rows


def _check_same(xml: ProductXml, image: CubeFile, **said: NDArray[np.float64]) -> None:
    """Makes sure that what the image says of its bands itself is what the XML says, so that nothing counts twice."""
    factor = NM_PER_UNIT.get((image.table.unit or "").strip().lower())
    own = {"gain": image.gain, "offset": image.offset, "wavelength": None}
    if image.table.wavelength is not None and factor is not None:
        own["wavelength"] = image.table.wavelength * factor
    for name, values in own.items():
        if values is None:
            continue
        if values.shape != said[name].shape:
            raise image.error(
                f"number of values of {name}",
                values.size,
                f"{said[name].size} as in {xml.path.name}",
                "take both from one product",
            )
        close = _CLOSE_NM if name == "wavelength" else 1e-5 * np.abs(said[name]) + 1e-12
        apart = np.flatnonzero(~(np.abs(values - said[name]) <= close))
        if apart.size:
            band = int(apart[0])
            raise image.error(
                f"{name} of band {band + 1}",
                f"{values[band]:g}",
                f"{said[name][band]:g} as in {xml.path.name}",
                "take both from one product, or move the XML away",
            )


def _good(xml: ProductXml, rows: slice, image: CubeFile) -> NDArray[np.bool_] | None:
    """Bands that the XML expects in the product and the image does not mark as bad."""
    lists = [xml.text(f"specific/{name.lower()}ProductQuality/expectedChannelsList") for name in _DETECTORS]
    words = [word.strip() for text in lists for word in text.split(",") if word.strip()]
    good = np.ones(len(xml.bands), bool) if not words else np.zeros(len(xml.bands), bool)
    for word in words:
        if not (word.isascii() and word.isdigit() and 1 <= int(word[:9]) <= len(xml.bands)):
            raise xml.error("expectedChannelsList", word[:40], f"numbers from 1 to {len(xml.bands)}")
        good[int(word) - 1] = True
    return good[rows] if image.table.good is None else good[rows] & image.table.good


def _without_background(xml: ProductXml, image: CubeFile) -> tuple[Pixels, float | None, dict[str, str]]:
    """Nodata of the image and the background value of the XML, both of which mean no data."""
    text = xml.text("specific/backgroundValue")
    background = strict_number(xml.path, "specific/backgroundValue", text) if text else None
    if background is None or background == image.nodata:
        return image.pixels, image.nodata, {}
    if image.nodata is None:
        return image.pixels, background, {}
    told = {"nodata": f"{image.nodata:g} in the image and {background:g} in {xml.path.name}, both taken"}
    return MaskedPixels(image.pixels, background), image.nodata, told
