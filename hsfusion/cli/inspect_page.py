"""The page of text that ``hsfusion inspect`` prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hsfusion.errors import printable, unescaped
from hsfusion.runs.inspection import Inspected
from hsfusion.scenes.plausibility import exact, format_band_ranges

WIDTH = 100
_LEFT = 14  # column of the names


def print_page(inspected: Inspected) -> None:
    """Prints the page: plain text where the output is no terminal."""
    console = Console(highlight=False, emoji=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    with console.capture() as captured:
        _render(console, inspected)
    for line in captured.get().splitlines():
        print(line.rstrip(), file=unescaped(sys.stdout))


def _text(words: str, style: str = "") -> Text:
    """Text of a file, in which nothing but the style steers the terminal."""
    return Text(printable(words, longest=None), style)


def _render(console: Console, inspected: Inspected) -> None:
    file = inspected.file
    console.print(_text(file.path.name, "bold"), soft_wrap=True)
    console.print(_text(str(file.path.parent), "dim"), soft_wrap=True)
    sections = {"File": _file(inspected)}
    if not inspected.is_labels:
        sections |= {"Bands": _bands(inspected), "Values": _values(inspected)}
    sections["Place"] = iter(inspected.place.items())
    for title, rows in sections.items():
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=_LEFT, style="dim")
        table.add_column(overflow="fold")
        for name, text in rows:
            table.add_row(_text(name), _text(text))
        _section(console, title, table)
    if inspected.labels is not None:
        _section(console, "Labels", _labels(inspected))
    _section(console, "Warnings", _warnings(inspected))


def _section(console: Console, title: str, content: Table | Text) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    console.print(Padding(content, (0, 0, 0, 2)))


def _file(inspected: Inspected) -> Iterator[tuple[str, str]]:
    file = inspected.file
    rows, columns = file.geobox.shape
    yield "format", file.format
    yield from file.facts.items()
    kind = "band" if file.layers == 1 else "bands"
    yield "size", f"{rows:,} rows x {columns:,} columns x {file.layers:,} {kind}"
    if not inspected.is_labels:
        for name, layers in inspected.sources:
            yield "also", f"{name}: {layers} {'layer' if layers == 1 else 'layers'} on the same grid"
        yield "memory", f"{_bytes(rows * columns * file.layers * 4)} when loaded (float32)"


def _bands(inspected: Inspected) -> Iterator[tuple[str, str]]:
    bands, table = inspected.bands, inspected.file.table
    if bands is None:
        named = table.wavelength
        inside = "" if named is None else f": {named.min():g} to {named.max():g}, unit {table.unit or 'not named'}"
        yield "wavelengths", f"not known in nm, see the warnings{inside}"
    else:
        nm = bands.wavelength_nm
        yield "wavelengths", f"{nm.min():.1f} to {nm.max():.1f} nm{_spacing(nm)}"
        yield "from", f"{table.source}, unit {table.unit or 'given by wavelength_unit'}"
        fwhm = bands.fwhm_nm
        yield "FWHM", "not named" if fwhm is None else f"{fwhm.min():.1f} to {fwhm.max():.1f} nm"
    yield from _bad_bands(inspected)


def _bad_bands(inspected: Inspected) -> Iterator[tuple[str, str]]:
    bands, found = inspected.bands, inspected.found
    empty = found.no_data == 1
    reasons = {
        "marked": inspected.marked_bad,
        "by bad_bands": inspected.given_bad,
        "no data": empty,
        "one value": found.dead & ~empty,
    }
    bad = np.logical_or.reduce(list(reasons.values()))
    yield "bad bands", f"{bad.sum()} of {bad.size}" if bad.any() else "none"
    for reason, chosen in reasons.items():
        if chosen.any():
            yield f"  {reason}", f"{chosen.sum()}: {format_band_ranges(chosen, bands)}"


def _values(inspected: Inspected) -> Iterator[tuple[str, str]]:
    file, found = inspected.file, inspected.found
    yield "scale", _scale(file.gain, file.offset)
    good = inspected.good & ~found.dead
    if good.any():
        yield "range", f"{found.lowest[good].min():.5g} to {found.highest[good].max():.5g} in good bands"
        low, _, middle, _, high = np.median(found.quantiles[:, good], axis=1)
        yield "quantiles", f"2 / 50 / 98 %: {low:.4g} / {middle:.4g} / {high:.4g}, medians of the good bands"
        values = (1 - found.no_data[good]).sum()
        zero, negative = found.zero[good].sum() / values, found.negative[good].sum() / values
        yield "zeros", f"{_share(zero)} of the values in good bands; negative {_share(negative)}"
    yield "nodata value", "the file names none" if file.nodata is None else exact(file.as_stored(file.nodata))
    some = found.no_data[good].mean() if good.any() else 0
    none = "none in good bands"
    yield (
        "no data",
        f"{_share(found.empty)} of the pixels in all bands; {_share(some)} of the values in good bands"
        if some
        else none,
    )
    if found.pixels < found.total:
        share = found.pixels / found.total
        yield "looked at", f"{found.pixels:,} of {found.total:,} pixels ({share:.1%}), in evenly spaced rows"
    else:
        yield "looked at", f"all {found.total:,} pixels"


def _scale(gain: NDArray[np.float64] | None, offset: NDArray[np.float64] | None) -> str:
    if gain is None and offset is None:
        return "none named: values are as stored"
    parts = [f"{sign} {_span(values)}" for sign, values in (("x", gain), ("+", offset)) if values is not None]
    return f"stored values {' '.join(parts)}, applied once"


def _span(values: NDArray[np.float64]) -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g} (one for each band)"


def _labels(inspected: Inspected) -> Table:
    labels = inspected.labels or ()
    labelled = sum(count.pixels for count in labels if count.code != 0)
    classes = sum(count.code != 0 for count in labels)
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("right", "left", "right", "right"):
        table.add_column(justify=justify, overflow="fold")
    table.add_row(*(Text(word, style="dim") for word in ("code", "class", "pixels", "of labelled")))
    for count in labels:
        share = "" if count.code == 0 or not labelled else f"{count.pixels / labelled:.1%}"
        table.add_row(Text(str(count.code)), _text(count.name), Text(f"{count.pixels:,}"), Text(share))
    total = "1 class" if classes == 1 else f"{classes} classes"
    table.add_row("", Text(total), Text(f"{labelled:,}"), "")
    return table


def _warnings(inspected: Inspected) -> Table | Text:
    if not inspected.warnings:
        return Text("none")
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="yellow")
    table.add_column(overflow="fold")
    for line in inspected.warnings:
        table.add_row("!", _text(line))
    return table


def _spacing(nm: NDArray[np.float64]) -> str:
    step = np.abs(np.diff(nm))
    return f", {np.median(step):.3g} nm apart (median)" if step.size else ""


def _share(value: float) -> str:
    text = f"{value:.1%}" if value >= 0.001 else f"{100 * value:.2g}%"
    return "none" if value == 0 else "all" if value == 1 else text


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
