"""Rasters of class codes, read as they are stored: codes never pass through other number types."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.scene import Window

MOST_CLASSES = 4096  # more are measurements


def raster_codes(file: CubeFile, unlabelled: Collection[int]) -> tuple[NDArray[np.int64], list[int]]:
    """Reads class codes of any whole number type, exactly.

    Args:
        file: a raster of one layer.
        unlabelled: codes that mean «no class», beside nodata, NaN and what is masked.

    Returns:
        (H, W) index of the code of each pixel, -1 for none, and the codes, ascending.

    Raises:
        InputError: if the numbers are scaled, are not whole, or are too many different ones.
    """
    for name, values, neutral in (("gain", file.gain, 1), ("offset", file.offset, 0)):
        if values is not None and (values != neutral).any():
            raise file.error(name, f"{values[0]:g}", f"{neutral}, for codes are not scaled", "give a raster of codes")
    if file.pixels.dtype.kind not in "biuf":
        raise file.error("number type", file.pixels.dtype, "whole numbers", "convert the codes")
    stored = file.pixels.read(Window(0, 0, *file.geobox.shape))[0]
    data, masked = np.ma.getdata(stored), np.ma.getmaskarray(stored)
    if data.dtype.kind == "f":
        masked = masked | np.isnan(data) | (data == (np.nan if file.nodata is None else file.nodata))
        _check_whole(file, data[~masked])
    values, index = np.unique(data[~masked], return_inverse=True)
    codes = [int(value) for value in values]
    if len(codes) > MOST_CLASSES:
        many = f"{len(codes)} different ones"
        raise file.error("class codes", many, f"at most {MOST_CLASSES}, so this is no label raster", "give class codes")
    classes = [code for code in codes if code not in unlabelled and code != file.nodata]
    position = {code: i for i, code in enumerate(classes)}
    labels = np.full(data.shape, -1, np.int64)
    labels[~masked] = np.array([position.get(code, -1) for code in codes], np.int64)[index]
    return labels, classes


def _check_whole(file: CubeFile, values: NDArray[np.floating]) -> None:
    """Floating numbers can be codes if they are whole, and small enough for each whole number to have its own."""
    exact = 2 ** (np.finfo(values.dtype).nmant + 1)
    wrong = ~(np.abs(values) <= exact)
    wrong |= np.floor(values) != values
    if wrong.any():
        raise file.error(
            "class codes",
            f"{values[wrong][0]:g}",
            f"whole numbers up to {exact}; others are measurements, so this is no label raster",
            "give a raster of class codes",
        )
