"""A journal of finished tiles: what a killed run leaves for the next one to continue from."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import EnvironmentFailure

_log = logging.getLogger(__name__)


class Journal:
    """An SQLite file that says what is computed, and holds the content of each finished tile.

    It is locked as long as it is open, and a tile is in it as a whole or not at all.

    Args:
        path: the file; made if it is not there, emptied if it is of another plan.
        plan: plain values that say what is computed.

    Raises:
        EnvironmentFailure: if the file cannot be written, or another process writes to it.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any]) -> None:
        self.path = path
        self._reading = threading.Lock()
        head = json.dumps(plan, sort_keys=True).encode()
        with _failures(path), ExitStack() as stack:
            self._file = sqlite3.connect(path, timeout=0, check_same_thread=False)
            stack.callback(self._file.close)
            self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._file.execute("PRAGMA synchronous = OFF")  # outlives a killed process, not a power failure
            self._file.execute("BEGIN EXCLUSIVE")
            for table in ("plan", "tiles"):
                self._file.execute(f"CREATE TABLE IF NOT EXISTS {table} (number INTEGER PRIMARY KEY, content BLOB)")
            known = self._file.execute("SELECT content FROM plan").fetchone()
            if known != (head,):
                if known:
                    _log.warning("%s tells of another scene, model or setting: its tiles are computed anew.", path)
                self._file.execute("DELETE FROM tiles")
                self._file.execute("REPLACE INTO plan VALUES (0, ?)", (head,))
            self._file.commit()
            stack.pop_all()

    @property
    def tiles(self) -> set[int]:
        """The numbers of the finished tiles."""
        with _failures(self.path):
            return {number for (number,) in self._file.execute("SELECT number FROM tiles")}

    def append(self, tile: int, layers: NDArray[np.generic]) -> None:
        """Adds a finished tile by its number; :meth:`read` gives the same bytes.

        Raises:
            EnvironmentFailure: if the disk is full.
        """
        with _failures(self.path):
            self._file.execute("REPLACE INTO tiles VALUES (?, ?)", (tile, layers.tobytes()))
            self._file.commit()

    def read(self, tile: int) -> bytes:
        """What was added for a tile; several threads may ask at once."""
        with self._reading, _failures(self.path):
            return self._file.execute("SELECT content FROM tiles WHERE number = ?", (tile,)).fetchone()[0]

    def close(self) -> None:
        """Lets other processes write to the file; what :func:`contextlib.closing` calls."""
        self._file.close()


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        what, fix = str(error), "free space or choose another folder"
        if not isinstance(error, sqlite3.OperationalError):
            fix = "delete the file and start again"
        if "locked" in what:
            what, fix = "is being written by another process", "wait for it, or choose another out="
        raise EnvironmentFailure(f"{path}: {what}. Fix: {fix}.") from error
