"""From the bands of one sensor to those of another, by wavelength and by the covariance of training spectra."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hsfusion.spectra.bands import Bands, band_spacing_nm

_CUT = 1.5  # FWHM from the centre of a Gaussian, where it is cut: 0.04 % of it lie beyond
_erf = np.vectorize(math.erf, otypes=[float])
# points at which a Gaussian is taken, per step of the new axis; and how many at least, at most, and for all bands
_PER_STEP, _LEAST, _MOST, _MOST_IN_ALL = 4, 25, 1001, 2_000_000
_WIDEST_SEAM = 1.5  # bands at most this many widths apart leave no gap
_DECIMALS = 3  # of nm, to which centres and widths are compared: beyond it the unit of a file rounds
_SAME = 0.01  # share of the width by which centres and widths of the same band differ at most
_RIDGE = 0.001  # of predicted bands, in multiples of a band's variance; 0.0001 is alike, 0.01 is worse
# old bands are certainly mixtures of new ones that are this many times as narrow; with 2, DESIS to Indian Pines fails
_CERTAIN = 3.0
_SOFT = 1e-4  # how far means of new bands may be from the old ones, in multiples of a band's variance


def match_bands(wanted: Bands, offered: Bands, *, needed: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Finds each wanted band (C) among the good offered ones: (C,) indices, -1 where none matches.

    A band matches if its centre lies within half a FWHM (or spacing, if unknown) of the wanted centre. Nearest pairs
    are joined first, among equally near ones those with the nearest FWHM, then in their order, and no offered band is
    taken twice. If that leaves a ``needed`` band (C,) without one, only these are matched: a band that is not needed
    takes no match from one that is.
    """
    width = band_spacing_nm(wanted, np.ones((1, len(wanted)), bool)) if wanted.fwhm_nm is None else wanted.fwhm_nm
    distance = np.abs(wanted.wavelength_nm[:, None] - offered.wavelength_nm)  # (C, C')
    near = (distance <= width[:, None] / 2) & offered.good
    wider = np.zeros(near.shape)
    if wanted.fwhm_nm is not None and offered.fwhm_nm is not None:
        wider = np.abs(wanted.fwhm_nm[:, None] - offered.fwhm_nm)
    matched = _nearest_first(near, distance, wider)
    # not from the start: all bands together keep twins of one centre apart, where spectrometers overlap
    if needed is not None and (matched[needed] < 0).any():
        matched = _nearest_first(near & needed[:, None], distance, wider)
    return matched


def twins_nm(offered: Bands, matched: NDArray[np.int64]) -> list[float]:
    """Centres of good offered bands that only their order in the file tells apart, where that decides on ``matched``.

    It does if one of them is not used, or if the bands used are in another order.
    """
    in_order = (np.diff(matched[matched >= 0]) > 0).all()
    parts = [offered.wavelength_nm, *([] if offered.fwhm_nm is None else [offered.fwhm_nm])]
    rounded = np.round(parts, _DECIMALS)[:, offered.good]
    alike, which, count = np.unique(rounded, axis=1, return_inverse=True, return_counts=True)
    used = np.bincount(which.ravel(), np.isin(np.flatnonzero(offered.good), matched), count.size)
    twins = (count > 1) & (used > 0) & ~(in_order & (used == count))
    return np.unique(alike[0, twins]).tolist()


