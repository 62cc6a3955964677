"""The model file: tensors and a JSON header in one ``model.safetensors``, all that is needed to use the model.

The format holds only numbers and text, so that nothing in an untrusted file can execute.
Source: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from hsfusion.errors import HsFusionError, InputError, printable
from hsfusion.publishing import write_file
from hsfusion.spectra import BandGroup, Bands

if TYPE_CHECKING:  # a header is read without torch
    from torch import Tensor

    from hsfusion.nn import FusionNetwork

FORMAT_VERSION = 4
_KEY = "hsfusion"  # of the metadata: one only, for safetensors keeps several in no fixed order
_OPTIONAL = ("hsfusion_version", "versions", "training_scene", "split", "test", "seed", "seen", "seen_before")
_TYPES = {"float32": "F32", "int64": "I64", "bool": "BOOL"}
_FIX = "give the run folder or its model.safetensors, as it was written"


@dataclass(frozen=True)
class ClassList:
    """Codes (ascending, from 1), unique names and colours (#rrggbb) of the K classes, as the network's outputs."""

    codes: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelHeader:
    """The description of a network in its model file."""

    bands: Bands  # C, in the order of the network's input
    groups: tuple[BandGroup, ...]
    classes: ClassList  # K
    architecture: Mapping[str, Any]  # arguments of hsfusion.training.building.build_network, plain once it is saved
    sources: tuple[tuple[str, int], ...] = ()  # name and number of layers of each further raster
    training_scene: dict[str, Any] | None = None  # name, shape, transform, crs, what values mean, and files
    split: dict[str, Any] | None = None  # kind, numbers of pixels and leakage
    test: dict[str, Any] | None = None  # accuracies on the test pixels, fractions
    seed: int | None = None  # of the training
    seen: dict[str, Any] | None = None  # ground truth and pixels, of hsfusion.data.leakage.training_mask, if not large
    seen_before: tuple[dict[str, Any], ...] = ()  # the same of earlier trainings and of other grounds
    hsfusion_version: str | None = None
    versions: dict[str, str] = field(default_factory=dict)  # of Python and the libraries that a result depends on
    checksum: str | None = None  # SHA-256 of header and tensors, of a header that was read

    @property
    def fusion(self) -> str:
        """Kind of the group weights."""
        return self.architecture.get("fusion", "channel")

    @property
    def scene_name(self) -> str | None:
        """Name of the training scene."""
        return None if self.training_scene is None else self.training_scene["name"]

    @property
    def network_arguments(self) -> dict[str, Any]:
        """All keyword arguments of :func:`hsfusion.training.building.build_network`."""
        given = {"bands": self.bands, "groups": self.groups, "sources": self.sources}
        return {**given, "num_classes": len(self.classes.codes), **self.architecture}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the file holds them."""
        content = {
            "format_version": FORMAT_VERSION,
            "bands": self.bands.to_dict(),
            "groups": [asdict(group) for group in self.groups],
            "sources": [{"name": name, "layers": layers} for name, layers in self.sources],
            "classes": {key: list(values) for key, values in asdict(self.classes).items()},
            "architecture": dict(self.architecture),
        }
        for key in (*_OPTIONAL, "checksum"):
            value = getattr(self, key)
            if value not in (None, (), {}):
                content[key] = list(value) if isinstance(value, tuple) else value
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ModelHeader:
        """A header from the result of :meth:`to_dict`; :class:`InputError` for another format version."""
        if (version := content["format_version"]) != FORMAT_VERSION:
            older = isinstance(version, int) and version < FORMAT_VERSION
            advice = (
                "older: train again, or use the version of hsfusion that wrote it"
                if older
                else "newer: update hsfusion"
            )
            expected = f"{FORMAT_VERSION}; this file is {advice}"
            raise InputError("model header", "format_version", version, expected, _FIX)
        return cls(
            bands=Bands.from_dict(content["bands"]),
            groups=tuple(BandGroup(**group) for group in content["groups"]),
            classes=ClassList(**{key: tuple(values) for key, values in content["classes"].items()}),
            architecture=dict(content["architecture"]),
            sources=tuple((source["name"], source["layers"]) for source in content["sources"]),
            seen_before=tuple(content.get("seen_before", ())),
            checksum=content["checksum"],
            **{key: content[key] for key in _OPTIONAL[:-1] if key in content},
        )


def save_model(path: Path, network: FusionNetwork, *, header: ModelHeader) -> None:
    """Writes a network and its header, with a new checksum; equal networks give byte-identical files."""
    from safetensors.torch import save

    from hsfusion.training.building import check_can_be_saved

    check_can_be_saved(header.architecture)
    # copies, because safetensors refuses what parts of a backbone share
    tensors = {name: of.detach().cpu().contiguous().clone() for name, of in network.state_dict().items()}
    content = json.loads(json.dumps(header.to_dict(), allow_nan=False))  # tuples to lists, as a reader has them
    content["checksum"] = digest(content, map(_part, tensors.items()))
    write_file(path, save(tensors, {_KEY: json.dumps(content, sort_keys=True, allow_nan=False)}))


def read_header(path: Path) -> ModelHeader:
    """Reads the header of a model file, without torch; the tensors are not read."""
    with _opened(path, "numpy") as file:
        return ModelHeader.from_dict(json.loads(file.metadata()[_KEY]))


def read_statistics(path: Path) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Mean (C,) and correlation (C, C) of the training spectra that a model file holds, without torch."""
    with _opened(path, "numpy") as file:
        mean, upper = file.get_tensor("mean"), file.get_tensor("covariance")
        correlation = np.zeros((mean.size, mean.size), upper.dtype)
        correlation[np.triu_indices(mean.size)] = upper
        return mean, correlation + np.triu(correlation, 1).T


def load_model(path: Path) -> tuple[FusionNetwork, ModelHeader]:
    """Reads a network, in evaluation mode, and its header; nothing in the file is executed.

    A file that was changed after it was written, or that holds numbers that are not finite, raises :class:`InputError`.
    """
    from hsfusion.training.building import build_network

    with _opened(path, "pt") as file:
        content = json.loads(file.metadata()[_KEY])
        header = ModelHeader.from_dict(content)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        if (checksum := digest(content, map(_part, tensors.items()))) != header.checksum:
            raise ValueError(f"checksum is {header.checksum}, that of what the file holds is {checksum}")
        network = build_network(**header.network_arguments)
        # groups hold the bands of their intervals; those of a transferred network, any bands that may be used
        transferred = header.fusion == "free" or header.architecture.get("response") == "carried"
        built, held = network.fusion.membership, tensors["fusion.membership"]
        if (held & ~built if transferred else held != built).any():
            raise ValueError("tensor fusion.membership is not that of the bands and groups of the header")
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise ValueError("some numbers are not finite")
        network.load_state_dict(tensors)  # checks names and shapes
    return network.eval(), header


def digest(content: Mapping[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], bytes]]) -> str:
    """SHA-256 of a header without its checksum, and of tensors: name, type, shape and little-endian bytes of each."""
    plain = {key: value for key, value in content.items() if key != "checksum"}
    hashed = hashlib.sha256(json.dumps(plain, sort_keys=True, allow_nan=False).encode())
    for name, dtype, shape, data in sorted(tensors, key=lambda tensor: tensor[0]):
        hashed.update(json.dumps([name, dtype, list(shape)]).encode())
        hashed.update(data)
    return hashed.hexdigest()


def _part(named: tuple[str, Tensor]) -> tuple[str, str, tuple[int, ...], bytes]:
    name, tensor = named
    return name, _TYPES[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape), tensor.numpy().tobytes()


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    """An open model file; any error becomes one line that names it."""
    try:
        if not path.is_file():  # a pipe would wait for ever
            raise InputError(path, "file", "missing", "a model.safetensors", _FIX)
        with safe_open(path, framework) as file:  # checks the lengths, places and shapes of the tensors
            yield file
    except InputError as error:
        raise InputError(path, error.field, error.value, error.expected, error.fix) from error
    except (
        *(OSError, SafetensorError, HsFusionError),
        *(ValueError, KeyError, TypeError, AttributeError, RuntimeError),  # of what foreign values are made into
    ) as error:
        expected = "a model.safetensors of hsfusion (checkpoints are not opened here: they can execute code)"
        raise InputError(path, "content", f"unreadable ({printable(error)})", expected, _FIX) from error
