"""Patches for training: standardised pixels on the device, batches of indices as a function of (seed, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, zip_longest
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from hsfusion.data.noise import noise_whitening
from hsfusion.data.splits import BUFFER, TEST, TRAIN, VAL, Split, dilate
from hsfusion.errors import InputError
from hsfusion.scenes import Scene
from hsfusion.scenes.scene import pixel_blocks, read_pixels, room_for

_NUMBERS = 2**22  # standardised at a time, in float64
_ROWS = 2**14  # whitened at a time
_MOST_SPECTRA = 20_000  # of which a covariance is computed


@dataclass(frozen=True, eq=False)
class TrainingCube:
    """The pixels of a scene that occur in patches, prepared for training.

    Attributes:
        values: (P, C) float32, standardised; 0 where there are no data.
        index: (H + 2 r, W + 2 r) int32, row of ``values`` of each pixel of the scene, reflected at the border; P, which
            is no row, for pixels that are in no patch.
        classes: (H * W,) int16, class index of each pixel, -1 where unlabelled.
        mean: (C,) float64, of the training pixels.
        std: (C,) float64, of the training pixels.
        covariance: (C (C + 1) / 2,) float64, of at most 20,000 standardised training spectra, the upper triangle row
            after row; 0 for bands that are not used.
        radius: r, radius of the receptive field in pixels.
    """

    values: Tensor
    index: Tensor
    classes: Tensor
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    covariance: NDArray[np.float64]
    radius: int

    @property
    def statistics(self) -> dict[str, Tensor]:
        """The buffers of a :class:`hsfusion.nn.FusionNetwork` that hold them."""
        values = {"mean": self.mean, "std": self.std, "covariance": self.covariance}
        return {name: torch.from_numpy(value) for name, value in values.items()}

    def spectra(self, pixels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Standardised spectra (N, C) of pixels (N,), given as flat indices in the scene."""
        width = self.index.shape[1]
        rows, cols = np.divmod(pixels, width - 2 * self.radius)
        places = (rows + self.radius) * width + cols + self.radius
        return self.values.numpy()[self.index.numpy().ravel()[places]]


def valid_pixels(
    scene: Scene, used_bands: NDArray[np.bool_], *, where: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Pixels (H, W) that have data in every used band and layer (C + E,).

    Args:
        scene: the scene.
        used_bands: (C + E,), False for bands that do not matter.
        where: (H, W), True for the pixels to check; all others are not read, and count as valid. None for all.
    """
    valid = np.ones(scene.geobox.shape, bool)
    pixels = np.arange(valid.size) if where is None else np.flatnonzero(where)
    used, valid_number = np.flatnonzero(used_bands), 0
    holds_data = np.zeros(used.size, bool)
    for places, values in pixel_blocks(scene, pixels, used):
        finite = np.isfinite(values)
        valid.flat[pixels[places]] = whole = finite.all(1)
        valid_number += int(whole.sum())
        holds_data |= finite.any(0)
    if not valid_number:
        names = [f"{nm:g} nm" for nm in scene.bands.wavelength_nm]
        names += [name for name, number in scene.sources for _ in range(number)]
        empty = ", ".join(names[i] for i in used[~holds_data][:5]) or "those that lack most pixels"
        fix = f"leave out bands or rasters without data (bands: good = 0 in the band table): {empty}"
        raise InputError(scene.name, "number of pixels with data in every used band", 0, "at least 1", fix)
    return valid


def check_patch_fits(scene: Scene, receptive_field: int) -> None:
    """Makes sure that a patch is no larger than the scene."""
    height, width = scene.geobox.shape
    if receptive_field > min(height, width):
        expected = f"at most the scene's {height} rows x {width} columns"
        given = f"{receptive_field} pixels"
        raise InputError("model", "receptive_field (patch)", given, expected, "lower model.receptive_field")


def band_statistics(spectra: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (C,) and standard deviation (C,) of spectra (N, C), computed in float64 without NaN.

    Bands that are constant, or have no data, get a standard deviation of 1 (and a mean of 0 without data).
    """
    values = np.asarray(spectra, np.float64)
    seen = np.isfinite(values)
    count = np.maximum(seen.sum(0), 1)
    mean = np.where(seen, values, 0).sum(0) / count
    std = np.sqrt((np.where(seen, values - mean, 0) ** 2).sum(0) / count)
    return mean, np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-300), std, 1.0)


