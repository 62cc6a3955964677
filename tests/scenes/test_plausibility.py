import dataclasses
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from hsfusion.scenes import GeoBox, Window
from hsfusion.scenes.formats.cube_file import ArrayPixels, BandTable, CubeFile
from hsfusion.scenes.formats.registry import open_cube_file
from hsfusion.scenes.geobox import describe_place
from hsfusion.scenes.survey import exact, format_band_ranges, plausibility_warnings, survey, suspect_interleave
from hsfusion.spectra import Bands

NM = np.arange(400.0, 1000, 10)
FWHM = np.full(60, 11.0)


def pixels(dtype="f4", scale=1.0):
    """(60, 20, 25) values of a good reflectance product."""
    rng = np.random.default_rng(0)
    values = 0.3 + 0.1 * np.sin(np.arange(60) / 9)[:, None, None] + rng.normal(0, 0.03, (60, 20, 25))
    return (values.clip(0.01, 0.9) * scale).astype(dtype)


def warn(values=None, *, nm=NM, fwhm=FWHM, good=None, **fields):
    values = pixels() if values is None else values
    table = BandTable(nm, fwhm, good, unit="nm")
    file = CubeFile(Path("cube"), "made", ArrayPixels(values), 60, GeoBox(values.shape[1:]), table, **fields)
    bands = None if nm is None else Bands(nm, fwhm, np.ones(60, bool) if good is None else good)
    lines = plausibility_warnings(file, survey(file), bands)
    assert not any("\n" in line for line in lines)
    return lines


def changed(values, index, new):
    values = np.array(values)
    values[index] = new
    return values


def moved(index, new):
    return changed(NM, index, new)


SCALED = {"gain": np.full(60, 1e-4)}
INTEGERS = {"gain": np.full(60, 1e-4), "nodata": -9999.0}


def test_good_cubes_are_not_doubted():
    assert warn() == []
    assert warn(nm=None, fwhm=None) == []
    assert warn(nm=NM[::-1]) == []  # descending is an order, too
    assert not any("FWHM" in line for line in warn(nm=NM.reshape(2, 30).T.ravel()))  # in no order
    assert warn(fwhm=None) == []
    integers = pixels("i2", 1e4)
    assert warn(integers, **INTEGERS) == []
    assert warn(changed(integers, (slice(None), 0), -9999), **INTEGERS) == []
    dead = np.isin(np.arange(60), [3, 4])
    assert warn(changed(pixels(), dead, np.nan), good=~dead) == []
    assert warn(pixels(scale=200), facts={"product": "L1 radiance"}) == []
    assert warn(changed(pixels(), (5, 0, 0), -0.01)) == []
    assert warn(changed(pixels("i2", 1e4), (5, 0, slice(3)), 16383), **INTEGERS) == []  # too few for a pile
    assert warn(nodata=-9999.0) == []  # declared by the file, and no pixel has it
    assert warn(pixels(scale=1e18), facts={"product": "photon radiance"}) == []
    assert warn(changed(pixels(), (slice(None), slice(0, 4)), -3.4028235e38), nodata=-3.40282347e38) == []


