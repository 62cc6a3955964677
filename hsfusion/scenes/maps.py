"""Writing maps: GeoTIFFs that are whole or not there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from hsfusion.errors import EnvironmentFailure
from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.labels import Legend


def write_class_map(
    path: Path, codes: NDArray[np.integer], *, legend: Legend, geobox: GeoBox, tags: Mapping[str, str] | None = None
) -> None:
    """Writes class codes as a GeoTIFF with colour table, class names and nodata 0.

    The names stand in the tags ``class_<code>``, and as GDAL category names in ``<path>.aux.xml``, where QGIS and
    GDAL look for them.

    Args:
        path: where to.
        codes: (H, W) codes of the legend, 0 where there is no class.
        legend: the classes.
        geobox: the grid.
        tags: more tags.

    Raises:
        EnvironmentFailure: if the file cannot be written.
    """
    dtype = np.uint8 if legend.codes[-1] <= 255 else np.uint16
    colormap = {code: _rgba(color) for code, color in zip(legend.codes, legend.colors, strict=True)}
    names = {f"class_{code}": name for code, name in zip(legend.codes, legend.names, strict=True)}
    write_raster(
        path,
        codes.astype(dtype),
        geobox=geobox,
        nodata=0,
        tags={**names, **(tags or {})},
        colormap={0: (0, 0, 0, 0), **colormap},
    )
    by_code = dict(zip(legend.codes, legend.names, strict=True))
    categories = "".join(f"<Category>{escape(by_code.get(i, ''))}</Category>" for i in range(legend.codes[-1] + 1))
    sidecar = (
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames></PAMRasterBand></PAMDataset>'
    )
    try:
        Path(f"{path}.aux.xml").write_text(sidecar + "\n", encoding="utf-8")
    except OSError as error:
        raise EnvironmentFailure(
            f"{path}.aux.xml: cannot be written ({error}). Fix: free space or choose another folder."
        ) from error


def write_raster(
    path: Path,
    values: NDArray,
    *,
    geobox: GeoBox,
    nodata: float | None = None,
    tags: Mapping[str, str] | None = None,
    colormap: Mapping[int, tuple[int, int, int, int]] | None = None,
    layer_names: Sequence[str] = (),
) -> None:
    """Writes a tiled GeoTIFF with DEFLATE, reads it back, and only then gives it its name.

    Args:
        path: where to.
        values: (H, W) or (layers, H, W), uint8, uint16 or float32.
        geobox: the grid.
        nodata: value that means «no data».
        tags: tags of the file.
        colormap: RGBA of each value.
        layer_names: description of each layer, or nothing.

    Raises:
        EnvironmentFailure: if the file cannot be written, or reads back differently.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    layers = values if values.ndim == 3 else values[None]
    profile = {
        "driver": "GTiff",
        **{"count": len(layers), "height": geobox.shape[0], "width": geobox.shape[1]},
        **{"dtype": values.dtype, "nodata": nodata},
        **{"crs": geobox.crs, "transform": geobox.transform, "compress": "deflate", "tiled": True},
    }
    try:
        with _no_georeference_is_fine(), rasterio.open(part, "w", **profile) as file:
            file.write(layers)
            for i, name in enumerate(layer_names, start=1):
                file.set_band_description(i, name)
            file.update_tags(**(tags or {}))
            if colormap:
                file.write_colormap(1, colormap)
        with _no_georeference_is_fine(), rasterio.open(part, driver="GTiff") as file:
            same = np.array_equal(file.read(), layers, equal_nan=values.dtype.kind == "f")
        if not same:
            raise OSError("it reads back differently")
        part.replace(path)
    except (RasterioError, OSError) as error:
        raise EnvironmentFailure(
            f"{path}: cannot be written ({error}). Fix: free space or choose another folder."
        ) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _no_georeference_is_fine() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _rgba(color: str) -> tuple[int, int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue, 255
