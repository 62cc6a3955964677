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
    yield inspected(
        "huge", "GPX of 200 MB as labels", _large_json, "labels=gt.json", "class_field=code", says="gt.json"
    )


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


def header_fields() -> Iterator[Case]:
    for field, values in envi.LIES.items():
        for value in values:
            if field.startswith("wavelength") and (value is None or value in ("Unknown", "Angstroms", "GHz")):
                continue  # of these inspect warns, see units_and_wavelengths
            lie = lambda folder, field=field, value=value: envi.lie(folder, field, value)  # noqa: E731
            yield inspected("header fields", f"{field} = {value}", lie)


def units_and_wavelengths() -> Iterator[Case]:
    kind = "units and wavelengths"
    eight = np.arange(8 * 20).reshape(8, 4, 5) % 50
    three = {"wavelength": "{410, 512.5, 640.25}"}
    yield inspected(kind, "ENVI, 3 for 8", lambda folder: envi.write(folder, eight, **three), says="is 3, expected 8")
    yield inspected(kind, "npy, 3 for 8", _numpy(eight), "wavelengths=[410,512,640]", says="is 3, expected 8")
    for unit, contradiction in (("Nanometers", "um"), ("Micrometers", "nm"), ("µm", "nm"), ("nm", "um")):
        fields = {
            "wavelength_units": unit,
            "wavelength": "{0.41, 0.51, 0.64}" if unit[0] in "Mµ" else "{410, 512, 640}",
        }
        for name, write in {
            "ENVI": lambda folder, fields=fields: envi.write(folder, **fields),
            "GeoTIFF": tiff(tags=None, whole=fields),
        }.items():
            yield inspected(
                kind, f"{name}, {unit} said to be {contradiction}", write, f"wavelength_unit={contradiction}"
            )
    for unit in ("Unknown", "Angstroms", "GHz", "Wavenumber", None):
        for given in ("Angstrom", "m", "NM", "nanometers", "[nm]", "1"):
            yield inspected(
                *(kind, f"ENVI, {unit} said to be {given}"),
                lambda folder, unit=unit: envi.write(folder, wavelength_units=unit),
                f"wavelength_unit={given}",
                says="wavelength_unit",
            )
    for name, centres in {
        "micrometres as nm": "[0.41,0.51,0.64]",
        "nm as micrometres": "[410,512,640]",
        "NaN": "[410,nan,640]",
        "infinite": "[410,inf,640]",
        "negative": "[410,-512,640]",
        "zero": "[0,512,640]",
        "words": "[410,red,640]",
        "decimal commas": "[410,5,512,5,640,5]",
        "decimal commas in words": "['410,5','512,5','640,5']",
        "nothing": "[]",
        "null": "[410,null,640]",
        "lists": "[[410],[512],[640]]",
        "a number": "410",
        "yes": "true",
        "a mapping": "{1:410,2:512,3:640}",
    }.items():
        unit = "um" if name == "nm as micrometres" else "nm"
        words = (f"wavelengths={centres}", f"wavelength_unit={unit}")
        yield inspected(kind, f"list of centres, {name}", _numpy(envi.CUBE), *words, says="wavelength")
    for name, said in geotiff.CONTRADICTIONS.items():
        yield inspected(kind, f"GeoTIFF contradicts itself, {name}", tiff(**said))
    for word in ("512,5", "nan", "inf", "1e999", "x", "512.5 nm", "0x200", "--5", "-512", "0", "0.5", "1e9"):
        tags = [tag | {"wavelength": word} for tag in geotiff.TAGS]
        yield inspected(kind, f"GeoTIFF tag {word}", tiff(tags=tags))
    for word in ("512,5", "nan", "x", "-5", "0"):
        tags = [tag | {"fwhm": word} for tag in geotiff.TAGS]
        yield inspected(kind, f"GeoTIFF width {word}", tiff(tags=tags))
    names = ["410,5 nm", "412,5 nm", "414,5 nm"]
    yield inspected(kind, "GeoTIFF, decimal commas in names", tiff(tags=None, names=names), says="decimal comma")


def _numpy(cube):
    """A .npy file of a cube (C, H, W)."""
    return holding("cube.npy", arrays.npy(cube.transpose(1, 2, 0)))


