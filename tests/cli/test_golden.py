"""What small commands write, held against ``golden.json``; ``python tests/cli/test_golden.py --write`` renews it.

Keys of every JSON file, splits and values within a tolerance are compared on every machine. Floating-point arithmetic
differs between processors and versions of torch, so digests to the bit are compared only on a kind of machine that the
file has digests of. Left out of the digests: the header of model.safetensors (its keys are compared), and of
evidence.json the versions and what was measured with a clock.
"""

import csv
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from safetensors import safe_open

from hsfusion.data.synthetic import synthetic_scene
from hsfusion.scenes.scene import read_all

GOLDEN = Path(__file__).with_name("golden.json")
ON_DESIS = [
    *("scene=simulated", "scene.of=synthetic", "scene.of.height=40", "scene.of.width=40", "scene.sensor=desis"),
    *("split.block_pixels=8", "trainer=cpu", "trainer.max_epochs=1", "data.steps_per_epoch=5", "scratch_epochs=1"),
    *("threads=1", "progress=false"),
]
EVIDENCE = [
    *(
        "name=tiny",
        "seeds=2",
        "resamples=2",
        "moved_maps=1",
        "jobs=1",
        "faithfulness_pixels=20",
        "trainer.max_epochs=1",
    ),
    *("top_k=[3]", "top_k_seeds=1", "top_k_members=1", "retrain=[svm]"),
]
PREDICT = ["device=cpu", "precision=float32", "threads=1", "progress=false", "probabilities=true"]
WRITE = "HSFUSION_WRITE_GOLDEN"
CLOCK_AND_VERSIONS = {"versions", "seconds", "timing", "train_seconds"}


@pytest.fixture(scope="module")
def folder(hsfusion, run, tmp_path_factory):
    """Folder with the run folder of a training, of a fine-tuning, maps of a cube, and an evidence folder."""
    folder = tmp_path_factory.mktemp("golden")
    shutil.copytree(run, folder / "train")
    scene = synthetic_scene(seed=1, height=30, width=50).scene
    np.save(folder / "cube.npy", read_all(scene).transpose(1, 2, 0))
    (folder / "nm.csv").write_text("wavelength_nm\n" + "".join(f"{value:.6g}\n" for value in scene.bands.wavelength_nm))
    (folder / "predict").mkdir()
    cube = ["scene=cube", "scene.path=cube.npy", "scene.wavelengths=nm.csv"]
    for words, small in (
        (["finetune", "pretrained=train", *ON_DESIS, "run_dir=finetune"], False),
        (["predict", "run=train", *cube, "out=predict/map.tif", *PREDICT], False),
        (["evidence", "folder=evidence", *EVIDENCE], True),
    ):
        done = hsfusion(*words, cwd=folder, small=small)
        assert done.returncode == 0, done.stderr
    if WRITE in os.environ:
        write(folder)
    return folder


def test_keys_of_every_json_file(folder):
    expected = json.loads(GOLDEN.read_text())["keys"]
    assert keys_of(folder) == expected


def test_splits_and_values(folder):
    expected, values = json.loads(GOLDEN.read_text())["values"], values_of(folder)
    assert values.keys() == expected.keys()
    for name, value in values.items():
        assert value == pytest.approx(expected[name], abs=1e-3 if name.startswith("accuracy") else 2e-5), name


def test_digests_to_the_bit(folder):
    digests = json.loads(GOLDEN.read_text())["digests"]
    alike = [kind for kind in digests if kind_of_machine().startswith(kind)]  # some know only the processor's name
    if not alike:
        pytest.skip(f"golden.json has no digests of {kind_of_machine()}")
    assert digests_of(folder) == digests[max(alike, key=len)]


def keys_of(folder):
    """Sorted dotted keys of every JSON file, and of the headers of the models."""
    keys = {
        str(path.relative_to(folder)): sorted(_dotted(json.loads(path.read_text()))) for path in _json_files(folder)
    }
    for name in ("train", "finetune"):
        with safe_open(folder / name / "model.safetensors", "np") as file:
            keys[f"{name}/model.safetensors"] = [key for text in file.metadata().values() for key in _header_keys(text)]
    return keys


