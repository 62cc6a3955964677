import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler
from sklearn import metrics

from hsfusion.data.public import indian_pines_bands
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import EnvironmentFailure, HsFusionError, InputError
from hsfusion.nn.band_fusion import matrix_product
from hsfusion.runs.experiment import prepare_experiment
from hsfusion.runs.settings import FUSIONS, ModelSettings, TrainSettings
from hsfusion.runs.training import check_gpu_memory, fit_network, patch_data
from hsfusion.spectra import BandGroup, Bands, even_groups
from hsfusion.training.building import WeightReadout, build_network
from hsfusion.training.callbacks import History, KeepBest, WeightHistory
from hsfusion.training.classifier import (
    FusionClassifier,
    accuracies,
    balanced_class_weights,
    confusion_matrix,
    fused,
    steps_of,
)
from hsfusion.training.model_file import ClassList, ModelHeader, load_model, save_model

BANDS = indian_pines_bands()
GROUPS = even_groups(BANDS, number=5)


def network(fusion="channel", **more):
    torch.manual_seed(0)
    return build_network(BANDS, GROUPS, num_classes=3, fusion=fusion, channels=4, width=8, **more)


def test_accuracies_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, 500), rng.integers(0, 4, 500)
    predicted[:300] = truth[:300]
    result = accuracies(confusion_matrix(truth, predicted, num_classes=4), names=list("abcd"))
    assert math.isclose(result["overall_accuracy"], metrics.accuracy_score(truth, predicted))
    assert math.isclose(result["average_accuracy"], metrics.balanced_accuracy_score(truth, predicted))
    assert math.isclose(result["kappa"], metrics.cohen_kappa_score(truth, predicted))
    assert math.isclose(result["mean_iou"], metrics.jaccard_score(truth, predicted, average="macro"))


def test_class_without_support_has_no_accuracy_and_leaves_the_average_alone():
    result = accuracies(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 4]]), names=list("abc"))
    assert result["average_accuracy"] == (0.75 + 1) / 2
    assert result["per_class"]["b"] == {"accuracy": None, "support": 0}


def test_pixel_without_prediction_is_wrong_and_counted():
    confusion = confusion_matrix(np.array([0, 0, 1]), np.array([0, -1, 1]), num_classes=2)
    assert confusion.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert accuracies(confusion, names=["a", "b"])["overall_accuracy"] == 2 / 3


@pytest.mark.parametrize("fusion", FUSIONS)
def test_band_weights_are_a_distribution_for_every_fusion(fusion):
    net = network(fusion)
    sample = torch.randn(4, 200, 7, 7)
    learned = WeightReadout(net, sample)
    assert learned.weight.shape == (200,)
    assert (learned.weight >= 0).all()
    assert math.isclose(learned.weight.sum(), 1, rel_tol=1e-6)
    assert math.isclose(learned.channel_share.sum(), 1, rel_tol=1e-5)


def test_exported_weights_rebuild_the_forward_pass():
    net = network("channel")
    learned = WeightReadout(net)
    x = torch.randn(2, 200, 3, 3)
    matrix = np.einsum("gm,gmc->mc", learned.group_weights, learned.response)
    expected = np.einsum("mc,bchw->bmhw", matrix, x.numpy())
    np.testing.assert_allclose(net.eval().fusion(x).detach().numpy(), expected, atol=1e-5)


def test_scale_of_group_weights_that_normalisation_takes_back_is_not_reported():
    net = network("channel", constraint="none")
    before = WeightReadout(net).weight
    with torch.no_grad():
        net.fusion.group_sum.raw[:, 1] *= 10
    np.testing.assert_allclose(WeightReadout(net).weight, before, atol=1e-6)