def numpy_files() -> Iterator[Case]:
    for name, content in arrays.DAMAGED.items():
        yield inspected("NumPy", f"npy, {name}", holding("cube.npy", content))
    for name, content in arrays.DAMAGED_NPZ.items():
        yield inspected("NumPy", f"npz, {name}", holding("cube.npz", content))


def matlab_files() -> Iterator[Case]:
    for name, content in matlab.DAMAGED.items():
        yield inspected("MATLAB", f"v5, {name}", holding("cube.mat", content))
    for make in matlab73.DAMAGE:
        write = lambda folder, make=make: matlab73.write(folder, cube=make)  # noqa: E731
        yield inspected("MATLAB", f"v7.3, {make.__name__}", write)


def tiff_files() -> Iterator[Case]:
    for name, content in geotiff.LIARS.items():
        if name != "truth":
            yield inspected("TIFF directories", name, holding("cube.tif", content))
    for name, put in geotiff.BESIDE.items():

        def write(folder, put=put):
            path = geotiff.write(folder / "c.tif")
            put(folder)
            return path

        yield inspected("files beside", f"GeoTIFF, {name}", write)


def product_files() -> Iterator[Case]:
    for name, xml in products.XMLS.items():
        write = lambda folder, xml=xml: products.write(folder, xml)[0]  # noqa: E731
        yield inspected("EnMAP and DESIS", name, write)
    two = lambda folder: products.write(folder, products.GOOD, cube=products.CUBE[:3])[0]  # noqa: E731
    yield inspected("EnMAP and DESIS", "3 bands in the image", two)
    for name, values in prisma.LIES.items():
        for value in values:
            write = lambda folder, lie={name: value}: prisma.write(folder, attributes=lie)  # noqa: E731
            yield inspected("PRISMA, EMIT and NEON", f"PRISMA, {name} = {_short(value)}", write)
    for lie in prisma.MISFITS:
        write = lambda folder, lie=lie: prisma.write(folder, **lie)  # noqa: E731
        yield inspected("PRISMA, EMIT and NEON", f"PRISMA, {_short(lie)}", write)
    for name, values in emit.LIES.items():
        for value in values:
            given = {"attributes": {name: value}} if name in ("geotransform", "spatial_ref") else {name: value}
            write = lambda folder, lie=given: emit.write(folder, **lie)  # noqa: E731
            yield inspected("PRISMA, EMIT and NEON", f"EMIT, {name} = {_short(value)}", write)
    for lie in neon.LIES:
        write = lambda folder, lie=lie: neon.write(folder, **lie)  # noqa: E731
        yield inspected("PRISMA, EMIT and NEON", f"NEON, {_short(lie)}", write)


def _short(value):
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_short(one)}" for name, one in value.items())
    array = f"{value.dtype} {value.shape} {value.ravel()[:4].tolist()}" if isinstance(value, np.ndarray) else str(value)
    return ascii(array)[1:60]


def hdf5_files() -> Iterator[Case]:
    for name, damage in hdf5.DAMAGE.items():

        def write(folder, damage=damage):
            damage(folder / "cube.h5")
            return folder / "cube.h5"

        yield inspected("HDF5", name, write, *(["variable=cube"] if name.startswith("external_link") else []))


def label_rasters() -> Iterator[Case]:
    def cube(folder):
        values = np.arange(6, dtype="i2").reshape(2, 1, 3)
        geotiff.write(folder / "cube.tif", values, tags=geotiff.TAGS, transform=labels.TRANSFORM)

    for name, array in labels.ARRAYS.items():

        def make(folder, array=array):
            cube(folder)
            np.save(folder / "gt.npy", array, allow_pickle=True)
            return ["inspect", "cube.tif", "labels=gt.npy"]

        yield Case("label rasters", name, make, "gt.npy: ")
    for name, write in labels.FILES.items():

        def make(folder, write=write):
            path = write(folder)
            cube(folder)
            return ["inspect", "cube.tif", f"labels={path.name if path != folder else '.'}"]

        yield Case("label rasters", f"{name} as labels", make, "")


