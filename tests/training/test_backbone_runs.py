"""Networks around other backbones than the default: trained, saved, read and folded."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from model_files.hostile_models import Parts, sound_model
from torch import nn

import hsfusion
from hsfusion.cli.commands import register_backbones
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import HsFusionError, InputError
from hsfusion.inference import FoldedNetwork
from hsfusion.inference.folding import check_folding
from hsfusion.nn import BACKBONES, register_backbone
from hsfusion.runs.finetuning import scratch_settings
from hsfusion.runs.prediction import predict_array
from hsfusion.runs.settings import FUSIONS
from hsfusion.training.building import build_network
from hsfusion.training.model_file import load_model, save_model

SCENE = synthetic_scene(seed=0, height=40, width=40)
BANDS = SCENE.scene.bands
SMALL = {"channels": 4, "width": 8, "receptive_field": 5}


class TwoBranches(nn.Module):
    """A user's own backbone: no chain, no 1 x 1 convolution at the start, a normalisation inside a chain."""

    def __init__(self, channels, *, width, receptive_field, slope=0.0):
        super().__init__()
        self.receptive_field, self.out_channels = receptive_field, width + channels
        self.convolution = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, width, receptive_field, bias=False), nn.BatchNorm2d(width)
        )
        self.slope = slope

    def forward(self, x):
        r = self.receptive_field // 2
        inner = x[..., r : x.shape[-2] - r, r : x.shape[-1] - r]
        return nn.functional.leaky_relu(torch.cat([self.convolution(x), inner], 1), self.slope)


class Chain(nn.Sequential):
    """A chain without a 1 x 1 convolution at its start."""

    def __init__(self, channels, *, width, receptive_field):
        super().__init__(nn.Conv2d(channels, width, receptive_field), nn.GELU(), nn.Conv2d(width, width, 1))
        self.receptive_field, self.out_channels = receptive_field, width


class Twice(nn.Sequential):
    """A convolution that is applied twice."""

    def __init__(self, channels, *, width, receptive_field):
        again = nn.Conv2d(width, width, receptive_field // 2 + 1)
        super().__init__(nn.Conv2d(channels, width, 1), again, nn.ReLU(), again)
        self.receptive_field, self.out_channels = receptive_field, width


class Refined(Chain):
    """Looks like a chain, and is none."""

    def forward(self, x):
        return 2 * super().forward(x)


class Repeated(nn.Sequential):
    """Uses one activation, and one normalisation, twice."""

    def __init__(self, channels, *, width, receptive_field):
        activation, norm = nn.ReLU(), nn.BatchNorm2d(width)
        first, second = nn.Conv2d(channels, width, receptive_field), nn.Conv2d(width, width, 1)
        super().__init__(first, norm, activation, second, norm, activation)
        self.receptive_field, self.out_channels = receptive_field, width


class TakenApart(TwoBranches):
    """Calls a convolution of a chain without the normalisation after it."""

    def forward(self, x):
        return super().forward(x) + self.convolution[1](x).mean(1, keepdim=True)


@pytest.fixture(autouse=True)
def names():
    before = dict(BACKBONES)
    yield
    BACKBONES.clear()
    BACKBONES.update(before)


def train(backbone, **more):
    return hsfusion.train(
        SCENE,
        groups=hsfusion.even_groups(4),
        split=hsfusion.blocks(block_pixels=8),
        model={**SMALL, "backbone": backbone},
        epochs=2,
        steps_per_epoch=3,
        threads=1,
        figures=False,
        baselines=(),
        **more,
    )


def build(backbone, fusion="channel", **more):
    torch.manual_seed(0)
    groups = hsfusion.even_groups(3)(BANDS)
    network = build_network(BANDS, groups, num_classes=4, fusion=fusion, **SMALL, backbone=backbone, **more)
    network(torch.randn(8, len(BANDS), 9, 9))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(1, 3).mul_(torch.randn_like(module.weight).sign())
                module.bias.normal_()
        network.mean.uniform_(-100, 100)
        network.std.uniform_(1, 50)
    return network.eval()


@pytest.mark.parametrize("options", [{}, {"slope": 0.25}])
def test_a_run_with_another_backbone_is_saved_loaded_and_predicts_the_dense_map(tmp_path, options):
    register_backbone(name := "two_branches", TwoBranches)
    backbone = partial(TwoBranches, **options) if options else name
    run = train(backbone, folder=tmp_path / "run")
    again = hsfusion.load_run(tmp_path / "run")
    assert again.header.architecture["backbone"] == name
    assert again.header.architecture.get("backbone_options", {}) == options
    assert type(again.network.cnn.features) is BACKBONES[name]
    state = run.network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.network.state_dict().items())
    radius = again.network.receptive_field // 2
    with torch.no_grad():
        pixels = torch.from_numpy(SCENE.scene.read((0, 0, 40, 40)).astype(np.float32))
        dense = np.array(again.legend.codes)[again.network(pixels[None])[0].argmax(0)]
    inner = slice(radius, 40 - radius)
    assert np.array_equal(again.class_map[inner, inner], dense)
    assert np.array_equal(predict_array(again, SCENE)[0], again.class_map)
    model = scratch_settings(run.training.settings, again.header, epochs=1).model
    assert type(build(model.backbone).cnn.features) is BACKBONES[name]


