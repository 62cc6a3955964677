"""The run: the result of a training, saved to a folder and loaded from there."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import __version__
from hsfusion.data.leakage import training_mask
from hsfusion.data.splits import TRAIN, Split
from hsfusion.errors import InputError
from hsfusion.publishing import write_file
from hsfusion.runs.folder import (
    checked_keys,
    group_members,
    make_folder,
    read_json,
    versions,
    write_json,
    write_rasters,
)
from hsfusion.scenes import ArrayScene, Legend, read_class_map
from hsfusion.scenes.scene import read_pixels
from hsfusion.spectra import BandWeights, group_of_bands
from hsfusion.spectra.weights import write_group_weights_csv, write_history_csv, write_response_csv
from hsfusion.training.model_file import ClassList, ModelHeader, load_model, read_header, read_statistics, save_model
from hsfusion.trust.verdict import Duplicate, duplicates

if TYPE_CHECKING:
    from hsfusion.nn import FusionNetwork
    from hsfusion.runs.experiment import Experiment
    from hsfusion.runs.settings import TrainSettings
    from hsfusion.runs.training import TrainingResult

_MOST_PIXELS = 20_000  # among which duplicate bands are looked for


@dataclass(frozen=True, eq=False)
class Training:
    """What :func:`hsfusion.train` knows of a run besides the content of its folder; the configuration is YAML text."""

    settings: TrainSettings
    experiment: Experiment
    result: TrainingResult
    command: str
    configuration: str


@dataclass(eq=False, repr=False)
class Run:
    """A training and its results, as returned by :func:`hsfusion.train` or :func:`hsfusion.load_run`.

    Attributes:
        name: its name in figures and pages.
        weights: the band weights.
        metrics: content of metrics.json: accuracies (fractions), split, chance; importance, baselines and choices if
            there are any; timing, seed, versions.
        beats_chance: whether the network does better than classifiers of meaningless labels, see docs/weights.md.
        duplicates: pairs of bands with equal values.
        folder: where it is saved; None if it is not.
        training: further content of a run that was trained in this process; None for a loaded run.
    """

    name: str
    _: KW_ONLY
    weights: BandWeights
    metrics: dict[str, Any]
    beats_chance: bool
    duplicates: tuple[Duplicate, ...]
    folder: Path | None = None
    training: Training | None = None

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

    @cached_property
    def network(self) -> FusionNetwork:
        """The trained network, on the CPU."""
        return self.training.experiment.network if self.training else load_model(self._folder / "model.safetensors")[0]

    @cached_property
    def statistics(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Mean (C,) and correlation (C, C) of the training spectra, from the buffers of the network."""
        if self.training is None:
            return read_statistics(self._folder / "model.safetensors")
        return self.network.mean.numpy(), self.network.spectral_covariance.numpy()

    @cached_property
    def legend(self) -> Legend:
        """Codes, names and colours of the classes."""
        return legend_of(self.header)

    @cached_property
    def class_map(self) -> NDArray[np.integer]:
        """(H, W) class codes of the training scene, 0 where there are no data."""
        if self.training is None:
            return read_class_map(self._folder / "map.tif")
        codes = np.array([*self.legend.codes, 0], np.uint16)  # index -1 is the 0 at the end
        return codes[self.training.result.classes]

    @property
    def trained(self) -> Training:
        """The training, if the run was trained in this process."""
        if self.training is None:
            source, expected = self.folder or self.name, "one trained in this process"
            raise InputError(source, "run", "loaded", expected, "copy its folder")
        return self.training

    @property
    def _folder(self) -> Path:
        assert self.folder is not None, "a run is trained here or loaded from a folder"
        return self.folder

    def __repr__(self) -> str:
        test, split = self.metrics["test"], self.metrics["split"]
        used, bands = int((self.weights.weight > 0).sum()), len(self.weights.bands)
        return (
            f"Run({self.name!r}, overall accuracy {test['overall_accuracy']:.4f} on {split['test_pixels']} test "
            f"pixels, {split['kind']} split, {used} of {bands} bands in use)"
        )

    def _repr_html_(self) -> str:
        """Description and heaviest windows, for notebooks."""
        return f"<p>{html.escape(repr(self))}</p>{self.weights._repr_html_()}"

    def predict(self, scene: Any, out: str | Path | None = None, *, nodata: float | None = None, **options: Any) -> Any:
        """Classifies a scene, a path, or an array (C, H, W) with the bands of this run, see :func:`hsfusion.predict`.

        Without ``out``, the path of the class map, it returns class codes (H, W) of a scene that fits in memory, 0
        without data, and accepts the options ``bands`` and ``smooth``. In an array, missing values are NaN, masked or
        ``nodata``.
        """
        from hsfusion.runs.prediction import predict, predict_array

        if isinstance(scene, np.ndarray):
            values = scene if nodata is None else np.ma.masked_where(scene == nodata, scene)
            scene = ArrayScene(values, bands=self.header.bands, name="array")
        elif nodata is not None:
            raise InputError(
                "predict", "nodata", nodata, "none for a scene, which has its own", "give it to open_scene"
            )
        return predict_array(self, scene, **options)[0] if out is None else predict(self, scene, out, **options)

    def save(self, folder: str | Path, *, figures: bool = True) -> Path:
        """Writes a new run folder: model, maps, tables, metrics; with ``figures``, also figures and report."""
        configuration, folder = self.trained.configuration, make_folder(Path(folder))
        write_file(folder / "config.yaml", configuration)
        self.write_outputs(folder, figures=figures)
        return folder

    def write_outputs(self, folder: Path, *, figures: bool = True) -> None:
        """Writes everything except config.yaml and checkpoints into an existing folder."""
        experiment, result = self.trained.experiment, self.trained.result
        self.write_tables(folder)
        write_json(folder / "metrics.json", self.metrics)
        if experiment.initial.transfer is not None:
            write_json(folder / "transfer.json", experiment.initial.transfer.to_dict())
        save_model(folder / "model.safetensors", experiment.network, header=self.header)
        write_rasters(self.class_map, experiment, result, folder)
        self.folder = folder
        if figures:
            from hsfusion.runs.report import write_figures, write_report

            write_figures(self, folder)
            write_report(self, folder)

    def write_tables(self, folder: Path) -> None:
        """Writes tables of the weights, and verdict.json, which holds what else the verdict is based on."""
        (names, inside), learned = group_members(self.trained.experiment), self.trained.result.weights
        bands, share = self.weights.bands, learned.channel_share
        self.weights.to_csv(folder / "band_weights.csv")
        write_response_csv(folder / "response.csv", learned.response, bands=bands, groups=names, membership=inside)
        write_group_weights_csv(folder / "group_weights.csv", learned.group_weights, groups=names, channel_share=share)
        write_history_csv(folder / "weight_history.csv", *self.trained.result.weight_history)
        pairs = [[pair.first, pair.second, pair.correlation] for pair in self.duplicates]
        checks = {"beats_chance": self.beats_chance, "chance": self.metrics["chance"], "duplicates": pairs}
        write_json(folder / "verdict.json", checks)

    def summary(self) -> str:
        """Accuracies, and the paths of map, weights and report, as ``hsfusion train`` prints them."""
        test, split = self.metrics["test"], self.metrics["split"]
        transfer = None if self.training is None else self.training.experiment.initial.transfer
        lines = [
            *(() if transfer is None else transfer.lines()),
            f"overall accuracy {test['overall_accuracy']:.4f}, average {test['average_accuracy']:.4f}, "
            f"kappa {test['kappa']:.4f} on {split['test_pixels']} test pixels "
            f"({split['kind']} split, leakage {split['leakage']:.4f})",
            *([f"split        {independence(self.metrics)}"] if "seen_fields" in split else ()),
        ]
        lines += [f"tried        {line}" for line in choice_lines(self.metrics.get("choices", ()))]
        if self.metrics.get("baselines"):
            from hsfusion.runs.evaluation import baseline_lines  # with torch: reading a run goes without

            lines += baseline_lines(self.metrics["baselines"])
        if "kept" in self.metrics:
            names = [name for name in ("finetuned", "untouched", "scratch") if name in self.metrics]
            reached = ", ".join(f"{name} {self.metrics[name]['test']['overall_accuracy']:.4f}" for name in names)
            lines.append(f"{reached} on the same test pixels; kept by validation likelihood: {self.metrics['kept']}")
        if self.header.architecture.get("keep_bands") is not None:
            kept = sorted(self.weights.bands.wavelength_nm[self.weights.weight > 0])
            lines.append(f"kept bands   {', '.join(f'{nm:.0f}' for nm in kept)} nm")
        if self.folder is not None:
            files = {"map": "map.tif", "band weights": "figures/band_weights.png", "report": "report.html"}
            paths = {what: self.folder / name for what, name in files.items()}
            lines += [f"{what:<12} {path}" for what, path in paths.items() if path.exists()]  # figures may be left out
        return "\n".join(lines)


