import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.shutil import copy
from scene_files.geotiff import CONTRADICTIONS, CUBE, NM, ROTATED, TAGS, UNIT, directory, sparse, write

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_scene
from hsfusion.scenes.formats.registry import open_cube_file


def read(path, window=None):
    file = open_cube_file(path)
    return file.read(window or Window(0, 0, *file.geobox.shape))


def bands_of(path, **options):
    return open_scene(path, **options).bands


@pytest.mark.parametrize("bigtiff", ["NO", "YES"])
@pytest.mark.parametrize("compress", ["NONE", "DEFLATE", "LZW"])
@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 32}, {"blockysize": 40}])
@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_every_layout_reads_back_whole_and_by_windows(tmp_path, interleave, layout, compress, bigtiff):
    path = write(tmp_path / "c", interleave=interleave, compress=compress, BIGTIFF=bigtiff, **layout)
    np.testing.assert_array_equal(read(path), CUBE)
    np.testing.assert_array_equal(read(path, Window(3, 15, 30, 20)), CUBE[:, 3:33, 15:35])
    assert open_cube_file(path).format == f"GeoTIFF {'BSQ' if interleave == 'band' else 'BIP'} int16"


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
def test_every_number_type_and_byte_order_reads_back(tmp_path, dtype, endian):
    path = write(tmp_path / "c.tif", CUBE.astype(dtype), ENDIANNESS=endian)
    np.testing.assert_array_equal(read(path), CUBE)


def test_cloud_optimised_file_with_overviews_reads_the_full_resolution(tmp_path):
    write(tmp_path / "c.tif", np.tile(CUBE, (1, 20, 20)))
    copy(tmp_path / "c.tif", tmp_path / "cog.tif", driver="COG", BLOCKSIZE=128)
    with rasterio.open(tmp_path / "cog.tif") as file:
        assert file.overviews(1)
    np.testing.assert_array_equal(read(tmp_path / "cog.tif"), np.tile(CUBE, (1, 20, 20)))
    assert bands_of(tmp_path / "cog.tif").wavelength_nm.tolist() == NM


def test_file_is_picklable_and_keeps_its_rotated_place(tmp_path):
    file = pickle.loads(pickle.dumps(open_cube_file(write(tmp_path / "c.tif"))))
    np.testing.assert_array_equal(file.read(Window(1, 2, 3, 4)), CUBE[:, 1:4, 2:6])
    assert file.geobox.transform == ROTATED
    assert rasterio.crs.CRS.from_wkt(file.geobox.crs).to_epsg() == 32633


def test_band_tags_name_wavelength_width_and_bad_bands_in_any_case(tmp_path):
    tags = [
        {"Wavelength": "0.41", "FWHM": "1e-2", "bbl": "1", "WAVELENGTH_UNITS": "Micrometers"},
        {"Wavelength": "0.5125", "FWHM": ".011", "bbl": "0", "WAVELENGTH_UNITS": "um"},
        {"Wavelength": " 0.64025 ", "FWHM": "0.012", "WAVELENGTH_UNITS": "µm"},
    ]
    bands = bands_of(write(tmp_path / "c.tif", tags=tags))
    np.testing.assert_allclose(bands.wavelength_nm, NM, rtol=1e-12)
    np.testing.assert_allclose(bands.fwhm_nm, [10, 11, 12], rtol=1e-12)
    assert bands.good.tolist() == [True, False, True]


@pytest.mark.parametrize(
    "said",
    [
        {"imagery": [{"CENTRAL_WAVELENGTH_UM": str(nm / 1000), "FWHM_UM": "0.01"} for nm in NM]},
        {"whole": {"wavelength": "{410, 512.5, 640.25}", "wavelength_units": "nm"}},
        {"whole": {"Wavelength": "410,512.5,640.25", "wavelength units": "Nanometres"}},
        {"names": [f"band {i} ({nm} Nanometers)" for i, nm in enumerate(NM)]},
        {"names": [f"B{i:03} {nm / 1000} um" for i, nm in enumerate(NM)]},
        {"names": [f"{nm} nm" for nm in NM]},
        {"names": [f"{nm}nm" for nm in NM], "whole": {"wavelength_units": "nm"}},
        {"tags": [{"wavelength": str(nm)} for nm in NM], "whole": {"wavelength_units": "nm"}},
    ],
)
def test_wavelengths_are_found_wherever_the_file_names_them(tmp_path, said):
    path = write(tmp_path / "c.tif", **({"tags": None} | said))
    np.testing.assert_allclose(bands_of(path).wavelength_nm, NM, rtol=1e-12)


