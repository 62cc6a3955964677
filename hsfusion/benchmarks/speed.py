"""Speed of reading and predicting a scene, and of summing with WeightedSum, compared with alternatives.

Each benchmark is a frozen dataclass of what is measured, and each of its fields is a key of the configuration.
``measure`` returns plain values; ``table`` returns lines of text that show them.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast, get_args

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow
from spectral.io import envi
from torch import Tensor
from torch.nn import functional as F

from hsfusion.data.public import indian_pines
from hsfusion.inference import FoldedNetwork, MapRequest, map_scene
from hsfusion.inference.classification import TILE, tiles_of
from hsfusion.nn import FusionNetwork, WeightedSum
from hsfusion.nn.weighted_sum import Kind
from hsfusion.runs.prediction import compute_device
from hsfusion.runs.settings import Settings, choice, within
from hsfusion.scenes import Legend, Scene, Window, open_scene
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import even_groups
from hsfusion.training.building import build_network

_KINDS = tuple(kind for kind in get_args(Kind) if kind != "none")
_PER_GIB = 2**30 if sys.platform == "darwin" else 2**20
INTERLEAVES = ("bsq", "bil", "bip")

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


@dataclass(frozen=True, kw_only=True)
class _OnDevice(Settings):
    device: str = choice("cpu", "cpu", "cuda")
    threads: int | None = within(None, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        compute_device(self.device)

    def _prepare(self) -> None:
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        torch.manual_seed(0)


@dataclass(frozen=True, kw_only=True)
class ReadBenchmark(Settings):
    """Reading an int16 cube tile by tile, in turns with a raw read of its bytes, rasterio and spectral.

    Fields are the keys of conf/benchmark_read.yaml, which explains them.
    """

    bands: int = within(200, 1)
    rows: int = within(1000, 1)
    columns: int = within(1000, 1)
    tile: int = within(128, 1)
    interleaves: tuple[str, ...] = choice(INTERLEAVES, *INTERLEAVES)
    repeats: int = within(5, 1)
    folder: str | None = None

    def measure(self) -> dict[str, Any]:
        """A row for each interleave: times in multiples of the raw read, its rate, and all seconds."""
        with tempfile.TemporaryDirectory(prefix="hsfusion-", dir=self.folder) as folder:
            rows = [{"interleave": name, **self._row(Path(folder) / name)} for name in self.interleaves]
        return {"tile": self.tile, "interleaves": rows}

    def _row(self, path: Path) -> dict[str, Any]:
        size = (self.bands, self.rows, self.columns)
        cube = np.random.default_rng(0).integers(0, 10_000, size, dtype=np.int16)
        envi.save_image(f"{path}.hdr", cube.transpose(1, 2, 0), interleave=path.name, ext="")
        tiles = tiles_of((self.rows, self.columns), self.tile)
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


def _peak_gib() -> float | None:
    """The most memory that this process has had; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _PER_GIB


def _finish(device: str | torch.device) -> None:
    if str(device).startswith("cuda"):
        torch.cuda.synchronize()