def values_of(folder):
    """Numbers that are alike on every machine, and digests of integers that are equal."""
    values = {}
    for name in ("train", "finetune"):
        metrics = json.loads((folder / name / "metrics.json").read_text())
        values[f"split of {name}"] = _pixels(folder / name / "split.tif")
        values[f"leakage of {name}"] = metrics["split"]["leakage"]
        values[f"accuracy of {name}"] = metrics["test"]["overall_accuracy"]
        values[f"weights of {name}"] = _weights(folder / name / "band_weights.csv")
    for path in sorted((folder / "evidence").rglob("band_weights.csv")):
        values[f"weights of {path.parent.relative_to(folder)}"] = _weights(path)
    return values


def digests_of(folder):
    """SHA-256 of tensors, tables and pixels."""
    digests = {}
    for name in ("train", "finetune"):
        digests[f"{name}/model.safetensors"] = _tensors(folder / name / "model.safetensors")
    for path in sorted(path for name in ("train", "finetune", "predict", "evidence") for path in _files(folder / name)):
        name = str(path.relative_to(folder))
        if path.suffix == ".csv":
            digests[name] = _sha256(path.read_bytes())
        elif path.suffix == ".tif":
            digests[name] = _pixels(path)
    content = json.loads((folder / "evidence" / "evidence.json").read_text())
    digests["evidence/evidence.json"] = _sha256(json.dumps(_repeatable(content), sort_keys=True).encode())
    return digests


def kind_of_machine():
    """Version of torch, instructions that it uses, and name (as a short digest), family and model of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line for line in lines if line.startswith("model name")), platform.processor())
    instructions = torch.backends.cpu.get_cpu_capability()
    name = f"torch {torch.__version__}, numpy {np.__version__}, {instructions}, processor {_sha256(model.encode())[:8]}"
    family = [line.split(":")[1].strip() for line in lines if line.startswith(("cpu family", "model\t"))][:2]
    return f"{name}, family and model {' '.join(family)}"


def _files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and "scratch" not in path.parts]


def _json_files(folder):
    return sorted(path for name in ("train", "finetune", "evidence") for path in (folder / name).rglob("*.json"))


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _pixels(path):
    with rasterio.open(path) as file:
        return _sha256(file.read().tobytes())


def _tensors(path):
    digest = hashlib.sha256()
    with safe_open(path, "np") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tensor.shape} ".encode() + tensor.tobytes())
    return digest.hexdigest()


def _weights(path):
    with open(path, newline="") as file:
        return [round(float(row["weight"]), 7) for row in csv.DictReader(file)]


def _header_keys(text):
    try:
        return sorted(_dotted(json.loads(text)))
    except ValueError:
        return []


def _dotted(value, prefix=""):
    """Dotted keys of nested values; the entries of a list count as one."""
    if isinstance(value, list):
        return set().union(*(_dotted(entry, f"{prefix}[]") for entry in value)) if value else {prefix}
    if not isinstance(value, dict):
        return {prefix}
    return set().union({prefix} - {""}, *(_dotted(of, f"{prefix}.{key}".lstrip(".")) for key, of in value.items()))


def _repeatable(value):
    if isinstance(value, dict):
        return {key: _repeatable(of) for key, of in value.items() if key not in CLOCK_AND_VERSIONS}
    return [_repeatable(of) for of in value] if isinstance(value, list) else value


def write(folder):
    """Renews the file; digests of other kinds of machines stay where those of this one are what they were."""
    digests = json.loads(GOLDEN.read_text())["digests"] if GOLDEN.exists() else {}
    here, now = kind_of_machine(), digests_of(folder)
    digests = {**digests, here: now} if digests.get(here, now) == now else {here: now}
    content = {"keys": keys_of(folder), "values": values_of(folder), "digests": digests}
    GOLDEN.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    assert sys.argv[1:] == ["--write"], "usage: python tests/cli/test_golden.py --write"
    # a new process: NumPy is loaded here already, with as many threads as there are cores
    environment = {**os.environ, WRITE: "1"}
    raise SystemExit(subprocess.call([sys.executable, "-m", "pytest", "-q", __file__], env=environment))
