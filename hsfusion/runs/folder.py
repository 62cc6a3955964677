"""Run folders: writing and reading them, and resuming a run from one."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
import os
import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from hsfusion import __version__
from hsfusion.errors import EnvironmentFailure, HsFusionError, InputError, printable
from hsfusion.publishing import is_sealed, write_file
from hsfusion.scenes import Mosaic, write_class_map, write_raster
from hsfusion.scenes.description import read_configuration
from hsfusion.scenes.scene import content_digest

if TYPE_CHECKING:
    from hsfusion.data.splits import Split
    from hsfusion.runs.experiment import Experiment
    from hsfusion.runs.training import TrainingResult

_log = logging.getLogger(__name__)
_ENV = "HSFUSION_RUN_DIR"  # tells the processes of a distributed run the folder
_LOCK, _OWNER = ".lock", ".process"  # of a run that is going
_DEVICE = re.compile(r"con(in\$|out\$)?|prn|aux|nul|(com|lpt)[1-9¹²³]", re.IGNORECASE)  # on Windows, with any ending
_CHECKPOINT = "checkpoints/last.ckpt"
#: file of what determines a run besides its configuration, see :func:`inputs_of`
INPUTS = "inputs.json"
_TABLES = 2 * 10**6  # bytes of tables, figures and report
_REACHED = "validation.json"  # of a run of a sweep, when all else is written
_FIX = "name the folder of a finished run, or train again"
#: what the numbers of a split, from 0 on, stand for
ROLES = ("unused", "training", "validation", "test", "buffer")
# settings that may differ when a run is resumed: with the same number of threads, none changes what the run computes
FREE = {"resume", "run_dir", "sweep_dir", "name", "progress", "threads", "figures", "logger", "loggers"}
FREE |= {"optimized_metric", "trainer.accelerator", "trainer.devices"}


class LineFormatter(logging.Formatter):
    """Shows each message in one line, whatever names it contains; tracebacks follow unchanged."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message without characters that control a terminal."""
        return printable(super().formatMessage(record), longest=None)


class _Hold:
    """Locks a folder until it is released or this process ends; fails if it is locked already."""

    def __init__(self, folder: Path) -> None:
        self._owner, self.lock = folder / _OWNER, FileLock(folder / _LOCK, thread_local=False)
        with suppress(Timeout, OSError):  # held by the first process of a distributed run, or no disk for it
            self.lock.acquire(timeout=0)
            write_file(self._owner, f"process {os.getpid()} on {platform.node()}\n")

    def release(self) -> None:
        """Leaves the folder to others."""
        if self.lock.is_locked:
            self._owner.unlink(missing_ok=True)
            self.lock.release()
            Path(self.lock.lock_file).unlink(missing_ok=True)


class RunLog(logging.FileHandler):
    """The log of a run, which locks its folder as long as it is open: no other process may resume the run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "train.log", encoding="utf-8")
        self.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._hold = _Hold(folder)

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk does not end a training because of its log."""

    def close(self) -> None:
        """Closes the log, and unlocks the folder."""
        super().close()
        self._hold.release()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Creates a folder and locks it for this process; a folder locked by another process is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    hold = _Hold(folder)
    try:
        if not hold.lock.is_locked:
            _refuse_running(folder)
        yield
    finally:
        hold.release()


def _refuse_running(run: Path) -> None:
    """Refuses the folder of a run that is still running; a killed process leaves no lock."""
    try:
        if (run / _LOCK).exists():
            FileLock(run / _LOCK).acquire(timeout=0).lock.release()
    except Timeout as error:
        owner = (run / _OWNER).read_text(encoding="utf-8").strip() if (run / _OWNER).exists() else "another process"
        fix = "wait until it ends, or stop it"
        raise EnvironmentFailure(
            f"{run}: run is still running, in {owner}, expected an interrupted one. Fix: {fix}."
        ) from error
    except OSError:  # of somebody else, who let us only read it
        return


def is_folder_name(name: str) -> bool:
    """Whether a name is valid for a single folder, on any system."""
    if name[-1:] in ("", ".", " ") or _DEVICE.fullmatch(name.partition(".")[0].strip()):
        return False
    return name.isprintable() and not set(name) & set('/\\:*?"<>|')


