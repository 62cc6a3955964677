"""EnMAP and DESIS products: an image beside an XML file that names wavelengths, gains and offsets.

Specifications: EnMAP HSI Level 1B/1C/2A Product Specification (EN-PCV-ICD-2009-2) and DESIS Product Specification
(PAV-DLR-ICD-003), both DLR. Wavelengths are in nm; physical value = stored value times gain plus offset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import BandTable, CubeFile, strict_number
from hsfusion.scenes.formats.envi import open_envi
from hsfusion.scenes.formats.geotiff import is_tiff, open_geotiff

_IMAGE_NAME = re.compile(r"(?P<stem>.*)SPECTRAL_IMAGE(_(?P<detector>VNIR|SWIR))?(_COG)?(\.\w+)?", re.IGNORECASE)
_XML_NAME = re.compile(r"(?P<stem>.*)METADATA(\.XML)+", re.IGNORECASE)
_XML_ENDINGS = ("METADATA.XML", "METADATA.xml", "metadata.xml", "METADATA.XML.XML")
_NO_IMAGES = (".hdr", ".xml", ".msk", ".ovr", ".txt", ".vrt", ".tfw")
_CLOSE_NM = 1.0  # band tables that other programs write are rounded
_DETECTORS = ("VNIR", "SWIR")
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
    """
    name = _IMAGE_NAME.fullmatch(path.name)
    image_path, xml_path = (path, _xml_beside(path, name["stem"])) if name else (_image_beside(path), path)
    image = open_geotiff(image_path) if is_tiff(image_path) else open_envi(image_path)
    if xml_path is None:
        if image.table.source != "wavelength":  # the tags say something, be it whole or not
            return image
        source = "wavelength (named neither in the image nor in a METADATA.XML beside it)"
        return replace(image, table=replace(image.table, source=source))
    xml = _read_xml(xml_path)
    rows = _rows_of_image(xml, image)
    wavelength, fwhm, gain, offset = (xml.column(name, rows) for name in _FIELDS[xml.sensor])
    _check_same(xml, image, wavelength=wavelength, gain=gain, offset=offset)
    level = xml.text("base/level") or "of no named level"
    facts = {"sensor": xml.sensor, "product": level, "acquired": xml.text("base/temporalCoverage/startTime")}
    kept = {name: value for name, value in image.facts.items() if name not in facts}
    text = xml.text("specific/backgroundValue")
    background = strict_number(xml_path, "specific/backgroundValue", text) if text else None
    if image.nodata is not None and background not in (None, image.nodata):
        kept["nodata"] = f"{image.nodata:g} in the image and {background:g} in {xml_path.name}, both used"
    return replace(
        image,
        format=f"{xml.sensor} {level} {image.format}",
        table=BandTable(wavelength, fwhm, _good(xml, rows, image), "nm", f"wavelengthCenterOfBand of {xml_path.name}"),
        nodata=background if image.nodata is None else image.nodata,
        background=background,
        gain=gain,
        offset=offset,
        facts={name: value for name, value in facts.items() if value} | kept,
    )


@dataclass(frozen=True)
class ProductXml:
    """What a product's XML says; ``bands`` holds the elements of the bands in the order of their numbers 1, 2, ..."""

    path: Path
    sensor: str
    root: Element
    bands: list[Element]

    def text(self, name: str) -> str:
        """The text of an element, in one line; empty where there is none."""
        return printable(" ".join((self.root.findtext(name) or "").split()), longest=100_000)

    def column(self, name: str, rows: slice) -> NDArray[np.float64]:
        """A number of each band."""
        numbered = enumerate(self.bands[rows], rows.start + 1)
        return np.array(
            [strict_number(self.path, f"{name} of band {i}", band.findtext(name) or "") for i, band in numbered]
        )


