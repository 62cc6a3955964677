"""Reflectance of the NEON airborne observation platform (``.h5``).

Layout: NEON, Imaging Spectrometer Reflectance, DP1.30006.001, DP3.30006.001 and .002 (data.neonscience.org).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from hsfusion.errors import printable
from hsfusion.scenes.formats.cube_file import NM_PER_UNIT, BandTable, CubeFile, crs_as_wkt
from hsfusion.scenes.formats.envi import map_transform
from hsfusion.scenes.formats.hdf5 import attribute_numbers, format_error, pixels_of, product_bands, resolve, text_of
from hsfusion.scenes.geobox import IDENTITY, GeoBox

_CUBE = "Reflectance/Reflectance_Data"
_METADATA = "Reflectance/Metadata"


def is_neon(file: h5py.File) -> bool:
    """Whether a file is a reflectance product of NEON, by its layout."""
    return bool(_sites(file))


def _sites(file: h5py.File) -> list[str]:
    return [name for name in map(str, file) if isinstance(resolve(file, f"{name}/{_CUBE}"), h5py.Dataset)]


def open_neon(path: Path, *, variable: str | None = None) -> CubeFile:
    """Opens a reflectance product: reflectance = stored number / ``Scale_Factor``.

    Bands inside ``Band_Window_1_Nanometers`` and ``Band_Window_2_Nanometers``, ends included, are not good. Of several
    sites ``variable`` names one.
    """
    with h5py.File(path, "r") as file:
        site = _site(file, variable)
        dataset = resolve(file, f"{site}/{_CUBE}")
        assert dataset is not None, "the site was found by it"
        scale, nodata = (
            float(attribute_numbers(dataset, name, length=1)[0]) for name in ("Scale_Factor", "Data_Ignore_Value")
        )
        pixels = pixels_of(file, f"{site}/{_CUBE}", ("rows", "cols", "layers"), fill=nodata)
        table = _band_table(file, site)
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


def _site(file: h5py.File, name: str | None) -> str:
    sites = _sites(file)
    site = sites[0] if name is None and len(sites) == 1 else (name or "").strip("/")
    if site not in sites:
        found = "not named" if name is None else name
        raise format_error(file, "scene.variable", found, f"a site ({', '.join(sites)}) or an array", "name the site")
    return site


def _band_table(file: h5py.File, site: str) -> BandTable:
    folder = f"{site}/{_METADATA}/Spectral_Data"
    table = product_bands(file, f"{folder}/Wavelength", f"{folder}/FWHM")
    factor, group = NM_PER_UNIT.get((table.unit or "").lower()), resolve(file, f"{site}/Reflectance")
    wavelength = table.wavelength
    if wavelength is None or group is None or factor is None:
        return table
    good = np.ones(len(wavelength), bool)
    for name in ("Band_Window_1_Nanometers", "Band_Window_2_Nanometers"):
        if name in group.attrs:
            first, last = attribute_numbers(group, name, length=2)
            good &= (wavelength * factor < first) | (wavelength * factor > last)
    return replace(table, good=good)


def _place(file: h5py.File, site: str, grid: tuple[int, int]) -> GeoBox:
    folder = f"{site}/{_METADATA}/Coordinate_System"
    info, code = _text(file, f"{folder}/Map_Info"), _text(file, f"{folder}/EPSG Code")
    crs = None if code is None else crs_as_wkt(file.filename, "EPSG Code", int(code))
    if info is None:
        return GeoBox(grid, IDENTITY, crs)
    return GeoBox(grid, map_transform(file.filename, info.strip("{}").split(",")), crs)


def _text(file: h5py.File, name: str) -> str | None:
    dataset = resolve(file, name)
    value = dataset[()] if isinstance(dataset, h5py.Dataset) else None
    return str(value) if isinstance(value, np.integer) else text_of(value)
