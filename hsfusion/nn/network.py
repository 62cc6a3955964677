"""The whole network: standardisation, band fusion, and a classifier around a backbone."""

from __future__ import annotations

from torch import Tensor, nn

from hsfusion.nn.backbones import first_convolution, stated
from hsfusion.nn.band_fusion import BandFusion, FreeFusion


class PixelClassifier(nn.Module):
    """Fused channels, normalised, through a backbone to a linear classifier at every position.

    A patch of ``receptive_field`` pixels gives one pixel; a tile gives the same numbers for all its pixels.

    Args:
        backbone: from M channels to its features, see :mod:`hsfusion.nn.backbones`.
        channels: M.
        num_classes: K.
        dropout: share of the backbone's features dropped in training, before the classifier.

    Raises:
        ValueError: if the backbone does not state its receptive field and features, or its first convolution does not
            take all M channels.
    """

    def __init__(self, backbone: nn.Module, channels: int, num_classes: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.receptive_field = stated(backbone, "receptive_field")
        first_convolution(backbone, channels=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.features = backbone
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(stated(backbone, "out_channels"), num_classes, 1)

    @property
    def input_share(self) -> Tensor:
        """(M,) share of each channel in what the backbone takes in; sums to 1.

        Each channel is normalised, scaled by its gain and spread by the first convolution: its share is the product of
        the gain's absolute value and the norm of its kernels.
        """
        first = first_convolution(self.features, channels=self.norm.num_features)
        taken = self.norm.weight.abs() * first.weight.square().sum((0, 2, 3)).sqrt()
        return taken / taken.sum()

    def forward(self, x: Tensor) -> Tensor:
        """Classifies.

        Args:
            x: (B, M, H, W)

        Returns:
            (B, K, H - receptive_field + 1, W - receptive_field + 1), logits
        """
        return self.classifier(self.dropout(self.features(self.norm(x))))


class FusionNetwork(nn.Module):
    """Standardisation, band fusion and classifier in one module that takes a scene's own values.

    Args:
        fusion: from C bands to M channels.
        cnn: from M channels to K classes, around any backbone.
        mean: (C,), subtracted from each band.
        std: (C,), positive, each band is divided by it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, fusion: BandFusion | FreeFusion, cnn: PixelClassifier, *, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.fusion = fusion
        self.cnn = cnn
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())

    @property
    def receptive_field(self) -> int:
        """Odd number of pixels: edge of the square of the scene that one output pixel sees."""
        return self.cnn.receptive_field + 2 * self.fusion.margin

    @property
    def used_bands(self) -> Tensor:
        """(C,) bool, the bands that can make a difference."""
        return self.fusion.membership.any(0) & (self.fusion.openness > 0)

    def standardise(self, x: Tensor) -> Tensor:
        """Brings (B, C, H, W) in the scene's own unit to mean 0 and standard deviation 1 per band."""
        return (x - self.mean[:, None, None]) / self.std[:, None, None]

    def classify(self, x: Tensor) -> Tensor:
        """Like :meth:`forward`, for bands that are standardised already."""
        return self.cnn(self.fusion(x))

    def forward(self, x: Tensor) -> Tensor:
        """Classifies.

        Args:
            x: (B, C, H, W), in the unit of the scene it was trained on.

        Returns:
            (B, K, H', W') logits with H' = H - receptive_field + 1.
        """
        return self.classify(self.standardise(x))
