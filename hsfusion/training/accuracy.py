"""Accuracies of a classification, from its confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], *, num_classes: int
) -> NDArray[np.int64]:
    """Counts (K, K), rows truth, columns prediction, of class indices 0..K-1.

    Pixels without a prediction (-1) count as an extra column K, so that they are never right and never left out.

    Returns:
        (K, K + 1)
    """
    column = np.where(prediction < 0, num_classes, prediction)
    counts = np.bincount(truth * (num_classes + 1) + column, minlength=num_classes * (num_classes + 1))
    return counts.reshape(num_classes, num_classes + 1)


def accuracies(confusion: NDArray[np.integer], *, names: Sequence[str]) -> dict[str, Any]:
    """Overall accuracy, average accuracy, kappa, mean IoU and the accuracy of each class.

    Averages run over the classes that occur in the truth; the support says which do. Cohen's kappa is
    ``(p_o - p_e) / (1 - p_e)`` with the agreement p_o and the agreement p_e expected by chance (Cohen 1960,
    doi:10.1177/001316446002000104).

    Args:
        confusion: (K, K) or (K, K + 1), rows truth, columns prediction.
        names: K class names.

    Returns:
        fractions 0-1; ``accuracy`` of a class without support is None.
    """
    counts = confusion.astype(np.float64)
    k = counts.shape[0]
    right, support = np.diagonal(counts), counts.sum(1)
    predicted, total = counts.sum(0)[:k], counts.sum()
    present = support > 0
    overall = right.sum() / total
    chance = (support * predicted).sum() / total**2
    recall = right[present] / support[present]
    iou = right[present] / (support + predicted - right)[present]
    return {
        "overall_accuracy": float(overall),
        "average_accuracy": float(recall.mean()),
        "kappa": float((overall - chance) / (1 - chance)) if chance < 1 else 1.0,
        "mean_iou": float(iou.mean()),
        "per_class": {
            name: {"accuracy": float(right[i] / support[i]) if present[i] else None, "support": int(support[i])}
            for i, name in enumerate(names)
        },
    }
