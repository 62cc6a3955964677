"""The state before a training, on one scene or several: roles of the pixels, the network, and the patches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsfusion.data.leakage import check_apart
from hsfusion.data.noise import noise_whitening
from hsfusion.data.patches import TrainingCube, check_patch_fits, prepare, valid_pixels
from hsfusion.data.splits import TEST, TRAIN, VAL, Split, dilate
from hsfusion.errors import EnvironmentFailure, HsFusionError, InputError
from hsfusion.inference.folding import check_folding
from hsfusion.nn import FreeFusion, FusionNetwork, MultiSceneNetwork, check_backbone
from hsfusion.runs.folder import is_folder_name
from hsfusion.runs.settings import TrainSettings, refusal
from hsfusion.scenes import LabelledScene, Scene
from hsfusion.scenes.description import open_described
from hsfusion.scenes.mosaic import on_common_legend
from hsfusion.scenes.scene import constant_layers, pixel_blocks
from hsfusion.spectra import BandGroup, Bands, membership
from hsfusion.training.building import backbone_arguments, build_network, with_all_layers
from hsfusion.training.transfer import TransferReport

_log = logging.getLogger(__name__)
_FEW = 5  # bands of a group, beside others at least twice as large


@dataclass(frozen=True, eq=False)
class InitialModel:
    """A network before the training: new, or transferred from another scene, where it has seen pixels.

    Attributes:
        architecture: plain keyword arguments that build the network again.
        class_shares: (K,) shares of the classes in the scene of the pretrained network, if validation pixels are drawn
            in equal numbers per class; None otherwise.
    """

    network: FusionNetwork
    groups: list[BandGroup]
    architecture: dict[str, Any]
    transfer: TransferReport | None = None
    seen_before: tuple[dict[str, Any], ...] = ()
    class_shares: NDArray[np.float64] | None = None


#: makes the network: called with the scene and the names of its classes
ModelMaker = Callable[[Scene, Sequence[str]], InitialModel]


@dataclass(frozen=True, eq=False)
class Experiment:
    """A split scene, the network, which is trained in place, and the patches of training and validation pixels."""

    split: Split
    initial: InitialModel
    cube: TrainingCube

    @property
    def network(self) -> FusionNetwork:
        """The network."""
        return self.initial.network


def as_labelled(scene: LabelledScene | str | Path) -> LabelledScene:
    """A scene with labels, opened if it is the path of a description."""
    is_path = isinstance(scene, str | Path)
    if is_path and str(scene).endswith((".yaml", ".yml")):
        scene = open_described([str(scene)])
    if not isinstance(scene, LabelledScene):
        source = scene if is_path else getattr(scene, "name", "scene")
        fix = "open it with labels=PATH (scene=file scene.cube=PATH scene.labels=PATH), or name a description (.yaml)"
        raise InputError(source, "labels", "missing", "a scene with labels", fix)
    return scene


def new_model(settings: TrainSettings, scene: Scene, class_names: Sequence[str]) -> InitialModel:
    """A new, untrained network."""
    with configuration_errors("groups"):
        groups = list(settings.groups(scene.bands))
    architecture = asdict(settings.model)
    architecture |= backbone_arguments(architecture.pop("backbone"))
    architecture["whitening"] = "noise" if settings.model.whitens else "none"
    if settings.model.linear and settings.model.fusion.endswith("instance"):
        architecture["linear"] = False  # the matrix depends on the pixels
        _log.info("Networks with instance weights have no linear part.")
    with configuration_errors("model"):
        network = build_network(
            scene.bands, groups, sources=scene.sources, num_classes=len(class_names), **architecture
        )
        check_backbone(network.cnn.features, channels=settings.model.channels)
        check_folding(network)
    return InitialModel(network, groups, architecture)


def prepare_experiment(labelled: LabelledScene, settings: TrainSettings, make: ModelMaker | None = None) -> Experiment:
    """Splits a scene, makes the network (by default a new one), and standardises the training pixels."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if make is None:
        return initialise(split_scene(labelled, settings), settings)
    torch.manual_seed(settings.seed)
    initial = make(labelled.scene, labelled.legend.names)  # which bands it uses depends on where it comes from
    split = split_scene(labelled, settings, network=initial.network)
    other_classes = split.labelled.legend.names != labelled.legend.names  # a fixed split brings its own
    if other_classes or split.labelled.scene is not labelled.scene:
        return initialise(split, settings, make=make)
    return standardised(split, initial)


