"""Classifying every pixel of a scene, tile by tile, smoothed on request, and the weight of each group at each pixel."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hsfusion.inference.folding import FoldedNetwork, PixelMatrix
from hsfusion.nn import BandFusion, FusionNetwork
from hsfusion.scenes import Scene, Window
from hsfusion.scenes.mosaic import sample_spectra

Device = torch.device | str

#: Edge in pixels of the squares that are computed at once. Always the same, and counted from the scene's corner: what a
#: pixel's numbers are must not depend on how much memory there was.
TILE = 256
_MOST_PATCHES = 1000  # that are classified at once
#: Pixels that the filter of the probabilities looks at in each direction, and the deviation of its Gaussian over them.
RADIUS = 5
_COMPONENTS = 3  # of the scene, which guide the filter
_DEVIATION = 0.5  # of the Gaussian over their differences, in standard deviations of the first


class TilePrediction(NamedTuple):
    """The classes of a window (h, w), and their softmax probabilities."""

    window: Window
    classes: NDArray[np.int16]  # (h, w) class indices, -1 where a value is missing
    confidence: NDArray[np.float32]  # (h, w) probability of the class, NaN where a value is missing
    probabilities: NDArray[np.float32] | None  # (K, h, w) of all classes, None where not asked for


def predict_scene(
    network: FusionNetwork, scene: Scene, *, smooth: str = "none", device: Device = "cpu"
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Classifies a scene that fits in memory, reflected at its border, so that every pixel gets a class.

    With ``smooth`` bilateral, by probabilities that :func:`bilateral` has filtered.

    Returns:
        class indices (H, W), -1 where a band that the network uses holds no data, and confidence (H, W): the softmax
        probability of the class, NaN where there is none.
    """
    folded = FoldedNetwork(network).to(device)
    classes = np.full(scene.geobox.shape, -1, np.int16)
    confidence = np.full(scene.geobox.shape, np.nan, np.float32)
    compute = classify_smoothed if smooth == "bilateral" else classify
    for tile, index, share, _ in compute(folded, scene, tiles_of(scene.geobox.shape)):
        classes[tile.slices], confidence[tile.slices] = index, share
    return classes, confidence


@torch.inference_mode()
def instance_weight_maps(network: FusionNetwork, scene: Scene, *, device: Device = "cpu") -> NDArray[np.float32]:
    """How much each group counts at each pixel, for a network with instance weights: (G, H, W), rasters at the end.

    Absolute group weights with the gates, scaled to sum to 1 over the groups in each fused channel, and averaged over
    the channels by their share in what the CNN takes in: the group totals of the band weights, pixel by pixel. NaN
    where a band holds no data.
    """
    network = copy.deepcopy(network).eval().to(device)
    fusion = network.fusion
    assert isinstance(fusion, BandFusion), "the free convolution has no group weights"
    maps = np.full((len(fusion.membership), *scene.geobox.shape), np.nan, np.float32)
    used, every = network.used_bands, np.arange(len(network.mean))
    tiles = tiles_of(scene.geobox.shape)
    for tile, cube in read_ahead(scene, tiles, radius=fusion.margin, layers=every):
        x = torch.from_numpy(np.ascontiguousarray(cube)).to(device)[None]
        missing = (x.isnan() & used[:, None, None]).any(1)[0]
        x = torch.where(used[:, None, None] & x.isfinite(), network.standardise(x), 0.0)
        weights = fusion.instance_weights(x)  # (1, G, H, W) or (1, G, M, H, W)
        sizes = fusion.group_sizes(weights[:, :, None] if weights.dim() == 4 else weights)[0]  # (G, M, H, W)
        size = torch.einsum("gmhw,m->ghw", sizes, network.cnn.input_share)
        inner = missing[Window(fusion.margin, fusion.margin, tile.height, tile.width).slices]
        maps[:, *tile.slices] = size.masked_fill(inner, torch.nan).cpu().numpy()
    return maps