def test_instance_weights_are_the_mean_over_the_sample():
    net = network("instance")
    torch.nn.init.normal_(net.fusion.group_sum.predictor)
    sample = torch.randn(4, 200, 7, 7)
    learned = WeightReadout(net, sample)
    expected = net.eval().fusion.instance_weights(sample).mean((0, 2, 3)).detach().numpy()
    np.testing.assert_allclose(learned.group_weights, np.repeat(expected[:, None], 4, 1), atol=1e-6)


def header(net, **architecture):
    return ModelHeader(
        bands=BANDS,
        groups=tuple(GROUPS),
        classes=ClassList((1, 2, 3), ("a", "b", "c"), ("#000000",) * 3),
        architecture={"channels": 4, "width": 8, **architecture},
    )


@pytest.mark.parametrize("fusion", FUSIONS)
def test_model_file_rebuilds_the_network_exactly(tmp_path, fusion):
    net = network(fusion)
    net.mean.normal_(), net.std.uniform_(0.5, 1)
    net(torch.randn(8, 200, 9, 9))
    path = tmp_path / "model.safetensors"
    save_model(path, net, header=header(net, fusion=fusion))
    again, stored = load_model(path)
    x = torch.randn(1, 200, 9, 9)
    assert torch.equal(again(x), net.eval()(x))
    assert stored.classes.names == ("a", "b", "c")


def test_untrained_networks_of_two_seeds_have_other_weights():
    torch.manual_seed(1)
    one = WeightReadout(build_network(BANDS, GROUPS, num_classes=3)).weight
    torch.manual_seed(2)
    two = WeightReadout(build_network(BANDS, GROUPS, num_classes=3)).weight
    assert np.abs(one - two).sum() > 0.01


def test_unknown_fusion_lists_the_known_ones():
    with pytest.raises(InputError, match=r"fusion is chanel, expected .*scalar.*channel"):
        ModelSettings(fusion="chanel")


def test_even_receptive_field_is_refused():
    with pytest.raises(HsFusionError, match=r"model: receptive_field is 6, expected an odd number"):
        network(receptive_field=6)


def classifier(**more):
    return FusionClassifier(network(), optimizer=lambda g: torch.optim.SGD(g, 0.1), total_steps=100, seed=0, **more)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("AdamW", {}, True),
        ("SGD", {"momentum": 0.9}, True),
        ("RMSprop", {}, None),  # has no fused step
        ("AdamW", {"fused": False}, False),
        ("AdamW", {"foreach": True}, None),
        ("Adagrad", {"foreach": False}, None),
    ],
)
def test_step_on_a_cpu_is_fused_unless_asked_otherwise(name, options, expected):
    ends = []
    for change in (lambda optimizer: optimizer, fused):
        weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
        optimizer = change(getattr(torch.optim, name)([weight], lr=0.1, **options))
        for _ in range(3):
            optimizer.zero_grad()
            weight.pow(3).sum().backward()
            optimizer.step()
        ends.append(weight.detach())
    assert optimizer.param_groups[0].get("fused") is expected
    torch.testing.assert_close(*ends)
    assert not torch.equal(ends[0], torch.tensor([[1.0, -2.0], [0.5, 3.0]]))


def test_trainings_make_fused_steps_on_a_cpu_only():
    (group, *_) = classifier().configure_optimizers()["optimizer"].param_groups
    assert group["fused"] is True
    elsewhere = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1, device="meta"))])
    assert fused(elsewhere).param_groups[0]["fused"] is None


def test_step_of_16_bit_parameters_changes_all_of_them():
    weight = torch.nn.Parameter(torch.ones(64, dtype=torch.bfloat16))
    optimizer = fused(torch.optim.SGD([weight], lr=0.25))
    weight.sum().backward()
    optimizer.step()
    assert (weight == 0.75).all()


def test_no_decay_pulls_at_the_fusion():
    optimizer = FusionClassifier(
        network(), optimizer=lambda g: torch.optim.AdamW(g, 0.1, weight_decay=0.3), total_steps=100, seed=0
    ).configure_optimizers()["optimizer"]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [
        0.0,
        0.0,
        0.3,
        0.3,
    ]  # response, group weights, CNN, classifier
    held = sum(len(group["params"]) for group in optimizer.param_groups)
    assert held == len(list(network().parameters()))


