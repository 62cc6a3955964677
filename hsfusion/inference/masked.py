"""Accuracy of a network on patches whose bands are replaced by what other bands, or other pixels, say."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsfusion.inference.folding import FoldedNetwork, PixelMatrix
from hsfusion.nn import FusionNetwork

_PATCHES = 1000  # that are classified at once


class MaskedNetwork:
    """A trained network, and labelled patches that it is shown with some of their bands replaced.

    A replacement that is linear at each pixel is folded into the one matrix that the network starts with, so that
    it costs no more than classifying the patches. Where group weights depend on the pixels, the patches themselves
    are changed.

    Args:
        network: the network; left as it is.
        patches: (N, C + E, s, s) standardised patches of the receptive field's size, of pixels not trained on.
        classes: (N,) their class indices.
    """

    def __init__(self, network: FusionNetwork, patches: Tensor, classes: Tensor) -> None:
        standard = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        standard.mean.zero_()  # the patches are standardised already
        standard.std.fill_(1)
        self._network, self._classes, self._side = standard, classes, patches.shape[-1]
        self._folded = FoldedNetwork(standard)
        self._flat = patches.movedim(1, -1).reshape(-1, patches.shape[1]).contiguous()  # (N s s, C + E)

    @property
    def pixels(self) -> int:
        """N."""
        return len(self._classes)

    def accuracy(self, fill: NDArray[np.floating]) -> float:
        """Overall accuracy where a standardised spectrum x becomes F x, in every pixel of the patches.

        Args:
            fill: (C + E, C + E), F.
        """
        matrix = torch.from_numpy(fill.astype(np.float32))
        if self._linear is None:
            return self._share_right(self._flat @ matrix.T)
        weight, bias = self._linear.weight @ matrix[self._folded.layers], self._linear.bias  # (M, C + E)
        return self._share_right(torch.addmm(bias, self._flat, weight.T))

    def permuted_accuracy(self, bands: NDArray[np.bool_], order: NDArray[np.int64]) -> float:
        """Overall accuracy where bands take their values from the patches of other pixels.

        Args:
            bands: (C + E,), which.
            order: (N,), the pixel that each pixel takes them from.
        """
        other = torch.from_numpy(order)
        moved = torch.from_numpy(bands)
        spectra = self._flat.view(len(self._classes), -1)  # (N, s s (C + E))
        exchanged = spectra[other].view_as(self._flat)
        return self._share_right(self._front(torch.where(moved, exchanged, self._flat)))

    @property
    def _linear(self) -> PixelMatrix | None:
        """The matrix that the network starts with; None where it has none."""
        return self._folded.front if isinstance(self._folded.front, PixelMatrix) else None

    def _front(self, flat: Tensor) -> Tensor:
        """What the first layers make of pixels (N s s, C + E): (N s s, M), or the pixels themselves."""
        if self._linear is None:
            return flat
        return torch.addmm(self._linear.bias, flat[:, self._folded.layers], self._linear.weight.T)

    @torch.inference_mode()
    def _share_right(self, fused: Tensor) -> float:
        """Share of the patches whose class is found, from what :meth:`_front` gave."""
        square = (len(self._classes), self._side, self._side, -1)
        right = 0
        for part, classes in zip(
            fused.view(square).movedim(-1, 1).split(_PATCHES), self._classes.split(_PATCHES), strict=True
        ):
            logits = self._network.classify(part) if self._linear is None else self._folded.convolve(part)
            right += int((logits.flatten(1).argmax(1) == classes).sum())
        return right / len(self._classes)
