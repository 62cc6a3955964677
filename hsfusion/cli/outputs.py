"""What a run leaves in its folder."""

from __future__ import annotations

import json
import logging
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import __version__
from hsfusion.cli.duplicate_bands import duplicate_bands
from hsfusion.cli.figures import write_figures
from hsfusion.cli.seen import seen_pixels
from hsfusion.cli.session import Experiment, Outcome
from hsfusion.scenes import JoinedScene, Legend, recorded, write_class_map, write_raster
from hsfusion.scenes.recorded import input_files
from hsfusion.spectra import BandWeights, group_of_bands
from hsfusion.spectra.weights import write_group_weights_csv, write_history_csv, write_response_csv
from hsfusion.training.model_file import save_model

_log = logging.getLogger(__name__)
_MOST_PAIRS = 1000  # of bands that say the same, that are recorded
_SPLIT_NAMES = {0: "unused", 1: "training", 2: "validation", 3: "test", 4: "buffer"}


def write_outputs(configuration: dict[str, Any], experiment: Experiment, outcome: Outcome, folder: Path) -> None:
    """Writes tables, rasters, the model, figures and the report; says where the most wanted of them are."""
    weights = write_weights(experiment, outcome, folder)
    known = write_known(experiment, outcome, folder, used=np.flatnonzero(weights.bands.good & (weights.weight > 0)))
    metrics = {**outcome.metrics, "seed": configuration["seed"], "versions": versions()}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    transfer = experiment.start.transfer
    if transfer is not None:
        (folder / "transfer.json").write_text(json.dumps(transfer.to_dict(), indent=2) + "\n", encoding="utf-8")
        print("\n".join(transfer.lines()))
    _write_rasters(experiment, outcome, folder)
    save_model(folder / "model.safetensors", experiment.network, header=header_of(experiment, metrics))
    write_figures(configuration, experiment, outcome, weights=weights, metrics=metrics, known=known, folder=folder)
    test = metrics["test"]
    _log.info("overall accuracy %.4f, kappa %.4f", test["overall_accuracy"], test["kappa"])
    print(
        f"overall accuracy {test['overall_accuracy']:.4f}, average {test['average_accuracy']:.4f}, "
        f"kappa {test['kappa']:.4f} on {metrics['split']['test_pixels']} test pixels "
        f"({metrics['split']['kind']} split, leakage {metrics['split']['leakage']:.4f})\n"
        f"{_scratch_line(metrics)}"
        f"{'' if experiment.start.architecture['keep_bands'] is None else _kept(weights)}"
        f"map          {folder / 'map.tif'}\n"
        f"band weights {folder / 'figures' / 'band_weights.png'}\n"
        f"report       {folder / 'report.html'}"
    )


def _scratch_line(metrics: dict[str, Any]) -> str:
    if "scratch" not in metrics:
        return ""
    test = metrics["scratch"]["test"]
    return f"from scratch {test['overall_accuracy']:.4f}, average {test['average_accuracy']:.4f}, same pixels\n"


def _kept(weights: BandWeights) -> str:
    kept = sorted(weights.bands.wavelength_nm[weights.weight > 0])
    return f"kept bands   {', '.join(f'{nm:.0f}' for nm in kept)} nm\n"


def write_weights(experiment: Experiment, outcome: Outcome, folder: Path) -> BandWeights:
    """Writes band_weights.csv, response.csv, group_weights.csv and weight_history.csv; returns the first."""
    bands = experiment.split.labelled.scene.bands
    names, inside = groups_of(experiment)
    learned = outcome.weights
    layers = [name for name, number in experiment.split.labelled.scene.sources for _ in range(number)]
    weights = BandWeights(
        bands,
        group_of_bands(inside[:, : len(bands)], names),
        learned.weight[: len(bands)],
        tuple(zip(layers, learned.weight[len(bands) :].tolist(), strict=True)),
    )
    weights.to_csv(folder / "band_weights.csv")
    write_response_csv(folder / "response.csv", learned.response, bands=bands, groups=names, membership=inside)
    write_group_weights_csv(
        folder / "group_weights.csv", learned.group_weights, groups=names, channel_share=learned.channel_share
    )
    steps, history = outcome.weight_history
    write_history_csv(folder / "weight_history.csv", steps, history)
    return weights


