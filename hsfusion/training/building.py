"""Building a network from plain values, so that a file can hold all that is needed to build it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hsfusion.errors import HsFusionError, InputError
from hsfusion.nn import (
    BACKBONES,
    DEFAULT_BACKBONE,
    BackboneMaker,
    BandCentres,
    BandFusion,
    FreeFusion,
    FusionNetwork,
    LinearPart,
    PixelClassifier,
    StochasticGates,
)
from hsfusion.spectra import BandGroup, Bands, band_spacing_nm, combine, gaussian_basis, membership


def build_network(
    bands: Bands,
    groups: Sequence[BandGroup],
    *,
    num_classes: int,
    sources: Sequence[tuple[str, int]] = (),
    fusion: str = "channel",
    constraint: str = "signed",
    channels: int = 32,
    width: int = 64,
    receptive_field: int = 7,
    knot_spacing_nm: float | None = 40.0,
    keep_bands: int | None = None,
    neighbourhood: int = 3,
    dropout: float = 0.2,
    whitening: str = "none",
    linear: bool = False,
    response: str = "learned",
    backbone: str | BackboneMaker = DEFAULT_BACKBONE,
    backbone_options: Mapping[str, Any] | None = None,
) -> FusionNetwork:
    """Builds an untrained network; mean and standard deviation are 0 and 1.

    It is for C ``bands`` in G ``groups`` and ``num_classes`` K. ``sources`` are name and number of layers of each
    further raster, which is its own group; layers follow the bands. ``response`` is learned; or carried, for a network
    that :mod:`hsfusion.training.transfer` fills: its groups hold the good bands given by the tensors to be loaded, and
    every gate is settled. ``backbone`` is a registered name or a function, called with ``backbone_options``. The other
    arguments are those of :class:`hsfusion.ModelSettings`.

    Raises:
        HsFusionError: on an invalid value, or a group without a band.
    """
    try:
        if fusion == "free":
            fused = FreeFusion(torch.from_numpy(with_all_layers(bands.good, sources))[None], channels=channels)
        else:
            carried = response == "carried"
            inside = np.tile(bands.good, (len(groups), 1)) if carried else membership(groups, bands)
            fused = BandFusion(
                **_spectral_tensors(bands, groups, sources, inside, knot_spacing_nm, channels * carried),
                gates=_gates(bands, np.asarray(inside.any(0)), sources, keep_bands=keep_bands),
                channels=channels,
                kind=fusion,  # pyright: ignore[reportArgumentType]
                constraint=constraint,  # pyright: ignore[reportArgumentType]
                neighbourhood=neighbourhood,
            )
        features = _features(backbone, channels, width, receptive_field - 2 * fused.margin, backbone_options or {})
        return _network(fused, PixelClassifier(features, channels, num_classes, dropout=dropout), whitening, linear)
    except (TypeError, ValueError) as error:
        raise HsFusionError(f"model: {error}. Fix: correct it in the configuration.") from error


def _network(fused: BandFusion | FreeFusion, cnn: PixelClassifier, whitening: str, linear: bool) -> FusionNetwork:
    """The network with mean 0 and standard deviation 1, and a linear part that has no share yet."""
    size = fused.membership.shape[1]
    part = LinearPart(size, cnn.classifier.out_channels) if linear else None
    network = FusionNetwork(
        fused, cnn, mean=torch.zeros(size), std=torch.ones(size), whitens=whitening == "noise", linear=part
    )
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def with_all_layers(usable: NDArray[np.bool_], sources: Sequence[tuple[str, int]]) -> NDArray[np.bool_]:
    """(C + E,): bands that may be used (C,), and every layer of the further rasters."""
    return np.append(usable, np.ones(sum(number for _, number in sources), bool))


def backbone_arguments(backbone: str | BackboneMaker) -> dict[str, Any]:
    """A backbone (its name, a function, or a partial of one) as arguments of :func:`build_network`.

    By name if it is registered; no arguments for the default.
    """
    maker, options = backbone, {}
    if isinstance(backbone, partial) and not backbone.args:
        maker, options = backbone.func, dict(backbone.keywords)
    name = next((name for name, known in BACKBONES.items() if known is maker), maker)
    arguments = {} if name == DEFAULT_BACKBONE else {"backbone": name}
    return arguments | ({"backbone_options": options} if options else {})


def check_can_be_saved(architecture: Mapping[str, Any]) -> None:
    """Makes sure that a model file can name the backbone of a network; best called before training.

    Raises:
        InputError: if the backbone has no name, or options that are not plain values.
    """
    backbone, options = architecture.get("backbone", DEFAULT_BACKBONE), architecture.get("backbone_options", {})
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError) as error:
        expected = "numbers, words, or lists of them, which a model file can hold"
        fix = "correct them, or register a backbone with these options"
        raise InputError("model", "backbone options", options, expected, fix) from error
    if not isinstance(backbone, str):
        name = getattr(backbone, "__qualname__", backbone)
        fix = 'register it first: hsfusion.nn.register_backbone("my_net", MyNet)'
        raise InputError("model", "backbone", name, "a registered one, which a model file can name", fix)


def _features(
    backbone: str | BackboneMaker, channels: int, width: int, receptive_field: int, options: Mapping[str, Any]
) -> nn.Module:
    """A backbone; names refer to registered backbones, and nothing that a file names is imported."""
    if isinstance(backbone, str) and backbone not in BACKBONES:
        raise InputError(
            "model",
            "backbone",
            backbone,
            f"one of {', '.join(BACKBONES)}",
            # not the name itself: an untrusted file must not say what the user imports
            f'register it first: hsfusion.nn.register_backbone("{backbone}", MyNet), or name your class to '
            "hsfusion predict or finetune with backbones=[my_module.MyNet]",
        )
    maker = BACKBONES[backbone] if isinstance(backbone, str) else backbone
    made = maker(channels, width=width, receptive_field=receptive_field, **options)
    stated = getattr(made, "receptive_field", receptive_field)  # PixelClassifier refuses one that states none
    if stated != receptive_field:
        raise ValueError(f"receptive_field of the backbone is {stated}, expected {receptive_field} as asked for")
    return made


def _spectral_tensors(
    bands: Bands,
    groups: Sequence[BandGroup],
    sources: Sequence[tuple[str, int]],
    inside: NDArray[np.bool_],
    knot_spacing_nm: float | None,
    channels: int,
) -> dict[str, torch.Tensor]:
    """Membership (G + S, C + E), basis and prior: each further raster is a group, its layers have free logits.

    The prior is per group and channel if ``channels`` is not 0.
    """
    names = [group.name for group in groups] + [name for name, _ in sources]
    if len(set(names)) < len(names) or any(not name or "|" in name for name, _ in sources):
        raise InputError(
            "scene",
            "names of the sources",
            [name for name, _ in sources],
            f"words without | that are not names of groups ({', '.join(g.name for g in groups)})",
            "rename them in scene.sources",
        )
    layers = [number for _, number in sources]
    width_nm = np.concatenate([band_spacing_nm(bands, inside), np.ones(sum(layers))])  # that each band stands for
    basis = torch.from_numpy(gaussian_basis(bands, groups, knot_spacing_nm=knot_spacing_nm))
    blocks = [torch.from_numpy(inside).float(), *(torch.ones(1, number) for number in layers)]
    return {
        "membership": torch.block_diag(*blocks).bool(),
        "basis": torch.block_diag(basis, torch.eye(sum(layers), dtype=basis.dtype)),
        "prior": torch.from_numpy(width_nm).repeat(*((len(names), channels) if channels else ()), 1),
    }


def _gates(
    bands: Bands, used: NDArray[np.bool_], sources: Sequence[tuple[str, int]], *, keep_bands: int | None
) -> StochasticGates | BandCentres:
    layers = sum(number for _, number in sources)
    if keep_bands is None:
        gate_of = np.zeros(len(bands) + layers, np.int64)
        centres, gate_of[: len(bands)][used] = np.unique(bands.wavelength_nm[used], return_inverse=True)
        gate_of[len(bands) :] = centres.size + np.arange(layers)
        return StochasticGates(torch.from_numpy(gate_of))
    rank = np.full(len(bands) + layers, -1)
    centres, first = np.unique(bands.wavelength_nm[used], return_index=True)
    rank[np.flatnonzero(used)[first]] = np.arange(centres.size)
    return BandCentres(torch.from_numpy(rank), keep_bands, always=torch.arange(len(rank)) >= len(bands))


class WeightReadout:
    """What a network has learned about the bands, as arrays.

    The gates are part of both: the product of group weight and response is what the forward pass multiplies a
    standardised band by. Layers of further rasters count as bands here, at the end.

    If the network whitens bands, these are the weights of the whitened bands: of what a band shows besides the noise
    that it shares with others.

    Args:
        network: the network.
        sample: (B, C, H, W) standardised patches of training pixels; needed for instance weights only.
    """

    response: NDArray[np.float64]  # (G, M, C), non-negative, sums to 1 over C; 0 where every band of a group is closed
    group_weights: NDArray[np.float64]  # (G, M), signed; the mean over the sample for instance kinds
    channel_share: NDArray[np.float64]  # (M,), sums to 1
    weight: NDArray[np.float64]  # (C,), the band weights, non-negative, sums to 1; of network and linear part
    network_share: float  # of the network in its logits; the rest is the linear part's, if it has one
    network_part: NDArray[np.float64]  # (C,), of each band's weight, 0 to 1; the rest is the linear part's

    def __init__(self, network: FusionNetwork, sample: torch.Tensor | None = None) -> None:
        fusion, training = network.fusion, network.training
        network.eval()  # gates at rest
        with torch.no_grad():
            self.channel_share = _array(network.cnn.input_share)
            if isinstance(fusion, FreeFusion):
                # no groups and no simplex: rows of the matrix, each scaled to sum to 1 in absolute value
                rows = _array(fusion.matrix())
                self.response = _shares(rows)[None]
                self.group_weights = magnitude = np.ones((1, rows.shape[0]))
            else:
                response = _array(fusion.response * fusion.openness)
                open_share = response.sum(2)  # (G, M)
                self.response = response / np.maximum(open_share, 1e-300)[:, :, None]
                self.group_weights, magnitude = _group_weights(fusion, sample)
                self.group_weights = self.group_weights * open_share * _array(fusion.passed)
            self.weight = combine(self.response, magnitude, channel_share=self.channel_share)
            self.network_share, self.network_part = 1.0, np.ones_like(self.weight)
            if network.linear is not None:
                self.network_share = float(network.linear.network_share)
                of_network = self.network_share * self.weight
                linear = _shares(_coefficients(network)).sum(0)  # a class without training pixels has no coefficients
                self.weight = of_network + (1 - self.network_share) * linear / max(linear.sum(), 1e-300)
                self.network_part = of_network / np.maximum(self.weight, 1e-300)
        network.train(training)


def _coefficients(network: FusionNetwork) -> NDArray[np.float64]:
    """Coefficients (K, C) of the linear part, for the bands it was fitted to: whitened if it sees the mean."""
    assert network.linear is not None
    direct = (network.linear.weight - network.linear.weight.mean(0)).double()  # softmax ignores a common part
    if network.whitening is not None and network.linear.of_mean:
        direct = torch.linalg.solve(network.whitening.double(), direct, left=False)
        direct[direct.abs() < 1e-5 * direct.abs().max()] = 0  # bands left out are 0 but for rounding
    return _array(direct)


def _group_weights(fusion: BandFusion, sample: torch.Tensor | None) -> tuple[NDArray, NDArray]:
    """Mean of the group weights, and their mean size with the gates, summing to 1 over the groups; (G, M) each."""
    if fusion.kind.endswith("instance"):
        assert sample is not None, "instance weights need a sample of pixels"
        weights = fusion.instance_weights(sample)  # (B, G, H, W) or (B, G, M, H, W)
        if weights.dim() == 4:
            weights = weights[:, :, None]
        mean = weights.mean((0, 3, 4))  # (G, M) or (G, 1)
        magnitude = fusion.group_sizes(weights).mean((0, 3, 4))
    else:
        mean = fusion.group_sum.weights
        mean = mean[:, None] if mean.dim() == 1 else mean
        magnitude = fusion.group_sizes(mean[None, :, :, None, None])[0, :, :, 0, 0]
    shape = (mean.shape[0], fusion.channels)
    return _array(mean.expand(shape)), _array(magnitude.expand(shape))


def _shares(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Absolute values (M, C), each row summing to 1."""
    return np.abs(matrix) / np.maximum(np.abs(matrix).sum(1, keepdims=True), 1e-300)


def _array(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()
