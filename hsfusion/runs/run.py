"""The run: what a training gives, saved to a folder and read back from there."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.runs.folder import (
    band_weights,
    duplicate_bands,
    make_folder,
    model_header,
    read_band_weights,
    read_checks,
    read_metrics,
    versions,
    write_checks,
    write_json,
    write_rasters,
    write_weight_tables,
)
from hsfusion.scenes import Legend, read_class_map
from hsfusion.spectra import BandWeights
from hsfusion.training.model_file import ModelHeader, load_model, read_header, save_model
from hsfusion.trust.verdict import Duplicate

if TYPE_CHECKING:
    from hsfusion.nn import FusionNetwork
    from hsfusion.runs.settings import TrainSettings
    from hsfusion.runs.training import Experiment, TrainingResult


@dataclass(frozen=True, eq=False)
class Training:
    """What :func:`hsfusion.train` knows of a run beyond what its folder holds.

    Attributes:
        settings: of the training.
        experiment: scene, split and network.
        result: what it gave.
        command: the command, or the call, that repeats it.
        configuration: the resolved configuration as YAML.
    """

    settings: TrainSettings
    experiment: Experiment
    result: TrainingResult
    command: str
    configuration: str


class Run:
    """A training and what it gave: the result of :func:`hsfusion.train` or :func:`hsfusion.load_run`.

    Attributes:
        name: what figures and pages call it.
        weights: the band weights.
        metrics: content of metrics.json: accuracies (fractions), split, timing, seed, versions.
        beats_chance: whether the network knows more than chance about the test pixels.
        duplicates: pairs of bands that hold the same values.
        folder: where it is saved; None where it is not.
        training: what else is known of a run that was trained in this process; None for one that was loaded.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: BandWeights,
        metrics: dict[str, Any],
        beats_chance: bool,
        duplicates: tuple[Duplicate, ...],
        folder: Path | None = None,
        training: Training | None = None,
    ) -> None:
        self.name, self.weights, self.metrics = name, weights, metrics
        self.beats_chance, self.duplicates = beats_chance, duplicates
        self.folder, self.training = folder, training

    @property
    def accuracy(self) -> dict[str, Any]:
        """Overall and average accuracy, kappa, mean IoU and accuracies per class on the test pixels, fractions."""
        return self.metrics["test"]

    @cached_property
    def header(self) -> ModelHeader:
        """Header of the model file: bands, groups, classes, architecture, training scene."""
        if self.training is not None:
            return model_header(self.training.experiment, self.metrics)
        return read_header(self._folder / "model.safetensors")

    @property
    def network(self) -> FusionNetwork:
        """The trained network, on the CPU."""
        return self._loaded_network if self.training is None else self.training.experiment.network

    @cached_property
    def legend(self) -> Legend:
        """Codes, names and colours of the classes."""
        return legend_of(self.header)

    @cached_property
    def class_map(self) -> NDArray[np.int64]:
        """(H, W) class codes of the training scene, 0 where there are no data."""
        if self.training is None:
            return read_class_map(self._folder / "map.tif")
        return np.array([*self.legend.codes, 0])[self.training.result.classes]  # index -1 is the 0 at the end

    @cached_property
    def _loaded_network(self) -> FusionNetwork:
        return load_model(self._folder / "model.safetensors")[0]

    @property
    def _folder(self) -> Path:
        assert self.folder is not None, "a run is trained here or loaded from a folder"
        return self.folder

    def __repr__(self) -> str:
        """Name, scene and accuracy."""
        test, split = self.metrics["test"], self.metrics["split"]
        used, bands = int((self.weights.weight > 0).sum()), len(self.weights.bands)
        return (
            f"Run({self.name!r}, overall accuracy {test['overall_accuracy']:.4f} on {split['test_pixels']} test "
            f"pixels, {split['kind']} split, {used} of {bands} bands in use)"
        )

    def _repr_html_(self) -> str:
        """Accuracies and the heaviest windows as tables, for notebooks."""
        test, split = self.accuracy, self.metrics["split"]
        rows = {
            "overall accuracy": f"{test['overall_accuracy']:.4f}",
            "average accuracy": f"{test['average_accuracy']:.4f}",
            "kappa": f"{test['kappa']:.4f}",
            "test pixels": f"{split['test_pixels']}, {split['kind']} split, leakage {split['leakage']:.4f}",
        }
        table = "".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
        return f"<p><b>{html.escape(self.name)}</b></p><table>{table}</table>{self.weights._repr_html_()}"

    def predict(self, scene: Any, out: str | Path | None = None, **options: Any) -> Any:
        """Classifies another scene.

        Args:
            scene: a scene, a path, or an array (C, H, W) with the bands of this run in their order and unit.
            out: the class map to write; None for class codes (H, W) of a scene that fits in memory, 0 without data.
            **options: see :func:`hsfusion.predict`.

        Returns:
            class codes (H, W), or with ``out`` what :func:`hsfusion.predict` gives
        """
        from hsfusion.runs.prediction import predict, predict_array

        return predict_array(self, scene, **options)[0] if out is None else predict(self, scene, out, **options)

    def save(self, folder: str | Path, *, figures: bool = True) -> Path:
        """Writes the run folder: model, maps, tables, metrics, figures and report.

        Args:
            folder: a new or empty folder.
            figures: False to draw none, and to write no report.

        Raises:
            InputError: if the folder is not empty, or the run was loaded and so has a folder already.
            EnvironmentFailure: if the folder cannot be made.
        """
        if self.training is None:
            raise InputError(self._folder, "run", "loaded", "one that was trained here", "copy its folder")
        folder = make_folder(Path(folder))
        (folder / "config.yaml").write_text(self.training.configuration, encoding="utf-8")
        self.write_outputs(folder, figures=figures)
        return folder

    def write_outputs(self, folder: Path, *, figures: bool = True) -> None:
        """Writes all but config.yaml and checkpoints into a folder that exists."""
        training = self.training
        assert training is not None, "only what was trained here is written"
        experiment, result = training.experiment, training.result
        write_weight_tables(experiment, result, self.weights, folder)
        write_checks(folder, beats_chance=self.beats_chance, pairs=self.duplicates)
        write_json(folder / "metrics.json", self.metrics)
        if experiment.initial.transfer is not None:
            write_json(folder / "transfer.json", experiment.initial.transfer.to_dict())
        write_rasters(self.class_map, experiment, result, folder)
        save_model(folder / "model.safetensors", experiment.network, header=self.header)
        self.folder = folder
        if figures:
            from hsfusion.runs.report import write_figures, write_report

            write_figures(self, folder)
            write_report(self, folder)

    def summary(self) -> str:
        """Accuracies, and where map, weights and report are, as ``hsfusion train`` prints them."""
        test, split = self.metrics["test"], self.metrics["split"]
        transfer = None if self.training is None else self.training.experiment.initial.transfer
        lines = [
            *(() if transfer is None else transfer.lines()),
            f"overall accuracy {test['overall_accuracy']:.4f}, average {test['average_accuracy']:.4f}, "
            f"kappa {test['kappa']:.4f} on {split['test_pixels']} test pixels "
            f"({split['kind']} split, leakage {split['leakage']:.4f})",
        ]
        if "scratch" in self.metrics:
            other = self.metrics["scratch"]["test"]
            lines.append(
                f"from scratch {other['overall_accuracy']:.4f}, average {other['average_accuracy']:.4f}, same pixels"
            )
        if self.header.architecture.get("keep_bands") is not None:
            kept = sorted(self.weights.bands.wavelength_nm[self.weights.weight > 0])
            lines.append(f"kept bands   {', '.join(f'{nm:.0f}' for nm in kept)} nm")
        if self.folder is not None:
            files = {"map": "map.tif", "band weights": "figures/band_weights.png", "report": "report.html"}
            paths = {what: self.folder / name for what, name in files.items()}
            lines += [f"{what:<12} {path}" for what, path in paths.items() if path.exists()]  # figures may be left out
        return "\n".join(lines)


