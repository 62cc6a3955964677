"""Rules for values of a stranger's file: each is checked before anything is made of it.

Text in JSON takes up to a hundred times its length as Python values: its size and depth are bounded before it is read.
"""

from __future__ import annotations

import json
import re
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_MOST_BRACKETS = 2**18
_DEEPEST = 8
_LONGEST_NAME = 1_000
# possessive, and to the end where no quote closes it: a string is looked at once
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)

#: raises Unfit where a value, the second argument being its name, is not what it has to be
Rule = Callable[[Any, str], None]


class Unfit(ValueError):
    """A value that is not what it has to be; whoever knows the file makes a line of it."""

    def __init__(self, field: str, value: object, expected: str, fix: str | None = None) -> None:
        super().__init__(f"{field} is {value}, expected {expected}")
        self.field, self.value, self.expected, self.fix = field, value, expected, fix


def shown(value: object) -> str:
    """The ``repr`` of a value of any type, however large, cut to a short word."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    try:
        return short.repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"


def parse_json(text: str, field: str) -> Any:
    """Reads JSON that may be hostile.

    Raises:
        Unfit: if it is no JSON, nests too deep, has too many parts, has a key twice, or numbers that are none.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise Unfit(f"key of {field}", f"{shown(repeated(key for key, _ in pairs))} twice", "each key once")
        return found

    def no_number(word: str) -> None:
        raise Unfit(f"number of {field}", word, "numbers that are finite")

    depth, deepest, brackets = 0, 0, 0
    for bracket in re.finditer(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket.group() in "[{" else -1
        deepest, brackets = max(deepest, depth), brackets + 1
    if deepest > _DEEPEST or brackets > 2 * _MOST_BRACKETS:
        expected = f"at most {_MOST_BRACKETS}, {_DEEPEST} in one another"
        raise Unfit(f"lists and mappings of {field}", f"{brackets // 2}, {deepest} in one another", expected)
    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        if isinstance(error, Unfit):
            raise
        raise Unfit(field, f"no JSON ({str(error)[:80]})", "JSON") from error


def whole(low: int, high: int) -> Rule:
    """A whole number in a range; True and 3.0 are none."""

    def rule(value: Any, field: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise Unfit(field, shown(value), f"a whole number from {low} to {high}")

    return rule


def number(low: float, high: float) -> Rule:
    """A number in a finite range, which no nan is."""

    def rule(value: Any, field: str) -> None:
        if type(value) not in (int, float) or not low <= value <= high:
            raise Unfit(field, shown(value), f"a number from {low:g} to {high:g}")

    return rule


def matching(pattern: re.Pattern[str], expected: str) -> Rule:
    """A text of one form."""

    def rule(value: Any, field: str) -> None:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise Unfit(field, shown(value), expected)

    return rule


def flag(value: Any, field: str) -> None:
    """True or false."""
    if type(value) is not bool:
        raise Unfit(field, shown(value), "true or false")


def text(longest: int = _LONGEST_NAME) -> Rule:
    """A text in one line, without characters that control a terminal or turn the direction of writing."""

    def rule(value: Any, field: str) -> None:
        if not isinstance(value, str) or len(value) > longest or not value.strip() or any(map(_controls, value)):
            raise Unfit(field, shown(value), f"a line of 1 to {longest} letters without control characters")

    return rule


def _controls(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return kind in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(letter) in {
        *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    }


def plain(value: Any, field: str) -> None:
    """A finite number, true or false, nothing, or a line of text."""
    if isinstance(value, str):
        text()(value, field)
    elif value is not None and type(value) is not bool:
        number(-1e300, 1e300)(value, field)


def maybe(rule: Rule) -> Rule:
    """The same, or nothing."""
    return lambda value, field: None if value is None else rule(value, field)


def either(one: Rule, other: Rule) -> Rule:
    """A list by the second rule, anything else by the first."""
    return lambda value, field: (other if isinstance(value, list) else one)(value, field)


def each(rule: Rule, least: int, most: int) -> Rule:
    """A list of things of one kind."""

    def check(value: Any, field: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            length = f"{len(value)} long" if isinstance(value, list) else shown(value)
            raise Unfit(field, length, f"a list of {least} to {most}")
        for i, item in enumerate(value):
            rule(item, f"{field}[{i}]")

    return check


def table(rule: Rule, most: int) -> Rule:
    """A mapping from names to things of one kind."""

    def check(value: Any, field: str) -> None:
        if not isinstance(value, dict) or len(value) > most:
            raise Unfit(field, shown(value), f"a mapping of at most {most} names")
        for i, (key, item) in enumerate(value.items()):
            text()(key, f"name {i + 1} of {field}")
            rule(item, f"{field}.{key}")

    return check


def fields(needed: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None) -> Rule:
    """A mapping with these keys, and no others."""
    rules = {**needed, **(optional or {})}

    def check(value: Any, field: str) -> None:
        if not isinstance(value, dict):
            raise Unfit(field, shown(value), "a mapping")
        if missing := [key for key in needed if key not in value]:
            raise Unfit(f"{field}.{missing[0]}", "missing", f"a {field} with {', '.join(needed)}")
        if unknown := [key for key in value if key not in rules]:
            raise Unfit(f"key of {field}", shown(unknown[0]), f"of {', '.join(rules)}")
        for key, item in value.items():
            rules[key](item, f"{field}.{key}")

    return check


def repeated(names: Iterable[str]) -> str:
    """The name that occurs most often."""
    return Counter(names).most_common(1)[0][0]
