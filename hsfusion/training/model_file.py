"""The model file: tensors and a JSON header in one ``model.safetensors``, all that is needed to use the model.

The format holds numbers and text only, so that nothing in a file from elsewhere can execute.
Source: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from hsfusion.errors import EnvironmentFailure, HsFusionError, InputError, printable
from hsfusion.spectra import BandGroup, Bands

if TYPE_CHECKING:  # a header is read without torch
    from torch import Tensor

    from hsfusion.nn import FusionNetwork

FORMAT_VERSION = 3
_KEY = "hsfusion"  # of the metadata: one only, for safetensors keeps several in no fixed order
_MOST_BYTES = 2**30  # of a file, and of what building a network and reading its weights off takes
_MOST_HEADER_BYTES = 2**25
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # upset terminals, tables and legends

_WORDS = ("fusion", "constraint", "response")
_LARGEST = {"channels": 4096, "width": 4096, "receptive_field": 255, "neighbourhood": 255, "keep_bands": 10_000}
_RANGES = {"knot_spacing_nm": (0.01, 1e6), "dropout": (0.0, 1.0)}

_REAL = (int, float)
_SEEN = {"ground": str, "pixels": str}
_PLACE = {"transform": list, "epsg": (int, type(None))}
# keys of the plain mappings, and the type of each: what reports and the command line show without a further look
_SECTIONS: dict[str, dict[str, Any]] = {
    "training_scene": {"name": str, "shape": list, "transform": list, "crs": (str, type(None)), "values": list},
    "split": {"kind": str, "train_pixels": int, "val_pixels": int, "test_pixels": int, "leakage": _REAL},
    "test": {**dict.fromkeys(("overall_accuracy", "average_accuracy", "kappa", "mean_iou"), _REAL), "per_class": dict},
    "versions": {},
}
_OPTIONAL = ("hsfusion_version", "versions", "training_scene", "split", "test", "seed", "seen", "seen_before")

_TYPES = {"float32": "F32", "int64": "I64", "bool": "BOOL"}
_GIVEN = ("fusion.gates.gate_of", "fusion.gates.rank", "fusion.gates.always")  # they follow from the header
_LEAST = 1e-30  # of what is divided by: by less, numbers are no longer finite
_FIX = "give the run folder or its model.safetensors, as it was written"


@dataclass(frozen=True)
class ClassList:
    """Codes (ascending, from 1), unique names and colours (#rrggbb) of the K classes, as the network's outputs."""

    codes: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[str, ...]

    def __post_init__(self) -> None:
        """Checks them.

        Raises:
            InputError: if lengths differ, codes are not ascending, or a name or colour is none.
        """
        lengths = [len(self.codes), len(self.names), len(self.colors)]
        if not lengths[0] == lengths[1] == lengths[2] >= 1:
            raise _refusal("lengths of classes.codes, names and colors", lengths, "one and the same, at least 1")
        whole = all(type(code) is int and 1 <= code <= 65535 for code in self.codes)
        if not whole or list(self.codes) != sorted(set(self.codes)):
            raise _refusal("classes.codes", self.codes, "ascending integers from 1 to 65535")
        _check_names("classes.names", self.names)
        for color in self.colors:
            if not isinstance(color, str) or not _COLOR.fullmatch(color):
                raise _refusal("classes.colors", color, "#rrggbb")


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelHeader:
    """What a model file says of its network.

    Attributes:
        bands, groups, classes: the C bands in the order of the network's input, the band groups, and the K classes.
        architecture: keyword arguments of :func:`hsfusion.training.building.build_network`, plain once it is saved.
        sources: name and number of layers of each further raster.
        training_scene: ``name``, ``shape``, ``transform``, ``crs``, what ``values`` mean, and ``files`` of the scene.
        split: ``kind``, numbers of pixels and ``leakage`` of the split.
        test: accuracies on the test pixels, fractions.
        seed: of the training.
        seen: ground truth and training pixels, from :func:`hsfusion.data.leakage.training_mask`; None if too large.
        seen_before: the same of earlier trainings and of other grounds.
        hsfusion_version, versions: of this program, and of Python and the libraries that a result depends on.
        checksum: SHA-256 of header and tensors, of a header that was read.
    """

    bands: Bands
    groups: tuple[BandGroup, ...]
    classes: ClassList
    architecture: Mapping[str, Any]
    sources: tuple[tuple[str, int], ...] = ()
    training_scene: dict[str, Any] | None = None
    split: dict[str, Any] | None = None
    test: dict[str, Any] | None = None
    seed: int | None = None
    seen: dict[str, Any] | None = None
    seen_before: tuple[dict[str, Any], ...] = ()
    hsfusion_version: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    checksum: str | None = None

    def __post_init__(self) -> None:
        """Checks every value; what makes the backbone, and its options, need to be plain in a file only.

        Raises:
            InputError: naming the first that is not what it has to be.
        """
        plain = {"architecture": {**self.architecture, "backbone": None, "backbone_options": None}}
        check_plain("header", self.to_dict() | plain)
        _check_names("names of groups and sources", [g.name for g in self.groups] + [name for name, _ in self.sources])
        for name, layers in self.sources:
            if type(layers) is not int or layers < 1:
                raise _refusal(f"layers of source {name}", layers, "a whole number, at least 1")
        if self.seed is not None and type(self.seed) is not int:
            raise _refusal("seed", self.seed, "a whole number")
        _check_architecture(self.architecture)
        for key, types in _SECTIONS.items():
            _check_section(key, getattr(self, key), types)
        for entry in (self.seen, *self.seen_before):
            _check_section("seen", entry, _SEEN)
            _check_section("place of seen", (entry or {}).get("place"), _PLACE)

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
    def from_dict(cls, content: Any) -> ModelHeader:
        """A header from what :meth:`to_dict` gave.

        Raises:
            InputError: if it is of another format version, or a value is missing or not what it has to be.
        """
        if not isinstance(content, dict):
            raise _refusal("header", content, "a mapping")
        _check_version(content.get("format_version"))
        needed = {"format_version", "bands", "groups", "sources", "classes", "architecture", "checksum"}
        if unknown := content.keys() - needed - set(_OPTIONAL):
            raise _refusal("key of header", min(unknown), f"of {', '.join(sorted(needed | set(_OPTIONAL)))}")
        try:
            check_plain("header.architecture", content["architecture"])
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
        except KeyError as error:
            raise _refusal("header", f"without {error.args[0]}", "a whole header") from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _refusal("header", f"unfit ({error})", "the header of a model of hsfusion") from error


def save_model(path: Path, network: FusionNetwork, *, header: ModelHeader) -> None:
    """Writes a network; the same network and header give the same bytes.

    Args:
        path: where to.
        network: the network.
        header: what the file says of it; its checksum is computed anew.

    Raises:
        InputError: if the file cannot say which backbone the network has.
        EnvironmentFailure: if the file cannot be written.
    """
    from safetensors.torch import save_file

    from hsfusion.training.building import check_can_be_saved

    check_can_be_saved(header.architecture)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    content = json.loads(json.dumps(header.to_dict(), allow_nan=False))  # tuples to lists, as a reader has them
    content["checksum"] = digest(content, map(_part, tensors.items()))
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, part, metadata={_KEY: json.dumps(content, sort_keys=True, allow_nan=False)})
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)  # safetensors writes files for the owner only
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise EnvironmentFailure(
            f"{path}: cannot be written ({error}). Fix: free space or choose another folder."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def read_header(path: Path) -> ModelHeader:
    """Reads the header of a model file, without torch; the tensors are not looked at.

    Raises:
        InputError: if the file is no model of this format.
    """
    with _named(path):
        return ModelHeader.from_dict(_header_of(_bytes(path, most=8 + _MOST_HEADER_BYTES)))


def load_model(path: Path) -> tuple[FusionNetwork, ModelHeader]:
    """Reads a network, in evaluation mode, and its header; nothing in the file is executed.

    Raises:
        InputError: if the file is no model of this format, was changed since it was written, holds numbers that are not
            finite, or tensors and header do not fit together.
    """
    from safetensors.torch import load

    from hsfusion.training.building import backbone_maker

    with _named(path):
        data = _bytes(path)
        tensors = load(data)  # checks the lengths, places and shapes of the tensors
        content = _header_of(data)
        header = ModelHeader.from_dict(content)
        checksum = digest(content, map(_part, tensors.items()))
        if checksum != header.checksum:
            raise _refusal("checksum", f"{str(header.checksum)[:12]}…", f"{checksum[:12]}… of what the file holds")
    if "backbone" in header.architecture:
        backbone_maker(
            header.architecture["backbone"], source=path
        )  # registered: nothing that a file names is imported
    with _named(path):
        _check_size(header, numbers=sum(tensor.numel() for tensor in tensors.values()))
        network = _built(header)
        _check_tensors(tensors, network.state_dict())
        _check_membership(tensors["fusion.membership"], network.fusion.membership, header)
        network.load_state_dict(tensors)
    return network.eval(), header


def digest(content: Mapping[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], bytes]]) -> str:
    """SHA-256 of a header, but for its checksum, and tensors.

    Args:
        content: plain values.
        tensors: name, type, shape and bytes (little-endian, row after row) of each, in any order.
    """
    plain = {key: value for key, value in content.items() if key != "checksum"}
    hashed = hashlib.sha256(json.dumps(plain, sort_keys=True, allow_nan=False).encode())
    for name, dtype, shape, data in sorted(tensors, key=lambda tensor: tensor[0]):
        hashed.update(json.dumps([name, dtype, list(shape)]).encode())
        hashed.update(data)
    return hashed.hexdigest()


