import pytest
import torch
from torch import nn

from hsfusion.nn import BACKBONES, PixelClassifier, SmallCNN, check_backbone, register_backbone

M = 3
FIELDS = [1, 3, 5, 9, 15]


class Changed(nn.Module):
    """A backbone that is right but for what a test changes."""

    receptive_field, out_channels = 3, 4

    def __init__(self, channels=M, *, groups=1, padding=0, stride=1, more=None):
        super().__init__()
        self.convolution = nn.Conv2d(
            channels, 4 if groups == 1 else M, 3, groups=groups, padding=padding, stride=stride
        )
        self.more = more or nn.Identity()

    def forward(self, x):
        return self.more(self.convolution(x))


class WholeTile(nn.Module):
    """Squeeze and excitation: every pixel sees the mean of the tile."""

    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True).sigmoid()


@pytest.fixture
def registered():
    before = dict(BACKBONES)
    yield
    BACKBONES.clear()
    BACKBONES.update(before)


def warmed(receptive_field):
    torch.manual_seed(0)
    backbone = SmallCNN(M, width=8, receptive_field=receptive_field)
    edge = receptive_field + 2
    backbone(torch.randn(8, M, edge, edge))  # moves the running statistics
    return backbone.eval()


@pytest.mark.parametrize("receptive_field", FIELDS)
@torch.no_grad()
def test_a_pixel_of_a_tile_is_that_of_its_patch(receptive_field):
    backbone = warmed(receptive_field)
    x = torch.randn(2, M, receptive_field + 3, receptive_field + 2)
    tile = backbone(x)
    assert tile.shape == (2, backbone.out_channels, 4, 3)
    assert backbone.receptive_field == receptive_field
    assert tile.std() > 0.001
    patches = x.unfold(2, receptive_field, 1).unfold(3, receptive_field, 1)
    for row in range(4):
        for column in range(3):
            single = backbone(patches[:, :, row, column])[:, :, 0, 0]
            torch.testing.assert_close(single, tile[:, :, row, column], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("receptive_field", FIELDS)
def test_a_pixel_depends_on_its_whole_receptive_field_and_on_nothing_else(receptive_field):
    torch.manual_seed(0)
    backbone = SmallCNN(M, width=8, receptive_field=receptive_field).double().eval()
    for module in list(backbone.modules()):  # smooth, so that no path is blocked
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Softplus())
    edge = receptive_field + 4
    x = torch.randn(1, M, edge, edge, dtype=torch.double, requires_grad=True)
    backbone(x)[0, :, 2, 2].sum().backward()
    support = (x.grad[0] != 0).any(0)
    expected = torch.zeros_like(support)
    expected[2:-2, 2:-2] = True
    assert torch.equal(support, expected)


def test_state_of_the_default_has_the_names_of_model_files():
    names = PixelClassifier(SmallCNN(M, width=8, receptive_field=3), M, 2).state_dict().keys()
    parts = {name.rpartition(".")[0] for name in names}
    assert parts == {"norm", "features.0", "features.1", "features.3", "features.4", "classifier"}


@pytest.mark.parametrize("receptive_field", [0, 4])
def test_receptive_fields_that_are_not_odd_are_refused(receptive_field):
    with pytest.raises(ValueError, match="expected an odd number"):
        SmallCNN(M, receptive_field=receptive_field)


def test_input_share_of_any_backbone_is_gain_times_kernels_of_its_first_convolution():
    classifier = PixelClassifier(Changed(), M, 2)
    with torch.no_grad():
        classifier.norm.weight.copy_(torch.tensor([1.0, -2.0, 0.0]))
        classifier.features.convolution.weight.fill_(1)
    torch.testing.assert_close(classifier.input_share, torch.tensor([1 / 3, 2 / 3, 0]))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (Changed(2), "expected one from all 3"),
        (Changed(groups=M), "expected one from all 3"),
        (nn.Flatten(), "receptive_field of backbone Flatten is None"),
    ],
)
def test_a_classifier_refuses_backbones_of_which_it_cannot_tell_what_a_channel_counts_for(backbone, message):
    with pytest.raises(ValueError, match=message):
        PixelClassifier(backbone, M, 2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"padding": 1}, r"\(1, 4, 4, 5\) of backbone .* expected \(1, 4, 2, 3\)"),
        ({"stride": 2}, r"\(1, 4, 1, 2\) of backbone .* expected \(1, 4, 2, 3\)"),
        ({"more": WholeTile()}, "is not that of its receptive_field of 3 pixels"),
        ({"more": nn.GroupNorm(2, 4)}, "is not that of its receptive_field of 3 pixels"),
    ],
)
def test_a_backbone_that_sees_other_pixels_than_it_states_is_refused(more, message):
    check_backbone(Changed(), channels=M)
    with pytest.raises(ValueError, match=message):
        check_backbone(Changed(**more), channels=M)


def test_checking_a_backbone_leaves_it_and_the_random_numbers_alone():
    backbone = SmallCNN(M, width=8, receptive_field=5)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_backbone(backbone, channels=M)
    assert torch.equal(torch.rand(2), expected)
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_names_of_backbones(registered):
    register_backbone("my.module.Changed", Changed)
    assert BACKBONES["my.module.Changed"] is Changed
    with pytest.raises(ValueError, match="name of a backbone is 'small_cnn'"):
        register_backbone("small_cnn", Changed)
