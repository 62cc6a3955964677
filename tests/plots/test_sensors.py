"""Accuracy per sensor as drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.container import ErrorbarContainer

from hsfusion.plots.sensors import sensors_figure
from hsfusion.plots.style import save_figure

BANDS = {
    "as it is": (np.arange(400.0, 2500, 10), None),
    "EnMAP": (np.array([450.0, 460, 455]), np.array([8.0, 9, 10])),
    "Landsat OLI": (np.array([482.0, 2200]), np.array([60.0, 187])),
}
ACCURACIES = {
    name: {"overall accuracy": [level, level + 0.02, level + 0.04], "average accuracy": [level - 0.1] * 3}
    for name, level in zip(BANDS, (0.8, 0.78, 0.6), strict=True)
}


def test_mean_and_spread_of_each_sensor_stand_in_one_column() -> None:
    upper = sensors_figure(ACCURACIES, BANDS, title="a scene").axes[0]
    overall, average = (c for c in upper.containers if isinstance(c, ErrorbarContainer))
    assert [overall.get_label(), average.get_label()] == ["overall accuracy", "average accuracy"]
    np.testing.assert_allclose(np.asarray(overall.lines[0].get_ydata(), float), [0.82, 0.8, 0.62])
    (bars,) = overall.lines[2]
    np.testing.assert_allclose([s[1, 1] - s[0, 1] for s in bars.get_segments()], 2 * 0.02)
    (none,) = average.lines[2]
    np.testing.assert_allclose([s[1, 1] - s[0, 1] for s in none.get_segments()], 0, atol=1e-9)
    ticks = [text.get_text() for text in upper.get_xticklabels()]
    assert ticks == ["as it is\n210 bands", "EnMAP\n3 bands", "Landsat OLI\n2 bands"]


def test_every_band_is_a_tick_over_a_bar_of_its_width() -> None:
    lower = sensors_figure(ACCURACIES, BANDS, title="a scene").axes[1]
    ticks = [c for c in lower.collections if isinstance(c, LineCollection)]
    for (centres, _), drawn in zip(BANDS.values(), ticks, strict=True):
        assert [segment[0, 0] for segment in drawn.get_segments()] == np.asarray(centres).tolist()
    bars = [c for c in lower.collections if not isinstance(c, LineCollection)]
    assert len(bars) == 2  # none where widths are unknown
    extents = [path.get_extents() for path in bars[1].get_paths()]
    np.testing.assert_allclose([(box.x0, box.x1) for box in extents], [(452, 512), (2106.5, 2293.5)])
    assert lower.get_ylim() == (2.5, -0.5)  # the first at the top


def test_one_seed_has_no_spread_and_the_figure_is_written_twice(tmp_path: Path) -> None:
    one = {name: {"overall accuracy": [0.5]} for name in BANDS}
    save_figure(sensors_figure(one, BANDS, title="a scene"), tmp_path / "figure")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "figure.svg"]


def test_other_sensors_in_the_two_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="but bands of"):
        sensors_figure(ACCURACIES, {"EnMAP": BANDS["EnMAP"]}, title="a scene")
