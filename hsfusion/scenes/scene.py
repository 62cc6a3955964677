"""The scene protocol; scenes in memory, with further rasters on their grid, or with other bands."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import EnvironmentFailure, InputError, printable
from hsfusion.scenes.geobox import GeoBox, Window, check_same_grid, crs_name
from hsfusion.spectra import Bands, match_bands
from hsfusion.spectra.resampling import twins_nm

if TYPE_CHECKING:
    from hsfusion.scenes.formats.cube_file import CubeFile

_log = logging.getLogger(__name__)
_EDGE = 256  # of the squares, in pixels, that single pixels are read by
_MOST_IN_MEMORY = 2**29  # bytes of single pixels


class Scene(Protocol):
    """A cube with bands and georeferencing; the header is read on construction, the pixels by :meth:`read`."""

    name: str  # what figures and files call the scene
    bands: Bands  # C
    sources: tuple[tuple[str, int], ...] = ()  # name and layers of each further raster; its layers follow the bands
    geobox: GeoBox
    scenes: tuple[Scene, ...] = ()  # those that it is made of

    def read(self, window: Window | None = None, layers: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Reads a window, or all: (C + E, height, width) float32 in the scene's own units, NaN where there are no data.

        Of ``layers``, (L,) indices of bands and further layers, only these are read, in this order.
        """
        ...

    def provenance(self) -> list[dict[str, Any]]:
        """What the numbers mean, as plain values for logs and model files, of each cube that is a file.

        ``name``, ``format``, ``scale`` and ``offset`` (a number, or one for each band: physical values are stored
        values times scale plus offset), ``nodata`` and ``wavelengths``.
        """
        return [entry for scene in self.scenes for entry in scene.provenance()]

    def files(self) -> list[Path]:
        """The files that pixels are read from."""
        return [path for scene in self.scenes for path in scene.files()]

    def reading(self) -> list[Any]:
        """Versions of these files, and how numbers are read from them, as plain values: all that decides on pixels.

        Of a scene that is made of others, their bands, too, which decide on what is made of them.
        """
        return [*map(fingerprint, self.scenes)] or [*map(file_version, self.files())]

    def repeats(self) -> list[tuple[Window, tuple[int, int]]]:
        """Windows whose ground lies in the scene again, and how many rows and columns further, both ways."""
        return []

    def __repr__(self) -> str:
        """In one line: ``<FileScene field: 145 rows x 145 columns x 200 bands, 400-2500 nm, no CRS>``."""
        (rows, columns), nm = self.geobox.shape, self.bands.wavelength_nm
        layers = "".join(f", {printable(name)} ({number} layer{'s' * (number > 1)})" for name, number in self.sources)
        return (
            f"<{type(self).__name__} {printable(self.name)}: {rows} rows x {columns} columns x {nm.size} bands, "
            f"{nm.min():.0f}-{nm.max():.0f} nm{layers}, "
            f"{'no CRS' if self.geobox.crs is None else crs_name(self.geobox.crs)}>"
        )


