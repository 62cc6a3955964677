import os
import pickle

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scene_files.products import (
    CUBE,
    DESIS,
    ENMAP,
    FWHM,
    GAIN,
    GOOD,
    L2A,
    NM,
    OFFSET,
    PHYSICAL,
    PLACE,
    XMLS,
    desis_xml,
    enmap_xml,
    write,
)

from hsfusion.errors import InputError
from hsfusion.scenes import Window, open_scene
from hsfusion.scenes.formats.registry import open_cube_file


def read(path, window=None):
    file = open_cube_file(path)
    return file.read(window or Window(0, 0, *file.geobox.shape))


@pytest.mark.parametrize("level", ["L1C", "L2A"])
@pytest.mark.parametrize("named", [0, 1])
def test_enmap_reads_back_by_its_xml_and_by_its_image(tmp_path, named, level):
    cube = CUBE.copy()
    cube[1, 2, 3] = -32768
    path = write(tmp_path, enmap_xml(level), cube=cube, stem=ENMAP.format(level), nodata=-32768)[named]
    truth = np.where(cube == -32768, np.nan, PHYSICAL)
    np.testing.assert_allclose(read(path), truth, rtol=1e-6)
    np.testing.assert_allclose(read(path, Window(1, 2, 3, 2)), truth[:, 1:4, 2:4], rtol=1e-6)
    scene = open_scene(path)
    assert scene.bands.wavelength_nm.tolist() == NM
    assert scene.bands.fwhm_nm.tolist() == FWHM
    assert scene.bands.good.all()
    assert scene.geobox.transform == PLACE["transform"]
    file = pickle.loads(pickle.dumps(open_cube_file(path)))
    facts = {"sensor": "EnMAP", "product": level, "acquired": "2022-07-24T10:45:26.0Z"}
    assert list(file.facts.items())[:3] == list(facts.items())
    assert file.format == f"EnMAP {level} GeoTIFF BIP int16" or file.format == f"EnMAP {level} GeoTIFF BSQ int16"


@pytest.mark.parametrize("level", ["L1B", "L1C", "L2A"])
@pytest.mark.parametrize("named", [0, 1])
def test_desis_reads_back_by_its_xml_and_by_its_image(tmp_path, named, level):
    names = {"stem": DESIS.format(level), "image": "SPECTRAL_IMAGE.tif", "meta": "METADATA.xml"}
    path = write(tmp_path, desis_xml(level), interleave="pixel", **names)[named]
    (tmp_path / f"{DESIS.format(level)}SPECTRAL_IMAGE.hdr").write_text("ENVI\n")  # comes with the product
    np.testing.assert_allclose(read(path), PHYSICAL, rtol=1e-6)
    bands = open_scene(path).bands
    assert bands.wavelength_nm.tolist() == NM
    assert bands.fwhm_nm.tolist() == FWHM
    assert dict(open_cube_file(path).facts) == {"sensor": "DESIS", "product": level, "acquired": "2020-08-21T21:27:57Z"}


@pytest.mark.parametrize("image", ["SPECTRAL_IMAGE_COG.tiff", "SPECTRAL_IMAGE.GEOTIFF", "spectral_image.tif"])
@pytest.mark.parametrize("meta", ["METADATA.XML", "METADATA.xml", "METADATA.XML.XML"])
def test_other_names_of_the_files_are_found(tmp_path, image, meta):
    for path in write(tmp_path, enmap_xml(), image=image, meta=meta):
        np.testing.assert_allclose(read(path), PHYSICAL, rtol=1e-6)


@pytest.mark.parametrize(("suffix", "interleave"), [(".BSQ", "BSQ"), (".BIL", "BIL"), (".BIP", "BIP")])
@pytest.mark.parametrize("header", [".hdr", ".HDR"])
def test_enmap_as_envi_reads_back(tmp_path, suffix, interleave, header):
    xml, path = write(
        tmp_path, enmap_xml(), image=f"SPECTRAL_IMAGE{suffix}", driver="ENVI", INTERLEAVE=interleave, nodata=-32768
    )
    path.with_suffix(".hdr").rename(path.with_suffix(header))
    for named in (xml, path, path.with_suffix(header)):
        np.testing.assert_allclose(read(named), PHYSICAL, rtol=1e-6)
    assert open_scene(xml).bands.wavelength_nm.tolist() == NM


