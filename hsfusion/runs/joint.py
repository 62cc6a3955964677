"""Joint training: one network on several scenes, of different sensors if need be."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hsfusion.data.leakage import training_mask
from hsfusion.data.splits import TEST, TRAIN, VAL, Split, dilate
from hsfusion.errors import InputError
from hsfusion.nn import MultiSceneNetwork
from hsfusion.runs.baselines import compare_with_baselines
from hsfusion.runs.experiment import Experiment, as_labelled, configuration_errors, initialise, split_scene
from hsfusion.runs.folder import interrupted_checkpoint, is_folder_name, start_folder, training_log, write_json
from hsfusion.runs.run import Run, Training, run_of
from hsfusion.runs.settings import TrainSettings, describe, refusal, replaced
from hsfusion.runs.training import TrainingResult, fit_network, patch_data, read_result
from hsfusion.scenes import LabelledScene, Scene
from hsfusion.scenes.mosaic import on_common_legend
from hsfusion.spectra import Bands
from hsfusion.training.classifier import accuracies

_log = logging.getLogger(__name__)
_MOSTLY = 0.9  # of the labelled pixels


def train_jointly(
    scenes: Sequence[LabelledScene | str | Path],
    *,
    settings: TrainSettings | None = None,
    name: str = "joint",
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    command: str = "",
    configuration: str | None = None,
    **fields: Any,
) -> list[Run]:
    """Trains one network on several scenes at once: one response over wavelength, read at the bands of each scene.

    Args and result are those of :func:`hsfusion.train`, but for ``scenes``, at least two of unlike names. The folder
    gets a run folder for each scene.
    """
    settings = replaced(settings or TrainSettings(), fields)
    with training_log(command) as log:
        configuration = configuration or describe(settings)
        resume = None if resume is None else Path(resume)
        checkpoint = None if resume is None else interrupted_checkpoint(resume, configuration)
        parts, network = prepare_jointly([as_labelled(scene) for scene in scenes], settings)
        path = None if folder is None else Path(folder)
        path = start_folder(path, configuration, log, experiments=parts, resume=resume)
        results = fit_jointly(settings, parts, network, folder=path, checkpoint=checkpoint)
        for part, result in results if settings.baselines else ():
            on_these_bands = replace(settings, groups=lambda bands, part=part: part.initial.groups)
            result.metrics["baselines"] = compare_with_baselines(part.split, result.classes, on_these_bands)
        runs = [run_of(name, Training(settings, part, result, command, configuration)) for part, result in results]
        if path is not None and results[0][1].is_main:
            _write(runs, path, settings)
    return runs


def prepare_jointly(
    labelled: Sequence[LabelledScene], settings: TrainSettings
) -> tuple[list[Experiment], MultiSceneNetwork]:
    """Splits each scene and builds the networks; those of the parts are trained as one, the second."""
    scenes = [part.scene for part in labelled]
    _check(scenes, settings)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    pooled = np.concatenate([scene.bands.wavelength_nm[scene.bands.good] for scene in scenes])
    with configuration_errors("groups"):  # the same for all, from the good bands of all
        groups = list(settings.groups(Bands(pooled, None, np.ones(pooled.shape, bool))))
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
    _log.info("Every band stays open: gates would stand in front of the bands of one sensor.")
    return parts, network


def check_apart(splits: Sequence[Split]) -> None:
    """Refuses scenes of one ground of which one is tested on what another is trained on; their own leakage is 0."""
    for one, other in itertools.permutations(splits, 2):
        if not _one_ground(one.labelled, other.labelled):
            continue
        seen = dilate(np.isin(other.roles, (TRAIN, VAL)), one.radius)
        leaked = int((seen & (one.roles == TEST)).sum())
        if leaked:
            field = f"number of test pixels that {other.labelled.scene.name} trains on"
            fix = "give both the same labels, so that they are split alike, or train on one of them"
            raise InputError(one.labelled.scene.name, field, leaked, "0: both show the same ground", fix)


def _one_ground(one: LabelledScene, other: LabelledScene) -> bool:
    """Whether they have one grid on the earth, or, without a place, one shape and mostly the same labels."""
    boxes = one.scene.geobox, other.scene.geobox
    if boxes[0].shape != boxes[1].shape:
        return False
    if boxes[0].crs is not None or boxes[1].crs is not None:
        return boxes[0] == boxes[1]
    labelled = (one.labels > 0) | (other.labels > 0)
    return bool((one.labels == other.labels)[labelled].mean() > _MOSTLY)


def fit_jointly(
    settings: TrainSettings,
    parts: Sequence[Experiment],
    network: MultiSceneNetwork,
    *,
    folder: Path | None,
    checkpoint: Path | None,
) -> list[tuple[Experiment, TrainingResult]]:
    """Trains on all scenes at once, and gives for each what an experiment on it alone would have."""
    edges = np.linspace(0, settings.batch_size, len(parts) + 1).astype(int)
    data = [patch_data(settings, part, batch_size=int(size)) for part, size in zip(parts, np.diff(edges), strict=True)]
    fitted = fit_network(settings, network, list(zip(parts, data, strict=True)), folder, checkpoint=checkpoint)
    steps, weights = fitted.weight_history
    histories = np.split(weights, np.cumsum([len(part.network.mean) for part in parts])[:-1], axis=1)
    results = []
    for part, apart, patches, history in zip(parts, network.split_networks(), data, histories, strict=True):
        alone = replace(part, initial=replace(part.initial, network=apart))
        results.append((alone, read_result(alone, replace(fitted, weight_history=(steps, history)), patches)))
    return results


def _write(runs: Sequence[Run], folder: Path, settings: TrainSettings) -> None:
    """Writes an ordinary run folder for each scene, and the accuracies of all in the folder above."""
    masks = [training_mask(run.trained.experiment.split) for run in runs]
    for i, run in enumerate(runs):
        experiment = run.trained.experiment
        others = tuple(mask for j, mask in enumerate(masks) if mask is not None and j != i)
        initial = replace(experiment.initial, seen_before=others)
        run.training = replace(run.trained, experiment=replace(experiment, initial=initial))
        place = folder / experiment.split.labelled.scene.name
        (place / "figures").mkdir(parents=True)
        run.write_outputs(place, figures=settings.figures)
    (folder / "figures").rmdir()  # each scene has its own
    write_json(folder / "metrics.json", joint_metrics(runs))


def joint_metrics(runs: Sequence[Run]) -> dict[str, Any]:
    """Accuracies of each scene and of all together, as metrics.json of the folder above holds them."""
    first, labelled = runs[0].metrics, [run.trained.experiment.split.labelled for run in runs]
    confusion = np.sum([run.trained.result.confusion for run in runs], axis=0)
    return {
        "scenes": {
            part.scene.name: {"split": run.metrics["split"], "test": run.metrics["test"]}
            for part, run in zip(labelled, runs, strict=True)
        },
        "test": accuracies(confusion, names=labelled[0].legend.names),
        "timing": {key: first["timing"][key] for key in ("train_seconds", "samples_per_second")},
        "seed": first["seed"],
        "versions": first["versions"],
    }


def _check(scenes: Sequence[Scene], settings: TrainSettings) -> None:
    """Refuses scenes that cannot be distinguished, and what belongs to one sensor and would be ignored or mistaken."""
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
