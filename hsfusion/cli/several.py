"""``hsfusion train scene=several``: one training on scenes of different sensors."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from hsfusion.cli.descriptions import open_described, read_descriptions
from hsfusion.cli.fitting import blaming, class_counts, patches_of, plain, sample_of, train_network
from hsfusion.cli.outputs import versions, write_outputs
from hsfusion.cli.run_folder import is_folder_name
from hsfusion.cli.seen import seen_pixels
from hsfusion.cli.session import Experiment, Outcome, Start, begin, new_network, outcome_of, split_scene
from hsfusion.data.datamodule import SeveralDataModule
from hsfusion.data.splits import TEST, TRAIN, VAL, Split, dilate
from hsfusion.errors import InputError
from hsfusion.nn import SeveralNetworks
from hsfusion.scenes import LabelledScene, Scene
from hsfusion.scenes.joined import on_common_legend
from hsfusion.scenes.simulated import simulate
from hsfusion.spectra import BandGroup, Bands
from hsfusion.training.accuracy import accuracies

_log = logging.getLogger(__name__)
# what lies beside the folders of the scenes
_TAKEN = {"checkpoints", "config.yaml", "logs", "metrics.json", "train.log"}
_LONGEST_NAME = 100
_MOSTLY = 0.9  # of the labelled pixels
_NAME = re.compile(r"\w[\w-]*")


@dataclass(frozen=True, eq=False)
class SeveralExperiment:
    """All that is known before a training on several scenes.

    Attributes:
        parts: of each scene; their networks are those of ``network``.
        network: the whole, trained in place.
    """

    parts: list[Experiment]
    network: SeveralNetworks


def scene_contents(scenes: Sequence[str]) -> list[dict[str, Any]]:
    """What entries of ``scene.scenes`` stand for, as plain values, for the run folder to tell.

    Raises:
        InputError: if one is none.
    """
    return [_content(entry) for entry in scenes]


def _content(entry: str) -> dict[str, Any]:
    if _is_description(entry):
        return {"files": [entry], "contents": read_descriptions([entry])}
    if "@" in entry:
        name, _, sensor = entry.rpartition("@")
        return {"of": _content(name), "sensor": sensor}
    return plain(_named_scene(entry))


def _open(entry: str) -> LabelledScene | Scene:
    if _is_description(entry):
        return open_described([entry])
    if "@" in entry:
        name, _, sensor = entry.rpartition("@")
        return simulate(_open(name), sensor)
    return instantiate(_named_scene(entry))


def _is_description(entry: str) -> bool:
    return entry.endswith((".yaml", ".yml"))


def _named_scene(name: str) -> DictConfig:
    """The configuration of a scene that a file in conf/, or in the user's own --config-dir, names."""
    if not _NAME.fullmatch(name):
        raise _refusal("scene.scenes", repr(name), "descriptions (.yaml) and names of scenes", "correct it")
    scene = compose("train", overrides=[f"scene={name}"]).scene
    missing = sorted(OmegaConf.missing_keys(scene))
    if missing:
        raise _refusal("scene.scenes", name, f"a scene that needs no {missing[0]}", "describe it in a YAML file")
    return scene


def refuse_several(scenes: Sequence[str], **keywords: Any) -> None:
    """What the configuration calls where one scene is opened.

    Raises:
        InputError: always.
    """
    raise _refusal("scene", "several", "one scene; only hsfusion train takes several", "choose another scene")


def open_several(scenes: Sequence[str], *, group_weights: str = "shared") -> tuple[LabelledScene, ...]:
    """Opens the scenes that a configuration names.

    Raises:
        InputError: if there are fewer than two, or one has no labels, or a name that cannot be that of a folder of its
            own.
    """
    if len(scenes) < 2:
        raise _refusal("scene.scenes", list(scenes), "at least two", "scene.scenes=[a.yaml,b.yaml]")
    if group_weights not in ("shared", "per_scene"):
        raise _refusal("scene.group_weights", group_weights, "shared | per_scene", "correct scene.group_weights")
    opened = []
    for entry in scenes:
        labelled = _open(entry)
        if not isinstance(labelled, LabelledScene):
            raise _refusal("scene.scenes", entry, "scenes with labels", "add labels to its description")
        opened.append(labelled)
    names = [labelled.scene.name for labelled in opened]
    for name in names:
        if not is_folder_name(name) or name.lower() in _TAKEN or len(name) > _LONGEST_NAME:
            raise _refusal("scene.scenes", repr(name), "names that a folder can have", "give it another name")
    if len({name.lower() for name in names}) < len(names):
        raise _refusal("scene.scenes", ", ".join(names), "unique names", "give one of them another name")
    return tuple(opened)


