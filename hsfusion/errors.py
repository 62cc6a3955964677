"""The errors a user can cause or meet, each with the exit code the command line ends with."""

from __future__ import annotations


class HsFusionError(Exception):
    """An expected failure, told in one line and without a traceback."""

    exit_code = 2


class InputError(HsFusionError):
    """Something the user gave (a file, a field, a configuration value) is not what it has to be."""

    def __init__(self, source: object, *, field: str, value: object, expected: str, fix: str) -> None:
        """Words one line, ``<source>: <field> is <value>, expected <expected>. Fix: <fix>``.

        Args:
            source: the file, or the part of the configuration, that holds the value.
            field: name of the offending field.
            value: what stands there.
            expected: what has to stand there.
            fix: what the user can do about it, as an imperative.
        """
        super().__init__(f"{source}: {field} is {value}, expected {expected}. Fix: {fix}.")
        self.field, self.value, self.expected, self.fix = field, value, expected, fix


class EnvironmentFailure(HsFusionError):
    """The machine does not allow the run: disk, permission, lock or accelerator."""

    exit_code = 3


class DivergedError(HsFusionError):
    """The loss stopped being a finite number."""

    exit_code = 4
