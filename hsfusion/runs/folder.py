"""Run folders: what they hold, written and read."""

from __future__ import annotations

import json
import logging
import os
import platform
import stat
from collections.abc import Callable, Iterator, Mapping
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
from hsfusion.scenes import JoinedScene, Legend, write_class_map, write_raster
from hsfusion.scenes.scene import read_pixels
from hsfusion.spectra import BandWeights, group_of_bands
from hsfusion.spectra.weights import write_group_weights_csv, write_history_csv, write_response_csv
from hsfusion.training.building import check_can_be_saved
from hsfusion.trust.verdict import Duplicate, duplicates

if TYPE_CHECKING:
    from hsfusion.runs.training import Experiment, TrainingResult

_log = logging.getLogger(__name__)
_ENV = "HSFUSION_RUN_DIR"  # tells the processes of a distributed run the folder
_MOST_PAIRS = 1000  # of duplicate bands that are recorded
_MOST_PIXELS = 20_000  # among which they are looked for
_MOST_METRICS_BYTES = 2**22
_MOST_READ_PAIRS = 10_000
_MOST_HEADER_BYTES = 2**25
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
        raise InputError(
            path, field="run_dir", value="already there", expected="a new or empty folder", fix="choose another run_dir"
        ) from error
    except OSError as error:
        raise EnvironmentFailure(
            f"{path}: run folder cannot be made ({error}). Fix: choose another run_dir."
        ) from error
    os.environ[_ENV] = str(path.resolve())
    return path


@contextmanager
def training_log() -> Iterator[MemoryHandler]:
    """Remembers what is logged, for :func:`start_folder` to write to train.log; detaches both at the end."""
    root = logging.getLogger()
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
    if isinstance(labelled.scene, JoinedScene):
        _write_parts(folder / "maps", labelled.scene, class_map, labelled.legend)
    nan = float("nan")
    write_raster(folder / "confidence.tif", result.confidence, geobox=geobox, nodata=nan, tags=tags)
    if result.instance_maps is not None:
        names = group_members(experiment)[0]
        path = folder / "instance_weights.tif"
        write_raster(path, result.instance_maps, geobox=geobox, nodata=nan, tags=tags, layer_names=names)
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


def model_header(experiment: Experiment, metrics: dict[str, Any]) -> dict[str, Any]:
    """What a model file says of its network: plain values; nothing that differs between two runs of one seed."""
    labelled = experiment.split.labelled
    seen = training_mask(experiment.split)
    bands, legend, geobox = labelled.scene.bands, labelled.legend, labelled.scene.geobox
    return {
        "hsfusion_version": __version__,
        "versions": metrics["versions"],
        "bands": bands.to_dict(),
        "groups": [
            {"name": group.name, "lower_nm": group.lower_nm, "upper_nm": group.upper_nm}
            for group in experiment.initial.groups
        ],
        "sources": [{"name": name, "layers": number} for name, number in labelled.scene.sources],
        "classes": {"codes": list(legend.codes), "names": list(legend.names), "colors": list(legend.colors)},
        "architecture": experiment.initial.architecture,
        "training_scene": {
            "name": labelled.scene.name,
            "shape": list(geobox.shape),
            "transform": list(geobox.transform)[:6],
            "crs": geobox.crs,
            "values": labelled.scene.provenance(),
            "files": [{"name": path.name, "bytes": path.stat().st_size} for path in labelled.scene.files()],
        },
        "split": metrics["split"],
        "test": metrics["test"],
        "seed": metrics["seed"],
        **({} if seen is None else {"seen": seen}),
        **({"seen_before": list(experiment.initial.seen_before)} if experiment.initial.seen_before else {}),
    }


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
    raise InputError(
        folder, field="run", value=what, expected="the folder of a run", fix="name a folder that hsfusion train wrote"
    )


def _unfinished(folder: Path, name: str) -> InputError:
    return InputError(
        folder, field=name, value="missing", expected="a finished run's folder", fix="train, or name another folder"
    )


