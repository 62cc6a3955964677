"""One thread for each process of the tests, and what the long tests print, kept where HSFUSION_RESULTS says."""

import errno
import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch: sums are the same to the bit

_measured = []  # of the long tests: in the process that starts all others


@pytest.fixture
def undrawn(monkeypatch):
    """Has figures saved as placeholders, where they are not what a test is on."""
    from matplotlib.figure import Figure
    from placeholders import saving

    monkeypatch.setattr(Figure, "savefig", saving())


@pytest.fixture
def open_files_stay(monkeypatch):
    """Has files that this process holds open neither deleted nor replaced, as on Windows."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no list of open files")

    def guarded(action):
        def act(*paths, **options):
            for path in () if options else paths:  # an option is the folder of a relative path
                if Path(path).exists() and any(Path(path).samefile(held) for held in _held()):
                    raise PermissionError(errno.EACCES, "used by another process", str(path))
            return action(*paths, **options)

        return act

    for name in ("unlink", "remove", "rename", "replace"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))


def _held():
    return [held for held in Path("/proc/self/fd").iterdir() if held.exists()]


def pytest_runtest_setup(item):
    if item.get_closest_marker("posix") and not hasattr(os, "fork"):
        pytest.skip("forks, kills or limits processes")


def pytest_runtest_logreport(report):
    if "slow" in report.keywords and (report.when == "call" or report.skipped):
        row = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 1)}
        _measured.append({**row, "printed": report.capstdout.splitlines()})


def pytest_sessionfinish(session):
    folder = os.environ.get("HSFUSION_RESULTS")
    if not (folder and _measured) or hasattr(session.config, "workerinput"):
        return
    from hsfusion.benchmarks.comparisons import document
    from hsfusion.runs.folder import write_json

    rows = sorted(_measured, key=lambda row: row["test"])
    outcomes = [row["outcome"] for row in rows]
    summary = {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
    content = document(rows, summary=summary, command="scripts/test -m slow", configuration={})
    write_json(Path(folder) / f"slow_tests_{content['date'][:10]}.json", content)
