"""What became of each part of a network that was carried over to another scene."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class GroupCoverage:
    """How much of a group the new scene covers.

    Attributes:
        name: of the band group or further raster.
        weight: share of the band weights that it had, 0 to 1.
        coverage: share of its weight that lies on bands of the new scene, 0 to 1.
    """

    name: str
    weight: float
    coverage: float


@dataclass(frozen=True)
class TransferReport:
    """What was taken over and how; every parameter and buffer of the new network is in exactly one of the first three.

    A part is a name in the state of the network, or ``name[row]`` where its rows differ in origin.

    Attributes:
        copied: parts taken as they were.
        resampled: parts carried over by wavelength.
        fresh: parts that start anew.
        groups: every group and further raster that the network had.
        outside_share: share of all band weights on bands that the new scene does not cover, 0 to 1.
        dropped_groups: names of groups of which the new scene covers nothing.
        dropped_sources: names of further rasters that the new scene lacks.
        dropped_classes: names of classes that the new scene lacks.
    """

    copied: tuple[str, ...]
    resampled: tuple[str, ...]
    fresh: tuple[str, ...]
    groups: tuple[GroupCoverage, ...]
    outside_share: float
    dropped_groups: tuple[str, ...]
    dropped_sources: tuple[str, ...]
    dropped_classes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def standardised_anew(self) -> TransferReport:
        """The report of a network whose mean and standard deviation are those of the new training pixels."""
        resampled = tuple(part for part in self.resampled if part not in ("mean", "std"))
        return replace(self, resampled=resampled, fresh=("mean", "std", *self.fresh))

    def coverage_lines(self) -> list[str]:
        """What the new bands cover, as a text table, line by line."""
        width = max(len("group"), *(len(group.name) for group in self.groups))
        table = [f"{'group':{width}}  weight  covered"]
        table += [f"{g.name:{width}}  {g.weight:6.3f}  {100 * g.coverage:5.1f} %" for g in self.groups]
        little = [g.name for g in self.groups if 0 < g.coverage < 0.5 and g.name not in self.dropped_groups]
        if little:
            table.append(f"less than half covered, the rest stands for the whole: {', '.join(little)}")
        table.append(f"outside the new bands: {100 * self.outside_share:.1f} % of the band weights")
        if self.outside_share > 0.5:
            table.append("that is most of it: expect little of what the network has learned")
        for title in ("dropped_groups", "dropped_sources", "dropped_classes"):
            names = getattr(self, title)
            if names:
                table.append(f"{title.replace('_', ' ')}: {', '.join(names)}")
        return table

    def lines(self) -> list[str]:
        """The whole report as a text table, line by line."""
        table = self.coverage_lines()
        for title in ("copied", "resampled", "fresh"):
            table.append(f"{title:9}  {', '.join(_shortened(getattr(self, title))) or 'nothing'}")
        return table


def _shortened(parts: Iterable[str]) -> list[str]:
    """Rows of one tensor in one entry, and tensors of one module of the CNN's features counted, in order."""
    rows: dict[str, list[str]] = {}
    for part in parts:
        name, _, row = part.partition("[")
        name = "cnn.features" if name.startswith("cnn.features.") else name
        rows.setdefault(name, []).append(row.removesuffix("]"))
    return [f"{name} ({'; '.join(found)})" if any(found) else name for name, found in rows.items()]
