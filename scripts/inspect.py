"""``hsfusion inspect`` from a checkout.

Scripts here find this file where they look for Python's own module ``inspect``: it steps aside.
"""

import os
import sys

_HERE = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 (pathlib may import what this file stands before)
sys.path[:] = [folder for folder in sys.path if os.path.realpath(folder) != _HERE]

if __name__ == "__main__":
    from hsfusion.cli.main import run_command

    raise SystemExit(run_command("inspect"))

if __name__ == "inspect":
    del sys.modules["inspect"]
    import inspect  # noqa: F401 (Python's own, which takes this one's place)
