"""Indian Pines, the scene that comes inside the package tensorly, so that nothing is downloaded."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np

from hsfusion.scenes import ArrayScene, LabelledScene, Legend
from hsfusion.spectra import Bands

CLASS_NAMES = (
    "Alfalfa",
    "Corn-notill",
    "Corn-mintill",
    "Corn",
    "Grass-pasture",
    "Grass-trees",
    "Grass-pasture-mowed",
    "Hay-windrowed",
    "Oats",
    "Soybean-notill",
    "Soybean-mintill",
    "Soybean-clean",
    "Wheat",
    "Woods",
    "Buildings-Grass-Trees-Drives",
    "Stone-Steel-Towers",
)


def indian_pines_bands() -> Bands:
    """Centres and widths in nm of the 200 bands; not ascending, the spectrometers overlap."""
    with as_file(files("hsfusion.data") / "indian_pines_bands.csv") as path:
        return Bands.from_csv(path)


def indian_pines() -> LabelledScene:
    """AVIRIS over farmland in Indiana, 12 June 1992: 145 x 145 pixels of 20 m, 200 bands, 16 classes, 10,249 labelled.

    The values are the 16-bit numbers of the distributed product (radiance, scaled), without georeference.
    Source: Baumgardner, Biehl and Landgrebe (2015), doi:10.4231/R7RX991C.
    """
    from tensorly.datasets import load_indian_pines

    bunch = load_indian_pines()
    # both arrays are Fortran-ordered in the package
    cube = np.ascontiguousarray(np.asarray(bunch["tensor"]).transpose(2, 0, 1), dtype=np.float32)
    labels = np.ascontiguousarray(bunch["ticks"][0], dtype=np.int64)
    scene = ArrayScene(cube, bands=indian_pines_bands(), name="indian_pines")
    return LabelledScene(scene, labels, Legend.of(labels, names=dict(enumerate(CLASS_NAMES, start=1))))
