import itertools

import numpy as np
import pytest
import torch

from hsfusion.data.synthetic import synthetic_scene
from hsfusion.inference import FoldedNetwork
from hsfusion.inference.classification import RADIUS, bilateral, classify, classify_smoothed, guide_matrix, tiles_of
from hsfusion.scenes import ArrayScene
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import even_groups
from hsfusion.training.building import build_network

SHAPE = (40, 37)


@pytest.fixture(scope="module")
def made():
    """A network, and a scene with a pixel without data."""
    scene = synthetic_scene(seed=0, height=SHAPE[0], width=SHAPE[1], num_classes=4).scene
    cube = read_all(scene).copy()
    torch.manual_seed(0)
    network = build_network(scene.bands, even_groups(scene.bands, number=4), num_classes=4, channels=4, width=8).eval()
    network.mean.copy_(torch.from_numpy(cube.mean((1, 2))))
    network.std.copy_(torch.from_numpy(cube.std((1, 2))))
    with torch.no_grad():
        network.cnn.classifier.weight.mul_(30)  # so that pixels differ
    cube[3, 20, 16] = np.nan
    return FoldedNetwork(network), ArrayScene(cube, bands=scene.bands, name="s")


def test_filter_is_its_definition_pixel_by_pixel():
    rng = np.random.default_rng(0)
    shares, guide = rng.random((3, 9, 8)), rng.normal(size=(2, 9, 8))
    shares[:, 4, 4] = np.nan
    expected = np.full(shares.shape, np.nan)
    for row, col in itertools.product(range(9), range(8)):
        if (row, col) == (4, 4):
            continue
        total, weights = np.zeros(3), 0.0
        for i, j in itertools.product(range(9), range(8)):
            if max(abs(i - row), abs(j - col)) <= RADIUS and (i, j) != (4, 4):
                difference = ((guide[:, i, j] - guide[:, row, col]) ** 2).sum()
                weight = np.exp(-((i - row) ** 2 + (j - col) ** 2) / RADIUS**2 / 2 - difference / 2)
                total, weights = total + weight * shares[:, i, j], weights + weight
        expected[:, row, col] = total / weights
    found = bilateral(torch.from_numpy(shares), torch.from_numpy(guide)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_pixels_that_look_different_do_not_mix():
    shares = torch.zeros(2, 12, 12)
    shares[0, :, :6], shares[1, :, 6:] = 1, 1
    guide = 100 * shares[:1]
    torch.testing.assert_close(bilateral(shares, guide), shares)
    assert bilateral(shares, 0 * guide)[0, 6, 5] < 0.7


def test_lone_pixel_of_another_class_follows_those_that_look_like_it():
    shares = torch.zeros(2, 12, 12)
    shares[0] = 1
    shares[:, 6, 6] = torch.tensor([0.1, 0.9])
    assert bilateral(shares, torch.zeros(1, 12, 12))[0, 6, 6] > 0.9


@pytest.mark.parametrize("edge", [5, 16, 40])
def test_map_does_not_depend_on_the_tiles(made, edge):
    network, scene = made
    (whole,) = classify(network, scene, tiles_of(SHAPE), probabilities=True)
    guide = np.tensordot(guide_matrix(scene, network.layers.numpy()), read_all(scene), 1)
    expected = bilateral(torch.from_numpy(whole.probabilities), torch.from_numpy(guide)).numpy()
    assert np.nanmax(abs(expected - whole.probabilities)) > 0.01
    tiles = tiles_of(SHAPE, edge=edge)
    found = list(classify_smoothed(network, scene, tiles, probabilities=True))
    assert [tile.window for tile in found] == tiles
    for (row, col, height, width), classes, confidence, shares in found:
        there = slice(row, row + height), slice(col, col + width)
        np.testing.assert_allclose(shares, expected[:, *there], atol=1e-5)
        missing = np.isnan(expected[0][there])
        assert (classes == np.where(missing, -1, np.nan_to_num(shares).argmax(0))).all()
        np.testing.assert_array_equal(confidence, shares.max(0))
    assert np.argwhere(np.isnan(expected[0])).tolist() == [[20, 16]]


def test_components_are_those_of_standardised_bands(made):
    network, scene = made
    layers, cube = network.layers.numpy(), read_all(scene)
    guide = np.tensordot(guide_matrix(scene, layers), cube, 1).reshape(3, -1)
    first = guide[:, np.isfinite(guide).all(0)].std(1)
    assert first[0] == pytest.approx(2, rel=0.05)  # in half standard deviations
    assert first[0] > first[1] > first[2] > 0
    scaled = ArrayScene(
        cube * np.logspace(-2, 2, len(cube), dtype=np.float32)[:, None, None], bands=scene.bands, name="s"
    )
    other = np.tensordot(guide_matrix(scaled, layers), read_all(scaled), 1).reshape(3, -1)
    pixels = np.flatnonzero(np.isfinite(guide[0]))[:50]
    distances = [abs(of[:, pixels, None] - of[:, None, pixels]).sum(0) for of in (guide, other)]
    np.testing.assert_allclose(*distances, atol=1e-3)


def test_without_data_to_learn_components_from_distance_alone_counts(made):
    scene = made[1]
    empty = ArrayScene(np.full((len(scene.bands), 10, 10), np.nan, np.float32), bands=scene.bands, name="empty")
    assert not guide_matrix(empty, np.arange(3)).any()
