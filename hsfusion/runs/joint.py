"""Joint training: one network on several scenes, of different sensors if need be."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from hsfusion.data.leakage import training_mask
from hsfusion.data.patches import SeveralDataModule
from hsfusion.data.splits import TEST, TRAIN, VAL, Split, dilate
from hsfusion.errors import InputError
from hsfusion.nn import MultiSceneNetwork
from hsfusion.nn.multi_scene import GroupWeights
from hsfusion.runs.fitting import class_counts, configuration_errors, fit_network, patch_data, sample_patches
from hsfusion.runs.folder import is_folder_name, start_folder, training_log, versions, write_json
from hsfusion.runs.resuming import check_checkpoint, interrupted_checkpoint
from hsfusion.runs.run import Run, Training, run_of
from hsfusion.runs.settings import TrainSettings, describe, with_fields
from hsfusion.runs.training import (
    Experiment,
    TrainingResult,
    as_labelled,
    initialise,
    new_model,
    read_result,
    split_scene,
)
from hsfusion.scenes import LabelledScene, Scene
from hsfusion.scenes.mosaic import on_common_legend
from hsfusion.spectra import BandGroup, Bands
from hsfusion.training.classifier import accuracies

_log = logging.getLogger(__name__)
# what lies beside the folders of the scenes
_RESERVED = {"checkpoints", "config.yaml", "logs", "metrics.json", "train.log"}
_LONGEST_NAME = 100
_MOSTLY = 0.9  # of the labelled pixels


@dataclass(frozen=True, eq=False)
class JointExperiment:
    """All that is known before a training on several scenes.

    Attributes:
        parts: of each scene; their networks are those of ``network``.
        network: the whole, trained in place.
    """

    parts: list[Experiment]
    network: MultiSceneNetwork


def train_jointly(
    scenes: Sequence[LabelledScene | str | Path],
    *,
    settings: TrainSettings | None = None,
    group_weights: str = "shared",
    name: str = "joint",
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    command: str = "",
    configuration: str | None = None,
    **fields: Any,
) -> list[Run]:
    """Trains one network on several scenes at once: one response over wavelength, read at the bands of each scene.

    Args:
        scenes: at least two scenes with labels, or paths of their descriptions, each with a name of its own.
        settings: how; None for the defaults.
        group_weights: shared by all scenes, or per_scene.
        name: what figures and pages call the run.
        folder: a new folder that gets a run folder for each scene; None to write nothing.
        resume: folder of an interrupted training with the same settings, to go on with.
        command: how to repeat it, for the reports.
        configuration: the settings as YAML, for config.yaml; None for those of this call.
        **fields: fields of :class:`TrainSettings` that replace those of ``settings``.

    Returns:
        for each scene what a training on it alone would have given.

    Raises:
        HsFusionError: if the input cannot be used, or the training diverges.
    """
    settings = with_fields(settings, fields)
    with training_log() as log:
        if command:
            _log.info(command)
        configuration = configuration or describe(settings)
        checkpoint = None if resume is None else interrupted_checkpoint(Path(resume), configuration)
        experiment = prepare_jointly([as_labelled(scene) for scene in scenes], settings, group_weights=group_weights)
        if checkpoint is not None:
            check_checkpoint(checkpoint, settings, experiment.network)
        architecture = experiment.parts[0].initial.architecture
        path = None if folder is None else start_folder(Path(folder), configuration, log, architecture=architecture)
        results = fit_jointly(settings, experiment, path, checkpoint=checkpoint)
        runs = [run_of(name, Training(settings, part, result, command, configuration)) for part, result in results]
        if path is not None and results[0][1].is_main:
            _write(runs, path, settings)
    return runs


def prepare_jointly(
    labelled: Sequence[LabelledScene], settings: TrainSettings, *, group_weights: str = "shared"
) -> JointExperiment:
    """Splits each scene and builds the networks.

    Raises:
        HsFusionError: if anything of it does not fit together.
    """
    _check_names([part.scene.name for part in labelled])
    _check_settings(settings, scenes=len(labelled), group_weights=group_weights)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    scenes = [part.scene for part in labelled]
    for scene in scenes[1:]:
        if scene.sources != scenes[0].sources:
            expected = f"{scenes[0].sources or 'none'} as in {scenes[0].name}"
            value = scene.sources or "none"
            raise InputError(scene.name, "further rasters", value, expected, "give all the same sources")
    make = partial(new_model, settings, groups=common_groups(settings, scenes))
    radius = settings.model.receptive_field // 2
    splits = [
        split_scene(part, settings, radius=radius, used=make(part.scene, part.legend.names).network.used_bands.numpy())
        for part in labelled
    ]
    check_apart(splits)
    common = on_common_legend([split.labelled for split in splits])
    parts = [
        initialise(replace(split, labelled=part), settings, make=make)
        for split, part in zip(splits, common, strict=True)
    ]
    with configuration_errors("model"):
        network = MultiSceneNetwork([part.network for part in parts], group_weights=cast(GroupWeights, group_weights))
    _log.info("%d scenes share responses and CNN; group weights: %s", len(parts), group_weights)
    _log.info("Every band stays open: gates would stand in front of the bands of one sensor.")
    return JointExperiment(parts, network)


def common_groups(settings: TrainSettings, scenes: Sequence[Scene]) -> list[BandGroup]:
    """The groups that the settings make of the good bands of all scenes together.

    Raises:
        InputError: if one holds no band of a scene.
    """
    nm = [scene.bands.wavelength_nm[scene.bands.good] for scene in scenes]
    pooled = np.concatenate(nm)
    with configuration_errors("groups"):
        groups = list(settings.groups(Bands(pooled, None, np.ones(pooled.shape, bool))))
    for group in groups:
        for scene, centres in zip(scenes, nm, strict=True):
            if not ((centres >= group.lower_nm) & (centres < group.upper_nm)).any():
                where = f"{centres.min():.0f} to {centres.max():.0f} nm" if centres.size else "none is good"
                raise InputError(
                    scene.name,
                    f"number of good bands in group {group.name} [{group.lower_nm:g}, {group.upper_nm:g}) nm",
                    0,
                    f"at least 1 in each scene; good bands of this one: {where}",
                    "choose groups that all scenes see, or wider ones (groups.number)",
                )
    return groups


def check_apart(splits: Sequence[Split]) -> None:
    """Refuses scenes of one ground of which one is tested on what another is trained on; their own leakage is 0.

    Scenes are of one ground if they have one grid on the earth, or, without a place, one shape and mostly the same
    labels.

    Raises:
        InputError: if a test pixel of a scene is, or sees, a training or validation pixel of another.
    """
    for one, other in itertools.permutations(splits, 2):
        if not _one_ground(one.labelled, other.labelled):
            continue
        seen = dilate(np.isin(other.roles, (TRAIN, VAL)), one.radius)
        leaked = int((seen & (one.roles == TEST)).sum())
        if leaked:
            raise InputError(
                one.labelled.scene.name,
                f"number of test pixels that {other.labelled.scene.name} trains on",
                leaked,
                "0: the two are of one ground",
                "give both the same labels, so that they are split alike, or train on one of them",
            )


def _one_ground(one: LabelledScene, other: LabelledScene) -> bool:
    boxes = one.scene.geobox, other.scene.geobox
    if boxes[0].shape != boxes[1].shape:
        return False
    if boxes[0].crs is not None or boxes[1].crs is not None:
        return boxes[0] == boxes[1]
    labelled = (one.labels > 0) | (other.labels > 0)
    return bool((one.labels == other.labels)[labelled].mean() > _MOSTLY)


def fit_jointly(
    settings: TrainSettings, experiment: JointExperiment, folder: Path | None, *, checkpoint: Path | None
) -> list[tuple[Experiment, TrainingResult]]:
    """Trains on all scenes at once, keeps the best epoch by all their validation pixels, and classifies each.

    Returns:
        for each scene what an experiment on it alone would have, with an ordinary network of its own.

    Raises:
        DivergedError: if a weight is not finite at the end.
    """
    parts, network = experiment.parts, experiment.network
    edges = np.linspace(0, settings.batch_size, len(parts) + 1).astype(int)
    data = [
        patch_data(settings, part.cube, part.split, batch_size=int(size))
        for part, size in zip(parts, np.diff(edges), strict=True)
    ]
    fitted = fit_network(
        settings,
        network,
        SeveralDataModule(data),
        folder,
        measured=[
            (part.network, sample_patches(part.network, patches, part.split, most=256))
            for part, patches in zip(parts, data, strict=True)
        ],
        class_counts=np.sum([class_counts(part.cube, part.split) for part in parts], axis=0),
        val_pixels=sum(part.split.count(VAL) for part in parts),
        pretrained=False,
        checkpoint=checkpoint,
    )
    steps, weights = fitted.weight_history
    ends = np.cumsum([len(part.network.mean) for part in parts])[:-1]
    results = []
    for part, apart, patches, history in zip(
        parts, network.split_networks(), data, np.split(weights, ends, axis=1), strict=True
    ):
        alone = replace(part, initial=replace(part.initial, network=apart))
        results.append((alone, read_result(alone, replace(fitted, weight_history=(steps, history)), patches)))
    return results


def _write(runs: Sequence[Run], folder: Path, settings: TrainSettings) -> None:
    """Writes an ordinary run folder for each scene, and the accuracies of all in the folder above."""
    trainings = [run.training for run in runs if run.training is not None]
    masks = [training_mask(training.experiment.split) for training in trainings]
    for i, (run, training) in enumerate(zip(runs, trainings, strict=True)):
        others = tuple(mask for j, mask in enumerate(masks) if mask is not None and j != i)
        initial = replace(training.experiment.initial, seen_before=others)
        run.training = replace(training, experiment=replace(training.experiment, initial=initial))
        place = folder / training.experiment.split.labelled.scene.name
        (place / "figures").mkdir(parents=True)
        run.write_outputs(place, figures=settings.figures)
    (folder / "figures").rmdir()  # each scene has its own
    write_json(folder / "metrics.json", joint_metrics(runs))


def joint_metrics(runs: Sequence[Run]) -> dict[str, Any]:
    """Accuracies of each scene and of all together, as metrics.json of the folder above holds them."""
    trainings = [run.training for run in runs if run.training is not None]
    scenes = [training.experiment.split.labelled for training in trainings]
    timing = runs[0].metrics["timing"]
    confusion = np.sum([training.result.confusion for training in trainings], axis=0)
    return {
        "scenes": {
            labelled.scene.name: {"split": run.metrics["split"], "test": run.metrics["test"]}
            for labelled, run in zip(scenes, runs, strict=True)
        },
        "test": accuracies(confusion, names=scenes[0].legend.names),
        "timing": {key: timing[key] for key in ("train_seconds", "samples_per_second")},
        "seed": runs[0].metrics["seed"],
        "versions": versions(),
    }


def _check_names(names: Sequence[str]) -> None:
    if len(names) < 2:
        raise _refusal("scene.scenes", list(names), "at least two scenes", "scene.scenes=[a.yaml,b.yaml]")
    for name in names:
        if not is_folder_name(name) or name.lower() in _RESERVED or len(name) > _LONGEST_NAME:
            raise _refusal("scene.scenes", repr(name), "names that a folder can have", "give it another name")
    if len({name.lower() for name in names}) < len(names):
        raise _refusal("scene.scenes", ", ".join(names), "unique names", "give one of them another name")


def _check_settings(settings: TrainSettings, *, scenes: int, group_weights: str) -> None:
    """Refuses what belongs to one sensor."""
    model = settings.model
    if group_weights not in ("shared", "per_scene"):
        raise _refusal("scene.group_weights", group_weights, "shared | per_scene", "correct scene.group_weights")
    if model.knot_spacing_nm is None:
        raise _refusal("model.knot_spacing_nm", "null", "knots in nm, which sensors can share", "give a distance")
    if model.keep_bands is not None:
        raise _refusal("model.keep_bands", model.keep_bands, "null, for bands differ", "remove it")
    table = group_weights == "per_scene"
    kinds = ["scalar", "channel"] if table else ["scalar", "channel", "instance", "channel_instance", "none"]
    if model.fusion not in kinds:
        where = " with scene.group_weights=per_scene" if table else " for several scenes"
        raise _refusal("model.fusion", model.fusion, " | ".join(kinds) + where, "correct model.fusion")
    if settings.batch_size < scenes:
        raise _refusal("data.batch_size", settings.batch_size, f"at least {scenes}, one for each scene", "raise it")


def _refusal(field: str, value: object, expected: str, fix: str) -> InputError:
    return InputError("settings", field, value, expected, fix)
