"""Where a TIFF says that its strips or tiles lie. Specification: TIFF 6.0, sections 2, 8 and 15, and BigTIFF.

GDAL reads a block that was never written as zeros, and finds out only on reading that a file ends too early. Both are
told here from the directories of the file, without touching a pixel.
"""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.formats.product_xml import parse_in_pieces

_NUMBERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8"}  # field type -> whole numbers
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MOST_FIELDS, _MOST_DIRECTORIES = 4096, 64
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS, _PLANES = 256, 257, 258, 259, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_GDAL_METADATA = 42112
_STRIP_OFFSETS, _STRIP_SIZES, _TILE_OFFSETS, _TILE_SIZES = 273, 279, 324, 325
_KNOWN = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS, _PLANES, _TILE_WIDTH, _TILE_HEIGHT)
_KNOWN += (_STRIP_OFFSETS, _STRIP_SIZES, _TILE_OFFSETS, _TILE_SIZES)


def missing_blocks(path: Path) -> tuple[int, int]:
    """Counts the blocks (strips or tiles) of the first image of a TIFF that were never written.

    Returns:
        number of missing blocks, number of all

    Raises:
        InputError: if a field or block ends behind the end of the file, or blocks are fewer or shorter than the image
            needs, be it in the first image or in the masks and overviews that follow.
    """
    try:
        with open(path, "rb") as file:
            directories = _directories(file, path.stat().st_size)
            layouts = [_layout(fields) for fields in directories]
    except (OSError, struct.error, LookupError, ValueError) as error:
        what = f"unreadable ({error})" if str(error).startswith("field") else "unreadable"
        raise _error(path, "directory of the TIFF", what, "width, height and blocks of an image") from error
    counts = [_count_missing(path, fields, layout) for fields, layout in zip(directories, layouts, strict=True)]
    return counts[0], layouts[0].needed


def _count_missing(path: Path, fields: dict[int, NDArray[np.uint64]], layout: _Layout) -> int:
    if layout.needed < 1:
        raise _error(path, "size of the image or of its blocks", 0, "at least 1 pixel")
    offsets = fields[_TILE_OFFSETS if layout.tiled else _STRIP_OFFSETS]
    sizes = fields.get(_TILE_SIZES if layout.tiled else _STRIP_SIZES)
    for values in (offsets, sizes):
        if values is not None and values.size < layout.needed:
            raise _error(path, "number of blocks", values.size, f"{layout.needed} for {layout.image}")
    offsets = offsets[: layout.needed]
    if sizes is None:  # old files without compression need not name them
        _check_ends(path, offsets, np.ones(layout.needed, np.uint64))
        return 0
    sizes = sizes[: layout.needed]
    _check_ends(path, offsets, sizes)
    if _one(fields, _COMPRESSION, 1) == 1:
        _check_lengths(path, sizes, layout)
    return int((sizes == 0).sum())


class _Layout(NamedTuple):
    """How an image is cut into blocks: planes of rows of blocks."""

    image: str
    tiled: bool
    needed: int
    rows: int
    block_height: int
    last_height: int
    row_bytes: int


