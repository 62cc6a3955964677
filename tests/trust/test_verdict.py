from dataclasses import replace

import numpy as np
import pytest

from hsfusion.spectra import Bands
from hsfusion.spectra.weights import BandWeights
from hsfusion.trust.faithfulness import Curve, band_windows, curve_masks
from hsfusion.trust.stability import Stability, quartiles, top_bands, uniformity_p, window_stability
from hsfusion.trust.verdict import Duplicate, beats_chance, duplicates, verdict, weight_windows

MOVED = {"index of single runs": {"labels": 0.7, "moved": [0.3, np.nan, 0.6]}}
NM = np.arange(400.0, 2400.0, 10.0)  # 200 bands
EVEN = np.full(200, 1 / 200)
GOOD = Stability(0.9, 0.8, 1.0, 5, 5)
RIGHT = {"area": 0.2, "lower": 0.1, "p": 1 / 200}
CURVES = {f"{way}, {fill}": RIGHT for way in ("deletion", "insertion") for fill in ("mean", "conditional")}


def weights(profile):
    return BandWeights(Bands(NM, None, np.ones(NM.size, bool)), ("",) * NM.size, profile / profile.sum())


def planted_profiles(rng, centres_nm=(670.0, 2200.0), shape=(5, 5)):
    profile = sum(np.exp(-((NM - centre) ** 2) / (2 * 15**2)) for centre in centres_nm)
    profiles = profile * np.exp(rng.normal(0, 0.2, (*shape, NM.size)))
    return profiles / profiles.sum(-1, keepdims=True)


def judge(**changes):
    profile = planted_profiles(np.random.default_rng(0), shape=()).ravel()
    given = {
        "windows": weight_windows(
            weights(profile), np.tile(profile > 0.01, (25, 1)), profiles=profile[None], untrained=EVEN, number=2
        ),
        "beats_chance": [True] * 25,
        "chance": [],
        "uniformity_p": 1e-6,
        "stability": GOOD,
        "curves": CURVES,
        "moved": MOVED,
        "pairs": [],
        "wavelength_nm": NM,
    } | changes
    return verdict(given.pop("windows"), **given)


# from profiles to the word


def judged(profiles, *, used_nm=(670.0, 2200.0), knows=True, seed=0, size=7):
    """The whole way from profiles (S, T, C) of networks that use the bands near used_nm."""
    rng = np.random.default_rng(1)
    classes = np.arange(200) % 2
    used = np.abs(NM[:, None] - np.array(used_nm)).min(1) < 30
    spectra = rng.normal(size=(200, NM.size)) + np.where(used, 2 * classes[:, None] - 1, 0)

    def score(keep, part):
        """Of a network, on pixels of its own."""
        said = spectra[part::3] * used @ keep.T > 0  # mean_fill: bands that are removed are 0
        return (said == classes[part::3, None]).mean(0)

    runs = profiles.reshape(-1, NM.size)
    reported = weights(quartiles(runs).median)
    every = units = band_windows(NM, size=size)
    weight, curves = units @ reported.weight / units.sum(1), {}
    units, weight = units[weight > 0], weight[weight > 0]
    number = np.arange(len(units) + 1)
    for i, way in enumerate(("deletion", "insertion")):
        keep = curve_masks(weight, windows=units, number=number, seed=[seed, i], direction=way)
        networks = [np.stack([score(rows, part) for rows in keep]) for part in range(3)]
        curve = Curve.from_accuracies(np.array(networks), number=number, direction=way)
        curves[way] = {"area": curve.area, "lower": curve.lower, "p": curve.p_value}
    by_resample = np.stack([quartiles(of).median for of in profiles.transpose(1, 0, 2)])
    return verdict(
        weight_windows(reported, top_bands(runs, 20), profiles=runs, untrained=EVEN, number=2, width_nm=80),
        beats_chance=[knows] * len(runs),
        chance=[],
        uniformity_p=uniformity_p(by_resample, every),
        stability=window_stability(by_resample, NM, members=len(profiles)),
        curves=curves,
        moved=MOVED,
        pairs=duplicates(spectra),
        wavelength_nm=NM,
    )


