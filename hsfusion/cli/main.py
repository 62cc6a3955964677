"""The console script: finds the command, and turns every failure into one line and an exit code."""

from __future__ import annotations

import errno
import importlib
import io
import logging
import os
import shlex
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable

from hsfusion import __version__
from hsfusion.errors import STOP_SIGNALS, HsFusionError, InputError, correction, is_first_process, printable

COMMANDS = {
    "train": "fit a network to a scene; writes a run folder with weights, map and report",
    "finetune": "transfer a trained network to a new scene, sensor or set of classes, and train it further",
    "predict": "classify a scene of any size with a trained model into a georeferenced map",
    "weights": "plot and compare the band weights of runs, and choose bands: hsfusion weights RUN [RUN ...]",
    "inspect": "show what a file holds and what looks wrong with it: hsfusion inspect FILE",
    "evidence": "train over seeds and draws of training pixels, and judge the weights: hsfusion evidence folder=FOLDER",
    "benchmark": "measure: benchmark accuracy | finetune | sensors | train | read | predict | fusion",
    "completion": "print a script that completes commands and keys: hsfusion completion bash | zsh | fish",
}
COMMAND = "HSFUSION_COMMAND"  # environment variable with its name, for the processes of a distributed run
# command -> module, where it has another name. One named inspect would hide Python's own from every file that is run
# beside it, as in a distributed run.
_MODULES = {"inspect": "pages", "weights": "pages", "evidence": "benchmark"}
_MODULES |= dict.fromkeys(("train", "finetune", "predict"), "commands")
# what the machine, not the input, is to blame for
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM}
_MACHINE |= {errno.EEXIST, errno.ENOTDIR}  # a file where a folder has to be
# a process that was killed: joblib's word, and submitit's
_LOST = {"TerminatedWorkerError", "FailedJobError", "UncompletedJobError"}
_HELP = """hsfusion: hyperspectral band fusion with learned band weights that can be trusted.

Usage: hsfusion COMMAND [key=value ...]

Commands:
{commands}

hsfusion COMMAND --help lists the keys of a command. HSFUSION_DEBUG=1 shows tracebacks.
Version {version}."""


def main() -> int:
    """Runs the command that ``sys.argv`` names, and returns its exit code."""
    args = sys.argv[1:]
    if args and args[0] not in {"-h", "--help", "--version"}:
        return _run(args)
    commands = "\n".join(f"  {name:<11}{text}" for name, text in COMMANDS.items())
    text = __version__ if args[:1] == ["--version"] else _HELP.format(commands=commands, version=__version__)
    return guarded(lambda: print(text, flush=True))


def run_command(name: str) -> int:
    """Runs one command with the arguments of ``sys.argv``; what the files in scripts/ call."""
    return _run([name, *sys.argv[1:]])


def shown(*words: str) -> str:
    """A command as a user of this system types it; cmd.exe does not know single quotes."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


class Interrupted(SystemExit):
    """A signal that ends a command, with its exit code."""

    advice: str | None = None  #: how to continue, as a sentence; None for the same command
    continues = False  #: whether the same command continues


def _run(args: list[str]) -> int:
    """Runs a command to its end, or to the first signal that stops it; a second signal ends the process at once."""
    received: list[int] = []
    args = args[1:] if args[:2] == ["benchmark", "evidence"] else args  # its former name

    def terminate(number: int, frame: object) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        raise Interrupted(128 + number)

    argv, handlers = sys.argv, {}
    try:
        for number in STOP_SIGNALS:  # Lightning would end with 0 and 1
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:  # as nohup does
                handlers[number] = signal.signal(number, terminate)
        return guarded(lambda: _dispatch(args))
    except Interrupted as interruption:
        if is_first_process():
            continues = interruption.continues or args[0] in ("predict", "evidence")
            same = f"{'Continue' if continues else 'Start again'} with: {shown('hsfusion', *args)}"
            _tell(f"hsfusion: interrupted. {interruption.advice or same}")
        return 128 + received[0]
    finally:
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _tell(line: str) -> None:
    """Writes a line to stderr. Where it, or stdout, is closed, nothing more is written there, nor at the exit."""
    for stream, text in ((sys.stdout, ""), (sys.stderr, f"{line}\n")):
        try:
            stream.write(text)
            stream.flush()
        except (AttributeError, ValueError):  # closed before the start: Python has no stream then
            continue
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _dispatch(args: list[str]) -> None:
    command = args[0]
    if command not in COMMANDS:
        fix = correction(command, COMMANDS, "use one of these")
        raise InputError("command line", "command", repr(command), ", ".join(COMMANDS), fix)
    module = importlib.import_module(f"hsfusion.cli.{_MODULES.get(command, command)}")
    os.environ[COMMAND] = command
    # processes of a distributed run start this very file with the same arguments
    # (flags first: Hydra's parser wants the overrides in one piece, and not as the value of --info)
    overrides = [word for word in args[1:] if "=" in word and not word.startswith("-")]
    flags = [word for word in args[1:] if word not in overrides]
    sys.argv = [str(module.__file__), *flags, *(["all"] if flags[-1:] == ["--info"] else []), *overrides]
    module.command()


def guarded(action: Callable[[], None]) -> int:
    """Runs an action and reports its failure, see :func:`report`; returns the exit code."""
    os.environ.setdefault("GDAL_CACHEMAX", "512")  # MB; its own choice grows with the machine
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # its errors come as exceptions
    os.environ.setdefault("PYTHONIOENCODING", ":backslashreplace")  # of workers: pipes of Windows lack letters
    if isinstance(sys.stdout, io.TextIOWrapper):  # None where it is closed
        sys.stdout.reconfigure(errors="backslashreplace", newline="\n")  # the bash of Git reads no CRLF
    try:
        action()
        return 0
    except Exception as error:
        return report(error)


def report(error: Exception) -> int:
    """Writes an error in one line on stderr; returns the exit code."""
    if isinstance(error, BrokenPipeError):  # the reader of the output has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if os.environ.get("HSFUSION_DEBUG") == "1":
        traceback.print_exception(error)
    message, code = _explained(error)
    if is_first_process() or COMMAND not in os.environ:  # else train.log has it, and the first names the rank
        _tell("hsfusion: error: " + printable(" ".join(message.split()), longest=None))
    return code


def _explained(error: Exception) -> tuple[str, int]:
    for expected in (error, error.__cause__):  # Hydra wraps what a constructor raises
        if isinstance(expected, HsFusionError):
            return str(expected), expected.exit_code
    from hsfusion.cli.app import explain

    if (known := explain(error)) is not None:  # some of Hydra's errors are OSErrors
        return known, 2
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the second is torch's
        return "out of memory. Fix: use a smaller scene, batch or model.", 3
    if type(error).__name__ in _LOST:
        return "a worker process was killed, perhaps for lack of memory. Fix: run fewer processes at once.", 3
    if isinstance(error, OSError) and error.errno in _MACHINE:
        return f"{error.filename or 'disk'}: {error.strerror}. Fix: free space, or choose a folder you may write to.", 3
    return f"internal error: {type(error).__name__}: {error} (HSFUSION_DEBUG=1 shows where).", 1
