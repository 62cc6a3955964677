"""The figures of ``hsfusion inspect --plot``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfusion import plots
from hsfusion.cli.inspected import Inspected
from hsfusion.errors import InputError
from hsfusion.scenes import Window
from hsfusion.scenes.readers.cube_file import CubeFile

_STEMS = ("composite", "spectra", "band_quality")
_FILES = {f"{stem}.{kind}" for stem in _STEMS for kind in ("png", "svg")}
_RGB_NM = (640.0, 550.0, 460.0)
_INFRARED_NM = (850.0, 650.0, 550.0)  # the customary false colours
_SHORTWAVE_NM = (2200.0, 1650.0, 1050.0)
_NEAR_NM = 50.0
_MOST_PIXELS = 1000  # along a side of the composite
_AT_ONCE = 16_000_000  # numbers read


def check_folder(folder: Path) -> None:
    """Refuses a folder in which figures would replace files that are not from an earlier look.

    Raises:
        InputError: naming it.
    """
    if folder.is_dir():
        there = {path.name for path in folder.iterdir()}
        if not (there & _FILES and there - _FILES):
            return
        value = f"a folder with {', '.join(sorted(there & _FILES))} among other files"
    elif not folder.exists():
        return
    else:
        value = "a file"
    raise InputError(folder, field="--plot", value=value, expected="a new folder", fix="name another: --plot FOLDER")


def write_figures(inspected: Inspected, folder: Path) -> list[Path]:
    """Draws composite, spectra and band quality; labels alone have none of these.

    Raises:
        InputError: if there is nothing to draw.
    """
    if inspected.is_labels or inspected.found.dead.all():
        raise InputError(
            inspected.file.path, field="--plot", value="given", expected="a cube with values", fix="leave --plot away"
        )
    file, bands, found = inspected.file, inspected.bands, inspected.found
    nm = None if bands is None else bands.wavelength_nm
    good = inspected.good
    name = file.path.stem
    three, colours = _three_bands(nm, good & ~found.dead)
    part = "" if found.pixels == found.total else f" ({found.pixels / found.total:.0%} of the pixels)"
    figures = {
        "composite": plots.composite_figure(plots.composite(_thumbnail(file, three)), title=f"{name}: {colours}"),
        "spectra": plots.spectra_figure(
            nm,
            found.mean,
            found.quantiles,
            good=good & ~found.dead,
            unit="value as stored" if file.gain is None else "value after scaling",
            title=f"Spectra: {name}{part}",
        ),
        "band_quality": plots.band_quality_figure(
            nm,
            found.no_data,
            found.zero,
            found.correlation,
            good=good,
            dead=found.dead,
            title=f"Quality of the bands: {name}{part}",
        ),
    }
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / stem)
    return [folder / f"{stem}.png" for stem in figures]


def _three_bands(nm: NDArray[np.float64] | None, good: NDArray[np.bool_]) -> tuple[list[int], str]:
    """Indices of the bands for red, green and blue, and what the picture is to be called."""
    usable = np.flatnonzero(good)
    if nm is not None:
        for wanted, colours in (
            (_RGB_NM, "true colours"),
            (_INFRARED_NM, "false colours"),
            (_SHORTWAVE_NM, "false colours"),
        ):
            nearest = [int(usable[np.abs(nm[usable] - centre).argmin()]) for centre in wanted]
            if max(abs(nm[c] - centre) for c, centre in zip(nearest, wanted, strict=True)) <= _NEAR_NM:
                return nearest, f"{colours}, {_listed([f'{nm[c]:.0f}' for c in nearest])} nm"
        usable = usable[np.argsort(nm[usable], kind="stable")]
    spread = [int(usable[i * (usable.size - 1) // 4]) for i in (3, 2, 1)]
    if nm is not None:
        return spread, f"false colours, {_listed([f'{nm[c]:.0f}' for c in spread])} nm"
    return spread, f"bands {_listed([str(c + 1) for c in spread])}, wavelengths not known"


def _listed(words: list[str]) -> str:
    return ", ".join(words)


def _thumbnail(file: CubeFile, three: list[int]) -> NDArray[np.float32]:
    """Three bands (3, h, w) of every so-many-th row and column."""
    rows, columns = file.geobox.shape
    step = -(-max(rows, columns) // _MOST_PIXELS)
    at_once = max(1, _AT_ONCE // (columns * file.layers))
    if at_once < step:  # of such a large cube only the rows that are drawn
        windows = [Window(row, 0, 1, columns) for row in range(0, rows, step)]
    else:
        height = at_once // step * step
        windows = [Window(row, 0, min(height, rows - row), columns) for row in range(0, rows, height)]
    return np.concatenate([file.read(window)[three, ::step, ::step] for window in windows], axis=1)
