"""``hsfusion inspect``: the page, JSON, figures, and how it ends."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from hsfusion.cli import pages
from hsfusion.errors import InputError
from hsfusion.runs.inspection import inspect_file
from hsfusion.scenes.formats import registry
from hsfusion.scenes.survey import survey
from hsfusion.training.model_file import load_model, save_model

SCRIPTS = Path(__file__).parents[2] / "scripts"
BANDS, LINES, SAMPLES = 30, 16, 20
NM = np.arange(450.0, 1050, 20)


@pytest.fixture
def folder(tmp_path):
    """An ENVI cube of reflectances x 10,000 with a bad and a dead band, labels, and a description of both."""
    rng = np.random.default_rng(0)
    wave = 3000 + 900 * np.sin(np.arange(BANDS) / 5)[:, None, None] + 300 * np.sin(np.arange(SAMPLES) / 4)
    cube = (wave + rng.normal(0, 40, (BANDS, LINES, SAMPLES))).astype("<i2")
    cube[7], cube[:, 0, :5] = 0, -9999
    cube.tofile(tmp_path / "cube.img")
    good = ", ".join("0" if band == 3 else "1" for band in range(BANDS))
    (tmp_path / "cube.hdr").write_text(
        f"ENVI\nsamples = {SAMPLES}\nlines = {LINES}\nbands = {BANDS}\n"
        "data type = 2\ninterleave = bsq\nbyte order = 0\nsensor type = HyMap\n"
        f"wavelength units = Nanometers\nwavelength = {{{', '.join(map(str, NM))}}}\nbbl = {{{good}}}\n"
        "reflectance scale factor = 10000\ndata ignore value = -9999\n"
        "map info = {UTM, 1, 1, 395591.3, 3778292.3, 2, 2, 11, North, WGS-84}\n"
    )
    labels = np.zeros((LINES, SAMPLES), np.uint8)
    labels[4:8], labels[10] = 3, 7
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "site.yaml").write_text(
        "_target_: hsfusion.scenes.open_labelled_scene\ncube: ../cube.img\nlabels: ../labels.npy\n"
        "class_names: {3: corn, 7: woods}\n"
    )
    return tmp_path


def header(folder, *changes):
    text = (folder / "cube.hdr").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "cube.hdr").write_text(text)


def rows(page):
    """The page as a mapping: first words of a line -> the rest."""
    return {line[:18].strip(): line[18:].strip() for line in page.splitlines()}


def test_page_tells_the_facts_in_plain_text(hsfusion, folder):
    done = hsfusion("inspect", "cube.img", "scene.labels=labels.npy", "class_names={3: corn, 7: woods}", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    page = done.stdout
    assert "\x1b" not in page
    assert max(map(len, page.splitlines())) <= 100
    assert not [line for line in page.splitlines() if line != line.rstrip()]
    facts = rows(page)
    expected = {
        "format": "ENVI BSQ int16",
        "sensor": "HyMap",
        "size": "16 rows x 20 columns x 30 bands",
        "memory": "38.4 kB when loaded (float32)",
        "wavelengths": "450.0 to 1030.0 nm, 20 nm apart (median)",
        "from": "wavelength of cube.hdr, unit Nanometers",
        "FWHM": "not given",
        "bad bands": "2 of 30",
        "marked": "1: 4 (510 nm)",
        "constant": "1: 8 (590 nm)",
        "scale": "stored values x 0.0001, applied once",
        "nodata value": "-9999",
        "no data": "1.6% of the pixels in all bands; 1.6% of the values in good bands",
        "surveyed": "all 320 pixels",
        "pixel size": "2 x 2 m",
        "extent": "x 395591.3 to 395631.3, y 3778260.3 to 3778292.3",
    }
    assert {key: facts.get(key) for key in expected} == expected
    assert "EPSG:32611" in facts["CRS"]
    assert facts["3"] == "corn: 80 pixels, 80.0% of the labelled ones"
    assert facts["0"] == "unlabelled: 220 pixels"
    assert facts["classes"] == "2, 100 labelled pixels"


def test_description_gives_cube_labels_and_names_from_its_own_folder(hsfusion, folder):
    done = hsfusion("inspect", "site/site.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    facts = rows(done.stdout)
    shown = "corn: 80 pixels, 80.0% of the labelled ones", "woods: 20 pixels, 20.0% of the labelled ones"
    assert (facts["3"], facts["7"], facts["0"]) == (*shown, "unlabelled: 220 pixels")
    done = hsfusion("inspect", "scene=site/site.yaml", "class_names={3: maize}", cwd=folder)
    assert "maize: 80 pixels" in done.stdout and "class 7: 20 pixels" in done.stdout


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (("wavelength units = Nanometers\n", ""), "wavelength units is missing.*scene.wavelength_unit=nm"),
        (("wavelength = {", "x = {"), "add scene.wavelengths=PATH"),
    ],
)
def test_missing_wavelengths_are_a_warning_and_all_else_is_told(folder, change, warning):
    header(folder, change)
    keys = {"labels": str(folder / "labels.npy"), "bad_bands": ["water_vapour"]}
    inspected = inspect_file(str(folder / "cube.img"), keys)
    assert inspected.bands is None
    assert re.search(warning, inspected.warnings[0])
    assert np.flatnonzero(inspected.marked_bad).tolist() == [3]
    assert not inspected.given_bad.any()
    assert inspected.warnings[1:] == ()
    assert [count.pixels for count in inspected.labels or ()] == [80, 20, 220]
    assert inspected.survey.highest[0] == pytest.approx(0.345, abs=0.05)


@pytest.mark.parametrize("unit", ["Unknown", "Wavenumber", "Angstroms"])
def test_unit_that_is_no_length_is_an_error_unless_wavelengths_are_given(folder, unit):
    header(folder, ("Nanometers", unit))
    with pytest.raises(InputError, match=f"wavelength units is {unit.lower()}, expected Nanometers"):
        inspect_file(str(folder / "cube.img"), {})
    assert (
        inspect_file(str(folder / "cube.img"), {"wavelengths": NM.tolist(), "wavelength_unit": "nm"}).bands is not None
    )


def test_wavelengths_that_contradict_the_file_are_an_error(folder):
    profile = {"driver": "GTiff", "width": 9, "height": 9, "count": 20, "dtype": "float32", "crs": "EPSG:32633"}
    with rasterio.open(folder / "c.tif", "w", transform=Affine(30, 0, 5e5, 0, -30, 6e6), **profile) as file:
        file.write(np.random.default_rng(0).random((20, 9, 9), np.float32))
        file.update_tags(wavelength="{400, 500, 600}", wavelength_units="nm")
    with pytest.raises(InputError, match="20"):
        inspect_file(str(folder / "c.tif"), {})
    given = {"wavelengths": list(range(400, 800, 20)), "wavelength_unit": "nm"}
    assert inspect_file(str(folder / "c.tif"), given).bands is not None


def test_wavelengths_without_a_unit_are_shown_as_they_stand(folder, capsys, monkeypatch):
    header(folder, ("wavelength units = Nanometers\n", ""))
    monkeypatch.chdir(folder)
    pages.inspect(["cube.img"])
    facts = rows(capsys.readouterr().out)
    assert facts["wavelengths"] == "not known in nm, see the warnings: 450 to 1030, unit not given"
    assert facts["marked"] == "1: 4"


def test_unit_that_is_given_is_used(folder):
    header(folder, ("Nanometers", "Unknown"))
    inspected = inspect_file(str(folder / "cube.img"), {"wavelength_unit": "nm"})
    assert inspected.bands is not None
    assert inspected.bands.wavelength_nm.tolist() == NM.tolist()


def test_bands_that_the_user_calls_bad_are_told_apart_from_marked_ones(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    pages.inspect(["cube.img", "bad_bands=[[900, 1030]]"])
    facts = rows(capsys.readouterr().out)
    assert facts["bad bands"] == "9 of 30"
    assert facts["by bad_bands"] == "7: 24-30 (910-1030 nm)"
    assert facts["marked"] == "1: 4 (510 nm)"


def test_bands_that_the_atmosphere_makes_are_named(folder, capsys):
    cube = np.fromfile(folder / "cube.img", "<i2").reshape(BANDS, LINES, SAMPLES)
    cube[20] = np.where(cube[20] == -9999, -9999, cube[20] // 2)
    cube.tofile(folder / "cube.img")
    pages.inspect([str(folder / "cube.img")])
    facts = rows(capsys.readouterr().out)
    assert facts["spike"] == "1: 21 (850 nm)"
    flags = inspect_file(str(folder / "cube.img"), {}).atmospheric
    assert np.flatnonzero(flags["spike"]).tolist() == [20] and not flags["edge"].any()


def test_lone_layer_of_codes_is_shown_as_labels(hsfusion, folder):
    profile = {"driver": "GTiff", "width": 20, "height": 16, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(folder / "map.tif", "w", transform=Affine(30, 0, 5e5, 0, -30, 6e6), **profile) as file:
        file.write(np.load(folder / "labels.npy"), 1)
    done = hsfusion("inspect", "map.tif", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)["3"] == "class 3: 80 pixels, 80.0% of the labelled ones"
    assert "Bands" not in done.stdout
    assert done.stdout.rstrip().endswith("Warnings\n  none")


def test_large_codes_are_kept_apart(folder):
    codes = np.zeros((LINES, SAMPLES), np.int32)
    codes[:2], codes[2:5] = 16777216, 16777217
    np.save(folder / "labels.npy", codes)
    labels = inspect_file(str(folder / "labels.npy"), {}).labels
    assert [(row.code, row.pixels) for row in labels] == [(16777216, 40), (16777217, 60), (0, 220)]


def test_features_are_to_be_given_with_a_scene(tmp_path):
    path = tmp_path / "fields.geojson"
    path.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(
        InputError, match=r"format is GeoJSON, expected a raster\. Fix: .* hsfusion inspect CUBE labels="
    ):
        inspect_file(str(path), {})


def test_layer_of_measurements_is_no_label_raster(folder):
    np.save(folder / "dsm.npy", np.random.default_rng(0).normal(100, 3, (LINES, SAMPLES)))
    inspected = inspect_file(str(folder / "dsm.npy"), {})
    assert inspected.labels is None
    assert "wavelength is missing" in inspected.warnings[0]


@pytest.mark.parametrize("names", [True, False])
def test_everything_is_opened_and_looked_at_once(folder, monkeypatch, names):
    if not names:
        header(folder, ("wavelength = {", "x = {"))
    opened, looked, reader = [], [], registry._READERS["envi"]
    monkeypatch.setitem(registry._READERS, "envi", lambda path: opened.append(path) or reader(path))
    monkeypatch.setattr("hsfusion.runs.inspection.survey", lambda cube: looked.append(cube) or survey(cube))
    monkeypatch.setattr("hsfusion.scenes.opening.survey", lambda cube: looked.append(cube) or survey(cube))
    inspect_file(str(folder / "cube.img"), {"labels": str(folder / "labels.npy")})
    assert (len(opened), len(looked)) == (1, 1)


def test_further_rasters_are_opened_and_told(folder, capsys, monkeypatch):
    np.save(folder / "dsm.npy", np.zeros((LINES, SAMPLES), "f4"))
    monkeypatch.chdir(folder)
    pages.inspect(["cube.img", "sources={lidar: dsm.npy}"])
    assert rows(capsys.readouterr().out)["also"] == "lidar: 1 layer on the same grid"
    inspected = inspect_file("cube.img", {"sources": {"lidar": "dsm.npy"}, "labels": "labels.npy"})
    assert inspected.sources == (("lidar", 1),)


def test_bad_bands_that_hit_nothing_are_a_warning(folder):
    warnings = inspect_file(str(folder / "cube.img"), {"bad_bands": [[2000, 2100]]}).warnings
    assert warnings[-1].startswith("cube: bad_bands: no band lies from 2000 to 2100 nm")


def test_plot_writes_three_figures_and_replaces_them(folder, monkeypatch, capsys, undrawn):
    monkeypatch.chdir(folder)
    for _ in range(2):
        pages.inspect(["cube.img", "--plot"])
    written = sorted(path.name for path in (folder / "cube_inspect").iterdir())
    assert [name for name in written if name.endswith("png")] == ["band_quality.png", "composite.png", "spectra.png"]
    assert "Figures: cube_inspect/composite.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "title"),
    [
        (450, "true colours, 630, 550, 450 nm"),
        (540, "false colours, 840, 640, 540 nm"),
        (7500, "false colours, 7940, 7800, 7660 nm"),
    ],
)
def test_composite_names_the_bands_it_shows(folder, monkeypatch, first, title):
    nm = first + 20.0 * np.arange(BANDS)
    inspected = inspect_file(str(folder / "cube.img"), {"wavelengths": nm.tolist(), "wavelength_unit": "nm"})
    titles = []
    monkeypatch.setattr("hsfusion.plots.composite_figure", lambda rgb, *, title: titles.append((rgb.shape, title)))
    inspected.figures()
    assert titles == [((LINES, SAMPLES, 3), f"cube: {title}")]


WRONG = {
    "no file": (["labels=labels.npy"], "files is missing, expected one file"),
    "two files": (["cube.img", "labels.npy"], "files is cube.img labels.npy, expected one file"),
    "file that is not there": (["none.img"], "none.img: file is missing"),
    "misspelt key": (["cube.img", "label=labels.npy"], "Fix: did you mean labels?"),
    "misspelt option": (["cube.img", "--plott"], "Fix: did you mean --plot?"),
    "several values": (["cube.img", "nodata=1,2"], "scene.nodata is 1,2, expected one value"),
    "list that cannot be read": (["cube.img", "bad_bands=[ü(]"], "scene.bad_bands is [ü(], expected one value"),
    "table of another length": (["cube.img", "wavelengths=[500, 600]"], "number of wavelengths is 2, expected 30"),
    "wrong unit": (["cube.img", "wavelength_unit=um"], "wavelength units is nanometers, expected um"),
    "labels of another shape": (["cube.img", "labels=small.npy"], "small.npy: shape (rows, columns) is (3, 3)"),
    "damaged file": (["short.img"], "short.img: size is 100 bytes"),
    "description of something else": (["other.yaml"], "_target_ is os.system"),
    "scale that is none": (["cube.img", "scale=true"], "scale is True, expected a number"),
    "description with a wrong key": (["wrong.yaml"], "did you mean labels?"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_words_and_files_are_one_line(folder, monkeypatch, case):
    np.save(folder / "small.npy", np.ones((3, 3), np.uint8))
    (folder / "short.img").write_bytes(b"\0" * 100)
    (folder / "short.hdr").write_text((folder / "cube.hdr").read_text())
    (folder / "other.yaml").write_text("_target_: os.system\ncube: cube.img\n")
    (folder / "wrong.yaml").write_text("cube: cube.img\nlabel: labels.npy\n")
    words, part = WRONG[case]
    monkeypatch.chdir(folder)
    with pytest.raises(InputError) as caught:
        pages.inspect(words)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_error_is_one_line_on_stderr_and_exit_2(hsfusion, folder):
    done = hsfusion("inspect", "none.img", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"hsfusion: error: none\.img: .*, expected .*\. Fix: .*\.\n", done.stderr)


def test_plot_of_labels_is_refused(folder):
    inspected = inspect_file(str(folder / "labels.npy"), {})
    assert inspected.is_labels
    with pytest.raises(InputError, match="expected a cube with values"):
        inspected.figures()


def test_help_lists_keys_and_torch_stays_away(hsfusion, folder):
    done = hsfusion("inspect", "--help", cwd=folder)
    assert done.returncode == 0
    assert "wavelength_unit" in done.stdout
    code = (
        "import sys; from hsfusion.cli.pages import inspect; inspect(['cube.img', '--plot']); "
        "print({'torch', 'lightning', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_script_does_what_the_command_does_and_hides_no_module(folder):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    run = {"cwd": folder, "capture_output": True, "text": True, "env": environment}
    done = subprocess.run([sys.executable, str(SCRIPTS / "inspect.py"), "cube.img"], **run)
    assert done.returncode == 0, done.stderr
    assert "HyMap" in done.stdout
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); sys.modules.pop('inspect', None); "
        "import inspect; print(inspect.signature(len), inspect.__file__)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], **run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(obj, /)")
    assert str(SCRIPTS) not in done.stdout


def test_no_module_beside_a_command_hides_one_of_pythons():
    names = {path.stem for path in Path(pages.__file__).parent.glob("*.py")}
    assert names & set(sys.stdlib_module_names) == set()


def test_a_model_is_told(hsfusion, run, tmp_path):
    done = hsfusion("inspect", str(run), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 100 or str(run) in done.stdout
    facts = rows(done.stdout)
    assert facts["checksum"].startswith("matches header and tensors")
    assert facts["number"].startswith("211: ") and "bands, weight " in done.stdout


def test_fields_that_were_not_tested_have_no_accuracy(hsfusion, run, tmp_path):
    network, header = load_model(run / "model.safetensors")
    assert header.test is not None
    test = {**header.test, "accuracy_seen_fields": None, "accuracy_new_fields": 0.5}
    save_model(tmp_path / "m.safetensors", network, header=replace(header, test=test))
    done = hsfusion("inspect", "m.safetensors", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "accuracy new fields  0.5000" in done.stdout
    assert "accuracy seen fields" not in done.stdout