def test_band_tags_go_before_rounded_imagery_tags_and_descriptions(tmp_path):
    imagery = [{"CENTRAL_WAVELENGTH_UM": f"{nm / 1000:.3f}", "FWHM_UM": "0.000"} for nm in NM]
    bands = bands_of(write(tmp_path / "c.tif", imagery=imagery, names=[f"{nm:.0f} nm" for nm in NM]))
    assert bands.wavelength_nm.tolist() == NM
    assert bands.fwhm_nm is None


def test_unit_is_never_guessed_but_can_be_given(tmp_path):
    path = write(tmp_path / "c.tif", tags=[{"wavelength": str(nm)} for nm in NM])
    assert open_cube_file(path).table.unit is None
    with pytest.raises(InputError, match=r"wavelength units is missing, expected .* scene\.wavelength_unit=nm"):
        bands_of(path)
    assert bands_of(path, wavelength_unit="nm").wavelength_nm.tolist() == NM


def test_first_band_without_wavelength_is_named_and_a_table_helps(tmp_path):
    path = write(tmp_path / "c.tif", tags=[TAGS[0], {}, {}])
    with pytest.raises(InputError, match=r"wavelength of band 2 \(.*\) is missing, .* Fix: add scene\.wavelengths"):
        bands_of(path)
    (tmp_path / "bands.csv").write_text("wavelength_nm\n1000\n1100\n1200\n")
    assert bands_of(path, wavelengths=tmp_path / "bands.csv").wavelength_nm.tolist() == [1000, 1100, 1200]


@pytest.mark.parametrize("tags", [None, TAGS])
@pytest.mark.parametrize("words", ["{410, 512}", "410,512.5,640.25,700"])
def test_list_of_another_length_is_wrong_and_not_missing_but_a_table_helps(tmp_path, words, tags):
    path = write(tmp_path / "c.tif", tags=tags, whole={"wavelength": words, "wavelength_units": "nm"})
    number = words.count(",") + 1
    with pytest.raises(InputError, match=rf"wavelength \(.*\) is a list of {number}, expected 3"):
        bands_of(path)
    assert bands_of(path, wavelengths=NM, wavelength_unit="nm").wavelength_nm.tolist() == NM


@pytest.mark.parametrize("name", ["bbl", "fwhm"])
@pytest.mark.parametrize("words", ["{1, 1}", "1,1,1,1", "{1,,1,1}"])
def test_list_of_marks_or_widths_of_another_length_is_refused(tmp_path, name, words):
    whole = {name: words, "wavelength": "{410, 512.5, 640.25}", "wavelength_units": "nm"}
    path = write(tmp_path / "c.tif", tags=None, whole=whole)
    with pytest.raises(InputError, match=rf"{name} 2 is ''|(bad-band list|fwhm) of the bands is .*, expected 3"):
        open_cube_file(path)


def test_lists_may_end_in_a_comma(tmp_path):
    said = {"wavelength": "{410, 512.5, 640.25,}", "wavelength_units": "nm", "bbl": "1,0,1.0,"}
    bands = bands_of(write(tmp_path / "c.tif", tags=None, whole=said))
    assert (bands.wavelength_nm.tolist(), bands.good.tolist()) == (NM, [True, False, True])


@pytest.mark.parametrize("word", ["nan", "maybe", "1_0"])
def test_mark_that_is_neither_good_nor_bad_is_refused(tmp_path, word):
    with pytest.raises(InputError, match=r"bbl 2 is .*, expected a finite number"):
        open_cube_file(write(tmp_path / "c.tif", whole={"bbl": f"{{1, {word}, 1}}"}))


