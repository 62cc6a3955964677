from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hsfusion.data.noise import noise_whitening
from hsfusion.data.patches import (
    PatchDataModule,
    SeveralDataModule,
    StepSampler,
    band_statistics,
    check_patch_fits,
    prepare,
    valid_pixels,
)
from hsfusion.data.splits import TEST, TRAIN, VAL, Split, blocks, dilate, random
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import InputError
from hsfusion.runs.experiment import initialise
from hsfusion.runs.settings import TrainSettings, even_groups
from hsfusion.scenes import ArrayScene, LabelledScene, Legend
from hsfusion.spectra import Bands

ALL = np.ones(211, bool)


@pytest.fixture(scope="module")
def split():
    return blocks(synthetic_scene(seed=0), radius=3, seed=0)


def test_statistics_are_of_training_pixels_only(split):
    cube = split.labelled.scene.read((0, 0, 64, 64)).copy()
    reference = prepare(split, ALL)
    for role in (TEST, VAL):
        cube[:, split.roles == role] = 1e6
    changed = LabelledScene(
        ArrayScene(cube, bands=split.labelled.scene.bands, name="changed"), split.labelled.labels, split.labelled.legend
    )
    again = prepare(Split(split.kind, changed, split.roles, split.radius), ALL)
    assert (again.mean == reference.mean).all()
    assert (again.std == reference.std).all()
    assert (again.covariance == reference.covariance).all()
    assert (noise_whitening(again, split) == noise_whitening(reference, split)).all()


@pytest.fixture(scope="module")
def noisy():
    """Blocks of classes 1 to 3 that differ in all of five bands, under noise that is alike in the first two."""
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(1, 4, (4, 4)), np.ones((16, 16), int))
    cube = 5 * rng.standard_normal((5, 4))[:, labels] + rng.standard_normal((5, *labels.shape))
    cube[1] += 3 * cube[0]
    cube[4] = 7  # a band that says nothing
    scene = ArrayScene(cube, bands=Bands.from_wavelengths(np.arange(5) * 100 + 500.0), name="noisy")
    return random(LabelledScene(scene, labels, Legend.of(labels)), radius=1, seed=0, fraction=0.5)


def test_whitening_makes_the_noise_of_training_pixels_white_and_keeps_their_variance(noisy):
    cube = prepare(noisy, np.ones(5, bool))
    whitening, spectra = noise_whitening(cube, noisy), cube.spectra(noisy.pixels(TRAIN))
    within = spectra[cube.classes.numpy()[noisy.pixels(TRAIN)] == 0]
    assert np.corrcoef(within[:, :2].T)[0, 1] > 0.9
    assert np.abs(np.corrcoef((within @ whitening.T)[:, :4].T) - np.eye(4)).max() < 0.25
    np.testing.assert_allclose((spectra @ whitening.T).std(0), [1, 1, 1, 1, 0], atol=1e-5)
    assert whitening[4].tolist() == [0, 0, 0, 0, 1]


def test_noise_is_white_for_a_network_of_whitened_bands(noisy):
    cube = prepare(noisy, np.ones(5, bool))
    data = PatchDataModule(cube, noisy, seed=0, noise=0.05, flips="none")
    network = torch.nn.Module()
    network.register_buffer("whitening", torch.eye(5))
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(network=network), global_rank=0, world_size=1)
    data.setup("fit")
    pixels = torch.from_numpy(noisy.pixels(TRAIN))
    added = (data.patches(pixels, step=0) - data.patches(pixels, step=None))[:, :, 1, 1] @ network.whitening.T
    np.testing.assert_allclose(torch.cov(added.T), 0.05**2 * np.eye(5), atol=4e-4)


def test_too_few_neighbours_whiten_nothing(noisy, caplog):
    few = replace(noisy, roles=np.where(dilate(np.arange(4096).reshape(64, 64) % 1500 == 0, 0), noisy.roles, 0))
    settings = TrainSettings(model={"whitening": "noise", "receptive_field": 3}, groups=even_groups(1))
    assert initialise(few, settings).network.whitening.equal(torch.eye(5))
    assert "training patches hold fewer than 50 pairs of neighbouring pixels, or these do not differ, or" in caplog.text


@pytest.mark.parametrize("bands", [1, 5])
def test_one_band_or_neighbours_that_do_not_differ_whiten_nothing(noisy, bands):
    labelled = noisy.labelled
    cube = labelled.scene.read() if bands == 1 else np.arange(20.0).reshape(5, 4)[:, labelled.labels]
    scene = ArrayScene(cube[:bands], bands=Bands.from_wavelengths(np.arange(bands) * 100 + 500.0), name="few")
    gap = np.arange(64) % 16 == 0  # between the fields
    labels = np.where(gap | gap[:, None], 0, labelled.labels)
    split = random(replace(labelled, scene=scene, labels=labels), radius=0, seed=0, fraction=0.5)
    assert (noise_whitening(prepare(split, np.ones(bands, bool)), split) == np.eye(bands)).all()


