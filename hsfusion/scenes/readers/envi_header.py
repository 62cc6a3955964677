"""The text header of an ENVI file. Specification: NV5 Geospatial, ENVI Header Files."""

from __future__ import annotations

import re
import stat
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spectral.io.envi import EnviException, read_envi_header

from hsfusion.errors import InputError
from hsfusion.scenes.readers.band_tags import strict_number

_MOST_BYTES, _MOST_LINES = 2**20, 20_000
_FIX = "correct the header"


def envi_header(path: Path) -> Path | None:
    """The ENVI header that a path names or that lies beside it; None where there is none.

    Raises:
        InputError: if what lies beside is a link, or neither a file nor a folder.
    """
    if _starts_as_header(path):
        return path
    for end in (".hdr", ".HDR"):
        for beside in (Path(f"{path}{end}"), path.with_suffix(end)):
            if beside != path and is_plain_beside(beside) and _starts_as_header(beside):
                return beside
    return None


def is_plain_beside(path: Path) -> bool:
    """Whether a plain file stands at a path that the user has not named; a link there could lead anywhere.

    Raises:
        InputError: if a link or a device stands there.
    """
    try:
        kind = path.lstat().st_mode
    except OSError:
        return False
    if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
        return stat.S_ISREG(kind)
    raise InputError(
        path, field="file", value="a link or no plain file", expected="the file itself", fix="put it there"
    )


def _starts_as_header(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"ENVI"
    except OSError:
        return False


class EnviHeader:
    """The fields of a header, each asked for with its type.

    Attributes:
        path: the header.
        fields: text, or the words of a list, by name in lower case.
    """

    def __init__(self, path: Path) -> None:
        """Reads a header.

        Raises:
            InputError: if it is too large or no text, a list has no end, or a field is given twice.
        """
        self.path = path
        start = path.read_bytes() if path.stat().st_size <= _MOST_BYTES else b""
        if not start or start.count(b"\n") > _MOST_LINES:
            raise self.error(
                "size", "too large", f"at most {_MOST_BYTES} bytes and {_MOST_LINES} lines", "name the header"
            )
        try:
            text = start.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error("content", "unreadable", "an ENVI header in UTF-8", "write it anew") from error
        self._check_fields(text)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that names were not in lower case
                self.fields: dict[str, str | list[str]] = read_envi_header(str(path))
        except EnviException as error:
            raise self.error("content", "unreadable", "an ENVI header", "write it anew") from error

    def _check_fields(self, text: str) -> None:
        """Refuses what the parser passes over: of two fields of one name it takes the last."""
        outside = re.sub(r"{[^}]*}", "", text)
        names = [line.partition("=")[0] for line in outside.splitlines()[1:] if "=" in line and line[0] != ";"]
        names = [" ".join(name.lower().split()) for name in names]
        twice = next((name for name, times in Counter(names).items() if times > 1), None)
        if twice is not None:
            raise self.error(f"field {twice!r}"[:60], "given twice", "one value", "keep one")
        if "{" in outside:
            raise self.error("content", "a list without an end", "lists that end in }")

    def error(self, field: str, value: object, expected: str, fix: str = _FIX) -> InputError:
        """An error that names this header."""
        return InputError(self.path, field=field, value=value, expected=expected, fix=fix)

    def text(self, name: str, default: str | None = None) -> str:
        """A field that is one word or more."""
        value = self.fields.get(name, default)
        if not isinstance(value, str):
            raise self.error(name, "missing" if value is None else repr(value)[:60], "a word")
        return value.strip()

    def words(self, name: str) -> list[str]:
        """A field that is a list of words, each in one line; empty where the field is missing or holds nothing."""
        value = self.fields.get(name, [])
        words = [" ".join(word.split()) for word in (value if isinstance(value, list) else [value])]
        return words[:-1] if words and not words[-1] else words  # a comma may end a list

    def choice(self, name: str, known: Any) -> str:
        """A field that is one of the known words."""
        value = self.text(name).lower()
        if value not in known:
            raise self.error(name, value, " | ".join(known))
        return value

    def integer(self, name: str, *, lowest: int, default: int | None = None) -> int:
        """A field that is a whole number."""
        value = self.text(name, None if default is None else str(default))
        if not (value.isascii() and value.isdigit() and len(value) < 19 and int(value) >= lowest):
            raise self.error(name, value[:60], f"a whole number of at least {lowest}")
        return int(value)

    def number(self, name: str) -> float | None:
        """A field that is one number, or None where it is missing."""
        values = self.numbers(name, length=1)
        return None if values is None else float(values[0])

    def numbers(self, name: str, *, length: int | None) -> NDArray[np.float64] | None:
        """A field that is a list of finite numbers (length,), or None where it is missing.

        Args:
            name: the field.
            length: how many; None for any.
        """
        if name not in self.fields:
            return None
        words = self.words(name)
        if length is not None and len(words) != length:
            raise self.error(f"number of values of {name}", len(words), str(length))
        return np.array([strict_number(self.path, name, word) for word in words])