CASES = {
    "step back": ({"nm": moved(slice(30, None), NM[30:] - 25)}, "step back once: band 30 to 31 (690.0 to 675.0 nm)"),
    "wide": ({"fwhm": FWHM * 6}, "FWHM is 66 nm where bands are 10 nm apart"),
    "micrometres": ({"fwhm": FWHM / 1000}, "FWHM is 0.011 nm"),
    "angstrom": ({"nm": NM * 20, "fwhm": FWHM * 20}, "from 8000 to 19800 nm: check their unit"),
    "no scale": ({"values": pixels("i2", 1e4)}, "set scene.scale=0.0001"),
    "wrong scale": (
        {"values": pixels("f4", 1e4), "gain": np.full(60, 0.01)},
        "after the scale 0.01, but reflectance ends near 1",
    ),
    "scaled twice": ({"gain": np.full(60, 1e-4)}, "they may have been scaled before"),
    "sentinel": (
        {"values": changed(pixels("i2", 1e4), (slice(3), 0), -9999), "gain": np.full(60, 1e-4)},
        "3 bands hold -9999 (in up to 5.0% of the pixels), which often means no data or saturation, but the file "
        "declares no nodata: set scene.nodata=-9999 if so.",
    ),
    "other sentinel": (
        {"values": changed(pixels("i2", 1e4), (2, 0, 0), -32768), **INTEGERS},
        "1 band holds -32768 (in up to 0.2% of the pixels), which often means no data or saturation, but the "
        "file declares nodata -9999: correct the nodata value of the file if so.",
    ),
    "netCDF fill": ({"values": changed(pixels(), (2, 0), 9.969209968386869e36)}, "set scene.nodata=9.96921e+36 if so"),
    "float fill": ({"values": changed(pixels(), (2, 0), -3.4028235e38)}, "set scene.nodata=-3.4028235e+38 if so"),
    "float fill, twice as precise": (
        {"values": changed(pixels("f8"), (2, 0), -3.40282347e38)},
        "set scene.nodata=-3.40282347e+38 if so",
    ),
    "1e20": ({"values": changed(pixels(), (2, 0, 0), 1e20)}, "1 band holds 1e+20 (in up to 0.2% of the pixels)"),
    "1e30": ({"values": changed(pixels("f8"), (2, 0), 1e30)}, "set scene.nodata=1e+30 if so"),
    "-1e34": ({"values": changed(pixels(">f4"), (slice(None), 0), -1e34)}, "60 bands hold -1e+34 (in up to 5.0% of"),
    "smallest integer": (
        {"values": changed(pixels("i4", 1e4), (2, 0), -(2**31)), **SCALED},
        "nodata=-2147483648 if so",
    ),
    "largest integer": ({"values": changed(pixels("i4", 1e4), (2, 0), 2**31 - 1), **SCALED}, "nodata=2147483647 if so"),
    "-32767": ({"values": changed(pixels("i2", 1e4), (2, 0, 0), -32767), **SCALED}, "set scene.nodata=-32767 if so"),
    "32767": (
        {"values": changed(pixels("i2", 1e4), (2, 0), 32767), **SCALED},
        "1 band holds 32767 (in up to 5.0% of the pixels), which often means no data or saturation, but the file "
        "declares no nodata: set scene.nodata=32767 if so.",
    ),
    "nodata nowhere": ({"nodata": 7.0, "nodata_given": True}, "scene.nodata is 7, which none of the pixels has."),
    "impossible": (
        {"values": pixels("u2", 1e4), "gain": np.full(60, 1e-4), "nodata": -9999.0},
        "the file declares nodata -9999, which uint16 cannot hold",
    ),
    "fraction": ({"values": pixels("u2", 1e4), "gain": np.full(60, 1e-4), "nodata": 0.5}, "uint16 cannot hold"),
    "border": (
        {"values": changed(pixels(), (slice(None), 0), 0)},
        "5.0% of the pixels are 0 in all bands that have data",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_told_and_nothing_else(case):
    options, text = CASES[case]
    lines = warn(**options)
    assert [line for line in lines if text in line] == lines, lines
    assert len(lines) == 1


def test_bands_are_named_by_number_from_one_and_wavelength():
    chosen = np.isin(np.arange(60), [0, 1, 2, 9, 59])
    assert format_band_ranges(chosen, Bands.from_wavelengths(NM)) == "1-3 (400-420 nm), 10 (490 nm), 60 (990 nm)"
    assert format_band_ranges(chosen, None) == "1-3, 10, 60"
    assert format_band_ranges(np.zeros(60, bool), None) == ""


def test_place_is_told_as_far_as_it_is_known():
    utm, degrees = CRS.from_epsg(32633).to_wkt(), CRS.from_epsg(4326).to_wkt()
    assert describe_place(GeoBox((2, 3))) == {"CRS": "not given"}
    place = describe_place(GeoBox((2, 3), Affine(30, 0, 500000, 0, -30, 6000000), utm))
    assert "32633" in place["CRS"]
    assert place["pixel size"] == "30 x 30 m"
    assert place["extent"] == "x 500000.0 to 500090.0, y 5999940.0 to 6000000.0"
    cos, sin = 2 * np.cos(np.radians(34)), 2 * np.sin(np.radians(34))
    turned = describe_place(GeoBox((2, 3), Affine(cos, sin, 5e5, sin, -cos, 6e6), utm))
    assert turned["pixel size"] == "2 x 2 m, rows turned by 34 degrees from the x axis"
    assert (
        describe_place(GeoBox((2, 3), Affine(0.25, 0, 12, 0, -0.25, 50), degrees))["pixel size"]
        == "0.25 x 0.25 degrees"
    )
    assert describe_place(GeoBox((2, 3), Affine(2, 0, 0, 0, -2, 0)))["pixel size"] == "2 x 2"


@pytest.mark.parametrize(
    ("stored", "dtype", "scale"),
    [
        (-3.4028235e38, "f4", None),
        (-3.40282347e38, "f8", None),
        (0.1, ">f4", None),
        (1e20, "f8", 0.5),
        (-(2**31), "i4", 1e-4),
        (2**53 + 1, "i8", None),
        (65535, "u2", 1e-4),
    ],
)
def test_advised_nodata_is_masked_when_it_is_typed(stored, dtype, scale):
    values = np.ones((2, 3, 4), dtype)
    values[:, 1] = stored
    gain = None if scale is None else np.full(2, scale)
    file = CubeFile(Path("cube"), "made", ArrayPixels(values), 2, GeoBox((3, 4)), gain=gain)
    typed = float(exact(values[0, 1, 0])) if dtype != "i8" else int(exact(values[0, 1, 0]))
    masked = np.isnan(dataclasses.replace(file, nodata=typed).read(Window(0, 0, 3, 4)))
    assert masked[:, 1].all()
    assert masked.sum() == 8


def test_numbers_of_a_sample_are_those_of_the_pixels_that_were_looked_at(monkeypatch):
    monkeypatch.setattr("hsfusion.scenes.survey._MOST_NUMBERS", 60 * 2000)
    values = changed(np.tile(pixels("i2", 1e4), (1, 20, 1)), (2, slice(None), 0), -9999)  # 400 rows
    (line, scale) = warn(values)
    assert line.startswith("1 band holds -9999 (in up to 4.0% of the 2,000 pixels that were looked at), which")
    assert "of the values lie below" in scale
    assert "and the file names no scale" in scale


def test_quantile_of_the_scale_warning_is_what_its_words_say():
    values = pixels("i2", 1e4)
    (line,) = warn(values)
    number = float(line.split("lie below ")[1].split(",")[0])
    assert line.startswith("in half of the good bands, 98% of the values lie below ")
    shares = (values < number).mean(axis=(1, 2))
    assert (shares >= 0.98).sum() == 30  # of 60 bands
    assert (values < number).mean() < 0.95  # of the values of all bands


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
