"""A trained network with fewer operations that gives the same numbers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hsfusion.nn import FusionNetwork


class FoldedNetwork(nn.Module):
    """A trained network as one matrix product for each pixel, then convolutions.

    Standardisation, gates, response, group weights, normalisation and the first 1 x 1 convolution are all linear: here
    they are one matrix. Every other normalisation is part of the convolution before it. Where the group weights depend
    on the pixels (instance kinds), the band fusion stays as it is.

    Args:
        network: a trained network; it is left as it is.

    Attributes:
        layers: (L,) indices of the bands and further layers that it takes, ascending; the others make no difference.
        fill: (L,) what stands for missing values: the means of the training pixels.
        receptive_field: pixels that one output pixel sees, odd.
    """

    layers: Tensor
    fill: Tensor

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__()
        network = copy.deepcopy(network).eval().requires_grad_(False)
        cnn = network.cnn
        self.register_buffer("layers", network.used_bands.nonzero()[:, 0])
        self.register_buffer("fill", network.mean[self.layers])
        self.receptive_field = network.receptive_field
        features = list(cnn.features)  # each three are a convolution, its normalisation and a ReLU
        folded = [_fused(*features[i : i + 2]) for i in range(0, len(features), 3)]
        first = _after(cnn.norm, folded[0])
        if network.fusion.kind.endswith("instance"):
            self.front: nn.Module = InstanceFront(network, self.layers, first)
        else:
            self.front = PixelMatrix(*_matrix(network, self.layers, first))
        hidden = [part for convolution in folded[1:] for part in (convolution, nn.ReLU(inplace=True))]
        self.convolutions = nn.Sequential(nn.ReLU(inplace=True), *hidden)
        self.classifier = cnn.classifier
        self.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        """Classifies.

        Args:
            x: (B, L, H, W) float32, in the unit of the training scene; NaN where a value is missing.

        Returns:
            (B, K, H - receptive_field + 1, W - receptive_field + 1), logits
        """
        return self.convolve(self.front(self.filled(x)))

    def classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Like :meth:`forward`, and says where a value is missing.

        Args:
            x: (B, L, H, W) float32, NaN where a value is missing.

        Returns:
            logits (B, K, H', W'), and (B, H', W') bool: whether the pixel itself misses a value. Its neighbours see the
            training mean there.
        """
        radius = self.receptive_field // 2
        inner = slice(radius, x.shape[2] - radius), slice(radius, x.shape[3] - radius)
        if not isinstance(self.front, PixelMatrix):
            missing = x.isnan().any(1)
            return self.convolve(self.front(self.filled(x))), missing[:, *inner]
        fused = self.front(x)
        missing = fused[:, 0].isnan()  # whatever the weight, NaN comes through
        if missing.any():
            fused = self.front(self.filled(x))
        return self.convolve(fused), missing[:, *inner]

    def filled(self, x: Tensor) -> Tensor:
        """Puts the training mean where a value is missing."""
        return torch.where(x.isnan(), self.fill[:, None, None], x)

    def convolve(self, fused: Tensor) -> Tensor:
        """From what :attr:`front` returns to float32 logits; hidden layers in the number type of their weights."""
        first = next(self.convolutions.parameters(), self.classifier.weight)
        return self.classifier(self.convolutions(fused.to(first.dtype)).float())


class PixelMatrix(nn.Module):
    """One matrix product for each pixel: (B, L, H, W) to (B, M, H, W), in channels-last memory.

    Args:
        weight: (M, L).
        bias: (M,).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies; no copy is made of an x that lies band by band, or pixel by pixel."""
        flat = x.movedim(1, -1).reshape(-1, x.shape[1])  # (B H W, L)
        product = torch.addmm(self.bias, flat, self.weight.T)
        return product.view(x.shape[0], *x.shape[2:], -1).movedim(-1, 1)


class InstanceFront(nn.Module):
    """Band fusion with weights that depend on the pixels, and the first 1 x 1 convolution.

    Args:
        network: the network.
        layers: (L,) what it takes of its bands and layers.
        first: the convolution.
    """

    layers: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, network: FusionNetwork, layers: Tensor, first: nn.Conv2d) -> None:
        super().__init__()
        self.register_buffer("layers", layers)
        self.register_buffer("mean", network.mean[layers, None, None])
        self.register_buffer("std", network.std[layers, None, None])
        self.bands = len(network.mean)
        self.fusion = network.fusion
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """Fuses (B, L, H, W) to (B, M, H', W'); layers that are not taken are 0 once standardised."""
        every = x.new_zeros(x.shape[0], self.bands, *x.shape[2:])
        return self.first(self.fusion(every.index_copy(1, self.layers, (x - self.mean) / self.std)))


def _fused(convolution: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm)


def _after(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> nn.Conv2d:
    """A 1 x 1 convolution that does what the normalisation before it did."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * gain
    weight = convolution.weight[:, :, 0, 0].double()
    assert convolution.bias is not None
    bias = convolution.bias.double() + weight @ shift.double()
    result = nn.Conv2d(weight.shape[1], weight.shape[0], 1).requires_grad_(False)
    result.weight.copy_((weight * gain.double())[:, :, None, None])
    result.bias.copy_(bias)  # pyright: ignore[reportOptionalMemberAccess]
    return result


def _matrix(network: FusionNetwork, layers: Tensor, first: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Standardisation, fusion and first convolution as weight (M, L) and bias (M,); computed in float64."""
    assert first.bias is not None
    matrix = (network.fusion.matrix() * network.fusion.openness).double()
    weight = first.weight[:, :, 0, 0].double() @ matrix / network.std.double()
    bias = first.bias.double() - weight[:, layers] @ network.mean[layers].double()
    return weight[:, layers].float(), bias.float()
