import numpy as np
import pytest
import torch

from hsfusion.data.datamodule import PatchDataModule, prepare
from hsfusion.data.sampler import StepSampler
from hsfusion.data.splits import TEST, TRAIN, VAL, Split, blocks
from hsfusion.data.statistics import band_statistics
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import InputError
from hsfusion.scenes import ArrayScene, LabelledScene, Legend
from hsfusion.spectra import Bands


@pytest.fixture(scope="module")
def split():
    return blocks(synthetic_scene(seed=0), radius=3, seed=0)


def test_statistics_are_of_training_pixels_only(split):
    cube = split.labelled.scene.read((0, 0, 64, 64)).copy()
    reference = prepare(split)
    for role in (TEST, VAL):
        cube[:, split.roles == role] = 1e6
    changed = LabelledScene(
        ArrayScene(cube, bands=split.labelled.scene.bands, name="changed"), split.labelled.labels, split.labelled.legend
    )
    again = prepare(Split(split.kind, changed, split.roles, split.radius))
    assert (again.mean == reference.mean).all()
    assert (again.std == reference.std).all()


def test_statistics_leave_out_nan_and_survive_constant_and_empty_bands():
    spectra = np.array([[1.0, 5.0, np.nan, 2.0], [3.0, 5.0, np.nan, np.nan]])
    mean, std = band_statistics(spectra)
    assert mean.tolist() == [2.0, 5.0, 0.0, 2.0]
    assert std.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_training_pixels_are_standardised(split):
    cube = prepare(split)
    inner = cube.values[3:-3, 3:-3].numpy()[split.roles == TRAIN]
    np.testing.assert_allclose(inner.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(inner.std(0), 1, atol=1e-5)


def flat_scene(cube):
    bands = Bands(np.arange(cube.shape[0]) * 10 + 500.0, None, np.array([True, True, False]))
    labels = np.ones(cube.shape[1:], np.int64)
    labels[::2] = 2
    labelled = LabelledScene(ArrayScene(cube, bands=bands, name="s"), labels, Legend.of(labels))
    roles = np.full(labels.shape, TRAIN, np.uint8)
    return Split("fixed", labelled, roles, 1)


def test_pixel_without_data_is_not_trained_on_and_bad_bands_do_not_matter():
    cube = np.random.default_rng(0).normal(size=(3, 5, 5))
    cube[0, 2, 2] = np.nan
    cube[2] = np.nan  # a bad band
    split = flat_scene(cube)
    prepared = prepare(split)
    assert torch.isfinite(prepared.values).all()
    assert np.flatnonzero(prepared.classes.numpy() < 0).tolist() == [12]
    data = PatchDataModule(prepared, split, seed=0, batch_size=24)
    assert 12 not in data.train_dataloader().sampler.pixels.tolist()


def test_receptive_field_larger_than_the_scene_is_refused():
    split = flat_scene(np.zeros((3, 5, 5)))
    with pytest.raises(InputError, match=r"receptive_field \(patch\) is 7 pixels, expected at most the scene's 5"):
        prepare(Split("fixed", split.labelled, split.roles, 3))


def test_patch_holds_the_pixels_around_its_centre_reflected_at_the_border(split):
    cube = prepare(split)
    data = PatchDataModule(cube, split, seed=0)
    pixels = torch.tensor([0, 63, 64 * 30 + 17])
    patches = data.patches(pixels, step=None)
    assert patches.shape == (3, 211, 7, 7)
    for i, (row, col) in enumerate([(0, 0), (0, 63), (30, 17)]):
        expected = cube.values[row : row + 7, col : col + 7].permute(2, 0, 1)
        assert torch.equal(patches[i], expected)
    assert torch.equal(patches[0][:, :3], patches[0][:, 4:].flip(1))


def test_turned_patches_are_the_eight_symmetries(split):
    data = PatchDataModule(prepare(split), split, seed=0, noise=0.0)
    pixel = torch.full((64,), 64 * 30 + 17)
    straight = data.patches(pixel[:1], step=None)[0]
    turned = data.patches(pixel, step=3)
    symmetries = [torch.rot90(x, k, (1, 2)) for x in (straight, straight.mT) for k in range(4)]
    seen = [next(i for i, s in enumerate(symmetries) if torch.equal(s, patch)) for patch in turned]
    assert set(seen) == set(range(8))


def test_augmentation_is_a_function_of_seed_and_step(split):
    cube = prepare(split)
    pixels = torch.arange(64)
    first = PatchDataModule(cube, split, seed=1).patches(pixels, step=5)
    assert torch.equal(first, PatchDataModule(cube, split, seed=1).patches(pixels, step=5))
    assert not torch.equal(first, PatchDataModule(cube, split, seed=1).patches(pixels, step=6))
    assert not torch.equal(first, PatchDataModule(cube, split, seed=2).patches(pixels, step=5))


def sampler(**more):
    return StepSampler(torch.arange(100, 130), **({"batch_size": 8, "steps_per_epoch": 5, "seed": 0} | more))


def test_every_pass_over_the_stream_sees_each_pixel_once():
    order = torch.cat([sampler().batch(step) for step in range(15)])  # 120 = 4 passes over 30
    for part in order.split(30):
        assert sorted(part.tolist()) == list(range(100, 130))
    assert order[:30].tolist() != order[30:60].tolist()


def test_order_does_not_depend_on_epoch_length_or_ranks():
    whole = [sampler().batch(step) for step in range(10)]
    second = sampler()
    second.set_epoch(1)
    for (step, pixels), expected in zip(second, whole[5:], strict=True):
        assert torch.equal(pixels, expected), step
    ranks = [sampler(rank=r, world_size=2).__iter__() for r in (0, 1)]
    (_, even), (_, odd) = next(ranks[0]), next(ranks[1])
    assert sorted([*even.tolist(), *odd.tolist()]) == sorted(whole[0].tolist())