def _read_xml(path: Path) -> ProductXml:
    root = fromstring(path.read_bytes())  # expat opens no other files, and limits what entities grow to
    for element in root.iter():
        element.tag = re.sub(".*[}:]", "", element.tag)  # any namespace
    sensor = _SENSORS.get(root.tag, "")
    elements = root.iterfind(_BAND[sensor]) if sensor else ()
    bands = {int(band.get("number") or band.findtext("bandNumber") or 0): band for band in elements}
    if not bands or sorted(bands) != list(range(1, len(bands) + 1)):
        value = f"{printable(root.tag, longest=40)} with bands {printable(sorted(bands), longest=60)}"
        expected = f"{' or '.join(_SENSORS)} with bands 1, 2, ..."
        raise InputError(path, "root element", value, expected, "name the XML of an EnMAP or DESIS product")
    return ProductXml(path, sensor, root, [bands[number] for number in sorted(bands)])


def _xml_beside(image: Path, stem: str) -> Path | None:
    places = (image.with_name(stem + ending) for ending in _XML_ENDINGS)
    return next(filter(Path.is_file, places), None)


def _image_beside(xml_path: Path) -> Path:
    match = _XML_NAME.fullmatch(xml_path.name)
    stem = match["stem"] if match else xml_path.stem
    images = sorted(
        file.name
        for file in xml_path.parent.iterdir()
        if file.name.lower().startswith(f"{stem}SPECTRAL_IMAGE".lower())
        and is_product_image(file)
        and file.suffix.lower() not in _NO_IMAGES
    )
    if len(images) != 1:
        expected = f"one file {stem}SPECTRAL_IMAGE with the ending .TIF, .BSQ, .BIL or .BIP"
        fix = "name the image itself" if images else f"put it beside {stem}METADATA.XML, named as in the product"
        raise InputError(xml_path, "image beside it", ", ".join(images) or "missing", expected, fix)
    return xml_path.with_name(images[0])


def _rows_of_image(xml: ProductXml, image: CubeFile) -> slice:
    """Rows of the band table that belong to an image: all, or those of one detector (EnMAP L1B), VNIR first."""
    match = _IMAGE_NAME.fullmatch(image.path.name)
    detector = (match["detector"] or "").upper() if match else ""
    rows, bands = slice(0, len(xml.bands)), len(xml.bands)
    if xml.sensor == "EnMAP" and detector:
        sizes = [int(xml.text(f"product/image/{name.lower()}/channels")) for name in _DETECTORS]
        rows = slice(0, sizes[0]) if detector == "VNIR" else slice(sizes[0], sum(sizes))
        bands = sum(sizes)
    if rows.stop - rows.start != image.layers or bands != len(xml.bands):
        value = f"{rows.stop - rows.start} of {bands} in all"
        expected = f"{image.layers} as in {image.path.name}, of {len(xml.bands)}"
        raise InputError(xml.path, "number of bands", value, expected, "take XML and image from one product")
    return rows


def _check_same(xml: ProductXml, image: CubeFile, **of_xml: NDArray[np.float64]) -> None:
    """Makes sure that what the image says of its bands itself is what the XML says, so that nothing counts twice."""
    of_image = {"gain": image.gain, "offset": image.offset, "wavelength": image.table.wavelength_nm}
    for name, values in of_image.items():
        if values is None:
            continue
        close = _CLOSE_NM if name == "wavelength" else 1e-5 * np.abs(of_xml[name]) + 1e-12
        if values.shape != of_xml[name].shape or not (np.abs(values - of_xml[name]) <= close).all():
            value, expected = printable(values.tolist()), printable(of_xml[name].tolist())
            fix = "take both from one product, or move the XML away"
            raise image.error(f"{name} of the bands", value, f"{expected} as in {xml.path.name}", fix)


def _good(xml: ProductXml, rows: slice, image: CubeFile) -> NDArray[np.bool_] | None:
    """Bands that the XML expects in the product and the image does not mark as bad."""
    lists = [xml.text(f"specific/{name.lower()}ProductQuality/expectedChannelsList") for name in _DETECTORS]
    numbers = [int(word) for text in lists for word in text.split(",") if word.strip()]
    good = np.isin(np.arange(1, len(xml.bands) + 1), numbers) | (not numbers)
    return good[rows] if image.table.good is None else good[rows] & image.table.good
