"""The whole network: standardisation, band fusion, and a classifier around a backbone; and the backbones.

A backbone is any module that takes (B, M, H, W), returns (B, D, H - receptive_field + 1, W - receptive_field + 1), and
states both ``receptive_field`` (odd number of pixels) and ``out_channels`` (D). The first convolution among its modules
takes the fused channels, and is the only part that does. Its maker is called as
``maker(channels, width=..., receptive_field=...)``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsfusion.nn.band_fusion import BandFusion, FreeFusion, StochasticGates, crop, matrix_product

#: makes a backbone from the number of channels, ``width`` and ``receptive_field``
BackboneMaker = Callable[..., nn.Module]

DEFAULT_BACKBONE = "small_cnn"


class SmallCNN(nn.Sequential):
    """A hidden layer at every pixel, then 3 x 3 valid convolutions.

    The hidden layer transforms the fused channels nonlinearly before neighbours are mixed; without it, overall accuracy
    on a blocks split of Indian Pines was 0.02 lower.

    Args:
        channels: M, input channels.
        width: channels of the hidden layers, and of the output if there is a 3 x 3 convolution.
        receptive_field: odd number of pixels; each 3 x 3 convolution adds 2 to 1.
    """

    def __init__(self, channels: int, *, width: int = 64, receptive_field: int = 7) -> None:
        _check_receptive_field(receptive_field)
        sizes = [channels, *[width] * (receptive_field // 2)]
        layers = _layer(channels, channels, 1)
        for taken, given in pairwise(sizes):
            layers += _layer(taken, given, 3)
        super().__init__(*layers)
        self.receptive_field, self.out_channels = receptive_field, sizes[-1]


#: name in configurations and model files -> maker
BACKBONES: dict[str, BackboneMaker] = {DEFAULT_BACKBONE: SmallCNN}
_PACKAGED = tuple(BACKBONES)


def register_backbone(name: str, maker: BackboneMaker) -> None:
    """Registers the maker of a backbone under a name for settings and model files.

    Best called in the module that defines the backbone, so that whatever imports it knows the name. Names used by this
    package cannot be replaced; others can.
    """
    if name in _PACKAGED and BACKBONES[name] is not maker:
        raise ValueError(f"name of a backbone is {name!r}, expected another than {', '.join(_PACKAGED)}")
    BACKBONES[name] = maker


def _first_convolution(backbone: nn.Module, *, channels: int) -> nn.Conv2d:
    """The convolution that takes all fused channels, the first of the modules; ValueError if it does not."""
    first = next((module for module in backbone.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.in_channels != channels or first.groups != 1:
        raise ValueError(
            f"first convolution of backbone {type(backbone).__name__} is {first}, expected one from all {channels} "
            "fused channels in 1 group: it says what each of them counts for"
        )
    return first


@torch.no_grad()
def check_backbone(backbone: nn.Module, *, channels: int) -> None:
    """Makes sure that a backbone (on the CPU) has the receptive field that it states, which the split relies on.

    Raises:
        ValueError: if its output does not have the size of valid convolutions, or a pixel of a tile differs from that
            of its patch, as with pooling or normalisation over the whole tile.
    """
    edge, features = _stated(backbone, "receptive_field"), _stated(backbone, "out_channels")
    still = copy.deepcopy(backbone).eval()
    x = torch.randn(1, channels, edge + 1, edge + 2, generator=torch.Generator().manual_seed(0))
    tile = still(x)
    alike = tuple(tile.shape) == (1, features, 2, 3) and torch.allclose(
        tile[..., 1:, 2:], still(x[..., 1:, 2:]), rtol=0, atol=1e-3 * float(tile.abs().max())
    )
    if not alike:
        raise ValueError(
            f"output {tuple(tile.shape)} of backbone {type(backbone).__name__} for {tuple(x.shape)} is not that of its "
            f"receptive_field of {edge} pixels, expected {(1, features, 2, 3)}: valid convolutions of stride 1, and no "
            "pooling or normalisation over the whole tile"
        )


def _stated(backbone: nn.Module, name: str) -> int:
    """A number that a backbone must state; ValueError if it does not."""
    value = getattr(backbone, name, None)
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} of backbone {type(backbone).__name__} is {value}, expected a whole number from 1 up")
    return value


def _layer(taken: int, given: int, size: int) -> list[nn.Module]:
    return [nn.Conv2d(taken, given, size, bias=False), nn.BatchNorm2d(given), nn.ReLU()]


def _check_receptive_field(receptive_field: int) -> None:
    if receptive_field < 1 or receptive_field % 2 == 0:
        raise ValueError(f"receptive_field is {receptive_field}, expected an odd number of pixels")


class PixelClassifier(nn.Module):
    """Fused channels, normalised, through a backbone to a linear classifier at every position.

    A patch of ``receptive_field`` pixels gives one pixel; a tile gives the same numbers for all its pixels.

    Args:
        backbone: from M channels to its features, see :mod:`hsfusion.nn.network`.
        channels: M.
        num_classes: K.
        dropout: share of the backbone's features dropped in training, before the classifier.
    """

    def __init__(self, backbone: nn.Module, channels: int, num_classes: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.receptive_field = _stated(backbone, "receptive_field")
        _first_convolution(backbone, channels=channels)
        self.norm = nn.BatchNorm2d(channels)
        if isinstance(backbone, SmallCNN):  # whose normalisation takes the bias away: steps would follow rounding alone
            self.norm.bias.requires_grad_(False)
        self.features = backbone
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(_stated(backbone, "out_channels"), num_classes, 1)

    @property
    def input_share(self) -> Tensor:
        """(M,) share of each channel in what the backbone takes in; sums to 1.

        Each channel is normalised, scaled by its gain and spread by the first convolution: its share is the product of
        the gain's absolute value and the norm of its kernels.
        """
        first = _first_convolution(self.features, channels=self.norm.num_features)
        taken = self.norm.weight.abs() * first.weight.square().sum((0, 2, 3)).sqrt()
        return taken / taken.sum()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, H - receptive_field + 1, W - receptive_field + 1) of fused channels (B, M, H, W)."""
        return self.classifier(self.dropout(self.features(self.norm(x))))


