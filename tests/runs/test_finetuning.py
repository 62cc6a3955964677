"""What fine-tuning starts from, and what it keeps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import hsfusion as hs
from hsfusion.data.noise import noise_whitening
from hsfusion.data.splits import TRAIN
from hsfusion.runs.evaluation import average_with_start, validation_logits, validation_scores
from hsfusion.runs.finetuning import best_of, starting_experiment, transferred_model
from hsfusion.runs.run import Training
from hsfusion.runs.settings import TrainSettings
from hsfusion.runs.training import patch_data
from hsfusion.scenes import ArrayScene
from hsfusion.trust.baselines import log_likelihoods, temperature

LEARNS = {
    "steps_per_epoch": 20,
    "threads": 1,
    "figures": False,
    "select": (),
    "baselines": (),
    "groups": hs.even_groups(4),
    "model": {"channels": 8, "width": 8, "receptive_field": 3, "linear": False},
}


@pytest.fixture(scope="module")
def learned(scene):
    return hs.train(scene, epochs=5, **LEARNS)


def few(**fields):
    return TrainSettings(**{**LEARNS, "split": hs.blocks(per_class=3), **fields})


def test_network_of_a_run_is_in_evaluation_mode_without_a_linear_part_too(learned):
    assert not any(module.training for module in learned.network.modules())


def test_patches_are_standardised_as_is_better_on_the_validation_pixels(scene, learned):
    cube, bands = scene.scene.read(), scene.scene.bands
    start = partial_start(scene, learned)
    np.testing.assert_allclose(start.network.mean, learned.network.mean, rtol=1e-4)
    assert "mean" in start.initial.transfer.resampled
    np.testing.assert_array_equal(start.cube.mean, start.network.mean.double())
    bright = replace(scene, scene=ArrayScene(3 * cube + 2, bands=bands, name=scene.scene.name))
    start = partial_start(bright, learned)
    spectra = bright.scene.read().reshape(len(bands), -1)[:, start.split.pixels(1)]
    np.testing.assert_allclose(start.network.mean, spectra.mean(1), rtol=1e-4)
    assert {"mean", "std", "covariance"} <= set(start.initial.transfer.fresh)


def test_a_whitened_network_starts_as_it_is_untouched_on_bands_that_are_whitened_anew(scene):
    model = {**LEARNS["model"], "whitening": "noise", "linear": True}
    whitened = hs.train(scene, epochs=1, **{**LEARNS, "model": model})
    start = partial_start(scene, whitened)
    np.testing.assert_allclose(start.network.whitening, noise_whitening(start.cube, start.split), rtol=1e-5)
    model = (whitened.network, whitened.header)
    untouched = transferred_model(scene.scene, scene.legend.names, responses="folded", model=model).network
    assert untouched.whitening is None
    expected = untouched.matrix().detach().numpy()
    np.testing.assert_allclose(start.network.matrix().detach(), expected, atol=1e-4 * np.abs(expected).max())
    assert start.network.linear.network_share == 1 and not start.network.linear.weight.any()
    tuned = hs.finetune(whitened, scene, settings=few(), epochs=1, scratch_epochs=None).trained.experiment.network
    assert tuned.linear.weight.any()


def test_what_fine_tuning_ruins_goes_back_to_its_start_and_what_it_learns_stays(scene, learned):
    start = partial_start(scene, learned)
    data = patch_data(few(), start)
    good = {name: tensor.clone() for name, tensor in start.network.state_dict().items()}
    with torch.no_grad():
        start.network.cnn.classifier.weight.copy_(-start.network.cnn.classifier.weight)
    bad = {name: tensor.clone() for name, tensor in start.network.state_dict().items()}
    for first in (good, bad):  # the network is the other one
        start.network.load_state_dict(bad if first is good else good)
        average_with_start(start, first, data)
        for name, tensor in start.network.state_dict().items():
            np.testing.assert_array_equal(tensor, good[name])


def test_validation_pixels_that_are_drawn_by_class_count_by_the_shares_of_the_model(scene, learned):
    start = partial_start(scene, learned)
    split = learned.trained.experiment.split
    train = split.labelled.labels[split.roles == TRAIN]
    support = [int((train == code).sum()) for code in split.labelled.legend.codes]
    np.testing.assert_allclose(start.initial.class_shares, np.array(support) / sum(support))
    whole = starting_experiment(scene, few(split=hs.blocks()), model=(learned.network, learned.header))
    assert whole.initial.class_shares is None
    data, rare = patch_data(few(), start), np.eye(len(support))[int(np.argmin(support))]
    logits, classes = validation_logits(start, data)
    of_rare = log_likelihoods(logits / temperature(logits, classes), classes)[classes == rare.argmax()]
    assert validation_scores(start, data, rare).mean() == pytest.approx(of_rare.mean())


@pytest.mark.parametrize(
    ("ahead", "kept"), [(0.5, "untouched"), (0.08, "finetuned"), (0.2, "untouched"), (-0.5, "finetuned")]
)
def test_another_network_is_kept_only_where_it_is_clearly_ahead(scene, learned, monkeypatch, ahead, kept):
    start = partial_start(scene, learned)
    tuned, other = (Training(few(), replace(start), None, "", "") for _ in range(2))
    noise = np.random.default_rng(0).standard_normal(100)
    monkeypatch.setattr(
        "hsfusion.runs.finetuning.validation_scores",
        lambda experiment, *_: np.zeros(100) if experiment is tuned.experiment else ahead + noise - noise.mean(),
    )
    name, reached = best_of({"finetuned": tuned, "untouched": other})
    assert (name, reached["untouched"]) == (kept, pytest.approx(ahead))


def partial_start(scene, run):
    return starting_experiment(scene, few(), model=(run.network, run.header))


def test_without_a_chance_to_learn_what_is_kept_is_as_good_as_the_untouched_network(scene, learned, tmp_path):
    ruined = {"steps_per_epoch": 1, "epochs": 1, "optimizer": None, "scratch_epochs": 1, "lr_scales": {"cnn": 1000.0}}
    run = hs.finetune(learned, scene, settings=few(), folder=tmp_path / "run", **ruined)
    reached = {name: run.metrics[name]["val_log_likelihood"] for name in ("finetuned", "untouched", "scratch")}
    assert reached[run.metrics["kept"]] >= reached["untouched"] - 0.05
    assert reached["scratch"] < reached["untouched"]
    again = hs.load_run(tmp_path / "run")
    assert again.metrics == run.metrics
    for name, tensor in again.network.state_dict().items():
        np.testing.assert_array_equal(tensor, run.network.state_dict()[name])
    assert f"kept by validation likelihood: {run.metrics['kept']}" in run.summary()


def test_what_scratch_learns_better_is_kept_without_the_transfer(scene, tmp_path):
    blind = hs.train(scene, **{**LEARNS, "epochs": 1, "steps_per_epoch": 1})
    run = hs.finetune(
        blind,
        scene,
        settings=few(freeze=("response", "group_weights", "cnn")),
        epochs=1,
        scratch_epochs=6,
        folder=tmp_path / "run",
    )
    assert run.metrics["kept"] == "scratch"
    assert run.metrics["test"] == run.metrics["scratch"]["test"]
    assert hs.load_run(tmp_path / "run").header.fusion == "channel"
    assert not (tmp_path / "run" / "transfer.json").exists()


def test_untouched_is_left_out_where_it_does_not_know_the_classes(scene, learned):
    names = {code: f"other {code}" for code in scene.legend.codes}
    other = replace(scene, legend=replace(scene.legend, names=tuple(names.values())))
    run = hs.finetune(learned, other, settings=few(), epochs=1, scratch_epochs=None)
    assert run.metrics["kept"] == "finetuned"
    assert "untouched" not in run.metrics and "scratch" not in run.metrics
