"""``hsfusion benchmark predict``."""

from __future__ import annotations

import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch.nn import functional as F

from hsfusion.data.indian_pines import indian_pines
from hsfusion.errors import InputError
from hsfusion.inference import FoldedNetwork, Order, map_scene
from hsfusion.inference.classification import batch_for, with_precision
from hsfusion.inference.folding import PixelMatrix
from hsfusion.inference.tiles import CELL, cells_of, read_with_halo
from hsfusion.nn import FusionNetwork
from hsfusion.scenes import Legend, Scene, open_scene
from hsfusion.scenes.rivals import write_envi, write_geotiff
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import even_groups
from hsfusion.training.building import build_network
from hsfusion.training.model_file import load_model

_FORMATS = ("bsq", "bil", "bip", "geotiff")
_MATRIX = 2048  # rows and columns of the matrices that tell how fast this machine multiplies


def measure(cfg: DictConfig) -> None:
    """Times predict in turns with the bare network and a loop over patches; prints rates and ratios, writes JSON."""
    if unknown := [name for name in cfg.formats if name not in _FORMATS]:
        raise InputError(
            "command line", field="formats", value=unknown, expected=f"of {', '.join(_FORMATS)}", fix="correct it"
        )
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    network = _network(cfg)
    folded = FoldedNetwork(network).to(cfg.device)
    if not isinstance(folded.front, PixelMatrix):
        raise InputError("run", field="fusion", value="instance", expected="weights that are fixed", fix="give another")
    with tempfile.TemporaryDirectory(prefix="hsfusion-", dir=cfg.folder) as folder:
        candidates = _candidates(cfg, network, folded, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in candidates}
        products = []
        for _ in range(cfg.repeats):
            products.append(_products_per_second(cfg.device))
            for name, (_, action, file) in candidates.items():
                _warm(file)
                start = time.perf_counter()
                action()
                seconds[name].append(time.perf_counter() - start)
    rates = {name: pixels / statistics.median(seconds[name]) for name, (pixels, *_) in candidates.items()}
    products_per_pixel = _products_per_pixel(folded)
    _print(rates, statistics.median(products) / products_per_pixel, products_per_pixel, len(folded.layers))
    if cfg.json is not None:
        result = {
            "config": OmegaConf.to_container(cfg, resolve=True),
            "torch": torch.__version__,
            "pixels_per_second": rates,
            "products_per_pixel": products_per_pixel,
            "products_per_second": statistics.median(products),
            "seconds": seconds,
        }
        Path(str(cfg.json)).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


_Candidate = tuple[int, Callable[[], object], Path | None]


def _candidates(cfg: DictConfig, network: FusionNetwork, folded: FoldedNetwork, folder: Path) -> dict[str, _Candidate]:
    """What is timed: the number of pixels, the work, and the file that it reads."""
    scene = indian_pines().scene
    radius = network.receptive_field // 2
    pixels = 16 * CELL**2
    candidates: dict[str, _Candidate] = {
        "copy of the same numbers": (pixels, _copy(folded), None),
        "patch loop": (cfg.patches, _patch_loop(cfg, network, scene), None),
        "bare network": (pixels, _bare(folded, network.receptive_field), None),
        "bare network, bf16": (pixels, _bare(_rounded(folded), network.receptive_field), None),
    }
    for name in cfg.formats:
        path = _write(folder, name, scene, (cfg.rows, cfg.columns))
        candidates[f"reading alone, {name}"] = cfg.rows * cfg.columns, _read(folded, path, scene, radius), path
        candidates[f"predict, {name}"] = cfg.rows * cfg.columns, _predict(cfg, folded, path, scene), path
    for edge in cfg.edges:
        path = _write(folder, "bip", scene, (edge, edge))
        candidates[f"predict, {edge} x {edge}"] = edge**2, _predict(cfg, folded, path, scene), path
    return candidates


def _warm(path: Path | None) -> None:
    """Has the system keep the file in memory: what is measured is the program, not the disk."""
    if path is not None:
        with open(path, "rb") as file:
            while file.read(2**24):
                pass


