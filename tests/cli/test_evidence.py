import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir

import hsfusion as hs
import hsfusion.data.synthetic as synthetic
from hsfusion.cli.benchmark import evidence
from hsfusion.cli.commands import scene_of, settings_of
from hsfusion.cli.words import CONF
from hsfusion.errors import InputError
from hsfusion.evidence.jobs import LOCKS, EvidenceSettings, Job, Task, Workers, _remove_leftovers, split_of, used_bands
from hsfusion.evidence.stages import _claim, _Stages, stability_of, verdict_of
from hsfusion.runs.comparison import Profiles
from hsfusion.runs.experiment import new_model
from hsfusion.runs.folder import write_json
from hsfusion.runs.run import duplicate_bands
from hsfusion.runs.settings import TrainSettings
from hsfusion.scenes import ArrayScene
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import Bands, BandWeights, even_groups, membership
from hsfusion.spectra.weights import group_of_bands
from hsfusion.training.building import WeightReadout, build_network
from hsfusion.trust.stability import window_stability

TINY = [
    *("name=tiny", "scene=synthetic", "scene.height=40", "scene.width=40", "groups.number=4"),
    *("model.channels=4", "model.width=8", "model.receptive_field=3", "trainer=cpu", "trainer.max_epochs=1"),
    *("data.steps_per_epoch=10", "progress=false", "jobs=1", "seeds=2", "resamples=2", "faithfulness_pixels=20"),
    "moved_maps=1",
]
SMALL_TOP_K = ["top_k=[10]", "top_k_seeds=1", "top_k_members=1", "retrain_epochs=1", "retrain=[svm,network]"]
CURVE = {"accuracy", "random_mean", "random_lower", "random_upper", "area", "lower", "upper", "p"}


def evidence_of(folder, *words):
    """Runs the benchmark in this process; the content of evidence.json."""
    torch.set_num_threads(1)
    evidence(configured(folder, *words))
    return json.loads((folder / "evidence.json").read_text())


def configured(folder, *words):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("evidence", overrides=[f"folder={folder}", *words])


def tiny_task(folder):
    """What the jobs of the tiny run share."""
    cfg = configured(folder, *TINY)
    return Task(scene_of(cfg), settings_of(cfg), EvidenceSettings())


