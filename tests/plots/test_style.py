"""Saving figures, and what importing the package touches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from hsfusion.plots import band_weights_figure, confusion_figure, save_figure
from hsfusion.plots.style import legend_columns, text_width_in


def weights_figure() -> Figure:
    nm = np.arange(400.0, 1000, 10)
    return band_weights_figure(nm, np.full(60, 1 / 60), groups=[("VNIR", 400, 1000)], title="weights & more")


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save_figure(weights_figure(), tmp_path / folder / "weights")
    for kind in ("svg", "png"):
        first, second = ((tmp_path / folder / f"weights.{kind}").read_bytes() for folder in ("a", "b"))
        assert first == second
        assert len(first) > 1000


def test_text_of_an_svg_stays_text_and_no_date_is_written(tmp_path: Path) -> None:
    save_figure(weights_figure(), tmp_path / "weights")
    svg = (tmp_path / "weights.svg").read_text()
    assert ">wavelength (nm)</text>" in svg
    assert ">weights &amp; more</text>" in svg
    assert "<dc:date>" not in svg


def test_png_has_200_dots_per_inch(tmp_path: Path) -> None:
    figure = confusion_figure(np.eye(2, dtype=int), names=["a", "b"], title="")
    save_figure(figure, tmp_path / "confusion")
    height, width = imread(tmp_path / "confusion.png").shape[:2]
    assert width == int(figure.get_figwidth() * 200)
    assert height == int(figure.get_figheight() * 200)


def test_dot_in_the_name_is_kept(tmp_path: Path) -> None:
    save_figure(weights_figure(), tmp_path / "fraction_0.1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fraction_0.1.png", "fraction_0.1.svg"]


def test_drawing_leaves_global_settings_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    save_figure(weights_figure(), tmp_path / "weights")
    assert dict(matplotlib.rcParams) == before


def test_import_loads_no_pyplot_and_no_torch() -> None:
    code = "import sys, hsfusion.plots; print({'matplotlib.pyplot', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_longer_names_get_fewer_legend_columns() -> None:
    assert legend_columns(["Corn"] * 20) == 6
    assert legend_columns(["Buildings-Grass-Trees-Drives" * 2] * 20) == 2
    assert legend_columns(["Buildings-Grass-Trees-Drives" * 4] * 20) == 1
    assert legend_columns(["Corn"]) == 1


def test_text_width_grows_with_type_and_letters() -> None:
    assert text_width_in("W", size_pt=12) > 2 * text_width_in("i", size_pt=12)
    assert text_width_in("Corn", size_pt=12) / text_width_in("Corn", size_pt=6) > 1.9
    assert text_width_in(" ", size_pt=12) == 0
