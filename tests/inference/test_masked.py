import numpy as np
import pytest
import torch

from hsfusion.inference.classification import MaskedNetwork
from hsfusion.spectra import Bands, even_groups
from hsfusion.training.building import build_network

BANDS = Bands.from_wavelengths(np.arange(400.0, 1000.0, 50.0))  # 12


def masked(fusion):
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
    )
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
    assert score.accuracy(np.eye(13)) == pytest.approx(0.75)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(6):
        fill = rng.normal(size=(13, 13)) * (rng.random(13) < 0.5)
        replaced = torch.einsum("ij,bjhw->bihw", torch.from_numpy(fill).float(), patches)
        wanted = share_right(network, replaced, classes)
        assert score.accuracy(fill) == pytest.approx(wanted, abs=0.026)  # one patch may lie on an edge
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
    assert score.permuted_accuracy(bands, order) == pytest.approx(wanted, abs=0.026)
    assert score.permuted_accuracy(np.zeros(13, bool), order) == pytest.approx(0.75)
    assert score.permuted_accuracy(np.ones(13, bool), np.arange(40)) == pytest.approx(0.75)


def test_all_bands_permuted_alike_give_the_other_patch():
    network, patches, classes, score = masked("channel")
    order = np.random.default_rng(2).permutation(40)
    wanted = share_right(network, patches[torch.from_numpy(order)], classes)
    assert score.permuted_accuracy(np.ones(13, bool), order) == pytest.approx(wanted, abs=1e-6)


def test_the_network_is_left_as_it_is():
    network, patches, classes, score = masked("channel")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    score.accuracy(np.zeros((13, 13)))
    MaskedNetwork(network, patches, classes)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
