"""Band weights and group weights as drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hsfusion.plots import band_weights_figure, group_weights_figure
from hsfusion.plots.weights import broken_at_gaps, totals_by_group
from hsfusion.spectra.weights import WeightSpread

GROUPS = [
    ("blue", 400, 500),
    ("green", 500, 600),
    ("red", 600, 680),
    ("red edge", 680, 750),
    ("NIR", 750, 1350),
    ("SWIR1", 1430, 1800),
    ("SWIR2", 1950, 2500),
]
# Two detectors that overlap, as on AVIRIS: the file steps back from 697 to 687 nm.
# Nothing was kept from 1350 to 1430 and from 1800 to 1950 nm.
NM = np.concatenate(
    [np.arange(400.5, 700, 9.9), np.arange(687.0, 1350, 9.6), np.arange(1430, 1800, 10.0), np.arange(1951, 2490, 9.9)]
)
RNG = np.random.default_rng(0)
WEIGHT = RNG.dirichlet(np.ones(NM.size))


def figure_of(weight: np.ndarray = WEIGHT, *, nm: np.ndarray = NM, **options: object) -> Figure:
    arguments: dict = {"groups": GROUPS, "title": "weights"} | options
    return band_weights_figure(nm, weight, **arguments)


def curve_of(figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    (line,) = [line for line in figure.axes[0].get_lines() if line.get_label() == "band weight"]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def inside(lower_nm: float, upper_nm: float) -> np.ndarray:
    return np.array([lower_nm <= nm < upper_nm for nm in NM])


def group_labels(figure: Figure) -> dict[str, str]:
    texts = [text for text in figure.axes[0].texts if str(text.get_gid()).startswith("group:")]
    return dict(text.get_text().split("\n") for text in texts)


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_curve_ascends_in_wavelength_although_the_file_does_not() -> None:
    assert (np.diff(NM) < 0).any()
    x, _ = curve_of(figure_of())
    assert (np.diff(x) > 0).all()


def test_curve_keeps_every_band_with_its_own_weight() -> None:
    x, y = curve_of(figure_of())
    drawn = dict(zip(x[np.isfinite(y)], y[np.isfinite(y)], strict=True))
    assert drawn == dict(zip(NM, WEIGHT, strict=True))


def test_curve_is_broken_exactly_where_bands_are_missing() -> None:
    x, y = curve_of(figure_of())
    breaks = x[np.isnan(y)]
    assert len(breaks) == 2
    assert 1350 < breaks[0] < 1430
    assert 1800 < breaks[1] < 1951


def test_step_of_three_times_the_median_is_no_gap_and_a_larger_one_is() -> None:
    assert broken_at_gaps([0, 1, 2, 3, 6], [1, 1, 1, 1, 1])[0].tolist() == [0, 1, 2, 3, 6]
    x, y = broken_at_gaps([6.5, 3, 2, 1, 0], [5, 4, 3, 2, 1])
    assert x.tolist() == [0, 1, 2, 3, 4.75, 6.5]
    np.testing.assert_array_equal(y, [1, 2, 3, 4, np.nan, 5])


def test_a_single_band_and_equal_wavelengths_have_no_gap() -> None:
    assert broken_at_gaps([500], [1])[0].tolist() == [500]
    assert broken_at_gaps([500, 500], [1, 2])[1].tolist() == [1, 2]


def test_group_labels_state_the_sum_of_their_weights() -> None:
    expected = {name: f"{100 * WEIGHT[inside(low, high)].sum():.1f} %" for name, low, high in GROUPS}
    assert group_labels(figure_of()) == expected


def test_group_bounds_are_half_open() -> None:
    figure = figure_of(np.array([0.25, 0.75]), nm=np.array([500.0, 600.0]), groups=[("a", 500, 600), ("b", 600, 601)])
    assert group_labels(figure) == {"a": "25.0 %", "b": "75.0 %"}


def test_group_without_a_band_is_not_drawn() -> None:
    visible = NM < 1000
    assert list(group_labels(figure_of(WEIGHT[visible], nm=NM[visible]))) == ["blue", "green", "red", "red edge", "NIR"]


@pytest.mark.parametrize("spectra", [None, {"Corn": (np.linspace(9000, 100, NM.size), "#808080")}])
def test_group_labels_touch_neither_each_other_nor_the_curve_nor_the_frame(spectra: dict | None) -> None:
    figure = figure_of(np.full(NM.size, 1 / NM.size), spectra=spectra)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    axes = figure.axes[0]
    boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_gid()]
    assert len(boxes) == len(GROUPS)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    x, y = curve_of(figure)
    highest = axes.transData.transform((x[0], np.nanmax(y)))[1]
    assert highest < min(box.y0 for box in boxes)
    assert max(box.y1 for box in boxes) < axes.bbox.y1


def test_uniform_weight_is_one_over_the_number_of_bands() -> None:
    (line,) = [line for line in figure_of().axes[0].get_lines() if str(line.get_label()).startswith("uniform")]
    assert set(np.asarray(line.get_ydata()).tolist()) == {1 / NM.size}


def test_water_vapour_is_in_the_legend_only_where_the_scene_reaches_it() -> None:
    assert {"water vapour, strong", "water vapour, weak"} <= set(legend_texts(figure_of()))
    visible = NM < 900
    assert not [text for text in legend_texts(figure_of(WEIGHT[visible], nm=NM[visible])) if "water" in text]


def test_bands_that_the_atmosphere_makes_are_ticked() -> None:
    flagged = np.isin(np.arange(NM.size), [3, 40])
    figure = band_weights_figure(NM, np.full(NM.size, 1 / NM.size), groups=GROUPS, title="", atmospheric=flagged)
    [ticks] = [line for line in figure.axes[0].lines if line.get_label() == "edge or spike of the atmosphere"]
    np.testing.assert_array_equal(np.asarray(ticks.get_xdata()), NM[[3, 40]])
    plain = band_weights_figure(NM, np.full(NM.size, 1 / NM.size), groups=GROUPS, title="", atmospheric=0 * NM)
    assert "edge or spike" not in str([line.get_label() for line in plain.axes[0].lines])


def test_spectra_keep_their_unit_on_an_axis_of_their_own_behind_the_weights() -> None:
    spectrum = np.linspace(200, 9000, NM.size)
    figure = figure_of(spectra={"Corn": (spectrum, "#0072B2"), "Oats": (spectrum / 2, "#808080")})
    weights, behind = figure.axes
    assert behind.get_zorder() < weights.get_zorder()
    assert "spectrum" in behind.get_ylabel()
    (corn,) = [line for line in behind.get_lines() if line.get_label() == "Corn"]
    assert to_rgb(corn.get_color()) == to_rgb("#0072B2")
    assert np.nanmax(np.asarray(corn.get_ydata())) == 9000
    assert legend_texts(figure)[-2:] == ["Corn", "Oats"]


def test_class_without_a_spectrum_leaves_the_others_their_scale() -> None:
    spectra = {"Oats": (np.full(NM.size, np.nan), "#808080"), "Corn": (np.full(NM.size, 4000.0), "#808080")}
    assert 4000 < figure_of(spectra=spectra).axes[1].get_ylim()[1] < 8000


def test_without_groups_nothing_is_shaded_and_the_curve_fills_the_axes() -> None:
    axes = figure_of(groups=[]).axes[0]
    assert not axes.texts
    assert axes.get_ylim()[1] == pytest.approx(1.03 * WEIGHT.max())


def test_untrained_networks_stand_in_place_of_the_uniform_weight() -> None:
    figure = figure_of(untrained=WEIGHT[::-1])
    (line,) = [line for line in figure.axes[0].get_lines() if line.get_label() == "untrained networks"]
    x, y = broken_at_gaps(NM, WEIGHT[::-1])
    np.testing.assert_array_equal(np.asarray(line.get_xydata()), np.column_stack([x, y]))
    assert "uniform weight 1/C" not in legend_texts(figure)


def test_groups_weigh_what_they_weigh_in_the_runs_where_their_bands_take_turns() -> None:
    runs = np.array([[0.4, 0.0, 0.0, 0.6], [0.0, 0.4, 0.0, 0.6], [0.0, 0.0, 0.4, 0.6]])  # medians 0, 0, 0 and 0.6
    nm, groups = [400.0, 410, 420, 900], [("VIS", 400, 500), ("NIR", 500, 1000)]
    assert totals_by_group(nm, runs, groups) == {"VIS": 0.4, "NIR": 0.6}
    assert totals_by_group(nm, runs[0], groups) == {"VIS": 0.4, "NIR": 0.6}


def test_stamp_and_spread_are_drawn() -> None:
    figure = figure_of(spread=WeightSpread(WEIGHT / 2, WEIGHT * 3, WEIGHT), stamp="borderline")
    axes = figure.axes[0]
    assert "borderline" in [text.get_text() for text in axes.texts]
    assert axes.get_ylim()[1] > 3 * WEIGHT.max()
    assert "quartiles" in legend_texts(figure)


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


def test_all_weights_zero_still_draw() -> None:
    figure = group_weights_figure(np.zeros((2, 3)), group_names=["a", "b"], channel_share=[0.4, 0.3, 0.3], title="")
    assert figure.axes[1].images[0].get_clim() == (-1.0, 1.0)


IMPORTANCE = {
    "lower_nm": [400, 450, 700],
    "upper_nm": [440, 490, 740],
    "data": [0.0, -0.01, 0.2],
    "data_error": [0.01, 0.01, 0.02],
    "network": [0.0, 0.06, 0.3],
    "network_error": [0.01, 0.01, 0.05],
    "contrast": np.full(NM.size, 0.25),
}


def test_what_is_lost_without_each_window_is_drawn_under_the_curve() -> None:
    figure = figure_of(importance=IMPORTANCE)
    curve, below = figure.axes
    bars = [patch for patch in below.patches if isinstance(patch, Rectangle)]
    assert [bar.get_height() for bar in bars] == IMPORTANCE["data"]
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == [420, 470, 720]
    (points,) = [line for line in below.get_lines() if str(line.get_label()).startswith("this network")]
    assert np.asarray(points.get_ydata()).tolist() == IMPORTANCE["network"]
    low, high = below.get_ylim()
    assert low < -0.01 - 2 * 0.01
    assert high > 0.3 + 2 * 0.05
    assert curve.get_xlim() == below.get_xlim()
    assert below.get_xlabel() == "wavelength (nm)"
    assert not curve.get_xlabel()


def test_part_of_the_weight_that_is_subtracted_is_coloured() -> None:
    figure = figure_of(importance=IMPORTANCE)
    (area,) = [part for part in figure.axes[0].collections if str(part.get_label()).startswith("subtracted")]
    assert area.get_paths()[0].vertices[:, 1].max() <= 0.25 * WEIGHT.max() + 1e-12
    assert max(path.vertices[:, 1].max() for path in area.get_paths()) == pytest.approx(0.25 * WEIGHT.max())
    assert any(text.startswith("subtracted") for text in legend_texts(figure))
    assert not any(text.startswith("subtracted") for text in legend_texts(figure_of()))


def test_losses_and_selection_both_have_a_place_under_the_curve() -> None:
    figure = figure_of(importance=IMPORTANCE, spread=WeightSpread(WEIGHT, WEIGHT, np.full(NM.size, 0.5)))
    assert [axes.get_ylabel().split("\n")[0] for axes in figure.axes] == [
        "band weight (% of the total)",
        "lost without it",
        "selected",
    ]
