"""A scene as another sensor would have seen it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.geobox import Window
from hsfusion.scenes.labels import LabelledScene
from hsfusion.scenes.scene import DerivedScene, Scene, layer_count
from hsfusion.spectra import Bands
from hsfusion.spectra.resampling import mixing_matrix, seamless_nm, width_nm
from hsfusion.spectra.sensors import sensor_bands, sensor_name

_log = logging.getLogger(__name__)

_LEAST_COVERED = 0.9  # of a band's response within its FWHM
_POINTS = 400  # at which the response of a band is looked at


class SimulatedScene(DerivedScene):
    """A scene with the bands that a sensor would have seen.

    Each band is a weighted mean of the scene's good bands: a Gaussian response of the band's FWHM, integrated over the
    FWHM of each of them (:func:`mixing_matrix`), or over their spacing where that is a little wider. Bands of which
    they cover less than 90 % of the response within the FWHM are left out, so nothing is made up beyond the scene's
    range or across its gaps. Bands cannot become sharper than the scene's own; noise and pixel size stay.

    Args:
        scene: the scene, of C bands; its further layers follow the simulated bands unchanged.
        bands: those of the sensor, with their widths; bad ones are left out.
        name: what figures and files call the simulated scene.

    Attributes:
        bands: the C' bands that can be simulated, all good.
        left_out: those of the good bands of the sensor that cannot.
        narrower: number of the C' bands that are narrower than the scene's own at their place.
    """

    def __init__(self, scene: Scene, bands: Bands, *, name: str) -> None:
        wanted = bands[np.flatnonzero(bands.good)]
        used = np.flatnonzero(scene.bands.good)
        nm, half = scene.bands.wavelength_nm[used], seamless_nm(scene.bands)[used] / 2
        share = _coverage(wanted, nm - half, nm + half) if used.size else np.zeros(len(wanted))
        covered = share >= _LEAST_COVERED
        if not covered.any():
            value = _range(nm) if used.size else "empty"
            expected = f"bands of {name} inside it ({_range(wanted.wavelength_nm)})"
            fix = "choose a scene and a sensor that see the same wavelengths"
            raise InputError(scene.name, "range of the good bands", value, expected, fix)
        super().__init__(scene, bands=wanted[np.flatnonzero(covered)], sources=scene.sources, name=name)
        self.left_out = wanted[np.flatnonzero(~covered)]
        self._matrix = mixing_matrix(scene.bands, self.bands).astype(np.float32)  # (C', C)
        nearest = np.abs(self.bands.wavelength_nm[:, None] - nm).argmin(axis=1)  # (C',)
        self.narrower = int((width_nm(self.bands) < width_nm(scene.bands)[used][nearest]).sum())

    def read(self, window: Window | None = None, layers: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """See :meth:`Scene.read`."""
        number = len(self.bands)
        layers = np.arange(layer_count(self)) if layers is None else layers
        is_band = layers < number
        weights = self._matrix[layers[is_band]]
        needed = np.flatnonzero((weights > 0).any(axis=0))
        further = layers[~is_band] - number + self._matrix.shape[1]
        read = self.scene.read(window, np.append(needed, further))
        values = np.empty((layers.size, *read.shape[1:]), np.float32)
        values[is_band] = _mixed(weights[:, needed], read[: needed.size])
        values[~is_band] = read[needed.size :]
        return values


@overload
def simulate(of: LabelledScene, sensor: str) -> LabelledScene: ...
@overload
def simulate(of: Scene, sensor: str) -> SimulatedScene: ...
def simulate(of: LabelledScene | Scene, sensor: str) -> LabelledScene | SimulatedScene:
    """Shows a scene with the bands of a sensor; labels, legend and further layers stay. The log lists lost bands.

    The sensor is one of :data:`hsfusion.spectra.sensors.SENSORS`, or a CSV file of centres and widths.
    """
    if isinstance(of, LabelledScene):
        return replace(of, scene=simulate(of.scene, sensor))
    scene = SimulatedScene(of, sensor_bands(sensor), name=f"{of.name}_{sensor_name(sensor)}")
    left = [f"{nm:.0f}" for nm in scene.left_out.wavelength_nm]
    _log.info(
        "%s: %d of the %d bands of the sensor; %d lie where %s has no good bands (%s). %d are narrower than its own, "
        "which cannot be sharpened.",
        *(scene.name, len(scene.bands), len(scene.bands) + len(left), len(left), of.name),
        *(", ".join(left[:8]) + " nm" if left else "none", scene.narrower),
    )
    return scene


def _mixed(weights: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weighted sums (C', h, w) of layers (L, h, w); a NaN reaches only the sums that its layer is part of."""
    missing = np.isnan(values)
    if not missing.any():
        return np.tensordot(weights, values, axes=1)
    mixed = np.tensordot(weights, np.where(missing, np.float32(0), values), axes=1)
    mixed[np.tensordot((weights > 0).astype(np.float32), missing.astype(np.float32), axes=1) > 0] = np.nan
    return mixed


def _coverage(target: Bands, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share (C',) of each band's Gaussian response within its FWHM that falls on the bands from lower to upper (C,)."""
    offset = (np.arange(_POINTS) + 0.5) / _POINTS - 0.5  # in FWHM
    share = np.exp(-4 * np.log(2) * offset**2)
    points = target.wavelength_nm[:, None] + width_nm(target)[:, None] * offset  # (C', points)
    covered = np.zeros(points.shape, bool)
    for first, last in zip(lower, upper, strict=True):
        covered |= (points >= first) & (points <= last)
    return covered @ share / share.sum()


def _range(nm: NDArray[np.float64]) -> str:
    return f"{nm.min():.0f} to {nm.max():.0f} nm"
