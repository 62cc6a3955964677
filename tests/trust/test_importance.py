"""Whether the two curves tell a window that is used from one that is needed, on scenes in which the truth is known."""

import numpy as np
import pytest

from hsfusion.data.synthetic import synthetic_scene
from hsfusion.scenes.scene import read_all
from hsfusion.trust.importance import (
    WindowImportance,
    contrast_of,
    losses_without,
    mean_importance,
    spectral_windows,
    standard_errors,
    with_importance,
)
from hsfusion.trust.verdict import Verdict

WINDOWS = ((650.0, 700.0), (2150.0, 2250.0))
PROXIES = ((1500.0, 1501.0), (1000.0, 1001.0))  # of the first and of the second window, each in another group
COPY = (1500.0, 1550.0)  # of the first window
NM = np.arange(400.0, 1000.0, 10.0)  # 60 bands, 12 windows


def pixels(copied=False, seed=0, number=300):
    """Standardised spectra (N, 60) whose bands 20-24, the fifth window, hold two classes, and perhaps a copy of it."""
    rng = np.random.default_rng(seed)
    classes = np.arange(number) % 2
    spectra = rng.normal(size=(number, NM.size))
    spectra[:, 20:25] += 1.5 * (2 * classes[:, None] - 1)
    if copied:
        spectra[:, 50:55] = spectra[:, 20:25]
    return spectra / spectra.std(0), classes


def importance(**changes):
    """Of 4 windows of 5 bands of which none stands out."""
    same = {name: np.zeros(4) for name in WindowImportance.__dataclass_fields__}
    same |= {"lower_nm": np.arange(400.0, 600.0, 50.0), "upper_nm": np.arange(440.0, 640.0, 50.0)}
    same |= {"bands": np.full(4, 5), "weight": np.full(4, 0.25), "contrast": np.zeros(20)}
    return WindowImportance(**{**same, **{name: np.array(values) for name, values in changes.items()}})


# windows and losses


def test_windows_of_50_nm_start_at_the_first_used_band_and_leave_gaps_out():
    used = NM >= 430
    used[(NM >= 600) & (NM < 700)] = False
    windows = spectral_windows(NM, used)
    assert [NM[window].min() for window in windows] == [430, 480, 530, 580, 700, 730, 780, 830, 880, 930, 980]
    np.testing.assert_array_equal(windows.sum(0), used)


def test_only_the_window_that_holds_the_classes_is_missed():
    windows = spectral_windows(NM, np.ones(60, bool))
    loss = losses_without(pixels(), pixels(seed=1), windows).mean(1)
    assert loss[4] > 0.6  # ln 2 where nothing is known
    assert np.abs(np.delete(loss, 4)).max() < 0.02


def test_neither_of_two_copies_is_missed():
    windows = spectral_windows(NM, np.ones(60, bool))
    loss = losses_without(pixels(copied=True), pixels(copied=True, seed=1), windows).mean(1)
    assert np.abs(loss).max() < 0.02


def test_pixels_of_a_class_without_training_pixels_lose_nothing():
    windows = spectral_windows(NM, np.ones(60, bool))
    spectra, classes = pixels(seed=1)
    loss = losses_without(pixels(), (spectra, np.where(np.arange(300) < 30, 7, classes)), windows)
    assert (loss[:, :30] == 0).all()
    assert (loss[4, 30:] != 0).all()


def test_a_class_of_one_pixel_each_can_be_compared():
    windows = spectral_windows(NM, np.ones(60, bool))
    assert np.isfinite(losses_without(pixels(number=2), pixels(seed=1), windows)).all()


def test_pixels_that_go_together_count_once():
    losses = np.random.default_rng(0).normal(size=(1, 50))
    alone = standard_errors(losses, np.arange(50))
    assert alone == pytest.approx(losses.std(ddof=1) / 50**0.5)
    assert standard_errors(losses, np.zeros(50, int)) == pytest.approx(alone)  # never 0
    assert standard_errors(np.repeat(losses, 4, 1), np.repeat(np.arange(50), 4)) == pytest.approx(alone)


# signs


def test_contrast_is_what_a_channel_subtracts_whatever_the_sign_of_the_channel():
    response = np.zeros((2, 2, 3))
    response[0, :, 0], response[1, 0, 1:], response[1, 1, 1] = 1, 0.5, 1  # one band; two bands, in channel 2 one
    signed = np.array([[0.75, 0.75], [-0.25, 0.25]])
    share = np.array([0.5, 0.5])
    for turned in (1, -1):
        weights = signed * [turned, 1]
        np.testing.assert_allclose(contrast_of(response, weights, channel_share=share), [0, 1 / 3, 1])


# words and numbers


