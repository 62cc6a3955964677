"""Synthetic scenes in which it is known which bands separate the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from hsfusion.scenes import ArrayRaster, ArrayScene, LabelledScene, Legend, StackedScene
from hsfusion.spectra import Bands


def synthetic_scene(
    *,
    seed: int,
    height: int = 64,
    width: int = 64,
    num_classes: int = 4,
    windows_nm: Sequence[tuple[float, float]] = ((650.0, 700.0), (2150.0, 2250.0)),
    contrast: float = 1.0,
    noise: float = 0.5,
    step_m: float | None = None,
    proxies: Sequence[tuple[float, float]] = (),
) -> LabelledScene:
    """A scene whose classes differ inside the given windows, each [lower, upper) in nm, and nowhere else.

    There is a band every 10 nm from 400 to 2500 nm. All pixels share one smooth spectrum; brightness varies smoothly
    over the scene, and noise is correlated between neighbouring bands. Inside each window, each class has its own
    level, such that none of several windows alone separates all classes. Every pixel is labelled 1..K, in patches of
    about 12 pixels.

    ``contrast`` is the difference between consecutive levels and ``noise`` a standard deviation, in units of
    reflectance x 10. ``step_m`` adds a raster of heights named lidar, in which the last class is higher than the others
    by that many m; its spectra are those of the class before. ``proxies`` are wavelengths in nm outside the windows,
    each with a correlation: the first band correlates that closely with the middle of the first window, the second with
    that of the second, and so on in turn.
    """
    rng = np.random.default_rng([seed, 10])
    nm = np.arange(400.0, 2501.0, 10.0)
    seeds = max(num_classes * 3, height * width // 144)
    centres = rng.uniform((0, 0), (height, width), (seeds, 2))
    rows, cols = np.mgrid[:height, :width]
    nearest = ((rows[..., None] - centres[:, 0]) ** 2 + (cols[..., None] - centres[:, 1]) ** 2).argmin(-1)
    truth = (rng.permutation(seeds) % num_classes)[nearest]  # (H, W)
    index = truth if step_m is None else np.minimum(truth, num_classes - 2)  # what the spectra show
    base = 3 + gaussian_filter1d(rng.normal(0, 4, nm.size), 15)
    brightness = 1 + 0.3 * gaussian_filter(rng.normal(0, 1, (height, width)), 4) / 0.07 * 0.3
    values = base[:, None, None] * brightness[None]
    values += gaussian_filter1d(rng.normal(0, noise, (nm.size, height, width)), 1.0, axis=0) * 1.9
    for i, (lower, upper) in enumerate(windows_nm):
        levels = (np.arange(num_classes) // 2**i) % 2 if len(windows_nm) > 1 else np.arange(num_classes)
        inside = (nm >= lower) & (nm < upper)
        values[inside] += contrast * (levels[index] - levels.mean())[None]
    for i, (proxy, correlation) in enumerate(proxies):
        band, followed = np.abs(nm - [[proxy], [np.mean(windows_nm[i % len(windows_nm)])]]).argmin(1)
        values[band] = values[band].mean() + _following(values[followed], correlation, seed=[seed, 16, i])
    labels = truth.astype(np.int64) + 1
    scene = ArrayScene(values.astype(np.float32) / 10, bands=Bands.from_wavelengths(nm), name="synthetic")
    if step_m is not None:
        heights = 200 + step_m * (truth == num_classes - 1) + rng.normal(0, 0.3, truth.shape)
        scene = StackedScene(scene, {"lidar": ArrayRaster(heights[None])})
    return LabelledScene(
        scene, labels, Legend.of(labels, names={int(code): f"material {code}" for code in np.unique(labels) if code})
    )


def _following(band: NDArray[np.float64], correlation: float, *, seed: list[int]) -> NDArray[np.float64]:
    """A band (H, W) with mean 0 and the same variance that correlates with another."""
    noise = np.random.default_rng(seed).normal(0, band.std(), band.shape)
    return correlation * (band - band.mean()) + np.sqrt(1 - correlation**2) * noise
