import os
import time

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scene_files.envi import AXES, CODES, CUBE, LIES, NM, lie, write

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_scene
from hsfusion.scenes.formats.registry import open_cube_file


def read(path, **options):
    scene = open_scene(path, **options)
    return scene.read(Window(0, 0, *scene.geobox.shape))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("interleave", AXES)
def test_every_layout_reads_back_whole_and_by_windows(tmp_path, interleave, dtype, order):
    path = write(tmp_path, dtype=dtype, interleave=interleave, order=order, offset=13)
    scene = open_scene(path)
    np.testing.assert_array_equal(read(path), CUBE)
    np.testing.assert_array_equal(scene.read(Window(1, 2, 3, 2)), CUBE[:, 1:4, 2:4])
    assert scene.bands.wavelength_nm.tolist() == NM


@pytest.mark.parametrize("interleave", AXES)
def test_large_windows_are_copied_from_several_maps_in_the_memory_order_of_the_file(tmp_path, interleave, monkeypatch):
    pixels = open_cube_file(write(tmp_path, interleave=interleave)).pixels
    window, layers = Window(1, 1, 3, 4), np.array([2, 0])
    at_once = pixels.read(window), pixels.read(window, layers)
    monkeypatch.setattr("hsfusion.scenes.formats.cube_file._MOST_MAPPED", 1)
    copied = pixels.read(window), pixels.read(window, layers)
    for stored, before in zip(copied, at_once, strict=True):
        np.testing.assert_array_equal(stored, before)
    assert np.argsort(copied[0].strides).tolist() == np.argsort(at_once[0].strides).tolist()
    assert isinstance(at_once[0], np.memmap) and not isinstance(copied[0], np.memmap)


@pytest.mark.parametrize("name", ["cube", "cube.img", "cube.dat", "cube.bip", "cube.v2"])
def test_binary_may_have_any_ending_and_the_header_may_be_named_instead(tmp_path, name):
    path = write(tmp_path, name=name)
    np.testing.assert_array_equal(read(path), CUBE)
    np.testing.assert_array_equal(read(tmp_path / f"{name}.hdr"), CUBE)


def test_header_that_replaces_the_ending_is_found(tmp_path):
    write(tmp_path, name="cube.img")
    (tmp_path / "cube.img.hdr").rename(tmp_path / "cube.hdr")
    for name in ("cube.img", "cube.hdr"):
        np.testing.assert_array_equal(read(tmp_path / name), CUBE)


@pytest.mark.parametrize("units", ["Micrometers", "um", "µm", "Microns"])
def test_micrometres_become_nanometres(tmp_path, units):
    fields = {"wavelength": "{0.41, 0.5125, 0.64025}", "fwhm": "{0.01, 0.01, 0.012}", "wavelength_units": units}
    bands = open_scene(write(tmp_path, **fields)).bands
    np.testing.assert_allclose(bands.wavelength_nm, NM)
    np.testing.assert_allclose(bands.fwhm_nm, [10, 10, 12])


def test_bad_bands_and_nodata_and_order_of_wavelengths_are_kept(tmp_path):
    path = write(tmp_path, bbl="{1, 0, 1}", data_ignore_value=8, wavelength="{500, 490, 510}")
    scene = open_scene(path)
    assert scene.bands.good.tolist() == [True, False, True]
    assert scene.bands.wavelength_nm.tolist() == [500, 490, 510]
    np.testing.assert_array_equal(read(path), np.where(CUBE == 8, np.nan, CUBE))


def test_scale_is_applied_once_and_after_nodata(tmp_path):
    np.testing.assert_allclose(
        read(write(tmp_path, reflectance_scale_factor=10, data_ignore_value=8)),
        np.where(CUBE == 8, np.nan, CUBE / 10),
        rtol=1e-6,
    )


RADIANCE = {"data_gain_values": "{10, 20, 50}", "data_offset_values": "{1, 2, 3}"}
GAINS = {"data_reflectance_gain_values": "{0.1, 0.2, 0.5}"}
TENTHS = {"data_reflectance_gain_values": "{0.1, 0.1, 0.1}"}