def read_metrics(folder: Path) -> dict[str, Any]:
    """Content of metrics.json of a run folder.

    Raises:
        InputError: if it is missing or damaged.
    """
    from hsfusion.training.checked_values import number, text, whole

    fraction = number(0, 1)
    rules = {
        "split.kind": text(60),
        "split.leakage": fraction,
        "test.overall_accuracy": fraction,
        "test.average_accuracy": fraction,
        "seed": whole(0, 2**32),
    }
    return _checked(folder / "metrics.json", _json, rules)


def read_checks(folder: Path, *, bands: int) -> tuple[bool, list[tuple[int, int, float]]]:
    """Whether the network of a run beats chance, and pairs of duplicate bands, from verdict.json.

    Raises:
        InputError: if it is missing or damaged.
    """
    from hsfusion.training.checked_values import each, flag

    rules = {"beats_chance": flag, "duplicates": each(_pair_of(bands), 0, _MOST_READ_PAIRS)}
    checks = _checked(folder / "verdict.json", _json, rules)
    pairs = [(int(first), int(second), float(correlation)) for first, second, correlation in checks["duplicates"]]
    return checks["beats_chance"], pairs


def read_header(folder: Path) -> dict[str, Any]:
    """Header of model.safetensors of a run folder; the tensors are not looked at.

    Raises:
        InputError: if it is missing or damaged.
    """
    from hsfusion.training.checked_values import text

    rules = {"training_scene.name": text(200), "architecture.fusion": text(60)}
    return _checked(folder / "model.safetensors", _header, rules)


def _pair_of(bands: int) -> Callable[[Any, str], None]:
    """A rule for two bands and their correlation."""
    from hsfusion.training.checked_values import Unfit, number, shown, whole

    def rule(value: Any, field: str) -> None:
        if not isinstance(value, list) or len(value) != 3:
            raise Unfit(field, shown(value), "two bands and their correlation")
        for index in value[:2]:
            whole(0, bands - 1)(index, field)
        number(-1, 1)(value[2], field)

    return rule


def _checked(file: Path, read: Callable[[Path], Any], rules: dict[str, Callable[[Any, str], None]]) -> dict[str, Any]:
    """The content of a file, its values at dotted keys checked."""
    from hsfusion.training.checked_values import Unfit

    try:
        content = read(file)
        for key, rule in rules.items():
            value = content
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            rule(value, key)
    except FileNotFoundError as error:
        raise _unfinished(file.parent, file.name) from error
    except Unfit as error:
        raise InputError(
            file, field=error.field, value=error.value, expected=error.expected, fix="name a sound run folder"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            file, field="content", value=f"unreadable ({error})", expected=f"{file.name} of a run", fix="train anew"
        ) from error
    return content


def plain_bytes(file: Path, most: int) -> bytes:
    """The bytes of a plain file that is no larger than it may be.

    Raises:
        Unfit: if it is none, or larger.
        OSError: if it cannot be read.
    """
    from hsfusion.training.checked_values import Unfit

    status = file.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
        raise Unfit("file", "no plain file", "a file")
    if status.st_size > most:
        raise Unfit("size", f"{status.st_size} bytes", f"at most {most} bytes")
    return file.read_bytes()


def _json(file: Path) -> Any:
    from hsfusion.training.checked_values import parse_json

    return parse_json(plain_bytes(file, _MOST_METRICS_BYTES).decode(), "metrics")


def _header(file: Path) -> Any:
    """The header of a model of any format version; the tensors are not looked at."""
    from hsfusion.training.checked_values import Unfit, parse_json

    if not stat.S_ISREG(file.stat().st_mode):
        raise Unfit("file", "no plain file", "a file")
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(_MOST_HEADER_BYTES, file.stat().st_size - 8):
            raise Unfit("length of the header", length, "that of a model file")
        listed = parse_json(stream.read(length).decode(), "list of tensors")
    inside = listed.get("__metadata__") if isinstance(listed, dict) else None
    header = inside.get("hsfusion") if isinstance(inside, dict) else None
    if not isinstance(header, str):
        raise Unfit("header", "missing", "that of a model of hsfusion")
    return parse_json(header, "header")