@pytest.fixture(scope="module", autouse=True)
def few_orders():
    """A tenth of the random orders, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hsfusion.evidence.jobs.ORDERS", 19)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence") / "tiny"
    return folder, evidence_of(folder, *TINY, *SMALL_TOP_K)


@pytest.fixture
def changed_scene(monkeypatch):
    """Makes scene=synthetic give another scene."""
    real = synthetic.synthetic_scene

    def change(how):
        monkeypatch.setattr(synthetic, "synthetic_scene", lambda **keys: how(real(**keys)))

    return change


# what it leaves


def test_every_run_leaves_its_weights_and_nothing_else(tiny):
    folder, found = tiny
    names = {f"seed-{seed}-resample-{resample}" for seed, resample in ((0, 0), (1, 0), (2, 1), (3, 1))}
    assert {path.name for path in (folder / "runs").iterdir()} == names
    for run in found["runs"]:
        there = {path.name for path in (folder / run["folder"]).iterdir()}
        assert {"band_weights.csv", "response.csv", "group_weights.csv", "metrics.json", "model.safetensors"} <= there
        assert "checkpoints" not in there
        metrics = json.loads((folder / run["folder"] / "metrics.json").read_text())
        assert metrics["test"]["overall_accuracy"] == run["overall_accuracy"]
        assert (metrics["seed"], metrics["resample"]) == (run["seed"], run["resample"])
    splits = [json.loads(path.read_text())["split"] for path in (folder / "runs").rglob("metrics.json")]
    assert len({split["train_pixels"] for split in splits}) == 2  # halves
    assert {(split["seed"], split["leakage"]) for split in splits} == {(0, 0)}
    assert len({(split["val_pixels"], split["test_pixels"]) for split in splits}) == 1
    assert found["splits"] == 1


def test_evidence_holds_every_number_of_every_band_and_run(tiny):
    folder, found = tiny
    bands = len(found["bands"]["wavelength_nm"])
    assert bands == len(found["band_groups"]) == len(found["untrained"]) == 211
    assert np.shape(found["profiles"]) == (4, bands)
    np.testing.assert_allclose(np.sum(found["profiles"], axis=1), 1, atol=1e-6)
    assert found["split"] == {"kind": "blocks", "seed": 0, "leakage": 0.0}
    assert {"single", "reported", "untrained"} < set(found["stability"])
    assert (found["stability"]["reported"]["profiles"], found["stability"]["reported"]["members"]) == (2, 2)
    assert set(found["stability"]["index_of_members"]) == {"1", "2"}
    draws = [json.loads((folder / "rankings" / f"resample-{i}.json").read_text()) for i in (0, 1)]
    task = tiny_task(folder)
    nm = np.array(found["bands"]["wavelength_nm"])[used_bands(task.scene.scene, task.settings)]
    agreement = {name: window_stability(np.array([of[name] for of in draws]), nm).index for name in draws[0]}
    assert found["rankings"] == pytest.approx(agreement) and len(agreement) == 3
    assert [(run["seed"], run["resample"]) for run in found["runs"]] == [(0, 0), (2, 1), (1, 0), (3, 1)]
    assert 0 <= found["uniformity_p"] <= 1
    assert found["stability"]["untrained"]["profiles"] == 2
    assert sum(found["untrained"]) == pytest.approx(1)


def test_curves_start_and_end_where_they_must(tiny):
    _, found = tiny
    curves = found["faithfulness"]
    assert curves["networks"] == 2 and curves["pixels"] == 20
    assert curves["numbers"][0] == 0 and curves["numbers"][-1] == 211
    for fill in ("mean", "conditional"):
        deletion, insertion = curves["deletion"][fill], curves["insertion"][fill]
        assert set(deletion) == set(insertion) == CURVE
        assert deletion["accuracy"][0] == pytest.approx(curves["accuracy"])
        for curve in (deletion, insertion):  # all orders meet at both ends
            assert curve["accuracy"][0] == pytest.approx(curve["random_mean"][0])
            assert curve["accuracy"][-1] == pytest.approx(curve["random_mean"][-1])
            assert curve["lower"] <= curve["area"] <= curve["upper"]
    assert [group["name"] for group in curves["groups"]] == [group["name"] for group in found["groups"]]


def test_networks_on_moved_label_maps_stand_beside_those_on_the_labels(tiny):
    folder, found = tiny
    assert len(list(folder.glob("moved-*-runs/seed-*/metrics.json"))) == 2  # one map, two draws
    names = {f"area of {way}, {fill}" for way in ("deletion", "insertion") for fill in ("mean", "conditional")}
    assert set(found["moved"]) == names | {"index of single runs", "uniformity of single runs"}
    assert all(len(of["moved"]) == 1 for of in found["moved"].values())
    area = found["faithfulness"]["deletion"]["mean"]["area"]
    assert found["moved"]["area of deletion, mean"]["labels"] == area
    accuracies = [json.loads(path.read_text())["test"]["kappa"] for path in folder.glob("moved-*-runs/*/metrics.json")]
    assert max(accuracies) < 0.5


def test_chosen_bands_are_compared_on_both_kinds_of_split(tiny):
    folder, found = tiny
    top_k = found["top_k"]
    assert top_k["numbers"] == [10] and top_k["seeds"] == [0]
    assert len(top_k["random_p_blocks"]) == 1 and "random_p_random" not in top_k
    assert not list((folder / "top_k").glob("random_split-*/svm-random-*.json"))
    assert top_k["members_blocks"] == [1] and top_k["members_random"] == [1]
    for kind in ("blocks", "random"):
        for classifier in ("svm", "network"):
            rankings = top_k[kind][classifier]
            assert {"weights", "evenly spaced", "random", "mutual information"} < set(rankings)
            assert all(np.shape(rows) == (1, 1) for rows in rankings.values())
    assert top_k["full"] == top_k["full_blocks"]
    assert top_k["full"]["svm"] > np.mean(top_k["blocks"]["svm"]["lowest weights"][0])
    chosen = json.loads((folder / "top_k" / "split-0" / "chosen.json").read_text())
    assert all(len(set(bands["10"])) == 10 for bands in chosen.values())


def test_a_second_start_redoes_only_what_is_missing_and_finds_the_same(tiny, capsys):
    folder, found = tiny
    gone, kept = (folder / "runs" / name / "metrics.json" for name in ("seed-1-resample-0", "seed-0-resample-0"))
    before = kept.stat().st_mtime_ns
    gone.unlink()  # as if the folder had been left half done
    (folder / "evidence.json").unlink()
    assert evidence_of(folder, *TINY, *SMALL_TOP_K) == found
    assert kept.stat().st_mtime_ns == before
    assert gone.exists()
    assert not list(folder.rglob(".*"))
    assert "verdict" in capsys.readouterr().out


def test_classifiers_can_be_added_to_a_folder_or_left_out(tiny, tmp_path):
    folder, found = tiny
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    gone = copy / "top_k" / "split-0" / "network-10.json"
    gone.unlink()
    alone = evidence_of(copy, *TINY, *SMALL_TOP_K[:-1], "retrain=[svm]")
    assert alone["top_k"]["blocks"] == {"svm": found["top_k"]["blocks"]["svm"]}
    assert not gone.exists()
    assert evidence_of(copy, *TINY, *SMALL_TOP_K) == found
    again = evidence_of(copy, *TINY, *SMALL_TOP_K[:-1], "retrain=[svm]")
    assert again["top_k"] == found["top_k"]  # of all that are complete


def test_two_first_calls_with_other_words_cannot_share_a_folder(tmp_path, monkeypatch):
    def meanwhile(lock):
        (tmp_path / "config.yaml").write_text("theirs")
        return lock

    monkeypatch.setattr("hsfusion.evidence.stages.FileLock.__enter__", meanwhile)
    with pytest.raises(InputError, match="configuration is another one"):
        _claim(tmp_path, "ours", {})
    assert (tmp_path / "config.yaml").read_text() == "theirs"


def test_tasks_of_two_calls_with_the_same_settings_have_each_their_own_scene(tmp_path):
    first, second = (tiny_task(tmp_path) for _ in range(2))
    assert pickle.loads(pickle.dumps(first)) == first != second
    for task in (first, second):
        assert split_of(task, "split", 0).labelled.scene is task.scene.scene


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda scene: permuted(scene), "scene: ground truth of synthetic is changed, expected unchanged since .*tiny"),
        (lambda scene: copied(scene), r"scene: content \(bands, place, values\) of synthetic is changed"),
    ],
)
def test_the_folder_of_another_scene_is_refused(tiny, changed_scene, change, part):
    folder, found = tiny
    changed_scene(change)
    with pytest.raises(InputError, match=part):
        evidence_of(folder, *TINY, *SMALL_TOP_K)
    assert json.loads((folder / "evidence.json").read_text()) == found


def test_a_function_that_gives_other_groups_is_refused(tmp_path):
    def small(groups):
        plan = {"seeds": 1, "resamples": 1, "moved_maps": 0, "top_k": ()}
        settings = TrainSettings(epochs=1, steps_per_epoch=1, groups=groups)
        task = Task(synthetic.synthetic_scene(seed=0, height=40, width=40), settings, EvidenceSettings(**plan))
        return _Stages(tmp_path, task, Workers(tmp_path, task, number=1, threads=1, shown=False))

    small(hs.even_groups(4)).claim("groups: mine")
    small(hs.even_groups(4)).claim("groups: mine")
    with pytest.raises(InputError, match="groups is changed"):
        small(hs.even_groups(5)).claim("groups: mine")


# words that do not fit


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("trainer.max_epochs=2", "config.yaml: configuration is another one"),
        ("top_k=[3,300]", "top_k is 300, expected 1 to 211"),
        ("top_k=[10,3]", "expected rising whole numbers"),
        ("retrain=[forest]", "expected a list of svm, network"),
        ("seed=1", "use seeds=N"),
        ("trainer.devices=2", "trainer.devices is 2, expected 1"),
    ],
)
def test_words_that_do_not_fit_are_refused(tiny, word, part):
    folder, found = tiny
    with pytest.raises(InputError, match=part.replace("[", r"\[")):
        evidence_of(folder, *TINY, *SMALL_TOP_K, word)
    assert json.loads((folder / "evidence.json").read_text()) == found


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="folder is not empty"):
        evidence_of(tmp_path, *TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_is_swept_is_only_what_a_killed_process_left_of_the_job(tmp_path):
    mine = [".git/HEAD", ".notes.json", "runs/.seed-0-mine/a", "runs/.seed-1-abc_1234/a", "faithfulness/.a.part"]
    mine += ["faithfulness/.seed-1.json.7.part"]
    left = ["faithfulness/.seed-0.json.7.part", "runs/.seed-0-abc_1234/run/x"]
    for name in (*mine, *left):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("faithfulness/seed-0.json", "runs/seed-0/metrics.json"):
        _remove_leftovers(tmp_path / name)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(mine)


def leave(path, task, *, by):
    path.write_text(by)


def test_calls_on_one_folder_share_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("hsfusion.evidence.jobs._PAUSE_S", 0.01)
    (tmp_path / LOCKS).mkdir()
    jobs = [Job(leave, tmp_path / name, {"by": "this"}) for name in ("a", "b", "c")]
    others = {name: FileLock(tmp_path / LOCKS / name, thread_local=False) for name in ("b", "c")}
    for lock in others.values():
        lock.acquire()

    def end():
        while not (tmp_path / "a").exists():
            time.sleep(0.01)
        (tmp_path / "b").write_text("another")
        others["b"].release()
        others["c"].release()  # died before it was done

    other = threading.Thread(target=end)
    other.start()
    Workers(tmp_path, tiny_task(tmp_path / "evidence"), number=1, threads=1, shown=False).run(jobs, stage="")
    other.join()
    assert [(tmp_path / name).read_text() for name in ("a", "b", "c")] == ["this", "another", "this"]


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    write_json(tmp_path / "a.json", {"a": [math.nan, 1.5], "b": {"c": (math.inf, 2)}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, 1.5], "b": {"c": [None, 2]}}


# networks that were not trained


@pytest.fixture(scope="module")
def untrained(tiny):
    """Weights (150, C) of networks as they are built, whose groups are of different sizes."""
    folder, found = tiny
    task, weights = tiny_task(folder), []
    split = split_of(task, "split", 0)
    with torch.random.fork_rng():
        for seed in range(150):
            torch.manual_seed(seed)
            network = new_model(task.settings, split.labelled.scene, split.labelled.legend.names).network
            weights.append(WeightReadout(network).weight[: len(split.labelled.scene.bands)])
    table = BandWeights(split.labelled.scene.bands, tuple(found["band_groups"]), weights[0])
    return np.stack(weights), table, task.settings.model


def test_weights_before_training_are_those_of_networks_as_they_are_built(untrained):
    weight, table, model = untrained
    drawn = Profiles.of([table], vars(model)).starts
    error = weight.std(0) / len(weight) ** 0.5
    used = error > 0
    assert used.sum() == (drawn.mean(0) > 0).sum() > 20
    np.testing.assert_array_less(np.abs(weight.mean(0) - drawn.mean(0))[used], 4.5 * error[used])
    np.testing.assert_allclose(drawn.std(0)[used], weight.std(0)[used], rtol=0.35)
    layers = Profiles.of([replace(table, sources=(("lidar", 0.0),))], vars(model)).untrained.sum()
    assert layers == pytest.approx(1 - 1 / (1 + len({*table.group} - {""})), abs=5e-3)


def test_weights_before_training_have_the_knots_at_the_ends_of_the_groups():
    bands = Bands(np.linspace(400, 1000, 61), None, np.ones(61, bool))  # 1000 nm: a multiple of the distance of knots
    groups, weights = even_groups(bands, number=6), []
    with torch.random.fork_rng():
        for seed in range(200):
            torch.manual_seed(seed)
            network = build_network(bands, groups=groups, num_classes=2, width=4, receptive_field=1, channels=8)
            weights.append(WeightReadout(network).weight)
    weight, names = np.stack(weights), group_of_bands(membership(groups, bands), [group.name for group in groups])
    drawn = Profiles.of([BandWeights(bands, names, weight[0])], {"channels": 8}, groups=groups).untrained
    error = weight.std(0) / len(weight) ** 0.5
    np.testing.assert_array_less(np.abs(weight.mean(0) - drawn), 4.5 * error)


def test_networks_that_were_not_trained_do_not_agree_and_are_never_supported(untrained):
    weight, table, model = untrained
    tables = [replace(table, weight=one) for one in weight[:25]]
    good = {"p": 1 / 200, "area": 0.1, "lower": 0.05}
    curves = {way: dict.fromkeys(("mean", "conditional"), good) for way in ("deletion", "insertion")}
    known = {"runs": [{"beats_chance": True}] * 25, "faithfulness": curves}
    known |= {"moved": {}, "duplicates": [], "fusion": "channel"}
    profiles = Profiles.of(tables, vars(model), resamples=5)
    numbers = stability_of(profiles)
    assert numbers["stability"]["reported"]["index"] < 0.3
    assert abs(numbers["stability"]["untrained"]["index"]) < 0.2
    assert verdict_of(profiles, numbers | known).word in {"not supported", "no evidence"}


def test_networks_that_were_not_trained_seldom_differ_from_those(untrained):
    weight, table, model = untrained
    found = []
    for first in range(0, 150, 5):
        of = Profiles.of([replace(table, weight=one) for one in weight[first : first + 5]], vars(model))
        found.append(of.uniformity_p < 0.05)
    assert np.mean(found) <= 0.14  # level 0.05: more than 4 of 30 in one case of fifty


# verdicts


def permuted(labelled):
    labels = np.random.default_rng(0).permutation(labelled.labels.ravel()).reshape(labelled.labels.shape)
    return replace(labelled, labels=labels)


def test_permuted_labels_give_no_evidence(changed_scene, tmp_path):
    changed_scene(permuted)
    found = evidence_of(tmp_path / "e", *TINY, "trainer.max_epochs=3", "seeds=1", "top_k=[]", "moved_maps=0")
    assert found["verdict"]["word"] == "no evidence"
    assert found["verdict"]["windows"] == []
    assert "top_k" not in found


def copied(labelled):
    """The band at 680 nm is a copy of the one before."""
    cube, nm = read_all(labelled.scene), labelled.scene.bands.wavelength_nm
    second = int(np.flatnonzero(nm == 680)[0])
    cube[second] = cube[second - 1]
    return replace(labelled, scene=ArrayScene(cube, bands=labelled.scene.bands, name=labelled.scene.name))


def test_copied_bands_are_named_and_choices_on_random_pixels_can_be_left_out(changed_scene, tmp_path):
    changed_scene(copied)
    words = ("seeds=1", "resamples=1", "moved_maps=0", "random_split=null", "retrain=[svm]")
    found = evidence_of(tmp_path / "e", *TINY, *SMALL_TOP_K[:-1], *words)
    assert found["duplicates"] == [[27, 28, pytest.approx(1)]]
    assert "reported" not in found["stability"] and "uniformity_p" not in found
    top_k = found["top_k"]
    assert "blocks" in top_k and not [key for key in top_k if "random" in key and key != "random_p_blocks"]
    assert {path.name for path in (tmp_path / "e" / "top_k").iterdir()} == {"split-0"}


def test_copied_bands_are_found_beside_pixels_without_data(tiny):
    split = split_of(tiny_task(tiny[0]), "split", 0)
    cube = read_all(copied(split.labelled).scene).copy()
    row, column = np.argwhere(split.roles == 1)[0]
    cube[:, row, column] = np.nan
    scene = ArrayScene(cube, bands=split.labelled.scene.bands, name="holes")
    holes = replace(split, labelled=replace(split.labelled, scene=scene))
    assert [(pair.first, pair.second) for pair in duplicate_bands(holes, np.arange(20, 211))] == [(27, 28)]


LONGER = [
    *("scene.height=64", "scene.width=64", "trainer.max_epochs=20", "data.steps_per_epoch=50", "model.channels=16"),
    *(
        "model.width=32",
        "top_k=[]",
        "seeds=3",
        "resamples=3",
        "faithfulness_pixels=300",
        "groups.number=14",
        "split_seed=1",
    ),
]


def nearest(windows):
    """Centres of the two heaviest windows apart from each other, ascending."""
    centres = [(window["lower_nm"] + window["upper_nm"]) / 2 for window in windows]
    return sorted([centres[0], next(nm for nm in centres if abs(nm - centres[0]) > 200)])


@pytest.mark.slow
def test_planted_windows_are_named_and_cost_accuracy_where_they_are_removed(tmp_path):
    found = evidence_of(tmp_path / "e", *TINY, *LONGER)
    first, second = nearest(found["verdict"]["windows"])
    assert 640 <= first <= 710 and 2140 <= second <= 2260
    deletion = found["faithfulness"]["deletion"]
    assert min(curve["lower"] for curve in deletion.values()) > 0, deletion
    assert found["stability"]["single"]["index"] > max(found["moved"]["index of single runs"]["moved"])


@pytest.mark.slow
def test_copied_bands_in_the_windows_are_named_in_the_verdict(changed_scene, tmp_path):
    changed_scene(copied)
    said = evidence_of(tmp_path / "e", *TINY, *LONGER)["verdict"]
    assert said["word"] in {
        "supported",
        "borderline",
        "not supported",
    }  # each training shares the weight between the two as it likes
    assert any("Bands 28 (670 nm) and 29 (680 nm) are redundant" in sentence for sentence in said["sentences"])


# processes


@pytest.mark.slow
@pytest.mark.posix
def test_killed_evidence_goes_on_in_parallel_and_ends_as_that_of_one_process(tiny, tmp_path):
    _, found = tiny
    words = [word for word in (*TINY, *SMALL_TOP_K) if not word.startswith("jobs=")]
    command = [str(Path(sys.executable).with_name("hsfusion")), "evidence", "folder=e", "jobs=2", *words]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("e/runs/*/metrics.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    there = json.loads((tmp_path / "e" / "evidence.json").read_text())
    few = ("command", "faithfulness", "moved", "verdict")  # of other words and fewer random orders in this process
    assert {key: of for key, of in there.items() if key not in few} == {
        key: of for key, of in found.items() if key not in few
    }


@pytest.mark.slow
@pytest.mark.posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_evidence_ends_at_once_and_leaves_nothing_half_done(tmp_path, number, code):
    command = [str(Path(sys.executable).with_name("hsfusion")), "evidence", "folder=e", *TINY]
    command += ["jobs=2", "trainer.max_epochs=2000"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 200
    while len(list(tmp_path.glob("e/runs/.*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(run.pid, number)  # as Ctrl-C in a terminal, which all processes hear
    _, said = run.communicate(timeout=60)
    assert run.returncode == code
    assert b"Traceback" not in said
    assert not list(tmp_path.glob("e/runs/seed*"))
