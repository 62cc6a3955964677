"""Batches of pixel indices as a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


class StepSampler(Sampler[tuple[int, Tensor]]):
    """Yields ``(step, pixels)`` for the steps of one epoch.

    The training pixels, shuffled anew for each pass, form an endless stream; step s takes the s-th batch of it. Which
    pixels a step sees thus depends on seed and step alone: not on where a run was resumed, nor on the number of ranks,
    each of which takes its own slice of the batch.

    Args:
        pixels: (N,) int64, flat indices of the training pixels.
        batch_size: pixels in a batch, over all ranks.
        steps_per_epoch: batches in an epoch.
        seed: of the order.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self, pixels: Tensor, *, batch_size: int, steps_per_epoch: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.pixels = pixels
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Returns the number of steps in an epoch."""
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Yields the steps of the epoch."""
        first = self.epoch * self.steps_per_epoch
        for step in range(first, first + self.steps_per_epoch):
            yield step, self.batch(step)[self.rank :: self.world_size]

    def batch(self, step: int) -> Tensor:
        """All pixels of a step: (batch_size,) int64."""
        n = self.pixels.numel()
        position = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        passes = range(position[0] // n, position[-1] // n + 1)
        order = np.concatenate([np.random.default_rng([self.seed, 4, p]).permutation(n) for p in passes])
        return self.pixels[torch.from_numpy(order[position - passes[0] * n])]


class StepsTogether(Sampler[tuple[int, list[Tensor]]]):
    """Yields ``(step, pixels of each scene)`` for the steps of one epoch.

    Args:
        samplers: one for each scene, of as many steps.
    """

    def __init__(self, samplers: Sequence[StepSampler]) -> None:
        self.samplers = samplers

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls this before each."""
        for sampler in self.samplers:
            sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """Returns the number of steps in an epoch."""
        return len(self.samplers[0])

    def __iter__(self) -> Iterator[tuple[int, list[Tensor]]]:
        """Yields the steps of the epoch."""
        for batches in zip(*self.samplers, strict=True):
            yield batches[0][0], [pixels for _, pixels in batches]
