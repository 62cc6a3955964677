import json

import numpy as np
import pytest
import rasterio
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException

from hsfusion.cli.commands import configuration_of, scene_of, settings_of, several_scenes
from hsfusion.cli.words import CONF
from hsfusion.data.splits import TRAIN
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import HsFusionError, InputError
from hsfusion.runs import experiment, training
from hsfusion.training.callbacks import History
from hsfusion.training.model_file import load_model
from hsfusion.trust.chance import MAPS

from .conftest import SMALL

FIELD = ("groups.number=4", *(word for word in SMALL[3:] if not word.startswith("groups")))


@pytest.fixture
def scenes(tmp_path):
    """Two descriptions: every other band of a scene from 500 nm on, in another unit; and all of it, one class less."""
    for name, seed, bands, scale, names in (
        ("south", 1, slice(10, None, 2), 100, {1: "rye", 2: "class 2", 3: "class 3"}),
        ("north", 0, slice(None), 1, {1: "class 1", 2: "class 2"}),
    ):
        made = synthetic_scene(seed=seed, height=40, width=40, num_classes=len(names))
        cube = made.scene.read((0, 0, 40, 40))[bands] * scale
        np.save(tmp_path / f"{name}.npy", cube.transpose(1, 2, 0))
        np.save(tmp_path / f"{name}_labels.npy", made.labels)
        nm = made.scene.bands.wavelength_nm[bands].tolist()
        (tmp_path / f"{name}.yaml").write_text(
            f"cube: {name}.npy\nlabels: {name}_labels.npy\nwavelength_unit: nm\nwavelengths: {nm}\n"
            f"class_names: {names}\n"
        )
    return [str(tmp_path / f"{name}.yaml") for name in ("north", "south")]


@pytest.fixture
def configured(scenes):
    """Composes a configuration as the command does."""
    with initialize_config_dir(str(CONF), version_base="1.3"):

        def make(*words, entries=scenes):
            chosen = any(word.startswith("groups=") for word in words)
            small = [word for word in FIELD if not (chosen and word.startswith("groups"))]
            return compose(
                "train", overrides=["scene=several", f"scene.scenes={entries}", "logger=none", *small, *words]
            )

        yield make
    assert not GlobalHydra.instance().is_initialized()


def prepare(cfg):
    return experiment.prepare_jointly(several_scenes(cfg), settings_of(cfg))


def fit(cfg, folder, checkpoint=None):
    return training.fit_jointly(settings_of(cfg), *prepare(cfg), folder=folder, checkpoint=checkpoint)


def test_scenes_of_one_ground_that_are_split_differently_are_refused(configured, scenes, tmp_path):
    words = (tmp_path / "north.yaml").read_text()
    labels = np.load(tmp_path / "north_labels.npy")
    for name, change in (("same", 0), ("fewer", 40)):
        rest = labels.copy()
        rest.ravel()[np.random.default_rng(0).choice(labels.size, change, replace=False)] = 0
        np.save(tmp_path / f"{name}_labels.npy", rest)
        again = words.replace("north_labels.npy", f"{name}_labels.npy")
        (tmp_path / f"{name}.yaml").write_text(again + f"name: {name}\n")
    parts, _ = prepare(configured(entries=[scenes[0], str(tmp_path / "same.yaml")]))
    assert np.array_equal(parts[0].split.roles, parts[1].split.roles)
    with pytest.raises(InputError, match="number of test pixels that fewer trains on is"):
        prepare(configured(entries=[scenes[0], str(tmp_path / "fewer.yaml")]))


def test_groups_that_a_scene_lacks_name_the_range_common_to_all(configured, scenes):
    entries = [scenes[0], "synthetic@desis"]
    with pytest.raises(
        InputError, match=r"in group \S+ nm is 0, .* groups=vnir_swir ~groups.nm.SWIR groups.nm.VNIR=\[\d+,1000\]"
    ):
        prepare(configured("groups.number=4", entries=entries))
    words = "groups=vnir_swir", "~groups.nm.SWIR"
    assert [group.name for group in prepare(configured(*words, entries=entries))[0][1].initial.groups] == ["VNIR"]


def test_each_scene_is_split_and_standardised_alone_on_one_legend(configured):
    north, south = prepare(configured())[0]
    assert len(north.network.mean) == 211
    assert len(south.network.mean) == 101
    for part in (north, south):
        cube = part.split.labelled.scene.read((0, 0, 40, 40))[:, part.split.roles == TRAIN]
        used = part.network.fusion.membership.any(0).numpy()
        np.testing.assert_allclose(part.network.mean.numpy()[used], cube.mean(1)[used], rtol=1e-4)
        np.testing.assert_allclose(part.network.std.numpy()[used], cube.std(1)[used], rtol=1e-4)
    assert south.network.std.mean() > 50 * north.network.std.mean()
    assert north.split.labelled.legend == south.split.labelled.legend
    names = south.split.labelled.legend.names
    assert sorted(names) == ["class 1", "class 2", "class 3", "rye"]
    counts = [np.bincount(part.cube.classes[part.cube.classes >= 0], minlength=4) for part in (north, south)]
    assert [{name for name, n in zip(names, count, strict=True) if n} for count in counts] == [
        {"class 1", "class 2"},
        {"rye", "class 2", "class 3"},
    ]
    assert north.initial.groups == south.initial.groups


