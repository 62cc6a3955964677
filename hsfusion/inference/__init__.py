"""Inference: whole scenes to class maps."""

from hsfusion.inference.dense import instance_weight_maps, predict_scene

__all__ = ["instance_weight_maps", "predict_scene"]
