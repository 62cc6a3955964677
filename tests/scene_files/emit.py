"""EMIT products: faithful ones, and such as lie."""

import h5py
import numpy as np
from rasterio.crs import CRS

ROWS, COLS = 6, 5  # of the swath
NM = [381.0, 388.5, 396.0, 403.5]
SWATH = (np.arange(ROWS * COLS * 4).reshape(ROWS, COLS, 4) * 37 % 101 / 128).astype("f4")  # exact in binary
SWATH[2, 3] = -9999
# a map of 7 x 8 pixels that is turned: column and row of the swath from 1, 0 for none; one pixel is used twice
GLT_X = np.zeros((7, 8), "i4")
GLT_Y = np.zeros((7, 8), "i4")
for _row in range(ROWS):
    for _col in range(COLS):
        GLT_X[(_row + _col) % 7, 7 - _col] = _col + 1
        GLT_Y[(_row + _col) % 7, 7 - _col] = _row + 1
GLT_X[6, 0], GLT_Y[6, 0] = 4, 3  # the pixel without data


def write(folder, *, cube="reflectance", attributes=None, **datasets):
    """Writes a product; an attribute or dataset given as None is left out. Returns its path."""
    fields = {
        "instrument": "EMIT",
        "title": "EMIT L2A Estimated Surface Reflectance 60 m V001",
        "time_coverage_start": "2023-07-01T10:00:00+0000",
        "geotransform": np.array([12.5, 0.0005, 0.0, 44.25, 0.0, -0.0005]),
        "spatial_ref": CRS.from_epsg(4326).to_wkt(),
    }
    arrays = {
        cube: SWATH,
        "sensor_band_parameters/wavelengths": np.array(NM, "f4"),
        "sensor_band_parameters/fwhm": np.array([8.0, 8.5, 8.0, 9.0], "f4"),
        "sensor_band_parameters/good_wavelengths": np.array([1, 0, 1, 1], "u1"),
        "location/glt_x": GLT_X,
        "location/glt_y": GLT_Y,
    }
    path = folder / "EMIT.nc"
    with h5py.File(path, "w") as file:
        for name, values in (arrays | datasets).items():
            if values is not None:
                file.create_dataset(name, data=values)
        file.attrs.update({name: value for name, value in (fields | (attributes or {})).items() if value is not None})
        for name, unit in (("wavelengths", "nm"), ("fwhm", "nm")):
            if f"sensor_band_parameters/{name}" in file:
                file[f"sensor_band_parameters/{name}"].attrs["units"] = unit
        if cube in file and np.asarray(file[cube]).dtype.kind == "f":
            file[cube].attrs["_FillValue"] = np.float32([-9999])
        for name in ("glt_x", "glt_y"):
            if f"location/{name}" in file:
                file[f"location/{name}"].attrs["_FillValue"] = np.int32([-9999])
    return path


def on_map():
    """The map put together pixel by pixel: (bands, rows, columns)."""
    values = np.full((4, 7, 8), np.nan, "f4")
    for row, col in zip(*np.nonzero(GLT_X), strict=True):
        values[:, row, col] = SWATH[GLT_Y[row, col] - 1, GLT_X[row, col] - 1]
    return np.where(values == -9999, np.nan, values)


LIES = {
    "reflectance": [SWATH[0], b"text"],
    "sensor_band_parameters/wavelengths": [[b"a"] * 4],
    "sensor_band_parameters/fwhm": [[8.0]],
    "sensor_band_parameters/good_wavelengths": [[1, 0]],
    "location/glt_x": [GLT_X[None]],
    "location/glt_y": [None],
    "geotransform": [None, [1, 2, 3], [12, 0, 0, 44, 0, 0], "12 0.1"],
    "spatial_ref": [None, "EPSG", 'GEOGCS["WGS 84"'],
}
