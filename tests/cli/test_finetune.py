import csv
import json
import shutil

import numpy as np
import pytest
import torch

from hsfusion.errors import DivergedError
from hsfusion.training.model_file import load_model

# the axis of DESIS ends at 1000 nm, that of the synthetic scene at 2500 nm
ON_DESIS = ["scene=simulated", "scene.of=synthetic", "scene.of.height=40", "scene.of.width=40", "scene.sensor=desis"]
SHORT = [
    *("trainer=cpu", "trainer.max_epochs=2", "data.steps_per_epoch=5", "split.block_pixels=8"),
    *("threads=1", "progress=false", "baselines=[]", "scratch_epochs=null"),
]


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("finetune")
    shutil.copytree(run, path / "first")
    return path


@pytest.fixture(scope="module")
def tuned(hsfusion, folder):
    words = [*ON_DESIS, *SHORT[:-1], "scratch_epochs=2", "patience=1"]
    done = hsfusion("finetune", "pretrained=first", *words, "run_dir=second", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "covered" in done.stdout
    assert "scratch" in done.stdout.split("on the same test pixels; kept by validation likelihood: ")[0]
    return folder / "second"


def test_report_places_every_tensor_in_exactly_one_list(tuned):
    transfer = json.loads((tuned / "transfer.json").read_text())
    network, _ = load_model(tuned / "model.safetensors")
    whole = [part for origin in ("copied", "resampled", "fresh") for part in transfer[origin]]
    assert sorted(whole) == sorted(network.state_dict())
    assert transfer["outside_share"] > 0.1
    assert "<h2>Transfer</h2>" in (tuned / "report.html").read_text()
    before, after = (load_model(path / "model.safetensors")[1] for path in (tuned.parent / "first", tuned))
    assert after.seen_before == (before.seen,)


def test_weights_lie_on_the_new_bands_and_sum_to_one(tuned):
    with open(tuned / "band_weights.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert max(float(row["wavelength_nm"]) for row in rows) < 1010
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(1, abs=1e-6)


def test_metrics_hold_three_networks_on_the_same_pixels_and_the_best_of_validation_is_kept(tuned):
    metrics = json.loads((tuned / "metrics.json").read_text())
    three = {name: metrics[name] for name in ("finetuned", "untouched", "scratch")}
    supports = [[row["support"] for row in part["test"]["per_class"].values()] for part in three.values()]
    assert supports[0] == supports[1] == supports[2]
    assert metrics["scratch"]["epochs"] == 2
    reached = {name: part["val_log_likelihood"] for name, part in three.items()}
    assert len(set(reached.values())) > 1
    assert reached[metrics["kept"]] == max(reached.values()) or metrics["kept"] == "finetuned"
    assert metrics["test"] == three[metrics["kept"]]["test"]
    assert load_model(tuned / "model.safetensors")[1].test == metrics["test"]
    assert "(kept)" in (tuned / "report.html").read_text()
    transfer = json.loads((tuned / "transfer.json").read_text())
    assert len(transfer["expected_r2"]) == 4


def test_frozen_parts_keep_their_bits(hsfusion, folder):
    words = ["pretrained=first", *ON_DESIS, *SHORT]
    for name, more in (("frozen", ["freeze=[response,group_weights,cnn]"]), ("late", ["thaw_at.cnn=1.0"])):
        done = hsfusion("finetune", *words, *more, f"run_dir={name}", cwd=folder)
        assert done.returncode == 0, done.stderr
    before = load_model(folder / "first" / "model.safetensors")[0].state_dict()
    frozen, late = (end_of(folder / name) for name in ("frozen", "late"))
    cnn = [name for name in before if name.startswith("cnn.") and "classifier" not in name]
    for name in cnn:
        assert torch.equal(before[name], frozen[name]), name
        assert torch.equal(before[name], late[name]), name
    assert not frozen["fusion.coefficients"].any()  # what is learned on top of the carried responses
    assert late["fusion.coefficients"].any()
    assert not torch.equal(before["cnn.classifier.weight"], frozen["cnn.classifier.weight"])


def test_scratch_network_that_fails_is_an_error_and_leaves_the_fine_tuned_run(hsfusion, folder, tmp_path, monkeypatch):
    def failing(*_):
        raise DivergedError("training: loss is nan, expected a number. Fix: lower optimizer.lr.")

    monkeypatch.setattr("hsfusion.runs.finetuning.fit", failing)
    words = [f"pretrained={folder / 'first'}", *ON_DESIS, *SHORT, "scratch_epochs=1", "run_dir=second"]
    done = hsfusion("finetune", *words, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "fine-tuned run is complete, in second" in done.stderr
    assert "loss is nan" in done.stderr.splitlines()[-1]
    assert (tmp_path / "second" / "model.safetensors").is_file()
    assert "DivergedError: training: loss is nan" in (tmp_path / "second" / "train.log").read_text()


def end_of(run):
    """Tensors of the network at the last step, whichever was kept."""
    tensors = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("network."): tensor for name, tensor in tensors.items()}


def test_a_run_with_patience_goes_on_from_its_own_checkpoint(hsfusion, folder, tuned):
    again = ["pretrained=first", "patience=1"]  # what is left out is as in the run
    done = hsfusion("finetune", *again, "resume=second", "run_dir=resumed", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "resumed" / "model.safetensors").read_bytes() == (tuned / "model.safetensors").read_bytes()


def test_a_run_is_resumed_by_the_command_that_made_it(hsfusion, folder, tuned):
    done = hsfusion("train", "resume=second", *ON_DESIS, *SHORT[:-1], cwd=folder)
    assert done.returncode == 2
    assert "resume with the command that started the run, or start a new run" in done.stderr
    done = hsfusion("train", "freeze=[cnn]", cwd=folder)
    assert done.returncode == 2
    assert "key is freeze, expected a key of this command" in done.stderr


def test_the_network_as_it_was_carried_over_is_the_first_of_those_to_choose_from(tuned):
    callbacks = torch.load(tuned / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    assert callbacks["History"]["curves"]["val/overall_accuracy"][0] == [0, 5, 10]
    scratch = torch.load(tuned / "scratch" / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    assert scratch["History"]["curves"]["val/overall_accuracy"][0] == [5, 10]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["pretrained=first", "freeze=[head]"], ["freeze", "response, group_weights, cnn, classifier"]),
        (["pretrained=first", "freeze=[response,group_weights,cnn,classifier]"], ["parts that learn", "at least one"]),
        (["pretrained=first", "seed=3"], ["test pixels that the pretrained model has seen", "seed=0"]),
        (["pretrained=first/checkpoints/last.ckpt"], ["last.ckpt", "model.safetensors"]),
    ],
)
def test_bad_input_is_one_line(hsfusion, folder, words, parts):
    done = hsfusion("finetune", *words, *ON_DESIS, *SHORT, "run_dir=bad", cwd=folder)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("hsfusion: error:")]
    assert len(lines) == 1
    assert all(part in lines[0] for part in parts), lines
    assert not (folder / "bad").exists()