@torch.inference_mode()
def classify(
    network: FoldedNetwork, scene: Scene, tiles: Iterable[Window], *, probabilities: bool = False
) -> Iterator[TilePrediction]:
    """Classifies tiles of :func:`tiles_of` in their order, reading ahead in a thread.

    A pixel's numbers do not depend on which tiles are requested. The scene has the network's bands and layers.
    """
    radius, layers, device = network.receptive_field // 2, network.layers.cpu().numpy(), network.fill.device
    for tile, cube in read_ahead(scene, tiles, radius=radius, layers=layers):
        x = torch.from_numpy(cube)[None]
        x = x.pin_memory() if device.type == "cuda" else x
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # float32 is float32, on every device
            (logits,), (missing,) = network.classify(x.to(device, non_blocking=device.type == "cuda"))
        shares = logits.movedim(0, -1).softmax(-1)  # (H, W, K), as in memory
        shares.masked_fill_(missing[..., None], torch.nan)
        confidence, classes = shares.max(-1)
        classes = classes.to(torch.int16).masked_fill_(missing, -1)
        every = shares.movedim(-1, 0).cpu().numpy() if probabilities else None
        yield TilePrediction(tile, classes.cpu().numpy(), confidence.cpu().numpy(), every)


@torch.inference_mode()
def classify_smoothed(
    network: FoldedNetwork, scene: Scene, tiles: Sequence[Window], *, probabilities: bool = False
) -> Iterator[TilePrediction]:
    """Like :func:`classify`, with probabilities that :func:`bilateral` has filtered.

    Each tile is computed with a margin of :data:`RADIUS` pixels, so that the result does not depend on the tiles.
    """
    layers, device = network.layers.cpu().numpy(), network.fill.device
    matrix = guide_matrix(scene, layers)
    wide = (tile.grown(RADIUS, scene.geobox.shape) for tile in tiles)
    predictions = classify(network, scene, wide, probabilities=True)
    for tile, (window, _, _, shares) in zip(tiles, predictions, strict=True):
        guide = np.tensordot(matrix, scene.read(window, layers), 1)  # (3, h, w)
        smooth = bilateral(*(torch.from_numpy(values).to(device) for values in (shares, guide)))
        inner = Window(tile.row - window.row, tile.col - window.col, tile.height, tile.width)
        smooth = smooth[:, *inner.slices].cpu()
        confidence, classes = smooth.max(0)
        classes = classes.to(torch.int16).masked_fill_(confidence.isnan(), -1)
        yield TilePrediction(tile, classes.numpy(), confidence.numpy(), smooth.numpy() if probabilities else None)


def bilateral(shares: Tensor, guide: Tensor) -> Tensor:
    """Means of the shares in squares of 11 x 11 pixels, weighted by distance and by likeness in the guide.

    The weight of a pixel at distance d whose guide differs by g is ``exp(-(d / RADIUS)^2 / 2 - |g|^2 / 2)`` (Petschnigg
    et al. 2004, doi:10.1145/1015706.1015777).

    Args:
        shares: (K, H, W), NaN where there are no data; these pixels stay as they are, and count nowhere.
        guide: (D, H, W), in standard deviations of the Gaussian.
    """
    missing, guide = shares[:1].isnan(), guide.nan_to_num()
    known = torch.cat([(~missing).to(shares.dtype), shares.masked_fill(missing, 0)])  # (1 + K, H, W)
    around, likeness = (F.pad(values, (RADIUS,) * 4) for values in (known, guide))
    total, (height, width) = torch.zeros_like(known), guide.shape[1:]
    for i in range(2 * RADIUS + 1):
        for j in range(2 * RADIUS + 1):
            window = slice(None), slice(i, i + height), slice(j, j + width)
            distance = ((i - RADIUS) ** 2 + (j - RADIUS) ** 2) / RADIUS**2 + (likeness[window] - guide).square().sum(0)
            total.addcmul_(torch.exp(-distance / 2), around[window])
    return (total[1:] / total[:1]).masked_fill(missing, torch.nan)


def guide_matrix(scene: Scene, layers: NDArray[np.int64]) -> NDArray[np.float32]:
    """What makes the guide of spectra: (3, L), the first principal components of the standardised layers (L,).

    They are those of windows spread over the scene; zeros where these hold no data, so that distance alone counts.
    """
    values = sample_spectra(scene, layers).astype(np.float64)
    values = values[:, np.isfinite(values).all(0)]
    if not values.size:
        return np.zeros((_COMPONENTS, len(layers)), np.float32)
    deviation = values.std(1)
    deviation[deviation == 0] = np.inf  # of a constant layer
    values = (values - values.mean(1, keepdims=True)) / deviation[:, None]
    variances, vectors = np.linalg.eigh(values @ values.T / values.shape[1])  # ascending
    first = vectors[:, : -_COMPONENTS - 1 : -1].T / deviation
    return (first / (_DEVIATION * max(variances[-1], 1e-12) ** 0.5)).astype(np.float32)


