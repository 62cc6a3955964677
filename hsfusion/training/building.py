"""From plain values to a network, so that a file can hold all that is needed to build it again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hsfusion.errors import HsFusionError, InputError
from hsfusion.nn import BandFusion, FreeFusion, FusionNetwork, SmallCNN
from hsfusion.spectra import BandGroup, Bands, combine, gaussian_basis, membership

FUSIONS = ("scalar", "channel", "instance", "channel_instance", "none", "free")


def build_network(
    bands: Bands,
    groups: Sequence[BandGroup],
    *,
    num_classes: int,
    fusion: str = "channel",
    constraint: str = "signed",
    channels: int = 32,
    width: int = 64,
    receptive_field: int = 7,
    knot_spacing_nm: float | None = 40.0,
    neighbourhood: int = 3,
    dropout: float = 0.2,
) -> FusionNetwork:
    """Builds a network that has seen nothing yet; mean and standard deviation are 0 and 1.

    Args:
        bands: the C bands.
        groups: the G band groups.
        num_classes: K.
        fusion: kind of group weights: scalar, channel, instance, channel_instance or none; or free, an unconstrained
            1 x 1 convolution in place of the band fusion.
        constraint: of the group weights: none, affine, convex or signed.
        channels: M, fused channels.
        width: hidden channels of the CNN.
        receptive_field: pixels that the whole network sees, odd.
        knot_spacing_nm: distance in nm of the knots of the response curves; None for one free logit per band.
        neighbourhood: pixels from which instance weights are predicted, odd; part of the receptive field.
        dropout: share of hidden channels dropped in training.

    Raises:
        InputError: on a value that is none of these, or a group without a band.
    """
    inside = membership(groups, bands)
    if fusion not in FUSIONS:
        raise InputError(
            "model", field="fusion", value=fusion, expected=" | ".join(FUSIONS), fix="correct model.fusion"
        )
    try:
        if fusion == "free":
            good = torch.from_numpy(bands.good.copy())
            fused: BandFusion | FreeFusion = FreeFusion(good[None], channels=channels)
        else:
            fused = BandFusion(
                torch.from_numpy(inside),
                torch.from_numpy(gaussian_basis(bands, groups, knot_spacing_nm=knot_spacing_nm)),
                channels=channels,
                kind=fusion,  # pyright: ignore[reportArgumentType]
                constraint=constraint,  # pyright: ignore[reportArgumentType]
                neighbourhood=neighbourhood,
            )
        cnn = SmallCNN(
            channels, num_classes, width=width, receptive_field=receptive_field - 2 * fused.margin, dropout=dropout
        )
    except ValueError as error:
        raise HsFusionError(f"model: {error}. Fix: correct it in the configuration.") from error
    network = FusionNetwork(fused, cnn, mean=torch.zeros(len(bands)), std=torch.ones(len(bands)))
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class LearnedWeights:
    """What a network has learned about the bands, as arrays.

    Attributes:
        response: (G, M, C), non-negative, sums to 1 over C.
        group_weights: (G, M), signed; the mean over the sample for instance kinds.
        channel_share: (M,), sums to 1.
        weight: (C,), the band weights, non-negative, sums to 1.
    """

    response: NDArray[np.float64]
    group_weights: NDArray[np.float64]
    channel_share: NDArray[np.float64]
    weight: NDArray[np.float64]

    def __init__(self, network: FusionNetwork, sample: torch.Tensor | None = None) -> None:
        """Reads them off.

        Args:
            network: the network.
            sample: (B, C, H, W) standardised patches of training pixels; needed for instance weights only.
        """
        fusion = network.fusion
        with torch.no_grad():
            self.channel_share = _array(network.cnn.input_share)
            if isinstance(fusion, FreeFusion):
                # no groups and no simplex: rows of the matrix, each scaled to sum to 1 in absolute value
                rows = _array(fusion.matrix())
                self.response = (np.abs(rows) / np.abs(rows).sum(1, keepdims=True))[None]
                self.group_weights = magnitude = np.ones((1, rows.shape[0]))
            else:
                self.response = _array(fusion.response)
                self.group_weights, magnitude = _group_weights(fusion, sample)
        self.weight = combine(self.response, magnitude, channel_share=self.channel_share)


def _group_weights(fusion: BandFusion, sample: torch.Tensor | None) -> tuple[NDArray, NDArray]:
    """Mean and mean absolute value of the group weights, (G, M) each."""
    if fusion.kind.endswith("instance"):
        assert sample is not None, "instance weights need a sample of pixels"
        weights = fusion.instance_weights(sample)  # (B, G, H, W) or (B, G, M, H, W)
        if weights.dim() == 4:
            weights = weights[:, :, None]
        mean, magnitude = weights.mean((0, 3, 4)), weights.abs().mean((0, 3, 4))  # (G, M) or (G, 1)
    else:
        mean = fusion.group_sum.weights
        mean = mean[:, None] if mean.dim() == 1 else mean
        magnitude = mean.abs()
    shape = (mean.shape[0], fusion.channels)
    return _array(mean.expand(shape)), _array(magnitude.expand(shape))


def _array(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()