def legend_of(header: ModelHeader) -> Legend:
    """The classes of a model as a legend."""
    return Legend(header.classes.codes, header.classes.names, header.classes.colors)


def load_run(folder: str | Path) -> Run:
    """Reads a run folder; network and map are read when they are asked for.

    Raises:
        InputError: if the folder is no finished run, or one of its files is damaged.
    """
    folder = Path(folder)
    weights = read_band_weights(folder)
    beats_chance, pairs = read_checks(folder, bands=len(weights.bands))
    return Run(
        folder.name,
        weights=weights,
        metrics=read_metrics(folder),
        beats_chance=beats_chance,
        duplicates=tuple(Duplicate(*pair) for pair in pairs),
        folder=folder,
    )


def run_of(name: str, training: Training, *, more: dict[str, Any] | None = None) -> Run:
    """The run of a training; ``more`` goes into its metrics."""
    experiment, result = training.experiment, training.result
    weights = band_weights(experiment, result)
    used = np.flatnonzero(weights.bands.good & (weights.weight > 0))
    return Run(
        name,
        weights=weights,
        metrics={**result.metrics, **(more or {}), "seed": training.settings.seed, "versions": versions()},
        beats_chance=result.beats_chance,
        duplicates=tuple(duplicate_bands(experiment.split, used)),
        training=training,
    )
