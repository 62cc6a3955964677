import pickle

import h5py
import numpy as np
import pytest
from scene_files import neon
from scene_files.hdf5 import CUBE, DAMAGE, external_link, external_link_on_the_way, write

from hsfusion.errors import InputError
from hsfusion.scenes import Window
from hsfusion.scenes.formats.registry import file_format, open_cube_file


def read(path, **options):
    file = open_cube_file(path, **options)
    return file.read(Window(0, 0, *file.geobox.shape))


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u4", "i8", "f2", "f4", ">f8", "?"])
@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"chunks": (2, 3, 2)},
        {"chunks": (2, 3, 2), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (2, 3, 2), "compression": "lzf"},
    ],
    ids=["contiguous", "chunks", "gzip", "lzf"],
)
def test_array_reads_back_whole_and_by_windows(tmp_path, dtype, storage):
    path = write(tmp_path, cube={"data": CUBE.astype(dtype), **storage})
    file = open_cube_file(path)
    want = CUBE.astype(dtype).astype("f4").transpose(2, 0, 1)
    assert (file.layers, file.geobox.shape) == (5, (3, 4))
    assert file.format == f"HDF5 {np.dtype(dtype).name}"
    np.testing.assert_array_equal(read(path), want)
    again = pickle.loads(pickle.dumps(file))
    np.testing.assert_array_equal(again.read(Window(1, 2, 2, 1)), want[:, 1:3, 2:3])


@pytest.mark.parametrize("userblock", [0, 512, 1024, 2048, 8192])
def test_file_is_told_by_its_signature_and_not_by_its_name(tmp_path, userblock):
    path = write(tmp_path, name="cube.tif", userblock=userblock, cube=CUBE)
    assert file_format(path) == "hdf5"
    np.testing.assert_array_equal(read(path), CUBE.transpose(2, 0, 1))


def test_layer_of_two_axes_is_a_cube_of_one(tmp_path):
    np.testing.assert_array_equal(read(write(tmp_path, gt=CUBE[:, :, 0])), CUBE[None, :, :, 0])


def test_array_among_several_has_to_be_named(tmp_path):
    path = write(tmp_path, a__cube=CUBE, gt=CUBE[:, :, 1], wavelength=np.arange(5.0), note=b"text")
    with pytest.raises(InputError, match=r"variable is not given, expected one of .*a/cube.* Fix: .*scene\.variable"):
        open_cube_file(path)
    for name in ("a/cube", "/a/cube"):
        np.testing.assert_array_equal(read(path, variable=name), CUBE.transpose(2, 0, 1))
    np.testing.assert_array_equal(read(path, variable="gt"), CUBE[None, :, :, 1])


@pytest.mark.parametrize("name", ["", "/", "gt2", "a", "a/b", "wavelength", "../gt", ".", "a\nb", "a\0b", "ü" * 300])
def test_name_of_no_array_is_one_line_that_lists_what_there_is(tmp_path, name):
    path = write(tmp_path, a__cube=CUBE, gt=CUBE[:, :, 1], wavelength=np.arange(5.0))
    with pytest.raises(InputError) as caught:
        open_cube_file(path, variable=name)
    assert "\n" not in str(caught.value)
    assert "a/cube" in str(caught.value) or "unreadable" in str(caught.value)


MISSING = {
    "missing_value alone": ("i2", {"missing_value": np.int16([8])}),
    "both alike": ("i2", {"_FillValue": np.int16(8), "missing_value": 8.0}),
    "both alike, one rounded": ("f4", {"_FillValue": np.float32(0.1), "missing_value": 0.1}),
    "NaN in floating numbers": ("f4", {"_FillValue": np.float32(np.nan)}),
    "NaN twice": ("f8", {"_FillValue": np.nan, "missing_value": np.float64([np.nan])}),
}


@pytest.mark.parametrize(("dtype", "attributes"), MISSING.values(), ids=MISSING)
def test_missing_value_means_no_data_as_the_fill_value_does(tmp_path, dtype, attributes):
    values = CUBE.astype(dtype)
    values[CUBE == 8] = next(iter(attributes.values()))
    path = write(tmp_path, cube=values)
    with h5py.File(path, "r+") as file:
        file["cube"].attrs.update(attributes)
    want = np.where(CUBE == 8, np.nan, CUBE).transpose(2, 0, 1)
    assert np.isnan(want).any()
    np.testing.assert_array_equal(read(path), want)
    assert open_cube_file(path).nodata is None or np.isfinite(open_cube_file(path).nodata)