def label_vectors() -> Iterator[Case]:
    def case(name, write, *keys, says="gt."):
        def make(folder):
            placed_cube(folder)
            return ["inspect", "cube.tif", f"labels={write(folder).name}", *(keys or ["class_field=code"])]

        return Case("label vectors", name, make, says)

    def polygons(folder, driver="GPKG"):
        path = folder / f"gt.{vectors.DRIVERS[driver]}"
        return vectors.write(path, vectors.TWO, driver=driver, kind="Polygon", code=[1, 2])

    for name, value in vectors.JSON.items():
        yield case(f"GeoJSON, {name}", holding("gt.json", json.dumps(value).encode()))
    for name, text in vectors.TEXTS.items():
        yield case(f"GeoJSON, {name}", holding("gt.json", text))
    for name, statement in vectors.SQL.items():

        def change(folder, statement=statement):
            path = polygons(folder)
            with closing(connect(path)) as database:
                vectors.drop_triggers(database)
                database.executescript(statement)
                database.commit()
            return path

        yield case(f"GeoPackage, {name}", change)
    for size in (16, 50, 99, 100, 4096, 40_000):
        yield case(f"GeoPackage of {size} bytes", changed(polygons, lambda content, size=size: content[:size]))
    for name, damage in vectors.SHAPEFILES.items():

        def spoil(folder, damage=damage):
            path = polygons(folder, "ESRI Shapefile")
            damage(folder)
            return path

        yield case(f"Shapefile, {name}", spoil)
    yield case("no field named", polygons, "unlabelled=0")
    yield case("field not there", polygons, "class_field=crop")
    yield case("layer not there", polygons, "class_field=code", "labels_variable=wods")


def wrong_axes() -> Iterator[Case]:
    kind, cube = "wrong axes", envi.CUBE
    for axes in ((0,), (0, 1, 2, 3)):
        shape = tuple((6, 5, 4, 3)[axis] for axis in axes)
        yield inspected(kind, f"npy of {len(axes)}", holding("cube.npy", arrays.npy(np.ones(shape))))
        yield inspected(kind, f"npz of {len(axes)}", lambda folder, shape=shape: _saved(folder, np.ones(shape)))
        yield inspected(kind, f"HDF5 of {len(axes)}", lambda folder, shape=shape: hdf5.write(folder, c=np.ones(shape)))
    for name, write in {"npy": _numpy, "GeoTIFF": lambda cube: tiff(cube=cube.astype("i2"), tags=None)}.items():
        turned = cube.transpose(1, 2, 0)  # bands where rows have to be
        yield inspected(kind, f"{name}, turned", write(turned), "wavelengths=[410,512,640]", "wavelength_unit=nm")
    turned = neon.CUBE.transpose(2, 0, 1)
    yield inspected(kind, "NEON, bands first", lambda folder: neon.write(folder, cube=turned))
    yield inspected(
        kind, "EMIT, bands first", lambda folder: emit.write(folder, reflectance=emit.SWATH.transpose(2, 0, 1))
    )
    yield inspected(kind, "EMIT, table turned", lambda folder: emit.write(folder, **{"location/glt_x": emit.GLT_X.T}))
    yield inspected(
        kind,
        "EnMAP, bands as rows",
        lambda folder: products.write(folder, products.GOOD, cube=products.CUBE.transpose(1, 0, 2))[0],
    )


def _saved(folder, array):
    np.savez(folder / "cube.npz", cube=array)
    return folder / "cube.npz"


SPECIAL = {
    "missing": lambda path: None,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a folder": lambda path: path.symlink_to("."),
    "link to zeros without end": lambda path: path.symlink_to("/dev/zero"),
    "link to random numbers without end": lambda path: path.symlink_to("/dev/urandom"),
    "link to a pipe": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "socket": lambda path: _socket(path),
    "empty": lambda path: path.touch(),
}


