import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import hsfusion as hs
from hsfusion.data.splits import TEST, VAL, Split
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import InputError
from hsfusion.runs import evaluation
from hsfusion.runs.experiment import prepare_experiment
from hsfusion.runs.settings import ModelSettings, TrainSettings
from hsfusion.runs.training import patch_data
from hsfusion.scenes import ArrayScene, LabelledScene, Legend
from hsfusion.spectra import Bands

TINY = TrainSettings(
    epochs=2,
    steps_per_epoch=3,
    threads=1,
    figures=False,
    groups=hs.even_groups(4),
    select=({"whitening": "noise"},),
    model=ModelSettings(channels=4, width=8, receptive_field=5, linear=True),
)


@pytest.fixture(scope="module")
def scene():
    return synthetic_scene(seed=0, height=40, width=40)


@pytest.mark.parametrize(("gain", "spread", "taken"), [(0.1, 0.01, True), (0.1, 5.0, False), (-0.1, 0.01, False)])
def test_a_change_is_taken_if_it_gains_more_than_one_standard_error(scene, monkeypatch, gain, spread, taken):
    def judge(settings, split):
        pixels = split.count(2)
        noise = np.random.default_rng(0).standard_normal(pixels)
        whitened = settings.model.whitening == "noise"
        return np.full(pixels, -1.0) + (gain + spread * (noise - noise.mean()) if whitened else 0.0)

    monkeypatch.setattr(evaluation, "_judge", judge)
    settings, rows = evaluation.selected(scene, TINY)
    assert (settings.model.whitening == "noise") == taken == rows[1]["taken"]
    assert rows[0]["gain"] == [0.0, 0.0]
    assert rows[1]["change"] == {"whitening": "noise"}


def test_nothing_is_tried_where_nothing_is_to_be_chosen(scene, monkeypatch):
    monkeypatch.setattr(evaluation, "_judge", None)
    settings = hs.TrainSettings(model={"whitening": "noise"}, select=[{"whitening": "noise"}])
    assert evaluation.selected(scene, settings) == (settings, [])


def test_changes_are_tried_on_one_split_and_together_take_no_more_epochs_than_the_training(scene, monkeypatch):
    select = ({"receptive_field": 9, "band_cost": 0.0}, {"epochs": 3}, {"epochs": 50, "lr": 0.01})
    given, seen = replace(TINY, epochs=24, select=select), []

    def judge(settings, split):
        seen.append((settings, split))
        return np.full(split.count(VAL), float(settings.band_cost))

    monkeypatch.setattr(evaluation, "_judge", judge)
    chosen, rows = evaluation.selected(scene, given)
    assert [settings.epochs for settings, _ in seen] == [6, 6, 3, 6]
    assert [settings.model.receptive_field for settings, _ in seen] == [5, 9, 5, 5]
    assert seen[3][0].optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == 0.01
    assert len(rows) == 4 and rows[0]["taken"]
    own, wide = prepare_experiment(scene, chosen).split, prepare_experiment(scene, seen[1][0]).split
    assert (own.radius, wide.radius) == (2, 4)
    for split in (own, wide):
        assert (split.roles == seen[0][1].roles).all()
    assert wide.leakage == 0


def test_names_that_select_cannot_change_are_refused():
    with pytest.raises(InputError, match=r"select is .'receptive_feild': 3., expected keys and values of fusion, "):
        hs.TrainSettings(select=[{"receptive_feild": 3}])
    with pytest.raises(InputError, match="select"):
        hs.TrainSettings(select=[{"seed": 3}])


def test_run_says_what_was_tried_and_how_far_it_is_ahead_and_a_resumed_one_keeps_the_choice(scene, tmp_path):
    run = hs.train(scene, settings=TINY, folder=tmp_path / "run")
    choices = json.loads((tmp_path / "run" / "choices.json").read_text())["choices"]
    assert [choice["taken"] for choice in choices].count(True) == 1
    assert hs.load_run(tmp_path / "run").metrics == run.metrics
    rows = run.metrics["baselines"]
    assert rows.keys() == {"lda", "logistic", "svm", "svm_context", "svm_mnf", "forest"}
    for row in rows.values():
        ahead, low, high = row["network_ahead"]
        assert low <= ahead <= high
        assert ahead == pytest.approx(run.metrics["test"]["overall_accuracy"] - row["overall_accuracy"])
    assert "lead         " in run.summary()
    assert "tried        whitening noise: validation log-likelihood " in run.summary()
    tampered = [{**choice, "taken": not choice["taken"]} for choice in choices]
    (tmp_path / "run" / "choices.json").write_text(json.dumps({"choices": tampered}))
    other = next(choice["change"] for choice in tampered if choice["taken"])
    again, _ = evaluation.selected(scene, TINY, resume=tmp_path / "run")
    assert again.model.whitening == other.get("whitening", "none")


def test_share_of_the_linear_part_is_what_the_validation_pixels_say(scene):
    run = hs.train(scene, settings=TINY, select=(), baselines=())
    linear = run.network.linear
    assert 0 <= float(linear.network_share) <= 1
    assert (linear.weight != 0).any()
    x = scene.scene.read()[:, :12, :12]
    assert run.predict(x).shape == (12, 12)
    np.testing.assert_allclose(run.weights.weight.sum(), 1, atol=1e-6)


