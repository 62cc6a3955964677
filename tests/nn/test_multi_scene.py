import pytest
import torch

from hsfusion.nn import (
    BandFusion,
    FreeFusion,
    FusionNetwork,
    MultiSceneNetwork,
    PixelClassifier,
    SmallCNN,
    StochasticGates,
)

K, M, G = 3, 4, 2
KINDS = ["scalar", "channel", "instance", "channel_instance", "none"]


def network(bands, *, kind="channel", knots=5, seed=0):
    torch.manual_seed(seed)
    membership = torch.arange(G)[:, None] == torch.arange(bands) * G // bands
    gates = StochasticGates(torch.arange(bands))
    fusion = BandFusion(membership, torch.rand(bands, knots), gates=gates, channels=M, kind=kind)
    cnn = PixelClassifier(SmallCNN(M, width=8, receptive_field=5 - 2 * fusion.margin), M, K)
    return FusionNetwork(fusion, cnn, mean=torch.rand(bands), std=torch.rand(bands) + 0.5)


def test_networks_start_alike_and_share_coefficients_group_weights_and_cnn():
    alone = network(6)
    several = MultiSceneNetwork([network(6), network(10, seed=1)])
    assert several[0].fusion.coefficients is several[1].fusion.coefficients
    assert several[0].fusion.group_sum is several[1].fusion.group_sum
    assert several[0].cnn is several[1].cnn
    assert torch.equal(several[1].fusion.group_sum.weights, alone.fusion.group_sum.weights)
    assert several[1].fusion.basis.shape == (10, 5)
    names = dict(several.named_parameters())  # each once
    assert {name.split(".")[1] for name in names} == {"0"}
    own = sum(p.numel() for n, p in alone.named_parameters() if "gates" not in n)
    assert sum(p.numel() for p in names.values()) == own


@pytest.mark.parametrize("kind", KINDS)
def test_networks_that_are_taken_apart_say_what_the_whole_says(kind):
    several = MultiSceneNetwork([network(6, kind=kind), network(10, kind=kind, seed=1)]).eval()
    patches = [torch.randn(2, 6, 5, 5), torch.randn(3, 10, 5, 5)]
    with torch.no_grad():
        whole = several.classify(patches)
        apart = several.split_networks()
        each = [one.eval().classify(x) for one, x in zip(apart, patches, strict=True)]
        assert whole.shape == (5, K, 1, 1)
        torch.testing.assert_close(torch.cat(each), whole)
        torch.testing.assert_close(several.classify([patches[0][:0], patches[1]]), whole[2:])  # none of the first scene
    assert [one.used_bands.all() for one in apart] == [True, True]
    assert apart[1].state_dict().keys() == network(10, kind=kind).state_dict().keys()
    assert apart[0].fusion.coefficients is not apart[1].fusion.coefficients


def test_what_cannot_be_shared_is_refused():
    free = FusionNetwork(
        FreeFusion(torch.ones(1, 6).bool(), channels=M), network(6).cnn, mean=torch.zeros(6), std=torch.ones(6)
    )
    with pytest.raises(ValueError, match="nothing to share"):
        MultiSceneNetwork([network(6), free])
    with pytest.raises(ValueError, match=r"shapes \[\(2, 4, 5\), \(2, 4, 6\)\]"):
        MultiSceneNetwork([network(6), network(6, knots=6)])
