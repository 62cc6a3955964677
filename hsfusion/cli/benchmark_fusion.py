"""``hsfusion benchmark fusion``."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.nn import WeightedSum
from hsfusion.nn.weighted_sum import Kind

_Sum = Callable[..., Tensor]


def measure(cfg: DictConfig) -> None:
    """Times forward and backward of each kind in turns with the plain expression; prints ratios, writes JSON."""
    _check(cfg)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    rows = [_row(cfg, kind) for kind in cfg.kinds]
    print(f"{'':<18}{'time/plain':>12}{'time/compiled':>15}{'both compiled':>15}{'memory':>9}{'plain memory':>14}")
    for row in rows:
        print(
            f"{row['kind']:<18}{row['time_to_plain']:>12.2f}{row['time_to_compiled_plain']:>15.2f}"
            f"{row['compiled_to_compiled_plain']:>15.2f}{row['memory']:>9.3f}{row['plain_memory']:>14.3f}"
        )
    print("time: of WeightedSum, forward and backward, in multiples of the plain expression's, and of it compiled")
    print("memory: peak of forward and backward, in multiples of inputs, output and their gradients")
    if cfg.json is not None:
        result = {"config": OmegaConf.to_container(cfg, resolve=True), "torch": torch.__version__, "kinds": rows}
        Path(str(cfg.json)).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _check(cfg: DictConfig) -> None:
    kinds = [kind for kind in get_args(Kind) if kind != "none"]
    if not isinstance(cfg.kinds, ListConfig) or not set(cfg.kinds) <= set(kinds):
        raise InputError(
            "command line",
            field="kinds",
            value=cfg.kinds,
            expected=f"a list of {', '.join(kinds)}",
            fix="kinds=[channel]",
        )
    if cfg.device not in ("cpu", "cuda"):
        raise InputError("command line", field="device", value=cfg.device, expected="cpu or cuda", fix="use device=cpu")
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFailure("device is cuda, expected what this machine has. Fix: use device=cpu.")


def _row(cfg: DictConfig, kind: Kind) -> dict[str, Any]:
    torch.manual_seed(0)
    module = WeightedSum(cfg.inputs, kind=kind, channels=cfg.channels, constraint="affine", init="normal")
    module.to(cfg.device)

    def plain(*inputs: Tensor) -> Tensor:
        return _plain(module, inputs)

    torch.compiler.reset()
    candidates: dict[str, _Sum] = {
        "module": module,
        "plain": plain,
        "compiled_plain": torch.compile(plain),
        "compiled_module": torch.compile(module),
    }
    inputs = _inputs(cfg)
    for candidate in candidates.values():
        _seconds(candidate, inputs)  # compiles, warms up
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(cfg.repeats):
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
        "memory": _peak_bytes(cfg, module) / _needed_bytes(cfg),
        "plain_memory": _peak_bytes(cfg, plain) / _needed_bytes(cfg),
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


def _inputs(cfg: DictConfig) -> list[Tensor]:
    shape = (cfg.batch, cfg.channels, cfg.rows, cfg.columns)
    return [torch.randn(shape, device=cfg.device, requires_grad=True) for _ in range(cfg.inputs)]


def _needed_bytes(cfg: DictConfig) -> int:
    return 4 * cfg.batch * cfg.channels * cfg.rows * cfg.columns * 2 * (cfg.inputs + 1)


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


def _peak_bytes(cfg: DictConfig, candidate: _Sum) -> int:
    """Peak memory of inputs, forward and backward."""

    def work() -> tuple[Tensor, list[Tensor]]:
        inputs = _inputs(cfg)
        output = candidate(*inputs)
        output.backward(torch.ones_like(output))
        return output, inputs

    if cfg.device == "cuda":
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