class ArrayRaster:
    """Layers (E, H, W) of any real dtype in memory, NaN or masked (``numpy.ma``) where there are no data."""

    def __init__(self, layers: NDArray, *, geobox: GeoBox | None = None) -> None:
        self._values = layers
        self.layers = int(layers.shape[0])
        self.geobox = geobox or GeoBox((int(layers.shape[1]), int(layers.shape[2])))

    def read(self, window: Window | None = None, layers: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Reads a window, or all: (E, height, width) float32, or those layers, NaN where there are no data."""
        part = take_layers(self._values[:, *Window(*(window or self.geobox.window)).slices], layers)
        return finite_or_nan(np.asarray(np.ma.filled(part.astype(np.float32), np.nan)))

    def files(self) -> list[Path]:
        """None: it lies in memory."""
        return []

    def reading(self) -> list[Any]:
        """Nothing, see :meth:`Scene.reading`."""
        return []


class ArrayScene(ArrayRaster, Scene):
    """A scene in memory: a cube (C, H, W) of any real dtype, NaN or masked where there are no data, and its C bands."""

    def __init__(self, cube: NDArray, *, bands: Bands, name: str, geobox: GeoBox | None = None) -> None:
        check_band_count(name, cube.shape[0], bands.wavelength_nm)
        super().__init__(cube, geobox=geobox)
        check_same_grid(self.geobox, GeoBox(cube.shape[1:]), source=name, reference="the cube")
        self.name, self.bands = name, bands


class DerivedScene(Scene):
    """A scene derived from another, with its georeferencing, files and scales, and its name if none is given."""

    def __init__(
        self, scene: Scene, *, bands: Bands, sources: Sequence[tuple[str, int]], name: str | None = None
    ) -> None:
        self.scene, self.scenes, self.bands, self.sources = scene, (scene,), bands, tuple(sources)
        self.name, self.geobox = scene.name if name is None else name, scene.geobox

    def repeats(self) -> list[tuple[Window, tuple[int, int]]]:
        """Those of the other scene."""
        return self.scene.repeats()


class StackedScene(DerivedScene):
    """A scene with further rasters on its grid: lidar heights, radar backscatter, thermal bands.

    Args:
        scene: the cube.
        rasters: name -> raster with the same number of rows and columns, in the same place.
    """

    def __init__(self, scene: Scene, rasters: Mapping[str, ArrayRaster | CubeFile]) -> None:
        for name, raster in rasters.items():
            check_same_grid(raster.geobox, scene.geobox, source=name, reference=scene.name)
        sources = (*scene.sources, *((name, raster.layers) for name, raster in rasters.items()))
        super().__init__(scene, bands=scene.bands, sources=sources)
        self.rasters = list(rasters.values())

    def read(self, window: Window | None = None, layers: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """See :meth:`Scene.read`."""
        window = window or self.geobox.window
        parts = [part.read(window) for part in (self.scene, *self.rasters)]
        return take_layers(np.concatenate(parts), layers)

    def files(self) -> list[Path]:
        """Those of the cube, and the further rasters'."""
        return [*super().files(), *(path for raster in self.rasters for path in raster.files())]

    def reading(self) -> list[Any]:
        """That of the cube, and of the further rasters."""
        return [*super().reading(), *(entry for raster in self.rasters for entry in raster.reading())]


class BandSelection(DerivedScene):
    """A scene with the bands and further layers of another, matched by wavelength and by name, never by index.

    Args:
        scene: the scene; its bands may be more, and in another order.
        bands: the C bands that are wanted; to each, the nearest good band within half a FWHM is taken.
        sources: name and number of layers of each further raster that is wanted.
        needed: (C + E,) bool, which of them have to be there; of others nothing may be read, and they
            take no band from those.
    """

    def __init__(
        self, scene: Scene, *, bands: Bands, sources: Sequence[tuple[str, int]], needed: NDArray[np.bool_]
    ) -> None:
        order, wrong = match_bands(bands, scene.bands, needed=needed[: len(bands)]), None
        missing = bands.wavelength_nm[(order < 0) & needed[: len(bands)]]
        if dict(scene.sources) != dict(sources):
            expected = f"{dict(sources) or 'none'}, as the model was trained with"
            fix = "give them as scene.sources={name: file}"
            wrong = ("further rasters", dict(scene.sources) or "none", expected, fix)
        elif missing.size:
            field = f"number of the {int(needed[: len(bands)].sum())} bands in use by the model that are missing"
            listed = f"{missing.size} ({', '.join(f'{nm:.1f}' for nm in missing)} nm)"
            fix = "give a scene of the same sensor, predict with bands=resample, or fine-tune the model on this one"
            wrong = (field, listed, "0 (a good band within half a FWHM of each)", fix)
        if wrong:
            raise InputError(scene.name, *wrong)
        if twins := twins_nm(scene.bands, np.where(needed[: len(bands)], order, -1)):
            listed = ", ".join(f"{nm:.1f}" for nm in twins)
            text = "%s: bands with the same centre and width are matched by their order in the file: %s nm."
            _log.warning(text, scene.name, listed)
        super().__init__(scene, bands=bands, sources=sources)
        start, first = len(scene.bands), {}
        for name, number in scene.sources:
            first[name], start = start, start + number
        layers = [first[name] + i for name, number in sources for i in range(number)]
        self._order = np.array([*order, *layers], np.int64)

    def read(self, window: Window | None = None, layers: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """See :meth:`Scene.read`."""
        order = self._order if layers is None else self._order[layers]
        assert (order >= 0).all(), "a band that is not there was asked for"
        return self.scene.read(window, order)


def fingerprint(scene: Scene) -> dict[str, Any]:
    """Plain values that tell a scene, or what bands were selected from, apart: bands, place, scale, files, reading."""
    inner = scene.scene if isinstance(scene, BandSelection) else scene
    return {
        "name": inner.name,
        **inner.bands.to_dict(),
        "sources": [list(source) for source in inner.sources],
        "place": [*inner.geobox.shape, *tuple(inner.geobox.transform)[:6], inner.geobox.crs],
        "values": inner.provenance(),
        "files": inner.reading(),
    }


def file_version(path: Path) -> list[int]:
    """What changes with the content of a file, wherever it is moved to."""
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def lies_in_files(scene: Scene) -> bool:
    """Whether every cube and further raster that a scene is made of is a file, none an array in memory."""
    rasters = scene.rasters if isinstance(scene, StackedScene) else []
    return bool(scene.files()) and all(map(lies_in_files, scene.scenes)) and all(raster.files() for raster in rasters)


def content_digest(scene: Scene) -> str:
    """SHA-256 of what a scene holds, wherever its files lie: bands, place, scale, and all pixels, which are read."""
    hashed = hashlib.sha256(json.dumps({**fingerprint(scene), "files": []}, sort_keys=True).encode())
    for window in scene.geobox.stripes(layer_count(scene)):
        hashed.update(scene.read(window).tobytes())
    return hashed.hexdigest()


def read_all(scene: Scene, layers: NDArray[np.int64] | None = None, *, step: int = 1) -> NDArray[np.float32]:
    """Reads the whole scene, or some of its layers: (C + E, H, W) float32, NaN where there are no data.

    With a ``step``, only every ``step``-th row and column.
    """
    height, width = scene.geobox.shape
    if layers is None:
        return scene.read()
    values = np.empty((len(layers), -(-height // step), -(-width // step)), np.float32)
    for window in scene.geobox.stripes(layer_count(scene), step=step):  # it may read every layer to give some of them
        part = scene.read(window, layers)[:, ::step, ::step]
        first = window.row // step
        values[:, first : first + part.shape[1]] = part
    return values


def pixel_blocks(
    scene: Scene, pixels: NDArray[np.int64], layers: NDArray[np.int64] | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Reads single pixels (N,), flat indices row * W + col, in squares of 256 pixels, so that memory suffices.

    Yields their places (n,) in ``pixels``, and numbers (n, L) float32 of those layers, NaN where there are no data.
    """
    width = scene.geobox.shape[1]
    rows, cols = np.divmod(pixels, width)
    square = rows // _EDGE * (width // _EDGE + 1) + cols // _EDGE
    order = np.argsort(square, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(square[order])) + 1) if pixels.size else ():
        row, col = rows[places], cols[places]
        window = Window.around(row, col)
        yield places, scene.read(window, layers)[:, row - window.row, col - window.col].T


def read_pixels(
    scene: Scene, pixels: NDArray[np.int64], layers: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Reads single pixels (N,), see :func:`pixel_blocks`: (N, L) float32, NaN where there are no data."""
    values = room_for(pixels.size, layer_count(scene) if layers is None else len(layers))
    for places, part in pixel_blocks(scene, pixels, layers):
        values[places] = part
    return values


def room_for(number: int, layers: int) -> NDArray[np.float32]:
    """An array (number, layers), to be filled: of many pixels in a temporary file, which the system keeps or drops."""
    size = 4 * number * layers
    if size <= min(_MOST_IN_MEMORY, _available_bytes() // 8):
        return np.empty((number, layers), np.float32)
    _log.info("%.1f GB of pixels go to a temporary file in %s", size / 1e9, tempfile.gettempdir())
    if _is_in_memory(tempfile.gettempdir()):
        _log.warning("%s is in memory: set TMPDIR to a folder on a disk.", tempfile.gettempdir())
    with tempfile.TemporaryFile(prefix="hsfusion-") as file:  # which lasts as long as the array
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk shows here, and not as a signal
        except OSError as error:
            fix = "free space there, or set TMPDIR to a folder on a larger disk"
            raise EnvironmentFailure(
                f"{tempfile.gettempdir()}: no space for a temporary file of {size / 1e9:.1f} GB. Fix: {fix}."
            ) from error
        return np.memmap(cast(Any, file), np.float32, "r+", shape=(number, layers))


def _is_in_memory(folder: str) -> bool:
    """Whether the files of a folder lie in memory (tmpfs), where the system says so."""
    mounts, device = Path("/proc/self/mountinfo"), Path(folder).stat().st_dev
    lines = mounts.read_text().splitlines() if mounts.exists() else []
    devices = {line.split()[2] for line in lines if " - tmpfs " in line}
    return bool(devices) and f"{os.major(device)}:{os.minor(device)}" in devices


def _available_bytes() -> int:
    """Memory that processes can have without others being swapped out."""
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    values = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    return values[0] if values else 8 * _MOST_IN_MEMORY


def constant_layers(blocks: Iterable[NDArray[np.float32]], *, layers: int) -> NDArray[np.bool_]:
    """Whether layers (L,) hold no more than one number, NaN aside, in all of the pixels of blocks (n, L)."""
    lowest, highest = np.full(layers, np.inf), np.full(layers, -np.inf)
    for values in blocks:
        lowest = np.fmin(lowest, np.fmin.reduce(values))
        highest = np.fmax(highest, np.fmax.reduce(values))
    return ~(highest > lowest)


def layer_count(scene: Scene) -> int:
    """C + E, the number of bands and further layers."""
    return len(scene.bands) + sum(number for _, number in scene.sources)


def take_layers(values: NDArray, layers: NDArray[np.int64] | None) -> NDArray:
    """Layers (L, height, width) of (layers, height, width), in the same memory order; a memory map gives only those."""
    if layers is None or np.array_equal(layers, np.arange(len(values))):
        return values
    if values.strides[0] == values.itemsize and not np.ma.isMaskedArray(values):  # a pixel's numbers lie side by side
        pixels = values.transpose(1, 2, 0)
        taken = np.empty((*pixels.shape[:2], len(layers)), values.dtype)
        for row, out in zip(pixels, taken, strict=True):  # a window taken whole would be copied whole first
            np.take(row, layers, axis=1, out=out, mode="clip")  # the other modes go through a buffer
        return taken.transpose(2, 0, 1)
    return values[layers]


def finite_or_nan(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Makes infinite values NaN, in place."""
    values[np.isinf(values)] = np.nan
    return values


def check_band_count(source: object, layers: int, wavelength_nm: NDArray[np.float64]) -> None:
    """Makes sure that a cube has one layer for each band."""
    if layers != wavelength_nm.size:
        expected = f"{layers}, one for each band of the cube"
        raise InputError(source, "number of wavelengths", wavelength_nm.size, expected, "give one for each")
