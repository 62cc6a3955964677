"""Files with what the user tells of them: wavelengths, scale, offset, nodata."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.formats.cube_file import NM_PER_UNIT, BandTable, CubeFile
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.scene import check_band_count
from hsfusion.spectra import Bands

_log = logging.getLogger(__name__)


def open_told(
    path: str | Path | CubeFile,
    *,
    variable: str | None = None,
    grid: str | None = None,
    axes: Sequence[str] | None = None,
    wavelengths: str | Path | Sequence[float] | None = None,
    wavelength_unit: str | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
) -> CubeFile:
    """Opens the layers of a file with what the user tells of them; their wavelengths may be missing.

    Args:
        path: see :func:`hsfusion.scenes.open_scene`, as all others.
        variable: likewise, for a file that is not open.
        grid: likewise.
        axes: likewise.
        wavelengths: go before those of the file. Its marks of bad bands still hold, and its FWHM where none are told.
        wavelength_unit: likewise.
        scale: likewise.
        offset: likewise.
        nodata: likewise.

    Raises:
        InputError: if the file is damaged or of no known format, or says otherwise.
    """
    file = path if isinstance(path, CubeFile) else open_cube_file(path, variable=variable, grid=grid, axes=axes)
    file = _with_meaning(file, scale=scale, offset=offset, nodata=nodata)
    if wavelengths is None:
        return file
    table = _read_table(file, wavelengths) if isinstance(wavelengths, str | Path) else _listed(file, wavelengths)
    good = [marks for marks in (file.table.good, table.good) if marks is not None]
    fwhm = _own_fwhm(file, unit=table.unit or wavelength_unit) if table.fwhm is None else table.fwhm
    table = dataclasses.replace(table, fwhm=fwhm, good=np.logical_and.reduce(good) if good else None)
    return dataclasses.replace(file, table=table)


def _with_meaning(file: CubeFile, *, scale: float | None, offset: float | None, nodata: float | None) -> CubeFile:
    """The file with what the user says of its numbers, unless it says something itself."""
    if (scale is not None or offset is not None) and (file.gain is not None or file.offset is not None):
        gain = 1.0 if file.gain is None else file.gain[0]
        raise file.error(
            "scale", f"{gain:g} in the file itself", "scene.scale and scene.offset null", "remove them from the command"
        )
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise file.error("scene.scale", scale, "a positive number", "correct scene.scale")
    if offset is not None and not np.isfinite(offset):
        raise file.error("scene.offset", offset, "a number", "correct scene.offset")
    if nodata is not None and file.nodata is not None and not np.isclose(nodata, file.nodata, equal_nan=True):
        raise file.error("nodata", file.nodata, f"{nodata:g} as scene.nodata says", "remove scene.nodata")
    return dataclasses.replace(
        file,
        gain=file.gain if scale is None else np.full(file.layers, float(scale)),
        offset=file.offset if offset is None else np.full(file.layers, float(offset)),
        nodata=file.nodata if nodata is None else float(nodata),
        nodata_given=file.nodata_given or nodata is not None,
    )


def _read_table(file: CubeFile, table: str | Path) -> BandTable:
    bands = Bands.from_csv(table)
    check_band_count(file.path, file.layers, bands)
    return BandTable(bands.wavelength_nm, bands.fwhm_nm, bands.good, unit="nm", source=str(table))


def _listed(file: CubeFile, wavelengths: Sequence[float]) -> BandTable:
    try:
        centres = np.array([float(wavelength) for wavelength in wavelengths])
    except (TypeError, ValueError) as error:
        raise InputError(
            "scene", field="wavelengths", value=error, expected="a file, or a list of numbers", fix="correct the list"
        ) from error
    if centres.size != file.layers:
        raise file.error(
            "number of scene.wavelengths",
            centres.size,
            f"{file.layers}, one for each band of the cube",
            "correct the list",
        )
    return BandTable(centres, source="scene.wavelengths")


def _own_fwhm(file: CubeFile, *, unit: str | None) -> NDArray[np.float64] | None:
    """FWHM of the file's own table in another unit; None where either unit is not known."""
    own, wanted = (NM_PER_UNIT.get((word or "").strip().lower()) for word in (file.table.unit, unit))
    if file.table.fwhm is None or wanted is None:
        return None
    if own is None:
        _log.warning("%s: FWHM of the file are not used, as it names no known unit.", file.path)
        return None
    return file.table.fwhm * (own / wanted)
