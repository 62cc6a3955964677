"""A scene of any size to map files: finished cells go to a journal, files are written once, at the end."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.inference.classification import Cell, classify
from hsfusion.inference.folding import FoldedNetwork
from hsfusion.inference.journal import Journal
from hsfusion.inference.tiles import cells_of
from hsfusion.scenes import Legend, Scene, Window
from hsfusion.scenes.maps import Look, category_names, class_look, copy_as_cog, part_of, write_blocks

#: shares are stored as whole numbers from 0 to 250
SHARE = 0.004
_NO_SHARE = 255


@dataclass(frozen=True)
class Order:
    """What to make.

    Attributes:
        out: the class map; other files lie beside it.
        legend: the classes, in the order of the network's outputs.
        tags: tags of the files.
        confidence: whether to write ``<out>_confidence.tif``.
        probabilities: whether to write ``<out>_probabilities.tif``, a layer for each class.
        border: ``reflect``, or ``valid`` to leave out pixels of which the receptive field leaves the scene.
        cog: whether files are cloud-optimised.
        batch: cells that are computed at once.
    """

    out: Path
    legend: Legend
    tags: Mapping[str, str]
    confidence: bool = True
    probabilities: bool = False
    border: str = "reflect"
    cog: bool = False
    batch: int = 1

    def beside(self, ending: str) -> Path:
        """The path of another file of this map."""
        return self.out.with_name(f"{self.out.stem}_{ending}")


@dataclass(frozen=True)
class Share:
    """The part of the cells that this process computes.

    Attributes:
        rank: number of the process.
        world: number of processes.
        wait: returns once all processes have called it.
    """

    rank: int = 0
    world: int = 1
    wait: Callable[[], object] = lambda: None


def map_scene(
    network: FoldedNetwork,
    scene: Scene,
    order: Order,
    *,
    plan: Mapping[str, Any],
    share: Share = Share(),
    progress: Callable[[Iterator[Cell], int, int], Iterable[Cell]] = lambda cells, done, total: cells,
) -> NDArray[np.int64] | None:
    """Classifies a scene into files.

    Finished cells are kept in ``.<out>.journal-<rank>`` beside the map, from which a run that was stopped goes on. The
    files are written at the end, once and in a fixed order, read back, and only then given their names: what is there
    under those names stays until then, and the same scene and model give the same bytes.

    Args:
        network: the network, on the device to compute on.
        scene: the scene, with the network's bands and layers.
        order: what to make.
        plan: plain values that tell scene and model apart from others; a journal of others is not gone on from.
        share: which part of the cells, where several processes work on one map. Process 0 writes the files.
        progress: called with the cells to come, the pixels that are finished already, and the pixels in all.

    Returns:
        (K, H) pixels of each class in each row; None on other processes than 0.

    Raises:
        InputError: if no pixel has data in all bands.
        EnvironmentFailure: if the disk is full.
    """
    cells = cells_of(scene.geobox.shape)
    plan = {**plan, "shape": list(scene.geobox.shape), "cells": len(cells), **_content(order)}
    mine = range(share.rank, len(cells), share.world)
    with Journal(_journal_path(order.out, share.rank), {**plan, "rank": share.rank, "world": share.world}) as journal:
        missing = [i for i in mine if i not in journal.cells]
        total, left = (sum(cells[i].height * cells[i].width for i in part) for part in (mine, missing))
        _check_space(order, left)
        windows = [cells[i] for i in missing]
        found = classify(network, scene, windows, batch=order.batch, probabilities=order.probabilities)
        for i, cell in zip(missing, progress(found, total - left, total), strict=True):
            journal.append(i, _pack(cell, order, network.receptive_field // 2, scene.geobox.shape))
        if share.rank > 0:
            journal.__exit__()  # for process 0 to read
        share.wait()
        # its own journal stays locked until all is written
        counts = _publish(scene, order, cells, plan, [journal], share.world) if share.rank == 0 else None
    share.wait()
    return counts


def _content(order: Order) -> dict[str, Any]:
    """What of an order decides on the numbers."""
    return {"codes": list(order.legend.codes), "border": order.border, "probabilities": order.probabilities}


def _check_space(order: Order, pixels: int) -> None:
    """Makes sure that the disk has room for the journal; the maps, packed, are smaller."""
    needed = pixels * (3 + order.probabilities * len(order.legend.names))
    free = shutil.disk_usage(order.out.parent).free
    if free < needed:
        raise EnvironmentFailure(
            f"{order.out}: the disk has {free:,} free bytes, expected at least {needed:,}. "
            "Fix: free space or choose another folder."
        )


def _journal_path(out: Path, rank: int) -> Path:
    return out.with_name(f".{out.name}.journal-{rank}")


def _pack(cell: Cell, order: Order, radius: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Codes as two bytes, then confidence, then probabilities as one."""
    codes = np.array([*order.legend.codes, 0], "<u2")[cell.classes]  # index -1 is the 0 at the end
    shares = cell.confidence[None] if cell.probabilities is None else np.stack([cell.confidence, *cell.probabilities])
    if order.border == "valid":
        row, col, height, width = cell.window
        rows, cols = np.arange(row, row + height)[:, None], np.arange(col, col + width)
        inside = (rows >= radius) & (rows < shape[0] - radius) & (cols >= radius) & (cols < shape[1] - radius)
        codes, shares = np.where(inside, codes, codes.dtype.type(0)), np.where(inside, shares, np.nan)
    stored = np.where(np.isnan(shares), _NO_SHARE, np.rint(shares / SHARE))
    return np.concatenate([codes.ravel().view(np.uint8), stored.astype(np.uint8).ravel()])


