"""Band weights: how much of the input of the network comes from which band."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.publishing import write_file
from hsfusion.spectra.bands import BandGroup, Bands, band_spacing_nm, gaussian_basis

_START_HEIGHT = 4.0  # of the bumps, as in hsfusion.nn.band_fusion
_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how a formula starts; apostrophes so that what has one already comes back


def as_cell(value: Any) -> Any:
    """A value as a cell of a table in CSV: text that a spreadsheet would take for a formula gets an apostrophe.

    Source: OWASP, CSV injection. :func:`from_cell` takes it away again; numbers stay as they are.
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def from_cell(cell: object) -> str:
    """The text that :func:`as_cell` made a cell of."""
    text = str(cell)
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def write_table(path: str | Path, header: Iterable[object], rows: Iterable[Iterable[object]]) -> None:
    """Writes a table as CSV, see :func:`table_text`."""
    write_file(path, table_text(header, rows))


def table_text(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table as CSV: numbers with nine digits, nothing for None, text as :func:`as_cell`."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"{value:.9g}" if isinstance(value, float | np.floating) else as_cell(value) for value in row])
    return text.getvalue()


@dataclass(frozen=True, eq=False)
class BandWeights:
    """The learned weight of every band.

    ``w[c] = Σ_m π[m] Σ_g |a[g,m]| s[g,m,c]`` with the response s, the group weights a and the share π of each fused
    channel in what the CNN takes in; scaled to sum to 1.

    Weights (C,) are non-negative, in file order. ``group`` names the group of each band: empty for bands in no group,
    several joined by ``|``. ``sources`` are names and weights of layers of further rasters, with which all sum to 1.
    """

    bands: Bands
    group: tuple[str, ...]
    weight: NDArray[np.float64]
    sources: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        every = np.append(self.weight, [value for _, value in self.sources])
        if not (np.isfinite(every).all() and (every >= 0).all() and abs(every.sum() - 1) < 1e-4):
            given = f"{every.min():g} to {every.max():g}, sum {every.sum():g}"
            expected = "non-negative numbers that sum to 1"
            raise InputError("band weights", "weights", given, expected, "compute them again")

    def __repr__(self) -> str:
        nm, used = self.bands.wavelength_nm, int((self.weight > 0).sum())
        text = f"BandWeights({used} of {nm.size} bands in use, {nm.min():.0f}-{nm.max():.0f} nm"
        return text + "".join(f", most in {low:.0f}-{high:.0f} nm: {w:.1%}" for low, high, w in self.windows(1)) + ")"

    def _repr_html_(self) -> str:
        """The heaviest windows as a table, for notebooks."""
        rows = [f"<tr><td>{low:.0f}-{high:.0f}</td><td>{weight:.1%}</td></tr>" for low, high, weight in self.windows(8)]
        head = "<tr><th>window (nm)</th><th>weight</th></tr>"
        return f"<p>{html.escape(repr(self))}</p><table>{head}{''.join(rows)}</table>"

    def plot(self, ax: Any = None) -> Any:
        """Draws the weights over wavelength, with those of untrained networks; returns the axes, new ones for None."""
        from hsfusion.plots import plot_band_weights

        untrained = untrained_weights(self).mean(0)
        return plot_band_weights(self.bands.wavelength_nm, self.weight, untrained=untrained, ax=ax)

    def to_dict(self) -> dict[str, list[Any]]:
        """Columns of the table: band (from 1), wavelength_nm, group, weight."""
        return {
            "band": list(range(1, len(self.bands) + 1)),
            "wavelength_nm": self.bands.wavelength_nm.tolist(),
            "group": list(self.group),
            "weight": self.weight.tolist(),
        }

    def to_csv(self, path: str | Path) -> None:
        """Writes the columns band, wavelength_nm, fwhm_nm, good, group, weight; bands count from 1.

        Layers of further rasters follow with the wavelength nan, their raster being their group.
        """
        bands, number = self.bands, len(self.bands)
        fwhm = [None] * number if bands.fwhm_nm is None else [f"{width:.10g}" for width in bands.fwhm_nm]
        nm, good = [f"{nm:.10g}" for nm in bands.wavelength_nm], bands.good.astype(int).tolist()
        rows = [*zip(range(1, number + 1), nm, fwhm, good, self.group, self.weight.tolist(), strict=True)]
        rows += [(i, "nan", None, 1, name, weight) for i, (name, weight) in enumerate(self.sources, start=number + 1)]
        write_table(path, ["band", "wavelength_nm", "fwhm_nm", "good", "group", "weight"], rows)

    @classmethod
    def from_csv(cls, path: str | Path) -> BandWeights:
        """Reads what :meth:`to_csv` wrote."""
        try:
            with open(path, newline="", encoding="utf-8") as file:
                lines = list(csv.DictReader(file))
            rows = [row for row in lines if row["wavelength_nm"] != "nan"]
            layers = [row for row in lines if row["wavelength_nm"] == "nan"]
            widths = [row["fwhm_nm"] for row in rows]
            fwhm = np.array(widths, float) if all(widths) else None
            good = np.array([row["good"] == "1" for row in rows])
            return cls(
                Bands(np.array([float(row["wavelength_nm"]) for row in rows]), fwhm, good),
                tuple(from_cell(row["group"]) for row in rows),
                np.array([float(row["weight"]) for row in rows]),
                tuple((from_cell(row["group"]), float(row["weight"])) for row in layers),
            )
        except (OSError, KeyError, TypeError, ValueError, csv.Error, InputError) as error:
            expected = "a band_weights.csv of hsfusion"
            raise InputError(path, "table", repr(error), expected, "name a run's file") from error

    def window_total(self, centre_nm: float, *, half_width_nm: float) -> float:
        """Weight of all bands within ``centre_nm ± half_width_nm``, both ends included."""
        return float(self.weight[np.abs(self.bands.wavelength_nm - centre_nm) <= half_width_nm].sum())

    def group_totals(self) -> dict[str, float]:
        """Weight of each group and of each further raster, in the order in which they first occur."""
        totals: dict[str, float] = {}
        for name, value in [*zip(self.group, self.weight.tolist(), strict=True), *self.sources]:
            if name:
                totals[name] = totals.get(name, 0.0) + value
        return totals

    def windows(self, number: int = 8, *, width_nm: float = 50.0) -> list[tuple[float, float, float]]:
        """The windows of one width that hold most weight, not overlapping, best first: (lower_nm, upper_nm, weight).

        Neighbouring bands carry nearly the same information, so windows mean more than single bands. Each is centred at
        a band, or as near to one as the range of the bands allows; a window wider than the range is the whole range.
        """
        nm, left = self.bands.wavelength_nm, self.weight.copy()
        half = min(width_nm, float(np.ptp(nm))) / 2
        centre = np.clip(nm, nm.min() + half, nm.max() - half)
        inside = (nm >= (centre - half)[:, None]) & (nm <= (centre + half)[:, None])  # (C, C): window, band
        chosen = []
        for _ in range(number):
            totals = inside @ left
            free = np.array([not any(lo < c + half and c - half < up for lo, up, _ in chosen) for c in centre])
            if not (totals[free] > 0).any():
                break
            best = int(np.argmax(np.where(free, totals, -1)))
            chosen.append((float(centre[best] - half), float(centre[best] + half), float(totals[best])))
            left[inside[best]] = 0
        return chosen


def combine(
    response: NDArray[np.floating], group_weights: NDArray[np.floating], *, channel_share: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The band weight formula: (C,), non-negative, sums to 1; all 0 where every group weight is 0.

    From the response s (G, M, C), the group weights a (G, M), or their mean absolute values where they differ between
    pixels, and the channel shares pi (M,). Absolute group weights are scaled to sum to 1 in each channel first: with a
    constraint that leaves their scale open, the normalisation after the fusion would take it back.
    """
    size = np.abs(group_weights, dtype=np.float64)
    size = size / np.maximum(size.sum(0), 1e-300)
    total = np.einsum("m,gm,gmc->c", channel_share.astype(np.float64), size, np.abs(response))
    return total / max(total.sum(), 1e-300)


def untrained_weights(
    table: BandWeights,
    *,
    knot_spacing_nm: float | None = 40.0,
    channels: int = 32,
    alike: bool = False,
    reach_nm: tuple[float, float] | None = None,
    number: int = 1000,
) -> NDArray[np.float64]:
    """The weights (number, C) of networks before their training, drawn as :class:`hsfusion.nn.BandFusion` starts.

    A curve starts as a bump at a random band of its group, and a bump at the edge of a group is cut off, so that bands
    there start with more weight than others. The sum over the bands is less than 1 where there are further rasters.

    Args:
        table: names the bands and their groups; its weights do not matter.
        knot_spacing_nm: as of the networks.
        channels: number of fused channels.
        alike: whether all group weights start alike, and not at random.
        reach_nm: where the groups begin and end, for the knots; None for the first and the last band in use.
        number: of networks.
    """
    bands, rng = table.bands, np.random.default_rng(0)
    names = sorted({name for group in table.group for name in group.split("|") if name})
    members = np.array([[name in group.split("|") for group in table.group] for name in names], bool)
    inside = members.reshape(-1, len(bands)) & bands.good
    inside = inside[inside.any(1)]  # (G, C)
    used, total = inside.any(0), np.zeros((number, len(bands)))
    if not used.any():
        return total
    nm = bands.wavelength_nm[used]
    reach = [BandGroup("", *(reach_nm or (float(nm.min()), float(nm.max()) + 1e-6)))]
    basis, width = gaussian_basis(bands, reach, knot_spacing_nm=knot_spacing_nm), band_spacing_nm(bands, inside)
    groups = len(inside) + len({name for name, _ in table.sources})
    size = np.ones((number, groups, channels))
    if not alike:  # normal numbers
        grid = np.linspace(1e-4, 1 - 1e-4, 2001)
        quantiles = np.abs([NormalDist().inv_cdf(share) for share in grid.tolist()])
        size = np.interp(_spread_out(rng, number, groups, channels), grid, quantiles)
    size /= size.sum(1, keepdims=True)
    for g, of in enumerate(inside):
        bumps, share = basis[of], width[of].cumsum() / width[of].sum()
        height = _START_HEIGHT * bumps @ bumps.T / np.square(bumps).sum(1)[:, None]  # (centre, band)
        response = width[of] * np.exp(height - height.max(1, keepdims=True))
        response /= response.sum(1, keepdims=True)
        centre = np.searchsorted(share, _spread_out(rng, number, 1, channels)[:, 0]).clip(max=len(share) - 1)
        place = (np.arange(number)[:, None] * len(share) + centre).ravel()
        taken = np.bincount(place, size[:, g].ravel(), minlength=number * len(share)).reshape(number, -1)
        total[:, of] += taken @ response / channels
    return total


def _spread_out(rng: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    """Numbers between 0 and 1, of a shape, that share the interval out evenly along the last axis, in random order."""
    order = rng.random(shape).argsort(-1)
    return ((order + rng.random((*shape[:-1], 1))) / shape[-1]).clip(1e-4, 1 - 1e-4)


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
    """Writes the response (G, M, C) with the columns group, channel, band, wavelength_nm, weight; all count from 1.

    What follows the bands, layers of further rasters, has the wavelength nan.
    """
    nm = [f"{value:.10g}" for value in bands.wavelength_nm] + ["nan"] * (response.shape[2] - len(bands))
    places = ((g, m, c) for g, m in np.ndindex(response.shape[:2]) for c in np.flatnonzero(membership[g]).tolist())
    rows = ((groups[g], m + 1, c + 1, nm[c], float(response[g, m, c])) for g, m, c in places)
    write_table(path, ["group", "channel", "band", "wavelength_nm", "weight"], rows)


def write_group_weights_csv(
    path: str | Path, group_weights: NDArray[np.floating], *, groups: Sequence[str], channel_share: NDArray[np.floating]
) -> None:
    """Writes the group weights (G, M) with the columns group, channel, weight, channel_share."""
    share = channel_share.tolist()
    rows = ((groups[g], m + 1, float(weight), share[m]) for (g, m), weight in np.ndenumerate(group_weights))
    write_table(path, ["group", "channel", "weight", "channel_share"], rows)


def write_history_csv(path: str | Path, steps: Sequence[int], weights: NDArray[np.floating]) -> None:
    """Writes the weights during a training, (steps, C + E), a row for each step and a column for each band, from 1."""
    rows = ([step, *(f"{value:.6g}" for value in row)] for step, row in zip(steps, weights, strict=True))
    write_table(path, ["step", *range(1, weights.shape[1] + 1)], rows)


@dataclass(frozen=True, eq=False)
class WeightSpread:
    """Quartiles of each weight (C,) over runs, scaled as the reported median is, and shares of runs that select it."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    frequency: NDArray[np.float64]


def ranked_bands(
    weights: BandWeights, spread: WeightSpread | None, *, untrained: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """The bands as rows of a table, greatest weight first; of equal weights the first in the file; bands count from 1.

    ``weights`` are those of the run, or the median over runs, and ``untrained`` (C,) the mean of untrained networks.
    Without a spread, for one run, its columns are None.
    """
    bands, rows = weights.bands, []
    for rank, c in enumerate(np.argsort(-weights.weight, kind="stable").tolist(), start=1):
        of_band = {} if spread is None else {name: float(values[c]) for name, values in vars(spread).items()}
        row = {"rank": rank, "wavelength_nm": float(bands.wavelength_nm[c])}
        row |= {"fwhm_nm": None if bands.fwhm_nm is None else float(bands.fwhm_nm[c]), "group": weights.group[c]}
        row |= {"weight": float(weights.weight[c]), "lower_quartile": of_band.get("lower")}
        row |= {"upper_quartile": of_band.get("upper"), "untrained": float(untrained[c])}
        rows.append({**row, "selection_frequency": of_band.get("frequency"), "band": c + 1})
    return rows
