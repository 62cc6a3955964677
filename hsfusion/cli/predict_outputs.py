"""What ``hsfusion predict`` shows and writes beside the map."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hsfusion import plots
from hsfusion.inference import Order
from hsfusion.inference.classification import Cell
from hsfusion.scenes import GeoBox
from hsfusion.scenes.areas import pixel_areas_m2
from hsfusion.scenes.maps import read_reduced


def progress_bar(cells: Iterator[Cell], done: int, total: int) -> Iterator[Cell]:
    """Shows pixels per second and the time left."""
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TextColumn("{task.fields[rate]} pixels/s"),
        TimeRemainingColumn(),
    )
    start, first = time.perf_counter(), done
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, completed=done, rate="-")
        for cell in cells:
            yield cell
            done += cell.classes.size
            rate = (done - first) / (time.perf_counter() - start)
            bar.update(task, completed=done, rate=f"{rate:,.0f}")


def write_areas(order: Order, geobox: GeoBox, counts: NDArray[np.int64]) -> None:
    """A row for each class: pixels, share of the classified pixels, and hectares where the pixel's size is known."""
    each = pixel_areas_m2(geobox)
    pixels = counts.sum(1)
    with open(order.beside("areas.csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["code", "class", "pixels", "share", "hectares"])
        for k, (code, name) in enumerate(zip(order.legend.codes, order.legend.names, strict=True)):
            hectares = "" if each is None else f"{counts[k] @ each / 1e4:.4f}"
            writer.writerow([code, name, pixels[k], f"{pixels[k] / pixels.sum():.6f}", hectares])


def write_quick_look(order: Order, scene: str) -> None:
    """Draws the map, in at most 1200 x 1200 pixels, over its legend."""
    legend = order.legend
    figure = plots.class_map_figure(
        read_reduced(order.out, most=1200),
        codes=legend.codes,
        names=legend.names,
        colors=legend.colors,
        title=f"Class map: {scene}",
    )
    figure.savefig(order.out.with_suffix(".png"), dpi=200, metadata={"Software": None})
