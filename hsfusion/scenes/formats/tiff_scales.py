"""Scale and offset of a GeoTIFF: those of its bands, or of its tags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.formats.band_tags import lower_case
from hsfusion.scenes.formats.cube_file import strict_number

_Numbers = NDArray[np.float64]


def band_scales(source: rasterio.DatasetReader, path: Path) -> tuple[_Numbers | None, _Numbers | None]:
    """Reads gain and offset of each band; None where they change nothing.

    GDAL's scale multiplies. ENVI's ``reflectance_scale_factor``, which programs copy into tags, divides. Whether a tag
    ``scale_factor`` multiplies (netCDF) or divides (HDF products) cannot be told, so it may only repeat GDAL's.

    Args:
        source: the open file.
        path: for messages.

    Raises:
        InputError: if a scale is 0 or no finite number, or a tag says something else than the scale of the bands.
    """
    gain = _told(path, "scale", source.scales, 1.0)
    offset = _told(path, "offset", source.offsets, 0.0)
    whole = lower_case(source.tags(ns="ENVI")) | lower_case(source.tags())
    if "reflectance_scale_factor" in whole:
        factor = strict_number(path, "the tag reflectance_scale_factor", whole["reflectance_scale_factor"])
        if not factor > 0:
            raise _error(path, "the tag reflectance_scale_factor", factor, "a positive number")
        if gain is not None and not np.allclose(gain * factor, 1):
            raise _error(path, "the tag reflectance_scale_factor", f"{factor:g}", f"1 / {gain[0]:g}, the bands' scale")
        gain = np.full(source.count, 1 / factor) if gain is None and factor != 1 else gain
    for band in source.indexes:
        tags = whole | lower_case(source.tags(band))
        _check_tag(path, tags, "scale_factor", 1.0 if gain is None else float(gain[band - 1]), neutral=1.0)
        _check_tag(path, tags, "add_offset", 0.0 if offset is None else float(offset[band - 1]), neutral=0.0)
    return gain, offset


def _check_tag(path: Path, tags: dict[str, str], name: str, used: float, *, neutral: float) -> None:
    if name not in tags:
        return
    value = strict_number(path, f"the tag {name}", tags[name])
    if value == neutral or np.isclose(value, used) or (neutral and np.isclose(value * used, 1)):
        return
    raise InputError(
        path,
        field=f"the tag {name}",
        value=f"{value:g}",
        expected=f"{used:g} as GDAL's {'scale' if neutral else 'offset'} of the bands, for it may multiply or divide",
        fix="set GDAL's scale and offset of the bands (gdal_edit.py -scale -offset), or remove the tag",
    )


def _told(path: Path, name: str, values: tuple[float, ...], neutral: float) -> _Numbers | None:
    numbers = np.array(values)
    wrong = ~np.isfinite(numbers) | ((numbers == 0) & (neutral != 0))
    if wrong.any():
        band = int(np.flatnonzero(wrong)[0])
        wanted = "a finite number" + (" that is not 0" if neutral else "")
        raise _error(path, f"{name} of band {band + 1}", numbers[band], wanted)
    return None if (numbers == neutral).all() else numbers


def _error(path: Path, field: str, value: object, expected: str) -> InputError:
    return InputError(path, field=field, value=value, expected=expected, fix="correct it")