def prepare(
    split: Split,
    used_bands: NDArray[np.bool_],
    *,
    roles: Sequence[int] = (TRAIN, VAL, TEST, BUFFER),
    known: Mapping[str, NDArray[np.float64]] | None = None,
) -> TrainingCube:
    """Reads the patches of a split, standardised with statistics of its training pixels.

    Args:
        split: the scene and its training pixels.
        used_bands: (C + E,), False for bands that the network does not use; they become 0.
        roles: roles of the pixels whose patches are read, including training pixels.
        known: mean, std and covariance to use instead of those of the training pixels.
    """
    labelled, radius = split.labelled, split.radius
    pixels = np.flatnonzero(dilate(np.isin(split.roles, roles), radius))
    index = np.full(split.roles.shape, pixels.size, np.int32)
    index.flat[pixels] = np.arange(pixels.size)
    values = read_pixels(labelled.scene, pixels)  # (P, C)
    train = index[split.roles == TRAIN]
    mean, std = band_statistics(values[train]) if known is None else (known["mean"], known["std"])
    mean, std = np.where(used_bands, mean, 0.0), np.where(used_bands, std, 1.0)
    rows = max(1, _NUMBERS // values.shape[1])
    for part in np.split(values, range(rows, len(values), rows)):
        with np.errstate(over="ignore"):  # of undeclared fill values, which the survey of the scene names
            part[:] = np.where(used_bands & np.isfinite(part), (part - mean) / std, 0.0)
    some = values[train[:: max(1, -(-len(train) // _MOST_SPECTRA))]].astype(np.float64)
    covariance = np.atleast_2d(np.cov(some.T, ddof=0))[np.triu_indices(some.shape[1])]
    covariance = covariance if known is None else known["covariance"]
    index = torch.from_numpy(np.pad(index, radius, mode="reflect"))
    classes = torch.from_numpy(labelled.legend.indices(labelled.labels).ravel())
    return TrainingCube(torch.from_numpy(values), index, classes, mean, std, covariance, radius)


@dataclass(eq=False)
class StepSampler(Sampler[tuple[int, Tensor]]):
    """Yields ``(step, pixels)`` for the steps of one epoch.

    The training pixels, shuffled again for each pass, form an endless stream; step s takes the s-th batch of it. The
    pixels of a step thus depend only on seed and step, not on where a run was resumed, nor on the number of ranks.

    Attributes:
        pixels: (N,) int64, flat indices of the training pixels.
        batch_size: pixels in a batch, over all ranks.
        steps_per_epoch: batches in an epoch.
        seed: for the order.
        done: returns how many steps of the epoch a resumed run has already made.
    """

    pixels: Tensor
    batch_size: int
    steps_per_epoch: int
    seed: int
    epoch: int = 0
    done: Callable[[], int] = lambda: 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Returns the number of steps in an epoch."""
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Yields the remaining steps of the epoch."""
        first = self.epoch * self.steps_per_epoch
        for step in range(first + self.done(), first + self.steps_per_epoch):
            yield step, self.batch(step)

    def batch(self, step: int) -> Tensor:
        """All pixels of a step: (batch_size,) int64."""
        n = self.pixels.numel()
        position = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        passes = range(position[0] // n, position[-1] // n + 1)
        order = np.concatenate([_shuffled(n, self.seed, p) for p in passes])
        return self.pixels[torch.from_numpy(order[position - passes[0] * n])]


@lru_cache(maxsize=2)
def _shuffled(number: int, seed: int, times: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 4, times]).permutation(number)


@dataclass(eq=False)
class StepsTogether(Sampler[tuple[int, list[Tensor]]]):
    """Yields ``(step, pixels of each scene)`` for the steps of one epoch, from samplers with equal numbers of steps."""

    samplers: Sequence[StepSampler]

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls this before each."""
        for sampler in self.samplers:
            sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """Returns the number of steps in an epoch."""
        return len(self.samplers[0])

    def __iter__(self) -> Iterator[tuple[int, list[Tensor]]]:
        """Yields the steps of the epoch."""
        for batches in zip(*self.samplers, strict=True):
            yield batches[0][0], [pixels for _, pixels in batches]


class PatchDataModule(pl.LightningDataModule):
    """Serves patches of one scene.

    The standardised pixels lie on the training device once; a batch is a few pixel indices, and the patches around them
    are gathered there, already flipped and rotated. No worker processes, no work per patch. All randomness is a
    function of (seed, step): with several ranks, each draws it for the whole batch, and gathers its share of patches.

    Patches are standardised. When training starts, the attribute ``network`` of the LightningModule, a
    :class:`hsfusion.nn.FusionNetwork`, gets their mean and standard deviation, so that it accepts the scene's values.
    Steps of the module classify patches by ``self.network.classify``.

    Args:
        cube: the prepared scene.
        split: the role of each pixel.
        seed: for order and augmentation.
        batch_size: pixels in a training batch, over all ranks.
        steps_per_epoch: training batches in an epoch.
        noise: standard deviation of the noise added to each band in training, in standard deviations of the band as
            the network sees it (whitened or not); the same for all pixels of a patch.
        flips: ``dihedral`` for flips and quarter turns, or ``none``.
        range_dropout: share of the training patches that show the spectrum only below, or only above, a random
            wavelength, and its mean elsewhere, like a sensor of that range: a network to be used on other sensors must
            not need the whole range.
    """

    def __init__(
        self,
        cube: TrainingCube,
        split: Split,
        *,
        seed: int,
        batch_size: int = 64,
        steps_per_epoch: int = 50,
        noise: float = 0.05,
        flips: str = "dihedral",
        range_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self._pixels = {role: torch.from_numpy(split.pixels(role)) for role in (TRAIN, VAL)}
        self._width = split.roles.shape[1]
        self._seed = seed
        self._batch_size = batch_size
        self._steps_per_epoch = steps_per_epoch
        self._noise = noise
        self._range_dropout = range_dropout
        self._wavelength_nm = split.labelled.scene.bands.wavelength_nm
        self._radius = cube.radius
        self._padded_width = cube.index.shape[1]
        self._index = cube.index.reshape(-1)
        self._cube, self._split = cube, split
        self._coloring: NDArray[np.float32] | None = None  # (C, C), of the noise where bands are whitened
        self._values = cube.values
        self._classes = cube.classes
        self._statistics = cube.statistics
        self._offsets = _patch_offsets(cube.radius, self._padded_width, flips)

    def setup(self, stage: str) -> None:
        """Gives the network the statistics of the patches; with others its maps would be wrong without an error.

        Whitens all pixels once if the LightningModule accepts that, because every pixel is in many patches.
        """
        self._values, self._coloring = self._cube.values, None
        module = self.trainer.lightning_module if self.trainer else None
        network = getattr(module, "network", None)
        if stage != "fit":
            return
        parts = module.named_modules() if isinstance(module, nn.Module) else ()
        names = [name for name, part in parts if hasattr(part, "used_bands")]
        if names and not hasattr(network, "used_bands"):
            fix = "name the attribute network, so that the DataModule can standardise it"
            raise InputError(type(module).__name__, "attribute of its fusion network", names[0], "network", fix)
        for name, values in self._statistics.items():
            if isinstance(buffer := getattr(network, name, None), Tensor):
                buffer.copy_(values)
        whitening = getattr(network, "whitening", None)
        if isinstance(whitening, Tensor):
            whitening.copy_(torch.from_numpy(noise_whitening(self._cube, self._split)))
        take_whitened = getattr(module, "take_whitened", None)  # of another LightningModule: not
        ahead = take_whitened is not None and take_whitened(self._range_dropout == 0)
        if isinstance(whitening, Tensor) and ahead:
            self._values = torch.from_numpy(room_for(*self._cube.values.shape))
            for part, out in zip(self._cube.values.split(_ROWS), self._values.split(_ROWS), strict=True):
                torch.matmul(part, whitening.cpu().T, out=out)
        elif isinstance(whitening, Tensor):
            self._coloring = np.linalg.inv(whitening.double().cpu().numpy()).T.astype(np.float32)

    def teardown(self, stage: str) -> None:
        """Undoes the whitening of patches, and frees memory of a GPU."""
        module: Any = self.trainer.lightning_module if self.trainer else None
        if hasattr(module, "take_whitened"):
            module.take_whitened(False)
        self._values, self._coloring = self._cube.values, None
        self._index, self._classes = self._cube.index.reshape(-1), self._cube.classes
        self._offsets = self._offsets.cpu()

    def train_dataloader(self) -> DataLoader:
        """Batches ``(step, pixels)``."""
        return DataLoader(_Identity(), batch_size=None, sampler=self.sampler())

    def val_dataloader(self) -> DataLoader:
        """Batches ``(-1, pixels)`` of the validation pixels."""
        return DataLoader([(-1, part) for part in self.validation_batches()], batch_size=None)  # pyright: ignore[reportArgumentType]

    def sampler(self) -> StepSampler:
        """The training pixels of each step."""
        return StepSampler(self._pixels[TRAIN], self._batch_size, self._steps_per_epoch, self._seed, done=self._done)

    def validation_batches(self) -> list[Tensor]:
        """The validation pixels in batches; none where there are no pixels."""
        return list(self._pixels[VAL].split(1024))

    def _done(self) -> int:
        """Number of batches of the epoch that the training has already done."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0

    def on_after_batch_transfer(self, batch: tuple[int, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Gathers patches (B, C, 2 r + 1, 2 r + 1), in channels-last memory, and class indices (B,) on the device.

        For the share of pixels of this rank, see :func:`share_of`.
        """
        return self.gathered(*batch, share=share_of(self.trainer))

    def gathered(self, step: int, pixels: Tensor, *, share: slice) -> tuple[Tensor, Tensor]:
        """Patches and class indices of a share of the pixels of a step; -1 for validation."""
        for name in ("_values", "_index", "_classes", "_offsets"):  # moves once, on the first batch
            setattr(self, name, getattr(self, name).to(pixels.device))
        patches = self.patches(pixels, step=step if step >= 0 else None, share=share)
        return patches, self._classes[pixels[share]].long()

    def patches(self, pixels: Tensor, *, step: int | None, share: slice = slice(None)) -> Tensor:
        """Standardised patches (B, C, 2 r + 1, 2 r + 1) around a share of pixels, given as flat indices in the scene.

        The training step and the position among all pixels determine rotation and noise; None leaves patches unchanged.
        """
        number, pixels = pixels.numel(), pixels[share]
        pixels = pixels.to(self._values.device)
        rows, cols = pixels // self._width + self._radius, pixels % self._width + self._radius
        centres = rows * self._padded_width + cols
        side, bands = 2 * self._radius + 1, self._values.shape[1]
        if step is None:
            flat = centres[:, None] + self._offsets[0]
            return self._gathered(flat, side).permute(0, 3, 1, 2)
        # drawn on the CPU: the same numbers on every device
        rng = np.random.default_rng([self._seed, 5, step, 0])
        turn = torch.from_numpy(rng.integers(len(self._offsets), size=number)[share]).to(pixels.device)
        flat = centres[:, None] + self._offsets.index_select(0, turn)  # (B, side * side)
        patches = self._gathered(flat, side)
        if self._noise > 0:
            noise = rng.standard_normal((number, 1, 1, bands), dtype=np.float32)[share] * np.float32(self._noise)
            noise = noise if self._coloring is None else noise @ self._coloring
            patches += torch.from_numpy(noise).to(pixels.device)
        if self._range_dropout > 0:
            # bands are standardised: 0 is the mean
            patches *= torch.from_numpy(self._ranges(rng, number)[share]).to(pixels.device)
        return patches.permute(0, 3, 1, 2)

    def _gathered(self, places: Tensor, side: int) -> Tensor:
        """Patches (B, side, side, C) of pixels (B, side * side) of the reflected scene."""
        rows = self._index.index_select(0, places.reshape(-1))  # several times faster than brackets
        return self._values.index_select(0, rows).view(-1, side, side, self._values.shape[1])

    def _ranges(self, rng: np.random.Generator, number: int) -> NDArray[np.float32]:
        """(number, 1, 1, C + E): 1 for bands that a patch shows, 0 for others; further rasters always show."""
        nm = self._wavelength_nm
        cut = rng.uniform(nm.min(), nm.max(), (number, 1))
        shown = np.where(rng.random((number, 1)) < 0.5, nm < cut, nm >= cut)
        shown |= rng.random((number, 1)) >= self._range_dropout
        layers = np.ones((number, self._values.shape[1] - nm.size), bool)
        return np.concatenate([shown, layers], 1)[:, None, None].astype(np.float32)


class SeveralDataModule(pl.LightningDataModule):
    """Serves batches with patches of several scenes, from one module per scene with its share of the batch."""

    def __init__(self, parts: Sequence[PatchDataModule]) -> None:
        super().__init__()
        self._parts = list(parts)

    def train_dataloader(self) -> DataLoader:
        """Batches ``(step, pixels of each scene)``."""
        sampler = StepsTogether([part.sampler() for part in self._joined()])
        return DataLoader(_Identity(), batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        """Batches ``(-1, pixels of each scene)`` of the validation pixels; a scene may have none in some."""
        pixels = [part.validation_batches() for part in self._joined()]
        none = torch.zeros(0, dtype=torch.int64)
        batches = [(-1, list(batch)) for batch in zip_longest(*pixels, fillvalue=none)]
        return DataLoader(batches, batch_size=None)  # pyright: ignore[reportArgumentType]

    def on_after_batch_transfer(
        self, batch: tuple[int, list[Tensor]], dataloader_idx: int
    ) -> tuple[list[Tensor], Tensor]:
        """Patches (B_s, C_s, 2 r + 1, 2 r + 1) of each scene, and class indices (B,) of all in this order."""
        step, pixels = batch
        firsts = accumulate(map(len, pixels), initial=0)  # places in the whole batch
        gathered = [
            part.gathered(step, some, share=share_of(self.trainer, first))
            for part, some, first in zip(self._parts, pixels, firsts, strict=False)
        ]
        return [patches for patches, _ in gathered], torch.cat([classes for _, classes in gathered])

    def _joined(self) -> list[PatchDataModule]:
        """The parts, which have to know the step."""
        for part in self._parts:
            part.trainer = self.trainer
        return self._parts


def share_of(trainer: pl.Trainer | None, first: int = 0) -> slice:
    """The samples of a rank, if the first sample has this position in the batch: positions rank, rank + ranks, ..."""
    rank, ranks = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
    return slice((rank - first) % ranks, None, ranks)


class _Identity(torch.utils.data.Dataset[Any]):
    """The sampler yields the batches themselves."""

    def __getitem__(self, index: Any) -> Any:
        return index


def _patch_offsets(radius: int, padded_width: int, flips: str) -> Tensor:
    """Flat offsets of a patch's pixels from its centre, (8 or 1, side * side), one row for each flip and turn."""
    steps = torch.arange(-radius, radius + 1)
    square = steps[:, None] * padded_width + steps[None, :]
    turned = [torch.rot90(half, k) for half in (square, square.T) for k in range(4)]  # the first is as it is
    return torch.stack([turn.reshape(-1) for turn in (turned if flips == "dihedral" else turned[:1])])
