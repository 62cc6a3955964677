"""Bands chosen by weights that were compared; tables, figures and pages of both."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import plots
from hsfusion.errors import InputError
from hsfusion.publishing import write_file
from hsfusion.runs.comparison import WeightComparison
from hsfusion.runs.folder import read_json, write_json
from hsfusion.spectra.weights import ranked_bands, write_table

_WIDTH = 100  # of what is printed


@dataclass(frozen=True)
class Selection:
    """Bands or windows chosen by their weight; intervals are their name, and their limits [lower, upper) in nm."""

    stem: str
    summary: str
    rows: tuple[dict[str, Any], ...]
    intervals: tuple[tuple[str, float, float], ...]


def select(weights: WeightComparison, number: int, *, width_nm: int | None = None) -> Selection:
    """Chooses so many bands that stand for the weight, or windows of one width that hold most of it."""
    return _select_bands(weights, number) if width_nm is None else _select_windows(weights, number, width_nm)


def _check_number(number: int, most: int, what: str) -> None:
    if number > most:
        raise InputError("command line", "select", number, f"at most {most}, the {what}", "choose fewer")


def _select_bands(weights: WeightComparison, number: int) -> Selection:
    from hsfusion.trust.rankings import distinct_distance_nm, filter_limits, select_bands

    reported, used = weights.reported, weights.used
    nm, (_, correlation) = reported.bands.wavelength_nm, weights.statistics
    _check_number(number, int((reported.weight > 0).sum()), "bands that have a weight")
    correlation = correlation[np.ix_(used, used)]
    apart_nm = distinct_distance_nm(correlation, nm[used])
    chosen = select_bands(reported.weight[used], nm[used], number=number, apart_nm=apart_nm)
    filters = filter_limits(chosen, correlation, nm[used]).tolist()
    ranked = {row["band"] - 1: row for row in ranked_bands(reported, weights.spread, untrained=weights.untrained)}
    rows, intervals = [], []
    for c, (lower, upper) in zip(used[chosen].tolist(), filters, strict=True):
        rows.append({**ranked[c], "filter_centre_nm": (lower + upper) / 2, "filter_width_nm": upper - lower})
        # reaches no other band
        reach = min(1.0, float(np.abs(np.delete(nm, c) - nm[c]).min(initial=2.0)) / 2)
        intervals.append((f"band {c + 1}", float(nm[c] - reach), float(nm[c] + reach)))
    nearest = f", at least {np.diff(nm[used[chosen]]).min():.0f} nm apart" if number > 1 else ""
    listed = ", ".join(f"{nm[c]:.0f}" for c in used[chosen])
    wide = ", ".join(f"{lower:.0f}-{upper:.0f}" for lower, upper in filters)
    summary = f"{number} bands{nearest}: {listed} nm\nfilters that see the same: {wide} nm"
    return Selection(f"selected_{number}", summary, tuple(rows), tuple(intervals))


def _select_windows(weights: WeightComparison, number: int, width_nm: int) -> Selection:
    windows = weights.reported.windows(number, width_nm=width_nm)
    _check_number(number, len(windows), f"windows of {width_nm} nm apart from each other that have a weight")
    nm = weights.reported.bands.wavelength_nm

    def median_weight(window: tuple[float, float, float]) -> float:
        """What it weighs in the runs, as everywhere."""
        return float(np.median(weights.profiles[:, (nm >= window[0]) & (nm <= window[1])].sum(1)))

    rows, intervals = [], []
    for rank, window in enumerate(sorted(windows, key=median_weight, reverse=True), start=1):
        lower, upper, _ = window
        limits = {"rank": rank, "lower_nm": lower, "upper_nm": upper}
        rows.append({**limits, "group": weights.groups_in(lower, upper), "weight": median_weight(window)})
        intervals.append((f"window {rank}", lower, float(np.nextafter(upper, np.inf))))
    listed = ", ".join(f"{row['lower_nm']:.0f}-{row['upper_nm']:.0f}" for row in rows)
    summary = f"{number} windows with {sum(row['weight'] for row in rows):.0%} of the weight: {listed} nm"
    return Selection(f"selected_{number}_of_{width_nm}_nm", summary, tuple(rows), tuple(intervals))


def write_weights(weights: WeightComparison, folder: Path, selection: Selection | None = None) -> list[Path]:
    """Writes weights.json, tables and figures, and of a selection the band groups to train on; returns their paths."""
    tables = {
        "weights": ranked_bands(weights.reported, weights.spread, untrained=weights.untrained),
        "windows": window_rows(weights),
    }
    write_json(folder / "weights.json", {**_summary(weights), "windows": tables["windows"], "bands": tables["weights"]})
    written = [folder / "weights.json"]
    if selection is not None:
        tables[selection.stem] = list(selection.rows)
        written.append(_write_groups(weights, selection, folder))
    for name, rows in tables.items():
        if rows:
            write_table(folder / f"{name}.csv", rows[0], (row.values() for row in rows))
            written.append(folder / f"{name}.csv")
    figures = {"band_weights": curve_figure(weights), **evidence_figures(weights)}
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / stem)
    return [*written, *(folder / f"{stem}.svg" for stem in figures)]


def _write_groups(weights: WeightComparison, selection: Selection, folder: Path) -> Path:
    """Writes a selection as band groups; these say in nm which bands a network sees: those in no group are left out."""
    path = folder / "groups" / f"{selection.stem}.yaml"
    lines = [
        f"# {len(selection.intervals)} chosen by band weights, each a group of its own:",
        f"# {weights.scene}, {weights.origin}" + (f" [{weights.stamp}]" if weights.stamp else ""),
        f"# hsfusion train --config-dir {folder} groups={selection.stem} band_cost=0 scene=...",
        "_target_: hsfusion.spectra.intervals\n_partial_: true\nnm:",
        *(f"  {name}: [{lower!r}, {upper!r}]" for name, lower, upper in selection.intervals),
    ]
    write_file(path, "\n".join(lines) + "\n")
    return path


def window_rows(weights: WeightComparison) -> list[dict[str, Any]]:
    """The windows as rows of a table."""
    return [
        {
            "rank": rank,
            "lower_nm": window.lower_nm,
            "upper_nm": window.upper_nm,
            "group": weights.groups_in(window.lower_nm, window.upper_nm),
            "weight": window.share,
            "times_untrained": window.raised,
            "selection_frequency": window.frequency if len(weights.runs) > 1 else None,
        }
        for rank, window in enumerate(weights.windows, start=1)
    ]


def _summary(weights: WeightComparison) -> dict[str, Any]:
    """Runs, stability and verdict as plain values; an undefined index is null."""
    stability, verdict = weights.stability, weights.verdict
    runs = [
        asdict(run) | {"folder": run.folder and str(run.folder), "duplicates": list(map(astuple, run.duplicates))}
        for run in weights.runs
    ]
    return {
        "scene": weights.scene,
        "runs": runs,
        "further_rasters": [{"name": name, "weight": weight} for name, weight in weights.reported.sources],
        "stability": None if stability is None else asdict(stability),
        "importance": None if weights.importance is None else weights.importance.to_dict(),
        "verdict": None if verdict is None else {"word": verdict.word, "sentences": verdict.sentences},
    }


def curve_figure(
    weights: WeightComparison, *, title: str = "", spectra: dict[str, tuple[NDArray[np.float64], str]] | None = None
) -> Any:
    """Draws the weights over wavelength, over the mean spectrum (C,) and colour of each class where they are given."""
    reported, spread = weights.reported, weights.spread
    totals = reported.group_totals()
    return plots.band_weights_figure(
        reported.bands.wavelength_nm,
        reported.weight,
        groups=weights.groups,
        title=f"Band weights: {title or f'{weights.scene}, {weights.origin}'}",
        spectra=spectra,
        spread=None if spread is None else (spread.lower, spread.upper),
        frequency=None if spread is None else spread.frequency,
        stamp=weights.stamp,
        untrained=weights.untrained,
        runs=weights.profiles,
        atmospheric=weights.atmospheric,
        sources={name: totals[name] for name, _ in reported.sources},
        importance=None if weights.importance is None else weights.importance.to_dict(),
    )


def page_weights(weights: WeightComparison) -> dict[str, Any]:
    """Describes the weights for a page."""
    reported, windows = weights.reported, weights.windows
    return plots.weight_content(
        reported.bands.wavelength_nm,
        reported.weight,
        groups=weights.groups,
        windows=[
            {**vars(of), "weight": of.share, "group": weights.groups_in(of.lower_nm, of.upper_nm)} for of in windows
        ],
        sources=reported.sources,
        profiles=weights.profiles if len(weights.runs) > 1 else None,
        fwhm=reported.bands.fwhm_nm,
        group=reported.group,
        untrained=weights.untrained,
        importance=None if weights.importance is None else weights.importance.to_dict(),
        **({} if weights.spread is None else vars(weights.spread)),
    )


def evidence_figures(weights: WeightComparison) -> dict[str, Any]:
    """Draws what the evidence says about faithfulness and retraining; empty without evidence."""
    content, figures = weights.evidence or {}, {}
    curves, top_k = content.get("faithfulness"), content.get("top_k")
    if curves:
        figures["faithfulness"] = plots.faithfulness_figure(
            curves["numbers"],
            {kind: curves[kind] for kind in ("deletion", "insertion")},
            total=len(weights.reported.bands),
            title=f"Are the bands of great weight used? {weights.scene}",
        )
    if top_k:
        kinds = dict.fromkeys((content["split"]["kind"], "random"))  # the configured one first
        figures["top_k"] = plots.top_k_figure(
            top_k["numbers"],
            {kind: top_k[kind] for kind in kinds if top_k.get(kind)},
            full=top_k.get("full") or {},
            smallest=smallest_numbers(weights),
            title=f"Retrained on k bands: {weights.scene}",
        )
    return figures


def smallest_numbers(weights: WeightComparison) -> dict[tuple[str, str], int | None]:
    """Split and classifier to the smallest number of our bands that keeps 95 % of the accuracy with all."""
    content = weights.evidence or {}
    numbers = content.get("top_k", {}).get("cheapest", {})
    return {(content["split"]["kind"], classifier): number for classifier, number in numbers.items()}


def write_page(weights: WeightComparison, source: Path, folder: Path) -> Path:
    """Writes the report of an evidence folder, the source of the weights, beside the figures; returns its path."""
    assert weights.evidence is not None, "run folders have reports of their own"
    assert weights.runs[0].folder is not None, "read from a folder"
    configuration = source / "config.yaml"
    content = {
        "title": f"hsfusion: evidence on the band weights of {weights.scene}",
        "configuration": configuration.read_text(encoding="utf-8") if configuration.exists() else "",
        "versions": read_json(weights.runs[0].folder / "metrics.json").get("versions", {}),
        "reproduce": weights.evidence["command"],
        "evidence": weights.evidence,
        "weights": page_weights(weights),
    }
    path = folder / "report.html"
    write_file(path, plots.report_html("evidence", content, figures=folder))
    return path


def page(weights: WeightComparison) -> list[str]:
    """What ``hsfusion weights`` prints of runs, or of evidence: accuracies, verdict, windows."""
    several = len(weights.runs) > 1
    lines = [f"{weights.scene}: {len(weights.reported.bands)} bands, {len(weights.runs)} run(s)\n"]
    lines.append("    overall  average  leakage  seed  split     run")
    for run in weights.runs:
        numbers = f"{run.overall_accuracy:7.4f}  {run.average_accuracy:7.4f}  {run.leakage:7.4f}  {run.seed:4}"
        chance = "" if run.beats_chance else "  (no better than chance)"
        lines.append(f"    {numbers}  {run.split:8}  {run.folder}{chance}")
    if weights.verdict is None:
        lines.append("\nverdict: none yet, the evidence run has not come to its end")
    else:
        lines.append(f"\nverdict: {weights.verdict.word}")
        for sentence in (*weights.verdict.sentences, *weights.atmospheric_sentences):
            lines += wrap(sentence, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    if weights.windows:
        lines.append("\n    window (nm)   weight  x untrained" + ("   selected in" if several else ""))
    for window in weights.windows:
        often = f"   {window.frequency:.0%} of the runs" if several else ""
        place = f"{window.lower_nm:4.0f}-{window.upper_nm:<6.0f}"
        lines.append(f"    {place} {window.share:8.1%} {window.raised:12.1f}{often}")
    lines += [f"    {name}: {share:.1%}" for name, share in weights.reported.sources]
    for (split, kind), number in (smallest_numbers(weights) if weights.evidence is not None else {}).items():
        text = "none measured does" if number is None else f"{number} bands"
        lines.append(f"cheapest sensor that keeps 95 % ({kind}, {split}, chosen on validation pixels): {text}")
    return lines
