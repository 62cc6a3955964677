"""Which axis of an HDF5 array is which, and which wavelengths belong to it."""

import itertools

import numpy as np
import pytest
from scene_files.hdf5 import write, write_netcdf

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_scene
from hsfusion.scenes.formats.registry import open_cube_file

SIZES = {"band": 6, "row": 5, "col": 4}
ORDERS = list(itertools.permutations(SIZES))
NM = np.linspace(400, 900, 6)
NAMES = {
    "the task": {"band": ("wavelength", NM, {"units": "nm"}), "row": "northing", "col": "easting"},
    "xarray": {"band": "band", "row": "y", "col": "x"},
    "geographic": {"band": "lambda", "row": "lat", "col": "lon"},
    "EMIT": {"band": "bands", "row": "downtrack", "col": "crosstrack"},
    "swath": {"band": "number_of_bands", "row": "number_of_lines", "col": "pixels_per_line"},
    "ENVI words": {"band": "nBands", "row": "Lines", "col": "Samples"},
    "two of three": {"band": "z", "row": "row", "col": "column"},
    "CF attributes": {
        "band": ("d0", NM, {"standard_name": "radiation_wavelength"}),
        "row": ("d1", np.arange(5.0), {"standard_name": "projection_y_coordinate"}),
        "col": ("d2", np.arange(4.0), {"axis": "X"}),
    },
}


def shape_of(order):
    return tuple(SIZES[axis] for axis in order)


def assert_read_as(path, values, order, **options):
    """The file reads as (bands, rows, cols) of an array with axes in this order."""
    file = open_cube_file(path, **options)
    want = values.transpose([order.index(axis) for axis in ("band", "row", "col")])
    assert (file.layers, *file.geobox.shape) == want.shape
    np.testing.assert_array_equal(file.read(Window(0, 0, *file.geobox.shape)), want)
    np.testing.assert_array_equal(file.read(Window(1, 2, 3, 2)), want[:, 1:4, 2:4])
    return file


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_axes_are_those_that_dimension_scales_name(tmp_path, order, names):
    assert_read_as(*write_netcdf(tmp_path, shape_of(order), [names[axis] for axis in order]), order)


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_axes_are_those_that_labels_name(tmp_path, order):
    values = np.arange(120.0).reshape(shape_of(order))
    assert_read_as(write(tmp_path, cube={"data": values, "labels": order}), values, order)


@pytest.mark.parametrize("name", ["wavelength", "wavelengths", "a/wavelength"])
def test_list_of_wavelengths_beside_the_array_is_that_of_the_bands(tmp_path, name):
    path, _ = write_netcdf(tmp_path, (6, 5, 4), ("band", "y", "x"), group="a", lists={name: NM})
    table = open_cube_file(path).table
    np.testing.assert_array_equal(table.wavelength, NM)
    assert table.source == name


def test_list_of_another_length_is_not_that_of_the_bands(tmp_path):
    path, values = write_netcdf(tmp_path, (6, 5, 4), ("y", "x", "band"), lists={"wavelength": NM})
    file = assert_read_as(path, values, ("row", "col", "band"))
    assert file.table.wavelength is None


NOTHING = {
    "no names": ((6, 5, 4), (), {}),
    "names of no meaning": ((6, 5, 4), ("phony_dim_0", "phony_dim_1", "phony_dim_2"), {}),
    "rows alone": ((6, 5, 4), ("phony_dim_0", "y", "phony_dim_2"), {}),
    "rows twice": ((6, 5, 4), ("y", "lat", "x"), {}),
    "name of two meanings": ((6, 5, 4), ("band_x", "d", "e"), {}),
    "wavelengths as long as one axis": ((6, 5, 4), (), {"wavelength": NM}),
}


@pytest.mark.parametrize(("shape", "dimensions", "lists"), NOTHING.values(), ids=NOTHING)
def test_order_that_nothing_names_is_asked_for_and_can_be_told(tmp_path, shape, dimensions, lists):
    path, values = write_netcdf(tmp_path, shape, dimensions, lists=lists)
    text = " x ".join(map(str, shape))
    with pytest.raises(InputError, match=rf"axes of /cube \({text}\) is not named .* Fix: .*scene\.axes=\[") as caught:
        open_cube_file(path)
    assert "\n" not in str(caught.value)
    file = open_cube_file(path, axes=["col", "band", "row"])
    np.testing.assert_array_equal(file.read(Window(0, 0, *file.geobox.shape)), values.transpose(1, 2, 0))


