"""Settings of a training: one schema for Python, the command line, its ranges and its documentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hsfusion import spectra
from hsfusion.data import splits
from hsfusion.data.splits import Splitter
from hsfusion.errors import InputError
from hsfusion.scenes.description import to_yaml
from hsfusion.spectra import BandGroup, Bands

if TYPE_CHECKING:
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.loggers import Logger
    from torch import nn

_Settings = TypeVar("_Settings")
#: makes the band groups of a scene
GroupMaker = Callable[[Bands], Sequence[BandGroup]]


def within(default: Any, lower: float, upper: float = inf, *, key: str | None = None) -> Any:
    """A field with a range; ``key`` is what conf/ calls it where that is not the field's own name."""
    return field(default=default, metadata={"range": (lower, upper), **({} if key is None else {"key": key})})


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network, see :func:`hsfusion.training.building.build_network`.

    Attributes:
        fusion: scalar, channel, instance, channel_instance or none; free for an unconstrained 1 x 1 convolution.
        constraint: of the group weights: none, affine, convex or signed.
        channels: fused channels.
        width: hidden channels of the backbone.
        receptive_field: pixels that the network sees around each pixel, odd.
        knot_spacing_nm: distance of the knots of the response curves; None for one free logit per band.
        keep_bands: number of bands to choose; None for as many as are worth their cost.
        neighbourhood: pixels from which instance weights are predicted, odd.
        dropout: share of hidden channels dropped in training.
        backbone: small_cnn, residual, the name of another registered one, or what makes it; further arguments by
            :func:`functools.partial`. See :mod:`hsfusion.nn.network`.
    """

    fusion: str = "channel"
    constraint: str = "signed"
    channels: int = within(32, 1, key="model.channels")
    width: int = within(64, 1, key="model.width")
    receptive_field: int = 7
    knot_spacing_nm: float | None = within(40.0, 1, key="model.knot_spacing_nm")
    keep_bands: int | None = within(None, 1, key="model.keep_bands")
    neighbourhood: int = 3
    dropout: float = within(0.2, 0, 0.99, key="model.dropout")
    backbone: str | Callable[..., nn.Module] = "small_cnn"

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            InputError: naming the first value that lies outside.
        """
        check_ranges(self)


