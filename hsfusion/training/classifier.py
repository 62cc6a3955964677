"""The LightningModule that trains a fusion network, in one process or several, and accuracies of classifications."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torchmetrics.classification import MulticlassConfusionMatrix

from hsfusion.errors import DivergedError
from hsfusion.nn import FreeFusion, FusionNetwork, MultiSceneNetwork

_log = logging.getLogger(__name__)
# shares of the training: the sparsity penalty is 0 before the first, and full from the second on
_FREE, _CHARGED = 0.1, 0.5
_TAKE_PATCHES = ("training_step", "validation_step", "_loss", "logits")  # methods that have to know whether whitened


def steps_of(trainer: pl.Trainer, batches: int) -> int:
    """Optimizer steps that a Trainer will make in epochs of a number of batches, according to its limits."""
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    callbacks: Any = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    change = next((of for of in callbacks if isinstance(of, GradientAccumulationScheduler)), None)
    epochs = range(trainer.max_epochs or 1)
    gathered = [change.get_accumulate_grad_batches(i) if change else trainer.accumulate_grad_batches for i in epochs]
    steps = sum(max(1, math.ceil(batches / number)) for number in gathered)
    return steps if trainer.max_steps < 0 else min(steps, trainer.max_steps)


def ends_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether an optimizer step follows a batch of an epoch, rather than further accumulation of gradients."""
    return trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def parts_of(network: FusionNetwork | MultiSceneNetwork) -> dict[str, list[nn.Parameter]]:
    """The parameters of each part; gates go with the responses, the free convolution counts as the response."""
    fusion, cnn = network.fusion, network.cnn
    sums = [] if isinstance(fusion, FreeFusion) else list(fusion.group_sum.parameters())
    known = {id(parameter) for parameter in sums}
    return {
        "response": [parameter for parameter in fusion.parameters() if id(parameter) not in known],
        "group_weights": sums,
        "cnn": [*cnn.norm.parameters(), *cnn.features.parameters()],
        "classifier": list(cnn.classifier.parameters()),
    }


