"""Training curves and the confusion matrix as drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hsfusion.plots import confusion_figure, save_figure, training_figure, trials_figure

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


def test_history_of_one_step_shows_as_a_point() -> None:
    (axes,) = training_figure({"train/loss": ([0], [2.5])}, best_step=None).axes
    assert axes.get_lines()[0].get_marker() == "o"


COUNTS = np.array([[8, 2, 0], [0, 0, 0], [5, 0, 15]])
NAMES = ["Corn", "Oats", "Woods"]


def recalls(figure: Figure) -> list[str]:
    (right,) = figure.axes[0].child_axes
    return [label.get_text() for label in right.get_yticklabels()]


def test_rows_are_normalised_and_counts_are_written() -> None:
    axes = confusion_figure(COUNTS, names=NAMES, title="").axes[0]
    share = np.ma.filled(np.ma.asarray(axes.images[0].get_array()), np.nan)
    np.testing.assert_allclose(share, [[0.8, 0.2, 0], [np.nan] * 3, [0.25, 0, 0.75]])
    assert [int(text.get_text()) for text in axes.texts[:9]] == COUNTS.ravel().tolist()


def test_counts_held_as_floats_are_written_as_whole_numbers() -> None:
    axes = confusion_figure(COUNTS.astype(float), names=NAMES, title="").axes[0]
    assert [text.get_text() for text in axes.texts[:2]] == ["8", "2"]


def test_names_stand_on_both_axes_truth_in_rows() -> None:
    axes = confusion_figure(COUNTS, names=NAMES, title="").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == NAMES
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_recall_of_each_row_stands_at_the_right() -> None:
    assert recalls(confusion_figure(COUNTS, names=NAMES, title="")) == ["80.0 %", "no pixels", "75.0 %"]


def test_row_without_support_is_grey() -> None:
    image = confusion_figure(COUNTS, names=NAMES, title="").axes[0].images[0]
    colors = image.to_rgba(np.ma.asarray(image.get_array()))
    assert {to_hex(color) for color in colors[1]} == {"#c8c8c8"}
    assert "#c8c8c8" not in {to_hex(color) for row in (0, 2) for color in colors[row]}


@pytest.mark.parametrize("classes", [2, 16])
def test_no_text_leaves_the_figure_and_no_labels_overlap(classes: int) -> None:
    names = ["Buildings-Grass-Trees-Drives", *(f"Grass-pasture-mowed {i}" for i in range(classes - 1))]
    figure = confusion_figure(np.full((classes, classes), 2455), names=names, title="Confusion on the test pixels")
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    axes = figure.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels(), axes.texts):
        boxes = [label.get_window_extent(renderer) for label in labels]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    whole = figure.get_tightbbox(renderer)  # in inches
    assert whole.x0 >= 0
    assert whole.y0 >= 0
    assert whole.x1 <= figure.get_figwidth()
    assert whole.y1 <= figure.get_figheight()


def test_pixels_without_prediction_lower_the_recall_and_have_a_column_if_there_are_any() -> None:
    missed = np.array([[0], [0], [5]])
    figure = confusion_figure(np.hstack([COUNTS, missed]), names=NAMES, title="")
    assert recalls(figure) == ["80.0 %", "no pixels", "60.0 %"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [*NAMES, "no prediction"]
    without = confusion_figure(np.hstack([COUNTS, 0 * missed]), names=NAMES, title="")
    assert [label.get_text() for label in without.axes[0].get_xticklabels()] == NAMES


def test_trials_stand_beside_each_key_and_the_best_so_far(tmp_path):
    keys = {"optimizer.lr": [0.0003, 0.001, 0.01], "model.width": [32, 64, 64], "split": ["blocks", "fields", "blocks"]}
    figure = trials_figure([0.5, 0.4, 0.7], keys, metric="val/kappa")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_xlabel() for axes in shown] == ["trial", *keys]
    assert [axes.get_xscale() for axes in shown] == ["linear", "log", "linear", "linear"]
    assert [label.get_text() for label in shown[1].get_xticklabels(which="both")] == ["0.0003", "0.0017", "0.01"]
    assert list(shown[0].lines[1].get_ydata()) == [0.5, 0.5, 0.7]
    save_figure(figure, tmp_path / "trials")