def test_planted_windows_are_supported_and_named():
    found = judged(planted_profiles(np.random.default_rng(0)))
    assert found.word == "supported"
    assert sorted(window.lower_nm <= 670 <= window.upper_nm for window in found.windows) == [False, True]
    assert sorted(window.lower_nm <= 2200 <= window.upper_nm for window in found.windows) == [False, True]
    assert all(window.frequency == 1 for window in found.windows)
    assert "selected in 25 of 25 runs" in found.sentences[1]
    assert all(window.raised == pytest.approx(200 / 9 * window.share) for window in found.windows)  # 9 of 200 bands
    assert f"of the weight, {found.windows[0].raised:.1f} x untrained, selected" in found.sentences[1]


def test_windows_that_few_runs_select_are_told_apart():
    profile = planted_profiles(np.random.default_rng(0), shape=()).ravel()
    selected = np.tile((profile > 0.01) & (NM < 1000), (25, 1))
    windows = weight_windows(weights(profile), selected, profiles=profile[None], untrained=EVEN, number=2)
    found = judge(windows=windows)
    assert found.sentences[1].startswith("Heaviest windows: 6") and ";" not in found.sentences[1]
    assert found.sentences[2].startswith("Heavy, but selected in fewer than half of the runs: 2")


def test_a_window_whose_bands_take_turns_weighs_what_it_weighs_in_the_runs():
    runs = np.zeros((5, NM.size))
    runs[:, 0] = 0.6
    runs[np.arange(5), 100 + np.array([0, 0, 0, 1, 2])] = 0.4  # the band at 1400 nm in three runs, its neighbours else
    reported = weights(quartiles(runs).median)
    assert reported.weight[100:103].tolist() == [pytest.approx(0.4), 0, 0]
    heaviest, other = weight_windows(reported, runs > 0, profiles=runs, untrained=EVEN, number=2)
    assert (heaviest.share, other.share) == (0.6, 0.4)
    assert other.raised == pytest.approx(0.4 * 200 / 5)
    runs[3:, 100:103] = 0
    runs[3:, 0] = 1  # two of five runs have no weight there
    assert weight_windows(reported, runs > 0, profiles=runs, untrained=EVEN, number=2)[1].share == 0.4


def test_the_same_profiles_of_networks_that_know_nothing_are_no_evidence():
    found = judged(planted_profiles(np.random.default_rng(0)), knows=False)
    assert (found.word, found.windows) == ("no evidence", ())
    assert "25 of 25 runs did no better" in found.sentences[0]


def test_flat_profiles_are_no_evidence():
    flat = np.exp(np.random.default_rng(0).normal(0, 0.1, (5, 5, NM.size)))
    found = judged(flat / flat.sum(-1, keepdims=True))
    assert found.word == "no evidence"
    assert "untrained networks" in found.sentences[0]


def test_profiles_that_name_other_bands_in_every_resample_are_not_supported():
    rng = np.random.default_rng(0)
    profiles = np.stack([planted_profiles(rng, (500.0 + 350 * t,), (5,)) for t in range(5)], axis=1) + 1e-4
    assert judged(profiles / profiles.sum(-1, keepdims=True)).word in {"not supported", "no evidence"}


@pytest.mark.parametrize("seed", range(5))
def test_constant_weights_on_open_bands_are_not_supported(seed):
    """Gates that are open where the network looks, and elsewhere: they agree in all runs, and say no more."""
    opened = np.abs(NM[:, None] - np.array([670.0, 1000.0, 1600.0, 2200.0])).min(1) < 200
    found = judged(np.tile(opened / opened.sum(), (5, 6, 1)), seed=seed)
    assert found.word == "not supported"
    few = np.abs(NM[:, None] - np.array([670.0, 1000.0, 1600.0, 2200.0])).min(1) < 25  # 20 bands, which all select
    found = judged(np.tile(few / few.sum(), (5, 6, 1)), seed=seed, size=1)
    assert found.word == "not supported" and "not shown to matter more" in found.sentences[0]


