"""Records of the pixels that a network was trained on, so that no test uses them."""

from __future__ import annotations

import base64
import hashlib
import itertools
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.data.splits import TEST, TRAIN, VAL, Split, dilate
from hsfusion.errors import InputError
from hsfusion.scenes import GeoBox
from hsfusion.scenes.geobox import shift_on_ground
from hsfusion.scenes.labels import mostly_alike

_log = logging.getLogger(__name__)
MOST_SEEN = 16  # earlier trainings that a model file records
_MOST_BYTES = 2**20  # of mask and classes, packed; the blocks of a scene of 10,000 x 10,000 pixels take less


@dataclass(frozen=True, eq=False)
class _SeenPixels:
    """The N training and validation pixels of one ground."""

    geobox: GeoBox
    pixels: NDArray[np.int64]  # (N,) flat indices
    classes: NDArray[np.integer] | None  # (N,) their codes; None where only a digest of all labels is known
    labelled: int  # number of all labelled pixels
    digest: str | None = None

    @classmethod
    def of(cls, split: Split) -> _SeenPixels:
        """The pixels of a split."""
        labels, pixels = split.labelled.labels, np.flatnonzero(np.isin(split.roles, (TRAIN, VAL)))
        return cls(split.labelled.scene.geobox, pixels, labels.ravel()[pixels], int(np.count_nonzero(labels)))

    @classmethod
    def from_entry(cls, entry: dict[str, Any], shape: tuple[int, int]) -> _SeenPixels:
        """The pixels of an entry of a header; ``shape`` is for older entries, which have none."""
        height, width = entry.get("shape", shape)
        pixels = np.flatnonzero(np.unpackbits(_unpacked(entry["pixels"], "u1"))[: height * width])
        classes = _unpacked(entry["classes"], "<u2") if "classes" in entry else None
        geobox = GeoBox.from_dict(entry["place"], shape=(height, width))
        return cls(geobox, pixels, classes, entry.get("labelled", 0), entry["ground"])

    def leaked(self, split: Split) -> tuple[int, bool]:
        """Number of test pixels of a split with one of these in their receptive field, and whether it is exact.

        It is if both have the same grid; with another CRS or pixel size of one of the two it is an estimate.
        """
        labels = split.labelled.labels

        def alike() -> bool:
            """Whether the labels are, of one shape."""
            if self.classes is None:
                return self.digest == _ground_truth_digest(split)
            numbers = self.labelled, int(np.count_nonzero(labels))
            return mostly_alike(self.classes, labels.ravel()[self.pixels], labelled=numbers)

        shift = shift_on_ground(self.geobox, split.labelled.scene.geobox, alike=alike)
        if shift is None:
            return self._leaked_to_another_grid(split), False
        return _number_near(self.geobox.shifted(self.pixels, shift, labels.shape), split), True

    def _leaked_to_another_grid(self, split: Split) -> int:
        """By the centres of pixels: of these in the receptive fields, or of the test pixels in these, if smaller."""
        geobox, seen = split.labelled.scene.geobox, np.zeros(self.geobox.shape, bool)
        seen.flat[self.pixels] = True
        inside = int(seen.flat[geobox.located(split.pixels(TEST), self.geobox)].sum())
        return max(inside, _number_near(self.geobox.located(self.pixels, geobox), split))


def _number_near(pixels: NDArray[np.int64], split: Split) -> int:
    """Number of test pixels of a split with one of some pixels (N,) in their receptive field."""
    mask = np.zeros(split.roles.shape, bool)
    mask.flat[pixels] = True
    return int((dilate(mask, split.radius) & (split.roles == TEST)).sum())


def _warn(split: Split, number: int, of: str) -> None:
    """Warns that a number of the test pixels of a split have ground in their receptive field that was trained on."""
    if number:
        text = "%s: about %d of %d test pixels see ground that %s, on another grid, so the accuracy may be too high."
        _log.warning(text, split.labelled.scene.name, number, int(np.count_nonzero(split.roles == TEST)), of)


