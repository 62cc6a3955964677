import numpy as np
import pytest

from hsfusion.errors import InputError
from hsfusion.scenes import ArrayScene
from hsfusion.scenes.mosaic import check_same_unit, far_from_training, median_spectrum
from hsfusion.spectra import Bands


def test_levels_are_medians_of_the_layers_asked_for():
    cube = np.arange(3)[:, None, None] * 10.0 + np.random.default_rng(0).normal(0, 0.1, (3, 200, 300))
    cube[2] = np.nan
    scene = ArrayScene(cube, bands=Bands.from_wavelengths([500, 600, 700]), name="s")
    np.testing.assert_allclose(median_spectrum(scene, np.array([1, 0])), [10, 0], atol=0.05)
    assert np.isnan(median_spectrum(scene, np.array([2]))).all()


def test_swath_along_either_diagonal_is_seen():
    cube = np.full((1, 300, 300), np.nan)
    for i in range(300):
        cube[0, i, max(0, 280 - i) : 300 - i + 20] = 5
    scene = ArrayScene(cube, bands=Bands.from_wavelengths([500]), name="s")
    assert median_spectrum(scene, np.array([0])).tolist() == [5]
    mirrored = ArrayScene(cube[:, :, ::-1], bands=scene.bands, name="s")
    assert median_spectrum(mirrored, np.array([0])).tolist() == [5]


def test_brighter_ground_is_no_other_unit_but_a_lost_scale_is():
    dark, bright = np.array([0.02, 0.05, np.nan]), np.array([0.3, 0.4, 0.5])
    check_same_unit(dark, bright, source="a", reference="b")
    for scale in (1e4, 1e-4):
        with pytest.raises(InputError, match=r"^a: typical value is .* times that of b, expected the same unit"):
            check_same_unit(bright * scale, bright, source="a", reference="b")
    check_same_unit(np.zeros(3), bright, source="a", reference="b")


NM = np.linspace(400, 2400, 200)
MEAN = 0.05 + 0.3 / (1 + np.exp(-(NM - 700) / 40)) * np.exp(-(((NM - 900) / 1200) ** 2))  # of vegetation
SUN = (NM / 500) ** -4 / (np.exp(4.97 * 500 / NM) - 1)


@pytest.mark.parametrize("spread", [0.15, 0.35])
def test_scene_in_another_unit_is_far_from_training(spread):
    std = spread * MEAN
    for brightness in (0.5, 0.67, 1, 1.5, 2):
        assert far_from_training(MEAN * brightness, MEAN, std) is None
    radiance = MEAN * SUN / np.median(SUN)
    for levels in (MEAN * 9, MEAN / 9, radiance * 9, radiance / 9):
        assert "same unit (reflectance, radiance or counts" in (far_from_training(levels, MEAN, std) or "")


def test_share_and_distance_in_the_warning_are_those_of_the_bands():
    levels = np.array([9.0, 9, 1, 1, np.nan])
    warning = far_from_training(levels, np.ones(5), np.full(5, 0.5)) or ""
    assert warning.startswith("in 50% of the bands")
    assert "(median of these bands: 16)" in warning
    assert far_from_training(np.full(5, np.nan), np.ones(5), np.ones(5)) is None
    assert far_from_training(levels, np.ones(5), np.zeros(5)) is None  # bands that were never varied
