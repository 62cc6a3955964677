"""Opens hostile files with the commands that take them, in one process, and watches it: python watched.py FOLDER HOW

HOW is ``all`` (every file with each command, with and without TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1) or ``some`` (every
model with inspect, which starts fast, and a few files with each other command, every other one with that variable).
FOLDER gets the files, ``sound`` with an interrupted run and a model, and ``answers.json``: of each run its exit code,
processor seconds, what was printed, what an audit hook saw, and what was written.
"""

import contextlib
import importlib
import io
import json
import os
import pickle
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

SMALL = ("scene=synthetic", "scene.height=40", "scene.width=40", "groups.number=4", "split.block_pixels=8")
SMALL += ("model.channels=4", "model.width=8", "model.receptive_field=5", "trainer=cpu", "trainer.max_epochs=2")
SMALL += ("data.steps_per_epoch=5", "threads=1", "progress=false")
FORCE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_PROGRAMS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn")
_NETWORK = (
    "socket.__new__",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "urllib.Request",
    "webbrowser.open",
)
_REMOVED = ("os.remove", "os.rmdir", "shutil.rmtree")
_EVENTS = {*_PROGRAMS, *_NETWORK, *_REMOVED, "pickle.find_class"}
_OWN = str(Path(tempfile.gettempdir()) / "hsfusion-")
_EVERY = {"inspect": 1, "train": 12, "predict": 24, "finetune": 48, "weights": 24}  # of so many files one, for some
_seen: list[str] = []


@dataclass(frozen=True)
class Order:
    """A command on a file."""

    case: str
    command: str
    words: tuple[str, ...]
    path: str
    forced: bool


def _watch(event: str, arguments: tuple) -> None:
    ours = event in _REMOVED and str(arguments[0]).startswith(_OWN)  # folders that commands make and remove
    if event in _EVENTS and not ours:
        _seen.append(f"{event} {arguments!r}"[:200])


def words_for(command: str, path: Path) -> tuple[str, ...]:
    """The command line that gives a file to a command."""
    small = tuple(word for word in SMALL if not word.startswith(("model", "groups")))
    return {
        "train": ("train", *SMALL, f"resume='{path}'", "run_dir=new"),
        "predict": ("predict", f"run='{path}'", "scene=nowhere.img", "out=map.tif"),
        "finetune": ("finetune", f"pretrained='{path}'", *small, "run_dir=new"),
        "inspect": ("inspect", str(path), "--plot", "figures"),
        "weights": ("weights", str(path)),
    }[command]


def orders(folder: Path, how: str) -> list[Order]:
    """Writes all cases and names what is to be run."""
    from hsfusion.cli.main import COMMANDS
    from model_files import hostile_checkpoints, hostile_models

    with_models = [name for name in ("inspect", "predict", "finetune", "weights") if name in COMMANDS]
    models = hostile_models.cases((folder / "sound" / "model.safetensors").read_bytes())
    runs = hostile_checkpoints.cases(folder / "sound" / "run")
    named = [(case, with_models) for case in models] + [(case, ["train"]) for case in runs]
    found = []
    for i, (case, commands) in enumerate(named):
        at = folder / f"{i:03}"
        at.mkdir()
        path = case.write(at)
        for command in commands:
            turn, rest = divmod(i, 1 if how == "all" else _EVERY[command])
            forced = () if rest else (False, True) if how == "all" else (turn % 2 == 1,)
            found += [Order(case.name, command, words_for(command, path), str(path), force) for force in forced]
    return found


def run(order: Order, folder: Path) -> dict:
    """Runs one command as the console script does, in an empty folder."""
    from hsfusion.cli.main import main
    from model_files import payloads

    work = folder / "work"
    work.mkdir()
    os.chdir(work)
    os.environ.pop("HSFUSION_RUN_DIR", None)
    os.environ.pop(FORCE, None)
    os.environ.update({FORCE: "1"} if order.forced else {})
    out, error = io.StringIO(), io.StringIO()
    sys.argv = ["hsfusion", *order.words]
    _seen.clear()
    start = time.process_time()  # a busy machine is no fault of the command
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = main() if order.command != "unpickle" else pickle.loads(payloads.pickled(2)) and 0
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            code = traceback.format_exc()
    seconds, seen = time.process_time() - start, list(_seen)
    marker = Path(os.environ["HSFUSION_MARKER"])
    written = sorted(str(path.relative_to(work)) for path in work.rglob("*")) + [str(marker)] * marker.exists()
    marker.unlink(missing_ok=True)
    shutil.rmtree(work)
    told = {"code": code, "seconds": seconds, "out": out.getvalue(), "error": error.getvalue()}
    return {**asdict(order), **told, "seen": seen, "written": written}


def prepare(folder: Path) -> None:
    """Makes a model, and a run that was interrupted after its first epoch."""
    from hsfusion.cli import main
    from hsfusion.training.callbacks import History
    from model_files.hostile_models import sound_model

    sound = folder / "sound"
    sound.mkdir()
    sound_model(sound / "model.safetensors")
    before = History.on_train_epoch_end

    def stop(self, trainer, module) -> None:
        before(self, trainer, module)
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    History.on_train_epoch_end = stop
    sys.argv = ["hsfusion", "train", *SMALL, f"run_dir={sound / 'run'}"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(KeyboardInterrupt, SystemExit):
        main.main()
    History.on_train_epoch_end = before
    assert (sound / "run" / "checkpoints" / "last.ckpt").is_file(), "the run was not interrupted as planned"


def main(folder: Path, how: str) -> None:
    """Prepares, and runs them all."""
    for name in ("train", "session", "outputs", "resuming", "predict", "predict_outputs", "inspect_model"):
        importlib.import_module(f"hsfusion.cli.{name}")  # libraries may start programs when they are imported
    importlib.import_module("hsfusion.inference")
    importlib.import_module("hsfusion.training.model_file")
    prepare(folder)
    told = orders(folder, how)
    sys.addaudithook(_watch)
    answers = [run(order, folder) for order in [*sound(folder), *told]]
    (folder / "answers.json").write_text(json.dumps(answers))


def sound(folder: Path) -> list[Order]:
    """Files that are not hostile, and code that runs: what shows that the watch can tell them apart."""
    path, run = str(folder / "sound" / "model.safetensors"), str(folder / "sound" / "run")
    return [
        Order("sound", "inspect", ("inspect", path, "--plot", "figures"), path, False),
        Order("sound", "train", words_for("train", Path(run)), run, True),
        Order("sound", "unpickle", ("unpickle",), path, False),
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
