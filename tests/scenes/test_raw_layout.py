import numpy as np
import pytest

from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.plausibility import suspect_axis_order, suspect_interleave

AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
CODES = {"i2": 2, "f4": 4}


def fields_of_crops():
    """A cube (C, H, W) of patches, each with a spectrum of its own, and noise."""
    rng = np.random.default_rng(0)
    spectra = 2000 + np.cumsum(rng.normal(0, 60, (5, 60)), axis=1)
    patches = rng.integers(0, 5, (8, 9)).repeat(6, 0).repeat(6, 1)
    return spectra[patches].transpose(2, 0, 1) + rng.normal(0, 15, (60, 48, 54))


def write(folder, cube, *, dtype, real, said):
    """Writes a cube in the real layout, with a header that says another; each is (interleave, byte order)."""
    cube.transpose(AXES[real[0]]).astype(real[1] + dtype).tofile(folder / "cube")
    bands, lines, samples = cube.shape
    header = f"samples = {samples}\nlines = {lines}\nbands = {bands}\ndata type = {CODES[dtype]}\n"
    header += f"interleave = {said[0]}\nbyte order = {'<>'.index(said[1])}\n"
    (folder / "cube.hdr").write_text("ENVI\n" + header)
    return open_cube_file(folder / "cube")


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("interleave", AXES)
def test_right_header_is_not_doubted(tmp_path, interleave, order, dtype):
    layout = (interleave, order)
    assert suspect_interleave(write(tmp_path, fields_of_crops(), dtype=dtype, real=layout, said=layout)) is None


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize(
    ("real", "said"),
    [
        (("bsq", "<"), ("bsq", ">")),
        (("bip", ">"), ("bip", "<")),
        (("bsq", "<"), ("bil", "<")),
        (("bsq", "<"), ("bip", "<")),
        (("bil", "<"), ("bip", "<")),
        (("bip", "<"), ("bsq", "<")),
        (("bip", ">"), ("bil", "<")),
    ],
)
def test_wrong_header_is_found_and_the_right_layout_is_named(tmp_path, real, said, dtype):
    file = write(tmp_path, fields_of_crops(), dtype=dtype, real=real, said=said)
    order = {"<": "little endian", ">": "big endian"}[real[1]]
    assert suspect_interleave(file) == (real[0], order)


def test_noise_and_tiny_cubes_and_single_bands_are_not_doubted(tmp_path):
    noise = np.random.default_rng(0).integers(0, 9999, (20, 30, 30))
    for cube in (noise, noise[:, :5, :5], noise[:1], np.zeros((20, 30, 30)), np.full((20, 30, 30), np.nan)):
        assert suspect_interleave(write(tmp_path, cube, dtype="f4", real=("bsq", "<"), said=("bip", "<"))) is None


def test_formats_that_cannot_be_read_in_a_wrong_way_are_not_doubted(tmp_path):
    np.save(tmp_path / "cube.npy", fields_of_crops())
    assert suspect_interleave(open_cube_file(tmp_path / "cube.npy")) is None


def npy(folder, values):
    np.save(folder / "cube.npy", values)
    return open_cube_file(folder / "cube.npy")


@pytest.mark.parametrize("levels", [1.0, 0.0])
def test_bands_in_the_place_of_rows_or_columns_are_found(tmp_path, levels):
    cube = fields_of_crops() + levels * 3000 * np.sin(np.arange(60) / 9)[:, None, None]  # (C, H, W)
    found = "rows" if levels else None  # spectra that have nothing in common cannot be told from anything else
    assert suspect_axis_order(npy(tmp_path, cube)) == found
    assert suspect_axis_order(npy(tmp_path, cube.transpose(1, 0, 2))) == (found and "columns")
    assert suspect_axis_order(npy(tmp_path, cube.transpose(1, 2, 0))) is None


def test_axes_of_noise_and_slopes_and_tiny_or_empty_cubes_are_not_doubted(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.random((30, 40, 20))
    small = np.sin(np.arange(15) / 3)[:, None, None] + rng.normal(0, 0.01, (15, 17, 20))
    slope = np.linspace(0, 1, 40)[:, None, None] + np.sin(np.arange(30) / 5) + rng.normal(0, 0.05, (40, 20, 30))
    gaps = slope.copy()
    gaps[..., 3:] = np.nan
    for values in (
        noise,
        slope,
        gaps,
        noise[:3, :3],
        noise[:1],
        small,
        np.zeros((9, 20, 30)),
        np.full((9, 20, 30), np.nan),
    ):
        assert suspect_axis_order(npy(tmp_path, values)) is None


def test_raw_cubes_name_their_axes_themselves(tmp_path):
    cube = fields_of_crops() + 3000 * np.sin(np.arange(60) / 9)[:, None, None]
    file = write(tmp_path, cube.transpose(1, 2, 0), dtype="f4", real=("bsq", "<"), said=("bsq", "<"))
    assert suspect_axis_order(file) is None
