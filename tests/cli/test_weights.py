"""``hsfusion weights``: what it reads, draws, writes and refuses."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from hsfusion.cli import pages
from hsfusion.errors import InputError
from hsfusion.runs.comparison import compare, read_evidence
from hsfusion.runs.report import page
from hsfusion.spectra import BandGroup, Bands, BandWeights
from hsfusion.spectra.weights import untrained_weights, write_group_weights_csv, write_response_csv
from hsfusion.training.model_file import ClassList, ModelHeader

NM = np.arange(400.0, 1600, 20)
GROUPS = ("VNIR", "SWIR")
CHANNELS = 3


def profile(seed, peaks=(660, 1320)):
    """Weights with two peaks, a little different for each seed."""
    noise = np.random.default_rng(seed).uniform(0, 0.002, NM.size)
    weight = sum(np.exp(-(((NM - peak) / 40) ** 2)) for peak in peaks) + noise
    return weight / weight.sum()


def write_tables(folder, weight, *, nm=NM, seed=0, fusion="channel", beats_chance=True, duplicates=()):
    """A run folder as training leaves it, as far as the command reads it."""
    folder.mkdir(parents=True)
    bands = Bands(nm, np.full(nm.size, 10.0), np.ones(nm.size, bool))
    inside = np.stack([nm < 1000, nm >= 1000])
    BandWeights(bands, tuple(GROUPS[int(at)] for at in nm >= 1000), weight).to_csv(folder / "band_weights.csv")
    response = np.stack([np.tile(weight * row / max((weight * row).sum(), 1e-9), (CHANNELS, 1)) for row in inside])
    write_response_csv(folder / "response.csv", response, bands=bands, groups=GROUPS, membership=inside)
    sizes, share = np.array([[0.5, -0.25, 1.0], [-0.5, 0.75, 0.0]]), np.array([0.2, 0.5, 0.3])
    write_group_weights_csv(folder / "group_weights.csv", sizes, groups=GROUPS, channel_share=share)
    header = ModelHeader(
        bands=bands,
        groups=(BandGroup("VNIR", 400, 1000), BandGroup("SWIR", 1000, 1600)),
        classes=ClassList((1,), ("corn",), ("#ff0000",)),
        architecture={"fusion": fusion},
        training_scene={"name": "made up", "shape": [9, 9], "transform": [1, 0, 0, 0, 1, 0], "crs": None, "values": []},
        checksum="of tensors that nobody reads here",
    )
    correlation = np.exp(-np.abs(nm[:, None] - nm) / 400)[np.triu_indices(nm.size)]  # 0.951 of neighbours
    tensors = {"mean": np.ones(nm.size), "covariance": correlation}
    save_file(tensors, folder / "model.safetensors", {"hsfusion": json.dumps(header.to_dict())})
    metrics = {
        "split": {"kind": "blocks", "train_pixels": 900, "val_pixels": 100, "test_pixels": 2000, "leakage": 0.0},
        "test": {"overall_accuracy": 0.9, "average_accuracy": 0.7, "kappa": 0.8},
        "seed": seed,
        "versions": {"hsfusion": "0.1.0"},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    known = {"beats_chance": beats_chance, "duplicates": list(duplicates)}
    (folder / "verdict.json").write_text(json.dumps(known))
    return folder


def curve(steps, *, sign):
    """A curve of a faithfulness test: random orders fall straight."""
    along = np.linspace(0, 1, steps)
    middle = 0.9 - 0.7 * (along if sign < 0 else 1 - along)
    return {
        "accuracy": np.clip(middle + sign * 0.2 * np.sin(np.pi * along), 0, 1).tolist(),
        "random_mean": middle.tolist(),
        "random_lower": (middle - 0.05).tolist(),
        "random_upper": (middle + 0.05).tolist(),
        "area": 0.14,
        "lower": 0.1,
        "upper": 0.18,
        "p": 1 / 200,
    }


def write_evidence(folder, *, seeds=2, resamples=2, without=()):
    """An evidence folder as its contract says."""
    pairs = [(seed, resample) for seed in range(seeds) for resample in range(resamples)]
    profiles = np.stack([profile(10 * seed + resample) for seed, resample in pairs])
    for (seed, resample), weight in zip(pairs, profiles, strict=True):
        write_tables(folder / "runs" / f"seed-{seed}-resample-{resample}", weight, seed=seed)
    windows = [
        {"lower_nm": 635.0, "upper_nm": 685.0, "weight": 0.3, "raised": 2.5, "frequency": 1.0, "group": "VNIR"},
        {"lower_nm": 1295.0, "upper_nm": 1345.0, "weight": 0.3, "raised": 2.5, "frequency": 0.75, "group": "SWIR"},
    ]
    agreement = {"index": 0.9, "lower": 0.85, "upper": 0.95, "profiles": 2, "members": 2}
    gains = {"weights": 0.03, "evenly spaced": 0.01, "random": -0.03, "lowest weights": -0.2}
    gains |= {"mutual information": -0.02, "PCA loading": -0.06, "SVM weights": -0.01}
    retrained = {
        name: [[base + gain + 0.01 * split for split in (-1, 0, 1)] for base in (0.6, 0.7, 0.76, 0.79)]
        for name, gain in gains.items()
    }
    numbers = [0, 6, 15, 30, 45, 60]
    kinds = {"deletion": curve(6, sign=-1), "insertion": curve(6, sign=1)}
    content = {
        "scene": "made up",
        "fusion": "channel",
        "command": "hsfusion evidence folder=evidence seeds=2",
        "sources": [],
        "split": {"kind": "blocks", "leakage": 0.0},
        "bands": {"wavelength_nm": NM.tolist(), "fwhm_nm": None, "good": [True] * NM.size},
        "band_groups": [GROUPS[int(at)] for at in NM >= 1000],
        "groups": [
            {"name": "VNIR", "lower_nm": 400, "upper_nm": 1000},
            {"name": "SWIR", "lower_nm": 1000, "upper_nm": 1600},
        ],
        "runs": [
            {
                "seed": seed,
                "resample": resample,
                "folder": str(folder / "runs" / f"seed-{seed}-resample-{resample}"),
                "overall_accuracy": 0.82,
                "average_accuracy": 0.8,
                "beats_chance": True,
            }
            for seed, resample in pairs
        ],
        "profiles": profiles.tolist(),
        "untrained": [1 / NM.size] * NM.size,
        "stability": {
            "bands": 20,
            "half_width": 3,
            "index_of_members": {"1": 0.8, "2": 0.9},
            "single": agreement,
            "reported": agreement,
        },
        "faithfulness": {
            "seed": 0,
            "numbers": numbers,
            **{kind: {"mean": values, "conditional": values} for kind, values in kinds.items()},
            "groups": [
                {"name": "VNIR", "importance": 0.31, "p": 1 / 21},
                {"name": "SWIR", "importance": -0.01, "p": 0.6},
            ],
        },
        "top_k": {
            "numbers": [5, 10, 20, 30],
            "full": {"network": 0.82, "svm": 0.77},
            "cheapest": {"network": 20, "svm": None},
            "random_p_blocks": [1 / 21, 1 / 21, 0.5, 1.0],
            "members_blocks": [4, 3, 3],
            "blocks": {"network": retrained, "svm": retrained},
            "random": {"network": retrained, "svm": retrained},
        },
        "uniformity_p": 0.001,
        "moved": {"index of single runs": {"labels": 0.8, "moved": [0.3, None]}},
        "duplicates": [[3, 4, 0.99995]],
        "verdict": {"word": "supported", "sentences": ["Repeated trainings agree."], "windows": windows},
    }
    content = {key: value for key, value in content.items() if key not in without}
    (folder / "evidence.json").write_text(json.dumps(content))
    return folder


def call(*words):
    pages.weights(list(map(str, words)))


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def three(tmp_path):
    return [write_tables(tmp_path / f"run{seed}", profile(seed), seed=seed) for seed in range(3)]


def test_one_run_is_drawn_and_judged_as_one(three, capsys):
    call(three[0])
    out = three[0] / "weights"
    assert "verdict: not tested" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        *("weights.csv", "weights.json", "windows.csv"),
        *(f"{stem}.{kind}" for stem in ("band_weights",) for kind in ("svg", "png")),
    }
    assert "not tested" in (out / "band_weights.svg").read_text()
    table = rows(out / "weights.csv")
    assert [row["rank"] for row in table] == [str(rank) for rank in range(1, NM.size + 1)]
    weight = profile(0)
    assert [int(row["band"]) - 1 for row in table] == np.argsort(-weight, kind="stable").tolist()
    assert table[0]["fwhm_nm"] == "10"
    assert {row["selection_frequency"] for row in table} == {""}
    told = json.loads((out / "weights.json").read_text())
    assert told["bands"][0]["weight"] == pytest.approx(weight.max(), rel=1e-8)
    assert told["stability"] is None
    assert told["runs"][0]["leakage"] == 0.0


def test_several_runs_are_reported_by_their_median_with_quartiles(three):
    found = compare(three)
    profiles = np.stack([profile(seed) for seed in range(3)])
    assert found.spread is not None
    edges = (found.spread.lower, found.reported.weight, found.spread.upper)
    scaled = np.quantile(profiles, [0.25, 0.5, 0.75], axis=0) / np.median(profiles, axis=0).sum()
    np.testing.assert_allclose(edges, scaled, rtol=1e-6)
    assert found.spread.frequency.sum() == pytest.approx(10)  # those above the mean
    assert found.stability is not None and found.stability.profiles == 3
    assert found.groups == (("VNIR", 400, 1000), ("SWIR", 1000, 1600))


def test_runs_that_agree_and_runs_that_do_not_are_told_apart(tmp_path, three):
    # outside of the peaks the bands that make 20 are noise, but the windows around the peaks agree
    nearly = [profile(5) * (1 + 1e-2 * profile(seed)) for seed in range(3)]
    alike = [write_tables(tmp_path / f"alike{i}", of / of.sum(), seed=i) for i, of in enumerate(nearly)]
    apart = [
        write_tables(tmp_path / f"apart{seed}", profile(seed, peaks=(peak, peak + 60)), seed=seed)
        for seed, peak in enumerate((440, 840, 1440))
    ]
    agreed = compare(alike)
    assert (agreed.verdict.word, agreed.stamp) == ("not tested", "not tested")
    assert compare(apart).stamp in {"not supported", "no evidence"}


def test_untrained_weights_are_equal_in_groups_and_follow_the_spacing_of_bands():
    nm = np.array([400.0, 500, 600, 700, 800, 850, 900])
    bands = Bands(nm, None, np.array([True] * 3 + [False] + [True] * 3))
    table = BandWeights(bands, ("A", "A", "A", "A", "B", "A|B", ""), np.full(7, 1 / 7))
    # of the bands in use 400, 500, 600, 800, 850, at 100, 100, 200 and 50 nm: the median spacing is 100 nm
    width = np.array([100, 100, 100, 75, 75])
    expected = np.array([*width[:3], 0, 75]) / 375 / 2 + np.array([0, 0, 0, 75, 75]) / 150 / 2
    found = untrained_weights(table, knot_spacing_nm=1.0, number=4000).mean(0)  # bumps of single bands
    np.testing.assert_allclose(found, [*expected[:3], 0, *expected[3:], 0], rtol=0.03)


def test_runs_that_kept_what_their_groups_started_with_do_not_agree(tmp_path):
    start = np.where(NM < 1000, 0.5 / 30, 0.5 / 15) * (NM < 1300)
    folders = []
    for seed in range(6):
        weight = start * np.exp(np.random.default_rng(seed).normal(0, 0.05, NM.size))
        folder = write_tables(tmp_path / f"r{seed}", weight / weight.sum(), seed=seed)
        bands = Bands(NM, None, NM < 1300)
        names = tuple("" if nm >= 1300 else GROUPS[int(nm >= 1000)] for nm in NM)
        BandWeights(bands, names, weight / weight.sum()).to_csv(folder / "band_weights.csv")
        folders.append(folder)
    found = compare(folders)
    assert found.stability is not None and found.spread is not None
    assert found.stability.index < 0.3  # over all bands the 15 without weight would count as agreement
    assert (found.spread.frequency[NM >= 1300] == 0).all()
    assert found.verdict.word in {"not supported", "no evidence"}


def test_a_run_no_better_than_chance_is_no_evidence(tmp_path, three):
    chance = write_tables(tmp_path / "chance", profile(9), beats_chance=False)
    found = compare([three[0], chance])
    assert [run.beats_chance for run in found.runs] == [True, False]
    assert found.stamp == "no evidence"


@pytest.mark.parametrize("fusion", ["free", "channel"])
def test_weights_of_a_free_convolution_are_no_evidence(tmp_path, fusion):
    found = compare([write_tables(tmp_path / "r", profile(0), fusion=fusion)])
    assert found.stamp == ("no evidence" if fusion == "free" else "not tested")


def test_that_runs_carried_over_from_one_network_agree_is_no_evidence(tmp_path, three):
    assert compare(three).stamp == "not tested"
    (three[1] / "transfer.json").write_text("{}")
    found = compare(three)
    assert found.stamp == "no evidence"
    assert "start from its weights" in found.verdict.sentences[0]


def test_one_training_twice_is_refused(tmp_path, three):
    copy = write_tables(tmp_path / "copy", profile(0))
    with pytest.raises(InputError, match=r"weights is those of .*, expected those of another training"):
        compare([*three, copy])


def test_selections_are_of_the_bands_in_use_only(tmp_path):
    """Of 30 bands in use 3 stand out; the mean over all 60 would let the others count."""
    rng, used = np.random.default_rng(0), NM < 1000
    folders = []
    for seed in range(3):
        weight = np.where(used, rng.uniform(0.5, 1.0, NM.size), 0.0)
        weight[[3, 12, 24]] = 6.0
        folder = write_tables(tmp_path / f"r{seed}", weight / weight.sum(), seed=seed)
        table = BandWeights(Bands(NM, None, used), tuple("VNIR" if at else "" for at in used), weight / weight.sum())
        table.to_csv(folder / "band_weights.csv")
        folders.append(folder)
    found = compare(folders)
    assert found.spread is not None
    assert np.flatnonzero(found.spread.frequency).tolist() == [3, 12, 24]


def test_bands_of_the_same_values_are_named_together(tmp_path):
    at = int(np.argmin(np.abs(NM - 660)))
    pairs = [[at, at + 1, 0.99995], [at + 2, at + 3, 0.99993], [at + 1, at + 2, 0.99991]]
    pairs.append([0, 1, 0.9999])  # this pair lies outside the windows of great weight
    verdict = compare([write_tables(tmp_path / "r", profile(0), duplicates=pairs)]).verdict
    assert verdict is not None
    [sentence] = [sentence for sentence in verdict.sentences if "are redundant" in sentence]
    names = [f"{band + 1} ({NM[band]:g} nm)" for band in range(at, at + 4)]
    assert (
        f"Bands {', '.join(names[:3])} and {names[3]} are redundant (absolute correlation at least 0.99991)" in sentence
    )


def test_selected_bands_are_written_as_a_table_and_as_groups_of_one_band(three, capsys, undrawn):
    call(three[0], "select=4")
    out = three[0] / "weights"
    chosen = rows(out / "selected_4.csv")
    assert [float(row["wavelength_nm"]) for row in chosen] == sorted(float(row["wavelength_nm"]) for row in chosen)
    assert "4 bands, at least 40 nm apart: 640, 680, 1300, 1340 nm" in (said := capsys.readouterr().out)
    # neighbours say the same, but between two chosen bands there is one, which goes to the first
    assert "equivalent filters: 610-670, 670-710, 1270-1330, 1330-1370 nm" in said
    assert [float(row["filter_centre_nm"]) for row in chosen] == [640, 690, 1300, 1350]
    assert [float(row["filter_width_nm"]) for row in chosen] == [60, 40, 60, 40]
    assert "groups=selected_4 band_cost=0" in said
    text = (out / "groups" / "selected_4.yaml").read_text()
    for row in chosen:
        nm = float(row["wavelength_nm"])
        assert f"band {row['band']}: [{nm - 1}, {nm + 1}]" in text


def test_heavy_windows_at_an_absorption_edge_are_named(three):
    at_edge = compare([write_tables(three[0].with_name("edge"), profile(0, peaks=(660, 1360)))])
    sentence = at_edge.sentences[-1]
    assert "1360" in sentence and " 660" not in sentence  # 1350 to 1430 nm is dark
    assert compare(three).atmospheric.sum() == 6
    assert NM[at_edge.atmospheric].tolist() == [1340, 1360, 1380, 1400, 1420, 1440]


def test_selected_windows_are_apart_and_groups_of_their_bands(three, capsys, undrawn):
    call(three[0], "select=2", "width=60")
    out, weight = three[0] / "weights", compare(three[:1]).reported.weight
    chosen = rows(out / "selected_2_of_60_nm.csv")
    assert "2 windows with " in (said := capsys.readouterr().out) and "groups=selected_2_of_60_nm band_cost=0" in said
    for row in chosen:
        lower, upper = float(row["lower_nm"]), float(row["upper_nm"])
        assert upper - lower == 60
        assert float(row["weight"]) == pytest.approx(weight[(lower <= NM) & (upper >= NM)].sum(), rel=1e-6)
        end = float(np.nextafter(upper, np.inf))  # groups end before their upper limit
        text = (out / "groups" / "selected_2_of_60_nm.yaml").read_text()
        assert f"window {row['rank']}: [{lower}, {end}]" in text
    assert [float(row["weight"]) for row in chosen] == sorted((float(row["weight"]) for row in chosen), reverse=True)
    assert {row["group"] for row in chosen} == {"VNIR", "SWIR"}
    call(three[0])  # knows these files as its own


@pytest.mark.slow
def test_a_network_trained_on_the_selected_bands_sees_no_other(hsfusion, tmp_path):
    first = hsfusion("train", "run_dir=run", cwd=tmp_path, small=True)
    assert first.returncode == 0, first.stderr
    chosen = hsfusion("weights", "run", "select=5", cwd=tmp_path)
    assert chosen.returncode == 0, chosen.stderr
    words = ["--config-dir", "run/weights", "groups=selected_5", "band_cost=0", "run_dir=again"]
    small = [word for word in _small() if not word.startswith("groups.")]
    done = hsfusion("train", *words, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    used = {row["band"] for row in rows(tmp_path / "again" / "band_weights.csv") if float(row["weight"]) > 0}
    assert used == {row["band"] for row in rows(tmp_path / "run" / "weights" / "selected_5.csv")}
    chosen = hsfusion("weights", "run", "select=3", "width=40", cwd=tmp_path)
    assert chosen.returncode == 0, chosen.stderr
    words = ["--config-dir", "run/weights", "groups=selected_3_of_40_nm", "band_cost=0", "run_dir=broad"]
    done = hsfusion("train", *words, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    used_nm = [float(r["wavelength_nm"]) for r in rows(tmp_path / "broad" / "band_weights.csv") if float(r["weight"])]
    windows = rows(tmp_path / "run" / "weights" / "selected_3_of_40_nm.csv")
    assert len(used_nm) == 15  # 3 windows of 5 bands
    assert all(any(float(w["lower_nm"]) <= nm <= float(w["upper_nm"]) for w in windows) for nm in used_nm)


def _small():
    from .conftest import SMALL

    return SMALL


def test_an_evidence_folder_is_drawn_whole(tmp_path, capsys, undrawn):
    folder = write_evidence(tmp_path / "evidence")
    call(folder, "select=10")
    stems = ("band_weights", "faithfulness", "top_k")
    assert {path.name for path in (folder / "weights").glob("*.svg")} == {f"{stem}.svg" for stem in stems}
    said = capsys.readouterr().out
    assert "verdict: supported" in said
    assert "keep 95 % of the accuracy (network, blocks, by validation pixels): 20 bands" in said
    windows = rows(folder / "weights" / "windows.csv")
    assert [(row["group"], row["selection_frequency"]) for row in windows[:2]] == [("VNIR", "1"), ("SWIR", "1")]


def edited(folder, **keys):
    content = json.loads((folder / "evidence.json").read_text())
    (folder / "evidence.json").write_text(json.dumps(content | keys))
    return read_evidence(folder)


def test_fewest_bands_are_printed_where_they_are_known(tmp_path):
    folder = write_evidence(tmp_path / "evidence")
    told = [line for line in page(read_evidence(folder)) if line.startswith("fewest bands")]
    start = "fewest bands that keep 95 % of the accuracy ({}, blocks, by validation pixels): {}"
    assert told == [start.format("network", "20 bands"), start.format("svm", "none of those tried")]
    top_k = json.loads((folder / "evidence.json").read_text())["top_k"]
    without = edited(folder, top_k={k: of for k, of in top_k.items() if k != "cheapest"})
    assert not [line for line in page(without) if line.startswith("fewest bands")]


def test_accuracies_on_a_split_of_any_kind_are_shown(tmp_path, undrawn, capsys):
    folder = write_evidence(tmp_path / "evidence")
    top_k = json.loads((folder / "evidence.json").read_text())["top_k"]
    top_k["fixed"] = top_k.pop("blocks")
    edited(folder, top_k=top_k, split={"kind": "fixed", "leakage": 0.0})
    call(folder)
    assert "keep 95 % of the accuracy (network, fixed" in capsys.readouterr().out
    html = (folder / "weights" / "report.html").read_text()
    assert "SVM, fixed split" in html and "SVM, random split" in html


def test_the_page_of_an_evidence_folder_shows_its_figures(tmp_path, undrawn):
    folder = write_evidence(tmp_path / "evidence", seeds=1)
    call(folder)
    page = (folder / "weights" / "report.html").read_text()
    assert len(page.encode()) < 2_000_000
    headings = ("Bands removed and inserted", "Values of a group exchanged between pixels", "Retrained on k bands")
    assert all(page.count(heading) for heading in headings)
    assert "not shown here" not in page and page.count("<img") >= 3


def test_evidence_of_one_classifier_on_one_kind_of_split_is_drawn(tmp_path, undrawn):
    """As an evidence run leaves it by default, and with random_split=null."""
    folder = write_evidence(tmp_path / "evidence")
    content = json.loads((folder / "evidence.json").read_text())
    del content["top_k"]["blocks"]["network"], content["top_k"]["random"]
    (folder / "evidence.json").write_text(json.dumps(content))
    call(folder)
    page = (folder / "weights" / "report.html").read_text()
    assert "blocks split" in page and "random split" not in page


def test_an_evidence_run_that_goes_on_is_drawn_as_far_as_it_is(tmp_path, undrawn):
    folder = write_evidence(tmp_path / "evidence", without=("faithfulness", "top_k"))
    call(folder)
    assert (folder / "weights" / "band_weights.svg").exists()
    assert not (folder / "weights" / "top_k.svg").exists()


def test_drawing_imports_no_torch(tmp_path):
    folder = write_evidence(tmp_path / "evidence", seeds=1, resamples=2, without=("top_k", "faithfulness"))
    code = (
        "import sys; from hsfusion.cli.main import run_command; "
        f"sys.argv = ['hsfusion', {str(folder)!r}, 'select=5']; code = run_command('weights'); "
        "sys.exit(code or 10 * ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_second_call_replaces_its_own_files(three, tmp_path, undrawn):
    out = tmp_path / "out"
    call(*three, f"out={out}", "select=3")
    call(*three, f"out={out}")
    assert (out / "selected_3.csv").exists() and (out / "weights.csv").exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "runs is missing, expected run folders"),
        (["nowhere"], "nowhere: run is missing, expected the folder of a run"),
        (["empty"], "empty: verdict.json is missing, expected that of a finished run"),
        (["run0", "run0"], "weights is those of run0, expected those of another training"),
        (["run0", "select=0"], "select is 0, expected at least 1"),
        (["run0", "select=61"], "select is 61, expected at most 60"),
        (["run0", "width=50"], "width is 50, expected a width together with select=K"),
        (["run0", "select=20", "width=100"], "select is 20, expected at most 1[01], the windows of 100 nm"),
        (["run0", "selct=3"], "key is selct, expected select .* did you mean select"),
        (["run0", "--plot"], "option is --plot"),
        (["run0", "other"], "other: bands is 30 from 400 to 1560 nm, 30 in use, expected 60 from 400 to 1580 nm"),
        (["run0", "turned"], "turned: bands is 60 from 1580 to 400 nm .*, expected 60 from 400 to 1580 nm"),
        (["run0", "shifted"], r"400 to 1580 nm \(band 2: 425 nm\), 60 in use, expected .* 1580 nm \(band 2: 420 nm\)"),
        (["run0", "evidence"], "expected one evidence folder alone"),
        (["run0", "out=run0/metrics.json"], "out is a file, run0/metrics.json, expected a folder"),
    ],
)
def test_bad_words_end_in_one_line(tmp_path, three, monkeypatch, words, match):
    (tmp_path / "empty").mkdir()
    write_tables(tmp_path / "other", profile(0)[::2] / profile(0)[::2].sum(), nm=NM[::2])
    write_tables(tmp_path / "turned", profile(0)[::-1], nm=NM[::-1])
    write_tables(tmp_path / "shifted", profile(0), nm=np.where(NM == 420, 425, NM))
    write_evidence(tmp_path / "evidence", seeds=1, resamples=1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=match) as error:
        call(*words)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run0" / "weights").exists()


@pytest.mark.parametrize("name", ["metrics.json", "verdict.json"])
@pytest.mark.parametrize("content", ["{}", "[]", '{"split": 1, "test": {}, "seed": 0, "beats_chance": true}'])
def test_a_run_folder_without_a_value_that_is_needed_is_one_line(three, name, content):
    (three[0] / name).write_text(content)
    with pytest.raises(InputError, match=r"run0: content is incomplete .*, expected that of a finished run"):
        compare(three[:1])


@pytest.mark.parametrize("name", ["metrics.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"\xff" * 64])
def test_a_run_folder_with_a_damaged_file_names_it(three, name, content):
    (three[0] / name).unlink()
    if content is not None:
        (three[0] / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as error:
        compare(three[:1])
    assert "\n" not in str(error.value)