def start_folder(
    folder: str | Path | None,
    configuration: str,
    log: MemoryHandler,
    *,
    experiments: Sequence[Experiment],
    resume: str | Path | None,
) -> Path | None:
    """Creates a run folder at the start of a training, and not before, so that refused input leaves none behind.

    ``resume`` is the folder of the run to resume, whose inputs must be the same. None for no folder.
    """
    from hsfusion.training.building import check_can_be_saved  # with torch: reading a folder goes without

    splits = [experiment.split for experiment in experiments]
    inputs = {} if folder is None and resume is None else inputs_of(splits)
    if resume is not None:
        check_same_inputs(Path(resume), inputs, splits, configuration)
    if folder is None:
        return None
    check_can_be_saved(experiments[0].initial.architecture)
    check_space(Path(folder), experiments)
    path = make_folder(Path(folder))
    file = RunLog(path)
    log.setTarget(file)
    log.flush()
    logging.getLogger().removeHandler(log)
    logging.getLogger().addHandler(file)
    write_file(path / "config.yaml", configuration)
    write_json(path / INPUTS, inputs)
    return path


def check_space(path: Path, experiments: Sequence[Experiment]) -> None:
    """Refuses a run folder for which the disk is too small, before anything is trained.

    Counted are two checkpoints, which exist at the same time (network, best state, two moments of the parameters), the
    model file, uncompressed rasters, tables and figures.
    """
    needed = _TABLES
    for network, split in ((experiment.network, experiment.split) for experiment in experiments):
        tensors, parameters = network.state_dict().values(), network.parameters()
        needed += 5 * sum(tensor.nbytes for tensor in tensors) + 4 * sum(tensor.nbytes for tensor in parameters)
        layers = len(network.fusion.membership) if network.fusion.kind.endswith("instance") else 0
        needed += split.roles.size * (7 + 4 * layers)  # bytes of class, role, confidence and weights of groups
    free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free
    _log.info("the run folder needs about %.1f MB, of %.1f MB that are free", needed / 1e6, free / 1e6)
    if free < needed:
        space, fix = f"{free / 1e6:.1f} MB", "free space, or choose another run_dir"
        raise EnvironmentFailure(f"{path}: free space is {space}, expected about {needed / 1e6:.1f} MB. Fix: {fix}.")


def inputs_of(splits: Sequence[Split]) -> dict[str, Any]:
    """What determines a training besides its configuration: threads, and digests of pixels and labels of each scene."""
    import torch

    inputs: dict[str, Any] = {"threads": torch.get_num_threads()}
    for split in splits:
        labelled, name = split.labelled, split.labelled.scene.name
        truth = hashlib.sha256(json.dumps(asdict(labelled.legend)).encode())
        for codes in (labelled.labels, split.roles):
            for row in codes:  # as numbers of one size, whatever they are kept as
                truth.update(row.astype("<i8").data)
        inputs |= {f"content (bands, place, values) of {name}": content_digest(labelled.scene)}
        inputs |= {f"ground truth of {name}": truth.hexdigest()}
    return inputs


def check_same_inputs(run: Path, inputs: dict[str, Any], splits: Sequence[Split], configuration: str) -> None:
    """Refuses to resume a run that began with another cube, other labels, or another number of threads."""
    before = read_json(run / INPUTS)
    changed = [name for name, value in inputs.items() if before.get(name) != value]
    if not changed:
        return
    if changed[0] == "threads":
        was = before.get("threads")
        raise InputError(run, "number of threads", inputs["threads"], f"{was}, as at its start", f"add threads={was}")
    if changed[0].startswith("ground truth"):
        keys = leaves(read_configuration(configuration))
        files = [
            value for key, value in keys.items() if value and key.rpartition(".")[2] in ("labels", "train", "test")
        ]
    else:
        scenes = [split.labelled.scene for split in splits]
        files = [path for scene in scenes if changed[0].endswith(f" of {scene.name}") for path in scene.files()]
    source = ", ".join(map(str, files)) or "scene"
    raise InputError(source, changed[0], "changed", f"unchanged since {run} began", "restore it, or start a new run")