def _part(named: tuple[str, Tensor]) -> tuple[str, str, tuple[int, ...], bytes]:
    """What :func:`digest` takes of a tensor."""
    name, tensor = named
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in _TYPES:
        raise _refusal(f"type of tensor {reprlib.repr(name)}", dtype, " | ".join(_TYPES))
    return name, _TYPES[dtype], tuple(tensor.shape), tensor.numpy().tobytes()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turns errors of a model file into one line that names it."""
    try:
        yield
    except InputError as error:
        raise InputError(path, error.field, error.value, error.expected, _FIX) from error
    except (OSError, SafetensorError) as error:
        raise InputError(
            path,
            "content",
            f"unreadable ({printable(error)})",
            "a model.safetensors of hsfusion (checkpoints are not opened here: they can execute code)",
            _FIX,
        ) from error


def _refusal(what: str, value: object, expected: str) -> InputError:
    shown = value if isinstance(value, str) and value.isprintable() and len(value) < 200 else reprlib.repr(value)
    return InputError("model header", what, shown, expected, "correct it")


def _bytes(path: Path, *, most: int = _MOST_BYTES) -> bytes:
    """The first bytes of a plain file; a pipe would wait for ever, and a device would never end."""
    if not path.is_file():
        raise _refusal("file", "no plain file" if path.exists() else "missing", "a model.safetensors")
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise _refusal("size", f"{size} bytes", f"at most {_MOST_BYTES} bytes")
    with open(path, "rb") as file:
        return file.read(most)


def _header_of(data: bytes) -> Any:
    """The header out of the first bytes of a file: 8 with the length of a JSON text, then the text."""
    length = int.from_bytes(data[:8], "little")
    try:
        if length > _MOST_HEADER_BYTES:
            raise ValueError(f"of {length} bytes")
        return json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        text = f"unreadable or of another program ({type(error).__name__})"
        raise _refusal("content", text, "a model.safetensors of hsfusion") from error


def _check_version(version: Any) -> None:
    if type(version) is not int or version != FORMAT_VERSION:
        older = type(version) is int and version < FORMAT_VERSION
        advice = "older: train again, or use the hsfusion that wrote it" if older else "newer: update hsfusion"
        raise _refusal("format_version", reprlib.repr(version), f"{FORMAT_VERSION}, for this file is {advice}")


def check_plain(what: str, value: Any) -> None:
    """Refuses numbers that are not finite, texts of more than a line, and what JSON does not know."""
    if isinstance(value, dict):
        for key, item in value.items():
            check_plain(f"key of {what}", key)
            check_plain(f"{what}.{key}", item)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            check_plain(f"{what}[{i}]", item)
    elif isinstance(value, str) and _CONTROL.search(value):
        raise _refusal(what, value, "a line without control characters")
    elif not (value is None or isinstance(value, str)) and not (isinstance(value, _REAL) and abs(value) <= 1e300):
        raise _refusal(what, value, "a plain value; of numbers a finite one")


def _check_names(what: str, names: Iterable[Any]) -> None:
    before: set[str] = set()
    for name in names:
        if not isinstance(name, str) or not name.strip() or name in before:
            raise _refusal(what, name, "texts, each once")
        before.add(name)


def _check_architecture(architecture: Mapping[str, Any]) -> None:
    for key, value in architecture.items():
        if value is None and key in ("keep_bands", "knot_spacing_nm"):
            continue
        if key in _LARGEST:
            fit = type(value) is int and 1 <= value <= _LARGEST[key]
            expected = f"a whole number from 1 to {_LARGEST[key]}"
        elif key in _RANGES:
            fit = isinstance(value, _REAL) and _RANGES[key][0] <= value <= _RANGES[key][1]
            expected = "a number from {:g} to {:g}".format(*_RANGES[key])
        elif key == "backbone":
            from hsfusion.nn.backbones import BACKBONE_NAME

            fit = BACKBONE_NAME.fullmatch(value) if isinstance(value, str) else callable(value)
            expected = "a word or a dotted path"
        elif key == "backbone_options":
            fit, expected = isinstance(value, Mapping), "a mapping"
        else:
            fit, expected = key in _WORDS and isinstance(value, str), "an argument of the network"
        if not fit:
            raise _refusal(f"architecture.{key}", value, expected)


def _check_section(what: str, section: Any, types: Mapping[str, Any]) -> None:
    if not isinstance(section, dict):
        if section is not None:
            raise _refusal(what, section, "a mapping")
    elif wrong := [key for key, kind in types.items() if not isinstance(section.get(key, ...), kind)]:
        raise _refusal(f"{what}.{wrong[0]}", section.get(wrong[0], "missing"), f"a value of type {types[wrong[0]]}")


def _check_size(header: ModelHeader, *, numbers: int) -> None:
    """Refuses a network of more weights than the file has numbers, or of too much memory, before it is built."""
    from hsfusion.training.building import network_size

    weights, memory = network_size(**header.network_arguments)
    if weights > numbers:
        raise _refusal("number of weights of the architecture", weights, f"at most the {numbers} of the file")
    if memory > _MOST_BYTES:
        raise _refusal("memory that the network needs", f"{memory / 1e9:.3g} GB", f"at most {_MOST_BYTES / 1e9:.3g} GB")


def _built(header: ModelHeader) -> FusionNetwork:
    from hsfusion.training.building import build_network

    try:
        return build_network(**header.network_arguments)
    except (HsFusionError, TypeError, ValueError, RuntimeError) as error:
        raise _refusal("header", f"not usable ({error})", "that of a network") from error


def _check_tensors(tensors: Mapping[str, Tensor], built: Mapping[str, Tensor]) -> None:
    """Names, types and shapes have to be those that the header gives, and the numbers such as a network can have."""
    kinds = [{name: (str(t.dtype), tuple(t.shape)) for name, t in state.items()} for state in (tensors, built)]
    for name in sorted(tensors.keys() | built.keys()):
        of_file, of_header = (kind.get(name, "missing") for kind in kinds)
        if of_file != of_header:
            raise _refusal(f"tensor {reprlib.repr(name)}", str(of_file), f"{of_header}, by the header")
        tensor = tensors[name]
        if not bool(tensor.isfinite().all()):
            raise _refusal(f"tensor {name}", "not finite", "finite numbers")
        if name in ("std", "fusion.gates.width") or name.endswith(("running_var", "fusion.passed")):
            least = _LEAST if name in ("std", "fusion.gates.width") else 0.0
            if bool((tensor < least).any()):
                raise _refusal(f"tensor {name}", f"{float(tensor.min()):g}", f"at least {least:g}")
        if name in _GIVEN and not bool((tensor == built[name]).all()):
            raise _refusal(f"tensor {name}", "not that of the header", "what bands and groups of the header give")


def _check_membership(stored: Tensor, built: Tensor, header: ModelHeader) -> None:
    """Groups hold the bands of their intervals; those of a transferred network, any bands that may be used."""
    carried = header.architecture.get("response") == "carried"
    if not bool((stored <= built).all() and stored.any(1).all() if carried else (stored == built).all()):
        raise _refusal("tensor fusion.membership", "not that of the header", "the bands of its groups")
