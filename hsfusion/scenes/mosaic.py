"""Several scenes as one, for training on all of them, and whether two scenes are in one unit."""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.geobox import GeoBox, Window, shift_on_ground
from hsfusion.scenes.labels import LabelledScene, mostly_alike
from hsfusion.scenes.legend import PALETTE, Legend, is_named
from hsfusion.scenes.scene import Scene, layer_count, take_layers
from hsfusion.spectra import Bands, match_bands

_log = logging.getLogger(__name__)

#: rows without data between two scenes, so that no patch sees both
SEPARATOR_ROWS = 64

_MOST_SHARED = 0.5  # of the labelled pixels of a scene, that another has too: flight lines overlap at their edges
_WINDOWS, _EDGE = 16, 32  # looked at, in pixels
# Of seven real cubes no band was beyond both limits for halves of one scene, two EnMAP scenes, or 0.5 to 2 times the
# brightness; 89 to 100 % were for a factor of 9, 30 to 100 % for one times the solar spectrum, 39 to 68 % for desert
# against fields.
_DEVIATIONS, _TIMES, _SHARE = 2.0, 2.5, 0.25
_MOST_TIMES = 30.0  # as bright, that a scene can be: far more than light and ground make, far less than a lost scale


class Part(NamedTuple):
    """A scene within a mosaic, from its first row on."""

    scene: Scene
    row: int
    order: NDArray[np.int64]  # (C + E,) index of the mosaic's bands and layers in its own, -1: a bad band that it lacks


