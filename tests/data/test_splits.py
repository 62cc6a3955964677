import hashlib

import numpy as np
import pytest
from affine import Affine
from scene_files.vectors import pixels, scene_of, write
from scipy.ndimage import label

from hsfusion.data.public import INDIAN_PINES_CLASSES, indian_pines
from hsfusion.data.splits import (
    BUFFER,
    TEST,
    TRAIN,
    UNUSED,
    VAL,
    Split,
    blocks,
    connected_fields,
    dilate,
    fields,
    fixed,
    random,
)
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import InputError
from hsfusion.scenes import ArrayScene, GeoBox, LabelledScene, Legend, join_scenes, read_labels
from hsfusion.scenes.mosaic import SEPARATOR_ROWS
from hsfusion.spectra import Bands


@pytest.fixture(scope="module")
def pines():
    return indian_pines()


def labelled(labels):
    labels = np.asarray(labels, np.int64)
    scene = ArrayScene(
        np.zeros((2, *labels.shape), np.float32), bands=Bands.from_wavelengths([500.0, 600.0]), name="flat"
    )
    return LabelledScene(scene, labels, Legend.of(labels))


def slow_leakage(roles, radius):
    """The definition, pixel by pixel."""
    tests = np.argwhere(roles == TEST)
    hits = 0
    for row, col in tests:
        patch = roles[max(0, row - radius) : row + radius + 1, max(0, col - radius) : col + radius + 1]
        hits += bool(np.isin(patch, (TRAIN, VAL)).any())
    return hits / len(tests)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("radius", [2, 3, 4])
def test_blocks_never_leak(pines, seed, radius):
    split = blocks(pines, radius=radius, seed=seed)
    assert split.leakage == 0.0
    assert slow_leakage(split.roles, radius) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_blocks_put_nearly_every_class_on_both_sides(pines, seed):
    split = blocks(pines, radius=3, seed=seed)
    sides = [set(np.unique(pines.labels[split.roles == role])) for role in (TRAIN, TEST)]
    assert sides[0] == set(range(1, 17))
    assert len(sides[1]) >= 15
    share = split.count(TRAIN) / (pines.labels > 0).sum()
    assert 0.25 < share < 0.35


@pytest.mark.parametrize("splitter", [blocks, fields])
def test_no_two_patches_share_a_pixel_with_twice_the_radius(pines, splitter):
    split = splitter(pines, radius=3, seed=0, buffer="double")
    assert split.count(TEST) > 100
    assert split.patch_overlap == slow_leakage(np.where(split.roles == VAL, UNUSED, split.roles), 6) == 0
    assert splitter(pines, radius=3, seed=0).patch_overlap > 0.1


def test_buffer_is_a_number_of_pixels(pines):
    for number in (0, 1, 5):
        split = blocks(pines, radius=3, seed=0, buffer=number)
        seen = np.isin(split.roles, (TRAIN, VAL))
        touched = [dilate(seen, number + more)[split.roles == TEST].any() for more in (0, 1)]
        assert touched == [False, True]
        assert (split.leakage > 0) == (number < 3)


def flight_lines(ground, *lines):
    """Lines, as the rows and columns of a ground truth that each sees, joined."""
    parts = []
    for number, (rows, cols) in enumerate(lines):
        codes, place = ground[rows, cols], Affine(2, 0, 100 + 2 * cols.start, 0, -2, 200 - 2 * rows.start)
        box = GeoBox(codes.shape, place, "EPSG:32632")
        cube = np.arange(2 * codes.size, dtype=np.float32).reshape(2, *codes.shape)
        scene = ArrayScene(cube, bands=Bands.from_wavelengths([500.0, 600.0]), name=f"line {number}", geobox=box)
        parts.append(LabelledScene(scene, codes, Legend.of(ground)))
    return join_scenes(parts)