def set_up_several(cfg: DictConfig) -> SeveralExperiment:
    """Opens the scenes, splits each and builds the networks.

    Raises:
        HsFusionError: if anything of it does not fit together.
    """
    _check(cfg)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    with blaming("scene"):
        labelled = open_several(**{key: of for key, of in plain(cfg.scene).items() if not key.startswith("_")})
    scenes = [part.scene for part in labelled]
    for scene in scenes[1:]:
        if scene.sources != scenes[0].sources:
            expected = f"{scenes[0].sources or 'none'} as in {scenes[0].name}"
            value = scene.sources or "none"
            raise InputError(
                scene.name, field="further rasters", value=value, expected=expected, fix="give all the same sources"
            )
    groups = common_groups(cfg, scenes)

    def make(cfg: DictConfig, scene: Scene, class_names: Sequence[str]) -> Start:
        return new_network(cfg, scene, class_names, groups=groups)

    splits = [split_scene(cfg, part, make=make) for part in labelled]
    check_apart(splits)
    common = on_common_legend([split.labelled for split in splits])
    parts = [begin(cfg, replace(split, labelled=part), make=make) for split, part in zip(splits, common, strict=True)]
    with blaming("model"):
        network = SeveralNetworks([part.network for part in parts], group_weights=cfg.scene.group_weights)
    _log.info("%d scenes share responses and CNN; group weights: %s", len(parts), cfg.scene.group_weights)
    _log.info("Every band stays open: gates would stand in front of the bands of one sensor.")
    return SeveralExperiment(parts, network)


def common_groups(cfg: DictConfig, scenes: Sequence[Scene]) -> list[BandGroup]:
    """The groups that the configuration makes of the good bands of all scenes together.

    Raises:
        InputError: if one holds no band of a scene.
    """
    nm = [scene.bands.wavelength_nm[scene.bands.good] for scene in scenes]
    pooled = np.concatenate(nm)
    with blaming("groups"):
        groups = instantiate(cfg.groups)(Bands(pooled, None, np.ones(pooled.shape, bool)))
    for group in groups:
        for scene, own in zip(scenes, nm, strict=True):
            if not ((own >= group.lower_nm) & (own < group.upper_nm)).any():
                where = f"{own.min():.0f} to {own.max():.0f} nm" if own.size else "none is good"
                raise InputError(
                    scene.name,
                    field=f"number of good bands in group {group.name} [{group.lower_nm:g}, {group.upper_nm:g}) nm",
                    value=0,
                    expected=f"at least 1 in each scene; good bands of this one: {where}",
                    fix="choose groups that all scenes see, or wider ones (groups.number)",
                )
    return groups


def check_apart(splits: Sequence[Split]) -> None:
    """Refuses scenes of one ground of which one is tested on what another is trained on; their own leakage is 0.

    Scenes are of one ground if they have one grid on the earth, or, without a place, one shape and mostly the same
    labels.

    Raises:
        InputError: if a test pixel of a scene is, or sees, a training or validation pixel of another.
    """
    for one, other in itertools.permutations(splits, 2):
        if not _one_ground(one.labelled, other.labelled):
            continue
        seen = dilate(np.isin(other.roles, (TRAIN, VAL)), one.radius)
        leaked = int((seen & (one.roles == TEST)).sum())
        if leaked:
            raise InputError(
                one.labelled.scene.name,
                field=f"number of test pixels that {other.labelled.scene.name} trains on",
                value=leaked,
                expected="0: the two are of one ground",
                fix="give both the same labels, so that they are split alike, or train on one of them",
            )


def _one_ground(one: LabelledScene, other: LabelledScene) -> bool:
    boxes = one.scene.geobox, other.scene.geobox
    if boxes[0].shape != boxes[1].shape:
        return False
    if boxes[0].crs is not None or boxes[1].crs is not None:
        return boxes[0] == boxes[1]
    labelled = (one.labels > 0) | (other.labels > 0)
    return bool((one.labels == other.labels)[labelled].mean() > _MOSTLY)


