"""What a search has tried, as a table and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hsfusion.spectra.weights import write_table


def write_trials(study: Any, folder: Path, *, metric: str) -> list[str]:
    """Writes trials.csv, and trials.png and trials.svg of those that came to an end; gives lines that say the best.

    Args:
        study: of Optuna.
        folder: of the files.
        metric: that the study maximizes.
    """
    trials = study.trials
    keys = sorted({key for trial in trials for key in trial.params})
    rows = [["trial", "state", metric, *keys]]
    rows += [[of.number, of.state.name, of.value, *(of.params.get(key) for key in keys)] for of in trials]
    write_table(folder / "trials.csv", rows[0], rows[1:])
    lines = ["".join(f"{str(cell)[:21]:<23}" for cell in row).rstrip() for row in rows]
    done = [trial for trial in trials if trial.value is not None]
    if done:
        from hsfusion import plots

        of_keys = {key: [of.params[key] for of in done] for key in keys if all(key in of.params for of in done)}
        figure = plots.trials_figure([trial.value for trial in done], of_keys, metric=metric)
        plots.save_figure(figure, folder / "trials")
        words = " ".join(f"{key}={value}" for key, value in study.best_params.items())
        lines += [f"best: trial {study.best_trial.number}, {words}", f"figure       {folder / 'trials.png'}"]
    return [*lines, f"table        {folder / 'trials.csv'}"]