@pytest.mark.parametrize(("splitter", "leaks"), [(blocks, False), (fields, False), (random, True)])
def test_ground_in_two_flight_lines_leaks_in_neither(splitter, leaks):
    codes = 1 + np.random.default_rng(0).integers(0, 3, (12, 10))
    ground, lines = np.kron(codes, np.ones((6, 6), np.int64)), [np.s_[0:72, 0:36], np.s_[10:60, 26:]]
    split, row, roles, leaked = splitter(flight_lines(ground, *lines), radius=2, seed=0), 0, [], 0
    for rows, cols in lines:  # on the ground
        height, width = ground[rows, cols].shape
        roles.append(np.zeros(ground.shape, np.uint8))
        roles[-1][rows, cols] = split.roles[row : row + height, :width]
        row += height + SEPARATOR_ROWS
    for one, (rows, cols) in zip(roles, lines, strict=True):
        near = np.zeros(ground.shape, bool)
        near[rows, cols] = dilate(sum(np.isin(each, (TRAIN, VAL)) for each in roles)[rows, cols], 2)
        leaked += (near & (one == TEST)).sum()
    assert split.leakage == leaked / split.count(TEST)
    assert (leaked > 0) == leaks


def test_field_in_two_flight_lines_is_one():
    joined = flight_lines(np.repeat([[1, 1, 1, 2, 2, 2, 1]], 4, axis=0), np.s_[0:4, 0:4], np.s_[0:4, 3:])
    split = Split("fixed", joined, (joined.labels > 0).astype(np.uint8), radius=0)
    assert split.field_of.reshape(joined.labels.shape)[[0, -1], :4].tolist() == [[0, 0, 0, 1], [1, 1, 1, 2]]


@pytest.mark.parametrize("buffer", [-1, 1.5, True, "twice", None])
def test_buffer_of_another_kind_is_refused(pines, buffer):
    with pytest.raises(InputError, match=r"buffer is .*, expected radius, double or a number of pixels"):
        blocks(pines, radius=3, seed=0, buffer=buffer)


@pytest.mark.parametrize("shape", [(40, 31), (1, 50), (50, 1)])
def test_fields_are_the_connected_pixels_of_a_class(shape):
    labels = np.random.default_rng(0).integers(0, 4, shape)
    expected = np.zeros(shape, int)
    for code in (1, 2, 3):
        numbers, _ = label(labels == code, np.ones((3, 3)))
        expected += np.where(numbers > 0, numbers + 1000 * code, 0)
    pairs = {*zip(connected_fields(labels).tolist(), expected[labels > 0].tolist(), strict=True)}
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


@pytest.mark.parametrize("seed", range(3))
def test_a_field_is_never_on_two_sides(pines, seed):
    split = fields(pines, radius=3, seed=seed)
    field_of, roles = connected_fields(pines.labels), split.roles[pines.labels > 0]
    for number in range(field_of.max() + 1):
        assert len({*roles[field_of == number]} - {BUFFER}) <= 1
    assert split.leakage == 0
    assert not split.in_seen_fields().any()
    assert {*np.unique(pines.labels[split.roles == TRAIN])} == set(range(1, 17))
    assert 0.2 < split.count(TRAIN) / (pines.labels > 0).sum() < 0.45


def test_field_that_pixels_without_data_cut_in_two_stays_on_one_side():
    labels, valid = np.ones((15, 63), int), np.ones((15, 63), bool)
    labels[:, 32:], labels[:, 7::8] = 2, 0  # eight fields
    valid[7] = False
    for seed in range(5):
        split = fields(labelled(labels), radius=0, seed=seed, valid=valid)
        np.testing.assert_array_equal(split.roles[:7], split.roles[8:])
        assert not split.roles[7].any()
        assert all(split.count(role) for role in (TRAIN, VAL, TEST))


def test_fields_by_id_stay_on_one_side_and_pixels_without_one_are_left_out(tmp_path, caplog):
    rng = np.random.default_rng(0)
    ids, labels = np.kron(np.arange(24).reshape(4, 6), np.ones((8, 8), int)), rng.integers(0, 3, (32, 48))
    np.save(tmp_path / "ids.npy", ids * 100_000)  # the first, 0, is none
    valid = np.ones(ids.shape, bool)
    valid[20] = False
    for seed in range(3):
        split = fields(labelled(labels), radius=1, seed=seed, ids=tmp_path / "ids.npy", valid=valid)
        for number in range(24):
            assert len({*split.roles[ids == number]} - {BUFFER, UNUSED}) <= 1
        assert not split.roles[(ids == 0) | ~valid].any()
        assert all(split.count(role) for role in (TRAIN, VAL, TEST))
        assert not split.in_seen_fields().any()
        assert split.seed == seed
    lost = int((labels[ids == 0] > 0).sum())
    assert f"{lost} labelled pixels lie in no field of {tmp_path / 'ids.npy'} and are left out." in caplog.messages


