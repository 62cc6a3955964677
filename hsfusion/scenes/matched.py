"""A scene seen with the bands that a model knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.scenes.scene import Scene, Window
from hsfusion.spectra import Bands, match_bands


class MatchedScene:
    """A scene with the bands and further layers of another, found by wavelength and by name, never by index.

    Args:
        scene: the scene; its bands may be more, and in another order.
        bands: the C bands that are wanted.
        sources: name and number of layers of each further raster that is wanted.
        needed: (C + E,) bool, which of them have to be there; of others nothing may be read, and they
            take no band from those.

    Raises:
        InputError: if a needed band has no good band within half a FWHM, or a further raster differs. All missing
            wavelengths are listed; nothing stands in for them.
    """

    def __init__(
        self, scene: Scene, *, bands: Bands, sources: Sequence[tuple[str, int]], needed: NDArray[np.bool_]
    ) -> None:
        if dict(scene.sources) != dict(sources):
            raise InputError(
                scene.name,
                field="further rasters",
                value=dict(scene.sources) or "none",
                expected=f"{dict(sources) or 'none'}, as the model was trained with",
                fix="give them as scene.sources={name: file}",
            )
        found = match_bands(bands, scene.bands, needed=needed[: len(bands)])
        missing = bands.wavelength_nm[(found < 0) & needed[: len(bands)]]
        if missing.size:
            raise InputError(
                scene.name,
                field=f"{missing.size} of {int(needed[: len(bands)].sum())} bands that the model uses",
                value="missing (" + ", ".join(f"{nm:.1f}" for nm in missing) + " nm)",
                expected="a good band within half a FWHM of each",
                fix="give a scene of the same sensor, or fine-tune the model on this one",
            )
        start, first = len(scene.bands), {}
        for name, number in scene.sources:
            first[name], start = start, start + number
        layers = [first[name] + i for name, number in sources for i in range(number)]
        self.scene = scene
        self._order = np.array([*found, *layers], np.int64)
        self.name, self.geobox = scene.name, scene.geobox
        self.bands, self.sources = bands, tuple(sources)

    def read(self, window: Window, layers: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Reads a window: (C + E, height, width) float32, or those layers of it, NaN where there are no data."""
        order = self._order if layers is None else self._order[layers]
        assert (order >= 0).all(), "a band that is not there was asked for"
        return self.scene.read(window, order)
