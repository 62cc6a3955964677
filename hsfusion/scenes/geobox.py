"""Georeferencing of rasters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform

from hsfusion.errors import InputError, printable

_NUMBERS = 2**24  # read at a time
_PLACES = 2**20  # transformed at a time
_SAME = 1e-4  # of a pixel's size: files round it
_WKT = re.compile(r"\s*\w+\s*[\[(]")
#: transform of a raster of which the place is not known
IDENTITY = Affine.identity()
# the same as an EPSG code, but for the order of its axes, which says nothing of a raster's columns and rows
_OGC = {("OGC", "CRS84"): 4326, ("OGC", "CRS83"): 4269, ("OGC", "CRS27"): 4267}


class Window(NamedTuple):
    """A rectangle of pixels: first row and column, height and width."""

    row: int
    col: int
    height: int
    width: int

    @classmethod
    def around(cls, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Window:
        """The smallest window with all pixels in rows (N,) and columns (N,)."""
        top, left = int(rows.min()), int(cols.min())
        return cls(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns, as indices of an array (H, W), and as rasterio takes a window."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)

    def grown(self, margin: int, shape: tuple[int, int]) -> Window:
        """The window with a number of pixels around it, as far as a raster (H, W) reaches."""
        top, left = max(0, self.row - margin), max(0, self.col - margin)
        bottom = min(shape[0], self.row + self.height + margin)
        right = min(shape[1], self.col + self.width + margin)
        return Window(top, left, bottom - top, right - left)


@dataclass(frozen=True)
class GeoBox:
    """Shape, transform and coordinate system of a raster."""

    shape: tuple[int, int]  # (H, W) in pixels
    transform: Affine = IDENTITY  # from (column, row) to map coordinates, in the unit of the CRS
    crs: str | None = None  # as WKT, whatever form that rasterio knows is given; None where unknown

    def __post_init__(self) -> None:
        if self.crs is None:
            return
        try:
            crs = CRS.from_user_input(self.crs)
            if not (isinstance(self.crs, str) and _WKT.match(self.crs)):
                object.__setattr__(self, "crs", crs.to_wkt() or None)
        except (CRSError, TypeError, ValueError) as error:
            expected = "WKT, an EPSG code such as EPSG:32633, or a rasterio.crs.CRS"
            raise InputError("GeoBox", "crs", printable(self.crs), expected, "correct it") from error

    @property
    def window(self) -> Window:
        """All of the raster."""
        return Window(0, 0, *self.shape)

    def stripes(self, layers: int, *, step: int = 1) -> list[Window]:
        """Windows of whole rows, one below the other, with at most 16 million numbers for a number of layers.

        All but the last have a multiple of ``step`` rows.
        """
        height, width = self.shape
        rows = max(1, _NUMBERS // (width * layers * step)) * step
        return [Window(row, 0, min(rows, height - row), width) for row in range(0, height, rows)]

    @property
    def is_bare(self) -> bool:
        """Whether the place is unknown: identity transform and no CRS."""
        return self.crs is None and self.transform == IDENTITY

    @property
    def epsg(self) -> int | None:
        """EPSG code of the CRS, None where it is unknown or has none."""
        return None if self.crs is None else _epsg(CRS.from_wkt(self.crs))

    def to_dict(self) -> dict[str, Any] | None:
        """Transform, EPSG code, and the CRS where it has none, as plain values; None where the place is unknown."""
        if self.is_bare:
            return None
        place = {"transform": list(self.transform)[:6], "epsg": (epsg := self.epsg)}
        return place if self.crs is None or epsg is not None else {**place, "wkt": self.crs}

    @classmethod
    def from_dict(cls, place: Mapping[str, Any] | None, *, shape: tuple[int, int]) -> GeoBox:
        """A grid of a shape at the place that :meth:`to_dict` gave."""
        if place is None:
            return cls(shape)
        epsg = place["epsg"]
        crs = place.get("wkt") if epsg is None else CRS.from_epsg(epsg).to_wkt()
        return cls(shape, Affine(*place["transform"]), crs)

    def shifted(self, pixels: NDArray[np.int64], shift: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.int64]:
        """Pixels, flat indices (N,), after a shift by rows and columns in a raster of a shape, if it has them."""
        rows, cols = (at + by for at, by in zip(np.divmod(pixels, self.shape[1]), shift, strict=True))
        return _inside(rows, cols, shape)

    def located(self, pixels: NDArray[np.int64], other: GeoBox) -> NDArray[np.int64]:
        """The pixels of any other grid that hold the centres of pixels, flat indices (N,), as far as it has them.

        Empty where the place of one of the two is unknown.
        """
        if any(box.crs is None or box.transform == IDENTITY or box.transform.is_degenerate for box in (self, other)):
            return pixels[:0]
        parts = np.array_split(pixels, 1 + pixels.size // _PLACES)
        return np.concatenate([self._located(part, other) for part in parts])

    def _located(self, pixels: NDArray[np.int64], other: GeoBox) -> NDArray[np.int64]:
        rows, cols = np.divmod(pixels, self.shape[1])
        centres: Any = cols + 0.5, rows + 0.5
        try:
            x, y = np.array(transform(CRS.from_wkt(self.crs), CRS.from_wkt(other.crs), *self.transform @ centres)[:2])
        except (RasterioError, CPLE_BaseError):  # some lie where one of the two is not defined
            return pixels[:0]
        cols, rows = map(np.floor, ~other.transform @ (x, y))
        return _inside(rows, cols, other.shape)


def _inside(rows: NDArray[Any], cols: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Flat indices of those of the pixels in rows (N,) and columns (N,) that a raster of a shape has."""
    inside = (rows >= 0) & (rows < shape[0]) & (cols >= 0) & (cols < shape[1])
    return (rows * shape[1] + cols)[inside].astype(np.int64)