def test_fields_by_an_attribute_of_polygons(tmp_path):
    scene, parcel = scene_of((8, 32)), np.array([*"abcdefghabijklmn"], object)  # two of them in two pieces
    strips = [pixels(0, 2 * i, 8, 2) for i in range(16)]
    path = write(tmp_path / "fields.gpkg", strips, parcel=parcel, crop=[1, 2] * 8)
    labels = read_labels(path, scene, class_field="crop").codes
    truth = LabelledScene(scene, labels, Legend.of(labels))
    with pytest.raises(InputError, match=r"split.field is missing.*give split.field=NAME"):
        fields(truth, radius=0, seed=0, ids=path)
    for seed in range(5):
        roles = fields(truth, radius=0, seed=seed, ids=path, field="parcel").roles[0, ::2]
        assert (roles[:2] == roles[8:10]).all()
        assert all(set(roles[side::2]) == {TRAIN, VAL, TEST} for side in (0, 1))


def test_validation_pixels_keep_away_from_training_pixels(pines):
    split = blocks(pines, radius=3, seed=0)
    as_test = np.where(split.roles == VAL, TEST, np.where(split.roles == TRAIN, TRAIN, UNUSED))
    assert slow_leakage(as_test, 3) == 0.0


def test_random_split_leaks_and_says_how_much(pines):
    split = random(pines, radius=3, seed=0)
    assert split.leakage == slow_leakage(split.roles, 3) > 0.9
    for code in range(1, 17):
        of_class = split.roles[pines.labels == code]
        assert (of_class == TRAIN).sum() == max(1, round(0.1 * of_class.size))
        assert {TRAIN, VAL, TEST} <= set(of_class)


@pytest.mark.parametrize("splitter", [blocks, fields, random])
def test_split_is_a_function_of_the_seed(pines, splitter):
    first, again, other = (splitter(pines, radius=3, seed=seed).roles for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("splitter", "settings", "digest"),
    [
        (blocks, {}, "493fbbbf1cc79d90"),
        (random, {}, "85c53cf0e07d5dda"),
        (blocks, {"radius": 2, "seed": 1}, "6e4e36fa1954232f"),
        (blocks, {"radius": 4, "seed": 2, "block_pixels": 5, "fraction": 0.2, "val_fraction": 0.2}, "aaf26edeb26f980d"),
        (random, {"radius": 4, "seed": 2, "fraction": 0.2, "val_fraction": 0.2}, "33e51a14dc6a8150"),
        (blocks, {"seed": 3, "per_class": 5}, "128854866121b5ca"),
        (random, {"seed": 3, "per_class": 5}, "6162d09c96f64ba4"),
        (blocks, {"seed": 4, "per_class": 6, "val_per_class": 9, "block_pixels": 6}, "c4d60d27d4e7112f"),
        (blocks, {"radius": 1, "seed": 5}, "fccb64bf20d6beb4"),
        (blocks, {"seed": 6, "block_pixels": 11, "radius": 0}, "1542393ccb71e1ed"),
        (blocks, {"seed": None, "buffer": 3}, "493fbbbf1cc79d90"),
        (fields, {}, "aca0715e7dee3afb"),
        (fields, {"seed": 3, "per_class": 5}, "65143460b904e98c"),
    ],
)
def test_split_of_a_seed_never_changes(pines, splitter, settings, digest):
    split = splitter(pines, **{"radius": 3, "seed": 0, **settings})
    assert hashlib.sha256(split.roles.tobytes()).hexdigest()[:16] == digest


def test_blocks_of_few_pixels_in_a_large_scene_are_those_of_the_pixels_alone():
    labels = np.zeros((700, 900), np.int64)
    few = np.random.default_rng(0).integers(0, 3, (48, 56))
    labels[:48, :56] = few
    large, small = (blocks(labelled_on_grid(these), radius=2, seed=5).roles for these in (labels, few))
    np.testing.assert_array_equal(large[:48, :56], small)
    assert not large[48:].any()


