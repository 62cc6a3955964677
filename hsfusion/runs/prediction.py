"""Prediction: from a trained model and a scene to a map."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from hsfusion import __version__
from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.inference import FoldedNetwork, MapRequest, map_scene, predict_scene
from hsfusion.inference.classification import TilePrediction, rounded
from hsfusion.inference.mapping import Shard
from hsfusion.nn import FusionNetwork
from hsfusion.runs.finetuning import model_path
from hsfusion.runs.run import Run, legend_of
from hsfusion.runs.settings import Settings, choice, refusal, replaced, within
from hsfusion.scenes import BandSelection, LabelledScene, Legend, Scene, open_scene
from hsfusion.scenes.description import open_described_cube
from hsfusion.scenes.geobox import IDENTITY, GeoBox, crs_name
from hsfusion.scenes.mosaic import check_same_unit, far_from_training, median_spectrum
from hsfusion.scenes.rasters import ClassAreas, read_reduced
from hsfusion.scenes.scene import content_digest, fingerprint, lies_in_files
from hsfusion.spectra.weights import table_text
from hsfusion.training.model_file import ModelHeader, load_model
from hsfusion.training.transfer import transfer

_log = logging.getLogger(__name__)
_TABLE = "areas.csv"  # ending of the name of the table of areas


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """How a map is made. Every field is a key of conf/predict.yaml.

    Attributes:
        bands: match, for the model's bands, each within half a FWHM; or resample, to apply the model to the bands of
            another sensor by wavelength, without fine-tuning.
        probabilities: whether to write ``<out>_probabilities.tif``, with a layer for each class.
        smooth: none, or bilateral to filter the probabilities, see
            :func:`hsfusion.inference.classification.bilateral`. Accuracies of the run are those of the unsmoothed map.
        format: geotiff or cog.
        precision: float32, or bf16 for convolutions in bfloat16, which is faster on processors that support it; a few
            pixels change class.
        device: auto, cpu or cuda.
        threads: processor threads; None leaves the choice to PyTorch.
        progress: whether to show a progress bar.
    """

    bands: str = choice("match", "match", "resample")
    probabilities: bool = False
    smooth: str = choice("none", "none", "bilateral")
    format: str = choice("geotiff", "geotiff", "cog")
    precision: str = choice("float32", "float32", "bf16")
    device: str = choice("auto", "auto", "cpu", "cuda")
    threads: int | None = within(None, 1)
    progress: bool = False


@dataclass(frozen=True, eq=False)
class PredictedMap:
    """The files written by :func:`predict`; areas are None on all but the first process of a distributed run."""

    out: Path
    legend: Legend
    areas: ClassAreas | None
    pixels: int
    seconds: float
    coverage: tuple[str, ...] = ()

    @property
    def quick_look(self) -> Path:
        """A picture of the map with its legend."""
        return self.out.with_suffix(".png")

    @property
    def page(self) -> Path:
        """The map as a page for a browser, with legend and coordinates."""
        return self.out.with_suffix(".html")

    @property
    def table(self) -> Path:
        """The area of each class as CSV."""
        return self.out.with_name(f"{self.out.stem}_{_TABLE}")


def predict(
    run: Run | str | Path,
    scene: Scene | LabelledScene | str | Path,
    out: str | Path | None = None,
    *,
    settings: PredictSettings | None = None,
    **fields: Any,
) -> PredictedMap:
    """Classifies a scene of any size into georeferenced files; continues where an interrupted call stopped.

    Args:
        run: the trained run, its folder or its model file. If the run was saved, the file is used: later changes of
            ``run.network`` have no effect, except in :meth:`hsfusion.Run.predict` without ``out``.
        scene: the scene, or the path of a cube or of a description (YAML).
        out: the class map, ``.tif``; None for ``<scene>_map.tif`` in the working directory.
        settings: of the prediction; None for the defaults.
        **fields: fields of :class:`PredictSettings` that replace those of ``settings``: ``bands="resample"``.

    Returns:
        paths of the files, legend and areas; :meth:`hsfusion.Run.predict` returns the class codes as an array
    """
    start = time.perf_counter()
    settings = replaced(settings or PredictSettings(), fields)
    if out is not None and not (Path(out).suffix.lower() in {".tif", ".tiff"} and Path(out).parent.is_dir()):
        raise refusal("out", out, "a name that ends in .tif, in a folder that exists")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    network, header, digest = _model(run)
    whole = _opened(scene)
    matched, network, tags, coverage = match_scene(whole, network, header, bands=settings.bands)
    folded = FoldedNetwork(network).to(compute_device(settings.device))
    folded = rounded(folded) if settings.precision == "bf16" else folded
    tags |= {"hsfusion_version": __version__, "hsfusion_model_sha256": digest, "scene": matched.name}
    out = Path(out or f"{matched.name}_map.tif")
    chosen: dict[str, Any] = {name: getattr(settings, name) for name in ("probabilities", "smooth", "format")}
    request = MapRequest(out=out, legend=legend_of(header), tags={**tags, "smooth": settings.smooth}, **chosen)
    _check_inputs(request, matched, run)
    plan = {
        "versions": [__version__, torch.__version__],
        "model": digest,
        "computed": [settings.bands, settings.precision, folded.fill.device.type],
        "scene": fingerprint(matched),
        "content": None if lies_in_files(whole) else content_digest(whole),
    }  # all that decides on the numbers: a journal of something else is not continued
    with _shard() as shard:
        shown = {"progress": _progress_bar} if settings.progress and shard.rank == 0 else {}
        beside = partial(_files_beside, request=request, scene=matched)
        areas = map_scene(folded, matched, request, plan=plan, shard=shard, beside=beside, **shown)
    pixels, seconds = math.prod(matched.geobox.shape), time.perf_counter() - start
    return PredictedMap(request.out, request.legend, areas, pixels, seconds, coverage)


def predict_array(
    run: Run, scene: Scene | LabelledScene | str | Path, *, bands: str = "match", smooth: str = "none"
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Class codes (H, W), 0 without data, and confidence (H, W) of a scene; see :class:`PredictSettings`."""
    PredictSettings(bands=bands, smooth=smooth)  # checks them
    matched, network, *_ = match_scene(_opened(scene), run.network, run.header, bands=bands)
    index, confidence = predict_scene(network, matched, smooth=smooth)
    return np.array([*run.legend.codes, 0])[index], confidence  # index -1 is the 0 at the end


