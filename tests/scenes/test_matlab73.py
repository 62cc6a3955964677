import os
import pickle

import h5py
import numpy as np
import pytest

from hsfusion.errors import InputError
from hsfusion.scenes import Window
from hsfusion.scenes.readers.formats import file_format, open_cube_file

CUBE = np.arange(3 * 4 * 5).reshape(3, 4, 5) * 7 % 50 + 1  # rows, columns, layers as MATLAB has them
CLASSES = {"f8": "double", "f4": "single", "u1": "uint8", "i2": "int16", "u4": "uint32", "i8": "int64"}


def write(folder, name="scene.mat", **variables):
    """Writes MATLAB 7.3 variables: arrays, or functions that write into the file. Returns its path."""
    path = folder / name
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, value in variables.items():
            if callable(value):
                value(file, key)
                continue
            made = file.create_dataset(key, data=np.asarray(value).T)  # MATLAB's first axis runs fastest
            made.attrs["MATLAB_class"] = np.bytes_(CLASSES[np.asarray(value).dtype.str[1:]])
    with open(path, "r+b") as file:
        text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 10:00:00 2024 HDF5 schema 1.00 ."
        file.write(text.ljust(116) + bytes(8) + b"\0\2IM")
    return path


def structure(file, key):
    file.create_group(key).attrs["MATLAB_class"] = np.bytes_(b"struct")
    file[key]["inside"] = np.zeros((3, 4, 5))
    file[key]["inside"].attrs["MATLAB_class"] = np.bytes_(b"double")


def sparse(file, key):
    group = file.create_group(key)
    group.attrs.update({"MATLAB_class": np.bytes_(b"double"), "MATLAB_sparse": np.uint64(5)})
    group["data"] = np.zeros((4, 4))


def characters(file, key):
    file.create_dataset(key, data=np.full((4, 3), 65, "u2")).attrs["MATLAB_class"] = np.bytes_(b"char")


def cells(file, key):
    file.create_group("#refs#")["a"] = np.zeros((3, 4, 5))
    file["#refs#/a"].attrs["MATLAB_class"] = np.bytes_(b"double")
    made = file.create_dataset(key, (2, 2), h5py.ref_dtype)
    made.attrs["MATLAB_class"] = np.bytes_(b"cell")
    made[0, 0] = file["#refs#/a"].ref


def empty(file, key):
    made = file.create_dataset(key, data=np.array([[0, 0], [3, 3]], "u8"))
    made.attrs.update({"MATLAB_class": np.bytes_(b"double"), "MATLAB_empty": np.uint8(1)})


def logical(file, key):
    made = file.create_dataset(key, data=(CUBE[:, :, 0].T > 20).astype("u1"))
    made.attrs.update({"MATLAB_class": np.bytes_(b"logical"), "MATLAB_int_decode": np.int32(1)})


def complex_numbers(file, key):
    made = file.create_dataset(key, data=np.zeros((4, 3), [("real", "f8"), ("imag", "f8")]))
    made.attrs["MATLAB_class"] = np.bytes_(b"double")


def read(path, **options):
    file = open_cube_file(path, **options)
    return file.read(Window(0, 0, *file.geobox.shape))


@pytest.mark.parametrize("dtype", CLASSES)
def test_axes_are_turned_back_to_rows_columns_layers(tmp_path, dtype):
    path = write(tmp_path, cube=CUBE.astype(dtype))
    assert file_format(path) == "matlab73"
    file = pickle.loads(pickle.dumps(open_cube_file(path)))
    assert (file.layers, file.geobox.shape) == (5, (3, 4))
    assert file.format == f"MATLAB 7.3 {np.dtype(dtype).name}"
    np.testing.assert_array_equal(read(path), CUBE.transpose(2, 0, 1))
    np.testing.assert_array_equal(file.read(Window(1, 2, 2, 1)), CUBE.transpose(2, 0, 1)[:, 1:3, 2:3])


def test_map_of_labels_has_one_layer(tmp_path):
    np.testing.assert_array_equal(read(write(tmp_path, gt=CUBE[:, :, 0].astype("u1"))), CUBE[None, :, :, 0])
    np.testing.assert_array_equal(read(write(tmp_path, mask=logical)), CUBE[None, :, :, 0] > 20)