def split_scene(labelled: LabelledScene, settings: TrainSettings, *, network: FusionNetwork | None = None) -> Split:
    """Splits a scene for the receptive field and the used bands of a network; None for a new one of these settings.

    In the scene of the split, bands that are constant over the training pixels are marked as not good.
    """
    scene = labelled.scene
    radius = settings.model.receptive_field // 2 if network is None else network.receptive_field // 2
    used = used_layers(scene, settings) if network is None else network.used_bands.numpy()
    if network is None and settings.model.fusion != "free":
        _name_small_groups(list(settings.groups(scene.bands)), scene.bands)
    for entry in scene.provenance():
        _log.info("values: %s", entry)
    check_patch_fits(scene, 2 * radius + 1)
    valid = valid_pixels(scene, used, where=dilate(labelled.labels > 0, radius))
    with configuration_errors("split"):
        split = settings.split(labelled, radius=radius, seed=settings.split_seed, valid=valid)
    _check_roles(split)
    if holes := split.holes(valid):
        _log.warning(
            "%.1f %% of the training patches hold pixels without data; these are set to the band's mean.", 100 * holes
        )
    roles = ((TRAIN, "training"), (VAL, "validation"), (TEST, "test"))
    counts = ", ".join(f"{split.count(role)} {name}" for role, name in roles)
    _log.info("%s, %s split: %s pixels, leakage %.4f", scene.name, split.kind, counts, split.leakage)
    return _without_constant_bands(split, np.flatnonzero(used[: len(scene.bands)]))


def _without_constant_bands(split: Split, used: NDArray[np.int64]) -> Split:
    """Marks used bands (N,) that are constant over the training pixels: standardised, they are 0 and get no weight."""
    scene = split.labelled.scene
    blocks = (values for _, values in pixel_blocks(scene, split.pixels(TRAIN), used))
    constant = used[constant_layers(blocks, layers=used.size)]
    if not constant.size:
        return split
    if constant.size == used.size:
        field = "number of used bands that vary over the training pixels"
        raise InputError(scene.name, field, 0, "at least 1", "check the file, or give other training pixels")
    nm = ", ".join(f"{centre:.0f}" for centre in scene.bands.wavelength_nm[constant])
    _log.warning("%s: bands that are constant over the training pixels are not used: %s nm.", scene.name, nm)
    marked, good = copy(scene), np.array(scene.bands.good)
    good[constant] = False
    marked.bands = replace(scene.bands, good=good)
    return replace(split, labelled=replace(split.labelled, scene=marked))


def _check_roles(split: Split) -> None:
    """Refuses faulty results of a user's split: roles of unlabelled pixels, a class without training pixels."""
    used, legend = np.isin(split.roles, (TRAIN, VAL, TEST)), split.labelled.legend
    classes = legend.indices(split.labelled.labels[used])
    if unlabelled := int((classes < 0).sum()):
        field, fix = "number of training, validation and test pixels without a class", "give them the role 0"
        raise InputError("split", field, unlabelled, "0", fix)
    trained = np.unique(classes[split.roles[used] == TRAIN])
    if missing := [name for i, name in enumerate(legend.names) if i not in trained]:
        field, fix = f"number of training pixels of class {missing[0]}", "train on some, or drop the class"
        raise InputError("split", field, 0, "at least 1", fix)


def _name_small_groups(groups: Sequence[BandGroup], bands: Bands) -> None:
    """Warns of groups with few bands among larger ones, such as the rest beside a gap; not if all are small."""
    number = membership(groups, bands).sum(1)
    most = min(_FEW, np.median(number) / 2)
    few = [f"{group.name} ({n})" for group, n in zip(groups, number, strict=True) if n < most]
    if few:
        text = "Small groups start with the weight of a whole group: %s. Merge them, or use groups=even."
        _log.warning(text, ", ".join(few))


def used_layers(scene: Scene, settings: TrainSettings) -> NDArray[np.bool_]:
    """(C + E,) bands and layers that a new network may use: good bands in a group, and further rasters."""
    inside = scene.bands.good
    if settings.model.fusion != "free":
        with configuration_errors("groups"):
            inside = membership(list(settings.groups(scene.bands)), scene.bands).any(0)
    return with_all_layers(np.asarray(inside), scene.sources)


def initialise(split: Split, settings: TrainSettings, *, make: ModelMaker | None = None) -> Experiment:
    """Makes the network for a split, standardised with its training pixels."""
    torch.manual_seed(settings.seed)
    make = make or partial(new_model, settings)
    return standardised(split, make(split.labelled.scene, split.labelled.legend.names))


