"""The scoreboard of what is lost: its row of kills, which starts no training."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "scoreboard"


def test_kills_in_the_save_of_a_checkpoint_leave_it_whole():
    done = subprocess.run([sys.executable, SCRIPT, "1"], capture_output=True, text=True)
    assert done.stdout.startswith(" 20 of  20  Row 1"), done.stdout + done.stderr
