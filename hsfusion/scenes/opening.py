"""Opening scenes from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from hsfusion.errors import InputError
from hsfusion.scenes.labels import LabelledScene, Legend, read_labels, split_names
from hsfusion.scenes.rasters import file_format, load_npy, open_tiff, tiff_geobox
from hsfusion.scenes.scene import ArrayScene, Scene, Window, check_band_count, finite_or_nan
from hsfusion.spectra import Bands


class TiffScene:
    """A GeoTIFF cube, read window by window.

    Args:
        path: the file.
        bands: its C bands.

    Raises:
        InputError: if it cannot be read or has another number of bands.
    """

    def __init__(self, path: str | Path, *, bands: Bands) -> None:
        with open_tiff(path) as source:
            check_band_count(path, source.count, bands)
            self.geobox = tiff_geobox(source)
        self.path = Path(path)
        self.name = self.path.stem
        self.bands = bands

    def read(self, window: Window) -> NDArray[np.float32]:
        """Reads a window: (C, height, width) float32, NaN where there are no data."""
        with open_tiff(self.path) as source:
            block = RasterioWindow(window.col, window.row, window.width, window.height)  # pyright: ignore[reportCallIssue]
            try:
                values = source.read(window=block, masked=True, out_dtype=np.float32).filled(np.nan)
            except RasterioError as error:
                raise InputError(
                    self.path,
                    field="pixels",
                    value="unreadable",
                    expected="a whole file",
                    fix=f"copy it anew ({error})",
                ) from error
        return finite_or_nan(values)


def open_scene(path: str | Path, *, wavelengths: str | Path | None = None) -> Scene:
    """Opens a cube.

    Args:
        path: a ``.npy`` array (H, W, C), as the public benchmarks come, or a GeoTIFF.
        wavelengths: table of the bands, see :meth:`Bands.from_csv`. Wavelengths are never guessed.

    Raises:
        InputError: if the file is neither, or the wavelengths are missing or of another number.
    """
    kind = file_format(path)
    if wavelengths is None:
        raise InputError(
            path,
            field="scene.wavelengths",
            value="not given",
            expected="a CSV with a column wavelength_nm and one row per band",
            fix="add scene.wavelengths=PATH",
        )
    bands = Bands.from_csv(wavelengths)
    if kind == "tiff":
        return TiffScene(path, bands=bands)
    array = load_npy(path)
    if array.ndim != 3:
        raise InputError(path, field="shape", value=array.shape, expected="three axes (H, W, C)", fix="reorder it")
    check_band_count(path, array.shape[2], bands)
    return ArrayScene(array.transpose(2, 0, 1), bands=bands, name=Path(path).stem)


def open_labelled_scene(
    cube: str | Path,
    *,
    labels: str | Path,
    wavelengths: str | Path | None = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
) -> LabelledScene:
    """Opens a cube together with its ground truth.

    Args:
        cube: see :func:`open_scene`.
        labels: see :func:`read_labels`.
        wavelengths: see :func:`open_scene`.
        class_names: names by code, or a list that starts with the name of code 1.

    Raises:
        InputError: if one of the files is not what it has to be.
    """
    scene = open_scene(cube, wavelengths=wavelengths)
    codes = read_labels(labels, scene)
    return LabelledScene(scene, codes, Legend.of(codes, names=split_names(class_names)))
