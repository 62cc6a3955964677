"""Composite, spectra and band quality as drawn."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hsfusion.plots import band_quality_figure, composite_figure, save_figure, spectra_figure

NM = np.arange(400.0, 2500, 30)
COUNT = NM.size
GOOD = ~np.isin(np.arange(COUNT), [33, 34])
LEVELS = np.arange(5.0)[:, None] + np.sin(NM / 200)


def spectra(nm: np.ndarray | None = NM, good: np.ndarray = GOOD, levels: np.ndarray = LEVELS) -> Figure:
    return spectra_figure(nm, levels[2] + 0.25, levels, good=good, unit="reflectance", title="spectra")


def quality(nm: np.ndarray | None = NM, correlation: np.ndarray | None = None) -> Figure:
    alike = np.linspace(-0.2, 1, COUNT) if correlation is None else correlation
    return band_quality_figure(nm, ~GOOD * 1.0, np.full(COUNT, 0.1), alike, good=GOOD, dead=~GOOD, title="quality")


def curve(axes: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def words(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_composite_is_drawn_as_it_is() -> None:
    rgb = np.linspace(0, 1, 24).reshape(2, 4, 3)
    figure = composite_figure(rgb, title="a scene: 640, 550, 460 nm")
    np.testing.assert_array_equal(np.asarray(figure.axes[0].images[0].get_array()), rgb)
    assert figure.get_suptitle() == "a scene: 640, 550, 460 nm"
    assert not [*figure.axes[0].get_xticks(), *figure.axes[0].get_yticks()]


def test_mean_and_median_stand_at_their_wavelengths_and_break_at_bad_bands() -> None:
    axes = spectra().axes[0]
    for label, values in (("mean", LEVELS[2] + 0.25), ("median", LEVELS[2])):
        nm, y = curve(axes, label)
        shown = np.isfinite(y)
        np.testing.assert_array_equal(nm[shown], NM[GOOD])
        np.testing.assert_array_equal(y[shown], values[GOOD])
        assert not shown[(nm > NM[32]) & (nm < NM[35])].any()
    assert axes.get_xlabel() == "wavelength (nm)"
    assert axes.get_ylabel() == "reflectance"


def test_quantile_bands_reach_from_the_lower_to_the_upper_quantile() -> None:
    outer, inner = spectra().axes[0].collections
    for area, low, high in ((outer, 0, 4), (inner, 1, 3)):
        corners = np.concatenate([path.vertices for path in area.get_paths()])
        at = corners[corners[:, 0] == NM[10], 1]
        assert {at.min(), at.max()} == {LEVELS[low, 10], LEVELS[high, 10]}


def test_legend_names_all_that_is_shown_and_nothing_else() -> None:
    pixels = ["2 to 98 % of the pixels", "25 to 75 %", "mean", "median"]
    assert words(spectra()) == [*pixels, "bad bands", "water vapour, strong", "water vapour, weak"]
    assert words(spectra(NM / 4, np.ones(COUNT, bool))) == pixels


@pytest.mark.parametrize("order", [np.arange(COUNT)[::-1], np.random.default_rng(0).permutation(COUNT)])
def test_axis_in_another_order_is_sorted(order: np.ndarray) -> None:
    x, y = curve(spectra(NM[order], GOOD[order], LEVELS[:, order]).axes[0], "mean")
    np.testing.assert_array_equal(x[np.isfinite(y)], NM[GOOD])
    np.testing.assert_array_equal(y[np.isfinite(y)], LEVELS[2, GOOD] + 0.25)


def test_without_wavelengths_bands_are_counted_from_one() -> None:
    for figure, label in ((spectra(None), "mean"), (quality(None), "exactly 0")):
        x, y = curve(figure.axes[0], label)
        assert set(x[np.isfinite(y)]) <= set(range(1, COUNT + 1))
        assert figure.axes[-1].get_xlabel() == "band (wavelengths are not known)"
        assert not [word for word in words(figure) if "vapour" in word]


def test_quality_shows_shares_correlation_bad_and_dead_bands() -> None:
    figure = quality()
    upper, lower = figure.axes
    for axes, label, values in (
        (upper, "no data", ~GOOD * 1.0),
        (upper, "exactly 0", np.full(COUNT, 0.1)),
        (lower, "correlation of neighbouring pixels (noise: 0)", np.linspace(-0.2, 1, COUNT)),
    ):
        x, y = curve(axes, label)
        np.testing.assert_array_equal(x[np.isfinite(y)], NM)
        np.testing.assert_array_equal(y[np.isfinite(y)], values)
    assert {"bad bands", "dead: no data, or one value everywhere"} <= set(words(figure))
    (ticks,) = [line for line in upper.lines if line.get_marker() == "|"]
    np.testing.assert_array_equal(ticks.get_xdata(), NM[~GOOD])
    assert lower.get_ylim()[0] < -0.2
    assert upper.get_ylim()[0] < 0 < 1 < upper.get_ylim()[1]


def shaded(axes: Axes) -> list[tuple[float, float]]:
    """Left and right of what is shaded as bad."""
    spans = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_hatch() is None]
    return [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in spans]


def test_bad_bands_are_shaded_as_wide_as_the_usual_spacing() -> None:
    for axes in quality().axes:
        np.testing.assert_allclose(shaded(axes), [(nm - 15, nm + 15) for nm in NM[~GOOD]])


def test_median_shows_where_it_lies_on_the_mean() -> None:
    figure = spectra_figure(NM, LEVELS[2], LEVELS, good=GOOD, unit="", title="")
    (mean,), (median,) = ([line for line in figure.axes[0].lines if line.get_label() == w] for w in ("mean", "median"))
    assert median.get_zorder() > mean.get_zorder()
    assert median.get_linestyle() == "--"
    assert median.get_color() != mean.get_color()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_few_bands_and_bands_without_a_value_can_be_drawn(tmp_path, count: int) -> None:
    nm, nothing = NM[:count], np.full(count, np.nan)
    good = np.ones(count, bool)
    save_figure(spectra_figure(nm, nothing, np.full((5, count), np.nan), good=good, unit="", title=""), tmp_path / "a")
    figure = band_quality_figure(nm, nothing, nothing, nothing, good=~good, dead=good, title="")
    save_figure(figure, tmp_path / "b")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert (tmp_path / "b.png").stat().st_size > 1000
