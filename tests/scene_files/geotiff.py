"""GeoTIFF files: faithful ones, and such as lie."""

import struct

import numpy as np
import rasterio
from affine import Affine

NM = [410.0, 512.5, 640.25]
SHAPE = (3, 40, 50)
CUBE = (np.arange(np.prod(SHAPE)).reshape(SHAPE) * 7 % 113 + 1).astype(np.int16)
ROTATED = Affine(30.0, 4.0, 500000.0, 4.0, -30.0, 4500000.0)
UNIT = {"wavelength_units": "Nanometers"}
TAGS = [{"wavelength": str(nm)} | UNIT for nm in NM]


def write(path, cube=CUBE, *, tags=TAGS, whole=None, imagery=None, names=None, **options):
    """Writes a GeoTIFF; ``tags`` and ``imagery`` by band, ``whole`` of the file. Returns its path."""
    path.unlink(missing_ok=True)
    options = {"transform": ROTATED, "crs": "EPSG:32633", "driver": "GTiff"} | options
    shape = {"count": cube.shape[0], "height": cube.shape[1], "width": cube.shape[2], "dtype": cube.dtype}
    with rasterio.open(path, "w", **shape, **options) as file:
        file.write(cube)
        file.update_tags(**(whole or {}))
        for band in file.indexes:
            file.update_tags(band, **(tags[band - 1] if tags else {}))
            file.update_tags(band, ns="IMAGERY", **(imagery[band - 1] if imagery else {}))
            if names:
                file.set_band_description(band, names[band - 1])
    return path


CONTRADICTIONS = {
    "imagery": {"imagery": [{"CENTRAL_WAVELENGTH_UM": word} for word in ("0.41", "0.52", "0.64")]},
    "descriptions": {"names": ["410 nm", "512.5 nm", "660 nm"]},
    "list": {"whole": {"wavelength": "{411.5, 512.5, 640.25}", "wavelength_units": "nm"}},
    "units": {"whole": {"wavelength_units": "Micrometers"}},
    "units by band": {"tags": [TAGS[0], TAGS[1], {"wavelength": "640.25", "wavelength_units": "um"}]},
    "units in names": {"tags": None, "names": ["410 nm", "0.5125 um", "640 nm"]},
    "fwhm of some": {"tags": [TAGS[0] | {"fwhm": "5"}, TAGS[1], TAGS[2]]},
}


def sparse(path, **options):
    shape = {"count": 1, "height": 64, "width": 64, "dtype": "int16", "tiled": True, "blockxsize": 16, "blockysize": 16}
    with rasterio.open(
        path, "w", driver="GTiff", SPARSE_OK=True, transform=ROTATED, crs="EPSG:32633", **shape, **options
    ) as file:
        file.write(np.ones((1, 16, 16), "i2"), window=rasterio.windows.Window(16, 0, 16, 16))
    return path


def directory(**fields):
    """A TIFF of 8-bit pixels that is its directory and nothing else."""
    tags = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "offsets": 273}
    tags |= {"samples": 277, "rows": 278, "sizes": 279, "planes": 284}
    values = {"width": 5, "height": 4, "bits": 8, "compression": 1, "photometric": 1, "offsets": 8, "samples": 1}
    values |= {"rows": 4, "sizes": 20} | fields
    entries = [struct.pack("<HHII", tags[name], 4, 1, value) for name, value in values.items() if value is not None]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
