"""Damaged and lying inputs of every kind, each with the words of the command that meets it."""

import json
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import connect

import h5py
import numpy as np
import rasterio
from rasterio.shutil import copy
from scene_files import arrays, emit, envi, geotiff, hdf5, labels, matlab, matlab73, neon, prisma, products, vectors


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        kind: what is wrong, in a few words.
        name: what is wrong exactly.
        make: writes the files into an empty folder and returns the words after ``hsfusion``.
        says: what the message has to hold: the name of the file, as a rule.
    """

    kind: str
    name: str
    make: Callable[[Path], list[str]]
    says: str


def inspected(kind, name, write, *keys, says=None):
    """A case of ``hsfusion inspect``; ``write`` makes the files and returns the path of the cube."""

    def make(folder):
        return ["inspect", write(folder).name, *keys]

    return Case(kind, name, make, says or "")


def holding(name, content):
    """A writer of a file of these bytes."""

    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def changed(write, change):
    """A writer of a faithful file that is then changed by a function of its bytes."""

    def write_changed(folder):
        path = write(folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return write_changed


def flipped(write, at, bit=0):
    """A writer of a faithful file of which one bit is then flipped.

    Args:
        write: the writer.
        at: position of the byte, from the end if negative, or (bytes to look for, position behind their start).
        bit: which of the eight.
    """

    def flip(content):
        start = at if isinstance(at, int) else content.index(at[0]) + at[1]
        start %= len(content)
        return content[:start] + bytes([content[start] ^ 1 << bit]) + content[start + 1 :]

    return changed(write, flip)


def cog(folder):
    geotiff.write(folder / "plain.tif", np.tile(geotiff.CUBE, (1, 20, 20)))
    copy(folder / "plain.tif", folder / "cog.tif", driver="COG", BLOCKSIZE=128)
    (folder / "plain.tif").unlink()
    return folder / "cog.tif"


def enmap_image(folder):
    return products.write(folder, products.GOOD, compress="DEFLATE")[1]


def enmap_envi(folder):
    return products.write(folder, products.GOOD, image="SPECTRAL_IMAGE.BSQ", driver="ENVI", nodata=-32768)[1]


def enmap(folder):
    return products.write(folder, products.GOOD)[0]


def desis(folder):
    names = {"stem": products.DESIS.format("L2A"), "image": "SPECTRAL_IMAGE.tif", "meta": "METADATA.xml"}
    return products.write(folder, products.desis_xml("L2A"), **names)[0]


def tiff(**options):
    return lambda folder: geotiff.write(folder / "cube.tif", **options)


def npz(save, **more):
    def write(folder):
        save(folder / "cube.npz", cube=arrays.CUBE, **more)
        return folder / "cube.npz"

    return write


def newest_hdf5(folder):
    """A file whose superblock and headers have checksums."""
    with h5py.File(folder / "cube.h5", "w", libver="latest") as file:
        file.create_dataset("cube", data=hdf5.CUBE, chunks=(3, 4, 5), compression="gzip", fletcher32=True)
    return folder / "cube.h5"


TILES = {"tiled": True, "blockxsize": 16, "blockysize": 16}
FAITHFUL = {
    **{f"ENVI {name.upper()}": lambda folder, name=name: envi.write(folder, interleave=name) for name in envi.AXES},
    "GeoTIFF in strips": tiff(interleave="band"),
    "GeoTIFF in tiles": tiff(interleave="pixel", **TILES),
    "GeoTIFF, packed": tiff(compress="DEFLATE"),
    "BigTIFF": tiff(BIGTIFF="YES"),
    "COG": cog,
    "EnMAP image": enmap_image,
    "EnMAP as ENVI": enmap_envi,
    "EnMAP XML": enmap,
    "DESIS XML": desis,
    "PRISMA": prisma.write,
    "EMIT": emit.write,
    "NEON": neon.write,
    "HDF5": lambda folder: hdf5.write(folder, cube=hdf5.CUBE),
    "HDF5, newest": newest_hdf5,
    "MATLAB 5": lambda folder: matlab.write(folder, cube=matlab.CUBE),
    "MATLAB 5, plain": holding("cube.mat", matlab.PLAIN),
    "MATLAB 7.3": lambda folder: matlab73.write(folder, cube=matlab73.CUBE.astype("f8")),
    "npy": holding("cube.npy", arrays.npy()),
    "npz": npz(np.savez),
    "npz, packed": npz(np.savez_compressed),
}
SHARES = (0.01, 0.25, 0.5, 0.75, 0.97)


def truncated() -> Iterator[Case]:
    for name, write in FAITHFUL.items():
        for share in SHARES:
            cut = changed(write, lambda content, share=share: content[: int(len(content) * share)])
            yield inspected("truncated", f"{name} at {share:.0%}", cut)
        yield inspected("truncated", f"{name}, last byte", changed(write, lambda content: content[:-1]))
    for field in ("samples", "lines", "bands", "data type", "interleave", "byte order", "12.5, 640"):

        def write(folder, field=field):
            path = envi.write(folder)
            header = folder / "cube.hdr"
            header.write_text(header.read_text().partition(field)[0])
            return path

        yield inspected("truncated", f"ENVI header before {field}", write)


def against_binary() -> Iterator[Case]:
    kind = "header against binary"
    fields = {"samples": (4, 6, 50), "lines": (3, 5, 400), "bands": (2, 4, 30), "header_offset": (1, 120, 10**6)}
    fields |= {"data_type": (1, 3, 4, 5, 14)}
    for interleave in envi.AXES:
        for field, values in fields.items():
            for value in values:
                more = {"wavelength": None} if field == "bands" else {}
                yield inspected(
                    *(kind, f"ENVI {interleave.upper()}, {field} {value}"),
                    lambda folder, more={field: value, "interleave": interleave, **more}: _relabelled(folder, **more),
                    says="size is",
                )
    for size in (0, 1, 60, 121, 240, 10**6):
        yield inspected(kind, f"ENVI binary of {size} bytes", lambda folder, size=size: _resized(folder, size))
    for name, header in {"larger": "(4, 5, 30)", "smaller": "(2, 5, 3)", "other rows": "(5, 5, 3)"}.items():
        content = arrays.npy_with(arrays.header(shape=header))
        yield inspected(kind, f"npy, {name}", holding("cube.npy", content), says="size is")


def _relabelled(folder, **fields):
    path = envi.write(folder)
    content = path.read_bytes()
    envi.write(folder, **fields)
    path.write_bytes(content)
    return path


def _resized(folder, size):
    path = envi.write(folder)
    os.truncate(path, size)
    return path


def huge() -> Iterator[Case]:
    for fields in (
        *({name: 10**9} for name in ("lines", "samples", "bands")),
        {"lines": 10**9, "samples": 10**9},
        {"lines": 10**9, "samples": 10**9, "bands": 10**9},
        {"lines": 10**30},
        {"header_offset": 2**63},
        {"bands": 2**31, "data_type": 5},
    ):
        yield inspected("huge", f"ENVI, {fields}", lambda folder, fields=fields: _relabelled(folder, **fields))
    texts = {"100,000 lines": b"ENVI" + b"\n" * 100_000, "2 MB": b"ENVI\n" + b"x" * 2**21}
    texts["1 GB of nothing"] = b"ENVI\n"
    for name, text in texts.items():

        def write(folder, text=text):
            path = envi.write(folder)
            (folder / "cube.hdr").write_bytes(text)
            if len(text) < 10:
                os.truncate(folder / "cube.hdr", 2**30)
            return path

        yield inspected("huge", f"ENVI header of {name}", write)
    yield inspected("huge", "npz that unpacks to 800 MB", _npz_bomb, says="size when unpacked")
    yield inspected("huge", "MATLAB that unpacks to 800 MB", _matlab_bomb, says="size of cube")
    yield inspected("huge", "GPX of 200 MB as labels", _large_json, "labels=gt.json", "class_field=code", says="gt.json")


def _npz_bomb(folder):
    start = arrays.npy_with(arrays.header("'<f8'", shape="(1000, 1000, 100)"), data=b"")
    with (
        arrays.zipfile.ZipFile(folder / "bomb.npz", "w", arrays.zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w") as out,
    ):
        out.write(start)
        for _ in range(800):
            out.write(bytes(10**6))
    return folder / "bomb.npz"


def _matlab_bomb(folder):
    head = matlab.matrix(b"", shape=(1000, 1000, 100), matlab_class=6, kind=9)[8:-8]
    head += struct.pack("<II", 9, 800_000_000)
    packer = zlib.compressobj(1)
    parts = [packer.compress(struct.pack("<II", 14, len(head) + 800_000_000) + head)]
    parts += [packer.compress(bytes(10**6)) for _ in range(800)] + [packer.flush()]
    data = b"".join(parts)
    (folder / "bomb.mat").write_bytes(matlab.START + struct.pack("<II", 15, len(data)) + data)
    return folder / "bomb.mat"


def _large_json(folder):
    (folder / "gt.json").write_text('{"type": "FeatureCollection", "features": []')
    os.truncate(folder / "gt.json", 200 * 2**20)
    return placed_cube(folder)


def placed_cube(folder):
    """A cube of 3 x 4 pixels on the grid of the labels in `vectors`."""
    place = rasterio.Affine(vectors.STEP, 0, vectors.LEFT, 0, -vectors.STEP, vectors.TOP)
    cube = np.arange(24, dtype="i2").reshape(2, 3, 4)
    tags = [{"wavelength": nm, "wavelength_units": "nm"} for nm in ("500", "600")]
    return geotiff.write(folder / "cube.tif", cube, tags=tags, transform=place)


KINDS: tuple[Callable[[], Iterator[Case]], ...] = (truncated, against_binary, huge)


def cases() -> list[Case]:
    """All of them."""
    return [case for kind in KINDS for case in kind()]
