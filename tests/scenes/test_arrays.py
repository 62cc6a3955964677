import itertools
import pickle
import zipfile

import numpy as np
import pytest
from scene_files import hdf5, matlab, matlab73
from scene_files.arrays import CUBE, DAMAGED, DAMAGED_NPZ, FULL, header, npy, npy_with, zipped
from scene_files.one_line import error_of

from hsfusion.errors import InputError
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.geobox import Window


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "dtype", ["|u1", "|i1", *(f"{o}{k}" for o in "<>" for k in ("i2", "u4", "i8", "f2", "f4", "f8"))]
)
def test_every_type_and_order_reads_back_whole_and_by_windows(tmp_path, dtype, order):
    path = tmp_path / "cube.npy"
    np.save(path, np.asarray(CUBE.astype(dtype), order=order))
    file = open_cube_file(path)
    assert (file.layers, file.geobox.shape, file.pixels.dtype) == (3, (4, 5), np.dtype(dtype))
    np.testing.assert_array_equal(file.read(FULL), CUBE.transpose(2, 0, 1))
    np.testing.assert_array_equal(file.read(Window(1, 2, 3, 2)), CUBE[1:4, 2:4].transpose(2, 0, 1))


def test_booleans_and_one_layer_are_rasters(tmp_path):
    np.save(tmp_path / "mask.npy", CUBE[..., 0] > 20)
    file = open_cube_file(tmp_path / "mask.npy")
    np.testing.assert_array_equal(file.read(FULL), (CUBE[..., 0] > 20)[None])
    assert file.format == "NumPy bool"


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_all_versions_of_the_header_are_read(tmp_path, version):
    (tmp_path / "cube.npy").write_bytes(npy(version=version))
    np.testing.assert_array_equal(open_cube_file(tmp_path / "cube.npy").read(FULL), CUBE.transpose(2, 0, 1))


def test_header_of_python_2_is_read(tmp_path):
    (tmp_path / "cube.npy").write_bytes(npy_with(header(shape="(4L, 5L, 3L)")))
    np.testing.assert_array_equal(open_cube_file(tmp_path / "cube.npy").read(FULL), CUBE.transpose(2, 0, 1))


def test_pixels_travel_to_other_processes_without_their_numbers(tmp_path):
    np.save(tmp_path / "cube.npy", np.zeros((100, 100, 30)))
    sent = pickle.dumps(open_cube_file(tmp_path / "cube.npy"))
    assert len(sent) < 10_000
    assert pickle.loads(sent).read(Window(0, 0, 2, 2)).shape == (30, 2, 2)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_npy_is_one_clear_line(tmp_path, content):
    (tmp_path / "cube.npy").write_bytes(content)
    assert "cube.npy: " in error_of(tmp_path / "cube.npy")


def test_shape_that_does_not_fit_the_file_names_both(tmp_path):
    (tmp_path / "cube.npy").write_bytes(DAMAGED["shape too small"])
    length = len(DAMAGED["shape too small"]) - CUBE.nbytes
    text = error_of(tmp_path / "cube.npy")
    assert f"size is {length + 120} bytes, expected {length + 80}: 4 x 5 x 2 of type <i2" in text


def test_file_that_shrinks_after_opening_is_an_error_and_no_crash(tmp_path):
    path = tmp_path / "cube.npy"
    np.save(path, CUBE)
    file = open_cube_file(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match="size is"):
        file.read(FULL)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_reads_back_whole_and_by_windows(tmp_path, save, order):
    path = tmp_path / "scene.npz"
    save(path, cube=np.asarray(CUBE, order=order), labels=CUBE[..., 0], nm=np.arange(3.0), names=np.array(["a"]))
    file = open_cube_file(path, variable="cube")
    assert file.facts == {"variable": "cube"}
    np.testing.assert_array_equal(file.read(FULL), CUBE.transpose(2, 0, 1))
    np.testing.assert_array_equal(file.read(Window(1, 2, 3, 2)), CUBE[1:4, 2:4].transpose(2, 0, 1))
    np.testing.assert_array_equal(open_cube_file(path, variable="labels").read(FULL), CUBE[None, ..., 0])
    text = error_of(path)
    assert "variable is not given, expected one of cube (4 x 5 x 3), labels (4 x 5)" in text
    assert "variable is nm, expected one of cube" in error_of(path, variable="nm")


