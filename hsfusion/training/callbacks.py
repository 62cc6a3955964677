"""Callbacks of the training, and supervision of its processes."""

from __future__ import annotations

import io
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies.launchers import subprocess_script

from hsfusion.errors import STOP_SIGNALS, EnvironmentFailure, HsFusionError
from hsfusion.nn import FusionNetwork
from hsfusion.publishing import SEAL_BYTES, publish, seal
from hsfusion.training.building import WeightReadout
from hsfusion.training.classifier import ends_step

_log = logging.getLogger(__name__)
_FORGOTTEN = 1 / 3  # of the losses so far, at each epoch
_MOST_MISSES = 3  # checkpoints in a row that may fail for the disk; the last one ends the training
_LOOK, _GRACE = 0.2, 5.0  # seconds between looks at other processes, and until one that waits for a lost one is ended
_further: list[subprocess.Popen[bytes]] = []  # the processes of ranks 1, 2, ... that Lightning started


class _Checkpointed(pl.Callback):
    """A callback whose attributes named in ``kept`` go into the checkpoint."""

    kept: tuple[str, ...] = ()

    def state_dict(self) -> dict[str, Any]:
        """The part that goes into the checkpoint."""
        return {name.lstrip("_"): getattr(self, name) for name in self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores it from a checkpoint."""
        for name in self.kept:
            setattr(self, name, state_dict[name.lstrip("_")])


class History(_Checkpointed):
    """Keeps metrics logged at the end of each epoch as curves, name -> (steps, values), also in the checkpoint."""

    kept = ("curves",)

    def __init__(self) -> None:
        self.curves: dict[str, tuple[list[int], list[float]]] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Appends the metrics on validation pixels, also those of the start if it was validated."""
        self._append(trainer, [name for name in trainer.callback_metrics if name.startswith("val/")])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Appends all others."""
        self._append(trainer, [name for name in trainer.callback_metrics if not name.startswith("val/")])

    def _append(self, trainer: pl.Trainer, names: Sequence[str]) -> None:
        for name in names:
            steps, values = self.curves.setdefault(name, ([], []))
            steps.append(trainer.global_step)
            values.append(float(trainer.callback_metrics[name]))


class WeightHistory(_Checkpointed):
    """Keeps the step and the band weights (C,) of each network after each epoch, also in the checkpoint.

    ``measured`` are the trained network, or those of several scenes, each with standardised patches (B, C, H, W) over
    which instance weights are averaged; None for other kinds.
    """

    kept = ("steps", "weights")

    def __init__(self, measured: Sequence[tuple[FusionNetwork, torch.Tensor | None]]) -> None:
        self._measured = list(measured)
        self.steps: list[int] = []
        self.weights: list[list[float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Appends the weights of the epoch."""
        device = pl_module.device
        self._measured = [(network, None if x is None else x.to(device)) for network, x in self._measured]
        self.steps.append(trainer.global_step)
        self.weights.append([w for network, x in self._measured for w in WeightReadout(network, x).weight.tolist()])


class KeepBest(_Checkpointed):
    """Keeps the weights of the epoch with the lowest smoothed validation loss.

    The loss is the exponential mean over the epochs of the loss on validation pixels, with a weight of one third for
    the latest: validation pixels are few, and the plain minimum is often a lucky early epoch. The start counts as an
    epoch if it is validated. Epochs that end before ``first_step`` do not count, also not for early stopping: bands
    were still opening and closing. The weights go into the checkpoint, so that a resumed run chooses among all epochs.
    ``step`` is None as long as there was no validation.
    """

    kept = ("step", "_best", "_smooth", "_weights")
    _validated: Mapping[str, torch.Tensor]

    def __init__(self, *, first_step: int = 0) -> None:
        self.first_step = first_step
        self.step: int | None = None
        self._best = self._smooth = 0.0
        self._weights: dict[str, torch.Tensor] = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copies the weights that were validated, before weight averaging changes them."""
        self._validated = {name: tensor.detach().cpu().clone() for name, tensor in pl_module.state_dict().items()}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compares the epoch with the best so far."""
        for stopping in trainer.early_stopping_callbacks if self.step is None else ():  # which compare after this
            worst = math.inf if stopping.mode == "min" else -math.inf
            stopping.wait_count, stopping.best_score = 0, torch.tensor(worst)
        loss = trainer.callback_metrics.get("val/loss")
        if loss is None or trainer.global_step < self.first_step:
            return
        self._smooth += (float(loss) - self._smooth) * (1.0 if self.step is None else _FORGOTTEN)
        if self.step is None or self._smooth < self._best:
            self.step, self._best = trainer.global_step, self._smooth
            self._weights = dict(self._validated)

    def restore(self, module: pl.LightningModule) -> None:
        """Gives the module the best weights; without validation it keeps its own."""
        if self.step is not None:
            module.load_state_dict(self._weights)


class LastCheckpoint(Checkpoint):
    """Saves a checkpoint at the end of each epoch, and at the step after which a signal stops the training.

    The file is complete at any time, and holds only finite numbers. Signals are raised again for their earlier handlers
    once the step is saved; a second signal at once. With a callback that acts at the start of epochs, which Lightning
    does not call when it resumes in mid-epoch, the training stops at the end of an epoch.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._received: list[int] = []
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Has checkpoints written by :class:`WholeFiles`."""
        trainer.strategy.checkpoint_io = WholeFiles()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Handles signals, except those that are ignored, as by nohup."""
        callbacks: Any = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        self._whole_epochs = any(map(_starts_epochs, callbacks))
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._receive) for number in heard}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops after the optimizer step; after the last one of an epoch, at its end."""
        goes_on = trainer.is_last_batch or self._whole_epochs or not ends_step(trainer, batch_idx)
        if not goes_on and self._is_asked(trainer):
            self._save(trainer, pl_module)
            self._stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves an epoch; Lightning calls this after all other callbacks."""
        self._save(trainer, pl_module)
        if self._is_asked(trainer):
            self._stop()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restores the earlier handlers of signals."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """The same."""
        self._restore()

    def _save(self, trainer: pl.Trainer, module: Any) -> None:
        module.check_finite()
        trainer.save_checkpoint(self._path)

    def _is_asked(self, trainer: pl.Trainer) -> bool:
        """Whether any process got a signal."""
        return trainer.strategy.reduce_boolean_decision(bool(self._received), all=False)

    def _receive(self, number: int, frame: object) -> None:
        self._received.append(number)
        if len(self._received) > 1:
            try:
                self._stop()
            finally:
                signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _stop(self) -> None:
        self._restore()
        signal.raise_signal(self._received[0] if self._received else signal.SIGTERM)


def _starts_epochs(callback: pl.Callback) -> bool:
    """Whether a callback acts at the start of epochs, other than to display it."""
    acts = type(callback).on_train_epoch_start is not pl.Callback.on_train_epoch_start
    return acts and not isinstance(callback, ProgressBar | LearningRateMonitor)


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints as all files are written; if one does not fit on the disk, the older one stays.

    Three failures in a row raise :class:`EnvironmentFailure`.
    """

    def __init__(self) -> None:
        self._misses = 0

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint to a path."""
        archive = io.BytesIO()
        torch.save(checkpoint, archive)
        archive.seek(-2, os.SEEK_END)
        archive.write(SEAL_BYTES.to_bytes(2, "little"))  # of the comment that ends a zip archive
        try:
            with publish(path) as part:
                part.write_bytes(archive.getvalue())
                seal(part)
            self._misses = 0
        except EnvironmentFailure as error:
            self._misses += 1
            if self._misses == _MOST_MISSES:
                raise
            _log.info("%s The next epoch tries again.", error)


@contextmanager
def ending_together(trainer: pl.Trainer) -> Iterator[None]:
    """Ends a training in several processes, started by Lightning, when one of them ends too soon.

    Rank 0 raises an :class:`EnvironmentFailure` that names the lost rank; if it still waits for that rank, it ends with
    that line. If rank 0 itself is lost, rank 1 writes the line, and all end.
    """
    # Lightning's kills this process without a word
    observer = subprocess_script._launch_process_observer  # pyright: ignore[reportPrivateImportUsage]
    subprocess_script._launch_process_observer = _further.extend  # pyright: ignore[reportPrivateImportUsage]
    environment = getattr(trainer.strategy, "cluster_environment", None)
    is_further = trainer.local_rank > 0 and isinstance(environment, LightningEnvironment)
    parent, over, lines = os.getppid(), threading.Event(), list[str]()

    def lost() -> str | None:
        ended = {0: "is gone"} if is_further and os.getppid() != parent else _ended()
        for rank, how in ended.items():
            fix = "see train.log of the run for the reason, then resume it"
            lines.append(f"{_named(rank, trainer)} {how}, expected to train to the end. Fix: {fix}.")
        return lines[0] if lines else None  # the others are ended by this process

    watched = lost, over, 0.0 if is_further else _GRACE, trainer.local_rank < 2
    watch = threading.Thread(target=_watch, args=watched, daemon=True)
    watch.start()
    try:
        yield
    except (HsFusionError, MisconfigurationException):
        raise
    except Exception as error:
        if trainer.world_size == 1:
            raise
        for _ in range(5 if is_further else round(2 * _GRACE / _LOOK)):  # sums end before the lost one does
            time.sleep(_LOOK)
            if not is_further and (line := lost()) is not None:
                raise EnvironmentFailure(line) from error
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            raise
        what = f"{_named(trainer.global_rank, trainer)} failed ({type(error).__name__}: {error})"
        raise EnvironmentFailure(f"{what}. Fix: HSFUSION_DEBUG=1 shows where.") from error
    finally:
        subprocess_script._launch_process_observer = observer  # pyright: ignore[reportPrivateImportUsage]
        over.set()
        watch.join()  # or it might end the processes of a training that follows
        if sys.exception() is not None:
            _end_further()


def _watch(lost: Callable[[], str | None], over: threading.Event, grace: float, speaks: bool) -> None:
    """Ends this process and the others if a rank is lost and the training does not end soon after."""
    while not over.wait(_LOOK):
        if (line := lost()) is not None:
            _end_further()
            if not over.wait(grace):
                if speaks:
                    os.write(2, f"hsfusion: error: {line}\n".encode())
                os._exit(EnvironmentFailure.exit_code)


def _named(rank: int, trainer: pl.Trainer) -> str:
    return f"training: rank {rank} of {trainer.world_size}"


def _ended() -> dict[int, str]:
    """How the other ranks ended, if they failed."""
    ended = {}
    for rank, process in enumerate(_further, 1):
        if code := process.poll():
            ended[rank] = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return ended


def _end_further() -> None:
    for process in _further:
        process.kill()
