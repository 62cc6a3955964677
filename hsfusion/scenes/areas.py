"""How large pixels are on the ground."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform

from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.legend import Legend
from hsfusion.scenes.scene import Window

# axis in metres and inverse flattening (0 for a sphere); in WKT 1 (SPHEROID) the unit is always metre
_ELLIPSOID = re.compile(
    r'SPHEROID\["[^"]*",([\d.eE+]+),([\d.eE+]+)|ELLIPSOID\["[^"]*",([\d.eE+]+),([\d.eE+]+),LENGTHUNIT\["metre",1[,\]]'
)

_STEP = 8  # rows between those of which the area is computed; that of the others lies on the line between them


@dataclass(frozen=True)
class ClassAreas:
    """How much of a map each class covers.

    Attributes:
        pixels: (K,) number of pixels.
        square_metres: (K,) area on the ground, NaN where a pixel's size is not known.
    """

    pixels: NDArray[np.int64]
    square_metres: NDArray[np.float64]


def class_areas(codes: Iterable[tuple[Window, NDArray[np.integer]]], *, legend: Legend, geobox: GeoBox) -> ClassAreas:
    """Adds up the pixels of each class, and their areas.

    Args:
        codes: windows of the map, and their (1, h, w) codes; a pixel's area is that of its row in the window's middle.
        legend: the K classes.
        geobox: the grid of the map.
    """
    size = len(legend.codes)
    place = np.full(2**16, size)  # the last is everything else
    place[list(legend.codes)] = np.arange(size)
    pixels, areas = np.zeros(size, np.int64), np.zeros(size)
    for window, values in codes:
        row = np.arange(window.height)[:, None] * (size + 1)
        found = np.bincount((place[values[0]] + row).ravel(), minlength=window.height * (size + 1))
        counts = found.reshape(window.height, size + 1)[:, :size]  # (h, K)
        if not counts.any():
            continue
        each = pixel_areas_m2(geobox, window)[:, None]
        pixels += counts.sum(0)
        areas += np.where(counts > 0, counts * each, 0).sum(0)
    return ClassAreas(pixels, areas)


def pixel_areas_m2(geobox: GeoBox, window: Window) -> NDArray[np.float64]:
    """Area on the ground of the pixel in the middle of each row of a window: (h,) in square metres.

    A pixel's corners are brought to longitude and latitude on the ellipsoid of the CRS, and from there to the azimuthal
    projection about the nearer pole that keeps areas (Snyder 1987, Map Projections: A Working Manual, equations 3-12
    and 24-23), in which the area of the four-cornered figure is taken. It has no seam at 180 degrees nor at the pole.

    Returns:
        the areas; NaN where there is no CRS, where it has no place on an ellipsoid (a site plan), or off its edge.
    """
    unknown = np.full(window.height, np.nan)
    crs = None if geobox.crs is None else CRS.from_wkt(geobox.crs)
    if crs is None or not (crs.is_geographic or crs.is_projected):
        return unknown
    found = _ELLIPSOID.search(crs.to_wkt())
    if found is None:
        return unknown
    major, inverse = (float(number) for number in found.groups() if number is not None)
    left = window.col + window.width // 2
    sampled = np.unique(np.append(np.arange(0, window.height, _STEP), window.height - 1))
    columns, rows = np.meshgrid([left, left + 1], window.row + sampled)  # (n, 2)
    a, b, c, d, e, f = tuple(geobox.transform)[:6]
    x, y = (
        np.stack([u * columns + v * rows + w, u * columns + v * (rows + 1) + w])  # (2, n, 2): upper, lower corners
        for u, v, w in ((a, b, c), (d, e, f))
    )
    ground = f'GEOGCS["",DATUM["",SPHEROID["",{major!r},{inverse!r}]],PRIMEM["",0],UNIT["degree",0.0174532925199433]]'
    try:
        longitude, latitude = transform(crs, CRS.from_wkt(ground), x.ravel(), y.ravel())[:2]
    except (RasterioError, CPLE_BaseError):  # beyond what the projection covers
        return unknown
    east, north = _equal_area(np.reshape(longitude, x.shape), np.reshape(latitude, x.shape), major, inverse)
    # twice the area is the cross product of the diagonals
    (east_down, east_up), (north_down, north_up) = (
        (at[1, :, 1] - at[0, :, 0], at[0, :, 1] - at[1, :, 0]) for at in (east, north)
    )
    area = np.abs(east_down * north_up - north_down * east_up) / 2
    return np.interp(np.arange(window.height), sampled, area)


def _equal_area(
    longitude: NDArray, latitude: NDArray, major: float, inverse: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Degrees to metres in Lambert's azimuthal projection about the nearer pole."""
    squared = (2 - 1 / inverse) / inverse if inverse else 0.0  # of the eccentricity
    there = np.isfinite(latitude) & np.isfinite(longitude)
    middle = latitude[there].mean() if there.any() else 0.0
    sine = np.sin(np.radians(np.where(there, latitude, np.nan) * (1 if middle >= 0 else -1)))
    radius = major * np.sqrt(np.maximum(_authalic(np.float64(1), squared) - _authalic(sine, squared), 0))
    angle = np.radians(np.where(there, longitude, np.nan))
    return radius * np.cos(angle), radius * np.sin(angle)


def _authalic(sine: NDArray | np.float64, squared: float) -> NDArray | np.float64:
    """The q of Snyder's equation 3-12, from the sine of the latitude and the square of the eccentricity."""
    if squared == 0:
        return 2 * sine
    root = np.sqrt(squared)
    return (1 - squared) * (sine / (1 - squared * sine**2) + np.arctanh(root * sine) / root)
