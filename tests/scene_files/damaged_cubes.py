"""Cubes that are damaged, or lie, by format."""

import os
from collections.abc import Iterator

import numpy as np

from scene_files import arrays, emit, envi, geotiff, hdf5, neon, products
from scene_files.cases import Case, by, changed, holding, inspected
from scene_files.faithful import FAITHFUL, enmap, numpy_cube, placed_cube, tiff

SHARES = (0.01, 0.25, 0.5, 0.75, 0.97)


def truncated() -> Iterator[Case]:
    for name, write in FAITHFUL.items():
        for share in SHARES:
            yield inspected("truncated", f"{name} at {share:.0%}", by(_cut, write, share))
        yield inspected("truncated", f"{name}, last bytes", changed(write, lambda content: content[:-5]))  # 4 of a COG
    for field in ("samples", "lines", "bands", "data type", "interleave", "12.5, 640"):

        def write(folder, field=field):
            path = envi.write(folder)
            header = folder / "cube.hdr"
            header.write_text(header.read_text().partition(field)[0])
            return path

        yield inspected("truncated", f"ENVI header before {field}", write)


def _cut(folder, write, share):
    path = write(folder)
    os.truncate(path, int(path.stat().st_size * share))
    return path


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
                    by(_relabelled, **{field: value, "interleave": interleave} | more),
                    says="size is",
                )
    for size in (0, 1, 60, 121, 240, 10**6):
        yield inspected(kind, f"ENVI binary of {size} bytes", by(_resized, size))
    for name, header in {"larger": "(4, 5, 30)", "smaller": "(2, 5, 3)", "other rows": "(5, 5, 3)"}.items():
        content = arrays.npy_with(arrays.header(shape=header))
        says = "size is" if name == "smaller" else "content is unreadable"
        yield inspected(kind, f"npy, {name}", holding("cube.npy", content), says=says)


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
        yield inspected("huge", f"ENVI, {fields}", by(_relabelled, **fields))
    yield inspected(
        "huge", "GeoJSON of 200 MB as labels", _large_json, "labels=gt.json", "class_field=code", says="gt.json"
    )


def _large_json(folder):
    (folder / "gt.json").write_text('{"type": "FeatureCollection", "features": []')
    os.truncate(folder / "gt.json", 200 * 2**20)
    return placed_cube(folder)


def header_fields() -> Iterator[Case]:
    for field, values in envi.LIES.items():
        for value in values:
            if field.startswith("wavelength") and (value is None or value in ("Unknown", "Angstroms", "GHz")):
                continue  # of these inspect warns, see units_and_wavelengths
            yield inspected("header fields", f"{field} = {value}", by(envi.lie, field, value))


def units_and_wavelengths() -> Iterator[Case]:
    kind = "units and wavelengths"
    eight = np.arange(8 * 20).reshape(8, 4, 5) % 50
    three = {"wavelength": "{410, 512.5, 640.25}"}
    yield inspected(kind, "ENVI, 3 for 8", by(envi.write, eight, **three), says="is a list of 3, expected 8")
    yield inspected(kind, "npy, 3 for 8", numpy_cube(eight), "wavelengths=[410,512,640]", says="is 3, expected 8")
    for unit, contradiction in (("Nanometers", "um"), ("Micrometers", "nm"), ("µm", "nm"), ("nm", "um")):
        fields = {
            "wavelength_units": unit,
            "wavelength": "{0.41, 0.51, 0.64}" if unit[0] in "Mµ" else "{410, 512, 640}",
        }
        for name, write in {"ENVI": by(envi.write, **fields), "GeoTIFF": tiff(tags=None, whole=fields)}.items():
            yield inspected(
                kind, f"{name}, {unit} said to be {contradiction}", write, f"wavelength_unit={contradiction}"
            )
    for unit, given in zip(
        ("Unknown", "Angstroms", "GHz", "Wavenumber", None, "Unknown"),
        ("Angstrom", "m", "NM", "nanometers", "[nm]", "1"),
        strict=True,
    ):
        write, word = by(envi.write, wavelength_units=unit), f"wavelength_unit={given}"
        yield inspected(kind, f"ENVI, {unit} said to be {given}", write, word, says="wavelength_unit")
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
        says = "wavelength" if centres.startswith("[") else "band table"
        yield inspected(kind, f"list of centres, {name}", numpy_cube(envi.CUBE), *words, says=says)
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


def wrong_axes() -> Iterator[Case]:
    kind = "wrong axes"
    for shape in ((6,), (6, 5, 4, 3)):
        array = np.ones(shape)
        yield inspected(kind, f"npy of {len(shape)}", holding("cube.npy", arrays.npy(array)))
        yield inspected(kind, f"npz of {len(shape)}", by(_saved, array))
        yield inspected(kind, f"HDF5 of {len(shape)}", by(hdf5.write, c=array))
    turned = envi.CUBE.transpose(1, 2, 0)  # bands where rows have to be
    for name, write in {"npy": numpy_cube(turned), "GeoTIFF": tiff(cube=turned.astype("i2"), tags=None)}.items():
        yield inspected(kind, f"{name}, turned", write, "wavelengths=[410,512,640]", "wavelength_unit=nm")
    yield inspected(kind, "NEON, bands first", by(neon.write, cube=neon.CUBE.transpose(2, 0, 1)))
    yield inspected(kind, "EMIT, bands first", by(emit.write, reflectance=emit.SWATH.transpose(2, 0, 1)))
    yield inspected(kind, "EMIT, table turned", by(emit.write, **{"location/glt_x": emit.GLT_X.T}))
    yield inspected(kind, "EnMAP, bands as rows", by(enmap, cube=products.CUBE.transpose(1, 0, 2)))


def _saved(folder, array):
    np.savez(folder / "cube.npz", cube=array)
    return folder / "cube.npz"