def transform_of_centres(x: NDArray[np.float64], y: NDArray[np.float64]) -> Affine | None:
    """Transform of a grid by the centres of its columns (W,) and rows (H,); None unless they are evenly spaced.

    They are, if none lies off by more than a hundredth of a pixel; or a tenth, if rounding to float32 explains it.
    """
    steps = []
    for centres in (x, y):
        step = (centres[-1] - centres[0]) / max(len(centres) - 1, 1)
        off = np.abs(centres[0] + step * np.arange(len(centres)) - centres).max()
        rounded = np.float32(centres)
        explained = float(np.spacing(np.abs(rounded).max())) if np.array_equal(rounded, centres) else 0.0
        if not off < max(abs(step) / 100, min(abs(step) / 10, explained)):  # NaN: not
            return None
        steps.append(float(step))
    return Affine(steps[0], 0, x[0] - steps[0] / 2, 0, steps[1], y[0] - steps[1] / 2)


def check_same_grid(geobox: GeoBox, other: GeoBox, *, source: object, reference: object) -> None:
    """Makes sure that two rasters (``source`` and ``reference`` in messages) lie on one grid, to 1e-3 pixel.

    One without georeference (identity transform and no CRS) is taken to lie on any grid of its shape.
    """
    place = f"as {reference}"
    if geobox.shape != other.shape:
        wrong = ("shape (rows, columns)", geobox.shape, f"{other.shape} {place}", "give a raster on the scene's grid")
    elif geobox.is_bare or other.is_bare:
        return
    elif geobox.crs is not None and other.crs is not None and not same_crs(geobox.crs, other.crs):
        wrong = ("CRS", crs_name(geobox.crs), f"{crs_name(other.crs)} {place}", "reproject the raster")
    elif _shift(geobox, other) > 1e-3:
        one, two = (tuple(box.transform)[:6] for box in (geobox, other))
        flipped = geobox.transform.e * other.transform.e < 0
        fix = "flip the rows of one of the two" if flipped else "resample the raster to the scene's grid"
        wrong = ("transform", one, f"{two} {place}, to 1e-3 pixel", fix)
    else:
        return
    raise InputError(source, *wrong)


def _shift(geobox: GeoBox, other: GeoBox) -> float:
    """By how many pixels of another grid of the same shape the corners lie off, at most along an axis."""
    shifts = [0.0]
    for corner in ((0, 0), (other.shape[1], 0), (0, other.shape[0]), other.shape[::-1]):
        col, row = ~other.transform @ (geobox.transform @ corner)
        shifts += [abs(col - corner[0]), abs(row - corner[1])]
    return max(shifts)


def shift_on_ground(geobox: GeoBox, other: GeoBox, *, alike: Callable[[], bool]) -> tuple[int, int] | None:
    """Rows and columns from the pixels of a raster to those of another of the same ground; None for other ground.

    Where both have a CRS and a transform, the same ground is one grid, which is shifted by whole pixels, to half a
    pixel. Otherwise it is one shape with labels that are alike, a call, unless CRS or transforms are known to differ.
    """
    if geobox.crs is not None and other.crs is not None and not same_crs(geobox.crs, other.crs):
        return None
    shift = (0, 0)
    if all(box.transform != IDENTITY and not box.transform.is_degenerate for box in (geobox, other)):
        a, b, col, d, e, row = tuple(~other.transform @ geobox.transform)[:6]
        if max(abs(a - 1), abs(b), abs(d), abs(e - 1)) > _SAME:
            return None
        shift = (round(row), round(col))
        if geobox.crs is not None and other.crs is not None:
            return shift
    return shift if shift == (0, 0) and geobox.shape == other.shape and alike() else None


def same_crs(crs: str, other: str) -> bool:
    """Whether two CRS, as WKT of any dialect, are one, whatever the order of their axes."""
    if crs == other:
        return True
    one, two = CRS.from_wkt(crs), CRS.from_wkt(other)
    return one == two or (_epsg(one) is not None and _epsg(one) == _epsg(two))


def crs_name(crs: str) -> str:
    """Name of a CRS (WKT) and its EPSG code where it has one, for messages."""
    parsed = CRS.from_wkt(crs)
    name = printable(crs.partition('"')[2].partition('"')[0], longest=80)
    code = parsed.to_epsg()
    return name if code is None else f"{name} (EPSG:{code})"


def describe_place(geobox: GeoBox) -> dict[str, str]:
    """Coordinate system, pixel size and extent of a grid, each as far as it is known."""
    if geobox.transform == IDENTITY:
        return {"CRS": "not given"} if geobox.crs is None else {"CRS": crs_name(geobox.crs), "transform": "not given"}
    place = {"CRS": "not given" if geobox.crs is None else crs_name(geobox.crs)}
    unit = _unit(geobox)
    a, b, _, d, e, _ = tuple(geobox.transform)[:6]
    size = f"{math.hypot(a, d):.6g} x {math.hypot(b, e):.6g} {unit}".rstrip()
    turned = math.degrees(math.atan2(d, a))
    rows, columns = geobox.shape
    xs, ys = zip(*(geobox.transform @ (col, row) for row in (0, rows) for col in (0, columns)), strict=True)
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


def _epsg(crs: CRS) -> int | None:
    return _OGC.get(crs.to_authority() or ("", ""), crs.to_epsg())
