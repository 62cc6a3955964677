"""Classifiers without a network on the pixels of a run, and how far the network is ahead of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsfusion.data.noise import noise_differences
from hsfusion.data.patches import PatchDataModule, TrainingCube, prepare
from hsfusion.data.splits import TEST, TRAIN, UNUSED, VAL, Split
from hsfusion.runs.experiment import used_layers
from hsfusion.runs.settings import TrainSettings
from hsfusion.training.classifier import accuracies, confusion_matrix
from hsfusion.trust.baselines import BASELINES, BLOCK, PixelTable, fit_baselines, paired_difference

_MOST_TESTED = 20_000  # pixels that classifiers are compared on: their patches lie in memory


def compare_with_baselines(split: Split, classes: NDArray[np.integer], settings: TrainSettings) -> dict[str, Any]:
    """Fits the baselines of the settings on the training pixels and tests them where the network was tested.

    Args:
        split: which pixel is used for what; of more than 20,000 test pixels every n-th counts.
        classes: (H, W) class indices by the network.
        settings: of the network, which could use the same bands.

    Returns:
        for metrics.json: name -> accuracies, chosen ``setting``, ``seconds``, and ``network_ahead``: the difference of
        the overall accuracies with the ends of its 95 % interval over blocks of 8 x 8 test pixels
    """
    tested = split.pixels(TEST)
    roles = split.roles.copy()
    roles.flat[np.delete(tested, np.s_[:: -(-len(tested) // _MOST_TESTED)])] = UNUSED
    split = replace(split, roles=roles)
    cube = prepare(split, used_layers(split.labelled.scene, settings), roles=(TRAIN, VAL, TEST))
    train, val, test = (pixel_table(cube, split, role) for role in (TRAIN, VAL, TEST))
    right = classes.ravel()[split.pixels(TEST)] == test.classes
    blocks = blocks_of(split.pixels(TEST), split)
    names = split.labelled.legend.names
    table, noise = {}, noise_differences(cube, split)
    for fitted in fit_baselines(train, val, test, names=settings.baselines, noise=noise, seed=settings.seed):
        metrics = accuracies(confusion_matrix(test.classes, fitted.classes, num_classes=len(names)), names=names)
        table[fitted.name] = {
            **{key: metrics[key] for key in ("overall_accuracy", "average_accuracy", "kappa")},
            "setting": fitted.setting,
            "seconds": fitted.seconds,
            "network_ahead": list(paired_difference(right, fitted.classes == test.classes, blocks)),
        }
    return table


def pixel_table(cube: TrainingCube, split: Split, role: int) -> PixelTable:
    """The pixels of a role as classifiers without a network see them."""
    pixels = split.pixels(role)
    patches = PatchDataModule(cube, split, seed=0)
    parts = [patches.patches(some, step=None).mean((2, 3)) for some in torch.from_numpy(pixels).split(1024)]
    context = torch.cat(parts).numpy() if parts else np.zeros((0, cube.values.shape[1]), np.float32)
    return PixelTable(cube.spectra(pixels), context, cube.classes.numpy()[pixels])


def blocks_of(pixels: NDArray[np.int64], split: Split) -> NDArray[np.int64]:
    """Number of the block that each pixel lies in: pixels of a field are right or wrong together."""
    rows, cols = np.divmod(pixels, split.roles.shape[1])
    return rows // BLOCK * split.roles.shape[1] + cols // BLOCK


def baseline_lines(table: dict[str, Any]) -> list[str]:
    """The baselines and the best of them beside the network, for the summary of a run."""
    ranked = sorted(table.items(), key=lambda item: -item[1]["overall_accuracy"])
    name, best = ranked[0]
    ahead, low, high = best["network_ahead"]
    others = ", ".join(f"{BASELINES[key]} {row['overall_accuracy']:.4f}" for key, row in ranked)
    lines = [f"without a network: {others}"]
    lines.append(f"network ahead of {BASELINES[name]} by {ahead:+.4f} (95 % interval {low:+.4f} to {high:+.4f})")
    if low <= 0:
        how = "worse than" if high < 0 else "not clearly better than"
        lines.append(f"warning: the network is {how} {BASELINES[name]}, which is simpler")
    return lines
