"""Classifying every pixel of a scene, cell by cell."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hsfusion.inference.folding import FoldedNetwork
from hsfusion.inference.tiles import CELL, cells_of, read_ahead
from hsfusion.nn import FusionNetwork
from hsfusion.scenes import Scene, Window

Device = torch.device | str
_SAMPLE = 8  # cells full of data on which two precisions are compared
_MOST_CHANGED = 0.001  # share of pixels
_MOST_WAITING = 2**30  # bytes of cells that were read ahead


class Cell(NamedTuple):
    """What was found out about a window.

    Attributes:
        window: the window.
        classes: (h, w) int16 class indices, -1 where a value is missing.
        confidence: (h, w) float32, softmax probability of the class, NaN where a value is missing.
        probabilities: (K, h, w) float32 of all classes, or None where not asked for.
    """

    window: Window
    classes: NDArray[np.int16]
    confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None


def predict_scene(
    network: FusionNetwork, scene: Scene, *, device: Device = "cpu"
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Classifies a scene that fits in memory, reflected at its border, so that every pixel gets a class.

    Args:
        network: the network; left as it is.
        scene: the scene, of at least the receptive field's size, with the network's bands.
        device: where to compute.

    Returns:
        class indices (H, W), -1 where a band that the network uses holds no data, and confidence (H, W): the softmax
        probability of the class, NaN where there is none.
    """
    folded = FoldedNetwork(network).to(device)
    classes = np.full(scene.geobox.shape, -1, np.int64)
    confidence = np.full(scene.geobox.shape, np.nan, np.float32)
    for (row, col, height, width), index, share, _ in classify(folded, scene, cells_of(scene.geobox.shape)):
        classes[row : row + height, col : col + width] = index
        confidence[row : row + height, col : col + width] = share
    return classes, confidence


def classify(
    network: FoldedNetwork, scene: Scene, cells: Iterable[Window], *, batch: int = 1, probabilities: bool = False
) -> Iterator[Cell]:
    """Classifies cells in their order, reading ahead in a thread.

    A pixel's numbers do not depend on batch, nor on which cells are asked for.

    Args:
        network: the network, on the device to compute on.
        scene: the scene, of at least the receptive field's size, with the network's bands and layers.
        cells: from :func:`cells_of`.
        batch: cells that are computed at once; halved whenever memory does not suffice.
        probabilities: whether to keep those of all classes.
    """
    radius, device = network.receptive_field // 2, network.fill.device
    layers = network.layers.cpu().numpy()
    depth = max(2, min(2 * batch, _MOST_WAITING // (4 * len(layers) * CELL**2)))
    pixels = read_ahead(scene, cells, radius=radius, layers=layers, depth=depth)
    while part := list(islice(pixels, batch)):
        yield from _classified(network, part, device=device, probabilities=probabilities)


def with_precision(network: FoldedNetwork, scene: Scene, precision: str) -> tuple[FoldedNetwork, str]:
    """Chooses the number type of the convolutions; the matrix product before them stays float32.

    Args:
        network: the network, on the device to compute on.
        scene: the scene, with the network's bands and layers.
        precision: ``float32``, ``bf16``, or ``auto``: bf16 if the processor multiplies it faster, the scene is large,
            and fewer than 0.1 % of the pixels of a sample change their class. The choice is always the same.

    Returns:
        the network to use, and ``float32`` or ``bf16``.
    """
    cells = cells_of(scene.geobox.shape)
    if precision == "float32" or (precision == "auto" and not (_gains_by_bf16(network) and len(cells) > 8 * _SAMPLE)):
        return network, "float32"
    rounded = copy.deepcopy(network)
    rounded.convolutions.bfloat16()
    if precision == "bf16":
        return rounded, "bf16"
    sample = [cells[i] for i in np.random.default_rng(0).permutation(len(cells))[: 4 * _SAMPLE]]
    there = changed = 0
    for one, other in zip(classify(network, scene, sample), classify(rounded, scene, sample), strict=True):
        there += int((one.classes >= 0).sum())
        changed += int((one.classes != other.classes).sum())
        if there >= _SAMPLE * CELL**2:
            return (rounded, "bf16") if changed < _MOST_CHANGED * there else (network, "float32")
    return network, "float32"  # too little of it holds data


def batch_for(network: FoldedNetwork) -> int:
    """Number of cells that are computed at once: one on a CPU, on a GPU what fills a quarter of its free memory."""
    if network.fill.device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(network.fill.device)
    # floats that one pixel needs at a time: its bands, and what goes into and comes out of the widest layer
    floats = len(network.layers) + 4 * max(p.shape[0] for p in network.parameters() if p.dim() == 4)
    return max(1, min(8, free // (4 * 4 * floats * CELL**2)))  # more would lie in the host's memory too


def _gains_by_bf16(network: FoldedNetwork) -> bool:
    if network.fill.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capability: Any = torch.cpu
    return capability._is_avx512_bf16_supported() or capability._is_amx_tile_supported()


def _classified(
    network: FoldedNetwork,
    part: Sequence[tuple[Window, NDArray[np.float32]]],
    *,
    device: torch.device,
    probabilities: bool,
) -> Iterator[Cell]:
    if len({values.shape for _, values in part}) > 1:  # the last column or row
        for one in part:
            yield from _classified(network, [one], device=device, probabilities=probabilities)
        return
    try:
        results = _compute(network, [values for _, values in part], device=device, probabilities=probabilities)
    except torch.OutOfMemoryError:
        if len(part) == 1:
            raise
        for half in (part[: len(part) // 2], part[len(part) // 2 :]):
            yield from _classified(network, half, device=device, probabilities=probabilities)
        return
    for (window, _), (classes, confidence, shares) in zip(part, results, strict=True):
        yield Cell(window, classes, confidence, shares)


@torch.inference_mode()
def _compute(
    network: FoldedNetwork, cubes: Sequence[NDArray[np.float32]], *, device: torch.device, probabilities: bool
) -> list[tuple[NDArray[np.int16], NDArray[np.float32], NDArray[np.float32] | None]]:
    tensors = [torch.from_numpy(cube) for cube in cubes]
    if len(tensors) == 1:
        x = tensors[0][None]
    elif cubes[0].strides[0] == cubes[0].itemsize:  # a pixel's numbers lie side by side, and stay so
        x = torch.stack([tensor.movedim(0, -1) for tensor in tensors]).movedim(-1, 1)
    else:
        x = torch.stack(tensors)
    if device.type == "cuda":
        x = x.pin_memory()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # float32 is float32, on every device
        logits, missing = network.classify(x.to(device, non_blocking=True))
    shares = logits.movedim(1, -1).softmax(-1)  # (B, H, W, K), as it lies in memory
    confidence, classes = shares.max(-1)
    shares = shares.movedim(-1, 1)
    classes = classes.to(torch.int16).masked_fill_(missing, -1).cpu().numpy()
    confidence = confidence.masked_fill_(missing, torch.nan).cpu().numpy()
    every = shares.masked_fill_(missing[:, None], torch.nan).cpu().numpy() if probabilities else [None] * len(cubes)
    return list(zip(classes, confidence, every, strict=True))
