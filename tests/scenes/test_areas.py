"""Ground areas of pixels and classes, against closed formulas and projections that keep areas."""

import itertools

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from hsfusion.scenes import GeoBox, Legend
from hsfusion.scenes.geobox import Window
from hsfusion.scenes.rasters import class_areas, pixel_areas_m2

A, F = 6378137.0, 1 / 298.257223563  # WGS 84
E2 = F * (2 - F)
WINDOW = Window(0, 0, 100, 60)
LOCAL = 'LOCAL_CS["plan",UNIT["metre",1]]'
# degrees by the axis's unit
GRADS = 'GEOGCS["g",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],UNIT["{}",{}]]'


def areas(crs, transform, window=WINDOW):
    return pixel_areas_m2(GeoBox((1000, 1000), transform, CRS.from_user_input(crs).to_wkt()), window)


def grid(x, y, size):
    return Affine(size, 0, x, 0, -size, y)


def between(north, south, width):
    """Area of the ellipsoid between two parallels and meridians (degrees), by numeric integration of its radii."""
    steps = np.linspace(np.radians(south), np.radians(north), 2001)
    middle = (steps[1:] + steps[:-1]) / 2
    bend = 1 - E2 * np.sin(middle) ** 2
    strips = A**2 * (1 - E2) * np.cos(middle) / bend**2
    return strips.mean() * (steps[-1] - steps[0]) * np.radians(width)


@pytest.mark.parametrize("latitude", [-60, 0.05, 45, 80])
def test_pixels_in_degrees_are_pieces_of_the_ellipsoid(latitude):
    found = areas("EPSG:4326", grid(10, latitude, 0.01))
    rows = [between(latitude - 0.01 * i, latitude - 0.01 * (i + 1), 0.01) for i in range(100)]
    np.testing.assert_allclose(found, rows, rtol=1e-6)


@pytest.mark.parametrize(("name", "radians"), [("grad", np.pi / 200), ("radian", 1.0)])
def test_unit_of_a_geographic_grid_does_not_matter(name, radians):
    per_degree = np.pi / 180 / radians
    found = areas(GRADS.format(name, repr(radians)), grid(10 * per_degree, 50 * per_degree, 0.01 * per_degree))
    np.testing.assert_allclose(found, areas("EPSG:4326", grid(10, 50, 0.01)), rtol=1e-7)


def test_web_mercator_shrinks_with_the_latitude():
    y, size = 8e6, 30.0
    found = areas("EPSG:3857", grid(1e6, y, size))
    edges = np.degrees(2 * np.arctan(np.exp((y - size * np.arange(101)) / A)) - np.pi / 2)
    rows = [between(*pair, np.degrees(size / A)) for pair in itertools.pairwise(edges)]
    np.testing.assert_allclose(found, rows, rtol=1e-6)
    assert found[0] < 0.3 * size**2


@pytest.mark.parametrize(("crs", "x", "y"), [("EPSG:3035", 4.3e6, 3e6), ("EPSG:6933", 1e6, 5e6)])
@pytest.mark.parametrize("degrees", [0, 30])
def test_projections_that_keep_areas_do(crs, x, y, degrees):
    turned = Affine.translation(x, y) @ Affine.rotation(degrees) @ Affine.scale(20, -20)
    np.testing.assert_allclose(areas(crs, turned), 400, rtol=1e-6)


def test_utm_has_the_square_of_its_scale():
    middle = areas("EPSG:32633", grid(500_000 - 600, 5.5e6, 20))
    np.testing.assert_allclose(middle, 400 / 0.9996**2, rtol=1e-6)
    off = areas("EPSG:32633", grid(700_000 - 600, 5.5e6, 20))
    np.testing.assert_allclose(off / middle, (1 + (200 / 6380) ** 2 / 2) ** -2, rtol=1e-5)


def test_feet_are_not_metres():
    assert areas("EPSG:2263", grid(1e6, 2e5, 10))[0] == pytest.approx(100 * 0.3048006**2, rel=1e-3)


def test_pixels_at_the_pole_and_at_180_degrees_are_like_their_neighbours():
    pole = areas("EPSG:3413", grid(-30 * 1000, 50 * 1000, 1000))
    np.testing.assert_allclose(pole, pole[0], rtol=1e-3)
    seam = areas("EPSG:4326", grid(180 - 30.5 * 0.01, 10, 0.01))
    np.testing.assert_allclose(seam, areas("EPSG:4326", grid(20, 10, 0.01)), rtol=1e-9)


@pytest.mark.parametrize(("north", "size"), [(90.25, 0.5), (90, 1.8)])
def test_grids_of_the_whole_earth_have_its_area_and_nothing_beyond_the_poles(north, size):
    rows = round((2 * north) / size)
    found = areas("EPSG:4326", grid(0, north, size), Window(0, 0, rows, 1))
    assert np.isfinite(found).all()
    middle = rows // 2
    np.testing.assert_allclose(
        found[middle], between(north - middle * size, north - (middle + 1) * size, size), rtol=1e-2
    )
    assert found[0] < found[8] < found[middle]
    beyond = areas("EPSG:4326", grid(0, -90, 0.01))
    assert (beyond == 0).all()


def test_other_bodies_have_their_own_size():
    found = areas("IAU_2015:30100", grid(0, 0.5, 0.01))  # the Moon
    assert found[0] == pytest.approx((1_737_400 * np.radians(0.01)) ** 2, rel=1e-3)


@pytest.mark.parametrize("crs", [None, LOCAL])
def test_unknown_place_has_unknown_areas(crs):
    box = GeoBox((1000, 1000), grid(0, 0, 1), crs and CRS.from_wkt(crs).to_wkt())
    assert np.isnan(pixel_areas_m2(box, WINDOW)).all()


def test_crs_without_a_transform_has_unknown_areas():
    box = GeoBox((1000, 1000), crs=CRS.from_epsg(32633).to_wkt())
    assert np.isnan(pixel_areas_m2(box, WINDOW)).all()


def test_pixels_off_the_projection_are_unknown():
    off = areas("+proj=geos +h=35785831 +datum=WGS84", grid(-6e6, 6e6, 3000))
    assert np.isnan(off).all()


def test_class_areas_are_the_sum_over_windows():
    rng = np.random.default_rng(0)
    codes = rng.choice([0, 2, 5, 300], (200, 120)).astype("<u2")
    box = GeoBox(codes.shape, grid(1e6, 8e6, 500), CRS.from_epsg(3857).to_wkt())
    windows = [Window(row, col, 100, 60) for row in (0, 100) for col in (0, 60)]
    blocks = [(w, codes[None, w.row : w.row + 100, w.col : w.col + 60]) for w in windows]
    legend = Legend((2, 5, 300, 301), ("a", "b", "c", "none"), ("#000000",) * 4)
    found = class_areas(blocks, legend=legend, geobox=box)
    each = np.concatenate([pixel_areas_m2(box, Window(row, 0, 100, 120)) for row in (0, 100)])
    assert found.pixels.tolist() == [(codes == code).sum() for code in legend.codes]
    wanted = [((codes == code) * each[:, None]).sum() for code in legend.codes]
    np.testing.assert_allclose(found.square_metres, wanted, rtol=1e-6)
    nowhere = class_areas(blocks, legend=legend, geobox=GeoBox(codes.shape))
    assert np.isnan(nowhere.square_metres[:3]).all()
