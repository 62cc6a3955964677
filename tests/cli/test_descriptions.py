import json

import numpy as np
import pytest
import rasterio
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from hsfusion.cli.commands import configuration_of
from hsfusion.cli.words import CONF
from hsfusion.errors import InputError
from hsfusion.scenes import description
from hsfusion.scenes.description import (
    ConfigurationLoader,
    check_scene_value,
    open_described,
    read_description,
    scene_keys,
    to_yaml,
)

SMALL = (
    "trainer=cpu",
    "trainer.max_epochs=2",
    "data.steps_per_epoch=5",
    "model.channels=4",
    "model.width=8",
    "threads=1",
)


def write_scene(folder, name, *, seed):
    """A cube in which two classes differ, its labels, and the YAML that describes both."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.repeat(rng.integers(1, 3, (5, 5)), 8, 0), 8, 1).astype(np.uint8)
    labels[0], labels[1] = 1, 2
    cube = rng.normal(0, 1, (40, 40, 12)).astype(np.float32)
    cube[..., 3] += 5 * (labels == 2)
    cube[..., 7] = 3
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{name}.npy", cube)
    profile = {"driver": "GTiff", "height": 40, "width": 40, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
    place = rasterio.Affine(30, 0, 1000 * seed, 0, -30, 0)
    with rasterio.open(folder / f"{name}_labels.tif", "w", transform=place, **profile) as file:
        file.write(labels[None])
    (folder / f"{name}.yaml").write_text(
        f"cube: {name}.npy\nlabels: {name}_labels.tif\nwavelength_unit: nm\n"
        f"wavelengths: {[400 + 50 * i for i in range(12)]}\nbad_bands: [[840, 860]]\n"
        'class_names: {1: heath, 2: moor}\nclass_colors: {2: "#102030"}\n'
    )
    return folder / f"{name}.yaml"


def test_paths_start_at_the_folder_of_the_description(tmp_path):
    labelled = open_described([str(write_scene(tmp_path / "data", "north", seed=1))])
    assert labelled.scene.name == "north"
    assert labelled.legend.names == ("heath", "moor")
    assert labelled.legend.colors[1] == "#102030"
    assert np.flatnonzero(~labelled.scene.bands.good).tolist() == [7, 9]  # one number only; named as bad


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cub: x\n", r"key is cub, expected cube .* did you mean cube\?"),
        ("labels: x\n", "cube is missing"),
        ("cube: 5\n", "cube is 5, expected a file"),
        ("cube: null\n", "cube is missing"),
        ("cube: x\nlabels: null\n", "labels is missing"),
        ("cube: x\nlabels: 5\n", "labels is 5, expected a file"),
        ("cube: x\nbad_bands: 3\n", "bad_bands is 3, expected a list of intervals"),
        ("cube: x\nbad_bands: null\n", "bad_bands is null, expected a list of intervals"),
        ("cube: x\nbad_bands: [400, 420]\n", r"bad_bands is \[400, 420\], expected a list of intervals"),
        ("cube: x\nbad_bands: [[400, 420, 440]]\n", "bad_bands is .*, expected a list of intervals"),
        ("cube: x\nscale: [1]\n", r"scale is \[1\], expected a number"),
        ("cube: x\nscale: true\n", "scale is true, expected a number"),
        ("cube: x\nscale: 010\n", "scale is 010, expected a number"),
        ("cube: x\nnodata: none\n", "nodata is none, expected a number"),
        ("cube: x\nvariable: 5\n", "variable is 5, expected a word .in quotation marks"),
        ("cube: x\nclass_field: {a: 1}\n", "class_field is .*, expected a word"),
        ("cube: x\nwavelengths: [400, [500]]\n", "wavelengths is .*, expected a file, or a list of numbers"),
        ("cube: x\nunlabelled: null\n", "unlabelled is null, expected a code"),
        ("cube: x\nunlabelled: [0, 1.5]\n", "unlabelled is .*, expected a code"),
        ("cube: x\nclass_names: {1: [a, b]}\n", "class_names is .*, expected a list of names, or names by code"),
        ("cube: x\nclass_colors: red\n", "class_colors is red, expected colours, or colours by code"),
        ("cube: x\nsources: [a.tif]\n", "sources is .*, expected files by name"),
        ("cube: x\nsources: {a: {b: c}}\n", "sources is .*, expected files by name"),
        ("- a\n", "description is unreadable"),
        ("cube: [\n", "unreadable"),
        ("cube: x\ncube: y\n", "unreadable"),
        ("cube: x\nclass_names: {1: a, 1: b}\n", "unreadable .key 1 twice"),
        ("_target_: os.system\ncube: x\n", r"_target_ is os\.system, expected keys"),
        ("cube: x\nclass_names: {_target_: os.system}\n", r"class_names\._target_ is os\.system, expected keys"),
        ("cube: x\nbad_bands: [{a: {_args_: 1}}]\n", r"bad_bands\.a\._args_ is 1, expected keys"),
        ("cube: x\nclass_names: {1: '${oc.env:HOME}'}\n", r"class_names\.1 is \$\{oc\.env:HOME\}, expected keys"),
        ("cube: x\nclass_names: [a, 'b ${a}']\n", r"class_names is b \$\{a\}, expected keys"),
        ("cube: x\nsources: {'${a}': b}\n", r"sources\.\$\{a\} is b, expected keys"),
        ("cube: x\n", "labels is missing"),
        ("!!python/object/apply:os.system [ls]\n", "unreadable"),
        ("\xff\xfe", "unreadable|list"),
        ("", "cube is missing"),
        ("5\n", "description is unreadable"),
        ("cube: " + "[" * 100_000, "unreadable"),
    ],
)
def test_description_that_is_none_is_one_line(tmp_path, text, message):
    (tmp_path / "scene.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=message) as caught:
        open_described([str(tmp_path / "scene.yaml")])
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "scene.yaml") in str(caught.value)


def test_every_key_has_a_type():
    for key in scene_keys():
        with pytest.raises(InputError, match=rf"here: {key} is \[\[\[\]\]\], expected"):
            check_scene_value("here", key, [[[]]])


def test_null_is_as_if_the_key_were_not_there(tmp_path):
    (tmp_path / "scene.yaml").write_text("cube: x\nscale: null\nname: null\nsources: null\nunlabelled: 3\n")
    path = str(tmp_path / "x")
    assert read_description(tmp_path / "scene.yaml") == {"cube": path, "unlabelled": 3, "name": "scene"}


def test_words_are_text_and_numbers_are_numbers(tmp_path):
    (tmp_path / "scene.yaml").write_text(
        "cube: no\nname: 010\nscale: 1e-4\noffset: -.5\nnodata: -9999\nclass_names: {1: no, 2: yes, 3: on, 4: 1:30}\n"
        "unlabelled: [0, 7]\nclass_field: true\nwavelength_unit: ~\n"
    )
    assert read_description(tmp_path / "scene.yaml") == {
        "cube": str(tmp_path / "no"),
        "name": "010",
        "scale": 1e-4,
        "offset": -0.5,
        "nodata": -9999,
        "class_names": {1: "no", 2: "yes", 3: "on", 4: "1:30"},
        "unlabelled": [0, 7],
        "class_field": "true",
    }


def test_plain_values_come_back_from_yaml_unchanged():
    words = ["no", "true", "010", "1e-4", "1:30", "null", "", "2024-01-01", "=a", "${b}", "a\nb", "ü", "12", "1_000"]
    values = {
        "words": words,
        "numbers": [0, -3, 1e-5, 1.5, 1e300],
        "others": [None, True, False, {}, []],
        "a: b": {1: 2},
    }
    assert yaml.load(to_yaml(values), ConfigurationLoader) == values
    assert yaml.safe_load(to_yaml(values))["words"] == words


def test_description_may_lie_in_a_folder_of_the_user_too(tmp_path):
    (tmp_path / "scene.yaml").write_text(
        "defaults: [file, _self_]\n_target_: hsfusion.scenes.open_labelled_scene\ncube: x\n"
    )
    assert read_description(tmp_path / "scene.yaml") == {"cube": str(tmp_path / "x"), "name": "scene"}


@pytest.mark.parametrize("words", [[], ["scene=simulated", "scene@scene.of=described", "scene.sensor=sentinel2"]])
def test_nothing_of_a_description_is_called_or_resolved_even_if_it_were_let_through(tmp_path, monkeypatch, words):
    """Control: the same words in the configuration itself, the user's own, are."""
    monkeypatch.setattr(description, "active_keys", lambda content: ())
    monkeypatch.setenv("SECRET", "hunter2")
    path = write_scene(tmp_path, "north", seed=1)
    code = f"{{_target_: os.mkdir, path: {tmp_path}/marker}}"
    with open(path, "a") as file:
        file.write(f"variable: '${{oc.env:SECRET}}'\nsources: {code}\n")
    key = "scene.of" if words else "scene"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[*(words or ["scene=described"]), f"{key}.files=[{path}]", "name=a"])
        other = compose(
            "train", overrides=["scene=file", "scene.cube=a", "scene.labels=b", f"+scene.c={code}", "name=a"]
        )
    with pytest.raises(Exception, match=r"variable|sources"):
        instantiate(cfg.scene)
    scene = configuration_of(cfg)["scene"]
    assert (scene["of"] if words else scene)["contents"][0]["variable"] == "${oc.env:SECRET}"
    assert not (tmp_path / "marker").exists()
    with pytest.raises(Exception, match="unexpected keyword"):
        instantiate(other.scene)
    assert (tmp_path / "marker").exists()


