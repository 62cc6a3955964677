"""What ``hsfusion predict`` shows and writes beside the map."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hsfusion import plots
from hsfusion.cli.main import raw
from hsfusion.inference import Order
from hsfusion.inference.classification import Cell
from hsfusion.inference.mapping import Beside
from hsfusion.scenes import Legend
from hsfusion.scenes.areas import ClassAreas
from hsfusion.scenes.maps import read_reduced
from hsfusion.spectra.weights import as_cell

#: ending of the name of the table of areas
TABLE = "areas.csv"


def progress_bar(cells: Iterator[Cell], done: int, total: int) -> Iterator[Cell]:
    """Shows pixels per second and the time left."""
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TextColumn("{task.fields[rate]} pixels/s"),
        TimeRemainingColumn(),
    )
    start, first = time.perf_counter(), done
    with Progress(*columns, console=Console(file=raw(sys.stderr)), transient=True) as bar:
        task = bar.add_task("", total=total, completed=done, rate="-")
        for cell in cells:
            yield cell
            done += cell.classes.size
            rate = (done - first) / (time.perf_counter() - start)
            bar.update(task, completed=done, rate=f"{rate:,.0f}")


def files_beside(order: Order, scene: str) -> Beside:
    """What gives the table of areas and the quick look, which get their names together with the maps."""

    def made(areas: ClassAreas, class_map: Path) -> dict[Path, bytes]:
        return {
            order.beside(TABLE): _table(areas, order.legend),
            order.out.with_suffix(".png"): _quick_look(class_map, order.legend, scene=scene),
        }

    return made


def _table(areas: ClassAreas, legend: Legend) -> bytes:
    """CSV with a row for each class: pixels, share of the classified pixels, and hectares where they are known."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["code", "class", "pixels", "share", "hectares"])
    shares = areas.pixels / areas.pixels.sum()
    for row in zip(legend.codes, legend.names, areas.pixels, shares, areas.square_metres, strict=True):
        code, name, pixels, share, area = row
        writer.writerow([code, as_cell(name), pixels, f"{share:.6f}", "" if np.isnan(area) else f"{area / 1e4:.4f}"])
    return text.getvalue().encode()


def _quick_look(class_map: Path, legend: Legend, *, scene: str) -> bytes:
    """PNG of a map, in at most 1200 x 1200 pixels, over its legend."""
    figure = plots.class_map_figure(
        read_reduced(class_map, most=1200),
        codes=legend.codes,
        names=legend.names,
        colors=legend.colors,
        title=f"Class map: {scene}",
    )
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=200, metadata={"Software": None})
    return png.getvalue()
