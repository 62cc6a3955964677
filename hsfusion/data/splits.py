"""Splits of labelled pixels into training, validation and test, and how much the test pixels leak."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes import LabelledScene, Labels, Window
from hsfusion.scenes.labels import read_ids, read_label_pair

UNUSED, TRAIN, VAL, TEST, BUFFER = range(5)
Repeats = Sequence[tuple[Window, tuple[int, int]]]  # see Scene.repeats
_CANDIDATES = 60  # random assignments of blocks that the best is chosen from
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Split:
    """The role of each pixel: training, validation, test, buffer or unused."""

    kind: str  # blocks, fields, random or fixed
    labelled: LabelledScene
    roles: NDArray[np.uint8]  # (H, W), 0 unused, 1 training, 2 validation, 3 test, 4 buffer
    radius: int  # of the receptive field in pixels, for which leakage is measured
    seed: int = 0  # that it was drawn with
    fields: NDArray[np.int64] | None = None  # (N,) of each labelled pixel, row by row; None for connected fields
    block_pixels: int | None = None  # edge of the blocks that were assigned; None where there are none

    def count(self, role: int) -> int:
        """Number of pixels with a role."""
        return int((self.roles == role).sum())

    def pixels(self, role: int) -> NDArray[np.int64]:
        """Flat indices (row * W + col) of the pixels with a role, ascending."""
        return np.flatnonzero(self.roles == role)

    @property
    def leakage(self) -> float:
        """Share of test pixels whose receptive field holds the ground of a training or validation pixel."""
        return self._share_near(np.isin(self.roles, (TRAIN, VAL)), self.radius)

    @property
    def patch_overlap(self) -> float:
        """Share of test pixels whose patch (receptive field) shares a pixel with a training patch."""
        return self._share_near(self.roles == TRAIN, 2 * self.radius)

    @property
    def field_of(self) -> NDArray[np.int64]:
        """Number of the field of each pixel, flat (H * W,), -1 where it is not labelled."""
        labels, numbers, fields = self.labelled.labels, np.full(self.roles.size, -1), self.fields
        fields = connected_fields(labels, self.labelled.scene.repeats()) if fields is None else fields
        numbers[np.flatnonzero(labels)] = fields
        return numbers

    def in_seen_fields(self) -> NDArray[np.bool_]:
        """Which test pixels, in the order of :meth:`pixels`, lie in a field that holds training pixels: (T,)."""
        field_of = self.field_of
        return np.isin(field_of[self.pixels(TEST)], field_of[self.pixels(TRAIN)])

    def _share_near(self, mask: NDArray[np.bool_], distance: int) -> float:
        test, everywhere = self.roles == TEST, mask.copy()
        for (row, col, height, width), (down, right) in self.labelled.scene.repeats():
            again = everywhere[row + down : row + down + height, col + right : col + right + width]
            again |= mask[row : row + height, col : col + width]
        return float(dilate(everywhere, distance)[test].mean()) if test.any() else 0.0

    def holes(self, valid: NDArray[np.bool_]) -> float:
        """Share of training pixels whose receptive field holds a pixel that is not valid (H, W)."""
        return float(dilate(~valid, self.radius)[self.roles == TRAIN].mean())


def dilate(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Pixels (H, W) whose square of (2 * radius + 1) pixels touches the mask (H, W)."""
    from scipy.ndimage import maximum_filter  # slow to import

    return np.asarray(maximum_filter(mask, 2 * radius + 1, mode="constant"), bool)


def connected_fields(labels: NDArray[np.integer], repeats: Repeats = ()) -> NDArray[np.int64]:
    """Number of the field of each of the N labelled pixels of labels (H, W), row by row: (N,).

    A field is a set of pixels of one class that are connected by their edges or corners, or are the same ground.
    """
    from scipy.sparse import coo_array  # slow to import
    from scipy.sparse.csgraph import connected_components

    pixels = _LabelledPixels.of(labels, repeats)
    width, number = pixels.shape[1] + 1, np.arange(pixels.flat.size)  # a column between the ends of two rows
    places, pairs = pixels.rows * width + pixels.cols, []
    steps = [(number, step) for step in (1, width - 1, width, width + 1)]
    for these, step in [*steps, *((inside, down * width + right) for inside, (down, right) in pixels.repeated)]:
        other = np.minimum(np.searchsorted(places, places[these] + step), number[-1:])
        alike = (places[other] == places[these] + step) & (pixels.classes[other] == pixels.classes[these])
        pairs.append(np.stack([these[alike], other[alike]]))
    first, second = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(first.size, bool), (first, second)), shape=(number.size, number.size))
    return connected_components(graph, directed=False)[1]


