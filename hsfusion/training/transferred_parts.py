"""The tensors of a network that is carried over to another scene, each with where it comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsfusion.nn import BandCentres, BandFusion, FreeFusion, FusionNetwork, WeightedSum
from hsfusion.nn.band_fusion import LOG_NOTHING
from hsfusion.spectra import Bands
from hsfusion.spectra.resampling import resample_values

#: a group, or one channel's response in it, of which less than this is covered says nothing about the rest
LEAST_COVERED = 0.01
# what a new raster counts for at first, in multiples of the mean group weight
_SMALL = 0.01

#: a tensor of the new network, and the origin (copied, resampled, fresh) of its rows by name; "" names all of them
Part = tuple[Tensor, dict[str, str]]


class Row(NamedTuple):
    """A group of the new network.

    Attributes:
        name: of the group or raster.
        old: its place among the old groups and rasters, None for a new raster.
        origin: of its responses: resampled, copied or fresh.
    """

    name: str
    old: int | None
    origin: str


@dataclass(frozen=True, eq=False)
class Plan:
    """Where the parts of the new network come from.

    Attributes:
        old: C bands.
        new: C' bands.
        share: (C + E, C' + E'), what each new band or layer takes over of each old one.
        rows: the G' new groups and rasters.
        layers: for each of the E' new layers the row of its raster.
    """

    old: Bands
    new: Bands
    share: NDArray[np.float64]
    rows: tuple[Row, ...]
    layers: tuple[Row, ...]

    @property
    def band_origins(self) -> dict[str, str]:
        """Origin of what has one entry per band and layer."""
        return {"bands": "resampled", **{f"raster {row.name}": row.origin for row in self.layers}}

    @property
    def fresh_layers(self) -> NDArray[np.bool_]:
        """(C' + E',) True for layers of new rasters."""
        return np.array([False] * len(self.new) + [row.old is None for row in self.layers])


def statistics_parts(network: FusionNetwork, plan: Plan) -> dict[str, Part]:
    """Mean and standard deviation; a band just beyond the old ones has those of the bands whose mass it takes."""
    used = network.fusion.membership.any(0).cpu().numpy()
    if isinstance(network.fusion.gates, BandCentres):  # copies of a band were never looked at
        used &= ((network.fusion.gates.rank >= 0) | network.fusion.gates.always).cpu().numpy()
    old, share = replace(plan.old, good=used[: len(plan.old)]), plan.share * used[:, None]
    took = share.sum(0)
    parts: dict[str, Part] = {}
    for name, nothing in (("mean", 0.0), ("std", 1.0)):
        values = network.get_buffer(name).cpu().double().numpy()
        taken = np.where(took > 0, values @ share / np.where(took > 0, took, 1), nothing)
        curve = resample_values(values[: len(old)], old=old, new=plan.new)
        taken[: len(curve)] = np.where(np.isnan(curve), taken[: len(curve)], curve)
        parts[name] = torch.from_numpy(taken), plan.band_origins
    return parts


def free_parts(fusion: FreeFusion, plan: Plan, start: Mapping[str, Tensor]) -> dict[str, Part]:
    """The rows of the matrix, dealt to the new bands."""
    share, fresh = torch.from_numpy(plan.share), torch.from_numpy(plan.fresh_layers)
    weight = fusion.matrix().detach().cpu().double() @ share
    inside = fusion.membership.cpu().double() @ share > 0
    return {
        "fusion.weight": (torch.where(fresh, _SMALL * start["fusion.weight"], weight), plan.band_origins),
        "fusion.membership": (inside | fresh, {"": "resampled"}),
    }


def fusion_parts(fusion: BandFusion, plan: Plan, start: Mapping[str, Tensor]) -> dict[str, Part]:
    """Groups, responses on the new bands, what is let through, and the weights of the groups that are left."""
    with torch.no_grad():
        reached = (fusion.response * fusion.openness).cpu().double().numpy()  # (G, M, C + E)
        open_share = fusion.open_share.cpu().double().numpy()  # (G, M)
    membership = fusion.membership.cpu().numpy()
    parts, factor = _group_weight_parts(fusion.group_sum, plan.rows)
    inside = np.zeros((len(plan.rows), plan.share.shape[1]), bool)
    prior = np.zeros((len(inside), fusion.channels, inside.shape[1]))
    passed = np.ones(prior.shape[:2])
    for i, row in enumerate(plan.rows):
        if row.old is None:
            inside[i, len(plan.new) :] = [layer == row for layer in plan.layers]
            prior[i] = inside[i]
            continue
        mass, whole = reached[row.old] @ plan.share, reached[row.old].sum(1)
        enough = mass.sum(1) >= LEAST_COVERED * whole
        inside[i] = membership[row.old] @ plan.share > 0
        prior[i] = mass * enough[:, None] / np.maximum(mass.sum(1), 1e-300)[:, None]
        passed[i] = open_share[row.old] * enough * factor
    by_row = {row.name: row.origin for row in plan.rows}
    not_fresh = {row.name: "fresh" if row.old is None else "resampled" for row in plan.rows}
    return parts | {
        "fusion.membership": (torch.from_numpy(inside), {"": "resampled"}),
        "fusion.basis": (start["fusion.basis"], {"": "resampled"}),
        "fusion.log_prior": (torch.from_numpy(prior).log().clamp_min(LOG_NOTHING), by_row),
        "fusion.passed": (torch.from_numpy(passed), not_fresh),
        "fusion.coefficients": (start["fusion.coefficients"], {"": "fresh"}),
        "fusion.gates.gate_of": (start["fusion.gates.gate_of"], {"": "fresh"}),
        "fusion.gates.position": (start["fusion.gates.position"], {"": "fresh"}),
        "fusion.gates.kept": (torch.from_numpy((prior > 0).any((0, 1))), {"": "resampled"}),
    }


def cnn_parts(
    network: FusionNetwork, classes: Mapping[str, int | None], start: Mapping[str, Tensor]
) -> dict[str, Part]:
    """The CNN as it is, but for the rows of its classifier.

    Args:
        network: the old network.
        classes: for each new class its old row, None for a new one.
        start: state of a network that has seen nothing.
    """
    parts: dict[str, Part] = {
        f"cnn.{name}": (value, {"": "copied"}) for name, value in network.cnn.state_dict().items()
    }
    for name in ("cnn.classifier.weight", "cnn.classifier.bias"):
        old, rows = parts[name][0].cpu(), start[name].clone()
        for k, row in enumerate(classes.values()):
            if row is not None:
                rows[k] = old[row]
        parts[name] = rows, {key: "fresh" if row is None else "copied" for key, row in classes.items()}
    return parts


def _group_weight_parts(group_sum: WeightedSum, rows: tuple[Row, ...]) -> tuple[dict[str, Part], NDArray | float]:
    """Weights of the new groups, and a factor (M,) or 1 that undoes what the constraint makes of their new number."""
    raw = group_sum.raw.detach().cpu()  # (G,) or (G, M)
    kept = raw[[row.old for row in rows if row.old is not None]]
    small = _small(kept, group_sum, fresh=len(rows) - len(kept))
    new = torch.stack([small if row.old is None else raw[row.old] for row in rows])
    origins = {row.name: "fresh" if row.old is None else "copied" for row in rows}
    parts: dict[str, Part] = {"fusion.group_sum.raw": (new, origins)}
    if group_sum.predictor is not None:
        old = group_sum.predictor.detach().cpu().unflatten(2, (len(raw), -1))  # (G, M, G, 1 or M)
        wide = torch.zeros(len(rows), old.shape[1], len(rows), old.shape[3])
        for i, one in enumerate(rows):
            for j, other in enumerate(rows):
                if one.old is not None and other.old is not None:
                    wide[i, :, j] = old[one.old, :, other.old]
        parts["fusion.group_sum.predictor"] = wide.flatten(2), origins
        return parts, 1.0
    raw, new = raw.double(), new.double()
    if group_sum.kind != "none" and group_sum.constraint == "signed":
        return parts, (new.abs().sum(0) / raw.abs().sum(0).clamp_min(1e-300)).numpy()  # a channel of zeros stays so
    if group_sum.kind != "none" and group_sum.constraint == "convex":
        return parts, (new.logsumexp(0) - raw.logsumexp(0)).exp().numpy()
    return parts, 1.0


def _small(kept: Tensor, group_sum: WeightedSum, *, fresh: int) -> Tensor:
    """Raw weight () or (M,) of a new raster, such that its weight is small once the constraint has acted."""
    number = len(kept)
    if group_sum.kind == "none":
        return torch.ones_like(kept[0])
    if group_sum.constraint == "affine":  # solves raw - mean + 1 / N = small / n for the raw weight
        return kept.mean(0) + ((number + fresh) * _SMALL / number - 1) / number
    if group_sum.constraint == "convex":
        return kept.logsumexp(0) - math.log(number) + math.log(_SMALL)
    return _SMALL * kept.abs().mean(0)
