"""Whether the weights of a finished run are evidence of anything, from the accuracies that it recorded."""

from __future__ import annotations

import numpy as np

from hsfusion.trust.evidence import _CRITICAL


def recorded_beats_chance(*, overall_accuracy: float, kappa: float, pixels: int, receptive_field: int) -> bool:
    r"""What :func:`~hsfusion.trust.evidence.beats_chance` said of the confusion matrix, which is not kept.

    The agreement by chance follows from Cohen's kappa, :math:`p_e = (p_o - \kappa) / (1 - \kappa)`.

    Args:
        overall_accuracy: on the test pixels, p_o.
        kappa: on the same pixels; 1 where all are right.
        pixels: how many they are.
        receptive_field: pixels that the network sees around each.
    """
    if pixels == 0:
        return False
    if kappa >= 1:  # the chance is not known any more, but below 1 where kappa is defined
        return True
    expected = min(max((overall_accuracy - kappa) / (1 - kappa), 0.0), 1.0)
    error = np.sqrt(expected * (1 - expected) / max(1.0, pixels / receptive_field**2))
    return bool(overall_accuracy - expected > _CRITICAL * error)