def cube_file(folder, *, wavelengths_nm):
    cube = np.random.default_rng(0).random((24, 24, len(wavelengths_nm)), np.float32)
    np.save(folder / "other.npy", cube)
    labels = np.repeat([1, 2], 12)[:, None] * np.ones((1, 24), int)
    np.save(folder / "other_labels.npy", labels.astype(np.uint8))
    lines = ["wavelength_nm,fwhm_nm", *(f"{nm},10" for nm in wavelengths_nm)]
    (folder / "other.csv").write_text("\n".join(lines) + "\n")
    return [
        *("scene=file", "scene.cube=other.npy", "scene.labels=other_labels.npy", "scene.wavelengths=other.csv"),
        *SHORT,
    ]


def test_no_wavelength_in_common_lists_both_sides(hsfusion, folder):
    words = cube_file(folder, wavelengths_nm=range(8000, 12000, 200))
    done = hsfusion("finetune", "pretrained=first", *words, "run_dir=bad", cwd=folder)
    assert done.returncode == 2
    assert "8000 to 11800 nm" in done.stderr
    assert "400 to 2500 nm" in done.stderr


def test_classes_named_by_their_codes_only_start_anew(hsfusion, folder):
    words = cube_file(folder, wavelengths_nm=range(450, 2400, 10))
    assert hsfusion("train", *words[:-1], "run_dir=unnamed", cwd=folder).returncode == 0
    cube = np.load(folder / "other.npy")
    np.save(folder / "other.npy", cube[:, ::-1])
    labels = np.load(folder / "other_labels.npy")
    np.save(folder / "other_labels.npy", labels.T)  # other ground
    done = hsfusion("finetune", "pretrained=unnamed", *words, "run_dir=anew", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "are not copied from the model: give them names" in done.stderr
    transfer = json.loads((folder / "anew" / "transfer.json").read_text())
    assert {"cnn.classifier.weight", "cnn.classifier.bias"} <= set(transfer["fresh"])
    assert transfer["dropped_classes"] == transfer["new_classes"] == ["class 1", "class 2"]


def test_class_names_that_collide_list_both_sides(hsfusion, folder):
    words = cube_file(folder, wavelengths_nm=range(400, 1000, 20))
    done = hsfusion(
        "finetune", "pretrained=first", *words, "scene.class_names=[corn,'corn ']", "run_dir=bad", cwd=folder
    )
    assert done.returncode == 2
    assert "corn" in done.stderr


def test_benchmark_compares_on_the_same_pixels_with_few_labels(hsfusion, folder):
    words = ["pretrained=first", *ON_DESIS, *SHORT[:-1], "labels=[3]", "seeds=1", "scratch_epochs=2", "json=out.json"]
    done = hsfusion("benchmark", "finetune", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    runs = {row["method"]: row for row in json.loads((folder / "out.json").read_text())["runs"]}
    untrained = ["where it was trained", "carried over"]
    assert list(runs) == [*untrained, "fine-tuned, 3 labels", "kept, 3 labels", "scratch, 3 labels"]
    tuned, scratch = runs["fine-tuned, 3 labels"]["split"], runs["scratch, 3 labels"]["split"]
    assert tuned == scratch
    assert tuned["train_pixels"] <= 12
    assert tuned["val_pixels"] <= 12


def test_benchmark_refuses_seeds_whose_test_pixels_are_known_before_it_trains(hsfusion, folder):
    words = ["pretrained=first", "scene=synthetic", "scene.height=40", "scene.width=40", *SHORT[:-1], "seeds=2"]
    done = hsfusion("benchmark", "finetune", *words, "labels=[3]", "json=no.json", cwd=folder)
    assert done.returncode == 2
    assert "test pixels that the pretrained model has seen" in done.stderr
    assert "fine-tuned" not in done.stdout and not (folder / "no.json").exists()


@pytest.mark.parametrize("labels", ["[5,5]", "5"])
def test_benchmark_refuses_what_is_no_list_of_labels(hsfusion, folder, labels):
    done = hsfusion("benchmark", "finetune", "pretrained=first", *ON_DESIS, f"labels={labels}", cwd=folder)
    assert done.returncode == 2
    assert "expected a list, each entry once" in done.stderr
