"""Training curves as drawn."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from hsfusion.plots import training_figure

STEPS = np.arange(0, 100, 10)
HISTORY = {
    "train/loss": (STEPS, np.linspace(3, 1, 10)),
    "val/loss": (STEPS, np.linspace(3, 2, 10)),
    "val/overall_accuracy": (STEPS, np.linspace(0.1, 0.9, 10)),
    "val/kappa": (STEPS, np.linspace(-0.1, 0.8, 10)),
    "learning_rate": (STEPS, np.ones(10)),
}


def names(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_losses_and_accuracies_have_a_panel_each() -> None:
    left, right = training_figure(HISTORY, best_step=40).axes
    assert names(left) == ["training", "validation", "kept: step 40"]
    assert names(right) == ["overall accuracy", "kappa", "kept: step 40"]


def test_curves_are_the_history() -> None:
    axes = training_figure(HISTORY, best_step=None).axes[1]
    np.testing.assert_array_equal(axes.get_lines()[1].get_data(), HISTORY["val/kappa"])


def test_best_step_is_marked_in_every_panel() -> None:
    for axes in training_figure(HISTORY, best_step=40).axes:
        assert np.asarray(axes.get_lines()[-1].get_xdata()).tolist() == [40, 40]


def test_without_validation_there_is_one_panel() -> None:
    (axes,) = training_figure({"train/loss": HISTORY["train/loss"]}, best_step=None).axes
    assert axes.get_ylabel() == "loss"
    assert names(axes) == ["training"]


def test_without_losses_there_is_the_panel_of_accuracies() -> None:
    (axes,) = training_figure({"val/kappa": HISTORY["val/kappa"]}, best_step=None).axes
    assert axes.get_ylabel() == "validation accuracy"


def test_curves_differ_in_line_style_for_grey_print() -> None:
    for axes in training_figure(HISTORY, best_step=40).axes:
        styles = [str(line.get_linestyle()) for line in axes.get_lines()[:2]]
        assert len(set(styles)) == 2


def test_loss_is_logarithmic_only_over_decades_of_positive_values() -> None:
    def scale(*values: float) -> str:
        return training_figure({"train/loss": (range(len(values)), values)}, best_step=None).axes[0].get_yscale()

    assert scale(3, 1) == "linear"
    assert scale(3, 0.01) == "log"
    assert scale(3, 0.01, float("nan")) == "log"
    assert scale(3, 0) == "linear"
    assert scale(float("nan")) == "linear"


def test_history_of_one_step_shows_as_a_point() -> None:
    (axes,) = training_figure({"train/loss": ([0], [2.5])}, best_step=None).axes
    assert axes.get_lines()[0].get_marker() == "o"


def test_empty_history_says_so() -> None:
    figure = training_figure({}, best_step=None)
    assert not figure.axes
    assert "no training history" in figure.texts[0].get_text()
