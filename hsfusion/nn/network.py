"""The whole network: standardisation, band fusion, small CNN."""

from __future__ import annotations

from torch import Tensor, nn

from hsfusion.nn.band_fusion import BandFusion, FreeFusion
from hsfusion.nn.cnn import SmallCNN


class FusionNetwork(nn.Module):
    """Standardisation, band fusion and CNN in one module that takes a scene's own values.

    Args:
        fusion: from C bands to M channels.
        cnn: from M channels to K classes.
        mean: (C,), subtracted from each band.
        std: (C,), positive, each band is divided by it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, fusion: BandFusion | FreeFusion, cnn: SmallCNN, *, mean: Tensor, std: Tensor) -> None:
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