@pytest.mark.parametrize(
    ("fields", "gain", "offset"),
    [
        (GAINS, [0.1, 0.2, 0.5], 0),
        (GAINS | {"data_reflectance_offset_values": "{-1, -2, 0}"}, [0.1, 0.2, 0.5], [-1, -2, 0]),
        (GAINS | RADIANCE, [0.1, 0.2, 0.5], 0),
        (TENTHS | {"reflectance_scale_factor": 10}, 0.1, 0),
        (TENTHS | RADIANCE | {"reflectance_scale_factor": 10}, 0.1, 0),
        ({"data_gain_values": "{0.1, 0.1, 0.1}", "reflectance_scale_factor": 10}, 0.1, 0),
    ],
)
def test_gains_of_reflectance_go_before_those_of_radiance(tmp_path, fields, gain, offset):
    path = write(tmp_path, data_ignore_value=8, **fields)
    gain, offset = (np.reshape(np.broadcast_to(values, 3), (3, 1, 1)) for values in (gain, offset))
    np.testing.assert_allclose(read(path), np.where(CUBE == 8, np.nan, CUBE * gain + offset), rtol=1e-6)
    chosen = "data reflectance gain values; data gain values beside them are not used"
    assert open_cube_file(path).facts.get("scale from") == (chosen if "data_offset_values" in fields else None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (RADIANCE | {"reflectance_scale_factor": 10}, r"factor is 10, expected .*the same scale as data gain"),
        (GAINS | {"reflectance_scale_factor": 10}, r"factor is 10, expected .*the same scale as data reflectance gain"),
        (
            TENTHS | {"reflectance_scale_factor": 10, "data_reflectance_offset_values": "{0, 0, 1}"},
            r"factor is 10, expected .*the same scale as data reflectance gain and offset values",
        ),
        ({"data_reflectance_gain_values": "{1, 1}"}, r"data reflectance gain values is a list of 2"),
        ({"data_reflectance_gain_values": "{1, 0, 1}"}, r"gain of the bands is .* that are not 0"),
    ],
)
def test_scales_that_contradict_each_other_are_refused(tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        open_cube_file(write(tmp_path, **fields))


@pytest.mark.parametrize("tie", [(1, 1), (1.5, 1.5), (10.5, 3)])
@pytest.mark.parametrize("rotation", [0, 30, 90, 180, -180, -2, 270])
def test_tie_pixel_lies_on_its_coordinates_and_steps_have_length_and_angle_of_the_header(tmp_path, rotation, tie):
    info = f"UTM, {tie[0]}, {tie[1]}, 395591.3, 3778292.3, 2, 3, 11, North, WGS-84, rotation={rotation}"
    transform = open_scene(write(tmp_path, map_info=f"{{{info}}}")).geobox.transform
    place = np.reshape(transform, (3, 3)) @ (tie[0] - 1, tie[1] - 1, 1)
    np.testing.assert_allclose(place[:2], (395591.3, 3778292.3), rtol=0, atol=1e-6)
    cos, sin = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))  # counter-clockwise from east
    np.testing.assert_allclose((transform.a, transform.d), (2 * cos, 2 * sin), atol=1e-12)  # one column on
    np.testing.assert_allclose((transform.b, transform.e), (3 * sin, -3 * cos), atol=1e-12)  # one row on


@pytest.mark.parametrize(
    ("unit", "per_degree"),
    [("Degrees", 1), ("Minutes", 60), ("minute", 60), ("Seconds", 3600), ("Radians", np.pi / 180)],
)
def test_parts_of_degrees_become_degrees(tmp_path, unit, per_degree):
    info = f"Geographic Lat/Lon, 1, 1, {10 * per_degree}, {50 * per_degree}, 1.5, 1.5, WGS-84, units={unit}"
    geobox = open_scene(write(tmp_path, map_info=f"{{{info}}}")).geobox
    np.testing.assert_allclose(geobox.transform[:6], (1.5 / per_degree, 0, 10, 0, -1.5 / per_degree, 50))
    assert geobox.epsg == 4326


def test_half_turn_warns_of_what_else_gdal_means_by_it(tmp_path, caplog):
    open_cube_file(write(tmp_path, map_info=f"{{{UTM}, rotation=180}}"))
    assert "cube.hdr: rotation=180 is a half turn, as ENVI means it; if GDAL wrote" in caplog.text


@pytest.mark.parametrize("rotation", ["", ", rotation=-2", ", rotation=34"])
def test_place_of_square_pixels_from_the_first_one_is_that_of_gdal(tmp_path, rotation):
    path = write(tmp_path, map_info=f"{{UTM, 1, 1, 395591.3, 3778292.3, 2, 2, 11, North, WGS-84{rotation}}}")
    geobox = open_scene(path).geobox
    with rasterio.open(path, driver="ENVI") as file:
        assert geobox.transform == file.transform
        assert rasterio.crs.CRS.from_wkt(geobox.crs) == file.crs
    assert rasterio.crs.CRS.from_wkt(geobox.crs).to_epsg() == 32611
    assert (geobox.transform.b != 0) == bool(rotation)


