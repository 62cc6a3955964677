"""Nominal bands of well-known sensors, for planning.

The calibration of a sensor moves by some tenths of a nm and its products say so band by band; what stands here is the
layout of the instrument: ranges, numbers of bands and sampling distances as the missions publish them, rounded. Where
no table is published, centres are computed from these. Bands come in the order of the products, which steps back where
a second spectrometer begins.

Sources:
    EnMAP: Guanter et al. (2015), doi:10.3390/rs70708830, and the EnMAP Level-2A product specification (91 + 133 bands,
        none in the water vapour). PRISMA: product specification of ASI, and Cogliati et al. (2021),
        doi:10.1016/j.rse.2021.112499 (66 + 173 bands). Both have prisms, whose sampling distance changes with
        wavelength; it is drawn as straight lines between rounded values of product metadata.
    EMIT: Green et al. (2020), doi:10.1109/AERO47225.2020.9172731. DESIS: Alonso et al. (2019), doi:10.3390/s19204471.
    AVIRIS classic: Green et al. (1998), doi:10.1016/S0034-4257(98)00064-9; the ends of its four spectrometers moved by
        some nm from year to year.
    Sentinel-2: MSI user guide of ESA, spacecraft A, the twelve bands of Level-2A.
    Landsat: OLI on Landsat 8, Barsi et al. (2014), doi:10.3390/rs61010232, the seven bands of the land surface.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError, correction
from hsfusion.spectra.bands import Bands


class _Range(NamedTuple):
    """Bands of one spectrometer, or of a part of it between two gaps, by the centres of the first and the last."""

    first_nm: float
    last_nm: float
    number: int
    steps: tuple[float, ...]  # sampling distances at points spread evenly over the bands; only their ratios count
    fwhm_nm: tuple[float, ...]  # widths at such points


_SPECTROMETERS = {
    "enmap": (
        _Range(418.2, 993.1, 91, (4.6, 8.2), (5.9, 10.7)),
        _Range(902.3, 1390.8, 44, (9.6, 12.0, 12.0), (9.2, 11.4)),
        _Range(1461.5, 1759.8, 28, (11.6, 10.4), (11.1, 9.9)),
        _Range(1939.4, 2445.5, 61, (9.5, 7.5), (9.2, 7.2)),
    ),
    "prisma": (
        _Range(400.0, 1010.0, 66, (7.4, 8.2, 10.5, 11.0), (10.0, 10.0, 12.5, 13.5)),
        _Range(920.0, 2505.0, 173, (8.5, 11.6, 10.0, 8.3, 6.8), (11.0, 15.0, 12.5, 10.5, 9.5)),
    ),
    "emit": (_Range(381.0, 2492.9, 285, (7.4,), (8.4, 8.8)),),
    "desis": (_Range(402.0, 999.5, 235, (2.55,), (3.5,)),),
    "aviris_classic": (
        _Range(365.9, 667.5, 32, (9.7,), (10.0,)),
        _Range(655.5, 1263.1, 64, (9.6,), (10.0,)),
        _Range(1253.4, 1872.4, 64, (9.8,), (10.0,)),
        _Range(1866.8, 2496.2, 64, (10.0,), (10.0,)),
    ),
}
# centre and width of each band
_BROAD_BANDS = {
    "sentinel2": (
        *((442.7, 21), (492.4, 66), (559.8, 36), (664.6, 31), (704.1, 15), (740.5, 15)),
        *((782.8, 20), (832.8, 106), (864.7, 21), (945.1, 20), (1613.7, 91), (2202.4, 175)),
    ),
    "landsat": (
        *((442.96, 15.98), (482.04, 60.04), (561.41, 57.33), (654.59, 37.47)),
        *((864.67, 28.25), (1608.86, 84.72), (2200.73, 186.66)),
    ),
}

#: name of each sensor -> what figures call it
SENSORS = {
    "enmap": "EnMAP",
    "prisma": "PRISMA",
    "emit": "EMIT",
    "desis": "DESIS",
    "aviris_classic": "AVIRIS classic",
    "sentinel2": "Sentinel-2",
    "landsat": "Landsat OLI",
}


def sensor_bands(name: str) -> Bands:
    """Nominal bands of one of :data:`SENSORS`, or those of a CSV file with ``wavelength_nm`` and ``fwhm_nm``."""
    if name in SENSORS:
        parts = [_laid_out(part) for part in _SPECTROMETERS.get(name, ())] or [np.array(_BROAD_BANDS[name], float).T]
        centres, widths = np.concatenate(parts, axis=1)
        return Bands(centres, widths, np.ones(centres.size, bool))
    if not Path(name).suffix and "/" not in name:
        word = name.lower().replace("-", "").replace("_", "")
        fix = correction(word, SENSORS, "choose one, or name a file that ends in .csv")
        raise InputError("sensor", "name", name, f"{' | '.join(SENSORS)}, or a CSV file", fix)
    bands = Bands.from_csv(name)
    width = None if bands.fwhm_nm is None else float(np.median(bands.fwhm_nm))
    step = float(np.median(np.diff(np.unique(bands.wavelength_nm)))) if len(bands) > 1 else 1.0
    if width is None or not step / 50 <= width <= max(float(np.ptp(bands.wavelength_nm)), step):
        given = "missing" if width is None else f"{width:g} nm (median) at a spacing of {step:g} nm"
        expected = "the width of each band, from 1/50 of the spacing to the whole range"
        raise InputError(name, "column fwhm_nm", given, expected, "give the full widths at half maximum in nm")
    return bands


def sensor_name(name: str) -> str:
    """The word for a sensor in names of scenes and files: of a CSV file the name without folder and suffix."""
    return name if name in SENSORS else Path(name).stem


def _laid_out(part: _Range) -> NDArray[np.float64]:
    """Centres and widths (2, C) in nm, to 0.01 nm."""
    step = _along(part.steps, part.number - 1)
    way = np.append(0.0, np.cumsum(step)) / step.sum()
    centres = part.first_nm + (part.last_nm - part.first_nm) * way
    return np.round([centres, _along(part.fwhm_nm, part.number)], 2)


def _along(values: tuple[float, ...], number: int) -> NDArray[np.float64]:
    return np.interp(np.linspace(0, 1, number), np.linspace(0, 1, len(values)), values)