def _model(run: Run | str | Path) -> tuple[FusionNetwork, ModelHeader, str]:
    """Network, header, and digest of the model file; for a run that is not saved, digest of its numbers."""
    if isinstance(run, Run) and run.folder is None:
        state = hashlib.sha256()
        for name, tensor in run.network.state_dict().items():
            state.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return run.network, run.header, state.hexdigest()
    path = model_path(run.folder if isinstance(run, Run) and run.folder else str(run))
    network, header = load_model(path)
    return network, header, hashlib.sha256(path.read_bytes()).hexdigest()


def _opened(scene: Scene | LabelledScene | str | Path) -> Scene:
    if isinstance(scene, str | Path):
        path = str(scene)
        return open_described_cube(path) if path.endswith((".yaml", ".yml")) else open_scene(path)
    return scene.scene if isinstance(scene, LabelledScene) else scene


def match_scene(
    scene: Scene, network: FusionNetwork, header: ModelHeader, *, bands: str
) -> tuple[Scene, FusionNetwork, dict[str, str], tuple[str, ...]]:
    """The scene with the model's bands, or the network with the scene's; tags for the map, and coverage in words."""
    tags, wanted, coverage = {"bands": bands}, header.bands, ()
    if bands == "resample":
        names = header.classes.names
        transferred = transfer(network, header=header, bands=scene.bands, sources=header.sources, class_names=names)
        network, report = transferred.network, transferred.report
        tags["weight_outside_bands"], wanted = f"{report.outside_share:.4f}", scene.bands
        coverage = tuple(report.coverage_lines())
    matched = BandSelection(scene, bands=wanted, sources=header.sources, needed=network.used_bands.numpy())
    (rows, columns), least = matched.geobox.shape, network.receptive_field
    if min(rows, columns) < least:
        expected = f"at least {least} x {least}, the receptive field"
        raise InputError("scene", "rows x columns", f"{rows} x {columns}", expected, "give a larger scene")
    layers = network.used_bands.nonzero()[:, 0].numpy()
    mean, std = network.mean.numpy()[layers], network.std.numpy()[layers]
    levels = median_spectrum(matched, layers)
    check_same_unit(levels, mean, source=scene.name, reference="the training scene")
    spectral = layers < len(matched.bands)  # the ground may be as high or as hot as it likes
    if warning := far_from_training(levels[spectral], mean[spectral], std[spectral]):
        _log.warning("%s: %s.", scene.name, warning)
    return matched, network, tags, coverage


