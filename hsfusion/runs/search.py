"""The study of a search with Optuna: continuing it, and its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from warnings import catch_warnings

from hsfusion import plots
from hsfusion.errors import InputError
from hsfusion.spectra.weights import write_table


def continue_study(name: str, storage: str, *, space: Mapping[str, Any]) -> int:
    """Enqueues killed trials of a study again; returns the number of complete trials.

    ``space`` is key -> distribution of the searched settings, which must be that of the trials.
    """
    import optuna  # pyright: ignore[reportMissingImports]

    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:  # no such study yet
        return 0
    for before in (trial.distributions for trial in study.get_trials() if trial.distributions):
        if changed := [key for key in {**before, **space} if before.get(key) != space.get(key)]:
            now, then = (of.get(changed[0], "not searched") for of in (space, before))
            fix = f"restore {changed[0]}, or choose another name"
            raise InputError("command line", changed[0], now, f"{then} as in the study {name}", fix)
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        with catch_warnings(action="ignore"):  # enqueue_trial counts as experimental
            study.enqueue_trial(trial.params)
    return len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))


def write_trials(name: str, storage: str, folder: Path, *, metric: str) -> list[str]:
    """Writes table and figure of the trials of a study that maximizes a metric; returns lines about the best."""
    import optuna  # pyright: ignore[reportMissingImports]

    study: Any = optuna.load_study(study_name=name, storage=storage)
    trials = study.trials
    keys = sorted({key for trial in trials for key in trial.params})
    rows = [["trial", "state", metric, *keys]]
    rows += [[of.number, of.state.name, of.value, *(of.params.get(key) for key in keys)] for of in trials]
    write_table(folder / "trials.csv", rows[0], rows[1:])
    lines = ["".join(f"{str(cell)[:21]:<23}" for cell in row).rstrip() for row in rows]
    done = [trial for trial in trials if trial.value is not None]
    if done:
        of_keys = {key: [of.params[key] for of in done] for key in keys if all(key in of.params for of in done)}
        figure = plots.trials_figure([trial.value for trial in done], of_keys, metric=metric)
        plots.save_figure(figure, folder / "trials")
        words = " ".join(f"{key}={value}" for key, value in study.best_params.items())
        lines += [f"best: trial {study.best_trial.number}, {words}", f"figure       {folder / 'trials.png'}"]
    return [*lines, f"table        {folder / 'trials.csv'}"]
