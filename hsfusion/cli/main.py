"""The console script: finds the command, and turns every failure into one line and an exit code."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable

from hsfusion import __version__
from hsfusion.errors import HsFusionError, InputError

COMMANDS = {
    "train": "fit a network to a scene; writes a run folder with weights, map and report",
    "benchmark": "measure and compare: hsfusion benchmark accuracy",
}
_HELP = """hsfusion: hyperspectral band fusion with learned band weights that can be trusted.

Usage: hsfusion COMMAND [key=value ...]

Commands:
{commands}

hsfusion COMMAND --help lists the keys of a command. HSFUSION_DEBUG=1 shows tracebacks.
Version {version}."""


def main() -> int:
    """Runs the command that ``sys.argv`` names.

    Returns:
        the exit code: 0, 2 input, 3 environment, 4 diverged run, 1 for what should not happen.
    """
    args = sys.argv[1:]
    if not args or args[0] in {"-h", "--help"}:
        width = max(map(len, COMMANDS)) + 2
        commands = "\n".join(f"  {name:<{width}}{text}" for name, text in COMMANDS.items())
        print(_HELP.format(commands=commands, version=__version__))
        return 0
    if args[0] == "--version":
        print(__version__)
        return 0
    return guarded(lambda: _dispatch(args))


def run_command(name: str) -> int:
    """Runs one command with the arguments of ``sys.argv``; what the files in scripts/ call."""
    return guarded(lambda: _dispatch([name, *sys.argv[1:]]))


def _dispatch(args: list[str]) -> None:
    command = args[0]
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, 1)
        raise InputError(
            "command line",
            field="command",
            value=repr(command),
            expected=", ".join(COMMANDS),
            fix=f"use {close[0] if close else 'one of these'}",
        )
    module = importlib.import_module(f"hsfusion.cli.{command}")
    # processes of a distributed run start this very file with the same arguments
    sys.argv = [str(module.__file__), *args[1:]]
    module.command()


def guarded(action: Callable[[], None]) -> int:
    """Runs an action and reports its failure in one line on stderr.

    Returns:
        the exit code.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        action()
    except HsFusionError as error:
        return _report(str(error), error.exit_code, error)
    except KeyboardInterrupt as error:
        return _report("interrupted.", 130, error)
    except MemoryError as error:
        return _report("memory is used up. Fix: use a smaller scene, batch or model.", 3, error)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM}
        return _report(f"{error.filename or 'disk'}: {error.strerror or error}.", 3 if full else 1, error)
    except Exception as error:
        from hsfusion.cli.messages import explain

        known = explain(error)
        if known is not None:
            return _report(known, 2, error)
        return _report(f"internal error: {type(error).__name__}: {error} (HSFUSION_DEBUG=1 shows where).", 1, error)
    return 0


def _report(message: str, code: int, error: BaseException) -> int:
    if os.environ.get("HSFUSION_DEBUG") == "1":
        traceback.print_exception(error)
    print("hsfusion: error: " + " ".join(message.split()), file=sys.stderr)
    return code


def _terminate(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)
