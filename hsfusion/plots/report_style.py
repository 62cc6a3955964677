"""Frame of a report page: its look, its one small script, and the policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
from html import escape

_CSS = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --soft: #f3f3f3; --line: #c9c9c9; --warn: #9a3d00;
  --good: #1b6e3c; --curve: #005a94; --random: #6b6b6b; --even: #ebebeb; --odd: #f7f7f7; --hatch: #9a9a9a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181b; --soft: #23262b; --line: #4a4e55; --warn: #ffb27a;
    --good: #7fd8a0; --curve: #7cc4f5; --random: #a9a9a9; --even: #2b2f35; --odd: #1f2226; --hatch: #6a6f78; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.caveats, .verdict { border-left: .3rem solid var(--warn); background: var(--soft); padding: .1rem 1rem; }
.verdict.supported { border-color: var(--good); }
.caveats h2 { border: 0; margin: .6rem 0 0; color: var(--warn); }
.verdict .word { font-weight: 700; color: var(--warn); }
.verdict.supported .word { color: var(--good); }
.scroll { overflow-x: auto; max-width: 100%; }
:focus-visible { outline: 2px solid currentColor; outline-offset: 1px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th.number, td.number { text-align: right; }
td.number { white-space: nowrap; }
th[scope=row] { min-width: 6.5rem; }
th.number[scope=row] { min-width: 0; }
@media (min-width: 48rem) { caption { white-space: nowrap; } }
.tables { display: flex; flex-wrap: wrap; gap: 0 4rem; }
summary { cursor: pointer; padding: .3rem 0; }
figure { margin: 1.2rem 0; }
/* Wider than a phone: small type stays readable and the figure scrolls in its container. */
figure .scroll img { display: block; max-width: max(100%, 40rem); height: auto; background: #ffffff; padding: .4rem; }
figcaption { font-size: .9rem; margin-top: .4rem; }
pre { background: var(--soft); padding: .8rem; margin: .5rem 0; overflow: auto; max-height: 28rem; font-size: .82rem; }
.keys { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; list-style: none; margin: .4rem 0; padding: 0;
  font-size: .85rem; }
.keys svg { width: 1.5rem; height: .8rem; margin-right: .35rem; vertical-align: -.05rem; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: 1rem;
  align-items: start; }
.maps figure, .charts figure { margin: 0; min-width: 0; }
.maps img { display: block; height: auto; max-width: 100%; border: 1px solid var(--line);
  image-rendering: pixelated; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.6rem 1rem; }
/* Percentages place what is in a chart: its lines stretch with the page, its letters do not. */
.plot { display: block; overflow: visible; width: calc(100% - 4.6rem); height: 13rem; margin: .8rem .6rem 3.2rem 4rem;
  font-size: .78rem; touch-action: pan-y; }
.weights .plot { height: 19rem; }
.plot text { fill: var(--ink); }
.plot .group { stroke: var(--paper); stroke-width: 3px; paint-order: stroke; }
.plot line { stroke: var(--line); }
.plot .frame { fill: none; stroke: var(--line); }
.plot path { fill: none; vector-effect: non-scaling-stroke; stroke-linecap: round; stroke-linejoin: round; }
.curve { stroke: var(--curve); stroke-width: 2.2px; }
.run { stroke: var(--random); stroke-width: 1.4px; stroke-dasharray: 4 4; }
.plot path.area, rect.area { fill: var(--curve); opacity: .28; }
.plot path.random-area, rect.random-area { fill: var(--random); opacity: .28; }
.uniform { fill: none; stroke: var(--warn); stroke-width: 1.5px; stroke-dasharray: 7 4; }
.plot line.weak, line.weak { stroke: var(--ink); stroke-dasharray: 1 3; }
.plot line.cursor { stroke: var(--ink); stroke-width: 1.5px; }
.dot { fill: var(--curve); }
.even { fill: var(--even); }
.odd { fill: var(--odd); }
.bands rect { fill: none; pointer-events: all; }
.hatching { stroke: var(--hatch); }
.plot .stamp { font-size: clamp(1.4rem, 6vw, 3rem); font-weight: 700; fill: var(--warn); opacity: .35; }
.reader { margin: 0 0 .4rem; }
.reader input { width: 100%; margin: 0; }
.reader output { display: block; min-height: 3em; font-variant-numeric: tabular-nums; }
@media (max-width: 48rem) { .plot .group { display: none; } }
@media print {
  :root { color-scheme: light; --ink: #000000; --paper: #ffffff; --soft: #ffffff; --line: #999999; --warn: #000000;
    --good: #000000; --curve: #000000; --random: #6b6b6b; --even: #ebebeb; --odd: #f7f7f7; --hatch: #9a9a9a; }
  * { print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  figure, tr, .caveats, .verdict, .keys { break-inside: avoid; }
  h2, h3, caption, summary { break-after: avoid; }
  figure .scroll img { max-width: 100%; max-height: 22cm; padding: 0; }
  .scroll, pre { overflow: visible; max-height: none; }
  pre { white-space: pre-wrap; border: 1px solid #999999; }
  .maps { grid-template-columns: repeat(3, 1fr); }
  .reader, .cursor { display: none; }
}
"""

# Says the values of the band below the pointer, or of the one that the slider stands at. A page without it holds the
# same values as tool tips and in a table.
_SCRIPT = """
"use strict";
for (const figure of document.querySelectorAll("figure.weights")) {
  const plot = figure.querySelector("svg.plot"), cursor = plot.querySelector(".cursor");
  const slider = figure.querySelector("input"), said = figure.querySelector("output");
  const bands = Array.from(plot.querySelectorAll(".bands rect"), (rect) => {
    const title = rect.querySelector("title"), words = title.textContent;
    title.remove();
    return { at: Number(rect.dataset.at), words };
  });
  const show = (i) => {
    cursor.setAttribute("x1", bands[i].at + "%");
    cursor.setAttribute("x2", bands[i].at + "%");
    cursor.removeAttribute("visibility");
    said.textContent = bands[i].words;
    slider.value = i;
    slider.setAttribute("aria-valuetext", bands[i].words);
  };
  const point = (event) => {
    const box = plot.getBoundingClientRect(), at = 100 * (event.clientX - box.left) / box.width;
    let nearest = 0;
    bands.forEach((band, i) => { if (Math.abs(band.at - at) < Math.abs(bands[nearest].at - at)) nearest = i; });
    show(nearest);
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  slider.addEventListener("input", () => show(Number(slider.value)));
  figure.querySelector(".reader").hidden = false;
}
"""
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode("ascii")
# An img runs no script, and inside it the ids of one SVG cannot meet those of another.
# The page asks for nothing and runs nothing else, even if something slipped through.
_POLICY = (
    f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_HASH}'; "
    "base-uri 'none'; form-action 'none'"
)


def page(title: str, content: str) -> str:
    """The whole page around its sections, which must be escaped."""
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
<script>{_SCRIPT}</script>
</body>
</html>
"""
