import h5py
import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from scene_files.emit import COLS, GLT_X, GLT_Y, LIES, NM, ROWS, on_map, write

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_scene
from hsfusion.scenes.formats.arrays import H5Pixels
from hsfusion.scenes.formats.hdf5_products import EmitMapPixels
from hsfusion.scenes.formats.registry import open_cube_file


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


def test_window_of_the_map_reads_only_the_rows_and_columns_it_needs(tmp_path, monkeypatch):
    pixels = open_cube_file(write(tmp_path)).pixels
    seen = []
    read = H5Pixels.read
    monkeypatch.setattr(H5Pixels, "read", lambda self, *of: seen.append((self.name, of[0])) or read(self, *of))
    pixels.read(Window(1, 6, 2, 2))
    assert GLT_Y[1:3, 6:8].tolist() == [[1, 2], [2, 3]] and GLT_X[1:3, 6:8].tolist() == [[2, 1], [2, 1]]
    assert [window for name, window in seen if name == "reflectance"] == [Window(0, 0, 3, 2)]
    assert [window for name, window in seen if name != "reflectance"] == [Window(1, 6, 2, 2)] * 2


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
    with pytest.raises(InputError, match=r"glt_x is missing"):
        open_cube_file(path, grid="map")


@pytest.mark.parametrize(("said", "source"), [("nm", ""), (None, " (unit by the product's specification)")])
def test_unit_is_the_specified_one_where_the_file_names_none_and_that_is_told(tmp_path, said, source):
    path = write(tmp_path)
    if said is None:
        with h5py.File(path, "r+") as file:
            del file["sensor_band_parameters/wavelengths"].attrs["units"]
    file = open_cube_file(path)
    assert file.bands().wavelength_nm.tolist() == NM
    assert file.table.source == f"sensor_band_parameters/wavelengths{source}"


def test_empty_attributes_are_no_damage(tmp_path):
    path = write(tmp_path, attributes={"title": "", "time_coverage_start": h5py.Empty("S1"), "history": []})
    facts = open_cube_file(path).facts
    assert facts["product"] == "L2A" and facts["acquired"] == "not given"


def test_named_variable_is_taken_as_it_is(tmp_path):
    file = open_cube_file(write(tmp_path), variable="location/glt_x")
    np.testing.assert_array_equal(file.read(Window(0, 0, 7, 8))[0], GLT_X)


@pytest.mark.parametrize("grid", ["Map", "", "utm", "map\nsensor"])
def test_unknown_grid_is_one_line(tmp_path, grid):
    with pytest.raises(InputError, match=r"scene\.grid is .*, expected map or sensor") as caught:
        open_cube_file(write(tmp_path), grid=grid)
    assert "\n" not in str(caught.value)


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


def test_wavelengths_behind_a_link_are_refused(tmp_path):
    path = write(tmp_path, **{"sensor_band_parameters/wavelengths": None})
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["wavelengths"] = NM
    with h5py.File(path, "r+") as file:
        file["sensor_band_parameters/wavelengths"] = h5py.ExternalLink("other.h5", "wavelengths")
    with pytest.raises(InputError, match="is in other files, expected all numbers in this file"):
        open_cube_file(path)
