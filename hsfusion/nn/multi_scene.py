"""One network for several scenes of different sensors: one response over wavelength, read at the bands of each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from hsfusion.nn.band_fusion import BandFusion, StochasticGates
from hsfusion.nn.network import FusionNetwork, PixelClassifier
from hsfusion.nn.weighted_sum import Constraint, Kind, WeightedSum

GroupWeights = Literal["shared", "per_scene"]


class TableRow(nn.Module):
    """The group weights of one scene: a row of the table that holds those of all."""

    def __init__(self, table: WeightedSum, *, row: int) -> None:
        super().__init__()
        self.table = table
        self.row = row

    @property
    def weights(self) -> Tensor:
        """(G,) or (G, M) weights as the forward pass uses them."""
        return self.table.weights[self.row]


class MultiSceneNetwork(nn.Module):
    """Networks of several scenes that are trained as one.

    The coefficients of the responses and the CNN are the same tensors in all of them. What differs is what belongs to a
    sensor: where its bands stand on the curves, how wide a spectrum each stands for, and how it is standardised.
    There are no gates: they would stand in front of the bands of one sensor.

    Args:
        networks: one for each of S scenes, with the same groups, knots and architecture; they become parts of this
            one, which starts from the first.
        group_weights: ``shared`` for the same weights of the groups in all scenes; ``per_scene`` for a table with a row
            for each (kinds scalar and channel).
    """

    def __init__(self, networks: Sequence[FusionNetwork], *, group_weights: GroupWeights = "shared") -> None:
        super().__init__()
        fusions = [network.fusion for network in networks]
        first = cast("BandFusion", fusions[0])
        shapes = [tuple(fusion.get_parameter("coefficients").shape) for fusion in fusions if fusion.kind != "free"]
        if len(shapes) < len(fusions) or len(set(shapes)) > 1 or len({fusion.kind for fusion in fusions}) > 1:
            kinds = [fusion.kind for fusion in fusions]
            raise ValueError(f"fusions of kinds {kinds} with coefficients of shapes {shapes} have nothing to share")
        # in lists, so that they are no parts of this one: what each network gets back when it is taken out
        self._gates, self._group_sum = [fusion.gates for fusion in fusions], [first.group_sum]
        sums = _group_sums(first, len(fusions), group_weights)
        for network, group_sum in zip(networks, sums, strict=True):
            network.cnn = networks[0].cnn
            network.fusion.coefficients = first.coefficients
            network.fusion.group_sum = cast("WeightedSum", group_sum)  # has the weights, and no more is asked of it
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
            own: nn.Module = fusion.group_sum
            if isinstance(own, TableRow):
                fusion.group_sum = copy.deepcopy(self._group_sum[0])
                fusion.group_sum.raw.data.copy_(own.table.raw[own.row])
            fusion.gates = copy.deepcopy(gates)
            if isinstance(fusion.gates, StochasticGates):
                fusion.gates.kept.fill_(True)
            apart.append(network.to(network.mean.device))
        return apart


def _group_sums(fusion: BandFusion, scenes: int, group_weights: str) -> list[WeightedSum | TableRow]:
    """The group weights of each scene: one module for all, or rows of a table that start alike."""
    shared = fusion.group_sum
    if group_weights == "shared":
        return [shared] * scenes
    if fusion.kind not in ("scalar", "channel"):
        raise ValueError(f"group weights of kind {fusion.kind!r} have no table, expected scalar or channel")
    kind: Kind = "instance" if fusion.kind == "scalar" else "channel_instance"
    table = WeightedSum(
        shared.num_inputs,
        kind=kind,
        channels=shared.channels,
        num_instances=scenes,
        constraint=cast("Constraint", shared.constraint),
    )
    with torch.no_grad():
        table.raw.copy_(shared.raw.expand_as(table.raw))
    return [TableRow(table, row=scene) for scene in range(scenes)]