UTM = "UTM, 1, 1, 395591.3, 3778292.3, 2, 2, 11, North, WGS-84"
LAMBERT = "Lambert Conformal Conic, 1, 1, 6480000, 1840000, 3, 3, North America 1983"
LONLAT = "Geographic Lat/Lon, 1, 1, 10, 50, 0.001, 0.001, WGS-84, units=Degrees"


def wkt(code):
    return rasterio.crs.CRS.from_epsg(code).to_wkt()


@pytest.mark.parametrize(
    ("info", "system", "code"),
    [
        (UTM, None, 32611),
        (UTM.replace("WGS-84", "WGS84"), None, 32611),
        (UTM.replace("North", "south"), None, 32711),
        (UTM.replace("WGS-84", "North America 1927"), None, 26711),
        (UTM + ", units=Meters", wkt(32611), 32611),
        (UTM.replace(", WGS-84", ""), wkt(32611), 32611),
        (LONLAT, None, 4326),
        (LONLAT, wkt(4258), 4258),
        ("ETRS89 LAEA, 1, 1, 4000000, 3000000, 10, 10, units=Meters", wkt(3035), 3035),
        ("Arbitrary, 1, 1, 10, 50, 0.1, 0.1", wkt(4326), 4326),
        *((f"{LAMBERT}, units={unit}", wkt(2229), 2229) for unit in ("Feet", "US Survey Feet")),  # US survey feet
        (f"{LAMBERT}, units=Feet", wkt(2222), 2222),  # international ones
    ],
)
def test_coordinate_system_is_that_of_the_header(tmp_path, info, system, code):
    fields = {} if system is None else {"coordinate_system_string": f"{{{system}}}"}
    crs = rasterio.crs.CRS.from_wkt(open_scene(write(tmp_path, map_info=f"{{{info}}}", **fields)).geobox.crs)
    assert crs == rasterio.crs.CRS.from_epsg(code)


@pytest.mark.parametrize(
    "info",
    [
        *(
            "UTM, 1, 1",
            "",
            "UTM",
            UTM.replace("395591.3", "abc"),
            UTM.replace("395591.3", "3_9"),
            "UTM, 1,, 1, 2, 2, 11",
        ),
        *(UTM.replace(", 2, 2,", f", {size},") for size in ("0, 2", "2, 0", "-2, 2", "nan, 2", "2, inf")),
        *(UTM.replace("11,", f"{zone},") for zone in ("99", "0", "61", "-11", "11N", "x")),
        *(UTM.replace("North", word) for word in ("Up", "N", "1")),
        *(UTM.replace("WGS-84", word) for word in ("Foo-99", "Foo84")),
        *(UTM.replace(", WGS-84", ""), UTM.replace(", 11, North, WGS-84", "")),
        *(UTM + ", units=Degrees", UTM + ", rotation=x", UTM + ", rotation=nan"),
        *(f"{UTM}, units={unit}" for unit in ("Feet", "ft", "Kilometers", "Survey Feet", "parsecs")),
        *(LONLAT.replace("Degrees", "Meters"), LONLAT.replace(", WGS-84", "")),
    ],
)
def test_map_info_that_makes_no_sense_is_one_line_and_no_guess(tmp_path, info):
    path = write(tmp_path, map_info=f"{{{info}}}")
    with pytest.raises(InputError, match=r"cube\.hdr: .*map info is .*, expected .*\. Fix: .*") as caught:
        open_scene(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("info", "system"),
    [
        *((UTM, wkt(code)) for code in (4326, 32633, 32711, 3035)),
        *((LONLAT, wkt(code)) for code in (32611, 3035)),
        *((f"{LAMBERT}, units={unit}", wkt(2229)) for unit in ("Meters", "Degrees")),
        *((UTM, text) for text in ("PROJCS[broken", "x", wkt(32611)[:-9], 'GEOGCS["a"]')),
    ],
)
def test_coordinate_system_that_is_broken_or_another_is_refused(tmp_path, capfd, info, system):
    path = write(tmp_path, map_info=f"{{{info}}}", coordinate_system_string=f"{{{system}}}")
    with pytest.raises(InputError, match=r"cube\.hdr: (coordinate system|map info).* is .*, expected") as caught:
        open_scene(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # GDAL would print


def test_coordinate_system_alone_is_no_place_and_is_told(tmp_path):
    file = open_cube_file(write(tmp_path, coordinate_system_string=f"{{{wkt(32611)}}}"))
    assert file.geobox.crs is None
    assert file.facts["place"] == "only a coordinate system string and no map info, not used"


def test_place_is_that_of_the_header_whatever_lies_beside(tmp_path):
    path = write(tmp_path, map_info=f"{{{UTM}}}")
    (tmp_path / "cube.aux.xml").write_text("<PAMDataset><GeoTransform>1,2,0,3,0,4</GeoTransform></PAMDataset>")
    assert open_scene(path).geobox.transform == Affine(2, 0, 395591.3, 0, -2, 3778292.3)


SILENT = {
    "bbl": ["{1, nan, 1}"],
    "wavelength": ["{4_10.0, 512.5, 640.25}", "{410,, 512.5, 640.25}", "{0x19A, 512.5, 640.25}"],
    "fwhm": ["{1_0, 10, 10}", "{10, inf, 10}"],
    "data ignore value": ["1_0", "inf"],
    "reflectance scale factor": ["inf", "nan", "1e4_0"],
    "data gain values": ["{1, nan, 1}", "{1, inf, 1}"],
    "data offset values": ["{0, nan, 0}", "{0, inf, 0}"],
    "file type": ["ENVI Spectral Library", "ENVI Virtual Mosaic", "ENVI Meta File", "TIFF", "{ENVI}"],
    "samples": ["9" * 5000],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in SILENT.items() for value in values])
