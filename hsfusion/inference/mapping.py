"""A scene of any size to map files: finished tiles go to a journal, files are written once, at the end."""

from __future__ import annotations

import glob
import json
import logging
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.inference.classification import TilePrediction, classify, classify_smoothed, tiles_of
from hsfusion.inference.folding import FoldedNetwork
from hsfusion.publishing import publish
from hsfusion.scenes import GeoBox, Legend, Scene, Window
from hsfusion.scenes.legend import pam_path
from hsfusion.scenes.rasters import (
    Blocks,
    ClassAreas,
    RasterProfile,
    class_areas,
    class_profile,
    copy_as_cog,
    publish_raster,
    quiet_gdal,
    write_blocks,
)

_log = logging.getLogger(__name__)
#: shares are stored as whole numbers from 0 to 250
SHARE = 0.004
_NO_SHARE = 255


class Journal:
    """An SQLite file of plain values that say what is computed, the plan, and of each finished tile.

    It is locked as long as it is open, and holds only complete tiles; a file of another plan is emptied. A killed run
    leaves it for the next to continue from. Tiles changed by a power failure or a bad disk no longer match the CRC-32
    before their numbers, and do not count as finished.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any]) -> None:
        self.path = path
        self._reading = threading.Lock()
        head = json.dumps(plan, sort_keys=True).encode()
        with _failures(path), ExitStack() as stack:
            self._file = sqlite3.connect(path, timeout=0, check_same_thread=False)
            stack.callback(self._file.close)
            self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._file.execute("PRAGMA synchronous = OFF")  # outlives a killed process, not a power failure
            self._file.execute("BEGIN EXCLUSIVE")
            for table in ("plan", "tiles"):
                self._file.execute(f"CREATE TABLE IF NOT EXISTS {table} (number INTEGER PRIMARY KEY, content BLOB)")
            known = self._file.execute("SELECT content FROM plan").fetchone()
            if known != (head,):
                if known:
                    _log.warning("%s belongs to another scene, model or setting; all tiles are computed again.", path)
                self._file.execute("DELETE FROM tiles")
                self._file.execute("REPLACE INTO plan VALUES (0, ?)", (head,))
            self._file.commit()
            stack.pop_all()

    @property
    def tiles(self) -> set[int]:
        """The numbers of the finished tiles."""
        with _failures(self.path):
            rows = self._file.execute("SELECT number, content FROM tiles")
            return {number for number, content in rows if _is_whole(content)}

    def append(self, tile: int, layers: NDArray[np.generic]) -> None:
        """Adds a finished tile by its number; :meth:`read` gives it back byte-identically."""
        with _failures(self.path):
            numbers = layers.tobytes()
            self._file.execute("REPLACE INTO tiles VALUES (?, ?)", (tile, _checksum(numbers) + numbers))
            self._file.commit()

    def read(self, tile: int) -> bytes:
        """The content added for a tile; several threads may read at once."""
        with self._reading, _failures(self.path):
            content = self._file.execute("SELECT content FROM tiles WHERE number = ?", (tile,)).fetchone()[0]
        if not _is_whole(content):
            raise EnvironmentFailure(f"{self.path}: tile {tile} was changed. Fix: start again.")
        return content[4:]

    def close(self) -> None:
        """Lets other processes write to the file; what :func:`contextlib.closing` calls."""
        self._file.close()

    def delete(self) -> None:
        """Deletes the file under its lock, or after that where no open file can be deleted (Windows)."""
        try:
            self.path.unlink(missing_ok=True)
        except PermissionError:
            self.close()
            with suppress(PermissionError):  # another process has opened it since
                self.path.unlink(missing_ok=True)
        self.close()


def _checksum(numbers: bytes) -> bytes:
    return zlib.crc32(numbers).to_bytes(4, "little")


def _is_whole(content: object) -> bool:
    return isinstance(content, bytes) and content[:4] == _checksum(content[4:])


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        what, fix = str(error), "free space or choose another folder"
        if not isinstance(error, sqlite3.OperationalError):
            fix = "delete the file and start again"
        if "locked" in what:
            what, fix = "map is being written by another process", "wait for it, or choose another out="
        raise EnvironmentFailure(f"{path}: {what}. Fix: {fix}.") from error


@dataclass(frozen=True)
class MapRequest:
    """What to make."""

    out: Path  # the class map; other files lie beside it
    legend: Legend  # the classes, in the order of the network's outputs
    tags: Mapping[str, str]  # of the files
    probabilities: bool = False  # whether to write <out>_probabilities.tif, a layer for each class
    smooth: str = "none"  # or bilateral, to filter the probabilities
    format: Literal["geotiff", "cog"] = "geotiff"  # cog for cloud-optimised files

    def beside(self, ending: str) -> Path:
        """The path of another file of this map."""
        return self.out.with_name(f"{self.out.stem}_{ending}")


@dataclass(frozen=True)
class Shard:
    """The part of the tiles that this process computes."""

    rank: int = 0  # number of the process
    world: int = 1  # number of processes
    wait: Callable[[], object] = lambda: None  # returns once all processes have called it


#: Content of files by path, made from the areas of the classes and the class map, which has not got its name yet.
ExtraFiles = Callable[[ClassAreas, Path], Mapping[Path, bytes]]


def map_scene(
    network: FoldedNetwork,
    scene: Scene,
    request: MapRequest,
    *,
    plan: Mapping[str, Any],
    shard: Shard = Shard(),
    beside: ExtraFiles = lambda areas, path: {},
    progress: Callable[[Iterator[TilePrediction], int, int], Iterable[TilePrediction]] = lambda tiles, done, total: (
        tiles
    ),
) -> ClassAreas | None:
    """Classifies a scene with the network's bands and layers into files.

    Finished tiles are kept in ``.<out>.journal-<rank>``, without the ending of ``out``, beside the map, and an
    interrupted run continues from there. The files are written at the end, each once, in a fixed order and by one
    thread, read back, and given their names only when all are complete, the class map last: older files of these names
    stay until then, and the same scene and model give byte-identical files. Journals are deleted after that; if a run
    is killed between two names, the next one finishes.

    * ``plan``: plain values that identify scene and model; a journal with another plan is not continued.
    * ``shard``: which part of the tiles, if several processes work on one map. Process 0 writes the files.
    * ``beside``: returns further files, which get their names together with the maps.
    * ``progress``: called with the remaining tiles, the number of finished pixels, and the number of all pixels.

    Returns:
        the area of each class; None on processes other than 0.
    """
    tiles = tiles_of(scene.geobox.shape)
    plan = {**plan, "shape": list(scene.geobox.shape), "tiles": len(tiles), "codes": list(request.legend.codes)}
    plan |= {name: getattr(request, name) for name in ("probabilities", "smooth")}  # which decide on numbers
    mine = range(shard.rank, len(tiles), shard.world)
    with closing(_journal(request, plan, shard.rank, shard.world)) as journal:
        finished = journal.tiles
        missing = [i for i in mine if i not in finished]
        total, left = (sum(tiles[i].height * tiles[i].width for i in part) for part in (mine, missing))
        windows = [tiles[i] for i in missing]
        compute = classify_smoothed if request.smooth == "bilateral" else classify
        classified = compute(network, scene, windows, probabilities=request.probabilities)
        for i, tile in zip(missing, progress(classified, total - left, total), strict=True):
            journal.append(i, _pack(tile, request))
        if shard.rank > 0:
            journal.close()  # for process 0 to read
        shard.wait()
        # its own journal stays locked until all is written
        areas = _publish(scene, request, tiles, plan, [journal], shard.world, beside) if shard.rank == 0 else None
    shard.wait()
    return areas


def _journal(request: MapRequest, plan: Mapping[str, Any], rank: int, world: int) -> Journal:
    path = request.out.with_name(f".{request.out.stem}.journal-{rank}")  # map.tif and map.tiff share the files beside
    return Journal(path, {**plan, "rank": rank, "world": world})


def _pack(tile: TilePrediction, request: MapRequest) -> NDArray[np.uint8]:
    """Codes as two bytes, then confidence, then probabilities as one."""
    codes = np.array([*request.legend.codes, 0], "<u2")[tile.classes]  # index -1 is the 0 at the end
    shares = tile.confidence[None] if tile.probabilities is None else np.stack([tile.confidence, *tile.probabilities])
    stored = np.where(np.isnan(shares), _NO_SHARE, np.rint(shares / SHARE))
    return np.concatenate([codes.ravel().view(np.uint8), stored.astype(np.uint8).ravel()])


def _publish(
    scene: Scene,
    request: MapRequest,
    tiles: list[Window],
    plan: Mapping[str, Any],
    journals: list[Journal],
    world: int,
    beside: ExtraFiles,
) -> ClassAreas:
    """Writes the files from the journals, the first of which is given, and deletes these."""
    with ExitStack() as stack:
        for rank in range(1, world):
            journals.append(stack.enter_context(closing(_journal(request, plan, rank, world))))

        def layers(taken: Callable[[bytes, Window], NDArray]) -> Blocks:
            return lambda: ((tile, taken(journals[i % world].read(i), tile)) for i, tile in enumerate(tiles))

        areas = class_areas(layers(_codes)(), legend=request.legend, geobox=scene.geobox)
        maps = _maps(request, layers)
        if not areas.pixels.any():
            _remove_leftovers(request, [], journals)
            field = "number of pixels with data in every band that the model uses"
            raise InputError(scene.name, field, 0, "at least 1", "look at the scene with hsfusion inspect")
        _remove_leftovers(request, _write_files(request, scene.geobox, maps, partial(beside, areas)), journals)
    return areas


class _Map(NamedTuple):
    path: Path
    profile: RasterProfile
    blocks: Blocks
    overviews: str  # how its smaller copies come about


def _maps(request: MapRequest, layers: Callable[[Callable[[bytes, Window], NDArray]], Blocks]) -> list[_Map]:
    names = request.legend.names
    profile = RasterProfile(np.dtype(np.uint8), 1, _NO_SHARE, SHARE, request.tags, {}, ("confidence",))
    every = replace(profile, count=len(names), layer_names=names)
    blocks = layers(lambda payload, tile: _shares(payload, tile)[:1])
    maps = [
        _Map(request.beside("confidence.tif"), profile, blocks, "average"),
        _Map(request.out, class_profile(request.legend, request.tags), layers(_codes), "mode"),
    ]
    if request.probabilities:
        blocks = layers(lambda payload, tile: _shares(payload, tile)[1:])
        maps.insert(0, _Map(request.beside("probabilities.tif"), every, blocks, "average"))
    return maps


def _write_files(
    request: MapRequest, geobox: GeoBox, maps: list[_Map], beside: Callable[[Path], Mapping[Path, bytes]]
) -> list[Path]:
    """Writes all files under other names first, a thread for each map; the class map gets its name last."""
    with ExitStack() as stack:  # what is entered last is published first
        parts = [stack.enter_context(publish_raster(each.path)) for each in reversed(maps)][::-1]
        with quiet_gdal(), ThreadPoolExecutor(len(maps)) as pool:
            list(pool.map(partial(_write_map, geobox=geobox, kind=request.format), parts, maps))
        contents = beside(parts[-1])
        for path, content in contents.items():
            stack.enter_context(publish(path)).write_bytes(content)
        if not request.probabilities:  # of an older map
            for ending in ("probabilities.tif", "probabilities.tif.aux.xml"):
                request.beside(ending).unlink(missing_ok=True)
    return [*contents, *(each.path for each in maps)]


def _write_map(part: Path, file: _Map, *, geobox: GeoBox, kind: str) -> None:
    if kind == "geotiff":
        write_blocks(part, file.blocks, geobox=geobox, profile=file.profile, overviews=file.overviews)
        return
    plain = part.with_name(f"{part.name}-plain")
    try:
        write_blocks(plain, file.blocks, geobox=geobox, profile=file.profile)
        copy_as_cog(plain, part, file.blocks, geobox=geobox, profile=file.profile, overviews=file.overviews)
    finally:
        for path in (plain, pam_path(plain)):
            path.unlink(missing_ok=True)


def _remove_leftovers(request: MapRequest, written: Iterable[Path], journals: list[Journal]) -> None:
    """Deletes files left by runs that were killed while writing, and the journals, the first of which is the lock."""
    maps = {request.out, request.beside("confidence.tif"), request.beside("probabilities.tif"), *written}
    leftovers = [f".{glob.escape(path.name)}.*.part*" for path in sorted(maps)]
    lock, *others = journals
    for journal in others:
        journal.close()
    for pattern in (*leftovers, f".{glob.escape(request.out.stem)}.journal-*"):
        for path in request.out.parent.glob(pattern):
            if path != lock.path:
                with suppress(PermissionError):  # on Windows, where SQLite or another process has it open
                    path.unlink(missing_ok=True)
    lock.delete()


def _codes(payload: bytes, tile: Window) -> NDArray[np.uint16]:
    """Class codes of a journal's record: (1, h, w)."""
    return np.frombuffer(payload, "<u2", tile.height * tile.width).reshape(1, tile.height, tile.width)


def _shares(payload: bytes, tile: Window) -> NDArray[np.uint8]:
    """Confidence of a journal's record and, where they are in it, probabilities: (1 or 1 + K, h, w)."""
    offset = 2 * tile.height * tile.width
    return np.frombuffer(payload, np.uint8, offset=offset).reshape(-1, tile.height, tile.width)
