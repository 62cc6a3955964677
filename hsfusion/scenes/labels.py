"""Labels: rasters of class codes, and the legend that gives codes names and colours."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.formats import open_cube_file
from hsfusion.scenes.geobox import GeoBox, check_same_grid
from hsfusion.scenes.scene import Scene, Window

_log = logging.getLogger(__name__)

#: 24 colours that stay apart on a map; more classes start over
PALETTE = (
    *("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6"),
    *("#bfef45", "#fabed4", "#469990", "#dcbeff", "#9a6324", "#808000", "#800000", "#000075"),
    *("#aaffc3", "#ffd8b1", "#a9a9a9", "#e4a900", "#1b7837", "#5ab4ac", "#c51b7d", "#7f3b08"),
)


@dataclass(frozen=True)
class Legend:
    """Codes, names and colours of the K classes, in the order of the network's outputs.

    Attributes:
        codes: K positive integers, ascending; 0 is always «unlabelled».
        names: K names, unique.
        colors: K colours as ``#rrggbb``.
    """

    codes: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[str, ...]

    def __post_init__(self) -> None:
        """Checks codes and names.

        Raises:
            InputError: if lengths differ, codes are not ascending in 1..65535, or names repeat.
        """
        if not len(self.codes) == len(self.names) == len(self.colors) >= 1:
            raise InputError(
                "legend",
                field="numbers of codes, names and colours",
                value=(len(self.codes), len(self.names), len(self.colors)),
                expected="three times the same, at least 1",
                fix="give every class a code, a name and a colour",
            )
        if list(self.codes) != sorted(set(self.codes)) or not 1 <= self.codes[0] <= self.codes[-1] <= 65535:
            raise InputError(
                "legend",
                field="codes",
                value=self.codes,
                expected="ascending integers from 1 to 65535, 0 being unlabelled",
                fix="renumber the classes",
            )
        if len(set(self.names)) < len(self.names):
            raise InputError("legend", field="names", value=self.names, expected="unique names", fix="rename classes")

    @classmethod
    def of(cls, labels: NDArray[np.integer], *, names: Mapping[int, str] | None = None) -> Legend:
        """Legend of the codes that occur in labels (H, W), with colours from the palette.

        Args:
            labels: (H, W) class codes, 0 for unlabelled.
            names: names of codes; codes without one are called ``class <code>``.
        """
        codes = [int(code) for code in np.unique(labels) if code != 0]
        given = {int(code): str(name) for code, name in (names or {}).items()}
        unknown = sorted(set(given) - set(codes))
        if unknown:
            raise InputError(
                "legend", field="named codes", value=unknown, expected=f"codes of the labels {codes}", fix="drop them"
            )
        return cls(
            tuple(codes),
            tuple(given.get(code, f"class {code}") for code in codes),
            tuple(PALETTE[i % len(PALETTE)] for i in range(len(codes))),
        )

    def indices(self, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """Class indices 0..K-1 of codes; -1 for codes that are not in the legend (such as 0)."""
        position = np.searchsorted(self.codes, labels)
        position = np.minimum(position, len(self.codes) - 1)
        return np.where(np.asarray(self.codes)[position] == labels, position, -1)


@dataclass(frozen=True, eq=False)
class LabelledScene:
    """A scene with ground truth on its grid.

    Attributes:
        scene: the scene.
        labels: (H, W) int64, class codes, 0 for unlabelled.
        legend: the classes.
    """

    scene: Scene
    labels: NDArray[np.int64]
    legend: Legend

    def __post_init__(self) -> None:
        """Checks the shape of the labels.

        Raises:
            InputError: if it is not that of the scene.
        """
        check_same_grid(
            GeoBox((self.labels.shape[0], self.labels.shape[1])),
            GeoBox(self.scene.geobox.shape),
            source="labels",
            reference=f"the scene {self.scene.name}",
        )

    def where(self, valid: NDArray[np.bool_]) -> LabelledScene:
        """Drops the labels of pixels that are not valid, and classes that then have none, saying so in the log.

        Args:
            valid: (H, W), False for pixels without data.

        Raises:
            InputError: if fewer than two classes are left.
        """
        kept = np.where(valid, self.labels, 0)
        lost = int(((self.labels > 0) & ~valid).sum())
        if lost:
            _log.warning("%d labelled pixels have no data and are left out.", lost)
        there = [i for i, code in enumerate(self.legend.codes) if (kept == code).any()]
        for i in set(range(len(self.legend.codes))) - set(there):
            _log.warning("Class %s has no pixel with data and is left out.", self.legend.names[i])
        if len(there) < 2:
            raise InputError(
                self.scene.name,
                field="number of classes with labelled pixels that have data in every used band",
                value=len(there),
                expected="at least 2",
                fix="label more classes, or mark bands without data as not good",
            )
        codes, names, colors = self.legend.codes, self.legend.names, self.legend.colors
        legend = Legend(tuple(codes[i] for i in there), tuple(names[i] for i in there), tuple(colors[i] for i in there))
        return LabelledScene(self.scene, kept, legend)


def read_labels(path: str | Path, scene: Scene) -> NDArray[np.int64]:
    """Reads class codes that lie on the grid of a scene.

    Args:
        path: a GeoTIFF with one band, or ``.npy`` (H, W), of integers (or whole numbers), 0 for unlabelled.
        scene: the scene that the labels belong to.

    Returns:
        (H, W) int64

    Raises:
        InputError: if the file is no such raster, lies on another grid, or holds negative or fractional codes.
    """
    file = open_cube_file(path)
    if file.layers != 1:
        raise file.error("number of bands", file.layers, "one band (H, W)", "keep one layer of labels")
    check_same_grid(file.geobox, scene.geobox, source=path, reference=f"the scene {scene.name}")
    codes = np.nan_to_num(file.read(Window(0, 0, *file.geobox.shape))[0].astype(np.float64), nan=0.0)
    if (codes != np.round(codes)).any() or codes.min() < 0 or codes.max() > 65535 or not codes.any():
        raise InputError(
            path,
            field="class codes",
            value=f"{codes.min():g} to {codes.max():g}",
            expected="whole numbers from 1 to 65535, 0 for unlabelled, at least one pixel labelled",
            fix="renumber the classes",
        )
    return codes.astype(np.int64)


def split_names(names: Sequence[str] | Mapping[int, str] | None) -> dict[int, str]:
    """Names by code, from such a mapping or from a list that starts with the name of code 1."""
    if isinstance(names, str):
        raise InputError(
            "legend", field="class_names", value=names, expected="{code: name, ...}", fix="name every class by its code"
        )
    return dict(names) if isinstance(names, Mapping) else dict(enumerate(names or (), start=1))
