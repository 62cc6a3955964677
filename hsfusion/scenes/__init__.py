"""Scenes: where the pixels come from, where they lie on the ground, and how maps are written."""

from hsfusion.scenes.geobox import GeoBox, Window
from hsfusion.scenes.labels import LabelledScene, Labels, read_labels
from hsfusion.scenes.legend import Legend
from hsfusion.scenes.mosaic import Mosaic, join_scenes
from hsfusion.scenes.opening import open_labelled_scene, open_scene, open_with_sources
from hsfusion.scenes.rasters import read_class_map, write_class_map, write_raster
from hsfusion.scenes.scene import ArrayRaster, ArrayScene, BandSelection, Scene, StackedScene

__all__ = [
    "ArrayRaster",
    "ArrayScene",
    "BandSelection",
    "GeoBox",
    "LabelledScene",
    "Labels",
    "Legend",
    "Mosaic",
    "Scene",
    "StackedScene",
    "Window",
    "join_scenes",
    "open_labelled_scene",
    "open_scene",
    "open_with_sources",
    "read_class_map",
    "read_labels",
    "write_class_map",
    "write_raster",
]
