import tempfile
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from scene_files.labels import TRANSFORM, UTM, write_tiff

import hsfusion as hs
from hsfusion.errors import InputError
from hsfusion.scenes import (
    ArrayRaster,
    ArrayScene,
    BandSelection,
    GeoBox,
    Mosaic,
    StackedScene,
    Window,
    open_labelled_scene,
)
from hsfusion.scenes.scene import lies_in_files, room_for
from hsfusion.spectra import Bands

WINDOW = Window(1, 0, 3, 4)


def bands(nm, fwhm=10.0):
    return Bands(np.asarray(nm, float), np.full(len(nm), fwhm), np.ones(len(nm), bool))


def stacked(nm, **rasters):
    """Band i is i everywhere, layer i of the n-th raster is 100 n + i."""
    cube = np.broadcast_to(np.arange(len(nm))[:, None, None], (len(nm), 5, 4))
    scene = ArrayScene(cube, bands=bands(nm), name="flight")
    values = {
        name: np.broadcast_to(100 * n + np.arange(number)[:, None, None], (number, 5, 4))
        for n, (name, number) in enumerate(rasters.items(), 1)
    }
    return StackedScene(scene, {name: ArrayRaster(layers) for name, layers in values.items()})


def matched(scene, nm, *, sources=(), needed=None):
    number = len(nm) + sum(layers for _, layers in sources)
    return BandSelection(
        scene, bands=bands(nm), sources=sources, needed=np.ones(number, bool) if needed is None else np.array(needed)
    )


def test_bands_and_rasters_come_in_the_order_of_the_model():
    scene = matched(stacked([700, 400, 500], lidar=1, radar=2), [500, 702], sources=[("radar", 2), ("lidar", 1)])
    values = scene.read(WINDOW)
    assert values.shape == (5, 3, 4)
    assert (values == np.array([2, 0, 200, 201, 100])[:, None, None]).all()
    assert scene.read(WINDOW, np.array([4, 0]))[:, 0, 0].tolist() == [100, 2]
    assert (len(scene.bands), scene.sources) == (2, (("radar", 2), ("lidar", 1)))


def test_bands_that_only_their_order_tells_apart_are_named_where_it_decides(caplog):
    scene = stacked([500, 600, 500])
    matched(scene, [500, 600, 500]), matched(stacked([600, 500]), [500, 600])
    assert not caplog.messages
    assert matched(scene, [600, 500, 500]).read(WINDOW)[:, 0, 0].tolist() == [1, 0, 2]
    text = "flight: bands with the same centre and width are matched by their order in the file: 500.0 nm."
    assert caplog.messages == [text]
    matched(scene, [500, 600])  # which of the two?
    assert caplog.messages == [text, text]
    matched(scene, [500, 600], needed=[False, True])
    assert caplog.messages == [text, text]


def test_band_that_the_model_does_not_use_takes_none_from_one_that_it_uses():
    scene = matched(stacked([600, 500.5]), [500, 502, 600], needed=[False, True, True])
    assert scene.read(WINDOW, np.array([1, 2]))[:, 0, 0].tolist() == [1, 0]
    with pytest.raises(AssertionError, match="not there"):
        scene.read(WINDOW)


def test_missing_bands_are_listed_if_the_model_uses_them():
    with pytest.raises(InputError, match=r"the 3 bands .* missing is 2 \(502\.0, 700\.0 nm\), expected 0"):
        matched(stacked([501, 600]), [501, 502, 600, 700, 800], needed=[True, True, False, True, False])


@pytest.mark.parametrize("sources", [(), [("lidar", 2)], [("height", 1)], [("lidar", 1), ("radar", 1)]])
def test_other_rasters_than_those_of_the_model_are_named(sources):
    with pytest.raises(InputError, match=r"flight: further rasters is \{'lidar': 1\}, expected .* Fix: give them as"):
        matched(stacked([500], lidar=1), [500], sources=sources)


BANDS = Bands.from_wavelengths([450.0, 550.0, 650.0])


