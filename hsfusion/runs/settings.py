"""Settings of a training: one schema for Python, the command line, ranges and documentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from functools import partial
from inspect import signature
from math import inf
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from hsfusion import spectra
from hsfusion.data import splits
from hsfusion.data.splits import Splitter
from hsfusion.errors import InputError, correction
from hsfusion.scenes.description import to_yaml
from hsfusion.spectra import BandGroup, Bands

if TYPE_CHECKING:
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.loggers import Logger
    from torch import nn

_Settings = TypeVar("_Settings", bound="Settings")
BASELINES = ("lda", "logistic", "svm", "svm_context", "svm_mnf", "forest")
#: kinds of fusion
FUSIONS = ("scalar", "channel", "instance", "channel_instance", "none", "free")
#: parts of the network that can be frozen, unfrozen later, or trained at a lower rate
PARTS = ("response", "group_weights", "cnn", "classifier")
#: what ``select`` may change beside the model: ``lr`` is the optimizer's
SELECTABLE = (
    *("epochs", "batch_size", "noise", "flips", "range_dropout", "class_weights", "label_smoothing"),
    *("lr", "fusion_lr_scale", "band_cost", "freeze", "thaw_at", "lr_scales"),
)
FINETUNE_EPOCHS = 20  # a transferred network needs fewer
SCRATCH_EPOCHS = 20  # of the network that fine-tuning is compared with
#: makes the band groups of a scene
GroupMaker = Callable[[Bands], Sequence[BandGroup]]
# annotated type of a field or argument -> accepted types, and their name in messages
_KINDS: dict[str, tuple[Any, str]] = {
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
    "bool": (bool, "true or false"),
    "str": (str, "a word"),
    "tuple": (tuple | list, "a list"),
    "Mapping": (Mapping, "keys and values"),
}


def within(default: Any, lower: float, upper: float = inf, *, key: str | None = None) -> Any:
    """A field with a range; ``key`` is its name in conf/, if different."""
    return field(default=default, metadata={"lower": lower, "upper": upper, "key": key})


def choice(default: Any, *choices: str, key: str | None = None) -> Any:
    """A field that takes one of several words, or a list of them."""
    return field(default=default, metadata={"choices": choices, "key": key})


class Settings:
    """Values checked against types, choices and ranges of their fields; :class:`InputError` for any other value."""

    prefix: ClassVar[str] = ""  #: of the keys in conf/

    def __post_init__(self) -> None:
        for entry in fields(self):  # pyright: ignore
            if _holds_numpy(value := getattr(self, entry.name)):  # or settings with an equal value would not be equal
                object.__setattr__(self, entry.name, _without_numpy(value))
            limits = {limit: value for limit, value in entry.metadata.items() if limit != "key"}
            check_value(self.keys()[entry.name], getattr(self, entry.name), str(entry.type), **limits)

    @classmethod
    def keys(cls) -> dict[str, str]:
        """Name of each field -> its key in conf/ and on the command line."""
        return {entry.name: cls.prefix + (entry.metadata.get("key") or entry.name) for entry in fields(cls)}  # pyright: ignore


def check_value(
    key: str, value: Any, kind: str, *, lower: float = -inf, upper: float = inf, choices: Sequence[str] = ()
) -> None:
    """Refuses a value that is not of the annotated type ``kind``, or outside range or choices, entry by entry."""
    wanted, expected = _KINDS.get(_plain_kind(kind), (object, ""))
    if value is None and kind.endswith(" | None"):
        return
    if choices:
        expected = " | ".join(choices) if wanted is str else f"{expected} of {', '.join(choices)}"
    number_is_bool = isinstance(value, bool) and wanted in (Integral, Real)
    words: Any = [value] if isinstance(value, str) else value
    if not isinstance(value, wanted) or number_is_bool or (choices and not set(words) <= set(choices)):
        raise refusal(key, "null" if value is None else value, expected)
    numbers = {f"{key}.{name}": of for name, of in value.items()} if isinstance(value, Mapping) else {key: value}
    for name, number in numbers.items():
        if isinstance(number, Real) and not lower <= float(number) <= upper:
            raise refusal(name, number, _range(lower, upper))


def _range(lower: float, upper: float) -> str:
    return f"at least {lower}" if upper == inf else f"between {lower} and {upper}"


def limits_of(entry: Field[Any] | None) -> str:
    """The range of a field, to append to its explanation; empty if it has none."""
    limits = {} if entry is None else entry.metadata
    return f" ({_range(limits['lower'], limits['upper'])})" if "lower" in limits else ""


def _holds_numpy(value: Any) -> bool:
    if isinstance(value, partial):
        return _holds_numpy((value.args, value.keywords))
    parts = value.values() if isinstance(value, Mapping) else value
    return any(map(_holds_numpy, parts)) if isinstance(value, Mapping | list | tuple) else isinstance(value, np.generic)


def _without_numpy(value: Any) -> Any:
    """The value with Python numbers instead of NumPy's, which run files and Lightning do not accept."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, partial):
        return partial(value.func, *_without_numpy(value.args), **_without_numpy(value.keywords))
    if isinstance(value, Mapping):
        return {key: _without_numpy(part) for key, part in value.items()}
    return type(value)(map(_without_numpy, value)) if type(value) in (list, tuple) else value