def test_only_raster_of_an_npz_needs_no_name(tmp_path):
    np.savez(tmp_path / "scene.npz", cube=CUBE, nm=np.arange(3.0), one=np.ones((1, 9)), of_any=np.array([None]))
    assert open_cube_file(tmp_path / "scene.npz").layers == 3


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_packing_that_zipfile_knows_is_read(tmp_path, packing):
    (tmp_path / "scene.npz").write_bytes(zipped(("a.npy", npy()), compression=packing))
    np.testing.assert_array_equal(open_cube_file(tmp_path / "scene.npz").read(FULL), CUBE.transpose(2, 0, 1))


@pytest.mark.parametrize("content", DAMAGED_NPZ.values(), ids=DAMAGED_NPZ)
def test_damaged_npz_is_one_clear_line(tmp_path, content):
    (tmp_path / "scene.npz").write_bytes(content)
    path = tmp_path / "scene.npz"
    if content[:4] not in (b"PK\3\4", b"PK\5\6"):
        assert "content is" in error_of(path)
    else:
        error_of(path)


def test_names_in_a_file_cannot_break_the_line(tmp_path):
    (tmp_path / "scene.npz").write_bytes(zipped(("a\nb\x1b[31m.npy", npy()), ("c" * 500 + ".npy", npy())))
    text = error_of(tmp_path / "scene.npz")
    assert r"one of a\nb\x1b[31m (" in text
    assert "c" * 61 not in text


def saved(save, name):
    def write(folder, array):
        save(folder / name, **{"arr" if name.endswith("npy") else "cube": array})
        return folder / name

    return write


WRITERS = {
    "npy": saved(np.save, "cube.npy"),
    "npz, stored": saved(np.savez, "cube.npz"),
    "npz, packed": saved(np.savez_compressed, "cube.npz"),
    "MATLAB 5": lambda folder, array: matlab.write(folder, cube=array),
    "MATLAB 7.3": lambda folder, array: matlab73.write(folder, cube=array),
    "HDF5": lambda folder, array: hdf5.write(folder, cube={"data": array, "labels": ("", "", "")}),
}


@pytest.mark.parametrize("order", list(itertools.permutations(("band", "row", "col"))), ids=" ".join)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_axes_are_those_that_the_user_names(tmp_path, write, order):
    values = np.arange(60.0).reshape(3, 4, 5)  # bands, rows, columns
    path = write(tmp_path, values.transpose([("band", "row", "col").index(axis) for axis in order]))
    file = open_cube_file(path, axes=list(order))
    assert (file.layers, file.geobox.shape) == (3, (4, 5))
    np.testing.assert_array_equal(file.read(FULL), values)
    np.testing.assert_array_equal(file.read(Window(1, 2, 2, 3)), values[:, 1:3, 2:5])


@pytest.mark.parametrize("axes", [[], ["band", "row"], ["band", "row", "row"], ["b", "y", "x"], "band", [1, 2, 3]])
def test_axes_that_are_not_the_three_words_are_one_line(tmp_path, axes):
    np.save(tmp_path / "cube.npy", CUBE)
    message = error_of(tmp_path / "cube.npy", axes=axes)
    assert "scene.axes is " in message and "expected the words band, row and col in the order of" in message


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_layer_of_two_axes_has_no_order_to_name(tmp_path, write):
    path = write(tmp_path, np.ones((4, 5)))
    assert "the array is 4 x 5" in error_of(path, axes=["band", "row", "col"])
