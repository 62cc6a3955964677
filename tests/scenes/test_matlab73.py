import os
import pickle

import numpy as np
import pytest
from scene_files.matlab73 import (
    CLASSES,
    CUBE,
    DAMAGE,
    cells,
    characters,
    complex_numbers,
    empty,
    logical,
    sparse,
    structure,
    write,
)

from hsfusion.errors import InputError
from hsfusion.scenes import Window
from hsfusion.scenes.formats.registry import file_format, open_cube_file


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
    with pytest.raises(InputError, match=r"variable is not given, expected one of .*cube .*gt .* Fix: .*variable"):
        open_cube_file(path)
    np.testing.assert_array_equal(read(path, variable="gt"), CUBE[None, :, :, 1])
    np.testing.assert_array_equal(read(path, variable="cube"), CUBE.transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["", "Cube", "a", "#refs#/a", "#refs#", "a/inside", "c", "d", "x\ny", "x\0"])
def test_name_of_no_array_is_one_line(tmp_path, name):
    path = write(tmp_path, a=structure, c=characters, d=cells, cube=CUBE.astype("i2"))
    with pytest.raises(InputError, match=r"scene\.mat: variable is .*, expected one of cube") as caught:
        open_cube_file(path, variable=name)
    assert "\n" not in str(caught.value)


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
