"""A small training that the tests of runs share."""

import pytest

import hsfusion as hs
from hsfusion.data.synthetic import synthetic_scene

TINY = {
    "epochs": 2,
    "steps_per_epoch": 5,
    "threads": 1,
    "figures": False,
    "select": (),
    "baselines": (),
    "groups": hs.even_groups(4),
    "model": {"channels": 4, "width": 8, "receptive_field": 5},
}


@pytest.fixture(scope="session")
def scene():
    return synthetic_scene(seed=0, height=40, width=40)


@pytest.fixture(scope="session")
def run(scene):
    """A trained run; only to be read."""
    return hs.train(scene, **TINY)


@pytest.fixture(scope="session")
def saved(run, tmp_path_factory):
    """Its folder; only to be read."""
    return run.save(tmp_path_factory.mktemp("saved") / "run", figures=False)
