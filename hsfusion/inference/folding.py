"""Folding: a trained network with fewer operations and the same numbers, also for export to other programs."""

from __future__ import annotations

import copy
import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hsfusion import __version__
from hsfusion.nn import FusionNetwork
from hsfusion.nn.band_fusion import crop
from hsfusion.nn.network import patch_mean
from hsfusion.publishing import publish, write_file

#: under what name the description lies in the metadata of an ONNX file
ONNX_KEY = "hsfusion"
#: under what name it lies among the extra files of ``torch.export``
EXTRA_FILE = "hsfusion.json"

_UNIT = (
    "every layer in the unit of the training scene, as stored values times scale plus offset gave it there; "
    "training_mean of a layer is its mean over the training pixels"
)
_MISSING = "NaN; a pixel that misses a value in any layer has no class, its neighbours see the training mean there"


class FoldedNetwork(nn.Module):
    """A trained network, left as it is, as one matrix product for each pixel, then convolutions.

    Standardisation, gates, response, group weights, normalisation and a 1 x 1 convolution at the start of the backbone
    are all linear: here they are one matrix. Every other normalisation that follows a convolution in an
    ``nn.Sequential`` is part of it. Where the group weights depend on the pixels (instance kinds), the band fusion
    stays as it is.

    ``layers`` (L,) are the ascending indices of the bands and further layers that it takes, the others make no
    difference; ``fill`` (L,) stands for missing values: the means of the training pixels; ``receptive_field`` is odd,
    in pixels.
    """

    layers: Tensor
    fill: Tensor

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__()
        network = copy.deepcopy(network).eval().requires_grad_(False)
        cnn = network.cnn
        self.register_buffer("layers", network.used_bands.nonzero()[:, 0])
        self.register_buffer("fill", network.mean[self.layers])
        self.receptive_field = network.receptive_field
        hidden = _parts(cnn.features)
        first = _after(cnn.norm, hidden.pop(0) if _is_pixelwise(hidden[0]) else None)
        if network.fusion.kind.endswith("instance"):
            self.front: nn.Module = InstanceFront(network, self.layers, first)
        else:
            self.front = PixelMatrix(*_matrix(network, self.layers, first))
        self.linear = network.linear
        self.of_mean = self.linear is not None and bool(self.linear.of_mean)  # a graph has no branches
        self.convolutions = nn.Sequential(*hidden)
        self.classifier = cnn.classifier
        self.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, H - receptive_field + 1, W - receptive_field + 1) of x (B, L, H, W) float32.

        x is in the unit of the training scene, NaN where a value is missing.
        """
        return self.convolve(self.front(self.filled(x)))

    def classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K, H', W') like :meth:`forward`, and (B, H', W') bool: whether the pixel itself misses a value.

        In the patches of its neighbours it has the training mean.
        """
        radius = self.receptive_field // 2
        inner = slice(radius, x.shape[2] - radius), slice(radius, x.shape[3] - radius)
        if not isinstance(self.front, PixelMatrix):
            missing = x.isnan().any(1)
            return self.convolve(self.front(self.filled(x))), missing[:, *inner]
        fused = self.front(x)
        missing = fused[:, 0].isnan()  # whatever the weight, NaN comes through
        if missing.any():
            fused = self.front(self.filled(x))
        return self.convolve(fused), missing[:, *inner]

    def filled(self, x: Tensor) -> Tensor:
        """Puts the training mean where a value is missing."""
        return torch.where(x.isnan(), self.fill[:, None, None], x)

    def convolve(self, fused: Tensor) -> Tensor:
        """From what :attr:`front` returns to float32 logits; hidden layers in the number type of their weights."""
        first = next(self.convolutions.parameters(), self.classifier.weight)
        if self.linear is None:
            return self.classifier(self.convolutions(fused.to(first.dtype)).float())
        classes = self.classifier.out_channels
        hidden, direct = fused[:, :-classes], fused[:, -classes:]  # of views of a split no gradient is taken in place
        logits = self.classifier(self.convolutions(hidden.to(first.dtype)).float())
        place = patch_mean if self.of_mean else crop
        return self.linear.mix(logits, place(direct, self.receptive_field // 2).float())


@torch.no_grad()
def check_folding(network: FusionNetwork) -> None:
    """Makes sure that a new network (on the CPU) can be folded, because maps are made with the folded network.

    Raises:
        ValueError: if the folded network gives other numbers, as with a backbone that takes a convolution out of an
            ``nn.Sequential`` without the normalisation after it.
    """
    network, random = copy.deepcopy(network).eval(), torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(generator=random)  # a new one changes nothing, folded or not
            module.running_var.uniform_(0.5, 2, generator=random)
    edge = network.receptive_field + 1
    x = torch.randn(1, len(network.mean), edge, edge, generator=random)
    with torch.random.fork_rng([]):  # a new convolution draws its weights
        logits, folded = network(x), FoldedNetwork(network)
    if not torch.allclose(folded(x[:, folded.layers]), logits, rtol=0, atol=1e-4 * float(logits.abs().max())):
        raise ValueError(
            f"logits of backbone {type(network.cnn.features).__name__} change once normalisation is part of the "
            "convolutions before it, expected every nn.Sequential in it to be called as a whole"
        )


class PixelMatrix(nn.Module):
    """One matrix product for each pixel, weight (M, L) and bias (M,): (B, L, H, W) to (B, M, H, W), channels last."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies; no copy is made of an x that lies band by band, or pixel by pixel."""
        flat = x.movedim(1, -1).reshape(-1, x.shape[1])  # (B H W, L)
        product = torch.addmm(self.bias, flat, self.weight.T)
        return product.view(x.shape[0], *x.shape[2:], -1).movedim(-1, 1)


class InstanceFront(nn.Module):
    """Band fusion with weights that depend on the pixels, on (L,) layers, and the first 1 x 1 convolution."""

    layers: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, network: FusionNetwork, layers: Tensor, first: nn.Conv2d) -> None:
        super().__init__()
        self.register_buffer("layers", layers)
        self.register_buffer("mean", network.mean[layers, None, None])
        self.register_buffer("std", network.std[layers, None, None])
        self.bands = len(network.mean)
        self.fusion = network.fusion
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """Fuses (B, L, H, W) to (B, M, H', W'); layers that are not taken are 0 once standardised."""
        every = x.new_zeros(x.shape[0], self.bands, *x.shape[2:])
        return self.first(self.fusion(every.index_copy(1, self.layers, (x - self.mean) / self.std)))


def _parts(backbone: nn.Module) -> list[nn.Module]:
    """What a backbone does one after the other, its normalisations fused into the convolutions before them."""
    chains: Any = [module for module in backbone.modules() if _is_chain(module)]  # nn.Sequential, all of them
    for chain in chains:
        for i, (one, other) in enumerate(itertools.pairwise(list(chain))):  # children() names a module once
            if type(one) is nn.Conv2d and type(other) is nn.BatchNorm2d and other.running_mean is not None:
                chain[i], chain[i + 1] = fuse_conv_bn_eval(one, other), nn.Identity()  # others keep their places
    if not _is_chain(backbone):
        return [backbone]
    parts = [part for part in backbone if type(part) is not nn.Identity]
    for i, part in enumerate(parts):
        if type(part) is nn.ReLU and (i == 0 or type(parts[i - 1]) is nn.Conv2d):  # nobody else sees what it takes
            parts[i] = nn.ReLU(inplace=True)
    return parts


def _is_chain(module: nn.Module) -> TypeGuard[nn.Sequential]:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _is_pixelwise(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and (*module.kernel_size, *module.stride, module.groups) == (1, 1, 1, 1, 1)
        and module.padding in ((0, 0), "valid", "same")
    )


def _after(norm: nn.BatchNorm2d, convolution: nn.Module | None) -> nn.Conv2d:
    """A 1 x 1 convolution, or none, that does what the normalisation before it did, too."""
    if convolution is None:
        convolution = nn.Conv2d(norm.num_features, norm.num_features, 1, bias=False).requires_grad_(False)
        convolution.weight.copy_(torch.eye(norm.num_features)[:, :, None, None])
    assert isinstance(convolution, nn.Conv2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * gain
    weight = convolution.weight[:, :, 0, 0].double()
    bias = weight @ shift.double() + (0 if convolution.bias is None else convolution.bias.double())
    result = nn.Conv2d(weight.shape[1], weight.shape[0], 1).requires_grad_(False)
    result.weight.copy_((weight * gain.double())[:, :, None, None])
    result.bias.copy_(bias)  # pyright: ignore[reportOptionalMemberAccess]
    return result


def _matrix(network: FusionNetwork, layers: Tensor, first: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Standardisation, fusion, first convolution and linear part (its K rows follow) as weight (M, L), bias (M,)."""
    assert first.bias is not None
    weight, bias = first.weight[:, :, 0, 0].double() @ network.matrix().double(), first.bias.double()
    if network.linear is not None:
        weight = torch.cat([weight, network.linear.weight.double()])
        bias = torch.cat([bias, network.linear.bias.double()])
    weight = weight / network.std.double()
    bias = bias - weight[:, layers] @ network.mean[layers].double()
    return weight[:, layers].float(), bias.float()


def describe(network: FoldedNetwork, header: Mapping[str, Any], *, model_sha256: str) -> dict[str, Any]:
    """What is needed to use an exported network but not contained in its graph, as plain values.

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
    return torch.export.export(plain, (example,), dynamic_shapes=(dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC),))


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
