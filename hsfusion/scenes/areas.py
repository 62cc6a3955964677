"""How large pixels are on the ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from hsfusion.scenes.geobox import GeoBox

# WGS 84 (EPSG:7030)
_MAJOR_M, _FLATTENING = 6378137.0, 1 / 298.257223563


def pixel_areas_m2(geobox: GeoBox) -> NDArray[np.float64] | None:
    """Area of a pixel of each row: (H,) in square metres; None where the place, or the unit of the map, is unknown.

    In degrees it is that of a small piece of the ellipsoid WGS 84, with its radii of curvature at the row's latitude
    (Snyder 1987, Map Projections: A Working Manual, equations 4-18 and 4-20). In a projection it is that on the map.
    """
    if geobox.crs is None:
        return None
    crs, area = CRS.from_wkt(geobox.crs), abs(geobox.transform.determinant)
    rows = np.arange(geobox.shape[0]) + 0.5
    if crs.is_geographic:
        middle = geobox.shape[1] / 2
        latitude = np.radians(geobox.transform.d * middle + geobox.transform.e * rows + geobox.transform.f)
        squared = _FLATTENING * (2 - _FLATTENING)
        bend = 1 - squared * np.sin(latitude) ** 2
        along = _MAJOR_M * (1 - squared) / bend**1.5
        across = _MAJOR_M * np.cos(latitude) / np.sqrt(bend)
        return area * np.radians(1) ** 2 * along * across
    if not crs.is_projected:
        return None
    return np.full(rows.shape, area * crs.linear_units_factor[1] ** 2)
