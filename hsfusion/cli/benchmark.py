"""``hsfusion benchmark``: finds what to measure."""

from __future__ import annotations

import difflib
import importlib
import sys

from hsfusion.cli.hydra_app import run_app
from hsfusion.errors import InputError

KINDS = {
    "accuracy": "networks beside an SVM and a random forest on the same pixels, over several seeds",
    "sensors": "networks on a scene as other sensors would see it: would Sentinel-2 be enough?",
    "finetune": "fine-tuning beside training from scratch, on the same few labels",
    "evidence": "how stable and how faithful the band weights are, over seeds and resamples",
    "read": "reading a cube, beside a raw read of its bytes, rasterio and spectral",
    "predict": "pixels per second of predict, beside a loop over patches and the bare network",
    "fusion": "speed and memory of WeightedSum beside the plain expression",
}


def command() -> None:
    """Entry point of the command; its first word says what to measure."""
    kind = next((word for word in sys.argv[1:2] if "=" not in word and not word.startswith("-")), None)
    if kind is None and {"-h", "--help"} & set(sys.argv[1:]):
        print("Usage: hsfusion benchmark KIND [key=value ...]\n")
        print("\n".join(f"  {name:<10}{text}" for name, text in KINDS.items()))
        print("\nhsfusion benchmark KIND --help lists the keys of one.")
        return
    if kind not in KINDS:
        close = difflib.get_close_matches(kind or "", KINDS, 1)
        raise InputError(
            "command line",
            field="benchmark",
            value=kind,
            expected=" | ".join(KINDS),
            fix=f"hsfusion benchmark {close[0] if close else 'accuracy'}",
        )
    del sys.argv[1]
    module = importlib.import_module(f"hsfusion.cli.benchmark_{kind}")
    run_app(module.measure, f"benchmark_{kind}")
