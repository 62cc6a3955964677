"""Which pixels of which ground a model has seen, so that no later test counts them."""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Any

import numpy as np

from hsfusion.data.splits import TEST, TRAIN, VAL, Split, dilate
from hsfusion.errors import InputError
from hsfusion.scenes import GeoBox

MOST_SEEN = 16  # grounds of earlier trainings that a model file keeps
_MOST_BYTES = 2**20  # of the mask, packed; the blocks of a scene of 10,000 x 10,000 pixels take less
_SAME = 1e-4  # of a pixel's size: files round it


def training_mask(split: Split) -> dict[str, Any] | None:
    """Training and validation pixels, for the header of a model file; None where they would be large.

    A digest of the ground truth, its place, and the packed mask.
    """
    mask = np.isin(split.roles, (TRAIN, VAL))
    packed = base64.b64encode(zlib.compress(np.packbits(mask).tobytes(), 9)).decode()
    if len(packed) > _MOST_BYTES:
        return None
    return {"ground": _ground_truth_digest(split), "place": _place(split.labelled.scene.geobox), "pixels": packed}


def check_no_leakage(split: Split, header: dict[str, Any]) -> None:
    """Refuses to test a model on pixels that it was trained on, or has in its receptive field.

    Scenes are the same ground if their labels cut it into the same classes, whatever the codes of these, unless both
    have a place and lie apart. Other bands or another name do not tell them apart, nor does a lost georeference.
    """
    ground, place, (height, width) = _ground_truth_digest(split), _place(split.labelled.scene.geobox), split.roles.shape
    for seen in all_seen(header):
        if seen["ground"] != ground or _apart(seen["place"], place):
            continue
        packed = np.frombuffer(zlib.decompress(base64.b64decode(seen["pixels"])), np.uint8)
        mask = np.unpackbits(packed)[: height * width].astype(bool).reshape(height, width)
        leaked = int((dilate(mask, split.radius) & (split.roles == TEST)).sum())
        if leaked:
            seed = (header.get("split") or {}).get("seed", header.get("seed", 0))
            of = f"the model was trained with (split.seed={seed})"
            if seen is not header.get("seen"):
                of = "an earlier training of the model on this ground used"
            field = "number of test pixels that the pretrained model has seen"
            expected = "0: model and scene have the same ground truth"
            raise InputError("split", field, leaked, expected, f"use the split that {of}, or another scene")


def all_seen(header: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """What a model has seen in its own training and in those before it, the latest last, as many as a header holds."""
    latest = [header["seen"]] if "seen" in header else []
    return tuple([*header.get("seen_before", []), *latest][-MOST_SEEN:])


def _ground_truth_digest(split: Split) -> str:
    """Of shape and classes of the labelled pixels; classes are numbered as they come, so that codes do not matter."""
    labels = split.labelled.labels.ravel()
    pixels = np.flatnonzero(labels)
    _, first, classes = np.unique(labels[pixels], return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))
    digest = hashlib.sha256(repr(split.roles.shape).encode())
    digest.update(pixels.astype("<i8").tobytes() + number[classes].astype("<i8").tobytes())
    return digest.hexdigest()


def _place(geobox: GeoBox) -> dict[str, Any] | None:
    """Transform and EPSG code, as plain values; None where the place is unknown."""
    if geobox.is_bare:
        return None
    return {"transform": list(geobox.transform)[:6], "epsg": geobox.epsg}


def _apart(place: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Whether two places are known and differ; an unknown CRS may be any."""
    if place is None or other is None:
        return False
    if None not in (place["epsg"], other["epsg"]) and place["epsg"] != other["epsg"]:
        return True
    one, two = np.array(place["transform"]), np.array(other["transform"])
    pixel = max(np.abs(two[[0, 1, 3, 4]]))
    return bool((np.abs(one - two) > [_SAME * pixel, _SAME * pixel, pixel / 2] * 2).any())
