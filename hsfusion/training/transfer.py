"""Transfer of a trained network to another scene: bands by wavelength, classes and further rasters by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsfusion.errors import InputError
from hsfusion.nn import BandFusion, FreeFusion, FusionNetwork, WeightedSum
from hsfusion.nn.band_fusion import LOG_NOTHING
from hsfusion.spectra import BandGroup, Bands
from hsfusion.spectra.resampling import BandPrediction, predict_bands, resampling_matrix
from hsfusion.training.building import WeightReadout, build_network
from hsfusion.training.model_file import ModelHeader

# channels are named if the new bands predict a smaller share of their variance
_LEAST_R2 = 0.5
# if less than this of a group, or of a channel's response in it, is covered, the rest is unknown
_LEAST_COVERED = 0.01
_SMALL = 0.01  # weight of a new raster at first, in multiples of the mean group weight
_ORIGINS = ("copied", "resampled", "fresh")

#: a tensor of the new network, and its origin: copied, resampled or fresh
TransferredTensor = tuple[Tensor, str]


class GroupOrigin(NamedTuple):
    """A group or raster of the new network, and its origin."""

    name: str
    old: int | None  # its place among the old groups and rasters, None for a new raster
    layers: int = 0  # of a raster


@dataclass(frozen=True, eq=False)
class TransferPlan:
    """Where the tensors of the new network come from."""

    old: Bands  # C
    new: Bands  # C'
    share: NDArray[np.float64]  # (C + E, C' + E'), share of each old band or layer that goes to each new one
    prediction: BandPrediction
    rows: tuple[GroupOrigin, ...]  # G', groups and rasters

    @property
    def layers(self) -> list[GroupOrigin]:
        """E', of each layer the row of its raster."""
        return [row for row in self.rows for _ in range(row.layers)]


@dataclass(frozen=True)
class GroupCoverage:
    """How much of a band group or further raster the new scene covers."""

    name: str
    weight: float  # share of the band weights that it had, 0 to 1
    coverage: float  # share of its weight that lies on bands of the new scene, 0 to 1


@dataclass(frozen=True)
class TransferReport:
    """What was transferred and how; in copied and resampled tensors, rows of new classes and rasters are fresh."""

    copied: tuple[str, ...]  # parameters and buffers copied from the old network
    resampled: tuple[str, ...]  # ... that were transferred by wavelength
    fresh: tuple[str, ...]  # ... that start from scratch
    groups: tuple[GroupCoverage, ...]  # every group and further raster that the network had
    outside_share: float  # share of all band weights on bands that the new scene does not cover, 0 to 1
    expected_r2: tuple[float, ...]  # of each channel's variance in training spectra, () where responses are resampled
    dropped_groups: tuple[str, ...]  # of which the new scene covers nothing
    dropped_sources: tuple[str, ...]  # that the new scene lacks
    dropped_classes: tuple[str, ...]
    new_sources: tuple[str, ...]  # that start from scratch
    new_classes: tuple[str, ...]  # likewise

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def with_new_statistics(self) -> TransferReport:
        """The report of a network whose mean and standard deviation are those of the new training pixels."""
        fitted = ("mean", "std", "covariance")
        resampled = tuple(part for part in self.resampled if part not in fitted)
        return replace(self, resampled=resampled, fresh=(*fitted, *self.fresh))

    def coverage_lines(self) -> list[str]:
        """Coverage by the new bands as a text table, line by line."""
        width = max(len("group"), *(len(group.name) for group in self.groups))
        table = [f"{'group':{width}}  weight  covered"]
        table += [f"{g.name:{width}}  {g.weight:6.3f}  {100 * g.coverage:5.1f} %" for g in self.groups]
        table.append(f"outside the new bands: {100 * self.outside_share:.1f} % of the band weights")
        little = [g.name for g in self.groups if 0 < g.coverage < 0.5 and g.name not in self.dropped_groups]
        if self.expected_r2:
            table.append(self._prediction())
        elif little:
            table.append(f"less than half covered, so the covered part stands for the group: {', '.join(little)}")
        if self.outside_share > 0.5 and not self.expected_r2:
            table.append("this is more than half: expect little of what the network has learned")
        for title in ("dropped_groups", "dropped_sources", "dropped_classes", "new_sources", "new_classes"):
            if names := getattr(self, title):
                table.append(f"{title.replace('_', ' ')}: {', '.join(names)}")
        return table

    def _prediction(self) -> str:
        """How well the new bands predict the channels, and which channels they predict poorly."""
        r2, poor = self.expected_r2, [str(m) for m, of in enumerate(self.expected_r2) if of < _LEAST_R2]
        text = f"channels predicted from the new bands: R2 {min(r2):.2f} to {max(r2):.2f}, median {median(r2):.2f}"
        return f"{text}; below {_LEAST_R2} in {len(poor)} of {len(r2)}: {', '.join(poor)}" if poor else text

    def lines(self) -> list[str]:
        """The whole report as a text table, line by line."""
        table = self.coverage_lines()
        for title in _ORIGINS:
            parts = ("cnn.features" if part.startswith("cnn.features.") else part for part in getattr(self, title))
            table.append(f"{title:9}  {', '.join(dict.fromkeys(parts)) or 'nothing'}")
        return table


