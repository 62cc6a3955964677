"""Maps get their names together, and nothing is left behind."""

import errno
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS

from hsfusion import publishing
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.inference import FoldedNetwork, MapRequest, map_scene, mapping
from hsfusion.scenes import ArrayScene, GeoBox, Legend
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import even_groups
from hsfusion.training.building import build_network

torch.set_num_threads(1)
SHAPE = (270, 300)
LEGEND = Legend((1, 2, 3, 300), ("a", "b", "c", "d"), ("#ff0000", "#00ff00", "#0000ff", "#ffff00"))
OBLIQUE = "+proj=ob_tran +o_proj=eqc +o_lat_p=40 +o_lon_p=10 +lon_0=20 +datum=WGS84"  # no GeoTIFF holds it


@pytest.fixture(scope="module")
def made():
    """A network and a scene of four tiles, in a CRS that GeoTIFF does not know."""
    scene = synthetic_scene(seed=0, height=SHAPE[0] // 3, width=SHAPE[1] // 3, num_classes=4).scene
    cube = np.tile(read_all(scene), (1, 3, 3))
    torch.manual_seed(0)
    network = build_network(scene.bands, even_groups(scene.bands, number=4), num_classes=4, channels=4, width=8).eval()
    network.mean.copy_(torch.from_numpy(cube.mean((1, 2))))
    with torch.no_grad():
        network.cnn.classifier.weight.mul_(30)  # so that pixels differ
    box = GeoBox(SHAPE, Affine(20, 0, 1000, 0, -20, 5000), CRS.from_user_input(OBLIQUE).to_wkt())
    return FoldedNetwork(network), ArrayScene(cube, bands=scene.bands, name="s", geobox=box)


def order(folder, **more):
    return MapRequest(folder / "map.tif", LEGEND, {"scene": "s"}, probabilities=True, **more)


def table(areas, class_map):
    assert class_map.exists()
    return {class_map.parent / "map_areas.csv": repr(areas.pixels.tolist()).encode()}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if ".journal-" not in path.name}


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    map_scene(*made, order(folder), plan={}, beside=table)
    return content(folder)


def old_files(folder, names):
    for name in names:
        (folder / name).write_text("old")
    return content(folder)


@pytest.mark.parametrize("kind", ["geotiff", "cog"])
def test_place_survives_in_every_file(made, tmp_path, kind):
    map_scene(*made, order(tmp_path, format=kind), plan={}, beside=table)
    for name in ("map.tif", "map_confidence.tif", "map_probabilities.tif"):
        with rasterio.open(tmp_path / name) as file:
            assert file.crs == CRS.from_user_input(OBLIQUE)
            assert (file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") == (kind == "cog")
    assert not list(tmp_path.glob(".*"))


def test_files_of_threads_have_the_bytes_of_one_after_the_other(made, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "ThreadPoolExecutor", lambda n: ThreadPoolExecutor(1))
    map_scene(*made, order(tmp_path), plan={}, beside=table)
    assert content(tmp_path) == whole


def test_failure_beside_the_maps_leaves_the_old_set(made, whole, tmp_path):
    old = old_files(tmp_path, whole)

    def full(areas, class_map):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(EnvironmentFailure, match="No space left"):
        map_scene(*made, order(tmp_path), plan={}, beside=full)
    assert content(tmp_path) == old
    map_scene(*made, order(tmp_path), plan={}, beside=table)
    assert content(tmp_path) == whole
    assert not list(tmp_path.glob(".*"))


def test_full_disk_under_the_last_small_file_leaves_the_old_set(made, whole, tmp_path, monkeypatch):
    old = old_files(tmp_path, whole)

    def full(path, content):
        path.write_text("torn")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        map_scene(*made, order(tmp_path), plan={}, beside=table)
    assert content(tmp_path) == old


@pytest.mark.parametrize("published", range(7))  # three maps with what lies beside, and a table
def test_run_that_ends_between_two_names_is_finished_by_the_next(made, whole, tmp_path, monkeypatch, published):
    old_files(tmp_path, whole)
    done, name = [], publishing._name

    def killed(part, path, **more):
        if len(done) == published:
            raise KeyboardInterrupt
        done.append(path.name)
        name(part, path, **more)

    monkeypatch.setattr(publishing, "_name", killed)
    with pytest.raises(KeyboardInterrupt):
        map_scene(*made, order(tmp_path), plan={}, beside=table)
    assert (tmp_path / "map.tif").read_text() == "old"  # the last to get its name
    monkeypatch.setattr(publishing, "_name", name)
    monkeypatch.setattr(mapping, "classify", lambda network, scene, tiles, **more: iter(()))  # all is in the journal
    map_scene(*made, order(tmp_path), plan={}, beside=table)
    assert content(tmp_path) == whole
    assert not list(tmp_path.glob(".*"))


def test_smoothed_map_that_was_stopped_goes_on_to_the_same_bytes(made, whole, tmp_path):
    (tmp_path / "smooth").mkdir()
    map_scene(*made, order(tmp_path / "smooth", smooth="bilateral"), plan={}, beside=table)
    expected = content(tmp_path / "smooth")
    assert expected["map_probabilities.tif"] != whole["map_probabilities.tif"]

    def stopped(tiles, done, total):
        yield from itertools.islice(tiles, 2)
        raise KeyboardInterrupt

    (tmp_path / "stopped").mkdir()
    for smooth, files in (("none", whole), ("bilateral", expected)):  # the journal of another map is not gone on from
        request = order(tmp_path / "stopped", smooth="bilateral")
        with pytest.raises(KeyboardInterrupt):
            map_scene(*made, request, plan={}, beside=table, progress=stopped)
        map_scene(*made, replace(request, smooth=smooth), plan={}, beside=table)
        assert content(tmp_path / "stopped") == files


def test_scene_without_data_leaves_nothing(made, tmp_path, open_files_stay):
    network, scene = made
    empty = ArrayScene(np.full((len(scene.bands), *SHAPE), np.nan, np.float32), bands=scene.bands, name="empty")
    with pytest.raises(InputError, match="number of pixels with data"):
        map_scene(network, empty, order(tmp_path), plan={}, beside=table)
    assert not list(tmp_path.iterdir())


def test_nothing_that_is_open_is_deleted_or_replaced(made, whole, tmp_path, open_files_stay):
    for rank in (1, 0):
        map_scene(*made, order(tmp_path), plan={}, beside=table, shard=mapping.Shard(rank, 2))
    assert content(tmp_path) == whole
    assert not list(tmp_path.glob(".*"))


def test_maps_that_would_share_the_files_beside_them_are_not_made_at_once(made, tmp_path):
    network, scene = made

    def second(tiles, done, total):
        for tile in tiles:
            other = replace(order(tmp_path), out=tmp_path / "map.tiff")
            with pytest.raises(EnvironmentFailure, match=r"map is being written by another process. Fix: wait for it"):
                map_scene(network, scene, other, plan={})
            yield tile

    assert map_scene(network, scene, order(tmp_path), plan={}, progress=second) is not None
    assert not (tmp_path / "map.tiff").exists()