def test_learning_rate_rises_then_falls_to_zero():
    scheduler = classifier().configure_optimizers()["lr_scheduler"]["scheduler"]
    scale = scheduler.lr_lambdas[-1]
    assert scale(0) == 0.1
    assert scale(9) == scale(10) == 1.0
    assert scale(55) == pytest.approx(0.5)
    assert scale(100) == pytest.approx(0.0)
    assert scheduler.lr_lambdas[0](55) == pytest.approx(5.0)  # of the fusion


def test_a_part_that_thaws_trains_like_any_other(monkeypatch):
    module = classifier(thaw_at={"cnn": 0.5})
    for step, trains in ((0, False), (49, False), (50, True)):
        monkeypatch.setattr(FusionClassifier, "global_step", step)
        module.on_train_batch_start(None, 0)
        assert module.network.cnn.norm.training is trains
        assert module.network.cnn.features.training is trains


def test_parts_learn_at_their_own_rates_from_their_own_step_on():
    module = classifier(thaw_at={"cnn": 0.5, "response": 2.0}, lr_scales={"classifier": 0.1})
    response, group_weights, cnn, head = module.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas
    assert [response(step) for step in (0, 50, 99)] == [0, 0, 0]
    assert [cnn(step) for step in (0, 49)] == [0, 0]
    assert cnn(50) > 0
    assert head(10) == pytest.approx(0.1)
    assert group_weights(10) == pytest.approx(10.0)  # the fusion's are ten times as high


def test_balanced_weights_give_every_class_the_same_say():
    weights = balanced_class_weights([10, 30, 60])
    assert np.allclose(np.array(weights) * [10, 30, 60], 100 / 3)


def validated(keep, step, loss, module):
    metrics = {"val/loss": torch.tensor(loss)}
    trainer = SimpleNamespace(callback_metrics=metrics, global_step=step, early_stopping_callbacks=[])
    keep.on_validation_epoch_end(trainer, module)
    keep.on_validation_end(trainer, module)


def test_kept_is_the_epoch_of_the_lowest_smoothed_loss_also_after_a_resume():
    keep, module, kept, smooth = KeepBest(), torch.nn.Linear(1, 1, bias=False), [], [3.0]
    losses = [3.0, 0.9, 2.1, 1.5, 1.8, 2.4, 2.2]  # the plain minimum is a lucky early epoch
    for step, loss in enumerate(losses, start=1):
        module.weight.data.fill_(step)
        smooth.append(smooth[-1] * 2 / 3 + loss / 3)
        state = keep.state_dict()
        keep = KeepBest()
        keep.load_state_dict(state)
        validated(keep, step, loss, module)
        kept.append(keep.step)
    assert int(np.argmin(smooth[1:])) + 1 == 5
    assert kept == [1, 2, 3, 4, 5, 5, 5]
    keep.restore(module)
    assert module.weight.item() == 5


