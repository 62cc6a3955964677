import numpy as np
import pytest

from hsfusion.errors import InputError
from hsfusion.spectra.sensors import SENSORS, sensor_bands, sensor_name

# numbers of bands and ranges as the missions publish them
PUBLISHED = {
    "enmap": (224, 418, 2446),
    "prisma": (239, 400, 2505),
    "emit": (285, 381, 2493),
    "desis": (235, 402, 1000),
    "aviris_classic": (224, 366, 2497),
    "sentinel2": (12, 442, 2203),
    "landsat": (7, 442, 2201),
}


@pytest.mark.parametrize("name", SENSORS)
def test_number_and_range_are_those_that_the_mission_publishes(name):
    bands, (number, first, last) = sensor_bands(name), PUBLISHED[name]
    assert len(bands) == number
    assert bands.good.all()
    assert bands.wavelength_nm.min() == pytest.approx(first, abs=1)
    assert bands.wavelength_nm.max() == pytest.approx(last, abs=1)


def test_spectrometers_follow_one_another_as_in_the_products():
    steps_back = {name: np.flatnonzero(np.diff(sensor_bands(name).wavelength_nm) < 0).tolist() for name in SENSORS}
    joins = {"enmap": [90], "prisma": [65], "aviris_classic": [31, 95, 159]}
    assert steps_back == {name: joins.get(name, []) for name in SENSORS}


@pytest.mark.parametrize(("name", "mean_nm"), [("emit", 7.43), ("desis", 2.55)])
def test_gratings_sample_evenly_at_the_published_distance(name, mean_nm):
    np.testing.assert_allclose(np.diff(sensor_bands(name).wavelength_nm), mean_nm, atol=0.011)


def test_prisms_sample_at_the_published_mean_distances():
    enmap, prisma = sensor_bands("enmap").wavelength_nm, sensor_bands("prisma").wavelength_nm
    assert np.diff(enmap[:91]).mean() == pytest.approx(6.5, abs=0.2)
    swir = np.diff(enmap[91:])
    assert swir[swir < 30].mean() == pytest.approx(10, abs=0.3)  # without the two gaps
    for part in (enmap[:91], prisma[:66], prisma[66:]):
        assert 4.5 < np.diff(part).min() < np.diff(part).max() < 12  # nm, as published


def test_enmap_has_no_bands_in_the_water_vapour():
    nm = sensor_bands("enmap").wavelength_nm
    assert not (((nm > 1391) & (nm < 1461)) | ((nm > 1760) & (nm < 1939))).any()


@pytest.mark.parametrize("name", SENSORS)
def test_widths_leave_no_gap_between_the_bands_of_a_spectrometer(name):
    bands = sensor_bands(name)
    step = np.diff(bands.wavelength_nm)
    together = (step > 0) & (step < 15)
    assert bands.fwhm_nm is not None
    assert (bands.fwhm_nm[:-1][together] > 0.85 * step[together]).all()
    assert (bands.fwhm_nm < 190).all()


def test_table_of_a_user_is_a_sensor_too(tmp_path):
    path = tmp_path / "my sensor.csv"
    path.write_text("wavelength_nm,fwhm_nm\n650,20\n550,30\n")
    bands = sensor_bands(str(path))
    assert bands.wavelength_nm.tolist() == [650, 550]
    assert bands.fwhm_nm is not None
    assert bands.fwhm_nm.tolist() == [20, 30]
    assert (sensor_name(str(path)), sensor_name("enmap")) == ("my sensor", "enmap")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Sentinel-2", r"sensor: name is Sentinel-2, expected enmap .*\. Fix: did you mean sentinel2\?"),
        ("moon", r"name is moon, .* Fix: choose one"),
        ("none.csv", r"none\.csv: band table is unreadable"),
    ],
)
def test_unknown_sensor_is_one_line(name, message):
    with pytest.raises(InputError, match=message):
        sensor_bands(name)


def test_table_without_widths_is_refused(tmp_path):
    path = tmp_path / "bands.csv"
    path.write_text("wavelength_nm\n650\n")
    with pytest.raises(InputError, match=r"bands\.csv: column fwhm_nm is missing"):
        sensor_bands(str(path))
