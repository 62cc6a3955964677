import numpy as np
import pytest
from affine import Affine

from hsfusion.errors import InputError
from hsfusion.scenes import ArrayRaster, ArrayScene, GeoBox, StackedScene, Window, open_labelled_scene
from hsfusion.spectra import Bands

from .test_scenes import TRANSFORM, UTM, write_tiff

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
