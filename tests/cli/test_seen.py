import numpy as np
import pytest

from hsfusion.cli.seen import all_seen, check_not_seen, seen_pixels
from hsfusion.data.splits import blocks
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import InputError


def split(ground, *, seed):
    valid = np.ones((40, 40), bool)
    return blocks(synthetic_scene(height=40, width=40, seed=ground), radius=1, seed=seed, valid=valid)


@pytest.fixture(scope="module")
def other():
    """A ground with some pixels unlabelled, so that it is told from the rest."""
    made = synthetic_scene(height=40, width=40, seed=1)
    made.labels[:5] = 0
    return blocks(made, radius=1, seed=0, valid=np.ones((40, 40), bool))


def test_test_pixels_that_a_model_was_trained_on_are_refused_and_its_own_split_passes(other):
    header = {"seen": seen_pixels(split(0, seed=0)), "seed": 0}
    check_not_seen(split(0, seed=0), header)
    check_not_seen(other, header)
    with pytest.raises(InputError, match=r"test pixels that the pretrained model has seen is .* \(seed=0\)"):
        check_not_seen(split(0, seed=1), header)


def test_what_was_seen_before_fine_tuning_elsewhere_is_not_forgotten(other):
    first = {"seen": seen_pixels(split(0, seed=0))}
    second = {"seen": seen_pixels(other), "seen_before": list(all_seen(first))}
    assert all_seen(second) == (first["seen"], second["seen"])
    with pytest.raises(InputError, match="Fix: use the split that an earlier training of the model on this ground had"):
        check_not_seen(split(0, seed=1), second)
    check_not_seen(split(0, seed=0), second)


def test_a_header_keeps_the_latest_grounds(other):
    entries = [{"ground": f"{i:064x}", "pixels": "x"} for i in range(20)]
    assert all_seen({"seen_before": entries, "seen": {"ground": "f" * 64, "pixels": "y"}})[-1]["pixels"] == "y"
    assert len(all_seen({"seen_before": entries})) == 16


@pytest.mark.parametrize("pixels", ["é", "!!", "AAAA", "eJw="])
def test_a_mask_that_is_none_is_refused_in_one_line(other, pixels):
    entry = seen_pixels(other)
    assert entry is not None
    with pytest.raises(InputError, match=r"seen\.pixels"):
        check_not_seen(other, {"seen": entry | {"pixels": pixels}})
