"""Opening scenes from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfusion.scenes.cube_file import CubeFile
from hsfusion.scenes.formats import open_cube_file
from hsfusion.scenes.labels import LabelledScene, Legend, read_labels, split_names
from hsfusion.scenes.scene import Scene, StackedScene, Window, check_band_count
from hsfusion.spectra import Bands


class FileScene:
    """A scene whose bands are the layers of a file.

    Args:
        file: the layers.
        bands: the C bands, one for each.
        name: what figures and files call the scene.
    """

    sources: tuple[tuple[str, int], ...] = ()

    def __init__(self, file: CubeFile, *, bands: Bands, name: str) -> None:
        self.file = file
        self.geobox = file.geobox
        self.bands = bands
        self.name = name

    def read(self, window: Window) -> NDArray[np.float32]:
        """Reads a window: (C, height, width) float32, NaN where there are no data."""
        return self.file.read(window)


def open_scene(
    path: str | Path, *, wavelengths: str | Path | None = None, wavelength_unit: str | None = None
) -> FileScene:
    """Opens a cube.

    Args:
        path: a GeoTIFF, an ENVI file or its header, or a ``.npy`` array (H, W, C).
        wavelengths: table of the bands, see :meth:`Bands.from_csv`; it goes before what the file says of itself.
        wavelength_unit: ``nm`` or ``um``, for files that name wavelengths but no unit. Units are never guessed.

    Raises:
        InputError: if the file is none of these, or the wavelengths are missing or of another number.
    """
    file = open_cube_file(path)
    if wavelengths is None:
        return FileScene(file, bands=file.bands(unit=wavelength_unit), name=Path(path).stem)
    bands = Bands.from_csv(wavelengths)
    check_band_count(path, file.layers, bands)
    return FileScene(file, bands=bands, name=Path(path).stem)


def open_labelled_scene(
    cube: str | Path,
    *,
    labels: str | Path,
    wavelengths: str | Path | None = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    sources: Mapping[str, str | Path] | None = None,
    wavelength_unit: str | None = None,
) -> LabelledScene:
    """Opens a cube together with its ground truth.

    Args:
        cube: see :func:`open_scene`.
        labels: see :func:`read_labels`.
        wavelengths: see :func:`open_scene`.
        class_names: names by code, or a list that starts with the name of code 1.
        sources: name -> GeoTIFF or ``.npy`` (H, W) or (H, W, layers) of each further raster on the cube's grid.
        wavelength_unit: see :func:`open_scene`.

    Raises:
        InputError: if one of the files is not what it has to be.
    """
    scene: Scene = open_scene(cube, wavelengths=wavelengths, wavelength_unit=wavelength_unit)
    if sources:
        scene = StackedScene(scene, {str(name): open_cube_file(file) for name, file in sources.items()})
    codes = read_labels(labels, scene)
    return LabelledScene(scene, codes, Legend.of(codes, names=split_names(class_names)))