FINETUNE_EPOCHS = 20  # a transferred network needs fewer
#: parts of the network that can be frozen, thawed and slowed
PARTS = ("response", "group_weights", "cnn", "classifier")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a network is trained. Every field is a key of conf/train.yaml.

    Attributes:
        seed: of the split, the initial weights, the order of batches and augmentation.
        epochs: of ``steps_per_epoch`` batches each.
        steps_per_epoch: training batches in an epoch.
        batch_size: pixels in a batch, over all devices.
        noise: added to each band in training, in standard deviations of the band.
        flips: dihedral (flips and quarter turns) or none.
        range_dropout: share of the training patches that show only part of the spectrum.
        class_weights: of the classes in the loss: none or balanced.
        label_smoothing: share of the target spread evenly over the classes.
        fusion_lr_scale: learning rate of the band fusion, in multiples of the optimizer's.
        band_cost: sparsity penalty: the cost of keeping all bands open, in units of the loss.
        patience: epochs without a better validation accuracy after which the training stops; None for never.
        freeze: parts of the network that stay as they are: response, group_weights, cnn, classifier.
        thaw_at: part -> share of the training from which on it learns.
        lr_scales: part -> factor of its learning rate.
        threads: processor threads; None leaves the choice to PyTorch.
        progress: whether to show a progress bar.
        figures: whether a run folder gets figures and a report.
        groups: makes the band groups from the scene's bands.
        split: divides the labelled pixels into training, validation and test.
        model: the network; a mapping for what differs from the defaults.
        optimizer: makes an optimizer from parameter groups; None for AdamW with lr=0.001 and weight_decay=0.01.
        trainer: makes Lightning's Trainer from the keywords that a run sets; None for one on a GPU if there is one.
        loggers: each makes a Lightning logger from ``save_dir``.
        callbacks: further Lightning callbacks.
    """

    seed: int = within(0, 0, 2**32)
    epochs: int = within(60, 1, key="trainer.max_epochs")
    steps_per_epoch: int = within(50, 1, key="data.steps_per_epoch")
    batch_size: int = within(64, 2, key="data.batch_size")
    noise: float = within(0.05, 0, key="data.noise")
    flips: str = "dihedral"
    range_dropout: float = within(0.0, 0, 1, key="data.range_dropout")
    class_weights: str = "none"
    label_smoothing: float = within(0.05, 0, 0.99)
    fusion_lr_scale: float = within(10.0, 0)
    band_cost: float = within(0.3, 0)
    patience: int | None = within(None, 1)
    freeze: tuple[str, ...] = ()
    thaw_at: Mapping[str, float] = field(default_factory=dict, metadata={"range": (0, 1)})
    lr_scales: Mapping[str, float] = field(default_factory=dict, metadata={"range": (0, inf)})
    threads: int | None = within(None, 1)
    progress: bool = False
    figures: bool = True
    groups: GroupMaker = field(default_factory=lambda: even_groups(14))
    split: Splitter = splits.blocks
    model: ModelSettings = field(default_factory=ModelSettings)
    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    trainer: Callable[..., pl.Trainer] | None = None
    loggers: tuple[Callable[..., Logger], ...] = ()
    callbacks: tuple[pl.Callback, ...] = ()

    def __post_init__(self) -> None:
        """Checks ranges and words.

        Raises:
            InputError: naming the first value that cannot be used.
        """
        if isinstance(self.model, Mapping):
            object.__setattr__(self, "model", replaced(ModelSettings(), self.model, prefix="model."))
        check_ranges(self)
        if self.class_weights not in ("none", "balanced"):
            raise refusal("class_weights", self.class_weights, "none or balanced")
        if not set(self.freeze) <= set(PARTS) or isinstance(self.freeze, str):
            raise refusal("freeze", list(self.freeze), f"a list of {', '.join(PARTS)}")
        if all(
            part in self.freeze or self.thaw_at.get(part, 0.0) >= 1 or self.lr_scales.get(part, 1.0) == 0
            for part in PARTS
        ):
            raise refusal("parts that learn", "none", f"at least one of {', '.join(PARTS)}")

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.epochs * self.steps_per_epoch


def with_fields(settings: TrainSettings | None, changes: Mapping[str, Any]) -> TrainSettings:
    """Settings with some fields replaced; a mapping for ``model`` replaces fields of the model.

    Raises:
        InputError: if a field is unknown, or a value out of range.
    """
    settings, changes = settings or TrainSettings(), dict(changes)
    if isinstance(changes.get("model"), Mapping):
        changes["model"] = replaced(settings.model, changes["model"], prefix="model.")
    return replaced(settings, changes)


def replaced(settings: _Settings, changes: Mapping[str, Any], *, prefix: str = "") -> _Settings:
    """Settings of any kind with some fields replaced.

    Raises:
        InputError: if a field is unknown, or a value cannot be used.
    """
    values: Any = settings
    known = [entry.name for entry in fields(values)]
    for name in changes:
        if name not in known:
            close = get_close_matches(name, known, 1)
            fix = f"did you mean {prefix}{close[0]}?" if close else f"choose one of {', '.join(known)}"
            raise InputError("settings", "name", f"{prefix}{name}", "a setting", fix)
    return replace(values, **changes)


def describe(settings: Any) -> str:
    """The settings as YAML text: plain values, and the names and arguments of what makes groups, split and so on."""
    return to_yaml({entry.name: _plain(getattr(settings, entry.name)) for entry in fields(settings)})


def _plain(value: Any) -> Any:
    if isinstance(value, partial):
        return {"function": _plain(value.func), **{key: _plain(part) for key, part in value.keywords.items()}}
    if is_dataclass(value):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else repr(value)


def ranges(settings: type) -> dict[str, tuple[float, float]]:
    """Key of conf/ -> smallest and largest value; parts of a mapping have a key each."""
    limits = {}
    for entry in fields(settings):
        if "range" in entry.metadata:
            key = entry.metadata.get("key", entry.name)
            keys = [f"{key}.{part}" for part in PARTS] if entry.name in ("thaw_at", "lr_scales") else [key]
            limits |= dict.fromkeys(keys, entry.metadata["range"])
    return limits


def check_ranges(settings: Any) -> None:
    """Makes sure that every number lies within the range of its field.

    Raises:
        InputError: naming the first that does not.
    """
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        lower, upper = entry.metadata.get("range", (-inf, inf))
        for part in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(part, int | float) and not lower <= part <= upper:
                expected = f"at least {lower}" if upper == inf else f"between {lower} and {upper}"
                raise refusal(entry.metadata.get("key", entry.name), part, expected)


def refusal(key: str, value: object, expected: str) -> InputError:
    """The error of a setting, called as conf/ and the command line call it."""
    return InputError("settings", key, value, expected, f"correct {key}")


def blocks(**options: Any) -> Splitter:
    """A split into spatial blocks: :func:`hsfusion.data.splits.blocks` with ``fraction=0.3``, ``per_class=10``, ..."""
    return partial(splits.blocks, **options)


def random_pixels(**options: Any) -> Splitter:
    """A split into random pixels, which leaks: :func:`hsfusion.data.splits.random` with ``fraction=0.1``, ..."""
    return partial(splits.random, **options)


def fixed_split(train: str | Path, test: str | Path, **options: Any) -> Splitter:
    """A fixed split, by label rasters of the training and of the test pixels: :func:`hsfusion.data.splits.fixed`."""
    return partial(splits.fixed, train=train, test=test, **options)


def even_groups(number: int) -> GroupMaker:
    """Band groups: ``number`` intervals of equal width in nm over the range of the scene's good bands."""
    return partial(spectra.even_groups, number=number)


def interval_groups(nm: Mapping[str, Sequence[float]]) -> GroupMaker:
    """Band groups by hand: name -> [lower, upper) in nm; bands in none of them are not used."""
    return partial(spectra.intervals, nm=nm)
