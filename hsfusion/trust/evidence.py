"""Whether the weights of a run are evidence of anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# one-sided 1 % point of the normal distribution
_CRITICAL = 2.326


def beats_chance(confusion: NDArray[np.integer], *, receptive_field: int) -> bool:
    """Says whether a network knows more about pixels that it has not seen than chance does.

    A network that does not may put its weights anywhere, and they mean nothing. The agreement p_o of map and truth is
    compared with the agreement p_e that chance gives for the same row and column sums, as in Cohen's kappa, at the 1 %
    level. Pixels within one receptive field are counted as one observation, for neighbours are alike.

    Args:
        confusion: (K, K) or (K, K + 1) counts of test pixels, rows truth.
        receptive_field: pixels that the network sees around each.
    """
    counts = confusion.astype(np.float64)
    total = counts.sum()
    if total == 0:
        return False
    observed = np.trace(counts) / total
    expected = (counts.sum(1) * counts.sum(0)[: len(counts)]).sum() / total**2
    observations = max(1.0, total / receptive_field**2)
    error = np.sqrt(expected * (1 - expected) / observations)
    return bool(observed - expected > _CRITICAL * error)
