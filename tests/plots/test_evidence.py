"""Evidence and groups of several runs as drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hsfusion.plots import band_weights_figure, faithfulness_figure, top_k_figure
from hsfusion.spectra.weights import WeightSpread

NM = np.arange(400.0, 1000, 10)
RUNS = np.random.default_rng(0).dirichlet(np.ones(NM.size), 5)
GROUPS = [("VIS", 400.0, 700.0), ("NIR", 700.0, 1000.0)]
NUMBERS = [0, 20, 40, 60]
K = [5, 10, 20]


def curve(**changes: Any) -> dict[str, Any]:
    of_points = {"accuracy": [0.9, 0.5, 0.3, 0.1], "random_mean": [0.9, 0.7, 0.5, 0.1]}
    edges = {"random_lower": [0.9, 0.6, 0.4, 0.1], "random_upper": [0.9, 0.8, 0.6, 0.1]}
    return {**of_points, **edges, "area": 0.12, "lower": 0.05, "upper": 0.19, "p": 0.005, **changes}


def drawn(figure: Figure) -> Figure:
    figure.draw(FigureCanvasAgg(figure).get_renderer())
    return figure


def fits(figure: Figure) -> bool:
    """Whether every text that shows lies inside the figure."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    texts = [
        text
        for axes in figure.axes
        if axes.get_visible()
        for text in (*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label)  # type: ignore
        if text.get_text()
    ]
    boxes = [text.get_window_extent(renderer) for text in texts]
    return all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)


def faithfulness() -> Figure:
    curves = {
        kind: {"mean": curve(), "conditional": curve(p=0.5, lower=None, upper=None)}
        for kind in ("deletion", "insertion")
    }
    return faithfulness_figure(NUMBERS, curves, total=60, title="faithful?")


def accuracies(*splits: str) -> dict[str, Any]:
    values = {"weights": [[0.5, 0.7], [0.7, 0.9], [0.85, 0.9]], "evenly spaced": [[0.5, 0.6], [0.6, 0.7], [0.8, 0.8]]}
    return {split: {"network": values, "svm": values} for split in splits}


def top_k(smallest: int | None = 20) -> Figure:
    return top_k_figure(
        K,
        accuracies("blocks", "random"),
        full={"network": 0.9, "svm": 0.8},
        smallest={"network": smallest, "svm": 10},
        title="retrained",
    )


def test_curves_stand_against_the_band_of_random_orders() -> None:
    figure = faithfulness()
    assert len(figure.axes) == 4
    for axes in figure.axes:
        lines = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in axes.get_lines()}
        assert lines == {"by falling weight": curve()["accuracy"], "their mean": curve()["random_mean"]}
        (band,) = axes.collections
        extents = band.get_paths()[0].get_extents()
        assert (extents.y0, extents.y1) == (0.1, 0.9)
        assert "overall accuracy" in axes.get_ylabel() or axes not in figure.axes[::2]


def test_every_curve_tells_its_area_and_p_value() -> None:
    texts = [axes.texts[0].get_text() for axes in faithfulness().axes]
    assert texts == [
        "area below random 0.120 (0.050 to 0.190), p = 0.005",
        "area below random 0.120, p = 0.5",
        "area above random 0.120 (0.050 to 0.190), p = 0.005",
        "area above random 0.120, p = 0.5",
    ]


def test_smallest_number_is_marked_where_the_accuracy_of_all_bands_belongs() -> None:
    network, svm, *random = top_k().axes
    assert network.texts[0].get_text() == "weights keep 95 % from k = 20"
    assert svm.texts[0].get_text() == "weights keep 95 % from k = 10"
    assert not any(axes.texts for axes in random)
    assert top_k(None).axes[0].texts[0].get_text() == "no k keeps 95 %"


def test_rankings_are_drawn_by_their_mean_over_splits_and_told_apart_without_colour() -> None:
    figure = top_k()
    ours, even = (container.lines[0] for container in figure.axes[0].containers)  # type: ignore
    np.testing.assert_allclose(ours.get_ydata(), [0.6, 0.8, 0.875])
    assert (ours.get_linestyle(), ours.get_marker()) != (even.get_linestyle(), even.get_marker())
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(named) == {"weights", "evenly spaced", "all bands", "95 % of it"}


def test_one_split_and_one_classifier_are_enough() -> None:
    values = {"blocks": {"svm": {"weights": [[0.5], [0.6], [0.7]]}}}
    figure = top_k_figure(K, values, full={}, smallest={}, title="")
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()] == ["SVM, blocks split"]


def test_selection_frequency_stands_in_a_strip_under_the_weights() -> None:
    frequency = (NM < 600).astype(float)
    figure = drawn(
        band_weights_figure(
            NM, RUNS[0], groups=GROUPS, title="", spread=WeightSpread(RUNS.min(0), RUNS.max(0), frequency)
        )
    )
    weights, strip = figure.axes
    assert weights.get_xlim() == strip.get_xlim()
    np.testing.assert_array_equal(np.asarray(strip.get_lines()[0].get_ydata()), frequency)
    assert strip.get_xlabel() == "wavelength (nm)" and not weights.get_xlabel()
    assert "quartiles" in [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("figure", [faithfulness, top_k])
def test_no_text_runs_out_of_the_figure(figure) -> None:
    assert fits(figure())
