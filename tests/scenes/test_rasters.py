"""Maps read back as they were given: place, names, colours; what a GeoTIFF cannot hold lies beside it."""

import itertools

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.scenes import ArrayScene, GeoBox, Legend, read_class_map, read_labels, write_class_map, write_raster
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.geobox import Window
from hsfusion.scenes.legend import read_pam
from hsfusion.scenes.rasters import RasterProfile, class_profile, copy_as_cog, quiet_gdal, verify_written, write_blocks
from hsfusion.spectra import Bands

TRANSFORM = Affine(20, 0, 500000, 0, -20, 5500000)
LEGEND = Legend((1, 300), ("moor & heath", "wood"), ("#ff8000", "#0000ff"))
NAMES = ("", "moor & heath", *[""] * 298, "wood")
CODES = np.array([[0, 1], [300, 1]])
# what GeoTIFF keys cannot hold
STRANGE = {
    "oblique": "+proj=ob_tran +o_proj=eqc +o_lat_p=40 +o_lon_p=10 +lon_0=20 +datum=WGS84",
    "rotated pole": "+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +o_lon_p=0 +lon_0=18 +R=6371229",
    "site": 'ENGCRS["site",EDATUM["x"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]',
}
# and what they can
KNOWN = {
    "own ellipsoid": "+proj=tmerc +lon_0=9 +k=0.9996 +x_0=500000 +a=6378100 +b=6356700 +units=m",
    "Hotine": "+proj=omerc +lat_0=4 +lonc=115 +alpha=53 +k=0.99 +gamma=53.1 +a=6377298.556 +rf=300.8017 +units=m",
    "height": "EPSG:5972",
}


def wkt(crs):
    return CRS.from_user_input(crs).to_wkt()


@pytest.mark.parametrize("name", [*STRANGE, *KNOWN])
def test_crs_comes_back_whatever_geotiff_can_hold(tmp_path, name):
    crs = wkt({**STRANGE, **KNOWN}[name])
    box = GeoBox((2, 2), TRANSFORM, crs)
    write_class_map(tmp_path / "map.tif", CODES, legend=LEGEND, geobox=box)
    write_raster(tmp_path / "share.tif", np.ones((2, 2), np.float32), geobox=box, nodata=float("nan"))
    for file in ("map.tif", "share.tif"):
        with rasterio.open(tmp_path / file) as source:
            assert source.crs == CRS.from_wkt(crs)
            assert source.transform == TRANSFORM
    assert read_pam(tmp_path / "map.tif") == NAMES
    assert (tmp_path / "share.tif.aux.xml").exists() == (name in STRANGE)
    assert not list(tmp_path.glob(".*"))


def test_what_lay_beside_an_older_file_does_not_move_the_new_one(tmp_path):
    path = tmp_path / "share.tif"
    write_raster(path, np.ones((2, 2), np.uint8), geobox=GeoBox((2, 2), TRANSFORM, wkt(STRANGE["oblique"])))
    write_raster(path, np.ones((2, 2), np.uint8), geobox=GeoBox((2, 2), TRANSFORM, wkt("EPSG:32633")))
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 32633


def test_map_that_was_read_can_be_replaced_and_deleted(tmp_path, open_files_stay):
    path, box = tmp_path / "map.tif", GeoBox((2, 2))
    scene = ArrayScene(np.ones((1, 2, 2)), bands=Bands(np.array([500.0]), None, np.ones(1, bool)), name="s")
    for read in (
        read_class_map,
        lambda path: read_labels(path, scene),
        lambda path: open_cube_file(path).read(box.window),
    ):
        write_class_map(path, CODES, legend=LEGEND, geobox=box)
        read(path)
    write_class_map(path, np.zeros_like(CODES), legend=LEGEND, geobox=box)
    assert not read_class_map(path).any()
    path.unlink()
    assert not path.exists()


@pytest.mark.parametrize("transform", [Affine(20, 3, 5e5, -3, -20, 55e5), Affine(1e-5, 0, 10, 0, 1e-5, 50)])
def test_turned_and_upturned_grids_come_back(tmp_path, transform):
    write_raster(tmp_path / "a.tif", np.ones((2, 2), np.uint8), geobox=GeoBox((2, 2), transform, wkt("EPSG:4326")))
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_allclose(file.transform, transform, rtol=1e-12)


