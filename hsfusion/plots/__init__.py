"""Figures and the HTML report: arrays in, figures out; the only importer of matplotlib and jinja2."""

from hsfusion.plots.accuracy import confusion_figure, faithfulness_figure, top_k_figure, training_figure, trials_figure
from hsfusion.plots.report import map_html, report_html
from hsfusion.plots.scene import (
    band_quality_figure,
    class_map_figure,
    composite,
    composite_bands,
    composite_figure,
    map_figure,
    spectra_figure,
    split_figure,
)
from hsfusion.plots.style import figure_file, save_figure
from hsfusion.plots.weights import band_weights_figure, group_weights_figure, plot_band_weights, totals_by_group

__all__ = [
    "band_quality_figure",
    "band_weights_figure",
    "class_map_figure",
    "composite",
    "composite_bands",
    "composite_figure",
    "confusion_figure",
    "faithfulness_figure",
    "figure_file",
    "group_weights_figure",
    "map_figure",
    "map_html",
    "plot_band_weights",
    "report_html",
    "save_figure",
    "spectra_figure",
    "split_figure",
    "top_k_figure",
    "totals_by_group",
    "training_figure",
    "trials_figure",
]
