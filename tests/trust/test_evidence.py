import numpy as np
import pytest

from hsfusion.trust.evidence import beats_chance


def confusion(truth, said, k=4):
    counts = np.zeros((k, k + 1), int)
    np.add.at(counts, (truth, said), 1)
    return counts


def test_guesses_are_no_evidence_and_knowledge_is():
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=5000)
    guesses = rng.integers(4, size=5000)
    assert not beats_chance(confusion(truth, guesses), receptive_field=7)
    assert beats_chance(confusion(truth, np.where(rng.random(5000) < 0.4, truth, guesses)), receptive_field=7)


def test_always_the_largest_class_is_no_evidence():
    truth = np.array([0] * 4000 + [1] * 500)
    assert not beats_chance(confusion(truth, np.zeros(4500, int)), receptive_field=1)


def test_neighbours_are_not_counted_as_independent():
    rng = np.random.default_rng(1)
    truth = rng.integers(4, size=2000)
    said = np.where(rng.random(2000) < 0.08, truth, rng.integers(4, size=2000))
    assert beats_chance(confusion(truth, said), receptive_field=1)
    assert not beats_chance(confusion(truth, said), receptive_field=7)


@pytest.mark.parametrize("seed", range(3))
def test_one_in_a_hundred_guesses_at_most_looks_like_knowledge(seed):
    rng = np.random.default_rng(seed)
    found = [beats_chance(confusion(*rng.integers(4, size=(2, 400))), receptive_field=1) for _ in range(1000)]
    assert sum(found) <= 25
