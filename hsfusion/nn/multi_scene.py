"""One network for several scenes of different sensors: one response over wavelength, read at the bands of each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hsfusion.nn.band_fusion import BandFusion, StochasticGates
from hsfusion.nn.network import FusionNetwork, PixelClassifier


class MultiSceneNetwork(nn.Module):
    """Networks of several scenes that are trained as one.

    The coefficients of the responses, the group weights and the CNN are the same tensors in all of them. What differs
    is what belongs to a sensor: where its bands stand on the curves, how wide a spectrum each stands for, and how it is
    standardised.
    There are no gates: they would stand in front of the bands of one sensor.

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
        """Returns the network of a scene, as it runs."""
        return cast("FusionNetwork", self.networks[scene])

    def classify(self, patches: Sequence[Tensor]) -> Tensor:
        """Classifies standardised patches (B_s, C_s, H, W) of all scenes at once, normalised over all; B_s may be 0."""
        return self.cnn(torch.cat([self[scene].fusion(x) for scene, x in enumerate(patches) if len(x)]))

    def split_networks(self) -> list[FusionNetwork]:
        """The networks of the scenes, each an ordinary one with tensors of its own, its gates settled wide open."""
        apart = []
        for scene, gates in enumerate(self._gates):
            network = copy.deepcopy(self[scene])
            fusion = cast("BandFusion", network.fusion)
            fusion.gates = copy.deepcopy(gates)
            if isinstance(fusion.gates, StochasticGates):
                fusion.gates.kept.fill_(True)
            apart.append(network.to(network.mean.device))
        return apart
