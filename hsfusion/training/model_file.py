"""The model file: tensors and a JSON header in one ``model.safetensors``, all that is needed to use the model.

It may come from a stranger: nothing in it is executed, and every part is checked before it is used.
"""

from __future__ import annotations

import inspect
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from hsfusion.errors import EnvironmentFailure, HsFusionError, InputError, printable
from hsfusion.nn import BACKBONES, DEFAULT_BACKBONE, FusionNetwork
from hsfusion.spectra import BandGroup, Bands
from hsfusion.training.building import backbone_size, build_network, check_can_be_saved, unknown_backbone
from hsfusion.training.checked_values import Unfit
from hsfusion.training.model_bytes import StoredModel, digest, metadata, read_stored
from hsfusion.training.model_header import FORMAT_VERSION, check_header

_TYPES = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}
_MOST_NETWORK_BYTES = 2**30  # of what building a network, and reading its weights off, takes
# follow from the header: a file in which they do not contradicts itself
_GIVEN = ("fusion.gates.gate_of", "fusion.gates.rank", "fusion.gates.always")
_LEAST_STD = 1e-30  # divided by less, numbers are no longer finite


def save_model(path: Path, network: FusionNetwork, *, header: dict[str, Any]) -> None:
    """Writes a network.

    The same network and header give the same bytes.

    Args:
        path: where to.
        network: the network.
        header: plain values by the rules of :mod:`hsfusion.training.model_header`; the version of the format and the
            checksum come from here.

    Raises:
        InputError: if the header holds what no reader would take.
        EnvironmentFailure: if the file cannot be written.
    """
    check_can_be_saved(header.get("architecture", {}))
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    header = json.loads(json.dumps({**header, "format_version": FORMAT_VERSION}, allow_nan=False))  # tuples to lists
    parts = ((name, _TYPES[t.dtype], tuple(t.shape), t.numpy().tobytes()) for name, t in tensors.items())
    header["checksum"] = digest(header, parts)
    try:
        check_header(header)
    except Unfit as error:
        raise _input_error(path, error, fix="correct it in scene or configuration") from error
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, part, metadata=metadata(header))
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


def load_model(path: Path) -> tuple[FusionNetwork, dict[str, Any]]:
    """Reads a network and its header; nothing in the file is executed.

    Raises:
        InputError: if the file is no model of this format, was changed since it was written, holds numbers that are not
            finite, or tensors and header do not fit together.
    """
    try:
        stored = read_stored(path)
        _check_size(stored)
        network = _network(stored.header)
        _check_tensors(stored, network)
        tensors = load(stored.data)
        _check_numbers(tensors, network)
        _check_membership(tensors["fusion.membership"], stored.header, network)
        network.load_state_dict(tensors)
    except Unfit as error:
        raise _input_error(
            path, error, fix=error.fix or "give the run folder or its model.safetensors, as it was written"
        ) from error
    except HsFusionError as error:
        raise _input_error(
            path, Unfit("header", f"not usable ({error})", "one of hsfusion"), fix="get it anew"
        ) from error
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise _input_error(
            path, Unfit("file", f"not readable ({reason})", "a model"), fix="correct the path"
        ) from error
    return network.eval(), stored.header


def _input_error(path: Path, error: Unfit, *, fix: str) -> InputError:
    return InputError(path, field=error.field, value=error.value, expected=error.expected, fix=fix)


