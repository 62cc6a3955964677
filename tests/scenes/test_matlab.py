import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scene_files.matlab import CUBE, DAMAGED, FULL, LABELS, NUMBERS, PLAIN, START, matrix, packed, write
from scene_files.one_line import error_of
from scipy.io import savemat

from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.scenes import open_labelled_scene
from hsfusion.scenes.formats import matlab
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.scene import Window


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
    assert "variable is not named, expected one of cube (4 x 5 x 3), labels (4 x 5)" in error_of(path)
    assert "scene.variable" in error_of(path)
    assert "variable is Cube, expected one of" in error_of(path, variable="Cube")
    np.testing.assert_array_equal(open_cube_file(path, variable="labels").read(FULL), LABELS[None])


def test_only_raster_needs_no_name(tmp_path):
    path = write(
        tmp_path, cube=CUBE, wl=np.arange(3.0), scale=1e4, note="x", params={"a": 1}, four=np.ones((2, 2, 2, 2))
    )
    assert open_cube_file(path).layers == 3


def test_struct_is_named_in_the_error(tmp_path):
    path = write(tmp_path, hsi={"Data": CUBE}, cells=np.array([CUBE, 1], object))
    for options in ({}, {"variable": "hsi"}):
        assert "variable is hsi (struct), cells (cell), expected an array" in error_of(path, **options)


@pytest.mark.parametrize(
    ("name", "said"),
    [("complex", "dtype is complex128"), ("sparse", "variable is only (sparse)"), ("text", "variable is only (char)")],
)
def test_numbers_that_are_not_real_are_an_error(tmp_path, name, said):
    from scipy.sparse import csc_array

    values = {"complex": CUBE * 1j, "sparse": csc_array(LABELS.astype(float)), "text": np.array(["ab", "cd"])}
    assert said in error_of(write(tmp_path, only=values[name]))


def test_version_4_is_no_known_format(tmp_path):
    savemat(tmp_path / "a.mat", {"labels": LABELS.astype(float)}, format="4")
    assert "content is" in error_of(tmp_path / "a.mat")


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Error of each damaged file; read two at a time."""
    folder = tmp_path_factory.mktemp("damaged")

    def read(item):
        path = folder / f"{item[0]}.mat"
        path.write_bytes(item[1])
        try:
            open_cube_file(path).read(FULL)
        except Exception as error:  # the test looks at its type
            return error
        return None

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(DAMAGED, pool.map(read, DAMAGED.items()), strict=True))


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_file_is_one_clear_line(errors, name, capfd):
    error = errors[name]
    assert type(error) is InputError
    text = str(error)
    assert "\n" not in text
    assert name in text
    assert "Fix:" in text
    assert capfd.readouterr() == ("", "")


def test_flipped_bytes_are_found_or_leave_a_cube(tmp_path):
    def read(at):
        path = tmp_path / f"{at}.mat"
        path.write_bytes(PLAIN[:at] + bytes([PLAIN[at] ^ 0x41]) + PLAIN[at + 1 :])
        try:
            assert open_cube_file(path).read(FULL).ndim == 3
        except InputError as error:
            assert "\n" not in str(error)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(read, range(124, 208, 12)))


def test_array_that_fills_the_memory_is_refused_before_it_is_unpacked(tmp_path):
    head = matrix(b"", shape=(1000, 1000, 100), matlab_class=6, kind=9)[8:-8] + struct.pack("<II", 9, 800_000_000)
    packer = zlib.compressobj(1)
    parts = [packer.compress(struct.pack("<II", 14, len(head) + 800_000_000) + head)]
    parts += [packer.compress(bytes(10**6)) for _ in range(800)] + [packer.flush()]
    data = b"".join(parts)
    path = tmp_path / "bomb.mat"
    path.write_bytes(START + struct.pack("<II", 15, len(data)) + data)
    assert "size of cube is 800000000 bytes, expected at most" in error_of(path)


@pytest.mark.slow
def test_bomb_behind_a_small_shape_dies_in_the_child(tmp_path):
    pytest.importorskip("resource")
    head = matrix(b"", shape=(4, 5, 3), kind=3)[8:-8] + struct.pack("<II", 3, 2_000_000_000)
    packer = zlib.compressobj(1)
    parts = [packer.compress(struct.pack("<II", 14, 2**32 - 8) + head)]
    parts += [packer.compress(bytes(10**6)) for _ in range(2000)] + [packer.flush()]
    data = b"".join(parts)
    path = tmp_path / "bomb.mat"
    path.write_bytes(START + struct.pack("<II", 15, len(data)) + data)
    code = (
        "import resource, sys; from hsfusion.errors import InputError\n"
        "from hsfusion.scenes.formats.registry import open_cube_file\n"
        "try: open_cube_file(sys.argv[1])\n"
        "except InputError: print(max(resource.getrusage(who).ru_maxrss for who in (-1, 0)))"  # children, itself; kB
    )
    words = [sys.executable, "-c", code, str(path)]
    assert 0 < int(subprocess.run(words, capture_output=True, text=True, check=True).stdout) * 1024 < 8e8


def crash(path):
    os.kill(os.getpid(), signal.SIGSEGV)


def fill_memory(path):
    bytearray(10**10)


def noise(path):
    print("noise", file=sys.stderr)
    raise ValueError("a line\nand another")


def be_busy(path):
    while True:
        pass


def wait(path):
    time.sleep(60)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (crash, "exit code -11"),
        (fill_memory, "MemoryError"),
        (noise, r"ValueError: a line\nand another"),
        (be_busy, "exit code -"),
        (wait, "took more than 3 s"),
    ],
)
def test_whatever_happens_to_an_isolated_function_is_one_line(tmp_path, monkeypatch, capfd, function, says):
    pytest.importorskip("resource")
    monkeypatch.setattr(matlab, "_PATIENCE", 3 if function is wait else 600)  # a busy machine starts it late
    # this module is importable in the other process, as tests/scenes is on the path
    with pytest.raises(InputError) as caught:
        matlab.isolated(function, tmp_path / "a.mat", memory=2**30, seconds=1 if function is wait else 6)
    text = str(caught.value)
    assert says in text and "a.mat" in text and "\n" not in text
    assert capfd.readouterr() == ("", "")


def test_process_that_does_not_start_is_no_fault_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", str(tmp_path / "nothing"))
    with pytest.raises(EnvironmentFailure, match="the process that reads it does not start"):
        open_cube_file(write(tmp_path, a=np.ones((2, 2))))


def test_script_without_a_main_guard_is_not_run_twice(tmp_path):
    write(tmp_path, cube=CUBE)
    (tmp_path / "script.py").write_text(
        "from hsfusion.scenes.formats.registry import open_cube_file\n"
        "print('once'); print(open_cube_file('scene.mat').layers)\n"
    )
    said = subprocess.check_output([sys.executable, "script.py"], cwd=tmp_path, text=True)
    assert said == "once\n3\n"


def test_modules_beside_the_command_are_not_run(tmp_path, monkeypatch):
    path = write(tmp_path, cube=CUBE)
    for name in ("numpy", "scipy", "json"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    assert open_cube_file(path).layers == 3
    assert not (tmp_path / "ran").exists()
