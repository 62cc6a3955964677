import numpy as np
import pytest
import torch

from hsfusion.data.datamodule import PatchDataModule, prepare
from hsfusion.data.splits import blocks
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.inference import instance_weight_maps, predict_scene
from hsfusion.scenes import ArrayScene
from hsfusion.spectra import BandGroup, even_groups
from hsfusion.training.building import FUSIONS, LearnedWeights, build_network


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


@pytest.mark.parametrize("tile", [5, 16, 1000])
def test_result_does_not_depend_on_the_tile(split, tile):
    net = network(split.labelled.scene.bands)
    classes, confidence = predict_scene(net, split.labelled.scene, tile=tile)
    expected, expected_confidence = predict_scene(net, split.labelled.scene, tile=23)
    assert (classes == expected).all()
    np.testing.assert_allclose(confidence, expected_confidence, atol=1e-5)


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
    maps = instance_weight_maps(net, scene, tile=16)
    patches = PatchDataModule(cube, split, seed=0).patches(torch.arange(40 * 37), step=None)
    weight = LearnedWeights(net, patches[:, :, 2:5, 2:5]).weight  # what a pixel's weights are predicted from
    inside = net.fusion.membership.numpy()
    np.testing.assert_allclose(maps.mean((1, 2)), [weight[row].sum() for row in inside], atol=1e-5)
    assert maps.std((1, 2)).max() > 0.01
    np.testing.assert_allclose(maps, instance_weight_maps(net, scene, tile=64), atol=1e-6)
