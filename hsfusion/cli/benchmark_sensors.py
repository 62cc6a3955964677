"""``hsfusion benchmark sensors``: what would be lost with another sensor."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from hsfusion.cli.benchmark_accuracy import row_of, show, summary_of, write_results
from hsfusion.errors import InputError
from hsfusion.scenes import LabelledScene, Scene
from hsfusion.scenes.simulated import simulate
from hsfusion.spectra.sensors import SENSORS, sensor_name

_AS_IT_IS = "as it is"


def measure(cfg: DictConfig) -> None:
    """Trains the network on the scene as it is and as each sensor would see it; prints a table, writes JSON, a figure.

    Every seed has the same training and test pixels for all sensors.
    """
    _check(cfg)
    scenes = _scenes(cfg)
    write_results(cfg, [])  # a file that cannot be written is told before hours of training
    rows: list[dict[str, Any]] = []
    for seed in range(cfg.first_seed, cfg.first_seed + cfg.seeds):
        for method, sensor in _methods(cfg).items():
            rows.append({**_row(cfg, method, sensor, seed), "bands": len(scenes[method].bands)})
            show(rows[-1])
            write_results(cfg, rows)
    for name, values in summary_of(rows).items():
        told = [
            f"{metric} {values[key]['mean']:.4f}" + (f" ± {values[key]['std']:.4f}" if cfg.seeds > 1 else "")
            for metric, key in (("overall accuracy", "overall_accuracy"), ("average", "average_accuracy"))
        ]
        print(f"{name:<18} {len(scenes[name].bands):>4} bands, {', '.join(told)}, {values['seconds']:.0f} s")
    if cfg.figure is not None:
        _draw(cfg, rows, scenes)


def _check(cfg: DictConfig) -> None:
    named = list(cfg.sensors) if isinstance(cfg.sensors, ListConfig) else []
    if not named or not all(isinstance(name, str) for name in named):
        raise InputError(
            "command line",
            field="sensors",
            value=cfg.sensors,
            expected=f"a list of {', '.join(SENSORS)} and CSV files",
            fix="sensors=[enmap,sentinel2]",
        )
    twice = [name for name, times in Counter(map(sensor_name, named)).items() if times > 1]
    if twice:
        raise InputError(
            "command line", field="sensors", value=f"{twice[0]} twice", expected="each name once", fix="drop one"
        )
    for key in ("seed", "run_dir", "resume"):
        if cfg[key]:
            raise InputError(
                "command line", field=key, value=cfg[key], expected="nothing in a benchmark", fix="use seeds=N"
            )
    folder = Path(cfg.figure or "figure").parent
    if not folder.is_dir():
        raise InputError(
            "command line", field="folder of figure", value=folder, expected="a folder", fix="make it first"
        )


def _methods(cfg: DictConfig) -> dict[str, str | None]:
    """Name in tables -> sensor; None for the scene as it is."""
    return {_AS_IT_IS: None, **{sensor_name(sensor): sensor for sensor in cfg.sensors}}


def _scenes(cfg: DictConfig) -> dict[str, Scene]:
    """The scene as each sensor sees it; groups that do not fit one of them are refused before anything is trained."""
    from hsfusion.cli.session import new_network

    labelled = instantiate(cfg.scene)
    if not isinstance(labelled, LabelledScene):
        raise InputError(
            "command line", field="scene", value="without labels", expected="a scene with labels", fix="use scene=file"
        )
    scenes: dict[str, Scene] = {}
    for method, sensor in _methods(cfg).items():
        scenes[method] = labelled.scene if sensor is None else simulate(labelled.scene, sensor)
        try:
            new_network(cfg, scenes[method], labelled.legend.names)
        except InputError as error:
            raise InputError(
                f"groups and model, as {method} sees the scene",
                field=error.field,
                value=error.value,
                expected=error.expected,
                fix="use groups=even and no keep_bands, which adapt to the bands, or drop this sensor",
            ) from error
    return scenes


def _row(cfg: DictConfig, method: str, sensor: str | None, seed: int) -> dict[str, Any]:
    from hsfusion.cli.session import fit, set_up

    job = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    assert isinstance(job, DictConfig)
    job.seed = seed
    if sensor is not None:
        job.scene = {"_target_": "hsfusion.scenes.simulated.simulate", "of": job.scene, "sensor": sensor}
    with tempfile.TemporaryDirectory() as folder:
        outcome = fit(job, set_up(job), Path(folder))
    assert outcome is not None, "a benchmark runs in one process"
    metrics = outcome.metrics
    row = row_of(method, seed, metrics["test"], metrics["split"], metrics["timing"]["train_seconds"])
    return {**row, "bands_in_use": int((outcome.weights.weight > 0).sum())}


def _draw(cfg: DictConfig, rows: list[dict[str, Any]], scenes: dict[str, Scene]) -> None:
    from hsfusion.plots.sensors import sensors_figure
    from hsfusion.plots.style import save_figure

    shown = {name: SENSORS.get(name, name) for name in scenes}
    accuracies = {
        label: {
            metric.replace("_", " "): [row[metric] for row in rows if row["method"] == name]
            for metric in ("overall_accuracy", "average_accuracy")
        }
        for name, label in shown.items()
    }
    bands = {
        label: (scenes[name].bands.wavelength_nm[good], None if fwhm is None else fwhm[good])
        for name, label in shown.items()
        for good, fwhm in [(scenes[name].bands.good, scenes[name].bands.fwhm_nm)]
    }
    seeds = f"{cfg.seeds} seeds, ± 1 standard deviation" if cfg.seeds > 1 else "1 seed"
    title = f"{scenes[_AS_IT_IS].name} as other sensors would see it: {rows[0]['split']['kind']} split, {seeds}"
    stem = Path(cfg.figure)
    stem = stem.with_suffix("") if stem.suffix in (".png", ".svg") else stem
    save_figure(sensors_figure(accuracies, bands, title=title), stem)
    print(f"figure       {stem}.png")
