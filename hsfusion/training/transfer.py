"""Carrying a trained network over to another scene: bands by wavelength, classes and further rasters by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.nn import FreeFusion, FusionNetwork
from hsfusion.spectra import BandGroup, Bands
from hsfusion.spectra.resampling import carry_matrix
from hsfusion.training.building import LearnedWeights, build_network
from hsfusion.training.transfer_report import GroupCoverage, TransferReport
from hsfusion.training.transferred_parts import (
    LEAST_COVERED,
    Part,
    Plan,
    Row,
    cnn_parts,
    free_parts,
    fusion_parts,
    statistics_parts,
)

_MOST_BYTES = 2**30  # of the responses


@dataclass(frozen=True, eq=False)
class Carried:
    """A network for another scene.

    Attributes:
        network: in evaluation mode; mean and standard deviation are the old ones, resampled.
        groups: the band groups that are left.
        architecture: keyword arguments of :func:`hsfusion.training.building.build_network` that build it again.
        report: what became of each part.
    """

    network: FusionNetwork
    groups: tuple[BandGroup, ...]
    architecture: dict[str, Any]
    report: TransferReport


def carry_over(
    network: FusionNetwork,
    *,
    header: Mapping[str, Any],
    bands: Bands,
    sources: Sequence[tuple[str, int]],
    class_names: Sequence[str],
    fresh_classes: Sequence[str] = (),
) -> Carried:
    """Carries a trained network over to another sensor, other rasters and other classes.

    The response of each group and channel, times the gates, is a density over wavelength: it is dealt to the new bands
    by :func:`hsfusion.spectra.resampling.carry_matrix` and scaled to keep its sum, so that a group that is covered at
    least in part counts as much as before. A group of which less than 1 % is covered is dropped: with the constraints
    signed, convex and none the fused channels are the old ones without it, but affine weights go on summing to 1 by an
    even shift, and predicted weights share its part between the others. The CNN is copied, and so are the classes of
    the same name; other classes start anew. A new raster starts with a hundredth of the mean group weight, or with all
    of it where no group weights are learned.

    Args:
        network: the trained network; it is left as it is.
        header: of its model file: ``bands``, ``groups``, ``sources``, ``classes`` and ``architecture``.
        bands: C' bands of the new scene.
        sources: name and number of layers of each further raster of the new scene.
        class_names: K' names of the new scene's classes.
        fresh_classes: those of them that start anew, even if the model has a class of the same name.

    Returns:
        the new network; what is random in it is drawn from torch's global generator.

    Raises:
        InputError: if two classes of a scene have one name, or the new bands cover no group.
    """
    named = [name.strip() for name in header["classes"]["names"]]
    classes = _class_rows(named, class_names) | dict.fromkeys((name.strip() for name in fresh_classes), None)
    old, groups = Bands(**header["bands"]), [BandGroup(**group) for group in header["groups"]]
    _check_size(network, len(bands) + sum(number for _, number in sources))
    rasters = [(source["name"], source["layers"]) for source in header["sources"]]
    share = _with_layers(carry_matrix(old, bands), old=rasters, new=sources)
    found, outside = _coverages(network, old, groups, rasters=rasters, share=share)
    left = [g for g, _ in enumerate(groups) if found[g].coverage >= LEAST_COVERED]
    if not left:
        raise _nothing_covered(old, bands)
    rasters_at = {raster: len(groups) + i for i, raster in enumerate(rasters)}
    new = [Row(s[0], rasters_at.get(s), "copied" if s in rasters_at else "fresh") for s in sources]
    layers = [row for row, (_, number) in zip(new, sources, strict=True) for _ in range(number)]
    rows = [Row(groups[g].name, g, "resampled") for g in left] + new
    architecture = dict(header["architecture"])
    if not isinstance(network.fusion, FreeFusion):
        architecture |= {"keep_bands": None, "response": "carried"}
    kept = tuple(groups[g] for g in left)
    carried = build_network(bands, kept, num_classes=len(classes), sources=sources, **architecture)
    parts = _filled(carried, network, plan=Plan(old, bands, share, tuple(rows), tuple(layers)), classes=classes)
    report = TransferReport(
        **{origin: _with_origin(parts, origin) for origin in ("copied", "resampled", "fresh")},
        groups=tuple(found),
        outside_share=outside,
        dropped_groups=tuple(group.name for g, group in enumerate(groups) if g not in left),
        dropped_sources=tuple(name for name, number in rasters if (name, number) not in sources),
        dropped_classes=tuple(name for row, name in enumerate(named) if row not in classes.values()),
    )
    return Carried(carried.eval(), kept, architecture, report)


def _filled(
    carried: FusionNetwork, network: FusionNetwork, *, plan: Plan, classes: Mapping[str, int | None]
) -> dict[str, Part]:
    """Loads all parts into the new network, and returns them."""
    start = carried.state_dict()
    parts = statistics_parts(network, plan) | cnn_parts(network, classes, start)
    if isinstance(network.fusion, FreeFusion):
        parts |= free_parts(network.fusion, plan, start)
    else:
        parts |= fusion_parts(network.fusion, plan, start)
    carried.load_state_dict({name: tensor for name, (tensor, _) in parts.items()})
    for name, (tensor, _) in parts.items():
        if not bool(tensor.isfinite().all()):
            raise InputError(
                "model", field=f"{name}, carried over", value="not finite", expected="numbers", fix="train it anew"
            )
    return parts


def _check_size(network: FusionNetwork, bands: int) -> None:
    """Refuses bands with which the responses of the network would take too much memory."""
    groups, channels = len(network.fusion.membership), network.fusion.channels
    size = 8 * 4 * groups * channels * bands  # float64, and as many copies at a time
    if size > _MOST_BYTES:
        raise InputError(
            "model",
            field=f"memory for {groups} groups x {channels} channels x {bands} bands",
            value=f"{size / 1e9:.3g} GB",
            expected=f"at most {_MOST_BYTES / 1e9:.3g} GB",
            fix="choose a model of fewer groups or channels",
        )


def _with_origin(parts: Mapping[str, Part], origin: str) -> tuple[str, ...]:
    """Names of the parts of one origin, ``name[row]`` where the rows of a tensor differ."""
    found = []
    for name, (_, origins) in parts.items():
        if set(origins.values()) == {origin}:
            found.append(name)
        else:
            found += [f"{name}[{row}]" for row, value in origins.items() if value == origin]
    return tuple(found)


def _class_rows(old: Sequence[str], new: Sequence[str]) -> dict[str, int | None]:
    """For each new class its row in the old classifier, None if it is new."""
    sides = [[name.strip() for name in names] for names in (old, new)]
    for names in sides:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(
                "classes",
                field="names",
                value=f"{', '.join(twice)} more than once",
                expected=f"each once among the model's ({', '.join(sides[0])}) and the scene's ({', '.join(sides[1])})",
                fix="give every class a name of its own",
            )
    return {name: sides[0].index(name) if name in sides[0] else None for name in sides[1]}


def _with_layers(
    share: NDArray[np.float64], *, old: Sequence[tuple[str, int]], new: Sequence[tuple[str, int]]
) -> NDArray[np.float64]:
    """(C + E, C' + E'): the layers of rasters with one name and number of layers follow the bands as they are."""
    layers_of_old = [(*raster, layer) for raster in old for layer in range(raster[1])]
    layers_of_new = [(*raster, layer) for raster in new for layer in range(raster[1])]
    same = [[one == other for other in layers_of_new] for one in layers_of_old]
    wide = np.zeros((share.shape[0] + len(layers_of_old), share.shape[1] + len(layers_of_new)))
    wide[: share.shape[0], : share.shape[1]] = share
    wide[share.shape[0] :, share.shape[1] :] = np.reshape(same, (len(layers_of_old), len(layers_of_new)))
    return wide


def _coverages(
    network: FusionNetwork,
    bands: Bands,
    groups: Sequence[BandGroup],
    *,
    rasters: Sequence[tuple[str, int]],
    share: NDArray[np.float64],
) -> tuple[list[GroupCoverage], float]:
    """Weight and coverage of each group and raster, and the share of all band weights that is not covered.

    Group weights that are predicted are taken at a pixel of the mean spectrum. The rows of a free convolution are dealt
    to the groups by their intervals.
    """
    edge = 2 * network.fusion.margin + 1
    predicted = network.fusion.kind.endswith("instance")
    pixel = torch.zeros(1, len(network.mean), edge, edge, device=network.mean.device) if predicted else None
    learned = LearnedWeights(network, pixel)
    size = np.abs(learned.group_weights)
    size = size / np.maximum(size.sum(0), 1e-300)
    weights = np.einsum("m,gm,gmc->gc", learned.channel_share, size, learned.response)  # (G, C + E)
    inside = network.fusion.membership.cpu().numpy()
    if isinstance(network.fusion, FreeFusion):
        nm, layers = bands.wavelength_nm, np.repeat(np.arange(len(rasters)), [number for _, number in rasters])
        intervals = [np.append((g.lower_nm <= nm) & (nm < g.upper_nm), layers < 0) for g in groups]
        of_rasters = [np.append(nm < 0, layers == i) for i in range(len(rasters))]
        inside = inside & np.array(intervals + of_rasters)
    weights = np.where(inside, weights, 0.0)
    covered = np.minimum(share.sum(1), 1.0)
    found = []
    names = [group.name for group in groups] + [name for name, _ in rasters]
    for name, row, here in zip(names, weights, inside, strict=True):
        of = row if row.sum() > 0 else here.astype(float)  # behind closed gates all of its bands are alike
        found.append(GroupCoverage(name, float(row.sum()), float(of @ covered / max(of.sum(), 1e-300))))
    return found, float(learned.weight[: len(bands)] @ (1 - covered[: len(bands)]))


def _nothing_covered(old: Bands, new: Bands) -> InputError:
    ranges = []
    for bands in (new, old):
        nm = bands.wavelength_nm[bands.good]
        ranges.append(f"{nm.min():g} to {nm.max():g} nm" if nm.size else "empty, no band is good")
    return InputError(
        "scene",
        field="range of the good bands",
        value=ranges[0],
        expected=f"bands where the model looks, within {ranges[1]}",
        fix="correct the unit of the wavelengths, or choose a model and a scene of one spectral range",
    )
