"""Reading a cube tile by tile, beside a raw read of its bytes, rasterio and spectral."""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow
from spectral.io import envi

from hsfusion.runs.settings import check_ranges, refusal, within
from hsfusion.scenes import Window
from hsfusion.scenes.formats.registry import open_cube_file

_INTERLEAVES = ("bsq", "bil", "bip")
_CODES = {"int16": 2, "uint16": 12, "float32": 4}
_AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}

Read = Callable[[Window], NDArray]


@dataclass(frozen=True, kw_only=True)
class ReadBenchmark:
    """The cube that is read, int16. Every field is a key of the configuration.

    Attributes:
        bands: of the cube.
        rows: of the cube.
        columns: of the cube.
        tile: edge of a tile in pixels.
        interleaves: of the file.
        repeats: rounds; each times every candidate once, and medians are compared.
        folder: for the cube; None for the system's temporary one.
    """

    bands: int = within(200, 1)
    rows: int = within(1000, 1)
    columns: int = within(1000, 1)
    tile: int = within(128, 1)
    interleaves: tuple[str, ...] = _INTERLEAVES
    repeats: int = within(5, 1)
    folder: str | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        check_ranges(self)
        if not set(self.interleaves) <= set(_INTERLEAVES):
            raise refusal("interleaves", list(self.interleaves), f"a list of {', '.join(_INTERLEAVES)}")


def measure(options: ReadBenchmark) -> dict[str, Any]:
    """Times reading a cube tile by tile, in turns with a raw read of its bytes; plain values."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="hsfusion-", dir=options.folder) as folder:
        for interleave in options.interleaves:
            rows.append({"interleave": interleave, **_row(options, Path(folder) / interleave, interleave)})
    return {"tile": options.tile, "interleaves": rows}


def table(result: dict[str, Any]) -> list[str]:
    """Lines of text that show what :func:`measure` gave."""
    rows, tile = result["interleaves"], result["tile"]
    names = list(rows[0]["times_raw"])
    lines = [f"{'':<6}" + "".join(f"{name:>18}" for name in names) + f"{'raw MB/s':>12}"]
    for row in rows:
        values = "".join(f"{row['times_raw'][name]:>18.2f}" for name in names)
        lines.append(f"{row['interleave']:<6}{values}{row['raw_megabytes_per_second']:>12.0f}")
    return [*lines, f"times of reading all {tile} x {tile} tiles, in multiples of reading the file's bytes once"]


def _row(options: ReadBenchmark, path: Path, interleave: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    cube = rng.integers(0, 10_000, (options.bands, options.rows, options.columns), dtype=np.int16)
    write_envi(path, cube, interleave=interleave)
    tiles = [
        Window(row, col, min(options.tile, options.rows - row), min(options.tile, options.columns - col))
        for row in range(0, options.rows, options.tile)
        for col in range(0, options.columns, options.tile)
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
        for _ in range(options.repeats):
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