def make_folder(path: Path) -> Path:
    """Creates a new run folder; the other processes of a distributed run get that of the first."""
    if (taken := _folder_of_first()) is not None:
        return taken
    try:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        path.mkdir(parents=True)
        (path / "figures").mkdir()
    except FileExistsError as error:
        raise InputError(path, "run_dir", "not empty", "a new or empty folder", "choose another run_dir") from error
    os.environ[_ENV] = str(path.resolve())
    return path


@contextmanager
def training_log(command: str = "") -> Iterator[MemoryHandler]:
    """Collects what is logged, for :func:`start_folder` to write to train.log; detaches both at the end.

    Nested calls use the outermost one, so that a caller can start it before the scene is opened.
    """
    root = logging.getLogger()
    outer = next((handler for handler in root.handlers if isinstance(handler, MemoryHandler)), None)
    if outer is not None:
        if command:
            _log.info(command)
        yield outer
        return
    level, before = root.level, list(root.handlers)
    root.setLevel(logging.INFO)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    root.addHandler(MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1))
    try:
        with training_log(command) as memory:
            yield memory
    except Exception as error:
        trace = None if isinstance(error, HsFusionError) else (type(error), error, error.__traceback__)
        words = type(error).__name__, error
        record = _log.makeRecord(_log.name, logging.ERROR, __file__, 0, "%s: %s", words, trace)
        for handler in set(root.handlers).difference(before):  # the caller shows it on the screen
            handler.handle(record)
        raise
    finally:
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)


def interrupted_checkpoint(run: str | Path | None, configuration: str) -> Path | None:
    """The checkpoint in the folder of an interrupted run of the same configuration (YAML); nothing is executed."""
    import torch

    if run is None:
        return None
    run = Path(run)
    before, now = leaves(recorded_configuration(run)), leaves(read_configuration(configuration))
    for key in sorted(before.keys() | now.keys()):
        if (was := before.get(key)) != now.get(key):
            raise contradiction(run, key, now.get(key), was)
    path = run / _CHECKPOINT
    try:
        if not is_sealed(path):
            raise ValueError("another digest")
        torch.load(path, map_location="cpu", weights_only=True)  # the explicit True wins over the environment
    except Exception as error:  # whatever a damaged file makes torch raise
        what = "damaged, or more than numbers and text"
        raise InputError(path, "content", what, "an intact checkpoint", "start a new run") from error
    return path.absolute()


def recorded_configuration(run: Path) -> dict[str, Any]:
    """The configuration of an interrupted run as plain values: nothing is resolved or called."""
    for name in (_CHECKPOINT, "config.yaml", INPUTS):
        if not (run / name).is_file():
            raise InputError(run, name, "missing", "a run folder", "correct resume")
    _refuse_running(run)
    return read_configuration(run / "config.yaml")


def place_in_sweep(sweep: Path, words: Sequence[str]) -> tuple[Path, Path | None, dict[str, float] | None]:
    """The folder of a run of a sweep, by its arguments, the run to resume, and the accuracies of a finished run.

    A resumed run gets a new folder, NAME~2 after NAME: nothing is moved or deleted.
    """
    text = ",".join(sorted(words)) or "run"
    name = re.sub(r"[^\w.,=+-]+", "_", text)[:80]  # paths of Windows have 260 letters
    name = name if name == text else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    taken, start = _folder_of_first(), None
    for number in itertools.count(1):
        folder = sweep / (name if number == 1 else f"{name}~{number}")
        if not folder.exists() or folder.resolve() == taken:
            return folder, start, None
        if (folder / _REACHED).is_file():
            return folder, None, read_json(folder / _REACHED)
        if (folder / "config.yaml").is_file():
            _refuse_running(folder)
            start = folder if (folder / _CHECKPOINT).is_file() else start
    raise AssertionError("counting ends with a free number")


def for_loggers(folder: Path) -> dict[str, Any]:
    """Configuration and path of a run folder; names that users give (groups, classes) are text, no keys of a logger."""
    known = (folder / "config.yaml").is_file()  # the training from scratch beside a fine-tuning has none
    parts = (read_configuration(folder / "config.yaml") if known else {}) | {"folder": str(folder)}
    for name, part in parts.items():
        if isinstance(part, dict):
            parts[name] = {key: str(value) if isinstance(value, dict) else value for key, value in part.items()}
    return parts


