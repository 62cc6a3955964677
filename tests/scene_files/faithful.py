"""A faithful file of each format, for damage to be done to: functions of a folder that return the path to name."""

import h5py
import numpy as np
import rasterio
from rasterio.shutil import copy

from scene_files import arrays, emit, envi, geotiff, hdf5, matlab, matlab73, neon, prisma, products, vectors
from scene_files.cases import by, holding


def cog(folder):
    geotiff.write(folder / "plain.tif", np.tile(geotiff.CUBE, (1, 20, 20)))
    copy(folder / "plain.tif", folder / "cog.tif", driver="COG", BLOCKSIZE=128)
    (folder / "plain.tif").unlink()
    return folder / "cog.tif"


def enmap_image(folder):
    return products.write(folder, products.GOOD, compress="DEFLATE")[1]


def enmap_envi(folder):
    return products.write(folder, products.GOOD, image="SPECTRAL_IMAGE.BSQ", driver="ENVI", nodata=-32768)[1]


def enmap(folder, xml=products.GOOD, **options):
    """Image and XML; returns the path of the XML."""
    return products.write(folder, xml, **options)[0]


def desis(folder):
    names = {"stem": products.DESIS.format("L2A"), "image": "SPECTRAL_IMAGE.tif", "meta": "METADATA.xml"}
    return products.write(folder, products.desis_xml("L2A"), **names)[0]


def tiff(**options):
    """A writer of GeoTIFF files."""
    return lambda folder: geotiff.write(folder / "cube.tif", **options)


def npz(save):
    def write(folder):
        save(folder / "cube.npz", cube=arrays.CUBE)
        return folder / "cube.npz"

    return write


def newest_hdf5(folder):
    """A file whose superblock and headers have checksums."""
    with h5py.File(folder / "cube.h5", "w", libver="latest") as file:
        file.create_dataset("cube", data=hdf5.CUBE, chunks=(3, 4, 5), compression="gzip", fletcher32=True)
    return folder / "cube.h5"


TILES = {"tiled": True, "blockxsize": 16, "blockysize": 16}
FAITHFUL = {
    **{f"ENVI {name.upper()}": by(envi.write, interleave=name) for name in envi.AXES},
    "GeoTIFF in strips": tiff(interleave="band"),
    "GeoTIFF in tiles": tiff(interleave="pixel", **TILES),
    "GeoTIFF, packed": tiff(compress="DEFLATE"),
    "BigTIFF": tiff(BIGTIFF="YES"),
    "COG": cog,
    "EnMAP image": enmap_image,
    "EnMAP as ENVI": enmap_envi,
    "EnMAP XML": enmap,
    "DESIS XML": desis,
    "PRISMA": prisma.write,
    "EMIT": emit.write,
    "NEON": neon.write,
    "HDF5": by(hdf5.write, cube=hdf5.CUBE),
    "HDF5, newest": newest_hdf5,
    "MATLAB 5": by(matlab.write, cube=matlab.CUBE),
    "MATLAB 5, plain": holding("cube.mat", matlab.PLAIN),
    "MATLAB 7.3": by(matlab73.write, cube=matlab73.CUBE.astype("f8")),
    "npy": holding("cube.npy", arrays.npy()),
    "npz": npz(np.savez),
    "npz, packed": npz(np.savez_compressed),
}


def placed_cube(folder):
    """A cube of 3 x 4 pixels on the grid of the labels in `vectors`."""
    place = rasterio.Affine(vectors.STEP, 0, vectors.LEFT, 0, -vectors.STEP, vectors.TOP)
    cube = np.arange(24, dtype="i2").reshape(2, 3, 4)
    tags = [{"wavelength": nm, "wavelength_units": "nm"} for nm in ("500", "600")]
    return geotiff.write(folder / "cube.tif", cube, tags=tags, transform=place)


def numpy_cube(cube):
    """A writer of a .npy file of a cube (C, H, W)."""
    return holding("cube.npy", arrays.npy(cube.transpose(1, 2, 0)))
