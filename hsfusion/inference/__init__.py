"""From a network and a scene to a map of any size."""

from hsfusion.inference.classification import instance_weight_maps, predict_scene
from hsfusion.inference.folding import FoldedNetwork
from hsfusion.inference.mapping import MapRequest, map_scene

__all__ = ["FoldedNetwork", "MapRequest", "instance_weight_maps", "map_scene", "predict_scene"]
