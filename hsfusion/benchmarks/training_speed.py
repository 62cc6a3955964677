"""Speed of the training loop, beside a bare one on ready batches, and one with a Dataset of single patches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler

from hsfusion.benchmarks.speed import FusionBenchmark, PredictBenchmark, ReadBenchmark, timed
from hsfusion.data.patches import TrainingCube
from hsfusion.data.splits import TRAIN, VAL
from hsfusion.nn import FusionNetwork
from hsfusion.nn.band_fusion import matrix_product
from hsfusion.runs.experiment import Experiment, prepare_experiment
from hsfusion.runs.settings import Settings, TrainSettings, within
from hsfusion.runs.training import fit_network, patch_data
from hsfusion.scenes import LabelledScene
from hsfusion.training.classifier import fused

Batches = Iterable[tuple[Tensor, Tensor]]
Prepare = Callable[[Tensor], Tensor]
Forward = Callable[[FusionNetwork, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainBenchmark(Settings):
    """Training, in turns with loops that train a copy of the same network for as many steps.

    All of them validate after each epoch. ``bare`` has its batches in memory, drawn and augmented: forward, backward, a
    step of the optimizer, and nothing else. ``bare, whitened`` has them as the training has, whitened, and without the
    linear part that has no share yet. ``toolbox`` is what is common elsewhere: a Dataset that copies, turns and
    disturbs one patch at a time, a DataLoader, and the optimizer as torch makes it, which is not fused.

    Fields are the keys of conf/benchmark_train.yaml, which explains them.
    """

    repeats: int = within(5, 1)

    def measure(self, scene: LabelledScene, settings: TrainSettings, *, device: str = "cpu") -> dict[str, Any]:
        """Samples per second of each loop, and those of the training in multiples of the others, on this device."""
        experiment = prepare_experiment(scene, settings)
        experiment.network.to(device)
        loops = {"training": _whole, "bare": _bare, "bare, whitened": _bare_whitened, "toolbox": _toolbox}
        work = {name: loop(settings, experiment) for name, loop in loops.items()}
        processor: dict[str, list[float]] = {name: [] for name in work}
        counted = {name: partial(_count, run, processor[name]) for name, run in work.items()}
        seconds = {"clock": timed(counted, repeats=self.repeats), "processor": processor}
        samples = settings.steps * settings.batch_size
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "pixels": {"training": experiment.split.count(TRAIN), "validation": experiment.split.count(VAL)},
            "samples_per_second": {name: samples / median(values) for name, values in seconds["clock"].items()},
            "training_to": {
                clock: {
                    name: median(other / whole for other, whole in zip(values, of["training"], strict=True))
                    for name, values in of.items()
                    if name != "training"
                }
                for clock, of in seconds.items()
            },
            "seconds": seconds,
        }

    @staticmethod
    def table(result: dict[str, Any]) -> list[str]:
        """Lines of text."""
        rates, ratios = result["samples_per_second"], result["training_to"]
        lines = [f"{'':<16}{'samples/s':>12}{'training is':>14}{'by processor time':>20}"]
        for name, rate in rates.items():
            both = [ratios[clock].get(name, 1.0) for clock in ("clock", "processor")]
            lines.append(f"{name:<16}{rate:>12,.0f}{both[0]:>12.2f} x{both[1]:>18.2f} x")
        return [*lines, f"medians, {result['threads']} threads; validation after each epoch included"]


def _count(run: Callable[[], object], seconds: list[float]) -> None:
    """Keeps the time that the processor worked, which other programs on the machine change less."""
    start = time.process_time()
    run()
    seconds.append(time.process_time() - start)


def _whole(settings: TrainSettings, experiment: Experiment) -> Callable[[], object]:
    """The training as a run does it: Lightning, sampler, gathering, augmentation, metrics, logger, checkpoints."""

    def run() -> None:
        part = replace(experiment, initial=replace(experiment.initial, network=deepcopy(experiment.network)))
        with tempfile.TemporaryDirectory(prefix="hsfusion-") as folder:
            (Path(folder) / "checkpoints").mkdir()
            fit_network(settings, part.network, [(part, patch_data(settings, part))], Path(folder))

    return run


def _bare(settings: TrainSettings, experiment: Experiment) -> Callable[[], object]:
    return _on_ready_batches(settings, experiment, lambda x: x, FusionNetwork.classify)


def _bare_whitened(settings: TrainSettings, experiment: Experiment) -> Callable[[], object]:
    whitening = experiment.network.whitening
    prepare: Prepare = (lambda x: x) if whitening is None else lambda x: matrix_product(x, whitening)
    return _on_ready_batches(settings, experiment, prepare, lambda net, x: net.cnn(net.fusion(x)))


def _on_ready_batches(
    settings: TrainSettings, experiment: Experiment, prepare: Prepare, forward: Forward
) -> Callable[[], object]:
    data, classes = patch_data(settings, experiment), experiment.cube.classes.long()

    def ready(pixels: Tensor, step: int | None) -> tuple[Tensor, Tensor]:
        x = prepare(data.patches(pixels, step=step).to(experiment.network.mean.device))
        return x.contiguous(memory_format=torch.channels_last), classes[pixels]

    batches = [ready(pixels, step) for step, pixels in data.sampler()]
    held_out = [ready(pixels, None) for pixels in data.validation_batches()]
    return lambda: _loop(settings, deepcopy(experiment.network), (batches, held_out), forward, fuse=True)


def _toolbox(settings: TrainSettings, experiment: Experiment) -> Callable[[], object]:
    pixels = {role: experiment.split.pixels(role) for role in (TRAIN, VAL)}
    copied = _CopiedPatches(experiment.cube, pixels[TRAIN], noise=settings.noise)
    sampler = RandomSampler(copied, replacement=True, num_samples=settings.steps_per_epoch * settings.batch_size)
    batches = DataLoader(copied, settings.batch_size, sampler=sampler)
    held_out = DataLoader(_CopiedPatches(experiment.cube, pixels[VAL], noise=None), settings.batch_size)
    network = deepcopy(experiment.network).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return lambda: _loop(settings, deepcopy(network), (batches, held_out), FusionNetwork.classify)


def _loop(
    settings: TrainSettings,
    network: FusionNetwork,
    batches: tuple[Batches, Batches],
    forward: Forward,
    *,
    fuse: bool = False,
) -> float:
    """Trains on the first batches, counts what is right in the second; the share after the last epoch."""
    optimizer = (settings.optimizer or torch.optim.AdamW)(network.parameters())
    optimizer = fused(optimizer) if fuse else optimizer
    gates, right = network.fusion.gates, [0.0]

    def on_device(some: Batches) -> Batches:
        return ((x.to(network.mean.device), y.to(network.mean.device)) for x, y in some)

    for epoch in range(settings.epochs):
        network.train()
        some = on_device(islice(batches[0], settings.steps_per_epoch))
        for step, (x, y) in enumerate(some, epoch * settings.steps_per_epoch):
            if gates is not None:
                gates.advance(step / settings.steps)
            optimizer.zero_grad()
            loss = F.cross_entropy(forward(network, x).flatten(1), y, label_smoothing=settings.label_smoothing)
            (loss if gates is None or gates.settled else loss + settings.band_cost * gates.cost).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            right = [
                float((forward(network, x).flatten(1).argmax(1) == y).float().mean()) for x, y in on_device(batches[1])
            ]
    return sum(right) / max(1, len(right))


class _CopiedPatches(Dataset[tuple[Tensor, int]]):
    """Patches (C, 2 r + 1, 2 r + 1) of a cube in memory, one copy for each item, turned and with noise if asked for."""

    def __init__(self, cube: TrainingCube, pixels: np.ndarray, *, noise: float | None) -> None:
        values = np.concatenate([cube.values.numpy(), np.zeros((1, cube.values.shape[1]), np.float32)])
        self.cube, self.side, self.noise = values[cube.index.numpy()], 2 * cube.radius + 1, noise  # (H, W, C)
        self.rng = np.random.default_rng(0)
        self.places = np.stack(np.divmod(pixels, cube.index.shape[1] - 2 * cube.radius), 1)
        self.classes = cube.classes.numpy()[pixels]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        row, col = self.places[item]
        patch = self.cube[row : row + self.side, col : col + self.side]
        if self.noise is not None:
            patch = np.rot90(patch, int(self.rng.integers(4)))
            patch = np.fliplr(patch) if self.rng.random() < 0.5 else patch
            patch = patch + np.float32(self.noise) * self.rng.standard_normal(patch.shape[-1], np.float32)
        patch = np.asarray(np.copy(patch).transpose((2, 0, 1)), dtype=np.float32)
        return torch.from_numpy(patch), int(self.classes[item])


#: kinds of ``hsfusion benchmark`` that measure speed
SPEEDS: dict[str, type[Any]] = {
    "train": TrainBenchmark,
    "read": ReadBenchmark,
    "predict": PredictBenchmark,
    "fusion": FusionBenchmark,
}
