"""Accuracies of a class map, and what classifiers without a network, and labels without meaning, reach beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsfusion.data.noise import noise_differences
from hsfusion.data.patches import PatchDataModule, TrainingCube, prepare
from hsfusion.data.splits import BUFFER, TEST, TRAIN, UNUSED, VAL, Split
from hsfusion.runs.experiment import Experiment, used_layers
from hsfusion.runs.settings import TrainSettings
from hsfusion.scenes.scene import read_pixels
from hsfusion.training.classifier import accuracies, confusion_matrix
from hsfusion.trust.baselines import BASELINES, BLOCK, PixelTable, fit_baselines, paired_difference
from hsfusion.trust.chance import Chance, compare_with_moved_labels

if TYPE_CHECKING:
    from hsfusion.runs.run import Training

#: what a search can go by
VALIDATION_METRICS = ("val/overall_accuracy", "val/average_accuracy", "val/kappa", "val/mean_iou")
_MOST_TESTED = 20_000  # pixels that classifiers are compared on: their patches lie in memory


def confusion_at(split: Split, classes: NDArray[np.integer], role: int) -> NDArray[np.int64]:
    """Counts (K, K + 1) of a map of class indices (H, W) at the pixels of one role."""
    pixels, legend = split.roles == role, split.labelled.legend
    truth = legend.indices(split.labelled.labels[pixels])
    return confusion_matrix(truth, classes[pixels], num_classes=len(legend.codes))


def validation_accuracies(trainings: Sequence[Training]) -> dict[str, float]:
    """:data:`VALIDATION_METRICS` of the class maps of the networks that were kept; empty without validation pixels."""
    confusion = np.sum([confusion_at(of.experiment.split, of.result.classes, VAL) for of in trainings], axis=0)
    if not confusion.any():
        return {}
    reached = accuracies(confusion, names=trainings[0].experiment.split.labelled.legend.names)
    return {name: reached[name.removeprefix("val/")] for name in VALIDATION_METRICS}


def evaluate_test(split: Split, classes: NDArray[np.integer]) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """The one look at the test pixels: confusion matrix (K, K + 1), parts ``split`` and ``test`` of metrics.json."""
    legend = split.labelled.legend
    test = split.roles == TEST
    truth = legend.indices(split.labelled.labels[test])
    confusion = confusion_at(split, classes, TEST)
    roles = {"train": TRAIN, "val": VAL, "test": TEST, "buffer": BUFFER}
    seen, right = split.in_seen_fields(), truth == classes[test]
    of_split = {
        "kind": split.kind,
        "seed": split.seed,
        **{f"{name}_pixels": split.count(role) for name, role in roles.items()},
        "train_share": split.count(TRAIN) / int((split.labelled.labels > 0).sum()),
        "leakage": split.leakage,
        "patch_overlap": split.patch_overlap,
        "seen_fields": float(seen.mean()),
    }
    fields = {"accuracy_seen_fields": seen, "accuracy_new_fields": ~seen}
    by_field = {name: float(right[those].mean()) if those.any() else None for name, those in fields.items()}
    return confusion, {"split": of_split, "test": {**accuracies(confusion, names=legend.names), **by_field}}


def compare_with_chance(experiment: Experiment, classes: NDArray[np.integer]) -> Chance:
    """A map of class indices (H, W), and labels that mean nothing, beside the labels of the validation pixels."""
    split, scene = experiment.split, experiment.split.labelled.scene
    index, train, val = experiment.cube.classes.numpy(), split.pixels(TRAIN), split.pixels(VAL)
    return compare_with_moved_labels(
        (train, index[train]),
        (val, index[val]),
        classes.ravel()[val],
        shape=split.roles.shape,
        read=partial(read_pixels, scene, layers=np.flatnonzero(experiment.network.used_bands.numpy())),
        seed=split.seed,
    )


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
