"""What ``hsfusion weights`` reads of a run: the tables of its folder, and its accuracies."""

from __future__ import annotations

import csv
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.spectra import Bands, BandWeights

_MOST_METRICS_BYTES = 2**22
_MOST_PAIRS = 10_000
_MOST_TABLE_BYTES = 2**26  # 64 channels x 10,000 bands in lines of 100 letters
_MOST_HEADER_BYTES = 2**25
_MOST_NUMBERS = 2**24  # of a response: channels x bands


@dataclass(frozen=True)
class Run:
    """A finished run and how well its network does.

    Attributes:
        folder: of the run.
        scene: its name.
        seed: of the training.
        split: its kind.
        leakage: share of the test pixels that see a training or validation pixel.
        overall_accuracy: fraction, on test pixels.
        average_accuracy: fraction, on test pixels.
        beats_chance: whether the network knows more than chance about these.
        duplicates: pairs of bands by index, and the correlation for which they say the same.
        fusion: kind of its network.
        carried: whether the network was carried over from another one.
        resample: of the training pixels; None for all of them.
    """

    folder: Path
    scene: str
    seed: int
    split: str
    leakage: float
    overall_accuracy: float
    average_accuracy: float
    beats_chance: bool
    duplicates: tuple[tuple[int, int, float], ...] = ()
    fusion: str = "channel"
    carried: bool = False
    resample: int | None = None


@dataclass(frozen=True, eq=False)
class Channels:
    """What each fused channel of a run is made of, the most used channel first.

    Attributes:
        share: (M,) of what the network takes in.
        weight: (M, C), band weights of each channel; without further rasters they sum to 1.
    """

    share: NDArray[np.float64]
    weight: NDArray[np.float64]


def read_band_weights(folder: Path) -> BandWeights:
    """Reads band_weights.csv of a run folder.

    Raises:
        InputError: if the folder is none, or the table is missing or damaged.
    """
    if (folder / "band_weights.csv").is_file():
        return BandWeights.from_csv(folder / "band_weights.csv")
    if folder.is_dir():
        raise _unfinished(folder, "band_weights.csv")
    what = "a file" if folder.exists() else "missing"
    raise InputError(
        folder, field="run", value=what, expected="the folder of a run", fix="name a folder that hsfusion train wrote"
    )


def _unfinished(folder: Path, name: str) -> InputError:
    return InputError(
        folder, field=name, value="missing", expected="a finished run's folder", fix="train, or name another folder"
    )


def read_run(folder: Path, *, bands: int) -> Run:
    """Reads metrics.json, verdict.json, and the name of the scene in the header of model.safetensors.

    Args:
        folder: of the run.
        bands: how many it has.

    Raises:
        InputError: if one of the files is missing or damaged.
    """
    from hsfusion.training.checked_values import each, flag, number, text, whole

    fraction = number(0, 1)
    metrics = _taken(
        folder / "metrics.json",
        _metrics,
        {
            "split.kind": text(60),
            "split.leakage": fraction,
            "test.overall_accuracy": fraction,
            "test.average_accuracy": fraction,
            "seed": whole(0, 2**32),
        },
    )
    pairs = each(_pair_of(bands), 0, _MOST_PAIRS)
    known = _taken(folder / "verdict.json", _metrics, {"beats_chance": flag, "duplicates": pairs})
    header = _taken(
        folder / "model.safetensors", _header, {"training_scene.name": text(200), "architecture.fusion": text(60)}
    )
    return Run(
        folder,
        header["training_scene.name"],
        metrics["seed"],
        metrics["split.kind"],
        metrics["split.leakage"],
        metrics["test.overall_accuracy"],
        metrics["test.average_accuracy"],
        known["beats_chance"],
        tuple((int(first), int(second), float(correlation)) for first, second, correlation in known["duplicates"]),
        header["architecture.fusion"],
        (folder / "transfer.json").exists(),
    )


def _pair_of(bands: int) -> Callable[[Any, str], None]:
    """A rule for two bands and their correlation."""
    from hsfusion.training.checked_values import Unfit, number, shown, whole

    def rule(value: Any, field: str) -> None:
        if not isinstance(value, list) or len(value) != 3:
            raise Unfit(field, shown(value), "two bands and their correlation")
        for index in value[:2]:
            whole(0, bands - 1)(index, field)
        number(-1, 1)(value[2], field)

    return rule


def read_versions(folder: Path) -> dict[str, str]:
    """The versions that a run was made with, from metrics.json.

    Raises:
        InputError: if it is missing or damaged.
    """
    from hsfusion.training.checked_values import table, text

    return dict(_taken(folder / "metrics.json", _metrics, {"versions": table(text(200), 100)})["versions"])


