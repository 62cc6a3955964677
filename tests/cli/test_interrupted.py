"""Ctrl-C and other signals that stop a command: one line that says how to go on, and the exit code."""

import logging
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hsfusion.cli import main as cli
from hsfusion.errors import STOP_SIGNALS
from hsfusion.training.callbacks import History

from .conftest import SMALL


@pytest.fixture(autouse=True)
def heard():
    """Signals end these tests also under nohup, which has SIGHUP ignored."""
    ignored = [number for number in STOP_SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def stopped_by(number, words, monkeypatch, *, before=lambda: None):
    """Runs a command that gets a signal as soon as it starts; returns its exit code."""

    def dispatch(args):
        before()
        signal.raise_signal(number)

    monkeypatch.setattr(cli, "_dispatch", dispatch)
    monkeypatch.setattr(sys, "argv", ["hsfusion", *words])
    return cli.main()


@pytest.mark.parametrize(("number", "code"), [(number, 128 + number) for number in STOP_SIGNALS])
@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["train", "name=my run"], "Start again with: hsfusion train 'name=my run'"),
        (["weights", "a"], "Start again with: hsfusion weights a"),
        (["benchmark", "accuracy"], "Start again with: hsfusion benchmark accuracy"),
        (["benchmark", "evidence", "folder=e"], "Continue with: hsfusion evidence folder=e"),
        (["predict", "run=r", "scene=a.img"], "Continue with: hsfusion predict run=r scene=a.img"),
    ],
)
def test_signal_ends_in_one_line_with_the_command_that_goes_on(monkeypatch, capsys, number, code, words, advice):
    before = [signal.getsignal(one) for one in STOP_SIGNALS]
    assert stopped_by(number, words, monkeypatch) == code
    assert capsys.readouterr() == ("", f"hsfusion: interrupted. {advice}\n")
    assert [signal.getsignal(one) for one in STOP_SIGNALS] == before
    assert sys.argv == ["hsfusion", *words]


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK"])
def test_other_processes_of_a_distributed_run_say_nothing(monkeypatch, capsys, rank):
    monkeypatch.setenv(rank, "1")
    assert stopped_by(signal.SIGTERM, ["train"], monkeypatch) == 143
    assert capsys.readouterr() == ("", "")


def test_second_signal_ends_the_process_at_once(monkeypatch):
    class Ended(BaseException):
        pass

    def end(code):
        raise Ended(code)

    def twice(args):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(cli, "_dispatch", twice)
    monkeypatch.setattr(sys, "argv", ["hsfusion", "train"])
    with pytest.raises(Ended, match="143"):
        cli.main()


@pytest.mark.posix
def test_streams_that_nobody_reads_do_not_matter():
    code = (
        "import os, signal, sys, hsfusion.cli.main as cli\n"
        "def dispatch(args):\n"
        "    print('a line')\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "cli._dispatch = dispatch\n"
        "sys.argv = ['hsfusion', 'train']\n"
        "sys.exit(cli.main())\n"
    )
    command = shlex.join([sys.executable, "-c", code])
    env = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    full = ["2> /dev/full"] if Path("/dev/full").exists() else []
    for closed in (">&- 2>&-", *full, ">&-", "2>&-"):
        done = subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, text=True, env=env)
        assert done.returncode == 130, closed
        assert "Traceback" not in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    assert subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=writer, env=env).returncode == 130
    helped = subprocess.run(
        [sys.executable, "-m", "hsfusion", "--help"], stdout=writer, stderr=subprocess.PIPE, env=env
    )
    assert (helped.returncode, helped.stderr) == (0, b"")


@pytest.fixture
def root_log():
    """Puts the log back to what it was, as a process that ends does; called, it closes the files of a run."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def close():
        for handler in root.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.close()

    yield close
    close()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize("place", ["", "elsewhere"])
def test_interrupted_training_names_the_command_that_resumes_it(root_log, monkeypatch, capsys, tmp_path, place):
    monkeypatch.chdir(tmp_path)
    moved = [f"hydra.run.dir={place}", "hydra.job.chdir=true"] if place else []
    start = History.on_train_epoch_start

    def stop(self, trainer, module):
        if trainer.current_epoch == 1:
            signal.raise_signal(signal.SIGTERM)
        start(self, trainer, module)

    monkeypatch.setattr(History, "on_train_epoch_start", stop)
    monkeypatch.setattr(sys, "argv", ["hsfusion", "train", *SMALL, "run_dir=Läufe, 1", "--config-dir=.", *moved])
    assert cli.main() == 143
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hsfusion: interrupted. Continue with: hsfusion train --config-dir=. scene=synthetic ")
    words = shlex.split(line.partition("with: ")[2])
    assert words[-1] == f"resume={tmp_path / place / 'Läufe, 1' if place else 'Läufe, 1'}"
    root_log()
    monkeypatch.setattr(History, "on_train_epoch_start", start)
    monkeypatch.setattr(sys, "argv", words)
    assert cli.main() == 0
    assert list(Path("runs/synthetic").glob("*/metrics.json"))