def standardised(
    split: Split, initial: InitialModel, *, known: Mapping[str, NDArray[np.float64]] | None = None
) -> Experiment:
    """Standardises patches and network by the training pixels, or by given statistics."""
    network = initial.network
    cube = prepare(split, network.used_bands.numpy(), roles=(TRAIN, VAL), known=known)
    for name, values in cube.statistics.items():
        network.get_buffer(name).copy_(values)
    if network.whitening is not None:
        whitening = torch.from_numpy(noise_whitening(cube, split))
        if whitening.equal(torch.eye(len(whitening)).double()):
            reason = "training patches hold fewer than 50 pairs of neighbouring pixels, or these do not differ"
            _log.warning("Bands are not whitened: %s, or fewer than two bands are used.", reason)
        if initial.transfer is not None and isinstance(network.fusion, FreeFusion):  # whose channels must stay the same
            folded = network.matrix().detach().double()
            network.fusion.weight.data.copy_(torch.linalg.solve(whitening, folded, left=False))
        network.whitening.copy_(whitening)
    network.train()  # Lightning leaves it as it is
    gates = network.fusion.gates
    if gates is not None and gates.kept.any():  # settled for good: processes that train together would miss gradients
        gates.requires_grad_(False).settled = True
    return Experiment(split, initial, cube)


@contextmanager
def configuration_errors(part: str) -> Iterator[None]:
    """Turns the error of a constructor about a wrong value into an input error."""
    try:
        yield
    except ModuleNotFoundError as error:  # Lightning's text names the pip command
        raise EnvironmentFailure(f"{part}: {error}. Fix: install the package, or remove {part}.*") from error
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).rstrip(".")
        raise HsFusionError(f"configuration: {part} cannot be used: {reason}. Fix: correct {part}.*") from error


def prepare_jointly(
    labelled: Sequence[LabelledScene], settings: TrainSettings
) -> tuple[list[Experiment], MultiSceneNetwork]:
    """Splits each scene and builds the networks; the second result joins them into one for training."""
    scenes = [part.scene for part in labelled]
    _check_joint(scenes, settings)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    pooled = np.concatenate([scene.bands.wavelength_nm[scene.bands.good] for scene in scenes])
    with configuration_errors("groups"):  # the same for all, from the good bands of all
        groups = list(settings.groups(Bands(pooled, None, np.ones(pooled.shape, bool))))
    _check_groups(groups, scenes)
    model = replace(settings.model, whitening="none", linear=False)
    if model != settings.model or settings.select:
        _log.info("Whitening, the linear part and select need the pixels of one scene, and are left out.")
    settings = replace(settings, groups=lambda bands: groups, model=model)
    splits = [split_scene(part, settings) for part in labelled]
    check_apart(splits)
    common = on_common_legend([split.labelled for split in splits])
    parts = [initialise(replace(split, labelled=part), settings) for split, part in zip(splits, common, strict=True)]
    with configuration_errors("model"):
        network = MultiSceneNetwork([part.network for part in parts])
    _log.info("%d scenes share responses, group weights and CNN", len(parts))
    _log.info("Every band stays open: gates would belong to the bands of one sensor.")
    return parts, network


def _check_groups(groups: Sequence[BandGroup], scenes: Sequence[Scene]) -> None:
    """Refuses groups in which a scene has no good band: all channels use all groups."""
    good = [scene.bands.wavelength_nm[scene.bands.good] for scene in scenes]
    for scene, nm in zip(scenes, good, strict=True):
        if empty := [g.name for g in groups if not ((g.lower_nm <= nm) & (nm < g.upper_nm)).any()]:
            lower, upper = max(nm.min() for nm in good), min(nm.max() for nm in good)
            fix = f"cover the common range: groups=vnir_swir ~groups.nm.SWIR groups.nm.VNIR=[{lower:.0f},{upper:.0f}]"
            fix = fix if lower < upper else "train them separately: they have no range in common"
            raise InputError(scene.name, f"number of good bands in group {empty[0]}", 0, "at least 1", fix)


def _check_joint(scenes: Sequence[Scene], settings: TrainSettings) -> None:
    """Refuses scenes that cannot be distinguished, and settings for a single sensor that would be ignored or wrong."""
    names, model = [scene.name for scene in scenes], settings.model
    unique = len({name.lower() for name in names}) == len(names) > 1
    if not unique or not all(map(is_folder_name, names)):
        raise refusal("scene.scenes", ", ".join(names), "at least two scenes with unique names that folders can have")
    for scene in scenes[1:]:
        if scene.sources != scenes[0].sources:
            expected = f"{scenes[0].sources or 'none'} as in {names[0]}"
            raise InputError(
                scene.name, "further rasters", scene.sources or "none", expected, "give all scenes the same"
            )
    if model.knot_spacing_nm is None or model.keep_bands is not None:
        value = f"{model.knot_spacing_nm} and {model.keep_bands}"
        raise refusal("model.knot_spacing_nm and model.keep_bands", value, "knots in nm and no keep_bands")
    if settings.batch_size < len(scenes):
        raise refusal("data.batch_size", settings.batch_size, f"at least {len(scenes)}, one for each scene")
