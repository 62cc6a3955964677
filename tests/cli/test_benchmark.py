import json
import sys

import pytest

from hsfusion.benchmarks.comparisons import table, with_baselines

SMALL = ["model.channels=4", "model.receptive_field=3", "trainer=cpu", "threads=1", "trainer.max_epochs=1"]
SMALL += ["data.steps_per_epoch=2", "groups.number=4", "select=[]"]


def test_accuracy_compares_networks_and_the_baselines_of_the_run(hsfusion, tmp_path):
    words = ["accuracy", "scene=synthetic", "scene.height=40", "scene.width=40", *SMALL, "baselines=[lda,svm]"]
    words += ["fusions=[scalar,free]", "json=out.json", f"suite_folder={tmp_path}"]
    done = hsfusion("benchmark", *words, "seeds=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "out.json").read_text())
    assert {"date", "commit", "machine", "versions"} <= first.keys()
    assert str(tmp_path) not in json.dumps(first)
    done = hsfusion("benchmark", *words, "seeds=2", cwd=tmp_path)  # goes on
    assert done.returncode == 0, done.stderr
    assert "seed 0" not in done.stdout
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["runs"][:2] == first["runs"]
    rows = {(row["seed"], row["method"]): row for row in result["runs"]}
    assert set(rows) == {(seed, method) for seed in (0, 1) for method in ("scalar", "free")}
    accuracies = [{name: of["overall_accuracy"] for name, of in rows[s, "scalar"]["baselines"].items()} for s in (0, 1)]
    assert [list(of) for of in accuracies] == [["lda", "svm"]] * 2
    assert not rows[0, "free"]["baselines"]  # the same pixels: fitted once
    summary = result["summary"]["synthetic"]
    assert summary["svm"]["overall_accuracy"]["mean"] == pytest.approx(
        (accuracies[0]["svm"] + accuracies[1]["svm"]) / 2
    )
    best = max(("lda", "svm"), key=lambda name: accuracies[0][name] + accuracies[1][name])
    gains = [rows[seed, "free"]["overall_accuracy"] - accuracies[seed][best] for seed in (0, 1)]
    ahead = summary["free"]["ahead"]
    assert (ahead["baseline"], ahead["splits"]) == (best, 2)
    assert ahead["mean"] == pytest.approx(sum(gains) / 2)
    assert ahead["high"] - ahead["mean"] == pytest.approx(12.7062 * abs(gains[0] - gains[1]) / 2, rel=1e-4)
    done = hsfusion("benchmark", *words, "band_cost=0", cwd=tmp_path)
    assert done.returncode == 2
    assert "results of another command" in done.stderr


@pytest.mark.slow
def test_best_baseline_has_the_same_spread_in_its_own_row_and_beside_the_network():
    def reached(accuracy):
        numbers = dict.fromkeys(("overall_accuracy", "average_accuracy", "kappa"), accuracy)
        return {**numbers, "seconds": 1.0, "split": {"leakage": 0.0}}

    rows = [
        {"method": "channel", "seed": seed, **reached(0.9), "baselines": {"lda": reached(0.7 + seed / 10)}}
        for seed in (0, 1)
    ]
    assert [line.count("0.7500 ± 0.0707") for line in table(with_baselines(rows))[1:]] == [1, 2]


def test_suite_measures_the_rows_whose_files_exist(hsfusion, tmp_path):
    words = ["accuracy", "scenes=suite", "seeds=1", *SMALL, "baselines=[lda]", "json=out.json", "suite_folder=none"]
    done = hsfusion("benchmark", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    skipped = next(line for line in done.stdout.splitlines() if line.startswith("skipped"))
    assert skipped.endswith("indian_pines_hong, indian_pines_dase, salinas_a_10, enmap_potsdam_west, muufl_crop")
    runs = json.loads((tmp_path / "out.json").read_text())["runs"]
    kinds = {row["scene"]: row["split"]["kind"] for row in runs}
    names = {"blocks": "blocks", "fields": "fields", "random": "random"}
    expected = {f"indian_pines_{name}": kind for name, kind in names.items()}
    assert kinds == expected | {"synthetic_proxies": "blocks"}
    assert all(row["baselines"]["lda"]["overall_accuracy"] > 0.3 for row in runs)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("indian_pines_fields  ")]
    assert "shrinkage LDA" in line


def test_rows_of_a_suite_can_be_chosen(hsfusion, tmp_path):
    words = ["accuracy", "scenes=suite", "seeds=1", *SMALL, "baselines=[lda]", "json=out.json", "suite_folder=none"]
    rows = "rows=[indian_pines_fields,salinas_a_10,synthetic_proxies]"
    done = hsfusion("benchmark", *words, rows, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (skipped,) = [line for line in done.stdout.splitlines() if line.startswith("skipped")]
    assert skipped.endswith(" salinas_a_10")
    runs = json.loads((tmp_path / "out.json").read_text())["runs"]
    kinds = {row["scene"]: row["split"]["kind"] for row in runs}
    assert kinds == {"indian_pines_fields": "fields", "synthetic_proxies": "blocks"}
    assert all(row["baselines"]["lda"]["overall_accuracy"] > 0.3 for row in runs)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["accurcy"], "hsfusion benchmark accuracy"),
        (["accuracy", "fusions=channel"], "fusions is channel, expected a list"),
        (["accuracy", "baselines=[svn]"], "baselines is ('svn',)"),
        (["accuracy", "scenes=suite", "rows=[nowhere]"], "rows is ['nowhere']"),
        (["accuracy", "scenes=suite", "split=fields"], "the rows of the suite set them"),
        (["accuracy", "scenes=none.yaml"], "scenes is none.yaml"),
        (["accuracy", "seed=3"], "use seeds=N"),
        (["accuracy", "keep_bands=20"], "keep_bands is 20, expected a list"),
        (["fusion", "kinds=[chanel]"], "kinds is ('chanel',)"),
        (["read", "interleaves=[bsx]"], "interleaves is ('bsx',)"),
        (["predict", "formats=[jpeg]"], "formats is ('jpeg',)"),
        (["fusion", "repeats=0"], "repeats is 0, expected at least 1"),
    ],
)
def test_words_that_do_not_fit_are_refused_before_anything_runs(hsfusion, tmp_path, words, part):
    done = hsfusion("benchmark", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert part in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_fusion_compares_with_the_plain_expression(hsfusion, tmp_path):
    small = ["batch=2", "channels=8", "rows=16", "columns=16", "repeats=3", "threads=1"]
    done = hsfusion("benchmark", "fusion", "kinds=[channel,instance]", "json=out.json", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["kinds"]
    assert [row["kind"] for row in rows] == ["channel", "instance"]
    for row in rows:
        assert row["time_to_plain"] == row["median_seconds"]["module"] / row["median_seconds"]["plain"]
        assert 0.9 < row["memory"] <= row["plain_memory"]


def test_read_compares_with_a_raw_read_in_each_interleave(hsfusion, tmp_path):
    words = ["bands=5", "rows=40", "columns=50", "tile=16", "repeats=2", "folder=.", "json=out.json"]
    done = hsfusion("benchmark", "read", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["interleaves"]
    assert [row["interleave"] for row in rows] == ["bsq", "bil", "bip"]
    for row in rows:
        assert row["times_raw"].keys() == {"hsfusion", "hsfusion float32", "rasterio", "spectral"}
        assert all(len(seconds) == 2 for seconds in row["seconds"].values())
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]


@pytest.mark.parametrize("system", ["this", "without resource"])
def test_predict_compares_with_patches_and_the_bare_network(hsfusion, tmp_path, monkeypatch, system):
    if system != "this":
        monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    monkeypatch.setattr("hsfusion.benchmarks.speed.TILE", 32)  # of a size that takes no time
    words = ["rows=60", "columns=50", "formats=[bil,bsq]", "patches=300", "repeats=2", "folder=."]
    done = hsfusion("benchmark", "predict", *words, "threads=1", "json=out.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert list(result["pixels_per_second"]) == ["patch loop", "bare network", "predict, bil", "predict, bsq"]
    assert ("peak memory" in done.stdout) == (result["peak_gib"] is not None)
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]


def test_train_compares_with_a_bare_loop_and_one_of_copied_patches(hsfusion, tmp_path):
    words = ["scene=synthetic", "scene.height=30", "scene.width=30", "data.steps_per_epoch=2", "data.batch_size=4"]
    small = ["trainer.max_epochs=1", "model.receptive_field=3", "repeats=2", "threads=1", "json=out.json"]
    done = hsfusion("benchmark", "train", *words, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert {"date", "commit", "machine", "command", "config", "versions"} <= result.keys()
    assert list(result["samples_per_second"]) == ["training", "bare", "bare, whitened", "toolbox"]
    for ratios in result["training_to"].values():
        assert ratios.keys() == {"bare", "bare, whitened", "toolbox"}
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]
    done = hsfusion("benchmark", "train", "run_dir=elsewhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "run_dir" in done.stderr.splitlines()[-1]


def test_help_lists_what_can_be_measured(hsfusion, tmp_path):
    done = hsfusion("benchmark", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "accuracy" in done.stdout
    assert "fusion" in done.stdout
