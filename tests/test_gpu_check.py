"""The check of a GPU, on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check"


@pytest.mark.slow
def test_check_runs_from_end_to_end_on_the_cpu_and_wants_a_gpu_otherwise(tmp_path):
    words = [sys.executable, SCRIPT, "--json", tmp_path / "gpu.json"]
    done = subprocess.run([*words, "--device", "cpu", "--small"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["training"] for row in measured["runs"]] == ["float32", "bfloat16 mixed", "float32, compiled"]
    assert [row["compiled_graphs"] > 0 for row in measured["runs"]] == [False, False, True]
    assert all(row["samples_per_second"]["bare"] > 0 for row in measured["runs"])
    assert measured["summary"]["equal_pixels"] == 1
    assert measured["summary"]["copied_bytes_per_second"] > measured["summary"]["predicted_bytes_per_second"] > 0
    if not torch.cuda.is_available():
        done = subprocess.run(words, capture_output=True, text=True)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert "no GPU is visible, expected one" in done.stderr
