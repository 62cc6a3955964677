"""What accuracies and kappa still say of the confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest

from hsfusion.trust.evidence import beats_chance
from hsfusion.trust.recorded import recorded_beats_chance


@pytest.mark.parametrize("seed", range(40))
def test_recorded_accuracies_say_the_same_as_the_confusion_matrix(seed):
    rng = np.random.default_rng(seed)
    confusion = rng.integers(0, 40, (4, 4)) + np.diag(rng.integers(0, 1 + seed, 4))
    total = confusion.sum()
    observed = np.trace(confusion) / total
    expected = (confusion.sum(0) * confusion.sum(1)).sum() / total**2
    kappa = (observed - expected) / (1 - expected)
    said = recorded_beats_chance(overall_accuracy=observed, kappa=kappa, pixels=int(total), receptive_field=3)
    assert said == beats_chance(confusion, receptive_field=3)


def test_both_answers_occur_among_those_matrices():
    def said(overall_accuracy, kappa):
        return recorded_beats_chance(overall_accuracy=overall_accuracy, kappa=kappa, pixels=400, receptive_field=3)

    assert (said(0.3, 0.07), said(0.6, 0.47), said(1.0, 1.0)) == (False, True, True)


def test_without_test_pixels_there_is_no_evidence():
    assert not recorded_beats_chance(overall_accuracy=1.0, kappa=1.0, pixels=0, receptive_field=7)
