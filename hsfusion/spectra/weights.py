"""Band weights: how much of what the network takes in comes from which band."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.spectra.bands import Bands


@dataclass(frozen=True, eq=False)
class BandWeights:
    r"""The learned weight of every band.

    .. math:: w_c = \sum_m \pi_m \sum_g |a_{gm}| \, s_{gmc}

    with the response s, the group weights a and the share :math:`\pi` of each fused channel in what the CNN takes in;
    scaled to sum to 1.

    Attributes:
        bands: the C bands, in file order.
        group: C names, the group of each band; empty for bands in no group, several joined by ``|``.
        weight: (C,) float64, non-negative, sums to 1.
    """

    bands: Bands
    group: tuple[str, ...]
    weight: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Checks the weights.

        Raises:
            InputError: if they are not C non-negative numbers that sum to 1.
        """
        weight = self.weight
        if weight.shape != (len(self.bands),) or len(self.group) != len(self.bands):
            raise InputError(
                "band weights",
                field="shape",
                value=weight.shape,
                expected=f"({len(self.bands)},)",
                fix="give one per band",
            )
        if not (np.isfinite(weight).all() and (weight >= 0).all() and abs(weight.sum() - 1) < 1e-4):
            raise InputError(
                "band weights",
                field="weights",
                value=f"{weight.min():g} to {weight.max():g}, sum {weight.sum():g}",
                expected="non-negative numbers that sum to 1",
                fix="compute them anew",
            )

    def to_csv(self, path: str | Path) -> None:
        """Writes the columns band, wavelength_nm, fwhm_nm, good, group, weight; bands count from 1."""
        fwhm = self.bands.fwhm_nm
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["band", "wavelength_nm", "fwhm_nm", "good", "group", "weight"])
            for c, nm in enumerate(self.bands.wavelength_nm):
                width = "" if fwhm is None else f"{fwhm[c]:.10g}"
                good = int(self.bands.good[c])
                writer.writerow([c + 1, f"{nm:.10g}", width, good, self.group[c], f"{self.weight[c]:.9g}"])

    @classmethod
    def from_csv(cls, path: str | Path) -> BandWeights:
        """Reads what :meth:`to_csv` wrote.

        Raises:
            InputError: if the file is no such table.
        """
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            nm = np.array([float(row["wavelength_nm"]) for row in rows])
            fwhm = np.array([float(row["fwhm_nm"]) for row in rows]) if all(row["fwhm_nm"] for row in rows) else None
            good = np.array([row["good"] == "1" for row in rows])
            weight = np.array([float(row["weight"]) for row in rows])
            group = tuple(row["group"] for row in rows)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                path,
                field="table",
                value=repr(error),
                expected="a band_weights.csv of hsfusion",
                fix="name a run's file",
            ) from error
        return cls(Bands(nm, fwhm, good), group, weight)

    def top_windows(self, number: int, *, width_nm: float = 50.0) -> list[tuple[float, float, float]]:
        """The windows of one width that hold most weight, not overlapping, best first.

        Neighbouring bands say nearly the same, so that windows mean more than single bands.

        Args:
            number: how many at most.
            width_nm: width of a window in nm.

        Returns:
            (lower_nm, upper_nm, weight) of each.
        """
        nm, left = self.bands.wavelength_nm, self.weight.copy()
        found = []
        for _ in range(number):
            inside = np.abs(nm[:, None] - nm[None, :]) <= width_nm / 2  # (C, C): centre, band
            totals = inside @ left
            free = np.array([not any(abs(c - (lo + up) / 2) < width_nm for lo, up, _ in found) for c in nm])
            if not (totals[free] > 0).any():
                break
            best = int(np.argmax(np.where(free, totals, -1)))
            found.append((float(nm[best] - width_nm / 2), float(nm[best] + width_nm / 2), float(totals[best])))
            left[inside[best]] = 0
        return found


def combine(
    response: NDArray[np.floating], group_weights: NDArray[np.floating], *, channel_share: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The band weight formula.

    The absolute group weights are scaled to sum to 1 in each channel first: with a constraint that leaves their scale
    open, the normalisation after the fusion would take it back.

    Args:
        response: (G, M, C), s.
        group_weights: (G, M), a, or its mean absolute value where it differs between pixels.
        channel_share: (M,), pi.

    Returns:
        (C,), non-negative, sums to 1
    """
    size = np.abs(group_weights, dtype=np.float64)
    size = size / np.maximum(size.sum(0), 1e-300)
    total = np.einsum("m,gm,gmc->c", channel_share.astype(np.float64), size, np.abs(response))
    return total / total.sum()


def group_of_bands(membership: NDArray[np.bool_], names: Sequence[str]) -> tuple[str, ...]:
    """Names of the groups of each band, from membership (G, C)."""
    return tuple("|".join(names[g] for g in np.flatnonzero(column).tolist()) for column in membership.T)


def write_response_csv(
    path: str | Path,
    response: NDArray[np.floating],
    *,
    bands: Bands,
    groups: Sequence[str],
    membership: NDArray[np.bool_],
) -> None:
    """Writes the response (G, M, C) with the columns group, channel, band, wavelength_nm, weight; all count from 1."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "channel", "band", "wavelength_nm", "weight"])
        for g, name in enumerate(groups):
            inside = np.flatnonzero(membership[g])
            for m in range(response.shape[1]):
                for c in inside:
                    writer.writerow([name, m + 1, c + 1, f"{bands.wavelength_nm[c]:.10g}", f"{response[g, m, c]:.9g}"])


def write_group_weights_csv(
    path: str | Path,
    group_weights: NDArray[np.floating],
    *,
    groups: Sequence[str],
    channel_share: NDArray[np.floating],
) -> None:
    """Writes the group weights (G, M) with the columns group, channel, weight, channel_share."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "channel", "weight", "channel_share"])
        for g, name in enumerate(groups):
            for m, value in enumerate(group_weights[g]):
                writer.writerow([name, m + 1, f"{value:.9g}", f"{channel_share[m]:.9g}"])
