import csv
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from hsfusion.data.synthetic import synthetic_scene
from hsfusion.runs.settings import even_groups
from hsfusion.runs.training import train
from hsfusion.training.callbacks import History
from hsfusion.training.model_file import load_model

from .conftest import SMALL

CONTRACT = [
    "config.yaml",
    "inputs.json",
    "metrics.json",
    "band_weights.csv",
    "response.csv",
    "group_weights.csv",
    "model.safetensors",
    "map.tif",
    "confidence.tif",
    "split.tif",
    "report.html",
    "train.log",
    "checkpoints/last.ckpt",
    "weight_history.csv",
    *(
        f"figures/{name}.{kind}"
        for name in ("group_weights", "band_weights", "training", "confusion", "map")
        for kind in ("png", "svg")
    ),
]


def test_run_folder_keeps_the_contract_and_nothing_lies_beside_it(run):
    assert [name for name in CONTRACT if not (run / name).is_file()] == []
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_accuracies_can_be_recomputed_from_the_rasters(run):
    metrics = json.loads((run / "metrics.json").read_text())
    truth = synthetic_scene(seed=0, height=40, width=40).labels
    with rasterio.open(run / "split.tif") as split, rasterio.open(run / "map.tif") as classes:
        test = split.read(1) == 3
        accuracy = (classes.read(1)[test] == truth[test]).mean()
    assert metrics["test"]["overall_accuracy"] == pytest.approx(accuracy)
    assert metrics["split"]["test_pixels"] == test.sum()
    assert metrics["split"]["leakage"] == 0.0
    assert set(metrics) == {"split", "test", "timing", "chance", "importance", "seed", "versions"}
    windows = metrics["importance"]
    assert sum(windows["weight"]) == pytest.approx(1, abs=1e-3)
    assert len({len(windows[name]) for name in ("lower_nm", "data", "data_error", "network", "permuted")}) == 1
    assert set(windows["agreement"]) == {"integrated_gradients", "permutation", "permutation_size"}
    assert f"All {len(windows['weight'])} windows of 50 nm: used, and needed?" in (run / "report.html").read_text()


def test_tables_agree_with_each_other(run):
    def table(name):
        with open(run / name, newline="") as file:
            return list(csv.DictReader(file))

    rows = table("group_weights.csv")
    size = {r["channel"]: sum(abs(float(o["weight"])) for o in rows if o["channel"] == r["channel"]) for r in rows}
    response = {(r["group"], r["channel"], r["band"]): float(r["weight"]) for r in table("response.csv")}
    weight = np.zeros(211)
    share = {}
    for row in rows:
        share[row["channel"]] = float(row["channel_share"])
        for (group, channel, band), s in response.items():
            if (group, channel) == (row["group"], row["channel"]):
                weight[int(band) - 1] += share[channel] * abs(float(row["weight"])) / size[channel] * s
    said = np.array([float(row["weight"]) for row in table("band_weights.csv")])
    np.testing.assert_allclose(weight, said, atol=1e-6)
    assert sum(share.values()) == pytest.approx(1)


def test_model_file_holds_the_model_of_the_map(run):
    network, header = load_model(run / "model.safetensors")
    assert header.scene_name == "synthetic"
    assert header.test == json.loads((run / "metrics.json").read_text())["test"]
    assert network.receptive_field == 5


def test_report_is_one_page_without_network(run):
    page = (run / "report.html").read_text()

    class Links(HTMLParser):
        def __init__(self):
            super().__init__()
            self.found = []

        def handle_starttag(self, tag, attrs):
            self.found += [value for key, value in attrs if key in {"src", "href"} and value]

    parser = Links()
    parser.feed(page)
    assert len(parser.found) >= 6
    assert all(link.startswith(("data:", "#")) for link in parser.found)
    assert len(page) < 2_000_000


def test_log_tells_the_command_the_split_and_the_result(run):
    log = (run / "train.log").read_text()
    for part in (
        "hsfusion train scene=synthetic",
        "training",
        "leakage 0.0000",
        "epoch 1: training loss",
        "overall accuracy",
    ):
        assert part in log


