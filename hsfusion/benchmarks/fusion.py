"""Speed and memory of WeightedSum beside the plain expression."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, get_args

import torch
from torch import Tensor

from hsfusion.errors import EnvironmentFailure
from hsfusion.nn import WeightedSum
from hsfusion.nn.weighted_sum import Kind
from hsfusion.runs.settings import check_ranges, refusal, within

_Sum = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True)
class FusionBenchmark:
    """What is measured: tensors (batch, channels, rows, columns) to sum. Every field is a key of the configuration.

    Attributes:
        inputs: number of tensors.
        batch: size of the batch.
        channels: of each tensor.
        rows: of each tensor.
        columns: of each tensor.
        kinds: of weights.
        repeats: rounds; each times every candidate once, and medians are compared.
        device: cpu or cuda.
    """

    inputs: int = within(2, 1)
    batch: int = within(16, 1)
    channels: int = within(64, 1)
    rows: int = within(96, 1)
    columns: int = within(96, 1)
    kinds: tuple[str, ...] = ("scalar", "channel", "instance")
    repeats: int = within(15, 1)
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Checks the values."""
        check_ranges(self)
        kinds = [kind for kind in get_args(Kind) if kind != "none"]
        if not set(self.kinds) <= set(kinds):
            raise refusal("kinds", list(self.kinds), f"a list of {', '.join(kinds)}")
        if self.device not in ("cpu", "cuda"):
            raise refusal("device", self.device, "cpu or cuda")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise EnvironmentFailure("device is cuda, expected what this machine has. Fix: use device=cpu.")


def measure(options: FusionBenchmark) -> dict[str, Any]:
    """Times forward and backward of each kind in turns with the plain expression; plain values, a row for each kind."""
    return {"torch": torch.__version__, "kinds": [_row(options, cast(Kind, kind)) for kind in options.kinds]}


def table(result: dict[str, Any]) -> list[str]:
    """Lines of text that show what :func:`measure` gave."""
    head = f"{'':<18}{'time/plain':>12}{'time/compiled':>15}{'both compiled':>15}{'memory':>9}{'plain memory':>14}"
    rows = [
        f"{row['kind']:<18}{row['time_to_plain']:>12.2f}{row['time_to_compiled_plain']:>15.2f}"
        f"{row['compiled_to_compiled_plain']:>15.2f}{row['memory']:>9.3f}{row['plain_memory']:>14.3f}"
        for row in result["kinds"]
    ]
    return [
        head,
        *rows,
        "time: of WeightedSum, forward and backward, in multiples of the plain expression's, and of it compiled",
        "memory: peak of forward and backward, in multiples of inputs, output and their gradients",
    ]


def _row(options: FusionBenchmark, kind: Kind) -> dict[str, Any]:
    torch.manual_seed(0)
    module = WeightedSum(options.inputs, kind=kind, channels=options.channels, constraint="affine", init="normal")
    module.to(options.device)

    def plain(*inputs: Tensor) -> Tensor:
        return _plain(module, inputs)

    torch.compiler.reset()
    candidates: dict[str, _Sum] = {
        "module": module,
        "plain": plain,
        "compiled_plain": torch.compile(plain),
        "compiled_module": torch.compile(module),
    }
    inputs = _inputs(options)
    for candidate in candidates.values():
        _seconds(candidate, inputs)  # compiles, warms up
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(options.repeats):
        for name, candidate in candidates.items():
            seconds[name].append(_seconds(candidate, inputs))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    del inputs
    return {
        "kind": kind,
        "median_seconds": median,
        "time_to_plain": median["module"] / median["plain"],
        "time_to_compiled_plain": median["module"] / median["compiled_plain"],
        "compiled_to_compiled_plain": median["compiled_module"] / median["compiled_plain"],
        "memory": _peak_bytes(options, module) / _needed_bytes(options),
        "plain_memory": _peak_bytes(options, plain) / _needed_bytes(options),
    }


def _plain(module: WeightedSum, inputs: tuple[Tensor, ...]) -> Tensor:
    """The sum as one would write it down."""
    weights = module.weights if module.predictor is None else _predicted(module, inputs)
    if module.kind == "scalar":
        weights = weights[:, None, None, None, None]
    elif module.kind == "channel":
        weights = weights[:, None, :, None, None]
    elif module.kind == "instance":
        weights = weights.movedim(1, 0)[:, :, None]
    else:
        weights = weights.movedim(1, 0)
    total = weights[0] * inputs[0]
    for weight, x in zip(weights[1:], inputs[1:], strict=True):
        total = total + weight * x
    return total


def _predicted(module: WeightedSum, inputs: tuple[Tensor, ...]) -> Tensor:
    assert module.predictor is not None
    raw = sum(torch.einsum("bchw,co->bohw", x, matrix) for x, matrix in zip(inputs, module.predictor, strict=True))
    raw = raw + module.raw.reshape(1, -1, 1, 1)
    raw = raw.reshape(len(raw), *module.raw.shape, *raw.shape[2:])
    return raw - raw.mean(1, keepdim=True) + 1 / module.num_inputs


def _inputs(options: FusionBenchmark) -> list[Tensor]:
    shape = (options.batch, options.channels, options.rows, options.columns)
    return [torch.randn(shape, device=options.device, requires_grad=True) for _ in range(options.inputs)]


def _needed_bytes(options: FusionBenchmark) -> int:
    return 4 * options.batch * options.channels * options.rows * options.columns * 2 * (options.inputs + 1)


def _seconds(candidate: _Sum, inputs: list[Tensor]) -> float:
    for x in inputs:
        x.grad = None
    _finish(inputs[0])
    start = time.perf_counter()
    output = candidate(*inputs)
    output.backward(torch.ones_like(output))
    _finish(output)
    return time.perf_counter() - start


def _finish(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def _peak_bytes(options: FusionBenchmark, candidate: _Sum) -> int:
    """Peak memory of inputs, forward and backward."""

    def work() -> tuple[Tensor, list[Tensor]]:
        inputs = _inputs(options)
        output = candidate(*inputs)
        output.backward(torch.ones_like(output))
        return output, inputs

    if options.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        kept = work()
        del kept
        return torch.cuda.max_memory_allocated() - before
    return peak_bytes_cpu(work)


def peak_bytes_cpu(work: Callable[[], object]) -> int:
    """Peak of what PyTorch allocates on the CPU during a call, its result included."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        kept = work()
    del kept
    held = peak = 0
    # the public list of events nets what one operation allocates and frees inside
    recorded: Any = profile.profiler
    for event in recorded.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