def test_windows_are_named_by_both_losses_and_their_errors():
    heavy = {"weight": [0.5, 0.3, 0.1, 0.1]}
    assert importance(**heavy).sentences() == [
        "Heavy, but the other bands carry the same (without the window less than 0.05 nats are lost): "
        "400-440 nm (50% of the weight)."
    ]
    for name in ("data", "network", "data_error", "network_error"):  # one of them is enough to doubt it
        assert importance(**heavy, **{name: [0.06, 0, 0, 0]}).sentences() == []
    [missed] = importance(data=[0, 0, 0, 0.2], weight=[0.3, 0.3, 0.3, 0.1], data_error=[0.01] * 4).sentences()
    assert missed == (
        "Not carried by the other bands, but hardly used by this network: 550-590 nm (0.20 nats lost without it)."
    )
    assert importance(data=[0, 0, 0, 0.2], weight=[0.3, 0.3, 0.3, 0.1], data_error=[0.1] * 4).sentences() == []


def test_agreement_is_that_of_ranks_and_undefined_where_all_are_alike():
    ranked = importance(weight=[0.1, 0.2, 0.3, 0.4], gradients=[1, 2, 3, 100], permuted=[4, 3, 2, 1])
    assert ranked.agreement == {"integrated_gradients": 1, "permutation": -1, "permutation_size": None}
    assert set(importance().agreement.values()) == {None}


def test_mean_over_runs_comes_back_from_plain_values():
    runs = [{"importance": importance(data=[0, 0, 0, value]).to_dict()} for value in (0.1, 0.3)]
    mean = mean_importance(runs)
    assert mean.data.tolist() == [0, 0, 0, 0.2]
    assert mean.to_dict().keys() == runs[0]["importance"].keys()
    assert mean_importance([*runs, {}]) is None


def test_verdict_names_windows_unless_it_is_no_evidence():
    found = importance(weight=[0.5, 0.3, 0.1, 0.1])
    for word, number in (("one run only", 2), ("no evidence", 1)):
        assert len(with_importance(Verdict(word, ("why",), ()), found).sentences) == number


# planted truth


def copied_to(changed, labelled):
    """The scene with an exact copy of its first window elsewhere."""
    cube, nm = read_all(labelled.scene).copy(), labelled.scene.bands.wavelength_nm
    window, copy = ((nm >= lower) & (nm < upper) for lower, upper in (WINDOWS[0], COPY))
    cube[copy] = cube[window]
    return changed(labelled, cube)


def test_exact_copy_in_another_group_makes_both_windows_dispensable(train, changed):
    labelled = synthetic_scene(seed=0, height=40, width=40)
    alone, copied = (train(of, seed=0, epochs=3) for of in (labelled, copied_to(changed, labelled)))
    after = (*copied.worth(*WINDOWS[0]), *copied.worth(*COPY))
    print(f"exact copy: alone {alone.worth(*WINDOWS[0])}, window and copy {after}")
    assert min(alone.worth(*WINDOWS[0])) > 0.1
    assert max(after) < 0.1 * min(alone.worth(*WINDOWS[0]))


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.95, 0.99])
def test_windows_are_told_from_their_proxies_in_nine_of_ten_seeds(train, correlation):
    held, apart = [], []
    for seed in range(10):
        done = train(synthetic_scene(seed=seed, proxies=[(nm, correlation) for nm, _ in PROXIES]), seed=seed)
        held.append(done.inside((*WINDOWS, *PROXIES)))
        pairs = [(done.worth(*window), done.worth(*proxy)) for window, proxy in zip(WINDOWS, PROXIES, strict=True)]
        apart.append(all(a > b for window, proxy in pairs for a, b in zip(window, proxy, strict=True)))
        print(f"proxies {correlation} seed {seed}: weight {held[-1]:.3f}, {apart[-1]}, of window and proxy {pairs}")
    assert (np.array(held) >= 0.9).sum() >= 9
    assert sum(apart) >= 9


@pytest.fixture(scope="module")
def copies(train, changed):
    """Of ten seeds the weight of windows and copy together, and whether both are dispensable."""
    held, carried = [], []
    for seed in range(10):
        labelled = synthetic_scene(seed=seed)
        alone, copied = (train(of, seed=seed) for of in (labelled, copied_to(changed, labelled)))
        before, after = alone.worth(*WINDOWS[0]), (*copied.worth(*WINDOWS[0]), *copied.worth(*COPY))
        held.append(copied.inside((*WINDOWS, COPY)))
        carried.append(min(before) > 0.05 and max(after) < 0.1 * min(before))
        print(f"copy, seed {seed}: weight {held[-1]:.3f}, {carried[-1]}, alone {before}, window and copy {after}")
    return np.array(held), carried


@pytest.mark.slow
def test_exact_copy_is_dispensable_in_nine_of_ten_seeds(copies):
    assert sum(copies[1]) >= 9


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="missed, see docs/results/weights.md")
def test_windows_and_exact_copy_hold_the_weight_in_nine_of_ten_seeds(copies):
    assert (copies[0] >= 0.9).sum() >= 9
