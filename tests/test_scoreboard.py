"""The scoreboard of what is lost: its rows that start no training."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "scoreboard"


# kills in the save of a checkpoint, values that are masked, ranks that are lost
@pytest.mark.parametrize("row, number", [(1, 20), (12, 20), pytest.param(11, 2, marks=pytest.mark.slow)])
def test_row_is_full(row, number):
    done = subprocess.run([sys.executable, SCRIPT, str(row)], capture_output=True, text=True)
    assert done.stdout.startswith(f"{number:4} of {number:4}  Row {row}:"), done.stdout + done.stderr
