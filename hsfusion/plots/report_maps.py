"""Maps in a report: pictures of one pixel for each pixel of the scene, side by side or one above the other."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.image import imsave
from numpy.typing import ArrayLike, NDArray

from hsfusion.plots.maps import SPLIT_ROLES
from hsfusion.plots.report_chart import key, keys
from hsfusion.plots.report_parts import data_uri
from hsfusion.plots.style import UNLABELLED

_MOST_BYTES = 180_000  # of one picture
_MOST_PIXELS = 1600  # along a side
_HIGHEST_REM = 36


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps of a run.

    Attributes:
        rgb: (H, W, 3) colour composite in 0..1, NaN = nodata.
        truth: (H, W) class codes, 0 = unlabelled.
        prediction: (H, W) class codes, 0 = not predicted.
        roles: (H, W), 0 unused, 1 training, 2 validation, 3 test, 4 buffer.
        codes: the K class codes, with their ...
        names: ... K names and ...
        colors: ... K hex colours.
        leakage: share of test pixels that see a training or validation pixel.
    """

    rgb: NDArray[np.floating]
    truth: NDArray[np.integer]
    prediction: NDArray[np.integer]
    roles: NDArray[np.integer]
    codes: Sequence[int]
    names: Sequence[str]
    colors: Sequence[str]
    leakage: float


def class_maps(maps: Maps) -> str:
    """Ground truth, prediction and composite over one legend.

    Raises:
        ValueError: if a map holds a code that has no colour.
    """
    codes, colors = [0, *maps.codes], [UNLABELLED, *maps.colors]
    labelled = int((maps.truth > 0).sum())
    pictures = (
        (_colored(maps.truth, codes, colors=colors), f"Ground truth, {labelled:,} pixels"),
        (_colored(maps.prediction, codes, colors=colors), "Class map"),
        (np.where(np.isfinite(maps.rgb), maps.rgb, 1.0), "Colour composite"),
    )
    shown = "".join(_picture(image, words) for image, words in pictures)
    entries = [_entry(color, name) for name, color in zip(("unlabelled", *maps.names), colors, strict=True)]
    return f'<div class="maps">{shown}</div>{keys(*entries)}'


def split_map(maps: Maps) -> str:
    """Which pixel is used for what, with the pixels of each role.

    Raises:
        ValueError: if a pixel has another role.
    """
    colors = [color for _, color in SPLIT_ROLES]
    image = _colored(maps.roles, range(len(colors)), colors=colors)
    counts = np.bincount(maps.roles.ravel().astype(np.int64), minlength=len(colors))
    entries = [
        _entry(color, f"{name}: {number:,} pixels")
        for (name, color), number in zip(SPLIT_ROLES, counts.tolist(), strict=True)
        if number
    ]
    words = (
        f"Split. Leakage {maps.leakage:.4f}: the share of test pixels that see a training or validation pixel; "
        "0 is honest."
    )
    return f'<div class="maps">{_picture(image, words)}</div>{keys(*entries)}'


def _entry(color: str, words: str) -> str:
    return key(f'<rect x=".5" y=".5" width="23" height="11" fill="{escape(color)}" stroke="#707070"/>', words)


def _colored(values: ArrayLike, codes: Sequence[int], *, colors: Sequence[str]) -> NDArray[np.float64]:
    """Turns (H, W) codes, ascending, into (H, W, 3) colours."""
    drawn, known = np.asarray(values), np.asarray(codes)
    row = np.minimum(np.searchsorted(known, drawn), known.size - 1)
    if (known[row] != drawn).any():
        raise ValueError(f"map holds the codes {np.unique(drawn[known[row] != drawn]).tolist()}, expected {codes}")
    return np.array([to_rgb(color) for color in colors])[row]  # (H, W, 3)


def _picture(image: NDArray[np.float64], words: str) -> str:
    """A picture with its caption; every second, third ... pixel where it would be too large."""
    height, width = image.shape[:2]
    step = -(-max(height, width) // _MOST_PIXELS)
    while len(content := _png(image[::step, ::step])) > _MOST_BYTES and step < max(height, width):
        step += max(1, int(step * (np.sqrt(len(content) / _MOST_BYTES) - 1)))
    source = data_uri(content, media_type="image/png")
    widest = _HIGHEST_REM * width / height
    note = "" if step == 1 else f" (drawn: one of {step} pixels each way)"
    return (
        f'<figure><img src="{source}" alt="{escape(words)}: map of {height} by {width} pixels" width="{width}" '
        f'height="{height}" style="width: min(100%, {widest:.1f}rem)">'
        f"<figcaption>{escape(words + note)}</figcaption></figure>"
    )


def _png(image: NDArray[np.float64]) -> bytes:
    file = io.BytesIO()
    imsave(file, np.clip(image, 0, 1), format="png", metadata={"Software": "hsfusion"})
    return file.getvalue()
