"""Runs a command without network and prints as JSON how it ended: python measured_run.py SECONDS FOLDER WORD ...

A script of its own, and a small one: the most memory that a process ever took counts that of who started it.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(seconds: float, folder: Path, words: list[str]) -> None:
    """Runs the words in a folder, killed after so many seconds; wait4 counts the processes that they start, too."""
    with open(folder.with_suffix(".out"), "w") as out, open(folder.with_suffix(".err"), "w") as error:
        os.chdir(folder)
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(error.fileno(), 2)
            os.execv(words[0], words)
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(pid, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, seconds)
        _, status, used = os.wait4(pid, 0)
    print(
        json.dumps(
            {
                "code": os.waitstatus_to_exitcode(status),
                "wall": time.monotonic() - start,
                "processor": used.ru_utime + used.ru_stime,
                "memory": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            }
        )
    )


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]).resolve(), sys.argv[3:])
