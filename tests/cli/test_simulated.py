"""Scenes as other sensors see them, on the command line."""

import json

import numpy as np
import pytest
import yaml

from hsfusion.spectra import BandWeights

SMALL = ["scene=simulated", "scene.of=synthetic", "scene.of.height=40", "scene.of.width=40"]
QUICK = ["model.channels=4", "trainer=cpu", "threads=1", "trainer.max_epochs=1", "data.steps_per_epoch=3"]
QUICK += ["baselines=[]"]


def test_network_is_trained_on_the_bands_of_the_sensor_and_the_run_says_so(hsfusion, tmp_path):
    words = [*SMALL, "scene.sensor=sentinel2", *QUICK, "progress=false", "run_dir=run"]
    done = hsfusion("train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "synthetic_sentinel2: 12 of the 12 bands of the sensor" in (tmp_path / "run" / "train.log").read_text()
    scene = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["scene"]
    assert (scene["sensor"], scene["of"]["height"]) == ("sentinel2", 40)
    weights = BandWeights.from_csv(tmp_path / "run" / "band_weights.csv")
    assert weights.bands.wavelength_nm.tolist()[-2:] == [1613.7, 2202.4]


@pytest.mark.slow
def test_description_of_a_scene_can_be_simulated_and_is_recorded(hsfusion, tmp_path):
    rng = np.random.default_rng(0)
    labels = (np.indices((40, 40)) // 10).sum(axis=0) % 2 + 1
    np.save(tmp_path / "cube.npy", (labels[..., None] + rng.random((40, 40, 30))).astype(np.float32))
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "nm.csv").write_text("wavelength_nm\n" + "".join(f"{nm}\n" for nm in range(430, 1030, 20)))
    (tmp_path / "mine.csv").write_text("wavelength_nm,fwhm_nm\n500,40\n600,40\n800,60\n1100,60\n")
    (tmp_path / "field.yaml").write_text("cube: cube.npy\nlabels: labels.npy\nwavelengths: nm.csv\n")
    words = ["scene=simulated", "scene.of=field.yaml", "scene.sensor=mine.csv", "groups.number=2", *QUICK]
    done = hsfusion("train", *words, "split.block_pixels=10", "run_dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "field_mine: 3 of the 4 bands" in (tmp_path / "run" / "train.log").read_text()
    of = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["scene"]["of"]
    assert of["contents"][0]["cube"] == str(tmp_path / "cube.npy")
    model = ["run=run", "scene=simulated", "scene.of=cube.npy", "scene.of.wavelengths=nm.csv", "scene.sensor=mine.csv"]
    done = hsfusion("predict", *model, "out=map.tif", "device=cpu", "threads=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "map.tif").is_file()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["scene=simulated"], "scene.sensor is missing"),
        (["scene=simulated", "scene.sensor=enmapp"], "did you mean enmap?"),
        (["scene=simulated", "scene.sensor=5"], "sensor: name is 5, expected enmap | prisma"),
        (["scene=simulated", "scene.sensor=enmap", "scene.of=salinas_b"], "did you mean scene=salinas_a?"),
        (["scene=simulated", "scene.sensor=emit", "scene.of=file", "scene.of.labels=x"], "scene.of.cube is missing"),
        (["scene=simulated", "scene.sensor=enmap", "scene.of=cube", "scene.of.path=5"], "5: file is missing"),
        (["scene.of=salinas"], "key is scene.of, expected a key of the configuration"),
    ],
)
def test_words_that_do_not_fit_are_one_line(hsfusion, tmp_path, words, part):
    done = hsfusion("train", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert part in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_sensors_are_compared_on_the_same_pixels(hsfusion, tmp_path):
    words = ["sensors", "sensors=[sentinel2,desis]", "seeds=2", "json=out.json", *QUICK]
    small = ["scene=synthetic", "scene.height=40", "scene.width=40", "groups.number=4"]
    small += ["model.width=8", "model.receptive_field=3"]
    done = hsfusion("benchmark", *words, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    rows = {(row["seed"], row["method"]): row for row in result["runs"]}
    assert set(rows) == {(seed, method) for seed in (0, 1) for method in ("as it is", "sentinel2", "desis")}
    for seed in (0, 1):
        assert rows[seed, "as it is"]["split"] == rows[seed, "sentinel2"]["split"] == rows[seed, "desis"]["split"]
        assert rows[seed, "sentinel2"]["bands"] == 12
    values = [rows[seed, "desis"]["overall_accuracy"] for seed in (0, 1)]
    spread = result["summary"]["desis"]["overall_accuracy"]
    assert (spread["mean"], spread["std"]) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    mean = result["summary"]["sentinel2"]["overall_accuracy"]["mean"]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("sentinel2 ")]
    assert f"{mean:.4f} ± " in line and " of 12 " in line


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["sensors=enmap"], "sensors is enmap, expected a list"),
        (["sensors=[enmap,moon]"], "sensor: name is moon"),
        (["sensors=[enmap,enmap]"], "sensors is ['enmap', 'enmap'], expected a list, each entry once"),
        (["seed=3"], "use seeds=N"),
        (
            ["sensors=[desis]", "groups=classic"],
            "groups and model, as desis sees the scene: number of good bands in SWIR1",
        ),
    ],
)
def test_comparisons_that_cannot_be_made_are_refused_before_anything_is_trained(hsfusion, tmp_path, words, part):
    done = hsfusion("benchmark", "sensors", "scene=synthetic", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert part in done.stderr.splitlines()[-1]
    assert done.stdout == ""