def test_geotiff_with_holes_becomes_a_map_on_its_grid(hsfusion, tmp_path):
    labelled = synthetic_scene(seed=0, height=40, width=40)
    cube = labelled.scene.read((0, 0, 40, 40))
    cube[5, 20, 21] = -1
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(30, 0, 500000, 0, -30, 4500000)}
    shape = {"driver": "GTiff", "height": 40, "width": 40}
    with rasterio.open(tmp_path / "cube.tif", "w", count=211, dtype="float32", nodata=-1, **shape, **place) as file:
        file.write(cube)
    with rasterio.open(tmp_path / "gt.tif", "w", count=1, dtype="uint8", nodata=0, **shape, **place) as file:
        file.write(labelled.labels.astype(np.uint8), 1)
    lines = "\n".join(f"{nm:g}" for nm in labelled.scene.bands.wavelength_nm)
    (tmp_path / "bands.csv").write_text(f"wavelength_nm\n{lines}\n")
    words = ["scene=file", "scene.cube=cube.tif", "scene.labels=gt.tif", "scene.wavelengths=bands.csv"]
    small = [word for word in SMALL if not word.startswith("scene")]
    done = hsfusion("train", *words, *small, "run_dir=run", "scene.class_names={1: corn, 2: woods}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "<title>hsfusion: cube</title>" in (tmp_path / "run" / "report.html").read_text()
    with rasterio.open(tmp_path / "run" / "map.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert file.transform == place["transform"]
        assert file.tags()["class_2"] == "woods"
        assert np.argwhere(file.read(1) == 0).tolist() == [[20, 21]]


@pytest.mark.parametrize("fusion", ["scalar", "free"])
def test_other_fusions_train_to_a_whole_run_folder(hsfusion, tmp_path, fusion):
    small = [word for word in SMALL if not word.startswith("split")]
    words = [f"model.fusion={fusion}", "split=random", "trainer.max_epochs=1"]
    done = hsfusion("train", "run_dir=run", *small, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [name for name in CONTRACT if not (tmp_path / "run" / name).is_file()] == []
    assert "leaky" in (tmp_path / "run" / "train.log").read_text()


def test_runs_of_one_second_get_folders_of_their_own(hsfusion, tmp_path):
    done = hsfusion("train", "--multirun", "seed=0,1", "name=twin", "trainer.max_epochs=1", cwd=tmp_path, small=True)
    assert done.returncode == 0, done.stderr
    folders = list((tmp_path / "runs" / "twin").iterdir())
    assert len(folders) == 2
    assert {json.loads((f / "metrics.json").read_text())["seed"] for f in folders} == {0, 1}
    assert len({(f / "model.safetensors").read_bytes() for f in folders}) == 2


def test_one_seed_gives_one_model_in_any_process(hsfusion_process, tmp_path, run):
    assert hsfusion_process("train", "run_dir=again", cwd=tmp_path, small=True).returncode == 0
    for name in ("model.safetensors", "map.tif", "figures/band_weights.svg"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()


def test_terminated_run_exits_with_143_and_keeps_its_checkpoint(tmp_path):
    words = [str(Path(sys.executable).with_name("hsfusion")), "train", *SMALL, "trainer.max_epochs=400", "run_dir=cut"]
    checkpoint = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    with (
        open(tmp_path / "stderr", "w") as stderr,
        subprocess.Popen(words, cwd=tmp_path, stdout=stderr, stderr=stderr) as process,
    ):
        while not checkpoint.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    again = f"hsfusion train {shlex.join(words[2:-1])} resume=cut"
    assert (tmp_path / "stderr").read_text().splitlines()[-1:] == [f"hsfusion: interrupted. Continue with: {again}"]
    assert torch.load(checkpoint, weights_only=True)["global_step"] >= 5


def test_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(hsfusion, tmp_path, run, monkeypatch):
    def stop(self, trainer, module):  # the schedule is that of the whole run
        if trainer.current_epoch == 1:
            raise SystemExit(9)

    with monkeypatch.context() as patched:
        patched.setattr(History, "on_train_epoch_start", stop)
        cut = hsfusion("train", "run_dir=cut", cwd=tmp_path, small=True)
    assert cut.returncode == 9, cut.stderr
    assert hsfusion("train", "run_dir=rest", "resume=cut", cwd=tmp_path, small=True).returncode == 0
    assert (tmp_path / "rest" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    done = hsfusion("train", "resume=cut", "run_dir=alone", cwd=tmp_path)  # scene and settings are those of the run
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "alone" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert (tmp_path / "alone" / "config.yaml").read_text().partition("\n")[0] == f"# {shlex.join(cut.args)}".replace(
        " run_dir=cut", ""
    )


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("seed=3", "seed is 3, expected 0 as in "),
        ("scene=indian_pines", "scene._target_ is hsfusion.data.public.indian_pines, expected hsfusion.data.synthetic"),
        ("trainer.max_epochs=9", "trainer.max_epochs is 9, expected 2 as in "),
        ("experiment=quick", "trainer.max_epochs is 15, expected 2 as in "),
        ("optimizer=sgd", "optimizer._target_ is torch.optim.SGD, expected torch.optim.AdamW as in "),
    ],
)
def test_only_what_the_call_contradicts_is_named(hsfusion, tmp_path, run, word, line):
    done = hsfusion("train", f"resume={run}", "model.channels=4", word, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"hsfusion: error: command line: {line}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "value",
    [
        "{_target_: os.system}",
        "'${oc.env:HOME}'",
        "[{_target_: builtins.eval}]",
        "!!pairs [a: {_target_: os.system}]",
        "!!omap [a: {_target_: os.system}]",
    ],
)
def test_nothing_that_only_the_record_names_is_called(hsfusion, tmp_path, run, value):
    copy = shutil.copytree(run, tmp_path / "copy")
    record = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(record.replace("label_smoothing: 0.05", f"label_smoothing: {value}"))
    done = hsfusion("train", "resume=copy", cwd=tmp_path)
    assert done.returncode == 2
    assert "_target_ is " in done.stderr and "expected one that conf/ or the command line names" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["channel", "channel_instance", "none", "free"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_every_fusion_and_optimizer_makes_a_whole_run_folder(hsfusion, tmp_path, fusion, optimizer):
    words = [f"model.fusion={fusion}", f"optimizer={optimizer}", "logger=all", "class_weights=balanced"]
    done = hsfusion("train", "run_dir=run", *words, cwd=tmp_path, small=True, drawn=True)
    assert done.returncode == 0, done.stderr
    assert [name for name in CONTRACT if not (tmp_path / "run" / name).is_file()] == []
    assert list((tmp_path / "run" / "logs").glob("events.*"))


@pytest.mark.slow
def test_several_processes_train_the_network_of_one(hsfusion_process, tmp_path):
    words = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true", "data.batch_size=50"]
    words += ["data.steps_per_epoch=25", "trainer.max_epochs=4", "class_weights=balanced"]
    kept = []
    for ranks in (1, 2, 4):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        done = hsfusion_process("train", "run_dir=run", f"trainer.devices={ranks}", *words, cwd=folder, small=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert [path.name for path in folder.iterdir()] == ["run"]
        kept.append(torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True))
    for ranks, state in zip((2, 4), kept[1:], strict=True):
        assert state["global_step"] == 100
        alone = kept[0]["state_dict"]
        off = {name: float((w.double() - alone[name].double()).abs().max()) for name, w in state["state_dict"].items()}
        print(f"{ranks} ranks: largest difference of a weight {max(off.values()):.1e}")
        assert max(off.values()) < 1e-5
        for name, curve in kept[0]["callbacks"]["History"]["curves"].items():
            np.testing.assert_allclose(state["callbacks"]["History"]["curves"][name], curve, atol=1e-3)


def test_further_raster_is_fused_and_instance_weights_come_as_a_map(hsfusion, tmp_path):
    done = hsfusion("train", "run_dir=run", "scene.step_m=5", "model.fusion=instance", cwd=tmp_path, small=True)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    with rasterio.open(run / "instance_weights.tif") as maps:
        shares = maps.read()
        names = maps.descriptions
    with open(run / "band_weights.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert names[-1] == rows[-1]["group"] == "lidar"
    assert rows[-1]["wavelength_nm"] == "nan"
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(1, abs=1e-6)
    assert shares.shape == (5, 40, 40)
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)
    network, header = load_model(run / "model.safetensors")
    assert header.sources == (("lidar", 1),)
    assert len(network.mean) == 212


def test_chosen_bands_are_named(hsfusion, tmp_path):
    done = hsfusion("train", "run_dir=run", "model.keep_bands=6", cwd=tmp_path, small=True)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "run" / "band_weights.csv", newline="") as file:
        used = [f"{float(row['wavelength_nm']):.0f}" for row in csv.DictReader(file) if float(row["weight"]) > 0]
    assert len(used) == 6
    named = ", ".join(used) + " nm"
    assert f"kept bands   {named}" in done.stdout
    assert f"6 of 211: {named}" in (tmp_path / "run" / "report.html").read_text()


def test_run_that_learned_nothing_says_that_its_weights_are_no_evidence(hsfusion, tmp_path):
    done = hsfusion("train", "run_dir=run", "scene.contrast=0", cwd=tmp_path, small=True, drawn="svg")
    assert done.returncode == 0, done.stderr
    assert "No evidence: " in (tmp_path / "run" / "report.html").read_text()
    assert "no evidence" in (tmp_path / "run" / "figures" / "band_weights.svg").read_text()


def test_weights_of_every_epoch_are_kept(run):
    with open(run / "weight_history.csv", newline="") as file:
        history = list(csv.reader(file))
    with open(run / "band_weights.csv", newline="") as file:
        final = [float(row["weight"]) for row in csv.DictReader(file)]
    assert [row[0] for row in history] == ["step", "5", "10"]
    np.testing.assert_allclose([float(value) for value in history[-1][1:]], final, atol=1e-5)


def test_command_and_python_write_the_same_bytes(run, tmp_path):
    trained = train(
        synthetic_scene(seed=0, height=40, width=40),
        epochs=2,
        steps_per_epoch=5,
        threads=1,
        baselines=(),
        groups=even_groups(4),
        model={"channels": 4, "width": 8, "receptive_field": 5, "linear": False, "whitening": "none"},
    )
    trained.save(tmp_path / "python", figures=False)
    for name in ("model.safetensors", "band_weights.csv", "response.csv", "map.tif", "confidence.tif", "split.tif"):
        assert (run / name).read_bytes() == (tmp_path / "python" / name).read_bytes(), name
