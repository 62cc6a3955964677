"""The legend: which classes there are, and what they are called and coloured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError

#: 24 colours that stay apart on a map; more classes start over
PALETTE = (
    *("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6"),
    *("#bfef45", "#fabed4", "#469990", "#dcbeff", "#9a6324", "#808000", "#800000", "#000075"),
    *("#aaffc3", "#ffd8b1", "#a9a9a9", "#e4a900", "#1b7837", "#5ab4ac", "#c51b7d", "#7f3b08"),
)
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class Legend:
    """Codes, names and colours of the K classes, in the order of the network's outputs.

    Attributes:
        codes: K positive integers, ascending; 0 is always "unlabelled".
        names: K names, unique.
        colors: K colours as ``#rrggbb``.
    """

    codes: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[str, ...]

    def __post_init__(self) -> None:
        """Checks codes, names and colours.

        Raises:
            InputError: if lengths differ, codes are not ascending in 1..65535, names repeat, or a colour is none.
        """
        if not len(self.codes) == len(self.names) == len(self.colors) >= 1:
            raise _error(
                "numbers of codes, names and colours",
                (len(self.codes), len(self.names), len(self.colors)),
                "three times the same, at least 1",
                "give every class a code, a name and a colour",
            )
        if list(self.codes) != sorted(set(self.codes)) or not 1 <= self.codes[0] <= self.codes[-1] <= 65535:
            raise _error(
                "codes", self.codes, "ascending integers from 1 to 65535, 0 being unlabelled", "renumber the classes"
            )
        if len(set(self.names)) < len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise _error("names", f"{twice} for more than one class", "unique names", "rename classes by class_names")
        for color in self.colors:
            if not _COLOR.fullmatch(color):
                raise _error("colour", repr(color), "#rrggbb", "write colours like #ffcc00, in quotation marks")

    @classmethod
    def of(
        cls,
        labels: NDArray[np.integer],
        *,
        names: Mapping[int, str] | None = None,
        colors: Mapping[int, str] | None = None,
    ) -> Legend:
        """Legend of the codes that occur in labels (H, W).

        Args:
            labels: (H, W) class codes, 0 for unlabelled.
            names: names of codes; codes without one are called ``class <code>``.
            colors: colours of codes as ``#rrggbb``; codes without one take the next of the palette that is free.

        Raises:
            InputError: if a name or colour is given to a code that does not occur.
        """
        codes = [int(code) for code in np.unique(labels) if code != 0]
        named = {int(code): str(name) for code, name in (names or {}).items()}
        colored = {int(code): str(color).lower() for code, color in (colors or {}).items()}
        for field, given in (("named codes", named), ("coloured codes", colored)):
            unknown = sorted(set(given) - set(codes))
            if unknown:
                raise _error(field, unknown, f"codes of the labels {codes}", "drop them")
        free = [color for color in PALETTE if color not in colored.values()] or list(PALETTE)
        bare = [code for code in codes if code not in colored]
        colored |= {code: free[i % len(free)] for i, code in enumerate(bare)}
        return cls(
            tuple(codes),
            tuple(named.get(code, f"class {code}") for code in codes),
            tuple(colored[code] for code in codes),
        )

    def indices(self, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """Class indices 0..K-1 of codes; -1 for codes that are not in the legend (such as 0)."""
        position = np.searchsorted(self.codes, labels)
        position = np.minimum(position, len(self.codes) - 1)
        return np.where(np.asarray(self.codes)[position] == labels, position, -1)

    def _repr_html_(self) -> str:
        """A table with the colours of the classes, for notebooks."""
        return self.table_html()

    def table_html(self, **columns: Sequence[object]) -> str:
        """An HTML table of the classes.

        Args:
            columns: more columns by their heading, of K cells each.
        """
        head = "".join(f"<th>{escape(name)}</th>" for name in ("", "code", "class", *columns))
        rows = [
            f'<tr><td style="background: {color}; min-width: 1.5em"></td>'
            + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
            + "</tr>"
            for color, *cells in zip(self.colors, self.codes, self.names, *columns.values(), strict=True)
        ]
        return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def by_code(given: Sequence[str] | Mapping[Any, str] | None, *, field: str = "class_names") -> dict[Any, str]:
    """Names or colours by code, from such a mapping or from a list that starts with that of code 1.

    Raises:
        InputError: if it is neither.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, str) or not isinstance(given, Sequence):
        what = "name" if field == "class_names" else "#rrggbb"
        raise _error(field, given, f"{{code: {what}, ...}}", f"give every class its {what} by its code")
    return dict(enumerate(given, start=1))


def _error(field: str, value: object, expected: str, fix: str) -> InputError:
    return InputError("legend", field, value, expected, fix)


def is_named(name: str) -> bool:
    """Whether the name of a class was given, not made of its code (class 1), which says nothing of another scene."""
    return re.fullmatch(r"\s*class \d+\s*", name) is None
