"""The worth of spectral windows given the other bands: for the data, for a network, and by which measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from hsfusion.trust.verdict import Verdict

WIDTH_NM = 50.0
_HEAVY, _LIGHT = 2.0, 0.5  # times the weight of as many average bands
_MATTERS = 0.05  # nats
_SURE = 2.0  # standard errors
_NAMED = 5  # windows


@dataclass(frozen=True, eq=False)
class WindowImportance:
    """Windows of 50 nm (U,) by the rules in docs/weights.md; losses are in nats per validation pixel."""

    lower_nm: NDArray[np.float64]  # first band of each window
    upper_nm: NDArray[np.float64]  # last band
    bands: NDArray[np.int64]  # how many each holds
    weight: NDArray[np.float64]  # share of the band weights: what this network uses
    data: NDArray[np.float64]  # loss of a linear discriminant that is trained without the window
    data_error: NDArray[np.float64]  # standard error of this loss, over blocks of pixels
    network: NDArray[np.float64]  # loss of the network if the part that other bands do not predict is exchanged
    network_error: NDArray[np.float64]  # standard error of this loss
    permuted: NDArray[np.float64]  # loss of the network if bands, whitened or not as they are weighted, are exchanged
    changed: NDArray[np.float64]  # mean size of the change of log-likelihood by the same exchange, up or down
    gradients: NDArray[np.float64]  # integrated gradients of the network, of the same bands
    contrast: NDArray[np.float64]  # (C,) part of the weight of each band that channels subtract, 0 to 1

    @property
    def agreement(self) -> dict[str, float | None]:
        """Rank correlation (Spearman) of weights and other measures over the windows; None if all values are equal."""
        others = {
            "integrated_gradients": self.gradients,
            "permutation": self.permuted,
            "permutation_size": self.changed,
        }
        return {name: _rank_correlation(self.weight, values) for name, values in others.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, with five digits, and the agreement."""
        lists = {name: [float(f"{value:.5g}") for value in values] for name, values in asdict(self).items()}
        return {**lists, "agreement": self.agreement}

    def sentences(self) -> list[str]:
        """Names the heavy windows that other bands can replace, and those that matter but are not used."""
        share = self.weight / (self.bands / self.bands.sum())
        most = np.maximum(self.data + _SURE * self.data_error, self.network + _SURE * self.network_error)
        carried = (share >= _HEAVY) & (most < _MATTERS)
        missed = (share <= _LIGHT) & (self.data - _SURE * self.data_error > _MATTERS)
        sentences = []
        if carried.any():
            words = f"Heavy, but the other bands carry the same (without the window less than {_MATTERS} nats are lost)"
            sentences.append(f"{words}: {self._listed(carried, self.weight, '{:.0%} of the weight')}.")
        if missed.any():
            listed = self._listed(missed, self.data, "{:.2f} nats lost without it")
            sentences.append(f"Not carried by the other bands, but hardly used by this network: {listed}.")
        return sentences

    def _listed(self, which: NDArray[np.bool_], by: NDArray[np.float64], words: str) -> str:
        """The first of some windows, by decreasing value."""
        order = [u for u in np.argsort(-by, kind="stable").tolist() if which[u]][:_NAMED]
        return "; ".join(f"{self.lower_nm[u]:.0f}-{self.upper_nm[u]:.0f} nm ({words.format(by[u])})" for u in order)


def mean_importance(runs: Sequence[Mapping[str, Any]]) -> WindowImportance | None:
    """The mean over the metrics of runs with the same bands; None if one of them has no ``importance``."""
    known = [run["importance"] for run in runs if "importance" in run]
    if len(known) < len(runs):
        return None
    names = WindowImportance.__dataclass_fields__
    return WindowImportance(**{name: np.mean([run[name] for run in known], axis=0) for name in names})


def with_importance(judged: Verdict, importance: WindowImportance | None) -> Verdict:
    """Adds windows that others carry, or that are not used, to a verdict, unless the weights are no evidence."""
    if importance is None or judged.word == "no evidence":
        return judged
    return replace(judged, sentences=(*judged.sentences, *importance.sentences()))


def _rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation; None if all values of one are equal."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def spectral_windows(wavelength_nm: NDArray[np.floating], used: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Windows (U, C) of 50 nm from the first of the used bands (C,) on; those without a used band are left out."""
    place = np.floor((wavelength_nm - wavelength_nm[used].min()) / WIDTH_NM)
    return np.stack([used & (place == at) for at in np.unique(place[used])])


def losses_without(
    train: tuple[NDArray[np.floating], NDArray[np.integer]],
    val: tuple[NDArray[np.floating], NDArray[np.integer]],
    windows: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Loss at each validation pixel of a linear discriminant that is trained without each window (U, C): (U, V).

    In log-likelihood, calibrated by a temperature, from standardised spectra (N, C) and (V, C) with class indices. The
    covariance within the classes is shrunk after Ledoit and Wolf (2004). Pixels of classes without training pixels
    have a loss of 0.
    """
    from hsfusion.trust.baselines import log_likelihoods, temperature  # with scikit-learn
    from hsfusion.trust.faithfulness import band_covariance

    known, index, counts = np.unique(train[1], return_inverse=True, return_counts=True)
    means = np.stack([train[0][index == k].mean(0, dtype=np.float64) for k in range(len(known))])  # (K, C)
    covariance = band_covariance(train[0] - means[index]) + 1e-6 * np.eye(means.shape[1])  # of classes of a pixel
    inside = np.isin(val[1], known)
    spectra, classes = val[0][inside].astype(np.float64), np.searchsorted(known, val[1][inside])

    def reached(keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        axes = np.linalg.solve(covariance[np.ix_(keep, keep)], means[:, keep].T)  # (C', K)
        bias = np.log(counts / counts.sum()) - np.einsum("kc,ck->k", means[:, keep], axes) / 2
        logits = spectra[:, keep] @ axes + bias
        return log_likelihoods(logits / temperature(logits, classes), classes)

    losses, every = np.zeros((len(windows), len(val[1]))), reached(np.ones(windows.shape[1], bool))
    losses[:, inside] = [every - reached(~window) for window in windows]
    return losses


def standard_errors(losses: NDArray[np.float64], blocks: NDArray[np.integer]) -> NDArray[np.float64]:
    """Standard errors (U,) of means over pixels (U, V), over blocks (V,); over pixels if all are in one block."""
    places, block = np.unique(blocks, return_inverse=True)
    if len(places) < 2:
        places = block = np.arange(losses.shape[1])
    apart, few = losses - losses.mean(1, keepdims=True), len(places) / max(1, len(places) - 1)
    return np.sqrt([few * np.square(np.bincount(block, row)).sum() for row in apart]) / losses.shape[1]


def contrast_of(
    response: NDArray[np.floating], group_weights: NDArray[np.floating], *, channel_share: NDArray[np.floating]
) -> NDArray[np.float64]:
    r"""Part of the weight of each band (C,) that channels subtract, 0 to 1; 0 for bands without weight.

    From the response s (G, M, C), the group weights a (G, M) and the channel shares pi (M,). Later layers may flip the
    sign of a whole channel, so a group is subtracted if its sign is opposite to the sum of the channel's group weights.
    """
    signs = np.where(group_weights.sum(0) < 0, -1.0, 1.0)
    used = np.abs(group_weights) * channel_share / np.maximum(np.abs(group_weights).sum(0), 1e-300)
    total = np.einsum("gm,gmc->c", used, response)
    return np.einsum("gm,gmc->c", used * (group_weights * signs < 0), response) / np.maximum(total, 1e-300)