def test_field_that_would_be_guessed_or_ignored_is_refused(tmp_path, field, value):
    path = lie(tmp_path, field, value)
    with pytest.raises(InputError, match=rf"cube\.hdr: .*{field}.* is .*, expected .*\. Fix: .*") as caught:
        open_scene(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["samples = 5", "Samples = 6", "wavelength = {1, 2, 3}", "SENSOR  TYPE = b"])
def test_field_that_is_given_twice_is_refused(tmp_path, line):
    path = write(tmp_path, sensor_type="a")
    with open(tmp_path / "cube.hdr", "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError, match=r"cube\.hdr: .* is given twice, expected one value"):
        open_scene(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("bands", None, r"cube\.hdr: bands is missing, expected a whole number of at least 1\."),
        ("lines", "5.0", r"cube\.hdr: lines is '5\.0', expected a whole number .*\."),
        ("data type", None, r"cube\.hdr: data type is missing, expected a code"),
        ("interleave", None, r"cube\.hdr: interleave is missing, expected bsq \| bil \| bip\."),
        ("wavelength", "{410,\n512.5,\n640.25", r"cube\.hdr: wavelength is a list without an end"),
    ],
)
def test_message_names_the_field_and_what_is_expected_in_it(tmp_path, field, value, message):
    with pytest.raises(InputError, match=message):
        open_scene(lie(tmp_path, field, value))


