"""A journal of finished tiles: what a killed run leaves for the next one to go on from."""

from __future__ import annotations

import json
import logging
import os
import struct
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import EnvironmentFailure

_log = logging.getLogger(__name__)
_RECORD = struct.Struct("<4sIII")  # mark, tile, bytes that follow, their CRC-32
_MARK = b"CELL"


class Journal:
    """An append-only file: one line of JSON that says what is computed, then a record for each finished tile.

    A record counts if it is whole and its checksum is right; what comes after the first that does not is cut off.

    Args:
        path: the file; made if it is not there, or if it tells of something else.
        plan: plain values that say what is computed; records of another plan are not used.

    Raises:
        EnvironmentFailure: if the file cannot be written, or another process writes to it.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any]) -> None:
        self.path = path
        self._reading = threading.Lock()
        self._places: dict[int, tuple[int, int, int]] = {}  # tile -> offset, length, checksum
        head = json.dumps(plan, sort_keys=True).encode() + b"\n"
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")  # not emptied before the lock
            self._lock()
            found = self._file.readline()
            if found != head:
                if found:
                    _log.warning("%s tells of another scene, model or setting: its tiles are computed anew.", path)
                self._file.seek(0)
                self._file.truncate()
                self._file.write(head)
                self._file.flush()
            self._file.truncate(self._scan())
        except OSError as error:
            raise _failure(path, error) from error

    @property
    def tiles(self) -> set[int]:
        """The numbers of the finished tiles."""
        return set(self._places)

    def append(self, tile: int, layers: NDArray[np.generic]) -> None:
        """Adds a finished tile.

        Args:
            tile: its number.
            layers: what was found out; :meth:`read` gives the same bytes.

        Raises:
            EnvironmentFailure: if the disk is full.
        """
        payload = np.ascontiguousarray(layers).tobytes()
        check = zlib.crc32(payload)
        try:
            self._file.seek(0, os.SEEK_END)
            offset = self._file.tell() + _RECORD.size
            self._file.write(_RECORD.pack(_MARK, tile, len(payload), check) + payload)
            self._file.flush()
        except OSError as error:
            raise _failure(self.path, error) from error
        self._places[tile] = offset, len(payload), check

    def read(self, tile: int) -> bytes:
        """What was added for a tile; several threads may ask at once.

        Raises:
            EnvironmentFailure: if the file no longer holds it.
        """
        offset, length, check = self._places[tile]
        try:
            with self._reading:
                self._file.seek(offset)
                payload = self._file.read(length)
        except OSError as error:
            raise _failure(self.path, error) from error
        if zlib.crc32(payload) != check or len(payload) != length:
            raise EnvironmentFailure(f"{self.path}: a record was changed. Fix: delete the file and start again.")
        return payload

    def __enter__(self) -> Journal:
        """Gives itself, for a ``with`` that closes the file and lets others write to it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the file."""
        self._file.close()

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise EnvironmentFailure(
                f"{self.path}: is being written by another process. Fix: wait for it, or choose another out=."
            ) from error

    def _scan(self) -> int:
        """Finds the records; returns where the first that is not whole begins."""
        end = self._file.tell()
        while True:
            head = self._file.read(_RECORD.size)
            if len(head) < _RECORD.size:
                return end
            mark, tile, length, check = _RECORD.unpack(head)
            payload = self._file.read(length) if mark == _MARK else b""
            if mark != _MARK or len(payload) < length or zlib.crc32(payload) != check:
                return end
            self._places[tile] = end + _RECORD.size, length, check
            end += _RECORD.size + length


def _failure(path: Path, error: OSError) -> EnvironmentFailure:
    return EnvironmentFailure(f"{path}: {error.strerror}. Fix: free space or choose another folder.")
