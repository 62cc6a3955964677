"""The weighted combination of tensors with learnable weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["scalar", "channel", "instance", "channel_instance", "none"]
Constraint = Literal["none", "affine", "convex", "signed"]

_INDEX = (torch.int32, torch.int64)  # others are masks
_TINY = 1e-12  # keeps the division of an all-zero weight vector finite
# products are summed piece by piece: this many elements stay in a core's cache
_PIECE_CPU = 2**18
# elsewhere a piece costs the start of three kernels: at least this many, and no more than a few dozen pieces
_PIECE_GPU, _PIECES_GPU = 2**22, 32


class WeightedSum(nn.Module):
    r"""Weighted sum of N tensors, :math:`y = \phi(\sum_n w_n \odot x_n)`, with learnable weights.

    Kinds of weights: one per input (``scalar``), per input and channel (``channel``), per input and instance
    (``instance``), or per input, channel and instance (``channel_instance``); ``none`` is the plain sum. With
    ``num_instances`` those of instances stand in a table with one row for each, chosen by ``index``; without, they are
    predicted at every position from the inputs around it, so an image gets a map of weights.

    Constraints, always over the N inputs: ``none``; ``affine``, sum to 1, any sign (w and 1 - w for two inputs);
    ``convex``, softmax, non-negative and sum to 1; ``signed``, absolute values sum to 1, so that a sum can also be a
    difference of inputs.

    Gradients of any order, ``torch.compile``, ``torch.export`` and ONNX work. Forward-mode differentiation does not,
    nor does ``torch.func.vmap`` over predicted weights.

    Args:
        num_inputs: N.
        kind: see above.
        channels: C, needed by every kind but ``scalar`` and ``none`` and the ``instance`` table.
        num_instances: rows of the table for the instance kinds; None predicts the weights instead.
        constraint: see above.
        init: raw weights: ``uniform`` (1/N each), ``normal`` (standard deviation 1/N around 0, one value from each of
            equal parts of the distribution along the channels), ``xavier`` (Glorot), one number, N, or all of them.
        activation: applied after the sum; None for none.
        neighbourhood: odd width, in positions, of the square of each image position from which ``instance`` weights
            are predicted. Zero padding is left out of the averages at the border.
    """

    def __init__(
        self,
        num_inputs: int,
        *,
        kind: Kind = "channel",
        channels: int | None = None,
        num_instances: int | None = None,
        constraint: Constraint = "signed",
        init: str | float | Sequence[float] = "uniform",
        activation: Callable[[Tensor], Tensor] | None = None,
        neighbourhood: int = 1,
    ) -> None:
        super().__init__()
        predicted = kind.endswith("instance") and num_instances is None
        for name, value, choices in (("kind", kind, get_args(Kind)), ("constraint", constraint, get_args(Constraint))):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
        _check_numbers(kind, num_inputs, num_instances, neighbourhood)
        if channels is None and (kind.startswith("channel") or predicted):
            raise ValueError(f"channels is None, expected the number of channels for kind {kind!r}")
        self.num_inputs = num_inputs
        self.kind = kind
        self.channels = channels
        self.num_instances = num_instances
        self.constraint = constraint
        self.activation = activation
        self.neighbourhood = neighbourhood
        per_instance = (num_inputs, channels) if kind.startswith("channel") else (num_inputs,)
        self._per_instance: tuple[int, ...] = tuple(int(size or 0) for size in per_instance)
        rows = () if num_instances is None else (num_instances,)
        start = _initial(init, num_inputs, rows, self._per_instance)
        if constraint == "signed" and not bool(start.any()):
            raise ValueError(f"init is {init}, expected values other than 0 with the constraint signed")
        self.raw = nn.Parameter(start) if kind != "none" else nn.Buffer(torch.ones(num_inputs))
        self.predictor: nn.Parameter | None = None
        if predicted:
            # starts at zero: the same weights everywhere until the data ask for something else
            self.predictor = nn.Parameter(torch.zeros(num_inputs, int(channels or 0), start.numel()))

    @property
    def weights(self) -> Tensor:
        """Weights as the forward pass uses them; predicted ones depend on the inputs, see :meth:`predict`.

        (N,) for scalar and none, (N, C) for channel, (instances, N) or (instances, N, C) for a table.
        """
        if self.predictor is not None:
            raise ValueError("predicted instance weights depend on the inputs: call predict(*inputs)")
        if self.kind == "none":
            return self.raw
        return self._constrain(self.raw, dim=0 if self.num_instances is None else 1)

    def predict(self, *inputs: Tensor) -> Tensor:
        """Instance weights for inputs (B, C, ...): (B, N, ...), or (B, N, C, ...) for channel_instance."""
        return self._predict(inputs)[1]

    def _predict(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        """The inputs, through which the gradient of the weights flows back, and the weights."""
        passed, terms = [], []
        assert self.predictor is not None, "the weights are not predicted: read the property weights"
        for x, matrix in zip(inputs, self.predictor, strict=True):
            x, term = with_product(x, matrix.sum(0, keepdim=True) if x.shape[1] == 1 else matrix)
            passed.append(x)
            terms.append(term)
        raw = self._average_around(sum(terms[1:], terms[0]))  # after the product: both are linear, this is cheaper
        bias = self.raw.reshape(1, -1, *([1] * (raw.dim() - 2)))
        raw = (raw + bias).reshape(raw.shape[0], *self._per_instance, *raw.shape[2:])
        return tuple(passed), self._constrain(raw, dim=1)

    def forward(self, *inputs: Tensor, index: Tensor | None = None) -> Tensor:
        """Sums N tensors of one shape (B, C, ...), of which those with a single channel count for all: (B, C, ...).

        ``index`` (B,) int64 chooses the rows of a table of instances. Inputs that do not fit are a ValueError, so that
        nothing broadcasts by accident.
        """
        self._check(inputs, index)
        if self.predictor is not None:
            inputs, weights = self._predict(inputs)
            weights = weights.movedim(1, 0)  # (N, B, ...) or (N, B, C, ...)
            if self.kind == "instance":
                weights = weights.unsqueeze(2)  # (N, B, 1, ...)
        elif index is not None:
            weights = self.weights[index].movedim(1, 0)  # (N, B) or (N, B, C)
            weights = weights.reshape(*weights.shape[:2], -1, *([1] * (inputs[0].dim() - 2)))
        else:
            weights = self.weights.reshape(self.num_inputs, 1, -1, *([1] * (inputs[0].dim() - 2)))
        total = weighted_sum(weights, *inputs)
        return total if self.activation is None else self.activation(total)

    def extra_repr(self) -> str:
        """Returns what ``print`` shows between the brackets."""
        return f"{self.num_inputs}, kind={self.kind}, channels={self.channels}, constraint={self.constraint}"

    def _constrain(self, raw: Tensor, dim: int) -> Tensor:
        if self.constraint == "affine":
            return raw - raw.mean(dim, keepdim=True) + 1 / self.num_inputs
        if self.constraint == "convex":
            return raw.softmax(dim)
        if self.constraint == "signed":
            return raw / (raw.abs().sum(dim, keepdim=True) + _TINY)
        return raw

    def _average_around(self, x: Tensor) -> Tensor:
        if self.neighbourhood == 1:
            return x
        k = self.neighbourhood
        return F.avg_pool2d(x, k, stride=1, padding=k // 2, count_include_pad=False)

    def _check(self, inputs: Sequence[Tensor], index: Tensor | None) -> None:
        tables = index is not None, self.num_instances is not None
        if tables[0] != tables[1] or (index is not None and (index.dim() != 1 or index.dtype not in _INDEX)):
            given = index if index is None else f"{index.dtype} of shape {tuple(index.shape)}"
            raise ValueError(f"index is {given}, expected int64 (B,) with a table of instances, else None")
        batch, width, positions = inputs[0].shape[0], max(x.shape[1] for x in inputs), inputs[0].shape[2:]
        for x in inputs:
            fits = x.shape[0] == batch and x.shape[1] in (1, width) and x.shape[2:] == positions
            if not fits or not x.is_floating_point() or (self.neighbourhood > 1 and x.dim() != 4):
                raise ValueError(
                    f"input is {x.dtype} of shape {tuple(x.shape)}, expected floating point "
                    f"({batch}, {width} or 1, {', '.join(map(str, positions))}) like the others"
                )
        if len(inputs) != self.num_inputs or width != (self.channels or width):
            raise ValueError(
                f"got {len(inputs)} inputs of {width} channels, expected {self.num_inputs} of {self.channels or 'any'}"
            )


def _check_numbers(kind: str, num_inputs: int, num_instances: int | None, neighbourhood: int) -> None:
    table = num_instances is not None
    for name, value, wrong, expected in (
        ("num_inputs", num_inputs, num_inputs < 1, "at least 1"),
        ("neighbourhood", neighbourhood, neighbourhood < 1 or neighbourhood % 2 == 0, "an odd number of positions"),
        ("num_instances", num_instances, table and not kind.endswith("instance"), f"None for kind {kind!r}"),
    ):
        if wrong:
            raise ValueError(f"{name} is {value}, expected {expected}")


def _initial(init: str | float | Sequence[float], n: int, rows: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    full = torch.empty(*rows, *shape)
    if init == "uniform":
        return full.fill_(1 / n)
    if init == "normal":
        part = torch.rand(full.shape).argsort(-1) + torch.rand(*full.shape[:-1], 1)
        return torch.special.ndtri((part / full.shape[-1]).clamp(1e-4, 1 - 1e-4)) / n
    if init == "xavier":
        return nn.init.xavier_normal_(full.reshape(-1, n) if full.dim() < 2 else full).reshape(full.shape)
    if isinstance(init, str):
        raise ValueError(f"init is {init!r}, expected uniform, normal, xavier, a number or {n} numbers")
    values = torch.as_tensor(init, dtype=full.dtype)
    if values.dim() == 0:
        return full.fill_(float(values))
    if values.shape == full.shape:
        return full.copy_(values)
    return full.copy_(values.reshape(n, *([1] * (len(shape) - 1))))


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
