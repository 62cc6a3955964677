"""T11: how the spectrum is cut into groups does not decide the weights.

Ensembles of five trainings for each of five cuts; the medians of any two have to agree, a correlation of at least 0.9
over windows of 50 nm. ``scripts/test -m slow -rP tests/trust/test_cuts.py`` prints the numbers; docs/results says more.
"""

import os
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

import hsfusion as hs
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.spectra import BandGroup, even_groups, membership
from hsfusion.trust.stability import quartiles

MEMBERS, WINDOW_NM, BAR = 5, 50.0, 0.9
SMALL = {"epochs": 12, "model": {"channels": 8, "width": 16, "receptive_field": 3}}
SUITE = Path(os.environ.get("HSFUSION_SUITE", "no_folder"))  # suite_folder of hsfusion benchmark accuracy


def cuts(bands, heaviest):
    """Five ways to cut the good bands into groups; ``heaviest`` is the number of the group to be split, of 14."""
    nm = np.unique(bands.wavelength_nm[bands.good])
    even, halves = (even_groups(bands, number=number) for number in (14, 28))
    equal_nm = grouped(np.linspace(nm[0], nm[-1] + 1e-6, 15))
    middle = halves[2 * heaviest].upper_nm
    edges = [group.lower_nm for group in even] + [even[-1].upper_nm]
    return {
        "14 of equal numbers of bands": even,
        "14 of equal nm": [group for group in equal_nm if ((nm >= group.lower_nm) & (nm < group.upper_nm)).any()],
        "14 shifted by half a group": grouped([nm[0], *(group.upper_nm for group in halves[::2]), nm[-1] + 1e-6]),
        "10 of equal numbers of bands": even_groups(bands, number=10),
        "14, the heaviest in two": grouped(sorted([*edges, middle])),
    }


def grouped(edges):
    return [BandGroup(f"{low:.1f}-{high:.1f} nm", float(low), float(high)) for low, high in pairwise(edges)]


def profile(scene, groups, **options):
    """(C,) the median weights of trainings that differ by their seed alone, on one split."""
    limits = hs.interval_groups({group.name: (group.lower_nm, group.upper_nm) for group in groups})
    options = {"split": hs.blocks(seed=0), "baselines": (), "threads": 1, **options}
    runs = [hs.train(scene, groups=limits, seed=seed, **options) for seed in range(MEMBERS)]
    return quartiles(np.stack([run.weights.weight for run in runs])).median


def in_windows(nm, weight):
    """Weight of each window of 50 nm that holds a band."""
    window = np.floor(nm / WINDOW_NM).astype(int)
    return np.bincount(window - window.min(), weight)[np.unique(window) - window.min()]


def compared(bands, profiles):
    """Correlations of any two profiles over the windows, and of each cut the group of fewest bands and its share."""
    windows = {name: in_windows(bands.wavelength_nm[bands.good], of[bands.good]) for name, of in profiles.items()}
    pairs = {f"{a} | {b}": float(np.corrcoef(windows[a], windows[b])[0, 1]) for a, b in combinations(windows, 2)}
    return {"correlation": pairs, "lowest": min(pairs.values())}


def smallest_group(bands, groups, weight):
    inside = membership(groups, bands)
    least = int(inside.sum(1).argmin())
    return {"group": groups[least].name, "bands": int(inside[least].sum()), "share": float(weight[inside[least]].sum())}


def measured(scene, **options):
    """Profiles and what they say, one cut after the other."""
    bands = scene.scene.bands
    first = even_groups(bands, number=14)
    profiles = {"14 of equal numbers of bands": profile(scene, first, **options)}
    totals = membership(first, bands) @ profiles["14 of equal numbers of bands"]
    ways = cuts(bands, int(totals.argmax()))
    profiles |= {name: profile(scene, groups, **options) for name, groups in ways.items() if name not in profiles}
    rows = [
        {"cut": name, "groups": len(groups), "smallest": smallest_group(bands, groups, of), "weight": of.tolist()}
        for (name, groups), of in zip(ways.items(), profiles.values(), strict=True)
    ]
    return rows, compared(bands, profiles)


def report(name, rows, summary):
    print(f"T11 {name}: lowest correlation of two cuts {summary['lowest']:.3f}, bar {BAR}")
    for row in rows:
        print(f"  {row['cut']}: {row['groups']} groups, of fewest bands {row['smallest']}")
    for pair, correlation in summary["correlation"].items():
        print(f"  {correlation:.3f}  {pair}")


def test_each_cut_holds_every_good_band_once():
    bands = synthetic_scene(seed=0, height=20, width=20).scene.bands
    ways = cuts(bands, 4)
    assert [len(groups) for groups in ways.values()] == [14, 14, 15, 10, 15]
    for groups in ways.values():
        np.testing.assert_array_equal(membership(groups, bands).sum(0), bands.good)
    shifted = membership(ways["14 shifted by half a group"], bands).sum(1)
    assert shifted[[0, -1]].tolist() == [8, 8] and set(shifted[1:-1].tolist()) <= {14, 15, 16}


def test_windows_hold_all_the_weight_and_profiles_of_one_shape_correlate():
    bands = synthetic_scene(seed=0, height=20, width=20).scene.bands
    weight = np.exp(-(((bands.wavelength_nm - 680) / 30) ** 2))
    assert in_windows(bands.wavelength_nm, weight).sum() == pytest.approx(weight.sum())
    found = compared(bands, {"a": weight, "b": 2 * weight, "c": weight[::-1]})
    assert found["correlation"]["a | b"] == pytest.approx(1) and found["lowest"] < 0.1


@pytest.mark.slow
def test_other_cuts_leave_the_weights_of_a_planted_scene_alike():
    rows, summary = measured(synthetic_scene(seed=0, height=48, width=48), **SMALL)
    report("planted", rows, summary)
    assert summary["lowest"] >= BAR


@pytest.mark.slow
@pytest.mark.parametrize("name", ["indian_pines", "enmap_potsdam_west"])
def test_other_cuts_leave_the_weights_of_a_real_scene_alike(name):
    """25 trainings by the default settings: a quarter of an hour on one core."""
    image = SUITE / name / "image.tif"
    if name != "indian_pines" and not image.exists():
        pytest.skip("set HSFUSION_SUITE to the folder of conf/suite.yaml")
    files = {"labels": image.with_name("labels.tif"), "scale": 1e-4}
    rows, summary = measured(hs.indian_pines() if name == "indian_pines" else hs.open_scene(image, **files))
    report(name, rows, summary)
    assert summary["lowest"] >= BAR
