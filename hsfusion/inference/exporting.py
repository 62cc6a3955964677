"""The folded network for other programs."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from hsfusion.inference.folding import FoldedNetwork

_DYNAMIC = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}  # rows and columns


def exported_program(network: FoldedNetwork) -> torch.export.ExportedProgram:
    """The network as ``torch.export`` sees it, for tiles (1, L, H, W) of any size.

    Args:
        network: on the CPU, in float32.
    """
    edge = network.receptive_field + 8
    example = torch.zeros(1, len(network.layers), edge, edge + 1)
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return torch.export.export(plain, (example,), dynamic_shapes=(_DYNAMIC,))


def export_onnx(network: FoldedNetwork, path: Path) -> None:
    """Writes the network as ONNX: input ``pixels`` (1, L, H, W), output ``logits`` (1, K, H', W').

    The input holds the bands :attr:`FoldedNetwork.layers` in the unit of the training scene, NaN where a value is
    missing; H' = H - receptive field + 1. Needs the package onnxscript.

    Args:
        network: on the CPU, in float32.
        path: where to.
    """
    torch.onnx.export(
        exported_program(network),
        (),
        path,
        input_names=["pixels"],
        output_names=["logits"],
        verbose=False,
        external_data=False,
    )