@dataclass(frozen=True, eq=False)
class TransferredNetwork:
    """A network for another scene."""

    network: FusionNetwork  # in evaluation mode; mean and standard deviation are the old ones, resampled
    groups: tuple[BandGroup, ...]  # that are left
    architecture: dict[str, Any]  # arguments of hsfusion.training.building.build_network that build it again
    report: TransferReport


def transfer(
    network: FusionNetwork,
    *,
    header: ModelHeader,
    bands: Bands,
    sources: Sequence[tuple[str, int]],
    class_names: Sequence[str],
    fresh_classes: Sequence[str] = (),
    responses: Literal["kept", "folded"] = "folded",
) -> TransferredNetwork:
    """Transfers a trained network to another sensor, other rasters and other classes.

    Folded, the matrix of the network is applied to the bands that :func:`predict_bands` predicts from the new ones, and
    is a free convolution there; the linear part is transferred likewise. If responses are kept, or group weights depend
    on the pixel (instance kinds), each response, times the gates, is a density over wavelength that
    :func:`hsfusion.spectra.resampling.resampling_matrix` distributes over the new bands; a group of which less than 1 %
    is covered is dropped. CNN and classes of the same name are copied; others start from scratch, new
    rasters with a hundredth of the mean group weight.

    Args:
        network: the trained network; not changed.
        header: the header of its model file.
        bands: C' bands of the new scene.
        sources: name and number of layers of each further raster of the new scene.
        class_names: K' names of the new scene's classes.
        fresh_classes: those of them that start from scratch, even if the model has a class of that name.
        responses: folded; or kept, for further training: a whitening network is then folded onto its whitened bands.

    Returns:
        the new network; its random numbers come from torch's global generator.

    Raises:
        InputError: if two classes of a scene have one name, or the new bands cover no group.
    """
    named = [name.strip() for name in header.classes.names]
    classes = _class_rows(named, class_names) | dict.fromkeys((name.strip() for name in fresh_classes), None)
    old, groups, rasters = header.bands, header.groups, header.sources
    share = _with_layers(resampling_matrix(old, bands), old=rasters, new=sources)
    coverages, outside = _coverages(network, header, share=share)
    left = _covered_groups(coverages[: len(groups)], old, bands)
    instance = network.fusion.kind.endswith("instance")
    kept_apart = instance or (responses == "kept" and network.whitening is None and network.fusion.kind != "free")
    changed = {"response": "carried"} if kept_apart else {"response": "learned", "fusion": "free"}
    whitens = {"whitening": "none"} if responses == "folded" else {}
    architecture = {**header.architecture, **changed, **whitens, "keep_bands": None}
    kept = tuple(groups[g] for g in left)
    transferred = build_network(bands, kept, num_classes=len(classes), sources=sources, **architecture)
    rows = _origins(header, left, sources)
    plan = TransferPlan(old, bands, share, _prediction(network, old=old, new=bands, share=share), rows)
    tensors = _filled(transferred, network, plan=plan, classes=classes)
    report = TransferReport(
        **{origin: tuple(name for name in tensors if tensors[name][1] == origin) for origin in _ORIGINS},
        groups=tuple(coverages),
        outside_share=outside,
        expected_r2=() if instance else tuple(plan.prediction.expected_r2(_matrix(network)).round(4).tolist()),
        dropped_groups=tuple(group.name for g, group in enumerate(groups) if kept_apart and g not in left),
        dropped_sources=tuple(name for name, number in rasters if (name, number) not in sources),
        dropped_classes=tuple(name for row, name in enumerate(named) if row not in classes.values()),
        new_sources=tuple(row.name for row in rows if row.old is None),
        new_classes=tuple(name for name, row in classes.items() if row is None),
    )
    return TransferredNetwork(transferred.eval(), kept, architecture, report)


