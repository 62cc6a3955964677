import os
import pickle

import h5py
import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_scene
from hsfusion.scenes.readers.formats import open_cube_file

NM = [383.5, 900.0, 1340.0, 1400.0, 1445.0, 1446.0, 1900.0]
CUBE = (np.arange(3 * 4 * 7).reshape(3, 4, 7) * 331 % 10_000).astype("i2")  # rows, columns, bands
CUBE[1, 2] = -9999
MAP_INFO = (
    "UTM,  1.000,  1.000,   368000.000,   4307000.0,   1.0000000,   1.0000000,  18,  North,  WGS-84,  units=Meters, 0"
)


@pytest.fixture(autouse=True)
def no_child_process(monkeypatch):
    """The files here are none that crash the library; those are tried in test_hdf5.py."""
    monkeypatch.setattr("hsfusion.scenes.readers.hdf5.check_survivable", lambda path: None)


def write(folder, *, cube=CUBE, site="SERC", on_cube=None, on_group=None, wavelength_units="nanometers", **metadata):
    """Writes a product; what is given as None is left out. Returns its path."""
    texts = h5py.string_dtype()
    fields = {
        "Spectral_Data/Wavelength": np.array(NM),
        "Spectral_Data/FWHM": np.full(7, 5.75),
        "Coordinate_System/Map_Info": np.array(MAP_INFO, texts),
        "Coordinate_System/EPSG Code": np.array("32618", texts),
    } | {key.replace("__", "/").replace("EPSG_Code", "EPSG Code"): value for key, value in metadata.items()}
    path = folder / "NEON.h5"
    with h5py.File(path, "a") as file:
        group = file.create_group(f"{site}/Reflectance")
        group.attrs["Band_Window_1_Nanometers"] = np.array([1340, 1445])
        group.attrs["Band_Window_2_Nanometers"] = np.array([1790, 1955])
        data = group.create_dataset("Reflectance_Data", data=cube)
        data.attrs.update({"Scale_Factor": 10_000.0, "Data_Ignore_Value": -9999.0})
        for holder, changes in ((data, on_cube or {}), (group, on_group or {})):
            for name, value in changes.items():
                holder.attrs.pop(name)
                if value is not None:
                    holder.attrs[name] = value
        for name, value in fields.items():
            if value is not None:
                made = group.create_dataset(f"Metadata/{name}", data=value)
                if name.endswith("Wavelength") and wavelength_units is not None:
                    made.attrs["Units"] = wavelength_units
    return path


def test_reflectance_bands_and_place_are_those_of_the_product(tmp_path):
    path = write(tmp_path)
    scene = open_scene(path)
    want = np.where(CUBE == -9999, np.nan, CUBE / 10_000).transpose(2, 0, 1)
    np.testing.assert_allclose(scene.read(Window(0, 0, 3, 4)), want, rtol=1e-6)
    assert np.isnan(want[:, 1, 2]).all()
    assert scene.bands.wavelength_nm.tolist() == NM
    assert scene.bands.fwhm_nm.tolist() == [5.75] * 7
    assert scene.geobox.transform == Affine(1, 0, 368_000, 0, -1, 4_307_000)
    assert CRS.from_wkt(scene.geobox.crs).to_epsg() == 32618
    file = open_cube_file(path)
    assert file.format == "NEON AOP HDF5 int16"
    assert dict(file.facts) == {"sensor": "NEON AOP", "product": "reflectance", "site": "SERC"}


def test_bands_inside_the_bad_windows_are_not_good(tmp_path):
    assert open_scene(write(tmp_path)).bands.good.tolist() == [True, True, False, False, False, True, False]


def test_windows_may_be_absent_and_micrometres_are_honoured(tmp_path):
    metadata = {"Spectral_Data__Wavelength": np.array(NM) / 1000, "Spectral_Data__FWHM": np.full(7, 0.00575)}
    path = write(tmp_path, on_group={"Band_Window_2_Nanometers": None}, wavelength_units="micrometers", **metadata)
    bands = open_scene(path).bands
    np.testing.assert_allclose(bands.wavelength_nm, NM)
    np.testing.assert_allclose(bands.fwhm_nm, 5.75)
    assert bands.good.tolist() == [True, True, False, False, False, True, True]