def tiles_of(shape: tuple[int, int], edge: int = TILE) -> list[Window]:
    """The tiles of a scene (H, W), row by row; those at its right and lower end may be smaller."""
    height, width = shape
    return [
        Window(row, col, min(edge, height - row), min(edge, width - col))
        for row in range(0, height, edge)
        for col in range(0, width, edge)
    ]


def read_with_halo(scene: Scene, window: Window, radius: int, layers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Reads L bands and layers of a window and ``radius`` pixels around it, reflected where the scene ends.

    (L, height + 2 radius, width + 2 radius), NaN where there are no data; each pixel's numbers side by side where the
    file has them so.
    """
    inside = window.grown(radius, scene.geobox.shape)
    cube = scene.read(inside, layers)
    above, before = inside.row - (window.row - radius), inside.col - (window.col - radius)
    pad_rows = above, window.height + 2 * radius - inside.height - above
    pad_cols = before, window.width + 2 * radius - inside.width - before
    if not any((*pad_rows, *pad_cols)):
        return cube
    if cube.strides[0] == cube.itemsize:  # numpy.pad would transpose it
        return np.pad(cube.transpose(1, 2, 0), (pad_rows, pad_cols, (0, 0)), mode="reflect").transpose(2, 0, 1)
    return np.pad(cube, ((0, 0), pad_rows, pad_cols), mode="reflect")


def read_ahead(
    scene: Scene, windows: Iterable[Window], *, radius: int, layers: NDArray[np.int64]
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """Reads windows and their pixels, see :func:`read_with_halo`, in a thread that is one of them ahead."""
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        reads = ((window, pool.submit(read_with_halo, scene, window, radius, layers)) for window in windows)
        ready = next(reads, None)
        while ready is not None:
            (window, pixels), ready = ready, next(reads, None)
            yield window, pixels.result()


def rounded(network: FoldedNetwork) -> FoldedNetwork:
    """A copy with convolutions in bfloat16; the matrix product before them stays float32."""
    half = copy.deepcopy(network)
    half.convolutions.bfloat16()
    return half


class MaskedNetwork:
    """A trained network, and labelled patches that it is shown with some of their bands replaced.

    Bands are replaced as they are weighed: the network's whitened, if it has a whitening, those of a linear part in the
    basis that it was fitted in. ``bases`` (P, C + E, C + E) are the matrices from standardised spectra to them: one, or
    a second for a linear part of single pixels. A replacement (P, C + E, C + E), or (C + E, C + E) for all, acts on the
    bands as weighed, at each pixel.

    Patches (N, C + E, s, s) are standardised, of the receptive field's size, and of pixels not trained on; ``classes``
    (N,) are their class indices.
    """

    bases: NDArray[np.float64]

    def __init__(self, network: FusionNetwork, patches: Tensor, classes: Tensor) -> None:
        standard = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        standard.mean.zero_()  # the patches are standardised already
        standard.std.fill_(1)
        self._network, self._classes, self._side = standard, classes.long(), patches.shape[-1]
        self._folded, size = FoldedNetwork(standard), patches.shape[1]
        every = torch.eye(size).double()
        bases = [every if standard.whitening is None else standard.whitening.double()]
        if standard.whitening is not None and standard.linear is not None and not standard.linear.of_mean:
            bases.append(every)
        self.bases = torch.stack(bases).numpy()
        self._inverses = np.linalg.inv(self.bases)
        flat = patches.movedim(1, -1).reshape(-1, size)  # (N s s, C + E)
        self._seen = [(flat.double() @ basis.T).float() for basis in bases]
        matrix, bias, linear_rows = every, torch.zeros(size), 0  # without a front, the patches themselves
        if isinstance(front := self._folded.front, PixelMatrix):
            matrix, bias = every.new_zeros(len(front.bias), size), front.bias
            matrix[:, self._folded.layers] = front.weight.double()
            linear_rows = 0 if standard.linear is None else self._folded.classifier.out_channels
        rows = [len(bias) - linear_rows, linear_rows]
        self._biases = bias.split(rows)
        parts = zip((bases[0], bases[-1]), matrix.split(rows), strict=True)
        self._weights = [torch.linalg.solve(basis, weight, left=False) for basis, weight in parts]

    @property
    def pixels(self) -> int:
        """N."""
        return len(self._classes)

    def of_spectra(self, matrix: NDArray[np.floating]) -> NDArray[np.float64]:
        """The replacement (P, C + E, C + E) that is one of bands as they are (C + E, C + E)."""
        return self.bases @ matrix @ self._inverses

    def logits(self, fill: NDArray[np.floating] | None = None) -> Tensor:
        """Logits (N, K) where bands as weighed u become F u in all pixels; None for as they are."""
        return self._logits(self._front(self._seen, fill))

    def exchanged_logits(self, part: NDArray[np.floating], order: NDArray[np.int64]) -> Tensor:
        """Logits (N, K) where a part P u of bands u is that of another pixel v: u becomes u + P (v - u).

        The order (N,) gives the pixels v that take the place of u.
        """
        apart = self._front(self._seen, part).view(len(self._classes), -1)  # (N, s s M)
        fused = self._front(self._seen)
        return self._logits(fused + (apart[torch.from_numpy(order)] - apart).view_as(fused))

    def accuracy(self, logits: Tensor) -> float:
        """Share of the patches whose class is the one predicted."""
        return int((logits.argmax(1) == self._classes).sum()) / len(self._classes)

    def log_likelihoods(self, logits: Tensor) -> NDArray[np.float64]:
        """Log-likelihood (N,) of the class of each patch."""
        return -F.cross_entropy(logits.double(), self._classes, reduction="none").numpy()

    def integrated_gradients(self, *, most: int = 256, steps: int = 8) -> NDArray[np.float64]:
        """Mean size (C + E,) of what each band adds to the log-probability of the class, from the mean spectrum on.

        Gradients at the middle of so many steps on the straight path to each of the first patches, times the patch,
        summed over its pixels. Of a band that network and linear part take in different bases, the sizes are added, as
        its weights are. Source: Sundararajan et al. (2017), arXiv:1703.01365.
        """
        most = min(most, len(self._classes))
        ends = [seen[: most * self._side**2] for seen in self._seen]
        gradients = [torch.zeros_like(end) for end in ends]
        for step in range(steps):
            here = [(end * ((step + 0.5) / steps)).requires_grad_() for end in ends]
            logits = self._classify(self._patches(self._front(here))).flatten(1)
            loss = F.cross_entropy(logits, self._classes[:most], reduction="sum")
            for total, gradient in zip(gradients, torch.autograd.grad(loss, here), strict=True):
                total -= gradient / steps
        added = [(g * end).view(most, self._side**2, -1).sum(1).abs() for g, end in zip(gradients, ends, strict=True)]
        return torch.stack(added).double().sum(0).mean(0).numpy()

    def _front(self, seen: Sequence[Tensor], fill: NDArray[np.floating] | None = None) -> Tensor:
        """What the first layers make of bands as weighed, replaced or not: (N s s, M), or of patches the spectra."""
        size = self.bases.shape[-1]
        fills = torch.as_tensor(np.eye(size) if fill is None else fill, dtype=torch.float64).view(-1, size, size)
        parts = zip(self._weights, self._biases, (fills[0], fills[-1]), (seen[0], seen[-1]), strict=True)
        return torch.cat([bands @ (weight @ of).T.float() + bias for weight, bias, of, bands in parts], 1)

    def _patches(self, flat: Tensor) -> Tensor:
        """Patches (n, M, s, s) of what lies pixel by pixel."""
        return flat.view(-1, self._side, self._side, flat.shape[1]).movedim(-1, 1)

    @torch.inference_mode()
    def _logits(self, fused: Tensor) -> Tensor:
        """Logits (N, K) of the patches, from what :meth:`_front` gave."""
        return torch.cat([self._classify(part).flatten(1) for part in self._patches(fused).split(_MOST_PATCHES)])

    def _classify(self, fused: Tensor) -> Tensor:
        """Logits (n, K, 1, 1) of patches of what the first layers give."""
        folds = isinstance(self._folded.front, PixelMatrix)
        return self._folded.convolve(fused) if folds else self._network.classify(fused)