def labelled_on_grid(labels):
    values = np.broadcast_to(np.float32(0), (2, *labels.shape))
    scene = ArrayScene(values, bands=Bands.from_wavelengths([500.0, 600.0]), name="flat")
    return LabelledScene(scene, labels, Legend.of(labels))


def test_only_labelled_pixels_have_a_role(pines):
    roles = blocks(pines, radius=3, seed=0).roles
    assert (roles[pines.labels == 0] == UNUSED).all()
    assert BUFFER in roles


def test_per_class_limits_the_training_pixels(pines):
    for split in (blocks(pines, radius=3, seed=0, per_class=5), random(pines, radius=3, seed=0, per_class=5)):
        counts = np.bincount(pines.labels[split.roles == TRAIN], minlength=17)[1:]
        assert counts.max() == 5
        assert counts.min() >= 1


def test_few_training_labels_mean_few_validation_labels_unless_told_otherwise(pines):
    def most(**more):
        roles = blocks(pines, radius=3, seed=0, per_class=5, **more).roles
        return np.bincount(pines.labels[roles == VAL]).max()

    assert (most(), most(val_per_class=7)) == (5, 7)


def test_class_with_too_few_pixels_is_named():
    labels = np.ones((12, 12))
    labels[0, :2] = 7
    with pytest.raises(InputError, match=r"class class 7 \(7\) is 2, expected at least 3"):
        random(labelled(labels), radius=1, seed=0)


def test_class_that_no_training_block_can_hold_is_named():
    # one block is all there is: whatever it becomes, training or test stay empty
    with pytest.raises(InputError, match="split: number of"):
        blocks(labelled(np.ones((6, 6))), radius=3, seed=0, block_pixels=32)


def test_shares_that_leave_no_test_are_refused(pines):
    with pytest.raises(InputError, match=r"0\.9 \+ 0\.1"):
        random(pines, radius=3, seed=0, fraction=0.9, val_fraction=0.1)


def save(path, array):
    np.save(path, array)
    return path


def test_fixed_split_uses_the_rasters_and_keeps_names_that_agree(pines, tmp_path):
    train = np.where(np.arange(145)[:, None] < 70, pines.labels, 0)
    test = np.where(np.arange(145)[:, None] >= 80, pines.labels, 0)
    train[80:] = 0
    missing = set(np.unique(test)) - set(np.unique(train))
    test[np.isin(test, list(missing))] = 0
    split = fixed(
        pines, radius=3, seed=0, train=save(tmp_path / "train.npy", train), test=save(tmp_path / "test.npy", test)
    )
    assert (split.roles == TRAIN).sum() == (train > 0).sum()
    assert (split.roles == TEST).sum() == (test > 0).sum()
    assert len(split.labelled.legend.codes) >= 8
    assert split.labelled.legend.names == tuple(INDIAN_PINES_CLASSES[code - 1] for code in split.labelled.legend.codes)
    assert split.leakage == 0.0


def test_fixed_split_with_other_codes_takes_no_names_from_the_scene(pines, tmp_path):
    other = np.where(pines.labels > 0, 17 - pines.labels, 0)
    train, test = other.copy(), other.copy()
    train[::2], test[1::2] = 0, 0
    split = fixed(
        pines, radius=3, seed=0, train=save(tmp_path / "train.npy", train), test=save(tmp_path / "test.npy", test)
    )
    assert split.labelled.legend.names[0] == "class 1"
    assert split.leakage > 0.9


@pytest.mark.parametrize(("code", "seen"), [(2, True), (3, False)])
def test_fields_of_a_fixed_split_are_not_cut_by_unused_pixels(tmp_path, code, seen):
    """The rasters hold the ends of a row of one field, with codes of the scene or of their own."""
    train, test = np.zeros((2, 2, 9), int)
    train[0, 0], test[0, 8], train[1, 0] = code, code, 1
    scene = labelled(np.repeat([[2], [1]], 9, axis=1))
    paths = {name: save(tmp_path / f"{name}.npy", of) for name, of in (("train", train), ("test", test))}
    assert fixed(scene, radius=0, seed=0, **paths).in_seen_fields().tolist() == [seen]


