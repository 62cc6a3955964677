import h5py
import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from scene_files.neon import CUBE, LIES, NM, text, write

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_scene
from hsfusion.scenes.formats.registry import open_cube_file


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


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: str(lie)[:60].replace("\n", " "))
def test_product_that_lies_is_one_line(tmp_path, capfd, lie):
    with pytest.raises(InputError, match=r"NEON\.h5: .* is .*, expected .*\. Fix: .*") as caught:
        open_cube_file(write(tmp_path, **lie))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # GDAL would print


def test_array_among_two_sites_has_to_be_named(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match=r"variable is not given, expected one of .*SERC.*, .*SJER"):
        open_cube_file(write(tmp_path, site="SJER"))


def test_named_array_is_taken_as_it_is(tmp_path):
    axes = ["row", "col", "band"]
    file = open_cube_file(write(tmp_path), variable="SERC/Reflectance/Reflectance_Data", axes=axes)
    np.testing.assert_array_equal(file.read(Window(0, 0, 3, 4)), CUBE.transpose(2, 0, 1))
    assert file.gain is None


@pytest.mark.parametrize(("said", "source"), [("nm", ""), (None, " (unit by the product's specification)")])
def test_unit_is_the_specified_one_where_the_file_names_none_and_that_is_told(tmp_path, said, source):
    file = open_cube_file(write(tmp_path, wavelength_units=said))
    assert file.bands().wavelength_nm.tolist() == NM
    assert file.table.source == f"SERC/Reflectance/Metadata/Spectral_Data/Wavelength{source}"


def test_turned_place_is_that_of_its_tie_pixel(tmp_path):
    words = "UTM, 10.5, 3, 368000, 4307000, 2, 2, 18, North, WGS-84, units=Meters, rotation=30"
    transform = open_cube_file(write(tmp_path, Coordinate_System__Map_Info=text(words))).geobox.transform
    np.testing.assert_allclose(np.reshape(transform, (3, 3)) @ (9.5, 2, 1), (368_000, 4_307_000, 1))
    np.testing.assert_allclose((transform.a, transform.d), (3**0.5, 1))