def _origins(header: ModelHeader, left: Sequence[int], sources: Sequence[tuple[str, int]]) -> tuple[GroupOrigin, ...]:
    """The remaining groups, then the rasters of the new scene."""
    old = {source: row for row, source in enumerate(header.sources, len(header.groups))}
    rasters = (GroupOrigin(name, old.get((name, layers)), layers) for name, layers in sources)
    return (*(GroupOrigin(header.groups[g].name, g) for g in left), *rasters)


def _matrix(network: FusionNetwork) -> NDArray[np.float64]:
    return network.matrix().detach().cpu().double().numpy()


def _prediction(network: FusionNetwork, *, old: Bands, new: Bands, share: NDArray[np.float64]) -> BandPrediction:
    tensors = network.mean, network.std, network.spectral_covariance
    mean, std, covariance = (tensor.cpu().double().numpy() for tensor in tensors)
    return predict_bands((mean, std, covariance), old=old, new=new, share=share)


def _filled(
    transferred: FusionNetwork, network: FusionNetwork, *, plan: TransferPlan, classes: Mapping[str, int | None]
) -> dict[str, TransferredTensor]:
    """Loads all tensors into the new network, and returns them."""
    start = transferred.state_dict()
    tensors = (
        _statistics_tensors(plan) | _cnn_tensors(network, classes, start) | _linear_tensors(network, plan, classes)
    )
    if isinstance(transferred.fusion, FreeFusion):
        tensors |= _predicted_tensors(network, plan, start)
    else:
        assert isinstance(network.fusion, BandFusion), "a free convolution stays one"
        tensors |= _fusion_tensors(network.fusion, plan, start)
    tensors |= {name: (tensor, "fresh") for name, tensor in start.items() if name not in tensors}
    transferred.load_state_dict({name: tensor for name, (tensor, _) in tensors.items()})
    return tensors


def _class_rows(old: Sequence[str], new: Sequence[str]) -> dict[str, int | None]:
    """For each new class its row in the old classifier, None if it is new."""
    new = [name.strip() for name in new]
    if twice := sorted({name for names in (old, new) for name in names if names.count(name) > 1}):
        expected = f"each once among the model's ({', '.join(old)}) and the scene's ({', '.join(new)})"
        fix = "give every class a different name"
        raise InputError("classes", "names", f"{', '.join(twice)} more than once", expected, fix)
    return {name: old.index(name) if name in old else None for name in new}


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
    network: FusionNetwork, header: ModelHeader, *, share: NDArray[np.float64]
) -> tuple[list[GroupCoverage], float]:
    """Weight and coverage of each group and raster, and the share of all band weights that is not covered.

    Predicted group weights are those at the mean spectrum; a free convolution is split at the limits of the groups.
    What a linear part adds to a band goes to its groups in proportion to their weights from the fusion.
    """
    bands, groups, rasters = header.bands, header.groups, header.sources
    edge = 2 * network.fusion.margin + 1
    predicted = network.fusion.kind.endswith("instance")
    pixel = torch.zeros(1, len(network.mean), edge, edge, device=network.mean.device) if predicted else None
    learned = WeightReadout(network, pixel)
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
    whole = weights.sum(0)
    parts = np.where(whole > 0, weights / np.maximum(whole, 1e-300), inside / np.maximum(inside.sum(0), 1))
    weights = parts * learned.weight
    covered = np.minimum(share.sum(1), 1.0)
    coverages = []
    names = [group.name for group in groups] + [name for name, _ in rasters]
    for name, row, members in zip(names, weights, inside, strict=True):
        of = row if row.sum() > 0 else members.astype(float)  # behind closed gates all of its bands count equally
        coverages.append(GroupCoverage(name, float(row.sum()), float(of @ covered / max(of.sum(), 1e-300))))
    return coverages, float(learned.weight[: len(bands)] @ (1 - covered[: len(bands)]))


