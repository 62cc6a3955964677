import os
import pickle
import shutil
import zlib

import h5py
import numpy as np
import pytest

from hsfusion.errors import InputError
from hsfusion.scenes import Window
from hsfusion.scenes.readers.formats import file_format, open_cube_file

CUBE = (np.arange(3 * 4 * 5).reshape(3, 4, 5) * 7 % 50 + 1).astype("i2")  # rows, columns, layers


def write(folder, name="file.h5", *, userblock=0, **arrays):
    """Writes a file of plain arrays: values, or keyword arguments of create_dataset. Returns its path."""
    with h5py.File(folder / name, "w", userblock_size=userblock) as file:
        for key, value in arrays.items():
            file.create_dataset(key.replace("__", "/"), **(value if isinstance(value, dict) else {"data": value}))
    return folder / name


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
    with pytest.raises(InputError, match=r"variable is not named, expected one of .*a/cube.* Fix: .*scene\.variable"):
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


def test_scale_offset_and_nodata_of_netcdf_are_applied_once(tmp_path):
    path = write(tmp_path, cube=CUBE)
    with h5py.File(path, "r+") as file:
        file["cube"].attrs.update({"_FillValue": np.int16([8]), "scale_factor": 0.5, "add_offset": -1.0})
    want = np.where(CUBE == 8, np.nan, CUBE * 0.5 - 1).transpose(2, 0, 1)
    np.testing.assert_array_equal(read(path), want)


def test_choices_of_other_formats_are_refused(tmp_path):
    np.save(tmp_path / "cube.npy", CUBE)
    for options in ({"variable": "cube"}, {"grid": "map"}):
        (name,) = options
        with pytest.raises(InputError, match=rf"scene\.{name} is .* Fix: drop scene\.{name}"):
            open_cube_file(tmp_path / "cube.npy", **options)
    with pytest.raises(InputError, match=r"scene\.grid is map, expected nothing"):
        open_cube_file(write(tmp_path, cube=CUBE), grid="map")


def test_part_that_was_never_written_is_refused_unless_it_means_no_data(tmp_path):
    storage = {"shape": (8, 8, 2), "dtype": "i2", "chunks": (4, 4, 2)}
    path = write(tmp_path, cube={**storage, "fillvalue": -9})
    with h5py.File(path, "r+") as file:
        file["cube"][:4] = 1
    with pytest.raises(InputError, match="stored part of /cube"):
        open_cube_file(path)
    with h5py.File(path, "r+") as file:
        file["cube"].attrs["_FillValue"] = np.int16(-9)
    values = read(path)
    assert np.isnan(values[:, 4:]).all() and (values[:, :4] == 1).all()


def test_large_chunk_is_looked_through_once_and_only_where_it_is_read(tmp_path, monkeypatch):
    path = write(tmp_path, cube={"data": CUBE, "chunks": (3, 2, 5), "compression": "gzip"})
    seen = []
    monkeypatch.setattr("hsfusion.scenes.readers.hdf5_pixels._MOST_UNPACKED", 0)
    monkeypatch.setattr(
        "hsfusion.scenes.readers.hdf5_pixels._unpacks_over", lambda packed, most: bool(seen.append(most))
    )
    file = open_cube_file(path)
    for _ in range(2):
        np.testing.assert_array_equal(file.read(Window(0, 2, 3, 2)), CUBE.transpose(2, 0, 1)[:, :, 2:])
    assert seen == [3 * 2 * 5 * 2]


def test_group_that_holds_itself_is_no_trap(tmp_path):
    path = write(tmp_path, a__cube=CUBE)
    with h5py.File(path, "r+") as file:
        file["a/a"] = file["a"]
        file["a/root"] = file["/"]
    with pytest.raises(InputError, match=r"number of objects|variable is not named"):
        open_cube_file(path)
    np.testing.assert_array_equal(read(path, variable="a/cube"), CUBE.transpose(2, 0, 1))


