import struct

import numpy as np
import pytest
from scene_files.matlab import CUBE, DAMAGED, FULL, LABELS, NUMBERS, START, matrix, packed, write
from scene_files.one_line import error_of

from hsfusion.scenes import open_labelled_scene
from hsfusion.scenes.formats import arrays
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.geobox import Window


@pytest.mark.parametrize(
    ("dtype", "compressed"),
    [*((dtype, True) for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")), ("i2", False)],
)
def test_every_type_reads_back_whole_and_by_windows(tmp_path, dtype, compressed):
    file = open_cube_file(write(tmp_path, cube=CUBE.astype(dtype), compressed=compressed))
    assert (file.layers, file.geobox.shape) == (3, (4, 5))
    np.testing.assert_array_equal(file.read(FULL), CUBE.transpose(2, 0, 1))
    np.testing.assert_array_equal(file.read(Window(1, 2, 3, 2)), CUBE[1:4, 2:4].transpose(2, 0, 1))
    assert file.format == f"MATLAB 5 {np.dtype(dtype).name}"
    assert file.facts == {"variable": "cube"}


@pytest.mark.parametrize("order", ["<", ">"])
def test_bytes_of_the_specification_are_read_in_both_orders(tmp_path, order):
    start = START if order == "<" else START[:124] + struct.pack(">HH", 0x0100, 0x4D49)
    numbers = CUBE.astype(f"{order}i2").tobytes(order="F")
    (tmp_path / "a.mat").write_bytes(start + matrix(numbers, order=order))
    np.testing.assert_array_equal(open_cube_file(tmp_path / "a.mat").read(FULL), CUBE.transpose(2, 0, 1))


def test_doubles_that_are_stored_as_integers_keep_their_values(tmp_path):
    (tmp_path / "a.mat").write_bytes(START + packed(matrix(NUMBERS, matlab_class=6)))
    file = open_cube_file(tmp_path / "a.mat")
    assert file.pixels.dtype == "i2"
    np.testing.assert_array_equal(file.read(FULL), CUBE.transpose(2, 0, 1))


def test_cube_and_labels_of_one_file_make_a_scene(tmp_path):
    path = write(tmp_path, cube=CUBE, labels=LABELS.astype(float), wl=np.array([410.0, 500, 600]), note="x")
    options = {"variable": "cube", "labels_variable": "labels", "wavelengths": [410.0, 500, 600]}
    labelled = open_labelled_scene(path, labels=path, wavelength_unit="nm", **options)
    np.testing.assert_array_equal(labelled.labels, LABELS)
    np.testing.assert_array_equal(labelled.scene.read(FULL), CUBE.transpose(2, 0, 1))


def test_array_has_to_be_named_where_several_can_be_meant(tmp_path):
    path = write(tmp_path, cube=CUBE, labels=LABELS, wl=np.arange(3.0))
    assert "variable is not given, expected one of cube (4 x 5 x 3), labels (4 x 5)" in error_of(path)
    assert "scene.variable" in error_of(path)
    assert "variable is Cube, expected one of" in error_of(path, variable="Cube")
    np.testing.assert_array_equal(open_cube_file(path, variable="labels").read(FULL), LABELS[None])


def test_only_raster_needs_no_name(tmp_path):
    path = write(
        tmp_path, cube=CUBE, wl=np.arange(3.0), scale=1e4, note="x", params={"a": 1}, four=np.ones((2, 2, 2, 2))
    )
    assert open_cube_file(path).layers == 3


@pytest.mark.parametrize(
    ("name", "said"), [("complex", "of type complex128"), ("sparse", "variable is none"), ("text", "variable is none")]
)
def test_numbers_that_are_not_real_are_an_error(tmp_path, name, said):
    from scipy.sparse import csc_array

    values = {"complex": CUBE * 1j, "sparse": csc_array(LABELS.astype(float)), "text": np.array(["ab", "cd"])}
    assert said in error_of(write(tmp_path, only=values[name]))


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_file_is_one_line(tmp_path, name):
    (tmp_path / "cube.mat").write_bytes(DAMAGED[name])
    assert "cube.mat" in error_of(tmp_path / "cube.mat")


def test_reader_that_crashes_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "_TRIAL", "import os; os.abort()")
    assert "content is unreadable (the reader ended with code -6)" in error_of(write(tmp_path, cube=CUBE))
