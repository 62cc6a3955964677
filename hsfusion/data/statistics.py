"""Statistics of bands, from training pixels only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def band_statistics(spectra: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each band, computed in float64, NaN left out.

    Bands that are constant, or hold no data, get a standard deviation of 1 (and a mean of 0 where there are no data).

    Args:
        spectra: (N, C), the training pixels.

    Returns:
        mean (C,) and standard deviation (C,), both finite, the second positive.
    """
    values = np.asarray(spectra, np.float64)
    seen = np.isfinite(values)
    count = np.maximum(seen.sum(0), 1)
    mean = np.where(seen, values, 0).sum(0) / count
    std = np.sqrt((np.where(seen, values - mean, 0) ** 2).sum(0) / count)
    return mean, np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-300), std, 1.0)
