"""NumPy files: faithful ones, and damaged ones."""

import io
import struct
import zipfile

import numpy as np

from hsfusion.scenes.scene import Window

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
    "version 9": npy_with(header(), version=b"\x09\0"),
    "no header": npy_with(""),
    "half a header": npy_with(header()[:20]),
    "header longer than the file": b"\x93NUMPY\1\0\xff\x1f{'descr': '<i2'",
    "header of 4 GB": b"\x93NUMPY\2\0\xff\xff\xff\xff" + header().encode(),
    "header of 20 kB": npy_with(header() + " " * 20_000, version=b"\2\0"),
    "no dictionary": npy_with("[1, 2]\n"),
    "code": npy_with("__import__('os').system('true')\n"),
    "deep nesting": npy_with("(" * 5000 + ")" * 5000 + "\n"),
    "many signs": npy_with("-" * 9000 + "1\n"),
    "unclosed": npy_with("{'descr': '<i2\n"),
    "other keys": npy_with("{'descr': '<i2', 'shape': (4, 5, 3)}\n"),
    "more keys": npy_with(header().replace("}", "'more': 1}")),
    "bytes of no text": b"\x93NUMPY\1\0\x04\0\xff\xfe\xfd\n",
    "null bytes": npy_with("\0" * 60),
    "order no boolean": npy_with(header(fortran="1")),
    "shape a list": npy_with(header(shape="[4, 5, 3]")),
    "shape a number": npy_with(header(shape="60")),
    "shape of text": npy_with(header(shape="('4', 5, 3)")),
    "shape of fractions": npy_with(header(shape="(4.0, 5, 3)")),
    "shape too large": npy_with(header(shape="(4, 5, 4)")),
    "shape too small": npy_with(header(shape="(4, 5, 2)")),
    "shape huge": npy_with(header(shape="(1000000000, 1000000000, 1000000000)")),
    "shape negative": npy_with(header(shape="(-4, -5, 3)")),
    "shape with zero": npy_with(header(shape="(0, 5, 3)"), data=b""),
    "no axes": npy(np.array(5)),
    "one axis": npy(np.arange(5)),
    "four axes": npy(CUBE[None]),
    "type unknown": npy_with(header(descr="'<q9'")),
    "type no text": npy_with(header(descr="7")),
    "type empty": npy_with(header(descr="''")),
    "objects": npy_with(header(descr="'|O'")),
    "objects pickled": npy(np.array([[None, 1], [2, 3]])),
    "structure": npy(np.zeros((4, 5), [("a", "i2"), ("b", "f4")])),
    "complex": npy(CUBE.astype("c8")),
    "text": npy(CUBE.astype("U3")),
    "dates": npy(CUBE.astype("M8[s]")),
    "cut short": npy()[:-1],
    "longer": npy() + b"\0",
    "two arrays": npy() + npy(),
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
    "no array in the member": zipped(("a.npy", b"x" * 100)),
    "empty member": zipped(("a.npy", b"")),
    "member cut short": zipped(("a.npy", npy()[:-1])),
    "member longer": zipped(("a.npy", npy() + b"\0")),
    "member cut short, packed": zipped(("a.npy", npy()[:-1]), compression=zipfile.ZIP_DEFLATED),
    "only text": zipped(("a.npy", npy(np.array(["a"])))),
    "only objects": zipped(("a.npy", npy(np.array([[None] * 2] * 2)))),
    "cut in the directory": PLAIN[:-30],
    "cut in the member": PLAIN[:120],
    "end only": PLAIN[-22:],
    "4 bytes": PLAIN[:4],
    "a flipped bit in the numbers": changed(PLAIN, CUBE.tobytes(), CUBE.tobytes()[:-1] + b"\x01"),
    "local header is another": changed(PLAIN, b"PK\3\4", b"PK\3\5"),
    "names disagree": changed(PLAIN, b"a.npyP", b"b.npyP"),
    "encrypted": changed(PLAIN, b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"),
    "unknown packing": changed(PLAIN, b"PK\1\2\x14\3\x14\0\0\0\0\0", b"PK\1\2\x14\3\x14\0\0\0\x62\0"),
    "directory elsewhere": PLAIN[:-6] + struct.pack("<L", 10) + PLAIN[-2:],
    "directory of 4 GB": PLAIN[:-10] + struct.pack("<L", 2**32 - 2) + PLAIN[-6:],
    "2,000 members": zipped(*((f"{i}.npy", b"") for i in range(2000))),
    "packed numbers are damaged": PACKED[:140] + b"\xff\xff\xff" + PACKED[143:],
    "size lies": changed(PACKED, struct.pack("<L", len(npy())), struct.pack("<L", 2**31)),
}
