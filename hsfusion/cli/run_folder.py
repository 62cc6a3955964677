"""Run folders, each made by exactly one run."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from datetime import datetime
from logging.handlers import MemoryHandler
from pathlib import Path

from hsfusion.errors import EnvironmentFailure, InputError, printable

_ENV = "HSFUSION_RUN_DIR"


def is_folder_name(name: str) -> bool:
    """Whether a name is that of one folder inside another, on any system."""
    return name.isprintable() and not set(name) & set('/\\:*?"<>|') and name.strip() not in ("", ".", "..")


def check_name(name: object) -> None:
    """Makes sure that the folder of a run lies inside ``runs/``.

    Raises:
        InputError: if its name leads elsewhere, or cannot be that of a folder.
    """
    if not is_folder_name(str(name)):
        expected = 'a name that one folder can have, without / \\ : * ? " < > | and control characters'
        raise InputError("command line", field="name", value=name or "empty", expected=expected, fix="add name=WORD")


def make_run_folder(name: str, run_dir: str | None) -> Path:
    """Makes a new run folder.

    Args:
        name: name of the run.
        run_dir: the folder to use; None makes ``runs/<name>/<date-time-ms>-<4 hex>``.

    Raises:
        InputError: if ``run_dir`` exists and is not empty.
        EnvironmentFailure: if the folder cannot be made.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) > 0 and _ENV in os.environ:
        return Path(os.environ[_ENV])  # another process of one distributed run
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]
    path = Path(str(run_dir)) if run_dir else Path("runs") / str(name) / f"{now}-{secrets.token_hex(2)}"
    try:
        if run_dir and path.is_dir() and not any(path.iterdir()):
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


class _LineFormatter(logging.Formatter):
    """Shows each message in one line, whatever names are in it; tracebacks follow as they are."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record), longest=None)


def start_log() -> MemoryHandler:
    """Shows warnings on stderr and remembers everything for :func:`log_to`, which knows the folder later."""
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    for handler in list(root.handlers):
        root.removeHandler(handler)
    screen = logging.StreamHandler(sys.stderr)
    screen.setLevel(logging.WARNING)
    screen.setFormatter(_LineFormatter("hsfusion: %(message)s"))
    memory = MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1)
    root.addHandler(screen)
    root.addHandler(memory)
    return memory


def log_to(path: Path, memory: MemoryHandler) -> None:
    """Sends the log, from its beginning, to ``train.log`` in a run folder."""
    file = logging.FileHandler(path / "train.log", encoding="utf-8")
    file.setFormatter(_LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    memory.setTarget(file)
    memory.flush()
    logging.getLogger().removeHandler(memory)
    logging.getLogger().addHandler(file)