def test_bands_stand_in_the_order_of_their_numbers(tmp_path):
    for folder, xml in (("a", enmap_xml(order=(3, 1, 0, 2))), ("b", desis_xml(order=(2, 3, 1, 0)))):
        (tmp_path / folder).mkdir()
        path, _ = write(tmp_path / folder, xml)
        assert open_scene(path).bands.wavelength_nm.tolist() == NM
        np.testing.assert_allclose(read(path), PHYSICAL, rtol=1e-6)


@pytest.mark.parametrize("spaces", [' xmlns="http://a.b/c"', ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'])
def test_namespaces_are_tolerated(tmp_path, spaces):
    assert open_scene(write(tmp_path, enmap_xml(spaces=spaces))[0]).bands.wavelength_nm.tolist() == NM
    prefixed = enmap_xml().replace("<", "<e:").replace("<e:/", "</e:").replace("<e:?", "<?")
    (tmp_path / "b").mkdir()
    path, _ = write(tmp_path / "b", prefixed.replace("<e:level_X", '<e:level_X xmlns:e="http://a.b/c"', 1))
    assert open_scene(path).bands.wavelength_nm.tolist() == NM


@pytest.mark.parametrize(("detector", "rows"), [("VNIR", slice(0, 1)), ("SWIR", slice(1, 4))])
def test_detectors_of_level_1b_have_their_own_rows(tmp_path, detector, rows):
    stem, xml = ENMAP.format("L1B"), enmap_xml("L1B", detectors=(1, 3), background="0")
    for name, part in (("VNIR", slice(0, 1)), ("SWIR", slice(1, 4))):
        write(tmp_path, xml, cube=CUBE[part], stem=stem, image=f"SPECTRAL_IMAGE_{name}.TIF")
    path = tmp_path / f"{stem}SPECTRAL_IMAGE_{detector}.TIF"
    np.testing.assert_allclose(read(path), PHYSICAL[rows], rtol=1e-6)
    assert open_scene(path).bands.wavelength_nm.tolist() == NM[rows]
    with pytest.raises(
        InputError, match=r"image beside it is .*SWIR\.TIF, .*VNIR\.TIF, expected one .* name the image"
    ):
        open_cube_file(tmp_path / f"{stem}METADATA.XML")


def test_bands_that_are_not_expected_in_the_product_are_not_good(tmp_path):
    path, _ = write(tmp_path, enmap_xml(expected=("1", "3, 4")))
    assert open_scene(path).bands.good.tolist() == [True, False, True, True]


def test_background_of_the_xml_and_nodata_of_the_image_are_both_no_data(tmp_path):
    cube = CUBE.copy()
    cube[0, 0, 0], cube[1, 1, 1] = 0, -32768
    (tmp_path / "a").mkdir()
    path, _ = write(tmp_path / "a", enmap_xml(background="0"), cube=cube)
    assert np.argwhere(np.isnan(read(path))).tolist() == [[0, 0, 0]]
    path, _ = write(tmp_path, enmap_xml(background="0"), cube=cube, nodata=-32768)
    assert np.argwhere(np.isnan(read(path))).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert "both used" in open_cube_file(path).facts["nodata"]


def test_scale_that_the_image_names_too_is_applied_once(tmp_path):
    xml, path = write(tmp_path, enmap_xml())
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = GAIN, OFFSET
    np.testing.assert_allclose(read(xml), PHYSICAL, rtol=1e-6)
    with rasterio.open(path, "r+") as file:
        file.scales = (0.0001, 0.0002, 0.0005, 0.01)
    with pytest.raises(InputError, match=r"gain of the bands is .*0\.01\], expected .*0\.001\] as in ENMAP"):
        open_cube_file(xml)


def test_wavelengths_that_the_image_names_too_must_agree(tmp_path):
    xml, path = write(tmp_path, enmap_xml())
    for nm, agrees in ((993.5, True), (902.5, False)):
        with rasterio.open(path, "r+") as file:
            for band, value in enumerate([NM[0], nm, NM[2], NM[3]], 1):
                file.update_tags(band, wavelength=str(value), wavelength_units="nm")
        if agrees:
            assert open_scene(xml).bands.wavelength_nm.tolist() == NM
        else:
            with pytest.raises(
                InputError, match=r"wavelength of the bands is .*902\.5.*, expected .*993\.1.* as in ENMAP"
            ):
                open_scene(xml)


def test_image_without_xml_says_what_is_missing_or_stands_for_itself(tmp_path):
    _, path = write(tmp_path, None)
    with pytest.raises(InputError, match=r"METADATA\.XML beside it\) is missing, expected 4 wavelengths"):
        open_scene(path)
    with rasterio.open(path, "r+") as file:
        for band, nm in enumerate(NM, 1):
            file.set_band_description(band, f"band {band} ({nm} Nanometers)")
    assert open_scene(path).bands.wavelength_nm.tolist() == NM
    np.testing.assert_array_equal(read(path), CUBE)


def test_derived_image_beside_a_product_is_no_product(tmp_path):
    xml, path = write(tmp_path, enmap_xml())
    derived = path.with_name(path.name.replace("IMAGE", "IMAGE_subset"))
    derived.write_bytes(path.read_bytes())
    assert open_cube_file(derived).format.startswith("GeoTIFF")
    np.testing.assert_allclose(read(xml), PHYSICAL, rtol=1e-6)


@pytest.mark.parametrize("case", XMLS)
@pytest.mark.parametrize("named", [0, 1])
def test_xml_that_lies_is_one_line(tmp_path, named, case):
    path = write(tmp_path, XMLS[case])[named]
    with pytest.raises(InputError, match=r"^\S*ENMAP\S*: .* is .*, expected .*\. Fix: .*") as caught:
        open_scene(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_list_of_wavelengths_in_the_image_that_is_too_short_is_refused(tmp_path):
    path, image = write(tmp_path, enmap_xml())
    with rasterio.open(image, "r+") as file:
        file.update_tags(wavelength="{423, 430}", wavelength_units="nm")
    with pytest.raises(InputError, match=r"wavelength of the bands is \[423.0, 430.0\], expected .* as in ENMAP"):
        open_cube_file(path)


def test_bands_of_xml_and_image_of_two_numbers_name_both(tmp_path):
    path, _ = write(tmp_path, enmap_xml(), cube=CUBE[:3])
    with pytest.raises(InputError, match=r"number of bands is 4 of 4 in all, expected 3 as in ENMAP"):
        open_cube_file(path)
    _, path = write(tmp_path, enmap_xml(detectors=(3, 1)), cube=CUBE[:2], image="SPECTRAL_IMAGE_VNIR.TIF")
    with pytest.raises(InputError, match=r"number of bands is 3 of 4 in all, expected 2"):
        open_cube_file(path)
    _, path = write(tmp_path, enmap_xml(detectors=(3, 3)), cube=CUBE[:3], image="SPECTRAL_IMAGE_VNIR.TIF")
    with pytest.raises(InputError, match=r"number of bands is 3 of 6 in all, expected 3 as in .*, of 4"):
        open_cube_file(path)


@settings(
    max_examples=int(os.environ.get("HSFUSION_FUZZ", "60")), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_any_damaged_xml_opens_or_is_one_clear_line(tmp_path, data):
    path = tmp_path / f"{L2A}METADATA.XML"
    if not path.exists():
        write(tmp_path, GOOD)
    content = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(60, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=6))
    path.write_bytes(content)
    try:
        assert len(open_scene(path).bands) == read(path).shape[0]
    except InputError as error:
        assert "\n" not in str(error)


def test_xml_without_its_image_is_one_line(tmp_path):
    xml, path = write(tmp_path, enmap_xml())
    path.unlink()
    with pytest.raises(InputError, match="image beside it is missing"):
        open_cube_file(xml)
