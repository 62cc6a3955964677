import os
import pickle

import h5py
import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_scene
from hsfusion.scenes.readers.emit import EmitMapPixels
from hsfusion.scenes.readers.formats import open_cube_file
from hsfusion.scenes.readers.hdf5_pixels import H5Pixels

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


@pytest.fixture(autouse=True)
def no_child_process(monkeypatch):
    """The files here are none that crash the library; those are tried in test_hdf5.py."""
    monkeypatch.setattr("hsfusion.scenes.readers.hdf5.check_survivable", lambda path: None)


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


def test_bands_are_those_of_the_sensor_group(tmp_path):
    bands = open_scene(write(tmp_path)).bands
    assert bands.wavelength_nm.tolist() == NM
    assert bands.fwhm_nm.tolist() == [8.0, 8.5, 8.0, 9.0]
    assert bands.good.tolist() == [True, False, True, True]


@pytest.mark.parametrize("options", [{}, {"grid": "map"}])
def test_lookup_table_puts_the_swath_on_the_map(tmp_path, options):
    file = open_cube_file(write(tmp_path), **options)
    assert file.geobox.transform == Affine(0.0005, 0, 12.5, 0, -0.0005, 44.25)
    assert CRS.from_wkt(file.geobox.crs).to_epsg() == 4326
    np.testing.assert_array_equal(file.read(Window(0, 0, 7, 8)), on_map())
    assert np.isnan(on_map()[:, 6, 0]).all() and np.isnan(on_map()[:, 0, 0]).all()
    assert file.facts["grid"] == "map" and file.format == "EMIT L2A netCDF float32"


def test_sensor_grid_is_the_swath_without_a_place(tmp_path):
    file = open_cube_file(write(tmp_path), grid="sensor")
    assert file.geobox.shape == (ROWS, COLS)
    assert file.geobox.transform == Affine.identity() and file.geobox.crs is None
    want = np.where(SWATH == -9999, np.nan, SWATH).transpose(2, 0, 1)
    np.testing.assert_array_equal(file.read(Window(0, 0, ROWS, COLS)), want)
    np.testing.assert_array_equal(file.read(Window(1, 2, 3, 2)), want[:, 1:4, 2:4])


def test_every_window_of_the_map_equals_that_part_of_the_whole(tmp_path):
    file = pickle.loads(pickle.dumps(open_cube_file(write(tmp_path))))
    whole = on_map()
    for row in range(7):
        for col in range(8):
            window = Window(row, col, min(3, 7 - row), min(2, 8 - col))
            np.testing.assert_array_equal(
                file.read(window), whole[:, row : row + window.height, col : col + window.width]
            )


def test_window_of_the_map_reads_only_the_rows_and_columns_it_needs(tmp_path, monkeypatch):
    pixels = open_cube_file(write(tmp_path)).pixels
    seen = []
    read = H5Pixels.read
    monkeypatch.setattr(H5Pixels, "read", lambda self, window: seen.append((self.name, window)) or read(self, window))
    pixels.read(Window(1, 6, 2, 2))
    assert GLT_Y[1:3, 6:8].tolist() == [[1, 2], [2, 3]] and GLT_X[1:3, 6:8].tolist() == [[2, 1], [2, 1]]
    assert [window for name, window in seen if name == "reflectance"] == [Window(0, 0, 3, 2)]
    assert [window for name, window in seen if name != "reflectance"] == [Window(1, 6, 2, 2)] * 2


def test_table_that_needs_the_whole_swath_holds_a_few_rows_at_a_time(tmp_path, monkeypatch):
    file = open_cube_file(write(tmp_path))
    monkeypatch.setattr("hsfusion.scenes.readers.emit._MOST_AT_ONCE", 2 * COLS * 4 * 4)  # two rows
    most = []
    read = H5Pixels.read
    monkeypatch.setattr(H5Pixels, "read", lambda self, window: most.append(window.height) or read(self, window))
    np.testing.assert_array_equal(file.read(Window(0, 0, 7, 8)), on_map())
    assert max(most[2:]) == 2 and len(most) == 2 + 3


def test_radiance_of_level_1b_is_read_alike(tmp_path):
    path = write(tmp_path, cube="radiance", **{"sensor_band_parameters/good_wavelengths": None})
    file = open_cube_file(path)
    np.testing.assert_array_equal(file.read(Window(0, 0, 7, 8)), on_map())
    assert file.format == "EMIT L1B netCDF float32" and file.facts["quantity"] == "radiance"
    assert file.bands().good.all()