def finish_in_sweep(folder: Path, reached: dict[str, float]) -> None:
    """Marks a run of a sweep as finished, with its accuracies on validation pixels."""
    if _folder_of_first() is None:
        write_json(folder / _REACHED, reached)


def _folder_of_first() -> Path | None:
    """The run folder that the first process of a distributed run has made; None in the first itself."""
    return Path(os.environ[_ENV]) if int(os.environ.get("LOCAL_RANK", "0")) > 0 and _ENV in os.environ else None


def recorded_command(run: Path) -> str | None:
    """The command that started a run, from the comment before its configuration; None for a run from Python."""
    with open(run / "config.yaml", encoding="utf-8") as file:
        first = file.readline()
    return first[2:].strip() if first.startswith("# hsfusion ") else None


def contradiction(run: Path, key: str, now: object, was: object) -> InputError:
    """The error of a setting that differs from that of the run to resume."""
    fix = f"leave {key} out, resume with the command that started the run, or start a new run"
    return InputError("command line", key, now, f"{was} as in {run}", fix)


def leaves(value: Any, key: str = "") -> dict[str, Any]:
    """Dotted key -> value of every entry that is not a mapping and affects what a run computes."""
    if key in FREE:
        return {}
    if not isinstance(value, dict):
        return {key: value}
    parts = [leaves(child, f"{key}.{name}" if key else str(name)) for name, child in value.items()]
    return {name: leaf for part in parts for name, leaf in part.items()}


def group_members(experiment: Experiment) -> tuple[list[str], NDArray[np.bool_]]:
    """Names and membership (G, C) of the groups of the network; one of all bands for the free convolution."""
    inside = experiment.network.fusion.membership.numpy()
    if experiment.network.fusion.kind == "free":
        return ["all"], inside
    names = [group.name for group in experiment.initial.groups]
    return [*names, *(name for name, _ in experiment.split.labelled.scene.sources)], inside


def write_rasters(class_map: NDArray[np.integer], experiment: Experiment, result: TrainingResult, folder: Path) -> None:
    """Writes map.tif from codes (H, W), confidence.tif, split.tif, and instance_weights.tif where weights differ.

    For joined scenes ``maps/`` gets a map of each, with its own georeferencing.
    """
    scene, legend = experiment.split.labelled.scene, experiment.split.labelled.legend
    geobox, nan = scene.geobox, float("nan")
    tags = {"hsfusion_version": __version__, "scene": scene.name}
    write_class_map(folder / "map.tif", class_map, legend=legend, geobox=geobox, tags=tags)
    if isinstance(scene, Mosaic):
        (folder / "maps").mkdir()
        for part, row, _ in scene.parts:
            height, width = part.geobox.shape
            codes = class_map[row : row + height, :width]
            path, tags_of_part = folder / "maps" / f"{part.name}.tif", {**tags, "scene": part.name}
            write_class_map(path, codes, legend=legend, geobox=part.geobox, tags=tags_of_part)
    write_raster(folder / "confidence.tif", result.confidence, geobox=geobox, nodata=nan, tags=tags)
    if result.instance_maps is not None:
        names, path = group_members(experiment)[0], folder / "instance_weights.tif"
        write_raster(path, result.instance_maps, geobox=geobox, nodata=nan, tags=tags, layer_names=names)
    roles = {f"role_{role}": name for role, name in enumerate(ROLES)}
    write_raster(folder / "split.tif", experiment.split.roles, geobox=geobox, tags=roles)


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    packages = ("torch", "lightning", "numpy", "rasterio", "hydra-core")
    return {"hsfusion": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}


def plain_values(value: Any) -> Any:
    """The values without NumPy types and tuples, and with None for numbers that JSON cannot represent."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file; numbers that are not finite become null."""
    write_file(path, json.dumps(plain_values(content), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a finished run."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        value = "unreadable" if path.exists() else "missing"
        raise InputError(path.parent, path.name, value, "that of a finished run", _FIX) from error


@contextmanager
def checked_keys(folder: Path | None) -> Iterator[None]:
    """Refuses the content of a run folder if a value is missing or wrong."""
    try:
        yield
    except (KeyError, TypeError) as error:
        value = f"incomplete ({printable(error)})"
        raise InputError(folder, "content", value, "that of a finished run", _FIX) from error