def _plain_kind(kind: str) -> str:
    return kind.removesuffix(" | None").partition("[")[0]


def check_arguments(part: str, maker: Any) -> None:
    """Checks a function, and its arguments if it is partial; integers except seeds are counts, at least 1."""
    if maker is not None and not callable(maker):
        raise refusal(part, maker, "a function, such as split=hs.blocks(fraction=0.3)")
    if not isinstance(maker, partial):
        return
    for name, value in maker.keywords.items():
        parameter = signature(maker.func).parameters.get(name)
        kind = str(getattr(parameter, "annotation", ""))
        if _plain_kind(kind) not in _KINDS and type(getattr(parameter, "default", None)) in (int, float):
            kind = "float"  # as in torch, where tensors may stand for numbers
        lower = -inf if not kind.startswith("int") else 0 if name == "seed" else 1
        check_value(f"{part}.{name}", value, kind, lower=lower)


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """The network, see :func:`hsfusion.training.building.build_network`.

    Attributes:
        fusion: scalar, channel, instance, channel_instance or none; free for an unconstrained 1 x 1 convolution.
        constraint: of the group weights: none, affine, convex or signed.
        channels: fused channels.
        width: hidden channels of the backbone.
        receptive_field: edge of the patch that the network sees around each pixel, in pixels; odd.
        knot_spacing_nm: spacing of the knots of the response curves; None for one free logit per band.
        keep_bands: number of bands to choose; None for as many as are worth their cost (``band_cost``).
        neighbourhood: edge of the patch from which instance weights are predicted, in pixels; odd.
        dropout: share of hidden channels dropped in training.
        whitening: noise for bands whitened by the noise of the training pixels, estimated from differences between
            neighbours; none; auto for noise, but none with ``keep_bands`` and with weights that depend on the pixel.
        linear: whether a logistic regression accompanies the network. Its share, and whether it sees the pixel or the
            mean of the whitened spectra over the patch, are chosen on validation pixels.
        backbone: small_cnn, the name of another registered backbone, or a function that makes one, with arguments by
            :func:`functools.partial`. See :mod:`hsfusion.nn.network`.
    """

    prefix = "model."

    fusion: str = choice("channel", *FUSIONS)
    constraint: str = choice("signed", "none", "affine", "convex", "signed")
    channels: int = within(32, 1)
    width: int = within(64, 1)
    receptive_field: int = within(7, 1)
    knot_spacing_nm: float | None = within(40.0, 1)
    keep_bands: int | None = within(None, 1)
    neighbourhood: int = within(3, 1)
    dropout: float = within(0.2, 0, 0.99)
    whitening: str = choice("auto", "auto", "noise", "none")
    linear: bool = True
    backbone: str | Callable[..., nn.Module] = "small_cnn"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_bands is not None and (self.fusion == "free" or self.whitening == "noise"):
            expected = "null with fusion=free, which has no gates, and with whitening, which mixes all bands"
            raise InputError("model", "keep_bands", self.keep_bands, expected, "remove model.keep_bands")
        if self.whitening == "noise" and self.fusion.endswith("instance"):
            raise InputError("model", "whitening", self.whitening, "none with instance weights", "set it to none")
        if self.neighbourhood % 2 == 0:
            raise refusal("model.neighbourhood", self.neighbourhood, "an odd number of pixels")

    @property
    def whitens(self) -> bool:
        """Whether bands are whitened."""
        chosen = self.keep_bands is not None or self.fusion.endswith("instance")
        return self.whitening == "noise" or (self.whitening == "auto" and not chosen)


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """How a network is trained. Every field is a key of conf/train.yaml.

    Attributes:
        seed: for initial weights, order of batches and augmentation, and for the split if that has no ``seed``.
        epochs: number of epochs, each of ``steps_per_epoch`` batches.
        steps_per_epoch: number of training batches in an epoch.
        batch_size: number of pixels in a batch, over all devices.
        noise: added to each band in training, in standard deviations of the band.
        flips: dihedral (flips and quarter turns) or none.
        range_dropout: share of the training patches that show only part of the spectrum.
        class_weights: of the classes in the loss: none or balanced.
        label_smoothing: share of the target spread evenly over the classes.
        fusion_lr_scale: learning rate of the band fusion, as a multiple of the optimizer's.
        band_cost: sparsity penalty for keeping all bands open, in units of the loss.
        patience: epochs without a better validation accuracy after which the training stops, counted
            from where bands are chosen; None for never.
        freeze: parts of the network that are not trained: response, group_weights, cnn, classifier.
        thaw_at: part -> share of the training after which it starts to learn.
        lr_scales: part -> factor of its learning rate.
        threads: processor threads; None leaves the choice to PyTorch.
        progress: whether to show a progress bar.
        figures: whether a run folder gets figures and a report.
        groups: makes the band groups from the scene's bands.
        split: divides the labelled pixels into training, validation and test.
        model: the network; or a mapping of the fields that differ from the defaults.
        select: changes to try by short trainings on the scene's validation pixels; one is adopted if it is clearly
            better, see :mod:`hsfusion.runs.evaluation`. Each is a mapping of fields of the model and of
            :data:`SELECTABLE`; ``epochs`` can only be reduced. () for none.
        baselines: classifiers without a neural network on the same pixels, see :mod:`hsfusion.trust.baselines`.
        optimizer: makes an optimizer from parameter groups; None for AdamW with lr=0.001 and weight_decay=0.01.
        trainer: makes Lightning's Trainer from the keywords that a run sets; None for one on a GPU if there is one.
        loggers: functions that each make a Lightning logger from ``save_dir``.
        callbacks: further Lightning callbacks, or functions that make one, so that each training gets its own.
    """

    seed: int = within(0, 0, 2**32)
    epochs: int = within(30, 1, key="trainer.max_epochs")
    steps_per_epoch: int = within(50, 1, key="data.steps_per_epoch")
    batch_size: int = within(64, 2, key="data.batch_size")
    noise: float = within(0.05, 0, key="data.noise")
    flips: str = choice("dihedral", "dihedral", "none", key="data.flips")
    range_dropout: float = within(0.0, 0, 1, key="data.range_dropout")
    class_weights: str = choice("none", "none", "balanced")
    label_smoothing: float = within(0.05, 0, 0.99)
    fusion_lr_scale: float = within(10.0, 0)
    band_cost: float = within(0.3, 0)
    patience: int | None = within(None, 1)
    freeze: tuple[str, ...] = choice((), *PARTS)
    thaw_at: Mapping[str, float] = field(default_factory=dict, metadata={"choices": PARTS, "lower": 0, "upper": 1})
    lr_scales: Mapping[str, float] = field(default_factory=dict, metadata={"choices": PARTS, "lower": 0})
    threads: int | None = within(None, 1)
    progress: bool = False
    figures: bool = True
    groups: GroupMaker = field(default_factory=lambda: even_groups(14))
    split: Splitter = splits.blocks
    model: ModelSettings = field(default_factory=ModelSettings)
    select: tuple[Mapping[str, Any], ...] = ()
    baselines: tuple[str, ...] = choice(BASELINES, *BASELINES)
    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    trainer: Callable[..., pl.Trainer] | None = None
    loggers: tuple[Callable[..., Logger], ...] = ()
    callbacks: tuple[pl.Callback | Callable[[], pl.Callback], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.model, Mapping):
            object.__setattr__(self, "model", replaced(ModelSettings(), self.model))
        super().__post_init__()
        for change in self.select:
            check_value("select", change, "Mapping", choices=(*ModelSettings.keys(), *SELECTABLE))
        for part in ("groups", "split", "optimizer"):
            check_arguments(part, getattr(self, part))
        if number := getattr(self.trainer, "keywords", {}).get("overfit_batches"):  # Lightning replaces the sampler
            raise refusal("trainer.overfit_batches", number, "0; trainer.limit_train_batches makes epochs short")
        if all(
            part in self.freeze or self.thaw_at.get(part, 0.0) >= 1 or self.lr_scales.get(part, 1.0) == 0
            for part in PARTS
        ):
            raise refusal("parts that learn", "none", f"at least one of {', '.join(PARTS)}")

    @property
    def split_seed(self) -> int:
        """Seed of the split: its own, or that of the run."""
        given = getattr(self.split, "keywords", {}).get("seed")
        return self.seed if given is None else given

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.epochs * self.steps_per_epoch