def test_order_that_is_told_goes_before_that_of_the_file(tmp_path):
    path, values = write_netcdf(tmp_path, (6, 5, 4), ("band", "y", "x"))
    file = open_cube_file(path, axes=["band", "col", "row"])
    np.testing.assert_array_equal(file.read(Window(0, 0, 4, 5)), values.transpose(0, 2, 1))


@pytest.mark.parametrize("names", [("y", "x"), ("x", "y")])
def test_layer_of_two_axes_is_turned_where_its_scales_say_so(tmp_path, names):
    path, values = write_netcdf(tmp_path, (5, 4), names)
    file = open_cube_file(path)
    want = values if names == ("y", "x") else values.T
    np.testing.assert_array_equal(file.read(Window(0, 0, *file.geobox.shape)), want[None])


def test_rows_that_ascend_northwards_stay_as_they_are_stored(tmp_path):
    north = ("northing", np.arange(5.0), {"units": "m"})
    assert_read_as(*write_netcdf(tmp_path, (6, 5, 4), ("band", north, "easting")), ("band", "row", "col"))


UNITS = {
    "nm": (NM, {"units": "nm"}, 1),
    "nanometers": (NM, {"units": "nanometers"}, 1),
    "um": (NM / 1000, {"units": "um"}, 1000),
    "micrometers": (NM / 1000, {"Units": "Micrometers"}, 1000),
}


@pytest.mark.parametrize("as_scale", [True, False], ids=["scale", "list"])
@pytest.mark.parametrize(("values", "attributes", "factor"), UNITS.values(), ids=UNITS)
def test_wavelengths_and_fwhm_of_the_file_are_used_in_their_units(tmp_path, as_scale, values, attributes, factor):
    band = ("wavelength", values, attributes) if as_scale else "bands"
    lists = {"fwhm": (np.full(6, 9.0), {"units": "nm"})}
    lists |= {} if as_scale else {"wavelength": (values, attributes)}
    path, _ = write_netcdf(tmp_path, (6, 5, 4), (band, "y", "x"), lists=lists)
    bands = open_scene(path).bands
    np.testing.assert_allclose(bands.wavelength_nm, NM)
    np.testing.assert_allclose(bands.fwhm_nm, 9)


def test_fwhm_without_a_unit_has_that_of_the_wavelengths(tmp_path):
    lists = {"wavelength": (NM / 1000, {"units": "um"}), "fwhm": np.full(6, 0.009)}
    path, _ = write_netcdf(tmp_path, (6, 5, 4), ("band", "y", "x"), lists=lists)
    np.testing.assert_allclose(open_scene(path).bands.fwhm_nm, 9)


def test_unit_of_wavelengths_is_never_guessed(tmp_path):
    path, _ = write_netcdf(tmp_path, (6, 5, 4), (("wavelength", NM, {}), "y", "x"))
    with pytest.raises(InputError, match=r"wavelength units is missing.*scene\.wavelength_unit"):
        open_scene(path)
    np.testing.assert_array_equal(open_scene(path, wavelength_unit="nm").bands.wavelength_nm, NM)


def test_list_of_wavelengths_in_the_group_of_the_array_goes_first(tmp_path):
    nm = {"units": "nm"}
    lists = {"swir/wavelength": (NM + 1, nm), "vnir/wavelength": (NM, nm), "wavelength": (NM + 2, nm)}
    path, _ = write_netcdf(tmp_path, (6, 5, 4), ("band", "y", "x"), group="vnir", lists=lists)
    np.testing.assert_array_equal(open_scene(path).bands.wavelength_nm, NM)


def test_wavelengths_that_are_packed_are_unpacked(tmp_path):
    attributes = {"units": "nm", "scale_factor": 0.1, "add_offset": 100.0}
    band = ("wavelength", (NM - 100) * 10, attributes)
    path, _ = write_netcdf(tmp_path, (6, 5, 4), (band, "y", "x"))
    np.testing.assert_allclose(open_scene(path).bands.wavelength_nm, NM)


def test_dimension_that_is_no_variable_gives_no_wavelengths(tmp_path):
    path, _ = write_netcdf(tmp_path, (6, 5, 4), ("wavelength", "y", "x"))
    with pytest.raises(InputError, match="wavelength is missing, expected 6 wavelengths"):
        open_scene(path)
