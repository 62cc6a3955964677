"""The report of a run: one self-contained HTML page without scripts or network."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

_MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_LARGEST_SVG = 400_000  # bytes, above which its PNG twin is taken
_FIGURE_BUDGET = 1_900_000  # characters for all figures together: the page stays below 2 MB
_PIXELS_PER_INCH = 120  # of the page; 8 pt type is then drawn 13 pixels high
_PNG_DOTS_PER_INCH = 200  # as save_figure writes them

_CSS = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --soft: #f3f3f3; --line: #c9c9c9; --warn: #9a3d00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181b; --soft: #23262b; --line: #4a4e55; --warn: #ffb27a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
.caveats { border-left: .3rem solid var(--warn); background: var(--soft); padding: .1rem 1rem; }
.caveats h2 { border: 0; margin: .6rem 0 0; color: var(--warn); }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid currentColor; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; white-space: nowrap; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th.number, td.number { text-align: right; white-space: nowrap; }
figure { margin: 1.2rem 0; }
/* Wider than a phone: small type stays readable and the figure scrolls in its container. */
figure img { display: block; max-width: max(100%, 40rem); height: auto; background: #ffffff; padding: .4rem; }
figcaption { font-size: .9rem; margin-top: .4rem; }
pre { background: var(--soft); padding: .8rem; margin: .5rem 0; overflow: auto; max-height: 28rem; font-size: .82rem; }
@media print {
  :root { --ink: #000000; --paper: #ffffff; --soft: #ffffff; --line: #999999; --warn: #000000; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  figure, table, .caveats { break-inside: avoid; }
  h2 { break-after: avoid; }
  figure img { max-width: 100%; padding: 0; }
  .scroll, pre { overflow: visible; max-height: none; }
  pre { white-space: pre-wrap; border: 1px solid #999999; }
}
"""
# An img runs no script, and inside it the ids of one SVG cannot meet those of another.
# The page asks for nothing and runs nothing, even if something slipped through.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def report_html(
    *,
    title: str,
    summary: Mapping[str, str],
    caveats: Sequence[str],
    figures: Mapping[str, tuple[Path, str, str]],
    per_class: Sequence[tuple[str, float | None, int]],
    top_windows: Sequence[tuple[float, float, float]],
    configuration: str,
    versions: Mapping[str, str],
    reproduce: str,
) -> str:
    """Writes the report of a run as one HTML page of less than 2 MB (configuration apart), everything escaped.

    Args:
        title: heading of the page.
        summary: what to value, the numbers to read first.
        caveats: sentences a reader must see before the numbers; none for no such box.
        figures: heading to (path of an SVG or PNG, text in place of the picture, caption). A very large SVG gives way
            to the PNG beside it; a figure the page has no room for is named instead.
        per_class: (class name, accuracy 0..1 or None without test pixels, test pixels).
        top_windows: (lower nm, upper nm, weight 0..1), in the order to list.
        configuration: resolved configuration as text.
        versions: package to version.
        reproduce: the command that repeats the run.

    Raises:
        ValueError: if a figure is neither SVG nor PNG.
        FileNotFoundError: if a figure does not exist.
    """
    results = _table("Settings and results", ("quantity", "value"), rows=summary.items())
    parts = [_caveats(caveats), _section("Summary", results)]
    parts += [_section("Figures", *_figures(figures))] if figures else []
    parts += [_windows(top_windows), _classes(per_class)]
    parts += [_section("How to repeat this run", _preformatted(reproduce, label="Command"))]
    parts += [_section("Configuration", _preformatted(configuration, label="Configuration"))]
    parts += [_section("Software", _table("Versions", ("package", "version"), rows=versions.items()))]
    return _page(title, "\n".join(parts))


def _page(title: str, content: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{content}
</main>
</body>
</html>
"""


def _section(heading: str, *content: str) -> str:
    lines = "\n".join(content)
    return f"<section>\n<h2>{escape(heading)}</h2>\n{lines}\n</section>"


def _windows(windows: Sequence[tuple[float, float, float]]) -> str:
    rows = [(f"{low:.0f}–{high:.0f}", f"{100 * weight:.1f} %") for low, high, weight in windows]
    table = _table("Share of the total band weight", ("window (nm)", "weight"), rows=rows, numbers=(1,))
    return _section("Wavelength windows with the largest weight", table)


def _classes(per_class: Sequence[tuple[str, float | None, int]]) -> str:
    rows = [(name, "none" if a is None else f"{100 * a:.1f} %", f"{pixels:,}") for name, a, pixels in per_class]
    table = _table("Recall on the test pixels", ("class", "accuracy", "test pixels"), rows=rows, numbers=(1, 2))
    return _section("Accuracy per class", table)


def _caveats(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<section class="caveats"><h2>Before you use these numbers</h2><ul>{items}</ul></section>'


def _table(
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
        body.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    lines = "\n".join(body)
    table = (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table>"
    )
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">{table}</div>'


def _preformatted(text: str, *, label: str) -> str:
    return f'<pre role="region" tabindex="0" aria-label="{escape(label)}"><code>{escape(text)}</code></pre>'


def _figures(figures: Mapping[str, tuple[Path, str, str]]) -> list[str]:
    """Embeds the figures in their order, as long as the page has room for them."""
    room = _FIGURE_BUDGET
    parts = []
    for heading, (path, alternative, caption) in figures.items():
        path = _lighter(path)
        content = path.read_bytes()
        uri = f"data:{_MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(content).decode('ascii')}"
        if len(uri) <= room:
            room -= len(uri)
            image = f'<img src="{uri}" alt="{escape(alternative)}"{_width(content)}>'
            picture = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(heading)}">{image}</div>'
        else:
            picture = f"<p>Too large for this page: see the file {escape(path.name)} of the run.</p>"
        words = f"<strong>{escape(heading)}.</strong> {escape(caption)}"
        parts.append(f"<figure>{picture}<figcaption>{words}</figcaption></figure>")
    return parts


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
