"""MATLAB 5 files: faithful ones, and damaged ones."""

import struct
import zlib

import numpy as np
from scipy.io import savemat

from hsfusion.scenes.geobox import Window

CUBE = (np.arange(4 * 5 * 3).reshape(4, 5, 3) * 7 % 50 + 1).astype("i2")  # H, W, layers
LABELS = np.arange(20).reshape(4, 5) % 3
FULL = Window(0, 0, 4, 5)


def write(folder, *, compressed=True, **variables):
    path = folder / "scene.mat"
    savemat(path, variables, do_compression=compressed)
    return path


# the bytes of a MATLAB 5 file, as its specification has them
START = b"MATLAB 5.0 MAT-file, written by a test".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)


def element(kind, data, order="<"):
    """A data element: its type, its number of bytes, and its bytes, padded to 8."""
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(data, *, shape=(4, 5, 3), matlab_class=10, kind=3, name=b"cube", flags=0, order="<"):
    """A matrix: flags (class 10 int16, 6 double), dimensions, name, numbers of a type (3 int16, 9 double)."""
    parts = [
        element(6, struct.pack(f"{order}II", matlab_class | flags << 8, 0), order),
        element(5, struct.pack(f"{order}{len(shape)}i", *shape), order),
        element(1, name, order),
        element(kind, data, order),
    ]
    return element(14, b"".join(parts), order)


NUMBERS = CUBE.tobytes(order="F")
PLAIN = START + matrix(NUMBERS)


def packed(content):
    data = zlib.compress(content)
    return struct.pack("<II", 15, len(data)) + data


def lying(**changes):
    return START + matrix(**({"data": NUMBERS} | changes))


DAMAGED = {
    "header only": START,
    "cut in the numbers": PLAIN[:-70],
    "cut when packed": (START + packed(matrix(NUMBERS)))[:-10],
    "noise": START + np.random.default_rng(0).bytes(5000),
    "shape too large": lying(shape=(4, 5, 4)),
    "four axes": lying(shape=(2, 2, 5, 3)),
    "class struct": lying(matlab_class=2),
}
