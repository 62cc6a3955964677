"""Dealing blocks of pixels to training, validation and test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

UNUSED, TRAIN, VAL, TEST, BUFFER = range(5)


def near(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Pixels whose square of (2 * radius + 1) pixels touches the mask."""
    return np.asarray(maximum_filter(mask, size=2 * radius + 1, mode="constant", cval=0), np.bool_)


def deal(
    labels: NDArray[np.integer], rng: np.random.Generator, block: int, fraction: float, val_fraction: float
) -> NDArray[np.uint8]:
    """Deals blocks class by class, the rarest first, each block to the role that lacks most of that class."""
    height, width = labels.shape
    row_block = (np.arange(height) + rng.integers(block)) // block
    col_block = (np.arange(width) + rng.integers(block)) // block
    number = row_block[:, None] * (col_block[-1] + 1) + col_block[None, :]
    codes, inverse = np.unique(labels, return_inverse=True)
    counts = np.zeros((int(number[-1, -1]) + 1, codes.size))
    np.add.at(counts, (number.ravel(), inverse.ravel()), 1)
    counts = counts[:, codes != 0]
    share = np.array([fraction, val_fraction, 1 - fraction - val_fraction])
    wanted = counts.sum(0)[:, None] * share  # (K, 3), pixels still to be dealt
    role = np.zeros(counts.shape[0], np.uint8)
    for k in np.argsort(counts.sum(0)):
        for i in rng.permutation(np.flatnonzero((counts[:, k] > 0) & (role == 0))):
            role[i] = TRAIN + int(np.argmax(wanted[k] / share**0.5))
            wanted[:, role[i] - TRAIN] -= counts[i]
    return np.where(labels != 0, role[number], UNUSED).astype(np.uint8)


def add_buffer(roles: NDArray[np.uint8], radius: int) -> None:
    """Makes pixels buffer, in place, that are too near to pixels of another role."""
    roles[(roles == VAL) & near(roles == TRAIN, radius)] = BUFFER
    roles[(roles == TEST) & near((roles == TRAIN) | (roles == VAL), radius)] = BUFFER


def misfit(labels: NDArray[np.integer], roles: NDArray[np.uint8], fraction: float, val_fraction: float) -> float:
    """How far a deal is from what was asked for: classes that miss a side weigh most."""
    codes, inverse = np.unique(labels, return_inverse=True)
    counts = np.zeros((codes.size, 5))
    np.add.at(counts, (inverse.ravel(), roles.ravel()), 1)
    counts = counts[codes != 0]
    total = counts.sum(1, keepdims=True)
    missing = (counts[:, [TRAIN, VAL, TEST]] == 0).sum(0) @ [100.0, 1.0, 10.0]
    target = np.array([fraction, val_fraction])
    return float(missing + np.abs(counts[:, [TRAIN, VAL]] / total - target).mean())
