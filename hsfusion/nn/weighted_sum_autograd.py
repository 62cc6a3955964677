"""Sums of weighted tensors and products with small matrices whose gradients need no temporary of an input's size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# products are summed piece by piece: this many elements stay in a core's cache
_PIECE_CPU = 2**18
# elsewhere a piece costs the start of three kernels: at least this many, and no more than a few dozen pieces
_PIECE_GPU, _PIECES_GPU = 2**22, 32


def weighted_sum(weights: Tensor, *inputs: Tensor) -> Tensor:
    r"""Computes :math:`\sum_n w_n x_n`, broadcasting each weight and input to the shape of the widest input.

    The backward pass holds no product of an input's size: the gradient of a weight, the sum of
    :math:`\partial L/\partial y \cdot x_n` over the axes along which the weight was broadcast, is taken in pieces.
    It can be differentiated again. Under ``torch.compile`` and ``torch.export`` the plain expression is traced instead,
    which the compiler fuses itself.

    Weights (N, ...) have as many axes as the inputs after the first, of which axis 1 may be 1 in some. The result has
    the dtype that the inputs promote to; gradients of weights are summed in single precision.
    """
    if torch.compiler.is_compiling():
        return _sum(weights, inputs)
    return _WeightedSum.apply(weights, *inputs)  # pyright: ignore[reportReturnType]


def with_product(x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """X (B, C, ...) itself, and its product (B, K, ...) with a matrix (C, K).

    Using the tensor that is returned lets the backward pass add the product's gradient to the other one in place; as
    two uses of ``x`` they would be two tensors of its size.
    """
    if torch.compiler.is_compiling():
        return x, _product(x, matrix)
    return _WithProduct.apply(x, matrix)  # pyright: ignore[reportReturnType]


def _sum(weights: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    dtype = inputs[0].dtype
    for x in inputs[1:]:
        dtype = torch.promote_types(dtype, x.dtype)
    weights = weights.to(dtype)
    total = weights[0] * inputs[0].to(dtype)
    for weight, x in zip(weights[1:], inputs[1:], strict=True):
        total = torch.addcmul(total, weight, x.to(dtype))
    return total


class _WeightedSum(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(weights: Tensor, *inputs: Tensor) -> Tensor:
        return _sum(weights, inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keeps weights and inputs, which exist anyway."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the weights (N, ...) and of each input that needs one."""
        (grad,) = grad_outputs
        weights, *inputs = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        for_weights = None
        if wanted[0]:
            shape = weights.shape[1:]
            for_weights = torch.stack([_inner(grad, x, shape) for x in inputs]).to(weights.dtype)
        for_inputs = [
            _times(grad, weight, x) if needed else None
            for weight, x, needed in zip(weights, inputs, wanted[1:], strict=True)
        ]
        return for_weights, *for_inputs


def _times(grad: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    """``grad * weight``, summed over the axes along which x was broadcast."""
    weight = weight.to(grad.dtype)
    if x.shape == grad.shape:
        return (grad * weight).to(x.dtype)
    if weight.shape[1] == 1:
        return (grad.sum(1, keepdim=True) * weight).to(x.dtype)
    return _inner(grad, weight, x.shape).to(x.dtype)


def _inner(a: Tensor, b: Tensor, shape: torch.Size, piece: int | None = None) -> Tensor:
    """``a * b`` summed to a shape, by halves, so that rounding errors stay small and temporaries too."""
    if piece is None:
        piece = _PIECE_CPU if a.device.type == "cpu" else max(_PIECE_GPU, a.numel() // _PIECES_GPU)
    if a.numel() <= piece:
        single = torch.promote_types(a.dtype, torch.float32)
        return (a.to(single) * b).sum_to_size(shape)
    # halves along the outermost axis in memory are contiguous
    axis = max((d for d in range(a.dim()) if a.shape[d] > 1), key=lambda d: (a.stride(d), a.shape[d]))
    half = a.shape[axis] // 2
    parts = []
    for start, length in ((0, half), (half, a.shape[axis] - half)):
        second = b if b.shape[axis] == 1 else b.narrow(axis, start, length)
        part = list(shape)
        part[axis] = 1 if shape[axis] == 1 else length
        parts.append(_inner(a.narrow(axis, start, length), second, torch.Size(part), piece))
    return parts[0] + parts[1] if shape[axis] == 1 else torch.cat(parts, axis)


class _WithProduct(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        return x.view_as(x), _product(x, matrix)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Any) -> None:
        """Keeps x and the matrix; x passes without a gradient if it needs none."""
        ctx.save_for_backward(*inputs)
        if not inputs[0].requires_grad:
            ctx.mark_non_differentiable(output[0])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of x (B, C, ...), both uses together, and of the matrix (C, K)."""
        grad_x, grad = grad_outputs
        x, matrix = ctx.saved_tensors
        grad = grad.to(x.dtype)  # autocast makes products of half precision
        for_x = for_matrix = None
        if ctx.needs_input_grad[0] and (torch.is_grad_enabled() or _flat(grad_x).data_ptr() != grad_x.data_ptr()):
            for_x = grad_x + _product(grad, matrix.T)
        elif ctx.needs_input_grad[0]:
            # nobody else holds this gradient: it comes from the only use of what forward returned
            for_x = grad_x
            _flat(for_x).baddbmm_(matrix.to(grad.dtype).expand(len(x), -1, -1), _flat(grad))
        if ctx.needs_input_grad[1]:
            for_matrix = torch.bmm(_flat(x), _flat(grad).mT).sum(0).to(matrix.dtype)
        return for_x, for_matrix


def _product(x: Tensor, matrix: Tensor) -> Tensor:
    rows = matrix.T.to(x.dtype).expand(len(x), -1, -1)
    return torch.bmm(rows, _flat(x)).reshape(len(x), rows.shape[1], *x.shape[2:])


def _flat(x: Tensor) -> Tensor:
    return x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)  # (B, C, L)
