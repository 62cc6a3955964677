"""Classifying every pixel of a scene, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from hsfusion.nn import BandFusion, FusionNetwork
from hsfusion.scenes import Scene, Window


@torch.no_grad()
def predict_scene(
    network: FusionNetwork, scene: Scene, *, device: torch.device | str = "cpu", tile: int = 256
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Classifies a scene.

    The scene is reflected at its border, so that every pixel gets a class; the network runs over whole tiles with a
    halo of its receptive field, so that the result does not depend on the tile size.

    Args:
        network: the network; put in evaluation mode and moved to the device.
        scene: the scene, of at least the receptive field's size.
        device: where to compute.
        tile: edge of a tile in pixels.

    Returns:
        class indices (H, W), -1 where a band of a group holds no data, and confidence (H, W) float32: the softmax
        probability of the class, NaN where there is none.
    """
    classes = np.full(scene.geobox.shape, -1, np.int64)
    confidence = np.full(scene.geobox.shape, np.nan, np.float32)
    for window, x, missing in _standardised_tiles(network, scene, device=device, tile=tile):
        probability, index = network.classify(x)[0].float().softmax(0).max(0)
        part = np.s_[window.row : window.row + window.height, window.col : window.col + window.width]
        classes[part] = np.where(missing, -1, index.cpu().numpy())
        confidence[part] = np.where(missing, np.nan, probability.cpu().numpy())
    return classes, confidence


@torch.no_grad()
def instance_weight_maps(
    network: FusionNetwork, scene: Scene, *, device: torch.device | str = "cpu", tile: int = 256
) -> NDArray[np.float32]:
    """How much each group counts at each pixel, for a network with instance weights.

    Absolute group weights with the gates, scaled to sum to 1 over the groups in each fused channel, and averaged over
    the channels by their share in what the CNN takes in: the group totals of the band weights, pixel by pixel.

    Args:
        network: the network, with fusion of kind instance or channel_instance; put in evaluation mode and moved.
        scene: the scene, of at least the receptive field's size.
        device: where to compute.
        tile: edge of a tile in pixels.

    Returns:
        (G, H, W), further rasters at the end; NaN where a band holds no data.
    """
    fusion, margin = network.fusion, network.cnn.receptive_field // 2
    assert isinstance(fusion, BandFusion), "the free convolution has no group weights"
    maps = np.full((len(fusion.membership), *scene.geobox.shape), np.nan, np.float32)
    for window, x, missing in _standardised_tiles(network, scene, device=device, tile=tile):
        inner = x[..., margin : x.shape[2] - margin, margin : x.shape[3] - margin]
        weights = fusion.instance_weights(inner)  # (1, G, H, W) or (1, G, M, H, W)
        sizes = fusion.group_sizes(weights[:, :, None] if weights.dim() == 4 else weights)[0]  # (G, M, H, W)
        size = torch.einsum("gmhw,m->ghw", sizes, network.cnn.input_share)
        part = np.s_[:, window.row : window.row + window.height, window.col : window.col + window.width]
        maps[part] = np.where(missing, np.nan, size.cpu().numpy())
    return maps


def _standardised_tiles(
    network: FusionNetwork, scene: Scene, *, device: torch.device | str, tile: int
) -> Iterator[tuple[Window, torch.Tensor, NDArray[np.bool_]]]:
    """Windows, their standardised pixels (1, C, h, w) with the halo of the receptive field, and where data miss."""
    network = network.eval().to(device)
    radius = network.receptive_field // 2
    used = network.used_bands
    for window in _tiles(scene.geobox.shape, tile):
        cube = _read_with_halo(scene, window, radius)
        inner = cube[used.cpu().numpy(), radius : radius + window.height, radius : radius + window.width]
        x = torch.from_numpy(cube).to(device)[None].contiguous(memory_format=torch.channels_last)
        x = torch.where(used[:, None, None] & x.isfinite(), network.standardise(x), 0.0)
        yield window, x, np.asarray(np.isnan(inner).any(axis=0))


def _tiles(shape: tuple[int, int], edge: int) -> Iterator[Window]:
    for row in range(0, shape[0], edge):
        for col in range(0, shape[1], edge):
            yield Window(row, col, min(edge, shape[0] - row), min(edge, shape[1] - col))


def _read_with_halo(scene: Scene, window: Window, radius: int) -> NDArray[np.float32]:
    """Reads (C, height + 2 radius, width + 2 radius), reflected where the scene ends."""
    (height, width), (row, col, rows, cols) = scene.geobox.shape, window
    top, left = max(0, row - radius), max(0, col - radius)
    bottom, right = min(height, row + rows + radius), min(width, col + cols + radius)
    cube = scene.read(Window(top, left, bottom - top, right - left))
    pad_rows = (top - (row - radius), row + rows + radius - bottom)
    pad_cols = (left - (col - radius), col + cols + radius - right)
    return np.pad(cube, ((0, 0), pad_rows, pad_cols), mode="reflect")
