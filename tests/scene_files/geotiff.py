"""GeoTIFF files: faithful ones, and such as lie."""

import os
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


def vrt(path, source):
    path.write_text(
        f'<VRTDataset rasterXSize="50" rasterYSize="40"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{source}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )


def link(tmp_path, name):
    (tmp_path / "other").write_text("30\n0\n0\n-30\n115\n185\n")
    (tmp_path / name).symlink_to(tmp_path / "other")


BESIDE = {
    "VRT as mask": lambda path: vrt(path / "c.tif.msk", "c.tif"),
    "VRT as overview": lambda path: vrt(path / "c.tif.ovr", "c.tif"),
    "linked world file": lambda path: link(path, "c.tfw"),
    "linked mask": lambda path: link(path, "c.tif.msk"),
    "linked text": lambda path: link(path, "c.tif.aux.xml"),
    "pipe": lambda path: os.mkfifo(path / "c.tif.aux.xml"),
    "pipe that is read with a world file": lambda path: (os.mkfifo(path / "c.xml"), (path / "c.tfw").write_text("1")),
    "link that is read with a world file": lambda path: (link(path, "c.xml"), (path / "c.tfw").write_text("1")),
    "folder": lambda path: (path / "c.tif.msk").mkdir(),
}


def directory(**fields):
    """A TIFF of 8-bit pixels that is its directory and nothing else."""
    tags = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "offsets": 273}
    tags |= {"samples": 277, "rows": 278, "sizes": 279, "planes": 284}
    values = {"width": 5, "height": 4, "bits": 8, "compression": 1, "photometric": 1, "offsets": 8, "samples": 1}
    values |= {"rows": 4, "sizes": 20} | fields
    entries = [struct.pack("<HHII", tags[name], 4, 1, value) for name, value in values.items() if value is not None]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)


LIARS = {
    "truth": directory(),
    "10^9 x 10^9 pixels": directory(width=10**9, height=10**9, rows=10**9),
    "10^9 x 10^9 pixels, compressed": directory(width=10**9, height=10**9, rows=10**9, compression=8),
    "10^9 x 10^9 pixels in one-row strips": directory(width=10**9, height=10**9, rows=1, compression=8),
    "10^9 rows": directory(height=10**9, rows=10**9),
    "strip behind the end": directory(offsets=10**6),
    "no offsets": directory(offsets=None),
    "no width": directory(width=None),
    "no pixels": directory(width=0),
    "0 rows in a strip": directory(rows=0),
    "60000 bands": directory(samples=60_000, sizes=100),
    "unknown compression": directory(compression=4711),
    "empty compression": directory().replace(struct.pack("<HHI", 259, 4, 1), struct.pack("<HHI", 259, 4, 0)),
    "3 bits of nothing": directory(bits=77),
    "directory of nothing": b"II*\0\x08\0\0\0\0\0",
    "directory behind the end": b"II*\0\xff\xff\xff\x7f",
    "directory of 65535 fields": b"II*\0\x08\0\0\0\xff\xff" + bytes(100),
    "BigTIFF of nothing": b"II+\0\x08\0\0\0" + bytes(8),
    "BigTIFF of 2^63 fields": b"II+\0\x08\0\0\0\x10" + bytes(7) + b"\xff" * 8,
    "header alone": b"MM\0*",
    "nothing": b"",
    "VRT": b"<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>",
    "HTML": b"<!DOCTYPE html><html>404</html>",
    "JPEG": b"\xff\xd8\xff\xe0" + bytes(50),
}
