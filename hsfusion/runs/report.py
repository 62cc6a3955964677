"""Figures, tables and pages of a run and of compared weights; selection of bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsfusion import plots
from hsfusion.data.splits import TRAIN
from hsfusion.errors import InputError
from hsfusion.plots.scene import MOST_PIXELS
from hsfusion.publishing import write_file
from hsfusion.runs.comparison import WeightComparison, compare
from hsfusion.runs.folder import ROLES, group_members, read_json, write_json
from hsfusion.runs.run import Run, independence
from hsfusion.scenes.scene import read_all, read_pixels
from hsfusion.spectra.weights import ranked_bands, write_table
from hsfusion.trust.verdict import FREE

if TYPE_CHECKING:
    from hsfusion.runs.experiment import Experiment

_WIDTH = 100  # of what is printed
_MOST_PIXELS = 5000  # of a class, whose mean spectrum is drawn


def write_figures(run: Run, folder: Path) -> None:
    """Draws the figures of a run into ``figures/`` of its folder."""
    experiment, result = run.trained.experiment, run.trained.result
    fusion, split = experiment.network.fusion.kind, run.metrics["split"]
    scene, learned, legend = experiment.split.labelled.scene.name, result.weights, experiment.split.labelled.legend
    title = f"{scene}, {fusion} fusion, {split['kind']} split, seed {run.metrics['seed']}"
    figures = {
        "band_weights": curve_figure(compare([run]), title=title, spectra=_class_spectra(experiment)),
        "group_weights": plots.group_weights_figure(
            learned.group_weights,
            group_names=group_members(experiment)[0],
            channel_share=learned.channel_share,
            title=f"Group weights: {title}",
        ),
        "map": _map_figure(run, title),
        "split": plots.split_figure(experiment.split.roles, title=f"Split: {title}"),
        "confusion": plots.confusion_figure(result.confusion, names=legend.names, title=f"Test pixels: {title}"),
        "training": plots.training_figure(result.history, best_step=result.best_step),
    }
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / "figures" / stem)
    while result.loggers:  # once: what is written again, and other results of this training, find none
        log_outputs(result.loggers.pop(), {stem: figures[stem] for stem in ("band_weights", "map")}, run.accuracy)


def log_outputs(logger: Any, figures: dict[str, Any], accuracy: dict[str, Any]) -> None:
    """Gives a logger of Lightning that takes figures these, and accuracies on test pixels."""
    place = logger.experiment
    if not (hasattr(logger, "log_image") or hasattr(place, "log_figure") or hasattr(place, "add_figure")):
        return  # a CSV of the training beside metrics.json
    names = ("overall_accuracy", "average_accuracy", "kappa", "mean_iou")
    logger.log_metrics({f"test/{name}": accuracy[name] for name in names})
    for name, figure in figures.items():
        if hasattr(logger, "log_image"):  # Weights & Biases
            logger.log_image(name, [figure])
        elif hasattr(place, "log_figure"):  # MLflow
            place.log_figure(logger.run_id, figure, f"{name}.png")
        elif hasattr(place, "add_figure"):  # TensorBoard
            place.add_figure(name, figure, close=False)
    logger.save()
    if hasattr(place, "finish"):  # or the next run of a sweep would be part of this one
        place.finish()


def _map_figure(run: Run, title: str) -> Any:
    labelled = run.trained.experiment.split.labelled
    bands, legend = labelled.scene.bands, labelled.legend
    three, _ = plots.composite_bands(bands.wavelength_nm, bands.good)
    step = -(-max(labelled.labels.shape) // MOST_PIXELS)
    return plots.map_figure(
        plots.composite(read_all(labelled.scene, np.array(three), step=step)),
        labelled.labels[::step, ::step],
        run.class_map[::step, ::step],
        codes=legend.codes,
        names=legend.names,
        colors=legend.colors,
        title=title,
    )


def _class_spectra(experiment: Experiment) -> dict[str, tuple[NDArray[np.float64], str]]:
    """Mean spectrum (C,) of at most 5,000 training pixels of each class, evenly spread, and the colour of the class."""
    labelled, train = experiment.split.labelled, experiment.split.pixels(TRAIN)
    scene, codes, legend = labelled.scene, labelled.labels.ravel()[train], labelled.legend
    spectra = {}
    for code, name, color in zip(legend.codes, legend.names, legend.colors, strict=True):
        pixels = train[codes == code]
        shown = pixels[:: max(1, -(-len(pixels) // _MOST_PIXELS))]  # a class need not occur in each of several scenes
        values = read_pixels(scene, shown, np.arange(len(scene.bands))).astype(np.float64)  # (N, C)
        finite = np.isfinite(values)
        total = np.where(finite, values, 0).sum(0)
        spectra[name] = np.where(finite.any(0), total / np.maximum(finite.sum(0), 1), np.nan), color
    return spectra


def write_report(run: Run, folder: Path) -> None:
    """Writes report.html, the page of a run whose figures are in its folder."""
    training, compared = run.trained, compare([run])
    experiment, result = training.experiment, training.result
    labelled, transfer, linear = experiment.split.labelled, experiment.initial.transfer, experiment.network.linear
    used = np.sort(run.weights.bands.wavelength_nm[run.weights.weight > 0])
    chosen = experiment.initial.architecture["keep_bands"] is not None
    listed = f": {', '.join(f'{nm:.0f}' for nm in used)} nm" if chosen else ""
    content = {
        "title": f"hsfusion: {run.name}",
        "verdict": (compared.verdict.word, compared.sentences),
        "beats_chance": run.beats_chance,
        "unreadable": FREE if run.header.fusion == "free" else None,
        "metrics": run.metrics,
        **_baseline_content(run.metrics.get("baselines")),
        "versions": run.metrics["versions"],
        "configuration": training.configuration,
        "reproduce": training.command,
        "weights": page_weights(compared),
        "scene": labelled.scene.name,
        "bands_in_use": f"{used.size} of {len(run.weights.bands)}{listed}",
        "shape": labelled.labels.shape,
        "classes": len(labelled.legend.codes),
        "labelled_pixels": int((labelled.labels > 0).sum()),
        "roles": {name: experiment.split.count(role) for role, name in enumerate(ROLES)},
        "transfer": () if transfer is None else transfer.lines(),
        "independence": independence(run.metrics),
        "best_step": result.best_step,
        "network_share": result.weights.network_share,
        "linear_sees": "" if linear is None else linear.sees,
    }
    write_file(folder / "report.html", plots.report_html("run", content, figures=folder / "figures"))


def _baseline_content(baselines: dict[str, Any] | None) -> dict[str, Any]:
    from hsfusion.trust.baselines import BASELINES  # with scikit-learn

    if not baselines:
        return {"ahead": None}
    key = max(baselines, key=lambda name: baselines[name]["overall_accuracy"])
    ahead = baselines[key]["network_ahead"]
    return {"ahead": ahead, "best_baseline_key": key, "best_baseline": BASELINES[key], "baseline_names": BASELINES}


def curve_figure(
    weights: WeightComparison, *, title: str = "", spectra: Mapping[str, tuple[NDArray[np.float64], str]] | None = None
) -> Any:
    """Draws the weights over wavelength, over the mean spectrum (C,) and colour of each class where they are given."""
    reported, totals = weights.reported, weights.reported.group_totals()
    return plots.band_weights_figure(
        reported.bands.wavelength_nm,
        reported.weight,
        groups=weights.groups,
        title=f"Band weights: {title or f'{weights.scene}, {weights.origin}'}",
        spectra=spectra,
        spread=weights.spread,
        stamp=weights.stamp,
        untrained=weights.profiles.untrained,
        runs=weights.profiles.runs,
        atmospheric=weights.atmospheric,
        sources={name: totals[name] for name, _ in reported.sources},
        importance=None if weights.importance is None else weights.importance.to_dict(),
    )


def page_weights(weights: WeightComparison) -> dict[str, Any]:
    """Describes the weights for a page."""
    profiles, tables = weights.profiles, _tables(weights)
    return {
        "bands": sorted(tables["weights"], key=lambda row: row["band"]),
        "windows": tables["windows"],
        "groups": weights.groups,
        "totals": plots.totals_by_group(profiles.bands.wavelength_nm, profiles.runs, weights.groups),
        "sources": weights.reported.sources,
        "runs": len(weights.runs),
        "importance": None if weights.importance is None else weights.importance.to_dict(),
    }


def _tables(weights: WeightComparison) -> dict[str, list[dict[str, Any]]]:
    """Rows of weights.csv and windows.csv."""
    windows = [
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
    bands = ranked_bands(weights.reported, weights.spread, untrained=weights.profiles.untrained)
    return {"weights": bands, "windows": windows}


@dataclass(frozen=True)
class Selection:
    """Bands or windows chosen by their weight; intervals are their name, and their limits [lower, upper) in nm."""

    stem: str
    summary: str
    rows: tuple[dict[str, Any], ...]
    intervals: tuple[tuple[str, float, float], ...]


def select(weights: WeightComparison, number: int, *, width_nm: int | None = None) -> Selection:
    """Chooses a number of bands that represent the weight, or of windows of one width that hold most of it."""
    return _select_bands(weights, number) if width_nm is None else _select_windows(weights, number, width_nm)


def _check_number(number: int, most: int, what: str) -> None:
    if number > most:
        raise InputError("command line", "select", number, f"at most {most}, the {what}", "choose fewer")


def _select_bands(weights: WeightComparison, number: int) -> Selection:
    from hsfusion.trust.rankings import distinct_distance_nm, filter_limits, select_bands

    reported, used = weights.reported, weights.profiles.used
    nm, (_, correlation) = reported.bands.wavelength_nm, weights.statistics
    _check_number(number, int((reported.weight > 0).sum()), "bands that have a weight")
    correlation = correlation[np.ix_(used, used)]
    apart_nm = distinct_distance_nm(correlation, nm[used])
    chosen = select_bands(reported.weight[used], nm[used], number=number, apart_nm=apart_nm)
    filters = filter_limits(chosen, correlation, nm[used]).tolist()
    ranked = {row["band"] - 1: row for row in _tables(weights)["weights"]}
    rows, intervals = [], []
    for c, (lower, upper) in zip(used[chosen].tolist(), filters, strict=True):
        rows.append({**ranked[c], "filter_centre_nm": (lower + upper) / 2, "filter_width_nm": upper - lower})
        # reaches no other band
        reach = min(1.0, float(np.abs(np.delete(nm, c) - nm[c]).min(initial=2.0)) / 2)
        intervals.append((f"band {c + 1}", float(nm[c] - reach), float(nm[c] + reach)))
    nearest = f", at least {np.diff(nm[used[chosen]]).min():.0f} nm apart" if number > 1 else ""
    listed = ", ".join(f"{nm[c]:.0f}" for c in used[chosen])
    wide = ", ".join(f"{lower:.0f}-{upper:.0f}" for lower, upper in filters)
    summary = f"{number} bands{nearest}: {listed} nm\nequivalent filters: {wide} nm"
    return Selection(f"selected_{number}", summary, tuple(rows), tuple(intervals))


def _select_windows(weights: WeightComparison, number: int, width_nm: int) -> Selection:
    windows, nm = weights.reported.windows(number, width_nm=width_nm), weights.reported.bands.wavelength_nm
    _check_number(number, len(windows), f"windows of {width_nm} nm apart from each other that have a weight")

    def median_weight(window: tuple[float, float, float]) -> float:
        """Median over the runs of the weight of a window."""
        return float(np.median(weights.profiles.runs[:, (nm >= window[0]) & (nm <= window[1])].sum(1)))

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
    tables, written = _tables(weights), [folder / "weights.json"]
    write_json(written[0], {**_summary(weights), "windows": tables["windows"], "bands": tables["weights"]})
    if selection is not None:
        tables[selection.stem] = list(selection.rows)
        written.append(_write_groups(weights, selection, folder))
    for name, rows in tables.items():
        if rows:
            write_table(folder / f"{name}.csv", rows[0], (row.values() for row in rows))
            written.append(folder / f"{name}.csv")
    figures = {"band_weights": curve_figure(weights), **_evidence_figures(weights)}
    for stem, figure in figures.items():
        plots.save_figure(figure, folder / stem)
    return [*written, *(folder / f"{stem}.svg" for stem in figures)]


def _write_groups(weights: WeightComparison, selection: Selection, folder: Path) -> Path:
    """Writes a selection as band groups, which define in nm the bands that a network sees; all others are left out."""
    path = folder / "groups" / f"{selection.stem}.yaml"
    lines = [
        f"# {len(selection.intervals)} chosen by band weights, each its own group:",
        f"# {weights.scene}, {weights.origin}" + (f" [{weights.stamp}]" if weights.stamp else ""),
        f"# hsfusion train --config-dir {folder} groups={selection.stem} band_cost=0 scene=...",
        "_target_: hsfusion.spectra.intervals\n_partial_: true\nnm:",
        *(f"  {name}: [{lower!r}, {upper!r}]" for name, lower, upper in selection.intervals),
    ]
    write_file(path, "\n".join(lines) + "\n")
    return path


def _summary(weights: WeightComparison) -> dict[str, Any]:
    """Runs, stability and verdict as plain values; an undefined index is null."""
    runs = [
        asdict(run) | {"folder": run.folder and str(run.folder), "duplicates": list(map(astuple, run.duplicates))}
        for run in weights.runs
    ]
    return {
        "scene": weights.scene,
        "runs": runs,
        "further_rasters": [{"name": name, "weight": weight} for name, weight in weights.reported.sources],
        "stability": None if weights.stability is None else asdict(weights.stability),
        "importance": None if weights.importance is None else weights.importance.to_dict(),
        "verdict": {"word": weights.verdict.word, "sentences": weights.verdict.sentences},
    }


def _evidence_figures(weights: WeightComparison) -> dict[str, Any]:
    """Draws what the evidence says about faithfulness and retraining; empty without evidence."""
    content, figures = weights.evidence or {}, {}
    curves, top_k = content.get("faithfulness"), content.get("top_k")
    if curves:
        figures["faithfulness"] = plots.faithfulness_figure(
            curves["numbers"],
            {kind: curves[kind] for kind in ("deletion", "insertion")},
            total=len(weights.reported.bands),
            title=f"Are the bands with large weights used? {weights.scene}",
        )
    if top_k:
        kinds = dict.fromkeys((content["split"]["kind"], "random"))  # the configured one first
        figures["top_k"] = plots.top_k_figure(
            top_k["numbers"],
            {kind: top_k[kind] for kind in kinds if top_k.get(kind)},
            full=top_k.get("full") or {},
            smallest=top_k.get("cheapest", {}),
            title=f"Retrained on k bands: {weights.scene}",
        )
    return figures


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
    """What ``hsfusion weights`` prints for runs, or for evidence: accuracies, verdict, windows."""
    several = len(weights.runs) > 1
    lines = [f"{weights.scene}: {len(weights.reported.bands)} bands, {len(weights.runs)} run(s)\n"]
    lines.append("    overall  average  leakage  seed  split     run")
    for run in weights.runs:
        numbers = f"{run.overall_accuracy:7.4f}  {run.average_accuracy:7.4f}  {run.leakage:7.4f}  {run.seed:4}"
        chance = "" if run.beats_chance else "  (no better than chance)"
        lines.append(f"    {numbers}  {run.split:8}  {run.folder}{chance}")
    lines.append(f"\nverdict: {weights.verdict.word}")
    for sentence in weights.sentences:
        lines += wrap(sentence, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    if weights.windows:
        lines.append("\n    window (nm)   weight  x untrained" + ("   selected in" if several else ""))
    for window in weights.windows:
        often = f"   {window.frequency:.0%} of the runs" if several else ""
        place = f"{window.lower_nm:4.0f}-{window.upper_nm:<6.0f}"
        lines.append(f"    {place} {window.share:8.1%} {window.raised:12.1f}{often}")
    lines += [f"    {name}: {share:.1%}" for name, share in weights.reported.sources]
    evidence = weights.evidence or {}
    for kind, number in evidence.get("top_k", {}).get("cheapest", {}).items():
        text, split = "none of those tried" if number is None else f"{number} bands", evidence["split"]["kind"]
        lines.append(f"fewest bands that keep 95 % of the accuracy ({kind}, {split}, by validation pixels): {text}")
    return lines