#: what the configuration of a split becomes; called with the labelled scene, ``radius=`` and ``seed=``
Splitter = Callable[..., Split]


def blocks(
    labelled: LabelledScene,
    *,
    radius: int,
    seed: int | None,
    valid: NDArray[np.bool_] | None = None,
    block_pixels: int = 8,
    fraction: float = 0.3,
    per_class: int | None = None,
    val_fraction: float = 0.1,
    val_per_class: int | None = None,
    buffer: str | int = "radius",
) -> Split:
    """Spatially disjoint square blocks for training, validation and test, with a buffer between them.

    Blocks are assigned class by class, the rarest first, each to the role that lacks most of that class; this is
    repeated on grids with random offsets. The assignment is kept in which the fewest classes lack a role and the shares
    are closest. Only labelled pixels are considered, so that the size of the scene does not matter. Validation pixels
    within the buffer of a training pixel, and test pixels within the buffer of either, become buffer: with a buffer of
    the radius the leakage is exactly 0, with twice the radius no test patch shares a pixel with a training patch. In a
    scene with small fields the buffer takes a third of the labelled pixels or more, and a rare class may be missing
    among the validation pixels.

    Args:
        labelled: the scene with its ground truth.
        radius: radius of the receptive field, in pixels.
        seed: for the random assignment; None in settings for that of the run.
        valid: (H, W), False for pixels without data, which get no role; None for all valid.
        block_pixels: edge of a block.
        fraction: share of the labelled pixels in training blocks.
        per_class: maximum number of training pixels per class, drawn from the training blocks; None for no maximum.
        val_fraction: share of the labelled pixels in validation blocks.
        val_per_class: maximum number of validation pixels per class, drawn from the validation blocks; None for that of
            ``per_class``, because few labels for training mean few for choosing an epoch.
        buffer: ``radius``, ``double`` for twice the radius, or a number of pixels.
    """
    labelled = labelled if valid is None else labelled.where(valid)
    pixels = _LabelledPixels.of(labelled.labels, labelled.scene.repeats())
    rng = np.random.default_rng([seed or 0, 1])
    shares, distance = _checked_shares(fraction, val_fraction), _buffer_pixels(buffer, radius)

    def assigned() -> NDArray[np.uint8]:
        """Roles by blocks on a grid with a random offset."""
        row, col = ((at + rng.integers(block_pixels)) // block_pixels for at in (pixels.rows, pixels.cols))
        return _assign(row * (col.max(initial=0) + 1) + col, pixels, rng, shares)

    roles = _best_of_many(pixels, assigned, shares, distance)
    whole = _whole(pixels, roles, rng, per_class, val_per_class)
    split = Split("blocks", labelled, whole, radius, seed or 0, block_pixels=block_pixels)
    _check_classes(split, fix="lower split.block_pixels, drop the class or label it in more places")
    return split


def fields(
    labelled: LabelledScene,
    *,
    radius: int,
    seed: int | None,
    valid: NDArray[np.bool_] | None = None,
    fraction: float = 0.3,
    per_class: int | None = None,
    val_fraction: float = 0.1,
    val_per_class: int | None = None,
    buffer: str | int = "radius",
    ids: str | Path | None = None,
    field: str | None = None,
) -> Split:
    """Whole fields for training, validation and test: connected pixels of a class, or of one id, have the same role.

    The first field of a class, in random order, is for training and the second for the test; a class with one field has
    no test pixels. Further fields go to the role that lacks most of the class. Everything else is as in :func:`blocks`,
    with the same arguments.

    With ``ids``, fields come from a raster of ids on the grid of the scene (0 for none), or from polygons, such as
    those of the labels, whose attribute ``field`` holds the id; labelled pixels without an id are left out.
    """
    if ids is None:
        field_of = connected_fields(labelled.labels, labelled.scene.repeats())
    else:
        number = np.where(labelled.labels > 0, read_ids(ids, labelled.scene, field=field), -1)
        if lost := int(((labelled.labels > 0) & (number < 0)).sum()):
            _log.warning("%d labelled pixels lie in no field of %s and are left out.", lost, ids)
        field_of, labelled = number[number >= 0], replace(labelled, labels=np.where(number < 0, 0, labelled.labels))
    if valid is not None:
        field_of, labelled = field_of[valid.ravel()[np.flatnonzero(labelled.labels)]], labelled.where(valid)
    pixels = _LabelledPixels.of(labelled.labels, labelled.scene.repeats())
    rng = np.random.default_rng([seed or 0, 4])
    shares, distance = _checked_shares(fraction, val_fraction), _buffer_pixels(buffer, radius)
    roles = _best_of_many(pixels, lambda: _assign(field_of, pixels, rng, shares, first=(TRAIN, TEST)), shares, distance)
    split = Split("fields", labelled, _whole(pixels, roles, rng, per_class, val_per_class), radius, seed or 0, field_of)
    _check_classes(split, fix="drop the class or label it in more places")
    return split


def random(
    labelled: LabelledScene,
    *,
    radius: int,
    seed: int | None,
    valid: NDArray[np.bool_] | None = None,
    fraction: float = 0.1,
    per_class: int | None = None,
    val_fraction: float = 0.05,
) -> Split:
    """Random pixels of each class. Leaky: most test pixels have a training pixel in their patch.

    Accuracies on such a split are too high; it is meant for comparison with papers that used it.

    Arguments are those of :func:`blocks`, but shares are per class, and ``per_class`` replaces ``fraction``.
    """
    _checked_shares(fraction, val_fraction)
    labelled = labelled if valid is None else labelled.where(valid)
    rng = np.random.default_rng([seed or 0, 2])
    roles = np.zeros(labelled.labels.shape, np.uint8)
    for code, name in zip(labelled.legend.codes, labelled.legend.names, strict=True):
        pixels = rng.permutation(np.flatnonzero(labelled.labels == code))
        train = per_class if per_class is not None else max(1, round(fraction * pixels.size))
        val = max(1, round(val_fraction * pixels.size))
        if pixels.size < train + val + 1:
            field, expected = f"number of pixels of class {name} ({code})", f"at least {train + val + 1}"
            expected += f" ({train} for training, {val} for validation, 1 for test)"
            fix = "label more pixels, drop the class, or lower split.per_class"
            raise InputError("split", field, pixels.size, expected, fix)
        roles.flat[pixels] = TEST
        roles.flat[pixels[:train]] = TRAIN
        roles.flat[pixels[train : train + val]] = VAL
    _log.warning(
        "The random split is leaky: neighbours of test pixels are trained on. Use split=blocks for honest numbers."
    )
    return Split("random", labelled, roles, radius, seed or 0)


def fixed(
    labelled: LabelledScene,
    *,
    radius: int,
    seed: int | None,
    valid: NDArray[np.bool_] | None = None,
    train: str | Path,
    test: str | Path,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    val_fraction: float = 0.0,
) -> Split:
    """Training and test pixels from two label rasters, as in published splits.

    The labels of the rasters are used. If they agree with the scene's ground truth, its class names are kept, and
    fields are those of the whole ground truth; otherwise names come from ``class_names`` or are ``class <code>``,
    because codes alone do not identify classes.

    Arguments are those of :func:`blocks`; ``train`` and ``test`` are label rasters of these pixels, 0 elsewhere, and
    ``class_names`` are by code, or a list that starts with the name of code 1. A share ``val_fraction`` of the training
    pixels of each class is used for validation instead; with 0 there is no selection, and the last epoch is kept.
    """
    labels, in_train, in_test = read_label_pair(train, test, labelled.scene)
    like = _like(labelled, labels)
    truth = LabelledScene(labelled.scene, labels.codes, like.legend(names=class_names))
    truth = truth if valid is None else truth.where(valid)
    rng = np.random.default_rng([seed or 0, 3])
    roles = np.where(in_test, TEST, np.where(in_train, TRAIN, UNUSED)).astype(np.uint8)
    roles[truth.labels == 0] = UNUSED
    for code in truth.legend.codes if val_fraction > 0 else ():
        pixels = rng.permutation(np.flatnonzero((truth.labels == code) & (roles == TRAIN)))
        roles.flat[pixels[: round(val_fraction * pixels.size)]] = VAL
    # of one set of labels: the unused pixels of a field of the scene do not cut it
    whole = labels.codes if like is labels else np.where(labels.codes > 0, labels.codes, labelled.labels)
    field_of = connected_fields(whole, labelled.scene.repeats())[truth.labels.ravel()[np.flatnonzero(whole)] > 0]
    split = Split("fixed", truth, roles, radius, seed or 0, field_of)
    _check_classes(split, fix="give training pixels of every class")
    return split


def _like(labelled: LabelledScene, labels: Labels) -> Labels:
    """Labels with the scene's names and colours, if they agree with the scene's ground truth."""
    codes, legend = labels.codes, labelled.legend
    known = (codes > 0) & (labelled.labels > 0)
    if known.any() and (codes == labelled.labels)[known].all() and np.isin(codes, (0, *legend.codes)).all():
        return replace(labels, **legend.mappings())
    _log.info("The labels of the fixed split differ from those of the scene; those of the split are used.")
    return labels


@dataclass(frozen=True, eq=False)
class _LabelledPixels:
    """The N labelled pixels of a scene, row by row: flat indices, positions, and class of each as an index of codes."""

    shape: tuple[int, int]
    flat: NDArray[np.int64]
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    codes: NDArray[np.integer]  # (K,)
    classes: NDArray[np.int64]
    repeats: Repeats = ()  # of the scene

    @classmethod
    def of(cls, labels: NDArray[np.integer], repeats: Repeats = ()) -> _LabelledPixels:
        """The pixels of labels (H, W) that are not 0."""
        height, width = labels.shape
        flat = np.flatnonzero(labels)
        codes, classes = np.unique(labels.ravel()[flat], return_inverse=True)
        return cls((height, width), flat, *np.divmod(flat, width), codes, classes, repeats)

    @cached_property
    def repeated(self) -> list[tuple[NDArray[np.int64], tuple[int, int]]]:
        """Which pixels (n,) have their ground in the scene again, and how many rows and columns further."""
        inside = []
        for (row, col, height, width), shift in self.repeats:
            in_rows = (row <= self.rows) & (self.rows < row + height)
            inside.append((np.flatnonzero(in_rows & (col <= self.cols) & (self.cols < col + width)), shift))
        return inside

    def near(self, those: NDArray[np.bool_], others: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
        """Which of those (N,) have the ground of one of the others (N,) in their square of (2 * radius + 1): (N,)."""
        height, width = (size + 2 * radius for size in self.shape)
        centres = (self.rows + radius) * width + self.cols + radius
        seen = [centres[others]]
        for inside, (down, right) in self.repeated:
            seen.append(centres[inside[others[inside]]] + down * width + right)
        marked = np.zeros(height * width, bool)  # in pages that the system makes only where they are touched
        for step in range(-radius, radius + 1):
            marked[np.concatenate(seen) + step] = True
        near, asked = np.zeros(those.size, bool), centres[those]
        for step in range(-radius, radius + 1):
            near[those] |= marked[asked + step * width]
        return near


def _best_of_many(
    pixels: _LabelledPixels, assign: Callable[[], NDArray[np.uint8]], shares: tuple[float, float], buffer: int
) -> NDArray[np.uint8]:
    """The roles (N,), with a buffer, of the random assignment that is closest to the shares."""
    best, best_score = np.zeros(pixels.flat.size, np.uint8), np.inf
    for _ in range(_CANDIDATES):
        roles = assign()
        for role, others in ((VAL, (TRAIN,)), (TEST, (TRAIN, VAL))):
            roles[pixels.near(roles == role, np.isin(roles, others), buffer)] = BUFFER
        score = _imbalance(pixels, roles, *shares)
        if score < best_score:
            best, best_score = roles, score
    return best


def _whole(
    pixels: _LabelledPixels,
    roles: NDArray[np.uint8],
    rng: np.random.Generator,
    per_class: int | None,
    val_per_class: int | None,
) -> NDArray[np.uint8]:
    """Roles (H, W) of the scene from those of its labelled pixels (N,), with at most a number per class."""
    for role, most in ((TRAIN, per_class), (VAL, val_per_class or per_class)):
        for k in range(pixels.codes.size if most is not None else 0):
            chosen = rng.permutation(np.flatnonzero((pixels.classes == k) & (roles == role)))
            roles[chosen[most:]] = UNUSED
    whole = np.zeros(pixels.shape, np.uint8)
    whole.flat[pixels.flat] = roles
    return whole


def _assign(
    units: NDArray[np.int64],
    pixels: _LabelledPixels,
    rng: np.random.Generator,
    shares: tuple[float, float],
    *,
    first: tuple[int, ...] = (),
) -> NDArray[np.uint8]:
    """Assigns units (N,) class by class, the rarest first, to the role that lacks most of that class: roles (N,).

    The first units of a class, in random order, get those of the roles ``first`` that have none of it yet.
    """
    occupied = np.bincount(units) > 0
    number = (np.cumsum(occupied) - 1)[units]  # of the unit of each pixel, among those with labelled pixels
    size = (int(occupied.sum()), pixels.codes.size)
    counts = np.bincount(number * size[1] + pixels.classes, minlength=size[0] * size[1]).reshape(size).astype(float)
    share = np.array([*shares, 1 - shares[0] - shares[1]])
    wanted = counts.sum(0)[:, None] * share  # (K, 3), pixels still to be assigned
    role = np.zeros(size[0], np.uint8)
    for k in np.argsort(counts.sum(0)):
        lacking = [one for one in first if not counts[role == one, k].any()]
        for n, i in enumerate(rng.permutation(np.flatnonzero((counts[:, k] > 0) & (role == 0)))):
            role[i] = lacking[n] if n < len(lacking) else TRAIN + int(np.argmax(wanted[k] / share**0.5))
            wanted[:, role[i] - TRAIN] -= counts[i]
    return role[number]


def _buffer_pixels(buffer: str | int, radius: int) -> int:
    pixels = {"radius": radius, "double": 2 * radius}.get(str(buffer), buffer)
    if type(pixels) is not int or pixels < 0:
        raise InputError("split", "buffer", buffer, "radius, double or a number of pixels", "correct split.buffer")
    return pixels


def _imbalance(pixels: _LabelledPixels, roles: NDArray[np.uint8], fraction: float, val_fraction: float) -> float:
    """How far roles (N,) are from the requested shares; classes that lack a role weigh most."""
    number = pixels.codes.size
    counts = np.bincount(pixels.classes * 5 + roles, minlength=number * 5).reshape(number, 5).astype(float)
    total = counts.sum(1, keepdims=True)
    missing = (counts[:, [TRAIN, VAL, TEST]] == 0).sum(0) @ [100.0, 1.0, 10.0]
    target = np.array([fraction, val_fraction])
    return float(missing + np.abs(counts[:, [TRAIN, VAL]] / total - target).mean())


def _check_classes(split: Split, *, fix: str) -> None:
    """Refuses classes without training pixels, and warns of classes without test pixels."""
    legend, labels = split.labelled.legend, split.labelled.labels
    train, test = (np.unique(labels[split.roles == role]) for role in (TRAIN, TEST))
    for code, name in zip(legend.codes, legend.names, strict=True):
        if code not in train:
            field = f"number of training pixels of class {name} ({code}, {int((labels == code).sum())} labelled)"
            raise InputError("split", field, 0, "at least 1", fix)
        if code not in test:
            _log.warning("Class %s has no test pixels in this split; it does not count in the accuracies.", name)
    for role, name in ((TEST, "test"), (VAL, "validation")):
        if split.kind in ("blocks", "fields") and not split.count(role):
            fix = "choose smaller shares, smaller blocks, a smaller buffer or a smaller model.receptive_field"
            raise InputError("split", f"number of {name} pixels", 0, "at least 1", fix)


def _checked_shares(fraction: float, val_fraction: float) -> tuple[float, float]:
    if not (fraction > 0 and val_fraction > 0 and fraction + val_fraction < 1):
        given, expected = f"{fraction:g} + {val_fraction:g}", "two positive shares that leave something for the test"
        raise InputError("split", "fraction + val_fraction", given, expected, "lower them")
    return fraction, val_fraction
