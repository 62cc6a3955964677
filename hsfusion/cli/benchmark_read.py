"""``hsfusion benchmark read``."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf

from hsfusion.errors import InputError
from hsfusion.scenes import Window
from hsfusion.scenes.rivals import ways_to_read, write_envi

_INTERLEAVES = ("bsq", "bil", "bip")


def measure(cfg: DictConfig) -> None:
    """Times reading a cube tile by tile, in turns with a raw read of its bytes; prints ratios, writes JSON."""
    if not isinstance(cfg.interleaves, ListConfig) or not set(cfg.interleaves) <= set(_INTERLEAVES):
        raise InputError(
            "command line",
            field="interleaves",
            value=cfg.interleaves,
            expected=f"a list of {', '.join(_INTERLEAVES)}",
            fix="interleaves=[bip]",
        )
    rows = []
    with tempfile.TemporaryDirectory(prefix="hsfusion-", dir=cfg.folder) as folder:
        for interleave in cfg.interleaves:
            rows.append({"interleave": interleave, **_row(cfg, Path(folder) / interleave, interleave)})
    names = list(rows[0]["times_raw"])
    print(f"{'':<6}" + "".join(f"{name:>18}" for name in names) + f"{'raw MB/s':>12}")
    for row in rows:
        values = "".join(f"{row['times_raw'][name]:>18.2f}" for name in names)
        print(f"{row['interleave']:<6}{values}{row['raw_megabytes_per_second']:>12.0f}")
    print(f"times of reading all {cfg.tile} x {cfg.tile} tiles, in multiples of reading the file's bytes once")
    if cfg.json is not None:
        result = {"config": OmegaConf.to_container(cfg, resolve=True), "interleaves": rows}
        Path(str(cfg.json)).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _row(cfg: DictConfig, path: Path, interleave: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    cube = rng.integers(0, 10_000, (cfg.bands, cfg.rows, cfg.columns), dtype=np.int16)
    write_envi(path, cube, interleave=interleave)
    tiles = [
        Window(row, col, min(cfg.tile, cfg.rows - row), min(cfg.tile, cfg.columns - col))
        for row in range(0, cfg.rows, cfg.tile)
        for col in range(0, cfg.columns, cfg.tile)
    ]
    buffer = bytearray(cube.nbytes)
    with ways_to_read(path) as ways:
        window = tiles[-1]
        wanted = cube[:, window.row :, window.col :]
        for name, read in ways.items():
            got = read(window)
            got = got.transpose(2, 0, 1) if name == "spectral" else got
            assert np.array_equal(got, wanted), f"{name} reads something else"
        del cube, wanted
        candidates: dict[str, Callable[[], object]] = {
            "raw": lambda: _read_raw(path, buffer),
            **{name: lambda read=read: [read(tile).shape for tile in tiles] for name, read in ways.items()},
        }
        seconds: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(cfg.repeats):
            for name, candidate in candidates.items():
                start = time.perf_counter()
                candidate()
                seconds[name].append(time.perf_counter() - start)
    path.unlink()
    median = {name: statistics.median(values) for name, values in seconds.items()}
    raw = median.pop("raw")
    return {
        "times_raw": {name: value / raw for name, value in median.items()},
        "raw_megabytes_per_second": len(buffer) / raw / 1e6,
        "seconds": seconds,
    }


def _read_raw(path: Path, buffer: bytearray) -> None:
    with open(path, "rb", buffering=0) as file:
        view = memoryview(buffer)
        while view:
            view = view[file.readinto(view) :]