def test_window_equals_that_part_of_the_whole(tmp_path):
    file = pickle.loads(pickle.dumps(open_cube_file(write(tmp_path))))
    whole = file.read(Window(0, 0, 3, 4))
    np.testing.assert_array_equal(file.read(Window(1, 2, 2, 1)), whole[:, 1:3, 2:3])


def test_tie_pixel_may_be_another_and_codes_may_be_numbers(tmp_path):
    info = np.array("UTM, 2.0, 3.0, 368000, 4307000, 0.5, 2, 18, North, WGS-84, units=Meters", h5py.string_dtype())
    path = write(tmp_path, Coordinate_System__Map_Info=info, Coordinate_System__EPSG_Code=np.int32(32618))
    geobox = open_scene(path).geobox
    assert geobox.transform == Affine(0.5, 0, 368_000 - 0.5, 0, -2, 4_307_000 + 4)
    assert CRS.from_wkt(geobox.crs).to_epsg() == 32618


def test_product_without_place_or_wavelengths_opens_and_asks(tmp_path):
    names = ("Spectral_Data__Wavelength", "Spectral_Data__FWHM", "Coordinate_System__Map_Info")
    file = open_cube_file(write(tmp_path, **dict.fromkeys((*names, "Coordinate_System__EPSG_Code"))))
    assert file.geobox.transform == Affine.identity() and file.geobox.crs is None
    with pytest.raises(InputError, match=r"Wavelength is missing, .* Fix: add scene\.wavelengths"):
        file.bands()


def test_unknown_unit_is_told_and_never_guessed(tmp_path):
    file = open_cube_file(write(tmp_path, wavelength_units="furlongs"))
    with pytest.raises(InputError, match="wavelength units is furlongs"):
        file.bands()


def text(words):
    return np.array(words, h5py.string_dtype())


LIES = [
    {"on_cube": {"Scale_Factor": value}} for value in (None, 0.0, -1.0, np.nan, "10000", [1.0, 2.0], h5py.Empty("f4"))
]
LIES += [{"on_cube": {"Data_Ignore_Value": value}} for value in (None, np.nan, "none", [1, 2])]
LIES += [{"on_group": {"Band_Window_1_Nanometers": value}} for value in ([1445, 1340], [1340], [-5, 0], "1340-1445")]
LIES += [{"cube": value} for value in (CUBE[0], CUBE[None], CUBE[:0], CUBE.astype("c8"), CUBE[:, :, :5])]
LIES += [{"Spectral_Data__Wavelength": value} for value in (NM[:3], [NM], [b"a"] * 7, 5.0, np.zeros(200_000))]
LIES += [{"Spectral_Data__FWHM": value} for value in ([5.0], np.zeros((7, 7)))]
LIES += [
    {"Coordinate_System__Map_Info": text(words)}
    for words in (
        *("", "UTM", "UTM, 1, 1, x, 2, 1, 1", "UTM, 1, 1, 368000, 4307000, 0, 1", "UTM, 1, 1, nan, 4307000, 1, 1"),
        *(MAP_INFO[:-1] + "12", "UTM, 1, 1, 1, 1, 1, 1, 18, North, WGS-84, units=Meters, rotation=-2", "a\nb, 1"),
        "UTM, 1, 1, 368000, 4307000, -1, 1",
    )
]
LIES += [{"Coordinate_System__Map_Info": value} for value in (np.zeros(5), np.array([b"a", b"b"]), 1.5)]
LIES += [
    {"Coordinate_System__EPSG_Code": value} for value in (text("UTM"), text("999999"), np.int32(-1), text(""), 1.5)
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: str(lie)[:60].replace("\n", " "))
def test_product_that_lies_is_one_line(tmp_path, capfd, lie):
    with pytest.raises(InputError, match=r"NEON\.h5: .* is .*, expected .*\. Fix: .*") as caught:
        open_cube_file(write(tmp_path, **lie))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # GDAL would print


def test_two_sites_in_one_file_are_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match="number of sites is 2"):
        open_cube_file(write(tmp_path, site="SJER"))


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_cut_product_is_one_line(tmp_path, share):
    path = write(tmp_path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(InputError, match=r"NEON\.h5: content is"):
        open_cube_file(path)
