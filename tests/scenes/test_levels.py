import numpy as np
import pytest

from hsfusion.errors import InputError
from hsfusion.scenes import ArrayScene
from hsfusion.scenes.levels import check_same_unit, typical_levels
from hsfusion.spectra import Bands


def test_levels_are_medians_of_the_layers_asked_for():
    cube = np.arange(3)[:, None, None] * 10.0 + np.random.default_rng(0).normal(0, 0.1, (3, 200, 300))
    cube[2] = np.nan
    scene = ArrayScene(cube, bands=Bands.from_wavelengths([500, 600, 700]), name="s")
    np.testing.assert_allclose(typical_levels(scene, np.array([1, 0])), [10, 0], atol=0.05)
    assert np.isnan(typical_levels(scene, np.array([2]))).all()


def test_swath_along_either_diagonal_is_seen():
    cube = np.full((1, 300, 300), np.nan)
    for i in range(300):
        cube[0, i, max(0, 280 - i) : 300 - i + 20] = 5
    scene = ArrayScene(cube, bands=Bands.from_wavelengths([500]), name="s")
    assert typical_levels(scene, np.array([0])).tolist() == [5]
    mirrored = ArrayScene(cube[:, :, ::-1], bands=scene.bands, name="s")
    assert typical_levels(mirrored, np.array([0])).tolist() == [5]


def test_brighter_ground_is_no_other_unit_but_a_lost_scale_is():
    dark, bright = np.array([0.02, 0.05, np.nan]), np.array([0.3, 0.4, 0.5])
    check_same_unit(dark, bright, source="a", reference="b")
    for scale in (1e4, 1e-4):
        with pytest.raises(InputError, match=r"^a: typical value is .* times that of b, expected the same unit"):
            check_same_unit(bright * scale, bright, source="a", reference="b")
    check_same_unit(np.zeros(3), bright, source="a", reference="b")
