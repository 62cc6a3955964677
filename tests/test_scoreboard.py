"""The scoreboard of what is lost: its rows that start no training."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "scoreboard"


# kills in the save of a checkpoint, values that are masked; ranks that are lost
@pytest.mark.parametrize("rows", [{1: 20, 12: 20}, pytest.param({11: 2}, marks=pytest.mark.slow)])
def test_rows_are_full(rows):
    done = subprocess.run([sys.executable, SCRIPT, *map(str, rows)], capture_output=True, text=True)
    for row, number in rows.items():
        assert f"{number:4} of {number:4}  Row {row}:" in done.stdout, done.stdout + done.stderr
