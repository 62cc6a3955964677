"""Scenes: where the pixels come from, where they lie on the ground, and how maps are written."""

from hsfusion.scenes.geobox import GeoBox
from hsfusion.scenes.labels import LabelledScene, Legend, read_labels
from hsfusion.scenes.maps import write_class_map, write_raster
from hsfusion.scenes.opening import open_labelled_scene, open_scene
from hsfusion.scenes.scene import ArrayRaster, ArrayScene, Scene, StackedScene, Window

__all__ = [
    "ArrayRaster",
    "ArrayScene",
    "GeoBox",
    "LabelledScene",
    "Legend",
    "Scene",
    "StackedScene",
    "Window",
    "open_labelled_scene",
    "open_scene",
    "read_labels",
    "write_class_map",
    "write_raster",
]