@pytest.mark.parametrize("unit", ["Wavenumber", "Angstroms", "GHz", "Index"])
def test_unit_that_is_not_known_is_wrong_and_only_a_table_helps(tmp_path, unit):
    path = write(tmp_path / "c.tif", tags=[{"wavelength": str(nm), "wavelength_units": unit} for nm in NM])
    for options in ({}, {"wavelength_unit": "nm"}):
        with pytest.raises(InputError, match=f"wavelength units is {unit.lower()}, expected"):
            bands_of(path, **options)
    assert bands_of(path, wavelengths=NM, wavelength_unit="nm").wavelength_nm.tolist() == NM


@pytest.mark.parametrize("words", [{"reflectance_scale_factor": "10"}, {"Reflectance scale factor": "1e1"}])
def test_reflectance_scale_factor_in_the_tags_divides_once(tmp_path, words):
    path = write(tmp_path / "c.tif", whole=words)
    np.testing.assert_allclose(read(path), CUBE / 10, rtol=1e-6)
    with rasterio.open(path, "r+") as file:
        file.scales = (0.1,) * 3
    np.testing.assert_allclose(read(path), CUBE / 10, rtol=1e-6)
    with rasterio.open(path, "r+") as file:
        file.scales = (0.2,) * 3
    with pytest.raises(InputError, match=r"the tag reflectance_scale_factor is 10, expected scale 0\.2"):
        open_cube_file(path)


@pytest.mark.parametrize("word", ["0", "-1", "nan", "inf", "10,5", "x"])
def test_reflectance_scale_factor_that_is_none_is_refused(tmp_path, word):
    with pytest.raises(InputError, match="the tag reflectance_scale_factor is"):
        open_cube_file(write(tmp_path / "c.tif", whole={"reflectance_scale_factor": word}))


@pytest.mark.parametrize("where", ["file", "band"])
@pytest.mark.parametrize(("name", "value", "meant"), [("scale_factor", "10", "scales"), ("add_offset", "5", "offsets")])
def test_scale_factor_in_the_tags_is_no_scale_but_may_repeat_it(tmp_path, where, name, value, meant):
    said = {"whole": {name: value}} if where == "file" else {"tags": [tags | {name: value} for tags in TAGS]}
    path = write(tmp_path / "c.tif", **said)
    with pytest.raises(InputError, match=f"the tag {name} is {value}, expected .*gdal_edit"):
        open_cube_file(path)
    with rasterio.open(path, "r+") as file:
        setattr(file, meant, (float(value),) * 3)
    np.testing.assert_allclose(read(path), CUBE * 10 if name == "scale_factor" else CUBE + 5)


def test_scale_factor_that_changes_nothing_is_fine(tmp_path):
    tags = {"scale_factor": "1.0", "add_offset": "0", "reflectance_scale_factor": "1"}
    file = open_cube_file(write(tmp_path / "c.tif", whole=tags))
    assert (file.gain, file.offset) == (None, None)


@pytest.mark.parametrize(
    "name", ["red", "B4", "400-410 nm", "400 - 410 nm", "800 nm / 680 nm", "410 nm, FWHM 6 nm", "x" * 999]
)
def test_description_that_names_no_single_centre_says_nothing(tmp_path, name):
    file = open_cube_file(write(tmp_path / "c.tif", CUBE[:1], tags=None, names=[name]))
    assert file.table.wavelength is None


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions_are_one_line_that_names_both(tmp_path, case):
    path = write(tmp_path / "c.tif", **CONTRADICTIONS[case])
    with pytest.raises(InputError, match=r"^\S*c\.tif: .* is .*, expected .*\. Fix: .*") as caught:
        bands_of(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "word", ["512,5", "nan", "inf", "1e999", "x", "512.5 nm", "0x200", "5_1", "--5", "-512", "0", "0.5", "1e9"]
)
@pytest.mark.parametrize("key", ["wavelength", "fwhm"])
def test_value_that_is_no_wavelength_is_one_line(tmp_path, key, word):
    path = write(tmp_path / "c.tif", tags=[tags | {"fwhm": "5"} | {key: word} for tags in TAGS])
    if key == "fwhm" and word in ("0.5", "1e9"):
        return  # a narrow or wide band, but a number
    with pytest.raises(InputError, match=r"c\.tif: .* is .*, expected .*\. Fix: .*") as caught:
        bands_of(path)
    assert "\n" not in str(caught.value)