def _print(rates: dict[str, float], limit: float, products_per_pixel: int, bands: int) -> None:
    print(f"{'':<26}{'pixels/s':>12}{'/ patch loop':>14}{'/ bare':>9}{'/ limit':>9}")
    for name, rate in rates.items():
        ratios = rate / rates["patch loop"], rate / rates["bare network"], rate / limit
        print(f"{name:<26}{rate:>12,.0f}{ratios[0]:>14.1f}{ratios[1]:>9.2f}{ratios[2]:>9.2f}")
    for name in (name for name in rates if f"reading alone, {name.removeprefix('predict, ')}" in rates):
        share = rates[name] / rates[f"reading alone, {name.removeprefix('predict, ')}"]
        print(f"{name}: reading alone takes {share:.0%} of its time")
    print(f"peak memory {_peak_gib():.2f} GiB")
    print(f"limit: {limit:,.0f} pixels/s, what {products_per_pixel:,} multiply-adds ({bands} bands) allow")
    print(f"at the rate of a product of two {_MATRIX} x {_MATRIX} float32 matrices on this machine")


def _peak_gib() -> float:
    import resource
    import sys

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**30 if sys.platform == "darwin" else 2**20)


def _network(cfg: DictConfig) -> FusionNetwork:
    if cfg.run is not None:
        path = Path(cfg.run)
        network, header = load_model(path / "model.safetensors" if path.is_dir() else path)
        if len(header["bands"]["wavelength_nm"]) != len(indian_pines().scene.bands):
            raise InputError(
                path, field="bands", value="others", expected="those of Indian Pines", fix="train on indian_pines"
            )
        return network
    bands = indian_pines().scene.bands
    torch.manual_seed(0)
    groups = even_groups(bands, number=14)
    return build_network(bands, groups, num_classes=16, receptive_field=cfg.receptive_field).eval()


def _patch_loop(cfg: DictConfig, network: FusionNetwork, scene: Scene) -> Callable[[], object]:
    """What toolboxes do: a patch for each pixel, in batches, through the same network."""
    radius = network.receptive_field // 2
    network.to(cfg.device)
    cube = torch.from_numpy(read_all(scene)).to(cfg.device)[None]
    padded = F.pad(cube, (radius,) * 4, mode="reflect")[0].permute(1, 2, 0).contiguous()  # (H, W, C)
    windows = padded.unfold(0, 2 * radius + 1, 1).unfold(1, 2 * radius + 1, 1)  # (H, W, C, side, side)
    height, width = windows.shape[:2]

    @torch.inference_mode()
    def run() -> None:
        for first in range(0, cfg.patches, 256):
            pixel = torch.arange(first, min(first + 256, cfg.patches)) % (height * width)
            network(windows[pixel // width, pixel % width]).flatten(1).softmax(1).max(1)
        _finish(cfg.device)

    return run


def _copy(network: FoldedNetwork) -> Callable[[], object]:
    """A copy, on the device, of the numbers that the network reads: no program can be faster."""
    x = torch.zeros(CELL**2, len(network.layers), device=network.fill.device)

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
        for window in cells_of(scene.geobox.shape):
            read_with_halo(scene, window, radius, layers)

    return run


def _opened(path: Path, like: Scene) -> Scene:
    return open_scene(path, wavelengths=like.bands.wavelength_nm.tolist(), wavelength_unit="nm")


def _bare(network: FoldedNetwork, receptive_field: int) -> Callable[[], object]:
    """The folded network on 16 cells that lie in memory as it likes them."""
    edge = CELL + receptive_field - 1
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


def _predict(cfg: DictConfig, network: FoldedNetwork, path: Path, like: Scene) -> Callable[[], object]:
    """Everything but the start of the program: open, read, classify, write, read back."""
    legend = Legend.of(np.arange(17))

    def run() -> None:
        scene = _opened(path, like)
        chosen, precision = with_precision(network, scene, cfg.precision)
        order = Order(out=path.with_suffix(".map.tif"), legend=legend, tags={}, batch=batch_for(network))
        map_scene(chosen, scene, order, plan={"precision": precision})
        _finish(cfg.device)

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