@pytest.mark.parametrize(("fields", "whitening"), [(True, "none"), (False, "noise")])
def test_linear_part_sees_the_mean_of_the_patch_where_fields_are_smooth_and_the_pixel_where_not(fields, whitening):
    smooth = synthetic_scene(seed=0, height=40, width=40, noise=1.0 if fields else 0.1)
    place = np.arange(1600) if fields else np.random.default_rng(0).permutation(1600)
    cube, labels = smooth.scene.read().reshape(-1, 1600)[:, place], smooth.labels.ravel()[place].reshape(40, 40)
    scene = ArrayScene(cube.reshape(-1, 40, 40), bands=smooth.scene.bands, name="made up")
    model = replace(TINY.model, whitening=whitening)
    run = hs.train(LabelledScene(scene, labels, smooth.legend), settings=TINY, model=model, select=(), baselines=())
    assert run.network.linear.of_mean == fields
    assert run.metrics["test"]["overall_accuracy"] > 0.5  # by the linear part: the network is hardly trained


@torch.no_grad()
@pytest.mark.parametrize("planted_open", [True, False])
def test_linear_part_takes_closed_bands_only_where_the_open_ones_know_clearly_less(scene, planted_open):
    experiment = prepare_experiment(scene, replace(TINY, model=replace(TINY.model, whitening="none")))
    nm = torch.tensor(scene.scene.bands.wavelength_nm)
    planted = ((nm > 650) & (nm < 700)) | ((nm > 2150) & (nm < 2250))
    closed = ~planted & (nm > 2400) if planted_open else (nm < 1000) | (nm > 1100)
    experiment.network.fusion.gates.position[experiment.network.fusion.gates.gate_of[closed]] = 0
    evaluation.fit_linear_part(experiment, patch_data(TINY, experiment))
    used = (experiment.network.linear.weight != 0).any(0)
    assert used.equal(~closed) if planted_open else used.all()


@pytest.mark.parametrize("per_class", [None, 5])
def test_whitening_removes_noise_that_bands_have_in_common_and_leaves_each_band_itself(per_class):
    from hsfusion.data.noise import noise_differences, noise_whitening
    from hsfusion.data.patches import prepare
    from hsfusion.data.splits import blocks

    scene = synthetic_scene(seed=0, height=60, width=60, noise=0.01)
    cube = scene.scene.read()
    rng = np.random.default_rng(0)
    common = np.linspace(0.2, 1, len(cube))[:, None, None] * rng.standard_normal(cube.shape[1:])
    cube = cube + 0.05 * (2 * common + rng.standard_normal(cube.shape))
    scene = LabelledScene(ArrayScene(cube, bands=scene.scene.bands, name="noisy"), scene.labels, scene.legend)
    split = blocks(scene, radius=3, seed=0, per_class=per_class)
    cube = prepare(split, np.ones(len(scene.scene.bands), bool))
    others = np.isin(split.roles, (2, 3))
    cube.values.numpy()[cube.index.numpy()[3:-3, 3:-3][others]] = np.nan  # may not matter
    matrix = noise_whitening(cube, split)
    noise = noise_differences(cube, split)
    before, after = (np.abs(np.corrcoef(of.T) - np.eye(len(matrix))) for of in (noise, noise @ matrix.T))
    assert np.median(before) > 0.5
    assert np.median(after) < (0.03 if per_class is None else 0.1)
    assert (np.abs(matrix).argmax(1) == np.arange(len(matrix))).all()
    spectra = cube.spectra(split.pixels(1)) @ matrix.T
    np.testing.assert_allclose(spectra.std(0), 1, rtol=1e-4)


def test_units_of_the_lead_are_large_fields_and_blocks_of_small_ones():
    labels = np.ones((16, 24), int)
    labels[:, 8:16] = np.arange(16 * 8).reshape(16, 8) % 2 + 2  # diagonals of 2 and 3, connected by corners
    labels[:, 16:] = np.arange(16 * 8).reshape(16, 8) + 4  # fields of a pixel
    scene = ArrayScene(np.zeros((2, 16, 24), np.float32), bands=Bands.from_wavelengths([500, 600]), name="s")
    truth = LabelledScene(scene, labels, Legend.of(labels))
    roles = np.full(labels.shape, TEST, np.uint8)
    units = evaluation._fields_of(np.arange(labels.size), Split("blocks", truth, roles, 0, 0)).reshape(16, 24)
    assert len(np.unique(units[:, :8])) == 1  # of 128 pixels: two blocks
    assert [len(np.unique(units[rows, 16:])) for rows in (slice(0, 8), slice(0, 16))] == [1, 2]
    ids = np.repeat(np.arange(4), 96)  # fields of the user's own, of 4 rows each
    units = evaluation._fields_of(np.arange(labels.size), Split("fields", truth, roles, 0, 0, ids))
    np.testing.assert_array_equal(units, ids)
