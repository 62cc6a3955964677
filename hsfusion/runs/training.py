"""A training, on one scene or on several at once: from scenes and settings to a trained network and its results."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from numpy.typing import NDArray

from hsfusion.data.leakage import training_mask
from hsfusion.data.patches import PatchDataModule, SeveralDataModule
from hsfusion.data.splits import TRAIN, VAL, Split
from hsfusion.errors import DivergedError, EnvironmentFailure, HsFusionError, InputError
from hsfusion.inference import instance_weight_maps, predict_scene
from hsfusion.nn import SETTLED, FusionNetwork, MultiSceneNetwork
from hsfusion.runs.evaluation import (
    average_with_start,
    compare_with_baselines,
    compare_with_chance,
    evaluate_test,
    fit_linear_part,
    selected,
)
from hsfusion.runs.experiment import Experiment, as_labelled, configuration_errors, prepare_experiment, prepare_jointly
from hsfusion.runs.folder import for_loggers, interrupted_checkpoint, start_folder, training_log, write_json
from hsfusion.runs.run import Run, Training, run_of
from hsfusion.runs.settings import TrainSettings, describe, replaced
from hsfusion.scenes import LabelledScene
from hsfusion.training.building import WeightReadout
from hsfusion.training.callbacks import History, KeepBest, LastCheckpoint, WeightHistory, ending_together
from hsfusion.training.classifier import FusionClassifier, accuracies, balanced_class_weights, steps_of
from hsfusion.trust.verdict import beats_chance

_log = logging.getLogger(__name__)
_PRECISIONS = ("32", "32-true", "bf16-mixed", "16-mixed")  # patches and statistics are float32
_NEVER = 2.0  # share of the training after which a frozen part learns


@dataclass(frozen=True, eq=False)
class FittedNetwork:
    """Results of the training loop besides the network: curves by metric, and band weights (steps, C + E) by step."""

    history: dict[str, tuple[list[int], list[float]]]
    best_step: int | None  # None where the last model was kept
    weight_history: tuple[list[int], NDArray[np.float64]]
    device: torch.device
    seconds: float
    samples_per_second: float
    is_main: bool  # False on all but the first process
    loggers: list[Logger]  # that wait for figures and accuracies; the list is shared by all results of a training


@dataclass(frozen=True, eq=False)
class TrainingResult(FittedNetwork):
    """Results: class indices (H, W), -1 without data, shares of groups (G, H, W), confusion matrix (K, K + 1), ..."""

    classes: NDArray[np.int16]
    confidence: NDArray[np.float32]
    instance_maps: NDArray[np.float32] | None
    confusion: NDArray[np.int64]
    weights: WeightReadout
    metrics: dict[str, Any]
    beats_chance: bool

    @property
    def val_accuracy(self) -> float | None:
        """Overall accuracy of the kept model on validation pixels; None without any."""
        steps, values = self.history.get("val/overall_accuracy", ([], []))
        return dict(zip(steps, values, strict=True)).get(self.best_step or -1)


def train(
    scene: LabelledScene | str | Path,
    *,
    settings: TrainSettings | None = None,
    name: str | None = None,
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    command: str = "",
    configuration: str | None = None,
    prepare: Callable[[LabelledScene, TrainSettings], Experiment] | None = None,
    **fields: Any,
) -> Run:
    """Trains a network on a scene with labels.

    Args:
        scene: the scene, or the path of its description (YAML).
        settings: of the training; None for the defaults.
        name: name of the run in figures and reports; None for the name of the scene.
        folder: a new run folder for checkpoints, tables, maps, figures and report; None to write nothing.
        resume: folder of an interrupted run with the same settings, to resume.
        command: the command that repeats the run, for its report.
        configuration: the settings as YAML, for config.yaml; None for those of this call.
        prepare: splits the scene and makes the network; None for a new network.
        **fields: fields of :class:`TrainSettings` that replace those of ``settings``: ``epochs=20, seed=1``.
            A mapping for ``model`` replaces fields of the model: ``model={"channels": 16}``.

    Returns:
        the run. Of a distributed run only the first process writes the folder.
    """
    settings = replaced(settings or TrainSettings(), fields)
    with training_log(command) as log:
        labelled = as_labelled(scene)
        configuration = configuration or describe(settings)
        checkpoint = interrupted_checkpoint(resume, configuration)
        choices: list[dict[str, Any]] = []
        if prepare is None:
            settings, choices = selected(labelled, settings, resume=resume)
        experiment = (prepare or prepare_experiment)(labelled, settings)
        path = start_folder(folder, configuration, log, experiments=[experiment], resume=resume)
        if path is not None and choices:
            write_json(path / "choices.json", {"choices": choices})
        result = fit(settings, experiment, path, checkpoint=checkpoint)
        if choices:
            result.metrics["choices"] = choices
        if settings.baselines:
            result.metrics["baselines"] = compare_with_baselines(experiment.split, result.classes, settings)
        run = run_of(name or labelled.scene.name, Training(settings, experiment, result, command, configuration))
        if path is not None and result.is_main:
            run.write_outputs(path, figures=settings.figures)
    return run


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
    """Trains one network on several scenes at once: one response over wavelength, evaluated at the bands of each.

    Arguments and result are those of :func:`hsfusion.train`, except for ``scenes``, at least two with different names.
    The folder gets a run folder for each scene.
    """
    settings = replaced(settings or TrainSettings(), fields)
    with training_log(command) as log:
        configuration = configuration or describe(settings)
        checkpoint = interrupted_checkpoint(resume, configuration)
        parts, network = prepare_jointly([as_labelled(scene) for scene in scenes], settings)
        path = start_folder(folder, configuration, log, experiments=parts, resume=resume)
        results = fit_jointly(settings, parts, network, folder=path, checkpoint=checkpoint)
        for part, result in results if settings.baselines else ():
            on_these_bands = replace(settings, groups=lambda bands, part=part: part.initial.groups)
            result.metrics["baselines"] = compare_with_baselines(part.split, result.classes, on_these_bands)
        runs = [run_of(name, Training(settings, part, result, command, configuration)) for part, result in results]
        if path is not None and results[0][1].is_main:
            _write_jointly(runs, path, settings)
    return runs


def fit(
    settings: TrainSettings, experiment: Experiment, folder: Path | None = None, *, checkpoint: Path | None = None
) -> TrainingResult:
    """Trains the network of an experiment in place, keeps the epoch best on validation pixels, classifies the scene."""
    data = patch_data(settings, experiment)
    pretrained = experiment.initial.transfer is not None
    start = {name: tensor.clone() for name, tensor in experiment.network.state_dict().items()} if pretrained else {}
    fitted = fit_network(
        settings, experiment.network, [(experiment, data)], folder, pretrained=pretrained, checkpoint=checkpoint
    )
    if start:
        average_with_start(experiment, start, data)
    fit_linear_part(experiment, data)
    return read_result(experiment, fitted, data)


def fit_jointly(
    settings: TrainSettings,
    parts: Sequence[Experiment],
    network: MultiSceneNetwork,
    *,
    folder: Path | None,
    checkpoint: Path | None,
) -> list[tuple[Experiment, TrainingResult]]:
    """Trains on all scenes at once, and returns for each the same results as an experiment on that scene alone."""
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


def fit_network(
    settings: TrainSettings,
    network: FusionNetwork | MultiSceneNetwork,
    parts: Sequence[tuple[Experiment, PatchDataModule]],
    folder: Path | None,
    *,
    pretrained: bool = False,
    checkpoint: Path | None = None,
) -> FittedNetwork:
    """Trains a network of one part or several in place; keeps the best epoch; a pretrained start counts as one."""
    data = parts[0][1] if len(parts) == 1 else SeveralDataModule([patches for _, patches in parts])
    classes = np.concatenate([part.cube.classes.numpy()[part.split.pixels(TRAIN)] for part, _ in parts])
    counts = np.bincount(classes[classes >= 0], minlength=network.cnn.classifier.out_channels)
    measured = [(part.network, sample_patches(part.network, patches, part.split, most=256)) for part, patches in parts]
    history, best, weights = History(), KeepBest(), WeightHistory(measured)
    validated = any(part.split.count(VAL) for part, _ in parts)
    trainer = _trainer(settings, folder, [history, weights, best], validated=validated, pretrained=pretrained)
    module = _classifier(settings, network, counts, total_steps=steps_of(trainer, settings.steps_per_epoch))
    if (gates := network.fusion.gates) is not None and not gates.kept.any():  # the last batch then knew its bands
        best.first_step = math.ceil(SETTLED * module.total_steps - 1e-9) + 1
    check_gpu_memory(trainer.strategy.root_device, [part for part, _ in parts])
    if folder is not None and trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_hyperparams({**for_loggers(folder), **module.hparams})
    start = time.perf_counter()
    run_trainer(trainer, module, data, checkpoint=checkpoint)
    seconds = time.perf_counter() - start
    best.restore(module)
    network.cpu()
    kept = "of the end" if best.step is None else best.step
    _log.info("trained %d steps in %.1f s, kept step %s", trainer.global_step, seconds, kept)
    return FittedNetwork(
        history.curves,
        best.step,
        (weights.steps, np.array(weights.weights)),
        trainer.strategy.root_device,
        seconds,
        module.steps_run * settings.batch_size / seconds,
        trainer.is_global_zero,
        trainer.loggers,
    )


def check_gpu_memory(device: torch.device, experiments: Sequence[Experiment]) -> None:
    """Refuses a GPU without enough memory for the pixels, before anything is trained."""
    needed = sum(part.cube.values.nbytes + part.cube.index.nbytes for part in experiments)
    if device.type == "cuda" and (free := torch.cuda.mem_get_info(device)[0]) < needed:
        what = f"{device}: free memory is {free / 1e9:.2f} GB, expected at least {needed / 1e9:.2f} GB for the pixels"
        raise EnvironmentFailure(f"{what}. Fix: use trainer=cpu, a GPU with more memory, or fewer bands.")


def run_trainer(
    trainer: pl.Trainer, module: FusionClassifier, data: pl.LightningDataModule, *, checkpoint: Path | None = None
) -> None:
    """Trains, from a checkpoint if there is one, without warnings that do not apply."""
    with warnings.catch_warnings():
        # the loaders hold a few indices each: workers would only cost time
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")  # its sampler is
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # logged once an epoch
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # lightning 2.6 with torch 2.13
        try:
            with ending_together(trainer):
                trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except MisconfigurationException as error:  # a callback that wants a logger, ...
            reason = str(error).rstrip(".")
            raise HsFusionError(f"configuration: {reason}. Fix: correct callbacks.* or trainer.*") from error


def _trainer(
    settings: TrainSettings, folder: Path | None, callbacks: list[pl.Callback], *, validated: bool, pretrained: bool
) -> pl.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):  # which sets its own level when it is imported
        logging.getLogger(name).setLevel(logging.WARNING)
    make = settings.trainer or partial(pl.Trainer, accelerator="auto", devices=1, deterministic=True)
    asked = getattr(make, "keywords", {})
    callbacks = [*callbacks, *_further_callbacks(settings, asked, validated=validated)]
    with configuration_errors("logger"):
        loggers = [] if folder is None else [logger(save_dir=folder / "logs") for logger in settings.loggers]
    if (precision := str(asked.get("precision") or 32)) not in _PRECISIONS:
        raise InputError("trainer", "precision", precision, f"one of {', '.join(_PRECISIONS)}", "choose one of them")
    asks = asked.get("enable_checkpointing", True)
    last = [LastCheckpoint(folder / "checkpoints" / "last.ckpt")] if folder is not None and asks else []
    usual = {
        "logger": loggers or False,
        "enable_progress_bar": settings.progress,
        "enable_model_summary": False,
        "enable_checkpointing": bool(last),
        "num_sanity_val_steps": -1 if pretrained and validated else 0,
        "limit_val_batches": 1.0 if validated else 0,
        "log_every_n_steps": settings.steps_per_epoch,
    }
    fixed = {"max_epochs": settings.epochs, "use_distributed_sampler": False, **_accelerator(make, asked)}
    bar = [RichProgressBar()] if asked.get("enable_progress_bar", settings.progress) else []
    try:
        with configuration_errors("trainer"), warnings.catch_warnings(action="ignore", category=PossibleUserWarning):
            return make(**{**usual, **asked, **fixed, "callbacks": [*callbacks, *last, *bar]})
    except MisconfigurationException as error:
        reason = str(error).rstrip(".")
        if asked.get("accelerator", "auto") in ("auto", "cpu"):
            raise HsFusionError(f"configuration: trainer cannot be used: {reason}. Fix: correct trainer.*") from error
        raise EnvironmentFailure(
            f"trainer: accelerator is {asked.get('accelerator')} with {asked.get('devices')} devices, expected what "
            f"this machine has ({reason}). Fix: use trainer=cpu or trainer=auto."
        ) from error


def _further_callbacks(settings: TrainSettings, asked: dict[str, Any], *, validated: bool) -> list[pl.Callback]:
    """The requested callbacks; one that needs validation pixels is refused if there are none."""
    patience = settings.patience
    stop = [] if patience is None else [EarlyStopping("val/overall_accuracy", mode="max", patience=patience)]
    callbacks: list[pl.Callback] = [*stop, *(asked.get("callbacks") or ())]
    with configuration_errors("callbacks"):
        callbacks += [given if isinstance(given, pl.Callback) else given() for given in settings.callbacks]
    going = [callback for callback in callbacks if str(getattr(callback, "monitor", "")).startswith("val/")]
    if going and not (validated and asked.get("limit_val_batches", 1)):
        name = type(going[0]).__name__ if patience is None else "patience"
        field = "trainer.limit_val_batches" if validated else "split.val_fraction"
        source, what = ("trainer", "limit_val_batches") if validated else ("split", "number of validation pixels")
        raise InputError(source, what, 0, f"above 0, which {name} needs", f"leave out {name}, or raise {field}")
    return callbacks


def _accelerator(make: Any, asked: dict[str, Any]) -> dict[str, str]:
    """What ``auto`` means: less than in Lightning, because results on MPS vary from run to run."""
    default = "auto" if getattr(make, "func", make) is pl.Trainer else None
    if asked.get("accelerator", default) != "auto" or isinstance(asked.get("strategy"), Strategy):
        return {}
    return {"accelerator": "cuda" if torch.cuda.is_available() else "cpu"}


def _classifier(
    settings: TrainSettings,
    network: FusionNetwork | MultiSceneNetwork,
    counts: NDArray[np.integer],
    *,
    total_steps: int,
) -> FusionClassifier:
    module = FusionClassifier(
        network,
        optimizer=settings.optimizer or torch.optim.AdamW,
        total_steps=total_steps,
        seed=settings.seed,
        fusion_lr_scale=settings.fusion_lr_scale,
        band_cost=settings.band_cost,
        class_weights=balanced_class_weights(counts.tolist()) if settings.class_weights == "balanced" else None,
        label_smoothing=settings.label_smoothing,
        thaw_at={**settings.thaw_at, **dict.fromkeys(settings.freeze, _NEVER)},
        lr_scales=settings.lr_scales,
    )
    with configuration_errors("optimizer"):
        module.configure_optimizers()  # what it does not take shows here and not in the middle of the training
    return module


def patch_data(settings: TrainSettings, experiment: Experiment, *, batch_size: int | None = None) -> PatchDataModule:
    """The patches of a scene."""
    return PatchDataModule(
        experiment.cube,
        experiment.split,
        seed=settings.seed,
        batch_size=settings.batch_size if batch_size is None else batch_size,
        steps_per_epoch=settings.steps_per_epoch,
        noise=settings.noise,
        flips=settings.flips,
        range_dropout=settings.range_dropout,
    )


def sample_patches(network: FusionNetwork, data: PatchDataModule, split: Split, *, most: int) -> torch.Tensor | None:
    """Training patches over which instance weights are averaged; None for other kinds."""
    if not network.fusion.kind.endswith("instance"):
        return None
    pixels = torch.from_numpy(split.pixels(TRAIN))
    some = pixels[torch.linspace(0, len(pixels) - 1, min(most, len(pixels))).long()]
    return data.patches(some, step=None).cpu()


def read_result(experiment: Experiment, fitted: FittedNetwork, data: PatchDataModule) -> TrainingResult:
    """Reads the weights of a trained network, which stays in evaluation mode, and classifies the scene."""
    split, network = experiment.split, experiment.network.eval()
    weights = WeightReadout(network, sample_patches(network, data, split, most=1024))
    finite = all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values())
    if not (finite and np.isfinite(weights.weight).all()):
        raise DivergedError("training: weights are not finite, expected numbers. Fix: lower optimizer.lr.")
    scene, device = split.labelled.scene, fitted.device
    start = time.perf_counter()
    classes, confidence = predict_scene(network, scene, device=device)
    predict_seconds = time.perf_counter() - start
    instance = network.fusion.kind.endswith("instance")
    maps = instance_weight_maps(network, scene, device=device) if instance else None
    network.cpu()
    confusion, metrics = evaluate_test(split, classes)
    metrics["timing"] = {
        "train_seconds": fitted.seconds,
        "samples_per_second": fitted.samples_per_second,
        "predict_pixels_per_second": classes.size / predict_seconds,
    }
    chance = compare_with_chance(experiment, classes)
    metrics["chance"], beaten = asdict(chance), chance.beaten
    if beaten is None:
        beaten = beats_chance(confusion, receptive_field=network.receptive_field)
    return TrainingResult(
        **vars(fitted),
        classes=classes,
        confidence=confidence,
        instance_maps=maps,
        confusion=confusion,
        weights=weights,
        metrics=metrics,
        beats_chance=beaten,
    )


def _write_jointly(runs: Sequence[Run], folder: Path, settings: TrainSettings) -> None:
    """Writes an ordinary run folder for each scene, and the accuracies over all in the parent folder."""
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
    """Accuracies of each scene and of all together, as in metrics.json of the parent folder."""
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