class Worsening(pl.LightningModule):
    """Knows everything until it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch):
        self.log("train/weight", self.weight.item(), on_step=False, on_epoch=True, batch_size=1)
        return (self.weight * batch).sum()

    def validation_step(self, batch):
        self.log("val/loss", float(self.weight.item() != 1), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore::FutureWarning")
def test_a_start_that_is_validated_counts_as_an_epoch():
    keep, history, module = KeepBest(), History(), Worsening()
    data = torch.utils.data.DataLoader([torch.ones(1)])
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    off |= {"num_sanity_val_steps": -1, "check_val_every_n_epoch": 2, "log_every_n_steps": 1}
    trainer = pl.Trainer(max_epochs=5, accelerator="cpu", callbacks=[keep, history], **off)
    trainer.fit(module, data, data)
    assert module.weight.item() < 1
    keep.restore(module)
    assert (keep.step, module.weight.item()) == (0, 1)
    assert history.curves["val/loss"] == ([0, 2, 4], [0, 1, 1])
    assert history.curves["train/weight"][0] == [1, 2, 3, 4, 5]


def test_epochs_before_the_bands_are_chosen_do_not_count():
    keep, module = KeepBest(first_step=3), torch.nn.Linear(1, 1)
    for step, loss in enumerate([0.1, 0.1, 0.5], start=1):
        validated(keep, step, loss, module)
    assert keep.step == 3


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore::FutureWarning")
@pytest.mark.parametrize(("first_step", "stopped"), [(0, 3), (5, 7)])
def test_early_stopping_counts_from_where_bands_are_chosen(first_step, stopped):
    callbacks = [KeepBest(first_step=first_step), EarlyStopping("val/loss", patience=2)]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        max_epochs=9,
        callbacks=callbacks,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **quiet,
    )
    data = torch.utils.data.DataLoader([torch.ones(1)])
    trainer.fit(Worsening(), data, data)
    assert trainer.global_step == stopped


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({}, 600),
        ({"limit_train_batches": 10}, 120),
        ({"limit_train_batches": 0.5, "accumulate_grad_batches": 4}, 84),
        ({"limit_train_batches": 80}, 600),
        ({"max_steps": 120}, 120),
        ({"fast_dev_run": True}, 1),
        ({"callbacks": GradientAccumulationScheduler({10: 4})}, 526),
    ],
)
def test_steps_are_those_that_the_trainer_makes(limits, steps):
    assert steps_of(pl.Trainer(max_epochs=12, accelerator="cpu", logger=False, **limits), 50) == steps


def test_loss_of_an_epoch_is_the_mean_of_its_batches_also_where_steps_are_limited(monkeypatch):
    losses, loss_of = [], FusionClassifier._loss

    def loss(self, patches, classes):
        value, logits = loss_of(self, patches, classes)
        losses.extend([value.item()] if self.training else [])
        return value, logits

    monkeypatch.setattr(FusionClassifier, "_loss", loss)
    model = ModelSettings(channels=4, width=8, receptive_field=3, linear=False, whitening="none")
    gathering = partial(pl.Trainer, accelerator="cpu", accumulate_grad_batches=3, max_steps=3)
    settings = TrainSettings(threads=1, epochs=2, steps_per_epoch=5, model=model, trainer=gathering)
    experiment = prepare_experiment(synthetic_scene(seed=0, height=40, width=40), settings)
    fitted = fit_network(settings, experiment.network, [(experiment, patch_data(settings, experiment))], None)
    steps, means = fitted.history["train/loss"]
    assert (steps, len(losses)) == ([2, 3], 8)
    assert means == pytest.approx([np.mean(losses[:5]), np.mean(losses[5:])])


def test_training_with_a_limit_is_a_whole_one():
    model = ModelSettings(channels=4, width=8, receptive_field=3, linear=False, whitening="none")
    limited = partial(pl.Trainer, accelerator="cpu", limit_train_batches=2)
    settings = TrainSettings(threads=1, epochs=3, model=model, trainer=limited)
    experiment = prepare_experiment(synthetic_scene(seed=0, height=40, width=40), settings)
    fitted = fit_network(settings, experiment.network, [(experiment, patch_data(settings, experiment))], None)
    assert fitted.best_step == 6  # of the 6 steps, 5 and 6 are made with the bands that are kept


def test_training_that_ends_before_bands_are_chosen_says_so(caplog):
    module = FusionClassifier(network(), optimizer=torch.optim.AdamW, total_steps=3, seed=0)
    module.on_train_end()
    module.on_train_end()
    assert caplog.messages == [
        "Training ended at step 0 of 3, before bands are chosen: no step was made on the kept bands alone."
    ]


def test_history_of_weights_ends_with_the_weights_and_survives_a_checkpoint():
    net = network()
    history = WeightHistory([(net, None)])
    module = SimpleNamespace(network=net, device="cpu")
    for step in (5, 10):
        with torch.no_grad():
            net.fusion.gates.position[:50] -= 0.2
        history.on_train_epoch_end(SimpleNamespace(global_step=step), module)
    assert history.steps == [5, 10]
    assert history.weights[-1] == WeightReadout(net).weight.tolist()
    assert history.weights[0] != history.weights[1]
    again = WeightHistory([(net, None)])
    again.load_state_dict(history.state_dict())
    assert (again.steps, again.weights) == (history.steps, history.weights)


def test_bands_cost_nothing_at_first_and_all_of_the_price_from_half_of_the_training_on():
    module = classifier(band_cost=3.0)
    prices = [float(module.band_price(step).detach()) for step in (0, 10, 30, 50, 99)]
    cost = float(module.network.fusion.gates.cost.detach())
    assert prices == pytest.approx([0, 0, 1.5 * cost, 3 * cost, 3 * cost])


def test_bands_are_chosen_in_the_course_of_the_training():
    net = network(keep_bands=7)
    net.fusion.gates.advance(0.5)
    assert net.used_bands.sum() > 7
    net.fusion.gates.advance(0.6)
    assert net.used_bands.sum() == 7
    assert (WeightReadout(net).weight > 0).sum() == 7


def test_training_that_ends_too_soon_chooses_its_bands_all_the_same():
    module = FusionClassifier(
        network(keep_bands=7), optimizer=lambda g: torch.optim.SGD(g, 0.1), total_steps=100, seed=0
    )
    module.on_train_end()
    assert module.network.used_bands.sum() == 7


def test_copies_of_a_band_are_not_both_chosen():
    bands = Bands.from_wavelengths(np.repeat([450.0, 550, 650, 750], 2))
    net = build_network(bands, [BandGroup("all", 400, 800)], num_classes=2, keep_bands=4)
    net.fusion.gates.advance(1.0)
    assert bands.wavelength_nm[net.used_bands].tolist() == [450, 550, 650, 750]
    with pytest.raises(HsFusionError, match="keep_bands is 5, expected 1 to 4"):
        build_network(bands, [BandGroup("all", 400, 800)], num_classes=2, keep_bands=5)


@pytest.mark.parametrize("name", ["", "a|b", GROUPS[0].name])
def test_sources_whose_names_mean_something_else_are_refused(name):
    with pytest.raises(InputError, match="names of the sources"):
        build_network(BANDS, GROUPS, num_classes=2, sources=[(name, 1)])


@pytest.mark.parametrize("fusion", ["channel", "instance", "channel_instance"])
def test_groups_of_one_band_and_rasters_train_under_autocast(fusion):
    groups = [BandGroup("one", 395, 405), BandGroup("rest", 405, 2500)]
    net = build_network(BANDS, groups, num_classes=2, sources=[("lidar", 1)], fusion=fusion, channels=4, width=8)
    with torch.autocast("cpu", torch.bfloat16):
        net.classify(torch.randn(4, 201, 9, 9)).float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters() if p.requires_grad)


def test_groups_of_one_band_each_use_every_parameter():
    bands = Bands.from_wavelengths([450.0, 550.0])
    groups = [BandGroup("a", 400, 500), BandGroup("b", 500, 600)]
    net = build_network(bands, groups, num_classes=2, fusion="instance", channels=4, width=8)
    net.classify(torch.randn(4, 2, 9, 9)).square().mean().backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


def test_weights_of_closed_bands_are_zero_and_not_nan():
    net = network()
    with torch.no_grad():
        net.fusion.gates.position.fill_(-1)
    assert WeightReadout(net).weight.tolist() == [0.0] * 200


def test_chosen_bands_come_back_from_the_model_file(tmp_path):
    net = network(keep_bands=7)
    net.fusion.gates.advance(1.0)
    save_model(tmp_path / "model.safetensors", net, header=header(net, keep_bands=7))
    again, _ = load_model(tmp_path / "model.safetensors")
    assert torch.equal(again.used_bands, net.used_bands)
    np.testing.assert_array_equal(WeightReadout(again).weight, WeightReadout(net).weight)


def test_numbers_of_bands_that_cannot_be_kept_are_refused():
    with pytest.raises(HsFusionError, match="keep_bands is 201, expected 1 to 200"):
        network(keep_bands=201)
    for more in ({"fusion": "free"}, {"whitening": "noise"}):
        with pytest.raises(InputError, match="keep_bands is 5, expected null"):
            ModelSettings(keep_bands=5, **more)


def test_further_raster_is_a_group_of_its_own():
    net = build_network(BANDS, GROUPS, num_classes=3, sources=[("lidar", 1), ("radar", 2)])
    inside = net.fusion.membership
    assert inside.shape == (len(GROUPS) + 2, 203)
    assert inside[-2].nonzero().flatten().tolist() == [200]
    assert inside[-1].nonzero().flatten().tolist() == [201, 202]
    x = torch.randn(2, 203, 7, 7)
    learned = WeightReadout(net.eval())
    matrix = np.einsum("gm,gmc->mc", learned.group_weights, learned.response)
    expected = np.einsum("mc,bchw->bmhw", matrix, x.numpy())
    np.testing.assert_allclose(net.fusion(x).detach().numpy(), expected, atol=1e-5)
    assert learned.weight[200:].sum() > 0


def test_without_validation_the_last_weights_stay():
    module = torch.nn.Linear(1, 1)
    before = module.weight.item()
    keep = KeepBest()
    trainer = SimpleNamespace(callback_metrics={}, global_step=1, early_stopping_callbacks=[])
    keep.on_validation_end(trainer, module)
    keep.restore(module)
    assert keep.step is None
    assert module.weight.item() == before


@torch.no_grad()
@pytest.mark.parametrize("of_mean", [0, 1])
def test_weights_of_the_linear_part_are_of_the_bands_that_it_was_fitted_to(of_mean):
    torch.manual_seed(0)
    net = build_network(BANDS, GROUPS, num_classes=3, whitening="noise", linear=True)
    number = len(net.mean)
    net.whitening += 0.2 * torch.randn(number, number)
    coefficients = torch.zeros(3, number)
    coefficients[:, 2:6] = torch.randn(3, 4)
    net.linear.weight.copy_(coefficients @ net.whitening if of_mean else coefficients)
    net.linear.of_mean.fill_(of_mean)
    net.linear.network_share.fill_(0.0)
    readout = WeightReadout(net)
    assert np.flatnonzero(readout.weight).tolist() == [2, 3, 4, 5]
    assert not readout.network_part.any()
    net.linear.network_share.fill_(0.5)
    readout = WeightReadout(net)
    assert readout.weight.sum() == pytest.approx(1)
    assert (readout.weight * readout.network_part).sum() == pytest.approx(0.5)


@torch.no_grad()
def test_weights_sum_to_1_where_a_class_had_no_training_pixels():
    net = build_network(BANDS, GROUPS, num_classes=3, linear=True)
    net.linear.weight[1:, 2:6] = torch.tensor([[1.0], [-1.0]])  # of logistic regression they sum to 0, and none is left
    net.linear.network_share.fill_(0.5)
    assert WeightReadout(net).weight.sum() == pytest.approx(1)


class _Seen(pl.Callback):
    """The first batch, and loss and number of samples of each step."""

    def __init__(self):
        self.patches, self.steps = None, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.patches = batch[0] if self.patches is None else self.patches
        self.steps.append((float(outputs["loss"]), len(batch[1])))


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_pixels_are_whitened_before_batches_where_no_linear_part_needs_them_otherwise(share):
    seen, model = _Seen(), ModelSettings(channels=4, width=8, receptive_field=3)
    short = TrainSettings(threads=1, epochs=1, steps_per_epoch=3, groups=partial(even_groups, number=4), model=model)
    settings = replace(short, noise=0.0, flips="none", band_cost=0.0, callbacks=(seen,))
    experiment = prepare_experiment(synthetic_scene(seed=0, height=40, width=40), settings)
    experiment.network.linear.network_share.fill_(share)
    data = patch_data(settings, experiment)
    pixels = data.sampler().batch(0)
    standardised = data.patches(pixels, step=None)
    fitted = fit_network(settings, experiment.network, [(experiment, data)], None)
    whitening = experiment.network.whitening
    expected = matrix_product(standardised, whitening) if share == 1 else standardised
    torch.testing.assert_close(seen.patches, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(standardised, matrix_product(standardised, whitening), atol=0.1)
    assert data.patches(pixels, step=None).equal(standardised)
    losses, samples = np.array(seen.steps).T
    assert fitted.history["train/loss"][1] == pytest.approx([np.average(losses, weights=samples)])


@pytest.mark.filterwarnings("ignore")  # of Lightning, which runs keep quiet
def test_trainer_of_somebody_sees_the_same_network_after_the_training_and_in_another():
    model = ModelSettings(channels=4, width=8, receptive_field=3)
    settings = TrainSettings(threads=1, steps_per_epoch=3, groups=partial(even_groups, number=4), model=model)
    experiment = prepare_experiment(synthetic_scene(seed=0, height=40, width=40), settings)
    module = FusionClassifier(experiment.network, optimizer=torch.optim.AdamW, total_steps=3, seed=0)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "inference_mode": False,  # or metrics could not be updated by a training that follows
    }

    def validated(trainer):
        return pytest.approx(float(trainer.callback_metrics["val/loss"]), rel=1e-4)

    for more in ({}, {"range_dropout": 0.3}, {}):  # pixels are whitened once, for each batch, and once again
        data = patch_data(replace(settings, **more), experiment)
        trainer = pl.Trainer(max_epochs=1, **quiet)
        trainer.fit(module, datamodule=data)
        fitted = validated(trainer)
        (after,) = trainer.validate(module, datamodule=data, verbose=False)
        assert after["val/loss"] == fitted and module._whitened is False


class _OwnStep(FusionClassifier):
    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.network.classify(batch[0]).flatten(1), batch[1])


class _OwnLogits(FusionClassifier):
    def logits(self, patches):
        return self.network.classify(patches)


def test_modules_with_steps_of_their_own_get_patches_that_are_not_whitened():
    net = network(whitening="noise")
    makes = [partial(make, net, optimizer=torch.optim.AdamW) for make in (FusionClassifier, _OwnStep, _OwnLogits)]
    assert [make(total_steps=3, seed=0).take_whitened(True) for make in makes] == [True, False, False]


def test_fusion_network_that_would_not_be_standardised_is_refused():
    settings = TrainSettings(threads=1, model=ModelSettings(channels=4, width=8, receptive_field=3))
    experiment = prepare_experiment(synthetic_scene(seed=0, height=40, width=40), settings)
    data, module = patch_data(settings, experiment), pl.LightningModule()
    module.model = experiment.network
    data.trainer = SimpleNamespace(lightning_module=module)
    with pytest.raises(InputError, match=r"attribute of its fusion network is model, expected network"):
        data.setup("fit")


def test_gpu_without_room_for_the_pixels_is_refused(monkeypatch):
    cube = SimpleNamespace(values=torch.zeros(1000, 100), index=torch.zeros(10, 100, dtype=torch.int32))
    experiments = [SimpleNamespace(cube=cube)] * 2
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (808_000 - (device.index or 0), 10**9))
    check_gpu_memory(torch.device("cuda", 0), experiments)
    check_gpu_memory(torch.device("cpu"), experiments)
    with pytest.raises(EnvironmentFailure, match=r"cuda:1: free memory is 0\.00 GB, expected at least"):
        check_gpu_memory(torch.device("cuda", 1), experiments)
