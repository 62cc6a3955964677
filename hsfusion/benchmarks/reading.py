"""Reading a cube tile by tile, beside a raw read of its bytes, rasterio and spectral; and how work is timed.

Each benchmark of speed is a frozen dataclass of what is measured, and each of its fields is a key of the configuration.
``measure`` gives plain values; ``table`` gives lines of text that show them.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow
from spectral.io import envi

from hsfusion.errors import EnvironmentFailure
from hsfusion.runs.settings import Settings, refusal, within
from hsfusion.scenes import Window
from hsfusion.scenes.formats.registry import open_cube_file

INTERLEAVES = ("bsq", "bil", "bip")
_CODES = {"int16": 2, "uint16": 12, "float32": 4}
_AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}

Read = Callable[[Window], NDArray]
Work = Callable[[], object]


def timed(
    candidates: Mapping[str, Work], *, repeats: int, before: Callable[[str], object] = str
) -> dict[str, list[float]]:
    """Seconds of each candidate, in turns, so that a machine that slows down slows all; ``before`` is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, work in candidates.items():
            before(name)
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def check_options(options: Any, **words: Sequence[str]) -> None:
    """Checks ranges, lists of words, and the device."""
    Settings.__post_init__(options)
    for key, allowed in words.items():
        given = getattr(options, key)
        if not set([given] if isinstance(given, str) else given) <= set(allowed):
            raise refusal(key, given if isinstance(given, str) else list(given), f"of {', '.join(allowed)}")
    if getattr(options, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFailure("device is cuda, expected what this machine has. Fix: use device=cpu.")


@dataclass(frozen=True, kw_only=True)
class ReadBenchmark(Settings):
    """Reading an int16 cube tile by tile, in turns with a raw read of its bytes, rasterio and spectral.

    Fields are the keys of conf/benchmark_read.yaml, which explains them.
    """

    bands: int = within(200, 1)
    rows: int = within(1000, 1)
    columns: int = within(1000, 1)
    tile: int = within(128, 1)
    interleaves: tuple[str, ...] = INTERLEAVES
    repeats: int = within(5, 1)
    folder: str | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        check_options(self, interleaves=INTERLEAVES)

    def measure(self) -> dict[str, Any]:
        """A row for each interleave: times in multiples of the raw read, its rate, and all seconds."""
        with tempfile.TemporaryDirectory(prefix="hsfusion-", dir=self.folder) as folder:
            rows = [{"interleave": name, **self._row(Path(folder) / name)} for name in self.interleaves]
        return {"tile": self.tile, "interleaves": rows}

    def _row(self, path: Path) -> dict[str, Any]:
        size = (self.bands, self.rows, self.columns)
        cube = np.random.default_rng(0).integers(0, 10_000, size, dtype=np.int16)
        write_envi(path, cube, interleave=path.name)
        tiles = [
            Window(row, col, min(self.tile, self.rows - row), min(self.tile, self.columns - col))
            for row in range(0, self.rows, self.tile)
            for col in range(0, self.columns, self.tile)
        ]
        with ways_to_read(path) as ways:
            for name, read in ways.items():
                got = read(tiles[-1]).transpose((2, 0, 1) if name == "spectral" else (0, 1, 2))
                assert np.array_equal(got, cube[:, tiles[-1].row :, tiles[-1].col :]), f"{name} reads something else"
            readers = {name: lambda read=read: [read(tile).shape for tile in tiles] for name, read in ways.items()}
            seconds = timed({"raw": path.read_bytes, **readers}, repeats=self.repeats)
        path.unlink()
        raw = median(seconds["raw"])
        return {
            "times_raw": {name: median(seconds[name]) / raw for name in readers},
            "raw_megabytes_per_second": cube.nbytes / raw / 1e6,
            "seconds": seconds,
        }

    @staticmethod
    def table(result: dict[str, Any]) -> list[str]:
        """Lines of text."""
        rows, tile = result["interleaves"], result["tile"]
        lines = [f"{'':<6}" + "".join(f"{name:>18}" for name in rows[0]["times_raw"]) + f"{'raw MB/s':>12}"]
        for row in rows:
            values = "".join(f"{times:>18.2f}" for times in row["times_raw"].values())
            lines.append(f"{row['interleave']:<6}{values}{row['raw_megabytes_per_second']:>12.0f}")
        return [*lines, f"times of reading all {tile} x {tile} tiles, in multiples of reading the file's bytes once"]


def write_envi(path: Path, cube: NDArray, *, interleave: str) -> None:
    """Writes a cube (C, H, W) of int16, uint16 or float32 and its header."""
    cube.transpose(_AXES[interleave]).tofile(path)
    bands, lines, samples = cube.shape
    path.with_suffix(".hdr").write_text(
        f"ENVI\nsamples = {samples}\nlines = {lines}\nbands = {bands}\nheader offset = 0\n"
        f"data type = {_CODES[cube.dtype.name]}\ninterleave = {interleave}\nbyte order = 0\n"
    )


def write_geotiff(path: Path, cube: NDArray) -> None:
    """Writes a cube (C, H, W) as a tiled GeoTIFF, pixel by pixel, uncompressed."""
    bands, lines, samples = cube.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        profile = {"driver": "GTiff", "count": bands, "height": lines, "width": samples, "dtype": cube.dtype}
        with rasterio.open(path, "w", tiled=True, interleave="pixel", **profile) as file:
            file.write(cube)


@contextmanager
def ways_to_read(path: Path) -> Iterator[dict[str, Read]]:
    """Copies of a window, as stored: those of hsfusion, rasterio and ``spectral``, the latter with their files open.

    ``hsfusion float32`` is what a scene's ``read`` gives: (C, height, width) float32, NaN where there are no data.
    """
    file = open_cube_file(path)
    cube: Any = envi.open(str(path.with_suffix(".hdr")), str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        source = rasterio.open(path, driver="ENVI")
    with source:

        def by_rasterio(window: Window) -> NDArray:
            row, col, height, width = window
            return source.read(window=RasterioWindow(col, row, width, height))  # pyright: ignore[reportCallIssue]

        def by_spectral(window: Window) -> NDArray:
            row, col, height, width = window
            return np.array(cube.read_subregion((row, row + height), (col, col + width)))  # a view of a memory map

        yield {
            "hsfusion": lambda window: np.array(file.pixels.read(window), order="K"),
            "hsfusion float32": file.read,
            "rasterio": by_rasterio,
            "spectral": by_spectral,
        }