def test_crop_without_groups_keeps_the_sensor_grid_and_asks_for_wavelengths(tmp_path):
    missing = {f"sensor_band_parameters/{name}": None for name in ("wavelengths", "fwhm", "good_wavelengths")}
    path = write(tmp_path, **missing, **{"location/glt_x": None, "location/glt_y": None})
    file = open_cube_file(path)
    assert file.geobox.shape == (ROWS, COLS) and file.facts["grid"] == "sensor"
    with pytest.raises(InputError, match=r"wavelengths is missing, .* Fix: add scene\.wavelengths=PATH"):
        file.bands()
    with pytest.raises(InputError, match=r"glt_x is missing, .* Fix: add scene\.grid=sensor"):
        open_cube_file(path, grid="map")


def test_empty_attributes_are_no_damage(tmp_path):
    path = write(tmp_path, attributes={"title": "", "time_coverage_start": h5py.Empty("S1"), "history": []})
    facts = open_cube_file(path).facts
    assert facts["product"] == "L2A" and facts["acquired"] == "not named"


def test_named_variable_is_taken_as_it_is(tmp_path):
    file = open_cube_file(write(tmp_path), variable="location/glt_x")
    np.testing.assert_array_equal(file.read(Window(0, 0, 7, 8))[0], GLT_X)


@pytest.mark.parametrize("grid", ["Map", "", "utm", "map\nsensor"])
def test_unknown_grid_is_one_line(tmp_path, grid):
    with pytest.raises(InputError, match=r"scene\.grid is .*, expected map or sensor") as caught:
        open_cube_file(write(tmp_path), grid=grid)
    assert "\n" not in str(caught.value)


LIES = {
    "reflectance": [SWATH[0], SWATH[None], SWATH.astype("i2"), SWATH.astype("c8"), SWATH[:0], b"text"],
    "sensor_band_parameters/wavelengths": [NM[:3], [*NM, 1.0], np.array([NM]), [b"a"] * 4, 5.0, np.zeros(200_000)],
    "sensor_band_parameters/fwhm": [[8.0], np.zeros((4, 4))],
    "sensor_band_parameters/good_wavelengths": [[1, 0, 241, 1], [1, 0], [0.5, 1, 1, 1], [1, np.nan, 1, 1]],
    "location/glt_x": [GLT_X[:3], GLT_X.astype("f4"), GLT_X[None], GLT_X[:0]],
    "location/glt_y": [None, GLT_Y.T, GLT_Y.astype("f8")],
    "geotransform": [None, [1, 2, 3], [12, 0, 0, 44, 0, 0], [12, np.nan, 0, 44, 0, -1], "12 0.1", [0] * 6],
    "spatial_ref": [None, "", "EPSG", 4326, 'GEOGCS["WGS 84"', "x" * 70_000, "a\nb"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in LIES.items() for value in values])
def test_product_that_lies_is_one_line(tmp_path, capfd, name, value):
    lie = {"attributes": {name: value}} if name in ("geotransform", "spatial_ref") else {name: value}
    with pytest.raises(InputError, match=r"EMIT\.nc: .* is .*, expected .*\. Fix: .*") as caught:
        open_cube_file(write(tmp_path, **lie))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # GDAL would print


@pytest.mark.parametrize(("x", "y"), [(6, 1), (1, 7), (-1, 1), (-9999, 2), (0, 3), (3, 0), (2**31 - 1, 1)])
def test_table_that_names_no_pixel_of_the_swath_is_refused_where_it_is_read(tmp_path, x, y):
    tables = {"location/glt_x": GLT_X.copy(), "location/glt_y": GLT_Y.copy()}
    tables["location/glt_x"][3, 5], tables["location/glt_y"][3, 5] = x, y
    file = open_cube_file(write(tmp_path, **tables))
    np.testing.assert_array_equal(file.read(Window(0, 0, 3, 8)), on_map()[:, :3])
    with pytest.raises(InputError, match=r"location/glt_y, location/glt_x is .* expected 0, 0 or a pixel from 1, 1 to"):
        file.read(Window(3, 5, 1, 1))


def test_fill_value_of_the_table_means_none(tmp_path):
    tables = {
        "location/glt_x": np.where(GLT_X == 0, -9999, GLT_X),
        "location/glt_y": np.where(GLT_Y == 0, -9999, GLT_Y),
    }
    file = open_cube_file(write(tmp_path, **tables))
    np.testing.assert_array_equal(file.read(Window(0, 0, 7, 8)), on_map())
    assert isinstance(file.pixels, EmitMapPixels)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_cut_product_is_one_line(tmp_path, share):
    path = write(tmp_path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(InputError, match=r"EMIT\.nc: content is"):
        open_cube_file(path)


def test_wavelengths_behind_a_link_are_refused(tmp_path):
    path = write(tmp_path, **{"sensor_band_parameters/wavelengths": None})
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["wavelengths"] = NM
    with h5py.File(path, "r+") as file:
        file["sensor_band_parameters/wavelengths"] = h5py.ExternalLink("other.h5", "wavelengths")
    with pytest.raises(InputError, match="is a link, expected an object of the file itself"):
        open_cube_file(path)
