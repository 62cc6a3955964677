"""Which axis of an HDF5 array is which, and which wavelengths belong to it."""

import itertools
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from scene_files.hdf5 import write, write_netcdf

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_scene, read_labels
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.rasters import write_raster

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


EAST, NORTH = 400015 + 30.0 * np.arange(4), 4300000 + 20.0 * np.arange(5)
M, LAT, LON = {"units": "m"}, {"units": "degrees_north"}, {"units": "degrees_east"}
UTM = CRS.from_epsg(32633).to_wkt()


def write_placed(folder, y, x, *, wkt=None, key="crs_wkt", **options):
    """A cube of 6 bands with scales for its rows and columns, and a grid mapping where it has a CRS."""
    path, _ = write_netcdf(folder, (6, 5, 4), ("wavelength", ("y", *y), ("x", *x)), **options)
    if wkt is not None:
        with h5py.File(path, "r+") as file:
            file[f"{options.get('group', '')}/cube"].attrs["grid_mapping"] = "crs: x y"
            file.create_dataset("crs", data=0).attrs[key] = wkt
    return path


@pytest.mark.parametrize("key", ["crs_wkt", "spatial_ref"])
@pytest.mark.parametrize("group", ["", "a"])
@pytest.mark.parametrize(("attributes", "wkt"), [({}, UTM), (M, UTM), (M, UTM.replace(",", ",\n  ")), (M, None)])
def test_place_is_that_of_evenly_spaced_coordinates_and_the_grid_mapping(tmp_path, attributes, wkt, group, key):
    path = write_placed(tmp_path, (NORTH, attributes), (EAST, attributes), wkt=wkt, key=key, group=group)
    geobox = open_cube_file(path).geobox
    assert tuple(geobox.transform)[:6] == (30, 0, 400000, 0, 20, 4299990)  # rows ascend northwards, as stored
    assert geobox.epsg == (None if wkt is None else 32633)


@pytest.mark.parametrize(("wkt", "epsg"), [(None, 4326), (CRS.from_epsg(4258).to_wkt(), 4258)])
def test_degrees_north_and_east_are_a_place(tmp_path, wkt, epsg):
    path = write_placed(tmp_path, (50 - 0.1 * np.arange(5), LAT), (10 + 0.2 * np.arange(4), LON), wkt=wkt)
    geobox = open_cube_file(path).geobox
    np.testing.assert_allclose(tuple(geobox.transform)[:6], (0.2, 0, 9.9, 0, -0.1, 50.05))
    assert geobox.epsg == epsg


@pytest.mark.parametrize(("step", "known"), [(1 / 3600, True), (1 / 90000, False)])  # rounded to 1 / 131072
def test_rounded_coordinates_are_a_place_where_pixels_are_larger(tmp_path, step, known):
    north, east = 50 - step * np.arange(5), 123.4567 + step * np.arange(4)
    path = write_placed(tmp_path, (north.astype(np.float32), LAT), (east.astype(np.float32), LON))
    geobox = open_cube_file(path).geobox
    assert geobox.is_bare is not known
    if known:
        found, true = (transform @ (2, 2) for transform in (geobox.transform, Affine(step, 0, 123.4567, 0, -step, 50)))
        np.testing.assert_allclose(found, np.add(true, (-step / 2, step / 2)), atol=step / 20)


@pytest.mark.parametrize("attributes", [{}, {"units": "1"}, {"units": "degrees"}])
def test_numbers_that_no_unit_and_no_grid_mapping_calls_coordinates_are_no_place(tmp_path, attributes, caplog):
    assert open_cube_file(write_placed(tmp_path, (NORTH, attributes), (EAST, attributes))).geobox.is_bare
    assert not caplog.text


@pytest.mark.parametrize(
    ("north", "east", "attributes", "wkt", "problem"),
    [
        (np.geomspace(1, 2, 5), EAST, M, None, "not evenly spaced"),
        (NORTH, EAST * np.nan, M, UTM, "not evenly spaced"),
        (NORTH, EAST * 0, {}, UTM, "not evenly spaced"),
        (NORTH, EAST, {"units": "km"}, UTM, r"in km and km, which WGS 84 / UTM zone 33N .* is not"),
        (NORTH, EAST, M, CRS.from_epsg(4326).to_wkt(), "in m and m, which WGS 84 .* is not"),
        (NORTH, None, {}, UTM, "missing"),
    ],
)
def test_coordinates_that_cannot_be_used_are_told_in_one_line(tmp_path, caplog, north, east, attributes, wkt, problem):
    path = write_placed(tmp_path, (NORTH if north is None else north, attributes), (east, attributes), wkt=wkt)
    file = open_cube_file(path)
    assert file.geobox.is_bare
    assert re.search(rf"cube\.nc: the coordinates of columns and rows are {problem}, so", caplog.text)
    assert file.facts["place"] in caplog.text


def test_broken_crs_of_a_grid_mapping_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"cube\.nc: crs_wkt of crs is 'PROJCS\[broken', expected"):
        open_cube_file(write_placed(tmp_path, (NORTH, M), (EAST, M), wkt="PROJCS[broken"))


def test_labels_are_laid_on_rows_that_ascend_northwards_only_if_theirs_do(tmp_path):
    scene = open_scene(write_placed(tmp_path, (NORTH, M), (EAST, M), wkt=UTM), wavelengths=NM, wavelength_unit="nm")
    codes = np.arange(1, 21, dtype=np.uint8).reshape(5, 4)
    upright = replace(scene.geobox, transform=Affine(30, 0, 400000, 0, -20, 4300090))
    for name, geobox in (("same.tif", scene.geobox), ("upright.tif", upright)):
        write_raster(tmp_path / name, codes, geobox=geobox)
    assert read_labels(tmp_path / "same.tif", scene).codes.tolist() == codes.tolist()
    with pytest.raises(InputError, match=r"transform is .* Fix: flip the rows of one of the two"):
        read_labels(tmp_path / "upright.tif", scene)