@dataclass(frozen=True, kw_only=True)
class PredictBenchmark(_OnDevice):
    """Predicting Indian Pines again and again, int16, in turns with a loop over patches and the bare network.

    Fields are the keys of conf/benchmark_predict.yaml, which explains them.
    """

    rows: int = within(2000, 1)
    columns: int = within(2000, 1)
    formats: tuple[str, ...] = choice(("bip", "bsq"), *INTERLEAVES)
    patches: int = within(20_000, 1)
    repeats: int = within(3, 1)
    folder: str | None = None

    def measure(self) -> dict[str, Any]:
        """Pixels per second of each candidate."""
        scene = indian_pines().scene
        self._prepare()
        network = build_network(scene.bands, even_groups(scene.bands, number=14), num_classes=16).eval()
        folded = FoldedNetwork(network).to(self.device)
        pixels, work, files = {}, {}, {}
        with tempfile.TemporaryDirectory(prefix="hsfusion-", dir=self.folder) as folder:
            pixels["patch loop"], work["patch loop"] = self.patches, self._patch_loop(network, scene)
            pixels["bare network"], work["bare network"] = 16 * TILE**2, _bare(folded, network.receptive_field)
            for name in self.formats:
                path = _write(Path(folder), name, scene, (self.rows, self.columns))
                key = f"predict, {name}"
                work[key] = self._predict(folded, path, scene.bands.wavelength_nm.tolist())
                pixels[key], files[key] = self.rows * self.columns, path
            # what is measured is the program, not the disk: the system keeps the file in memory
            seconds = timed(work, repeats=self.repeats, before=lambda key: key in files and files[key].read_bytes())
        return {
            "torch": torch.__version__,
            "bands": len(folded.layers),
            "pixels_per_second": {name: pixels[name] / median(values) for name, values in seconds.items()},
            "peak_gib": _peak_gib(),
            "seconds": seconds,
        }

    @staticmethod
    def table(result: dict[str, Any]) -> list[str]:
        """Lines of text."""
        rates = result["pixels_per_second"]
        lines = [f"{'':<26}{'pixels/s':>12}{'/ patch loop':>14}{'/ bare':>9}"]
        for name, rate in rates.items():
            ratios = rate / rates["patch loop"], rate / rates["bare network"]
            lines.append(f"{name:<26}{rate:>12,.0f}{ratios[0]:>14.1f}{ratios[1]:>9.2f}")
        peak = "" if result["peak_gib"] is None else f", peak memory {result['peak_gib']:.2f} GiB"
        return [*lines, f"{result['bands']} bands{peak}"]

    def _patch_loop(self, network: FusionNetwork, scene: Scene) -> Work:
        """The usual way of toolboxes: a patch for each pixel, in batches, through the same network."""
        radius = network.receptive_field // 2
        network.to(self.device)
        cube = torch.from_numpy(read_all(scene)).to(self.device)[None]
        padded = F.pad(cube, (radius,) * 4, mode="reflect")[0].permute(1, 2, 0).contiguous()  # (H, W, C)
        windows = padded.unfold(0, 2 * radius + 1, 1).unfold(1, 2 * radius + 1, 1)  # (H, W, C, side, side)
        height, width = windows.shape[:2]

        @torch.inference_mode()
        def run() -> None:
            for first in range(0, self.patches, 256):
                pixel = torch.arange(first, min(first + 256, self.patches)) % (height * width)
                network(windows[pixel // width, pixel % width]).flatten(1).softmax(1).max(1)
            _finish(self.device)

        return run

    def _predict(self, network: FoldedNetwork, path: Path, nm: list[float]) -> Work:
        """Everything but the start of the program: open, read, classify, write, read back."""
        legend = Legend.of(np.arange(17))

        def run() -> None:
            scene = open_scene(path, wavelengths=nm, wavelength_unit="nm")
            request = MapRequest(out=path.with_suffix(".map.tif"), legend=legend, tags={})
            map_scene(network, scene, request, plan={})
            _finish(self.device)

        return run


def _bare(network: FoldedNetwork, receptive_field: int) -> Work:
    """The folded network on 16 tiles that lie in memory as it likes them."""
    edge, device = TILE + receptive_field - 1, network.fill.device
    x = network.fill[:, None, None] * (1 + torch.rand(1, len(network.layers), edge, edge, device=device))
    x = x.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> None:
        for _ in range(16):
            network.convolve(network.front(x))
        _finish(device)

    return run


def _write(folder: Path, name: str, scene: Scene, shape: tuple[int, int]) -> Path:
    """The scene, repeated to a shape, as a file."""
    path, cube = folder / name, read_all(scene).astype(np.int16)
    rows, cols = (np.arange(size) % period for size, period in zip(shape, cube.shape[1:], strict=True))
    cube = cube[:, rows][:, :, cols]
    envi.save_image(f"{path}.hdr", cube.transpose(1, 2, 0), interleave=name, ext="")
    return path


@dataclass(frozen=True, kw_only=True)
class FusionBenchmark(_OnDevice):
    """Forward and backward of WeightedSum on tensors (batch, channels, rows, columns), beside the plain expression.

    Fields are the keys of conf/benchmark_fusion.yaml, which explains them.
    """

    inputs: int = within(2, 1)
    batch: int = within(16, 1)
    channels: int = within(64, 1)
    rows: int = within(96, 1)
    columns: int = within(96, 1)
    kinds: tuple[str, ...] = choice(("scalar", "channel", "instance"), *_KINDS)
    repeats: int = within(15, 1)

    def measure(self) -> dict[str, Any]:
        """A row for each kind: times in multiples of the plain expression, peak memory in multiples of the least."""
        return {"torch": torch.__version__, "kinds": [self._row(cast(Kind, kind)) for kind in self.kinds]}

    def _row(self, kind: Kind) -> dict[str, Any]:
        self._prepare()
        module = WeightedSum(self.inputs, kind=kind, channels=self.channels, constraint="affine", init="normal")
        module.to(self.device)
        torch.compiler.reset()
        sums: dict[str, Callable[..., Tensor]] = {"module": module, "plain": lambda *inputs: plain_sum(module, inputs)}
        sums |= {f"compiled_{name}": cast(Any, torch.compile(work)) for name, work in sums.items()}
        inputs = self._inputs()
        work = {name: lambda sum_of=sum_of: self._step(sum_of, inputs) for name, sum_of in sums.items()}
        timed(work, repeats=1)  # compiles, warms up
        seconds = {name: median(values) for name, values in timed(work, repeats=self.repeats).items()}
        least = 4 * self.batch * self.channels * self.rows * self.columns * 2 * (self.inputs + 1)
        return {
            "kind": kind,
            "median_seconds": seconds,
            "time_to_plain": seconds["module"] / seconds["plain"],
            "time_to_compiled_plain": seconds["module"] / seconds["compiled_plain"],
            "compiled_to_compiled_plain": seconds["compiled_module"] / seconds["compiled_plain"],
            "memory": self._peak_bytes(sums["module"]) / least,
            "plain_memory": self._peak_bytes(sums["plain"]) / least,
        }

    def _inputs(self) -> list[Tensor]:
        shape = (self.batch, self.channels, self.rows, self.columns)
        return [torch.randn(shape, device=self.device, requires_grad=True) for _ in range(self.inputs)]

    def _step(self, sum_of: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
        for x in inputs:
            x.grad = None
        output = sum_of(*inputs)
        output.backward(torch.ones_like(output))
        _finish(self.device)
        return [output, *inputs]

    def _peak_bytes(self, sum_of: Callable[..., Tensor]) -> int:
        if self.device == "cpu":
            return peak_bytes_cpu(lambda: self._step(sum_of, self._inputs()))
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self._step(sum_of, self._inputs())
        return torch.cuda.max_memory_allocated() - before

    @staticmethod
    def table(result: dict[str, Any]) -> list[str]:
        """Lines of text."""
        keys = ("time_to_plain", "time_to_compiled_plain", "compiled_to_compiled_plain", "memory", "plain_memory")
        heads = ("time/plain", "time/compiled", "both compiled", "memory", "plain memory")
        return [
            f"{'':<18}" + "".join(f"{head:>15}" for head in heads),
            *(f"{row['kind']:<18}" + "".join(f"{row[key]:>15.3f}" for key in keys) for row in result["kinds"]),
            "time: of WeightedSum, forward and backward, in multiples of the plain expression's, and of it compiled",
            "memory: peak of forward and backward, in multiples of inputs, output and their gradients",
        ]


def plain_sum(module: WeightedSum, inputs: tuple[Tensor, ...]) -> Tensor:
    """The sum as one would write it down, with the weights of a module."""
    if module.predictor is None:
        weights = module.weights
    else:
        raw = sum(torch.einsum("bchw,co->bohw", x, part) for x, part in zip(inputs, module.predictor, strict=True))
        raw = raw + module.raw.reshape(1, -1, 1, 1)
        raw = raw.reshape(len(raw), *module.raw.shape, *raw.shape[2:])
        weights = (raw - raw.mean(1, keepdim=True) + 1 / module.num_inputs).movedim(1, 0)
    if module.kind == "scalar":
        weights = weights[:, None, None, None, None]
    elif module.kind == "channel":
        weights = weights[:, None, :, None, None]
    elif module.kind == "instance":
        weights = weights[:, :, None]
    total = weights[0] * inputs[0]
    for weight, x in zip(weights[1:], inputs[1:], strict=True):
        total = total + weight * x
    return total


def peak_bytes_cpu(work: Work) -> int:
    """Peak of what PyTorch allocates on the CPU during a call, its result included."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        kept = work()
    del kept
    # the public list of events nets what one operation allocates and frees inside
    events = cast(Any, profile.profiler).kineto_results.events()
    held = np.cumsum([event.nbytes() for event in events if event.name() == "[memory]"])
    return int(held.max(initial=0))
