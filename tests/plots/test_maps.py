"""Maps and composites as drawn."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from hsfusion.plots import composite, map_figure, split_figure
from hsfusion.plots.scene import SPLIT_ROLES
from hsfusion.plots.style import Color

TRUTH = np.array([[0, 7], [2, 7]])
PREDICTION = np.array([[2, 7], [7, 0]])
RGB = np.linspace(0, 1, 12).reshape(2, 2, 3)
BLUE, ORANGE = "#0072b2", "#e69f00"


def figure_of(truth: np.ndarray = TRUTH, prediction: np.ndarray = PREDICTION, rgb: np.ndarray = RGB) -> Figure:
    return map_figure(rgb, truth, prediction, codes=[7, 2], names=["Corn", "Oats"], colors=[BLUE, ORANGE], title="map")


def image_of(figure: Figure, panel: int) -> np.ndarray:
    return np.asarray(figure.axes[panel].images[0].get_array())


def test_panels_are_composite_truth_and_prediction_in_the_class_colours() -> None:
    figure = figure_of()
    assert [axes.get_title() for axes in figure.axes] == ["colour composite", "ground truth", "prediction"]
    np.testing.assert_array_equal(image_of(figure, 0), RGB)
    color = {0: to_rgb(Color.UNLABELLED), 7: to_rgb(BLUE), 2: to_rgb(ORANGE)}
    for panel, codes in ((1, TRUTH), (2, PREDICTION)):
        expected = np.array([[color[code] for code in row] for row in codes.tolist()])
        np.testing.assert_array_equal(image_of(figure, panel), expected)


def test_one_legend_names_all_classes_and_unlabelled() -> None:
    (legend,) = figure_of().legends
    assert [text.get_text() for text in legend.get_texts()] == ["unlabelled", "Corn", "Oats"]
    faces = [patch.get_facecolor()[:3] for patch in legend.get_patches()]
    assert faces == [to_rgb(Color.UNLABELLED), to_rgb(BLUE), to_rgb(ORANGE)]


def test_maps_have_no_ticks_and_are_not_smoothed() -> None:
    for axes in figure_of().axes:
        assert not [*axes.get_xticks(), *axes.get_yticks()]
        assert axes.images[0].get_interpolation() == "nearest"


def test_nodata_of_the_composite_is_white() -> None:
    rgb = RGB.copy()
    rgb[0, 1] = np.nan
    np.testing.assert_array_equal(image_of(figure_of(rgb=rgb), 0)[0, 1], [1, 1, 1])


def test_roles_have_their_colours_and_the_legend_counts_them() -> None:
    roles = np.array([[0, 1, 1], [3, 3, 3]], np.uint8)
    figure = split_figure(roles, title="split")
    expected = [[to_rgb(SPLIT_ROLES[role][1]) for role in row] for row in roles.tolist()]
    np.testing.assert_array_equal(image_of(figure, 0), expected)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["unused: 1 px", "training: 2 px", "test: 3 px"]


def test_legend_counts_all_pixels_of_a_thinned_split() -> None:
    roles = np.full((2, 5000), 3, np.uint8)
    assert split_figure(roles, title="").legends[0].get_texts()[0].get_text() == "test: 10,000 px"


def test_roles_are_told_apart_in_grey() -> None:
    luma = [np.dot(to_rgb(color), (0.299, 0.587, 0.114)) for _, color in SPLIT_ROLES]
    assert min(abs(a - b) for a, b in itertools.combinations(luma, 2)) > 0.08


def test_composite_stretches_each_band_between_its_percentiles() -> None:
    ramp = np.arange(101.0).reshape(1, 101)
    image = composite(np.stack([ramp, 50 * ramp + 3, ramp[:, ::-1]]))
    assert image.shape == (1, 101, 3)
    np.testing.assert_allclose(image[0, :, 0], np.clip((np.arange(101) - 2) / 96, 0, 1))
    np.testing.assert_allclose(image[0, :, 1], image[0, :, 0])
    np.testing.assert_allclose(image[0, :, 2], image[0, ::-1, 0])


def test_composite_leaves_nodata_out_and_draws_it_white() -> None:
    bands = np.arange(30.0).reshape(3, 2, 5)
    holed = bands.copy()
    holed[1, 0, 0] = np.nan
    image = composite(holed)
    np.testing.assert_array_equal(image[0, 0], [1, 1, 1])
    assert np.isfinite(image).all()
    rest = bands[0].ravel()[1:]
    low, high = np.percentile(rest, (2, 98))
    np.testing.assert_allclose(image.reshape(-1, 3)[1:, 0], np.clip((rest - low) / (high - low), 0, 1))


def test_composite_of_nothing_or_of_a_constant_divides_by_no_zero() -> None:
    np.testing.assert_array_equal(composite(np.full((3, 2, 2), np.nan)), np.ones((2, 2, 3)))
    np.testing.assert_array_equal(composite(np.full((3, 2, 2), 5.0)), np.zeros((2, 2, 3)))
