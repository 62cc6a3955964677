"""Model files and checkpoints of strangers: nothing in them is executed, and each ends in one line."""

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from model_files import watched

from .test_damaged import SCRIPT, run

TESTS = Path(__file__).parents[1]
MOST_SECONDS, MOST_MEMORY = 5, 2 * 10**9


def watch(folder: Path, how: str) -> list[dict]:
    places = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "HSFUSION_MARKER": str(folder / "marker")}
    words = [sys.executable, watched.__file__, str(folder), how]
    subprocess.run(words, env=environment, check=True, timeout=1200)
    return json.loads((folder / "answers.json").read_text())


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    return watch(tmp_path_factory.mktemp("hostile"), "some")


def broken(answer: dict) -> list[str]:
    """What of the contract does not hold."""
    line = answer["error"]
    held = {
        f"exit code {answer['code']}": answer["code"] == 2,
        "not one line": line.count("\n") == 1 and line.endswith("\n"),
        "not a line of the contract": line.startswith("hsfusion: error: ")
        and ", expected " in line
        and "Fix: " in line,
        "a traceback": "Traceback" not in line and "internal error" not in line,
        "control characters": line[:-1].isprintable(),
        "too long": len(line) < 1000,
        "something on stdout": not answer["out"],
        "another file is blamed": answer["path"] in line,
        f"something was done: {answer['seen']}": not answer["seen"],
        f"something was written: {answer['written']}": not answer["written"],
        f"{answer['seconds']:.1f} s": answer["seconds"] < MOST_SECONDS,
    }
    return [what for what, holds in held.items() if not holds]


def wrong_of(answers: list[dict]) -> list[tuple]:
    told = [(a["case"], a["command"], a["forced"], found, a["error"][:300]) for a in answers if (found := broken(a))]
    print(*told, sep="\n")
    return told


def hostile(answers: list[dict]) -> list[dict]:
    return [answer for answer in answers if answer["case"] != "sound"]


def test_files_that_are_not_hostile_pass_and_code_that_runs_is_seen(answers):
    inspected, resumed, unpickled = (answer for answer in answers if answer["case"] == "sound")
    assert (inspected["code"], inspected["error"]) == (0, "")
    assert "checksum          matches" in inspected["out"] and "figures/band_weights.png" in inspected["written"]
    assert (resumed["code"], resumed["error"]) == (0, "")
    assert "new/model.safetensors" in resumed["written"]
    assert any(event.startswith("os.system") for event in unpickled["seen"])
    assert any(event.startswith("pickle.find_class") for event in unpickled["seen"])
    assert any(name.endswith("marker") for name in unpickled["written"])


def test_no_hostile_file_is_executed_and_each_ends_in_one_line(answers):
    assert wrong_of(hostile(answers)) == []


def test_there_are_enough_of_every_kind(answers):
    kinds = Counter(name.partition(":")[0] for name in {answer["case"] for answer in hostile(answers)})
    assert sum(kinds.values()) >= 60
    assert min(kinds[kind] for kind in ("header", "tensors", "bytes", "code")) >= 10
    assert {answer["command"] for answer in answers} >= {"train", "predict", "inspect"}
    assert {answer["forced"] for answer in answers} == {False, True}


@pytest.mark.slow
def test_every_hostile_file_through_every_command_with_and_without_the_unsafe_default(tmp_path):
    answers = hostile(watch(tmp_path, "all"))
    seconds = max(answer["seconds"] for answer in answers)
    print(f"{len({a['case'] for a in answers})} files, {len(answers)} runs, the slowest {seconds:.1f} s")
    assert wrong_of(answers) == []


@pytest.mark.slow
def test_every_hostile_file_in_a_process_of_its_own_without_network(tmp_path):
    (tmp_path / "own").mkdir()
    orders = {}
    for answer in (a for a in hostile(watch(tmp_path, "all")) if not a["forced"]):
        orders.setdefault(answer["case"], []).append(answer)
    chosen = [runs[i % len(runs)] for i, runs in enumerate(orders.values())]  # one command for each file

    def run_one(order: dict) -> tuple[str, list[str], str]:
        folder = tmp_path / "own" / Path(order["path"]).relative_to(tmp_path).parts[0]
        folder.mkdir()
        ended = run([str(SCRIPT), *order["words"]], folder)
        line = ended.error
        held = {
            f"exit code {ended.code}": ended.code == 2,
            "not one line": line.count("\n") == 1 and line.startswith("hsfusion: error: "),
            "network": "network: " not in line,
            f"{ended.memory / 1e6:.0f} MB": ended.memory < MOST_MEMORY,
            f"written: {ended.files}": not ended.files,
        }
        return order["case"], [what for what, holds in held.items() if not holds], line[:300]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        told = [entry for entry in pool.map(run_one, chosen) if entry[1]]
    print(*told, sep="\n")
    assert told == []
