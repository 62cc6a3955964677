"""Every format beside what can be right or wrong about it."""

import functools
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.shutil import copy
from scene_files import arrays, emit, envi, geotiff, hdf5, matlab, matlab73, neon, prisma, products

from hsfusion.scenes import Window, open_scene
from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.formats.registry import open_cube_file

GAIN, OFFSET = np.array([0.1, 0.2, 0.5]), np.array([1.0, 2.0, 3.0])


@dataclass(frozen=True)
class Known:
    """What a file holds, as its writer knows; None and False for what is not part of its format.

    Attributes:
        path: the file.
        format: as it has to be told.
        values: (C, H, W) physical values, NaN for no data.
        nm: centres of the bands.
        place: transform and EPSG code.
        scaled: whether stored values differ from the physical ones.
        nodata: whether some pixels have no data.
        options: of the reader.
    """

    path: Path
    format: str
    values: NDArray
    nm: list[float] | None = None
    place: tuple[Affine, int] | None = None
    scaled: bool = False
    nodata: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


def scaled(cube, nodata=8):
    """Physical values of three bands (C, H, W) whose stored number 8 means no data."""
    return np.where(cube == nodata, np.nan, cube * GAIN[:, None, None] + OFFSET[:, None, None])


def an_envi(folder, interleave):
    fields = {"data_gain_values": "{0.1, 0.2, 0.5}", "data_offset_values": "{1, 2, 3}", "data_ignore_value": 8}
    fields["map_info"] = "{UTM, 1, 1, 395591.5, 3778292.5, 2, 2, 11, North, WGS-84}"
    path = envi.write(folder, interleave=interleave, **fields)
    place = Affine(2, 0, 395591.5, 0, -2, 3778292.5), 32611
    return Known(path, f"ENVI {interleave.upper()} int16", scaled(envi.CUBE), envi.NM, place, True, True)


def a_geotiff(folder, interleave, *, cloud_optimised=False):
    cube = np.tile(geotiff.CUBE, (1, 20, 20)) if cloud_optimised else geotiff.CUBE  # large enough for overviews
    place = geotiff.ROTATED if not cloud_optimised else Affine(30, 0, 500000, 0, -30, 4500000)
    path = geotiff.write(folder / "cube.tif", cube, interleave=interleave, nodata=8, transform=place)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = GAIN, OFFSET
    if cloud_optimised:
        path = folder / "cog.tif"
        copy(folder / "cube.tif", path, driver="COG", BLOCKSIZE=128)
        with rasterio.open(path) as file:
            assert file.overviews(1) and file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    name = f"GeoTIFF {'BSQ' if interleave == 'band' else 'BIP'} int16"
    return Known(path, name, scaled(cube), geotiff.NM, (place, 32633), True, True)


def a_product(folder, sensor, level):
    cube = products.CUBE.copy()
    cube[1, 2, 3] = cube[:, 0, 0] = -32768
    if sensor == "EnMAP":
        path, _ = products.write(folder, products.enmap_xml(level), cube=cube, stem=products.ENMAP.format(level))
    else:
        names = {"image": "SPECTRAL_IMAGE.tif", "meta": "METADATA.xml", "stem": products.DESIS.format(level)}
        path, _ = products.write(folder, products.desis_xml(level), cube=cube, nodata=-32768, **names)
    values = np.where(cube == -32768, np.nan, products.PHYSICAL)
    with rasterio.open(next(folder.glob("*IMAGE.[tT]*"))) as file:
        name = f"{sensor} {level} GeoTIFF {'BIP' if file.interleaving.name == 'pixel' else 'BSQ'} int16"
    return Known(path, name, values, products.NM, (products.PLACE["transform"], 32633), True, True)


def a_prisma(folder):
    nm = [prisma.NM[detector][i] for detector, i in prisma.ORDER]
    place = Affine(30, 0, 600_000, 0, -30, 4_500_030), 32633
    return Known(prisma.write(folder), "PRISMA L2D HDF5 uint16", prisma.expected(), nm, place, True, True)


