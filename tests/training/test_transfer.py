import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hsfusion.data.public import indian_pines_bands
from hsfusion.errors import InputError
from hsfusion.runs.settings import FUSIONS
from hsfusion.spectra import BandGroup, Bands, even_groups
from hsfusion.spectra.resampling import mixing_matrix, resampling_matrix
from hsfusion.spectra.sensors import sensor_bands
from hsfusion.training.building import WeightReadout, build_network
from hsfusion.training.model_file import ClassList, ModelHeader, load_model, save_model
from hsfusion.training.transfer import transfer

SPECTROMETERS = ("enmap", "prisma", "emit", "desis", "aviris_classic")
TEN_NM = Bands(np.arange(400.0, 1001, 10), np.full(61, 10.0), np.ones(61, bool))
NAMES = ["water", "grass", "soil"]


def trained(bands=TEN_NM, *, groups=None, sources=(), names=NAMES, seed=0, **architecture):
    """A network whose parts are no longer what they were at the start, and the header of its file."""
    torch.manual_seed(seed)
    groups = groups or even_groups(bands, number=4)
    architecture = {"channels": 4, "width": 8, "receptive_field": 5, **architecture}
    network = build_network(bands, groups, num_classes=len(names), sources=sources, **architecture)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * parameter.std(correction=0).clamp_min(0.1) * torch.randn_like(parameter)
    if network.fusion.gates is not None:
        network.fusion.gates.advance(1.0)
    for _ in range(5):  # the running statistics of the normalisations
        network(torch.randn(16, len(network.mean), 7, 7))
    network.mean.uniform_(0.2, 0.4), network.std.uniform_(0.1, 0.2)
    set_covariance(network, smooth_covariance(bands.wavelength_nm, layers=len(network.mean) - len(bands)))
    return network.eval(), header_for(bands, groups, names=names, sources=sources, architecture=architecture)


def smooth_covariance(nm, *, layers=0):
    """Of standardised bands whose spectra are smooth over 60 nm, and of layers that have nothing to do with them."""
    near = np.exp(-0.5 * ((nm[:, None] - nm) / 60) ** 2)
    whole = np.eye(len(nm) + layers)
    whole[: len(nm), : len(nm)] = near
    return whole


def set_covariance(network, covariance):
    network.covariance.copy_(torch.from_numpy(covariance[np.triu_indices(len(covariance))]))


def header_for(bands, groups, *, names, sources, architecture):
    classes = ClassList(tuple(range(1, len(names) + 1)), tuple(names), ("#000000",) * len(names))
    return ModelHeader(
        bands=bands, groups=tuple(groups), classes=classes, architecture=architecture, sources=tuple(sources)
    )


def carry(network, header, bands, *, sources=(), names=NAMES):
    return transfer(network, header=header, bands=bands, sources=sources, class_names=names)


def header_of(carried, header, bands):
    return replace(header, bands=bands, groups=carried.groups, architecture=carried.architecture)


def group_weights(network, left=slice(None)):
    """Weight of each group that is left, from what the forward pass uses; all of each channel belongs to these."""
    learned = WeightReadout(network, torch.zeros(1, len(network.mean), 7, 7))
    size = np.abs(learned.group_weights)[left]
    return np.einsum("m,gm,gmc->g", learned.channel_share, size / size.sum(0), learned.response[left])


