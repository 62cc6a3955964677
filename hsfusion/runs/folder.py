"""Run folders: what they hold, written and read."""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import __version__
from hsfusion.data.leakage import training_mask
from hsfusion.data.splits import TRAIN, Split
from hsfusion.errors import EnvironmentFailure, HsFusionError, InputError, printable
from hsfusion.scenes import Legend, Mosaic, write_class_map, write_raster
from hsfusion.scenes.scene import read_pixels
from hsfusion.spectra import BandWeights, group_of_bands
from hsfusion.spectra.weights import write_group_weights_csv, write_history_csv, write_response_csv
from hsfusion.training.model_file import ClassList, ModelHeader
from hsfusion.trust.verdict import Duplicate, duplicates

if TYPE_CHECKING:
    from hsfusion.runs.training import Experiment, TrainingResult

_log = logging.getLogger(__name__)
_ENV = "HSFUSION_RUN_DIR"  # tells the processes of a distributed run the folder
_MOST_PAIRS = 1000  # of duplicate bands that are recorded
_MOST_PIXELS = 20_000  # among which they are looked for
_FIX = "name the folder of a finished run, or train anew"
_SPLIT_NAMES = {0: "unused", 1: "training", 2: "validation", 3: "test", 4: "buffer"}


class LineFormatter(logging.Formatter):
    """Shows each message in one line, whatever names are in it; tracebacks follow as they are."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message without what would steer a terminal."""
        return printable(super().formatMessage(record), longest=None)


def is_folder_name(name: str) -> bool:
    """Whether a name is that of one folder inside another, on any system."""
    return name.isprintable() and not set(name) & set('/\\:*?"<>|') and name.strip() not in ("", ".", "..")


def start_folder(path: Path, configuration: str, log: MemoryHandler, *, architecture: Mapping[str, Any]) -> Path:
    """Makes a run folder at the beginning of a training: only now, so that input that is refused leaves none behind.

    Raises:
        InputError: if it exists and is not empty, or the architecture of the network cannot be saved.
        EnvironmentFailure: if it cannot be made.
    """
    from hsfusion.training.building import check_can_be_saved  # with torch: drawing a folder goes without

    check_can_be_saved(architecture)
    path = make_folder(path)
    file = logging.FileHandler(path / "train.log", encoding="utf-8")
    file.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log.setTarget(file)
    log.flush()
    logging.getLogger().removeHandler(log)
    logging.getLogger().addHandler(file)
    (path / "config.yaml").write_text(configuration, encoding="utf-8")
    return path