def an_emit(folder, grid):
    swath = np.where(emit.SWATH == -9999, np.nan, emit.SWATH).transpose(2, 0, 1)
    place = Affine(0.0005, 0, 12.5, 0, -0.0005, 44.25), 4326
    values, place = (emit.on_map(), place) if grid == "map" else (swath, None)
    name, options = "EMIT L2A netCDF float32", {"grid": grid}
    return Known(emit.write(folder), name, values, emit.NM, place, nodata=True, options=options)


def a_neon(folder):
    values = np.where(neon.CUBE == -9999, np.nan, neon.CUBE / 10_000).transpose(2, 0, 1)
    place = Affine(1, 0, 368_000, 0, -1, 4_307_000), 32618
    return Known(neon.write(folder), "NEON AOP HDF5 int16", values, neon.NM, place, True, True)


def a_plain_hdf5(folder, name):
    path = hdf5.write(folder, name, cube=hdf5.CUBE)
    with h5py.File(path, "r+") as file:
        file["cube"].attrs.update({"_FillValue": np.int16([8]), "scale_factor": 0.5, "add_offset": -1.0})
        if name.endswith(".nc"):  # dimensions, as the netCDF library writes them
            for axis, (dimension, length) in enumerate(zip("yxb", hdf5.CUBE.shape, strict=True)):
                file[dimension] = np.arange(length, dtype="f8")
                file[dimension].make_scale(dimension)
                file["cube"].dims[axis].attach_scale(file[dimension])
    values = np.where(hdf5.CUBE == 8, np.nan, hdf5.CUBE * 0.5 - 1).transpose(2, 0, 1)
    return Known(path, "HDF5 int16", values, scaled=True, nodata=True)


def a_matlab73(folder):
    values = matlab73.CUBE.transpose(2, 0, 1)
    return Known(matlab73.write(folder, cube=matlab73.CUBE.astype("i2")), "MATLAB 7.3 int16", values)


def a_matlab(folder):
    return Known(matlab.write(folder, cube=matlab.CUBE), "MATLAB 5 int16", matlab.CUBE.transpose(2, 0, 1))


def a_numpy(folder, name):
    save = {"cube.npy": np.save, "cube.npz": np.savez, "packed.npz": np.savez_compressed}[name]
    save(folder / name, arrays.CUBE)
    told = "NumPy npz int16" if name.endswith(".npz") else "NumPy int16"
    return Known(folder / name, told, arrays.CUBE.transpose(2, 0, 1))


FORMATS: dict[str, Callable[[Path], Known]] = {
    **{f"ENVI {name.upper()}": functools.partial(an_envi, interleave=name) for name in ("bsq", "bil", "bip")},
    **{f"GeoTIFF by {name}": functools.partial(a_geotiff, interleave=name) for name in ("band", "pixel")},
    "COG": functools.partial(a_geotiff, interleave="pixel", cloud_optimised=True),
    "EnMAP L1C": functools.partial(a_product, sensor="EnMAP", level="L1C"),
    "EnMAP L2A": functools.partial(a_product, sensor="EnMAP", level="L2A"),
    "DESIS L2A": functools.partial(a_product, sensor="DESIS", level="L2A"),
    "PRISMA L2D": a_prisma,
    "EMIT L2A, map grid": functools.partial(an_emit, grid="map"),
    "EMIT L2A, sensor grid": functools.partial(an_emit, grid="sensor"),
    "NEON AOP": a_neon,
    "MATLAB v5": a_matlab,
    "MATLAB v7.3": a_matlab73,
    ".npy": functools.partial(a_numpy, name="cube.npy"),
    ".npz": functools.partial(a_numpy, name="cube.npz"),
    ".npz, packed": functools.partial(a_numpy, name="packed.npz"),
    "HDF5": functools.partial(a_plain_hdf5, name="cube.h5"),
    "netCDF-4": functools.partial(a_plain_hdf5, name="cube.nc"),
}