def external_link(path):
    write(path.parent, "other.h5", cube=CUBE)
    with h5py.File(path, "w") as file:
        file["cube"] = h5py.ExternalLink("other.h5", "/cube")


def external_link_on_the_way(path):
    write(path.parent, "other.h5", cube=CUBE)
    with h5py.File(path, "w") as file:
        file["a"] = h5py.ExternalLink("other.h5", "/")
        file["cube"] = h5py.SoftLink("/a/cube")


def external_link_to_a_pipe(path):
    os.mkfifo(path.parent / "pipe")
    with h5py.File(path, "w") as file:
        file["cube"] = h5py.ExternalLink("pipe", "/cube")


def soft_link_to_nothing(path):
    with h5py.File(path, "w") as file:
        file["cube"] = h5py.SoftLink("/cube")


def external_storage(path):
    (path.parent / "secret.bin").write_bytes(bytes(120))
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", (3, 4, 5), "i2", external=[(str(path.parent / "secret.bin"), 0, 120)])


def virtual_dataset(path):
    write(path.parent, "other.h5", cube=CUBE)
    layout = h5py.VirtualLayout((3, 4, 5), "i2")
    layout[:] = h5py.VirtualSource("other.h5", "cube", (3, 4, 5))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("cube", layout)


def filter_of_a_plugin(path):
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((3, 4, 5))
    settings.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, ())
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((3, 4, 5))
        made = h5py.h5d.create(file.id, b"cube", h5py.h5t.NATIVE_INT16, space, settings)
        made.write_direct_chunk((0, 0, 0), CUBE.tobytes())


def scaleoffset_filter(path):
    write(path.parent, path.name, cube={"data": CUBE, "chunks": (3, 4, 5), "scaleoffset": 0})


def bomb(path):
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"\x78\xda" + (pack.compress(bytes(2**20)) + pack.flush(zlib.Z_FULL_FLUSH)) * 700  # 700 MiB of zeros
    with h5py.File(path, "w") as file:
        cube = file.create_dataset("cube", (1000, 1000, 1), "u1", chunks=(1000, 1000, 1), compression="gzip")
        cube.id.write_direct_chunk((0, 0, 0), packed)


def chunk_larger_than_memory(path):
    with h5py.File(path, "w") as file:
        cube = file.create_dataset("cube", (30000, 30000, 4), "u1", chunks=(30000, 30000, 4), compression="gzip")
        cube.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(10**6)))


def chunk_longer_than_itself(path):
    with h5py.File(path, "w") as file:
        cube = file.create_dataset("cube", (4, 4, 1), "u1", chunks=(4, 4, 1), compression="gzip")
        cube.id.write_direct_chunk((0, 0, 0), os.urandom(4000))


def empty_chunk(path):
    with h5py.File(path, "w") as file:
        cube = file.create_dataset("cube", (4, 4, 1), "u1", chunks=(4, 4, 1), compression="gzip", fletcher32=True)
        cube.id.write_direct_chunk((0, 0, 0), bytes(77))
    size = (77).to_bytes(4, "little") + bytes(4)
    content = path.read_bytes()
    assert content.count(size) == 1
    path.write_bytes(content.replace(size, bytes(8)))


def chunk_that_is_no_deflate(path):
    with h5py.File(path, "w") as file:
        cube = file.create_dataset("cube", (4, 4, 1), "u1", chunks=(4, 4, 1), compression="gzip")
        cube.id.write_direct_chunk((0, 0, 0), b"no deflate stream")


def endless_sides(path):
    with h5py.File(path, "w") as file:
        cube = file.create_dataset("cube", (10**9, 10**9, 4), "i2", chunks=(16, 16, 4), fillvalue=-1)
        cube.attrs["_FillValue"] = np.int16(-1)
        cube[:2, :2] = 1