class Mosaic(Scene):
    """Scenes one below the other, with rows without data between them; narrower ones end in columns without data.

    The bands are those of the first scene; the others' are matched by wavelength. A band is good where it is in all.

    Args:
        scenes: at least two, with different names.
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        first = scenes[0]
        names = [scene.name for scene in scenes]
        if len(set(names)) < len(names):
            raise InputError("scenes", "names", names, "unique names", "give one of them another name")
        orders = [_order(scene, first) for scene in scenes]
        matched = [order[: len(first.bands)] for order in orders]
        good = [scene.bands.good[order] & (order >= 0) for scene, order in zip(scenes, matched, strict=True)]
        rows = np.cumsum([0, *(scene.geobox.shape[0] + SEPARATOR_ROWS for scene in scenes)])
        self.name, self.scenes = "+".join(names), tuple(scenes)
        self.bands = Bands(first.bands.wavelength_nm, first.bands.fwhm_nm, np.logical_and.reduce(good))
        self.sources = first.sources
        self.geobox = GeoBox((int(rows[-1]) - SEPARATOR_ROWS, max(scene.geobox.shape[1] for scene in scenes)))
        self.parts = [Part(*part) for part in zip(scenes, rows.tolist()[:-1], orders, strict=True)]

    def read(self, window: Window | None = None, layers: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """See :meth:`Scene.read`."""
        window = window or self.geobox.window
        values = np.full((layer_count(self), window.height, window.width), np.nan, np.float32)
        for scene, first, order in self.parts:
            height, width = scene.geobox.shape
            top, bottom = max(window.row, first), min(window.row + window.height, first + height)
            right = min(window.col + window.width, width)
            if top < bottom and window.col < right:
                part = scene.read(Window(top - first, window.col, bottom - top, right - window.col))
                rows = slice(top - window.row, bottom - window.row)
                values[order >= 0, rows, : right - window.col] = part[order[order >= 0]]
        return take_layers(values, layers)

    def repeats(self) -> list[tuple[Window, tuple[int, int]]]:
        """The overlaps of flight lines whose places are known."""
        repeated = []
        for (one, row, _), (other, other_row, _) in itertools.permutations(self.parts, 2):
            shift = shift_on_ground(one.geobox, other.geobox, alike=lambda: False)
            if shift is None:
                continue
            (down, right), (height, width) = shift, one.geobox.shape
            top, left = max(0, -down), max(0, -right)
            bottom = min(height, other.geobox.shape[0] - down)
            end = min(width, other.geobox.shape[1] - right)
            if top < bottom and left < end:
                window = Window(row + top, left, bottom - top, end - left)
                repeated.append((window, (other_row - row + down, right)))
        return repeated


def join_scenes(labelled: Sequence[LabelledScene]) -> LabelledScene:
    """Joins scenes in one unit with their ground truth, see :func:`on_common_legend`; a single one stays as it is."""
    if len(labelled) == 1:
        return labelled[0]
    scene = Mosaic([part.scene for part in labelled])
    for one, other in itertools.combinations(labelled, 2):
        _check_other_ground(one, other)
    good = np.flatnonzero(scene.bands.good)
    levels = [median_spectrum(part.scene, part.order[good]) for part in scene.parts]
    for part, level in zip(scene.parts[1:], levels[1:], strict=True):
        check_same_unit(level, levels[0], source=part.scene.name, reference=scene.parts[0].scene.name)
    common = on_common_legend(labelled)
    labels = np.zeros(scene.geobox.shape, np.int32)
    for part, (_, row, _) in zip(common, scene.parts, strict=True):
        height, width = part.labels.shape
        labels[row : row + height, :width] = part.labels
    return LabelledScene(scene, labels, common[0].legend)


def _check_other_ground(one: LabelledScene, other: LabelledScene) -> None:
    """Refuses two scenes of mostly the same labelled pixels, as of two dates; on different grids, warns of some."""
    pixels = np.flatnonzero(one.labels)
    classes, numbers = one.labels.ravel()[pixels], (pixels.size, int(np.count_nonzero(other.labels)))
    shift = shift_on_ground(
        one.scene.geobox,
        other.scene.geobox,
        alike=lambda: mostly_alike(classes, other.labels.ravel()[pixels], labelled=numbers),
    )
    if shift is None:  # either may have the larger pixels
        ways = (one, other), (other, one)
        at = [of.scene.geobox.located(np.flatnonzero(of.labels), to.scene.geobox) for of, to in ways]
        shared = [int(np.count_nonzero(to.labels.ravel()[of])) for of, (_, to) in zip(at, ways, strict=True)]
    else:
        at = one.scene.geobox.shifted(pixels, shift, other.labels.shape)
        shared = 2 * [int(np.count_nonzero(other.labels.ravel()[at]))]
    if any(number > _MOST_SHARED * of for number, of in zip(shared, numbers, strict=True)):
        field = f"number of labelled pixels that {one.scene.name} also has"
        both = "or on both by scene=several, which splits and checks each"
        fix = f"train on one of them, {both if shift is not None else 'or label each part of the ground in one only'}"
        expected = "0: test pixels of one would be training pixels in the other"
        raise InputError(other.scene.name, field, max(shared), expected, fix)
    if any(shared) and shift is None:
        text = "%s and %s label %d pixels of the same ground on different grids: leakage does not count these."
        _log.warning(text, one.scene.name, other.scene.name, max(shared))


def on_common_legend(labelled: Sequence[LabelledScene]) -> list[LabelledScene]:
    """Gives scenes one legend of the classes of all; classes of one name become one class.

    Codes are kept where all scenes agree on them, and are renumbered from 1 otherwise. A colour of the palette that an
    earlier scene has for another class gives way to a free one. A class need not occur in every scene. Classes without
    names are joined by their codes, which is warned of.
    """
    legends = [zip(part.legend.names, part.legend.codes, part.legend.colors, strict=True) for part in labelled]
    classes = [one for legend in legends for one in legend]
    entries = {name: (code, color) for name, code, color in reversed(classes)}  # the first scene decides
    agreed = len({code for code, _ in entries.values()}) == len(entries)
    agreed = agreed and all(entries[name][0] == code for name, code, _ in classes)
    names = sorted(entries, key=lambda name: entries[name][0])
    codes = {name: entries[name][0] if agreed else i for i, name in enumerate(names, start=1)}
    shared = [name for name in names if not is_named(name) and sum(name in part.legend.names for part in labelled) > 1]
    if shared:
        _log.warning("Merged into one class, because they share a code and have no names: %s.", ", ".join(shared))
    if not agreed:
        _log.warning("The scenes use different codes for the same classes; the map uses %s.", codes)
    colors: dict[int, str] = {}
    for name, _, _ in classes:
        color = entries[name][1]
        if color not in PALETTE or color not in colors.values():  # of which each scene has the first ones
            colors.setdefault(codes[name], color)
    legend = Legend.of(np.array([*codes.values()]), names={code: name for name, code in codes.items()}, colors=colors)
    common = []
    for part in labelled:
        new_codes = np.array([codes[name] for name in part.legend.names], np.int32)
        index = part.legend.indices(part.labels)
        common.append(LabelledScene(part.scene, np.where(index >= 0, new_codes[index], 0), legend))
    return common


def median_spectrum(scene: Scene, layers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Median of layers (L,) over windows spread over the scene: (L,), NaN where they hold no data there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of layers without data
        return np.nanmedian(sample_spectra(scene, layers), axis=1)


def sample_spectra(scene: Scene, layers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Layers (L,) of the N pixels of windows spread over the scene: (L, N), NaN where they hold no data."""
    height, width = scene.geobox.shape
    rows, cols = (np.linspace(0, max(size - _EDGE, 0), _WINDOWS).astype(int) for size in (height, width))
    parts = []
    for i in range(_WINDOWS):
        for col in {int(cols[i]), int(cols[-1 - i])}:  # along both diagonals, for a swath may lie along one
            window = Window(int(rows[i]), col, min(_EDGE, height), min(_EDGE, width))
            parts.append(scene.read(window, layers).reshape(len(layers), -1))
    return np.concatenate(parts, axis=1)