def test_statistics_leave_out_nan_and_survive_constant_and_empty_bands():
    spectra = np.array([[1.0, 5.0, np.nan, 2.0], [3.0, 5.0, np.nan, np.nan]])
    mean, std = band_statistics(spectra)
    assert mean.tolist() == [2.0, 5.0, 0.0, 2.0]
    assert std.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_training_pixels_are_standardised(split):
    cube = prepare(split, ALL)
    inner = cube.spectra(split.pixels(TRAIN))
    np.testing.assert_allclose(inner.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(inner.std(0), 1, atol=1e-5)


def scene_with_holes():
    cube = np.random.default_rng(0).normal(size=(3, 6, 6))
    cube[0, 2, 2] = np.nan
    cube[1, 2, 3] = np.inf
    cube[2] = np.nan  # a band that is not used
    labels = np.ones((6, 6), np.int64)
    labels[::2] = 2
    scene = ArrayScene(cube, bands=Bands.from_wavelengths([500.0, 600.0, 700.0]), name="holes")
    return LabelledScene(scene, labels, Legend.of(labels))


USED = np.array([True, True, False])


def test_pixels_without_data_have_no_role_and_unused_bands_do_not_matter():
    labelled = scene_with_holes()
    valid = valid_pixels(labelled.scene, USED)
    assert np.argwhere(~valid).tolist() == [[2, 2], [2, 3]]
    split = random(labelled, radius=1, seed=0, fraction=0.5, valid=valid)
    assert split.roles[~valid].tolist() == [0, 0]
    assert (split.roles[valid] > 0).all()
    prepared = prepare(split, USED)
    assert torch.isfinite(prepared.values).all()
    assert (prepared.values[..., 2] == 0).all()
    assert np.flatnonzero(prepared.classes.numpy() < 0).tolist() == [14, 15]


def test_band_without_data_is_its_mean_at_that_pixel_and_nothing_else(split):
    whole, (row, col) = split.labelled.scene.read(), np.argwhere(split.roles == TEST)[0]
    cube = whole.copy()
    cube[7, row, col] = np.nan
    scene = ArrayScene(cube, bands=split.labelled.scene.bands, name="hole")
    reference, holed = (
        prepare(replace(split, labelled=replace(split.labelled, scene=of)), ALL) for of in (split.labelled.scene, scene)
    )
    assert all(value.equal(holed.statistics[name]) for name, value in reference.statistics.items())
    changed = (reference.values != holed.values).nonzero().tolist()
    assert changed == [[holed.index[row + 3, col + 3], 7]]
    assert holed.values[tuple(changed[0])] == 0  # standardised: the mean


class Watched(ArrayScene):
    """A scene that keeps the windows that were read."""

    def __init__(self, cube, **more):
        super().__init__(cube, **more)
        self.windows = []

    def read(self, window, layers=None):
        self.windows.append(window)
        return super().read(window, layers)


def fields_of_a_large_scene():
    """Two fields in corners, and one across four of the squares that are read: (scene with labels, split)."""
    rng = np.random.default_rng(3)
    cube = (1000 * rng.random((5, 600, 550))).astype(np.float32)
    cube[:, 3, 534] = np.nan
    cube[2, 252, 260] = np.inf
    labels = np.zeros((600, 550), np.int64)
    for row, col in ((0, 530), (590, 530), (250, 250)):
        labels[row : row + 10, col : col + 20] = np.arange(20) // 10 + 1
    scene = Watched(cube, bands=Bands.from_wavelengths([500.0, 600.0, 700.0, 800.0, 900.0]), name="fields")
    labelled = LabelledScene(scene, labels, Legend.of(labels))
    valid = valid_pixels(scene, USED_OF_FIVE, where=dilate(labels > 0, 3))
    return cube, random(labelled, radius=3, seed=0, fraction=0.5, valid=valid)


USED_OF_FIVE = np.array([True, True, True, False, True])


def test_patches_and_statistics_are_those_of_the_whole_standardised_cube():
    cube, split = fields_of_a_large_scene()
    prepared = prepare(split, USED_OF_FIVE)
    pixels = cube.transpose(1, 2, 0)
    mean, std = band_statistics(pixels[split.roles == TRAIN])
    np.testing.assert_array_equal(prepared.mean, np.where(USED_OF_FIVE, mean, 0))
    np.testing.assert_array_equal(prepared.std, np.where(USED_OF_FIVE, std, 1))
    known = USED_OF_FIVE & np.isfinite(pixels)
    whole = np.where(known, (pixels - prepared.mean) / prepared.std, 0).astype(np.float32)
    whole = np.pad(whole, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    labelled = np.flatnonzero(split.roles)
    patches = PatchDataModule(prepared, split, seed=0).patches(torch.from_numpy(labelled), step=None)
    rows, cols = np.divmod(labelled, 550)
    windows = np.lib.stride_tricks.sliding_window_view(whole, (7, 7), axis=(0, 1))
    np.testing.assert_array_equal(patches.numpy(), windows[rows, cols])
    np.testing.assert_array_equal(prepared.spectra(labelled), whole[3:-3, 3:-3].reshape(-1, 5)[labelled])


def test_of_a_large_scene_only_what_lies_around_labelled_pixels_is_read_and_kept():
    _, split = fields_of_a_large_scene()
    prepared = prepare(split, USED_OF_FIVE)
    around = dilate(split.labelled.labels > 0, 3).sum()
    assert around - 100 < len(prepared.values) <= around == 13 * 23 * 2 + 16 * 26
    assert sum(height * width for _, _, height, width in split.labelled.scene.windows) == 2 * around


def test_a_pixel_that_was_not_read_has_no_patch():
    _, split = fields_of_a_large_scene()
    with pytest.raises(IndexError):
        PatchDataModule(prepare(split, USED_OF_FIVE), split, seed=0).patches(torch.tensor([300 * 550]), step=None)
    training_alone = PatchDataModule(prepare(split, USED_OF_FIVE, roles=(TRAIN,)), split, seed=0)
    assert training_alone.patches(torch.from_numpy(split.pixels(TRAIN)), step=None).shape == (300, 5, 7, 7)


def test_pixels_that_were_not_looked_at_are_taken_for_valid():
    where = np.zeros((6, 6), bool)
    where[2, 2] = where[4, 4] = True
    valid = valid_pixels(scene_with_holes().scene, USED, where=where)
    assert np.argwhere(~valid).tolist() == [[2, 2]]


def test_scene_without_a_valid_pixel_names_the_empty_band():
    with pytest.raises(InputError, match="700 nm"):
        valid_pixels(scene_with_holes().scene, np.array([True, True, True]))


def test_class_without_data_is_left_out_and_the_log_says_so(caplog):
    labelled = scene_with_holes()
    labels = labelled.labels.copy()
    labels[2, 2:4] = 7
    labelled = LabelledScene(labelled.scene, labels, Legend.of(labels, names={7: "hole"}))
    kept = labelled.where(valid_pixels(labelled.scene, USED))
    assert kept.legend.codes == (1, 2)
    assert "Class hole has no pixel with data" in caplog.text
    assert "2 labelled pixels have no data" in caplog.text


def test_one_class_is_too_few():
    labelled = scene_with_holes()
    with pytest.raises(InputError, match="is 1, expected at least 2"):
        labelled.where(labelled.labels == 1)


def test_receptive_field_larger_than_the_scene_is_refused():
    check_patch_fits(scene_with_holes().scene, 6)
    with pytest.raises(InputError, match=r"receptive_field \(patch\) is 7 pixels, expected at most the scene's 6"):
        check_patch_fits(scene_with_holes().scene, 7)


def test_scaling_a_band_changes_no_standardised_value(split):
    cube = split.labelled.scene.read((0, 0, 64, 64)).astype(np.float64)
    scale = np.logspace(-3, 3, len(cube))[:, None, None]
    scene = ArrayScene(cube * scale, bands=split.labelled.scene.bands, name="scaled")
    scaled = Split(split.kind, LabelledScene(scene, split.labelled.labels, split.labelled.legend), split.roles, 3)
    torch.testing.assert_close(prepare(scaled, ALL).values, prepare(split, ALL).values, atol=1e-4, rtol=1e-4)


def test_patches_come_from_where_the_cube_lies(split):
    data = PatchDataModule(prepare(split, ALL), split, seed=0)
    meta = (0, torch.arange(4, device="meta"))
    data.on_after_batch_transfer(meta, 0)  # what a GPU does to the cube
    assert data.patches(torch.arange(4), step=None).device.type == "meta"


def test_patch_holds_the_pixels_around_its_centre_reflected_at_the_border(split):
    cube = prepare(split, ALL)
    data = PatchDataModule(cube, split, seed=0)
    pixels = torch.tensor([0, 63, 64 * 30 + 17])
    patches = data.patches(pixels, step=None)
    assert patches.shape == (3, 211, 7, 7)
    for i, (row, col) in enumerate([(0, 0), (0, 63), (30, 17)]):
        expected = cube.values[cube.index[row : row + 7, col : col + 7]].permute(2, 0, 1)
        assert torch.equal(patches[i], expected)
    assert torch.equal(patches[0][:, :3], patches[0][:, 4:].flip(1))


def test_turned_patches_are_the_eight_symmetries(split):
    data = PatchDataModule(prepare(split, ALL), split, seed=0, noise=0.0)
    pixel = torch.full((64,), 64 * 30 + 17)
    straight = data.patches(pixel[:1], step=None)[0]
    turned = data.patches(pixel, step=3)
    symmetries = [torch.rot90(x, k, (1, 2)) for x in (straight, straight.mT) for k in range(4)]
    seen = [next(i for i, s in enumerate(symmetries) if torch.equal(s, patch)) for patch in turned]
    assert set(seen) == set(range(8))


def test_augmentation_is_a_function_of_seed_and_step(split):
    cube = prepare(split, ALL)
    pixels = torch.arange(64)
    first = PatchDataModule(cube, split, seed=1).patches(pixels, step=5)
    assert torch.equal(first, PatchDataModule(cube, split, seed=1).patches(pixels, step=5))
    assert not torch.equal(first, PatchDataModule(cube, split, seed=1).patches(pixels, step=6))
    assert not torch.equal(first, PatchDataModule(cube, split, seed=2).patches(pixels, step=5))


def test_shares_of_ranks_are_the_patches_of_the_whole_batch(split):
    other = random(synthetic_scene(seed=1, height=40, width=30), radius=3, seed=0)
    parts = [PatchDataModule(prepare(one, ALL), one, seed=4, batch_size=5, range_dropout=0.5) for one in (split, other)]
    several, batch = SeveralDataModule(parts), (3, [part.sampler().batch(3) for part in parts])
    several.trainer = None
    whole, classes = several.on_after_batch_transfer(batch, 0)
    whole = torch.cat(whole)
    for rank in range(3):
        several.trainer = SimpleNamespace(global_rank=rank, world_size=3)
        patches, of_rank = several.on_after_batch_transfer(batch, 0)
        assert torch.equal(torch.cat(patches), whole[rank::3])
        assert torch.equal(of_rank, classes[rank::3])


def sampler(**more):
    return StepSampler(torch.arange(100, 130), **({"batch_size": 8, "steps_per_epoch": 5, "seed": 0} | more))


def test_every_pass_over_the_stream_sees_each_pixel_once():
    order = torch.cat([sampler().batch(step) for step in range(15)])  # 120 = 4 passes over 30
    for part in order.split(30):
        assert sorted(part.tolist()) == list(range(100, 130))
    assert order[:30].tolist() != order[30:60].tolist()


def test_order_does_not_depend_on_epoch_length():
    whole = [sampler().batch(step) for step in range(10)]
    second = sampler()
    second.set_epoch(1)
    for (step, pixels), expected in zip(second, whole[5:], strict=True):
        assert torch.equal(pixels, expected), step


def test_batches_of_several_scenes_hold_the_batches_of_each(split):
    other = random(synthetic_scene(seed=1, height=40, width=30), radius=3, seed=0)
    parts = [
        PatchDataModule(prepare(one, ALL), one, seed=4, batch_size=size, steps_per_epoch=3)
        for one, size in ((split, 5), (other, 7))
    ]
    several = SeveralDataModule(parts)
    loader = several.train_dataloader()
    loader.sampler.set_epoch(2)
    batches = list(loader)
    assert [step for step, _ in batches] == [6, 7, 8]
    patches, classes = several.on_after_batch_transfer(batches[1], 0)
    assert [len(x) for x in patches] == [5, 7]
    alone = parts[1].on_after_batch_transfer(
        (7, StepSampler(torch.from_numpy(other.pixels(TRAIN)), batch_size=7, steps_per_epoch=3, seed=4).batch(7)), 0
    )
    assert torch.equal(patches[1], alone[0])
    assert torch.equal(classes[5:], alone[1])


def test_validation_of_several_scenes_sees_every_pixel_once(split, monkeypatch):
    other = random(synthetic_scene(seed=1, height=40, width=30), radius=3, seed=0)
    parts = [PatchDataModule(prepare(one, ALL), one, seed=4) for one in (split, other)]
    monkeypatch.setattr(parts[0], "validation_batches", lambda: list(parts[0]._pixels[VAL].split(30)))
    several = SeveralDataModule(parts)
    batches = list(several.val_dataloader())
    assert len(batches) == -(-split.count(VAL) // 30) > 1
    for scene, one in enumerate((split, other)):
        seen = torch.cat([pixels[scene] for _, pixels in batches])
        assert seen.tolist() == one.pixels(VAL).tolist()
    patches, classes = several.on_after_batch_transfer(batches[-1], 0)
    assert patches[1].shape == (0, 211, 7, 7)
    assert len(classes) == len(patches[0])