def _socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # its name may have 107 letters
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def special_files() -> Iterator[Case]:
    kind = "links and special files"

    def case(name, words, faithful, file):
        def make(folder, put):
            faithful(folder)
            (folder / file).unlink(missing_ok=True)
            put(folder / file)
            return words

        for what, put in SPECIAL.items():
            yield Case(kind, f"{name}: {what}", lambda folder, put=put: make(folder, put), "")

    def nothing(folder):
        (folder / "other").touch()

    def with_labels(folder):
        placed_cube(folder)

    yield from case("cube.tif", ["inspect", "cube.tif"], nothing, "cube.tif")
    yield from case("cube", ["inspect", "cube"], envi.write, "cube")
    yield from case("ENVI header", ["inspect", "cube"], envi.write, "cube.hdr")
    yield from case("labels", ["inspect", "cube.tif", "labels=gt.tif"], with_labels, "gt.tif")
    yield from case("band table", ["inspect", "cube.npy", "wavelengths=nm.csv"], _numpy(envi.CUBE), "nm.csv")
    yield from case("description", ["inspect", "scene.yaml"], nothing, "scene.yaml")
    image = f"{products.L2A}SPECTRAL_IMAGE.TIF"
    yield from case("EnMAP image", ["inspect", f"{products.L2A}METADATA.XML"], enmap, image)
    place = {"map_info": "{UTM, 1, 1, 395591.3, 3778292.3, 2, 2, 11, North, WGS-84}"}
    for ending in (".aux.xml", ".msk", ".ovr", ".sta"):
        for what in ("pipe", "folder", "link to zeros without end", "link to a pipe", "dangling link"):

            def make(folder, ending=ending, what=what):
                path = envi.write(folder, **place)
                SPECIAL[what](path.with_name(f"cube{ending}"))
                return ["inspect", "cube"]

            yield Case("files beside", f"ENVI, {ending}: {what}", make, "")
    for ending in (".prj", ".cpg", ".dbf", ".shx", ".qix", ".idm", ".sbn"):
        for what in ("pipe", "folder", "link to zeros without end"):

            def make(folder, ending=ending, what=what):
                placed_cube(folder)
                vectors.write(folder / "gt.shp", vectors.TWO, driver="ESRI Shapefile", kind="Polygon", code=[1, 2])
                (folder / f"gt{ending}").unlink(missing_ok=True)
                SPECIAL[what](folder / f"gt{ending}")
                return ["inspect", "cube.tif", "labels=gt.shp", "class_field=code"]

            yield Case("files beside", f"Shapefile, {ending}: {what}", make, "gt")
    for ending in ("-wal", "-journal", "-shm"):
        for what in ("pipe", "folder", "link to zeros without end"):

            def make(folder, ending=ending, what=what):
                placed_cube(folder)
                vectors.write(folder / "gt.gpkg", vectors.TWO, code=[1, 2])
                SPECIAL[what](folder / f"gt.gpkg{ending}")
                return ["inspect", "cube.tif", "labels=gt.gpkg", "class_field=code"]

            yield Case("files beside", f"GeoPackage, {ending}: {what}", make, "gt")


