import os
import pickle

import h5py
import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_scene
from hsfusion.scenes.readers.formats import open_cube_file

ROWS, COLS = 4, 5
# as products have them: downward, absent bands 0; VNIR and SWIR overlap
NM = {"Vnir": [0.0, 970.5, 700.25, 406.5], "Swir": [2497.0, 943.5, 1500.0, 0.0, 990.0]}
FWHM = {"Vnir": [0.0, 13.0, 11.0, 9.0], "Swir": [8.0, 9.5, 10.5, 0.0, 12.5]}
FLAGS = {"Vnir": [0, 1, 1, 1], "Swir": [1, 1, 0, 0, 1]}  # 1500 nm is flagged as absent
SCALE = {"Vnir": (0.0, 1.25), "Swir": (-0.125, 0.875)}
# what has to come out: detector, index there
ORDER = [("Vnir", 3), ("Vnir", 2), ("Swir", 1), ("Vnir", 1), ("Swir", 4), ("Swir", 0)]


def cubes():
    """DN (rows, bands, columns) of both detectors; pixel (0, 0) is outside, as all its numbers are 0."""
    made = {
        name: (np.arange(ROWS * len(nm) * COLS) * 997 % 65535 + 1).reshape(ROWS, len(nm), COLS).astype("u2")
        for name, nm in NM.items()
    }
    for cube in made.values():
        cube[0, :, 0] = 0
        cube[1, 1, 1] = 0
    return made


@pytest.fixture(autouse=True)
def no_child_process(monkeypatch):
    """The files here are none that crash the library; those are tried in test_hdf5.py."""
    monkeypatch.setattr("hsfusion.scenes.readers.hdf5.check_survivable", lambda path: None)


def write(folder, *, level="L2D", errors=None, attributes=None, **datasets):
    """Writes a product; an attribute or dataset given as None is left out. Returns its path."""
    corners = {"UL": (600_015.0, 4_500_015.0), "LR": (600_015.0 + 30 * (COLS - 1), 4_500_015.0 - 30 * (ROWS - 1))}
    fields = {"Epsg_Code": np.int64(32633), "Product_StartTime": np.bytes_(b"2021-06-01T09:58:12.5")}
    for name, (east, north) in corners.items():
        fields |= {f"Product_{name}corner_easting": np.float32(east), f"Product_{name}corner_northing": north}
    for name in NM:
        fields[f"List_Cw_{name}"] = np.array(NM[name], "f4")
        fields[f"List_Fwhm_{name}"] = np.array(FWHM[name], "f4")
        fields[f"List_Cw_{name}_Flags"] = np.array(FLAGS[name], "i4")
        fields[f"L2Scale{name}Min"], fields[f"L2Scale{name}Max"] = map(np.float32, SCALE[name])
    arrays = {f"{name.upper()}_Cube": cube for name, cube in cubes().items()}
    arrays |= {f"{name.upper()}_PIXEL_L2_ERR_MATRIX": matrix for name, matrix in (errors or {}).items()}
    path = folder / "PRS.he5"
    with h5py.File(path, "w") as file:
        group = file.create_group(f"HDFEOS/SWATHS/PRS_{level}_HCO/Data Fields")
        for name, values in (arrays | datasets).items():
            if values is not None:
                group.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), compression="gzip")
        file.attrs.update({name: value for name, value in (fields | (attributes or {})).items() if value is not None})
    return path


def expected():
    """Reflectance by the product's own formula, NaN outside."""
    made = cubes()
    dn = np.stack([made[name][:, index] for name, index in ORDER]).astype("f8")
    low, high = (np.array([SCALE[name][end] for name, _ in ORDER])[:, None, None] for end in (0, 1))
    values = low + dn * (high - low) / 65535
    values[:, 0, 0] = np.nan
    return values


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
    assert file.facts["left out"].startswith("1 VNIR and 2 SWIR bands")


