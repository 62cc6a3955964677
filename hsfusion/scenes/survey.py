"""A survey of the pixels of a cube: what each band holds, before anything is trained on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsfusion.scenes.scene import ArrayRaster, Scene, Window

#: the quantiles of a survey, as fractions
QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)
_MOST_NUMBERS = 100_000_000  # to be read: one or two seconds
_MOST_AT_ONCE = 16_000_000  # in one window: 64 MB
_MOST_KEPT = 20_000_000  # for the quantiles: 80 MB
_WINDOWS = 8  # at least, of a scene that is read in part


@dataclass(frozen=True, eq=False)
class Survey:
    """What the bands of a cube hold. Shares are fractions of the pixels that were looked at; values are physical."""

    pixels: int  # looked at
    total: int  # of the cube
    empty: float  # share of pixels without data in any band
    blank: float  # share of pixels that are exactly 0 wherever they have data
    no_data: NDArray[np.float64]  # (C,) share of pixels
    zero: NDArray[np.float64]  # (C,) share that is exactly 0
    negative: NDArray[np.float64]  # (C,) share below 0
    lowest: NDArray[np.float64]  # (C,) smallest value, NaN for a band without data
    highest: NDArray[np.float64]  # (C,) largest value
    at_lowest: NDArray[np.float64]  # (C,) share that has exactly the smallest value
    at_highest: NDArray[np.float64]  # (C,) share that has exactly the largest value
    lowest_at: NDArray[np.int64]  # (C, 2) row and column of the first pixel with the smallest value, -1 for none
    highest_at: NDArray[np.int64]  # (C, 2) likewise, of the largest value
    mean: NDArray[np.float64]  # (C,)
    quantiles: NDArray[np.float64]  # (5, C), see QUANTILES; of evenly spaced pixels where they are many
    inner: NDArray[np.float64]  # (5, C) the same of values that are neither the smallest nor the largest of their band
    correlation: NDArray[np.float64]  # (C,) of right-hand neighbours: near 1 for a picture, 0 for noise
    dead: NDArray[np.bool_]  # (C,) bands without data, or with one value everywhere

    @property
    def is_whole(self) -> bool:
        """Whether every pixel was looked at."""
        return self.pixels == self.total

    @property
    def sample(self) -> str:
        """What shares are shares of, in words."""
        return "the pixels" if self.is_whole else f"the {self.pixels:,} pixels that were looked at"

    @property
    def in_sample(self) -> str:
        """The end of a sentence that holds for the sample; empty where that is the whole cube."""
        return "" if self.is_whole else f", in {self.sample}"


def survey(cube: Scene | ArrayRaster, *, most_pixels: int | None = None) -> Survey:
    """Looks at every pixel of a small cube, or at evenly spaced windows of whole rows of a large one.

    It stops at about ``most_pixels``, or as many as hold 100 million numbers, and takes some 300 MB at most.
    """
    rows, columns = cube.geobox.shape
    layers = cube.read(Window(0, 0, 1, 1)).shape[0]
    windows = _windows(rows, columns, layers=layers, most_pixels=most_pixels or max(_MOST_NUMBERS // layers, 1))
    pixels = sum(window.height for window in windows) * columns
    step = -(-pixels * layers // _MOST_KEPT)
    bands = [_Band() for _ in range(layers)]
    empty = blank = 0
    for window in windows:
        values = np.ascontiguousarray(cube.read(window))  # (C, h, w); bands are gone through one by one
        data = np.zeros(values.shape[1:], bool)  # (h, w)
        light = np.zeros(values.shape[1:], bool)
        for band, layer in zip(bands, values, strict=True):
            finite = np.isfinite(layer)
            band.add(layer, finite, row=window.row, step=step)
            data |= finite
            light |= finite & (layer != 0)
        empty += int((~data).sum())
        blank += int((data & ~light).sum())
    return _survey(bands, pixels, rows * columns, empty=empty, blank=blank)


def _survey(bands: list[_Band], pixels: int, total: int, *, empty: int, blank: int) -> Survey:
    def share(name: str) -> NDArray[np.float64]:
        return np.array([getattr(band, name) for band in bands], np.float64) / pixels

    lowest, highest = (np.array([getattr(band, name) for band in bands]) for name in ("lowest", "highest"))
    filled = np.array([band.count > 0 for band in bands])
    quantiles = np.array([band.quantiles() for band in bands]).T  # (10, C)
    return Survey(
        pixels=pixels,
        total=total,
        empty=empty / pixels,
        blank=blank / pixels,
        no_data=1 - share("count"),
        zero=share("zero"),
        negative=share("negative"),
        lowest=np.where(filled, lowest, np.nan),
        highest=np.where(filled, highest, np.nan),
        at_lowest=share("at_lowest"),
        at_highest=share("at_highest"),
        lowest_at=np.array([band.lowest_at for band in bands]),
        highest_at=np.array([band.highest_at for band in bands]),
        mean=np.array([band.total / band.count if band.count else np.nan for band in bands]),
        quantiles=quantiles[: len(QUANTILES)],
        inner=quantiles[len(QUANTILES) :],
        correlation=np.array([band.correlation() for band in bands]),
        dead=~filled | ((lowest == highest) & ((lowest == 0) | (pixels > 1))),
    )


def _windows(rows: int, columns: int, *, layers: int, most_pixels: int) -> list[Window]:
    """Windows of whole rows: all of them, or evenly spaced ones from the first row to the last."""
    at_once = max(1, _MOST_AT_ONCE // (columns * layers))
    wanted = min(rows, max(1, most_pixels // columns))
    if wanted == rows:
        return [Window(row, 0, min(at_once, rows - row), columns) for row in range(0, rows, at_once)]
    number = min(wanted, max(_WINDOWS, -(-wanted // at_once)))
    height = wanted // number
    starts = np.linspace(0, rows - height, number).round().astype(int)
    return [Window(int(start), 0, height, columns) for start in starts]


class _Band:
    """Sums over one band, window by window."""

    def __init__(self) -> None:
        self.count = self.zero = self.negative = self.at_lowest = self.at_highest = 0
        self.lowest, self.highest, self.total = np.inf, -np.inf, 0.0
        self.lowest_at = self.highest_at = (-1, -1)
        self._kept: list[NDArray[np.float32]] = []
        self._seen = 0
        self._shift: float | None = None
        self._moments = np.zeros(6)  # of pairs: number, sums of x, y, xx, yy, xy

    def add(self, layer: NDArray[np.float32], finite: NDArray[np.bool_], *, row: int, step: int) -> None:
        """Adds a window (h, w) that starts at a row; every so-many-th pixel is kept for the quantiles."""
        flat = layer.ravel()[-self._seen % step :: step]
        self._seen += layer.size
        self._kept.append(flat[np.isfinite(flat)])
        values = layer[finite]
        if not values.size:
            return
        self.count += values.size
        self.zero += int((values == 0).sum())
        self.negative += int((values < 0).sum())
        self.total += float(values.sum(dtype=np.float64))
        lowest, highest = float(values.min()), float(values.max())
        if lowest < self.lowest:
            self.lowest, self.at_lowest, self.lowest_at = lowest, 0, _first_at(layer, lowest, row=row)
        if highest > self.highest:
            self.highest, self.at_highest, self.highest_at = highest, 0, _first_at(layer, highest, row=row)
        if lowest == self.lowest:
            self.at_lowest += int((values == lowest).sum())
        if highest == self.highest:
            self.at_highest += int((values == highest).sum())
        if self._shift is None:
            self._shift = float(values.mean(dtype=np.float64))  # keeps the sums of squares small
        both = finite[:, :-1] & finite[:, 1:]
        x, y = (side[both].astype(np.float64) - self._shift for side in (layer[:, :-1], layer[:, 1:]))
        self._moments += np.array([x.size, x.sum(), y.sum(), x @ x, y @ y, x @ y])

    def quantiles(self) -> NDArray[np.float64]:
        """The five quantiles, and those without the extreme values; NaN where there are no values."""
        kept = np.concatenate(self._kept)
        inner = kept[(kept != self.lowest) & (kept != self.highest)]
        return np.concatenate([_quantiles(kept), _quantiles(inner)])

    def correlation(self) -> float:
        """Pearson's correlation of right-hand neighbours, NaN where it has no meaning."""
        number, x, y, xx, yy, xy = self._moments
        if number < 2:
            return np.nan
        spread = (xx - x * x / number) * (yy - y * y / number)
        return float((xy - x * y / number) / np.sqrt(spread)) if spread > 0 else np.nan


def _quantiles(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """In float64: the step between two float32 numbers may be larger than any of that type."""
    return np.quantile(values.astype(np.float64), QUANTILES) if values.size else np.full(len(QUANTILES), np.nan)


def _first_at(layer: NDArray[np.float32], value: float, *, row: int) -> tuple[int, int]:
    """Row and column of the first pixel (h, w) with a value, where the first row has a number."""
    place = int(np.argmax(layer == value))
    return row + place // layer.shape[1], place % layer.shape[1]