def fit_several(
    cfg: DictConfig, experiment: SeveralExperiment, folder: Path, *, checkpoint: Path | None = None
) -> list[tuple[Experiment, Outcome]]:
    """Trains on all scenes at once, keeps the best epoch by all their validation pixels, and classifies each.

    Args:
        cfg: the whole configuration.
        experiment: from :func:`set_up_several`; its network is trained in place.
        folder: where checkpoints and logs go.
        checkpoint: of an interrupted run, to go on with.

    Returns:
        for each scene what an experiment on it alone would have, with an ordinary network of its own; nothing on all
        but the first process of a distributed run.

    Raises:
        DivergedError: if a weight is not finite at the end.
    """
    parts, network = experiment.parts, experiment.network
    edges = np.linspace(0, cfg.data.batch_size, len(parts) + 1).astype(int)
    data = [
        patches_of(cfg, part.cube, part.split, batch_size=int(size))
        for part, size in zip(parts, np.diff(edges), strict=True)
    ]
    training = train_network(
        cfg,
        network,
        SeveralDataModule(data),
        folder,
        measured=[
            (part.network, sample_of(part.network, own, part.split, most=256))
            for part, own in zip(parts, data, strict=True)
        ],
        class_counts=np.sum([class_counts(part.cube, part.split) for part in parts], axis=0),
        val_pixels=sum(part.split.count(VAL) for part in parts),
        checkpoint=checkpoint,
    )
    if training is None:
        return []
    steps, weights = training.weight_history
    ends = np.cumsum([len(part.network.mean) for part in parts])[:-1]
    finished = []
    for part, apart, own, history in zip(
        parts, network.taken_apart(), data, np.split(weights, ends, axis=1), strict=True
    ):
        alone = replace(part, start=replace(part.start, network=apart))
        finished.append((alone, outcome_of(alone, replace(training, weight_history=(steps, history)), own)))
    return finished


def write_several(configuration: dict[str, Any], finished: Sequence[tuple[Experiment, Outcome]], folder: Path) -> None:
    """Writes an ordinary run folder for each scene, and the accuracies of all in the folder above."""
    told, seen = {}, [seen_pixels(experiment.split) for experiment, _ in finished]
    for i, (experiment, outcome) in enumerate(finished):
        others = tuple(entry for j, entry in enumerate(seen) if entry is not None and j != i)
        experiment = replace(experiment, start=replace(experiment.start, seen_before=others))
        name = experiment.split.labelled.scene.name
        (folder / name / "figures").mkdir(parents=True)
        print(f"{name}:")
        write_outputs(configuration, experiment, outcome, folder / name)
        told[name] = {"split": outcome.metrics["split"], "test": outcome.metrics["test"]}
    (folder / "figures").rmdir()  # each scene has its own
    legend, timing = finished[0][0].split.labelled.legend, finished[0][1].metrics["timing"]
    together = accuracies(np.sum([outcome.confusion for _, outcome in finished], axis=0), names=legend.names)
    metrics = {
        "scenes": told,
        "test": together,
        "timing": {key: timing[key] for key in ("train_seconds", "samples_per_second")},
        "seed": configuration["seed"],
        "versions": versions(),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(f"all scenes: overall accuracy {together['overall_accuracy']:.4f}, kappa {together['kappa']:.4f}")


def _check(cfg: DictConfig) -> None:
    """Refuses what belongs to one sensor."""
    scenes, fusion = len(cfg.scene.scenes), cfg.model.fusion
    if cfg.model.knot_spacing_nm is None:
        raise _refusal("model.knot_spacing_nm", "null", "knots in nm, which sensors can share", "give a distance")
    if cfg.model.keep_bands is not None:
        raise _refusal("model.keep_bands", cfg.model.keep_bands, "null, for bands differ", "remove it")
    table = cfg.scene.group_weights == "per_scene"
    kinds = ["scalar", "channel"] if table else ["scalar", "channel", "instance", "channel_instance", "none"]
    if fusion not in kinds:
        where = " with scene.group_weights=per_scene" if table else " for several scenes"
        raise _refusal("model.fusion", fusion, " | ".join(kinds) + where, "correct model.fusion")
    if cfg.data.batch_size < scenes:
        raise _refusal("data.batch_size", cfg.data.batch_size, f"at least {scenes}, one for each scene", "raise it")


def _refusal(field: str, value: object, expected: str, fix: str) -> InputError:
    return InputError("command line", field=field, value=value, expected=expected, fix=fix)
