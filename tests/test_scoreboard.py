"""The scoreboard of what is lost: its rows that start no training."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "scoreboard"


@pytest.mark.parametrize("row", [1, 12])  # kills in the save of a checkpoint, values that are masked
def test_row_is_full(row):
    done = subprocess.run([sys.executable, SCRIPT, str(row)], capture_output=True, text=True)
    assert done.stdout.startswith(f"  20 of   20  Row {row}:"), done.stdout + done.stderr
