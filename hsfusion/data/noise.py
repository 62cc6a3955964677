"""Noise of a scene, from differences between neighbouring pixels, and the matrix that whitens it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from hsfusion.data.splits import TEST, TRAIN, VAL, Split, dilate

if TYPE_CHECKING:
    from hsfusion.data.patches import TrainingCube

_FACTORS = 20  # of the noise that bands have in common
_MOST_DIFFERENCES = 20_000


def noise_differences(cube: TrainingCube, split: Split) -> NDArray[np.float32]:
    """Standardised differences (P, C) between training pixels that are neighbours in a row or a column.

    If these are fewer than bands, all pixels in training patches except validation and test pixels are used: noise
    needs no labels.
    """
    inside = split.roles == TRAIN
    differences = _neighbour_differences(cube, inside)
    if len(differences) < cube.values.shape[1]:
        patches = dilate(inside, split.radius) & ~np.isin(split.roles, (VAL, TEST))
        differences = _neighbour_differences(cube, patches)
    return differences


def _neighbour_differences(cube: TrainingCube, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Differences (P, C) between neighbours among some pixels (H, W) with data."""
    pixels, width = np.flatnonzero(inside), inside.shape[1]
    pixels = pixels[cube.spectra(pixels).any(1)]
    right = pixels[np.isin(pixels + 1, pixels) & (pixels % width < width - 1)]
    below = pixels[np.isin(pixels + width, pixels)]
    pairs = [(right, right + 1), (below, below + width)]
    return np.concatenate([cube.spectra(second) - cube.spectra(first) for first, second in pairs])


@threadpool_limits.wrap(limits=1, user_api="blas")  # threads of small products wait for each other: five times as long
def noise_whitening(cube: TrainingCube, split: Split) -> NDArray[np.float64]:
    r"""Matrix (C, C) that gives standardised bands noise of equal size without correlation, and changes each least.

    Factor analysis of :func:`noise_differences` separates up to 20 factors that bands share, such as illumination, from
    the noise of single bands. With the correlation N of this model the matrix is :math:`N^{-1/2}` (zero-phase
    whitening, Kessy et al. 2018, doi:10.1080/00031305.2016.1277159), its rows scaled so that the training pixels have a
    standard deviation of 1. The sample covariance instead of the model would also mix each band with its neighbours, so
    that weights would no longer be those of bands. The matrix is the identity if there are fewer than 50 differences,
    all are equal, or fewer than two bands are used.
    """
    differences = noise_differences(cube, split)
    differences = differences[:: max(1, -(-len(differences) // _MOST_DIFFERENCES))].astype(np.float64)
    spectra = cube.spectra(split.pixels(TRAIN))
    used = np.flatnonzero(spectra[:, : len(split.labelled.scene.bands)].any(0))  # further rasters stay as they are
    whole = np.eye(spectra.shape[1])
    if len(differences) < 50 or used.size < 2 or not differences[:, used].var(0).any():
        return whole
    scale = np.sqrt(differences[:, used].var(0) + 1e-3 * differences[:, used].var(0).mean())
    # fewer rows with the same covariance: the analysis iterates over all rows
    values, vectors = np.linalg.eigh(np.cov(differences[:, used] / scale, rowvar=False, ddof=0))
    root = np.sqrt(used.size * values.clip(0))[:, None] * vectors.T
    with warnings.catch_warnings():  # more factors than the noise has converge slowly, and change little
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = FactorAnalysis(min(_FACTORS, used.size // 2)).fit(np.concatenate([root, -root]))
    noise = model.components_.T @ model.components_ + np.diag(np.maximum(model.noise_variance_, 1e-3))
    values, vectors = np.linalg.eigh(noise)
    matrix = vectors * values**-0.5 @ vectors.T / scale
    matrix /= (spectra[:, used] @ matrix.T).std(0)[:, None]
    whole[np.ix_(used, used)] = matrix
    return whole
