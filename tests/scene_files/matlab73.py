"""MATLAB 7.3 files: faithful ones, and damaged ones."""

import h5py
import numpy as np

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
