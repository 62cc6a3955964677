"""Bands, or windows, chosen by the band weights, and a configuration to train on them alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.runs.comparison import WeightComparison
from hsfusion.spectra.weights import ranked_bands, write_rows_csv

SELECTED = r"selected_\d+(_of_\d+_nm)?"  # stems of the files


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
        stem: of the files.
        told: in words.
        rows: of a table.
        intervals: name, first wavelength, and first beyond the last, of each band or window in nm.
    """

    stem: str
    told: str
    rows: tuple[dict[str, Any], ...]
    intervals: tuple[tuple[str, float, float], ...]


def chosen_of(weights: WeightComparison, number: int, *, width_nm: int | None) -> Selection:
    """Chooses bands that stand for the weight, or the windows of one width that hold most of it.

    Args:
        weights: of runs.
        number: how many.
        width_nm: of a window; None for single bands.

    Raises:
        InputError: if there are not so many with a weight, or a band is not alone at its wavelength.
    """
    return _bands(weights, number) if width_nm is None else _windows(weights, number, width_nm)


def _bands(weights: WeightComparison, number: int) -> Selection:
    from hsfusion.trust.rankings import select_bands

    reported = weights.reported
    usable = int((reported.weight > 0).sum())
    if number > usable:
        raise _too_many(number, f"{usable}, the bands that have a weight")
    bands = select_bands(reported.weight, reported.bands.wavelength_nm, number=number)
    rows = {row["band"] - 1: row for row in ranked_bands(reported, weights.spread, untrained=weights.untrained)}
    listed = ", ".join(f"{nm:.0f}" for nm in reported.bands.wavelength_nm[bands])
    return Selection(
        f"selected_{number}",
        f"{number} bands: {listed} nm",
        tuple(rows[c] for c in bands.tolist()),
        tuple(_single_bands(reported.bands.wavelength_nm, bands)),
    )


def _single_bands(nm: NDArray[np.float64], bands: NDArray[np.int64]) -> Iterable[tuple[str, float, float]]:
    """Name and interval in nm of each chosen band, which reaches no other band."""
    for c in bands.tolist():
        others = np.abs(np.delete(nm, c) - nm[c])
        reach = min(1.0, float(others.min()) / 2) if others.size else 1.0
        if reach == 0:
            raise InputError(
                "select",
                f"wavelength of band {c + 1}",
                f"{nm[c]:g} nm, as that of another band",
                "a band that its wavelength names",
                "mark one of the two as bad, and train anew",
            )
        yield f"band {c + 1}", float(nm[c] - reach), float(nm[c] + reach)


def _windows(weights: WeightComparison, number: int, width_nm: int) -> Selection:
    found = weights.reported.top_windows(number, width_nm=width_nm)
    if number > len(found):
        raise _too_many(number, f"{len(found)}, the windows of {width_nm} nm apart from each other that have a weight")
    nm, heaviest = weights.reported.bands.wavelength_nm, []
    for lower, upper, _ in found:  # what they weigh in the runs, as everywhere
        weight = float(np.median(weights.profiles[:, (nm >= lower) & (nm <= upper)].sum(1)))
        heaviest.append((weight, {"lower_nm": lower, "upper_nm": upper, "group": weights.groups_in(lower, upper)}))
    heaviest.sort(key=lambda window: -window[0])
    rows = [{"rank": i, **window, "weight": weight} for i, (weight, window) in enumerate(heaviest, start=1)]
    listed = ", ".join(f"{row['lower_nm']:.0f}-{row['upper_nm']:.0f}" for row in rows)
    return Selection(
        f"selected_{number}_of_{width_nm}_nm",
        f"{number} windows with {sum(row['weight'] for row in rows):.0%} of the weight: {listed} nm",
        tuple(rows),
        tuple((f"window {row['rank']}", row["lower_nm"], float(np.nextafter(row["upper_nm"], np.inf))) for row in rows),
    )


def _too_many(number: int, most: str) -> InputError:
    return InputError("command line", "select", number, f"at most {most}", "choose fewer")


def write_selection(weights: WeightComparison, chosen: Selection, folder: Path) -> tuple[Path, Path]:
    """Writes what was chosen as a table, and as band groups on which to train.

    Groups say in nm which bands a network sees, whatever the scene: bands in no group are left out.
    """
    table, config = folder / f"{chosen.stem}.csv", folder / "groups" / f"{chosen.stem}.yaml"
    write_rows_csv(table, chosen.rows)
    config.parent.mkdir(exist_ok=True)
    lines = [f"  {name}: [{lower!r}, {upper!r}]" for name, lower, upper in chosen.intervals]
    head = (
        f"# {len(lines)} chosen by band weights, each a group of its own:\n"
        f"# {weights.stamped(f'{weights.scene}, {weights.made}')}\n"
        f"# hsfusion train --config-dir {folder} groups={chosen.stem} band_cost=0 scene=...\n"
        "_target_: hsfusion.spectra.intervals\n_partial_: true\nnm:\n"
    )
    config.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return table, config
