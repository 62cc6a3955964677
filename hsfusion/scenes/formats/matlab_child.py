"""What the child process of :mod:`hsfusion.scenes.formats.matlab` runs; it imports nothing of this package.

Called with the arguments FILE FOLDER TASK, TASK as JSON, inside limits. Lists the variables of a MATLAB 5 file in
``FOLDER/answer.json``, and writes the one that is meant to ``FOLDER/array``: raw little-endian numbers, the first index
running fastest. A file that cannot be read ends the process in any way it likes; the parent trusts the answer only.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

NO_ROOM = 28  # exit code, where the folder is full
_BYTES = {"logical": 1, "single": 4, "double": 8} | {f"{s}int{8 * n}": n for n in (1, 2, 4, 8) for s in ("", "u")}


def main(file: str, folder: Path, task: dict[str, Any]) -> None:
    """Answers for one file."""
    from scipy.io import loadmat, whosmat  # not above: the parent imports this module too

    variables = [
        (name, [int(length) for length in shape], kind) for name, shape, kind in whosmat(file, appendmat=False)
    ]
    answer: dict[str, Any] = {
        "arrays": [[name, shape] for name, shape, kind in variables if kind in _BYTES],
        "others": [[name, kind] for name, _, kind in variables if kind not in _BYTES],
    }
    wanted = task["variable"]
    meant = [
        (name, math.prod(shape) * _BYTES[kind])
        for name, shape, kind in variables
        if kind in _BYTES
        and len(shape) in (2, 3)
        and min(shape) > 0  # as choose_array has it
        and (name == wanted if wanted is not None else min(shape[:2]) > 1)
    ]
    array = None
    if len(meant) == 1:
        (name, answer["nbytes"]) = meant[0]
        if answer["nbytes"] <= task["nbytes"]:
            # numbers keep the type that they are stored in, which may be smaller than that of the array
            array = loadmat(file, appendmat=False, variable_names=[name], mat_dtype=False)[name]
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            answer |= {"variable": name, "dtype": array.dtype.str, "shape": list(array.shape)}
    try:
        if array is not None:
            array.T.tofile(folder / "array")
        (folder / "answer.json").write_text(json.dumps(answer))
    except OSError:
        sys.exit(NO_ROOM)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