def _covered_groups(coverages: Sequence[GroupCoverage], old: Bands, new: Bands) -> list[int]:
    if left := [g for g, group in enumerate(coverages) if group.coverage >= _LEAST_COVERED]:
        return left
    nms = [bands.wavelength_nm[bands.good] for bands in (new, old)]
    ranges = [f"{nm.min():g} to {nm.max():g} nm" if nm.size else "empty, no band is good" for nm in nms]
    expected = f"bands within the range of the model, {ranges[1]}"
    fix = "correct the unit of the wavelengths, or choose a model and a scene of one spectral range"
    raise InputError("scene", "range of the good bands", ranges[0], expected, fix)


def _statistics_tensors(plan: TransferPlan) -> dict[str, TransferredTensor]:
    """Mean, standard deviation and covariance of the new bands, as far as the old ones determine them."""
    prediction = plan.prediction
    triangle = prediction.covariance[np.triu_indices(len(prediction.mean))]
    return {
        "mean": (torch.from_numpy(prediction.mean), "resampled"),
        "std": (torch.from_numpy(prediction.std), "resampled"),
        "covariance": (torch.from_numpy(triangle), "resampled"),
    }


def _predicted_tensors(
    network: FusionNetwork, plan: TransferPlan, start: Mapping[str, Tensor]
) -> dict[str, TransferredTensor]:
    """The folded matrix of the network, transferred to the new bands; new rasters start with small weights."""
    fresh = torch.tensor([False] * len(plan.new) + [row.old is None for row in plan.layers])
    weight = torch.from_numpy(plan.prediction.channels(_matrix(network)))
    known = torch.from_numpy(plan.prediction.known)
    return {
        "fusion.weight": (torch.where(fresh, _SMALL * start["fusion.weight"], weight), "resampled"),
        "fusion.membership": ((known | fresh)[None], "resampled"),
    }


def _linear_tensors(
    network: FusionNetwork, plan: TransferPlan, classes: Mapping[str, int | None]
) -> dict[str, TransferredTensor]:
    """The linear part, transferred to the new bands; its share is 0 if a class is new."""
    if network.linear is None:
        return {}
    old = {name: value.cpu().double() for name, value in network.linear.state_dict().items()}
    rows = [row for row in classes.values() if row is not None]
    places = torch.tensor([row is not None for row in classes.values()])
    weight, bias = torch.zeros(len(classes), plan.share.shape[1]).double(), torch.zeros(len(classes)).double()
    weight[places] = old["weight"][rows] @ torch.from_numpy(plan.prediction.matrix)
    bias[places] = old["bias"][rows]
    new = {**old, "weight": weight, "bias": bias}
    if not places.all():
        new["network_share"] = torch.ones(())
    origin = "resampled" if rows else "fresh"
    return {f"linear.{name}": (value, origin if value.dim() else "copied") for name, value in new.items()}