def fused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer, fused on CPUs if it offers that and nothing else is set: saves a twentieth of a training step.

    Not with 16-bit parameters: the fused SGD of torch 2.13 leaves most of them unchanged on CPUs.
    """
    for group in optimizer.param_groups:
        suits = all(of.device.type == "cpu" and of.dtype in (torch.float32, torch.float64) for of in group["params"])
        if suits and group.get("fused", False) is None and group.get("foreach") is None:
            group["fused"] = True
    return optimizer


class FusionClassifier(pl.LightningModule):
    """Cross-entropy training of a :class:`FusionNetwork`, or of several, each on its entry of a list of patches.

    The learning rate rises over the first tenth of the ``total_steps`` and falls to 0 along a cosine; that of a band
    fusion is ``fusion_lr_scale`` times the optimizer's, because its logits have further to go. ``band_cost`` is the
    sparsity penalty for keeping all bands open, in units of the loss: none in the first tenth of the steps, full after
    half of them, linear in between. ``optimizer`` makes an optimizer from parameter groups, ``seed`` is for everything
    random in the network, ``class_weights`` are K. ``thaw_at`` is the share of the training after which a part (see
    :func:`parts_of`) learns, with 1 or more it never does; ``lr_scales`` are factors of the learning rates of parts.
    """

    class_weights: Tensor

    def __init__(
        self,
        network: FusionNetwork | MultiSceneNetwork,
        *,
        optimizer: Callable[[Iterable[dict[str, Any]]], torch.optim.Optimizer],
        total_steps: int,
        seed: int,
        fusion_lr_scale: float = 10.0,
        band_cost: float = 0.3,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.05,
        thaw_at: Mapping[str, float] | None = None,
        lr_scales: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.thaw_at, self.lr_scales = dict(thaw_at or {}), dict(lr_scales or {})
        self.save_hyperparameters(
            *("total_steps", "seed", "fusion_lr_scale", "band_cost", "class_weights", "label_smoothing"),
            *("thaw_at", "lr_scales"),
        )
        self.network = network
        self.optimizer = optimizer
        self.total_steps = total_steps
        self.seed = seed
        self.fusion_lr_scale = fusion_lr_scale
        self.band_cost = band_cost
        self._whitened = False  # whether patches are
        self._losses: list[Tensor | float] = []  # of the steps of the epoch
        self.steps_run = 0  # in this process, not counting those before a resume
        self.label_smoothing = label_smoothing
        self.num_classes = network.cnn.classifier.out_channels
        weights = torch.ones(self.num_classes) if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights.float(), persistent=False)
        self.confusion = MulticlassConfusionMatrix(self.num_classes)

    def take_whitened(self, possible: bool) -> bool:
        """Makes the module take whitened patches from now on, if possible; returns whether it does.

        It is not possible if a linear part has a share, because that may see unwhitened bands (one without a share is
        left out), nor in a subclass that overrides the steps, which call ``self.network.classify``.
        """
        network = self.network
        possible &= all(getattr(type(self), name) is getattr(FusionClassifier, name) for name in _TAKE_PATCHES)
        linear = None if isinstance(network, MultiSceneNetwork) else network.linear
        self._whitened = possible and (linear is None or bool(linear.network_share == 1))
        return self._whitened

    def logits(self, patches: Any) -> Tensor:
        """Logits (B, K, H, W) of standardised patches, or of whitened patches once the module takes these."""
        network: Any = self.network
        return network.cnn(network.fusion(patches)) if self._whitened else network.classify(patches)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Makes dropout and gates a function of (seed, step), so that a resumed run draws the same numbers."""
        self.steps_run += 1
        if self.network.fusion.gates is not None:
            self.network.fusion.gates.advance(self.global_step / self.total_steps)
        if "cnn" in self.thaw_at:
            for part in (self.network.cnn.norm, self.network.cnn.features):  # running means are part of it
                part.train(not self._frozen("cnn", self.global_step))
        _seed_all(hash((self.seed, self.global_step, 0)) % 2**63, self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of patches (B, C, P, P) with classes (B,)."""
        loss = self._loss(*batch)[0]
        self._losses.append(loss.detach())  # looked at where the device is waited for
        is_last = self.trainer.is_last_batch or self.global_step + 1 == self.trainer.max_steps
        if is_last and ends_step(self.trainer, batch_idx):
            mean = sum(map(float, self._losses)) / len(self._losses)
            # once an epoch: it takes as long as a layer of the network
            self.log("train/loss", mean, on_step=False, on_epoch=True, prog_bar=True, batch_size=1, sync_dist=True)
        gates = self.network.fusion.gates
        return loss if gates is None or gates.settled else loss + self.band_price(self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves the losses of an unfinished epoch."""
        checkpoint["step_losses"] = [float(loss) for loss in self._losses]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the losses of an unfinished epoch."""
        self._losses = list(checkpoint.get("step_losses", ()))

    def band_price(self, step: int) -> Tensor:
        """The sparsity penalty of the open bands at a step, in units of the loss."""
        gates = self.network.fusion.gates
        assert gates is not None, "a network without gates has no bands to pay for"
        charged = (step / self.total_steps - _FREE) / (_CHARGED - _FREE)
        return self.band_cost * min(1.0, max(0.0, charged)) * gates.cost

    def on_train_end(self) -> None:
        """Chooses the bands if the training ended too soon for that."""
        gates = self.network.fusion.gates
        if gates is None:
            return
        if not gates.kept.any():
            text = "Training ended at step %d of %d, before bands are chosen: no step was made on the kept bands alone."
            _log.warning(text, self.global_step, self.total_steps)
        gates.advance(1.0)

    def on_train_epoch_end(self) -> None:
        """Stops a run that diverged, and logs the mean loss of the epoch."""
        self.check_finite()
        self._losses = []
        loss = float(self.trainer.callback_metrics.get("train/loss", 0.0))
        _log.info("epoch %d: training loss %.4f", self.current_epoch, loss)

    def check_finite(self) -> None:
        """Raises :class:`DivergedError` if a loss, or a number of the network, is not finite."""
        batch = next((i for i, loss in enumerate(self._losses) if not math.isfinite(loss)), None)
        if batch is None and all(bool(tensor.isfinite().all()) for tensor in self.network.state_dict().values()):
            return
        what, expected = "weights are not finite", "numbers"
        if batch is not None:
            what, expected = f"loss is {float(self._losses[batch])}", "a finite number"
        batch = max(0, len(self._losses) - 1) if batch is None else batch
        epoch = self.current_epoch
        step = epoch * int(self.trainer.num_training_batches) + batch
        fix = "lower optimizer.lr, or check the scene for extreme values"
        raise DivergedError(
            f"training: {what} at step {step}, batch {batch} of epoch {epoch}, expected {expected}. Fix: {fix}."
        )

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Collects loss and confusion of patches (B, C, P, P) with classes (B,)."""
        loss, logits = self._loss(*batch)
        self.confusion.update(logits.argmax(1), batch[1])
        # by all samples, as the loss is: Lightning rounds the mean over ranks of their numbers down
        self.log("val/loss", loss, on_epoch=True, sync_dist=True, batch_size=number_over_ranks(batch[1]))

    def on_validation_epoch_end(self) -> None:
        """Logs overall accuracy, average accuracy, kappa and mean IoU."""
        counts = self.confusion.compute().cpu().numpy()
        self.confusion.reset()
        if counts.sum() == 0:
            return
        result = accuracies(counts, names=[str(k) for k in range(self.num_classes)])
        for name in ("overall_accuracy", "average_accuracy", "kappa", "mean_iou"):
            self.log(f"val/{name}", result[name], prog_bar=name == "overall_accuracy", sync_dist=True)
        _log.info("epoch %d: validation overall accuracy %.4f", self.current_epoch, result["overall_accuracy"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One parameter group for each part; the fusion has no weight decay."""
        parts = {name: list(parameters) for name, parameters in parts_of(self.network).items() if parameters}
        fusion = [name for name in parts if name in ("response", "group_weights")]
        groups = [{"params": parts[name], **({"weight_decay": 0.0} if name in fusion else {})} for name in parts]
        optimizer = fused(self.optimizer(groups))
        warmup = max(1, self.total_steps // 10)

        def scale(step: int, part: str) -> float:
            faster = self.fusion_lr_scale if part in fusion and self.network.fusion.kind != "free" else 1.0
            factor = faster * self.lr_scales.get(part, 1.0)
            if self._frozen(part, step):
                return 0.0
            if step < warmup:
                return factor * (step + 1) / warmup
            return (
                factor * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, self.total_steps - warmup))))
            )

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [partial(scale, part=name) for name in parts])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _frozen(self, part: str, step: int) -> bool:
        return step < self.thaw_at.get(part, 0.0) * self.total_steps

    def _loss(self, patches: Any, classes: Tensor) -> tuple[Tensor, Tensor]:
        with whole_batch(classes):
            logits = self.logits(patches).flatten(1).to(self.class_weights.dtype)  # (B, K)
            loss = F.cross_entropy(logits, classes, weight=self.class_weights, label_smoothing=self.label_smoothing)
        return loss, logits


def _seed_all(seed: int, device: torch.device) -> None:
    """Like ``torch.manual_seed``, which at each call queues a stack trace for each kind of device that is absent."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def balanced_class_weights(counts: Sequence[int]) -> list[float]:
    """Weights inversely proportional to the number of training pixels, with mean 1 over the pixels."""
    total, k = sum(counts), len(counts)
    return [total / (k * count) for count in counts]


def confusion_matrix(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], *, num_classes: int
) -> NDArray[np.int64]:
    """Counts (K, K + 1), rows truth, columns prediction, of class indices 0..K-1.

    Pixels without a prediction (-1) count in an extra column K, so that they are wrong, not left out.
    """
    column = np.where(prediction < 0, num_classes, prediction)
    counts = np.bincount(truth.astype(np.int64) * (num_classes + 1) + column, minlength=num_classes * (num_classes + 1))
    return counts.reshape(num_classes, num_classes + 1)


def accuracies(confusion: NDArray[np.integer], *, names: Sequence[str]) -> dict[str, Any]:
    """Overall accuracy, average accuracy, kappa, mean IoU and accuracy per class, from counts (K, K) or (K, K + 1).

    Fractions 0-1; rows are the truth; averages are over the classes that occur in the truth, and the accuracy of others
    is None. Cohen's kappa is ``(p_o - p_e) / (1 - p_e)`` with the agreement p_o and that expected by chance, p_e
    (Cohen 1960, doi:10.1177/001316446002000104).
    """
    counts = confusion.astype(np.float64)
    k = counts.shape[0]
    right, support = np.diagonal(counts), counts.sum(1)
    predicted, total = counts.sum(0)[:k], counts.sum()
    present = support > 0
    overall = right.sum() / total
    chance = (support * predicted).sum() / total**2
    recall = right[present] / support[present]
    iou = right[present] / (support + predicted - right)[present]
    return {
        "overall_accuracy": float(overall),
        "average_accuracy": float(recall.mean()),
        "kappa": float((overall - chance) / (1 - chance)) if chance < 1 else 1.0,
        "mean_iou": float(iou.mean()),
        "per_class": {
            name: {"accuracy": float(right[i] / support[i]) if present[i] else None, "support": int(support[i])}
            for i, name in enumerate(names)
        },
    }


def whole_batch(samples: Tensor) -> AbstractContextManager[object]:
    """:class:`WholeBatch` if there are several ranks."""
    return WholeBatch(samples) if _are_several() else nullcontext()


def number_over_ranks(samples: Tensor) -> int:
    """Number of samples over all ranks."""
    return int(_over_ranks(torch.tensor(len(samples), device=samples.device))) if _are_several() else len(samples)


def _are_several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class WholeBatch(TorchFunctionMode):
    """Makes a network treat a share of a batch as part of the whole batch.

    Rank r of R holds the samples r, r + R, ... of N. Within this context ``torch.randn`` with one row per sample and
    all dropout draw for N samples, from the seed common to all ranks, and keep the share of the rank; batch
    normalisation uses mean and variance over all N; and the mean cross-entropy is that of all N in each rank, so
    that the mean of its gradients over ranks, as in DDP, is the gradient in one process.

    ``samples`` is a tensor with a row for each sample of the share.
    """

    def __init__(self, samples: Tensor) -> None:
        super().__init__()
        self._samples, self._share = len(samples), slice(dist.get_rank(), None, dist.get_world_size())
        self._total = number_over_ranks(samples)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function of torch, or its replacement."""
        if func in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d):
            return self._dropout(func, *args, **(kwargs or {}))
        replaced = {torch.randn: self._randn, F.batch_norm: self._batch_norm, F.cross_entropy: self._cross_entropy}
        return replaced.get(func, func)(*args, **(kwargs or {}))

    def _randn(self, *size: Any, **more: Any) -> Tensor:
        if size[0] != self._samples:
            return torch.randn(*size, **more)
        return torch.randn(self._total, *size[1:], **more)[self._share]

    def _dropout(self, func: Callable[..., Tensor], x: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
        if func is F.dropout:  # draws for each element, in the order of memory
            ones = x.new_empty_strided((self._total, *x.shape[1:]), x.stride()).fill_(1)
        else:
            ones = x.new_ones(self._total, x.shape[1], *(1 for _ in x.shape[2:]))
        return x * func(ones, p, training)[self._share]

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        axes, number = [0, *range(2, x.dim())], self._total * math.prod(x.shape[2:])
        dtype = torch.promote_types(x.dtype, torch.float32)

        def mean_of(values: Tensor) -> Tensor:
            return (_over_ranks(values.sum(axes, keepdim=True, dtype=torch.float64)) / number).to(dtype)  # (1, C, 1, 1)

        mean = mean_of(x)
        centred = x - mean
        var = mean_of(centred.square())
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.flatten(), momentum)
                running_var.lerp_(var.flatten() * number / max(1, number - 1), momentum)
        normal = centred * torch.rsqrt(var + eps)
        if weight is not None and bias is not None:
            normal = normal * weight.view_as(mean) + bias.view_as(mean)
        return normal.to(x.dtype)

    def _cross_entropy(
        self, logits: Tensor, classes: Tensor, weight: Tensor, label_smoothing: float, **_: Any
    ) -> Tensor:
        loss = F.cross_entropy(logits, classes, weight, reduction="sum", label_smoothing=label_smoothing)
        total, weights = _over_ranks(torch.stack([loss, weight[classes].sum()]))
        return total / weights


class _Sum(torch.autograd.Function):
    """The sum over ranks of a tensor, and of its gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """The sum over ranks of values of any shape, the same in each."""
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """The sum over ranks of the gradients: the values of one rank are part of the sum in each."""
        return _Sum.forward(ctx, gradients[0])


def _over_ranks(values: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(values))