def never_written(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", (3, 4, 5), "i2")


def never_written_with_fill(path):
    with h5py.File(path, "w") as file:
        cube = file.create_dataset("cube", (3, 4, 5), "i2", fillvalue=-1, chunks=(3, 4, 5))
        cube.attrs["_FillValue"] = np.int16(-1)


def many_objects(path):
    with h5py.File(path, "w", libver="latest") as file:
        for i in range(5001):
            file.create_group(f"g{i}")


def large_attribute(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("cube", data=CUBE).attrs["_FillValue"] = np.zeros(300_000)


def cut(at):
    def damage(path):
        write(path.parent, path.name, cube=CUBE)
        os.truncate(path, at)

    return damage


def plain_content(**arrays):
    return lambda path: write(path.parent, path.name, **arrays)


def attribute_content(**attributes):
    def damage(path):
        write(path.parent, path.name, cube=CUBE)
        with h5py.File(path, "r+") as file:
            file["cube"].attrs.update(attributes)

    return damage


DAMAGE = {
    made.__name__: made
    for made in (
        *(external_link, external_link_on_the_way, external_link_to_a_pipe, soft_link_to_nothing, external_storage),
        *(virtual_dataset, filter_of_a_plugin, scaleoffset_filter, bomb, chunk_larger_than_memory, empty_chunk),
        *(chunk_longer_than_itself, chunk_that_is_no_deflate, endless_sides, never_written, never_written_with_fill),
        *(many_objects, large_attribute),
    )
} | {
    "nothing inside": plain_content(),
    "only a list": plain_content(wavelength=np.arange(5.0)),
    "only text": plain_content(text=np.array([[b"a", b"b"], [b"c", b"d"]])),
    "only complex numbers": plain_content(cube=CUBE.astype("c8")),
    "only records": plain_content(cube=np.zeros((3, 4), [("a", "i2"), ("b", "f4")])),
    "four axes": plain_content(cube=CUBE[None]),
    "no rows": plain_content(cube=CUBE[:0]),
    "fill value is text": attribute_content(_FillValue="none"),
    "fill value is a list": attribute_content(_FillValue=[1, 2]),
    "fill value is NaN": attribute_content(_FillValue=np.nan),
    "scale is infinite": attribute_content(scale_factor=np.inf),
    "offset is empty": attribute_content(add_offset=h5py.Empty("f4")),
    **{f"cut at {size}": cut(size) for size in (8, 48, 96, 500, 800, 1500, 2000)},
}


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
        with pytest.raises(InputError, match="is a link, expected an object of the file itself"):
            open_cube_file(tmp_path / "cube.h5", variable="cube")


def test_file_that_changes_or_vanishes_under_way_is_an_error(tmp_path):
    path = write(tmp_path, cube=CUBE)
    file = open_cube_file(path)
    write(tmp_path, cube=CUBE[:, :, :2])
    with pytest.raises(InputError, match="as before"):
        file.read(Window(0, 0, 3, 4))
    path.unlink()
    with pytest.raises(InputError, match="content is unreadable"):
        file.read(Window(0, 0, 3, 4))


@pytest.mark.parametrize("old", [True, False], ids=["earliest", "latest"])
def test_flipped_bytes_open_or_are_one_line(tmp_path, old):
    whole = tmp_path / "whole.h5"
    with h5py.File(whole, "w", libver="earliest" if old else "latest") as file:
        storage = {"chunks": (2, 2, 5), "compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("a/cube", data=CUBE, **storage).attrs["_FillValue"] = np.int16(8)
    rng = np.random.default_rng(0)
    path = tmp_path / "cube.h5"
    for _ in range(int(os.environ.get("HSFUSION_FUZZ", "12"))):
        shutil.copy(whole, path)
        with open(path, "r+b") as file:
            file.seek(int(rng.integers(8, whole.stat().st_size)))
            file.write(rng.bytes(1))
        try:
            read(path)
        except InputError as error:
            assert "\n" not in str(error)


def test_file_that_crashes_the_library_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "child.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr("hsfusion.scenes.readers.hdf5_child.__file__", str(tmp_path / "child.py"))
    with pytest.raises(InputError, match="content is one that ends the reader"):
        open_cube_file(write(tmp_path, cube=CUBE))