def posing() -> Iterator[Case]:
    vrt = '<VRTDataset rasterXSize="50" rasterYSize="40"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    vrt += "<SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    contents = {
        "VRT": vrt.encode(),
        "VRT of the network": vrt.replace("/etc/passwd", "/vsicurl/http://127.0.0.1:9/x").encode(),
        "VRT with a declaration": b"<?xml version='1.0'?>" + vrt.encode(),
        "WMS": b"<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service></GDAL_WMS>",
        "HTML": b"<!DOCTYPE html><html>404</html>",
        "JPEG": b"\xff\xd8\xff\xe0" + bytes(50),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50),
        "PNG": b"\x89PNG\r\n\x1a\n" + bytes(50),
        "HDF4": b"\x0e\x03\x13\x01" + bytes(50),
        "netCDF-3": b"CDF\x01" + bytes(50),
        "gzip": b"\x1f\x8b\x08" + bytes(50),
        "pickle": b"\x80\x04\x95" + bytes(50),
        "PDF": b"%PDF-1.5" + bytes(50),
        "text": b"418.24 423.87 429.52\n",
    }
    for name in ("cube.tif", "cube.he5", "cube.mat", "cube.npy", "cube.bsq"):
        for what, content in contents.items():
            yield inspected("posing as a cube", f"{what} as {name}", holding(name, content), says=name)
    for place in (
        *("http://127.0.0.1:9/cube.tif", "https://127.0.0.1:9/cube.tif", "ftp://127.0.0.1:9/cube.tif"),
        *("/vsicurl/http://127.0.0.1:9/cube.tif", "s3://bucket/cube.tif", "/vsis3/bucket/cube.tif", "file:///etc/passwd"),
        *("/vsizip/cube.zip/cube.tif", "NETCDF:cube.nc:reflectance", "GTIFF_DIR:1:cube.tif", "/vsistdin/", "-"),
    ):
        words = ["--", place] if place == "-" else [place]
        yield Case("network", f"cube {place}", lambda folder, words=words: ["inspect", *words], "")
        yield inspected("network", f"labels {place}", placed_cube, f"labels={place}", "class_field=code", says="No such")
    there = "http://127.0.0.1:9/x"
    for name, write, *words in (
        ("wavelengths", _numpy(envi.CUBE), f"wavelengths={there}"),
        ("description", holding("scene.yaml", f"cube: {there}\n".encode())),
        ("labels of a description", _described(f"labels: {there}")),
        ("table of a description", _described(f"wavelengths: {there}")),
    ):
        yield inspected("network", f"{name} in the network", write, *words, says="127.0.0.1")
    outer = f'<!DOCTYPE level_X SYSTEM "{there}"><level_X>'
    outer = lambda folder, xml=products.GOOD.replace("<level_X>", outer): products.write(folder, xml)[0]  # noqa: E731
    yield inspected("network", "EnMAP with an outer DTD", outer)
    for crs in (
        {"type": "link", "properties": {"href": there, "type": "proj4"}},
        {"type": "link", "properties": {"name": "EPSG:4326", "href": there}},
        {"type": "url", "properties": {"url": there}},
        {"type": "URL", "properties": {"url": there}},
        {"properties": {"href": there}, "type": "LINK"},
        {"type": "name", "properties": {"name": there}},
        {"type": "EPSG", "properties": {"code": there}},
        {"type": "OGC", "properties": {"urn": there}},
    ):
        text = json.dumps(vectors.collection(vectors.feature(), crs=crs))
        yield _json_labels(f"GeoJSON, crs {json.dumps(crs)}", text)
    linked = json.dumps({"type": "link", "properties": {"href": there}})
    good = json.dumps(vectors.collection(vectors.feature()))
    for name, member in {
        "escaped": f'"\\u0063rs": {linked}',
        "in other quotes": f"'crs': {linked}",
        "behind a comment": f'"crs" /* */ : {linked}',
        "type escaped": f'"crs": {linked.replace("link", chr(92) + "u006cink")}',
        "twice": f'"crs": null, "crs": {linked}',
        "JSON-FG": f'"conformsTo": ["http://www.opengis.net/spec/json-fg-1/0.2/conf/core"], "coordRefSys": "{there}"',
    }.items():
        yield _json_labels(f"GeoJSON, crs {name}", good.replace('"features"', f'{member}, "features"'))
    inside = json.dumps(vectors.collection(vectors.feature() | {"crs": json.loads(linked)}))
    yield _json_labels("GeoJSON, crs of a feature", inside)


def _json_labels(name, text):
    def make(folder):
        placed_cube(folder)
        (folder / "gt.json").write_text(text)
        return ["inspect", "cube.tif", "labels=gt.json", "class_field=code"]

    return Case("network", name, make, "gt.json")


def _described(line):
    """A writer of a cube beside a description with one more line."""

    def write(folder):
        _numpy(envi.CUBE)(folder)
        np.save(folder / "gt.npy", np.arange(20).reshape(4, 5) % 3)
        (folder / "nm.csv").write_text("wavelength_nm\n410\n512\n640\n")
        (folder / "scene.yaml").write_text(f"cube: cube.npy\n{line}\n")
        return folder / "scene.yaml"

    return write


KINDS: tuple[Callable[[], Iterator[Case]], ...] = (
    *(truncated, against_binary, huge, header_fields, units_and_wavelengths, wrong_axes, numpy_files, matlab_files),
    *(tiff_files, product_files, hdf5_files, label_rasters, label_vectors, special_files, posing),
)


def cases() -> list[Case]:
    """All of them."""
    return [case for kind in KINDS for case in kind()]