def test_models_share_coefficients_group_weights_and_cnn(configured, tmp_path):
    finished = fit(configured(), tmp_path / "run")
    north, south = (experiment.network.state_dict() for experiment, _ in finished)
    same = {name for name in north if north[name].shape == south[name].shape and torch.equal(north[name], south[name])}
    assert {name for name in north if name.startswith("cnn.") or name == "fusion.coefficients"} <= same
    assert "fusion.group_sum.raw" in same
    for part, outcome in finished:
        assert outcome.weights.weight.sum() == pytest.approx(1)
        assert outcome.weight_history[1].shape == (2, len(part.network.mean))
        assert outcome.metrics["test"]["overall_accuracy"] > 0


def test_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(configured, tmp_path, monkeypatch):
    cfg = configured()
    whole = fit(cfg, tmp_path / "whole")

    def stop(self, trainer, module):
        if trainer.current_epoch == 1:
            raise KeyError("stopped on purpose")

    with monkeypatch.context() as patched, pytest.raises(KeyError):
        patched.setattr(History, "on_train_epoch_start", stop)
        fit(cfg, tmp_path / "cut")
    checkpoint = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    rest = fit(cfg, tmp_path / "rest", checkpoint)
    for (one, outcome), (other, expected) in zip(rest, whole, strict=True):
        assert outcome.history == expected.history
        expected_state = other.network.state_dict()
        for name, tensor in one.network.state_dict().items():
            assert torch.equal(tensor, expected_state[name]), name


def test_run_folder_holds_a_run_folder_of_each_scene(hsfusion, scenes, tmp_path):
    words = [f"scene.scenes=[{scenes[0]},synthetic@enmap]", "scene=several", "run_dir=run", *FIELD]
    words += ["baselines=[lda]", "model.linear=true"]
    done = hsfusion("train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {
        *("north", "synthetic_enmap", "config.yaml", "inputs.json", "metrics.json", "train.log", "checkpoints", "logs")
    }
    metrics = json.loads((run / "metrics.json").read_text())
    right = tested = 0
    for name in ("north", "synthetic_enmap"):
        written = json.loads((run / name / "metrics.json").read_text())
        of_scene = written["test"]
        ahead = of_scene["overall_accuracy"] - written["baselines"]["lda"]["overall_accuracy"]
        assert written["baselines"]["lda"]["network_ahead"][0] == pytest.approx(ahead)
        assert metrics["scenes"][name]["test"] == of_scene
        support = sum(row["support"] for row in of_scene["per_class"].values())
        right, tested = right + of_scene["overall_accuracy"] * support, tested + support
        _, header = load_model(run / name / "model.safetensors")
        assert header.scene_name == name
        assert written["chance"]["maps"] == MAPS
        assert (run / name / "report.html").is_file()
        with rasterio.open(run / name / "map.tif") as file:
            assert list(file.shape) == header.training_scene["shape"]
    assert "the linear part and select need the pixels of one scene" in (run / "train.log").read_text()
    assert metrics["test"]["overall_accuracy"] == pytest.approx(right / tested)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (
            ["groups=classic", "groups.nm.blue=[400,480]"],
            "south: number of good bands in group blue is 0, expected at least 1",
        ),
        (["model.knot_spacing_nm=null"], "keep_bands is None and None, expected knots in nm"),
        (["model.keep_bands=5"], "is 40.0 and 5, expected knots in nm and no keep_bands"),
        (
            ["model.fusion=free"],
            "fusions of kinds ['free', 'free'] with coefficients of shapes [] have nothing to share",
        ),
        (["data.batch_size=1"], "data.batch_size is 1, expected at least 2"),
    ],
)
def test_what_several_scenes_cannot_have_is_refused(configured, words, part):
    with pytest.raises(HsFusionError) as error:
        prepare(configured(*words))
    assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entries", "part"),
    [(["synthetic"], "expected at least two"), (["synthetic", "none.yaml"], "none.yaml: description is missing")],
)
def test_entries_that_name_no_scene_are_refused(configured, entries, part):
    with pytest.raises((InputError, InstantiationException)) as error:  # Hydra wraps what a constructor raises
        prepare(configured(entries=entries))
    assert part in str(error.value)


def test_run_folder_tells_what_entries_stand_for(configured, scenes):
    described, simulated = configuration_of(configured("name=both", entries=[scenes[0], "synthetic@enmap"]))["scene"][
        "contents"
    ]
    assert described["files"] == [scenes[0]]
    assert described["contents"][0]["class_names"] == {1: "class 1", 2: "class 2"}
    assert simulated["sensor"] == "enmap"
    assert simulated["of"]["height"] == 64


def test_two_scenes_of_one_name_are_refused(configured):
    with pytest.raises(InputError, match=r"scene\.scenes is synthetic, synthetic, expected .* unique names"):
        prepare(configured(entries=["synthetic", "synthetic"]))


def test_commands_for_one_scene_refuse_several(configured):
    with pytest.raises(InstantiationException) as error:
        scene_of(configured())
    assert "scene is several, expected one scene" in str(error.value.__cause__)
