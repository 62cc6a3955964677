from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hsfusion.scenes import ArrayRaster, ArrayScene, GeoBox, LabelledScene, Legend, Window
from hsfusion.scenes.formats.cube_file import ArrayPixels, CubeFile
from hsfusion.spectra import Bands

ANYTHING = st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0, 7.0])


@st.composite
def readings(draw):
    """Numbers (C, h, w) in any memory order, a mask of them, what to write under it, and what to read."""
    order, sizes = draw(st.permutations(range(3))), [draw(st.integers(1, 4)) for _ in range(3)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.random(np.array(sizes)[order]).transpose(np.argsort(order))
    dtype, mask = draw(st.sampled_from(["f4", "f8"])), rng.random(sizes) < 0.3
    layers = draw(st.none() | st.lists(st.integers(0, sizes[0] - 1), min_size=1, max_size=5))
    row, col = draw(st.integers(0, sizes[1] - 1)), draw(st.integers(0, sizes[2] - 1))
    window = Window(row, col, draw(st.integers(1, sizes[1] - row)), draw(st.integers(1, sizes[2] - col)))
    return values.astype(dtype, order="K"), mask, draw(ANYTHING), window, None if layers is None else np.array(layers)


@given(readings())
def test_what_stands_under_a_mask_is_never_read(reading):
    values, mask, anything, window, layers = reading
    stored = values.copy(order="K")
    stored[mask] = anything
    file = CubeFile(
        Path("cube"), "array", ArrayPixels(np.ma.MaskedArray(stored, mask)), len(values), GeoBox(mask.shape[1:])
    )
    row, col, height, width = window
    part = (slice(None) if layers is None else layers, slice(row, row + height), slice(col, col + width))
    expected = np.where(mask, np.nan, values).astype(np.float32)[part]
    np.testing.assert_array_equal(file.read(window, layers), expected)


def test_masked_values_of_arrays_are_no_data_and_masked_labels_are_none():
    cube = np.ma.masked_equal(np.array([[[7, -9999]], [[-9999, 8]]], np.int16), -9999)
    expected = np.array([[[7, np.nan]], [[np.nan, 8]]], np.float32)
    scene = ArrayScene(cube, bands=Bands.from_wavelengths([400, 500]), name="masked")
    for read in (scene.read(), scene.read(layers=np.array([0, 1])), ArrayRaster(cube).read(Window(0, 0, 1, 2))):
        assert not isinstance(read, np.ma.MaskedArray)
        np.testing.assert_array_equal(read, expected)
    np.testing.assert_array_equal(scene.read(layers=np.array([1])), expected[1:])
    labels = np.ma.masked_equal(np.array([[255, 3]], np.uint8), 255)
    labelled = LabelledScene(scene, labels, Legend.of(labels))
    assert labelled.labels.tolist() == [[0, 3]] and labelled.legend.codes == (3,)
