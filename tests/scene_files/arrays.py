"""NumPy files: faithful ones, and damaged ones."""

import io
import struct
import zipfile

import numpy as np

from hsfusion.scenes.geobox import Window

CUBE = (np.arange(4 * 5 * 3).reshape(4, 5, 3) * 7 % 50 + 1).astype("i2")  # H, W, layers
RAW = CUBE.tobytes()
FULL = Window(0, 0, 4, 5)


def npy(array=CUBE, version=(1, 0)):
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


def npy_with(header, *, data=RAW, version=b"\1\0"):
    """The bytes of a .npy file with a header of our own."""
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    return b"\x93NUMPY" + version + size + header.encode() + data


def header(descr="'<i2'", fortran="False", shape="(4, 5, 3)"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


DAMAGED = {
    "nothing after the magic": b"\x93NUMPY",
    "header longer than the file": b"\x93NUMPY\1\0\xff\x1f{'descr': '<i2'",
    "code": npy_with("__import__('os').system('true')\n"),
    "shape too large": npy_with(header(shape="(4, 5, 4)")),
    "shape too small": npy_with(header(shape="(4, 5, 2)")),
    "shape with zero": npy_with(header(shape="(0, 5, 3)"), data=b""),
    "one axis": npy(np.arange(5)),
    "four axes": npy(CUBE[None]),
    "objects pickled": npy(np.array([[None, 1], [2, 3]])),
    "structure": npy(np.zeros((4, 5), [("a", "i2"), ("b", "f4")])),
    "complex": npy(CUBE.astype("c8")),
    "cut short": npy()[:-1],
    "longer": npy() + b"\0",
}


def zipped(*members, **options):
    """The bytes of a zip file of (name, content)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def changed(content, old, new):
    assert old in content
    return content.replace(old, new)


PLAIN = zipped(("a.npy", npy()))
PACKED = zipped(("a.npy", npy()), compression=zipfile.ZIP_DEFLATED)
DAMAGED_NPZ = {
    "empty zip": zipped(),
    "no arrays": zipped(("readme.txt", b"x")),
    "member cut short": zipped(("a.npy", npy()[:-1])),
    "member cut short, packed": zipped(("a.npy", npy()[:-1]), compression=zipfile.ZIP_DEFLATED),
    "only objects": zipped(("a.npy", npy(np.array([[None] * 2] * 2)))),
    "cut in the directory": PLAIN[:-30],
    "cut in the member": PLAIN[:120],
    "a flipped bit in the numbers": changed(PLAIN, CUBE.tobytes(), CUBE.tobytes()[:-1] + b"\x01"),
    "packed numbers are damaged": PACKED[:140] + b"\xff\xff\xff" + PACKED[143:],
}
