"""The network: weighted sums with learnable weights, band fusion, backbones. PyTorch only."""

from hsfusion.nn.band_fusion import SETTLED, BandCentres, BandFusion, FreeFusion, StochasticGates
from hsfusion.nn.network import (
    BACKBONES,
    DEFAULT_BACKBONE,
    BackboneMaker,
    FusionNetwork,
    LinearPart,
    MultiSceneNetwork,
    PixelClassifier,
    SmallCNN,
    check_backbone,
    register_backbone,
)
from hsfusion.nn.weighted_sum import WeightedSum

__all__ = [
    "BACKBONES",
    "DEFAULT_BACKBONE",
    "SETTLED",
    "BackboneMaker",
    "BandCentres",
    "BandFusion",
    "FreeFusion",
    "FusionNetwork",
    "LinearPart",
    "MultiSceneNetwork",
    "PixelClassifier",
    "SmallCNN",
    "StochasticGates",
    "WeightedSum",
    "check_backbone",
    "register_backbone",
]
