import numpy as np
import pytest
import torch

from hsfusion.inference import FoldedNetwork
from hsfusion.runs.settings import FUSIONS
from hsfusion.spectra import Bands, even_groups
from hsfusion.training.building import build_network

BANDS = Bands.from_wavelengths(np.arange(400.0, 1000.0, 20.0))  # 30
SOURCES = [("lidar", 2), ("radar", 1)]
LIDAR, CLOSED, RADAR, LAYERS = 30, 31, 32, 33


def trained(fusion, **options):
    """As a training leaves it: nothing is where it started, and one layer of the lidar is closed where gates are."""
    torch.manual_seed(0)
    net = build_network(
        BANDS,
        even_groups(BANDS, number=3),
        num_classes=4,
        sources=SOURCES,
        fusion=fusion,
        channels=6,
        width=8,
        **options,
    )
    net(torch.randn(8, LAYERS, 9, 9))
    with torch.no_grad():
        if net.fusion.gates is not None:
            net.fusion.gates.position.copy_(torch.linspace(0, 1, LAYERS))
            net.fusion.gates.position[CLOSED] = 0
        for name, parameter in net.named_parameters():
            if name.endswith("predictor"):  # of instance weights; starts at 0
                parameter.normal_()
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(1, 3).mul_(torch.randn_like(module.weight).sign())
                module.bias.normal_()
        net.mean.copy_(torch.linspace(-100, 3000, LAYERS))
        net.std.copy_(torch.linspace(1, 500, LAYERS))
    return net.eval()


@pytest.fixture(params=FUSIONS)
def networks(request):
    net = trained(request.param)
    return net, FoldedNetwork(net)


@torch.no_grad()
@pytest.mark.parametrize("of_mean", [0, 1])
@pytest.mark.parametrize("fusion", ["scalar", "channel", "none", "free"])
def test_whitening_and_linear_part_fold_into_the_one_matrix(fusion, of_mean):
    net = trained(fusion, whitening="noise", linear=True)
    net.whitening[:30, :30] += 0.1 * torch.randn(30, 30)
    net.linear.weight.normal_()
    net.linear.bias.normal_()
    net.linear.network_share.fill_(0.4)
    net.linear.temperature.fill_(1.7)
    net.linear.of_mean.fill_(of_mean)
    x, folded = pixels(net), FoldedNetwork(net)
    torch.testing.assert_close(folded(x[:, folded.layers]), net(x), atol=1e-4, rtol=1e-4)
    seen = net.standardise(x)
    seen = seen.unfold(2, 7, 1).unfold(3, 7, 1).mean((4, 5)) if of_mean else seen[..., 3:-3, 3:-3]
    network, direct = net(x), net.linear.direct(seen).log_softmax(1)
    net.linear.network_share.fill_(1.0)
    torch.testing.assert_close(network, 0.4 * net(x) + 0.6 * direct, atol=1e-5, rtol=1e-5)


def pixels(net):
    return net.mean[:, None, None] + net.std[:, None, None] * torch.randn(2, LAYERS, 12, 11)


@torch.no_grad()
def test_folded_network_with_further_rasters_gives_the_numbers_of_the_whole_one(networks):
    net, folded = networks
    x = pixels(net)
    assert folded.layers.tolist() == net.used_bands.nonzero()[:, 0].tolist()
    assert {LIDAR, RADAR} <= set(folded.layers.tolist())
    assert (CLOSED in folded.layers) == (net.fusion.gates is None)
    torch.testing.assert_close(folded(x[:, folded.layers]), net(x), atol=1e-4, rtol=1e-4)
    for layer in (LIDAR, RADAR):
        other = x.clone()
        other[:, layer] += 3 * net.std[layer]
        assert (folded(other[:, folded.layers]) - folded(x[:, folded.layers])).abs().max() > 0.05


@torch.no_grad()
def test_missing_values_of_further_rasters_are_the_training_mean_to_their_neighbours(networks):
    net, folded = networks
    x = pixels(net)
    holes = torch.zeros(x.shape, dtype=torch.bool)
    holes[0, LIDAR, 5, 4] = holes[1, RADAR, 6:8, 3] = holes[1, 12, 4, 7] = holes[0, CLOSED, 8, 7] = True
    whole = net(torch.where(holes, net.mean[:, None, None], x))
    x[holes] = torch.nan
    taken = x[:, folded.layers]
    logits, missing = folded.classify(taken)
    torch.testing.assert_close(logits, whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded(taken), whole, atol=1e-4, rtol=1e-4)
    expected = holes[:, folded.layers].any(1)[:, 3:-3, 3:-3]
    assert torch.equal(missing, expected)
    assert expected.sum() == 4 + (net.fusion.gates is None)
