"""Several NumPy arrays in one file (``.npz``): a zip file of ``.npy`` files.

Specification: PKWARE APPNOTE 6.3, and numpy.savez. Members may be stored or deflated.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.arrays import (
    NpyHeader,
    NpyPixels,
    array_axes,
    check_npy,
    choose_array,
    cube_of_array,
    cube_of_pixels,
    read_npy_header,
    unpacked_limit,
    unreadable_array,
)
from hsfusion.scenes.formats.cube_file import CubeFile

_MOST_MEMBERS, _MOST_DIRECTORY = 1000, 2**20  # of a zip file, whose directory is read whole
_END, _END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")  # the last records of a zip file
_LOCATOR = 20  # bytes of the record between the two
_BLOCK = 2**20


def open_npz(path: Path, *, variable: str | None = None, axes: tuple[str, ...] | None = None) -> CubeFile:
    """Opens an array of a ``.npz`` file: through a memory map where it is stored, else unpacked into memory.

    Args:
        path: the file.
        variable: name of the array; needed where there are several that can be a raster.
        axes: see :func:`array_axes`.

    Raises:
        InputError: if the file is damaged, grows too much when it is unpacked, or holds no such array.
    """
    try:
        with open(path, "rb") as file:
            _check_directory(path, file)
            with zipfile.ZipFile(file) as archive:
                return _open_member(path, file, archive, variable, axes)
    except (
        *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
        *(NotImplementedError, RuntimeError),  # packed in another way, encrypted
        *(ValueError, IndexError, OverflowError),  # what zipfile makes of lengths and dates that lie
    ) as error:
        raise unreadable_array(path, "a whole .npz file", error) from error


def _open_member(
    path: Path, file: IO[bytes], archive: zipfile.ZipFile, variable: str | None, axes: tuple[str, ...] | None
) -> CubeFile:
    infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    if not infos:
        raise InputError(
            path, field="content", value="a zip file without arrays", expected="an .npz file", fix="unpack it first"
        )
    members = {info.filename.removesuffix(".npy"): info for info in infos}
    if len(members) != len(infos):
        raise unreadable_array(path, "names that occur once", "two arrays of one name")
    headers = {name: _member_header(path, archive, info) for name, info in members.items()}
    shapes = {name: header.shape for name, header in headers.items() if header.dtype.kind in "iufb"}
    name = choose_array(path, shapes, variable)
    header, info = headers[name], members[name]
    check_npy(path, header, info.file_size)
    format, facts = f"NumPy npz {header.dtype.name}", {"variable": printable(name)}
    if info.compress_type == zipfile.ZIP_STORED:
        with archive.open(info) as member:
            while member.read(_BLOCK):  # compares the checksum
                pass
        pixels = NpyPixels(path, header, _start(file, info), array_axes(path, header.shape, axes))
        return cube_of_pixels(path, pixels, pixels.axes, header.shape, format=format, facts=facts)
    return cube_of_array(path, _unpack(path, archive, info, header), axes, format=format, facts=facts)


def _check_directory(path: Path, file: IO[bytes]) -> None:
    """Looks at the size of the directory before it is read (APPNOTE 4.3.14 to 4.3.16)."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 2**16 - _END.size - _LOCATOR - _END64.size))
    tail = file.read()
    last = tail[-_END.size :]
    at = len(tail) - len(last) if last[:4] == b"PK\5\6" and last[-2:] == b"\0\0" else tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + _END.size:
        raise unreadable_array(path, "a whole .npz file", "its end is missing")
    members, directory = _END.unpack_from(tail, at)[4:6]
    at64 = at - _LOCATOR - _END64.size
    if at64 >= 0 and tail.startswith(b"PK\6\6", at64):
        members, directory = _END64.unpack_from(tail, at64)[7:9]
    if members > _MOST_MEMBERS or directory > _MOST_DIRECTORY:
        raise unreadable_array(
            path, f"at most {_MOST_MEMBERS} arrays", f"{members}, in a directory of {directory} bytes"
        )


def _member_header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NpyHeader:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise unreadable_array(path, "arrays that are stored or deflated", f"compression {info.compress_type}")
    with archive.open(info) as member:
        return read_npy_header(path, member)


def _start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """The byte at which a stored member begins, after a local header with lengths of its own (APPNOTE 4.3.7)."""
    file.seek(info.header_offset + 26)
    name, extra = struct.unpack("<2H", file.read(4))
    return info.header_offset + 30 + name + extra


def _unpack(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: NpyHeader) -> NDArray:
    packed = min(info.compress_size, path.stat().st_size)  # the directory may lie
    limit = unpacked_limit(packed)
    if header.nbytes > limit:
        raise InputError(
            path,
            field="size when unpacked",
            value=f"{header.nbytes} bytes",
            expected=f"at most {limit} from {packed} packed bytes",
            fix="save the array by numpy.save",
        )
    values, filled = np.empty(header.nbytes, np.uint8), 0
    with archive.open(info) as member:
        member.read(header.length)
        while block := member.read(_BLOCK):  # the last read compares the checksum
            values[filled : filled + len(block)] = np.frombuffer(block, np.uint8)
            filled += len(block)
    if filled != header.nbytes:
        raise unreadable_array(path, f"{header.nbytes} bytes of numbers", f"{filled} bytes")
    return values.view(header.dtype).reshape(header.shape, order=header.order)
