"""Jobs that leave a file each, in parallel processes; those that are done are not done again."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hsfusion.cli.main import raw
from hsfusion.errors import DivergedError, EnvironmentFailure, HsFusionError

_KINDS = {kind.__name__: kind for kind in (EnvironmentFailure, DivergedError)}


@dataclass(frozen=True)
class Job:
    """Something to do in a process of its own.

    Attributes:
        work: called with ``path`` and the arguments; a function of a module, as processes find it by its name.
        path: the file that it leaves, complete or not at all.
        cost: how long it takes beside others, in training steps.
        arguments: plain values.
    """

    work: Callable[..., None]
    path: Path
    cost: float
    arguments: dict[str, Any] = field(default_factory=dict)


class Pool:
    """Processes that carry out jobs, and a bar that shows how far they are.

    Args:
        executor: the processes; None for this one.
        bar: the bar.
        total: cost of all jobs that will come.
    """

    def __init__(self, executor: Executor | None, bar: Progress, *, total: float) -> None:
        self._executor, self._bar = executor, bar
        self._task = bar.add_task("", total=total)
        self._left = total

    def run(self, jobs: Sequence[Job], *, stage: str) -> None:
        """Carries out those jobs whose file is not there yet; returns when all are done.

        Raises:
            HsFusionError: of the first job that fails.
            EnvironmentFailure: if a process is killed.
        """
        waiting = [job for job in jobs if not job.path.exists()]
        self._left -= sum(job.cost for job in jobs) - sum(job.cost for job in waiting)
        # what was done before tells nothing about how fast this goes
        self._bar.update(self._task, total=self._bar.tasks[0].completed + self._left)
        done = len(jobs) - len(waiting)
        self._show(stage, done, len(jobs))
        for job in self._carried_out(waiting):
            done += 1
            self._left -= job.cost
            self._bar.advance(self._task, job.cost)
            self._show(stage, done, len(jobs))

    def _show(self, stage: str, done: int, number: int) -> None:
        self._bar.update(self._task, description=f"{stage} {done}/{number}")

    def _carried_out(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """The jobs, each when it is done."""
        if self._executor is None:
            for job in jobs:
                _raise(_carry_out(job))
                yield job
            return
        try:
            futures = {self._executor.submit(_carry_out, job): job for job in jobs}
            for future in as_completed(futures):
                _raise(future.result())
                yield futures[future]
        except BrokenProcessPool as error:
            raise EnvironmentFailure(
                "benchmark: a process was killed, perhaps for want of memory. Fix: run again, which goes on where this "
                "stopped; with fewer jobs=N if it happens again."
            ) from error


@contextmanager
def open_pool(number: int, *, threads: int, total: float, shown: bool) -> Iterator[Pool]:
    """Starts processes, and ends them whatever happens.

    Args:
        number: of processes; with 1 everything is done in this one.
        threads: of each for matrix products.
        total: cost of all jobs that will come.
        shown: whether a bar shows how far they are.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # jobs take minutes: the time left is told from all that were done
    bar = Progress(*columns, console=Console(file=raw(sys.stderr)), disable=not shown, speed_estimate_period=1e6)
    executor = _executor(number, threads) if number > 1 else None
    try:
        with bar:
            yield Pool(executor, bar, total=total)
    except BaseException:  # Ctrl-C, too: what is under way would take minutes, and leaves nothing half done
        for process in multiprocessing.active_children():
            process.kill()  # Lightning takes SIGTERM as a wish
        raise
    finally:
        if executor is not None:
            executor.shutdown(cancel_futures=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file that is complete or not there, even if the process is killed; what is not finite becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(_finite(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _executor(number: int, threads: int) -> ProcessPoolExecutor:
    for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # read by the processes to come
        os.environ[library] = str(threads)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    return ProcessPoolExecutor(number, mp_context=context, initializer=_start)


def _start() -> None:
    """Prepares a process: Ctrl-C is for its parent to handle, and it ends with its parent, even one that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("hsfusion").setLevel(logging.ERROR)  # the parent has told it already
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "started by _executor"
    wait([parent.sentinel])
    os._exit(1)


def _carry_out(job: Job) -> tuple[str, str] | None:
    """Does it; kind and words of an error of hsfusion's own, which cannot travel between processes."""
    try:
        job.work(path=job.path, **job.arguments)
    except HsFusionError as error:
        return type(error).__name__, str(error)
    return None


def _raise(failure: tuple[str, str] | None) -> None:
    if failure is not None:
        kind, words = failure
        raise _KINDS.get(kind, HsFusionError)(words)