def test_fixed_split_can_set_validation_pixels_aside(pines, tmp_path):
    train, test = pines.labels.copy(), pines.labels.copy()
    train[::2], test[1::2] = 0, 0
    paths = {"train": save(tmp_path / "train.npy", train), "test": save(tmp_path / "test.npy", test)}
    split = fixed(pines, radius=3, seed=0, val_fraction=0.2, **paths)
    assert 0.15 < split.count(VAL) / (train > 0).sum() < 0.25


def test_fixed_split_with_a_pixel_in_both_is_refused(pines, tmp_path):
    path = save(tmp_path / "all.npy", pines.labels)
    with pytest.raises(InputError, match=r"number of labelled pixels also in .* is 10249, expected 0"):
        fixed(pines, radius=3, seed=0, train=path, test=path)


def test_fixed_split_of_another_shape_names_both_shapes(pines, tmp_path):
    path = save(tmp_path / "small.npy", np.ones((10, 12), np.int64))
    with pytest.raises(InputError, match=r"small\.npy: shape.*\(10, 12\).*\(145, 145\)"):
        fixed(pines, radius=3, seed=0, train=path, test=path)


def test_leakage_of_a_split_by_hand():
    roles = np.zeros((1, 9), np.uint8)
    roles[0, 0], roles[0, 2], roles[0, 5], roles[0, 8] = TRAIN, TEST, TEST, VAL
    scene = labelled(np.ones((1, 9)))
    assert Split("fixed", scene, roles, 1).leakage == 0.0
    assert Split("fixed", scene, roles, 2).leakage == 0.5
    assert Split("fixed", scene, roles, 3).leakage == 1.0
    assert Split("fixed", scene, roles, 0).patch_overlap == 0.0
    assert Split("fixed", scene, roles, 1).patch_overlap == 0.5
    assert Split("fixed", scene, roles, 3).patch_overlap == 1.0


def test_test_pixels_in_fields_that_are_trained_on_by_hand():
    labels = np.array([[1, 1, 2, 2, 0, 1, 1], [0, 0, 1, 2, 0, 0, 1]])
    roles = np.array([[TRAIN, TEST, VAL, TEST, UNUSED, TEST, TEST], [UNUSED, UNUSED, TEST, BUFFER, 0, 0, TEST]])
    split = Split("fixed", labelled(labels), roles.astype(np.uint8), 1)
    assert split.in_seen_fields().tolist() == [True, False, False, False, True, False]


def test_synthetic_scene_carries_its_classes_in_the_windows_only():
    scene = synthetic_scene(seed=0, num_classes=2, windows_nm=[(1000.0, 1100.0)])
    cube = scene.scene.read((0, 0, 64, 64))
    nm = scene.scene.bands.wavelength_nm
    a, b = cube[:, scene.labels == 1].mean(1), cube[:, scene.labels == 2].mean(1)
    inside = (nm >= 1000) & (nm < 1100)
    assert (abs(a - b)[inside] > 0.05).all()
    assert abs((a - b)[inside].mean() - (a - b)[~inside].mean()) > 0.08
    assert np.ptp((a - b)[~inside]) < 0.06


def test_holes_are_training_pixels_that_see_a_pixel_without_data():
    roles = np.zeros((1, 9), np.uint8)
    roles[0, [0, 2, 5, 8]] = TRAIN
    valid = np.ones((1, 9), bool)
    valid[0, 4] = False
    assert Split("fixed", None, roles, 2).holes(valid) == 0.5


def test_proxies_follow_bands_of_the_windows_as_closely_as_asked():
    keys = {"seed": 0, "proxies": [(900.0, 0.99), (1600.0, 0.95)]}
    scene, plain = synthetic_scene(**keys).scene, synthetic_scene(seed=0).scene
    values, nm = scene.read(), scene.bands.wavelength_nm
    at = {wavelength: int(np.abs(nm - wavelength).argmin()) for wavelength in (670, 2200, 900, 1600)}
    for proxy, followed, correlation in ((900, 670, 0.99), (1600, 2200, 0.95)):
        found = np.corrcoef(values[at[proxy]].ravel(), values[at[followed]].ravel())[0, 1]
        assert found == pytest.approx(correlation, abs=0.005)
    others = np.setdiff1d(np.arange(nm.size), [at[900], at[1600]])
    np.testing.assert_array_equal(values[others], plain.read()[others])
