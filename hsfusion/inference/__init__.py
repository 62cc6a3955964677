"""Inference: whole scenes to class maps."""

from hsfusion.inference.dense import predict_scene

__all__ = ["predict_scene"]
