"""A cube as its file holds it: the stored numbers, and what the file says they mean."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError

from hsfusion.errors import InputError, printable
from hsfusion.scenes.geobox import GeoBox, Window
from hsfusion.scenes.scene import file_version, finite_or_nan, take_layers
from hsfusion.spectra import Bands

NM_PER_UNIT: dict[str, float] = dict.fromkeys(("nanometers", "nanometer", "nanometres", "nanometre", "nm"), 1.0)
NM_PER_UNIT |= dict.fromkeys(("micrometers", "micrometer", "micrometres", "micrometre", "microns", "micron"), 1000.0)
NM_PER_UNIT |= dict.fromkeys(("um", "µm", "μm"), 1000.0)
_MOST_MAPPED = 2**26  # bytes
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# what numpy, zipfile, rasterio, h5py and the parser of XML raise for a file that they cannot read
_LIBRARY_ERRORS = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError),
    *(SyntaxError, zipfile.BadZipFile, zlib.error, RasterioError),
)


class Pixels(Protocol):
    """Stored numbers, read window by window; can be pickled.

    Its repr is equal where the same numbers are read from the same files, wherever these lie.
    """

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored numbers."""
        ...

    def read(self, window: Window, layers: NDArray[np.int64] | None = None) -> NDArray:
        """Reads a window, or some layers (L,) of it: (layers, height, width) as stored, in any memory order.

        Masked where the file has a mask.
        """
        ...


