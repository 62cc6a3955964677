"""The weighted combination of tensors with learnable weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["scalar", "channel", "instance", "channel_instance", "none"]
Constraint = Literal["none", "affine", "convex", "signed"]
Per = Literal["pixel", "image"]
Init = str | Sequence[float] | Tensor | Callable[[Tensor], object]

# each weight vector of N inputs is a matrix (1, N) to torch.nn.init: fan-in N, fan-out 1
_FILLS = {"xavier": nn.init.xavier_normal_, "kaiming": nn.init.kaiming_normal_, "orthogonal": nn.init.orthogonal_}
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    **{"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU},
    **{"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "softplus": nn.Softplus},
}
# what a constraint allows start weights to be
_HELD = {"none": "finite", "affine": "with sum 1", "convex": "above 0 with sum 1", "signed": "with absolute sum 1"}
_DESCRIBED = ("kind", "constraint", "per")  # what the tensors of a state mean
_INDEX = (torch.int32, torch.int64)  # others are masks
_TINY = 1e-12  # keeps the division of an all-zero weight vector finite
# products are summed piece by piece: this many elements stay in a core's cache
_PIECE_CPU = 2**18
# elsewhere a piece costs the start of three kernels: at least this many, and no more than a few dozen pieces
_PIECE_GPU, _PIECES_GPU = 2**22, 32


class WeightedSum(nn.Module):
    """Weighted sum of N tensors, ``y = φ(Σ_n w[n] x[n])``, with learnable weights and an activation φ.

    Kinds of weights: one per input (``scalar``), per input and channel (``channel``), per input and instance
    (``instance``), or per input, channel and instance (``channel_instance``); ``none`` is the plain sum. With
    ``num_instances`` instance weights form a table with one row per instance, chosen by ``index``; without, they are
    predicted from the inputs: at every position, so that an image gets a map of weights, or once per image.

    Constraints, always over the N inputs: ``none``; ``affine``, sum to 1, any sign (w and 1 - w for two inputs);
    ``convex``, softmax, non-negative and sum to 1; ``signed``, absolute values sum to 1, so that a sum can also be a
    difference of inputs.

    Gradients of any order, ``torch.compile``, ``torch.export`` and ONNX work. Forward-mode differentiation does not,
    nor does ``torch.func.vmap`` over predicted weights or an index. ``state_dict`` holds kind, constraint and ``per``
    as metadata; loading it into a layer with others raises ValueError. Tensors without metadata load by shape alone.

    Args:
        num_inputs: N.
        kind: see above.
        channels: C, needed by every kind but ``scalar`` and ``none`` and the ``instance`` table.
        num_instances: rows of the table for the instance kinds; None predicts the weights instead.
        constraint: see above.
        init: initial weights as numbers that satisfy the constraint: N, or all of them. Or how to fill the raw
            weights, on which the constraint acts: ``uniform`` (1/N each), ``normal`` (standard deviation 1/N around 0,
            one value from each of equal parts of the distribution along the channels), ``xavier``, ``kaiming`` (normal
            distributions of Glorot and He, for fan-in N and fan-out 1), ``orthogonal`` (each N channels in turn), or a
            function as in ``torch.nn.init``, such as ``partial(nn.init.uniform_, a=-1, b=1)``, which is called with a
            matrix (1, N) for each channel and instance.
        activation: applied after the sum: a function, or the name of one (``relu``, ``leaky_relu``, ``elu``, ``gelu``,
            ``silu``, ``sigmoid``, ``tanh``, ``softplus``); None for none.
        per: ``pixel`` predicts weights at every position, ``image`` one set for each image, from its mean inputs.
        neighbourhood: odd width, in positions, of the square of each image position from which weights per pixel
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
        init: Init = "uniform",
        activation: str | Callable[[Tensor], Tensor] | None = None,
        per: Per = "pixel",
        neighbourhood: int = 1,
    ) -> None:
        super().__init__()
        self.num_inputs = num_inputs
        self.kind = kind
        self.channels = channels
        self.num_instances = num_instances
        self.constraint = constraint
        self.activation = _activation(activation)
        self.per = per
        self.neighbourhood = neighbourhood
        predicted = kind.endswith("instance") and num_instances is None
        self._check_arguments(predicted)
        per_instance = (num_inputs, channels) if kind.startswith("channel") else (num_inputs,)
        self._per_instance: tuple[int, ...] = tuple(int(size or 0) for size in per_instance)
        self._table_rows: tuple[int, ...] = () if num_instances is None else (num_instances,)
        start = _start(init, (*self._table_rows, *self._per_instance), len(self._table_rows), constraint)
        self.raw = nn.Parameter(start) if kind != "none" else nn.Buffer(torch.ones(num_inputs))
        self.predictor: nn.Parameter | None = None
        if predicted:
            # starts at zero: the same weights everywhere until the data ask for something else
            self.predictor = nn.Parameter(torch.zeros(num_inputs, int(channels or 0), start.numel()))
        self.register_state_dict_post_hook(_describe)
        self.register_load_state_dict_pre_hook(_check_described)

    @property
    def weights(self) -> Tensor:
        """Weights as the forward pass uses them; predicted ones depend on the inputs, see :meth:`predict`.

        (N,) for scalar and none, (N, C) for channel, (instances, N) or (instances, N, C) for a table.
        """
        if self.predictor is not None:
            raise ValueError("predicted instance weights depend on the inputs: call predict(*inputs)")
        if self.kind == "none":
            return self.raw
        return self._constrain(self.raw, dim=len(self._table_rows))

    def predict(self, *inputs: Tensor) -> Tensor:
        """Instance weights for inputs (B, C, ...): (B, N, ...), or (B, N, C, ...) for channel_instance.

        Per image (B, N) or (B, N, C).
        """
        return self._predict(inputs)[1]

    def _predict(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        """The inputs, through which the gradient of the weights flows back, and the weights."""
        passed, terms = [], []
        assert self.predictor is not None, "the weights are not predicted: read the property weights"
        for x, matrix in zip(inputs, self.predictor, strict=True):
            x, term = with_product(x, matrix.sum(0, keepdim=True) if x.shape[1] == 1 else matrix)
            passed.append(x)
            terms.append(term)
        raw = self._average(sum(terms[1:], terms[0]))  # after the product: both are linear, this is cheaper
        bias = self.raw.reshape(1, -1, *([1] * (raw.dim() - 2)))
        raw = (raw + bias).reshape(raw.shape[0], *self._per_instance, *raw.shape[2:])
        return tuple(passed), self._constrain(raw, dim=1)

    def forward(self, *inputs: Tensor, index: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Sums N tensors of one shape (B, C, ...); those with a single channel are added to all channels: (B, C, ...).

        ``index`` (B,) int64 chooses the rows of a table of instances. ``weights`` replace those of the layer,
        unchanged, whatever the constraint: (N,) for scalar and none, (N, C) for channel, (B, N) or (B, N, ...) for
        instance, (B, N, C) or (B, N, C, ...) for channel_instance.

        Shapes that do not fit raise ValueError, so that nothing broadcasts by accident.
        """
        self._check(inputs)
        if weights is not None:
            self._check_given(weights, index, inputs[0].shape)
        else:
            self._check_index(index, inputs[0].shape[:1])
            if self.predictor is not None:
                inputs, weights = self._predict(inputs)
            else:
                weights = self.weights if index is None else self.weights[index]
        total = weighted_sum(self._aligned(weights, inputs[0].dim()), *inputs)
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

    def _average(self, x: Tensor) -> Tensor:
        if self.per == "image":
            return _flat(x).mean(2)
        if self.neighbourhood == 1:
            return x
        k = self.neighbourhood
        return F.avg_pool2d(x, k, stride=1, padding=k // 2, count_include_pad=False)

    def _aligned(self, weights: Tensor, axes: int) -> Tensor:
        """Weights as they multiply inputs of so many axes: (N, B or 1, C or 1, ...)."""
        weights = weights.movedim(1, 0) if self.kind.endswith("instance") else weights.unsqueeze(1)
        weights = weights if self.kind.startswith("channel") else weights.unsqueeze(2)
        return weights.reshape(*weights.shape, *([1] * (1 + axes - weights.dim())))

    def _check_arguments(self, predicted: bool) -> None:
        for name, choices in (("kind", Kind), ("constraint", Constraint), ("per", Per)):
            if (value := getattr(self, name)) not in get_args(choices):
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(get_args(choices))}")
        kind, table, k = self.kind, self.num_instances is not None, self.neighbourhood
        unknown = self.channels is None and (kind.startswith("channel") or predicted)
        for name, wrong, expected in (
            ("num_inputs", self.num_inputs < 1, "at least 1"),
            ("neighbourhood", k < 1 or k % 2 == 0, "an odd number of positions"),
            ("num_instances", table and not kind.endswith("instance"), f"None for kind {kind!r}"),
            ("channels", unknown, f"the number of channels for kind {kind!r}"),
            ("per", self.per == "image" and not predicted, "'pixel' for weights that are not predicted"),
        ):
            if wrong:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {expected}")

    def _check(self, inputs: Sequence[Tensor]) -> None:
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

    def _check_index(self, index: Tensor | None, batch: torch.Size) -> None:
        rows = self.num_instances
        if index is None and rows is None:
            return
        if index is None or rows is None or index.shape != batch or index.dtype not in _INDEX:
            given = index if index is None else f"{index.dtype} of shape {tuple(index.shape)}"
            raise ValueError(f"index is {given}, expected int64 {tuple(batch)} with a table of instances, else None")
        # what is compiled cannot branch on numbers
        if not torch.compiler.is_compiling() and ((index < 0) | (index >= rows)).any():
            raise ValueError(f"index is {index.tolist()}, expected rows 0 to {rows - 1} of the table")

    def _check_given(self, weights: Tensor, index: Tensor | None, shape: torch.Size) -> None:
        expected = [self._per_instance]
        if self.kind.endswith("instance"):
            expected = [(shape[0], *self._per_instance), (shape[0], *self._per_instance, *shape[2:])]
        if weights.shape not in expected:
            raise ValueError(f"weights are of shape {tuple(weights.shape)}, expected {' or '.join(map(str, expected))}")
        if index is not None:
            raise ValueError("index and weights are both given, expected one of them")


def _activation(given: str | Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor] | None:
    if not isinstance(given, str):
        return given
    if given not in _ACTIVATIONS:
        raise ValueError(f"activation is {given!r}, expected a function or one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[given]()


def _start(init: Init, shape: tuple[int, ...], dim: int, constraint: str) -> Tensor:
    """Raw weights of a shape, with the N inputs along an axis."""
    n = shape[dim]
    if isinstance(init, str):
        if init == "uniform":
            return torch.full(shape, 1 / n)
        if init == "normal":
            part = torch.rand(shape).argsort(-1) + torch.rand(*shape[:-1], 1)
            return torch.special.ndtri((part / shape[-1]).clamp(1e-4, 1 - 1e-4)) / n
        if init not in _FILLS or (init == "orthogonal" and dim == len(shape) - 1):
            names = "uniform, normal, xavier, kaiming, orthogonal (where there are channels)"
            raise ValueError(f"init is {init!r}, expected {names}, a function or {n} numbers")
        raw = _filled(_FILLS[init], shape, dim, channels=n if init == "orthogonal" else 1)
    elif callable(init):
        raw = _filled(init, shape, dim)
    else:
        values = torch.as_tensor(init, dtype=torch.get_default_dtype())
        if values.shape == (n,):
            values = values.reshape(n, *(1 for _ in shape[dim + 1 :])).expand(shape)
        if values.shape != shape:
            raise ValueError(f"init is of shape {tuple(values.shape)}, expected ({n},) or {shape}")
        raw = _unconstrained(values, dim, constraint)
    if not raw.isfinite().all() or (constraint == "signed" and not raw.any(dim).all()):
        raise ValueError(f"init is {init}, expected numbers {_HELD[constraint]} for constraint {constraint!r}")
    return raw


def _filled(fill: Callable[[Tensor], object], shape: tuple[int, ...], dim: int, channels: int = 1) -> Tensor:
    """A tensor of a shape with N along an axis; the function fills matrices (channels, N), one after the other."""
    outputs = torch.full((math.prod(shape[:dim]), math.prod(shape[dim + 1 :]), shape[dim]), torch.nan)  # (rows, C, N)
    for row in outputs:
        for matrix in row.split(channels):
            fill(matrix)
    return outputs.mT.reshape(shape).contiguous()


def _unconstrained(weights: Tensor, dim: int, constraint: str) -> Tensor:
    """Raw weights of which the constraint makes these weights; not finite where it cannot."""
    if constraint == "none":
        return weights.clone()
    total = (weights.abs() if constraint == "signed" else weights).sum(dim, keepdim=True)
    return torch.where((total - 1).abs() < 1e-4, weights.log() if constraint == "convex" else weights, torch.nan)


def _describe(layer: WeightedSum, state: Any, prefix: str, metadata: dict[str, Any]) -> None:
    metadata.update((name, getattr(layer, name)) for name in _DESCRIBED)


def _check_described(layer: WeightedSum, state: Any, prefix: str, metadata: dict[str, Any], *_: Any) -> None:
    for name in _DESCRIBED:
        value, expected = metadata.get(name), getattr(layer, name)
        if value not in (None, expected):
            raise ValueError(f"{prefix}{name} of the state is {value!r}, expected {expected!r} as in the layer")


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
    rows = matrix.T.to(x.dtype).expand(x.shape[0], -1, -1)  # len(x) would fix the size of the batch in an export
    return torch.bmm(rows, _flat(x)).reshape(x.shape[0], rows.shape[1], *x.shape[2:])


def _flat(x: Tensor) -> Tensor:
    return x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)  # (B, C, L)
