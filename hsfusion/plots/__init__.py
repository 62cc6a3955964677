"""Figures and the HTML report: arrays in, figures out; the only importer of matplotlib."""

from hsfusion.plots.channels import group_weights_figure
from hsfusion.plots.confusion import confusion_figure
from hsfusion.plots.curves import training_figure
from hsfusion.plots.history import weight_history_figure
from hsfusion.plots.maps import class_map_figure, composite, instance_weights_figure, map_figure, split_figure
from hsfusion.plots.quality import band_quality_figure, composite_figure, spectra_figure
from hsfusion.plots.report import report_html
from hsfusion.plots.style import save_figure
from hsfusion.plots.weights import band_weights_figure

__all__ = [
    "band_quality_figure",
    "band_weights_figure",
    "class_map_figure",
    "composite",
    "composite_figure",
    "confusion_figure",
    "group_weights_figure",
    "instance_weights_figure",
    "map_figure",
    "report_html",
    "save_figure",
    "spectra_figure",
    "split_figure",
    "training_figure",
    "weight_history_figure",
]
