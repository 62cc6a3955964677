"""What metrics.json says of the test pixels, and which seed splits."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import hsfusion as hs
from hsfusion.data.splits import BUFFER, TEST, TRAIN, UNUSED, VAL, Split
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import InputError
from hsfusion.evidence.jobs import EvidenceSettings, Task, split_of
from hsfusion.runs.evaluation import compare_with_baselines, evaluate_test
from hsfusion.runs.experiment import split_scene
from hsfusion.runs.run import independence
from hsfusion.runs.settings import ModelSettings, TrainSettings
from hsfusion.scenes import ArrayScene, LabelledScene, Legend
from hsfusion.spectra import Bands

LABELS = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 0, 1, 1, 2]])
ROLES = np.array([[TRAIN, BUFFER, TEST, TEST, UNUSED, TRAIN, VAL, TEST, UNUSED, TEST, TEST, UNUSED]], np.uint8)
CLASSES = np.array([[0, 0, 0, 1, 0, 1, 1, 1, 0, 1, -1, 0]])


def by_hand(roles=ROLES):
    scene = ArrayScene(np.zeros((2, *LABELS.shape)), bands=Bands.from_wavelengths([500.0, 600.0]), name="hand")
    return Split("fixed", LabelledScene(scene, LABELS, Legend.of(LABELS)), roles, 1, seed=7)


def test_independence_of_the_test_pixels_by_hand():
    _, metrics = evaluate_test(by_hand(), CLASSES)
    assert metrics["split"] == {
        "kind": "fixed",
        "seed": 7,
        "train_pixels": 2,
        "val_pixels": 1,
        "test_pixels": 5,
        "buffer_pixels": 1,
        "train_per_class": {"class 1": 1, "class 2": 1},
        "train_share": 0.2,
        "leakage": 0.2,
        "patch_overlap": 0.6,
        "seen_fields": 0.6,
    }
    test = metrics["test"]
    assert test["accuracy_seen_fields"] == pytest.approx(2 / 3)
    assert test["accuracy_new_fields"] == 0.0
    assert test["overall_accuracy"] == pytest.approx(2 / 5)
    assert independence(metrics) == (
        "20.0 % of the labelled pixels for training, 1 in the buffer; 60.0 % of the test patches overlap a training "
        "patch; 60.0 % of the test pixels lie in fields that were trained on (accuracy 0.6667, in new fields 0.0000)"
    )


@pytest.mark.parametrize(("unused", "missing"), [([0, 5], "seen"), ([9, 10], "new")])
def test_accuracy_of_fields_that_there_are_none_of_is_null(unused, missing):
    roles = ROLES.copy()
    roles[0, unused] = UNUSED
    metrics = evaluate_test(by_hand(roles), CLASSES)[1]
    values = json.loads(json.dumps({kind: metrics["test"][f"accuracy_{kind}_fields"] for kind in ("seen", "new")}))
    assert [kind for kind, value in values.items() if value is None] == [missing]
    assert "none" in independence(metrics)


@pytest.mark.parametrize("own", [0, 5])
def test_split_has_a_seed_apart_from_that_of_the_network(own):
    scene = synthetic_scene(seed=0, height=40, width=40)
    splits = [
        split_scene(scene, TrainSettings(seed=seed, split=hs.blocks(**options)))
        for seed, options in ((1, {"seed": own}), (2, {"seed": own}), (own, {}), (1, {"seed": None}))
    ]
    assert [split.seed for split in splits] == [own, own, own, 1]
    assert (splits[0].roles == splits[1].roles).all()
    assert (splits[0].roles == splits[2].roles).all()
    assert (splits[0].roles != splits[3].roles).any()


def test_evidence_replaces_the_seed_of_the_split():
    settings = TrainSettings(split=hs.fields(seed=3, buffer=0))
    task = Task(synthetic_scene(seed=0, height=40, width=40), settings, EvidenceSettings())
    assert [split_of(task, "split", seed).seed for seed in (0, 1)] == [0, 1]


def test_splitter_of_ones_own_gets_the_seed_of_the_run():
    seeds = []

    def mine(labelled, *, seed, radius, valid):
        seeds.append(seed)
        return Split("mine", labelled, np.full(labelled.labels.shape, TRAIN, np.uint8), radius)

    split_scene(synthetic_scene(seed=0, height=20, width=20), TrainSettings(seed=4, split=mine))
    assert seeds == [4]


@pytest.mark.parametrize(
    ("role", "where", "part"),
    [
        (TRAIN, (0, 0), r"without a class is 1, expected 0\. Fix: give them the role 0"),
        (TEST, (0, 0), "without a class is 1"),
        (TEST, np.s_[:, 20:], "number of training pixels of class class 2 is 0, expected at least 1"),
    ],
)
def test_roles_of_ones_own_splitter_that_cannot_be_used_are_one_line(role, where, part):
    labels = np.repeat([[1, 2]], 20, axis=1).repeat(20, axis=0)
    labels[0, 0] = 0
    scene = LabelledScene(synthetic_scene(seed=0, height=20, width=40).scene, labels, Legend.of(labels))

    def mine(labelled, *, seed, radius, valid):
        roles = np.where(labelled.labels > 0, TRAIN, UNUSED).astype(np.uint8)
        roles[where] = role
        return Split("mine", labelled, roles, radius)

    with pytest.raises(InputError, match=part) as error:
        split_scene(scene, TrainSettings(split=mine, class_weights="balanced"))
    assert "\n" not in str(error.value)


def test_of_many_test_pixels_every_nth_is_compared_with_baselines(monkeypatch):
    scene = synthetic_scene(seed=0, height=30, width=30, num_classes=3)
    settings = TrainSettings(model={"receptive_field": 3}, baselines=("lda",))
    split = split_scene(scene, settings)
    right = scene.legend.indices(scene.labels)
    whole = compare_with_baselines(split, right, settings)["lda"]
    monkeypatch.setattr("hsfusion.runs.evaluation._MOST_TESTED", split.count(TEST) // 3)
    tested = []
    fit = "hsfusion.trust.baselines.fit_baselines"
    monkeypatch.setattr(fit, lambda *tables, **_: tested.append(tables) or [])
    assert compare_with_baselines(split, right, settings) == {}
    train, _, test = tested[0]
    assert len(train) == split.count(TRAIN)
    assert test.classes.tolist() == right.ravel()[split.pixels(TEST)][::4].tolist()
    assert whole["network_ahead"][0] == pytest.approx(1 - whole["overall_accuracy"])


@pytest.mark.parametrize(("limits", "named"), [((400, 430, 900, 2500), "stump (3)"), ((400, 500, 900, 2500), None)])
def test_groups_of_few_bands_beside_larger_ones_are_named(caplog, limits, named):
    groups = dict(zip(("stump", "middle", "rest"), pairwise(limits), strict=True))
    scene = synthetic_scene(seed=0, height=40, width=40)
    with caplog.at_level("WARNING"):
        split_scene(scene, TrainSettings(groups=hs.interval_groups(groups)))
        split_scene(scene, TrainSettings(groups=hs.even_groups(45)))  # of 4 and 5 bands
    told = [message for message in caplog.messages if "Small groups start" in message]
    assert len(told) == (named is not None) and all(named in message for message in told)


@pytest.fixture
def constant():
    """A scene whose last 60 bands are 7 but for test pixels, and those bands."""
    scene, settings = synthetic_scene(seed=0, height=40, width=40), TrainSettings(**SHORT)
    split = split_scene(scene, settings)
    assert split.labelled.scene is scene.scene
    cube, bands = scene.scene.read().copy(), np.arange(len(scene.scene.bands) - 60, len(scene.scene.bands))
    cube[bands] = np.where(split.roles == TEST, cube[bands], 7)
    return replace(scene, scene=ArrayScene(cube, bands=scene.scene.bands, name="constant")), bands


SHORT = {
    "epochs": 1,
    "steps_per_epoch": 3,
    "baselines": (),
    "threads": 1,
    "seed": 0,
    "model": ModelSettings(channels=4, width=8, receptive_field=3),
}


@pytest.mark.parametrize("model", [{"keep_bands": 40}, {"whitening": "none"}, {"fusion": "free"}])
def test_bands_that_are_constant_over_the_training_pixels_are_not_used(constant, caplog, model):
    scene, bands = constant
    run = hs.train(scene, **{**SHORT, "model": replace(SHORT["model"], **model)})
    (line,) = (message for message in caplog.messages if "constant over the training pixels" in message)
    assert line.startswith("constant: bands that are constant") and line.count(",") == 59
    assert not run.header.bands.good[bands].any() and scene.scene.bands.good.all()
    assert (run.weights.weight[bands] == 0).all()


@pytest.mark.parametrize("where", ["source", "target"])
def test_bands_that_are_constant_in_one_of_two_scenes_are_carried_over(constant, where):
    scenes = [constant[0], synthetic_scene(seed=0, height=40, width=40)]
    source, target = scenes if where == "source" else scenes[::-1]
    tuned = hs.finetune(hs.train(source, **SHORT), target, scratch_epochs=None, epochs=1, steps_per_epoch=3, seed=0)
    assert tuned.weights.weight.sum() == pytest.approx(1)
    if where == "target":
        assert (tuned.weights.weight[constant[1]] == 0).all()


def test_scene_of_which_all_bands_are_constant_is_refused(constant):
    bands = replace(constant[0].scene.bands, good=np.isin(np.arange(len(constant[0].scene.bands)), constant[1]))
    scene = replace(constant[0], scene=ArrayScene(constant[0].scene.read(), bands=bands, name="constant"))
    with pytest.raises(InputError, match="that vary over the training pixels is 0"):
        split_scene(scene, TrainSettings(**SHORT))
