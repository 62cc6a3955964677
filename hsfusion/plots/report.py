"""Pages: the report of a run or of an evidence folder, and a class map. Self-contained HTML that loads nothing.

The templates in ``templates/`` hold structure, prose and look. A report runs nothing; a class map runs one script.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.image import imsave
from numpy.typing import NDArray

_MOST_BYTES = 1_950_000  # of a page
_LARGEST_SVG = 400_000  # bytes, above which the PNG beside it is taken
_MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_PIXELS_PER_INCH = 120  # of the page; 8 pt type is then drawn 13 pixels high
_PNG_DOTS_PER_INCH = 200  # as save_figure writes them
_CURVE = "band_weights"


def report_html(kind: Literal["run", "evidence"], content: Mapping[str, Any], *, figures: Path) -> str:
    """The report of a run or of an evidence folder as one HTML page of less than 2 MB, everything escaped.

    ``content`` is what the template of this kind shows, by name. A very large SVG is replaced by the PNG beside it; as
    long as the page is too large, the largest figure except the curve is replaced by its file name.
    """
    template, pictures = _environment().get_template(f"{kind}.html.j2"), _pictures(figures)
    large = sorted((of for stem, of in pictures.items() if stem != _CURVE), key=lambda of: len(of["source"]))
    while len((page := template.render(content, figures=pictures)).encode()) > _MOST_BYTES and large:
        large.pop()["source"] = None
    return page


def map_html(
    classes: NDArray[np.integer],
    *,
    codes: Sequence[int],
    legend: Sequence[tuple[str, str, float]],
    title: str,
    transform: Sequence[float],
    crs: str | None,
    step: int = 1,
) -> str:
    """A class map (H, W) as one HTML page with a legend, to move and zoom; 0 is no class.

    ``legend`` is name, hex colour and share (0..1) of each of the K ``codes``, ascending; ``transform`` the six numbers
    from (column, row) of the array to map coordinates in ``crs``, or to those of the whole raster where None is known;
    ``step`` says by how much the array was thinned.
    """
    rows = np.where(classes == 0, 0, np.searchsorted(codes, classes) + 1)
    picture, unsigned = io.BytesIO(), cast(Any, {"Software": None})
    pixels = np.stack([rows % 256, rows // 256, 0 * rows], axis=-1).astype(np.uint8)  # (H, W, 3)
    imsave(picture, pixels, format="png", metadata=unsigned)
    template, script = (_environment().get_template(name) for name in ("map.html.j2", "map.js"))
    content = {"classes": legend, "title": title, "transform": list(transform), "crs": crs, "step": step}
    digest = base64.b64encode(hashlib.sha256(script.render().encode()).digest()).decode("ascii")
    return template.render(content, digest=digest, picture=base64.b64encode(picture.getvalue()).decode("ascii"))


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters["mean"] = lambda values: float(np.mean(values))
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["digits"] = lambda value, digits: (
        "undefined" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"
    )
    return environment


def _pictures(folder: Path) -> dict[str, dict[str, Any]]:
    """Stem of each figure in a folder to its name, source and width in pixels."""
    pictures = {}
    for svg in sorted(folder.glob("*.svg")):
        png = svg.with_suffix(".png")
        path = png if svg.stat().st_size > _LARGEST_SVG and png.exists() else svg
        content = path.read_bytes()
        source = f"data:{_MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(content).decode('ascii')}"
        pictures[svg.stem] = {"name": path.name, "source": source, "width": _width_px(content)}
    return pictures


def _width_px(content: bytes) -> int | None:
    """Width that draws all figures at one scale, from a PNG's or SVG's own size; None where it is unknown."""
    if content.startswith(b"\x89PNG"):
        return round(struct.unpack(">I", content[16:20])[0] / _PNG_DOTS_PER_INCH * _PIXELS_PER_INCH)
    size = re.search(rb'<svg[^>]*\bwidth="([\d.]+)pt"', content)
    return round(float(size[1]) / 72 * _PIXELS_PER_INCH) if size else None