def test_decimal_comma_is_told(tmp_path):
    with pytest.raises(InputError, match=r"wavelength of band 1 is '512,5', .* not a decimal comma"):
        bands_of(write(tmp_path / "c.tif", tags=[{"wavelength": "512,5"} | UNIT] * 3))
    with pytest.raises(InputError, match="not a decimal comma"):
        bands_of(write(tmp_path / "c.tif", tags=None, names=["410,5 nm", "412,5 nm", "414,5 nm"]))


def test_tags_in_another_encoding_are_no_traceback(tmp_path):
    path = write(tmp_path / "c.tif", tags=None, names=["0.41 AAm", "0.42 AAm", "0.43 AAm"])
    path.write_bytes(path.read_bytes().replace(b"AAm", b"\xb5\xffm"))
    assert open_cube_file(path).table.wavelength is None


@pytest.mark.parametrize(("dtype", "nodata"), [("i2", 8), ("i2", -32768), ("u1", 0), ("f4", -9999.5), ("f8", 8)])
def test_nodata_becomes_nan(tmp_path, dtype, nodata):
    cube = CUBE.astype(dtype)
    cube[1, 2, 3] = nodata
    np.testing.assert_array_equal(
        read(write(tmp_path / "c.tif", cube, nodata=nodata)), np.where(cube == nodata, np.nan, cube)
    )


def test_nodata_that_is_nan_keeps_nan(tmp_path):
    cube = CUBE.astype("f4")
    cube[1, 2, 3] = np.nan
    np.testing.assert_array_equal(read(write(tmp_path / "c.tif", cube, nodata=np.nan)), cube)


def test_nodata_that_differs_between_bands_is_refused(tmp_path):
    path = write(tmp_path / "c.tif", CUBE.astype("i2"))
    bands = (f'<PAMRasterBand band="{i}"><NoDataValue>{i}</NoDataValue></PAMRasterBand>' for i in (1, 2, 3))
    (tmp_path / "c.tif.aux.xml").write_text(f"<PAMDataset>{''.join(bands)}</PAMDataset>")
    with pytest.raises(InputError, match=r"nodata value is 1\.0 and 2\.0 and 3\.0, expected one for all .* -a_nodata"):
        open_cube_file(path)


@pytest.mark.parametrize("nodata", [-9999, 7.5, 300, 1e30])
def test_nodata_that_the_type_cannot_hold_marks_no_pixel(tmp_path, nodata):
    path = write(tmp_path / "c.tif", CUBE.astype("u1"))
    band = '<PAMRasterBand band="{}"><NoDataValue>{}</NoDataValue></PAMRasterBand>'
    (tmp_path / "c.tif.aux.xml").write_text(
        f"<PAMDataset>{''.join(band.format(i, nodata) for i in (1, 2, 3))}</PAMDataset>"
    )
    assert open_cube_file(path).nodata is None
    np.testing.assert_array_equal(read(path), CUBE)


@pytest.mark.parametrize(("scale", "offset"), [(0, 0), (np.nan, 0), (np.inf, 0), (1, np.nan)])
def test_scale_that_is_none_is_refused(tmp_path, scale, offset):
    path = write(tmp_path / "c.tif")
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1, scale, 1), (0, offset, 0)
    with pytest.raises(InputError, match=r"(gain|offset) of the bands is"):
        open_cube_file(path)


