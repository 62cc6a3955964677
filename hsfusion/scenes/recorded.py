"""What the numbers of a scene mean, as plain values for logs and model files."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.scenes.joined import JoinedScene
from hsfusion.scenes.opening import FileScene
from hsfusion.scenes.scene import Scene, StackedScene


def recorded(scene: Scene) -> list[dict[str, Any]]:
    """Scale, offset, nodata and source of the wavelengths of each cube that a scene is read from.

    Returns:
        For each cube ``name``, ``format``, ``scale`` and ``offset`` (a number, or one for each band: physical values
        are stored values times scale plus offset), ``nodata`` and ``wavelengths``; nothing for cubes that are no files.
    """
    if isinstance(scene, JoinedScene):
        return [entry for part in scene.parts for entry in recorded(part.scene)]
    if isinstance(scene, StackedScene):
        return recorded(scene.scene)
    if not isinstance(scene, FileScene):
        return []
    file = scene.file
    return [
        {
            "name": scene.name,
            "format": file.format,
            "scale": _plain(file.gain, 1.0),
            "offset": _plain(file.offset, 0.0),
            "nodata": None if file.nodata is None else str(file.nodata),
            "wavelengths": file.table.source,
        }
    ]


def _plain(values: NDArray[np.float64] | None, neutral: float) -> float | list[float]:
    if values is None:
        return neutral
    return float(values[0]) if (values == values[0]).all() else values.tolist()
