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

    def leaked(self, split: Split) -> int:
        """Number of test pixels of a split with one of these in their receptive field, if both show the same ground."""
        labels = split.labelled.labels

        def alike() -> bool:
            """Whether the labels are, of one shape."""
            if self.classes is None:
                return self.digest == _ground_truth_digest(split)
            numbers = self.labelled, int(np.count_nonzero(labels))
            return mostly_alike(self.classes, labels.ravel()[self.pixels], labelled=numbers)

        shift = shift_on_ground(self.geobox, split.labelled.scene.geobox, alike=alike)
        if shift is None:
            self._warn_of_other_grid(split)
            return 0
        mask = np.zeros(labels.shape, bool)
        mask.flat[self.geobox.shifted(self.pixels, shift, labels.shape)] = True
        return int((dilate(mask, split.radius) & (split.roles == TEST)).sum())

    def _warn_of_other_grid(self, split: Split) -> None:
        """Warns of test pixels of a split on the ground of these on another grid, whichever has the larger pixels."""
        scene, test = split.labelled.scene, split.pixels(TEST)
        seen, tested = self.geobox.located(self.pixels, scene.geobox), scene.geobox.located(test, self.geobox)
        if shared := max(int(np.isin(test, seen).sum()), int(np.isin(tested, self.pixels).sum())):
            text = "%s: about %d of %d test pixels cover training pixels of another grid: accuracy is too high."
            _log.warning(text, scene.name, shared, test.size)


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
    also need the same labels, whatever the codes of their classes. Different bands or names make no difference.
    """
    for entry in all_seen(header):
        if "shape" not in entry and entry["ground"] != _ground_truth_digest(split):
            continue
        if leaked := _SeenPixels.from_entry(entry, split.roles.shape).leaked(split):
            seed = (header.get("split") or {}).get("seed", header.get("seed", 0))
            of = f"the model was trained with (split.seed={seed})"
            if entry is not header.get("seen"):
                of = "an earlier training of the model on this ground used"
            field = "number of test pixels that the pretrained model has seen"
            fix = f"use the labels and the split that {of}, split=fixed with other test pixels, or another scene"
            raise InputError("split", field, leaked, "0: model and scene show the same ground", fix)


def check_apart(splits: Sequence[Split]) -> None:
    """Refuses scenes of the same ground if one is tested on what another trains on; their own leakage is 0."""
    for one, other in itertools.permutations(splits, 2):
        if leaked := _SeenPixels.of(other).leaked(one):
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
