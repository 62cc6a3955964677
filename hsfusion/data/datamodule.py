"""The LightningDataModule: the cube on the device, batches of pixel indices, patches gathered there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from hsfusion.data.sampler import StepSampler
from hsfusion.data.splits import TRAIN, VAL, Split
from hsfusion.data.statistics import band_statistics
from hsfusion.errors import InputError
from hsfusion.scenes import Scene
from hsfusion.scenes.scene import read_all


@dataclass(frozen=True, eq=False)
class TrainingCube:
    """A scene made ready for training.

    Attributes:
        values: (H + 2 r, W + 2 r, C) float32, standardised, reflected at the border; 0 where there are no data.
        classes: (H * W,) int64, class index of each pixel, -1 where unlabelled.
        mean: (C,) float64, of the training pixels.
        std: (C,) float64, of the training pixels.
        radius: r, radius of the receptive field in pixels.
    """

    values: Tensor
    classes: Tensor
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    radius: int


def valid_pixels(scene: Scene, used_bands: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (H, W) that have data in every used band and layer (C + E,).

    Raises:
        InputError: if there is none, naming the bands that hold no data at all.
    """
    finite = np.isfinite(read_all(scene)[used_bands])
    valid = np.asarray(finite.all(axis=0))
    if not valid.any():
        names = [f"{nm:g} nm" for nm in scene.bands.wavelength_nm]
        names += [name for name, number in scene.sources for _ in range(number)]
        empty = [names[i] for i in np.flatnonzero(used_bands)[~finite.any(axis=(1, 2))][:5]]
        raise InputError(
            scene.name,
            field="number of pixels with data in every used band",
            value=0,
            expected="at least 1",
            fix=f"leave out what holds no data (bands: good = 0 in the band table): {', '.join(empty) or 'by turns'}",
        )
    return valid


def check_patch_fits(scene: Scene, receptive_field: int) -> None:
    """Makes sure that a patch is no larger than the scene.

    Raises:
        InputError: if it is.
    """
    height, width = scene.geobox.shape
    if receptive_field > min(height, width):
        raise InputError(
            "model",
            field="receptive_field (patch)",
            value=f"{receptive_field} pixels",
            expected=f"at most the scene's {height} rows x {width} columns",
            fix="lower model.receptive_field",
        )


