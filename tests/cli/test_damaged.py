"""Damaged and lying inputs, each through the real command in a process of its own, without network."""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from scene_files import envi
from scene_files.cases import Case, inspected
from scene_files.damaged import cases

pytestmark = pytest.mark.posix
HERE = Path(__file__).parent
SCRIPT = Path(sys.executable).with_name("hsfusion")
MOST_MEMORY = 10**9
PATIENCE_SECONDS = 60  # after which a command is killed, and so ends in no line
CASES = cases()


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code, negative for a signal.
        wall: seconds of the clock.
        processor: seconds of processor time, child processes included.
        memory: most bytes that it, or one of its child processes, ever took.
        out: what it printed.
        error: what it printed on stderr.
        files: names of the files in its folder.
    """

    code: int
    wall: float
    processor: float
    memory: int
    out: str
    error: str
    files: tuple[str, ...]


def run(words: Sequence[str], folder: Path) -> Ended:
    """Runs a command in a folder, without network."""
    log = folder.with_suffix(".network")
    places = [str(HERE / "no_network"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "HSFUSION_NETWORK_LOG": str(log)}
    measure = [sys.executable, "-I", "-S", str(HERE / "measured_run.py"), str(PATIENCE_SECONDS), str(folder)]
    done = subprocess.run([*measure, *words], env=environment, capture_output=True, text=True, check=True)
    out, error = (folder.with_suffix(end).read_text() for end in (".out", ".err"))
    error += f"network: {log.read_text()}" if log.exists() else ""
    return Ended(**json.loads(done.stdout), out=out, error=error, files=tuple(file.name for file in folder.iterdir()))


def run_case(case: Case, folder: Path) -> Ended:
    folder.mkdir()
    return run([str(SCRIPT), *case.make(folder)], folder)


def broken(case: Case, ended: Ended) -> list[str]:
    """What of the contract does not hold."""
    line = ended.error
    held = {
        f"exit code {ended.code}": ended.code == 2,
        "not one line": line.count("\n") == 1 and line.endswith("\n"),
        "not a line of the contract": line.startswith("hsfusion: error: ")
        and ", expected " in line
        and "Fix: " in line,
        "a traceback": "Traceback" not in line and "internal error" not in line,
        "something on stdout": not ended.out,
        "the file or field is not named": case.says in line if case.says else any(name in line for name in ended.files),
        "the network": "network: " not in line and "code -31" not in line,  # a child process ended by the filter
        f"{ended.memory / 1e6:.0f} MB": ended.memory < MOST_MEMORY,
    }
    return [what for what, holds in held.items() if not holds]


def run_all(chosen: Sequence[Case], folder: Path) -> list[Ended]:
    """Runs cases on every core."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(run_case, chosen, [folder / f"{i:04}" for i in range(len(chosen))]))


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import urllib.request as request; request.urlopen('http://127.0.0.1:9')",
        "import subprocess, sys; subprocess.run([sys.executable, '-P', '-c', 'import socket; socket.socket()'])",
    ],
)
def test_network_is_out_of_reach_and_attempts_are_seen(tmp_path, code):
    (tmp_path / "run").mkdir()
    assert "network: " in run([sys.executable, "-c", code], tmp_path / "run").error


@pytest.mark.skipif(sys.platform != "linux", reason="the filter of system calls is one of Linux")
def test_network_is_out_of_reach_of_libraries_in_c(tmp_path):
    (tmp_path / "run").mkdir()
    code = "import ctypes; ctypes.CDLL(None).socket(2, 1, 0)"
    assert run([sys.executable, "-c", code], tmp_path / "run").code == -signal.SIGSYS


def test_measure_sees_memory_and_time_of_child_processes(tmp_path):
    (tmp_path / "run").mkdir()
    child = "import time; x = bytearray(300_000_000)\nwhile time.process_time() < 0.5: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    ended = run([sys.executable, "-c", code], tmp_path / "run")
    assert 300e6 < ended.memory < 400e6
    assert ended.processor > 0.4
    assert ended.code == 0


def test_case_that_is_not_damaged_would_be_seen(tmp_path):
    good = inspected("none", "good", envi.write)
    found = broken(good, run_case(good, tmp_path / "good"))
    assert "exit code 0" in found and "something on stdout" in found


def test_every_case_has_a_name_of_its_own_and_there_are_enough():
    assert len({(case.kind, case.name) for case in CASES}) == len(CASES) >= 250


def test_one_input_of_each_kind_ends_in_one_line(tmp_path):
    first = {case.kind: case for case in reversed(CASES) if case.kind != "training"}
    chosen = list(first.values())[::2]
    ended = run_all(chosen, tmp_path)
    wrong = [(case.kind, case.name, broken(case, one)) for case, one in zip(chosen, ended, strict=True)]
    assert [entry for entry in wrong if entry[2]] == []


@pytest.mark.slow
def test_every_damaged_or_lying_input_ends_in_one_line(tmp_path):
    """Prints a summary with ``pytest -m slow -rP tests/cli/test_damaged.py``."""
    results = list(zip(CASES, run_all(CASES, tmp_path), strict=True))
    kinds: dict[str, list[Ended]] = defaultdict(list)
    for case, ended in results:
        for kind in (case.kind, *(["all but training"] if case.kind != "training" else [])):
            kinds[kind].append(ended)
    print("| kind | inputs | slowest, s | most processor time, s | most memory, MB |\n|---|---|---|---|---|")
    for kind, ends in sorted(kinds.items(), key=lambda entry: len(entry[1])):
        most = [max(getattr(end, name) for end in ends) for name in ("wall", "processor", "memory")]
        print(f"| {kind} | {len(ends)} | {most[0]:.1f} | {most[1]:.1f} | {most[2] / 1e6:.0f} |")
    wrong = [
        (case.kind, case.name, found, ended.error[:300]) for case, ended in results if (found := broken(case, ended))
    ]
    print(*wrong, sep="\n")
    assert wrong == []