def make_folder(path: Path) -> Path:
    """Makes a new run folder; the further processes of a distributed run get that of the first.

    Raises:
        InputError: if it exists and is not empty.
        EnvironmentFailure: if it cannot be made.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) > 0 and _ENV in os.environ:
        return Path(os.environ[_ENV])
    try:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        path.mkdir(parents=True)
        (path / "figures").mkdir()
    except FileExistsError as error:
        raise InputError(path, "run_dir", "already there", "a new or empty folder", "choose another run_dir") from error
    except OSError as error:
        raise EnvironmentFailure(
            f"{path}: run folder cannot be made ({error}). Fix: choose another run_dir."
        ) from error
    os.environ[_ENV] = str(path.resolve())
    return path


@contextmanager
def training_log() -> Iterator[MemoryHandler]:
    """Remembers what is logged, for :func:`start_folder` to write to train.log; detaches both at the end.

    Inside another one it is that one, so that a caller can begin it before the scene is opened.
    """
    root = logging.getLogger()
    outer = next((handler for handler in root.handlers if isinstance(handler, MemoryHandler)), None)
    if outer is not None:
        yield outer
        return
    level, before = root.level, list(root.handlers)
    root.setLevel(logging.INFO)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    memory = MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1)
    root.addHandler(memory)
    try:
        yield memory
    except Exception as error:
        _log.error("%s: %s", type(error).__name__, error, exc_info=not isinstance(error, HsFusionError))
        raise
    finally:
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)


def band_weights(experiment: Experiment, result: TrainingResult) -> BandWeights:
    """The band weights that a training gave, with those of the layers of further rasters."""
    bands, sources = experiment.split.labelled.scene.bands, experiment.split.labelled.scene.sources
    names, inside = group_members(experiment)
    layers = [name for name, number in sources for _ in range(number)]
    return BandWeights(
        bands,
        group_of_bands(inside[:, : len(bands)], names),
        result.weights.weight[: len(bands)],
        tuple(zip(layers, result.weights.weight[len(bands) :].tolist(), strict=True)),
    )


def write_weight_tables(experiment: Experiment, result: TrainingResult, weights: BandWeights, folder: Path) -> None:
    """Writes band_weights.csv, response.csv, group_weights.csv and weight_history.csv."""
    names, inside = group_members(experiment)
    learned = result.weights
    weights.to_csv(folder / "band_weights.csv")
    write_response_csv(folder / "response.csv", learned.response, bands=weights.bands, groups=names, membership=inside)
    write_group_weights_csv(
        folder / "group_weights.csv", learned.group_weights, groups=names, channel_share=learned.channel_share
    )
    write_history_csv(folder / "weight_history.csv", *result.weight_history)


def write_checks(folder: Path, *, beats_chance: bool, pairs: tuple[Duplicate, ...]) -> None:
    """Writes verdict.json, what the verdict on the weights rests on beside them."""
    if len(pairs) > _MOST_PAIRS:
        _log.warning("%d pairs of bands are duplicates: the first %d are recorded.", len(pairs), _MOST_PAIRS)
    recorded_pairs = [[pair.first, pair.second, pair.correlation] for pair in pairs[:_MOST_PAIRS]]
    checks = {"beats_chance": beats_chance, "duplicates": recorded_pairs}
    (folder / "verdict.json").write_text(json.dumps(checks) + "\n", encoding="utf-8")


def duplicate_bands(split: Split, used: NDArray[np.int64]) -> list[Duplicate]:
    """Pairs of the used bands (C',) that hold the same values, by their index in the scene.

    Looked for in at most 20,000 training pixels, evenly spread over their list, that have data in all of these bands.
    """
    pixels = split.pixels(TRAIN)
    spectra = read_pixels(split.labelled.scene, pixels[:: -(-len(pixels) // _MOST_PIXELS)], used)  # (N, C')
    whole = spectra[np.isfinite(spectra).all(1)]
    if len(whole) < 2:
        return []
    return [Duplicate(int(used[pair.first]), int(used[pair.second]), pair.correlation) for pair in duplicates(whole)]


def group_members(experiment: Experiment) -> tuple[list[str], NDArray[np.bool_]]:
    """Names and membership (G, C) of the groups of the network; one of all bands for the free convolution."""
    inside = experiment.network.fusion.membership.numpy()
    if experiment.network.fusion.kind == "free":
        return ["all"], inside
    names = [group.name for group in experiment.initial.groups]
    return [*names, *(name for name, _ in experiment.split.labelled.scene.sources)], inside


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    packages = ("torch", "lightning", "numpy", "rasterio", "hydra-core")
    return {"hsfusion": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a mapping of plain values, indented."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_rasters(class_map: NDArray[np.integer], experiment: Experiment, result: TrainingResult, folder: Path) -> None:
    """Writes map.tif from codes (H, W), confidence.tif, split.tif, and instance_weights.tif where weights differ."""
    labelled = experiment.split.labelled
    geobox = labelled.scene.geobox
    tags = {"hsfusion_version": __version__, "scene": labelled.scene.name}
    write_class_map(folder / "map.tif", class_map, legend=labelled.legend, geobox=geobox, tags=tags)
    if isinstance(labelled.scene, Mosaic):
        _write_parts(folder / "maps", labelled.scene, class_map, labelled.legend)
    nan = float("nan")
    write_raster(folder / "confidence.tif", result.confidence, geobox=geobox, nodata=nan, tags=tags)
    if result.instance_maps is not None:
        names = group_members(experiment)[0]
        path = folder / "instance_weights.tif"
        write_raster(path, result.instance_maps, geobox=geobox, nodata=nan, tags=tags, layer_names=names)
    roles = {f"role_{role}": name for role, name in _SPLIT_NAMES.items()}
    write_raster(folder / "split.tif", experiment.split.roles, geobox=geobox, tags=roles)


def _write_parts(folder: Path, joined: Mosaic, codes: NDArray[np.integer], legend: Legend) -> None:
    """A map for each of the joined scenes, in its own place."""
    folder.mkdir()
    for scene, row, _ in joined.parts:
        height, width = scene.geobox.shape
        part = codes[row : row + height, :width]
        tags = {"hsfusion_version": __version__, "scene": scene.name}
        write_class_map(folder / f"{scene.name}.tif", part, legend=legend, geobox=scene.geobox, tags=tags)


def model_header(experiment: Experiment, metrics: dict[str, Any]) -> ModelHeader:
    """What a model file says of its network; nothing that differs between two runs of one seed."""
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


class JsonFile:
    """A JSON file that a run wrote; what is missing in it or unfit is one line with the file and the key."""

    def __init__(self, path: Path, *, fix: str) -> None:
        """Reads it.

        Raises:
            InputError: if it is missing, or no JSON.
        """
        self._path, self._fix = path, fix
        try:
            self.content: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise _unfinished(path.parent, path.name) from error
        except (OSError, ValueError, RecursionError) as error:
            raise self.refusal("content", f"unreadable ({error})", "JSON") from error

    def refusal(self, key: str, value: object, expected: str) -> InputError:
        """The error of a value."""
        return InputError(self._path, key, value, expected, self._fix)

    def at(self, *keys: str | int) -> Any:
        """The value at keys of mappings, or places in lists, inside one another.

        Raises:
            InputError: if there is none.
        """
        value = self.content
        try:
            for key in keys:
                value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            raise self.refusal(".".join(map(str, keys)), "missing", f"a whole {self._path.name}") from error
        return value

    def number(self, *keys: str | int) -> float:
        """The finite number at these keys.

        Raises:
            InputError: if there is none.
        """
        return float(self.array(*keys, shape=()))

    def array(self, *keys: str | int, shape: tuple[int, ...] | None = None) -> NDArray[np.float64]:
        """The finite numbers at these keys, of this shape if it is given.

        Raises:
            InputError: if there are none, or of another shape.
        """
        name, value = ".".join(map(str, keys)), self.at(*keys)
        try:
            numbers = np.array(value, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise self.refusal(name, f"unfit ({error})", "numbers") from error
        if shape is not None and numbers.shape != shape:
            raise self.refusal(f"shape of {name}", numbers.shape, str(shape))
        if not np.isfinite(numbers).all():
            raise self.refusal(name, "not finite", "finite numbers")
        return numbers


def read_band_weights(folder: Path) -> BandWeights:
    """Reads band_weights.csv of a run folder.

    Raises:
        InputError: if the folder is none, or the table is missing or damaged.
    """
    if (folder / "band_weights.csv").is_file():
        return BandWeights.from_csv(folder / "band_weights.csv")
    if folder.is_dir():
        raise _unfinished(folder, "band_weights.csv")
    what = "a file" if folder.exists() else "missing"
    raise InputError(folder, "run", what, "the folder of a run", "name a folder that hsfusion train wrote")


def _unfinished(folder: Path, name: str) -> InputError:
    return InputError(folder, name, "missing", "a finished run's folder", "train, or name another folder")


def read_metrics(folder: Path) -> dict[str, Any]:
    """Content of metrics.json of a run folder.

    Raises:
        InputError: if it is missing or damaged.
    """
    file = JsonFile(folder / "metrics.json", fix=_FIX)
    for keys in (("split", "leakage"), ("test", "overall_accuracy"), ("test", "average_accuracy"), ("seed",)):
        file.number(*keys)
    file.at("split", "kind")
    return file.content


def read_checks(folder: Path, *, bands: int) -> tuple[bool, list[tuple[int, int, float]]]:
    """Whether the network of a run beats chance, and pairs of duplicate bands, from verdict.json.

    Raises:
        InputError: if it is missing or damaged.
    """
    file = JsonFile(folder / "verdict.json", fix=_FIX)
    beats_chance = file.at("beats_chance")
    if not isinstance(beats_chance, bool):
        raise file.refusal("beats_chance", beats_chance, "true or false")
    rows = file.array("duplicates", shape=(len(file.at("duplicates")), 3)) if file.at("duplicates") else []
    pairs = [(int(first), int(second), float(correlation)) for first, second, correlation in rows]
    if any(not 0 <= band < bands for pair in pairs for band in pair[:2]):
        raise file.refusal("duplicates", "of other bands", f"bands from 0 to {bands - 1}")
    return beats_chance, pairs
