"""The LightningModule that trains a fusion network, and the accuracies of a classification."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from hsfusion.errors import DivergedError
from hsfusion.nn import FreeFusion, FusionNetwork, MultiSceneNetwork

_log = logging.getLogger(__name__)
# shares of the training: bands cost nothing before the first, and all of their price from the second on
_FREE, _CHARGED = 0.1, 0.5


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


class FusionClassifier(pl.LightningModule):
    """Cross-entropy training of a :class:`FusionNetwork`, or of several on a list of patches each.

    The learning rate rises over the first tenth of the ``total_steps`` and falls to 0 along a cosine; that of a band
    fusion is ``fusion_lr_scale`` times the optimizer's: logits have further to go. ``band_cost`` is the sparsity
    penalty, the cost of keeping all bands open in units of the loss: none in the first tenth of the steps, full after
    half of them, linear in between. ``optimizer`` makes one from parameter groups, ``seed`` is of everything random in
    the network, ``class_weights`` are K. ``thaw_at`` says from which share of the training on a part (see
    :func:`parts_of`) learns, 1 or more keeps it as it is; ``lr_scales`` are factors of the learning rates of parts.
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
        self.steps_run = 0  # in this process, not counting those before a resume
        self._diverged = torch.zeros(2)  # the first loss that was not finite, and its step
        self.label_smoothing = label_smoothing
        self.num_classes = network.cnn.classifier.out_channels
        weights = torch.ones(self.num_classes) if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights.float(), persistent=False)
        self.confusion = MulticlassConfusionMatrix(self.num_classes)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Makes dropout and gates a function of (seed, step, rank), so that a resumed run draws the same."""
        self.steps_run += 1
        if self.network.fusion.gates is not None:
            self.network.fusion.gates.advance(self.global_step / self.total_steps)
        for part in (self.network.cnn.norm, self.network.cnn.features):  # running means are part of it
            part.train(not self._frozen("cnn", self.global_step))
        torch.manual_seed(hash((self.seed, self.global_step, self.global_rank)) % 2**63)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of patches (B, C, P, P) with classes (B,)."""
        loss = self._loss(*batch)[0]
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch[1]))
        at = torch.stack([loss.detach(), torch.full_like(loss, self.global_step)])
        self._diverged = self._diverged.to(loss.device)  # compared here, and looked at where the device is waited for
        self._diverged = torch.where(self._diverged[0].isfinite() & ~at[0].isfinite(), at, self._diverged)
        return loss + self.band_price(self.global_step) if self.network.fusion.gates is not None else loss

    def band_price(self, step: int) -> Tensor:
        """What the open bands cost at a step, in units of the loss."""
        gates = self.network.fusion.gates
        assert gates is not None, "a network without gates has no bands to pay for"
        charged = (step / self.total_steps - _FREE) / (_CHARGED - _FREE)
        return self.band_cost * min(1.0, max(0.0, charged)) * gates.cost

    def on_train_end(self) -> None:
        """Chooses the bands if the training ended too soon for that."""
        if self.network.fusion.gates is not None:
            self.network.fusion.gates.advance(1.0)

    def on_train_epoch_end(self) -> None:
        """Stops a run that diverged, and logs the mean loss of the epoch."""
        self.check_finite()
        loss = float(self.trainer.callback_metrics.get("train/loss", 0.0))
        _log.info("epoch %d: training loss %.4f", self.current_epoch, loss)

    def check_finite(self) -> None:
        """Raises :class:`DivergedError` if a loss was no finite number, or a number of the network is none."""
        loss, step = self._diverged.tolist()
        what, expected, step = f"loss is {loss}", "a finite number", int(step)
        if math.isfinite(loss):
            if all(bool(tensor.isfinite().all()) for tensor in self.network.state_dict().values()):
                return
            what, expected, step = "weights are not finite", "numbers", max(0, self.global_step - 1)
        epoch, batch = divmod(step, int(self.trainer.num_training_batches))
        fix = "lower optimizer.lr, or check the scene for extreme values"
        raise DivergedError(
            f"training: {what} at step {step}, batch {batch} of epoch {epoch}, expected {expected}. Fix: {fix}."
        )

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Collects loss and confusion of patches (B, C, P, P) with classes (B,)."""
        loss, logits = self._loss(*batch)
        self.confusion.update(logits.argmax(1), batch[1])
        self.log("val/loss", loss, on_epoch=True, sync_dist=True, batch_size=len(batch[1]))

    def on_validation_epoch_end(self) -> None:
        """Logs overall accuracy, average accuracy, kappa and mean IoU."""
        counts = self.confusion.compute().cpu().numpy()
        self.confusion.reset()
        if counts.sum() == 0:
            return
        result = accuracies(counts, names=[str(k) for k in range(self.num_classes)])
        for name in ("overall_accuracy", "average_accuracy", "kappa", "mean_iou"):
            self.log(f"val/{name}", result[name], prog_bar=name == "overall_accuracy")
        _log.info("epoch %d: validation overall accuracy %.4f", self.current_epoch, result["overall_accuracy"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One group for each part; no decay may pull at the fusion."""
        parts = {name: list(parameters) for name, parameters in parts_of(self.network).items() if parameters}
        fusion = [name for name in parts if name in ("response", "group_weights")]
        optimizer = self.optimizer(
            [{"params": parts[name], **({"weight_decay": 0.0} if name in fusion else {})} for name in parts]
        )
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
        logits = self.network.classify(patches).flatten(1).float()  # (B, K)
        loss = F.cross_entropy(logits, classes, weight=self.class_weights, label_smoothing=self.label_smoothing)
        return loss, logits


def balanced_class_weights(counts: Sequence[int]) -> list[float]:
    """Weights inversely proportional to the number of training pixels, with mean 1 over the pixels."""
    total, k = sum(counts), len(counts)
    return [total / (k * count) for count in counts]


def confusion_matrix(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], *, num_classes: int
) -> NDArray[np.int64]:
    """Counts (K, K + 1), rows truth, columns prediction, of class indices 0..K-1.

    Pixels without a prediction (-1) count as an extra column K, so that they are never right and never left out.
    """
    column = np.where(prediction < 0, num_classes, prediction)
    counts = np.bincount(truth * (num_classes + 1) + column, minlength=num_classes * (num_classes + 1))
    return counts.reshape(num_classes, num_classes + 1)


def accuracies(confusion: NDArray[np.integer], *, names: Sequence[str]) -> dict[str, Any]:
    """Overall accuracy, average accuracy, kappa, mean IoU and that of each class, from counts (K, K) or (K, K + 1).

    Fractions 0-1; rows are the truth; averages run over the classes that occur in the truth, the accuracy of others is
    None. Cohen's kappa is ``(p_o - p_e) / (1 - p_e)`` with the agreement p_o and the agreement p_e expected by chance
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