def test_window_equals_that_part_of_the_whole(tmp_path):
    file = pickle.loads(pickle.dumps(open_cube_file(write(tmp_path))))
    whole = file.read(Window(0, 0, ROWS, COLS))
    for window in (Window(0, 0, 1, 1), Window(1, 2, 3, 2), Window(3, 0, 1, COLS)):
        part = whole[:, window.row : window.row + window.height, window.col : window.col + window.width]
        np.testing.assert_array_equal(file.read(window), part)


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


def test_corner_coordinates_are_centres_of_pixels(tmp_path):
    geobox = open_scene(write(tmp_path)).geobox
    assert geobox.shape == (ROWS, COLS)
    assert geobox.transform == Affine(30, 0, 600_000, 0, -30, 4_500_030)
    assert CRS.from_wkt(geobox.crs).to_epsg() == 32633


@pytest.mark.parametrize(("level", "quantity"), [("L2B", "radiance"), ("L2C", "reflectance")])
def test_levels_in_sensor_geometry_have_no_place(tmp_path, level, quantity):
    file = open_cube_file(write(tmp_path, level=level, attributes={"Epsg_Code": None}))
    assert file.geobox.transform == Affine.identity() and file.geobox.crs is None
    assert file.facts["product"] == level and file.facts["quantity"] == quantity
    np.testing.assert_allclose(file.read(Window(0, 0, ROWS, COLS)), expected(), rtol=1e-6, atol=1e-7)


LIES = {
    "Epsg_Code": [None, 0, -1, 999999, 32633.5, np.nan, "EPSG:32633", [32633, 32634]],
    "Product_ULcorner_easting": [None, np.nan, 600_000.0, "600015", np.inf],
    "Product_LRcorner_northing": [None, 4_500_015.0, 0.0, 4_500_015.0 + 30 * (ROWS - 1)],
    "List_Cw_Vnir": [None, NM["Vnir"][:3], [*NM["Vnir"], 5.0], [0, np.nan, 700, 406], "406 700", np.zeros((2, 3))],
    "List_Cw_Swir": [None, [], np.array([b"a"] * 5), h5py.Empty("f4")],
    "List_Fwhm_Vnir": [None, [9.0], [0, np.inf, 11, 9]],
    "List_Cw_Swir_Flags": [None, [1, 1], ["yes"] * 5],
    "L2ScaleVnirMin": [None, np.nan, 2.0, "0"],
    "L2ScaleSwirMax": [None, np.inf, -0.125, -1.0, [1.0, 2.0]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in LIES.items() for value in values])
def test_attribute_that_lies_is_one_line(tmp_path, name, value):
    path = write(tmp_path, attributes={name: value})
    with pytest.raises(InputError, match=rf"PRS\.he5: .*{name[:7]}.* is .*, expected .*\. Fix: .*") as caught:
        open_cube_file(path)
    assert "\n" not in str(caught.value)


def zeros(rows=ROWS, bands=4, cols=COLS, dtype="u2"):
    return np.zeros((rows, bands, cols), dtype)


@pytest.mark.parametrize(
    "datasets",
    [
        {"VNIR_Cube": None},
        {"SWIR_Cube": None},
        {"VNIR_Cube": zeros(rows=3)},
        {"VNIR_Cube": zeros(cols=4)},
        {"VNIR_Cube": zeros(bands=3)},
        {"VNIR_Cube": zeros().transpose(0, 2, 1)},
        {"VNIR_Cube": zeros()[:, 0]},
        {"VNIR_Cube": zeros(dtype="f4")},
        {"VNIR_Cube": zeros(dtype="i2")},
        {"SWIR_Cube": zeros(dtype="S4")},
        {"VNIR_PIXEL_L2_ERR_MATRIX": zeros(bands=3, dtype="u1")},
        {"VNIR_PIXEL_L2_ERR_MATRIX": zeros(dtype="u1")[:, :, 0]},
        {"VNIR_PIXEL_L2_ERR_MATRIX": zeros(dtype="S1")},
    ],
    ids=str,
)
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
    with pytest.raises(InputError, match="all 0, expected at least one band"):
        open_cube_file(write(tmp_path, attributes=attributes))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_cut_product_is_one_line(tmp_path, share):
    path = write(tmp_path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(InputError, match=r"PRS\.he5: content is"):
        open_cube_file(path)


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