def test_what_is_no_array_is_passed_over(tmp_path):
    others = {"a": structure, "b": sparse, "c": characters, "d": cells, "e": empty, "f": complex_numbers}
    path = write(tmp_path, **others, nm=np.arange(5.0)[None], one=np.ones((1, 1)), cube=CUBE.astype("f4"))
    np.testing.assert_array_equal(read(path), CUBE.transpose(2, 0, 1))


def test_array_among_several_has_to_be_named(tmp_path):
    path = write(tmp_path, cube=CUBE.astype("i2"), gt=CUBE[:, :, 1].astype("u1"))
    with pytest.raises(InputError, match=r"variable is not named, expected one of .*cube .*gt .* Fix: .*variable"):
        open_cube_file(path)
    np.testing.assert_array_equal(read(path, variable="gt"), CUBE[None, :, :, 1])
    np.testing.assert_array_equal(read(path, variable="cube"), CUBE.transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["", "Cube", "a", "#refs#/a", "#refs#", "a/inside", "c", "d", "x\ny", "x\0"])
def test_name_of_no_array_is_one_line(tmp_path, name):
    path = write(tmp_path, a=structure, c=characters, d=cells, cube=CUBE.astype("i2"))
    with pytest.raises(InputError, match=r"scene\.mat: variable is .*, expected one of cube") as caught:
        open_cube_file(path, variable=name)
    assert "\n" not in str(caught.value)


def linked(file, key):
    with h5py.File(str(file.filename) + ".other", "w") as other:
        other["cube"] = CUBE
        other["cube"].attrs["MATLAB_class"] = np.bytes_(b"double")
    file[key] = h5py.ExternalLink(str(file.filename) + ".other", "/cube")


def unwritten(file, key):
    file.create_dataset(key, (5, 4, 3), "f8", chunks=(5, 4, 3)).attrs["MATLAB_class"] = np.bytes_(b"double")


def four_axes(file, key):
    file.create_dataset(key, data=np.zeros((2, 2, 2, 2))).attrs["MATLAB_class"] = np.bytes_(b"double")


def without_class(file, key):
    file[key] = CUBE


def class_that_is_a_number(file, key):
    file[key] = CUBE
    file[key].attrs["MATLAB_class"] = 5


DAMAGE = [
    *(structure, sparse, characters, cells, empty, complex_numbers, linked, unwritten, four_axes),
    *(without_class, class_that_is_a_number),
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda made: made.__name__)
def test_file_without_an_array_is_one_line(tmp_path, damage):
    with pytest.raises(InputError, match=r"scene\.mat: .* is .*, expected .*\. Fix: .*") as caught:
        open_cube_file(write(tmp_path, cube=damage))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [520, 600, 1000, 2000, 2600])
def test_cut_file_is_one_line(tmp_path, size):
    path = write(tmp_path, cube=CUBE.astype("f8"))
    assert path.stat().st_size > size
    os.truncate(path, size)
    with pytest.raises(InputError, match=r"scene\.mat: content is"):
        open_cube_file(path)


@pytest.mark.parametrize("size", [126, 511])
def test_text_without_what_has_to_follow_is_one_line(tmp_path, size):
    path = write(tmp_path, cube=CUBE.astype("f8"))
    os.truncate(path, size)
    with pytest.raises(InputError, match=r"scene\.mat: content is"):
        open_cube_file(path)


def test_grid_is_no_choice_here(tmp_path):
    with pytest.raises(InputError, match=r"scene\.grid is map"):
        open_cube_file(write(tmp_path, cube=CUBE.astype("f8")), grid="map")


def test_flipped_bytes_open_or_are_one_line(tmp_path):
    path = write(tmp_path, cube=CUBE.astype("f8"))
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(int(os.environ.get("HSFUSION_FUZZ", "12"))):
        at = int(rng.integers(0, len(whole)))
        path.write_bytes(whole[:at] + rng.bytes(1) + whole[at + 1 :])
        try:
            read(path)
        except InputError as error:
            assert "\n" not in str(error)
