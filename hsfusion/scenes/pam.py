"""What a GeoTIFF cannot hold, in the ``.aux.xml`` beside it, where GDAL and QGIS look for it: some CRS, class names.

Specification: GDAL Persistent Auxiliary Metadata (PAM), elements SRS, CategoryNames and GDALRasterAttributeTable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import rasterio
from rasterio.crs import CRS

_MOST_BYTES = 2**24  # names of 65,536 classes take 2 MB
# usages of columns of a GDAL raster attribute table
_NAME, _VALUE_FROM, _VALUE_TO, _VALUE, _RGB = "2", "3", "4", "5", ("6", "7", "8")


class PamClasses(NamedTuple):
    """What an ``.aux.xml`` says of the values of the first band.

    Attributes:
        names: category name of each value from 0 on.
        table_names: code -> name, from the attribute table.
        table_colors: code -> ``#rrggbb``, likewise.
    """

    names: tuple[str, ...]
    table_names: Mapping[int, str]
    table_colors: Mapping[int, str]


def pam_path(path: Path) -> Path:
    """Where GDAL looks for what a file cannot hold."""
    return Path(f"{path}.aux.xml")


def write_pam(path: Path, *, crs: str | None, categories: Sequence[str]) -> None:
    """Writes what an existing GeoTIFF cannot hold beside it; nothing if it holds all.

    Args:
        path: the GeoTIFF.
        crs: the CRS (WKT) that it has to have, or None.
        categories: name of each value from 0 on; may be empty.

    Raises:
        OSError, ValueError, rasterio.errors.RasterioError: if it cannot be written, or the GeoTIFF not be read.
    """
    root = ElementTree.Element("PAMDataset")
    if crs is not None and (place := _crs_element(path, crs)) is not None:
        root.append(place)
    if categories:
        band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
        names = ElementTree.SubElement(band, "CategoryNames")
        for name in categories:
            ElementTree.SubElement(names, "Category").text = name
    pam_path(path).unlink(missing_ok=True)
    if len(root):
        text = ElementTree.tostring(root, "unicode", short_empty_elements=False)
        pam_path(path).write_text(text + "\n", encoding="utf-8")


def read_pam(path: Path) -> PamClasses:
    """Reads the names and colours of classes that stand beside a GeoTIFF; all are empty where there is no such file.

    Args:
        path: the GeoTIFF.

    Raises:
        ValueError: if what lies beside it is not what GDAL writes.
    """
    root = _root(path)
    band = None if root is None else root.find("PAMRasterBand[@band='1']")
    if band is None:
        return PamClasses((), {}, {})
    names = tuple(node.text or "" for node in band.findall("CategoryNames/Category"))
    try:
        return PamClasses(names, *_attribute_table(band.find("GDALRasterAttributeTable")))
    except IndexError as error:
        raise ValueError("a row of the attribute table lacks a cell") from error


def _root(path: Path) -> ElementTree.Element | None:
    if not pam_path(path).is_file():
        return None
    content = b"" if pam_path(path).stat().st_size > _MOST_BYTES else pam_path(path).read_bytes()
    if not content or b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # entities can grow without end
        raise ValueError(f"class names are empty, larger than {_MOST_BYTES} bytes, or have entities")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, RecursionError) as error:  # LookupError: odd encodings
        raise ValueError("class names are no XML") from error


def _crs_element(path: Path, crs: str) -> ElementTree.Element | None:
    """The CRS as PAM holds it, where a GeoTIFF does not; None where it does."""
    root = _root(path)
    stored = None if root is None else root.find("SRS")
    if stored is not None:  # GDAL knows that the keys of the GeoTIFF do not hold it
        stored.tail = None
        return stored
    with rasterio.open(path.absolute(), driver="GTiff") as file:
        if file.crs == CRS.from_wkt(crs):
            return None
    element = ElementTree.Element("SRS", dataAxisToSRSAxisMapping="1,2")
    element.text = crs
    return element


def _attribute_table(table: ElementTree.Element | None) -> tuple[dict[int, str], dict[int, str]]:
    """Names and colours by code of a GDAL raster attribute table."""
    if table is None:
        return {}, {}
    columns = {node.findtext("Usage", ""): i for i, node in enumerate(table.findall("FieldDefn"))}
    value = columns.get(_VALUE, columns.get(_VALUE_FROM))
    names: dict[int, str] = {}
    colors: dict[int, str] = {}
    for row in table.findall("Row") if value is not None else ():
        cells = [cell.text or "" for cell in row.findall("F")]
        code = float(cells[value or 0])
        if not code.is_integer() or (_VALUE_TO in columns and float(cells[columns[_VALUE_TO]]) != code):
            continue  # a range of values is no class
        if _NAME in columns:
            names[int(code)] = cells[columns[_NAME]]
        if all(usage in columns for usage in _RGB):
            rgb = [int(float(cells[columns[usage]])) for usage in _RGB]
            if min(rgb) < 0 or max(rgb) > 255:
                raise ValueError("colours from 0 to 255")
            colors[int(code)] = "#{:02x}{:02x}{:02x}".format(*rgb)
    return names, colors