def _architecture(header: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the network, those that the header leaves out included."""
    parameters = inspect.signature(build_network).parameters
    if unknown := [key for key in header["architecture"] if key not in parameters]:
        raise Unfit("key of header.architecture", unknown[0], f"of {', '.join(parameters)}")
    defaults = {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
    if (backbone := header["architecture"].get("backbone", DEFAULT_BACKBONE)) not in BACKBONES:  # no code of the file
        raise Unfit(**unknown_backbone(backbone))
    return {**defaults, **header["architecture"]}


def _check_size(stored: StoredModel) -> None:
    """Refuses what would take too much memory, or more numbers than the file holds, before any memory is taken."""
    header = stored.header
    built = _architecture(header)
    channels = built["channels"]
    layers = sum(source["layers"] for source in header["sources"])
    bands, groups = len(header["bands"]["good"]) + layers, len(header["groups"]) + len(header["sources"])
    knots = bands
    if built["knot_spacing_nm"] is not None:
        reach = max(g["upper_nm"] for g in header["groups"]) - min(g["lower_nm"] for g in header["groups"])
        knots = layers + int(max(reach, 0) / built["knot_spacing_nm"]) + 3
    predicted = {"instance": groups, "channel_instance": groups * channels}.get(built["fusion"], 0)
    seen = built["receptive_field"] - (built["neighbourhood"] // 2 * 2 if predicted else 0)
    options = built["backbone_options"] or {}
    inner, features = backbone_size(
        built["backbone"], options, channels=channels, width=built["width"], receptive_field=seen
    )
    weights = {
        "predicted weights": groups * channels * predicted,
        "backbone": inner,
        "classes": features * len(header["classes"]["codes"]),
    }
    there = sum(math.prod(shape) for _, shape in stored.shapes.values())
    if sum(weights.values()) > there:
        raise Unfit("number of weights of the architecture", sum(weights.values()), f"at most the {there} of the file")
    numbers = {
        "bands x knots": 8 * bands * knots,
        "groups x bands": 4 * groups * bands,
        "groups x channels x (bands + knots)": 6 * groups * channels * (bands + knots),
        **weights,
    }
    largest = max(numbers, key=lambda name: numbers[name])
    if 4 * sum(numbers.values()) > _MOST_NETWORK_BYTES:
        value = f"{4 * sum(numbers.values()) / 1e9:.3g} GB (most of it for {largest})"
        raise Unfit("memory that the network needs", value, f"at most {_MOST_NETWORK_BYTES / 1e9:.3g} GB")


def _network(header: dict[str, Any]) -> FusionNetwork:
    return build_network(
        Bands(**header["bands"]),
        [BandGroup(**group) for group in header["groups"]],
        num_classes=len(header["classes"]["codes"]),
        sources=[(source["name"], source["layers"]) for source in header["sources"]],
        **header["architecture"],
    )


def _check_tensors(stored: StoredModel, network: FusionNetwork) -> None:
    """Names, types and shapes have to be those of the network that the header names."""
    expected = {name: (_TYPES[t.dtype], tuple(t.shape)) for name, t in network.state_dict().items()}
    if missing := sorted(expected.keys() - stored.shapes.keys()):
        raise Unfit("tensor", f"{missing[0]} missing", "all of the network that the header names")
    if len(stored.shapes) > len(expected):
        unknown = min(stored.shapes.keys() - expected.keys())
        raise Unfit("tensor", printable(unknown, longest=60), "none but those of the network that the header names")
    for name, (dtype, shape) in stored.shapes.items():
        if (dtype, shape) != expected[name]:
            wanted = "{} {}".format(*expected[name])
            raise Unfit(f"tensor {name}", f"{dtype} {shape}", f"{wanted}, as the header says")


def _check_numbers(tensors: dict[str, torch.Tensor], network: FusionNetwork) -> None:
    built = network.state_dict()
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise Unfit(f"tensor {name}", "not finite", "finite numbers")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise Unfit(f"tensor {name}", "negative", "variances, at least 0")
        if name in ("std", "fusion.gates.width") and not bool((tensor > _LEAST_STD).all()):
            raise Unfit(f"tensor {name}", f"{float(tensor.min()):g}", "positive numbers")
        if name == "fusion.passed" and bool((tensor < 0).any()):
            raise Unfit(f"tensor {name}", "negative", "shares, at least 0")
        if name in _GIVEN and not torch.equal(tensor, built[name]):
            raise Unfit(f"tensor {name}", "not that of the header", "what bands and groups of the header give")


def _check_membership(found: torch.Tensor, header: dict[str, Any], network: FusionNetwork) -> None:
    """The groups hold the bands of their intervals; those of a network carried over, any bands that may be used."""
    built = network.fusion.membership
    carried = header["architecture"].get("response") == "carried"
    fitting = (
        bool((found & built).sum() == found.sum() and found.any(1).all()) if carried else torch.equal(found, built)
    )
    if not fitting:
        raise Unfit("tensor fusion.membership", "not that of the header", "the bands of its groups")