def _layout(fields: dict[int, NDArray[np.uint64]]) -> _Layout:
    height, width, samples = _one(fields, _HEIGHT), _one(fields, _WIDTH), _one(fields, _SAMPLES, 1)
    tiled, separate = _TILE_OFFSETS in fields, _one(fields, _PLANES, 1) == 2
    fields[_TILE_OFFSETS if tiled else _STRIP_OFFSETS]  # an image without is a LookupError
    block_height = _one(fields, _TILE_HEIGHT) if tiled else min(_one(fields, _ROWS, height), height)
    block_width = _one(fields, _TILE_WIDTH) if tiled else width
    image = f"{height} x {width} pixels"
    if min(height, width, samples, block_height, block_width) < 1:
        return _Layout(image, tiled, 0, 0, 0, 0, 0)
    rows = -(-height // block_height)
    needed = rows * -(-width // block_width) * (samples if separate else 1)
    bits = _one(fields, _BITS, 1) * (1 if separate else samples)
    last = block_height if tiled else height - (rows - 1) * block_height  # tiles are padded, strips are not
    return _Layout(image, tiled, needed, rows, block_height, last, (block_width * bits + 7) // 8)


def _check_ends(path: Path, offsets: NDArray, sizes: NDArray) -> None:
    end = path.stat().st_size
    written = sizes > 0
    behind = written & ((offsets > end) | (sizes > end) | (offsets + np.minimum(sizes, end) > end))
    if behind.any():
        first = int(np.flatnonzero(behind)[0])
        last = int(offsets[first]) + int(sizes[first])
        raise _error(path, f"end of block {first + 1}", f"at byte {last}", f"at most {end}, where the file ends")


def _check_lengths(path: Path, sizes: NDArray, layout: _Layout) -> None:
    """Makes sure that blocks without compression hold all their pixels."""
    whole, last = (min(rows * layout.row_bytes, 2**63) for rows in (layout.block_height, layout.last_height))
    least = np.full(layout.needed, whole, np.uint64)
    if not layout.tiled:
        least[layout.rows - 1 :: layout.rows] = last
    short = (sizes > 0) & (sizes < least)
    if short.any():
        first = int(np.flatnonzero(short)[0])
        raise _error(path, f"size of block {first + 1}", f"{sizes[first]} bytes", f"at least {least[first]}")


def _directories(file: BinaryIO, size: int) -> list[dict[int, NDArray[np.uint64]]]:
    """The fields of each directory that say where its blocks lie."""
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}[start[:2]]
    big = struct.unpack(order + "H", start[2:4])[0] == 43
    word, count = struct.Struct(order + ("Q" if big else "I")), struct.Struct(order + ("Q" if big else "H"))
    entry = struct.Struct(f"{order}HH{'Q8s' if big else 'I4s'}")
    place = word.unpack_from(start, 8 if big else 4)[0]
    found = []
    while place and len(found) < _MOST_DIRECTORIES:
        file.seek(place)
        number = count.unpack(file.read(count.size))[0]
        if number > _MOST_FIELDS:
            raise ValueError(number)
        table = file.read(number * entry.size)
        place = word.unpack(file.read(word.size))[0]
        found.append({})
        for tag, kind, length, value in entry.iter_unpack(table):
            nbytes = length * _BYTES.get(kind, 1)
            if nbytes > len(value):
                value_at = word.unpack(value)[0]
                if value_at + nbytes > size:  # GDAL would go on without the field: without CRS, scale or wavelengths
                    raise ValueError(f"field {tag} ends at byte {value_at + nbytes} of {size}")
                if tag in _KNOWN or tag == _GDAL_METADATA:
                    file.seek(value_at)
                    value = file.read(nbytes)
            if tag == _GDAL_METADATA:
                _check_metadata(value)
            if tag in _KNOWN:
                if not length:
                    raise ValueError(f"field {tag} is empty")
                found[-1][tag] = np.frombuffer(value, np.dtype(order + _NUMBERS[kind]), length).astype(np.uint64)
    if not found:
        raise ValueError("no directory")
    return found


def _check_metadata(value: bytes) -> None:
    """Makes sure that scales, names and tags are whole XML: GDAL would go on without them."""
    text = value.rstrip(b"\0")
    try:
        text.decode("utf-8")
        parser = expat.ParserCreate("utf-8")
    except UnicodeDecodeError:
        parser = expat.ParserCreate("iso-8859-1")
    try:
        parse_in_pieces(parser, BytesIO(text))
    except (expat.ExpatError, ValueError) as error:
        raise ValueError(f"field {_GDAL_METADATA}, GDAL's metadata: {error}") from error


def _one(fields: dict[int, NDArray[np.uint64]], tag: int, default: int | None = None) -> int:
    if tag not in fields and default is not None:
        return default
    return int(fields[tag][0])


def _error(path: Path, field: str, value: object, expected: str) -> InputError:
    return InputError(path, field=field, value=value, expected=expected, fix="copy the file anew, or write it anew")
