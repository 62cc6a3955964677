"""HDF5 files of plain arrays: faithful ones, and damaged or hostile ones."""

import os

import h5py
import numpy as np

CUBE = (np.arange(3 * 4 * 5).reshape(3, 4, 5) * 7 % 50 + 1).astype("i2")  # rows, columns, layers


def write(folder, name="file.h5", *, userblock=0, **arrays):
    """Writes a file of plain arrays: values, or keyword arguments of create_dataset. Returns its path."""
    with h5py.File(folder / name, "w", userblock_size=userblock) as file:
        for key, value in arrays.items():
            create(file, key.replace("__", "/"), **(value if isinstance(value, dict) else {"data": value}))
    return folder / name


def create(file, name, *arguments, labels=("row", "col", "band"), **options):
    """A dataset; one of three axes names them by labels."""
    dataset = file.create_dataset(name, *arguments, **options)
    if dataset.ndim == 3:
        for dimension, label in zip(dataset.dims, labels, strict=True):
            dimension.label = label
    return dataset


def write_netcdf(folder, shape, dimensions, *, name="cube.nc", group="", lists=()):
    """A file as the netCDF library writes it: an array `cube` of ascending numbers, and a scale for each dimension.

    Args:
        folder: where it goes.
        shape: of the array.
        dimensions: name of each dimension, or (name, values, attributes) where it has a variable of its name.
        name: of the file.
        group: that holds the array.
        lists: name -> values, or (values, attributes), of further variables.

    Returns:
        The path, and the array.
    """
    values = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    with h5py.File(folder / name, "w") as file:
        cube = file.create_dataset(f"{group}/cube", data=values)
        for axis, dimension in enumerate(dimensions):
            named, numbers, attributes = (dimension, None, {}) if isinstance(dimension, str) else dimension
            if named not in file:
                scale = file.create_dataset(named, (shape[axis],), "f4" if numbers is None else "f8", data=numbers)
                text = f"This is a netCDF dimension but not a netCDF variable.{shape[axis]:10d}"
                scale.make_scale(text if numbers is None else named)
                scale.attrs["_Netcdf4Dimid"] = np.int32(axis)
                scale.attrs.update(attributes)
            cube.dims[axis].attach_scale(file[named])
        for key, content in dict(lists).items():
            numbers, attributes = content if isinstance(content, tuple) else (content, {})
            file.create_dataset(key, data=numbers).attrs.update(attributes)
    return folder / name, values


def external_link(path):
    write(path.parent, "other.h5", cube=CUBE)
    with h5py.File(path, "w") as file:
        file["cube"] = h5py.ExternalLink("other.h5", "/cube")


def external_link_on_the_way(path):
    write(path.parent, "other.h5", cube=CUBE)
    with h5py.File(path, "w") as file:
        file["a"] = h5py.ExternalLink("other.h5", "/")
        file["cube"] = h5py.SoftLink("/a/cube")


def external_storage(path):
    (path.parent / "secret.bin").write_bytes(bytes(120))
    with h5py.File(path, "w") as file:
        create(file, "cube", (3, 4, 5), "i2", external=[(str(path.parent / "secret.bin"), 0, 120)])


def virtual_dataset(path):
    write(path.parent, "other.h5", cube=CUBE)
    layout = h5py.VirtualLayout((3, 4, 5), "i2")
    layout[:] = h5py.VirtualSource("other.h5", "cube", (3, 4, 5))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("cube", layout)


def never_written(path):
    with h5py.File(path, "w") as file:
        create(file, "cube", (3, 4, 5), "i2")


def never_written_with_fill(path):
    with h5py.File(path, "w") as file:
        cube = create(file, "cube", (3, 4, 5), "i2", fillvalue=-1, chunks=(3, 4, 5))
        cube.attrs["_FillValue"] = np.int16(-1)


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
        *(external_link, external_link_on_the_way, external_storage, virtual_dataset, never_written),
        never_written_with_fill,
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
    **{f"cut at {size}": cut(size) for size in (96, 800, 2000)},
}