def test_stable_profiles_beside_what_the_network_uses_are_not_faithful():
    found = judged(planted_profiles(np.random.default_rng(0), (1000.0, 1600.0)))
    assert found.word == "not supported"
    assert "deletion (area " in found.sentences[0]


# the word, one finding after the other


def test_all_findings_good_give_supported():
    found = judge()
    assert found.word == "supported"
    assert "Nogueira index 0.90 of 5 medians of 5 runs, 95 % interval 0.80 to 1.00" in found.sentences[0]
    assert "0.200 to 0.200, largest p = 0.005" in found.sentences[0]


@pytest.mark.parametrize(
    ("changes", "word", "says"),
    [
        ({"beats_chance": [True] * 24 + [False]}, "no evidence", "1 of 25 runs did no better"),
        ({"beats_chance": []}, "no evidence", "0 of 0"),
        ({"uniformity_p": 0.3}, "no evidence", "p = 0.3"),
        ({"stability": None, "uniformity_p": None, "beats_chance": [True]}, "not tested", "another seed"),
        ({"stability": replace(GOOD, index=0.74)}, "not supported", "index 0.74"),
        ({"stability": replace(GOOD, index=np.nan)}, "not supported", "undefined"),
        ({"curves": {}}, "not tested", "bands were not removed"),
        ({"curves": CURVES | {"deletion, mean": {**RIGHT, "p": 0.05}}}, "not supported", "mean (area 0.200, p = 0.05)"),
        ({"curves": CURVES | {"insertion, mean": {**RIGHT, "lower": 0.0}}}, "borderline", "(insertion, mean)"),
        ({"curves": CURVES | {"insertion, mean": {**RIGHT, "lower": np.nan}}}, "borderline", "not exclude 0"),
        ({"moved": {"index": {"labels": 0.6, "moved": [0.1, 0.6]}}}, "not supported", "moved maps up to 0.6)"),
        ({"moved": {"index": {"labels": 0.6, "moved": []}}}, "borderline", "trained on no moved label maps"),
        ({"moved": {"index": {"labels": 0.6, "moved": [0.1, 0.2]}}}, "borderline", "on 2 moved label maps, not on 3"),
        ({"stability": replace(GOOD, index=0.75, lower=0.75)}, "supported", "0.75"),
        ({"stability": replace(GOOD, lower=0.74)}, "borderline", "does not exclude values below 0.75"),
        ({"stability": replace(GOOD, lower=np.nan)}, "borderline", "interval undefined"),
    ],
)
def test_the_first_finding_that_fails_gives_the_word(changes, word, says):
    found = judge(**changes)
    assert found.word == word
    assert says in found.sentences[0]
    assert bool(found.windows) == (word != "no evidence")


def test_an_interval_that_reaches_below_agreement_is_named_before_bands_are_removed():
    assert "does not exclude" not in judge(curves={}).sentences[0]
    found = judge(stability=replace(GOOD, index=0.76, lower=0.6), curves={})
    assert found.word == "not tested" and "does not exclude values below 0.75" in found.sentences[0]


def test_no_evidence_goes_before_every_other_finding():
    bad = {"stability": replace(GOOD, index=0.1), "curves": {"deletion": {**RIGHT, "p": 1.0}}}
    assert judge(uniformity_p=0.9, **bad).word == "no evidence"
    assert judge(**bad).word == "not supported"


