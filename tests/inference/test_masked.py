import numpy as np
import pytest
import torch

from hsfusion.inference.classification import MaskedNetwork
from hsfusion.spectra import Bands, even_groups
from hsfusion.training.building import build_network

BANDS = Bands.from_wavelengths(np.arange(400.0, 1000.0, 50.0))  # 12


def masked(fusion, **options):
    """A network with settled statistics, 40 patches of 3 classes, and the two behind one score."""
    torch.manual_seed(0)
    network = build_network(
        BANDS,
        even_groups(BANDS, number=3),
        num_classes=3,
        sources=[("lidar", 1)],
        fusion=fusion,
        channels=5,
        width=6,
        receptive_field=5,
        knot_spacing_nm=None,
        **options,
    )
    rng = np.random.default_rng(5)
    if network.whitening is not None:
        network.whitening.copy_(torch.from_numpy(np.eye(13) + 0.1 * rng.normal(size=(13, 13))))
    if network.linear is not None:
        network.linear.weight.copy_(torch.from_numpy(rng.normal(size=(3, 13))))
        network.linear.network_share.fill_(0.6)
    patches = torch.randn(40, 13, 5, 5)
    with torch.no_grad():
        network.mean.copy_(torch.linspace(100, 200, 13))  # in the unit of a scene: the patches are standardised
        network.std.fill_(30)
        for _ in range(30):
            network.train().classify(torch.randn(64, 13, 5, 5) * 2)
        classes = network.eval().classify(patches).flatten(1).argmax(1)
    classes[::4] = (classes[::4] + 1) % 3
    return network, patches, classes, MaskedNetwork(network, patches, classes)


def share_right(network, patches, classes):
    with torch.no_grad():
        return float((network.eval().classify(patches).flatten(1).argmax(1) == classes).float().mean())


@pytest.mark.parametrize("fusion", ["channel", "scalar", "free", "instance", "channel_instance"])
def test_folded_replacement_gives_what_the_network_says_of_replaced_patches(fusion):
    network, patches, classes, score = masked(fusion)
    assert score.accuracy(score.logits(np.eye(13))) == pytest.approx(0.75)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(6):
        fill = rng.normal(size=(13, 13)) * (rng.random(13) < 0.5)
        replaced = torch.einsum("ij,bjhw->bihw", torch.from_numpy(fill).float(), patches)
        wanted = share_right(network, replaced, classes)
        assert score.accuracy(score.logits(fill)) == pytest.approx(wanted, abs=0.026)  # one patch may lie on an edge
        seen.add(wanted)
    assert len(seen) > 1


@pytest.mark.parametrize("fusion", ["channel", "free", "instance"])
def test_permuted_bands_take_the_values_of_other_patches(fusion):
    network, patches, classes, score = masked(fusion)
    order = np.random.default_rng(1).permutation(40)
    bands = np.arange(13) < 6
    exchanged = patches.clone()
    exchanged[:, :6] = patches[torch.from_numpy(order)][:, :6]
    wanted = share_right(network, exchanged, classes)
    assert wanted < 0.75
    assert score.accuracy(score.exchanged_logits(np.diag(bands), order)) == pytest.approx(wanted, abs=0.026)
    assert score.accuracy(score.exchanged_logits(np.zeros((13, 13)), order)) == pytest.approx(0.75)
    assert score.accuracy(score.exchanged_logits(np.eye(13), np.arange(40))) == pytest.approx(0.75)


def test_all_bands_permuted_alike_give_the_other_patch():
    network, patches, classes, score = masked("channel")
    order = np.random.default_rng(2).permutation(40)
    wanted = share_right(network, patches[torch.from_numpy(order)], classes)
    assert score.accuracy(score.exchanged_logits(np.eye(13), order)) == pytest.approx(wanted, abs=1e-6)


def log_likelihoods(network, patches, classes):
    with torch.no_grad():
        logits = network.eval().classify(patches).flatten(1)
    return logits.log_softmax(1)[torch.arange(len(classes)), classes].numpy()


WHOLE = {"whitening": "noise", "linear": True}


def whitening_of(network):
    return torch.eye(13) if network.whitening is None else network.whitening


