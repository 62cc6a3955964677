import h5py
import numpy as np
import pytest
from affine import Affine
from scene_files.prisma import COLS, LIES, MISFITS, NM, ROWS, cubes, expected, write

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_scene
from hsfusion.scenes.formats.registry import open_cube_file


def test_both_detectors_are_one_cube_with_ascending_wavelengths(tmp_path):
    path = write(tmp_path)
    scene = open_scene(path)
    assert scene.bands.wavelength_nm.tolist() == [406.5, 700.25, 943.5, 970.5, 990.0, 2497.0]
    assert scene.bands.fwhm_nm.tolist() == [9.0, 11.0, 9.5, 13.0, 12.5, 8.0]
    assert scene.bands.good.all()
    np.testing.assert_allclose(scene.read(Window(0, 0, ROWS, COLS)), expected(), rtol=1e-6, atol=1e-7)
    file = open_cube_file(path)
    assert file.format == "PRISMA L2D HDF5 uint16"
    assert file.facts["sensor"] == "PRISMA" and file.facts["acquired"] == "2021-06-01T09:58:12.5"
    assert file.table.source == "List_Cw_Vnir, List_Cw_Swir (unit by the product's specification)"
    assert file.facts["left out"].startswith("1 VNIR and 2 SWIR bands")


def test_single_zero_is_the_minimum_and_not_missing(tmp_path):
    values = open_scene(write(tmp_path)).read(Window(1, 1, 1, 1))[:, 0, 0]
    assert values[3] == 0.0 and values[2] == -0.125  # VNIR index 1 and SWIR index 1
    assert np.isfinite(values).all()


def test_invalid_values_of_the_error_matrix_are_no_data(tmp_path):
    errors = {name: np.zeros(cube.shape, "u1") for name, cube in cubes().items()}
    errors["Vnir"][2, 2, 3] = 1  # invalid
    errors["Swir"][2, 4, 3] = 2  # negative: it was set to the minimum, and stays
    path = write(tmp_path, errors={name.upper(): matrix for name, matrix in errors.items()})
    want = expected()
    want[1, 2, 3] = np.nan
    np.testing.assert_allclose(open_scene(path).read(Window(0, 0, ROWS, COLS)), want, rtol=1e-6, atol=1e-7)
    assert "error matrix" in open_cube_file(path).facts["no data"]


def test_number_that_the_error_matrix_calls_invalid_makes_no_data_of_zeros(tmp_path):
    made, errors = cubes(), {name: np.zeros(cube.shape, "u1") for name, cube in cubes().items()}
    made["Vnir"][0, 2, 0], errors["Vnir"][0, 2, 0] = 9, 1  # of the pixel that is 0 in all other bands
    cube_of = {f"{name.upper()}_Cube": cube for name, cube in made.items()}
    path = write(tmp_path, errors={name.upper(): matrix for name, matrix in errors.items()}, **cube_of)
    assert np.isnan(open_scene(path).read(Window(0, 0, 1, 1))).all()


@pytest.mark.parametrize(("level", "quantity"), [("L2B", "radiance"), ("L2C", "reflectance")])
def test_levels_in_sensor_geometry_have_no_place(tmp_path, level, quantity):
    file = open_cube_file(write(tmp_path, level=level, attributes={"Epsg_Code": None}))
    assert file.geobox.transform == Affine.identity() and file.geobox.crs is None
    assert file.facts["product"] == level and file.facts["quantity"] == quantity
    np.testing.assert_allclose(file.read(Window(0, 0, ROWS, COLS)), expected(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in LIES.items() for value in values])
def test_attribute_that_lies_is_one_line(tmp_path, name, value):
    path = write(tmp_path, attributes={name: value})
    with pytest.raises(InputError, match=rf"PRS\.he5: .*{name[:7]}.* is .*, expected .*\. Fix: .*") as caught:
        open_cube_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("datasets", MISFITS, ids=str)
def test_cube_that_does_not_fit_is_one_line(tmp_path, datasets):
    with pytest.raises(InputError, match=r"PRS\.he5: .* expected .*\. Fix: ") as caught:
        open_cube_file(write(tmp_path, **datasets))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("level", ["L1", "L0", "L2X", "L3"])
def test_other_levels_are_refused_with_what_to_order(tmp_path, level):
    with pytest.raises(InputError, match=rf"product level is {level}, expected L2B, L2C or L2D .* Fix: order the"):
        open_cube_file(write(tmp_path, level=level))


def test_product_of_which_all_bands_are_absent_is_refused(tmp_path):
    attributes = {f"List_Cw_{name}_Flags": np.zeros(len(nm), "i4") for name, nm in NM.items()}
    with pytest.raises(InputError, match="0 bands that are not flagged as absent, expected"):
        open_cube_file(write(tmp_path, attributes=attributes))


def test_damaged_chunk_is_one_line(tmp_path):
    path = write(tmp_path)
    with h5py.File(path) as file:
        at = file["HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/SWIR_Cube"].id.get_chunk_info(2).byte_offset
    with open(path, "r+b") as file:
        file.seek(at + 20)
        file.write(b"\xff\0\xff\0")
    file = open_cube_file(path)
    file.read(Window(0, 0, 2, COLS))
    with pytest.raises(InputError, match="content is unreadable"):
        file.read(Window(2, 0, 1, COLS))
