"""Where each group of bands counted, for networks with instance weights."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray

from hsfusion.inference.classification import Device
from hsfusion.inference.tiles import cells_of, read_ahead
from hsfusion.nn import BandFusion, FusionNetwork
from hsfusion.scenes import Scene


@torch.inference_mode()
def instance_weight_maps(network: FusionNetwork, scene: Scene, *, device: Device = "cpu") -> NDArray[np.float32]:
    """How much each group counts at each pixel, for a network with instance weights.

    Absolute group weights with the gates, scaled to sum to 1 over the groups in each fused channel, and averaged over
    the channels by their share in what the CNN takes in: the group totals of the band weights, pixel by pixel.

    Args:
        network: the network, with fusion of kind instance or channel_instance; left as it is.
        scene: the scene, of at least the receptive field's size.
        device: where to compute.

    Returns:
        (G, H, W), further rasters at the end; NaN where a band holds no data.
    """
    network = copy.deepcopy(network).eval().to(device)
    fusion = network.fusion
    assert isinstance(fusion, BandFusion), "the free convolution has no group weights"
    maps = np.full((len(fusion.membership), *scene.geobox.shape), np.nan, np.float32)
    used, every = network.used_bands, np.arange(len(network.mean))
    cells = cells_of(scene.geobox.shape)
    for (row, col, height, width), cube in read_ahead(scene, cells, radius=fusion.margin, layers=every):
        x = torch.from_numpy(np.ascontiguousarray(cube)).to(device)[None]
        missing = (x.isnan() & used[:, None, None]).any(1)[0]
        x = torch.where(used[:, None, None] & x.isfinite(), network.standardise(x), 0.0)
        weights = fusion.instance_weights(x)  # (1, G, H, W) or (1, G, M, H, W)
        sizes = fusion.group_sizes(weights[:, :, None] if weights.dim() == 4 else weights)[0]  # (G, M, H, W)
        size = torch.einsum("gmhw,m->ghw", sizes, network.cnn.input_share)
        inner = missing[fusion.margin : fusion.margin + height, fusion.margin : fusion.margin + width]
        maps[:, row : row + height, col : col + width] = size.masked_fill(inner, torch.nan).cpu().numpy()
    return maps