class LinearPart(nn.Module):
    r"""A linear classifier of the centre pixel or of the mean over the patch, and the share of the network beside it.

    .. math::
        \log p = w \log p_\mathrm{network} + (1 - w) \log p_\mathrm{linear} + \mathrm{const}

    With few labels, or mixed pixels, little more can be learned than what is linear in the bands, and a network learns
    that less well. The share w, between 0 and 1, is fitted on validation pixels once both are trained. ``of_mean`` is 1
    if the classifier sees the mean over the receptive field, 0 if it sees the centre pixel.

    Args:
        bands: C.
        num_classes: K.
    """

    weight: Tensor
    bias: Tensor
    network_share: Tensor
    temperature: Tensor
    of_mean: Tensor

    def __init__(self, bands: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_classes, bands))
        self.register_buffer("bias", torch.zeros(num_classes))
        self.register_buffer("network_share", torch.ones(()))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("of_mean", torch.zeros(()))

    @property
    def sees(self) -> str:
        """What the classifier sees, in words."""
        return "mean of the patch" if self.of_mean else "pixel's spectrum"

    def direct(self, x: Tensor, margin: int = 0) -> Tensor:
        """Logits (B, K, H - 2 margin, W - 2 margin) from standardised bands (B, C, H, W)."""
        logits = matrix_product(x, self.weight) + self.bias[:, None, None]
        return torch.lerp(crop(logits, margin), patch_mean(logits, margin), self.of_mean)

    def mix(self, logits: Tensor, direct: Tensor) -> Tensor:
        """Logarithms of the weighted geometric mean of the probabilities that two sets of logits (B, K, H, W) give."""
        network = (logits / self.temperature).log_softmax(1)
        return self.network_share * network + (1 - self.network_share) * direct.log_softmax(1)


def patch_mean(x: Tensor, margin: int) -> Tensor:
    """Mean of (B, K, H, W) over squares with ``margin`` pixels on each side: (B, K, H - 2 margin, W - 2 margin)."""
    size = 2 * margin + 1
    return F.avg_pool2d(F.avg_pool2d(x, (size, 1), stride=1), (1, size), stride=1)