def test_description_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"scene\.yaml: description is missing, .*relative paths start"):
        read_description(tmp_path / "scene.yaml")


def test_described_scene_is_trained_on_and_named(hsfusion, tmp_path):
    write_scene(tmp_path / "data", "north", seed=1)
    words = ("scene=data/north.yaml", "split=random", "groups.number=2", *SMALL)
    done = hsfusion("train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bands with a single value or no data are not used: 750 nm" in (done.stderr + done.stdout)
    (run,) = (tmp_path / "runs" / "north").iterdir()
    assert f"cube: {tmp_path}/data/north.npy" in (run / "config.yaml").read_text()
    assert "'scale': 1.0" in (run / "train.log").read_text()
    with open(tmp_path / "data" / "north.yaml", "a") as file:
        file.write("scale: 0.5\n")
    again = hsfusion("train", *words, f"resume={run}", cwd=tmp_path)
    assert again.returncode == 2
    assert "scene.contents is" in again.stderr.splitlines()[-1]
    assert json.loads((run / "metrics.json").read_text())["test"]["per_class"].keys() == {"heath", "moor"}


def test_several_scenes_are_one_training_set_and_each_gets_its_map(hsfusion, tmp_path):
    for seed, name in ((1, "north"), (2, "south")):
        write_scene(tmp_path, name, seed=seed)
    words = ("scene=described", "scene.files=[north.yaml,south.yaml]", "name=both", "split.block_pixels=10", *SMALL)
    done = hsfusion("train", *words, "groups.number=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs" / "both").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["split"]["leakage"] == 0
    for name in ("north", "south"):
        with rasterio.open(run / "maps" / f"{name}.tif") as file:
            assert file.shape == (40, 40)
            assert set(np.unique(file.read())) <= {1, 2}
    assert (run / "map.tif").is_file()


def test_odd_names_of_descriptions_are_found(hsfusion, tmp_path):
    path = write_scene(tmp_path, "north", seed=1)
    path.rename(tmp_path / "it's a=b.yaml")
    done = hsfusion("train", "scene=it's a=b.yaml", "split=random", "groups.number=2", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "it's a=b").is_dir()


def test_cube_without_labels_is_refused_by_train(hsfusion, tmp_path):
    done = hsfusion("train", "scene=cube", "scene.path=x.npy", cwd=tmp_path)
    assert done.returncode == 2
    assert "x.npy: file is missing" in done.stderr.splitlines()[-1]
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((9, 9, 2)))
    keys = ("scene=cube", "scene.path=x.npy", "scene.wavelengths=[500,600]", "scene.wavelength_unit=nm")
    done = hsfusion("train", *keys, cwd=tmp_path)
    assert done.returncode == 2
    assert "x: labels is missing, expected a scene with labels" in done.stderr.splitlines()[-1]
