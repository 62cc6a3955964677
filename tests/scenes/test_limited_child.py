import os

import pytest

from hsfusion.errors import EnvironmentFailure
from hsfusion.scenes.formats.limited_child import run_limited

FREE = {"RLIMIT_CPU": 20}


def ran(folder, code, *words, limits=FREE, patience=600.0):
    script = folder / "script.py"
    script.write_text(code)
    return run_limited(str(script), folder / "file", *words, limits=limits, patience=patience)


def test_script_sees_the_file_and_the_further_words(tmp_path):
    code = "import pathlib, sys\nassert __name__ == '__main__'\npathlib.Path(sys.argv[1]).write_text(repr(sys.argv))"
    assert ran(tmp_path, code, "a b", '{"c": 1}') == (0, "exit code 0")
    told = (tmp_path / "file").read_text()
    assert told == repr([str(tmp_path / "script.py"), str(tmp_path / "file"), "a b", '{"c": 1}'])


@pytest.mark.parametrize(
    ("code", "want"),
    [
        ("import sys; sys.exit(28)", 28),
        ("raise ValueError", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -11),
        ("this is no Python", 1),
    ],
)
def test_every_end_of_the_process_is_told_and_nothing_is_printed(tmp_path, capfd, code, want):
    assert ran(tmp_path, f"import sys\nprint('noise'); print('noise', file=sys.stderr)\n{code}") == (
        want,
        f"exit code {want}",
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"RLIMIT_AS": 2**29}, "x = bytearray(2**30)"),
        ({"RLIMIT_DATA": 2**28}, "x = bytearray(2**29)"),
        ({"RLIMIT_FSIZE": 1000}, "import pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(bytes(2000))"),
        ({"RLIMIT_CPU": 1}, "import time\nwhile time.process_time() < 2: pass"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_limit_ends_what_is_beyond_it_and_nothing_below(tmp_path, limits, code):
    pytest.importorskip("resource")
    assert ran(tmp_path, code, limits=limits)[0] != 0
    assert ran(tmp_path, code)[0] == 0


def test_limit_above_that_of_the_user_keeps_that_of_the_user(tmp_path):
    resource = pytest.importorskip("resource")
    code = "import resource, sys\nprint(resource.getrlimit(resource.RLIMIT_CORE), end='', file=open(sys.argv[1], 'w'))"
    assert ran(tmp_path, code)[0] == 0
    assert (tmp_path / "file").read_text() == str((0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def test_process_that_only_waits_is_ended_by_the_clock(tmp_path):
    code, ending = ran(tmp_path, "import time; time.sleep(60)", patience=1.5)
    assert code != 0 and ending == "took more than 1.5 s"


def test_modules_beside_the_script_or_the_command_are_not_run(tmp_path, monkeypatch):
    for name in ("json", "runpy", "colorsys"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert ran(tmp_path, "import json, runpy, colorsys")[0] == 0


def test_libraries_get_one_thread_each(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert ran(tmp_path, "import os, sys; sys.exit(int(os.environ['OMP_NUM_THREADS']))")[0] == 1
    assert os.environ["OMP_NUM_THREADS"] == "8"


def test_process_that_does_not_start_is_no_fault_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", str(tmp_path / "nothing"))
    with pytest.raises(EnvironmentFailure, match="the process that reads it does not start"):
        ran(tmp_path, "")
