"""Running commands: in this process, or, where a process is the point, in one of their own.

``test_processes.py`` lists the tests that start a process.
"""

import io
import logging
import os
import re
import subprocess
import sys
import tempfile
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from placeholders import saving

from hsfusion.cli.main import main

_PACKAGE = Path(main.__code__.co_filename).parents[1]
SMALL = [
    "scene=synthetic",
    "scene.height=40",
    "scene.width=40",
    "groups.number=4",
    "split.block_pixels=8",
    "model.channels=4",
    "model.width=8",
    "model.receptive_field=5",
    "model.linear=false",
    "model.whitening=none",
    "select=[]",
    "baselines=[]",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "data.steps_per_epoch=5",
    "threads=1",
    "progress=false",
]


@pytest.fixture(scope="session")
def hsfusion():
    """Runs a command in this process, which it leaves as it was; gives what ``subprocess.run`` would give.

    Figures are placeholders unless ``drawn``, all or those of one kind. Warnings of libraries are shown as a console
    script shows them; those of hsfusion's own lines count as warnings of the test.
    """

    def command(*args, cwd, small=False, env=None, drawn=False):
        words = _words(args, small)
        with ExitStack() as stack:
            stack.enter_context(_process_state())
            read = stack.enter_context(_captured())
            own = stack.enter_context(_shown_warnings())
            if drawn is not True:
                stack.enter_context(mock.patch.object(Figure, "savefig", saving(drawn)))
            os.chdir(cwd)
            os.environ.update(env or {})
            sys.argv = words
            try:
                code = main()
            except SystemExit as ended:
                code = 0 if ended.code is None else ended.code
            stdout, stderr = read()
        for warning in own:
            warnings.warn_explicit(*warning)
        return subprocess.CompletedProcess(words, code, stdout, stderr)

    return command


@pytest.fixture(scope="session")
def hsfusion_process():
    """Runs the console script in a process of its own."""

    def command(*args, cwd, small=False, env=None):
        words = [str(Path(sys.executable).with_name("hsfusion")), *_words(args, small)[1:]]
        environment = {**os.environ, **(env or {})}
        return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment)

    return command


@pytest.fixture(scope="session")
def forked(hsfusion):
    """Starts a command in a copy of this process, which has imported everything; gives its number, to kill it."""

    def command(*args, **options):
        if not hasattr(os, "fork"):
            pytest.skip("no fork")
        if number := os.fork():
            return number
        code = 99
        try:
            code = hsfusion(*args, **options).returncode
        finally:
            os._exit(code)

    return command


@pytest.fixture(scope="session")
def run(hsfusion, tmp_path_factory):
    """The folder of a small training with its figures, made once and only to be read."""
    folder = tmp_path_factory.mktemp("run")
    done = hsfusion("train", "run_dir=run", cwd=folder, small=True, drawn=True)
    assert done.returncode == 0, done.stderr
    assert str(Path("run") / "map.tif") in done.stdout
    return folder / "run"


def _words(args, small):
    return ["hsfusion", *args[:1], *(SMALL if small else []), *args[1:]]


@contextmanager
def _process_state():
    """Restores what a command changes in its process, and has it log as in a new one."""
    folder, argv, path, environment = Path.cwd(), sys.argv, list(sys.path), dict(os.environ)
    loggers = [logging.root, *(x for x in logging.root.manager.loggerDict.values() if hasattr(x, "handlers"))]
    logs = [(log, log.level, log.propagate, log.disabled, list(log.handlers)) for log in loggers]
    threads, random_state = torch.get_num_threads(), torch.get_rng_state()
    hydra_config = HydraConfig.instance().cfg
    logging.root.handlers[:] = []  # those of pytest, beside which a message would not reach stderr
    logging.root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        os.chdir(folder)
        sys.argv, sys.path[:] = argv, path
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        for log, level, propagate, disabled, earlier in logs:
            for handler in set(log.handlers) - set(earlier):
                handler.close()
            log.handlers[:], log.propagate, log.disabled = earlier, propagate, disabled
            log.setLevel(level)
        torch.set_num_threads(threads)
        torch.set_rng_state(random_state)
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = hydra_config


@contextmanager
def _captured():
    """Captures the file descriptors 1 and 2, which C libraries and child processes write to, too; gives a reader."""
    streams, kept = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:

        def read():
            sys.stdout.flush()
            sys.stderr.flush()
            for file in (out, error):
                file.seek(0)
            return tuple(file.read().decode() for file in (out, error))

        for stream in streams:
            stream.flush()
        os.dup2(out.fileno(), 1)
        os.dup2(error.fileno(), 2)
        # never closed: log handlers that libraries make on import keep them
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "w", closefd=False), "utf-8") for n in (1, 2))
        sys.stderr.reconfigure(line_buffering=True)
        try:
            yield read
        finally:
            sys.stdout.flush()
            sys.stdout, sys.stderr = streams
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)


@contextmanager
def _shown_warnings():
    """The warning filters of a console script; gives the warnings of hsfusion's own lines, in arguments to repeat."""
    own = []

    def show(message, category, filename, lineno, file=None, line=None):
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))
        if Path(filename).is_relative_to(_PACKAGE):
            own.append((message, category, filename, lineno))

    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("always", module=re.escape("hsfusion."))
        warnings.simplefilter("ignore", ResourceWarning)  # told of the line that happens to run, whoever's file it is
        warnings.showwarning = show
        yield own
