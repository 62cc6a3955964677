"""GeoTIFF and COG, through rasterio and by their driver only: a VRT that is named ``.tif`` must not open."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from hsfusion.errors import InputError
from hsfusion.scenes.cube_file import CubeFile
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.scene import Window


def open_geotiff(path: Path) -> CubeFile:
    """Opens a GeoTIFF.

    Raises:
        InputError: if GDAL cannot, or its numbers are not real.
    """
    with _opened(path) as source:
        dtype = np.dtype(source.dtypes[0])
        if dtype.kind not in "iuf":
            raise InputError(path, field="number type", value=dtype, expected="real numbers", fix="convert the numbers")
        masked = any(MaskFlags.per_dataset in flags for flags in source.mask_flag_enums)
        interleave = "BIP" if source.interleaving and source.interleaving.name == "pixel" else "BSQ"
        return CubeFile(
            path=path,
            format=f"GeoTIFF {interleave} {dtype.name}",
            pixels=TiffPixels(path, dtype, masked),
            layers=source.count,
            geobox=GeoBox((source.height, source.width), source.transform, source.crs.to_wkt() if source.crs else None),
            nodata=source.nodata,
            gain=None if set(source.scales) == {1.0} else np.array(source.scales),
            offset=None if set(source.offsets) == {0.0} else np.array(source.offsets),
        )


@dataclass(frozen=True)
class TiffPixels:
    """The stored numbers of a GeoTIFF.

    Attributes:
        path: the file.
        dtype: of its numbers.
        masked: whether it has a mask of its own.
    """

    path: Path
    dtype: np.dtype
    masked: bool

    def read(self, window: Window) -> NDArray:
        """Reads a window: (layers, height, width) as stored.

        Raises:
            InputError: if the file is damaged.
        """
        block = RasterioWindow(window.col, window.row, window.width, window.height)  # pyright: ignore[reportCallIssue]
        with _opened(self.path) as source:
            try:
                return source.read(window=block, masked=self.masked)
            except RasterioError as error:
                raise InputError(
                    self.path,
                    field="pixels",
                    value="unreadable",
                    expected="a whole file",
                    fix=f"copy it anew ({error})",
                ) from error


def _opened(path: Path) -> rasterio.DatasetReader:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # many cubes have no place, and that is fine
            return rasterio.open(path, driver="GTiff")
    except RasterioError as error:
        raise InputError(
            path, field="content", value="unreadable", expected="a whole GeoTIFF", fix=f"write it anew ({error})"
        ) from error