def test_layers_follow_the_bands_window_by_window():
    rng = np.random.default_rng(0)
    cube, height, radar = (rng.normal(size=(n, 6, 5)).astype(np.float32) for n in (3, 1, 2))
    scene = StackedScene(
        ArrayScene(cube, bands=BANDS, name="cube"), {"lidar": ArrayRaster(height), "radar": ArrayRaster(radar)}
    )
    assert scene.sources == (("lidar", 1), ("radar", 2))
    assert len(scene.bands) == 3
    window = Window(1, 2, 4, 3)
    np.testing.assert_array_equal(scene.read(window), np.concatenate([cube, height, radar])[:, 1:5, 2:5])


def test_raster_of_another_shape_is_named():
    cube = ArrayScene(np.zeros((3, 6, 5)), bands=BANDS, name="cube")
    with pytest.raises(InputError, match=r"lidar: shape .* is \(5, 6\), expected \(6, 5\) as cube"):
        StackedScene(cube, {"lidar": ArrayRaster(np.zeros((1, 5, 6)))})


def test_raster_in_another_place_is_named():
    box = GeoBox((6, 5), TRANSFORM, UTM)
    cube = ArrayScene(np.zeros((3, 6, 5)), bands=BANDS, name="cube", geobox=box)
    moved = GeoBox((6, 5), Affine(*TRANSFORM[:2], TRANSFORM.c + 30, *TRANSFORM[3:6]), UTM)
    with pytest.raises(InputError, match=r"lidar: transform"):
        StackedScene(cube, {"lidar": ArrayRaster(np.zeros((1, 6, 5)), geobox=moved)})


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_files_of_further_rasters_are_opened_with_the_scene(tmp_path, kind):
    rng = np.random.default_rng(0)
    write_tiff(tmp_path / "cube.tif", rng.normal(size=(3, 6, 5)).astype(np.float32))
    write_tiff(tmp_path / "labels.tif", np.ones((1, 6, 5), np.uint8))
    (tmp_path / "bands.csv").write_text("wavelength_nm\n450\n550\n650\n")
    height = rng.normal(size=(6, 5)).astype(np.float32)
    height[2, 3] = -9999 if kind == "tif" else np.inf
    if kind == "tif":
        write_tiff(tmp_path / "dsm.tif", height[None], nodata=-9999)
    else:
        np.save(tmp_path / "dsm.npy", height)
    labelled = open_labelled_scene(
        tmp_path / "cube.tif",
        labels=tmp_path / "labels.tif",
        wavelengths=tmp_path / "bands.csv",
        sources={"lidar": tmp_path / f"dsm.{kind}"},
    )
    read = labelled.scene.read(Window(0, 0, 6, 5))
    assert read.shape == (4, 6, 5)
    assert np.isnan(read[3, 2, 3])
    height[2, 3] = np.nan
    np.testing.assert_array_equal(read[3], height)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="a folder in memory, as Linux has")
@pytest.mark.parametrize("folder, warned", [("/dev/shm", True), ("/proc/self", False)])
def test_temporary_file_in_memory_is_warned_of(monkeypatch, caplog, folder, warned):
    monkeypatch.setattr("hsfusion.scenes.scene._MOST_IN_MEMORY", 1)
    file, path = tempfile.TemporaryFile, tempfile.gettempdir()
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda prefix: file(prefix=prefix, dir=path))
    monkeypatch.setattr(tempfile, "tempdir", folder)
    assert room_for(2, 3).shape == (2, 3)
    assert (f"{folder} is in memory" in caplog.text) == warned


def test_a_scene_lies_in_files_unless_a_part_of_it_is_an_array(tmp_path):
    np.save(tmp_path / "cube.npy", np.ones((5, 4, 3), np.float32))
    scene = hs.open_scene(tmp_path / "cube.npy", wavelengths=[400, 500, 700], wavelength_unit="nm")
    whole = stacked([400, 500, 700])
    lidar = StackedScene(scene, {"lidar": ArrayRaster(np.ones((1, 5, 4)))})
    assert [lies_in_files(of) for of in (scene, whole, lidar)] == [True, False, False]
    assert not lies_in_files(matched(lidar, [400], sources=lidar.sources)) and not lies_in_files(Mosaic([scene, whole]))