def compute_device(name: str) -> str:
    """Where to compute: of several GPUs, the one with the number of this process, which torchrun sets."""
    if name == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFailure("device is cuda, expected one that this machine has. Fix: use device=cpu.")
    if name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def _check_inputs(request: MapRequest, scene: Scene, run: Run | str | Path) -> None:
    """Refuses to overwrite an input, or a folder."""
    endings = ("confidence.tif", "probabilities.tif", _TABLE)
    pages = (request.out.with_suffix(ending) for ending in (".png", ".html"))
    outs = [request.out, *pages, *(request.beside(ending) for ending in endings)]
    inputs = [*scene.files(), *([] if isinstance(run, Run) else [model_path(run)])]
    for out in outs:
        if out.is_dir() or any(out.exists() and path.exists() and out.samefile(path) for path in inputs):
            raise InputError(out, "file", "an input or a folder", "a new file", "choose another out")


@contextmanager
def _shard() -> Iterator[Shard]:
    """The tiles of this process, by RANK and WORLD_SIZE of torchrun. Leaves the group of processes at the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Shard()
        return
    import torch.distributed as distributed

    def wait() -> None:
        try:
            distributed.barrier()
        except RuntimeError as error:  # the others are gone
            raise EnvironmentFailure("another process of this map failed. Fix: see its message.") from error

    distributed.init_process_group("gloo", timeout=timedelta(days=7))  # one may have much more to do
    try:
        yield Shard(int(os.environ["RANK"]), world, wait)
    finally:
        distributed.destroy_process_group()


def _progress_bar(tiles: Iterator[TilePrediction], done: int, total: int) -> Iterator[TilePrediction]:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("map", total=total, completed=done)
        for tile in tiles:
            yield tile
            bar.advance(task, tile.classes.size)


def _files_beside(areas: ClassAreas, class_map: Path, *, request: MapRequest, scene: Scene) -> Mapping[Path, bytes]:
    from hsfusion import plots

    legend, title = request.legend, f"Class map: {scene.name}"
    classes = read_reduced(class_map, most=1200)
    figure = plots.class_map_figure(classes, codes=legend.codes, names=legend.names, colors=legend.colors, title=title)
    shares = (areas.pixels / max(1, areas.pixels.sum())).tolist()
    entries = list(zip(legend.names, legend.colors, shares, strict=True))
    page = plots.map_html(classes, codes=legend.codes, legend=entries, title=title, **_place(scene.geobox, classes))
    return {
        request.beside(_TABLE): _area_table(areas, legend),
        request.out.with_suffix(".png"): plots.figure_file(figure, "png"),
        request.out.with_suffix(".html"): page.encode(),
    }


def _place(geobox: GeoBox, reduced: NDArray) -> dict[str, Any]:
    """Georeferencing of every n-th pixel of a raster, for its page."""
    (height, width), (rows, columns) = geobox.shape, reduced.shape
    transform = geobox.transform @ IDENTITY.scale(width / columns, height / rows)
    crs = None if geobox.transform == IDENTITY else crs_name(geobox.crs) if geobox.crs else "CRS not given"
    return {"transform": tuple(transform)[:6], "crs": crs, "step": -(-height // rows)}


def _area_table(areas: ClassAreas, legend: Legend) -> bytes:
    """CSV with a row for each class: pixels, share of the classified pixels, and hectares where they are known."""
    shares, hectares = areas.pixels / areas.pixels.sum(), areas.square_metres / 1e4
    numbers = zip(legend.codes, legend.names, areas.pixels, shares, hectares, strict=True)
    rows = [(*of, f"{share:.6f}", None if np.isnan(area) else f"{area:.4f}") for *of, share, area in numbers]
    return table_text(["code", "class", "pixels", "share", "hectares"], rows).encode()