def replaced(settings: _Settings, changes: Mapping[str, Any]) -> _Settings:
    """Settings of any kind with some fields replaced; a mapping for ``model`` replaces fields of the model."""
    values, changes = dict(vars(settings)), dict(changes)
    for name, value in changes.items():
        if name not in values:
            fix = correction(name, values, f"choose one of {', '.join(values)}", prefix=settings.prefix)
            raise InputError("settings", "name", f"{settings.prefix}{name}", "a setting", fix)
        inner = values[name]
        changes[name] = replaced(inner, value) if isinstance(inner, Settings) and isinstance(value, Mapping) else value
    return replace(settings, **changes)  # pyright: ignore


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


def refusal(key: str, value: object, expected: str) -> InputError:
    """The error of a setting, called as conf/ and the command line call it."""
    return InputError("settings", key, value, expected, f"correct {key}")


def blocks(**options: Any) -> Splitter:
    """A split into spatial blocks: :func:`hsfusion.data.splits.blocks` with ``fraction=0.3``, ``per_class=10``, ..."""
    return partial(splits.blocks, **options)


def fields_split(**options: Any) -> Splitter:
    """A split into connected fields: :func:`hsfusion.data.splits.fields` with ``fraction=0.3``, ``buffer=...``, ..."""
    return partial(splits.fields, **options)


def random_pixels(**options: Any) -> Splitter:
    """A split into random pixels, which leaks: :func:`hsfusion.data.splits.random` with ``fraction=0.1``, ..."""
    return partial(splits.random, **options)


def fixed_split(train: str | Path, test: str | Path, **options: Any) -> Splitter:
    """A fixed split, by label rasters of the training and of the test pixels: :func:`hsfusion.data.splits.fixed`."""
    return partial(splits.fixed, train=train, test=test, **options)


def even_groups(number: int) -> GroupMaker:
    """Band groups: ``number`` intervals in nm with equal numbers of the scene's good bands."""
    return partial(spectra.even_groups, number=number)


def interval_groups(nm: Mapping[str, Sequence[float]]) -> GroupMaker:
    """Band groups by hand: name -> [lower, upper) in nm; bands in none of them are not used."""
    return partial(spectra.intervals, nm=nm)
