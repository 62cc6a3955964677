"""The scene that ``hsfusion predict`` classifies, and the network for its bands."""

from __future__ import annotations

import logging
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from hsfusion.errors import InputError
from hsfusion.nn import FusionNetwork
from hsfusion.scenes import LabelledScene, MatchedScene, Scene
from hsfusion.scenes.levels import check_same_unit, far_from_training, typical_levels
from hsfusion.spectra import Bands

_log = logging.getLogger(__name__)


def open_scene_for(
    cfg: DictConfig, network: FusionNetwork, header: dict[str, Any]
) -> tuple[Scene, FusionNetwork, dict[str, str]]:
    """Opens the scene and brings scene and network together.

    With ``bands=match`` the scene is shown with the model's bands; with ``bands=resample`` the network is carried over
    to the scene's bands, and what of it they cover is printed.

    Args:
        cfg: the whole configuration.
        network: the trained network.
        header: of its model file.

    Returns:
        scene and network, and tags for the map: ``bands``, and the share of the weight on bands that the scene lacks

    Raises:
        InputError: if bands or further rasters are missing, the scene is smaller than what the network sees around a
            pixel, or its values are of another unit.
    """
    opened = instantiate(cfg.scene)
    scene = opened.scene if isinstance(opened, LabelledScene) else opened
    sources = [(source["name"], source["layers"]) for source in header["sources"]]
    tags = {"bands": str(cfg.bands)}
    if cfg.bands == "resample":
        network, outside = _carried(scene, network, header)
        tags["weight_outside_bands"] = f"{outside:.4f}"
    needed = network.used_bands.numpy()
    bands = scene.bands if cfg.bands == "resample" else Bands(**header["bands"])
    matched = MatchedScene(scene, bands=bands, sources=sources, needed=needed)
    _check_size(matched.geobox.shape, network.receptive_field)
    _check_levels(matched, network)
    return matched, network, tags


def _check_levels(scene: MatchedScene, network: FusionNetwork) -> None:
    """Refuses a scene of another unit, and warns where the model has seen no such values."""
    layers = network.used_bands.nonzero()[:, 0].numpy()
    mean, std = network.mean.numpy(), network.std.numpy()
    levels = typical_levels(scene, layers)
    check_same_unit(levels, mean[layers], source=scene.name, reference="the training scene")
    spectral = layers < len(scene.bands)  # the ground may be as high or as hot as it likes
    warning = far_from_training(levels[spectral], mean[layers[spectral]], std[layers[spectral]])
    if warning is not None:
        _log.warning("%s: %s.", scene.name, warning)


def _carried(scene: Scene, network: FusionNetwork, header: dict[str, Any]) -> tuple[FusionNetwork, float]:
    from hsfusion.training.transfer import carry_over

    sources = {source["name"]: source["layers"] for source in header["sources"]}
    if dict(scene.sources) != sources:
        raise InputError(
            scene.name,
            field="further rasters",
            value=dict(scene.sources) or "none",
            expected=f"{sources or 'none'}, as the model was trained with",
            fix="give them as scene.sources={name: file}, or fine-tune the model on this scene",
        )
    carried = carry_over(
        network, header=header, bands=scene.bands, sources=scene.sources, class_names=header["classes"]["names"]
    )
    print("\n".join(carried.report.coverage_lines()))
    return carried.network, carried.report.outside_share


def _check_size(shape: tuple[int, int], receptive_field: int) -> None:
    if min(shape) < receptive_field:
        raise InputError(
            "scene",
            field="rows x columns",
            value=f"{shape[0]} x {shape[1]}",
            expected=f"at least {receptive_field} x {receptive_field}, what the model sees around a pixel",
            fix="give a larger scene",
        )
