"""What a GeoTIFF cannot hold, in the ``.aux.xml`` beside it, where GDAL and QGIS look for it: some CRS, class names.

Specification: GDAL Persistent Auxiliary Metadata (PAM), elements SRS and CategoryNames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from rasterio.crs import CRS


def sidecar_of(path: Path) -> Path:
    """Where GDAL looks for what a file cannot hold."""
    return Path(f"{path}.aux.xml")


def write_sidecar(path: Path, *, crs: str | None, categories: Sequence[str]) -> None:
    """Writes what a GeoTIFF that is there cannot hold beside it; nothing if it holds all.

    Args:
        path: the GeoTIFF.
        crs: the CRS (WKT) that it has to have, or None.
        categories: name of each value from 0 on; may be empty.

    Raises:
        OSError, rasterio.errors.RasterioError: if it cannot be written, or the GeoTIFF not be read.
    """
    sidecar = sidecar_of(path)
    root = ElementTree.Element("PAMDataset")
    if crs is not None and (place := _crs_element(path, crs)) is not None:
        root.append(place)
    if categories:
        band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
        names = ElementTree.SubElement(band, "CategoryNames")
        for name in categories:
            ElementTree.SubElement(names, "Category").text = name
    sidecar.unlink(missing_ok=True)
    if len(root):
        sidecar.write_text(ElementTree.tostring(root, "unicode", short_empty_elements=False) + "\n", encoding="utf-8")


def read_category_names(path: Path) -> list[str]:
    """The class names that stand beside a GeoTIFF, of each value from 0 on.

    Raises:
        ValueError: if what lies beside it is no XML.
    """
    if not sidecar_of(path).exists():
        return []
    try:
        root = ElementTree.fromstring(sidecar_of(path).read_bytes())
    except ElementTree.ParseError as error:
        raise ValueError("class names read back as no XML") from error
    return [node.text or "" for node in root.iter("Category")]


def _crs_element(path: Path, crs: str) -> ElementTree.Element | None:
    """The CRS as PAM holds it, where a GeoTIFF does not; None where it does."""
    sidecar = sidecar_of(path)
    if sidecar.exists():  # GDAL knows that its keys do not hold it
        found = ElementTree.fromstring(sidecar.read_bytes()).find("SRS")
        if found is not None:
            found.tail = None
            return found
    with rasterio.open(path.absolute(), driver="GTiff") as file:
        if file.crs == CRS.from_wkt(crs):
            return None
    element = ElementTree.Element("SRS", dataAxisToSRSAxisMapping="1,2")
    element.text = crs
    return element
