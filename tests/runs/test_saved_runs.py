"""What a run folder gives back, and what a damaged one says."""

import json

import pytest
import torch

import hsfusion
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import InputError
from hsfusion.runs.folder import read_checks, read_metrics


@pytest.fixture(scope="module")
def run():
    model = {"channels": 4, "width": 8, "receptive_field": 5}
    return hsfusion.train(
        synthetic_scene(seed=0, height=40, width=40),
        groups=hsfusion.even_groups(4),
        split=hsfusion.blocks(block_pixels=8),
        model=model,
        epochs=1,
        steps_per_epoch=3,
        threads=1,
        figures=False,
    )


@pytest.fixture
def folder(run, tmp_path):
    return run.save(tmp_path / "run", figures=False)


def test_saved_run_gives_the_same_network_and_header(run, folder):
    loaded = hsfusion.load_run(folder)
    x = torch.randn(2, len(run.network.mean), 9, 9)
    assert torch.equal(loaded.network(x), run.network.eval()(x))
    assert loaded.legend == run.legend
    assert loaded.header.to_dict() | {"checksum": None} == json.loads(json.dumps(run.header.to_dict())) | {
        "checksum": None
    }
    assert loaded.accuracy == run.accuracy
    assert loaded.header.scene_name == "synthetic"
    assert (loaded.class_map == run.class_map).all()


@pytest.mark.parametrize("content", [None, "", "{}", "[1, 2", "[" * 100_000, '{"split": {"leakage": NaN}}'])
def test_damaged_metrics_name_the_file(folder, content):
    (folder / "metrics.json").unlink()
    if content is not None:
        (folder / "metrics.json").write_text(content)
    with pytest.raises(InputError, match=r"metrics\.json") as error:
        read_metrics(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"beats_chance": 1, "duplicates": []}, "beats_chance is 1, expected true or false"),
        ({"beats_chance": True}, "duplicates is missing"),
        ({"beats_chance": True, "duplicates": [[0, 1]]}, "shape of duplicates"),
        ({"beats_chance": True, "duplicates": [[0, -1, 0.999]]}, "duplicates is of other bands, expected bands from 0"),
        ({"beats_chance": True, "duplicates": [[0, "b", 0.999]]}, "duplicates is unfit"),
    ],
)
def test_damaged_checks_name_the_key(folder, content, match):
    (folder / "verdict.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=match):
        read_checks(folder, bands=5)


def test_sound_checks_are_read(folder):
    (folder / "verdict.json").write_text(json.dumps({"beats_chance": True, "duplicates": [[0, 4, 0.9995]]}))
    assert read_checks(folder, bands=5) == (True, [(0, 4, 0.9995)])


def test_settings_take_a_mapping_for_the_model():
    settings = hsfusion.TrainSettings(model={"channels": 4})
    assert settings.model == hsfusion.ModelSettings(channels=4)
    with pytest.raises(InputError, match=r"name is model\.chanels, expected a setting. Fix: did you mean model\.chann"):
        hsfusion.TrainSettings(model={"chanels": 4})
