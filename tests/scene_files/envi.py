"""ENVI files: faithful ones, and lies that a header can tell."""

import numpy as np

NM = [410.0, 512.5, 640.25]
CUBE = (np.arange(3 * 4 * 5).reshape(3, 4, 5) * 7 % 50 + 1).astype(float)  # bands, lines, samples
CODES = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "u2": 12, "u4": 13, "i8": 14, "u8": 15}
AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}


def write(folder, cube=CUBE, *, dtype="i2", interleave="bsq", order="<", offset=0, name="cube", **fields):
    """Writes an ENVI file; a field given as None is left out. Returns the binary's path."""
    values = cube.transpose(AXES[interleave]).astype(order + dtype)
    (folder / name).write_bytes(b"\1" * offset + values.tobytes())
    header = {
        "samples": cube.shape[2],
        "lines": cube.shape[1],
        "bands": cube.shape[0],
        "header_offset": offset,
        "data_type": CODES[dtype],
        "interleave": interleave,
        "byte_order": "<>".index(order),
        "wavelength_units": "Nanometers",
        "wavelength": "{" + ", ".join(map(str, NM)) + "}",
    } | fields
    lines = [f"{key.replace('_', ' ')} = {value}" for key, value in header.items() if value is not None]
    (folder / f"{name}.hdr").write_text("\n".join(["ENVI", *lines]) + "\n")
    return folder / name


LIES = {
    "samples": ["0", "-5", "6", "5.0", "five", "1e1", "", "99999999999999999999", None],
    "lines": ["3", "1000000000", "nan", None],
    "bands": ["2", "4", "{3}", None],
    "header offset": ["-1", "1", "1000000", "x"],
    "data type": ["0", "4", "6", "9", "99", "int16", None],
    "interleave": ["bsp", "", "{bsq}", None],
    "byte order": ["2", "-1", "little"],
    "wavelength units": ["Unknown", "Angstroms", "GHz", "{nm}", "Micrometers", None],
    "wavelength": [
        *("{1, 2}", "{410, 512.5, 640.25, 700}", "{410, x, 640}", "{410, nan, 640}", "{410, inf, 640}"),
        *("{410, -5, 640}", "{0.41, 0.51, 0.64}", "{410,0, 512,5, 640,2}", "410", "{", None),
    ],
    "fwhm": ["{10}", "{10, 10, 0}", "{10, 10, nan}", "{a, b, c}"],
    "bbl": ["{1, 1}", "{1, 1, yes}"],
    "data ignore value": ["none", "{1, 2}"],
    "reflectance scale factor": ["0", "-1", "x", "{1, 2}"],
    "data gain values": ["{1, 2}", "{1, x, 2}"],
}


def lie(folder, field, value):
    """Writes a faithful file, then says something else in one field of its header. Returns the binary's path."""
    path = write(folder)
    header = folder / "cube.hdr"
    lines = [line for line in header.read_text().splitlines() if not line.startswith(f"{field} =")]
    header.write_text("\n".join(lines + [f"{field} = {value}"] * (value is not None)) + "\n")
    return path
