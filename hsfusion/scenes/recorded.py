"""What the numbers of a scene mean, as plain values for logs and model files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.joined import JoinedScene
from hsfusion.scenes.matched import MatchedScene
from hsfusion.scenes.opening import FileScene
from hsfusion.scenes.scene import Scene, StackedScene
from hsfusion.scenes.simulated import SimulatedScene


def recorded(scene: Scene) -> list[dict[str, Any]]:
    """Scale, offset, nodata and source of the wavelengths of each cube that a scene is read from.

    Returns:
        For each cube ``name``, ``format``, ``scale`` and ``offset`` (a number, or one for each band: physical values
        are stored values times scale plus offset), ``nodata`` and ``wavelengths``; nothing for cubes that are no files.
    """
    if isinstance(scene, JoinedScene):
        return [entry for part in scene.parts for entry in recorded(part.scene)]
    if isinstance(scene, StackedScene | SimulatedScene):
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


def input_files(scene: Scene) -> list[Path]:
    """The files that a scene's pixels are read from."""
    if isinstance(scene, JoinedScene):
        return [path for part in scene.parts for path in input_files(part.scene)]
    if isinstance(scene, MatchedScene | SimulatedScene):
        return input_files(scene.scene)
    if isinstance(scene, StackedScene):
        rasters = [raster.path for raster in scene.rasters if isinstance(raster, CubeFile)]
        return [*input_files(scene.scene), *rasters]
    return [scene.file.path] if isinstance(scene, FileScene) else []


def fingerprint(scene: Scene) -> dict[str, Any]:
    """Plain values that tell a scene apart from others: its bands, place, scale, and size and time of its files."""
    inner = scene.scene if isinstance(scene, MatchedScene) else scene
    status = [path.stat() for path in input_files(inner)]
    return {
        "name": inner.name,
        "wavelength_nm": inner.bands.wavelength_nm.tolist(),
        "fwhm_nm": None if inner.bands.fwhm_nm is None else inner.bands.fwhm_nm.tolist(),
        "good": inner.bands.good.tolist(),
        "sources": [list(source) for source in inner.sources],
        "place": [*inner.geobox.shape, *tuple(inner.geobox.transform)[:6], inner.geobox.crs],
        "values": recorded(inner),
        "files": [[file.st_ino, file.st_size, file.st_mtime_ns] for file in status],
    }


def _plain(values: NDArray[np.float64] | None, neutral: float) -> float | list[float]:
    if values is None:
        return neutral
    return float(values[0]) if (values == values[0]).all() else values.tolist()
