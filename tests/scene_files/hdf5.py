"""HDF5 files of plain arrays: faithful ones, and damaged or hostile ones."""

import os
import zlib

import h5py
import numpy as np

CUBE = (np.arange(3 * 4 * 5).reshape(3, 4, 5) * 7 % 50 + 1).astype("i2")  # rows, columns, layers


def write(folder, name="file.h5", *, userblock=0, **arrays):
    """Writes a file of plain arrays: values, or keyword arguments of create_dataset. Returns its path."""
    with h5py.File(folder / name, "w", userblock_size=userblock) as file:
        for key, value in arrays.items():
            file.create_dataset(key.replace("__", "/"), **(value if isinstance(value, dict) else {"data": value}))
    return folder / name


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
