import pytest
import torch

from hsfusion.nn import BandFusion, FreeFusion, FusionNetwork, PixelClassifier, SmallCNN

KINDS = ["scalar", "channel", "instance", "channel_instance", "none", "free"]
C, M, K = 9, 5, 3
MEMBERSHIP = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 0, 0]]).bool()  # the last two in no group


def network(kind, receptive_field=7):
    torch.manual_seed(1)
    if kind == "free":
        fusion = FreeFusion(MEMBERSHIP.any(0, keepdim=True), channels=M)
    else:
        fusion = BandFusion(MEMBERSHIP, torch.eye(C), channels=M, kind=kind)
        if fusion.group_sum.predictor is not None:
            torch.nn.init.normal_(fusion.group_sum.predictor)
    backbone = SmallCNN(M, width=8, receptive_field=receptive_field - 2 * fusion.margin)
    cnn = PixelClassifier(backbone, M, K)
    net = FusionNetwork(fusion, cnn, mean=torch.rand(C), std=torch.rand(C) + 0.5)
    net(torch.randn(16, C, 9, 9))  # moves the running statistics of the normalisations
    return net.eval()


@pytest.mark.parametrize("receptive_field", [5, 7, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_patches_and_tiles_give_the_same_numbers(kind, receptive_field):
    net = network(kind, receptive_field)
    assert net.receptive_field == receptive_field
    scene = torch.randn(1, C, 14, 12)
    with torch.no_grad():
        dense = net(scene)[0]  # (K, H, W)
        patches = scene.unfold(2, receptive_field, 1).unfold(3, receptive_field, 1)  # (1, C, H, W, P, P)
        rows, cols = patches.shape[2:4]
        single = net(patches[0].permute(1, 2, 0, 3, 4).reshape(-1, C, receptive_field, receptive_field))
    assert dense.shape == (K, 14 - receptive_field + 1, 12 - receptive_field + 1)
    assert dense.std() > 0.01
    torch.testing.assert_close(single.reshape(rows, cols, K).permute(2, 0, 1), dense, atol=1e-5, rtol=1e-5)


def test_response_is_convex_inside_its_group_and_zero_outside():
    response = network("channel").fusion.response
    assert (response >= 0).all()
    torch.testing.assert_close(response.sum(-1), torch.ones(2, M))
    assert (response[:, :, ~MEMBERSHIP[0] & ~MEMBERSHIP[1]] == 0).all()
    assert (response[0, :, 3:] == 0).all()


@pytest.mark.parametrize("kind", ["scalar", "channel", "none"])
def test_matrix_is_the_two_stages_folded(kind):
    fusion = network(kind).fusion
    x = torch.randn(2, C, 3, 3)
    torch.testing.assert_close(fusion(x), fusion.group_sum(*fusion.group_tensors(x)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["instance", "channel_instance"])
def test_instance_weights_belong_to_the_pixels_returned(kind):
    fusion = network(kind).fusion
    x = torch.randn(2, C, 6, 7)
    weights = fusion.instance_weights(x)
    assert weights.shape[-2:] == fusion(x).shape[-2:] == (4, 5)
    inner = torch.stack(fusion.group_tensors(x))[..., 1:-1, 1:-1]  # (G, B, M, H', W')
    wide = weights if kind == "channel_instance" else weights[:, :, None]
    torch.testing.assert_close(fusion(x), (wide.movedim(1, 0) * inner).sum(0), atol=1e-5, rtol=1e-5)


def test_scaling_a_band_and_its_statistics_changes_nothing():
    net = network("channel")
    x = torch.randn(1, C, 9, 9)
    expected = net(x)
    scale = torch.logspace(-3, 3, C)
    net.mean.mul_(scale)
    net.std.mul_(scale)
    torch.testing.assert_close(net(x * scale[:, None, None]), expected, atol=1e-4, rtol=1e-4)


def test_input_share_sums_to_one_and_sees_a_silent_channel():
    net = network("channel")
    with torch.no_grad():
        net.cnn.norm.weight[2] = 0
    share = net.cnn.input_share
    torch.testing.assert_close(share.sum(), torch.tensor(1.0))
    assert share[2] == 0
    assert (share[[0, 1, 3, 4]] > 0).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "free"])
def test_responses_and_shares_that_were_carried_over_are_in_every_output(kind):
    prior = torch.rand(2, M, C) * MEMBERSHIP[:, None]
    prior[0, :, 1:] = 0  # one band only, and channels that let through more or less of it
    fusion = BandFusion(MEMBERSHIP, torch.eye(C), prior=prior, channels=M, kind=kind).eval()
    fusion.group_sum.load_state_dict(network(kind).fusion.group_sum.state_dict())
    fusion.passed.uniform_(0.2, 1)
    torch.testing.assert_close(fusion.response, prior / prior.sum(-1, keepdim=True))
    x = torch.randn(2, C, 3, 3)
    tensors = torch.stack(fusion.group_tensors(x), 1)  # (B, G, M, H, W)
    expected = torch.einsum("gmc,bchw->bgmhw", fusion.response * fusion.passed[:, :, None], x)
    torch.testing.assert_close(tensors, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fusion.open_share, fusion.passed)
    if not kind.endswith("instance"):
        torch.testing.assert_close(fusion(x), torch.einsum("mc,bchw->bmhw", fusion.matrix(), x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(fusion(x), fusion.group_sum(*tensors.unbind(1)), atol=1e-5, rtol=1e-5)


def test_loading_other_groups_changes_which_bands_a_group_looks_at():
    shape = torch.ones(2, M, C)
    one, two = (BandFusion(m, torch.eye(C), prior=shape, channels=M) for m in (MEMBERSHIP, MEMBERSHIP.flip(1)))
    two.load_state_dict(one.state_dict())
    x = torch.randn(1, C, 2, 2)
    torch.testing.assert_close(two.group_tensors(x), one.group_tensors(x))


def test_channels_share_the_bands_of_a_group_evenly_at_the_start():
    membership = torch.tensor([[True] * 8 + [False] * 3, [False] * 8 + [True] * 3])
    prior = torch.tensor([1.0] * 8 + [1.0, 6.0, 1.0])
    for seed in range(5):
        torch.manual_seed(seed)
        response = BandFusion(membership, torch.eye(11), prior=prior, channels=32).response
        assert response[0].argmax(1).bincount(minlength=11).tolist() == [4] * 8 + [0] * 3
        assert response[1].argmax(1).bincount(minlength=11).tolist() == [0] * 8 + [4, 24, 4]
    assert not torch.equal(response[0].argmax(1), response[0].argmax(1).sort().values)  # in random order
