"""Fine-tuning: a trained network transferred to a new scene and trained on, beside one from scratch if asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hsfusion.data.leakage import all_seen, check_no_leakage
from hsfusion.errors import DivergedError, InputError
from hsfusion.nn import BACKBONES, DEFAULT_BACKBONE, FusionNetwork
from hsfusion.runs.folder import start_folder, training_log
from hsfusion.runs.resuming import check_checkpoint, interrupted_checkpoint
from hsfusion.runs.run import Run, Training, run_of
from hsfusion.runs.settings import FINETUNE_EPOCHS, ModelSettings, TrainSettings, blocks, describe, with_fields
from hsfusion.runs.training import (
    Experiment,
    InitialModel,
    TrainingResult,
    as_labelled,
    fit,
    initialise,
    prepare_experiment,
)
from hsfusion.scenes import LabelledScene, Scene
from hsfusion.scenes.legend import is_named
from hsfusion.training.model_file import ModelHeader, load_model
from hsfusion.training.transfer import transfer

_log = logging.getLogger(__name__)


def finetune(
    pretrained: Run | str | Path,
    scene: LabelledScene | str | Path,
    *,
    settings: TrainSettings | None = None,
    scratch_epochs: int | None = None,
    per_class: int | None = None,
    name: str | None = None,
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    command: str = "",
    configuration: str | None = None,
    **fields: Any,
) -> Run:
    """Transfers a trained network to another scene, sensor or set of classes, and trains it on.

    Args:
        pretrained: the run, its folder, or its model file.
        scene: the scene with labels, or the path of its description (YAML).
        settings: of the training; None for the defaults with 20 epochs. Its ``model`` has no effect on the transferred
            network, which keeps its own.
        scratch_epochs: epochs of a second network that starts from scratch on the same pixels; None for none.
        per_class: training pixels of each class, short for ``split=blocks(per_class=...)``.
        name: of the run, in figures and reports; None for the name of the scene.
        folder: a new run folder; None to write nothing.
        resume: run folder of an interrupted run with the same settings, to go on with.
        command: how to repeat the run, for its report.
        configuration: the settings as YAML, for config.yaml; None for those of this call.
        **fields: fields of :class:`TrainSettings` that replace those of ``settings``.

    Returns:
        the run; its ``metrics["scratch"]`` are those of the network from scratch

    Raises:
        HsFusionError: if the input cannot be used, test pixels were seen by the pretrained network, or the training
            diverges.
    """
    if per_class is not None:
        fields["split"] = blocks(per_class=per_class)
    settings = with_fields(settings or TrainSettings(epochs=FINETUNE_EPOCHS), fields)
    with training_log() as log:
        if command:
            _log.info(command)
        network, header = pretrained_model(pretrained)
        labelled = as_labelled(scene)
        name, configuration = name or labelled.scene.name, configuration or describe(settings)
        checkpoint = None if resume is None else interrupted_checkpoint(Path(resume), configuration)
        make = partial(transferred_model, network=network, header=header)
        experiment = prepare_experiment(labelled, settings, make=make)
        scratch = None if scratch_epochs is None else scratch_settings(settings, header, epochs=scratch_epochs)
        _check_start(settings, experiment, header, scratch)
        if checkpoint is not None:
            check_checkpoint(checkpoint, settings, experiment.network)
        architecture = experiment.initial.architecture
        path = None if folder is None else start_folder(Path(folder), configuration, log, architecture=architecture)
        result = fit(settings, experiment, path, checkpoint=checkpoint)
        more = {} if scratch is None else _compare_with_scratch(scratch, experiment, result, path)
        run = run_of(name, Training(settings, experiment, result, command, configuration), more=more)
        if path is not None and result.is_main:
            run.write_outputs(path, figures=settings.figures)
    return run


def pretrained_model(pretrained: Run | str | Path) -> tuple[FusionNetwork, ModelHeader]:
    """Network and header of a run, a run folder or a model file.

    Raises:
        InputError: if there is none, or the file is damaged.
    """
    if isinstance(pretrained, Run):
        return pretrained.network, pretrained.header
    return load_model(model_path(pretrained))


def model_path(run: str | Path) -> Path:
    """The model file of a run folder; a path that is no folder is the file itself."""
    path = Path(run)
    return path / "model.safetensors" if path.is_dir() else path


def transferred_model(
    scene: Scene, class_names: Sequence[str], *, network: FusionNetwork, header: ModelHeader
) -> InitialModel:
    """The pretrained network, transferred to the scene."""
    transferred = transfer(
        network,
        header=header,
        bands=scene.bands,
        sources=scene.sources,
        class_names=class_names,
        fresh_classes=[name for name in class_names if not is_named(name)],
    )
    report = transferred.report.standardised_anew()
    seen = all_seen(header.to_dict())
    return InitialModel(transferred.network, list(transferred.groups), transferred.architecture, report, seen)


def scratch_settings(settings: TrainSettings, header: ModelHeader, *, epochs: int) -> TrainSettings:
    """The same training for a new network of the same architecture, with all parts learning at full rate."""
    same = {key: value for key, value in header.architecture.items() if key not in ("response", "keep_bands")}
    backbone: Any = same.get("backbone", DEFAULT_BACKBONE)
    if options := same.get("backbone_options"):
        backbone = partial(BACKBONES[backbone], **options)  # known, for the model file was read with it
    same = {**same, "backbone": backbone}
    model = replace(settings.model, **{key: same[key] for key in same if key in vars(ModelSettings())})
    return replace(settings, model=model, epochs=epochs, freeze=(), patience=None, thaw_at={}, lr_scales={})


def first_step_as_good(history: dict[str, tuple[list[int], list[float]]], accuracy: float) -> int | None:
    """The first step at which the validation accuracy was reached; None if it never was."""
    steps, values = history.get("val/overall_accuracy", ([], []))
    return next((step for step, value in zip(steps, values, strict=True) if value >= accuracy), None)


def _check_start(
    settings: TrainSettings, experiment: Experiment, header: ModelHeader, scratch: TrainSettings | None
) -> None:
    """Refuses what would be known too late, and logs what was transferred before hours of training."""
    check_no_leakage(experiment.split, header.to_dict())
    report = experiment.initial.transfer
    assert report is not None, "a transferred network"
    for line in report.coverage_lines():
        _log.info("%s", line)
    if not all(map(is_named, experiment.split.labelled.legend.names)):
        _log.warning(
            "Classes named by their codes (class 1, ...) start anew: name them to have classes copied by name."
        )
    fresh = [part for part in report.fresh if part.startswith("cnn.classifier")]
    if fresh and "classifier" in settings.freeze:
        raise InputError(
            "settings",
            "freeze",
            "classifier",
            f"parts that are copied; {', '.join(fresh)} start anew, as random numbers",
            "take classifier out of freeze",
        )
    if scratch is not None:  # whether its groups and bands fit the scene
        with torch.random.fork_rng(devices=[]):
            initialise(experiment.split, scratch)


def _compare_with_scratch(
    settings: TrainSettings, experiment: Experiment, result: TrainingResult, folder: Path | None
) -> dict[str, Any]:
    """Trains a network from scratch on the same pixels; what metrics.json says of it."""
    _log.info("for comparison: a network from scratch, on the same pixels")
    place = None if folder is None else folder / "scratch"
    if place is not None:
        place.mkdir()
    try:
        other = fit(settings, initialise(experiment.split, settings), place)
    except DivergedError as error:  # what was fine-tuned is worth keeping
        _log.warning("the network from scratch: %s", error)
        return {}
    reached = other.val_accuracy
    return {
        "scratch": {
            "test": other.metrics["test"],
            "timing": other.metrics["timing"],
            "epochs": settings.epochs,
            "step": other.best_step,
            "val_overall_accuracy": reached,
            "finetuned_there_at_step": None if reached is None else first_step_as_good(result.history, reached),
        }
    }
