"""The network: weighted sums with learnable weights, band fusion, a small CNN. PyTorch only."""

from hsfusion.nn.band_fusion import BandFusion, FreeFusion
from hsfusion.nn.cnn import SmallCNN
from hsfusion.nn.gates import SETTLED, BandCentres, StochasticGates
from hsfusion.nn.network import FusionNetwork
from hsfusion.nn.several import SeveralNetworks
from hsfusion.nn.weighted_sum import WeightedSum

__all__ = [
    "SETTLED",
    "BandCentres",
    "BandFusion",
    "FreeFusion",
    "FusionNetwork",
    "SeveralNetworks",
    "SmallCNN",
    "StochasticGates",
    "WeightedSum",
]