def _nearest_first(
    near: NDArray[np.bool_], distance: NDArray[np.float64], wider: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Joins the pairs (C, C') that are near, each row and each column once: (C,) column, -1 where none is left."""
    joined = np.full(near.shape[0], -1)
    taken = np.zeros(near.shape[1], bool)
    pairs = np.argwhere(near)
    for i, j in pairs[np.lexsort((wider[near].round(_DECIMALS), distance[near].round(_DECIMALS)))]:
        if joined[i] < 0 and not taken[j]:
            joined[i], taken[j] = j, True
    return joined


def resampling_matrix(old: Bands, new: Bands) -> NDArray[np.float64]:
    r"""Share of each old band's mass that each new band takes over: (C, C'), columns of bands that are not good 0.

    Each good new band has a hat function, 1 at its centre and falling linearly to 0 at its neighbours' (neighbours by
    wavelength; bands with one and the same centre share theirs), so that the hats sum to 1. An old band is a Gaussian
    of the width that the new bands lack,

    .. math:: \mathrm{FWHM}^2 = \max(0, \mathrm{FWHM}_{old}^2 - \mathrm{FWHM}_{new}^2)

    with the new FWHM interpolated at its centre, or the point at its centre where that is 0. So a sensor carries over
    to itself as it is, and a broad band is spread over the narrow ones inside it. Where the FWHM is unknown, the
    spacing of the good bands stands for it.

    Nothing takes over what lies outside the new bands, so that rows sum to less than 1: beyond the first or the last,
    or inside a gap wider than twice the FWHM of the bands beside it and twice the median step, and there further than
    half a FWHM from the next centre.
    """
    matrix = np.zeros((len(old), len(new)))
    used = np.flatnonzero(new.good)
    if not used.size or not len(old):
        return matrix
    centres, which, count = np.unique(new.wavelength_nm[used], return_inverse=True, return_counts=True)
    width = np.zeros(centres.size)
    np.maximum.at(width, which, width_nm(new)[used])
    step = float(np.median(np.diff(centres))) if centres.size > 1 else float(width[0])

    lacking = np.sqrt(np.maximum(0, width_nm(old) ** 2 - np.interp(old.wavelength_nm, centres, width) ** 2))
    offset, share = _gaussian(float(lacking.max()) / step, rows=len(old))
    points = old.wavelength_nm[:, None] + lacking[:, None] * offset  # (C, Q)
    taken = np.zeros(len(old) * centres.size)
    row = np.arange(len(old))[:, None] * centres.size
    for column, part in _hats(points, centres, width=width, step=step):
        taken += np.bincount((row + column).ravel(), (part * share).ravel(), minlength=taken.size)
    matrix[:, used] = taken.reshape(len(old), -1)[:, which] / count[which]
    return matrix


def mixing_matrix(old: Bands, new: Bands) -> NDArray[np.float64]:
    """Each new band as a weighted mean of good old ones: (C', C), rows sum to 1, or to 0 where they see less than half.

    The response of a new band is a Gaussian within its FWHM, integrated over the old bands, each as wide as its spacing
    but between 1 and 1.5 FWHM: that of ``spectral.BandResampler``. A new band with the centre and FWHM of an old one is
    the same band, and one that differs by less than 1 % of its FWHM is partly so.
    """
    return _mixed(old, new)[0]


def _mixed(old: Bands, new: Bands) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """:func:`mixing_matrix`, and of each new band the share (C',) of its response that falls on good old ones."""
    width, old_width, half = width_nm(new)[:, None], width_nm(old), seamless_nm(old) / 2
    offset = old.wavelength_nm - new.wavelength_nm[:, None]
    upper, lower = (
        _erf(2 * np.sqrt(np.log(2)) * np.clip((offset + side) / width, -0.5, 0.5)) for side in (half, -half)
    )
    mix = np.where(old.good, upper - lower, 0.0)
    whole = mix.sum(1, keepdims=True)
    seen = whole / (2 * _erf(np.sqrt(np.log(2))))
    mix = np.where(seen >= 0.5, mix, 0) / np.maximum(whole, 1e-300)
    differs = (np.abs(offset) + np.abs(width - old_width)) / (_SAME * width)
    same = np.where(old.good, np.maximum(1 - differs**2, 0), 0.0)
    alike = same.max(1, initial=0, keepdims=True)
    mix = (1 - alike) * mix + alike * same / np.maximum(same.sum(1, keepdims=True), 1e-300)
    return mix, np.minimum(seen[:, 0], 1)


@dataclass(frozen=True, eq=False)
class BandPrediction:
    r"""Standardised bands and layers x of a network as a linear function of those of another sensor, x'.

    With S the covariance of x, and P the old bands as weighted means of the new ones (of an old band of which these see
    less than half, its resampling by wavelength),

    .. math:: \hat x = (S K^T + \lambda P) (K S K^T + N + \lambda I)^{-1} x'

    is the ridge regression of x on x' that falls back to P where the training spectra say nothing: bands that x' lacks
    are predicted from all others, and a sensor is predicted from itself as it is (Hoerl and Kennard 1970,
    doi:10.1080/00401706.1970.10488634).

    What x' is, given x, is K x and noise of covariance N. New bands that are far wider than the old ones are mixtures
    of them: K = R, N = 0. Of those that are far narrower, the old bands are mixtures: K = R + D with D = G (I - P R)
    and G the inverse of P, so that P K = I, and N is all that P does not see; then the prediction is P x', whatever S.
    Between them either may be true, for bands are not Gaussians and their widths are not known so well, and the two
    differ by D x: N has its second moments, so that the prediction hardly depends on which is true.
    """

    matrix: NDArray[np.float64]  # (C, C'), from x' to x
    mean: NDArray[np.float64]  # (C',) of x', in the unit of the training scene; 0 where x says nothing
    std: NDArray[np.float64]  # (C',) likewise; 1 where x says nothing
    cross: NDArray[np.float64]  # (C, C') covariance of x and x'
    covariance: NDArray[np.float64]  # (C', C') of x'
    old_covariance: NDArray[np.float64]  # (C, C) of x

    @property
    def known(self) -> NDArray[np.bool_]:
        """(C',) whether x says something about the band."""
        return self.covariance.diagonal() > 0

    def channels(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M, C') weights of the predicted channels, with the variance that those of weights (M, C) have.

        A prediction varies less than what it stands for, and what follows takes it for weak: it is scaled, at most
        to 3.2 times.
        """
        moved = weights @ self.matrix
        variance, of_moved = ((w @ s * w).sum(1) for w, s in ((weights, self.old_covariance), (moved, self.covariance)))
        return moved * np.sqrt(variance / np.where(variance > 0, np.maximum(of_moved, 0.1 * variance), 1))[:, None]

    def expected_r2(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M,) share of the variance of each channel, with weights (M, C), that is predicted in training spectra."""
        moved = weights @ self.matrix
        variance = (weights @ self.old_covariance * weights).sum(1)
        error = variance - 2 * (weights @ self.cross * moved).sum(1) + (moved @ self.covariance * moved).sum(1)
        return 1 - error / np.where(variance > 0, variance, np.inf)


def predict_bands(
    statistics: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    *,
    old: Bands,
    new: Bands,
    share: NDArray[np.float64],
) -> BandPrediction:
    """Predicts standardised bands, and layers of further rasters, from those of another sensor.

    Args:
        statistics: mean (C + E,), std (C + E,) and covariance (C + E, C + E), once standardised, of training spectra.
        old: the C bands to predict.
        new: the C' bands of the other sensor.
        share: (C + E, C' + E') of :func:`resampling_matrix`, layers of rasters at the end.
    """
    mean, std, covariance = statistics
    known = covariance.diagonal() > 0
    share = share * known[:, None]
    mix = _with_layers(mixing_matrix(replace(old, good=known[: len(old)]), new) * new.good[:, None], share.T)
    taken = share.sum(0)
    beside = (taken > 0) & ~mix.any(1)  # just beyond the old bands: as those whose mass they take over
    mix[beside] = share.T[beside] / taken[beside, None]
    scaled = mix * std
    spread = np.sqrt(np.einsum("ic,cd,id->i", scaled, covariance, scaled))
    new_std = np.where(spread > 0, spread, 1.0)
    scaled /= new_std[:, None]
    seen = replace(new, good=new.good & (mix[: len(new)].sum(1) > 0))
    of_bands, covered = _mixed(seen, old)
    means = _with_layers(of_bands * known[: len(old), None], share)
    covered = np.append(covered, np.ones(len(share) - len(old)))
    fallback = np.where(means.any(1, keepdims=True), covered[:, None] * means, share) * new_std / std[:, None]
    means *= new_std / std[:, None]
    ratio = np.maximum(mix[: len(new), : len(old)] @ width_nm(old), 1e-300) / width_nm(new)
    finer = np.full(len(mix), -1.0)
    finer[: len(new)] = np.clip(np.log(ratio) / math.log(_CERTAIN), -1, 1)
    moments = covariance + np.outer(mean / std, mean / std)
    scaled, noise = _given_old(scaled, means, covered=covered, finer=finer, moments=moments)
    cross = covariance @ scaled.T
    within = scaled @ cross + noise
    matrix = np.linalg.solve(within + _RIDGE * np.eye(len(within)), (cross + _RIDGE * fallback).T).T
    new_mean = new_std * (scaled @ (mean / std))
    return BandPrediction(np.asarray(matrix, np.float64), new_mean, new_std, cross, within, covariance)


def _with_layers(bands: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights between bands, widened to those between bands and layers, of which ``share`` has the layers."""
    wide, (rows, columns) = np.zeros(share.shape), bands.shape
    wide[:rows, :columns], wide[rows:, columns:] = bands, share[rows:, columns:]
    return wide


def _given_old(
    mix: NDArray[np.float64],
    means: NDArray[np.float64],
    *,
    covered: NDArray[np.float64],
    finer: NDArray[np.float64],
    moments: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """K (C', C) and N (C', C') of :class:`BandPrediction`, for R, P, and second moments (C, C) about zero of x."""
    # new bands are mixtures of old ones where finer (C') is -1, and the reverse where it is 1; an old band counts by
    # the share that is covered (C,), from a half on
    slack = _SOFT + ((1 - covered) / np.maximum(covered - 0.5, 1e-3)) ** 2
    inverse = np.linalg.solve(means @ means.T + np.diag(slack), means).T  # (C', C)
    sharper = inverse @ (np.diag(np.where(means.any(1), 1.0, 0.0)) - means @ mix)
    unseen = np.where(mix.any(1), (1 + finer) / 2, 0.0)[:, None] * (np.eye(len(mix)) - inverse @ means)
    doubt = np.sqrt(1 - finer**2)[:, None] * sharper
    # the fourth power leaves R up to half as wide bands: with the second, simulated EnMAP and EMIT lose 0.01
    certain = np.maximum(finer, 0)[:, None] ** 4
    return mix + certain * sharper, doubt @ moments @ doubt.T + unseen @ unseen.T


def width_nm(bands: Bands) -> NDArray[np.float64]:
    """(C,) FWHM in nm, or the spacing of the good bands where it is unknown (1 for those that are not good)."""
    if bands.fwhm_nm is not None:
        return bands.fwhm_nm
    width = np.ones(len(bands))
    centres, which = np.unique(bands.wavelength_nm[bands.good], return_inverse=True)
    width[bands.good] = band_spacing_nm(Bands.from_wavelengths(centres), np.ones((1, centres.size), bool))[which]
    return width


def seamless_nm(bands: Bands) -> NDArray[np.float64]:
    """(C,) widths in nm, of good bands stretched to neighbours that are so near that there is a seam and no gap."""
    width = width_nm(bands)
    spacing = np.where(bands.good, band_spacing_nm(bands, bands.good[None]), width)
    return np.clip(spacing, width, _WIDEST_SEAM * width)


def _gaussian(steps: float, *, rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets (Q,) in FWHM and shares (Q,) of points that stand for a Gaussian of so many steps of the new axis."""
    if steps == 0:
        return np.zeros(1), np.ones(1)
    wanted = min(math.ceil(min(2 * _CUT * _PER_STEP * steps, _MOST)), _MOST_IN_ALL // rows)
    number = max(_LEAST, wanted) // 2 * 2 + 1
    offset = ((np.arange(number) + 0.5) / number * 2 - 1) * _CUT
    share = np.exp(-4 * math.log(2) * offset**2)
    return offset, share / share.sum()


def _hats(
    points: NDArray[np.float64], centres: NDArray[np.float64], *, width: NDArray[np.float64], step: float
) -> tuple[tuple[NDArray[np.int64], NDArray[np.float64]], ...]:
    """The two hats above each point (C, Q), of ascending centres (N,) and FWHM (N,) in nm: their columns and values."""
    below = np.clip(np.searchsorted(centres, points, side="right") - 1, 0, centres.size - 1)
    above = np.clip(np.searchsorted(centres, points, side="left"), 0, centres.size - 1)
    distance = centres[above] - centres[below]
    # at a centre, and beyond the ends, both are the same band: the first counts
    share = np.divide(points - centres[below], distance, out=np.zeros_like(points), where=distance > 0)
    alone = (distance == 0) | (distance > 2 * np.maximum(np.maximum(width[below], width[above]), step))
    near_below = np.abs(points - centres[below]) <= width[below] / 2
    near_above = (np.abs(points - centres[above]) <= width[above] / 2) & (above != below)
    return (below, np.where(alone, near_below, 1 - share)), (above, np.where(alone, near_above, share))
