"""Weights during training and group weights as drawn."""

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from hsfusion.plots import group_weights_figure, save_figure, weight_history_figure

NM = np.array([400.0, 410, 420, 430, 690, 700, 700, 695])  # a gap, a step back and a copy


def mesh(figure):
    (found,) = (part for part in figure.axes[0].collections if isinstance(part, QuadMesh))
    return found


def test_history_is_drawn_by_wavelength_and_broken_at_gaps():
    weights = np.arange(1.0, 25).reshape(3, 8) / 24
    figure = weight_history_figure(NM, [5, 10, 15], weights, title="t", best_step=10)
    drawn = mesh(figure).get_array()
    assert drawn.shape == (3, 9)
    assert drawn.mask[:, 4].all()
    np.testing.assert_allclose(drawn[:, :4].data, weights[:, :4])
    np.testing.assert_allclose(drawn[:, 5:].data, weights[:, [4, 7, 5, 6]])
    assert "kept: step 10" in [text.get_text() for text in figure.axes[0].texts]


def test_closed_bands_are_drawn_at_the_lower_end_of_the_scale():
    weights = np.array([[0.5, 0.5, 0, 0, 0, 0, 0, 0]])
    drawn = mesh(weight_history_figure(NM, [5], weights, title="t"))
    assert drawn.get_array().min() == drawn.norm.vmin == pytest.approx(0.5 / 1000)


def test_history_without_an_epoch_says_so(tmp_path):
    figure = weight_history_figure(NM, [], np.empty((0, 8)), title="t")
    assert "no epoch" in figure.axes[0].texts[0].get_text()
    save_figure(figure, tmp_path / "h")


def test_history_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="expected"):
        weight_history_figure(NM, [5, 10], np.ones((1, 8)), title="t")


def test_channels_are_ordered_by_falling_share() -> None:
    weights = np.array([[0.1, -0.8, 0.3], [0.9, 0.2, -0.7]])
    share = np.array([0.2, 0.5, 0.3])
    figure = group_weights_figure(weights, group_names=["red", "NIR"], channel_share=share, title="groups")
    bars, cells = figure.axes[:2]
    assert [bar.get_bbox().height for bar in bars.patches if isinstance(bar, Rectangle)] == [0.5, 0.3, 0.2]
    np.testing.assert_array_equal(cells.images[0].get_array(), weights[:, [1, 2, 0]])
    assert [label.get_text() for label in cells.get_xticklabels()] == ["2", "3", "1"]
    assert [label.get_text() for label in cells.get_yticklabels()] == ["red", "NIR"]
    assert [text.get_text() for text in cells.texts] == ["−0.80", "0.30", "0.10", "0.20", "−0.70", "0.90"]


def test_colours_of_group_weights_are_centred_on_zero() -> None:
    weights = np.array([[-0.1, 0.7]])
    image = group_weights_figure(weights, group_names=["NIR"], channel_share=[0.5, 0.5], title="").axes[1].images[0]
    assert image.get_clim() == (-0.7, 0.7)


def test_narrow_cells_mark_negative_weights_only() -> None:
    weights = np.linspace(-1, 1, 64)[None]
    figure = group_weights_figure(weights, group_names=["NIR"], channel_share=np.full(64, 1 / 64), title="")
    texts = figure.axes[1].texts
    assert {text.get_text() for text in texts} == {"−"}
    assert {int(text.get_position()[0]) for text in texts} == set(np.flatnonzero(weights[0] < -0.05).tolist())


def test_all_weights_zero_still_draw() -> None:
    figure = group_weights_figure(np.zeros((2, 3)), group_names=["a", "b"], channel_share=[0.4, 0.3, 0.3], title="")
    assert figure.axes[1].images[0].get_clim() == (-1.0, 1.0)


def test_group_weights_that_do_not_fit_their_names_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        group_weights_figure(np.zeros((2, 3)), group_names=["a"], channel_share=[0.4, 0.3, 0.3], title="")
