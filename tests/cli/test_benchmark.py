import json

import pytest


def test_accuracy_compares_networks_and_baselines_on_the_same_pixels(hsfusion, tmp_path):
    words = ["accuracy", "seeds=2", "fusions=[scalar]", "json=out.json", "trainer.max_epochs=1"]
    small = ["scene=synthetic", "scene.height=40", "scene.width=40", "model.channels=4", "trainer=cpu", "threads=1"]
    done = hsfusion("benchmark", *words, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    rows = {(row["seed"], row["method"]): row for row in result["runs"]}
    assert set(rows) == {(seed, method) for seed in (0, 1) for method in ("scalar", "svm", "forest")}
    for seed in (0, 1):
        assert rows[seed, "scalar"]["split"] == rows[seed, "svm"]["split"] == rows[seed, "forest"]["split"]
    mean = (rows[0, "svm"]["overall_accuracy"] + rows[1, "svm"]["overall_accuracy"]) / 2
    assert result["summary"]["svm"]["overall_accuracy"]["mean"] == pytest.approx(mean)
    assert rows[0, "svm"]["overall_accuracy"] > 0.5  # four classes, told apart by two windows
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["accurcy"], "hsfusion benchmark accuracy"),
        (["accuracy", "fusions=channel"], "fusions is channel, expected a list"),
        (["accuracy", "baselines=[svn]"], "baselines is ['svn']"),
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


def test_predict_compares_with_patches_and_the_bare_network(hsfusion, tmp_path, monkeypatch):
    monkeypatch.setattr("hsfusion.benchmarks.speed.TILE", 32)  # of a size that takes no time
    words = ["rows=60", "columns=50", "formats=[bil,geotiff]", "patches=300", "repeats=2", "folder=."]
    done = hsfusion("benchmark", "predict", *words, "threads=1", "json=out.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    names = ["patch loop", "bare network", "reading alone, bil"]
    names += ["predict, bil", "reading alone, geotiff", "predict, geotiff"]
    assert list(result["pixels_per_second"]) == names
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]


def test_help_lists_what_can_be_measured(hsfusion, tmp_path):
    done = hsfusion("benchmark", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "accuracy" in done.stdout
    assert "fusion" in done.stdout