def choice_lines(choices: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings tried on validation pixels, one line each."""
    return [
        f"{', '.join(f'{name} {value}' for name, value in row['change'].items()) or 'unchanged'}: validation "
        f"log-likelihood {row['log_likelihood']:.3f}, gain {row['gain'][0]:+.3f} +- {row['gain'][1]:.3f}"
        f"{', adopted' if row['taken'] else ''}"
        for row in choices
    ]


def independence(metrics: Mapping[str, Any]) -> str:
    """How independent the test pixels of metrics.json are of the training pixels, in one line."""
    split, test = metrics["split"], metrics["test"]
    known, new = (
        "none" if value is None else f"{value:.4f}"
        for value in (test["accuracy_seen_fields"], test["accuracy_new_fields"])
    )
    return (
        f"{100 * split['train_share']:.1f} % of the labelled pixels for training, {split['buffer_pixels']:,} in the "
        f"buffer; {100 * split['patch_overlap']:.1f} % of the test patches overlap a training patch; "
        f"{100 * split['seen_fields']:.1f} % of the test pixels lie in fields that were trained on (accuracy {known}, "
        f"in new fields {new})"
    )


def legend_of(header: ModelHeader) -> Legend:
    """The classes of a model as a legend."""
    return Legend(header.classes.codes, header.classes.names, header.classes.colors)


def load_run(folder: str | Path) -> Run:
    """Reads a run folder; network and map are read when they are first used."""
    folder = Path(folder)
    if not folder.is_dir():
        what = "a file" if folder.exists() else "missing"
        raise InputError(folder, "run", what, "the folder of a run", "name a folder that hsfusion train wrote")
    if not (folder / "metrics.json").exists() and (inside := sorted(folder.glob("*/metrics.json"))):
        given = f"a folder of runs ({len(inside)})"
        raise InputError(folder, "run", given, "the folder of one run", f"name one, such as {inside[0].parent}")
    checks = read_json(folder / "verdict.json")
    with checked_keys(folder):
        beats_chance, pairs = checks["beats_chance"], tuple(Duplicate(*pair) for pair in checks["duplicates"])
    return Run(
        folder.name,
        weights=BandWeights.from_csv(folder / "band_weights.csv"),
        metrics=read_json(folder / "metrics.json"),
        beats_chance=beats_chance,
        duplicates=pairs,
        folder=folder,
    )


def run_of(name: str, training: Training) -> Run:
    """The run of a training."""
    from hsfusion.runs.evaluation import window_importance  # with torch: reading a run goes without

    experiment, result = training.experiment, training.result
    bands, sources = experiment.split.labelled.scene.bands, experiment.split.labelled.scene.sources
    names, inside = group_members(experiment)
    layers = [source for source, number in sources for _ in range(number)]
    weight, of_layers = np.split(result.weights.weight, [len(bands)])
    group = group_of_bands(inside[:, : len(bands)], names)
    importance = window_importance(experiment, result.weights)
    of_windows = {} if importance is None else {"importance": importance.to_dict()}
    return Run(
        name,
        weights=BandWeights(bands, group, weight, tuple(zip(layers, of_layers.tolist(), strict=True))),
        metrics={**result.metrics, **of_windows, "seed": training.settings.seed, "versions": versions()},
        beats_chance=result.beats_chance,
        duplicates=tuple(duplicate_bands(experiment.split, np.flatnonzero(bands.good & (weight > 0)))),
        training=training,
    )


def duplicate_bands(split: Split, used: NDArray[np.int64]) -> list[Duplicate]:
    """Pairs of used bands (C',) with equal values in at most 20,000 training pixels that have data in all bands."""
    pixels = split.pixels(TRAIN)
    spectra = read_pixels(split.labelled.scene, pixels[:: -(-len(pixels) // _MOST_PIXELS)], used)  # (N, C')
    whole = spectra[np.isfinite(spectra).all(1)]
    if len(whole) < 2:
        return []
    return [Duplicate(int(used[pair.first]), int(used[pair.second]), pair.correlation) for pair in duplicates(whole)]


def model_header(experiment: Experiment, metrics: dict[str, Any]) -> ModelHeader:
    """The header of a model file; nothing in it differs between two runs with the same seed."""
    labelled, initial = experiment.split.labelled, experiment.initial
    scene, legend, geobox = labelled.scene, labelled.legend, labelled.scene.geobox
    return ModelHeader(
        bands=scene.bands,
        groups=tuple(initial.groups),
        classes=ClassList(legend.codes, legend.names, legend.colors),
        architecture=initial.architecture,
        sources=tuple(scene.sources),
        training_scene={
            "name": scene.name,
            "shape": list(geobox.shape),
            "transform": list(geobox.transform)[:6],
            "crs": geobox.crs,
            "values": scene.provenance(),
            "files": [{"name": path.name, "bytes": path.stat().st_size} for path in scene.files()],
        },
        split=metrics["split"],
        test=metrics["test"],
        seed=metrics["seed"],
        seen=training_mask(experiment.split),
        seen_before=initial.seen_before,
        hsfusion_version=__version__,
        versions=metrics["versions"],
    )
