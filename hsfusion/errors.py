"""Errors that a user can cause or meet, each with the exit code of the command; and text that is safe to print."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

#: signals that end a command, the last of them by submitit; on Windows there are two
STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
]


def is_first_process() -> bool:
    """Whether this process is the only one of a command, or the first of those started by torchrun or Lightning."""
    return {os.environ.get(rank, "0") for rank in ("RANK", "LOCAL_RANK")} == {"0"}


def printable(text: object, *, longest: int | None = 200) -> str:
    r"""Text of any origin in one line that cannot control a terminal, truncated after ``longest`` characters.

    Letters of all scripts stay as they are. What :meth:`str.isprintable` says is none (control characters, line breaks,
    what turns the direction of writing, lone surrogates) is shown as ``\n``, ``\x1b``, or, from DEL on, as ``\u202e``,
    so that JSON, which holds no control characters below it, stays JSON.
    """
    words = str(text)
    if longest is not None and len(words) > longest:
        words = words[:longest] + "..."
    return words if words.isprintable() else "".join(map(_escaped, words))


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return letter
    if letter < " ":
        return letter.encode("unicode_escape").decode()
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def correction(word: str, known: Iterable[str], otherwise: str, *, prefix: str = "", least: float = 0.6) -> str:
    """How to correct a misspelt word: the most similar known one if it is similar enough (0 to 1), or otherwise."""
    close = get_close_matches(word, list(known), 1, least)
    return f"did you mean {prefix}{close[0]}?" if close else otherwise


class HsFusionError(Exception):
    """An expected failure, reported in one line without a traceback."""

    exit_code = 2


class InputError(HsFusionError):
    """Invalid input from the user: a file, a field or a configuration value."""

    def __init__(self, source: object, field: str, value: object, expected: str, fix: str) -> None:
        """Words one line, ``<source>: <field> is <value>, expected <expected>. Fix: <fix>``; a fix is an imperative."""
        line = f"{source}: {field} is {value}, expected {expected}. Fix: {fix}{'' if fix.endswith('?') else '.'}"
        super().__init__(printable(line, longest=None))
        self.source, self.field, self.value, self.expected, self.fix = source, field, value, expected, fix

    def __reduce__(self) -> tuple[Any, ...]:
        """How it travels to another process: as its five values, not as its line."""
        return InputError, (self.source, self.field, self.value, self.expected, self.fix)


class EnvironmentFailure(HsFusionError):
    """The machine does not allow the run: disk, permission, lock or accelerator."""

    exit_code = 3


class DivergedError(HsFusionError):
    """The loss became infinite or NaN."""

    exit_code = 4