def test_message_for_a_binary_without_header_names_the_headers_looked_for(tmp_path):
    path = write(tmp_path, name="cube.img")
    (tmp_path / "cube.img.hdr").unlink()
    with pytest.raises(
        InputError, match=r"put its header, which starts with ENVI, beside it as cube\.img\.hdr or cube\.hdr"
    ):
        open_scene(path)
    (tmp_path / "cube.hdr").write_text("\nBYTEORDER I\nNROWS 4\n")  # of a format that ESRI uses
    with pytest.raises(InputError, match=r"put its header, which starts with ENVI, beside it"):
        open_scene(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("start", ["", "\n", "\r\n  \r\n"])
def test_header_of_any_encoding_is_read(tmp_path, encoding, start):
    path = write(tmp_path, wavelength="{0.41, 0.5125, 0.64025}", description="{D:\\Flüge\\7}")
    text = start + (tmp_path / "cube.hdr").read_text().replace("Nanometers", "µm")
    text = "\ufeff" + text if encoding == "utf-16-le" else text
    (tmp_path / "cube.hdr").write_bytes(text.encode(encoding))
    np.testing.assert_allclose(open_scene(path).bands.wavelength_nm, NM)
    np.testing.assert_array_equal(read(tmp_path / "cube.hdr", wavelength_unit="um"), CUBE)


def test_byte_order_that_is_not_named_is_little_endian_and_that_is_told(tmp_path):
    path = write(tmp_path, byte_order=None)
    np.testing.assert_array_equal(read(path), CUBE)
    assert open_cube_file(path).facts["byte order"] == "not given, read as little endian"


def test_neutral_fields_and_comments_and_final_commas_are_fine(tmp_path):
    path = write(
        tmp_path,
        file_type="ENVI Standard",
        file_compression=0,
        major_frame_offsets="{0, 0}",
        minor_frame_offsets="{0, 0}",
        data_ignore_value="NaN",
        wavelength="{410,\n; samples = 9\n512.5,\n640.25,\n}",
        description="{samples = 9\nlines = 9}",
    )
    np.testing.assert_array_equal(read(path), CUBE)
    assert open_scene(path).bands.wavelength_nm.tolist() == NM


@pytest.mark.parametrize("words", ["{410, 512.5}", "{410, 512.5, 640.25, 700}"])
def test_wavelengths_of_another_number_are_wrong_and_not_missing_but_a_table_helps(tmp_path, words):
    path = write(tmp_path, wavelength=words)
    with pytest.raises(InputError, match=r"wavelength of cube\.hdr is a list of [24], expected 3"):
        open_scene(path)
    assert open_scene(path, wavelengths=NM, wavelength_unit="nm").bands.wavelength_nm.tolist() == NM


def test_unit_that_is_not_told_has_to_be_given(tmp_path):
    path = write(tmp_path, wavelength_units="Unknown")
    with pytest.raises(InputError, match=r"units is unknown, expected Nanometers .* scene\.wavelength_unit=nm"):
        open_scene(path)
    assert open_scene(path, wavelength_unit="nm").bands.wavelength_nm.tolist() == NM
    with pytest.raises(InputError, match="expected um as scene"):
        open_scene(write(tmp_path), wavelength_unit="um")


def test_band_table_goes_before_the_header(tmp_path):
    (tmp_path / "bands.csv").write_text("wavelength_nm\n1000\n1100\n1200\n")
    path = write(tmp_path, wavelength=None)
    assert open_scene(path, wavelengths=tmp_path / "bands.csv").bands.wavelength_nm.tolist() == [1000, 1100, 1200]
    with pytest.raises(InputError, match=r"wavelength of cube\.hdr is missing, .* Fix: add scene\.wavelengths"):
        open_scene(path)


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in LIES.items() for value in values])
def test_header_that_lies_is_one_line_that_names_file_and_field(tmp_path, field, value):
    path = lie(tmp_path, field, value)
    with pytest.raises(InputError, match=r"^\S*cube(\.hdr)?: .* is .*, expected .*\. Fix: .*") as caught:
        open_scene(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 119, 121, 10**6])
def test_binary_of_another_size_is_refused(tmp_path, size):
    path = write(tmp_path)
    with open(path, "r+b") as file:
        file.truncate(size)
    with pytest.raises(InputError, match=rf"size is {size} bytes, expected 120: 3 x 4 x 5"):
        open_scene(path)


def test_binary_that_shrinks_under_way_is_an_error_and_no_crash(tmp_path):
    path = write(tmp_path)
    scene = open_scene(path)
    os.truncate(path, 10)
    with pytest.raises(InputError, match="size is 10 bytes"):
        scene.read(Window(0, 0, 4, 5))


def test_binary_that_goes_under_way_is_an_error(tmp_path):
    path = write(tmp_path)
    scene = open_scene(path)
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        scene.read(Window(0, 0, 4, 5))


def test_binary_that_is_written_anew_is_read_anew(tmp_path):
    path = write(tmp_path)
    scene = open_scene(path)
    read(path)
    time.sleep(0.02)  # the clock of the file system
    write(tmp_path, CUBE + 1)
    np.testing.assert_array_equal(scene.read(Window(0, 0, 4, 5)), CUBE + 1)


@settings(
    max_examples=int(os.environ.get("HSFUSION_FUZZ", "60")), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_any_header_opens_or_is_one_clear_line(tmp_path, data):
    path = write(tmp_path)
    header = bytearray((tmp_path / "cube.hdr").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(5, len(header) - 1))
        new = data.draw(st.binary(max_size=6))
        header[at : at + data.draw(st.integers(0, 6))] = new
    (tmp_path / "cube.hdr").write_bytes(header)
    try:
        assert read(path).shape[0] == len(open_scene(path).bands)
    except InputError as error:
        assert "\n" not in str(error)