def test_a_backbone_without_a_name_trains_and_is_refused_a_folder_before_it_does(tmp_path):
    message = (
        r"model: backbone is TwoBranches, expected a registered one.*register it first: hsfusion.nn.register_backbone"
    )
    with pytest.raises(InputError, match=message):
        train(TwoBranches, folder=tmp_path / "run", loggers=(pytest.fail,))
    assert not (tmp_path / "run").exists()
    run = train(TwoBranches)
    assert np.array_equal(predict_array(run, SCENE)[0], run.class_map)
    with pytest.raises(InputError, match=message):
        run.save(tmp_path / "late", figures=False)


def test_options_that_no_file_can_hold_are_refused_before_the_training(tmp_path):
    register_backbone("two_branches", TwoBranches)
    with pytest.raises(InputError, match="backbone options"):
        train(partial(TwoBranches, slope=torch.tensor(0.5)), folder=tmp_path / "run")


def test_the_default_is_left_out_of_the_file_and_a_partial_of_it_too(tmp_path):
    for backbone in (BACKBONES["small_cnn"], partial(BACKBONES["small_cnn"])):
        run = train(backbone)
        assert not {"backbone", "backbone_options"} & set(run.header.architecture)


@pytest.mark.parametrize("name", ["my_net", "os.system"])
def test_a_file_that_names_an_unknown_backbone_is_refused_in_one_line(tmp_path, name):
    path = tmp_path / "model.safetensors"
    parts = Parts(sound_model(path))
    parts.header["architecture"]["backbone"] = name
    parts.sign()
    path.write_bytes(parts.packed())
    expected = (
        rf"^{path}: backbone is {name}, expected one of small_cnn. Fix: register it first: "
        rf'hsfusion.nn.register_backbone\("{name}", MyNet\), or .* backbones=\[my_module.MyNet\].$'
    )
    with pytest.raises(InputError, match=expected):
        load_model(path)


@pytest.mark.parametrize("option", [{"depth": 5}, {"width": 4}])
def test_a_file_cannot_give_a_packaged_backbone_options_that_it_has_not(tmp_path, option):
    path = tmp_path / "model.safetensors"
    parts = Parts(sound_model(path))
    parts.header["architecture"]["backbone_options"] = option
    parts.sign()
    path.write_bytes(parts.packed())
    with pytest.raises(InputError, match="depth" if "depth" in option else "width"):
        load_model(path)


def test_names_and_receptive_fields_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="backbone is my_net, expected one of small_cnn"):
        train("my_net")
    with pytest.raises(HsFusionError, match="receptive_field of the backbone is 9, expected 5"):
        train(lambda channels, width, receptive_field: TwoBranches(channels, width=width, receptive_field=9))
    with pytest.raises(HsFusionError, match="unexpected keyword argument"):
        train(lambda channels: None)


def test_a_backbone_that_is_another_once_folded_is_refused_before_the_training():
    with pytest.raises(HsFusionError, match=r"logits of backbone TakenApart change .* called as a whole"):
        train(TakenApart, loggers=(pytest.fail,))


def test_checking_how_a_network_folds_leaves_it_and_the_random_numbers_alone():
    network = build("small_cnn").train()
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in network.state_dict().items()}
    check_folding(network)
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_command_line_imports_only_what_the_user_vouches_for():
    assert "test_backbone_runs.Chain" not in BACKBONES
    register_backbones(["torch.nn.Sequential", "json", "hsfusion.nn.SmallCNN"])
    assert list(BACKBONES) == ["small_cnn", "torch.nn.Sequential"]
    with pytest.raises(InputError, match=r"backbones is no_such_module.Net, expected dotted names"):
        register_backbones(["no_such_module.Net"])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("backbone", ["small_cnn", TwoBranches, Chain, Refined, Repeated])
@torch.no_grad()
def test_folded_network_of_any_backbone_gives_the_numbers_of_the_whole_one(backbone, fusion):
    network = build(backbone, fusion)
    folded = FoldedNetwork(network)
    x = network.mean[:, None, None] + network.std[:, None, None] * torch.randn(2, len(BANDS), 12, 11)
    taken = x[:, folded.layers]
    expected = network(x)
    torch.testing.assert_close(folded(taken), expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.convolutions.modules())
    folded.convolutions.bfloat16()
    torch.testing.assert_close(folded(taken), expected, atol=0.05 * float(expected.abs().max()), rtol=0.05)


def test_folded_default_is_a_chain_of_convolutions_and_relus_in_place():
    convolutions = FoldedNetwork(build("small_cnn")).convolutions
    assert [type(part) for part in convolutions] == [nn.ReLU, nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU]
    assert all(part.inplace for part in convolutions if isinstance(part, nn.ReLU))


@pytest.mark.parametrize("backbone", [Twice, TwoBranches])
def test_a_saved_network_of_another_backbone_is_read_back(tmp_path, backbone):
    register_backbone("two_branches", backbone)
    sound_model(tmp_path / "model.safetensors", backbone="two_branches")
    network, header = load_model(tmp_path / "model.safetensors")
    save_model(tmp_path / "again.safetensors", network, header=header)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert replace(hsfusion.ModelSettings(), backbone="two_branches").backbone == "two_branches"