def _taken(file: Path, read: Callable[[Path], Any], rules: dict[str, Callable[[Any, str], None]]) -> dict[str, Any]:
    """The checked values at dotted keys of a file; what else it holds is passed over."""
    from hsfusion.training.checked_values import Unfit

    try:
        content, found = read(file), {}
        for key, rule in rules.items():
            value = content
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            rule(value, key)
            found[key] = value
    except FileNotFoundError as error:
        raise _unfinished(file.parent, file.name) from error
    except Unfit as error:
        raise InputError(
            file, field=error.field, value=error.value, expected=error.expected, fix="name a sound run folder"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            file, field="content", value=f"unreadable ({error})", expected=f"{file.name} of a run", fix="train anew"
        ) from error
    return found


def plain_bytes(file: Path, most: int) -> bytes:
    """The bytes of a plain file that is no larger than it may be.

    Raises:
        Unfit: if it is none, or larger.
        OSError: if it cannot be read.
    """
    from hsfusion.training.checked_values import Unfit

    status = file.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
        raise Unfit("file", "no plain file", "a file")
    if status.st_size > most:
        raise Unfit("size", f"{status.st_size} bytes", f"at most {most} bytes")
    return file.read_bytes()


def _metrics(file: Path) -> Any:
    from hsfusion.training.checked_values import parse_json

    return parse_json(plain_bytes(file, _MOST_METRICS_BYTES).decode(), "metrics")


def _header(file: Path) -> Any:
    """The header of a model of any format version; the tensors are not looked at."""
    from hsfusion.training.checked_values import Unfit, parse_json

    if not stat.S_ISREG(file.stat().st_mode):
        raise Unfit("file", "no plain file", "a file")
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(_MOST_HEADER_BYTES, file.stat().st_size - 8):
            raise Unfit("length of the header", length, "that of a model file")
        listed = parse_json(stream.read(length).decode(), "list of tensors")
    inside = listed.get("__metadata__") if isinstance(listed, dict) else None
    told = inside.get("hsfusion") if isinstance(inside, dict) else None
    if not isinstance(told, str):
        raise Unfit("header", "missing", "that of a model of hsfusion")
    return parse_json(told, "header")


def read_channels(folder: Path, bands: Bands) -> Channels | None:
    r"""Reads response.csv and group_weights.csv of a run; None where there are none.

    The weight of band c in channel m is :math:`\sum_g |a_{gm}| |s_{gmc}| / \sum_g |a_{gm}|`.

    Raises:
        InputError: if they are damaged.
    """
    response, groups = folder / "response.csv", folder / "group_weights.csv"
    if not (response.is_file() and groups.is_file()):
        return None
    try:
        rows = _rows(groups)
        share = {int(row["channel"]): float(row["channel_share"]) for row in rows}
        channels = len(share)
        if sorted(share) != list(range(1, channels + 1)) or not 0 < channels * len(bands) <= _MOST_NUMBERS:
            raise ValueError("channels do not count from 1")
        size = {(row["group"], int(row["channel"])): abs(float(row["weight"])) for row in rows}
        weight = _channel_weights(response, size, shape=(channels, len(bands)), wavelength_nm=bands.wavelength_nm)
        shares = np.array([share[m + 1] for m in range(channels)])
        if not (np.isfinite(weight).all() and np.isfinite(shares).all()):
            raise ValueError("a number is not finite")
    except (OSError, KeyError, IndexError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            response, field="table", value=repr(error), expected="the tables of hsfusion train", fix="train anew"
        ) from error
    order = np.argsort(-shares, kind="stable")
    return Channels(shares[order], weight[order])


def _channel_weights(
    response: Path,
    size: dict[tuple[str, int], float],
    *,
    shape: tuple[int, int],
    wavelength_nm: NDArray[np.float64],
) -> NDArray[np.float64]:
    weight, total = np.zeros(shape), np.zeros(shape[0])
    for (_, channel), value in size.items():
        total[channel - 1] += value
    for row in _rows(response):
        m, c = int(row["channel"]) - 1, int(row["band"]) - 1
        if row["wavelength_nm"] in ("nan", ""):  # a layer of a further raster
            continue
        if min(m, c) < 0 or abs(float(row["wavelength_nm"]) - wavelength_nm[c]) > 1e-3:
            raise ValueError(f"band {c + 1} has another wavelength in band_weights.csv")
        weight[m, c] += size[row["group"], m + 1] * abs(float(row["weight"]))
    return weight / np.maximum(total, 1e-300)[:, None]


def _rows(table: Path) -> list[dict[str, str]]:
    status = table.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_TABLE_BYTES:
        raise ValueError(f"no plain file of at most {_MOST_TABLE_BYTES} bytes")
    with open(table, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
