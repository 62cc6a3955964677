"""Where a grid lies, in words."""

from __future__ import annotations

import math

from rasterio.crs import CRS
from rasterio.errors import CRSError

from hsfusion.scenes.geobox import IDENTITY, GeoBox, crs_name


def describe_place(geobox: GeoBox) -> dict[str, str]:
    """Coordinate system, pixel size and extent of a grid, each as far as it is known."""
    if geobox.transform == IDENTITY:
        return {"CRS": "not named"} if geobox.crs is None else {"CRS": crs_name(geobox.crs), "transform": "not named"}
    place = {"CRS": "not named" if geobox.crs is None else crs_name(geobox.crs)}
    unit = _unit(geobox)
    a, b, c, d, e, f = tuple(geobox.transform)[:6]
    size = f"{math.hypot(a, d):.6g} x {math.hypot(b, e):.6g} {unit}".rstrip()
    turned = math.degrees(math.atan2(d, a))
    rows, columns = geobox.shape
    corners = [(c + a * col + b * row, f + d * col + e * row) for row in (0, rows) for col in (0, columns)]
    xs, ys = zip(*corners, strict=True)
    digits = 6 if unit == "degrees" else 1
    return place | {
        "pixel size": size + (f", rows turned by {turned:.3g} degrees from the x axis" if b or d else ""),
        "extent": f"x {min(xs):.{digits}f} to {max(xs):.{digits}f}, y {min(ys):.{digits}f} to {max(ys):.{digits}f}",
    }


def _unit(geobox: GeoBox) -> str:
    if geobox.crs is None:
        return ""
    try:
        crs = CRS.from_wkt(geobox.crs)
        unit = "degrees" if crs.is_geographic else crs.linear_units
    except CRSError:  # local systems have none
        return ""
    return "m" if unit.lower() in ("metre", "meter") else unit
