"""Building blocks of a report page: sections, tables, pictures. All text is escaped here."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

_MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_LARGEST_SVG = 400_000  # bytes, above which its PNG twin is taken
_PIXELS_PER_INCH = 120  # of the page; 8 pt type is then drawn 13 pixels high
_PNG_DOTS_PER_INCH = 200  # as save_figure writes them


def section(heading: str, *content: str) -> str:
    """A section of the page with its heading; the content is HTML."""
    lines = "\n".join(content)
    return f"<section>\n<h2>{escape(heading)}</h2>\n{lines}\n</section>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def caveats(sentences: Sequence[str]) -> str:
    """The box that stands before the numbers; nothing without a sentence."""
    if not sentences:
        return ""
    return f'<section class="caveats"><h2>Before you use these numbers</h2>{_listed(sentences)}</section>'


def verdict_box(word: str, sentences: Sequence[str]) -> str:
    """The verdict on the weights: its word, and why."""
    state = " supported" if word == "supported" else ""
    words = f'<p class="word">Verdict: {escape(word)}.</p>{_listed(sentences)}'
    return section("What the weights are worth", f'<div class="verdict{state}">{words}</div>')


def _listed(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def table(
    caption: str, header: tuple[str, ...], *, rows: Iterable[tuple[str, ...]], numbers: tuple[int, ...] = ()
) -> str:
    """A table whose first column heads its rows, in a container of its own that scrolls.

    Args:
        caption: what the table holds.
        header: one text for each column.
        rows: one text for each column.
        numbers: columns set flush right.
    """
    css = [' class="number"' if i in numbers else "" for i in range(len(header))]
    head = "".join(f'<th scope="col"{c}>{escape(text)}</th>' for text, c in zip(header, css, strict=True))
    body = []
    for first, *rest in rows:
        cells = "".join(f"<td{c}>{escape(text)}</td>" for text, c in zip(rest, css[1:], strict=True))
        body.append(f'<tr><th scope="row"{css[0]}>{escape(first)}</th>{cells}</tr>')
    lines = "\n".join(body)
    inner = (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table>"
    )
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">{inner}</div>'


def preformatted(text: str, *, label: str) -> str:
    """Text whose lines stay as they are."""
    return f'<pre role="region" tabindex="0" aria-label="{escape(label)}"><code>{escape(text)}</code></pre>'


def figures(named: Mapping[str, tuple[Path, str, str]], *, room: int) -> tuple[list[str], int]:
    """Embeds figures in their order, as long as the page has room for them.

    Args:
        named: heading to (path of an SVG or PNG, text in place of the picture, caption).
        room: characters that they may take together.

    Returns:
        HTML of each, and the room that is left

    Raises:
        ValueError: if a figure is neither SVG nor PNG.
        FileNotFoundError: if a figure does not exist.
    """
    parts = []
    for heading, (path, alternative, caption) in named.items():
        path = _lighter(path)
        content = path.read_bytes()
        source = data_uri(content, media_type=_MEDIA_TYPES[path.suffix])
        if len(source) <= room:
            room -= len(source)
            image = f'<img src="{source}" alt="{escape(alternative)}"{_width(content)}>'
            picture = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(heading)}">{image}</div>'
        else:
            picture = f"<p>Too large for this page: see the file {escape(path.name)} of the run.</p>"
        words = f"<strong>{escape(heading)}.</strong> {escape(caption)}"
        parts.append(f"<figure>{picture}<figcaption>{words}</figcaption></figure>")
    return parts, room


def data_uri(content: bytes, *, media_type: str) -> str:
    """An address that holds the content itself."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _lighter(path: Path) -> Path:
    """Checks a figure's kind and takes the PNG beside it if it is an SVG that holds very much."""
    if path.suffix not in _MEDIA_TYPES:
        raise ValueError(f"figure {path} has the extension {path.suffix!r}, expected .svg or .png")
    twin = path.parent / f"{path.stem}.png"
    heavy = path.suffix == ".svg" and path.stat().st_size > _LARGEST_SVG
    return twin if heavy and twin.exists() else path


def _width(content: bytes) -> str:
    """Words the width attribute that draws all figures at one scale, from a PNG's or SVG's own size."""
    if content.startswith(b"\x89PNG"):
        inches = struct.unpack(">I", content[16:20])[0] / _PNG_DOTS_PER_INCH
    elif found := re.search(rb'<svg[^>]*\bwidth="([\d.]+)pt"', content):
        inches = float(found[1]) / 72
    else:
        return ""
    return f' width="{inches * _PIXELS_PER_INCH:.0f}"'
