"""Several scenes as one, for training on all of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.labels import LabelledScene
from hsfusion.scenes.legend import Legend, is_named
from hsfusion.scenes.levels import check_same_unit, typical_levels
from hsfusion.scenes.scene import Scene, Window, take_layers
from hsfusion.spectra import Bands, match_bands

_log = logging.getLogger(__name__)

#: rows without data between two scenes, so that no patch sees both
GAP = 64


class Part(NamedTuple):
    """A scene within a joined one.

    Attributes:
        scene: the scene.
        row: first row that it takes.
        order: (C + E,) index of the joined scene's bands and layers in its own, -1 for a bad band that it lacks.
    """

    scene: Scene
    row: int
    order: NDArray[np.int64]


class JoinedScene:
    """Scenes one below the other, with rows without data between them; narrower ones end in columns without data.

    The bands are those of the first scene; the others' are matched by wavelength. A band is good where it is in all.

    Args:
        scenes: at least two, with different names.

    Raises:
        InputError: if a good band of the first is missing in another, or further rasters differ.
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        first = scenes[0]
        names = [scene.name for scene in scenes]
        if len(set(names)) < len(names):
            raise InputError(
                "scenes", field="names", value=names, expected="unique names", fix="give one of them another name"
            )
        orders = [_order(scene, first) for scene in scenes]
        found = [order[: len(first.bands)] for order in orders]
        good = [scene.bands.good[order] & (order >= 0) for scene, order in zip(scenes, found, strict=True)]
        rows = np.cumsum([0, *(scene.geobox.shape[0] + GAP for scene in scenes)])
        self.name = "+".join(names)
        self.bands = Bands(first.bands.wavelength_nm, first.bands.fwhm_nm, np.logical_and.reduce(good))
        self.sources = first.sources
        self.geobox = GeoBox((int(rows[-1]) - GAP, max(scene.geobox.shape[1] for scene in scenes)))
        self.parts = [Part(*part) for part in zip(scenes, rows.tolist()[:-1], orders, strict=True)]

    def read(self, window: Window, layers: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Reads a window: (C + E, height, width) float32, or those layers of it, NaN where there are no data."""
        number = len(self.bands) + sum(number for _, number in self.sources)
        values = np.full((number, window.height, window.width), np.nan, np.float32)
        for scene, first, order in self.parts:
            height, width = scene.geobox.shape
            top, bottom = max(window.row, first), min(window.row + window.height, first + height)
            right = min(window.col + window.width, width)
            if top < bottom and window.col < right:
                part = scene.read(Window(top - first, window.col, bottom - top, right - window.col))
                values[order >= 0, top - window.row : bottom - window.row, : right - window.col] = part[
                    order[order >= 0]
                ]
        return take_layers(values, layers)


def join_scenes(labelled: Sequence[LabelledScene]) -> LabelledScene:
    """Joins scenes with their ground truth; classes of one name become one class.

    Codes are kept where all scenes agree on them, and are renumbered from 1 otherwise.

    Args:
        labelled: at least one; a single one is returned as it is.

    Raises:
        InputError: see :class:`JoinedScene`; or if their values are not in one unit.
    """
    if len(labelled) == 1:
        return labelled[0]
    scene = JoinedScene([part.scene for part in labelled])
    good = np.flatnonzero(scene.bands.good)
    levels = [typical_levels(part.scene, part.order[good]) for part in scene.parts]
    for part, level in zip(scene.parts[1:], levels[1:], strict=True):
        check_same_unit(level, levels[0], source=part.scene.name, reference=scene.parts[0].scene.name)
    common = on_common_legend(labelled)
    labels = np.zeros(scene.geobox.shape, np.int64)
    for own, (_, row, _) in zip(common, scene.parts, strict=True):
        height, width = own.labels.shape
        labels[row : row + height, :width] = own.labels
    return LabelledScene(scene, labels, common[0].legend)


def on_common_legend(labelled: Sequence[LabelledScene]) -> list[LabelledScene]:
    """Gives scenes one legend of the classes of all; classes of one name become one class.

    Codes are kept where all scenes agree on them, and are renumbered from 1 otherwise. A class need not occur in every
    scene. Classes without names are joined by their codes, which is warned of.
    """
    entries = {
        name: (code, color)
        for part in reversed(labelled)
        for code, name, color in zip(part.legend.codes, part.legend.names, part.legend.colors, strict=True)
    }
    agreed = len({code for code, _ in entries.values()}) == len(entries) and all(
        entries[name][0] == code
        for part in labelled
        for code, name in zip(part.legend.codes, part.legend.names, strict=True)
    )
    names = sorted(entries, key=lambda name: entries[name][0])
    codes = {name: entries[name][0] if agreed else i for i, name in enumerate(names, start=1)}
    shared = [name for name in names if not is_named(name) and sum(name in part.legend.names for part in labelled) > 1]
    if shared:
        _log.warning("Taken for one class, since they have no names but one code: %s.", ", ".join(shared))
    if not agreed:
        _log.warning("The scenes give their classes different codes; the map's are %s.", codes)
    legend = Legend(tuple(codes[name] for name in names), tuple(names), tuple(entries[name][1] for name in names))
    common = []
    for part in labelled:
        own = np.array([codes[name] for name in part.legend.names])
        index = part.legend.indices(part.labels)
        common.append(LabelledScene(part.scene, np.where(index >= 0, own[index], 0), legend))
    return common


def _order(scene: Scene, first: Scene) -> NDArray[np.int64]:
    if scene.sources != first.sources:
        raise InputError(
            scene.name,
            field="further rasters",
            value=scene.sources or "none",
            expected=f"{first.sources or 'none'} as in {first.name}",
            fix="give all scenes the same sources",
        )
    every = replace(scene.bands, good=np.ones(len(scene.bands), bool))  # the bad ones are matched too, and stay bad
    order = match_bands(first.bands, every)
    missing = first.bands.wavelength_nm[(order < 0) & first.bands.good]
    if missing.size:
        raise InputError(
            scene.name,
            field="missing bands",
            value=", ".join(f"{nm:.1f}" for nm in missing) + " nm",
            expected=f"the good bands of {first.name}, to half a FWHM",
            fix="give scenes of one sensor, or mark these bands as bad with bad_bands",
        )
    layers = sum(number for _, number in scene.sources)
    return np.append(order, len(scene.bands) + np.arange(layers))