def test_one_run_shows_its_windows_without_a_frequency():
    found = judge(stability=None, uniformity_p=None, beats_chance=[True])
    assert found.sentences[1].startswith("Heaviest windows: ")
    assert "selected in" not in found.sentences[1]


# duplicates


def test_duplicated_bands_are_named_as_a_pair_where_they_weigh():
    spectra = np.random.default_rng(0).normal(size=(300, NM.size))
    spectra[:, 28] = 3 * spectra[:, 27] + 2  # 680 and 670 nm, in the window
    spectra[:, 101] = spectra[:, 100]  # 1400 nm, without weight
    pairs = duplicates(spectra)
    assert [(pair.first, pair.second) for pair in pairs] == [(27, 28), (100, 101)]
    found = judge(pairs=pairs)
    assert found.word == "supported"
    assert len(found.sentences) == 3
    assert (
        "Bands 28 (670 nm) and 29 (680 nm) are redundant (absolute correlation at least 1.00000)" in found.sentences[2]
    )


def test_of_many_bands_of_the_same_values_the_first_are_named_and_the_others_counted():
    pairs = [Duplicate(27, c, 1.0) for c in range(28, 41)]  # one set of 14
    [sentence] = [of for of in judge(pairs=pairs).sentences if "redundant" in of]
    assert "(670 nm), 29 (680 nm)" in sentence and "33 (720 nm) and 8 others are redundant" in sentence
    apart = [Duplicate(c, c + 60, 1.0) for c in (27, 28)]  # two sets of two
    assert len([of for of in judge(pairs=apart).sentences if "redundant" in of]) == 2


def test_nearly_equal_bands_are_pairs_from_the_limit_on():
    rng = np.random.default_rng(0)
    spectra = rng.normal(size=(5000, 3))
    spectra[:, 1] = spectra[:, 0] + 0.1 * rng.normal(size=5000)  # correlation 0.995
    spectra[:, 2] = -spectra[:, 0] + 0.001 * rng.normal(size=5000)
    assert [(pair.first, pair.second) for pair in duplicates(spectra)] == [(0, 2)]
    assert [(pair.first, pair.second) for pair in duplicates(spectra, above=0.99)] == [(0, 1), (0, 2), (1, 2)]
    assert duplicates(spectra)[0].correlation < -0.9999


def test_bands_without_variance_are_pairs_only_where_they_are_equal():
    spectra = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    spectra[:, 1], spectra[:, 2], spectra[:, 3] = 0.1, 0.1, 0.2
    assert duplicates(spectra) == [Duplicate(1, 2, 1.0)]


# chance


def confusion(truth, said, k=4):
    counts = np.zeros((k, k + 1), int)
    np.add.at(counts, (truth, said), 1)
    return counts


def test_guesses_are_no_evidence_and_knowledge_is():
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=5000)
    guesses = rng.integers(4, size=5000)
    assert not beats_chance(confusion(truth, guesses), receptive_field=7)
    assert beats_chance(confusion(truth, np.where(rng.random(5000) < 0.4, truth, guesses)), receptive_field=7)


def test_always_the_largest_class_is_no_evidence():
    truth = np.array([0] * 4000 + [1] * 500)
    assert not beats_chance(confusion(truth, np.zeros(4500, int)), receptive_field=1)


def test_neighbours_are_not_counted_as_independent():
    rng = np.random.default_rng(1)
    truth = rng.integers(4, size=2000)
    said = np.where(rng.random(2000) < 0.08, truth, rng.integers(4, size=2000))
    assert beats_chance(confusion(truth, said), receptive_field=1)
    assert not beats_chance(confusion(truth, said), receptive_field=7)


@pytest.mark.parametrize("seed", range(3))
def test_one_in_a_hundred_guesses_at_most_looks_like_knowledge(seed):
    rng = np.random.default_rng(seed)
    found = [beats_chance(confusion(*rng.integers(4, size=(2, 400))), receptive_field=1) for _ in range(1000)]
    assert sum(found) <= 25
