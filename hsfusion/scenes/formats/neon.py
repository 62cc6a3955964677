"""Reflectance of the NEON airborne observation platform (``.h5``).

Layout: NEON, Imaging Spectrometer Reflectance, DP1.30006.001, DP3.30006.001 and .002 (data.neonscience.org).
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from hsfusion.errors import printable
from hsfusion.scenes.formats.cube_file import NM_PER_UNIT, BandTable, CubeFile, strict_number
from hsfusion.scenes.formats.hdf5_file import (
    UNIT_SPECIFIED,
    attribute_number,
    attribute_numbers,
    attribute_text,
    bad,
    check_small,
    member,
    members,
    opened,
    pixels_of,
    small_array,
    text_of,
)
from hsfusion.scenes.formats.map_info import parse_map_info
from hsfusion.scenes.geobox import IDENTITY, GeoBox

_CUBE = "Reflectance/Reflectance_Data"
_METADATA = "Reflectance/Metadata"


def is_neon(file: h5py.File) -> bool:
    """Whether a file is a reflectance product of NEON, by its layout."""
    return bool(_sites(file))


def _sites(file: h5py.File) -> list[str]:
    return [name for name in members(file) if isinstance(member(file, f"{name}/{_CUBE}"), h5py.Dataset)]


def open_neon(path: Path, *, site: str | None = None) -> CubeFile:
    """Opens a reflectance product: reflectance = stored number / ``Scale_Factor``.

    Bands inside ``Band_Window_1_Nanometers`` and ``Band_Window_2_Nanometers``, ends included, are not good.

    Args:
        path: the file.
        site: name of the site; needed where the file holds several.

    Raises:
        InputError: if the file is damaged or contradicts itself, or leaves open which site is meant.
    """
    with opened(path) as file:
        site = _chosen(file, site)
        dataset = member(file, f"{site}/{_CUBE}")
        assert dataset is not None, "the site was found by it"
        scale, nodata = (attribute_number(dataset, name) for name in ("Scale_Factor", "Data_Ignore_Value"))
        if scale is None or not scale > 0:
            raise bad(file, "Scale_Factor", "missing" if scale is None else scale, "a positive number")
        if nodata is None:
            raise bad(file, "Data_Ignore_Value", "missing", "the number that means no data")
        pixels = pixels_of(file, path, f"{site}/{_CUBE}", axes=("rows", "cols", "layers"), fill=nodata)
        table = _band_table(file, site, pixels.layers)
        geobox = _place(file, site, pixels.grid)
    return CubeFile(
        path=path,
        format=f"NEON AOP HDF5 {pixels.dtype.name}",
        pixels=pixels,
        layers=pixels.layers,
        geobox=geobox,
        table=table,
        nodata=nodata,
        gain=np.full(pixels.layers, 1 / scale),
        facts={"sensor": "NEON AOP", "product": "reflectance", "site": printable(site)},
    )


def _chosen(file: h5py.File, site: str | None) -> str:
    sites = _sites(file)
    names = printable(", ".join(sites))
    if site is None and len(sites) != 1:
        raise bad(
            file, "number of sites", f"{len(sites)} ({names})", "one, or the name of one", "add scene.variable=SITE"
        )
    if site is not None and site.strip("/") not in sites:
        raise bad(
            file, "scene.variable", site, f"a site ({names}) or the path of an array", "correct or drop scene.variable"
        )
    return sites[0] if site is None else site.strip("/")


def _band_table(file: h5py.File, site: str, layers: int) -> BandTable:
    folder = f"{site}/{_METADATA}/Spectral_Data"
    wavelength, fwhm = (small_array(file, f"{folder}/{name}") for name in ("Wavelength", "FWHM"))
    for name, values in (("Wavelength", wavelength), ("FWHM", fwhm)):
        if values is not None and values.shape != (layers,):
            raise bad(file, f"shape of {folder}/{name}", values.shape, f"{(layers,)}, one for each band")
    dataset = member(file, f"{folder}/Wavelength")
    source, unit = f"{folder}/Wavelength", None
    if dataset is not None:
        unit = attribute_text(dataset, "Units") or attribute_text(dataset, "units")
        if not unit:
            source, unit = f"{source} ({UNIT_SPECIFIED})", "Nanometers"
    return BandTable(wavelength, fwhm, _good(file, site, wavelength, unit), unit=unit, source=source)


def _good(
    file: h5py.File, site: str, wavelength: NDArray[np.float64] | None, unit: str | None
) -> NDArray[np.bool_] | None:
    group = member(file, f"{site}/Reflectance")
    factor = NM_PER_UNIT.get((unit or "").lower())
    if wavelength is None or group is None or factor is None:
        return None
    good = np.ones(len(wavelength), bool)
    for name in ("Band_Window_1_Nanometers", "Band_Window_2_Nanometers"):
        window = attribute_numbers(group, name, length=2)
        if window is None:
            continue
        if not 0 < window[0] <= window[1]:
            raise bad(file, name, window.tolist(), "a first and a last wavelength in nm")
        good &= (wavelength * factor < window[0]) | (wavelength * factor > window[1])
    return good


def _place(file: h5py.File, site: str, grid: tuple[int, int]) -> GeoBox:
    folder = f"{site}/{_METADATA}/Coordinate_System"
    info, code = _text(file, f"{folder}/Map_Info"), _text(file, f"{folder}/EPSG Code")
    crs = None
    if code is not None:
        try:
            with rasterio.Env():  # or GDAL would print
                crs = CRS.from_epsg(int(code)).to_wkt()
        except (CRSError, ValueError) as error:
            raise bad(file, "EPSG Code", code, "the number of a coordinate system") from error
    return GeoBox(grid, IDENTITY if info is None else _transform(file, info), crs)


def _text(file: h5py.File, name: str) -> str | None:
    dataset = member(file, name)
    if dataset is None:
        return None
    if not isinstance(dataset, h5py.Dataset) or dataset.size != 1 or dataset.dtype.kind not in "OSiu":
        raise bad(file, name, "something else", "text")
    check_small(dataset)
    value = dataset[()]
    return str(int(np.asarray(value).item())) if dataset.dtype.kind in "iu" else text_of(value)


def _transform(file: h5py.File, info: str) -> Affine:
    """From an ENVI map info, which in NEON's files ends in a number without a name, 0 in all of them."""
    path = Path(file.filename)
    place = parse_map_info(path, [word.strip() for word in info.strip("{}").split(",")])
    last = [strict_number(path, "last number of Map_Info", word) for word in place.rest[3:]]
    if any(last):
        raise bad(file, "last number of Map_Info", last, "0, as in all products of NEON")
    return place.transform