def test_missing_value_beside_another_fill_value_means_no_data_too(tmp_path):
    path = write(tmp_path, cube=CUBE)
    with h5py.File(path, "r+") as file:
        file["cube"].attrs.update({"_FillValue": np.int16(8), "missing_value": np.int16(15)})
    np.testing.assert_array_equal(read(path), np.where(np.isin(CUBE, (8, 15)), np.nan, CUBE).transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", ["i1", ">i2", "i4"])
def test_signed_numbers_that_are_called_unsigned_are(tmp_path, dtype):
    unsigned = np.dtype(dtype.replace("i", "u"))
    values = (CUBE.astype("u8") * (np.iinfo(unsigned).max // 50)).astype(unsigned)  # up to the largest
    attributes = {"_Unsigned": "true", "_FillValue": values[0, 0, 0].astype(dtype)}
    attributes |= {"valid_max": values[1, 2, 3].astype(dtype)}
    path = write(tmp_path, cube=values.view(dtype))
    with h5py.File(path, "r+") as file:
        file["cube"].attrs.update(attributes)
    kept = (values != values[0, 0, 0]) & (values <= values[1, 2, 3])
    assert values[1, 2, 3] > np.iinfo(dtype).max and not kept.all()
    np.testing.assert_array_equal(read(path), np.where(kept, values, np.nan).astype("f4").transpose(2, 0, 1))


VALID = {
    "range": {"valid_range": np.int16([8, 30])},
    "lowest": {"valid_min": np.int16(8)},
    "highest": {"valid_max": np.int16(30)},
    "packed": {"valid_range": np.int16([8, 30]), "scale_factor": 0.1},
    "physical values": {"valid_range": np.float32([0.8, 3.0]), "scale_factor": 0.1},
    "physical values that descend": {"valid_range": [-3.0, -0.8], "scale_factor": -0.1},
    "physical highest": {"valid_max": 4.0, "scale_factor": 0.1, "add_offset": 1.0},
}


@pytest.mark.parametrize("attributes", VALID.values(), ids=VALID)
def test_numbers_outside_the_valid_range_are_no_data(tmp_path, attributes):
    path = write(tmp_path, cube=CUBE)
    with h5py.File(path, "r+") as file:
        file["cube"].attrs.update(attributes)
    low = 8 if {"valid_range", "valid_min"} & set(attributes) else -np.inf
    high = 30 if {"valid_range", "valid_max"} & set(attributes) else np.inf
    want = np.where((low <= CUBE) & (high >= CUBE), CUBE, np.nan).transpose(2, 0, 1)
    want = want * attributes.get("scale_factor", 1) + attributes.get("add_offset", 0)
    assert np.isnan(want).any()
    np.testing.assert_allclose(read(path), want, rtol=1e-6)
    layers = open_cube_file(path).read(Window(1, 1, 2, 2), np.array([2, 0]))
    np.testing.assert_allclose(layers, want[[2, 0], 1:3, 1:3], rtol=1e-6)


def test_valid_range_of_another_length_is_one_line(tmp_path):
    path = write(tmp_path, cube=CUBE)
    with h5py.File(path, "r+") as file:
        file["cube"].attrs["valid_range"] = [1, 2, 3]
    with pytest.raises(InputError, match=r"valid_range is .* expected 2 finite numbers"):
        open_cube_file(path)


def test_choices_of_other_formats_are_refused(tmp_path):
    np.save(tmp_path / "cube.npy", CUBE)
    for options in ({"variable": "cube"}, {"grid": "map"}):
        (name,) = options
        with pytest.raises(InputError, match=rf"scene\.{name} is .* Fix: drop scene\.{name}"):
            open_cube_file(tmp_path / "cube.npy", **options)
    with pytest.raises(InputError, match=r"scene\.grid is map, expected nothing"):
        open_cube_file(write(tmp_path, cube=CUBE), grid="map")
    with pytest.raises(InputError, match=r"scene\.axes is .*, expected nothing"):
        open_cube_file(neon.write(tmp_path), axes=["row", "col", "band"])


def test_part_that_was_never_written_is_refused_unless_it_means_no_data(tmp_path):
    storage = {"shape": (8, 8, 2), "dtype": "i2", "chunks": (4, 4, 2)}
    path = write(tmp_path, cube={**storage, "fillvalue": -9})
    with h5py.File(path, "r+") as file:
        file["cube"][:4] = 1
    with pytest.raises(InputError, match="stored part of cube"):
        open_cube_file(path)
    with h5py.File(path, "r+") as file:
        file["cube"].attrs["_FillValue"] = np.int16(-9)
    values = read(path)
    assert np.isnan(values[:, 4:]).all() and (values[:, :4] == 1).all()


def test_part_that_was_never_written_may_be_nan(tmp_path):
    path = write(tmp_path, cube={"shape": (8, 8, 2), "dtype": "f4", "chunks": (4, 4, 2), "fillvalue": np.nan})
    with h5py.File(path, "r+") as file:
        file["cube"].attrs["_FillValue"] = np.float32(np.nan)
        file["cube"][:4] = 1
    values = read(path)
    assert np.isnan(values[:, 4:]).all() and (values[:, :4] == 1).all()


def test_group_that_holds_itself_is_no_trap(tmp_path):
    path = write(tmp_path, a__cube=CUBE)
    with h5py.File(path, "r+") as file:
        file["a/a"] = file["a"]
        file["a/root"] = file["/"]
    for variable in (None, "a/cube"):
        np.testing.assert_array_equal(read(path, variable=variable), CUBE.transpose(2, 0, 1))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_or_hostile_file_is_one_line(tmp_path, damage):
    path = tmp_path / "cube.h5"
    damage(path)
    with pytest.raises(InputError, match=r"cube\.h5: .* is .*, expected .*\. Fix: .*\.$") as caught:
        read(path, variable=None if damage is not DAMAGE["external_link"] else "cube")
    assert "\n" not in str(caught.value)


def test_data_behind_links_are_never_read(tmp_path):
    for damage in (external_link, external_link_on_the_way):
        damage(tmp_path / "cube.h5")
        with pytest.raises(InputError, match="is in other files, expected all numbers in this file"):
            open_cube_file(tmp_path / "cube.h5", variable="cube")
