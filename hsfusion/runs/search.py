"""The study of a search with Optuna: continuing it, and its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from warnings import catch_warnings

from hsfusion import plots
from hsfusion.errors import InputError
from hsfusion.runs.folder import leaves
from hsfusion.scenes.description import read_configuration
from hsfusion.spectra.weights import write_table


def continue_study(name: str, storage: str, folder: Path, settings: Mapping[str, Any], space: Mapping[str, Any]) -> int:
    """Enqueues killed trials of a study again; returns the number of complete trials.

    ``space`` is key -> distribution of the searched settings, ``settings`` is the configuration of all others. Both
    must be those of the trials, whose runs are in ``folder``: the best of another scene or metric is not wanted.
    """
    import optuna  # pyright: ignore[reportMissingImports]

    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:  # no such study yet
        return 0
    for before in (trial.distributions for trial in study.get_trials() if trial.distributions):
        _refuse_changes(name, before, space, {*before, *space}, absent="not searched")
    records = (read_configuration(path) for path in folder.glob("*/config.yaml"))
    record = next((of for of in records if of.get("sweep_dir")), None)  # other runs may have the study's name
    if record is not None:
        before, now = (_all_leaves(of) for of in (record, settings))
        searched = tuple(f"{key.lstrip('+')}.".replace("/", ".") for key in space)
        keys = [key for key in {**before, **now} if not f"{key}.".startswith(searched)]
        _refuse_changes(name, before, now, keys, absent="absent")
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        with catch_warnings(action="ignore"):  # enqueue_trial counts as experimental
            study.enqueue_trial(trial.params)
    return len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))


def _all_leaves(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**leaves(settings), "optimized_metric": settings["optimized_metric"]}


def _refuse_changes(
    study: str, before: Mapping[str, Any], now: Mapping[str, Any], keys: Iterable[str], *, absent: str
) -> None:
    for key in keys:
        if (is_now := now.get(key, absent)) != (was := before.get(key, absent)):
            fix = f"restore {key}, or choose another name"
            raise InputError("command line", key, is_now, f"{was} as in the study {study}", fix)


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
