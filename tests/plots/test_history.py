import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from hsfusion.plots import instance_weights_figure, save_figure, weight_history_figure

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


def test_each_source_has_a_panel_on_one_scale(tmp_path):
    shares = np.stack([np.full((6, 5), 0.25), np.full((6, 5), 0.75)])
    shares[:, 0, 0] = np.nan
    figure = instance_weights_figure(shares, names=["VNIR", "lidar"], title="t")
    first, second = figure.axes[:2]
    assert [axes.get_title() for axes in (first, second)] == ["VNIR: 25.0%", "lidar: 75.0%"]
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0, 0.75)
    save_figure(figure, tmp_path / "i")
    assert (tmp_path / "i.png").stat().st_size > 1000


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected"):
        instance_weights_figure(np.ones((2, 3, 3)), names=["one"], title="t")