@pytest.mark.parametrize("constraint", ["none", "affine", "convex", "signed"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_network_carried_over_to_its_own_bands_says_the_same(fusion, constraint):
    for keep_bands in (None,) if fusion == "free" else (None, 9):
        network, header = trained(
            fusion=fusion, constraint=constraint, sources=[("lidar", 1), ("radar", 2)], keep_bands=keep_bands
        )
        carried = carry(network, header, TEN_NM, sources=[("lidar", 1), ("radar", 2)])
        x = 0.3 + 0.2 * torch.randn(2, 64, 9, 9)
        expected = network(x)
        assert expected.std() > 0.01
        torch.testing.assert_close(carried.network(x), expected, atol=1e-5, rtol=1e-5)
        again = carry(carried.network, header_of(carried, header, TEN_NM), TEN_NM, sources=[("lidar", 1), ("radar", 2)])
        torch.testing.assert_close(again.network(x), expected, atol=1e-5, rtol=1e-5)
        assert carried.report.outside_share == pytest.approx(0, abs=1e-9)


def test_gates_that_are_not_settled_stay_as_far_open():
    torch.manual_seed(0)
    network, header = trained(fusion="instance")
    network.fusion.gates.kept.zero_()
    network.fusion.gates.position.data.uniform_(-0.2, 1)
    carried = carry(network, header, TEN_NM)
    x = torch.randn(1, 61, 7, 7)
    torch.testing.assert_close(carried.network(x), network(x), atol=1e-5, rtol=1e-5)
    assert carried.network.used_bands.tolist() == network.used_bands.tolist()


def smooth_cube(bands, *, seed=0):
    """(1, C, 9, 9) of spectra that are sums of hills 120 nm wide, so that 10 nm bands lose nothing."""
    rng = np.random.default_rng(seed)
    centres, height = np.linspace(350, 1050, 12), rng.uniform(0, 0.5, (12, 9, 9))
    hills = np.exp(-0.5 * ((bands.wavelength_nm[:, None] - centres) / 60) ** 2)
    return torch.from_numpy(np.einsum("ck,khw->chw", hills, height)).float()[None]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_smooth_scene_on_finer_shifted_bands_gets_nearly_the_same_logits(fusion):
    network, header = trained(fusion=fusion)
    cube = smooth_cube(TEN_NM)
    network.mean.copy_(cube.mean((0, 2, 3))), network.std.copy_(cube.std((0, 2, 3)))
    spectra = network.standardise(cube)[0].flatten(1).double().numpy()
    set_covariance(network, np.cov(spectra))
    finer = np.arange(398.0, 1003, 7)
    finer = Bands(finer, np.full(finer.size, 8.0), np.ones(finer.size, bool))
    expected = network(cube)
    off = (carry(network, header, finer).network(smooth_cube(finer)) - expected).abs().max()
    assert off < 0.03 * expected.std()
    other = (network(smooth_cube(TEN_NM, seed=1)) - expected).abs().max()
    assert other > 0.3 * expected.std()  # so the bound says something


@pytest.mark.parametrize("old", SPECTROMETERS)
def test_weight_of_every_group_is_kept_between_sensors(old):
    bands = sensor_bands(old)
    network, header = trained(bands, groups=even_groups(bands, number=8), fusion="instance")
    total = WeightReadout(network, torch.zeros(1, len(bands), 3, 3)).weight
    for name in SPECTROMETERS:
        new = sensor_bands(name)
        carried = carry(network, header, new)
        left = [i for i, group in enumerate(even_groups(bands, number=8)) if group in carried.groups]
        np.testing.assert_allclose(group_weights(carried.network), group_weights(network, left), atol=1e-6)
        lost = total @ (1 - resampling_matrix(bands, new).sum(1))
        assert carried.report.outside_share == pytest.approx(lost, abs=1e-9)
        by_group = sum(group.weight * (1 - group.coverage) for group in carried.report.groups)
        assert by_group == pytest.approx(lost, abs=1e-6)
        assert set(carried.report.dropped_groups) == {group.name for group in header.groups} - {
            group.name for group in carried.groups
        }
        assert len(left) == 8 or name == "desis"


def test_to_half_of_the_range_what_is_lost_is_reported_and_what_is_left_goes_on():
    bands = sensor_bands("enmap")
    groups = [BandGroup("visible", 400, 900), BandGroup("infrared", 1500, 2400)]
    network, header = trained(bands, groups=groups, fusion="instance")
    carried = carry(network, header, sensor_bands("desis"))
    assert carried.report.dropped_groups == ("infrared",)
    visible, infrared = carried.report.groups
    assert visible.coverage > 0.999
    assert infrared.coverage == 0
    assert carried.report.outside_share == pytest.approx(infrared.weight, abs=1e-3)
    assert visible.weight + infrared.weight == pytest.approx(1)


@pytest.mark.parametrize("fusion", ["instance", "channel_instance"])
def test_reported_weights_are_what_a_carried_network_uses(fusion):
    network, header = trained(fusion=fusion, sources=[("lidar", 1)])
    carried = carry(network, header, sensor_bands("desis"), sources=[("lidar", 1)]).network
    with torch.no_grad():
        carried.fusion.coefficients += 0.1 * torch.randn_like(carried.fusion.coefficients)
    x = torch.randn(2, len(carried.mean), 5, 5)
    learned, margin = WeightReadout(carried, x), carried.fusion.margin
    fused = carried.fusion(x)
    tensors = torch.stack([t.expand(-1, 4, -1, -1) for t in carried.fusion.group_tensors(x)], 1)  # (B, G, M, H, W)
    weights = carried.fusion.instance_weights(x)
    weights = weights[:, :, None] if weights.dim() == 4 else weights
    inner = tensors[..., margin : 5 - margin, margin : 5 - margin]
    torch.testing.assert_close((weights * inner).sum(1), fused, atol=1e-5, rtol=1e-5)
    mixed = np.einsum("gmc,bchw->bgmhw", learned.response, x.numpy())
    share = carried.fusion.open_share.detach().numpy()[None, :, :, None, None]
    np.testing.assert_allclose(mixed * share, tensors.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_part_has_exactly_one_origin(fusion):
    network, header = trained(fusion=fusion, sources=[("lidar", 1), ("old", 2)])
    names = ["grass", " soil ", "snow"]
    carried = carry(network, header, sensor_bands("desis"), sources=[("lidar", 1), ("new", 3)], names=names)
    report = carried.report
    parts = [*report.copied, *report.resampled, *report.fresh]
    assert sorted(parts) == sorted(carried.network.state_dict())
    assert {"cnn.classifier.weight", "cnn.features.0.weight"} <= set(report.copied)
    assert {"mean", "std", "covariance"} <= set(report.resampled)
    assert (report.new_sources, report.dropped_sources) == (("new",), ("old",))
    assert (report.new_classes, report.dropped_classes) == (("snow",), ("water",))
    assert json.loads(json.dumps(report.to_dict()))["dropped_classes"] == ["water"]
    assert any("snow" in line for line in report.lines())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_parts_are_what_the_report_calls_them(fusion):
    network, header = trained(fusion=fusion)
    carried = carry(network, header, sensor_bands("desis"), names=["soil", "snow", "water"])
    old, new = network.state_dict(), carried.network.state_dict()
    for name in carried.report.copied:
        assert torch.equal(old[name], new[name]) or name.startswith("cnn.classifier."), name
    assert torch.equal(new["cnn.classifier.weight"][[0, 2]], old["cnn.classifier.weight"][[2, 0]])
    assert not torch.equal(new["cnn.classifier.weight"][1], old["cnn.classifier.weight"][1])


@pytest.mark.parametrize("fusion", ["channel", "free"])
def test_a_channel_of_zeros_stays_0_and_is_reported_in_numbers(fusion):
    network, header = trained(fusion=fusion)
    with torch.no_grad():
        (network.fusion.weight[1] if fusion == "free" else network.fusion.group_sum.raw[:, 1]).zero_()
    carried = carry(network, header, sensor_bands("desis"))
    assert carried.network.fusion.matrix()[1].eq(0).all()
    assert np.isfinite([carried.report.outside_share, *carried.report.expected_r2]).all()


def test_classes_that_are_to_start_anew_are_not_copied():
    network, header = trained()
    carried = transfer(
        network, header=header, bands=TEN_NM, sources=[], class_names=NAMES, fresh_classes=[" grass", "soil"]
    )
    old, new = network.cnn.classifier.weight, carried.network.cnn.classifier.weight
    assert [torch.equal(old[row], new[row]) for row in range(3)] == [True, False, False]
    assert carried.report.new_classes == carried.report.dropped_classes == ("grass", "soil")


@pytest.mark.parametrize("constraint", ["none", "affine", "convex", "signed"])
@pytest.mark.parametrize("fusion", [kind for kind in FUSIONS if kind != "none"])
def test_a_new_raster_hardly_changes_the_logits_at_first(fusion, constraint):
    network, header = trained(fusion=fusion, constraint=constraint)
    carried = carry(network, header, TEN_NM, sources=[("lidar", 2)]).network
    x = 0.3 + 0.2 * torch.randn(2, 63, 9, 9)
    x[:, 61:] = torch.randn(2, 2, 9, 9)
    expected = network(x[:, :61])
    # affine weights of the others move by an even shift
    assert (carried(x) - expected).abs().max() < (0.5 if constraint == "affine" else 0.1) * expected.abs().max()
    assert not torch.equal(carried(x), expected)


def test_a_carried_network_is_rebuilt_from_its_architecture_and_trains():
    network, header = trained(keep_bands=9, fusion="instance")
    carried = carry(network, header, sensor_bands("desis"))
    again = build_network(sensor_bands("desis"), carried.groups, num_classes=3, **carried.architecture)
    again.load_state_dict(carried.network.state_dict())
    x, y = torch.randn(8, len(again.mean), 5, 5), torch.arange(8) % 3
    assert torch.equal(again.eval()(x), carried.network(x))
    used = again.used_bands.clone()
    assert 9 <= used.sum() < 150
    again.train()
    optimizer, losses = torch.optim.Adam(again.parameters(), 0.05), []
    for _ in range(30):
        again.fusion.gates.advance(0.0)
        loss = torch.nn.functional.cross_entropy(again.classify(x).flatten(1), y) + again.fusion.gates.cost
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(again.used_bands, used)
    assert not torch.equal(again.fusion.response, carried.network.fusion.response)


@pytest.mark.parametrize("responses", ["kept", "folded"])
@pytest.mark.parametrize("architecture", [{}, {"fusion": "free"}, {"whitening": "noise"}, {"fusion": "instance"}])
def test_network_that_does_not_know_all_bands_of_a_scene_is_read_back_from_its_file(tmp_path, architecture, responses):
    wider = Bands(np.arange(300.0, 1101, 10), np.full(81, 10.0), np.arange(81) != 40)
    network, header = trained(**architecture)
    moved = transfer(network, header=header, bands=wider, sources=(), class_names=NAMES, responses=responses)
    save_model(tmp_path / "model.safetensors", moved.network, header=header_of(moved, header, wider))
    read, _ = load_model(tmp_path / "model.safetensors")
    pixels = torch.randn(2, 81, 7, 7)
    assert not read.fusion.membership.all()
    torch.testing.assert_close(read(pixels), moved.network(pixels))


@pytest.mark.parametrize("fusion", ["channel", "instance"])
def test_order_of_the_new_bands_does_not_matter(fusion):
    network, header = trained(indian_pines_bands(), fusion=fusion)
    bands = sensor_bands("prisma")
    order = np.random.default_rng(0).permutation(len(bands))
    shuffled = Bands(bands.wavelength_nm[order], bands.fwhm_nm[order], bands.good[order])
    cube = torch.randn(1, len(bands), 5, 5)
    plain, turned = carry(network, header, bands), carry(network, header, shuffled)
    torch.testing.assert_close(turned.network(cube[:, order]), plain.network(cube), atol=1e-4, rtol=1e-4)


def test_standardisation_is_resampled():
    network, header = trained()
    network.mean.copy_(torch.tensor(TEN_NM.wavelength_nm)), network.std.fill_(2.0)
    set_covariance(network, np.ones((61, 61)))
    nm = np.array([500.0, 505, 515, 1004])
    carried = carry(network, header, Bands(nm, np.full(4, 10.0), np.ones(4, bool))).network
    np.testing.assert_allclose(carried.mean, [500, 505, 515, 1000])  # 1000 nm is the last that is known
    np.testing.assert_allclose(carried.std, 2)


@pytest.mark.parametrize(
    ("bands", "part"),
    [
        (Bands.from_wavelengths(np.arange(8000.0, 12001, 100)), "is 8000 to 12000 nm, expected .* 400 to 1000 nm"),
        (Bands.from_wavelengths(np.arange(4000.0, 10001, 100)), "is 4000 to 10000 nm, expected .* 400 to 1000 nm"),
        (Bands(TEN_NM.wavelength_nm, None, np.zeros(61, bool)), "is empty, no band is good, expected"),
    ],
)
@pytest.mark.parametrize("fusion", ["channel", "free"])
def test_scene_that_covers_no_group_is_refused_with_both_ranges(fusion, bands, part):
    network, header = trained(fusion=fusion)
    with pytest.raises(InputError, match=f"^scene: range of the good bands {part}") as error:
        carry(network, header, bands)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("old", "new"), [(NAMES, ["a", "b ", "b"]), (["water", "soil", " soil"], NAMES)])
def test_classes_that_collide_are_refused_with_both_sides(old, new):
    network, header = trained(names=old)
    with pytest.raises(InputError, match=r"more than once, expected each once among the model's .* and the scene's"):
        carry(network, header, TEN_NM, names=new)


def correlated(*, rows=400, seed=0):
    """Spectra (N, 61) of four materials in mixture, so that any part of the spectrum says what the rest is like."""
    rng = np.random.default_rng(seed)
    materials = smooth_cube(TEN_NM)[0].flatten(1).numpy()[:, :4]
    return rng.dirichlet(np.ones(4), rows) @ materials.T + 0.001 * rng.standard_normal((rows, 61))


@pytest.mark.parametrize("architecture", [{}, {"whitening": "noise"}, {"linear": True}, {"fusion": "free"}])
def test_bands_that_a_sensor_lacks_are_predicted(architecture):
    network, header = trained(**architecture)
    spectra = correlated()
    network.mean.copy_(torch.from_numpy(spectra.mean(0))), network.std.copy_(torch.from_numpy(spectra.std(0)))
    set_covariance(network, np.corrcoef(spectra.T))
    if network.whitening is not None:
        network.whitening.copy_(torch.eye(61) - 0.3 * torch.eye(61).roll(1, 1))
    if network.linear is not None:
        network.linear.weight.normal_(0, 0.1), network.linear.network_share.fill_(0.5)
    gap = (TEN_NM.wavelength_nm > 600) & (TEN_NM.wavelength_nm < 800)
    few = Bands(TEN_NM.wavelength_nm[~gap], TEN_NM.fwhm_nm[~gap], np.ones((~gap).sum(), bool))
    carried = carry(network, header, few)
    x = torch.from_numpy(correlated(seed=1).T.reshape(1, 61, 20, 20)).float()
    expected = network(x)
    error = (carried.network(x[:, ~gap]) - expected).abs() / expected.std()  # of eight seeds at most 0.026 and 0.14
    assert error.mean() < 0.03 and error.max() < 0.2
    assert min(carried.report.expected_r2) > 0.99 and len(carried.report.expected_r2) == 4
    assert carried.report.outside_share > 0.2
    by_group = sum(group.weight * (1 - group.coverage) for group in carried.report.groups)
    assert by_group == pytest.approx(carried.report.outside_share, abs=1e-9)
    dealt = network.matrix()[:, ~gap] @ network.standardise(x)[0, ~gap].flatten(1)
    whole = network.matrix() @ network.standardise(x)[0].flatten(1)
    assert (dealt - whole).square().mean() > 0.1 * whole.var()  # leaving the bands out would have been far off


@pytest.mark.parametrize(("step", "most"), [(40, 1e-4), (8, 0.1)])  # in place of 0.05 and 0.17 if mixed from old ones
def test_old_bands_that_are_means_of_the_new_ones_are_these_means(step, most):
    nm = np.arange(400.0 + step, 1001 - step, step)
    old = Bands(nm, np.full(nm.size, float(step)), np.ones(nm.size, bool))
    network, header = trained(old, linear=True)
    network.linear.weight.normal_(0, 0.1), network.linear.network_share.fill_(0.5)
    rough = 0.1 * np.random.default_rng(0).standard_normal((61, 81))
    spectra = 2 + smooth_cube(TEN_NM)[0].flatten(1).numpy() + rough
    before = mixing_matrix(TEN_NM, old) @ spectra
    network.mean.copy_(torch.from_numpy(before.mean(1))), network.std.copy_(torch.from_numpy(before.std(1)))
    set_covariance(network, np.corrcoef(before))
    carried = carry(network, header, TEN_NM)
    x, y = (torch.from_numpy(values.reshape(1, -1, 9, 9)).float() for values in (before, spectra))
    expected = network(x)
    assert (carried.network(y) - expected).abs().mean() < most * expected.std()
    assert min(carried.report.expected_r2) > 0.99


@pytest.mark.parametrize("shift", [4.5e-13, 1e-3])
def test_sensor_whose_unit_is_rounded_says_nearly_the_same(shift):
    network, header = trained()
    rounded = replace(TEN_NM, wavelength_nm=TEN_NM.wavelength_nm + shift)
    x = smooth_cube(TEN_NM)
    torch.testing.assert_close(carry(network, header, rounded).network(x), network(x), atol=1e-3, rtol=0)


def test_channels_that_cannot_be_predicted_are_named_in_one_line():
    network, header = trained(fusion="free")
    blue = TEN_NM.wavelength_nm < 700
    set_covariance(network, np.eye(61))
    with torch.no_grad():
        network.fusion.weight[:, ~blue] = 0
        network.fusion.weight[2] = torch.from_numpy(1.0 * ~blue)
    report = carry(network, header, Bands(TEN_NM.wavelength_nm, TEN_NM.fwhm_nm, blue)).report
    assert [r2 > 0.9 for r2 in report.expected_r2] == [True, True, False, True]
    assert report.expected_r2[2] == pytest.approx(0, abs=0.01)
    assert [line for line in report.lines() if line.endswith("below 0.5 in 1 of 4: 2")]