def prepare(split: Split, used_bands: NDArray[np.bool_]) -> TrainingCube:
    """Reads a scene, standardises it with statistics of its training pixels, and pads it by reflection.

    Args:
        split: the scene and its training pixels.
        used_bands: (C + E,), False for bands that the network does not use; they become 0.
    """
    labelled, radius = split.labelled, split.radius
    cube = np.ascontiguousarray(read_all(labelled.scene).transpose(1, 2, 0))  # (H, W, C)
    mean, std = band_statistics(cube[split.roles == TRAIN])
    mean, std = np.where(used_bands, mean, 0.0), np.where(used_bands, std, 1.0)
    values = np.where(used_bands & np.isfinite(cube), (cube - mean) / std, 0.0).astype(np.float32)
    values = np.pad(values, ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    classes = labelled.legend.indices(labelled.labels).ravel()
    return TrainingCube(torch.from_numpy(values), torch.from_numpy(classes), mean, std, radius)


class PatchDataModule(pl.LightningDataModule):
    """Serves patches of one scene.

    The standardised cube lies on the training device once; a batch is a few pixel indices, and the patches around them
    are gathered there, already flipped and turned. No worker processes, no work per patch. All randomness is a function
    of (seed, step).

    Args:
        cube: the prepared scene.
        split: which pixel is used for what.
        seed: of order and augmentation.
        batch_size: pixels in a training batch, over all ranks.
        steps_per_epoch: training batches in an epoch.
        noise: standard deviation of the noise added to each band in training, in standard deviations of the band; the
            same for all pixels of a patch.
        flips: ``dihedral`` for flips and quarter turns, ``none``.
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
    ) -> None:
        super().__init__()
        if flips not in {"dihedral", "none"}:
            raise InputError("data", field="flips", value=flips, expected="dihedral or none", fix="correct data.flips")
        self._pixels = {role: torch.from_numpy(split.pixels(role)) for role in (TRAIN, VAL)}
        self._width = split.roles.shape[1]
        self._seed = seed
        self._batch_size = batch_size
        self._steps_per_epoch = steps_per_epoch
        self._noise = noise
        self._radius = cube.radius
        self._padded_width, bands = cube.values.shape[1:]
        self._flat = cube.values.reshape(-1, bands)
        self._classes = cube.classes
        self._offsets = _patch_offsets(cube.radius, self._padded_width, flips)

    def train_dataloader(self) -> DataLoader:
        """Batches ``(step, pixels)``."""
        trainer = self.trainer
        sampler = StepSampler(
            self._pixels[TRAIN],
            batch_size=self._batch_size,
            steps_per_epoch=self._steps_per_epoch,
            seed=self._seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        return DataLoader(_Identity(), batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        """Batches ``(-1, pixels)`` of the validation pixels."""
        pixels = self._pixels[VAL]
        trainer = self.trainer
        mine = pixels[trainer.global_rank :: trainer.world_size] if trainer else pixels
        return DataLoader([(-1, part) for part in mine.split(1024)], batch_size=None)  # pyright: ignore[reportArgumentType]

    def on_after_batch_transfer(self, batch: tuple[int, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Gathers the patches of a batch on its device.

        Returns:
            patches (B, C, 2 r + 1, 2 r + 1) in channels-last memory, and class indices (B,).
        """
        step, pixels = batch
        for name in ("_flat", "_classes", "_offsets"):  # moves once, on the first batch
            setattr(self, name, getattr(self, name).to(pixels.device))
        return self.patches(pixels, step=step if step >= 0 else None), self._classes[pixels]

    def patches(self, pixels: Tensor, *, step: int | None) -> Tensor:
        """Gathers patches.

        Args:
            pixels: (B,) int64, flat indices of the centres in the scene.
            step: training step, which decides on turn and noise; None leaves the patches as they are.

        Returns:
            (B, C, 2 r + 1, 2 r + 1), standardised
        """
        pixels = pixels.to(self._flat.device)
        rows, cols = pixels // self._width + self._radius, pixels % self._width + self._radius
        centres = rows * self._padded_width + cols
        side, bands = 2 * self._radius + 1, self._flat.shape[1]
        if step is None:
            flat = centres[:, None] + self._offsets[0]
            return self._flat[flat.reshape(-1)].view(-1, side, side, bands).permute(0, 3, 1, 2)
        # drawn on the CPU: the same numbers on every device
        rank = self.trainer.global_rank if self.trainer else 0
        rng = np.random.default_rng([self._seed, 5, step, rank])
        turn = torch.from_numpy(rng.integers(len(self._offsets), size=pixels.numel())).to(pixels.device)
        flat = centres[:, None] + self._offsets[turn]  # (B, side * side)
        patches = self._flat[flat.reshape(-1)].view(-1, side, side, bands)
        if self._noise > 0:
            noise = rng.standard_normal((pixels.numel(), 1, 1, bands), dtype=np.float32) * np.float32(self._noise)
            patches = patches + torch.from_numpy(noise).to(pixels.device)
        return patches.permute(0, 3, 1, 2)


class _Identity(torch.utils.data.Dataset[Any]):
    """The sampler yields the batches themselves."""

    def __getitem__(self, index: Any) -> Any:
        return index


def _patch_offsets(radius: int, padded_width: int, flips: str) -> Tensor:
    """Flat offsets of a patch's pixels from its centre, (8 or 1, side * side), one row for each flip and turn."""
    steps = torch.arange(-radius, radius + 1)
    square = steps[:, None] * padded_width + steps[None, :]
    turned = (
        [torch.rot90(half, k) for half in (square, square.T) for k in range(4)] if flips == "dihedral" else [square]
    )
    return torch.stack([turn.reshape(-1) for turn in turned])
