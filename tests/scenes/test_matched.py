import numpy as np
import pytest

from hsfusion.errors import InputError
from hsfusion.scenes import ArrayRaster, ArrayScene, BandSelection, StackedScene, Window
from hsfusion.spectra import Bands

WINDOW = Window(1, 0, 3, 4)


def bands(nm, fwhm=10.0):
    return Bands(np.asarray(nm, float), np.full(len(nm), fwhm), np.ones(len(nm), bool))


def stacked(nm, **rasters):
    """Band i is i everywhere, layer i of the n-th raster is 100 n + i."""
    cube = np.broadcast_to(np.arange(len(nm))[:, None, None], (len(nm), 5, 4))
    scene = ArrayScene(cube, bands=bands(nm), name="flight")
    values = {
        name: np.broadcast_to(100 * n + np.arange(number)[:, None, None], (number, 5, 4))
        for n, (name, number) in enumerate(rasters.items(), 1)
    }
    return StackedScene(scene, {name: ArrayRaster(layers) for name, layers in values.items()})


def matched(scene, nm, *, sources=(), needed=None):
    number = len(nm) + sum(layers for _, layers in sources)
    return BandSelection(
        scene, bands=bands(nm), sources=sources, needed=np.ones(number, bool) if needed is None else np.array(needed)
    )


def test_bands_and_rasters_come_in_the_order_of_the_model():
    scene = matched(stacked([700, 400, 500], lidar=1, radar=2), [500, 702], sources=[("radar", 2), ("lidar", 1)])
    values = scene.read(WINDOW)
    assert values.shape == (5, 3, 4)
    assert (values == np.array([2, 0, 200, 201, 100])[:, None, None]).all()
    assert scene.read(WINDOW, np.array([4, 0]))[:, 0, 0].tolist() == [100, 2]
    assert (len(scene.bands), scene.sources) == (2, (("radar", 2), ("lidar", 1)))


def test_band_that_the_model_does_not_use_takes_none_from_one_that_it_uses():
    scene = matched(stacked([600, 500.5]), [500, 502, 600], needed=[False, True, True])
    assert scene.read(WINDOW, np.array([1, 2]))[:, 0, 0].tolist() == [1, 0]
    with pytest.raises(AssertionError, match="not there"):
        scene.read(WINDOW)


def test_missing_bands_are_listed_if_the_model_uses_them():
    with pytest.raises(InputError, match=r"flight: 2 of 3 bands .* is missing \(502\.0, 700\.0 nm\), expected a good"):
        matched(stacked([501, 600]), [501, 502, 600, 700, 800], needed=[True, True, False, True, False])


@pytest.mark.parametrize("sources", [(), [("lidar", 2)], [("height", 1)], [("lidar", 1), ("radar", 1)]])
def test_other_rasters_than_those_of_the_model_are_named(sources):
    with pytest.raises(InputError, match=r"flight: further rasters is \{'lidar': 1\}, expected .* Fix: give them as"):
        matched(stacked([500], lidar=1), [500], sources=sources)
