"""Writing files: each gets its name when it is complete and on disk; until then the older one stays."""

from __future__ import annotations

import hashlib
import operator
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hsfusion.errors import EnvironmentFailure

#: names, as a glob, of what processes leave that are killed while they write
LEFTOVERS = ".*.[0-9]*.part*"
#: what stands before the SHA-256 of a file at its very end, where readers of TIFF and zip archives do not look
SEAL = b"hsfusion_sha256="
#: length of both
SEAL_BYTES = len(SEAL) + 64
# of giving a file its name: on Windows a virus scanner holds a new file for a moment
_TRIES = 20 if os.name == "nt" else 1


@contextmanager
def publish(path: str | Path, *, sidecar: str = "") -> Iterator[Path]:
    """Yields the temporary path of a file, beside its own, which it gets if the block ends without an error.

    Before that the file is flushed to disk (fsync), and afterwards its folder, which is created if missing. A process
    killed at any time leaves either the older file or the new one, complete. There may be a second file: an older
    ``<path><sidecar>`` is removed if the block writes none.

    Raises:
        EnvironmentFailure: for every :class:`OSError`.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    endings = dict.fromkeys((sidecar, ""))  # the file itself is the last
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        for ending in endings:
            _name(Path(f"{part}{ending}"), Path(f"{path}{ending}"), optional=ending != "")
        if os.name == "posix":  # Windows opens no folders
            _sync(path.parent, os.O_RDONLY)
    except OSError as error:
        reason, fix = error.strerror or error, "free space or choose another folder"
        if isinstance(error, PermissionError):
            fix = "close it in other programs, or choose a folder you may write to"
        raise EnvironmentFailure(f"{path}: cannot be written ({reason}). Fix: {fix}.") from error
    finally:
        for ending in endings:
            Path(f"{part}{ending}").unlink(missing_ok=True)


def write_file(path: str | Path, content: str | bytes) -> None:
    """Publishes bytes, or a text in UTF-8."""
    with publish(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def seal(path: Path) -> None:
    """Appends the SHA-256 of a file to it."""
    with open(path, "r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.write(SEAL + digest.encode())


def is_sealed(path: Path) -> bool | None:
    """Whether a file is unchanged since :func:`seal`, bit for bit; None if there is no digest at its end."""
    with open(path, "rb") as file:
        rest = max(0, file.seek(0, os.SEEK_END) - SEAL_BYTES)
        file.seek(rest)
        end = file.read()
        if sum(map(operator.eq, end, SEAL)) <= len(SEAL) // 2:  # the words may be damaged, too
            return None
        file.seek(0)
        hashed = hashlib.sha256()
        while part := file.read(min(2**20, rest - file.tell())):
            hashed.update(part)
    return end == SEAL + hashed.hexdigest().encode()


def _name(part: Path, path: Path, *, optional: bool) -> None:
    if optional and not part.exists():
        path.unlink(missing_ok=True)
        return
    _sync(part, os.O_RDWR)
    for left in reversed(range(_TRIES)):
        try:
            part.replace(path)
            return
        except PermissionError:
            if not left:
                raise
            time.sleep(0.1)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