def check_same_unit(levels: NDArray, expected: NDArray, *, source: object, reference: object) -> None:
    """Refuses typical values (L,) of two scenes, NaN where unknown, whose ratio has a median above 30 or below 1/30."""
    known = np.isfinite(levels) & np.isfinite(expected) & (levels != 0) & (expected != 0)
    levels, expected = np.abs(levels[known]), np.abs(expected[known])
    times = float(np.median(levels / expected)) if levels.size else 1.0
    if not 1 / _MOST_TIMES <= times <= _MOST_TIMES:
        value = f"{np.median(levels):.4g}, {times:.3g} times that of {reference}"
        fix = "set scene.scale so that both scenes have one unit, or train on scenes in its unit"
        raise InputError(source, "typical value", value, f"the same unit, {np.median(expected):.4g}", fix)


def far_from_training(levels: NDArray, mean: NDArray, std: NDArray) -> str | None:
    """Tells in a sentence whether a scene is so unlike the training pixels that it may be in another unit; else None.

    A quarter of its bands, of which ``levels`` (L,) are typical values, NaN where unknown, differs from mean (L,) and
    std (L,) of the training pixels in both its deviation and its ratio: deviations alone would name every dark or
    bright scene, ratios alone one of water.
    """
    known = np.isfinite(levels) & (std > 0) & (mean != 0)
    deviations = np.abs(levels - mean)[known] / std[known]
    times = levels[known] / mean[known]
    far = (deviations > _DEVIATIONS) & ((times > _TIMES) | (times < 1 / _TIMES))
    if not far.size or far.mean() < _SHARE:
        return None
    return (
        f"in {far.mean():.0%} of the bands that the model uses, the median of the scene is over {_TIMES:g} times the "
        f"mean of the training pixels, or under 1/{_TIMES:g} of it, and over {_DEVIATIONS:g} standard deviations away: "
        "the map is likely to be wrong. Check that both scenes are in the same unit (reflectance, radiance or counts; "
        "scene.scale); if they are, fine-tune the model on labelled pixels of this scene"
    )


def _order(scene: Scene, first: Scene) -> NDArray[np.int64]:
    every = replace(scene.bands, good=np.ones(len(scene.bands), bool))  # the bad ones are matched too, and stay bad
    order, wrong = match_bands(first.bands, every), None
    missing = first.bands.wavelength_nm[(order < 0) & first.bands.good]
    if scene.sources != first.sources:
        expected = f"{first.sources or 'none'} as in {first.name}"
        wrong = ("further rasters", scene.sources or "none", expected, "give all scenes the same sources")
    elif missing.size:
        listed = ", ".join(f"{nm:.1f}" for nm in missing) + " nm"
        fix = "give scenes of one sensor, or mark these bands as bad with bad_bands"
        wrong = ("missing bands", listed, f"the good bands of {first.name}, to half a FWHM", fix)
    if wrong:
        raise InputError(scene.name, *wrong)
    return np.append(order, np.arange(len(scene.bands), layer_count(scene)))
