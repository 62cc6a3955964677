"""hsfusion predict: the map, the files beside it, and what happens when it is stopped."""

import csv
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from functools import cache

import numpy as np
import pytest
import rasterio
import torch

from hsfusion.data.synthetic import synthetic_scene
from hsfusion.runs import prediction
from hsfusion.scenes import ArrayScene, open_with_sources
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import Bands, even_groups
from hsfusion.training.building import build_network
from hsfusion.training.model_file import ClassList, ModelHeader, load_model, save_model

SHAPE = (300, 530)  # two rows of three tiles
CODES = (2, 5, 300, 301)
ALL = ("map.tif", "map.tif.aux.xml", "map_confidence.tif", "map_probabilities.tif", "map_areas.csv", "map.png")
QUIET = ("progress=false", "threads=1", "precision=float32", "device=cpu")


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A model, and a scene as ENVI file with nodata, place and one more band than the model knows."""
    folder = tmp_path_factory.mktemp("predict")
    scene = made_scene(SHAPE)
    cube = read_all(scene).copy()
    torch.manual_seed(0)
    architecture = {"channels": 6, "width": 8, "receptive_field": 5}
    groups = even_groups(scene.bands, number=4)
    network = build_network(scene.bands, groups, num_classes=4, **architecture).eval()
    network.mean.copy_(torch.from_numpy(cube.mean((1, 2))))
    network.std.copy_(torch.from_numpy(cube.std((1, 2))))
    header = ModelHeader(
        bands=Bands(scene.bands.wavelength_nm, None, scene.bands.good),
        groups=tuple(groups),
        classes=ClassList(tuple(CODES), ("water", "moor & heath", "wood", "sand"), ("#0000ff",) * 4),
        architecture=architecture,
    )
    save_model(folder / "model.safetensors", network, header=header)
    cube[:, 10, 20] = -9999
    order = np.roll(np.arange(len(cube)), 5)  # bands in another order, and one that nobody asked for
    stored = np.concatenate([cube[order], np.zeros((1, *SHAPE), np.float32)])
    wavelengths = [*scene.bands.wavelength_nm[order], 3000.0]
    write_envi(folder / "scene.img", stored, wavelengths)
    write_envi(folder / "fewer.img", stored[4:], wavelengths[4:])
    return folder


@cache
def made_scene(shape):
    """Every fifth band of a synthetic scene, which stands in it several times."""
    part = synthetic_scene(seed=0, height=100, width=106, num_classes=4).scene
    bands = Bands(part.bands.wavelength_nm[::5], None, part.bands.good[::5])
    whole = np.tile(read_all(part)[::5], (1, 3, 5))[:, : shape[0], : shape[1]]
    return ArrayScene(np.ascontiguousarray(whole), bands=bands, name="synthetic")


def write_envi(path, cube, wavelengths):
    cube.transpose(1, 2, 0).astype("<f4").tofile(path)
    path.with_suffix(".hdr").write_text(
        f"ENVI\nsamples = {cube.shape[2]}\nlines = {cube.shape[1]}\nbands = {len(cube)}\ndata type = 4\n"
        "interleave = bip\nbyte order = 0\ndata ignore value = -9999\nwavelength units = Nanometers\n"
        f"wavelength = {{{', '.join(map(str, wavelengths))}}}\n"
        "map info = {UTM, 1, 1, 500000, 5500000, 20, 20, 33, North, WGS-84}\n"
    )


def words(files, *more, scene="scene.img"):
    return ["predict", f"run={files / 'model.safetensors'}", f"scene={files / scene}", "out=map.tif", *QUIET, *more]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def expected(files, hsfusion, tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    done = hsfusion(*words(files, "probabilities=true"), cwd=folder, drawn=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_files_hold_what_they_are_named_for(files, expected):
    with rasterio.open(expected / "map.tif") as file:
        codes = file.read(1)
        assert file.shape == SHAPE
        assert file.dtypes == ("uint16",)
        assert file.nodata == 0
        assert file.crs.to_epsg() == 32633
        assert file.transform.a == 20
        assert file.profile["compress"] == "deflate"
        assert file.overviews(1) == [2, 4]
        assert file.colormap(1)[5] == (0, 0, 255, 255)
        tags = file.tags()
    assert tags["hsfusion_model_sha256"] == digest(files / "model.safetensors")
    assert tags["class_5"] == "moor & heath"
    assert "<Category>moor &amp; heath</Category>" in (expected / "map.tif.aux.xml").read_text()
    assert np.argwhere(codes == 0).tolist() == [[10, 20]]
    assert set(np.unique(codes)) <= {0, *CODES}
    with rasterio.open(expected / "map_probabilities.tif") as file:
        shares = file.read() * file.scales[0]
        assert file.descriptions == ("water", "moor & heath", "wood", "sand")
        assert file.nodata == 255
    with rasterio.open(expected / "map_confidence.tif") as file:
        confidence = file.read(1) * file.scales[0]
    there = codes > 0
    np.testing.assert_allclose(shares.sum(0)[there], 1, atol=0.01)
    np.testing.assert_allclose(confidence[there], shares.max(0)[there], atol=1e-6)
    assert (np.take_along_axis(shares, np.searchsorted(CODES, codes)[None] % 4, 0)[0] >= shares.max(0) - 0.005)[
        there
    ].all()
    with open(expected / "map_areas.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["pixels"]) for row in rows] == [int((codes == code).sum()) for code in CODES]
    assert float(rows[0]["hectares"]) == pytest.approx((codes == 2).sum() * 0.04 / 0.9996**2, rel=1e-5)
    assert (expected / "map.png").stat().st_size > 10_000
    page = (expected / "map.html").read_text(encoding="utf-8")
    assert "moor &amp; heath" in page and "(EPSG:32633)" in page and "Reduced" not in page
    assert 'data-transform="[20.0, 0.0, 500000.0, 0.0, -20.0, 5500000.0]"' in page
    assert not list(expected.glob(".*"))


def test_bands_are_found_by_wavelength(files, expected):
    """The scene's bands lie in another order than the model's: the map is still that of the model's own order."""
    from hsfusion.inference import predict_scene
    from hsfusion.training.model_file import load_model

    scene = made_scene(SHAPE)
    network, _ = load_model(files / "model.safetensors")
    classes, _ = predict_scene(network, scene)
    with rasterio.open(expected / "map.tif") as file:
        codes = file.read(1)
    far = np.ones(SHAPE, bool)
    far[6:15, 16:25] = False  # what sees the pixel without data
    assert (np.array(CODES)[classes] == codes)[far].mean() > 0.9999


