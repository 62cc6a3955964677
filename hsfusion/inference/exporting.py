"""The folded network for other programs, in files that say what they take and give."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hsfusion import __version__
from hsfusion.inference.folding import FoldedNetwork
from hsfusion.publishing import publish, write_file

#: under what name the description lies in the metadata of an ONNX file
ONNX_KEY = "hsfusion"
#: under what name it lies among the extra files of ``torch.export``
EXTRA_FILE = "hsfusion.json"

_DYNAMIC = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}  # rows and columns
_UNIT = (
    "every layer in the unit of the training scene, as stored values times scale plus offset gave it there; "
    "training_mean of a layer is its mean over the training pixels"
)
_MISSING = "NaN; a pixel that misses a value in any layer has no class, its neighbours see the training mean there"


def describe(network: FoldedNetwork, header: Mapping[str, Any], *, model_sha256: str) -> dict[str, Any]:
    """What one has to know to use an exported network, and cannot see from its graph, as plain values.

    ``layers`` has one entry for each layer of the input, in its order: ``wavelength_nm`` and ``fwhm_nm`` (None where
    unknown) of a band, or ``source`` and ``layer`` (from 0) of a further raster, and ``training_mean``. ``classes`` are
    in the order of the logits. ``unit`` and ``missing`` say what numbers and NaN in the input mean. Header and SHA-256
    are of the model file.
    """
    bands, classes, scene = header["bands"], header["classes"], header.get("training_scene")
    widths = bands["fwhm_nm"] or [None] * len(bands["wavelength_nm"])
    pairs = zip(bands["wavelength_nm"], widths, strict=True)
    entries: list[dict[str, Any]] = [{"wavelength_nm": centre, "fwhm_nm": width} for centre, width in pairs]
    entries += [{"source": of["name"], "layer": i} for of in header["sources"] for i in range(of["layers"])]
    means = zip(network.layers.tolist(), network.fill.tolist(), strict=True)
    return {
        "hsfusion_version": __version__,
        "model_sha256": model_sha256,
        "receptive_field": network.receptive_field,
        "layers": [{**entries[index], "training_mean": mean} for index, mean in means],
        "classes": {"codes": list(classes["codes"]), "names": list(classes["names"])},
        "unit": _UNIT,
        "missing": _MISSING,
        "training_scene": None if scene is None else {"name": scene["name"], "values": scene["values"]},
    }


def exported_program(network: FoldedNetwork) -> torch.export.ExportedProgram:
    """The network, on the CPU and in float32, as ``torch.export`` sees it, for tiles (1, L, H, W) of any size."""
    edge = network.receptive_field + 8
    example = torch.zeros(1, len(network.layers), edge, edge + 1)
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return torch.export.export(plain, (example,), dynamic_shapes=(_DYNAMIC,))


def export_program(network: FoldedNetwork, path: Path, *, header: Mapping[str, Any], model_sha256: str) -> None:
    """Writes a network, on the CPU and in float32, for ``torch.export.load``: (1, L, H, W) to logits (1, K, H', W').

    The input holds the bands and layers :attr:`FoldedNetwork.layers` in the unit of the training scene, NaN where a
    value is missing; H' = H - receptive field + 1. What :func:`describe` says is its extra file ``hsfusion.json``.
    """
    text = json.dumps(describe(network, header, model_sha256=model_sha256), sort_keys=True, allow_nan=False)
    content = io.BytesIO()
    torch.export.save(exported_program(network), content, extra_files={EXTRA_FILE: text})
    write_file(path, content.getvalue())


def export_onnx(network: FoldedNetwork, path: Path, *, header: Mapping[str, Any], model_sha256: str) -> None:
    """Writes ONNX: input ``pixels`` (1, L, H, W), output ``logits`` (1, K, H', W'), like :func:`export_program`.

    What :func:`describe` says is in the metadata under ``hsfusion``. Needs the package onnxscript.
    """
    text = json.dumps(describe(network, header, model_sha256=model_sha256), sort_keys=True, allow_nan=False)
    program = torch.onnx.export(
        exported_program(network), (), input_names=["pixels"], output_names=["logits"], verbose=False
    )
    assert program is not None
    program.model.metadata_props[ONNX_KEY] = text
    with publish(path) as part:
        program.save(part, external_data=False)
