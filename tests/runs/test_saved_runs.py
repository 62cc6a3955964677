"""What a run folder gives back, and what a damaged one says."""

import json
import shutil

import pytest

import hsfusion
from hsfusion.errors import InputError
from hsfusion.trust.verdict import Duplicate


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


@pytest.mark.parametrize("name", ["metrics.json", "verdict.json"])
@pytest.mark.parametrize("content", [None, "", "[1, 2"])
def test_damaged_or_missing_file_is_named(folder, name, content):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(InputError, match=name) as error:
        hsfusion.load_run(folder)
    assert "\n" not in str(error.value)


def test_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: run is missing, expected the folder of a run"):
        hsfusion.load_run(tmp_path / "nowhere")


def test_duplicate_bands_are_read(folder):
    (folder / "verdict.json").write_text(json.dumps({"beats_chance": True, "duplicates": [[0, 4, 0.9995]]}))
    assert hsfusion.load_run(folder).duplicates == (Duplicate(0, 4, 0.9995),)


def test_settings_take_a_mapping_for_the_model():
    settings = hsfusion.TrainSettings(model={"channels": 4})
    assert settings.model == hsfusion.ModelSettings(channels=4)
    with pytest.raises(InputError, match=r"name is model\.chanels, expected a setting. Fix: did you mean model\.chann"):
        hsfusion.TrainSettings(model={"chanels": 4})
