"""What the process of :mod:`hsfusion.scenes.formats.limited_child` runs; it imports nothing of this package.

Called as ``python limited_main.py LIMITS SCRIPT ARGUMENT...``, LIMITS as JSON. Limits itself, and becomes the script.
"""

from __future__ import annotations

import json
import runpy
import sys


def main() -> None:
    """Takes its own arguments away and runs the script."""
    limits, script = json.loads(sys.argv[1]), sys.argv[2]
    _limit_this_process(limits | {"RLIMIT_CORE": 0})
    sys.argv = sys.argv[2:]
    runpy.run_path(script, run_name="__main__")


def _limit_this_process(limits: dict[str, int]) -> None:
    """Bounds memory, processor time and the size of files, as far as the platform can."""
    try:
        import resource
    except ImportError:  # Windows; the parent does not wait for ever
        return
    for name, most in limits.items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        try:
            resource.setrlimit(which, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
        except (ValueError, OSError):  # macOS has no bound of the address space
            continue


if __name__ == "__main__":
    main()
