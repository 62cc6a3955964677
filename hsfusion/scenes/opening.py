"""Opening scenes from files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError, printable
from hsfusion.scenes.formats.cube_file import BandTable, CubeFile
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.geobox import Window
from hsfusion.scenes.labels import LabelledScene, read_labels
from hsfusion.scenes.scene import Scene, StackedScene, check_band_count, constant_layers, take_layers
from hsfusion.scenes.survey import Survey, plausibility_warnings, survey
from hsfusion.spectra import Bands

_log = logging.getLogger(__name__)
_MOST_KEPT = 100_000_000  # of a cube that stays in memory: 400 MB


class FileScene(Scene):
    """A scene whose C bands are the layers of a file."""

    def __init__(self, file: CubeFile, *, bands: Bands, name: str) -> None:
        self.file, self.geobox, self.bands, self.name = file, file.geobox, bands, name
        self._is_kept = False

    def load(self) -> FileScene:
        """Keeps the cube in memory from its first read on, unless it holds more than 100 million numbers."""
        self._is_kept = self.file.layers * self.geobox.shape[0] * self.geobox.shape[1] <= _MOST_KEPT
        return self

    @cached_property
    def _values(self) -> NDArray[np.float32]:
        return self.file.read(self.geobox.window)

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process, which reads the file itself."""
        return {name: value for name, value in vars(self).items() if name != "_values"}

    def read(self, window: Window | None = None, layers: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """See :meth:`Scene.read`."""
        window = Window(*(window or self.geobox.window))
        if not self._is_kept:
            return self.file.read(window, layers)
        return take_layers(self._values[:, *window.slices], layers).copy(order="K")

    def provenance(self) -> list[dict[str, Any]]:
        """What the numbers mean, see :meth:`Scene.provenance`."""
        file = self.file
        numbers = {
            key: neutral if values is None else float(values[0]) if np.ptp(values) == 0 else values.tolist()
            for key, values, neutral in (("scale", file.gain, 1.0), ("offset", file.offset, 0.0))
        }
        nodata = None if file.nodata is None else str(file.nodata)
        entry = {"name": self.name, "format": file.format, **numbers, "nodata": nodata}
        return [{**entry, "wavelengths": file.table.source}]

    def files(self) -> list[Path]:
        """The file, and its mask if that is another one."""
        return self.file.files()

    def reading(self) -> list[Any]:
        """See :meth:`Scene.reading`."""
        return self.file.reading()


def open_scene(
    path: str | Path | CubeFile,
    *,
    name: str | None = None,
    variable: str | None = None,
    grid: str | None = None,
    axes: Sequence[str] | None = None,
    wavelengths: str | Path | Sequence[float] | None = None,
    wavelength_unit: str | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    bad_bands: Sequence[str | Sequence[float]] = (),
) -> FileScene:
    """Opens a cube of any known format, detected from content.

    Args:
        path: the file; for products of several files, the one named first in their format. Or an open cube.
        name: name of the scene in figures and files; None for the file's name without its ending.
        variable: name of the array, for files that hold several.
        grid: ``map`` or ``sensor``, for products that hold both (EMIT).
        axes: ``band``, ``row`` and ``col`` in the order of the array, for files of arrays that do not name their axes
            (HDF5, netCDF), or have another order than rows, columns, bands (MATLAB, NumPy).
        wavelengths: table of the bands, see :meth:`Bands.from_csv`, or a list of centres in ``wavelength_unit``;
            replaces those of the file, whose marks of bad bands still apply.
        wavelength_unit: ``nm`` or ``um``, for wavelengths without a unit. Units are never guessed.
        scale: physical values are stored values times this, for files that do not state it.
        offset: what is then added, for files that do not state it.
        nodata: stored value that means "no data", for files that do not state it.
        bad_bands: intervals ``[first_nm, last_nm]`` that must not be used, or names of them: ``water_vapour``.
    """
    file = path if isinstance(path, CubeFile) else open_cube_file(path, variable=variable, grid=grid, axes=axes)
    file = with_user_metadata(file, wavelengths=wavelengths, scale=scale, offset=offset, nodata=nodata)
    name = printable(file.path.stem, longest=None) if name is None else str(name)
    if not name or "/" in name:
        raise InputError("scene", "name", repr(name), "a word without /", "correct scene.name")
    scene = FileScene(file, bands=file.bands(unit=wavelength_unit).without(bad_bands), name=name)
    nm = scene.bands.wavelength_nm
    for interval in bad_bands:  # those that have names are wide, and no scene need see all of them
        if not isinstance(interval, str) and not ((interval[0] <= nm) & (nm <= interval[1])).any():
            _log.warning(
                "%s: bad_bands: no band lies from %g to %g nm; those of the scene lie from %g to %g nm.",
                *(name, *interval, nm.min(), nm.max()),
            )
    return scene


def with_user_metadata(
    file: CubeFile,
    *,
    wavelengths: str | Path | Sequence[float] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
) -> CubeFile:
    """A file with the metadata that the user gives, see :func:`open_scene`; its wavelengths may still be missing."""
    wrong = None
    if (scale is not None or offset is not None) and (file.gain is not None or file.offset is not None):
        value = f"{1.0 if file.gain is None else file.gain[0]:g} in the file itself"
        wrong = ("scale", value, "scene.scale and scene.offset null", "remove them from the command")
    elif scale is not None and not 0 < scale < np.inf:
        wrong = ("scene.scale", scale, "a positive number", "correct scene.scale")
    elif offset is not None and not np.isfinite(offset):
        wrong = ("scene.offset", offset, "a number", "correct scene.offset")
    elif nodata is not None and file.nodata is not None and not np.isclose(nodata, file.nodata, equal_nan=True):
        wrong = ("nodata", file.nodata, f"{nodata:g} as scene.nodata says", "remove scene.nodata")
    if wrong:
        raise file.error(*wrong)
    file = replace(
        file,
        gain=file.gain if scale is None else np.full(file.layers, float(scale)),
        offset=file.offset if offset is None else np.full(file.layers, float(offset)),
        nodata=file.nodata if nodata is None else float(nodata),
        nodata_given=file.nodata_given or nodata is not None,
    )
    if wavelengths is None:
        return file
    table = _given_table(file, wavelengths)
    good = [marks for marks in (file.table.good, table.good) if marks is not None]
    return replace(file, table=replace(table, good=np.logical_and.reduce(good) if good else None))


def _given_table(file: CubeFile, given: str | Path | Sequence[float]) -> BandTable:
    if isinstance(given, str | Path):
        bands = Bands.from_csv(given)
        table = BandTable(bands.wavelength_nm, bands.fwhm_nm, bands.good, unit="nm", source=str(given))
    else:
        table = BandTable(np.array(list(given), float), source="scene.wavelengths")
    check_band_count(file.path, file.layers, np.asarray(table.wavelength))
    return table


def open_with_sources(path: str | Path, *, sources: Mapping[str, str | Path] | None = None, **reading: Any) -> Scene:
    """Opens a cube (see :func:`open_scene`) and further rasters on its grid (name -> file, (H, W) or several layers).

    What looks wrong about the cube is logged, as ``hsfusion inspect`` shows it.
    """
    scene = open_scene(path, **reading)
    _log_doubts(scene, survey(scene))
    return with_sources(scene, sources)


def open_labelled_scene(
    cube: str | Path | CubeFile,
    *,
    labels: str | Path,
    labels_variable: str | None = None,
    class_field: str | None = None,
    unlabelled: int | Sequence[int] = 0,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    class_colors: Sequence[str] | Mapping[int, str] | None = None,
    sources: Mapping[str, str | Path] | None = None,
    **reading: Any,
) -> LabelledScene:
    """Opens a cube together with its ground truth.

    What looks wrong with the cube is logged, as ``hsfusion inspect`` shows it. Bands with a single value or no data in
    the whole scene are marked as not good.

    Args:
        cube: see :func:`open_scene`.
        labels: see :func:`read_labels`.
        labels_variable: array or layer of the labels, for files that hold several.
        class_field: attribute with the class, for polygons and points.
        unlabelled: code, or codes, of the labels that mean "no class".
        class_names: names by code, or a list that starts with the name of code 1; they replace those of the file.
        class_colors: colours as ``#rrggbb``, like the names.
        sources: name -> file of each further raster on the cube's grid, (H, W) or several layers.
        **reading: arguments of :func:`open_scene`.
    """
    opened = open_scene(cube, **reading).load()
    _mark_dead_bands(opened)
    of_labels = {"labels_variable": labels_variable, "class_field": class_field, "unlabelled": unlabelled}
    scene = with_sources(opened, sources)
    return with_labels(scene, labels=labels, class_names=class_names, class_colors=class_colors, **of_labels)


def with_labels(
    scene: Scene,
    *,
    labels: str | Path,
    labels_variable: str | None = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    class_colors: Sequence[str] | Mapping[int, str] | None = None,
    **reading: Any,
) -> LabelledScene:
    """Adds ground truth to a scene; for the arguments see :func:`open_labelled_scene`."""
    truth = read_labels(labels, scene, variable=labels_variable, **reading)
    return LabelledScene(scene, truth.codes, truth.legend(names=class_names, colors=class_colors))


def with_sources(scene: Scene, sources: Mapping[str, str | Path] | None) -> Scene:
    """Adds further rasters to a scene, named as in :func:`open_with_sources`."""
    rasters = {str(name): open_cube_file(file) for name, file in (sources or {}).items()}
    return StackedScene(scene, rasters) if rasters else scene


def _mark_dead_bands(scene: FileScene) -> None:
    """Marks bands that hold one number only, or no data, everywhere, and logs what else looks wrong."""
    pixels = survey(scene)
    suspects = np.flatnonzero(pixels.dead & scene.bands.good)
    if pixels.pixels < pixels.total and suspects.size:
        stripes = (scene.read(window, suspects) for window in scene.geobox.stripes(suspects.size))
        blocks = (stripe.reshape(suspects.size, -1).T for stripe in stripes)
        suspects = suspects[constant_layers(blocks, layers=suspects.size)]
    good = np.array(scene.bands.good)
    good[suspects] = False
    if not good.any():
        raise scene.file.error("number of good bands with more than one value", 0, "at least 1", "check the file")
    if suspects.size:
        nm = ", ".join(f"{centre:.0f}" for centre in scene.bands.wavelength_nm[suspects])
        _log.warning("%s: bands with a single value or no data are not used: %s nm.", scene.name, nm)
    scene.bands = replace(scene.bands, good=good)
    _log_doubts(scene, pixels)


def _log_doubts(scene: FileScene, pixels: Survey) -> None:
    for warning in plausibility_warnings(scene.file, pixels, scene.bands):
        _log.warning("%s: %s", scene.name, warning)