class FusionNetwork(nn.Module):
    """Standardisation, band fusion and classifier in one module that takes the values of a scene.

    Args:
        fusion: from C bands to M channels.
        cnn: from M channels to K classes, around any backbone.
        mean: (C,), subtracted from each band.
        std: (C,), positive, each band is divided by it.
        whitens: whether the fusion sees noise-whitened bands, by the buffer ``whitening`` (C, C).
        linear: a linear classifier that accompanies the network; None for none.
    """

    mean: Tensor
    std: Tensor
    covariance: Tensor
    whitening: Tensor | None

    def __init__(
        self,
        fusion: BandFusion | FreeFusion,
        cnn: PixelClassifier,
        *,
        mean: Tensor,
        std: Tensor,
        whitens: bool = False,
        linear: LinearPart | None = None,
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.cnn = cnn
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())
        self.register_buffer("covariance", torch.eye(len(mean))[*torch.triu_indices(len(mean), len(mean))])
        self.register_buffer("whitening", torch.eye(len(mean)) if whitens else None)
        self.linear = linear

    @property
    def receptive_field(self) -> int:
        """Odd number of pixels: edge of the square of the scene that one output pixel sees."""
        return self.cnn.receptive_field + 2 * self.fusion.margin

    @property
    def spectral_covariance(self) -> Tensor:
        """(C, C) of the standardised training spectra; the buffer ``covariance`` holds its upper triangle."""
        whole = self.covariance.new_zeros(len(self.mean), len(self.mean))
        rows, columns = torch.triu_indices(*whole.shape)
        whole[rows, columns] = whole[columns, rows] = self.covariance
        return whole

    @property
    def used_bands(self) -> Tensor:
        """(C,) bool, the bands that can affect the result."""
        used = self.fusion.membership.any(0) & (self.fusion.openness > 0)
        if self.whitening is not None:
            used = (self.whitening[used] != 0).any(0)
        return used if self.linear is None else used | (self.linear.weight != 0).any(0)

    def matrix(self) -> Tensor:
        """(M, C) from standardised bands to fused channels, gates and whitening included; not for instance kinds."""
        matrix = self.fusion.matrix() * self.fusion.openness
        return matrix if self.whitening is None else matrix @ self.whitening

    def standardise(self, x: Tensor) -> Tensor:
        """Scales (B, C, H, W) in the scene's unit to mean 0 and standard deviation 1 per band."""
        return (x - self.mean[:, None, None]) / self.std[:, None, None]

    def classify(self, x: Tensor) -> Tensor:
        """Like :meth:`forward`, for bands that are already standardised."""
        whitened = x if self.whitening is None else matrix_product(x, self.whitening)
        logits = self.cnn(self.fusion(whitened))
        if self.linear is None:
            return logits
        return self.linear.mix(logits, self.linear.direct(x, self.receptive_field // 2))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, H - receptive_field + 1, W - ...) of bands (B, C, H, W) in the unit of the training scene."""
        return self.classify(self.standardise(x))


class MultiSceneNetwork(nn.Module):
    """Networks of several scenes that are trained as one.

    The coefficients of the responses, the group weights and the CNN are the same tensors in all of them. The parts that
    belong to a sensor differ: the positions of its bands on the curves, the width of each, and the standardisation.
    There are no gates, because these would belong to the bands of one sensor.

    Args:
        networks: one for each of S scenes, with the same groups, knots and architecture; they become parts of this
            one, which starts from the first.
    """

    def __init__(self, networks: Sequence[FusionNetwork]) -> None:
        super().__init__()
        fusions = [network.fusion for network in networks]
        first = cast("BandFusion", fusions[0])
        shapes = [tuple(fusion.get_parameter("coefficients").shape) for fusion in fusions if fusion.kind != "free"]
        if len(shapes) < len(fusions) or len(set(shapes)) > 1 or len({fusion.kind for fusion in fusions}) > 1:
            kinds = [fusion.kind for fusion in fusions]
            raise ValueError(f"fusions of kinds {kinds} with coefficients of shapes {shapes} have nothing to share")
        # in a list, so that they are no parts of this one: what each network gets back when it is taken out
        self._gates = [fusion.gates for fusion in fusions]
        for network in networks:
            network.cnn = networks[0].cnn
            network.fusion.coefficients = first.coefficients
            network.fusion.group_sum = first.group_sum
            network.fusion.gates = None
        self.networks = nn.ModuleList(networks)

    @property
    def fusion(self) -> BandFusion:
        """The fusion of the first scene: all parameters that it has are those of the others, too."""
        return cast("BandFusion", self[0].fusion)

    @property
    def cnn(self) -> PixelClassifier:
        """The CNN of all."""
        return self[0].cnn

    def __getitem__(self, scene: int) -> FusionNetwork:
        return cast("FusionNetwork", self.networks[scene])

    def classify(self, patches: Sequence[Tensor]) -> Tensor:
        """Classifies standardised patches (B_s, C_s, H, W) of all scenes at once, normalised over all; B_s may be 0."""
        fused = [self[scene].fusion(x) for scene, x in enumerate(patches) if len(x)]
        return self.cnn(torch.cat(fused or [self[0].fusion(patches[0])]))

    def split_networks(self) -> list[FusionNetwork]:
        """The networks of the scenes, each an ordinary network with separate tensors and gates settled fully open."""
        apart = []
        for scene, gates in enumerate(self._gates):
            network = copy.deepcopy(self[scene])
            fusion = cast("BandFusion", network.fusion)
            fusion.gates = copy.deepcopy(gates)
            if isinstance(fusion.gates, StochasticGates):
                fusion.gates.kept.fill_(True)
            apart.append(network.to(network.mean.device))
        return apart
