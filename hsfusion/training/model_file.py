"""The model file: tensors and a JSON header in one ``model.safetensors``, all that is needed to use the model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.nn import FusionNetwork
from hsfusion.spectra import BandGroup, Bands
from hsfusion.training.building import build_network

FORMAT_VERSION = 2


def save_model(path: Path, network: FusionNetwork, *, header: dict[str, Any]) -> None:
    """Writes a network.

    The same network and header give the same bytes.

    Args:
        path: where to.
        network: the network.
        header: plain values; must hold ``bands``, ``groups``, ``classes`` and ``architecture`` as
            :func:`load_model` needs them.

    Raises:
        EnvironmentFailure: if the file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    text = json.dumps({"format_version": FORMAT_VERSION, **header}, sort_keys=True, allow_nan=False)
    part = path.with_name(f".{path.name}.part")
    try:
        # one key only: safetensors keeps several in no fixed order
        save_file(tensors, part, metadata={"hsfusion": text})
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
        InputError: if the file is no model of this format, or tensors and header do not fit together.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["hsfusion"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {header['format_version']}, not {FORMAT_VERSION}")
        network = build_network(
            Bands(**header["bands"]),
            [BandGroup(**group) for group in header["groups"]],
            num_classes=len(header["classes"]["codes"]),
            sources=[(source["name"], source["layers"]) for source in header["sources"]],
            **header["architecture"],
        )
        network.load_state_dict(tensors)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            raise ValueError("tensors that are not finite")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            path,
            field="content",
            value=f"not readable ({str(error).splitlines()[0]})",
            expected=f"a model.safetensors of hsfusion, format {FORMAT_VERSION}",
            fix="name the file model.safetensors of a run",
        ) from error
    return network.eval(), header