@pytest.mark.parametrize("inside", [True, False])
def test_mask_inside_or_beside_becomes_nan(tmp_path, inside):
    valid = CUBE[0] % 3 > 0
    path = write(tmp_path / "c.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as file:
        file.write_mask(valid)
    assert (tmp_path / "c.tif.msk").exists() != inside
    np.testing.assert_array_equal(read(path), np.where(valid, CUBE, np.nan))


def test_mask_of_each_band_beside_becomes_nan(tmp_path):
    masks = np.where(CUBE % 5 > 0, 255, 0).astype(np.uint8)
    path = write(tmp_path / "c.tif")
    flags = {f"INTERNAL_MASK_FLAGS_{i}": "0" for i in (1, 2, 3)}
    write(tmp_path / "c.tif.msk", masks, tags=None, whole=flags)
    np.testing.assert_array_equal(read(path), np.where(masks, CUBE, np.nan))
    np.testing.assert_array_equal(open_cube_file(path).read(Window(0, 0, 40, 50), np.array([2]))[0], read(path)[2])


def write_with_alpha(path, stored, alpha, **options):
    write(path, stored, photometric="minisblack", **options)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.alpha if i == alpha else ColorInterp.undefined for i in file.indexes]
    return path


@pytest.mark.parametrize("nodata", [None, 8])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_last_band_that_is_alpha_is_a_mask_and_no_layer(tmp_path, count, dtype, nodata):
    alpha, cube, of = np.where(CUBE[:1] % 3 > 0, 1, 0), CUBE[:count], {"tags": [*TAGS[:count], {}], "nodata": nodata}
    path = write_with_alpha(tmp_path / "c.tif", np.concatenate([cube, alpha]).astype(dtype), count + 1, **of)
    file = open_cube_file(path)
    if (count, dtype) == (3, "uint8"):
        assert file.layers == 4
        return
    expected = np.where(alpha & (cube != nodata), cube, np.nan)
    np.testing.assert_array_equal(read(path), expected)
    np.testing.assert_array_equal(file.read(file.geobox.window, np.array([count - 1])), expected[-1:])
    assert bands_of(path).wavelength_nm.tolist() == NM[:count]


def test_band_before_the_last_is_data_whatever_it_is_called(tmp_path, caplog):
    path = write_with_alpha(tmp_path / "c.tif", CUBE, 2, tags=None)
    np.testing.assert_array_equal(read(path), CUBE)
    assert "c.tif: band 2 is read as data, although it is called alpha" in caplog.text


def test_fourth_band_of_bytes_is_a_band_and_no_mask_and_that_is_logged(tmp_path, caplog):
    cube = np.concatenate([CUBE, CUBE[:1]]).astype("u1")
    cube[3, 0] = 0
    path = write(tmp_path / "c.tif", cube, tags=None)
    with rasterio.open(path) as file:
        assert file.colorinterp[3].name == "alpha"
    np.testing.assert_array_equal(read(path), cube)
    assert "c.tif: band 4 is read as data, although it is called alpha" in caplog.text
    caplog.clear()
    open_scene(write(tmp_path / "c.tif", cube, tags=[*TAGS, {"wavelength": "700"} | UNIT]))
    assert not caplog.text


def test_ground_control_points_alone_are_no_place(tmp_path):
    points = [GroundControlPoint(0, 0, 1, 2), GroundControlPoint(0, 50, 3, 4), GroundControlPoint(40, 0, 5, 6)]
    path = tmp_path / "c.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=40, width=50, dtype="int16", gcps=points, crs="EPSG:4326"
    ) as file:
        file.write(CUBE[:1])
    opened = open_cube_file(path)
    assert opened.geobox.transform == Affine.identity()
    assert opened.geobox.crs is None
    assert "3 ground control points" in opened.facts["place"]


def test_world_file_beside_gives_the_place(tmp_path):
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write(tmp_path / "c.tif", transform=None, crs=None)
    assert open_cube_file(path).geobox.transform == Affine.identity()
    (tmp_path / "c.tfw").write_text("30\n0\n0\n-30\n115\n185\n")
    assert open_cube_file(path).geobox.transform == Affine(30, 0, 100, 0, -30, 200)


