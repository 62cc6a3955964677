"""Splits made of another one: with half of the training pixels, moved elsewhere, or with some of the bands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hsfusion.data.splits import TRAIN, UNUSED, Split
from hsfusion.scenes import ArrayScene
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import Bands


def half_of(split: Split, half: int) -> Split:
    """Keeps the first half of the training blocks or fields, 0, or the other, 1; the pixels of the other become unused.

    Both have all classes: one that lies in a single block or field is halved by pixels, as all are in splits without
    either, and a single pixel is in both. Blocks are those of a new grid. Validation and test pixels stay as they are.
    """
    pixels, rng = split.pixels(TRAIN), np.random.default_rng([split.seed, 12])
    classes = np.unique(split.labelled.labels.flat[pixels], return_inverse=True)[1]
    side = _halves(_units(split, pixels, rng), classes, rng)
    for k in range(classes.max(initial=-1) + 1):
        members = rng.permutation(np.flatnonzero(classes == k))
        if len(np.unique(side[members])) == 1:
            side[members] = np.arange(members.size) % 2 if members.size > 1 else half
    roles = split.roles.copy()
    roles.flat[pixels[side != half]] = UNUSED
    return replace(split, roles=roles)


def _units(split: Split, pixels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Number of the field or block of each of the training pixels (N,), or of the pixel itself."""
    if split.fields is not None:
        return split.fields[np.isin(np.flatnonzero(split.labelled.labels), pixels)]
    if split.block_pixels is None:
        return np.arange(pixels.size)
    height, width = split.roles.shape
    row, col = ((at + rng.integers(split.block_pixels)) // split.block_pixels for at in np.divmod(pixels, width))
    return row * (height + width) + col


def _halves(units: NDArray[np.int64], classes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Assigns units (N,) class by class, the rarest first, to the half that has fewer pixels of the class: (N,)."""
    number = np.unique(units, return_inverse=True)[1]
    counts = np.zeros((number.max(initial=-1) + 1, classes.max(initial=-1) + 1), int)
    np.add.at(counts, (number, classes), 1)
    half, total = np.full(len(counts), -1), np.zeros((2, counts.shape[1]), int)
    for k in np.argsort(counts.sum(0)):
        for i in rng.permutation(np.flatnonzero((counts[:, k] > 0) & (half < 0))):
            half[i] = np.argmin(total[:, k])
            total[half[i]] += counts[i]
    return half[number]


def with_moved_labels(split: Split, to: NDArray[np.int64], *, kept: NDArray[np.bool_]) -> Split:
    """Labels and roles of the N labelled pixels in other places (N,), of the pixels kept (N,); the rest is unused."""
    pixels, labelled = np.flatnonzero(split.labelled.labels)[kept], split.labelled
    labels, roles = np.zeros_like(labelled.labels), np.zeros_like(split.roles)
    labels.flat[to[kept]] = labelled.labels.flat[pixels]
    roles.flat[to[kept]] = split.roles.flat[pixels]
    return replace(split, labelled=replace(labelled, labels=labels), roles=roles, fields=None)


def with_bands(split: Split, chosen: NDArray[np.integer]) -> Split:
    """The same pixels with some of the bands only, as a sensor of these bands would have seen them.

    Bands are ``chosen`` by index, (k,) in any order, and come in the order of the file. Layers of further rasters are
    left out.
    """
    scene, kept = split.labelled.scene, np.sort(chosen).astype(np.int64)
    fwhm = scene.bands.fwhm_nm
    bands = Bands(scene.bands.wavelength_nm[kept], None if fwhm is None else fwhm[kept], scene.bands.good[kept])
    fewer = ArrayScene(read_all(scene, kept), bands=bands, name=scene.name, geobox=scene.geobox)
    return replace(split, labelled=replace(split.labelled, scene=fewer))