def _publish(
    scene: Scene, order: Order, cells: list[Window], plan: Mapping[str, Any], journals: list[Journal], world: int
) -> NDArray[np.int64]:
    """Writes the files from the journals, the first of which is given, and deletes these."""
    with ExitStack() as stack:
        for rank in range(1, world):
            other = Journal(_journal_path(order.out, rank), {**plan, "rank": rank, "world": world})
            journals.append(stack.enter_context(other))

        def layers(first: int, last: int) -> Callable[[], Iterator[tuple[Window, NDArray]]]:
            """The cells of the layers from first to last; layer 0 are the codes."""
            return lambda: _cells_of_layers(journals, cells, layers=slice(first, last))

        counts = _counts(layers(0, 1), order.legend, scene.geobox.shape[0])
        if not counts.any():
            raise InputError(
                scene.name,
                field="number of pixels with data in every band that the model uses",
                value=0,
                expected="at least 1",
                fix="look at the scene with hsfusion inspect",
            )
        _write_files(scene, order, layers)
        _tidy(order)
    return counts


def _tidy(order: Order) -> None:
    """Deletes the journals, and what runs left that were killed while they wrote."""
    leftovers = [f".{glob.escape(order.out.name)}.journal-*"]
    for path in (
        order.out,
        Path(f"{order.out}.aux.xml"),
        order.beside("confidence.tif"),
        order.beside("probabilities.tif"),
    ):
        leftovers.append(f".{glob.escape(path.name)}.*.part*")
    for pattern in leftovers:
        for path in order.out.parent.glob(pattern):
            path.unlink()


def _write_files(scene: Scene, order: Order, layers: Callable[[int, int], Any]) -> None:
    """Writes all files under other names first; the class map gets its name last."""
    legend = order.legend
    look = class_look(legend, order.tags)
    shares = Look(np.dtype(np.uint8), 1, _NO_SHARE, SHARE, order.tags, {}, ("confidence",))
    every = replace(shares, count=len(legend.names), layer_names=legend.names)
    files: list[tuple[Path, Look, tuple[int, int], str]] = []
    if order.probabilities:
        files.append((order.beside("probabilities.tif"), every, (2, 2 + len(legend.names)), "average"))
    if order.confidence:
        files.append((order.beside("confidence.tif"), shares, (1, 2), "average"))
    files.append((order.out, look, (0, 1), "mode"))
    written: list[Path] = []
    try:
        for path, kind, (first, last), resampling in files:
            written.append(part_of(path))
            blocks = layers(first, last)
            if order.cog:
                plain = part_of(path.with_suffix(".plain"))
                written.append(plain)
                write_blocks(plain, blocks, geobox=scene.geobox, look=kind)
                copy_as_cog(plain, part_of(path), blocks, overviews=resampling)
            else:
                write_blocks(part_of(path), blocks, geobox=scene.geobox, look=kind, overviews=resampling)
        names = Path(f"{order.out}.aux.xml")
        written.append(part_of(names))
        part_of(names).write_text(category_names(legend), encoding="utf-8")
        for path in (*(path for path, *_ in files[:-1]), names, order.out):
            part_of(path).replace(path)
        for wanted, ending in ((order.confidence, "confidence.tif"), (order.probabilities, "probabilities.tif")):
            if not wanted:
                order.beside(ending).unlink(missing_ok=True)  # of an older map
    finally:
        for path in written:
            path.unlink(missing_ok=True)


def _cells_of_layers(
    journals: list[Journal], cells: list[Window], *, layers: slice
) -> Iterator[tuple[Window, NDArray]]:
    for i, cell in enumerate(cells):
        yield cell, _unpack(journals[i % len(journals)].read(i), cell, layers)


def _unpack(payload: bytes, cell: Window, layers: slice) -> NDArray:
    pixels = cell.height * cell.width
    if layers.start == 0:
        return np.frombuffer(payload, "<u2", pixels).reshape(1, cell.height, cell.width)
    shares = np.frombuffer(payload, np.uint8, offset=2 * pixels).reshape(-1, cell.height, cell.width)
    return shares[layers.start - 1 : layers.stop - 1]


def _counts(codes: Callable[[], Iterator[tuple[Window, NDArray]]], legend: Legend, height: int) -> NDArray[np.int64]:
    counts = np.zeros((len(legend.codes), height), np.int64)
    for window, values in codes():
        for k, code in enumerate(legend.codes):
            counts[k, window.row : window.row + window.height] += (values[0] == code).sum(1)
    return counts
