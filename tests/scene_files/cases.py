"""A damaged input, and how such are made from faithful ones."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        kind: what is wrong, in a few words.
        name: what is wrong exactly.
        make: writes the files into an empty folder and returns the words after ``hsfusion``.
        says: what the message has to hold; empty for the name of any file of the folder.
    """

    kind: str
    name: str
    make: Callable[[Path], list[str]]
    says: str


def inspected(kind, name, write, *keys, says=""):
    """A case of ``hsfusion inspect``; ``write`` makes the files and returns the path of the cube."""

    def make(folder):
        return ["inspect", write(folder).name, *keys]

    return Case(kind, name, make, says)


def by(write, *arguments, **options):
    """A writer that calls another with more arguments than the folder."""
    return lambda folder: write(folder, *arguments, **options)


def holding(name, content):
    """A writer of a file of these bytes."""

    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def changed(write, change):
    """A writer of a faithful file that is then changed by a function of its bytes."""

    def write_changed(folder):
        path = write(folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return write_changed


def flipped(write, at, bit=0):
    """A writer of a faithful file of which one bit is then flipped.

    Args:
        write: the writer.
        at: position of the byte, from the end if negative, or (bytes to look for, position behind their start).
        bit: which of the eight.
    """

    def flip(content):
        start = at if isinstance(at, int) else content.index(at[0]) + at[1]
        start %= len(content)
        return content[:start] + bytes([content[start] ^ 1 << bit]) + content[start + 1 :]

    return changed(write, flip)