def test_sensor_and_time_are_taken_from_the_tags(tmp_path):
    path = write(tmp_path / "c.tif", whole={"sensor type": "X\ny", "start_time": "2022-07-24T10:45:26"})
    assert list(open_cube_file(path).facts.items()) == [("sensor", r"X\ny"), ("acquired", "2022-07-24T10:45:26")]


@pytest.mark.parametrize("compress", ["NONE", "DEFLATE"])
def test_blocks_never_written_are_nodata_and_never_zeros(tmp_path, compress):
    with pytest.raises(InputError, match="never written is 15 of 16, expected 0"):
        open_cube_file(sparse(tmp_path / "c.tif", compress=compress))
    path = sparse(tmp_path / "d.tif", compress=compress, nodata=-9)
    assert open_cube_file(path).facts["never written"] == "15 of 16 blocks, read as no data"
    values = read(path)[0]
    assert (values[:16, 16:32] == 1).all()
    assert np.isnan(values).sum() == 64 * 64 - 16 * 16


def test_name_that_gdal_would_follow_to_another_file_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "other.tif", CUBE + 5)
    write(tmp_path / "GTIFF_DIR:1:other.tif")
    np.testing.assert_array_equal(read(Path("GTIFF_DIR:1:other.tif")), CUBE)


def test_gdal_prints_nothing_itself(tmp_path, capfd):
    path = tmp_path / "c.tif"
    # fields out of their order, and no sizes of blocks
    path.write_bytes(directory().replace(struct.pack("<HHI", 279, 4, 1), struct.pack("<HHI", 270, 4, 1)))
    assert read(path).shape == (1, 4, 5)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("cut", [*range(1, 200, 23), *range(200, 1500, 100)])
def test_file_that_lost_its_last_bytes_is_refused_and_not_read_without_its_tags(tmp_path, cut):
    path = write(tmp_path / "c.tif", CUBE[:, :5], nodata=8, names=["a", "b", "c"], blockysize=1)  # tags stand last
    os.truncate(path, path.stat().st_size - cut)
    with pytest.raises(InputError):
        open_cube_file(path)


def test_truncated_file_is_refused_at_opening(tmp_path):
    path = write(tmp_path / "c.tif", tags=None)
    os.truncate(path, int(path.stat().st_size * 0.9))
    with pytest.raises(InputError) as caught:
        open_cube_file(path)
    assert "\n" not in str(caught.value)


def test_file_that_is_damaged_under_way_is_an_error(tmp_path):
    file = open_cube_file(write(tmp_path / "c.tif", compress="DEFLATE"))
    data = bytearray(file.path.read_bytes())
    data[-600:] = b"\x55" * 600
    file.path.write_bytes(data)
    with pytest.raises(InputError, match="unreadable"):
        file.read(Window(0, 0, 40, 50))
    file.path.unlink()
    with pytest.raises(InputError, match="No such file"):
        file.read(Window(0, 0, 40, 50))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_refused(tmp_path, dtype):
    with rasterio.open(
        tmp_path / "c.tif", "w", driver="GTiff", count=1, height=4, width=5, dtype=dtype, transform=ROTATED
    ):
        pass
    with pytest.raises(InputError, match=r"1 images? of complex"):
        open_cube_file(tmp_path / "c.tif")


def test_bands_in_several_images_are_refused_and_not_dropped(tmp_path):
    one = directory()
    second = bytearray(one[8:])
    first = bytearray(one)
    first[-4:] = struct.pack("<I", len(one))
    (tmp_path / "c.tif").write_bytes(bytes(first + second))
    with pytest.raises(InputError, match=r"content is 2 images of .*, expected one image"):
        open_cube_file(tmp_path / "c.tif")


def test_transform_that_maps_to_nothing_is_refused(tmp_path):
    path = write(tmp_path / "c.tif")
    (tmp_path / "c.tif.aux.xml").write_text("<PAMDataset><GeoTransform>1,0,0,2,0,0</GeoTransform></PAMDataset>")
    with pytest.raises(InputError, match="transform is"):
        open_cube_file(path)
