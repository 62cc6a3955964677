"""Rasters of labels: faithful ones, and such as hold none."""

import os
import pickle

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

from hsfusion.scenes import ArrayScene, GeoBox
from hsfusion.spectra import Bands

TRANSFORM = Affine(30.0, 2.0, 500000.0, 2.0, -30.0, 4500000.0)
UTM = CRS.from_epsg(32633).to_wkt()
PLACED = {"transform": TRANSFORM, "crs": UTM}
CODES = np.array([[0, 1, 1], [7, 0, 300]])  # (H, W)


def moved(metres):
    return Affine(30.0, 2.0, 500000.0 + metres, 2.0, -30.0, 4500000.0)


def scene_of(shape=(2, 3), **place):
    cube = np.zeros((1, *shape), np.float32)
    return ArrayScene(cube, bands=Bands.from_wavelengths([500.0]), name="s", geobox=GeoBox(shape, **place))


def save(path, array):
    np.save(path, array)
    return path


def write_tiff(path, values, *, transform=TRANSFORM, crs=UTM, colormap=None, tags=None, mask=None, **profile):
    layers = values if values.ndim == 3 else values[None]
    shape = {"count": layers.shape[0], "height": layers.shape[1], "width": layers.shape[2]}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", dtype=layers.dtype, transform=transform, crs=crs, **shape, **profile
        ) as file,
    ):
        file.write(layers)
        file.update_tags(**(tags or {}))
        if colormap:
            file.write_colormap(1, colormap)
        if mask is not None:
            file.write_mask(mask)
    return path


def write_envi(folder, values, **fields):
    (folder / "gt").write_bytes(values.astype("u1").tobytes())
    header = {"samples": values.shape[1], "lines": values.shape[0], "bands": 1, "data type": 1, "interleave": "bsq"}
    header |= {"file type": "ENVI Classification"} | fields
    (folder / "gt.hdr").write_text("\n".join(["ENVI", *(f"{key} = {value}" for key, value in header.items())]) + "\n")
    return folder / "gt"


def write_pam(path, inside):
    path.with_name(f"{path.name}.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1">{inside}</PAMRasterBand></PAMDataset>', encoding="utf-8"
    )


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("trapped",))


ARRAYS = {
    "fraction": np.array([[0, 1.5, 2]]),
    "half precision beyond its whole numbers": np.array([[0, 4096, 2]], "f2"),
    "float32 beyond its whole numbers": np.array([[0, 2**25, 2]], "f4"),
    "float64 beyond its whole numbers": np.array([[0, 2.0**60, 2]]),
    "infinite": np.array([[0, np.inf, 2]]),
    "all NaN": np.full((1, 3), np.nan),
    "all unlabelled": np.zeros((1, 3), int),
    "complex": np.array([[0, 1j, 2]]),
    "words": np.array([["a", "b", "c"]]),
    "objects": np.array([[0, 1, None]], object),
    "pickle": np.array([[Trap()] * 3], object),
    "another shape": np.ones((1, 4), int),
    "transposed": np.ones((3, 1), int),
    "empty": np.ones((0, 3), int),
    "picture": np.ones((1, 3, 3), "u1"),
}
FILES = {
    "no file": lambda folder: folder / "gt.tif",
    "folder": lambda folder: folder,
    "empty file": lambda folder: _bytes(folder, b""),
    "text": lambda folder: _bytes(folder, b"0,1,2\n"),
    "bare pickle": lambda folder: _bytes(folder, pickle.dumps(Trap())),
    "VRT": lambda folder: _bytes(folder, b'<VRTDataset rasterXSize="3" rasterYSize="1"></VRTDataset>'),
    "truncated npy": lambda folder: _bytes(folder, save(folder / "a.npy", np.ones((1, 3), int)).read_bytes()[:-5]),
    "truncated tiff": lambda folder: _bytes(folder, _tiff(folder).read_bytes()[:150]),
    "other CRS": lambda folder: _tiff(folder, crs="EPSG:32632"),
    "shifted": lambda folder: _tiff(folder, transform=moved(0.3)),
    "pixels twice as large": lambda folder: _tiff(folder, transform=Affine(60.0, 4.0, 500000.0, 4.0, -60.0, 4500000.0)),
    "north down": lambda folder: _tiff(folder, transform=Affine(30.0, -2.0, 500000.0, 2.0, 30.0, 4500000.0)),
    "RGB": lambda folder: _tiff(folder, np.ones((3, 1, 3), "u1"), photometric="rgb"),
    "complex tiff": lambda folder: _tiff(folder, np.ones((1, 3), "c8")),
    "fractional tiff": lambda folder: _tiff(folder, np.full((1, 3), 0.25, "f4")),
    "all nodata": lambda folder: _tiff(folder, np.full((1, 3), 7, "u1"), nodata=7),
    "all masked": lambda folder: _tiff(folder, mask=np.zeros((1, 3), "u1")),
    "scaled": lambda folder: _scaled(_tiff(folder), scales=(0.1,)),
    "with offset": lambda folder: _scaled(_tiff(folder), offsets=(100.0,)),
    "broken sidecar": lambda folder: _pam(_tiff(folder), "<CategoryNames>"),
    "sidecar that is empty": lambda folder: _sidecar(_tiff(folder), b""),
    "ENVI, fewer names": lambda folder: _envi(folder, classes=3, names="{a, b}"),
    "ENVI, short lookup": lambda folder: _envi(folder, classes=2, lookup="{0, 0, 0}"),
    "ENVI, bright lookup": lambda folder: _envi(folder, classes=1, lookup="{0, 0, 256}"),
    "ENVI, scaled": lambda folder: write_envi(folder, np.ones((1, 3)), **{"reflectance scale factor": 10}),
}


def _bytes(folder, content):
    (folder / "gt").write_bytes(content)
    return folder / "gt"


def _tiff(folder, values=None, **kwargs):
    return write_tiff(folder / "gt.tif", np.array([[0, 1, 2]], "u1") if values is None else values, **kwargs)


def _pam(path, inside):
    write_pam(path, inside)
    return path


def _sidecar(path, content):
    path.with_name(f"{path.name}.aux.xml").write_bytes(content)
    return path


def _scaled(path, **what):
    with rasterio.open(path, "r+") as file:
        for name, value in what.items():
            setattr(file, name, value)
    return path


def _envi(folder, *, classes=None, names=None, lookup=None):
    fields = {"classes": classes, "class names": names, "class lookup": lookup}
    return write_envi(folder, np.ones((1, 3)), **{key: value for key, value in fields.items() if value is not None})