def test_many_scenes_in_one_multirun_get_a_map_each(files, expected, hsfusion, tmp_path):
    for name in ("north", "south"):
        (tmp_path / f"{name}.yaml").write_text(f"cube: {files / 'scene.img'}\n")
    run = [word for word in words(files, "--multirun") if not word.startswith(("scene=", "out="))]
    done = hsfusion(*run, "scene=north.yaml,south.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    maps = [rasterio.open(tmp_path / f"{name}_map.tif").read() for name in ("north", "south")]
    assert (maps[0] == rasterio.open(expected / "map.tif").read()).all()
    assert (maps[0] == maps[1]).all()


def test_failures_of_a_multirun_are_all_told_and_the_other_maps_are_made(files, expected, hsfusion, tmp_path):
    for name, scene in (("a", "fewer.img"), ("b", "scene.img"), ("c", "nowhere.img")):
        (tmp_path / f"{name}.yaml").write_text(f"cube: {files / scene}\n")
    run = [word for word in words(files, "--multirun") if not word.startswith(("scene=", "out="))]
    done = hsfusion(*run, "scene=a.yaml,b.yaml,c.yaml", cwd=tmp_path)
    assert done.returncode == 2
    first, second = (line for line in done.stderr.splitlines() if "error" in line)
    assert "number of the 43 bands in use by the model that are missing is" in first
    assert "nowhere.img" in second
    assert digest_of_values(tmp_path / "b_map.tif") == digest_of_values(expected / "map.tif")
    made = {"b_map.tif", "b_map.tif.aux.xml", "b_map.html", "b_map.png", "b_map_areas.csv", "b_map_confidence.tif"}
    assert {path.name for path in tmp_path.iterdir()} == made | {"a.yaml", "b.yaml", "c.yaml"}


def digest_of_values(path):
    with rasterio.open(path) as file:
        return hashlib.sha256(file.read().tobytes()).hexdigest()


def test_scenes_of_one_name_in_a_multirun_do_not_overwrite_each_other(files, hsfusion, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "flight.yaml").write_text(f"cube: {files / 'scene.img'}\n")
    run = [word for word in words(files, "--multirun") if not word.startswith(("scene=", "out="))]
    done = hsfusion(*run, "scene=a/flight.yaml,b/flight.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "out is flight_map.tif, expected a different map for each scene" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("out", ["copy.tif", "folder.tif"])
def test_input_or_folder_is_not_written_over(files, hsfusion, tmp_path, out):
    (tmp_path / "folder.tif").mkdir()
    for ending in (".img", ".hdr"):
        (tmp_path / f"copy{ending}").write_bytes((files / f"scene{ending}").read_bytes())
    (tmp_path / "copy.img").rename(tmp_path / "copy.tif")
    run = [word for word in words(files) if not word.startswith(("scene=", "out="))]
    done = hsfusion(*run, "scene=copy.tif", f"out={out}", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{out}: file is an input or a folder" in done.stderr.splitlines()[-1]


def test_killed_run_is_not_gone_on_from_with_another_header(files, hsfusion, start_and_kill, tmp_path):
    for ending in (".img", ".hdr"):
        (tmp_path / f"copy{ending}").write_bytes((files / f"scene{ending}").read_bytes())
    run = [word for word in words(files) if not word.startswith("scene=")] + ["scene=copy.img"]
    assert start_and_kill(run, tmp_path, 0.1)
    header = (tmp_path / "copy.hdr").read_text()
    (tmp_path / "copy.hdr").write_text(header.replace("500000, 5500000", "600000, 5500000"))
    done = hsfusion(*run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all tiles are computed again" in done.stderr
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.transform.c == 600000


def test_missing_bands_are_listed_and_nothing_stands_in(files, hsfusion, tmp_path):
    done = hsfusion(*words(files, scene="fewer.img"), cwd=tmp_path)
    assert done.returncode == 2
    assert "number of the 43 bands in use by the model that are missing is 4 (" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_other_bands_are_an_explicit_choice_and_what_they_cover_is_told(files, hsfusion, tmp_path):
    from hsfusion.inference import predict_scene
    from hsfusion.scenes import open_scene
    from hsfusion.training.model_file import load_model
    from hsfusion.training.transfer import transfer

    done = hsfusion(*words(files, "bands=resample", scene="fewer.img"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scene = open_scene(files / "fewer.img")
    network, header = load_model(files / "model.safetensors")
    names = header.classes.names
    carried = transfer(network, header=header, bands=scene.bands, sources=(), class_names=names)
    outside = carried.report.outside_share
    assert 0.03 < outside < 0.3  # 4 of 43 bands
    assert f"outside the new bands: {100 * outside:.1f} % of the band weights" in done.stdout
    with rasterio.open(tmp_path / "map.tif") as file:
        codes, tags = file.read(1), file.tags()
    assert (tags["bands"], tags["weight_outside_bands"]) == ("resample", f"{outside:.4f}")
    expected = np.array(CODES)[predict_scene(carried.network, scene)[0]]
    assert (codes == expected)[codes > 0].mean() > 0.999


@pytest.mark.parametrize(
    ("more", "code", "part"),
    [
        (["run=nowhere"], 2, "nowhere: file is missing"),
        (["scene=nowhere.tif"], 2, "nowhere.tif: file is missing"),
        (["out=map.png"], 2, "out is map.png, expected a name that ends in .tif"),
        (
            ["out=no/such/map.tif"],
            2,
            "out is no/such/map.tif, expected a name that ends in .tif, in a folder that exists",
        ),
    ],
)
def test_wrong_word_is_one_line(files, hsfusion, tmp_path, more, code, part):
    done = hsfusion(*words(files, *more), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert part in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_scene_in_another_unit_is_refused(files, hsfusion, tmp_path):
    run = [word for word in words(files) if not word.startswith("scene=")]
    done = hsfusion(*run, "scene=cube", f"scene.path={files / 'scene.img'}", "scene.scale=1000", cwd=tmp_path)
    assert done.returncode == 2
    assert "times that of the training scene, expected the same unit" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def opened_for(files, tmp_path, change):
    """The files' scene, changed, as predict opens it for the model."""
    scene = made_scene((64, 80))
    write_envi(tmp_path / "flight.img", change(read_all(scene)), scene.bands.wavelength_nm)
    opened = open_with_sources(tmp_path / "flight.img")
    return prediction.match_scene(opened, *load_model(files / "model.safetensors"), bands="match")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda cube: cube, None),
        (lambda cube: cube * 1.5, None),
        (lambda cube: cube * 0.5, None),
        (
            lambda cube: cube * 9,
            "flight: in 100% of the bands that the model uses, the median of the scene is over 2.5 ",
        ),
        (
            lambda cube: np.where(np.arange(80) < 3, -999, cube),
            "flight: 43 bands hold -999 (in up to 3.8% of the pixels)",
        ),
    ],
)
def test_scene_that_the_map_cannot_be_trusted_on_is_warned_of(files, tmp_path, caplog, change, text):
    opened_for(files, tmp_path, change)
    assert [message[: len(text or "")] for message in caplog.messages] == ([] if text is None else [text])


def test_smoothed_map_says_so_in_its_tags(files, expected, hsfusion, tmp_path):
    done = hsfusion(*words(files, "smooth=bilateral"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with rasterio.open(tmp_path / "map.tif") as file, rasterio.open(expected / "map.tif") as plain:
        assert (file.tags()["smooth"], plain.tags()["smooth"]) == ("bilateral", "none")
        assert np.argwhere(file.read(1) == 0).tolist() == [[10, 20]]


def test_cloud_optimised_map_holds_the_same(files, expected, hsfusion, tmp_path):
    done = hsfusion(*words(files, "format=cog"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with rasterio.open(tmp_path / "map.tif") as file, rasterio.open(expected / "map.tif") as plain:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.read() == plain.read()).all()
        assert file.colormap(1) == plain.colormap(1)


def test_map_that_is_there_stays_until_the_new_one_is_whole(files, expected, hsfusion, tmp_path):
    (tmp_path / "map.tif").write_text("mine")
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))  # as on a full disk
    try:
        done = hsfusion(*words(files), cwd=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.returncode == 3, done.stderr
    assert "Fix: free space or choose another folder." in done.stderr.splitlines()[-1]
    assert (tmp_path / "map.tif").read_text() == "mine"
    assert hsfusion(*words(files, "probabilities=true"), cwd=tmp_path).returncode == 0
    assert digest(tmp_path / "map.tif") == digest(expected / "map.tif")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_several_processes_give_the_bytes_of_one(files, expected, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "hsfusion", *words(files, "probabilities=true")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "destroy_process_group" not in done.stderr  # torch warns where it is forgotten
    assert done.stderr.count("step back once") == 1  # shown by one process
    for name in ALL:
        assert digest(tmp_path / name) == digest(expected / name)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("rank", "device"), [(None, "cuda:0"), ("1", "cuda:1"), ("3", "cuda:1")])
def test_each_process_takes_a_gpu_of_its_own(monkeypatch, rank, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert [prediction.compute_device(name) for name in ("auto", "cuda", "cpu")] == [device, device, "cpu"]


@pytest.fixture
def start_and_kill(forked):
    """Kills a command so many seconds after its journal appeared; returns whether it was still running."""

    def kill(arguments, cwd, after):
        number, journal = forked(*arguments, cwd=cwd, drawn=True), cwd / ".map.journal-0"
        while not (ended := os.waitpid(number, os.WNOHANG)[0]) and not journal.exists():
            time.sleep(0.002)
        time.sleep(after)
        if ended or os.waitpid(number, os.WNOHANG)[0]:
            return False
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
        return True

    return kill


def test_killed_run_goes_on_to_the_same_bytes(files, expected, hsfusion, start_and_kill, tmp_path):
    arguments = words(files, "probabilities=true")
    assert start_and_kill(arguments, tmp_path, 0.05)
    assert not (tmp_path / "map.tif").exists()
    done = hsfusion(*arguments, cwd=tmp_path, drawn=True)
    assert done.returncode == 0, done.stderr
    for name in ALL:
        assert digest(tmp_path / name) == digest(expected / name)


@pytest.mark.slow
def test_50_kills_at_random_moments_give_50_times_the_same_bytes(files, expected, hsfusion, start_and_kill, tmp_path):
    rng, running, longest = random.Random(0), 0, 0.7  # seconds; less on a machine where runs end sooner
    for i in range(50):
        folder = tmp_path / str(i)
        folder.mkdir()
        killed = start_and_kill(words(files, "probabilities=true"), folder, rng.uniform(0, longest))
        running, longest = running + killed, longest if killed else 0.8 * longest
        done = hsfusion(*words(files, "probabilities=true"), cwd=folder, drawn=True)
        assert done.returncode == 0, done.stderr
        for name in ALL:
            assert digest(folder / name) == digest(expected / name)
        assert not list(folder.glob(".*"))
    print(f"killed while running: {running} of 50")
    assert running >= 40
