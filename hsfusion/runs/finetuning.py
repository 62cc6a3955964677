"""Fine-tuning: a trained network transferred to a new scene and trained on, beside one from scratch if asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hsfusion.data.leakage import all_seen, check_no_leakage
from hsfusion.errors import InputError
from hsfusion.nn import BACKBONES, DEFAULT_BACKBONE, FusionNetwork
from hsfusion.runs.experiment import Experiment, InitialModel, initialise, prepare_experiment, used_layers
from hsfusion.runs.folder import training_log, write_json
from hsfusion.runs.run import Run
from hsfusion.runs.settings import FINETUNE_EPOCHS, ModelSettings, TrainSettings, blocks
from hsfusion.runs.training import fit, train
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
    **options: Any,
) -> Run:
    """Transfers a trained network to another scene, sensor or set of classes, and trains it on.

    Args:
        pretrained: the run, its folder, or its model file.
        scene: the scene with labels, or the path of its description (YAML).
        settings: of the training; None for the defaults with 20 epochs. Its ``model`` has no effect on the transferred
            network, which keeps its own.
        scratch_epochs: epochs of a second network that starts from scratch on the same pixels; None for none.
        per_class: training pixels of each class, short for ``split=blocks(per_class=...)``.
        **options: ``folder``, ``resume`` and whatever else :func:`hsfusion.train` takes; fields of
            :class:`TrainSettings` among them.

    Returns:
        the run; its ``metrics["scratch"]`` are those of the network from scratch

    Raises:
        InputError: if test pixels were seen by the pretrained network.
    """
    if per_class is not None:
        options["split"] = blocks(per_class=per_class)
    network, header = pretrained_model(pretrained)
    with training_log():
        prepare = partial(_transferred_experiment, network=network, header=header, scratch_epochs=scratch_epochs)
        run = train(scene, settings=settings or TrainSettings(epochs=FINETUNE_EPOCHS), prepare=prepare, **options)
        if scratch_epochs is not None:
            _compare_with_scratch(run, header, epochs=scratch_epochs)
    return run


def pretrained_model(pretrained: Run | str | Path) -> tuple[FusionNetwork, ModelHeader]:
    """Network and header of a run, a run folder or a model file."""
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


def _transferred_experiment(
    labelled: LabelledScene,
    settings: TrainSettings,
    *,
    network: FusionNetwork,
    header: ModelHeader,
    scratch_epochs: int | None,
) -> Experiment:
    """Refuses what would be known too late, and logs what was transferred before hours of training."""
    make = partial(transferred_model, network=network, header=header)
    experiment = prepare_experiment(labelled, settings, make=make)
    check_no_leakage(experiment.split, header.to_dict())
    if scratch_epochs is not None:  # whether its groups fit the scene
        used_layers(labelled.scene, scratch_settings(settings, header, epochs=scratch_epochs))
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
        expected = f"parts that are copied; {', '.join(fresh)} start anew, as random numbers"
        raise InputError("settings", "freeze", "classifier", expected, "take classifier out of freeze")
    return experiment


def _compare_with_scratch(run: Run, header: ModelHeader, *, epochs: int) -> None:
    """Trains a network from scratch on the same pixels, and adds what it reached to the metrics of the run."""
    _log.info("for comparison: a network from scratch, on the same pixels")
    training = run.trained
    settings = scratch_settings(training.settings, header, epochs=epochs)
    place = None if run.folder is None else run.folder / "scratch"
    if place is not None:
        place.mkdir()
    try:
        other = fit(settings, initialise(training.experiment.split, settings), place)
    except Exception:
        if run.folder is not None:  # what was fine-tuned is worth keeping
            _log.warning("The fine-tuned run is whole, in %s; only the network from scratch failed.", run.folder)
        raise
    reached = other.val_accuracy
    run.metrics["scratch"] = {
        "test": other.metrics["test"],
        "timing": other.metrics["timing"],
        "epochs": epochs,
        "step": other.best_step,
        "val_overall_accuracy": reached,
        "finetuned_there_at_step": None if reached is None else first_step_as_good(training.result.history, reached),
    }
    if run.folder is not None:
        write_json(run.folder / "metrics.json", run.metrics)
        if settings.figures:
            from hsfusion.runs.report import write_report

            write_report(run, run.folder)


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
