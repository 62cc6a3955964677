"""The environment of a checkout: .venv, with the versions that were tested together, on any system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
_CHECK = "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))"


def install(extra: str = "") -> None:
    """Creates .venv with Python 3.11 to 3.13 (the variable PYTHON chooses one), and installs hsfusion, with extras."""
    maker = os.environ.get("PYTHON", sys.executable)
    if subprocess.run([maker, "-c", _CHECK], check=False).returncode:
        fix = "use another: python3.12 scripts/install"
        print(f"hsfusion: error: {maker} is an unsupported Python, expected 3.11 to 3.13. Fix: {fix}.", file=sys.stderr)
        raise SystemExit(3)
    if not PYTHON.exists():
        run(maker, "-m", "venv", ".venv")
    quiet = ("--quiet", "--disable-pip-version-check")
    run(PYTHON, "-m", "pip", "install", *quiet, "-c", "constraints.txt", "-e", f".[{extra}]" if extra else ".")


def run(*words: str | Path) -> None:
    """Runs a program in the folder of the checkout, and ends with its exit code if that is not 0."""
    if code := subprocess.run([str(word) for word in words], cwd=ROOT, check=False).returncode:
        raise SystemExit(code)
