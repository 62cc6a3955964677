import numpy as np
import pytest
import torch

from hsfusion.data.patches import PatchDataModule, prepare
from hsfusion.data.splits import blocks
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.inference import FoldedNetwork, instance_weight_maps, predict_scene
from hsfusion.inference.classification import classify, rounded, tiles_of
from hsfusion.runs.settings import FUSIONS
from hsfusion.scenes import ArrayScene
from hsfusion.spectra import BandGroup, even_groups
from hsfusion.training.building import WeightReadout, build_network


@pytest.fixture(scope="module")
def split():
    return blocks(synthetic_scene(seed=0, height=40, width=37), radius=3, seed=0, block_pixels=8)


def network(bands, fusion="channel"):
    torch.manual_seed(0)
    net = build_network(bands, even_groups(bands, number=4), num_classes=4, fusion=fusion, channels=6, width=8)
    net(torch.randn(8, len(bands), 9, 9))
    return net.eval()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_pixel_gets_what_its_training_patch_gives(split, fusion):
    scene, cube = split.labelled.scene, prepare(split, np.ones(211, bool))
    net = network(scene.bands, fusion)
    net.mean.copy_(torch.from_numpy(cube.mean))
    net.std.copy_(torch.from_numpy(cube.std))
    classes, confidence = predict_scene(net, scene)
    patches = PatchDataModule(cube, split, seed=0).patches(torch.arange(40 * 37), step=None)
    with torch.no_grad():
        probability, index = net.classify(patches).flatten(1).softmax(1).max(1)
    np.testing.assert_allclose(confidence.ravel(), probability.numpy(), atol=1e-5)
    assert (classes.ravel() == index.numpy()).mean() > 0.999


def test_bands_in_no_group_may_be_empty(split):
    scene = split.labelled.scene
    groups = [BandGroup("red", 600, 700)]
    net = build_network(scene.bands, groups, num_classes=4, channels=6, width=8)
    cube = scene.read((0, 0, 40, 37))
    expected, _ = predict_scene(net, scene)
    cube[scene.bands.wavelength_nm > 800] = np.nan
    classes, _ = predict_scene(net, ArrayScene(cube, bands=scene.bands, name="holes"))
    assert (classes == expected).all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_folded_network_gives_the_numbers_of_the_whole_one(split, fusion):
    net = network(split.labelled.scene.bands, fusion)
    with torch.no_grad():
        if net.fusion.gates is not None:
            net.fusion.gates.position.copy_(torch.linspace(0, 1, 211))
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(-2, 2)
                module.bias.normal_()
        net.mean.copy_(torch.linspace(-100, 3000, 211))
        net.std.copy_(torch.linspace(1, 500, 211))
        x = net.mean[:, None, None] + net.std[:, None, None] * torch.randn(2, 211, 12, 11)
        folded = FoldedNetwork(net)
        assert folded.layers.tolist() == net.used_bands.nonzero()[:, 0].tolist()
        torch.testing.assert_close(folded(x[:, folded.layers]), net(x), atol=1e-4, rtol=1e-4)


def test_numbers_do_not_depend_on_which_tiles_are_asked_for(split):
    folded, scene = FoldedNetwork(network(split.labelled.scene.bands)), split.labelled.scene
    tiles = tiles_of((40, 37), edge=16)
    one_by_one = {tile.window: tile for tile in classify(folded, scene, tiles, probabilities=True)}
    for tile in classify(folded, scene, tiles[::-2], probabilities=True):
        for part, expected in zip(tile[1:], one_by_one[tile.window][1:], strict=True):
            assert part.tobytes() == expected.tobytes()


@pytest.mark.parametrize("edge", [5, 16, 40])
def test_classes_do_not_depend_on_the_size_of_cells(split, edge):
    net, scene = network(split.labelled.scene.bands), split.labelled.scene
    expected, share = predict_scene(net, scene)
    for (row, col, height, width), classes, confidence, _ in classify(
        FoldedNetwork(net), scene, tiles_of((40, 37), edge=edge)
    ):
        assert (classes == expected[row : row + height, col : col + width]).all()
        np.testing.assert_allclose(confidence, share[row : row + height, col : col + width], atol=1e-5)


def test_bf16_is_of_the_convolutions_and_hardly_changes_the_map(split):
    folded, scene = FoldedNetwork(network(split.labelled.scene.bands)), split.labelled.scene
    half = rounded(folded)
    assert next(half.convolutions.parameters()).dtype == torch.bfloat16
    assert next(folded.convolutions.parameters()).dtype == torch.float32
    whole = tiles_of(scene.geobox.shape)
    (one,), (other,) = classify(folded, scene, whole), classify(half, scene, whole)
    assert (one.classes != other.classes).mean() < 0.05


def test_pixel_without_data_gets_no_class(split):
    scene = split.labelled.scene
    cube = scene.read((0, 0, 40, 37))
    cube[3, 10, 20] = np.inf
    classes, confidence = predict_scene(network(scene.bands), ArrayScene(cube, bands=scene.bands, name="hole"))
    assert np.argwhere(classes < 0).tolist() == [[10, 20]]
    assert np.argwhere(np.isnan(confidence)).tolist() == [[10, 20]]


@pytest.mark.parametrize("fusion", ["instance", "channel_instance"])
def test_maps_of_instance_weights_have_the_group_totals_of_the_same_pixels_as_mean(split, fusion):
    scene, cube = split.labelled.scene, prepare(split, np.ones(211, bool))
    net = network(scene.bands, fusion)
    torch.nn.init.normal_(net.fusion.group_sum.predictor)
    with torch.no_grad():
        net.fusion.gates.position.copy_(torch.linspace(0.1, 1, 211))
    net.mean.copy_(torch.from_numpy(cube.mean))
    net.std.copy_(torch.from_numpy(cube.std))
    maps = instance_weight_maps(net, scene)
    patches = PatchDataModule(cube, split, seed=0).patches(torch.arange(40 * 37), step=None)
    weight = WeightReadout(net, patches[:, :, 2:5, 2:5]).weight  # what a pixel's weights are predicted from
    inside = net.fusion.membership.numpy()
    np.testing.assert_allclose(maps.mean((1, 2)), [weight[row].sum() for row in inside], atol=1e-5)
    assert maps.std((1, 2)).max() > 0.01
