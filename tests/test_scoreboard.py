"""The scoreboard of what is lost: its short version."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "scoreboard"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked, and disks mounted")
def test_all_rows_are_full():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    rows = re.findall(r"^ *(\d+) of +(\d+)  Row \d+:", done.stdout, re.MULTILINE)
    assert len(rows) == 13 and all(good == trials for good, trials in rows), done.stdout + done.stderr
