"""Public scenes: Indian Pines from a package, and files that users download themselves."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes import ArrayScene, LabelledScene, Legend, open_labelled_scene
from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.formats.registry import file_format, open_cube_file
from hsfusion.spectra import Bands

_log = logging.getLogger(__name__)
INDIAN_PINES_CLASSES = (
    *("Alfalfa", "Corn-notill", "Corn-mintill", "Corn", "Grass-pasture", "Grass-trees", "Grass-pasture-mowed"),
    *("Hay-windrowed", "Oats", "Soybean-notill", "Soybean-mintill", "Soybean-clean", "Wheat", "Woods"),
    *("Buildings-Grass-Trees-Drives", "Stone-Steel-Towers"),
)


def indian_pines_bands() -> Bands:
    """Centres and widths in nm of the 200 bands; not ascending, because the spectrometers overlap."""
    with as_file(files("hsfusion.data") / "indian_pines_bands.csv") as path:
        return Bands.from_csv(path)


def indian_pines() -> LabelledScene:
    """AVIRIS over farmland in Indiana, 12 June 1992: 145 x 145 pixels of 20 m, 200 bands, 16 classes, 10,249 labelled.

    The values are the 16-bit numbers of the distributed product (scaled radiance), without georeferencing.
    Source: Baumgardner, Biehl and Landgrebe (2015), doi:10.4231/R7RX991C.
    """
    from tensorly.datasets import load_indian_pines

    bunch = load_indian_pines()
    # both arrays are Fortran-ordered in the package
    cube = np.ascontiguousarray(np.asarray(bunch["tensor"]).transpose(2, 0, 1), dtype=np.float32)
    labels = np.ascontiguousarray(bunch["ticks"][0], dtype=np.int64)
    scene = ArrayScene(cube, bands=indian_pines_bands(), name="indian_pines")
    return LabelledScene(scene, labels, Legend.of(labels, names=dict(enumerate(INDIAN_PINES_CLASSES, start=1))))


def benchmark_scene(
    *,
    name: str,
    page: str,
    cube: str | Path | None = None,
    labels: str | Path | None = None,
    cube_sha256: str | None = None,
    labels_sha256: str | None = None,
    nominal: Mapping[str, Any] | None = None,
    wavelengths: str | Path | Sequence[float] | None = None,
    wavelength_unit: str | None = None,
    **keywords: Any,
) -> LabelledScene:
    """Opens a benchmark scene, from ``page``, with its ground truth.

    A checksum is None if none is published. Wavelengths are the user's, else the file's, else ``nominal``, see
    :func:`nominal_wavelengths`. Further keywords are those of :func:`hsfusion.scenes.open_labelled_scene`.
    """
    cube_file = _file(name, "cube", cube, sha256=cube_sha256, page=page)
    labels_file = _file(name, "labels", labels, sha256=labels_sha256, page=page)
    choices = {key: keywords.pop(key, None) for key in ("variable", "grid", "axes")}
    file = open_cube_file(cube_file, **choices)
    if wavelengths is None and nominal is not None and file.table.wavelength is None:
        wavelengths, wavelength_unit = _nominal_axis(file, nominal, name=name, page=page), "nm"
    keywords |= {"name": name, "wavelengths": wavelengths, "wavelength_unit": wavelength_unit}
    return open_labelled_scene(file, labels=labels_file, **keywords)


def _nominal_axis(file: CubeFile, nominal: Mapping[str, Any], *, name: str, page: str) -> list[float]:
    centres = nominal_wavelengths(nominal)
    if file.layers != centres.size:
        expected, fix = f"{centres.size}, as in {page}", "name that file, or set scene.wavelengths"
        raise file.error("number of bands", file.layers, expected, fix)
    _log.warning(
        "%s: the file names no wavelengths. These are nominal: %d bands, evenly spaced in each spectrometer,"
        " from %g to %g nm. Set scene.wavelengths for exact ones.",
        *(name, centres.size, centres.min(), centres.max()),
    )
    return centres.tolist()


def nominal_wavelengths(nominal: Mapping[str, Any]) -> NDArray[np.float64]:
    """Approximate centres (C,) in nm of the bands of the public file, evenly spaced within each spectrometer.

    ``spectrometers`` are first and last centre in nm and number of bands of each, with bands numbered consecutively
    from 1; ``removed`` are the numbers of bands missing in the public file, ``7`` or ``"108-112"``.
    """
    centres = np.concatenate([np.linspace(first, last, bands) for first, last, bands in nominal["spectrometers"]])
    removed = np.zeros(centres.size, bool)
    for item in nominal.get("removed", ()):
        first, _, last = str(item).partition("-")
        removed[int(first) - 1 : int(last or first)] = True
    return centres[~removed]


def _file(name: str, key: str, given: str | Path | None, *, sha256: str | None, page: str) -> Path:
    """The file that the user names, of a known format; the log says whether it is the public one."""
    if given is None:
        expected, fix = f"the {key} of {name}, from {page}", f"fetch it there and set scene.{key}=PATH"
        raise InputError("scene", f"scene.{key}", "missing", expected, fix)
    file_format(given)
    with open(given, "rb") as content:
        if sha256 is None:
            _log.warning("%s: unverified, no checksum of this file is published.", given)
        elif hashlib.file_digest(content, "sha256").hexdigest() != sha256:
            _log.warning("%s: unverified, its checksum is not that of the public file.", given)
    return Path(given)
