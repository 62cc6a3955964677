"""A child process with limits, for libraries that damaged files can crash, keep busy for ever, or fill memory with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from hsfusion.errors import EnvironmentFailure
from hsfusion.scenes.formats import limited_main

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # each takes memory


def run_limited(script: str, path: Path, *words: str, limits: Mapping[str, int], patience: float) -> tuple[int, str]:
    """Runs a script of Python on a file, without input and output.

    Args:
        script: the script; it sees ``path`` and ``words`` as its arguments.
        path: the file.
        words: further arguments.
        limits: names of the module ``resource`` with the most that each may be; they bind where the platform has them.
        patience: seconds of the clock to wait, which bind everywhere.

    Returns:
        The exit code, and in words how the process ended: «exit code 3», «took more than 20 s».

    Raises:
        EnvironmentFailure: if the process does not start.
    """
    # -P: no module beside the script, or in the folder of the command, can take the place of a library
    command = [sys.executable, "-P", limited_main.__file__, json.dumps(dict(limits)), script, str(path), *words]
    silent = subprocess.DEVNULL
    try:
        code = subprocess.run(
            command,
            stdin=silent,
            stdout=silent,
            stderr=silent,
            env=os.environ | _ONE_THREAD,
            timeout=patience,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return -9, f"took more than {patience:g} s"
    except OSError as error:
        raise EnvironmentFailure(f"{path}: the process that reads it does not start: {error}.") from error
    return code, f"exit code {code}"