@pytest.mark.parametrize("crs", [None, *STRANGE])
def test_cloud_optimised_copy_has_names_and_place(tmp_path, crs):
    box = GeoBox((2, 2), TRANSFORM if crs else Affine.identity(), crs and wkt(STRANGE[crs]))
    profile = class_profile(LEGEND, {"scene": "s"})

    def blocks():
        return iter([(Window(0, 0, 2, 2), CODES[None].astype(np.uint16))])

    with quiet_gdal():
        write_blocks(tmp_path / "plain", blocks, geobox=box, profile=profile)
        copy_as_cog(tmp_path / "plain", tmp_path / "cog", blocks, geobox=box, profile=profile, overviews="mode")
        with rasterio.open(tmp_path / "cog") as file:
            assert file.crs == (crs and CRS.from_wkt(box.crs))
            assert file.tags()["class_300"] == "wood"
    assert read_pam(tmp_path / "cog") == NAMES


@pytest.mark.parametrize(
    ("lost", "other"),
    [
        ("transform", {"transform": Affine(21, 0, 500000, 0, -20, 5500000)}),
        ("nodata", {"nodata": 7}),
        ("tags", {"tags": {"scene": "other"}}),
        ("scale", {"scale": 2.0}),
        ("class names", {"categories": ("other",)}),
        ("CRS", {"crs": wkt("EPSG:32634")}),
    ],
)
def test_file_that_lost_something_is_not_taken(tmp_path, lost, other):
    box, profile = GeoBox((2, 2), TRANSFORM, wkt("EPSG:32633")), class_profile(LEGEND, {"scene": "s"})

    def blocks():
        return iter([(Window(0, 0, 2, 2), CODES[None].astype(np.uint16))])

    write_blocks(tmp_path / "a", blocks, geobox=box, profile=profile)
    box = GeoBox(box.shape, other.pop("transform", box.transform), other.pop("crs", box.crs))
    wanted = RasterProfile(**{**vars(profile), **other})
    error = InputError if lost == "CRS" else OSError
    with pytest.raises(error, match=lost):
        verify_written(tmp_path / "a", blocks, geobox=box, profile=wanted)


def test_same_blocks_give_the_same_bytes(tmp_path):
    values = np.random.default_rng(0).integers(0, 3, (1, 600, 600)).astype(np.uint16)
    cells = [Window(r, c, min(256, 600 - r), min(256, 600 - c)) for r, c in itertools.product((0, 256, 512), repeat=2)]

    def blocks():
        return ((w, values[:, w.row : w.row + w.height, w.col : w.col + w.width]) for w in cells)

    profile = class_profile(LEGEND, {})
    with quiet_gdal():
        for name in "ab":
            write_blocks(tmp_path / name, blocks, geobox=GeoBox((600, 600)), profile=profile, overviews="mode")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kind", ["geotiff", "cog"])
def test_flipped_bit_of_a_map_is_named_by_whoever_opens_it(tmp_path, kind):
    codes = np.random.default_rng(0).integers(0, 2, (300, 300))
    path = tmp_path / "map.tif"
    if kind == "cog":
        box, profile, blocks = GeoBox((300, 300), TRANSFORM, wkt("EPSG:32633")), class_profile(LEGEND, {}), codes[None]
        window = [(Window(0, 0, 300, 300), blocks.astype(profile.dtype))]
        with quiet_gdal():
            write_blocks(tmp_path / "plain.tif", lambda: iter(window), geobox=box, profile=profile)
            copy_as_cog(
                *(tmp_path / "plain.tif", path, lambda: iter(window)), geobox=box, profile=profile, overviews="mode"
            )
    else:
        write_class_map(path, codes, legend=LEGEND, geobox=GeoBox((300, 300), TRANSFORM, wkt("EPSG:32633")))
    assert (read_class_map(path) == codes).all()
    whole = path.read_bytes()
    for place in (*range(0, len(whole), len(whole) // 60), *range(len(whole) - 100, len(whole), 9)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        for read in (open_cube_file, read_class_map):
            with pytest.raises(InputError):
                read(path)


def test_copy_by_another_program_has_no_digest_and_is_read(tmp_path):
    write_class_map(tmp_path / "map.tif", CODES, legend=LEGEND, geobox=GeoBox((2, 2), TRANSFORM))
    with quiet_gdal(), rasterio.open(tmp_path / "map.tif") as file:
        profile, values, tags = file.profile, file.read(), file.tags()
    with rasterio.open(tmp_path / "other.tif", "w", **profile) as other:  # as GDAL copies or cuts it
        other.write(values)
        other.update_tags(**tags)
    assert (read_class_map(tmp_path / "other.tif") == CODES).all()
    assert open_cube_file(tmp_path / "other.tif").layers == 1


def test_full_disk_is_one_error_and_nothing_is_printed_beside_it(tmp_path, capfd):
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    values = np.random.default_rng(0).integers(0, 255, (300, 300)).astype(np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limit[1]))
    try:
        with pytest.raises(EnvironmentFailure, match=r"share.tif: cannot be written \(.*\). Fix: free space"):
            write_raster(tmp_path / "share.tif", values, geobox=GeoBox((300, 300), TRANSFORM))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