def opens(known: Known, file: CubeFile, whole: NDArray) -> None:
    assert (file.format, file.layers, file.geobox.shape) == (known.format, len(known.values), known.values.shape[1:])
    assert whole.shape == known.values.shape and whole.dtype == np.float32
    if not known.scaled:
        np.testing.assert_array_equal(whole, known.values)
    assert open_cube_file(known.path, **known.options).reading() == file.reading()


def wavelengths_are_right(known: Known, file: CubeFile, whole: NDArray) -> None:
    np.testing.assert_allclose(file.bands().wavelength_nm, known.nm, rtol=1e-12)


def scale_is_right(known: Known, file: CubeFile, whole: NDArray) -> None:
    there = np.isfinite(known.values)
    np.testing.assert_allclose(whole[there], known.values[there], rtol=1e-6, atol=1e-7)
    stored = np.ma.getdata(file.pixels.read(Window(0, 0, *file.geobox.shape)))
    apart = np.abs(stored[there] - known.values[there]) > 0.1 * np.abs(known.values[there])
    assert apart.mean() > 0.9  # a scale left out would be seen


def nodata_is_right(known: Known, file: CubeFile, whole: NDArray) -> None:
    np.testing.assert_array_equal(np.isnan(whole), np.isnan(known.values))
    assert 0 < np.isnan(whole).mean() < 1


def georeference_is_right(known: Known, file: CubeFile, whole: NDArray) -> None:
    assert known.place is not None
    assert file.geobox.transform.almost_equals(known.place[0], 1e-9)
    assert CRS.from_wkt(file.geobox.crs).to_epsg() == known.place[1]


def windowed_read_equals_full_read(known: Known, file: CubeFile, whole: NDArray) -> None:
    file = pickle.loads(pickle.dumps(file))  # as it goes to another process
    height, width = file.geobox.shape
    for row in range(0, height, max(1, height // 3)):
        for col in range(0, width, max(1, width // 3)):
            window = Window(row, col, min(2, height - row), min(3, width - col))
            part = whole[:, row : row + window.height, col : col + window.width]
            np.testing.assert_array_equal(file.read(window), part)
            layers = np.array([file.layers - 1, 0])
            np.testing.assert_array_equal(file.read(window, layers), part[layers])


CHECKS = (
    *(opens, wavelengths_are_right, scale_is_right, nodata_is_right),
    *(georeference_is_right, windowed_read_equals_full_read),
)
# what a format has to have for a check of it
NEEDED = {
    wavelengths_are_right: lambda known: known.nm is not None,
    scale_is_right: lambda known: known.scaled,
    nodata_is_right: lambda known: known.nodata,
    georeference_is_right: lambda known: known.place is not None,
}
DASHES = {
    **{name: set(NEEDED) for name in ("MATLAB v5", "MATLAB v7.3", ".npy", ".npz", ".npz, packed")},
    **{name: {wavelengths_are_right, georeference_is_right} for name in ("HDF5", "netCDF-4")},
    "EMIT L2A, map grid": {scale_is_right},
    "EMIT L2A, sensor grid": {scale_is_right, georeference_is_right},
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Writes and reads a file of a format, once for all checks."""

    @functools.cache
    def once(name: str) -> tuple[Known, CubeFile, NDArray]:
        known = FORMATS[name](tmp_path_factory.mktemp("format"))
        if known.nm is None:
            file = open_cube_file(known.path, **known.options)
        else:
            file = open_scene(known.path, **known.options).file
        return known, file, file.read(Window(0, 0, *file.geobox.shape))

    return once


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", FORMATS)
def test_format_is_read_right(opened, name, check):
    known, *read = opened(name)
    part_of_format = NEEDED.get(check, lambda known: True)(known)
    assert part_of_format == (check not in DASHES.get(name, ()))  # no dash that is not meant
    if part_of_format:
        check(known, *read)