@dataclass(frozen=True)
class ArrayPixels:
    """Stored numbers (layers, H, W) in memory."""

    values: NDArray = field(repr=False)
    part: str = ""  # of the file: name and axes of the array

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored numbers."""
        return self.values.dtype

    def read(self, window: Window, layers: NDArray[np.int64] | None = None) -> NDArray:
        """See :meth:`Pixels.read`."""
        return take_layers(self.values[:, *window.slices], layers)


@dataclass(frozen=True)
class FileArray:
    """An array in a file."""

    path: Path = field(repr=False)
    dtype: np.dtype
    axes: tuple[str, ...]  # what its axes are, the outermost first: layers (may be missing), rows, cols
    shape: tuple[int, ...]  # in that order

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self._sizes().get("layers", 1)

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return self._sizes()["rows"], self._sizes()["cols"]

    def _sizes(self) -> dict[str, int]:
        return dict(zip(self.axes, self.shape, strict=True))

    def part(self, array: Any, window: Window, layers: NDArray[np.int64] | None) -> NDArray:
        """A window of the opened array, or some layers of it: (layers, height, width)."""
        rows, cols = window.slices
        index = {"layers": slice(None), "rows": rows, "cols": cols}
        return take_layers(layers_first(array[tuple(index[axis] for axis in self.axes)], self.axes), layers)


@dataclass(frozen=True)
class MappedPixels(FileArray):
    """Stored numbers of a binary file behind ``offset`` bytes, read through a memory map."""

    offset: int

    def read(self, window: Window, layers: NDArray[np.int64] | None = None) -> NDArray:
        """See :meth:`Pixels.read`.

        The pages that a map touches count as memory as long as it lasts: whole rows of all layers, but where a pixel's
        numbers lie side by side. Larger windows are copied from a new map every few rows.
        """
        self.check_size()  # a map of a file that shrank would crash
        row, col, height, width = window
        touched = width if self.axes[-1] == "layers" else self.grid[1]
        step = max(1, _MOST_MAPPED // (touched * self.layers * self.dtype.itemsize))
        parts = (
            self._mapped(Window(first, col, min(step, row + height - first), width), layers)
            for first in range(row, row + height, step)
        )
        if height <= step:
            return next(parts)
        sizes = {"layers": self.layers if layers is None else len(layers), "rows": height, "cols": width}
        stored = layers_first(np.empty([sizes[axis] for axis in self.axes], self.dtype), self.axes)
        for first, part in zip(range(0, height, step), parts, strict=True):
            stored[:, first : first + step] = part
        return stored

    def _mapped(self, window: Window, layers: NDArray[np.int64] | None) -> NDArray:
        return self.part(np.memmap(self.path, self.dtype, "r", self.offset, self.shape), window, layers)

    def check_size(self) -> None:
        """Makes sure that the file is as long as its header says."""
        size, expected = self.path.stat().st_size, self.offset + math.prod(self.shape) * self.dtype.itemsize
        if size != expected:
            text = f"{expected}: {' x '.join(map(str, self.shape))} of type {self.dtype.str} after {self.offset}"
            raise InputError(self.path, "size", f"{size} bytes", text, "copy the file again, or correct its header")


def layers_first(array: NDArray, axes: tuple[str, ...]) -> NDArray:
    """A view (layers, H, W) of an array of two or three axes."""
    if "layers" not in axes:
        array, axes = array[None], ("layers", *axes)
    return array.transpose([axes.index(axis) for axis in ("layers", "rows", "cols")])


@dataclass(frozen=True, eq=False)
class BandTable:
    """What a file says of its bands, in its own unit; None for what it does not say.

    Wavelengths of another number are refused by :meth:`CubeFile.bands` only, as the user may give better ones.
    """

    wavelength: NDArray[np.float64] | None = None  # (layers,) centres
    fwhm: NDArray[np.float64] | None = None  # (layers,)
    good: NDArray[np.bool_] | None = None  # (layers,), False for bands that the file says must not be used
    unit: str | None = None  # as the file words it
    source: str = "wavelength"  # the field or file that this comes from, for messages

    @property
    def wavelength_nm(self) -> NDArray[np.float64] | None:
        """Centres (layers,) in nm, None where they or their unit are not known."""
        factor = NM_PER_UNIT.get((self.unit or "").strip().lower())
        return None if factor is None or self.wavelength is None else self.wavelength * factor


@dataclass(frozen=True, eq=False)
class CubeFile:
    """A cube as its file holds it. Physical values are stored values times gain plus offset."""

    path: Path
    format: str  # format, interleave and number type, such as ENVI BIL int16
    pixels: Pixels
    layers: int
    geobox: GeoBox
    table: BandTable = BandTable()
    nodata: float | None = None  # stored number that means "no data"
    gain: NDArray[np.float64] | None = None  # (layers,), None for 1
    offset: NDArray[np.float64] | None = None  # (layers,), None for 0
    facts: Mapping[str, str] = field(default_factory=dict)  # such as {"sensor": "EnMAP"}, in the order to show them
    nodata_given: bool = False  # by the user, and not by the file
    background: float | None = None  # a further stored number that means "no data"
    masks: tuple[Path, ...] = ()  # the files of a mask that is not in the file itself

    def __post_init__(self) -> None:
        """Refuses lists that do not fit the layers, and scales and transforms that map to nothing."""
        lists = {"gain": self.gain, "offset": self.offset, "fwhm": self.table.fwhm, "bad-band list": self.table.good}
        for name, values in lists.items():
            if values is None:
                continue
            whole = values.shape == (self.layers,) and np.isfinite(values).all()
            if not whole or (name == "gain" and not values.all()):
                expected = f"{self.layers} finite numbers{' that are not 0' if name == 'gain' else ''}"
                raise self.error(f"{name} of the bands", printable(values.tolist()), expected, "correct the file")
        transform = self.geobox.transform
        if not (np.isfinite(list(transform)).all() and transform.determinant):
            expected = "finite numbers and pixels with an area"
            raise self.error("transform", tuple(transform)[:6], expected, "georeference the file again")

    def read(self, window: Window, layers: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Reads a window: (layers, height, width) float32 physical values, NaN where there are no data.

        The numbers lie in memory as they do in the file: those of a pixel side by side if it is pixel-interleaved.
        ``layers``: indices of those to read, in this order; None for all.
        """
        assert layers is None or ((layers >= 0) & (layers < self.layers)).all(), "a layer that the cube does not have"
        with library_errors(self.path):
            stored = self.pixels.read(window, layers)
        values = self.scaled(np.ma.getdata(stored), layers)
        for none in (self.nodata, self.background):
            if none is not None:
                values[np.ma.getdata(stored) == self.as_stored(none)] = np.nan
        if isinstance(stored, np.ma.MaskedArray):
            values[np.ma.getmaskarray(stored)] = np.nan
        return values if self.gain is None and self.pixels.dtype.kind in "iu" else finite_or_nan(values)

    def scaled(self, stored: NDArray, layers: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Physical values of stored numbers (L, height, width) of those layers, in the same memory order."""
        chosen = slice(None) if layers is None else layers
        with np.errstate(over="ignore", invalid="ignore"):  # the caller sees what is not finite
            values = np.array(stored, np.float32, order="K")  # in the file's order: no transpose
            if self.gain is not None:
                values *= self.gain.astype(np.float32)[chosen, None, None]
            if self.offset is not None:
                values += self.offset.astype(np.float32)[chosen, None, None]
        return values

    def files(self) -> list[Path]:
        """The files that pixels are read from."""
        return [self.path, *self.masks]

    def reading(self) -> list[Any]:
        """Versions of these files, and how numbers are read from them, as plain values."""
        scales = [None if values is None else values.tolist() for values in (self.gain, self.offset)]
        return [*map(file_version, self.files()), repr((self.pixels, self.nodata, self.background)), *scales]

    def as_stored(self, value: float) -> float | np.generic:
        """A number as it compares exactly with stored ones: ``-3.4028235e+38`` means the float32 next to it."""
        dtype = self.pixels.dtype
        if dtype.kind in "iu" and float(value).is_integer():
            return int(value)
        if dtype.kind != "f":
            return value
        with np.errstate(over="ignore"):  # infinite: no number that counts as data
            return dtype.type(value)

    def bands(self, *, unit: str | None = None) -> Bands:
        """The bands in nm; ``unit``: ``nm`` or ``um``, where the file names none. Units are never guessed.

        Raises:
            InputError: if wavelengths or their unit are missing, unknown or contradict each other. Its value is
                ``missing`` where the table's wavelength, or else its unit, is None, and never where they are wrong.
        """
        table = self.table
        if table.wavelength is None or table.wavelength.shape != (self.layers,):
            stack = "stack the files of single bands into one (rio stack), or " if self.layers == 1 else ""
            fix = f"{stack}add scene.wavelengths=PATH, a CSV with a column wavelength_nm and one row per band"
            count = "missing" if table.wavelength is None else f"a list of {table.wavelength.size}"
            raise self.error(table.source, count, f"{self.layers} wavelengths", fix)
        factor = NM_PER_UNIT[self._unit(unit)]
        try:
            return Bands(
                table.wavelength * factor,
                None if table.fwhm is None else table.fwhm * factor,
                np.ones(self.layers, bool) if table.good is None else table.good,
            )
        except InputError as error:
            raise self.error(error.field, error.value, error.expected, error.fix) from error

    def _unit(self, given: str | None) -> str:
        """The unit of the wavelengths: as the file says, or as given where it says nothing."""
        named = (self.table.unit or "").strip().lower()
        unit = given if given is not None and named in ("", "unknown") else named
        if unit in NM_PER_UNIT and NM_PER_UNIT.get(given or unit) == NM_PER_UNIT[unit]:
            return unit
        expected = f"{given} as scene.wavelength_unit says" if given in NM_PER_UNIT else "Nanometers or Micrometers"
        fix = "add scene.wavelength_unit=nm or =um where the file names none, or scene.wavelengths=PATH in nm"
        raise self.error("wavelength units", unit or "missing", expected, fix)

    def error(self, field: str, value: object, expected: str, fix: str) -> InputError:
        """An error that names this file."""
        return InputError(self.path, field, value, expected, fix)


def can_hold(dtype: np.dtype, value: float) -> bool:
    """Whether a type can hold a number."""
    if dtype.kind in "iu":
        return value == np.floor(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    with np.errstate(over="ignore"):
        return bool(np.isnan(value) or np.isfinite(np.float64(value).astype(dtype)))


@contextmanager
def library_errors(path: Path) -> Iterator[None]:
    """Words in one line what a library raises while it reads a file."""
    try:
        yield
    except _LIBRARY_ERRORS as error:
        value = f"unreadable ({type(error).__name__}: {printable(error)})"
        fix = "copy the file again, or write it again"
        raise InputError(path, "content", value, "a whole file of its format", fix) from error


def strict_number(path: object, field: str, text: str) -> float:
    """A finite number with a decimal point."""
    word = text.strip()
    value = float(word) if _NUMBER.fullmatch(word) else math.nan
    if math.isfinite(value):
        return value
    comma = ", not a decimal comma" if _NUMBER.fullmatch(word.replace(",", ".", 1)) else ""
    raise InputError(path, field, repr(text)[:60], f"a finite number with a decimal point{comma}", "correct it")


def strict_numbers(path: object, field: str, words: Sequence[str]) -> NDArray[np.float64]:
    """A list of such numbers (N,)."""
    return np.array([strict_number(path, f"{field} {i}", word) for i, word in enumerate(words, 1)], np.float64)


def crs_as_wkt(path: object, field: str, system: str | int) -> str:
    """A coordinate system, given as WKT or by its EPSG code, as WKT."""
    try:
        with rasterio.Env():  # or GDAL would print
            return (CRS.from_epsg(system) if isinstance(system, int) else CRS.from_wkt(system)).to_wkt()
    except (CRSError, ValueError) as error:
        value = repr(system)[:60]
        raise InputError(path, field, value, "a coordinate system, as WKT or EPSG code", "correct it") from error