@pytest.mark.parametrize(
    ("fusion", "options"), [("channel", WHOLE), ("channel", {}), ("free", WHOLE), ("instance", {})]
)
def test_exchanged_parts_of_spectra_give_what_the_network_says_of_such_patches(fusion, options):
    network, patches, classes, score = masked(fusion, **options)
    rng = np.random.default_rng(0)
    order, part = rng.permutation(40), rng.normal(size=(13, 13)) / 4
    moved = torch.einsum("ij,bjhw->bihw", torch.from_numpy(part).float(), patches[torch.from_numpy(order)] - patches)
    whole, wanted = (log_likelihoods(network, x, classes) for x in (patches, patches + moved))
    np.testing.assert_allclose(score.log_likelihoods(score.logits()), whole, atol=1e-4)
    found = score.log_likelihoods(score.exchanged_logits(score.of_spectra(part), order))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.abs(wanted - whole).max() > 0.01


def bases_of(network):
    """Bands as the network weighs them, and as its linear part does."""
    of_mean = network.linear is not None and network.linear.of_mean
    return whitening_of(network), whitening_of(network) if of_mean else torch.eye(13)


def exchanged_logits(network, patches, others, parts):
    """Log-probabilities (N, K) where a part of the bands that each of the two weighs is that of other patches."""
    shown = []
    for basis, part in zip(bases_of(network), parts, strict=True):
        matrix = torch.linalg.solve(basis, torch.as_tensor(part).float() @ basis)
        shown.append(patches + torch.einsum("ij,bjhw->bihw", matrix, others - patches))
    with torch.no_grad():
        logits = network.cnn(network.fusion(torch.einsum("ij,bjhw->bihw", whitening_of(network), shown[0])))
        return network.linear.mix(logits, network.linear.direct(shown[1], 2)).flatten(1).log_softmax(1)


@pytest.mark.parametrize("of_mean", [0, 1])
def test_each_part_is_shown_replacements_of_the_bands_that_it_weighs(of_mean):
    network, patches, classes, _ = masked("channel", **WHOLE)
    network.linear.of_mean.fill_(of_mean)
    score = MaskedNetwork(network, patches, classes)
    assert len(score.bases) == 2 - of_mean
    rng = np.random.default_rng(0)
    parts, order = rng.normal(size=(2 - of_mean, 13, 13)) / 4, rng.permutation(40)
    wanted = exchanged_logits(network, patches, patches[order], parts[[0, -1]])[torch.arange(40), classes].numpy()
    np.testing.assert_allclose(score.log_likelihoods(score.exchanged_logits(parts, order)), wanted, atol=1e-3)
    assert np.abs(wanted - score.log_likelihoods(score.logits())).max() > 0.1
    # a fill is the exchange with pixels that hold the mean
    filled = exchanged_logits(network, patches, 0 * patches, np.eye(13) - parts[[0, -1]]).argmax(1)
    assert score.accuracy(score.logits(parts)) == pytest.approx(float((filled == classes).float().mean()), abs=0.026)
    assert score.accuracy(score.logits(parts)) < 0.7


@pytest.mark.parametrize(("fusion", "options"), [("channel", WHOLE), ("instance", {})])
def test_gradients_of_the_only_band_as_weighed_that_differs_add_up_to_the_change(fusion, options):
    network, _, classes, _ = masked(fusion, **options)
    if network.linear is not None:
        network.linear.of_mean.fill_(1)  # both parts take whitened bands
    only = torch.linalg.solve(whitening_of(network), torch.eye(13)[4])
    patch = 3 * only[None, :, None, None].expand(1, 13, 5, 5).contiguous()
    ends = [log_likelihoods(network, x, classes[:1]).item() for x in (0 * patch, patch)]
    gradients = MaskedNetwork(network, patch, classes[:1]).integrated_gradients(steps=200)
    assert gradients[4] == pytest.approx(abs(ends[1] - ends[0]), rel=0.02)
    assert gradients[4] > 100 * np.delete(gradients, 4).max()


def test_gradients_go_by_the_bands_of_each_part():
    network, patches, classes, _ = masked("channel", **WHOLE)
    network.linear.network_share.zero_()  # all of it is linear in the pixel's spectrum
    network.linear.weight[:, 6:] = 0
    gradients = MaskedNetwork(network, patches, classes).integrated_gradients()
    assert gradients[:6].min() > 1e-3 and gradients[6:].max() < 1e-6
    network.linear.network_share.fill_(1.0)
    assert MaskedNetwork(network, patches, classes).integrated_gradients()[6:].max() > 1e-3


def test_the_network_is_left_as_it_is():
    network, patches, classes, score = masked("channel", **WHOLE)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    score.accuracy(score.logits(np.zeros((13, 13))))
    score.integrated_gradients()
    MaskedNetwork(network, patches, classes)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