def training_mask(split: Split) -> dict[str, Any] | None:
    """Training and validation pixels, for the header of a model file; None if they would be large.

    The entry holds georeferencing and shape of the ground, the packed mask, the classes of its pixels unless they are
    large, the number of labelled pixels, and a digest of all labels.
    """
    seen = _SeenPixels.of(split)
    pixels = _packed(np.packbits(np.isin(split.roles, (TRAIN, VAL))))
    if len(pixels) > _MOST_BYTES:
        return None
    entry = {"ground": _ground_truth_digest(split), "place": seen.geobox.to_dict(), "shape": list(split.roles.shape)}
    entry |= {"labelled": seen.labelled, "pixels": pixels}
    classes = _packed(np.asarray(seen.classes, "<u2"))
    return entry if len(pixels) + len(classes) > _MOST_BYTES else {**entry, "classes": classes}


def check_no_leakage(split: Split, header: dict[str, Any]) -> None:
    """Refuses to test a model on pixels that it was trained on, or has in its receptive field.

    :func:`hsfusion.scenes.geobox.shift_on_ground` decides what is the same ground; older entries, which have no shape,
    also need the same labels, whatever the codes of their classes. Different bands or names make no difference. On
    another CRS or pixel size, such pixels cause a warning.
    """
    elsewhere = 0
    for entry in all_seen(header):
        if "shape" not in entry and entry["ground"] != _ground_truth_digest(split):
            continue
        leaked, is_exact = _SeenPixels.from_entry(entry, split.roles.shape).leaked(split)
        if not is_exact:
            elsewhere = max(elsewhere, leaked)
        elif leaked:
            seed = (header.get("split") or {}).get("seed", header.get("seed", 0))
            of = f"the model was trained with (split.seed={seed})"
            if entry is not header.get("seen"):
                of = "an earlier training of the model on this ground used"
            field = "number of test pixels that the pretrained model has seen"
            fix = f"use the labels and the split that {of}, split=fixed with other test pixels, or another scene"
            raise InputError("split", field, leaked, "0: model and scene show the same ground", fix)
    _warn(split, elsewhere, "the model was trained on")


def check_apart(splits: Sequence[Split]) -> None:
    """Refuses scenes of the same ground if one is tested on what another trains on; their own leakage is 0.

    On another CRS or pixel size, such pixels cause a warning.
    """
    for one, other in itertools.permutations(splits, 2):
        leaked, is_exact = _SeenPixels.of(other).leaked(one)
        if not is_exact:
            _warn(one, leaked, f"{other.labelled.scene.name} trains on")
        elif leaked:
            field = f"number of test pixels that {other.labelled.scene.name} trains on"
            fix = "give both the same labels, so that their splits are the same, or label each pixel in one scene only"
            raise InputError(one.labelled.scene.name, field, leaked, "0: both show the same ground", fix)


def all_seen(header: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Pixels seen in a model's training and in those before it, the latest last, as many as a header holds."""
    latest = [header["seen"]] if "seen" in header else []
    return tuple([*header.get("seen_before", []), *latest][-MOST_SEEN:])


def _ground_truth_digest(split: Split) -> str:
    """Digest of shape and classes of the labelled pixels; classes are numbered as they occur, whatever their codes."""
    labels = split.labelled.labels.ravel()
    pixels = np.flatnonzero(labels)
    _, first, classes = np.unique(labels[pixels], return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))
    digest = hashlib.sha256(repr(split.roles.shape).encode())
    digest.update(pixels.astype("<i8").tobytes() + number[classes].astype("<i8").tobytes())
    return digest.hexdigest()


def _packed(values: NDArray) -> str:
    """Numbers as text."""
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()


def _unpacked(text: str, dtype: str) -> NDArray:
    """The numbers of a text."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)
