import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = [
    "scene=synthetic",
    "scene.height=40",
    "scene.width=40",
    "groups.number=4",
    "split.block_pixels=8",
    "model.channels=4",
    "model.width=8",
    "model.receptive_field=5",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "data.steps_per_epoch=5",
    "threads=1",
    "progress=false",
]


@pytest.fixture(scope="session")
def hsfusion():
    """Runs the console script in a process of its own."""

    def run(*args, cwd, small=False, env=None, **more):
        script = Path(sys.executable).with_name("hsfusion")
        words = [str(script), *args[:1], *(SMALL if small else []), *args[1:]]
        return subprocess.run(
            words, cwd=cwd, capture_output=True, text=True, timeout=300, env={**os.environ, **(env or {})}, **more
        )

    return run
