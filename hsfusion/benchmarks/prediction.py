"""Pixels per second of predict, beside a loop over patches and the bare network."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from hsfusion.benchmarks.reading import write_envi, write_geotiff
from hsfusion.data.indian_pines import indian_pines
from hsfusion.errors import InputError
from hsfusion.inference import FoldedNetwork, MapRequest, map_scene
from hsfusion.inference.classification import TILE, batch_for, read_with_halo, tiles_of, with_precision
from hsfusion.inference.folding import PixelMatrix
from hsfusion.nn import FusionNetwork
from hsfusion.runs.finetuning import model_path
from hsfusion.runs.settings import check_ranges, refusal, within
from hsfusion.scenes import Legend, Scene, open_scene
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import even_groups
from hsfusion.training.building import build_network
from hsfusion.training.model_file import load_model

_FORMATS = ("bsq", "bil", "bip", "geotiff")
_MATRIX = 2048  # rows and columns of the matrices that tell how fast this machine multiplies


@dataclass(frozen=True, kw_only=True)
class PredictBenchmark:
    """What is predicted: Indian Pines again and again, int16. Every field is a key of the configuration.

    Attributes:
        run: run folder or model file of a training on Indian Pines; None for an untrained network.
        receptive_field: of the untrained network, in pixels.
        rows: of the scene.
        columns: of the scene.
        formats: of the file: bsq, bil and bip are ENVI.
        edges: of smaller and larger square scenes.
        patches: pixels that the loop over patches takes.
        repeats: rounds; each times every candidate once, and medians are compared.
        device: cpu, or cuda for a GPU.
        precision: float32, bf16 or auto, of predict.
        folder: for the scene; None for the system's temporary one.
    """

    run: str | None = None
    receptive_field: int = 7
    rows: int = within(2000, 1)
    columns: int = within(2000, 1)
    formats: tuple[str, ...] = ("bip", "bsq", "geotiff")
    edges: tuple[int, ...] = (316, 1000, 3162)
    patches: int = within(20_000, 1)
    repeats: int = within(3, 1)
    device: str = "cpu"
    precision: str = "float32"
    folder: str | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        check_ranges(self)
        if unknown := [name for name in self.formats if name not in _FORMATS]:
            raise refusal("formats", unknown, f"of {', '.join(_FORMATS)}")


def measure(options: PredictBenchmark) -> dict[str, Any]:
    """Times predict in turns with the bare network and a loop over patches; plain values."""
    network = _network(options)
    folded = FoldedNetwork(network).to(options.device)
    if not isinstance(folded.front, PixelMatrix):
        raise InputError("run", "fusion", "instance", "weights that are fixed", "give another")
    with tempfile.TemporaryDirectory(prefix="hsfusion-", dir=options.folder) as folder:
        candidates = _candidates(options, network, folded, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in candidates}
        products = []
        for _ in range(options.repeats):
            products.append(_products_per_second(options.device))
            for name, (_, action, file) in candidates.items():
                _warm(file)
                start = time.perf_counter()
                action()
                seconds[name].append(time.perf_counter() - start)
    return {
        "torch": torch.__version__,
        "bands": len(folded.layers),
        "pixels_per_second": {
            name: pixels / statistics.median(seconds[name]) for name, (pixels, *_) in candidates.items()
        },
        "products_per_pixel": _products_per_pixel(folded),
        "products_per_second": statistics.median(products),
        "peak_gib": _peak_gib(),
        "seconds": seconds,
    }


_Candidate = tuple[int, Callable[[], object], Path | None]


def _candidates(
    options: PredictBenchmark, network: FusionNetwork, folded: FoldedNetwork, folder: Path
) -> dict[str, _Candidate]:
    """What is timed: the number of pixels, the work, and the file that it reads."""
    scene = indian_pines().scene
    radius = network.receptive_field // 2
    pixels = 16 * TILE**2
    candidates: dict[str, _Candidate] = {
        "copy of the same numbers": (pixels, _copy(folded), None),
        "patch loop": (options.patches, _patch_loop(options, network, scene), None),
        "bare network": (pixels, _bare(folded, network.receptive_field), None),
        "bare network, bf16": (pixels, _bare(_rounded(folded), network.receptive_field), None),
    }
    for name in options.formats:
        path = _write(folder, name, scene, (options.rows, options.columns))
        candidates[f"reading alone, {name}"] = options.rows * options.columns, _read(folded, path, scene, radius), path
        candidates[f"predict, {name}"] = options.rows * options.columns, _predict(options, folded, path, scene), path
    for edge in options.edges:
        path = _write(folder, "bip", scene, (edge, edge))
        candidates[f"predict, {edge} x {edge}"] = edge**2, _predict(options, folded, path, scene), path
    return candidates


def _warm(path: Path | None) -> None:
    """Has the system keep the file in memory: what is measured is the program, not the disk."""
    if path is not None:
        with open(path, "rb") as file:
            while file.read(2**24):
                pass


def table(result: dict[str, Any]) -> list[str]:
    """Lines of text that show what :func:`measure` gave."""
    rates, products_per_pixel = result["pixels_per_second"], result["products_per_pixel"]
    limit = result["products_per_second"] / products_per_pixel
    lines = [f"{'':<26}{'pixels/s':>12}{'/ patch loop':>14}{'/ bare':>9}{'/ limit':>9}"]
    for name, rate in rates.items():
        ratios = rate / rates["patch loop"], rate / rates["bare network"], rate / limit
        lines.append(f"{name:<26}{rate:>12,.0f}{ratios[0]:>14.1f}{ratios[1]:>9.2f}{ratios[2]:>9.2f}")
    for name in (name for name in rates if f"reading alone, {name.removeprefix('predict, ')}" in rates):
        share = rates[name] / rates[f"reading alone, {name.removeprefix('predict, ')}"]
        lines.append(f"{name}: reading alone takes {share:.0%} of its time")
    return [
        *lines,
        f"peak memory {result['peak_gib']:.2f} GiB",
        f"limit: {limit:,.0f} pixels/s, what {products_per_pixel:,} multiply-adds ({result['bands']} bands) allow",
        f"at the rate of a product of two {_MATRIX} x {_MATRIX} float32 matrices on this machine",
    ]


def _peak_gib() -> float:
    import resource
    import sys

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**30 if sys.platform == "darwin" else 2**20)


def _network(options: PredictBenchmark) -> FusionNetwork:
    if options.run is not None:
        path = model_path(options.run)
        network, header = load_model(path)
        if len(header.bands) != len(indian_pines().scene.bands):
            raise InputError(path, "bands", "others", "those of Indian Pines", "train on indian_pines")
        return network
    bands = indian_pines().scene.bands
    torch.manual_seed(0)
    groups = even_groups(bands, number=14)
    return build_network(bands, groups, num_classes=16, receptive_field=options.receptive_field).eval()


def _patch_loop(options: PredictBenchmark, network: FusionNetwork, scene: Scene) -> Callable[[], object]:
    """What toolboxes do: a patch for each pixel, in batches, through the same network."""
    radius = network.receptive_field // 2
    network.to(options.device)
    cube = torch.from_numpy(read_all(scene)).to(options.device)[None]
    padded = F.pad(cube, (radius,) * 4, mode="reflect")[0].permute(1, 2, 0).contiguous()  # (H, W, C)
    windows = padded.unfold(0, 2 * radius + 1, 1).unfold(1, 2 * radius + 1, 1)  # (H, W, C, side, side)
    height, width = windows.shape[:2]

    @torch.inference_mode()
    def run() -> None:
        for first in range(0, options.patches, 256):
            pixel = torch.arange(first, min(first + 256, options.patches)) % (height * width)
            network(windows[pixel // width, pixel % width]).flatten(1).softmax(1).max(1)
        _finish(options.device)

    return run


def _copy(network: FoldedNetwork) -> Callable[[], object]:
    """A copy, on the device, of the numbers that the network reads: no program can be faster."""
    x = torch.zeros(TILE**2, len(network.layers), device=network.fill.device)

    def run() -> None:
        for _ in range(16):
            x.clone()
        _finish(x.device)

    return run


def _read(network: FoldedNetwork, path: Path, like: Scene, radius: int) -> Callable[[], object]:
    """The windows that predict reads, and nothing else."""
    layers = network.layers.cpu().numpy()

    def run() -> None:
        scene = _opened(path, like)
        for window in tiles_of(scene.geobox.shape):
            read_with_halo(scene, window, radius, layers)

    return run


def _opened(path: Path, like: Scene) -> Scene:
    return open_scene(path, wavelengths=like.bands.wavelength_nm.tolist(), wavelength_unit="nm")


def _bare(network: FoldedNetwork, receptive_field: int) -> Callable[[], object]:
    """The folded network on 16 tiles that lie in memory as it likes them."""
    edge = TILE + receptive_field - 1
    device = network.fill.device
    x = network.fill[:, None, None] * (1 + torch.rand(1, len(network.layers), edge, edge, device=device))
    x = x.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> None:
        for _ in range(16):
            network.convolve(network.front(x))
        _finish(device)

    return run


def _rounded(network: FoldedNetwork) -> FoldedNetwork:
    rounded = copy.deepcopy(network)
    rounded.convolutions.bfloat16()
    return rounded


def _predict(options: PredictBenchmark, network: FoldedNetwork, path: Path, like: Scene) -> Callable[[], object]:
    """Everything but the start of the program: open, read, classify, write, read back."""
    legend = Legend.of(np.arange(17))

    def run() -> None:
        scene = _opened(path, like)
        chosen, precision = with_precision(network, scene, options.precision)
        request = MapRequest(out=path.with_suffix(".map.tif"), legend=legend, tags={}, batch=batch_for(network))
        map_scene(chosen, scene, request, plan={"precision": precision})
        _finish(options.device)

    return run


def _write(folder: Path, name: str, scene: Scene, shape: tuple[int, int]) -> Path:
    path = folder / f"{name}-{shape[0]}"
    cube = _repeated(scene, shape)
    if name == "geotiff":
        write_geotiff(path, cube)
    else:
        write_envi(path, cube, interleave=name)
    return path


def _repeated(scene: Scene, shape: tuple[int, int]) -> NDArray[np.int16]:
    cube = read_all(scene).astype(np.int16)
    rows, cols = (np.arange(size) % there for size, there in zip(shape, cube.shape[1:], strict=True))
    return cube[:, rows][:, :, cols]


def _products_per_pixel(network: FoldedNetwork) -> int:
    assert isinstance(network.front, PixelMatrix)
    convolutions = [weight for weight in network.parameters() if weight.dim() == 4]
    return network.front.weight.numel() + sum(weight.numel() for weight in convolutions)


def _products_per_second(device: str) -> float:
    a = torch.ones(_MATRIX, _MATRIX, device=device)
    torch.mm(a, a)
    _finish(device)
    start = time.perf_counter()
    for _ in range(5):
        torch.mm(a, a)
    _finish(device)
    return 5 * _MATRIX**3 / (time.perf_counter() - start)


def _finish(device: str | torch.device) -> None:
    if str(device).startswith("cuda"):
        torch.cuda.synchronize()