def _fusion_tensors(
    fusion: BandFusion, plan: TransferPlan, start: Mapping[str, Tensor]
) -> dict[str, TransferredTensor]:
    """Groups, responses on the new bands, openness, and the weights of the remaining groups."""
    with torch.no_grad():
        reached = (fusion.response * fusion.openness).cpu().double().numpy()  # (G, M, C + E)
        open_share = fusion.open_share.cpu().double().numpy()  # (G, M)
    membership = fusion.membership.cpu().numpy()
    tensors, factor = _group_weight_tensors(fusion.group_sum, plan.rows)
    inside = np.zeros((len(plan.rows), plan.share.shape[1]), bool)
    prior = np.zeros((len(inside), fusion.channels, inside.shape[1]))
    transmitted = np.ones(prior.shape[:2])
    for i, row in enumerate(plan.rows):
        if row.old is None:
            inside[i, len(plan.new) :] = [layer == row for layer in plan.layers]
            prior[i] = inside[i]
            continue
        mass, whole = reached[row.old] @ plan.share, reached[row.old].sum(1)
        enough = mass.sum(1) >= _LEAST_COVERED * whole
        inside[i] = membership[row.old] @ plan.share > 0
        prior[i] = mass * enough[:, None] / np.maximum(mass.sum(1), 1e-300)[:, None]
        transmitted[i] = open_share[row.old] * enough * factor
    return tensors | {
        "fusion.membership": (torch.from_numpy(inside), "resampled"),
        "fusion.basis": (start["fusion.basis"], "resampled"),
        "fusion.log_prior": (torch.from_numpy(prior).log().clamp_min(LOG_NOTHING), "resampled"),
        "fusion.passed": (torch.from_numpy(transmitted), "resampled"),
        "fusion.gates.kept": (torch.from_numpy((prior > 0).any((0, 1))), "resampled"),
    }


def _cnn_tensors(
    network: FusionNetwork, classes: Mapping[str, int | None], start: Mapping[str, Tensor]
) -> dict[str, TransferredTensor]:
    """The CNN unchanged, except for the rows of its classifier: the old row of each class, None for a new one."""
    tensors: dict[str, TransferredTensor] = {f"cnn.{k}": (v, "copied") for k, v in network.cnn.state_dict().items()}
    any_known = any(row is not None for row in classes.values())
    for name in ("cnn.classifier.weight", "cnn.classifier.bias"):
        old, rows = tensors[name][0].cpu(), start[name].clone()
        for k, row in enumerate(classes.values()):
            if row is not None:
                rows[k] = old[row]
        tensors[name] = rows, "copied" if any_known else "fresh"
    return tensors


def _group_weight_tensors(
    group_sum: WeightedSum, rows: tuple[GroupOrigin, ...]
) -> tuple[dict[str, TransferredTensor], NDArray | float]:
    """Weights of the new groups, and a factor (M,) or 1 that undoes their renormalisation by the constraint."""
    raw = group_sum.raw.detach().cpu()  # (G,) or (G, M)
    kept = raw[[row.old for row in rows if row.old is not None]]
    small = _small(kept, group_sum, fresh=len(rows) - len(kept))
    new = torch.stack([small if row.old is None else raw[row.old] for row in rows])
    tensors: dict[str, TransferredTensor] = {"fusion.group_sum.raw": (new, "copied")}
    if group_sum.predictor is not None:
        old = group_sum.predictor.detach().cpu().unflatten(2, (len(raw), -1))  # (G, M, G, 1 or M)
        wide = torch.zeros(len(rows), old.shape[1], len(rows), old.shape[3])
        places = [(i, row.old) for i, row in enumerate(rows) if row.old is not None]
        for (i, one), (j, other) in product(places, places):
            wide[i, :, j] = old[one, :, other]
        tensors["fusion.group_sum.predictor"] = wide.flatten(2), "copied"
        return tensors, 1.0
    raw, new = raw.double(), new.double()
    if group_sum.kind != "none" and group_sum.constraint == "signed":
        return tensors, (new.abs().sum(0) / raw.abs().sum(0).clamp_min(1e-300)).numpy()  # a channel of zeros stays so
    if group_sum.kind != "none" and group_sum.constraint == "convex":
        return tensors, (new.logsumexp(0) - raw.logsumexp(0)).exp().numpy()
    return tensors, 1.0


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
