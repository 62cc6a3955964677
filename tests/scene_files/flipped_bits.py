"""Faithful files of which one bit is flipped where it matters: in headers, directories, tags, and packed numbers."""

import struct
from collections.abc import Iterator

from scene_files import arrays, envi, geotiff, matlab
from scene_files.cases import Case, flipped, holding, inspected
from scene_files.faithful import FAITHFUL, enmap, newest_hdf5, tiff


def flipped_bits() -> Iterator[Case]:
    kind = "flipped bits"
    names = ("samples", "lines", "bands", "header offset", "data type", "interleave", "byte order")

    def header(folder):
        return envi.write(folder).with_name("cube.hdr")

    places = [(name.encode(), 0, 0) for name in names if name not in ("header offset", "byte order")]
    places += [(f"{name} = ".encode(), len(name) + 3, 0) for name in names if name != "byte order"]
    places += [(b"bsq", 1, 4), (b"bsq", 2, 1), (b"ENVI", 0, 0), (b"ENVI", 3, 5), (b"{410", 0, 6), (b"{410", 1, 6)]
    places += [(b"410.0,", 5, 0), (b"640.25}", 6, 5), (b"samples =", 8, 0)]
    for text, behind, bit in places:
        yield inspected(kind, f"ENVI header, bit {bit} of {text!r} {behind:+}", flipped(header, (text, behind), bit))
    for name, tag in geotiff_entries().items():
        for part, behind, bit in (("tag", 0, 0), ("type", 2, 6), ("count", 5, 7), ("value", 10, 5)):
            if (name, part) != ("sizes", "tag"):  # numbers without compression do without
                write = flipped(holding("cube.tif", geotiff.directory()), (tag, behind), bit)
                yield inspected(kind, f"TIFF directory, {part} of {name}", write)
    for at in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9):
        yield inspected(kind, f"TIFF header, byte {at}", flipped(holding("cube.tif", geotiff.directory()), at, 3))
    for at in (0, 4, 8, 9, 10, 11, 12, 20, 28, 36, 44):
        yield inspected(kind, f"HDF5 superblock, byte {at}", flipped(newest_hdf5, at, 4))
    for at in (0, 4, 5, 6, 8, 12, 20, 40):
        yield inspected(kind, f"HDF5 object header, byte {at}", flipped(newest_hdf5, (b"OHDR", at), 2))
    old = FAITHFUL["HDF5"]
    for at in (0, 7, 8, 13, 14, 44, 47, 64, 72):  # the library crashes on a wrong base address or end of file
        yield inspected(kind, f"HDF5 old superblock, byte {at}", flipped(old, at, 5))
    for text, behind in ((b"TREE", 0), (b"TREE", 4), (b"HEAP", 0), (b"HEAP", 4), (b"SNOD", 0), (b"SNOD", 6)):
        yield inspected(kind, f"HDF5 {text.decode()} at {behind}", flipped(old, (text, behind), 5))
    # those of flags that no reader asks for are left out, and so in the others
    for at in (*range(125, 130), 131, 132, 133, 134, 135, 144, 152, 156, 160, 164, 168, 176, 180):
        yield inspected(kind, f"MATLAB tags, byte {at}", flipped(holding("cube.mat", matlab.PLAIN), at, 4))
    packed = holding("cube.mat", matlab.START + matlab.packed(matlab.matrix(matlab.NUMBERS)))
    for at in (128, 132, 136, 137, 150, 170, 190, -1, -2):
        yield inspected(kind, f"MATLAB, packed, byte {at}", flipped(packed, at, 4))
    for at in (0, 3, 6, 7, 8, 9, 10, 13, 25, 27, 45, 60, 64, 72):
        yield inspected(kind, f"npy header, byte {at}", flipped(holding("cube.npy", arrays.npy()), at, 4))
    for at in (0, 2, 40, 100, 160, -22, -6):
        yield inspected(kind, f"npz, byte {at}", flipped(holding("cube.npz", arrays.PLAIN), at, 4))
    packed_tiff = tiff(compress="DEFLATE", tags=None)
    for at in (0, 1, 2, 20, 200, 700):
        write = flipped(packed_tiff, (b"\x78\x9c", at), 4)  # where zlib starts
        yield inspected(kind, f"GeoTIFF, packed numbers, byte {at}", write)
    for text, behind, bit in (
        *((b"<level_X>", 1, 0), (b"bandCharacterisation", 0, 1), (b"wavelengthCenter", 3, 0), (b"418.24", 3, 1)),
        *((b"418.24", 0, 6), (b"GainOfBand", 0, 2), (b"OffsetOfBand", 1, 0), (b'"1"><wave', 1, 1), (b"</base>", 1, 3)),
        *((b"<?xml", 1, 2), (b"-32768", 0, 6), (b"</level_X>", 0, 0), (b"0.0002", 1, 1)),
    ):
        yield inspected(kind, f"EnMAP XML, bit {bit} of {text!r} {behind:+}", flipped(enmap, (text, behind), bit))


def geotiff_entries():
    """Start of the entry of each field of `geotiff.directory` that an image cannot do without."""
    tags = {"width": 256, "height": 257, "bits": 258, "offsets": 273, "sizes": 279}
    return {name: struct.pack("<HHI", tag, 4, 1) for name, tag in tags.items()}
