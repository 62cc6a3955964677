"""Fine-tuning: a trained network transferred to a new scene and trained further, compared with two alternatives."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hsfusion.data.leakage import all_seen, check_no_leakage
from hsfusion.data.splits import VAL
from hsfusion.errors import InputError
from hsfusion.nn import BACKBONES, DEFAULT_BACKBONE, FusionNetwork, LinearPart
from hsfusion.runs.evaluation import (
    clearly_above,
    compare_with_baselines,
    validation_accuracies,
    validation_logits,
    validation_scores,
)
from hsfusion.runs.experiment import Experiment, InitialModel, initialise, prepare_experiment, standardised, used_layers
from hsfusion.runs.folder import training_log, write_json
from hsfusion.runs.run import Run, Training, run_of
from hsfusion.runs.settings import FINETUNE_EPOCHS, SCRATCH_EPOCHS, ModelSettings, TrainSettings, blocks
from hsfusion.runs.training import FittedNetwork, fit, patch_data, read_result, train
from hsfusion.scenes import LabelledScene, Scene
from hsfusion.scenes.legend import is_named
from hsfusion.training.model_file import ModelHeader, load_model
from hsfusion.training.transfer import transfer

_log = logging.getLogger(__name__)
#: a trained network, and the header of its model file
PretrainedModel = tuple[FusionNetwork, ModelHeader]


def finetune(
    pretrained: Run | str | Path,
    scene: LabelledScene | str | Path,
    *,
    settings: TrainSettings | None = None,
    scratch_epochs: int | None = SCRATCH_EPOCHS,
    per_class: int | None = None,
    **options: Any,
) -> Run:
    """Transfers a trained network to another scene, sensor or set of classes, and trains it further.

    Three networks are compared: the fine-tuned one, the untouched one (as by ``predict bands=resample``, if it knows
    all classes), and one trained from scratch. The fine-tuned network is kept unless another has a clearly higher
    likelihood on validation pixels.

    Args:
        pretrained: the run, its folder, or its model file.
        scene: the scene with labels, or the path of its description (YAML).
        settings: of the training; None for the defaults with 20 epochs. Its ``model`` has no effect on the transferred
            network, which keeps its architecture.
        scratch_epochs: epochs of the network trained from scratch; None for no such network.
        per_class: training pixels per class, short for ``split=blocks(per_class=...)``.
        **options: other arguments of :func:`hsfusion.train`, such as ``folder`` and ``resume``, and fields of
            :class:`TrainSettings`.

    Returns:
        the run; its ``metrics["kept"]`` is finetuned, untouched or scratch, and it has metrics of each

    Raises:
        InputError: if test pixels were seen by the pretrained network.
    """
    if per_class is not None:
        options["split"] = blocks(per_class=per_class)
    model = pretrained_model(pretrained)
    with training_log():
        prepare = partial(_transferred_experiment, model=model, scratch_epochs=scratch_epochs)
        run = train(scene, settings=settings or TrainSettings(epochs=FINETUNE_EPOCHS), prepare=prepare, **options)
        return _keep_best(run, model, scratch_epochs=scratch_epochs)


def pretrained_model(pretrained: Run | str | Path) -> PretrainedModel:
    """Network and header of a run, a run folder or a model file."""
    if isinstance(pretrained, Run):
        return pretrained.network, pretrained.header
    return load_model(model_path(pretrained))


def model_path(run: str | Path) -> Path:
    """The model file of a run folder; any other path is the file itself."""
    path = Path(run)
    return path / "model.safetensors" if path.is_dir() else path


def transferred_model(
    scene: Scene, class_names: Sequence[str], *, model: PretrainedModel, responses: Literal["kept", "folded"] = "kept"
) -> InitialModel:
    """The pretrained network, transferred to the scene: as the start of fine-tuning, or folded, for use untouched."""
    network, header = model
    transferred = transfer(
        network,
        header=header,
        bands=scene.bands,
        sources=scene.sources,
        class_names=class_names,
        fresh_classes=[name for name in class_names if not is_named(name)],
        responses=responses,
    )
    seen = all_seen(header.to_dict())
    return InitialModel(
        transferred.network, list(transferred.groups), transferred.architecture, transferred.report, seen
    )


def starting_experiment(labelled: LabelledScene, settings: TrainSettings, *, model: PretrainedModel) -> Experiment:
    """The experiment that fine-tuning starts from; the linear part of the network is fitted at the end.

    Patches are standardised by the training pixels, or by the statistics of the pretrained network if that is better on
    validation pixels: a few training pixels, in equal numbers per class, do not represent a scene.
    """
    header, known = model[1], {}

    def make(scene: Scene, names: Sequence[str]) -> InitialModel:
        initial = transferred_model(scene, names, model=model)
        known.update(_statistics(initial.network))
        if (linear := initial.network.linear) is not None:
            linear.load_state_dict(LinearPart(linear.weight.shape[1], len(names)).state_dict())
        return replace(initial, class_shares=_class_shares(header, settings, names))

    experiment = prepare_experiment(labelled, settings, make=make)
    initial = experiment.initial
    assert initial.transfer is not None, "a transferred network"
    fitted = replace(initial, transfer=initial.transfer.with_new_statistics())
    comparable = not initial.transfer.new_sources and experiment.split.count(VAL)
    if not comparable or unknown_classes(header, experiment.split.labelled.legend.names):
        return replace(experiment, initial=fitted)
    accuracy = _accuracy_at_start(experiment, settings)
    as_known = standardised(experiment.split, initial, known=known)
    if _accuracy_at_start(as_known, settings) >= accuracy:
        return as_known
    return standardised(experiment.split, fitted)


def _class_shares(header: ModelHeader, settings: TrainSettings, names: Sequence[str]) -> NDArray[np.float64] | None:
    """Shares (K,) of the classes among the model's training pixels, if validation pixels are drawn per class.

    Its test pixels are not counted, because they may be in the new scene, too.
    """
    drawn = getattr(settings.split, "keywords", {})
    if header.split is None or not (drawn.get("per_class") or drawn.get("val_per_class")):
        return None
    try:
        number = np.array([float(header.split["train_per_class"][name]) for name in names])
    except (KeyError, TypeError, ValueError):  # not of all classes
        return None
    return number / number.sum() if (number > 0).all() else None


def unknown_classes(header: ModelHeader, names: Sequence[str]) -> list[str]:
    """Class names that a model does not know, or that are only codes."""
    known = {name.strip() for name in header.classes.names if is_named(name)}
    return [name for name in names if name.strip() not in known]


def _accuracy_at_start(experiment: Experiment, settings: TrainSettings) -> float:
    """Overall accuracy of the network on the validation pixels."""
    logits, truth = validation_logits(experiment, patch_data(settings, experiment))
    experiment.network.train()
    return float((logits.argmax(1) == truth).mean())


def _statistics(network: FusionNetwork) -> dict[str, NDArray[np.float64]]:
    """The statistics by which a network standardises."""
    return {name: network.get_buffer(name).double().numpy() for name in ("mean", "std", "covariance")}


def _transferred_experiment(
    labelled: LabelledScene, settings: TrainSettings, *, model: PretrainedModel, scratch_epochs: int | None
) -> Experiment:
    """Checks and logs the transfer before the training, which may take hours."""
    experiment, header = starting_experiment(labelled, settings, model=model), model[1]
    check_no_leakage(experiment.split, header.to_dict())
    if scratch_epochs is not None:  # whether its groups fit the scene
        used_layers(labelled.scene, scratch_settings(settings, header, epochs=scratch_epochs))
    report = experiment.initial.transfer
    assert report is not None, "a transferred network"
    for line in report.coverage_lines():
        _log.info("%s", line)
    if not all(map(is_named, experiment.split.labelled.legend.names)):
        _log.warning(
            "Classes that are named by their codes (class 1, ...) are not copied from the model: give them names."
        )
    if report.new_classes and "classifier" in settings.freeze:
        expected = f"parts that are copied; those of {', '.join(report.new_classes)} start at random"
        raise InputError("settings", "freeze", "classifier", expected, "take classifier out of freeze")
    return experiment


def _keep_best(run: Run, model: PretrainedModel, *, scratch_epochs: int | None) -> Run:
    """The run of the network that is kept, with the metrics of all three in it and in its folder."""
    tuned, place = run.trained, None if run.folder is None else run.folder / "scratch"
    trainings = alternatives(tuned, model, scratch_epochs=scratch_epochs, place=place)
    kept, reached = best_of(trainings)
    best = run if kept == "finetuned" else _run_of(run, trainings[kept])
    best.metrics["kept"] = kept
    for name, training in trainings.items():
        of = training.result
        best.metrics[name] = {
            "test": of.metrics["test"],
            "val_overall_accuracy": validation_accuracies([training]).get("val/overall_accuracy"),
            "val_log_likelihood": reached.get(name),
            "step": of.best_step,
        }
        if name != "untouched":
            best.metrics[name] |= {"timing": of.metrics["timing"], "epochs": training.settings.epochs}
    if run.folder is not None:
        _write(best, run.folder, figures=tuned.settings.figures)
    return best


def _run_of(run: Run, training: Training) -> Run:
    """The run of an alternative to the fine-tuned network, compared with the same baselines."""
    experiment, settings, metrics = training.experiment, run.trained.settings, dict(run.metrics)
    if settings.baselines:
        split = experiment.split
        metrics["baselines"] = compare_with_baselines(split, training.result.classes, settings)
    best = run_of(run.name, training)
    best.metrics = metrics | best.metrics
    return best


def alternatives(
    tuned: Training, model: PretrainedModel, *, scratch_epochs: int | None, place: Path | None = None
) -> dict[str, Training]:
    """The fine-tuned network; the untouched one, if it knows all classes; the one from scratch, if requested."""
    trainings, header = {"finetuned": tuned}, model[1]
    if new := unknown_classes(header, tuned.experiment.split.labelled.legend.names):
        _log.info("the untouched network does not know the classes %s", ", ".join(new))
    else:
        trainings["untouched"] = _untouched(tuned, model)
    if scratch_epochs is not None:
        trainings |= _from_scratch(tuned, scratch_settings(tuned.settings, header, epochs=scratch_epochs), place)
    return trainings


def best_of(trainings: Mapping[str, Training]) -> tuple[str, dict[str, float]]:
    """The network with the highest calibrated log-likelihood on validation pixels, and the log-likelihood of each.

    It is the first, the fine-tuned one, unless another is :func:`clearly_above`: few validation pixels cannot resolve
    small differences. Without validation pixels it is the first. Validation pixels drawn in equal numbers per class
    would favour a network that has forgotten how frequent the classes are, so classes are weighted by their shares in
    the scene of the pretrained network, if these are known.
    """
    first, before = next(iter(trainings)), next(iter(trainings.values())).experiment
    if not before.split.count(VAL):
        return first, {}
    parts = {name: (of.experiment, patch_data(of.settings, of.experiment)) for name, of in trainings.items()}
    scores = {name: validation_scores(*part, before.initial.class_shares) for name, part in parts.items()}
    best = max(scores, key=lambda name: scores[name].mean())
    kept = best if clearly_above(scores[best], scores[first]) else first
    return kept, {name: float(of.mean()) for name, of in scores.items()}


def _write(run: Run, folder: Path, *, figures: bool) -> None:
    """Updates the folder of the fine-tuned network to the network that is kept."""
    if run.folder is None:
        (folder / "transfer.json").unlink()
        run.write_outputs(folder, figures=figures)
        return
    write_json(folder / "metrics.json", run.metrics)
    if figures:
        from hsfusion.runs.report import write_report

        write_report(run, folder)


def _untouched(tuned: Training, model: PretrainedModel) -> Training:
    """The network as ``predict bands=resample`` would use it, with the split and the curves of the fine-tuned one."""
    split, labelled = tuned.experiment.split, tuned.experiment.split.labelled
    initial = transferred_model(labelled.scene, labelled.legend.names, model=model, responses="folded")
    experiment = standardised(split, initial, known=_statistics(initial.network))
    fitted = FittedNetwork(**{entry.name: getattr(tuned.result, entry.name) for entry in fields(FittedNetwork)})
    data = patch_data(tuned.settings, experiment)
    result = read_result(experiment, replace(fitted, best_step=0), data)
    return replace(tuned, experiment=experiment, result=result)


def _from_scratch(tuned: Training, settings: TrainSettings, place: Path | None) -> dict[str, Training]:
    """A network trained from scratch on the same pixels, by name; none if that failed."""
    _log.info("for comparison: a network trained from scratch on the same pixels")
    if place is not None:
        place.mkdir()
    try:
        experiment = initialise(tuned.experiment.split, settings)
        result = fit(settings, experiment, place)
    except Exception:
        if place is not None:  # what was fine-tuned is worth keeping
            _log.warning("The fine-tuned run is complete, in %s; only the network from scratch failed.", place.parent)
        raise
    return {"scratch": replace(tuned, settings=settings, experiment=experiment, result=result)}


def scratch_settings(settings: TrainSettings, header: ModelHeader, *, epochs: int) -> TrainSettings:
    """The same training for a new network with the same architecture, with all parts learning at full rate."""
    same = {key: value for key, value in header.architecture.items() if key not in ("response", "keep_bands")}
    backbone: Any = same.get("backbone", DEFAULT_BACKBONE)
    if options := same.get("backbone_options"):
        backbone = partial(BACKBONES[backbone], **options)  # known, for the model file was read with it
    same = {**same, "backbone": backbone}
    model = replace(settings.model, **{key: same[key] for key in same if key in vars(ModelSettings())})
    whole = {"freeze": (), "patience": None, "thaw_at": {}, "lr_scales": {}, "baselines": ()}
    return replace(settings, model=model, epochs=epochs, **whole)