def write_known(experiment: Experiment, outcome: Outcome, folder: Path, *, used: NDArray[np.int64]) -> dict[str, Any]:
    """Writes verdict.json, what the verdict on the weights rests on beside them; returns it.

    Args:
        experiment: the experiment.
        outcome: of its training.
        folder: where to.
        used: (C',) indices of the bands among which copies are looked for.
    """
    pairs = duplicate_bands(experiment.split, used)
    if len(pairs) > _MOST_PAIRS:
        _log.warning("%d pairs of bands say the same: the first %d are recorded.", len(pairs), _MOST_PAIRS)
    known = {
        "beats_chance": outcome.beats_chance,
        "duplicates": [[pair.first, pair.second, pair.correlation] for pair in pairs[:_MOST_PAIRS]],
    }
    (folder / "verdict.json").write_text(json.dumps(known) + "\n", encoding="utf-8")
    return known


def groups_of(experiment: Experiment) -> tuple[list[str], NDArray[np.bool_]]:
    """Names and membership (G, C) of the groups of the network; one of all bands for the free convolution."""
    inside = experiment.network.fusion.membership.numpy()
    if experiment.network.fusion.kind == "free":
        return ["all"], inside
    names = [group.name for group in experiment.start.groups]
    return [*names, *(name for name, _ in experiment.split.labelled.scene.sources)], inside


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    packages = ("torch", "lightning", "numpy", "rasterio", "hydra-core")
    return {"hsfusion": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}


def _write_rasters(experiment: Experiment, outcome: Outcome, folder: Path) -> None:
    labelled = experiment.split.labelled
    geobox, legend = labelled.scene.geobox, labelled.legend
    codes = np.array([*legend.codes, 0])[outcome.classes]  # index -1 is the 0 at the end
    tags = {"hsfusion_version": __version__, "scene": labelled.scene.name}
    write_class_map(folder / "map.tif", codes, legend=legend, geobox=geobox, tags=tags)
    if isinstance(labelled.scene, JoinedScene):
        _write_parts(folder / "maps", labelled.scene, codes, legend)
    write_raster(folder / "confidence.tif", outcome.confidence, geobox=geobox, nodata=float("nan"), tags=tags)
    if outcome.instance_maps is not None:
        write_raster(
            folder / "instance_weights.tif",
            outcome.instance_maps,
            geobox=geobox,
            nodata=float("nan"),
            tags=tags,
            layer_names=groups_of(experiment)[0],
        )
    roles = {f"role_{role}": name for role, name in _SPLIT_NAMES.items()}
    write_raster(folder / "split.tif", experiment.split.roles, geobox=geobox, tags=roles)


def _write_parts(folder: Path, joined: JoinedScene, codes: NDArray[np.integer], legend: Legend) -> None:
    """A map for each of the joined scenes, in its own place."""
    folder.mkdir()
    for scene, row, _ in joined.parts:
        height, width = scene.geobox.shape
        part = codes[row : row + height, :width]
        tags = {"hsfusion_version": __version__, "scene": scene.name}
        write_class_map(folder / f"{scene.name}.tif", part, legend=legend, geobox=scene.geobox, tags=tags)


def header_of(experiment: Experiment, metrics: dict[str, Any]) -> dict[str, Any]:
    """What a model file says of its network: plain values; nothing that differs between two runs of one seed."""
    labelled = experiment.split.labelled
    seen = seen_pixels(experiment.split)
    bands, legend, geobox = labelled.scene.bands, labelled.legend, labelled.scene.geobox
    return {
        "hsfusion_version": __version__,
        "versions": metrics["versions"],
        "bands": {
            "wavelength_nm": bands.wavelength_nm.tolist(),
            "fwhm_nm": None if bands.fwhm_nm is None else bands.fwhm_nm.tolist(),
            "good": bands.good.tolist(),
        },
        "groups": [
            {"name": group.name, "lower_nm": group.lower_nm, "upper_nm": group.upper_nm}
            for group in experiment.start.groups
        ],
        "sources": [{"name": name, "layers": number} for name, number in labelled.scene.sources],
        "classes": {"codes": list(legend.codes), "names": list(legend.names), "colors": list(legend.colors)},
        "architecture": experiment.start.architecture,
        "training_scene": {
            "name": labelled.scene.name,
            "shape": list(geobox.shape),
            "transform": list(geobox.transform)[:6],
            "crs": geobox.crs,
            "values": recorded(labelled.scene),
            "files": [{"name": path.name, "bytes": path.stat().st_size} for path in input_files(labelled.scene)],
        },
        "split": metrics["split"],
        "test": metrics["test"],
        "seed": metrics["seed"],
        **({} if seen is None else {"seen": seen}),
        **({"seen_before": list(experiment.start.seen_before)} if experiment.start.seen_before else {}),
    }
